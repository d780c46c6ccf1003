"""The place that figures are sent to: what is common to CloudWatch and to the embedded metric format.

There is one attempt. What the place does not take is counted, logged once, and published when it takes figures again.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

from ...metrics.recorder import Recorder
from ...support.logs import Failing, fields
from .catalogue import METRICS_DROPPED
from .figures import Figures, number

log = logging.getLogger(__name__)


class NotTaken(Exception):
    """The place did not take figures.

    :param cause: why, in words for an operator.
    :param lost: how many data it did not take.
    """

    def __init__(self, cause: str, lost: int) -> None:
        self.cause = cause
        self.lost = lost
        super().__init__(cause)


class Sink(ABC):
    """A place. Made and used in one thread of one process.

    :param recorder: is told what was dropped.
    :cvar place: as the log names it.
    """

    place: str

    def __init__(self, recorder: Recorder, *, environment: str, service: str) -> None:
        self._dimensions = {"environment": environment, "service": service}
        self._recorder = recorder
        self._dropped = 0
        self._failing = Failing()

    def publish(self, found: Figures) -> None:
        """Send figures, and with them how many data were not taken since some last were. In one attempt."""
        dropped = self._dropped
        try:
            self._send({**found, **number(METRICS_DROPPED, dropped)})
        except NotTaken as error:
            self._dropped += error.lost
            self._recorder.count("metrics_dropped", error.lost)
            if self._failing.begins():
                log.warning(
                    "%s does not accept metrics: %s. They are dropped and counted until it does.",
                    *(self.place, error.cause),
                    extra=fields("metrics_refused", place=self.place, cause=error.cause),
                )
            return
        self._dropped -= dropped
        if self._failing.ends():
            log.warning(
                "%s accepts metrics again; %d were dropped",
                *(self.place, dropped),
                extra=fields("metrics_accepted", place=self.place, number=dropped),
            )

    @abstractmethod
    def _send(self, found: Figures) -> None:
        """Send figures.

        :raises NotTaken: some were not taken.
        """
