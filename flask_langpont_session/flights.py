"""One question per key at a time: who asks the same while it is under way waits for that answer.

A hundred requests of one session whose lease has just run out are one query, not a hundred.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from .exceptions import LangPontSessionError
from .forks import renew_in_children

T = TypeVar("T")


class FlightLate(LangPontSessionError):
    """The answer of the one who asked first did not come in time."""


class _Flight(Generic[T]):
    """One question under way."""

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.answer: T | None = None
        self.error: BaseException | None = None


class Flights(Generic[T]):
    """Usable from any thread. A forked child begins with none under way."""

    def __init__(self) -> None:
        self._begin()
        renew_in_children(self, Flights._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, _Flight[T]] = {}

    def ask(self, key: str, question: Callable[[], T], timeout: float) -> tuple[T, bool]:
        """The answer, and whether it is somebody else's, whose question began before this one.

        :param question: called unless it is under way for that key. What it raises is raised for all who wait.
        :param timeout: seconds to wait for somebody else's answer.
        :raises FlightLate: it did not come in time.
        """
        with self._lock:
            flight = self._under_way.get(key)
            if flight is None:
                mine = self._under_way[key] = _Flight[T]()
        if flight is not None:
            return self._wait(flight, timeout), True
        try:
            answer = mine.answer = question()
        except BaseException as error:
            mine.error = error
            raise
        finally:
            with self._lock:
                self._under_way.pop(key, None)
            mine.landed.set()
        return answer, False

    def _wait(self, flight: _Flight[T], timeout: float) -> T:
        if not flight.landed.wait(timeout):
            raise FlightLate("somebody else's question is still under way")
        if flight.error is None:
            return cast(T, flight.answer)
        if not isinstance(flight.error, Exception) or getattr(flight.error, "timed_out", False):
            # Who asked was interrupted, or had less time: that says nothing to who waits.
            raise FlightLate("somebody else's question was given up")
        raise flight.error
