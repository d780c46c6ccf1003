"""ActiveSessions: the index that workers keep in Redis, and the number that one of them publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry
from redis.cluster import RedisCluster

from devservers.processes import free_port, wait_until
from devservers.servers import Valkey
from flask_langpont_session.metrics.notes import MOST_NOTES, Notes
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.ops.cli.commands import langpont
from flask_langpont_session.ops.exporters import session_index as active
from flask_langpont_session.ops.exporters.session_index import BUCKETS, MEMBER_LENGTH, ActiveSessions
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.testing import switched_off
from tests.support.clock import Clock

from .conftest import MakeApp, parts
from .counting import wait_for_monitors
from .exporters_site import be_quiet

HOUR = 3_600_000


def digest(number: int) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(sha256(b"%d" % number).digest()).decode().rstrip("=")


class Commands:
    """The store of an application, and what was asked of it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.prefix = store.prefix
        self.calls: list[Sequence[tuple[Any, ...]]] = []

    def run_commands(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        self.calls.append(commands)
        found: list[Any] = self._store.run_commands(commands, timeout=timeout)
        return found


class Workers:
    """Several workers' indexes over one Redis."""

    def __init__(self, app: Flask) -> None:
        self.redis = Commands(parts(app).backend.primary)
        self.recorder = Recorder()
        self.up = True
        self.clock = Clock()

    def __call__(self, interval: float = 60) -> ActiveSessions:
        return ActiveSessions(self.redis, self.recorder, is_up=lambda: self.up, interval=interval, clock=self.clock)


@pytest.fixture
def workers(make_app: MakeApp) -> Workers:
    return Workers(make_app())


# -- the index ---------------------------------------------------------------------------------------------------------


def test_a_session_counts_once_whichever_worker_serves_it(workers: Workers, primary: Valkey) -> None:
    """Two workers, 300 sessions each, 100 of them the same: 500; every key is one of a few, in a slot of its own."""
    one, two = workers(), workers()
    for number in range(300):
        one.notes.served(digest(number), HOUR)
        two.notes.served(digest(number + 200), HOUR)
    one.update()
    assert one.number == 300
    two.update()
    assert two.number == 500
    with primary.client() as redis:
        keys = set(redis.keys("*active*"))
        assert keys == {f"session:active:{{{bucket}}}" for bucket in range(BUCKETS)} | {"session:active:lease"}
        assert all(redis.pttl(key) > 0 for key in keys)
        members = [member for key in keys if "lease" not in key for member in redis.zrange(key, 0, -1)]
    assert sorted(members) == sorted(digest(number)[:MEMBER_LENGTH] for number in range(500))
    for commands in workers.redis.calls:
        assert len({command[1] for command in commands if len(command) > 1}) == 1  # one slot per round trip
        assert {command[0] for command in commands} <= {
            "TIME", "SET", "ZADD", "PEXPIRE", "ZREMRANGEBYSCORE", "ZCOUNT",
        }  # fmt: skip


def test_an_ended_session_does_not_come_back(workers: Workers) -> None:
    """Another worker served it before, and brings its note after the end was brought; or serves a late request."""
    one, two = workers(), workers()
    one.notes.served(digest(1), HOUR)
    two.notes.served(digest(1), HOUR)
    one.notes.served(digest(2), HOUR)
    one.notes.ended(digest(1))
    one.update()
    assert one.number == 1
    two.update()
    assert two.number == 1
    two.notes.served(digest(1), HOUR)
    two.notes.ended(digest(2))
    two.notes.served(digest(2), HOUR)  # in the same interval
    two.update()
    assert two.number == 0


def test_a_session_that_is_not_used_runs_out(workers: Workers, primary: Valkey) -> None:
    """A session runs out by the clock of Redis; the worker that publishes takes it out, ended ones a while later."""
    worker, other = workers(interval=0.001), workers()
    worker.notes.served(digest(1), 200)
    worker.notes.served(digest(2), HOUR)
    worker.notes.ended(digest(3))
    worker.update()
    assert worker.number == 2

    def look() -> int | None:
        worker.update()
        return worker.number

    wait_until(lambda: look() == 1, "the first has run out")
    with primary.client() as redis:
        wait_until(lambda: look() == 1 and _size(redis) == 2, "it is taken out: the second and the ended one are left")
    other.update()
    assert workers.recorder.counters()["sessions_expired"] == 1  # once, and not the one that was ended


def _size(redis: Any) -> int:
    return sum(redis.zcard(f"session:active:{{{bucket}}}") for bucket in range(BUCKETS))


def test_a_note_that_lay_here_for_long_is_not_longer_for_it(workers: Workers) -> None:
    """While Redis was away the time went on: a session that ran out meanwhile is not counted."""
    worker = workers()
    worker.notes.served(digest(1), 10_000)
    worker.notes.served(digest(2), HOUR)
    workers.up = False
    worker.update()
    workers.clock.now += 11
    workers.up = True
    worker.update()
    assert worker.number == 1


def test_one_worker_publishes(workers: Workers, primary: Valkey) -> None:
    """The worker that gets the lease, once in an interval; another one takes over when it is free again."""
    one, two = workers(), workers()
    one.notes.served(digest(1), HOUR)
    one.update()
    two.update()
    assert (one.number, two.number) == (1, 1)
    assert (one.take(), two.take()) == (1, None)
    assert one.take() is None
    with primary.client() as redis:
        assert 0 < redis.pttl("session:active:lease") <= 54_000
        redis.delete("session:active:lease")
    two.update()
    one.update()
    assert (one.take(), two.take()) == (None, 1)


def test_nothing_is_said_while_redis_does_not_answer(workers: Workers, primary: Valkey) -> None:
    """And what was noted meanwhile is brought when it does."""
    worker = workers(interval=0.001)
    worker.notes.served(digest(1), HOUR)
    worker.update()
    primary.kill()
    worker.notes.served(digest(2), HOUR)
    worker.notes.ended(digest(1))
    worker.update()
    assert (worker.number, worker.take()) == (None, None)
    primary.start()

    def look() -> int | None:
        worker.update()
        return worker.number

    wait_until(lambda: look() == 1, "the number")


# -- notes -------------------------------------------------------------------------------------------------------------


def test_notes_are_bounded(workers: Workers) -> None:
    """A worker that cannot bring them does not grow."""
    worker = workers()
    workers.up = False
    for number in range(MOST_NOTES + 10):
        worker.notes.served(str(number), HOUR)
        worker.notes.ended(f"e{number}")
    worker.update()
    assert list(map(len, worker.notes.take())) == [MOST_NOTES, MOST_NOTES]


def noted(notes: Notes) -> tuple[dict[str, float], set[str]]:
    """Return the notes that are to be brought to Redis, and leave them there."""
    served, ended = notes.take()
    notes.keep(dict(served), set(ended))
    return served, ended


class Refusing:
    """A Redis that refuses the notes, while requests go on."""

    prefix = "session"

    def __init__(self) -> None:
        self.cause = "ResponseError"
        self.meanwhile: Callable[[], None] = lambda: None

    def run_commands(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        if commands[0][0] == "TIME":
            return [(1, 0), None]
        self.meanwhile()
        if self.cause:
            raise StoreError("primary", ErrorClass.IDENTITY_REFUSED, self.cause)
        return [0] * len(commands)


def test_notes_that_come_back_are_bounded_too() -> None:
    """The bound includes notes of requests that were served while the others could not be brought to Redis."""
    redis = Refusing()
    worker = ActiveSessions(redis, Recorder(), is_up=lambda: True, interval=60)
    fresh = iter(range(1_000_000))

    def serve() -> None:
        for number in islice(fresh, MOST_NOTES):
            worker.notes.served(f"A{number}", HOUR)
            worker.notes.ended(f"B{number}")

    redis.meanwhile = serve
    for _ in range(3):
        worker.update()
        assert list(map(len, noted(worker.notes))) == [MOST_NOTES, MOST_NOTES]


def test_a_refusal_is_said_once_per_cause(caplog: pytest.LogCaptureFixture) -> None:
    """The log says a refusal once, with what the index needs, and once that it is over."""
    redis = Refusing()
    worker = ActiveSessions(redis, Recorder(), is_up=lambda: True, interval=60)
    for cause in ("NoPermissionError", "NoPermissionError", "ResponseError", "", ""):
        redis.cause = cause
        worker.update()
    first, second, over = caplog.messages
    assert "NoPermissionError" in first and "6.2" in first and "ZADD" in first
    assert "ResponseError" in second
    assert over == "sessions in use are counted again"


def test_a_user_that_may_not_keep_the_index_is_told(
    workers: Workers, primary: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """The refusal of a real server is told; the sessions themselves need no sorted sets."""
    worker = workers()
    worker.notes.served(digest(1), HOUR)
    with primary.client() as redis:
        redis.execute_command("ACL", "SETUSER", "default", "-zadd")
        try:
            worker.update()
        finally:
            redis.execute_command("ACL", "SETUSER", "default", "+zadd")
    assert worker.number is None
    [line] = [record.getMessage() for record in caplog.records if record.name == active.__name__]
    assert "identity refused (right: +zadd is missing" in line
    worker.update()
    assert worker.number == 1


def test_a_worker_that_publishes_nothing_does_not_lead(workers: Workers, primary: Valkey) -> None:
    """It brings its notes, and leaves the rest to those that do."""
    program, worker = workers(), workers()
    program.notes.served(digest(1), HOUR)
    program.update(may_lead=False)
    assert (program.number, program.take()) == (1, None)
    worker.update()
    assert worker.take() == 1


# -- in a cluster ------------------------------------------------------------------------------------------------------


class OnCluster:
    """Sends each round trip to the node that has its key, as it is: a key of another node is refused."""

    prefix = "session"

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    def run_commands(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        [key] = {command[1] for command in commands if len(command) > 1}
        with self._cluster.get_node_from_key(key).redis_connection.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            found: list[Any] = pipeline.execute()
        return found


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Valkey]]:
    """Two nodes of a cluster, with half of the slots each."""
    buses = [free_port(), free_port()]
    options = [("--cluster-enabled", "yes", "--cluster-port", str(bus)) for bus in buses]
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(Valkey(tmp_path / name, appendonly=False, extra=extra))
            for name, extra in zip(("one", "two"), options, strict=True)
        ]
        one, two = (stack.enter_context(node.client()) for node in nodes)
        one.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        two.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        one.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, buses[1])

        def agree() -> bool:
            return all("cluster_state:ok" in str(node.execute_command("CLUSTER", "INFO")) for node in (one, two))

        wait_until(agree, "the cluster")
        yield nodes


