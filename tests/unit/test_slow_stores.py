"""What the monitor does about a store that is slow, or refuses who we are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_langpont_session import LangPontSession
from flask_langpont_session import monitor as module
from flask_langpont_session.extension import state_of
from flask_langpont_session.health import PRIMARY, READ, WRITE
from flask_langpont_session.monitor import Monitor
from flask_langpont_session.stores.base import ErrorClass, StoreError


@pytest.fixture
def monitor(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Monitor:
    """One that is driven by hand, on a fake Redis; how long its probes take is said by the test."""
    import fakeredis

    app = Flask("app", instance_path=str(tmp_path))
    app.config.update(
        TESTING=True, SECRET_KEY="x" * 40, LANGPONT_SESSION_REDIS_CLIENT=fakeredis.FakeRedis(),
        LANGPONT_SESSION_SLOW_MS=100,
    )  # fmt: skip
    LangPontSession(app)
    state_of(app).repository.database.create_tables()
    monkeypatch.setattr(module, "own_lag", lambda: 0.0)
    return state_of(app).monitor


def probing(monitor: Monitor, *seconds: float | StoreError) -> Callable[..., float]:
    """A probe that takes so long, one after the other; the last for ever."""
    left = list(seconds)

    def probe(*arguments: Any, **options: Any) -> float:
        took = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(took, StoreError):
            raise took
        return took

    monitor._repository.primary.probe = probe  # type: ignore[method-assign]
    return probe


def lost(monitor: Monitor) -> set[tuple[str, str]]:
    return set(monitor._health.open_stores())


def test_slowness_that_two_probes_confirm_is_an_outage(monitor: Monitor) -> None:
    """Nobody waits for a store that keeps everybody waiting; when it is quick again it is used again."""
    monitor.tick()
    probing(monitor, 0.15)
    monitor.suspect_slowness(PRIMARY)
    monitor.tick()
    assert lost(monitor) == {(PRIMARY, READ), (PRIMARY, WRITE)}
    for took, is_lost in ((0.15, True), (0.15, True), (0.02, True), (0.02, False)):
        probing(monitor, took)
        monitor._next_probe.clear()
        monitor.tick()
        assert bool(lost(monitor)) is is_lost


def test_one_slow_probe_is_nothing(monitor: Monitor) -> None:
    """It may have been this very moment."""
    monitor.tick()
    probing(monitor, 0.15, 0.02)
    monitor.suspect_slowness(PRIMARY)
    monitor.tick()
    assert not lost(monitor)


def test_a_process_that_lags_accuses_nobody(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 45: with the processor taken away everything looks slow."""
    monitor.tick()
    probing(monitor, 0.15)
    monkeypatch.setattr(module, "own_lag", lambda: 0.2)
    monitor.suspect_slowness(PRIMARY)
    monitor.tick()
    assert not lost(monitor)


def test_who_is_refused_probes_less_often(monitor: Monitor) -> None:
    """Class A opens at once, and gets better only when somebody changes something."""
    pauses = {}
    for kind in (ErrorClass.UNREACHABLE, ErrorClass.IDENTITY_REFUSED):
        error = StoreError(PRIMARY, kind, "Test", timed_out=True)
        monitor._health.failed(error, READ)
        probing(monitor, error)
        for _ in range(8):
            monitor._next_probe.clear()
            monitor.tick()
        pauses[kind] = monitor._pauses[PRIMARY]
        monitor._pauses.clear()
        for way in (READ, WRITE):
            monitor._health.close(PRIMARY, way)
    assert pauses == {ErrorClass.UNREACHABLE: 1.0, ErrorClass.IDENTITY_REFUSED: 3.0}
