"""Questions to AWS in the background: one at a time, not too often, and without a request that waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ..support.chance import CHANCE
from ..support.forks import renew_in_children
from ..support.logs import Failing, fields
from ..support.threads import start_daemon
from .client import explain

log = logging.getLogger(__name__)

SHORTEST_PAUSE, LONGEST_PAUSE = 4.0, 30.0
"""Seconds between two questions of a process while something fails without the answer; doubled each time, with jitter.
Otherwise the pauses after failed questions go on doubling beyond the longest: workers throttled by AWS would keep each
other throttled."""

_SPREAD = 10.0
"""Seconds over which the first questions of workers that start together are spread, if nothing depends on them."""


class BackgroundQuery:
    """One question, asked again and again for as long as the process lives.

    The object has no thread of its own: calls of :meth:`look` start the questions, also in a forked child.

    :param subject: begins every log line: the setting, and the wanted value.
    :param ask: asks AWS and keeps the answer. A changed error is logged in words.
    :param rest: seconds between two questions while all is well; with a fifth of jitter.
    :param clock: monotonic seconds.
    """

    def __init__(
        self, subject: str, ask: Callable[[], None], *, rest: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.subject = subject
        self._failing = Failing()
        self._ask = ask
        self._rest = rest
        self._clock = clock
        self._pause = SHORTEST_PAUSE
        self._thread: threading.Thread | None = None
        self._soonest = self._retry = clock()
        self._next = self._soonest + CHANCE.uniform(0, min(_SPREAD, rest))
        renew_in_children(self, BackgroundQuery._in_child)

    def _in_child(self) -> None:
        # The thread did not follow; and children that are forked together must not ask in step.
        self._thread = None
        self._next = self._retry = self._clock() + CHANCE.uniform(0, self._rest)

    @property
    def problem(self) -> str | None:
        """Return the reason why the last question had no usable answer; None: it had, or no question was asked."""
        return self._failing.problem

    @property
    def busy(self) -> bool:
        """Return whether the question is being asked."""
        return self._thread is not None and self._thread.is_alive()

    def look(self, urgent: bool) -> None:
        """Ask in the background if a question is due. Returns at once.

        :param urgent: something fails until AWS has answered.
        """
        if not urgent and self.problem is None:
            self._pause = SHORTEST_PAUSE
        due = self._soonest if urgent else self._next if self.problem is None else self._retry
        if self._clock() >= due and not self.busy:
            self.begin()

    def begin(self) -> None:
        """Ask in the background, now."""
        self._schedule()
        self._thread = start_daemon("langpont-session-aws", self.ask) or self._thread

    def wait(self, seconds: float) -> None:
        """Wait at most `seconds` for the present question, which goes on afterwards."""
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))

    def ask(self) -> None:
        """Ask in this thread. Never raises."""
        try:
            self._ask()
        except Exception as error:
            # Any error of boto3 or of a strange answer counts as no answer, and the question is asked again later.
            problem = explain(error)
            if self._failing.begins(problem):
                log.warning(
                    "%s: %s", *(self.subject, problem), extra=fields("aws_failed", subject=self.subject, cause=problem)
                )
        else:
            if self._failing.ends():
                log.info("%s: AWS answers again", self.subject, extra=fields("aws_answers", subject=self.subject))

    def _schedule(self) -> None:
        now, pause = self._clock(), self._pause
        self._pause = min(self._rest, pause * 2)
        self._soonest = now + min(LONGEST_PAUSE, pause) * CHANCE.uniform(0.5, 1)
        self._next = now + self._rest * CHANCE.uniform(0.8, 1.2)
        self._retry = now + pause * CHANCE.uniform(0.5, 1)
