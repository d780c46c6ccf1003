"""One question per key at a time: which threads share an answer, which ask anew, and that none waits for ever."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from devservers.processes import LONG
from flask_langpont_session.exceptions import LangPontSessionError
from flask_langpont_session.support import single_flight as module
from flask_langpont_session.support.single_flight import FlightLate, SingleFlight, wait_for
from tests.support.children import in_child_of_locked


class Question:
    """A question whose answer is waited for until it is given, or which raises an error then."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        self.asked = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self._error = error

    def __call__(self, seconds: float) -> str:
        self.asked += 1
        self.begun.set()
        assert self.may_end.wait(LONG)
        if self._error:
            raise self._error
        return "answer"


class CountedSingleFlight(SingleFlight[str]):
    """A single flight that counts the threads that have begun to wait for another one's question."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        super().__init__(self.count)

    def count(self, landed: threading.Event, seconds: float) -> bool:
        self.waiting.release()
        return wait_for(landed, seconds)


def never(seconds: float) -> str:
    raise AssertionError("asked, although the same question is under way")


def under_way(
    pool: ThreadPoolExecutor, single_flight: SingleFlight[str], question: Question, key: str = "k"
) -> Future[Any]:
    """A thread has asked and has no answer yet."""
    first = pool.submit(single_flight.ask, key, question, LONG)
    assert question.begun.wait(LONG)
    return first


def join(
    pool: ThreadPoolExecutor,
    single_flight: CountedSingleFlight,
    count: int = 1,
    question: Callable[[float], str] = never,
) -> list[Future[Any]]:
    """Let so many other threads wait for the answer to the question that is under way.

    :param question: what one of them would ask for itself.
    """
    others = [pool.submit(single_flight.ask, "k", question, LONG) for _ in range(count)]
    for _ in range(count):
        assert single_flight.waiting.acquire(timeout=LONG)
    return others


def test_a_thread_alone_asks() -> None:
    """Each question that follows another is asked anew, and the answer is one's own."""
    single_flight: SingleFlight[str] = SingleFlight()
    answers = iter("ab")
    assert single_flight.ask("k", lambda seconds: next(answers), LONG) == ("a", False)
    assert single_flight.ask("k", lambda seconds: next(answers), LONG) == ("b", False)


def test_no_answer_is_an_answer() -> None:
    """None is shared like anything else: the database says that there is no such row."""
    single_flight: SingleFlight[None] = SingleFlight()
    assert single_flight.ask("k", lambda seconds: None, LONG) == (None, False)


def test_a_thread_that_asks_the_same_meanwhile_waits_for_that_answer() -> None:
    """One question for all of them; they learn that it is not their own."""
    single_flight = CountedSingleFlight()
    question = Question()
    with ThreadPoolExecutor(10) as pool:
        first = under_way(pool, single_flight, question)
        others = join(pool, single_flight, count=9)
        question.may_end.set()
        assert first.result(LONG) == ("answer", False)
        assert [other.result(LONG) for other in others] == [("answer", True)] * 9
    assert question.asked == 1


def test_another_key_is_another_question() -> None:
    """A session that hangs holds up no other one."""
    single_flight: SingleFlight[str] = SingleFlight()
    question = Question()
    with ThreadPoolExecutor(1) as pool:
        first = under_way(pool, single_flight, question)
        assert single_flight.ask("other", lambda seconds: "own", LONG) == ("own", False)
        question.may_end.set()
        assert first.result(LONG) == ("answer", False)


def test_an_answer_is_not_kept() -> None:
    """Once it is there, the next one asks anew: the answer would begin to age otherwise."""
    single_flight = CountedSingleFlight()
    question = Question()
    with ThreadPoolExecutor(2) as pool:
        first = under_way(pool, single_flight, question)
        [other] = join(pool, single_flight)
        question.may_end.set()
        assert first.result(LONG)[1] is False
        assert other.result(LONG)[1] is True
    assert single_flight.ask("k", lambda seconds: "newer", LONG) == ("newer", False)


class StoreDown(Exception):
    """An error that a question may raise."""


class TimedOut(Exception):
    """The error of a question whose asker had less time than the store may take."""

    timed_out = True


