"""Common parts of the log's lines: their data for logs in JSON, and keeping the same line from being repeated."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


def fields(event: str, /, **data: object) -> dict[str, object]:
    """Return the data of a line, for ``extra=``. The names begin with ``langpont_``, so that they meet no attribute of
    a log record and no field of the application.

    >>> fields("store_slow", store="primary")
    {'langpont_event': 'store_slow', 'langpont_store': 'primary'}

    :param event: what the line says, in snake_case; no other line of the package has it.
    :param data: the values that stand in the text, as numbers and words. What may not stand there may not stand here.
    """
    return {"langpont_event": event, **{f"langpont_{name}": value for name, value in data.items()}}


class Once:
    """Lets the same thing be logged once in so many seconds, where each request may meet it.

    Threads that meet it at the same moment may both log it: there is no lock, which a process that is forked meanwhile
    would have for ever.

    :param clock: seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._said: dict[str, float] = {}

    def is_due(self, what: str = "") -> bool:
        """Return whether the thing is to be logged now. If so, it counts as logged.

        :param what: of several things, of which each is said once; a closed set.
        """
        now = self._clock()
        if now - self._said.get(what, -math.inf) < self._seconds:
            return False
        self._said[what] = now
        return True


class Failing:
    """The state of something that is tried again and again: to log when it begins to fail, and when that is over. For
    one thread.

    :ivar problem: why it fails; None: it works, or was not tried yet.
    """

    def __init__(self) -> None:
        self.problem: str | None = None

    def begins(self, problem: str = "") -> bool:
        """Note a failure. Return whether it is new: the last try worked, or failed for another reason.

        :param problem: why; always the same one where another reason is not to be said.
        """
        before, self.problem = self.problem, problem
        return problem != before

    def ends(self) -> bool:
        """Note that it works. Return whether that is new."""
        before, self.problem = self.problem, None
        return before is not None