def test_the_index_is_spread_over_a_cluster(nodes: list[Valkey]) -> None:
    """Every round trip goes to one slot, the sets lie on both nodes, and the sum is right."""
    with RedisCluster(host="127.0.0.1", port=nodes[0].port) as cluster:
        one, two = (ActiveSessions(OnCluster(cluster), Recorder(), is_up=lambda: True, interval=60) for _ in range(2))
        for number in range(300):
            one.notes.served(digest(number), HOUR)
            two.notes.served(digest(number + 200), HOUR)
        two.notes.ended(digest(499))
        one.update()
        two.update()
        assert (one.number, two.number) == (300, 499)
        assert (one.take(), two.take()) == (300, None)
    sets = []
    for node in nodes:
        with node.client() as client:
            sets.append({key for key in client.keys("session:active:{*") if client.type(key) == "zset"})
    assert all(sets) and len(sets[0] | sets[1]) == BUCKETS


# -- in an application -------------------------------------------------------------------------------------------------


@pytest.fixture
def app(make_app: MakeApp) -> Iterator[Flask]:
    app = make_app(METRICS=["prometheus"], METRICS_REGISTRY=CollectorRegistry())
    be_quiet(app)
    yield app
    exporting = parts(app).exporting
    assert exporting is not None
    exporting.stop()


