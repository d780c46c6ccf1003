"""Breakers and the level that follows from them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from flask_langpont_session.policy.breaker import Breaker
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import (
    DATABASE,
    PRIMARY,
    READ,
    REPLICA,
    WRITE,
    Health,
    HealthLimits,
    HealthSnapshot,
    Listeners,
)
from tests.support.clock import Clock

ERROR = StoreError(PRIMARY, ErrorClass.UNREACHABLE, "Test")


def fail(health: Health, store: str, kind: ErrorClass = ErrorClass.UNREACHABLE, *, hang: bool = False) -> None:
    health.failed(StoreError(store, kind, "Test", timed_out=hang), READ)


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health([PRIMARY, REPLICA, DATABASE], clock=clock)


@pytest.mark.parametrize(
    ("calls", "pause", "opens_at", "is_closed"),
    [
        ("xxoxxx|xx", 1.0, [5], True),  # an answer begins the count anew, and so does the end of an outage
        ("xxxo", 0.0, [2], False),  # the answer may be that of a request sent before: only the monitor closes
        ("ox" * 6, 0.0, [11], False),  # half of ten calls; the good one before the first bad one is not counted
        ("ox" * 100, 1.0, [], True),  # rare failures among rare calls never add up: two seconds count
        ("xoo" * 50, 0.0, [], True),  # a third is not half
    ],
    ids=["three in a row", "not closed by an answer", "half of them", "within two seconds", "few of many"],
)
def test_a_breaker_opens_by_failures_in_a_row_or_by_their_share(
    calls: str, pause: float, opens_at: list[int], is_closed: bool
) -> None:
    """x: a cheap failure, so many seconds after the one before; o: an answer; |: the monitor closes."""
    breaker, now, opened = Breaker(), 1.0, []
    for number, call in enumerate(calls):
        if call == "x":
            now += pause
            if breaker.failed(now, ERROR, at_once=False):
                opened.append(number)
        elif call == "o":
            breaker.succeeded(0.0)
        else:
            breaker.close()
    assert (opened, breaker.closed) == (opens_at, is_closed)


@pytest.mark.parametrize(("kind", "hang"), [(ErrorClass.UNREACHABLE, True), (ErrorClass.IDENTITY_REFUSED, False)])
def test_what_the_next_request_would_meet_again_opens_at_once(health: Health, kind: ErrorClass, hang: bool) -> None:
    """It would have to wait as long; and a wrong password does not get better by trying."""
    fail(health, PRIMARY, kind, hang=hang)
    assert health.open_stores() == {(PRIMARY, READ), (PRIMARY, WRITE)}


def test_only_one_of_many_threads_opens_a_breaker() -> None:
    """The event of an opening is sent once, however many requests saw the failure."""
    breaker = Breaker()
    with ThreadPoolExecutor(20) as threads:
        assert sum(threads.map(lambda _: breaker.failed(1.0, ERROR, at_once=True), range(20))) == 1


@pytest.mark.parametrize("kind", [ErrorClass.DATA, ErrorClass.LOCAL, ErrorClass.TOPOLOGY])
def test_one_users_data_never_changes_the_level(health: Health, kind: ErrorClass) -> None:
    """I11: whatever one user stores or sends, the breakers do not hear of it."""
    for _ in range(100):
        fail(health, PRIMARY, kind)
    assert health.level == 0


def test_refused_writes_leave_reads_alone(health: Health) -> None:
    """A primary that is read-only or out of memory still answers: level 1."""
    for _ in range(3):
        health.failed(StoreError(PRIMARY, ErrorClass.WRITE_REFUSED, "OOM"), WRITE)
    assert health.open_stores() == {(PRIMARY, WRITE)}
    assert health.level == 1
    assert health.snapshot().reader == PRIMARY
    assert (health.is_whole(PRIMARY), health.is_whole(REPLICA)) == (False, True)


def test_a_row_that_stays_locked_is_a_suspicion_and_opens_nothing(clock: Clock) -> None:
    """It may be one user's. What a probe meets is no such thing, and counts."""
    suspected: list[str] = []
    health = Health([PRIMARY, DATABASE], clock=clock, listeners=Listeners(store_failed=suspected.append))
    error = StoreError(DATABASE, ErrorClass.WRITE_REFUSED, "Test")
    error.may_be_one_row = True
    assert [health.failed(error, WRITE) for _ in range(20)] == [(WRITE,)] * 20
    assert (health.open_stores(), suspected) == (frozenset(), [DATABASE] * 20)
    error.may_be_one_row = False
    for _ in range(3):
        health.failed(error, WRITE)
    assert health.open_stores() == {(DATABASE, WRITE)}


def test_the_levels_from_0_to_4(health: Health, clock: Clock) -> None:
    """One outage after the other, and what time alone does."""
    seen = [health.level]
    fail(health, PRIMARY, hang=True)
    seen.append(health.level)
    fail(health, REPLICA, hang=True)
    seen.append(health.level)
    clock.now += 1800
    seen.append(health.level)
    fail(health, DATABASE, hang=True)
    seen.append(health.level)
    assert seen == [0, 1, 2, 3, 4]


