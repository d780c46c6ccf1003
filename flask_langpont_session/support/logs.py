"""What the lines of the log have in common: their data for logs in JSON, and when the same is not said again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


def fields(event: str, /, **data: object) -> dict[str, object]:
    """The data of a line, for ``extra=``. The names begin with ``langpont_``, so that they meet no attribute of a log
    record and no field of the application.

    >>> fields("store_slow", store="primary")
    {'langpont_event': 'store_slow', 'langpont_store': 'primary'}

    :param event: what the line says, in snake_case; no other line of the package has it.
    :param data: the values that stand in the text, as numbers and words. What may not stand there may not stand here.
    """
    return {"langpont_event": event, **{f"langpont_{name}": value for name, value in data.items()}}


class Once:
    """Says the same once in so many seconds, where each request may meet it.

    Threads that meet it at the same moment may both say it: there is no lock, which a process that is forked meanwhile
    would have for ever.

    :param clock: seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._said: dict[str, float] = {}

    def is_due(self, what: str = "") -> bool:
        """Whether it is to be said now. If so, it counts as said.

        :param what: of several things, of which each is said once; a closed set.
        """
        now = self._clock()
        if now - self._said.get(what, -math.inf) < self._seconds:
            return False
        self._said[what] = now
        return True


class Failing:
    """Whether something fails that is tried again and again: said when it begins, and when it is over. For one thread.

    :ivar problem: why it fails; None: it works, or was not tried yet.
    """

    def __init__(self) -> None:
        self.problem: str | None = None

    def begins(self, problem: str = "") -> bool:
        """It fails. Whether that is new: it worked before, or failed for another reason.

        :param problem: why; always the same one where another reason is not to be said.
        """
        before, self.problem = self.problem, problem
        return problem != before

    def ends(self) -> bool:
        """It works. Whether that is new."""
        before, self.problem = self.problem, None
        return before is not None
