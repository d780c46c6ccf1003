"""The outages: for each its cause, its end, and the proof that it was there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil

from devservers.processes import wait_until
from tests.faults import proxy
from tests.faults.proxy import Fault

from .stage import Stage

MARK = "outages:mark"
"""A key of the report's own, from before each outage: it tells which data a server has come back with."""


_ON_THE_WAY = 0.05
"""Seconds after which the last replies of a server that was stopped have arrived."""


class NoOutage(Exception):
    """The outage did not happen: there is nothing to report."""


@dataclass(frozen=True)
class Outage:
    """One row of the report.

    :param title: for people.
    :param causing: a context manager that is the outage. It yields at once; what it appends to the list is the proof.
        It raises :exc:`NoOutage` where there is none.
    :param lasts: whether there is something to wait for: else what happened is over when it has happened.
    """

    name: str
    title: str
    causing: Callable[[Stage, list[str]], AbstractContextManager[None]]
    lasts: bool = True


def _must(condition: object, what: str) -> None:
    if not condition:
        raise NoOutage(f"not seen: {what}")


@contextmanager
def _network(fault: Fault, stage: Stage, proof: list[str]) -> Iterator[None]:
    before = stage.proxy.hits[fault.name]
    with stage.proxy.failing(fault):
        yield
    times = stage.proxy.hits[fault.name] - before
    _must(times, f"{fault.name} at the proxy")
    proof.append(f"the proxy counted {times} × `{fault.name}`")


@contextmanager
def _refusing(stage: Stage, proof: list[str]) -> Iterator[None]:
    # The proxy counts what it closed and one attempt of its own; later attempts are refused by the kernel.
    with _network(proxy.REFUSE, stage, proof):
        accepted = stage.proxy.counters.accepted
        yield
        _must(stage.proxy.counters.accepted == accepted, "that no client was let in")


@contextmanager
def _frozen(stage: Stage, proof: list[str]) -> Iterator[None]:
    stage.redis.freeze()
    try:
        process = psutil.Process(stage.redis.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "a stopped process")
        time.sleep(_ON_THE_WAY)
        counters = stage.proxy.counters
        asked, answered = counters.bytes_to_server, counters.bytes_to_client
        yield
        asked = counters.bytes_to_server - asked
        _must(asked and counters.bytes_to_client == answered, "questions without an answer")
    finally:
        stage.redis.thaw()
    proof.append(f"a stopped process, which was asked {asked} bytes and answered none")


@contextmanager
def _killed(stage: Stage, proof: list[str], *, empty: bool) -> Iterator[None]:
    _set_mark(stage)
    before = stage.redis.pid
    stage.redis.kill()
    _must(not stage.redis.running, "a dead process")
    if empty:
        shutil.rmtree(stage.redis.folder / "appendonlydir")
    yield
    stage.redis.start()
    _must(stage.redis.pid != before, "another process")
    _must(_has_mark(stage) != empty, "the data that it should come back with")
    proof.append(f"another process, which {'does not know' if empty else 'knows'} the key of before")


@contextmanager
def _flushed(stage: Stage, proof: list[str]) -> Iterator[None]:
    _set_mark(stage)
    with stage.redis.client() as redis:
        redis.flushall()
    _must(not _has_mark(stage), "an empty server")
    proof.append("the key of before is gone")
    yield


@contextmanager
def _refusing_writes(stage: Stage, proof: list[str], *, begin: str, end: str, code: str) -> Iterator[None]:
    """:param begin: the command that begins it; `end`: the one that ends it."""
    with stage.redis.client() as redis:
        before = _errors(redis, code)
        redis.execute_command(*begin.split())
    try:
        yield
    finally:
        with stage.redis.client() as redis:
            redis.execute_command(*end.split())
            times = _errors(redis, code) - before
    _must(times, f"answers {code}")
    proof.append(f"the server answered {times} × `{code}`")


def _errors(redis: Any, code: str) -> int:
    found = redis.info("errorstats").get(f"errorstat_{code}", {"count": 0})
    return int(found["count"])


def _set_mark(stage: Stage) -> None:
    with stage.redis.client() as redis:
        redis.set(MARK, "here")


def _has_mark(stage: Stage) -> bool:
    with stage.redis.client() as redis:
        return bool(redis.exists(MARK))


OUTAGES = (
    Outage("refused", "Redis refuses connections", _refusing),
    Outage("hang", "Redis hangs (SIGSTOP)", _frozen),
    Outage("empty", "Redis is killed (SIGKILL) and comes back empty", partial(_killed, empty=True)),
    Outage("aof", "Redis is killed (SIGKILL) and comes back from its AOF", partial(_killed, empty=False)),
    Outage("slow", "every reply is 0.3 s late", partial(_network, proxy.delay(0.3))),
    Outage("flush", "FLUSHALL", _flushed, lasts=False),
    Outage("reset", "connections are reset", partial(_network, proxy.RESET)),
    Outage(
        "garbage", "something else answers on Redis' port", partial(_network, proxy.garbage(b"HTTP/1.1 400\r\n\r\n"))
    ),
    Outage(
        "readonly",
        "the primary becomes a read-only replica",
        partial(_refusing_writes, begin="REPLICAOF 127.0.0.1 1", end="REPLICAOF NO ONE", code="READONLY"),
    ),
    Outage(
        "oom",
        "Redis is out of memory (noeviction)",
        partial(_refusing_writes, begin="CONFIG SET maxmemory 1", end="CONFIG SET maxmemory 0", code="OOM"),
    ),
)