def test_a_change_of_level_is_reported_once_and_with_time_too(clock: Clock) -> None:
    """2 → 3 comes with time alone; the monitor's refresh notices it."""
    changes: list[tuple[int, int]] = []
    health = Health([PRIMARY, DATABASE], clock=clock, listeners=Listeners(lambda old, new: changes.append((old, new))))
    fail(health, PRIMARY, hang=True)
    fail(health, PRIMARY, hang=True)
    clock.now += 1800
    health.refresh()
    health.refresh()
    health.close(PRIMARY, (READ, WRITE))
    assert changes[:2] == [(0, 2), (2, 3)]
    assert changes[-1][1] == 0


@pytest.mark.parametrize("lost", range(2**4))
def test_what_a_view_says_follows_from_what_is_up(lost: int) -> None:
    """The reader and the level of every view, also of one that has lost something, are those of a new one."""
    endpoints = [(PRIMARY, READ), (PRIMARY, WRITE), (REPLICA, READ), (DATABASE, READ)]
    gone = [endpoint for bit, endpoint in enumerate(endpoints) if lost >> bit & 1]
    view = HealthSnapshot(frozenset(endpoints), 0.0, 1800)
    for store, direction in gone:
        view = view.without(store, direction)
    assert view == HealthSnapshot(frozenset(endpoints) - set(gone), 0.0, 1800)
    blind = not view.can(PRIMARY) and not view.can(REPLICA)
    assert view.reader == (None if blind else PRIMARY if view.can(PRIMARY) else REPLICA)
    assert view.level == ((2 if view.can(DATABASE) else 4) if blind else 0 if view.can(PRIMARY, WRITE) else 1)


def answers(health: Health, took: float, store: str = PRIMARY, times: int = 1) -> None:
    for _ in range(times):
        health.succeeded(store, READ, took)


@pytest.fixture
def slow(clock: Clock) -> tuple[Health, list[str]]:
    """A health that knows what is slow, and the stores of which it said so."""
    said: list[str] = []
    return Health(
        [PRIMARY, DATABASE], limits=HealthLimits(slow=0.1), listeners=Listeners(store_is_slow=said.append), clock=clock
    ), said


def test_many_slow_calls_are_a_suspicion_and_open_nothing(slow: tuple[Health, list[str]]) -> None:
    """Only a probe can tell whether the store is slow, or this process."""
    health, said = slow
    answers(health, 0.15, times=9)
    assert said == []
    answers(health, 0.15, times=2)
    assert said == [PRIMARY]
    assert not health.open_stores()


def test_slow_calls_are_counted_within_two_seconds_and_against_all_calls(
    slow: tuple[Health, list[str]], clock: Clock
) -> None:
    """A slow one now and then, and slow ones among many good ones, are nothing."""
    health, said = slow
    for _ in range(30):
        answers(health, 0.15)
        clock.now += 0.5
    for _ in range(30):
        answers(health, 0.15)
        answers(health, 0.01, times=2)
    assert said == []


def test_a_database_may_take_its_time(slow: tuple[Health, list[str]]) -> None:
    """It writes to a disk, and has a time-out of its own."""
    health, said = slow
    answers(health, 0.2, DATABASE, times=50)
    assert said == []


def test_what_requests_use_is_said_by_role_and_direction() -> None:
    """One shard that is lost counts for all of its role; a replica is never written."""
    health = Health([f"{PRIMARY}:1", f"{PRIMARY}:2", f"{REPLICA}:1", DATABASE])
    both = {(store, way): True for store in (PRIMARY, DATABASE) for way in (READ, WRITE)}
    assert health.usable() == {**both, (REPLICA, READ): True}
    for _ in range(3):
        fail(health, f"{PRIMARY}:2", ErrorClass.WRITE_REFUSED)
        fail(health, f"{REPLICA}:1")
    assert health.usable() == {**both, (PRIMARY, WRITE): False, (REPLICA, READ): False}


def test_the_cause_of_an_outage_is_the_present_one(clock: Clock) -> None:
    """A store that comes back and refuses the password is not called unreachable any more. Another class is told once;
    when it began stays, and what says nothing of the store changes nothing."""
    changed: list[StoreError] = []
    health = Health([PRIMARY, DATABASE], clock=clock, listeners=Listeners(cause_changed=changed.append))
    refused = StoreError(PRIMARY, ErrorClass.IDENTITY_REFUSED, "wrong password or user")
    health.renew_cause(refused, READ, WRITE)
    assert health.error(PRIMARY) is None
    fail(health, PRIMARY, hang=True)
    began = health.breakers[PRIMARY, READ].opened_at
    clock.now += 5
    for error in (refused, refused, StoreError(PRIMARY, ErrorClass.LOCAL, "LateCommand")):
        health.renew_cause(error, READ, WRITE)
    assert health.error(PRIMARY) is refused
    assert (changed, health.breakers[PRIMARY, READ].opened_at) == ([refused], began)
    health.close(PRIMARY, (READ, WRITE))
    assert health.error(PRIMARY) is None
