"""The lag of a process, and what it does to waits. The time is told by the tests."""

from __future__ import annotations

import math
import os
import threading
import time

import pytest

from devservers.processes import LONG
from flask_langpont_session.support import lag as module
from flask_langpont_session.support.lag import MORE, REST, TICK, TIMES, Deadline, Lag, no_answer, of
from tests.support.children import in_child


class Clock:
    """A clock, and a sleep that ends too late by what is told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.late = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.late


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lag(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Lag:
    """Return a lag whose ticks are made by the test."""
    lag = Lag(clock, clock.sleep)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    lag.attend(lag.clock())
    return lag


def test_what_the_thread_oversleeps_is_what_the_process_was_late(lag: Lag, clock: Clock) -> None:
    """Delays of this thread are delays of the others, too."""
    for clock.late in (0.0, 0.04, 0.0, 0.06):
        lag.tick()
    assert lag.late() == pytest.approx(0.1)
    assert lag.passed() == pytest.approx(clock.now - 0.1)
    assert lag.longest == pytest.approx(0.06)


def test_a_lateness_that_is_not_over_counts_already(lag: Lag, clock: Clock) -> None:
    """A thread that comes out of a wait before this one does must not miss it."""
    lag.tick()
    clock.now += TICK + 0.2
    assert lag.late() == pytest.approx(0.2)
    assert lag.longest == pytest.approx(0.2)
    clock.late = 0.0
    lag.tick()
    assert lag.late() == pytest.approx(0.2)


def test_the_pace_is_that_of_the_last_second_or_two(lag: Lag, clock: Clock) -> None:
    """Half of the time late, and then not any more."""
    assert (lag.pace, lag.is_behind) == (1.0, False)
    clock.late = TICK
    for _ in range(200):
        lag.attend(lag.clock())
        lag.tick()
    assert lag.pace == pytest.approx(0.5, abs=0.05)
    assert lag.is_behind
    clock.late = 0.0
    for _ in range(int(2.2 * REST / TICK)):
        lag.attend(lag.clock())
        lag.tick()
    assert lag.pace == pytest.approx(1.0)


def test_the_thread_rests_while_nothing_is_waited_for(lag: Lag, clock: Clock) -> None:
    """Rest is no lateness, and the next wait wakes it."""
    clock.late = 0.1
    lag.tick()
    clock.late = 0.0
    ticks(lag)
    clock.now += 1000
    assert lag.late() == pytest.approx(0.1)
    assert (lag.longest, lag.pace, lag.rests) == (0.0, 1.0, True)
    lag.attend(lag.clock())
    clock.now += TICK + 0.5
    assert lag.late() == pytest.approx(0.6)


def ticks(lag: Lag) -> int:
    """Return how many ticks there are until the thread rests."""
    number = 1
    while lag.tick():
        number += 1
        assert number < 9 * REST / TICK
    return number


@pytest.mark.parametrize(("seconds", "rests"), [(0.2, 1), (REST, 1), (1.5 * REST, 2), (60 * REST, 2), (math.inf, 2)])
def test_a_longer_wait_is_measured_for_longer(lag: Lag, clock: Clock, seconds: float, rests: int) -> None:
    """Though shorter ones follow. Not until it has to be over: most waits end long before that."""
    Deadline.after(seconds, lag)
    Deadline.after(0.1, lag)
    assert ticks(lag) == pytest.approx(rests * REST / TICK, abs=2)


def test_a_wait_that_an_idle_process_makes_again_and_again_wakes_no_thread(lag: Lag, clock: Clock) -> None:
    """It moves on by what is measured for others."""
    ticks(lag)
    deadline = Deadline.after(0.2, lag, attends=False)
    deadline.renew(clock.now + 0.2, attends=False)
    clock.now += 0.3
    assert deadline.left() == pytest.approx(-0.1)
    assert lag.rests
    deadline.renew(clock.now + 0.2, attends=False)
    lag.attend(clock.now)
    clock.late = 0.3
    lag.tick()
    assert deadline.left() == pytest.approx(0.2 * TIMES)


def test_a_wait_said_while_the_thread_goes_to_rest_is_seen(lag: Lag, clock: Clock) -> None:
    """It is said before the thread is seen to rest, and looked for after that."""

    class Racing(Lag):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "_state" and isinstance(value, tuple) and value[1] == math.inf and self._runs:
                self.attend(clock.now)
            super().__setattr__(name, value)

    racing = Racing(clock, clock.sleep)
    racing.attend(clock.now)
    while racing.tick():
        pass
    clock.now += TICK + 0.5
    assert racing.late() == pytest.approx(0.5)


def test_a_system_without_threads_measures_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits are as long as they were meant; the next one tries again."""

    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lag = Lag(clock, clock.sleep)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        deadline = Deadline.after(1.0, lag)
    clock.now += 2
    assert deadline.left() == pytest.approx(-1.0)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    lag.attend(lag.clock())
    clock.now += 2
    assert lag.late() > 1


