"""Calls: which slots they take, what they are given, when they are begun anew, and what becomes of their errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from devservers.processes import LONG
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.sql import calls as module
from flask_langpont_session.stores.sql.bulkhead import Bulkhead
from flask_langpont_session.stores.sql.calls import Calls
from flask_langpont_session.stores.sql.engines import OWN_SHARE
from flask_langpont_session.stores.sql.errors import OwnTransaction
from flask_langpont_session.support.lag import PROCESS, Lag, Wait
from tests.support.clock import Clock
from tests.support.fake_sql import Connections, Schema, fails_first, refused

DEADLOCK, NO_TABLE, READ_ONLY, LOCKED, BUSY, SYNTAX = "40P01", "42P01", "25006", "55P03", "53300", "42601"


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def schema() -> Schema:
    return Schema()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def calls(connections: Connections, schema: Schema, clock: Clock) -> Iterator[Calls]:
    calls = Calls(connections, schema, timeout=LONG, concurrency=2, clock=clock)  # type: ignore[arg-type]
    yield calls
    calls.close()


def slots_of(calls: Calls) -> str:
    """Return the kind of slot that a call takes, as the call itself sees it."""
    kinds = {"request": calls.requests, "patient": calls.patient, "probe": calls.probes}
    [taken] = [kind for kind, bulkhead in kinds.items() if bulkhead.busy]
    return taken


@pytest.mark.parametrize(
    ("timeout", "kind"),
    [(None, "request"), (LONG, "request"), (LONG + 1, "patient"), (Wait(LONG + 1, LONG + 1), "request")],
    ids=["none said", "a request's", "longer", "longer, of a request"],
)
def test_a_call_that_has_more_time_takes_no_slot_of_requests(
    calls: Calls, connections: Connections, timeout: float | None, kind: str
) -> None:
    """It is none of a request, unless it says so; the database is told to be as patient."""
    assert calls.in_request(lambda: slots_of(calls), timeout) == kind
    assert connections.patience_given == ([LONG + 1] if kind == "patient" else [])


def test_writes_are_kept_apart_from_the_callers_transaction(calls: Calls, connections: Connections) -> None:
    """Reads need not be."""
    calls.in_request(lambda: None, None, writing=False)
    assert connections.lent == []
    calls.in_request(lambda: None, None)
    calls.patiently(lambda: None)
    assert connections.lent == ["beside the caller"] * 2


@pytest.mark.parametrize(("timeout", "patience"), [(1.0, [0.5]), (LONG, [])])
def test_a_short_probe_learns_why_before_its_time_is_over(
    calls: Calls, connections: Connections, schema: Schema, timeout: float, patience: list[float]
) -> None:
    """The database gives up after half of it. What a probe has reached has its tables."""
    seen: list[str] = []
    calls.probe(lambda: seen.append(slots_of(calls)), timeout, writing=True)
    assert (seen, connections.patience_given) == (["probe"], patience)
    assert schema.was_there


def test_a_probe_whose_predecessor_hangs_says_that_nothing_answers(
    calls: Calls, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes at once, by a process that is on time. A probe has a slot to itself: that this is taken is no
    limit of our own."""
    monkeypatch.setattr(Lag, "is_behind", False)
    over = threading.Event()
    with pytest.raises(StoreError):
        calls.probe(lambda: assert_in_time(over), 0.0, writing=True)
    with pytest.raises(StoreError) as caught:
        calls.probe(lambda: None, LONG, writing=True)
    over.set()
    assert (caught.value.error_class, caught.value.timed_out) == (ErrorClass.UNREACHABLE, True)
    assert not schema.was_there


def assert_in_time(over: threading.Event) -> None:
    assert over.wait(LONG)


def test_a_lock_that_keeps_a_probe_waiting_is_of_more_than_one_row(calls: Calls) -> None:
    """Its rows are its alone. In a request it may be that of one user."""
    for is_probe in (False, True):
        with pytest.raises(StoreError) as caught:
            if is_probe:
                calls.probe(fail(refused(LOCKED)), LONG, writing=True)
            else:
                calls.in_request(fail(refused(LOCKED)), None)
        assert caught.value.error_class is ErrorClass.WRITE_REFUSED
        assert caught.value.may_be_one_row is not is_probe


