"""One question per key at a time: a thread that asks the same while it is under way waits for that answer.

A hundred requests of one session whose lease has just run out are one query, not a hundred.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from .errors import LangPontSessionError
from .forks import renew_in_children
from .lag import LEAST_WAIT, Deadline

T = TypeVar("T")


class FlightLate(LangPontSessionError):
    """The answer to the thread that asked first did not come in time."""


class _Unanswered(FlightLate):
    """The asking thread was interrupted or had less time: no result for the threads that wait."""


class _Flight(Generic[T]):
    """A question under way."""

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.answer: T | None = None
        self.error: BaseException | None = None


def wait_for(landed: threading.Event, seconds: float) -> bool:
    """Wait for the end of a question. Return whether it came in time."""
    return Deadline.after(seconds).wait(landed.wait)


class SingleFlight(Generic[T]):
    """Asks one question per key at a time. Usable from any thread. A forked child begins with none under way.

    :param wait: how a thread waits for another one's question: as :func:`wait_for`.
    """

    def __init__(self, wait: Callable[[threading.Event, float], bool] = wait_for) -> None:
        self._wait_for = wait
        self._begin()
        renew_in_children(self, SingleFlight._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, _Flight[T]] = {}

    def ask(self, key: str, question: Callable[[float], T], timeout: float) -> tuple[T, bool]:
        """Return the answer, and whether another thread asked for it, before this call.

        :param question: called, with the seconds that it may take, unless it is under way for that key. What it raises
            is raised in all threads that wait, unless it was a time-out or an interruption: then one of them asks anew.
        :param timeout: seconds to wait for the answer.
        :raises FlightLate: another thread's did not come in time.
        """
        deadline, seconds = Deadline.after(timeout), timeout
        while True:
            with self._lock:
                flight = self._under_way.get(key)
                if flight is None:
                    mine = self._under_way[key] = _Flight[T]()
            if flight is None:
                return self._asked(key, mine, question, seconds), False
            try:
                return self._wait(flight, seconds), True
            except _Unanswered:
                seconds = deadline.left()
                if seconds < LEAST_WAIT:
                    raise

    def _asked(self, key: str, mine: _Flight[T], question: Callable[[float], T], seconds: float) -> T:
        try:
            answer = mine.answer = question(seconds)
        except BaseException as error:
            mine.error = error
            raise
        finally:
            with self._lock:
                self._under_way.pop(key, None)
            mine.landed.set()
        return answer

    def _wait(self, flight: _Flight[T], seconds: float) -> T:
        if not self._wait_for(flight.landed, seconds):
            raise FlightLate("the same question is still under way in another thread")
        if flight.error is None:
            return cast(T, flight.answer)
        if not isinstance(flight.error, Exception) or getattr(flight.error, "timed_out", False):
            raise _Unanswered("the thread that asked the same question has no answer")
        raise flight.error
