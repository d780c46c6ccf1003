"""Figures that a place did not take: counted, logged once, and published when the place takes some again."""

from __future__ import annotations

import logging

from ...metrics.recorder import Recorder
from ...support.logs import Failing, fields

log = logging.getLogger(__name__)


class Drops:
    """The figures that one place did not take.

    :ivar number: data that were not taken since some last were.
    :param place: as the log names it.
    """

    def __init__(self, recorder: Recorder, place: str) -> None:
        self.number = 0
        self._recorder = recorder
        self._place = place
        self._failing = Failing()

    def failed(self, cause: str, lost: int) -> None:
        """Count data that were not taken."""
        self.number += lost
        self._recorder.count("metrics_dropped", lost)
        if self._failing.begins():
            log.warning(
                "%s does not accept metrics: %s. They are dropped and counted until it does.",
                *(self._place, cause),
                extra=fields("metrics_refused", place=self._place, cause=cause),
            )

    def succeeded(self, published: int) -> None:
        """Note that data were taken, and with them the figure that so many were not before."""
        self.number -= published
        if self._failing.ends():
            log.warning(
                "%s accepts metrics again; %d were dropped",
                *(self._place, published),
                extra=fields("metrics_accepted", place=self._place, number=published),
            )
