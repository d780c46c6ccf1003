"""A circuit breaker that is told and asked. Pure: it does no I/O and takes the time as an argument.

Requests may open it; only the monitor closes it. There is no half-open traffic of users: while it is open, the
monitor's probes stand for them, and two good ones in a row are needed (one could be luck in a flapping network).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class Breaker:
    """One direction (reads or writes) of one store.

    :param threshold: cheap failures in a row that open it. A time-out opens it at once: the next request would
        have to wait as long again.
    """

    threshold: int = 3
    opened_at: float | None = None
    cause: str = ""
    _failures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def closed(self) -> bool:
        """Whether requests may use the store."""
        return self.opened_at is None

    def succeeded(self) -> None:
        """A request was answered. Says nothing while the breaker is open: that answer may be an old one."""
        if self._failures and self.opened_at is None:
            self._failures = 0

    def failed(self, now: float, cause: str, *, at_once: bool) -> bool:
        """A request failed. Returns True when this failure opened the breaker.

        :param now: monotonic seconds.
        :param cause: what happened, for operators: an error class, never a driver's text.
        :param at_once: do not count, open.
        """
        with self._lock:
            self._failures += 1
            if self.opened_at is not None or not (at_once or self._failures >= self.threshold):
                return False
            self.opened_at, self.cause = now, cause
            return True

    def renew_lock(self) -> None:
        """In a forked child: the thread that held it is not there."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """The monitor found the store healthy, and everything that waited for it has been replayed."""
        with self._lock:
            self.opened_at, self.cause, self._failures = None, "", 0