def test_a_deadline_is_one_on_time_for_a_process_that_is(lag: Lag, clock: Clock) -> None:
    """The deadline is exact to the millisecond."""
    deadline = Deadline.after(0.2, lag)
    for _ in range(20):
        lag.tick()
    assert deadline.left() == pytest.approx(0.0)
    lag.tick()
    assert deadline.left() < 0
    assert (deadline.late, lag.overtimes) == (0.0, 0)


def test_a_wait_of_a_late_process_goes_on(lag: Lag, clock: Clock) -> None:
    """The wait goes on for a second, once; and the monitor is told that there is such a wait."""
    told, dropped = threading.Event(), threading.Event()
    lag.on_overtime.update({told, dropped})
    del dropped
    deadline = Deadline.after(0.25, lag)
    clock.late = 0.18
    lag.tick()
    clock.late = 0.0
    for _ in range(7):
        lag.tick()
    assert deadline.late == pytest.approx(0.18)
    assert (lag.overtimes, told.is_set()) == (0, False)
    assert deadline.left() == MORE
    assert (lag.overtimes, told.is_set()) == (1, True)
    assert set(lag.on_overtime) == {told}
    clock.now += 0.4
    assert deadline.left() == pytest.approx(MORE - 0.4)
    clock.now += 0.7
    assert deadline.left() < 0
    assert lag.overtimes == 1


def test_a_process_that_was_stopped_has_its_time(lag: Lag, clock: Clock) -> None:
    """The process has its time however long it was stopped: what it waits for may have been stopped as well."""
    deadline = Deadline.after(0.1, lag)
    clock.late = 3600.0
    lag.tick()
    assert deadline.left() == pytest.approx(0.1 * TIMES)


def test_one_thread_may_be_later_than_the_one_that_measures(lag: Lag, clock: Clock) -> None:
    """The pace of the last second counts, if nothing was measured during the wait itself."""
    clock.late = TICK
    for _ in range(80):
        lag.attend(clock.now)
        lag.tick()
    clock.late = 0.0
    deadline = Deadline.after(TICK / 2, lag)
    lag.tick()
    assert deadline.late == 0
    assert deadline.left() == pytest.approx(TICK / 2 * TIMES)


def test_what_came_meanwhile_is_taken(lag: Lag, clock: Clock) -> None:
    """After the time is over there is a look, with nothing left there is one, too."""
    for seconds in (0.2, 0.0, -1.0):
        deadline, waits = Deadline.after(seconds, lag), list[float]()

        def attempt(seconds: float, waits: list[float] = waits) -> bool:
            waits.append(seconds)
            clock.now += seconds
            return seconds == 0

        assert deadline.wait(attempt)
        assert waits[-1] == 0.0
        assert len(waits) <= 3


def test_what_has_not_come_is_not_waited_for_for_ever(lag: Lag, clock: Clock) -> None:
    """Each wait is as long as what is left."""
    deadline, waits = Deadline.after(0.2, lag), list[float]()

    def attempt(seconds: float) -> bool:
        waits.append(seconds)
        clock.now += seconds
        return False

    assert not deadline.wait(attempt)
    assert waits == pytest.approx([0.2, MORE, 0.0])  # the thread never came to measure anything


def test_a_told_clock_is_never_late(clock: Clock) -> None:
    """Only what goes by the real clock is measured."""
    assert of(clock).late() == 0
    assert of(time.monotonic) is module.PROCESS


def test_what_is_said() -> None:
    """Milliseconds, and the lateness only where there was some."""
    assert no_answer(0.25, 0.0) == "no answer within 250 ms"
    assert no_answer(0.25, 0.18) == "no answer within 250 ms (this process was late by 180 ms)"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_the_real_one_measures_in_forked_children_too() -> None:
    """Their thread is their own; a pure computation of another thread is seen."""

    def computes() -> bool:
        lag = Lag()
        lag.attend(lag.clock())
        return computed(lag)

    def computed(lag: Lag) -> bool:
        over = threading.Event()
        threads = [threading.Thread(target=lambda: all(iter(lambda: not over.is_set(), False))) for _ in range(6)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + LONG
        while not lag.is_behind and time.monotonic() < deadline:
            lag.attend(lag.clock())
            time.sleep(0.01)
        longest = lag.longest  # which is forgotten while the threads end, on a busy machine
        over.set()
        for thread in threads:
            thread.join()
        return lag.late() > 0 and longest > 0

    def threads() -> int:
        return [thread.name for thread in threading.enumerate()].count("langpont-session-lag")

    assert computes()
    parent = Lag()
    parent.attend(time.monotonic())

    def in_it() -> bool:
        assert (threads(), parent.late()) == (0, 0.0)
        parent.attend(time.monotonic())
        return threads() == 1 and computed(parent)

    assert os.getpid()
    assert in_child(in_it)
