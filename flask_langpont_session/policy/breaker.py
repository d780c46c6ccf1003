"""A circuit breaker that is told and asked. Pure: it does no I/O and takes the time as an argument.

Requests may open it; only the monitor closes it. There is no half-open traffic of users: while it is open, the
monitor's probes stand for them, and two good ones in a row are needed (one could be luck in a flapping network).
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

WINDOW = 2.0
"""Seconds over which calls are counted, from the first bad one on."""

LEAST_CALLS = 10
"""Calls in a window before its share of bad ones means anything."""


@dataclass(slots=True)
class _Window:
    """Calls since the first bad one. While all is well there is none, and nothing to count.

    :param since: monotonic seconds.
    """

    since: float
    good: int = 0
    failed: int = 0
    slow: int = 0

    @property
    def calls(self) -> int:
        return self.good + self.failed

    def is_bad(self, bad: int) -> bool:
        return self.calls >= LEAST_CALLS and bad * 2 >= self.calls


@dataclass
class Breaker:
    """One direction (reads or writes) of one store.

    :param threshold: cheap failures in a row that open it; half of the calls in a window do, too, where answers come in
        between. A time-out opens it at once: the next request would have to wait as long again.
    :param answers: that requests had, about.
    :param asked_at: monotonic seconds, when the latest request that had an answer asked for it.
    """

    threshold: int = 3
    opened_at: float | None = None
    cause: str = ""
    answers: int = 0
    asked_at: float = -math.inf
    _failures: int = 0
    _window: _Window | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def closed(self) -> bool:
        """Whether requests may use the store."""
        return self.opened_at is None

    def succeeded(self, asked_at: float) -> None:
        """A request was answered. Says nothing while the breaker is open: that answer may be an old one.

        :param asked_at: monotonic seconds, when it asked.
        """
        self.answers += 1  # a lost addition of two threads at once does not matter
        if asked_at > self.asked_at:
            self.asked_at = asked_at
        if self._window is not None:
            self._window.good += 1
        if self._failures and self.opened_at is None:
            self._failures = 0

    def note_slow(self, now: float) -> bool:
        """Note that a call that succeeded took too long. Returns whether so many did that the monitor should look why.

        :param now: monotonic seconds.
        """
        with self._lock:
            window = self._window_at(now)
            window.slow += 1
            if not window.is_bad(window.slow):
                return False
            self._window = None  # what was looked at need not be looked at again at every call
            return True

    def failed(self, now: float, cause: str, *, at_once: bool) -> bool:
        """A request failed. Returns True when this failure opened the breaker.

        :param now: monotonic seconds.
        :param cause: what happened, for operators: an error class, never a driver's text.
        :param at_once: do not count, open.
        """
        with self._lock:
            self._failures += 1
            window = self._window_at(now)
            window.failed += 1
            bad = at_once or self._failures >= self.threshold or window.is_bad(window.failed)
            if self.opened_at is not None or not bad:
                return False
            self.opened_at, self.cause = now, cause
            return True

    def renew_lock(self) -> None:
        """In a forked child: the thread that held it is not there."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """The monitor found the store healthy, and everything that waited for it has been replayed."""
        with self._lock:
            self.opened_at, self.cause, self._failures, self._window = None, "", 0, None

    def _window_at(self, now: float) -> _Window:
        window = self._window
        if window is None or now - window.since > WINDOW:
            window = self._window = _Window(now)
        return window
