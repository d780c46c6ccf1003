"""A forked child begins anew: no lock stays held by a thread that it does not have."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import fakeredis
import pytest
from prometheus_client import CollectorRegistry

from flask_langpont_session.metrics.recorder import Reader, Recorder, Standing
from flask_langpont_session.ops.exporters.prometheus import Collectors
from flask_langpont_session.ops.exporters.session_index import BUCKETS, ActiveSessions
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, Health
from flask_langpont_session.stores.redis.connections import Pool
from flask_langpont_session.stores.redis.dns import DnsCache
from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.link import Link
from flask_langpont_session.stores.redis.nodes import Nodes
from flask_langpont_session.stores.redis.server_identity import Canary, ServerIdentity
from flask_langpont_session.stores.redis.slots import Address
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.stores.redis.topology import ClusterTopology
from flask_langpont_session.support.forks import renew_if_locks_were_exchanged, renew_in_children
from flask_langpont_session.support.threads import PeriodicThread
from tests.support.children import in_child, in_child_of_locked

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


class Counter:
    def __init__(self) -> None:
        self.renewed = 0
        renew_in_children(self, Counter.renew)

    def renew(self) -> None:
        self.renewed += 1


def test_it_is_called_in_the_child_and_not_in_the_parent() -> None:
    """The call is made once per fork; in a child of the child again."""
    counter = Counter()
    assert in_child(lambda: counter.renewed == 1 and in_child(lambda: counter.renewed == 2))
    assert counter.renewed == 0


def test_what_was_made_with_other_locks_begins_anew_before_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """gevent exchanges them in the child, after the fork. In a process that was not forked it does so before anything
    is made, or it is too late."""
    counter, lock = Counter(), threading.Lock

    def exchange_and_look() -> int:
        monkeypatch.setattr(threading, "Lock", lambda: lock())
        try:
            for _ in range(3):
                renew_if_locks_were_exchanged()
        finally:
            monkeypatch.undo()
        return counter.renewed

    assert exchange_and_look() == 0
    assert in_child(lambda: exchange_and_look() == 2)


def test_nothing_is_kept_alive_by_it() -> None:
    """Applications come and go in tests."""
    counter = Counter()
    seen = weakref.ref(counter)
    del counter
    gc.collect()
    assert seen() is None


def test_a_server_identity_can_be_used_in_the_child() -> None:
    """A thread of the parent may be looking at a new connection or a canary at the moment of the fork."""
    server_identity = ServerIdentity()

    def work() -> bool:
        server_identity.observe("a:master:x", now_ms=1, is_primary=True)
        return not server_identity.saw(Canary("g", 1, 2))

    assert in_child_of_locked(server_identity, work)


def test_breakers_can_be_used_in_the_child() -> None:
    """A request of the parent may be telling of a failure at that moment."""
    health = Health([PRIMARY, DATABASE])
    error = StoreError(PRIMARY, ErrorClass.UNREACHABLE, "Test", timed_out=True)
    assert in_child_of_locked(health.breakers[PRIMARY, "read"], lambda: bool(health.failed(error, "read")))


# -- what each part of the package begins anew -------------------------------------------------------------------------


def a_store() -> RedisStore:
    link = Link("primary", fakeredis.FakeRedis(max_connections=2).connection_pool, server_identity=ServerIdentity())
    return RedisStore(Endpoint(link, prefix="session"))


def test_a_redis_store_leaves_its_connections_to_the_parent() -> None:
    """One that lies ready would be read by both; one that is in use in the parent is not in use in the child; and a
    thread of the parent may be looking for one just now."""
    store = a_store()
    pool = store.link.connections
    lying_ready, in_use = take(pool), take(pool)
    pool.put_back(lying_ready)

    def work() -> bool:
        begun = pool.idle, pool.in_use, pool.take_most_in_use()
        own = {take(pool), take(pool)}
        return begun == ([], 0, 0) and len(own) == 2 and not own & {lying_ready, in_use}

    assert in_child_of_locked(pool, work)
    assert (pool.idle, pool.in_use, pool.take_most_in_use()) == ([lying_ready], 1, 2)
    pool.put_back(in_use)
    assert pool.idle == [lying_ready, in_use]


def take(pool: Pool) -> Any:
    return pool.take(time.monotonic() + 5)


def test_a_look_up_of_the_parent_is_none_of_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread stays behind: the child looks the name up itself, whatever lock was held."""
    names, parent, goes_on = DnsCache(), os.getpid(), threading.Event()
    resolve = socket.getaddrinfo

    def hanging(*arguments: Any) -> Any:
        if os.getpid() == parent:
            goes_on.wait(20)
        return resolve(*arguments)

    def work() -> bool:
        return bool(names.addresses("localhost", 6379, time.monotonic() + 5))

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    with pytest.raises(TimeoutError):
        names.addresses("localhost", 6379, 0.0)
    assert in_child_of_locked(names, work)
    goes_on.set()


