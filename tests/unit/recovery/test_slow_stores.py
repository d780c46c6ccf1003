"""The monitor's answers to a store that is slow, or refuses our credentials."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_langpont_session import LangPontSession
from flask_langpont_session.extension import state_of
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, WRITE
from flask_langpont_session.recovery.monitor import Monitor
from flask_langpont_session.stores.sql.bulkhead import Bulkhead
from flask_langpont_session.stores.sql.database import Database
from flask_langpont_session.support.lag import Lag


@pytest.fixture
def monitor(tmp_path: Any) -> Iterator[Monitor]:
    """Yield a monitor that is driven by hand, on a fake Redis; the test says how long its probes take."""
    import fakeredis

    app = Flask("app", instance_path=str(tmp_path))
    app.config.update(
        TESTING=True, SECRET_KEY="x" * 40, LANGPONT_SESSION_REDIS_CLIENT=fakeredis.FakeRedis(),
        LANGPONT_SESSION_REDIS_TIMEOUT=0.2,
    )  # fmt: skip
    LangPontSession(app)
    state_of(app).backend.database.upkeep.create_tables()
    monitor = state_of(app).monitor
    monitor.probes.prober.lag = Lag()  # which rests: this process is on time
    yield monitor
    state_of(app).close()


def probing(monitor: Monitor, *seconds: float | StoreError) -> Callable[..., float]:
    """A probe that takes so long, one after the other; the last for ever."""
    left = list(seconds)

    def probe(*arguments: Any, **options: Any) -> float:
        took = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(took, StoreError):
            raise took
        return took

    monitor.backend.endpoint(PRIMARY).probe = probe  # type: ignore[method-assign]
    return probe


def lost(monitor: Monitor) -> set[tuple[str, str]]:
    return set(monitor.backend.health.open_stores())


def test_slowness_that_two_probes_confirm_is_an_outage(monitor: Monitor) -> None:
    """No request waits for a store that keeps all requests waiting; when it is quick again it is used again."""
    monitor.tick()
    probing(monitor, 0.15)
    monitor.suspect_slowness(PRIMARY)
    monitor.tick()
    assert lost(monitor) == {(PRIMARY, READ), (PRIMARY, WRITE)}
    for took, is_lost in ((0.15, True), (0.15, True), (0.02, True), (0.02, False)):
        probing(monitor, took)
        monitor.probes.of(PRIMARY).next_at = 0.0
        monitor.tick()
        assert bool(lost(monitor)) is is_lost


def test_one_slow_probe_is_nothing(monitor: Monitor) -> None:
    """It may have been this very moment."""
    monitor.tick()
    probing(monitor, 0.15, 0.02)
    monitor.suspect_slowness(PRIMARY)
    monitor.tick()
    assert not lost(monitor)


def test_a_process_that_lags_accuses_no_store(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 45: with the processor taken away everything looks slow."""
    monitor.tick()
    probing(monitor, 0.15)
    monkeypatch.setattr(Lag, "is_behind", True)
    monitor.suspect_slowness(PRIMARY)
    monitor.tick()
    assert not lost(monitor)


def silent() -> StoreError:
    return StoreError(PRIMARY, ErrorClass.UNREACHABLE, "TimeoutError", timed_out=True)


def test_a_probe_without_an_answer_opens_a_breaker(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a late process, whose probe has waited long enough, if no other thread has had an answer meanwhile."""
    for behind in (False, True):
        monkeypatch.setattr(Lag, "is_behind", behind)
        monitor.tick()
        probing(monitor, silent())
        monitor.suspect(PRIMARY)
        monitor.tick()
        assert lost(monitor) == {(PRIMARY, READ), (PRIMARY, WRITE)}
        probing(monitor, 0.01)
        for _ in range(2):
            monitor.probes.of(PRIMARY).next_at = 0.0
            monitor.tick()
        assert not lost(monitor)


@pytest.mark.parametrize(("silences", "is_lost"), [(2, False), (3, True)])
def test_a_late_process_believes_its_requests_more_than_a_probe(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch, silences: int, is_lost: bool
) -> None:
    """A probe that had no answer while requests had theirs is repeated; but not for ever."""
    monitor.tick()
    monkeypatch.setattr(Lag, "is_behind", True)
    seconds: list[float | StoreError] = [*(silent() for _ in range(silences)), 0.01]
    answer = probing(monitor, *seconds)

    def while_requests_are_answered(*arguments: Any, **options: Any) -> float:
        monitor.backend.health.succeeded(PRIMARY, READ, asked_at=time.monotonic())
        return answer(*arguments, **options)

    monitor.backend.endpoint(PRIMARY).probe = while_requests_are_answered  # type: ignore[method-assign]
    monitor.suspect(PRIMARY)
    monitor.tick()
    assert bool(lost(monitor)) is is_lost


def test_a_process_on_time_believes_its_probe(monitor: Monitor) -> None:
    """A probe without an answer counts although requests got one: they may have used connections to another server."""
    monitor.tick()

    def silence(*arguments: Any, **options: Any) -> float:
        monitor.backend.health.succeeded(PRIMARY, READ, asked_at=time.monotonic())
        raise silent()

    monitor.backend.endpoint(PRIMARY).probe = silence  # type: ignore[method-assign]
    monitor.suspect(PRIMARY)
    monitor.tick()
    assert lost(monitor)


def test_a_wait_that_goes_on_is_reason_to_look(monitor: Monitor) -> None:
    """The monitor looks before the requests of a late process have waited in vain."""
    monitor.tick()
    probing(monitor, silent())
    monitor.tick()
    assert not lost(monitor)
    monitor.probes.prober.lag.overtime()
    monitor.tick()
    assert lost(monitor)


@pytest.mark.parametrize("calls", [0, 1])
def test_a_wait_that_goes_on_is_no_reason_to_look_at_a_database_that_is_not_used(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """A probe of it takes a late process a second, in which it does not look at Redis."""
    monitor.tick()
    probed: list[str] = []
    monkeypatch.setattr(Database, "probe", lambda database, timeout: probed.append(DATABASE))
    monkeypatch.setattr(Bulkhead, "busy", calls)
    monitor.probes.prober.lag.overtime()
    monitor.tick()
    assert set(probed) == ({DATABASE} if calls else set())


def test_the_monitor_survives_an_exception_of_a_round(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its thread no breaker would ever close again."""
    rounds, done = [0], threading.Event()

    def watch() -> None:
        rounds[0] += 1
        if rounds[0] == 1:
            raise ZeroDivisionError
        done.set()

    monkeypatch.setattr(monitor, "watch", watch)
    monitor.ensure_started()
    assert done.wait(30)
    assert "it goes on" in caplog.text
    monitor.stop()


def test_a_client_that_is_refused_probes_less_often(monitor: Monitor) -> None:
    """Class A opens at once, and gets better only when an operator changes something."""
    pauses = {}
    for kind in (ErrorClass.UNREACHABLE, ErrorClass.IDENTITY_REFUSED):
        error = StoreError(PRIMARY, kind, "Test", timed_out=True)
        monitor.backend.health.failed(error, READ)
        probing(monitor, error)
        for _ in range(8):
            monitor.probes.of(PRIMARY).next_at = 0.0
            monitor.tick()
        pauses[kind] = monitor.probes.of(PRIMARY).pause
        monitor.probes.of(PRIMARY).recovered()
        monitor.backend.health.close(PRIMARY, (READ, WRITE))
    assert pauses == {ErrorClass.UNREACHABLE: 1.0, ErrorClass.IDENTITY_REFUSED: 3.0}