def fail(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


# -- begun anew --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 20])
def test_what_was_rolled_back_for_another_one_is_begun_anew(calls: Calls, connections: Connections, times: int) -> None:
    """The call is begun anew as often as it takes: on a busy machine it can be after many others. Each try has the
    time that is left."""
    assert calls.in_request(fails_first(refused(DEADLOCK), times), None) == "answer"
    assert len(connections.patience_given) == times
    assert all(0 < seconds <= LONG for seconds in connections.patience_given)


@pytest.mark.parametrize(("is_behind", "is_answered"), [(True, True), (False, False)])
def test_a_lock_that_a_late_process_waits_for_is_asked_for_again(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, is_behind: bool, is_answered: bool
) -> None:
    """A thread of the same process may have it, and be late as well."""
    error = OSError("locked")
    error.sqlite_errorname = "SQLITE_BUSY"  # type: ignore[attr-defined]
    monkeypatch.setattr(Lag, "is_behind", is_behind)
    call = fails_first(error, 1)
    if is_answered:
        assert calls.in_request(call, None) == "answer"
    else:
        with pytest.raises(StoreError, match="OSError"):
            calls.in_request(call, None)


@pytest.mark.parametrize("sqlstate", [READ_ONLY, SYNTAX, LOCKED])
def test_what_would_fail_again_is_not_begun_anew(calls: Calls, sqlstate: str) -> None:
    """The caller is told; what the driver said, which may quote values, is not in the chain of causes either."""
    with pytest.raises(StoreError) as caught:
        calls.in_request(fails_first(refused(sqlstate), 1), None)
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None


def test_nothing_is_begun_anew_when_the_time_is_over(
    calls: Calls, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds for a transaction that was rolled back for another one: each try takes two fifths of what is
    granted."""
    monkeypatch.setattr(PROCESS, "passed", lambda: clock.now)
    tries: list[float] = []

    def taken_back() -> None:
        tries.append(clock.now)
        clock.now += LONG * OWN_SHARE * 2 / 5
        raise refused(DEADLOCK)

    with pytest.raises(StoreError) as caught:
        calls.in_request(taken_back, None)
    assert caught.value.error_class is ErrorClass.BUSY
    assert len(tries) == 3


def test_tables_that_may_be_made_are_made_and_the_call_is_repeated(calls: Calls, schema: Schema) -> None:
    """Once; where they may not be made the caller is told what is missing."""
    with pytest.raises(StoreError) as caught:
        calls.in_request(fails_first(refused(NO_TABLE), 1), None)
    assert (caught.value.error_class, schema.mended) == (ErrorClass.NO_TABLES, 0)
    schema.mends = True
    assert calls.in_request(fails_first(refused(NO_TABLE), 1), None) == "answer"
    assert schema.mended == 1
    with pytest.raises(StoreError):
        calls.in_request(fails_first(refused(NO_TABLE), 2), None)
    assert schema.mended == 2


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sqlstate", "is_distrusted"), [(READ_ONLY, True), (SYNTAX, True), (BUSY, False)])
def test_connections_are_distrusted_once_after_an_error_that_may_lead_elsewhere(
    calls: Calls, connections: Connections, sqlstate: str, is_distrusted: bool
) -> None:
    """Connections to a busy database are not distrusted: it shall not be asked for new ones as well."""
    calls.distrust_if_ill()
    assert connections.distrusted == 0
    with pytest.raises(StoreError):
        calls.in_request(fail(refused(sqlstate)), None)
    calls.distrust_if_ill()
    calls.distrust_if_ill()
    assert connections.distrusted == int(is_distrusted)


def test_the_callers_own_transaction_is_complained_of_once_in_a_while(
    calls: Calls, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the developer can mend it; a line per request would say no more."""
    with caplog.at_level(logging.ERROR, logger=module.__name__):
        for passed, lines in ((0.0, 1), (59.9, 1), (0.1, 2)):
            clock.now += passed
            with pytest.raises(StoreError, match="own transaction") as caught:
                calls.in_request(fail(OwnTransaction()), None)
            assert caught.value.error_class is ErrorClass.LOCAL
            assert len(caplog.records) == lines
    assert "commit it before the session is changed" in caplog.text


def test_calls_of_every_kind_are_cut_off(calls: Calls, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of each bulkhead are cut off if they were given up longer ago than the granted time."""
    told: list[tuple[Bulkhead, float]] = []
    monkeypatch.setattr(Bulkhead, "cut_off", lambda bulkhead, moment: told.append((bulkhead, moment)))
    calls.end_overdue(2.0)
    assert told == [(bulkhead, clock.now - 2.0) for bulkhead in (calls.requests, calls.probes, calls.patient)]
