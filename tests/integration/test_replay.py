"""I22: no store that is back waits for the merge; what is merged keeps its order. Real servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from devservers.processes import wait_until
from flask_langpont_session.build import State
from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import PRIMARY, READ, WRITE
from flask_langpont_session.stores.host.entries import WIPED_FIELD
from flask_langpont_session.stores.host.journal import Journal, PendingWrite
from flask_langpont_session.stores.redis.store import RedisStore

from .conftest import MakeApp, parts

BOTH = (READ, WRITE)


def name(number: int) -> str:
    """A digest."""
    return f"{number:043}"


def write(digest: str, key: str, value: str, **more: Any) -> PendingWrite:
    about: dict[str, Any] = {"kind": "a", "category": "translation", "operation": Operation.SET, **more}
    return PendingWrite(digest=digest, field=key, value=f'"{value}"'.encode(), moment=time.time_ns() // 1000, **about)


def lose(state: State, *stores: str) -> None:
    for store in stores:
        for way in BOTH:
            state.health.failed(StoreError(store, ErrorClass.UNREACHABLE, "Test", timed_out=True), way)


@contextmanager
def slowed(store: type, method: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Make the method take longer. Yield the times at which it was called, in monotonic seconds."""
    called: list[float] = []
    real = getattr(store, method)

    def slow(*arguments: Any, **more: Any) -> Any:
        called.append(time.monotonic())
        time.sleep(seconds)
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(store, method, slow)
        yield called


def keep_many(journal: Journal, number: int) -> None:
    """Changes of so many sessions; not all in one call, which waits no longer than a request does."""
    for begin in range(0, number, 250):
        journal.put([write(name(each), "input_text", "x") for each in range(begin, min(begin + 250, number))])


# -- many at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [10, -10, 86_400, -86_400])
def test_setting_the_clock_of_a_host_drops_and_undoes_nothing(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """I31, D25: in an outage. What waits is merged, and what was cleared after the clock was set stays so."""
    app = make_app()
    state, by, wall = parts(app), [0.0], time.time
    journal = state.backend.journal
    monkeypatch.setattr(time, "time", lambda: wall() + by[0])
    with state.monitor.paused():
        state.monitor.tick()
        lose(state, PRIMARY)
        journal.put([write(name(1), "input_text", "kept")])
        journal.put([write(name(2), "input_text", "cleared")])
        by[0] = step
        journal.put([replace(write(name(2), WIPED_FIELD, ""), operation=Operation.WIPE, value=None)])
        assert (journal.waiting().oldest_seconds(time.time()) or 0.0) < 1000
        state.monitor.probes.recover(PRIMARY, BOTH)
        state.monitor.recovery.run_once()
        copies = state.backend.primary.copies([(name(n), "translation") for n in (1, 2)], timeout=5)
    assert [bool(copy.fields) for copy in copies] == [True, False]
    assert journal.counts()["writes"] == 0


# -- threads -----------------------------------------------------------------------------------------------------------


def replays() -> set[threading.Thread]:
    """The threads that replay, of all applications."""
    return {thread for thread in threading.enumerate() if thread.name == "langpont-session-replay"}


def test_the_end_of_an_application_ends_the_replay(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay of a large journal ends in the middle; what is left waits."""
    app = make_app()
    state, others = parts(app), replays()
    monkeypatch.setattr("flask_langpont_session.recovery.steps.PIPELINE", 10)
    with slowed(RedisStore, "merge_all", 0.02, monkeypatch) as merged:
        with state.monitor.paused():
            keep_many(state.backend.journal, 3000)
        state.monitor.ensure_started()
        wait_until(lambda: bool(merged), "the replay")
        state.monitor.stop()
        assert replays() <= others
    assert state.backend.journal.counts()["writes"] > 0