def test_a_directory_is_asked_in_the_child() -> None:
    """A thread of the parent may be asking a node for the map: the child's first request asks, too."""
    asked: list[Address] = []

    def connect(address: Address, timeout: float) -> Any:
        asked.append(address)
        raise OSError

    directory = ClusterTopology(Nodes(lambda: [Address("127.0.0.1", 1)], lambda: False, {}), connect)

    def work() -> bool:
        with suppress(OSError):
            directory.learn(0.5)
        return len(asked) == 1

    assert in_child_of_locked(directory, work)


class Index:
    """A Redis for the index of sessions in use, which answers until it is said to fail."""

    prefix = "session"
    fails = False

    def run_commands(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        if self.fails:
            raise StoreError(PRIMARY, ErrorClass.UNREACHABLE, "Test")
        return [(1, 0) if command == ("TIME",) else 1 for command in commands]


def test_notes_of_sessions_in_use_are_the_parent_s() -> None:
    """The parent brings them to Redis itself; the child begins with none, and with a lock that is free."""
    active = ActiveSessions(Index(), Recorder(), is_up=lambda: True, interval=60)
    active.update()
    active.notes.served("d" * 43, 60_000)
    active.notes.ended("e" * 43)

    def work() -> bool:
        begun = active.number, active.take(), active.notes.take()
        active.notes.served("f" * 43, 60_000)
        return begun == (None, None, ({}, set())) and list(active.notes.take()[0]) == ["f" * 43]

    assert in_child_of_locked(active.notes, work)
    assert active.number == active.take() == BUCKETS
    assert [list(some) for some in active.notes.take()] == [["d" * 43], ["e" * 43]]


def test_what_is_wrong_with_the_index_is_said_by_the_child_too(caplog: pytest.LogCaptureFixture) -> None:
    """It knows nothing of what its parent has said."""
    redis = Index()
    active = ActiveSessions(redis, Recorder(), is_up=lambda: True, interval=60)
    redis.fails = True

    def says() -> bool:
        caplog.clear()
        active.update()
        return len(caplog.messages) == 1

    assert says()
    assert not says()
    assert in_child(says)


def test_an_exporter_s_threads_begin_in_the_child() -> None:
    """The parent's thread does not exist there: the first request starts another one."""
    ran = threading.Event()
    thread = PeriodicThread("test", lambda: ran.set, 0.01)
    thread.ensure_started()
    assert ran.wait(20)

    def work() -> bool:
        ran.clear()
        thread.ensure_started()
        return ran.wait(5)

    try:
        assert in_child_of_locked(thread, work)
    finally:
        thread.end()
        thread.wait(20)


def test_what_the_parent_shows_is_not_shown_by_the_child() -> None:
    """A gauge of the child is about its own applications, and its lock is free."""
    registry = CollectorRegistry()
    collectors = Collectors(registry)
    of_parent = Reader(Recorder(), lambda: 4, lambda: Standing(in_use={"primary": 5}))
    of_child = Reader(Recorder(), lambda: 0, lambda: Standing(in_use={"primary": 1}))
    collectors.publish(of_parent)

    def work() -> bool:
        collectors.publish(of_child)
        level = registry.get_sample_value("langpont_session_degradation_level")
        in_use = registry.get_sample_value("langpont_session_pool_in_use", {"backend": "primary"})
        return (level, in_use) == (0, 1)

    assert in_child_of_locked(collectors, work)
    assert registry.get_sample_value("langpont_session_degradation_level") == 4