def index(app: Flask) -> ActiveSessions:
    exporting = parts(app).exporting
    assert exporting is not None
    return exporting.active


def number(app: Flask) -> int | None:
    index(app).update()
    return index(app).number


def test_the_number_follows_what_visitors_do(app: Flask) -> None:
    """A visitor counts from the first write, as one session through sign-in, and no longer after the sign-out."""
    visitor, user, passer_by = (app.test_client() for _ in range(3))
    passer_by.get("/who")
    assert number(app) == 0
    visitor.post("/set", json={"lang": "jp"})
    user.post("/set", json={"lang": "jp"})
    assert number(app) == 2
    user.post("/login/7")
    assert number(app) == 2
    user.get("/who")
    visitor.get("/all")
    assert number(app) == 2
    user.post("/logout")
    assert number(app) == 2  # the language goes on, in an anonymous session
    with app.app_context():
        assert user.get("/who").json == {"user": None, "level": 0, "lang": "jp"}


def test_a_user_logged_out_everywhere_does_not_count(app: Flask) -> None:
    """Sessions of the user stop counting on all devices at once; others stay."""
    clients = [app.test_client() for _ in range(3)]
    for client, user in zip(clients, ("7", "7", "8"), strict=True):
        client.post(f"/login/{user}")
    assert number(app) == 3
    app.session_interface.revoke_user("7", app)  # type: ignore[attr-defined]
    clients[0].get("/who")
    assert number(app) == 1