def test_another_thread_s_time_out_is_not_the_store_s() -> None:
    """I11: the first request had nearly spent its budget. One of those that wait asks anew in the time left."""
    single_flight = CountedSingleFlight()

    question, given = Question(TimedOut), list[float]()

    def anew(seconds: float) -> str:
        given.append(seconds)
        return "answer"

    with ThreadPoolExecutor(2) as pool:
        first = under_way(pool, single_flight, question)
        [other] = join(pool, single_flight, question=anew)
        question.may_end.set()
        with pytest.raises(TimedOut):
            first.result(LONG)
        assert other.result(LONG) == ("answer", False)
    assert 0 < given[0] < LONG


def test_a_thread_without_time_left_asks_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer could not come in time."""
    monkeypatch.setattr(module, "LEAST_WAIT", 2 * LONG)
    single_flight = CountedSingleFlight()

    question = Question(TimedOut)
    with ThreadPoolExecutor(2) as pool:
        first = under_way(pool, single_flight, question)
        [other] = join(pool, single_flight)
        question.may_end.set()
        assert isinstance(first.exception(LONG), TimedOut)
        assert isinstance(other.exception(LONG), FlightLate)


def test_what_it_raises_is_raised_for_all() -> None:
    """A hundred requests on a database that is down do not ask a hundred times either. Nothing of it is kept."""
    single_flight = CountedSingleFlight()

    question = Question(StoreDown)
    with ThreadPoolExecutor(4) as pool:
        first = under_way(pool, single_flight, question)
        others = join(pool, single_flight, count=3)
        question.may_end.set()
        assert [type(future.exception(LONG)) for future in (first, *others)] == [StoreDown] * 4
    assert question.asked == 1
    assert single_flight.ask("k", lambda seconds: "well again", LONG) == ("well again", False)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_thread_interrupts_no_other(interruption: type[BaseException]) -> None:
    """A worker's signal handler that raised in one thread is no answer for the others."""
    single_flight = CountedSingleFlight()

    question = Question(interruption)
    with ThreadPoolExecutor(2) as pool:
        first = under_way(pool, single_flight, question)
        [other] = join(pool, single_flight, question=lambda seconds: "own")
        question.may_end.set()
        assert isinstance(first.exception(LONG), interruption)
        assert other.result(LONG) == ("own", False)


def test_no_thread_waits_longer_than_asked() -> None:
    """The thread that asked first may hang for ever."""
    single_flight: SingleFlight[str] = SingleFlight()
    question = Question()
    with ThreadPoolExecutor(1) as pool:
        first = under_way(pool, single_flight, question)
        with pytest.raises(FlightLate) as caught:
            single_flight.ask("k", never, 0.001)
        assert isinstance(caught.value, LangPontSessionError)
        question.may_end.set()
        assert first.result(LONG) == ("answer", False)


def test_each_application_has_its_own() -> None:
    """The same key in another application is another session."""
    one: SingleFlight[str] = SingleFlight()
    other: SingleFlight[str] = SingleFlight()
    question = Question()
    with ThreadPoolExecutor(1) as pool:
        first = under_way(pool, one, question)
        assert other.ask("k", lambda seconds: "other", LONG) == ("other", False)
        question.may_end.set()
        assert first.result(LONG) == ("answer", False)


def test_a_forked_child_asks_for_itself() -> None:
    """The thread that asked does not exist in the child: waiting for it would be waiting for ever."""
    single_flight: SingleFlight[str] = SingleFlight()
    question = Question()
    with ThreadPoolExecutor(1) as pool:
        first = under_way(pool, single_flight, question)
        # Another thread may hold the lock at the moment of a fork. Python warns of any fork beside threads.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert in_child_of_locked(
                single_flight, lambda: single_flight.ask("k", lambda seconds: "child", 5.0) == ("child", False)
            )
        question.may_end.set()
        assert first.result(LONG) == ("answer", False)


def test_many_threads_at_once() -> None:
    """Each gets an answer that was asked after it came or was under way then, for its own key."""
    single_flight: SingleFlight[str] = SingleFlight()

    def ask(number: int) -> bool:
        key = str(number % 5)
        return all(single_flight.ask(key, lambda seconds: key, LONG)[0] == key for _ in range(300))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    for number in range(5):
        assert single_flight.ask(str(number), lambda seconds: "newer", LONG) == ("newer", False)
