"""I10: reads that are interrupted anywhere, over plain connections and Sentinel's: no request gets another's session.

A reply that stays unread is the answer to the next question on that connection. So a connection whose reply was not
read to its end is closed; and if a reply should be crossed all the same, the record in it says whose it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask

from devservers.servers import Valkey
from flask_langpont_session.stores.redis.store import RedisStore
from tests.faults.proxy import SWALLOW_REPLY, FaultProxy, delay
from tests.integration.conftest import redis_store
from tests.integration.sentinels import SERVICE, Sentinel

from .conftest import MakeApp
from .crossing import PATIENCE, Readers, fill, read

ROOT = Path(__file__).parents[2]

LATE = 0.004
"""Seconds. Replies come after the next question was asked, if a connection that waits for one is used again."""

SHORT, MUCH_LATER = 0.002, 0.02
"""Seconds: a wait, and a delay that it does not outlast in a late process either, which waits six times as long."""


class Wire:
    """A server behind a proxy, and the URLs that lead there."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self.server = ends.enter_context(Valkey(folder / "server", appendonly=False))
        self.proxy = ends.enter_context(FaultProxy("127.0.0.1", self.server.port))
        # To a sentinel the proxy is the primary: it has a port, and answers.
        sentinel = ends.enter_context(Sentinel(folder / "sentinel", cast(Valkey, self.proxy)))
        self.urls = {
            "plain": self.proxy.url("redis"),
            "sentinel": f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}",
        }


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with ExitStack() as ends:
        yield Wire(tmp_path_factory.mktemp("wire"), ends)


@pytest.fixture
def url(request: pytest.FixtureRequest, wire: Wire) -> str:
    wire.proxy.heal()
    return wire.urls[getattr(request, "param", "plain")]


@pytest.fixture
def app(make_app: MakeApp, url: str) -> Flask:
    """Return an application with many connections: one that is lost while it is given back is not what is tested
    here."""
    return make_app(REDIS_URL=f"{url}{'&' if '?' in url else '?'}max_connections=5000")


@pytest.fixture
def store(app: Flask) -> RedisStore:
    return redis_store(app)


@pytest.fixture
def digests(store: RedisStore) -> list[str]:
    return fill(store, 20)


def test_time_outs_cross_nothing(wire: Wire, store: RedisStore, digests: list[str]) -> None:
    """Replies that come too late, or never, in many threads at a time."""
    readers = [Readers(store, digests, seed) for seed in range(4)]

    def work(reader: Readers) -> None:
        for number in range(60):
            reader.read(PATIENCE if number % 3 == 0 else SHORT)

    with wire.proxy.failing(delay(MUCH_LATER)):
        _in_threads([lambda reader=reader: work(reader) for reader in readers])  # type: ignore[misc]
    for reader in readers:
        read(store, digests[0])
        with wire.proxy.failing(SWALLOW_REPLY):
            reader.read(LATE)
        reader.read()
    seen = sum((reader.seen for reader in readers), Counter[str]())
    assert set(seen) == {"right", "time-out"}
    assert seen["time-out"] >= 50
    assert seen["right"] >= 40


def _in_threads(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a socket that has no owner yet
@pytest.mark.parametrize(
    ("url", "fresh"),
    [("plain", False), ("plain", True), ("sentinel", True)],
    ids=["kept connection", "new connection", "new connection of a sentinel's"],
    indirect=["url"],
)
def test_an_interruption_at_any_moment_crosses_nothing(
    wire: Wire, store: RedisStore, digests: list[str], fresh: bool
) -> None:
    """No error, but a BaseException: between sending and reading, while greeting, while giving back."""
    reader = Readers(store, digests, seed=7)
    step, stride = 1, 11 if fresh else 1
    with wire.proxy.failing(delay(LATE)):
        while True:
            if fresh:
                store.forget_connections()
            else:
                read(store, digests[0])
            if not reader.interrupt(step):
                break
            for _ in range(2):  # at once: the reply that was not read is still on its way
                reader.read()
            step += stride
    assert set(reader.seen) == {"right", "Interruption"}
    assert reader.seen["Interruption"] >= 15


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_children_do_not_read_each_others_replies(wire: Wire, store: RedisStore, digests: list[str]) -> None:
    """Four, forked from a process with connections that it goes on using."""
    read(store, digests[0])
    with wire.proxy.failing(delay(MUCH_LATER)):
        children = [_fork(store, digests, seed) for seed in range(4)]
        parent = Readers(store, digests, seed=9)
        for number in range(40):
            parent.read(SHORT if number % 2 else PATIENCE)
        told = [_report(*child) for child in children]  # while the fault lasts, however late a child begins
    for seen in (*told, parent.seen):
        assert set(seen) == {"right", "time-out"}
        assert min(seen.values()) >= 5


def _fork(store: RedisStore, digests: list[str], seed: int) -> tuple[int, int]:
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            readers = Readers(store, digests, seed)
            for number in range(40):
                readers.read(SHORT if number % 2 else PATIENCE)
            os.write(writer, json.dumps(readers.seen).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    return child, reader


def _report(child: int, reader: int) -> dict[str, int]:
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    found: dict[str, int] = json.loads(text)
    return found


def test_killed_greenlets_cross_nothing(wire: Wire, url: str, tmp_path: Path) -> None:
    """gevent's time-outs and kills are BaseExceptions that come in the middle of a read."""
    command = [sys.executable, "-m", "tests.topologies.greenlets", url, str(tmp_path)]
    with wire.proxy.failing(delay(LATE)):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    seen: Any = json.loads(done.stdout)
    assert set(seen) == {"right", "Timeout", "GreenletExit"}
    assert min(seen.values()) >= 10
