"""The way of one request through the stores: what it may still ask, and how long it may still wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE, Health, Listeners
from flask_langpont_session.request.scope import (
    FIRST,
    FIRST_ANSWERS,
    LEAST_AT_LAST,
    LOAD,
    SAVE,
    VERIFY,
    RequestScope,
    StoreCall,
)
from flask_langpont_session.support import lag
from flask_langpont_session.support.lag import LEAST_WAIT, Lag
from tests.support.clock import Clock

TIMEOUTS = {PRIMARY: 0.2, REPLICA: 0.2, DATABASE: 0.25}


def warm_up(health: Health) -> None:
    """Let the database have answered many requests."""
    for _ in range(FIRST_ANSWERS):
        health.succeeded(DATABASE, READ)


class Request:
    """A request scope with the parts around it, and stores that take the time they are told to."""

    def __init__(self, budget: float = 0.3) -> None:
        self.clock = Clock()
        self.health = Health([PRIMARY, REPLICA, DATABASE], clock=self.clock)
        warm_up(self.health)
        self.recorder = Recorder()
        self.begin(budget)
        self.waits: list[float] = []

    def begin(self, budget: float = 0.3) -> RequestScope:
        """Begin anew."""
        self.timeouts = dict(TIMEOUTS)
        self.scope = RequestScope(self.health, self.recorder, self.timeouts, budget, self.clock)
        return self.scope

    def ask(
        self,
        store: str = PRIMARY,
        direction: str = READ,
        *,
        timeout: float | None = None,
        takes: float = 0.0,
        fails: ErrorClass | None = None,
        timed_out: bool = False,
    ) -> str:
        if timeout is not None:
            self.timeouts[store] = timeout
        return self.scope.ask(StoreCall("load", store, direction), self.call(store, takes, fails, timed_out))

    def call(
        self, store: str, takes: float = 0.0, fails: ErrorClass | None = None, timed_out: bool = False
    ) -> Callable[..., str]:
        def answer(timeout: float) -> str:
            self.waits.append(round(timeout, 6))
            self.clock.now += takes
            if fails:
                raise StoreError(store, fails, "Test", timed_out=timed_out)
            return "answer"

        return answer


@pytest.fixture
def request_() -> Request:
    return Request()


def test_each_wait_is_the_smaller_of_its_own_and_what_is_left(request_: Request) -> None:
    """I12: all waits come out of one budget."""
    request_.ask(timeout=0.2, takes=0.15)
    request_.ask(DATABASE, timeout=0.25, takes=0.1)
    request_.ask(timeout=0.2)
    assert request_.waits == [0.2, 0.15, 0.05]


def test_the_journal_leaves_time_for_the_stores(request_: Request) -> None:
    """A session of which a busy journal cannot say in time what waits is asked for elsewhere; I12 as for any wait."""
    request_.scope.note(request_.call("journal", takes=0.9), share=1 / 3)
    request_.ask(timeout=0.2, takes=0.15)
    request_.scope.note(request_.call("journal", takes=0.05))
    request_.scope.note(request_.call("journal"))
    # With nothing left it has a little: it is the last that can keep it.
    assert request_.waits == [0.1, 0.2, 0.05, 0.05]


def test_with_nothing_left_no_store_is_asked(request_: Request) -> None:
    """It could not answer in time. That is our own limit and no failure of the store."""
    request_.ask(timeout=0.3, takes=0.3 - LEAST_WAIT / 2)
    with pytest.raises(StoreError) as caught:
        request_.ask(DATABASE)
    assert len(request_.waits) == 1
    assert caught.value.error_class is ErrorClass.LOCAL
    assert not request_.scope.can(DATABASE, READ)
    assert request_.scope.can(DATABASE, WRITE)
    assert not request_.health.open_stores()


@pytest.mark.parametrize(
    ("error_class", "lost"),
    [
        (ErrorClass.UNREACHABLE, {READ, WRITE}),
        (ErrorClass.BUSY, {READ, WRITE}),
        (ErrorClass.IDENTITY_REFUSED, {READ, WRITE}),
        (ErrorClass.WRITE_REFUSED, {WRITE}),
        (ErrorClass.TOPOLOGY, {READ, WRITE}),
        (ErrorClass.LOCAL, {READ, WRITE}),
        (ErrorClass.DATA, set()),
    ],
)
def test_a_store_that_failed_is_out_for_the_rest_of_the_request(
    request_: Request, error_class: ErrorClass, lost: set[str]
) -> None:
    """It is not asked twice; a store with one damaged record is as good as before."""
    with pytest.raises(StoreError):
        request_.ask(PRIMARY, WRITE, fails=error_class)
    assert {way for way in (READ, WRITE) if not request_.scope.can(PRIMARY, way)} == lost
    assert request_.scope.can(REPLICA, READ)
    assert request_.scope.can(DATABASE, READ)
    assert request_.scope.primary_is_healthy == (not lost)


@pytest.mark.parametrize("error_class", ErrorClass)
def test_health_hears_of_what_concerns_it(request_: Request, error_class: ErrorClass) -> None:
    """I11: three errors in three requests; data, limits and topology open no breaker."""
    for _ in range(3):
        scope = request_.begin()
        with pytest.raises(StoreError):
            scope.ask(LOAD, request_.call(PRIMARY, fails=error_class))
    assert bool(request_.health.open_stores()) == (error_class.value in "UBWAN")


@pytest.mark.parametrize(
    ("failures", "level", "is_busy"),
    [
        ([ErrorClass.LOCAL, ErrorClass.LOCAL], 2, True),
        ([ErrorClass.UNREACHABLE, ErrorClass.LOCAL], 4, False),
        ([ErrorClass.LOCAL, ErrorClass.UNREACHABLE], 4, False),
    ],
    ids=["busy", "down-then-no-time", "busy-then-down"],
)
def test_the_level_follows_what_this_request_has_seen(
    request_: Request, failures: list[ErrorClass], level: int, is_busy: bool
) -> None:
    """It is at level 1 with a replica as soon as its primary failed, whatever the breakers still believe; at level 4
    when the database is away as well, and not when that is only too busy: what is written is kept at level 2."""
    assert request_.scope.level == 0
    with pytest.raises(StoreError):
        request_.ask(fails=ErrorClass.UNREACHABLE)
    assert request_.scope.level == 1
    assert request_.scope.view.reader == REPLICA
    with pytest.raises(StoreError):
        request_.ask(REPLICA, fails=ErrorClass.UNREACHABLE)
    assert request_.scope.level == 2
    for error_class in failures:
        with pytest.raises(StoreError):
            request_.ask(DATABASE, fails=error_class)
    assert (request_.scope.level, request_.scope.view.is_busy) == (level, is_busy)
    assert request_.health.level == 0


def test_a_view_never_grows(request_: Request) -> None:
    """A store that comes back in the middle of a request is for the next one."""
    with pytest.raises(StoreError):
        request_.ask(fails=ErrorClass.UNREACHABLE, timed_out=True)
    assert request_.health.open_stores()
    request_.health.close(PRIMARY, (READ, WRITE))
    assert not request_.scope.can(PRIMARY, READ)
    assert RequestScope(request_.health, request_.recorder, TIMEOUTS, 0.3).can(PRIMARY, READ)


@pytest.mark.parametrize(("way", "answers"), [("attempt", ["answer", None, None]), ("did", [True, False, False])])
def test_an_attempt_is_not_made_where_it_cannot_succeed(request_: Request, way: str, answers: list[object]) -> None:
    """Nothing is raised, and nothing asked of a store that has failed the request."""
    ask = getattr(request_.scope, way)
    calls = [request_.call(PRIMARY, fails=fails) for fails in (None, ErrorClass.UNREACHABLE, None)]
    assert [ask(SAVE, call) for call in calls] == answers
    assert len(request_.waits) == 2
    assert request_.scope.did(VERIFY, lambda timeout: None)


def test_everything_asked_is_recorded(request_: Request) -> None:
    """Store, outcome and time, for a look at it later."""
    request_.ask(takes=0.01)
    with pytest.raises(StoreError):
        request_.ask(takes=0.02, fails=ErrorClass.WRITE_REFUSED)
    series = {(o.source, o.outcome): round(s.seconds, 6) for o, s in request_.recorder.series().items()}
    assert series == {("primary", "ok"): 0.01, ("primary", "write_refused"): 0.02}


class LateProcess(Lag):
    """One that is late by as much as the test says."""

    was_late = 0.0
    behind = False

    def late(self, now: float | None = None) -> float:
        return self.was_late

    @property
    def is_behind(self) -> bool:
        return self.behind


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> LateProcess:
    """The process of the requests that begin from now on."""
    process = LateProcess()
    monkeypatch.setattr(lag, "of", lambda clock: process)
    return process


def time_out(request: Request, late: LateProcess, seconds: float, *, budget: float = 0.3) -> StoreError:
    """A time-out after 0.25 s of the database, in which the process was late by so much."""
    scope = request.begin(budget)

    def answer(timeout: float) -> str:
        request.clock.now += 0.25
        late.was_late += seconds
        raise StoreError(DATABASE, ErrorClass.UNREACHABLE, "DeadlineExceeded", timed_out=True)

    with pytest.raises(StoreError) as caught:
        scope.ask(VERIFY, answer)
    return caught.value


def test_a_time_out_of_a_late_process_is_not_charged_to_the_store(late: LateProcess) -> None:
    """I21: the monitor is asked to look, and the log can say what happened."""
    request, looked = Request(), list[str]()
    request.health = Health([PRIMARY, DATABASE], clock=request.clock, listeners=Listeners(store_failed=looked.append))
    warm_up(request.health)
    error = time_out(request, late, 0.18)
    assert (error.error_class, error.timed_out, error.sent) == (ErrorClass.LOCAL, True, True)
    assert "no answer within 250 ms (this process was late by 180 ms)" in str(error)
    assert not request.health.open_stores()
    assert looked == [DATABASE]


@pytest.mark.parametrize(("seconds", "behind", "is_lost"), [(0.0, False, 1), (0.04, False, 1), (0.0, True, 0)])
def test_a_time_out_of_a_process_that_is_on_time_is_the_stores(
    request_: Request, late: LateProcess, seconds: float, behind: bool, is_lost: int
) -> None:
    """At once, and with what was waited; unless the last second was such that it may be the process all the same."""
    late.behind = behind
    error = time_out(request_, late, seconds)
    assert "no answer within 250 ms" in str(error)
    assert bool(request_.health.open_stores()) == is_lost


def test_a_call_cut_short_by_the_budget_opens_no_breaker(request_: Request, late: LateProcess) -> None:
    """The store was not given its time: the monitor does not have to look at it."""
    looked = list[str]()
    request_.health = Health([PRIMARY, DATABASE], clock=request_.clock, listeners=Listeners(store_failed=looked.append))
    warm_up(request_.health)
    error = time_out(request_, late, 0.0, budget=0.2)
    assert (error.error_class, error.cause) == (ErrorClass.LOCAL, "RequestBudgetSpent")
    assert (request_.health.open_stores(), looked) == (frozenset(), [])


def test_failures_that_are_no_time_outs_count_however_late_the_process_is(request_: Request, late: LateProcess) -> None:
    """A refusal is one however late the process is."""
    late.behind = True
    for _ in range(3):
        scope = request_.begin()
        with pytest.raises(StoreError):
            scope.ask(LOAD, request_.call(PRIMARY, fails=ErrorClass.UNREACHABLE))
    assert request_.health.open_stores()


def test_lateness_does_not_come_out_of_the_budget(request_: Request, late: LateProcess) -> None:
    """Nor does it make a store a slow one; and no call uses up more than it was given."""
    scope, waits = request_.begin(), list[float]()

    def answer(timeout: float) -> None:
        waits.append(round(timeout, 6))
        request_.clock.now += 1.0
        late.was_late += 0.9

    def answer_late(timeout: float) -> None:
        waits.append(round(timeout, 6))
        request_.clock.now += 1.0

    scope.ask(LOAD, answer)
    request_.timeouts[DATABASE] = 0.05
    scope.ask(VERIFY, answer_late)
    scope.ask(LOAD, answer)
    assert waits == [0.2, 0.05, 0.15]
    series = {o.source: round(s.seconds, 6) for o, s in request_.recorder.series().items()}
    assert series == {"primary": 0.2, "database": 1.0}


@pytest.fixture
def fresh() -> Request:
    """A request of a process whose database has not answered yet."""
    request = Request()
    request.health = Health([PRIMARY, REPLICA, DATABASE], clock=request.clock)
    request.begin()
    return request


def test_the_first_answers_of_the_database_are_waited_for(fresh: Request) -> None:
    """D18: however long a Redis that is away was waited for. It does not come out of the budget; later ones do."""
    with pytest.raises(StoreError):
        fresh.ask(takes=0.3, fails=ErrorClass.UNREACHABLE, timed_out=True, timeout=0.3)
    for _ in range(FIRST_ANSWERS):
        fresh.ask(DATABASE, timeout=0.25, takes=0.5)
    with pytest.raises(StoreError, match="RequestBudgetSpent"):
        fresh.ask(DATABASE, WRITE, timeout=0.25)
    assert fresh.waits == [0.3, *[FIRST] * FIRST_ANSWERS]
    assert fresh.scope.can(DATABASE, READ)


def test_a_first_answer_that_does_not_come_is_a_failure(fresh: Request) -> None:
    """It was given more than its time, and none of that is another store's."""
    with pytest.raises(StoreError):
        fresh.ask(DATABASE, timeout=0.25, takes=FIRST, fails=ErrorClass.UNREACHABLE, timed_out=True)
    assert fresh.health.open_stores() == {(DATABASE, READ), (DATABASE, WRITE)}
    fresh.ask(timeout=0.2)
    assert fresh.waits == [FIRST, 0.2]


@pytest.mark.parametrize(("takes", "left"), [(0.1, 0.2), (0.28, LEAST_AT_LAST), (0.3, LEAST_AT_LAST)])
def test_what_ends_a_session_is_waited_for_whatever_was_before(request_: Request, takes: float, left: float) -> None:
    """A little, if nearly nothing is left. Else it has what any call has."""
    request_.ask(DATABASE, timeout=0.3, takes=takes)
    request_.scope.spare_some()
    request_.ask(timeout=0.2)
    assert request_.waits == [0.3, left]


def test_giving_up_is_an_error_of_ours() -> None:
    """No other store is blamed for it."""
    error = RequestScope.gave_up(DATABASE, "BreakerOpen")
    assert (error.store, error.cause, error.concerns_health) == (DATABASE, "BreakerOpen", False)