def forget(app: Flask, primary: Valkey) -> None:
    """Remove the index from Redis, with nothing left that waits for it."""
    wait_for_monitors()
    index(app).update()
    with primary.client() as redis:
        redis.delete(*redis.keys("session:active*"))
    assert number(app) == 0


def to_be_brought(app: Flask) -> int:
    """Return the number of served sessions that are to be brought to Redis."""
    return len(noted(index(app).notes)[0])


def test_a_read_is_noted_when_it_gives_a_longer_life(app: Flask, primary: Valkey) -> None:
    """A read is noted once in a quarter of the life, whichever worker reads; of a visitor Redis decides that."""
    client = app.test_client()
    client.post("/set", json={"lang": "jp"})
    forget(app, primary)
    client.get("/get/lang")
    assert to_be_brought(app) == 0
    with primary.client() as redis:
        [key] = redis.keys("session:ui:*")
        life = redis.pttl(key)
        redis.pexpire(key, life // 2)
    client.get("/get/lang")
    assert to_be_brought(app) == 1
    assert number(app) == 1
    client.get("/get/lang")
    assert to_be_brought(app) == 0


def test_of_a_user_it_is_noted_when_the_database_is_asked(app: Flask, primary: Valkey) -> None:
    """The answer is a lease for all workers, so they ask once in a while; after a loss of data at once."""
    client = app.test_client()
    client.post("/login/7")
    client.get("/who")
    index(app).update()
    for _ in range(3):
        client.get("/who")
    assert to_be_brought(app) == 0
    wait_for_monitors()
    with primary.client() as redis:
        redis.flushall()
    assert client.get("/who").json["user"] == "7"  # type: ignore[index]
    assert to_be_brought(app) == 1
    assert number(app) == 1


def test_it_counts_until_the_moment_that_the_database_has(app: Flask, primary: Valkey) -> None:
    """A session counts no longer than by its row: the database does not move that expiry at every use."""
    client = app.test_client()
    client.post("/login/7")
    [row] = parts(app).backend.database.sessions_of("7")
    forget(app, primary)
    with primary.client() as redis:
        redis.delete(*redis.keys("session:auth:*"))
    client.get("/who")
    assert number(app) == 1
    with primary.client() as redis:
        found = [
            score for key in redis.keys("session:active:{*") for _, score in redis.zrange(key, 0, -1, withscores=True)
        ]
    assert found == [pytest.approx(row.idle_expires_at, abs=2000)]


def test_memory_does_not_decide_what_is_noted(app: Flask) -> None:
    """A worker remembers no session once its notes are brought, however many sessions there are."""
    client = app.test_client()
    for number_ in range(5):
        app.test_client().post(f"/login/{number_}")
    client.post("/set", json={"lang": "jp"})
    assert number(app) == 6
    assert not [name for name, value in vars(index(app)).items() if isinstance(value, (dict, set)) and value]


def test_a_session_that_a_command_ended_does_not_count(app: Flask) -> None:
    """The command takes the session out of the index itself, because none of its threads would; the session does not
    run out later."""
    client = app.test_client()
    client.post("/login/7")
    assert number(app) == 1
    done = app.test_cli_runner().invoke(langpont, ["sessions", "revoke", "--user", "7"])
    assert done.exit_code == 0, done.output
    assert noted(index(app).notes) == ({}, set())
    assert index(app).number == 0


def test_requests_do_not_touch_the_index(app: Flask, primary: Valkey) -> None:
    """They note; the thread brings it. Before the first interval is over Redis has no index at all."""
    client = app.test_client()
    for _ in range(3):
        client.post("/set", json={"lang": "jp"})
        client.get("/get/lang")
    with primary.client() as redis:
        assert redis.keys("session:active*") == []
    assert number(app) == 1


def test_an_outage_leaves_the_index_in_peace(app: Flask) -> None:
    """A session that is served from copies meanwhile is in use all the same."""
    client = app.test_client()
    client.post("/login/7")
    assert number(app) == 1
    with switched_off(app, "primary"):
        assert client.get("/who").json["user"] == "7"  # type: ignore[index]
        assert number(app) is None
    assert number(app) == 1
