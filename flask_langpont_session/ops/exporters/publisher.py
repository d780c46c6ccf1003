"""One process of a host publishes what all of them have counted, once per interval. The others leave their figures for
it (:mod:`~flask_langpont_session.support.host`); where they cannot, each publishes for itself.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from ...metrics.recorder import Recorder
from ...support.host import HostWork
from ...support.logs import Failing, fields
from .catalogue import METRICS_DROPPED
from .figures import Figures, decode, encode, number, together

log = logging.getLogger(__name__)

Publish = Callable[[Figures], None]
"""Has figures go somewhere, as :meth:`.Sink.publish` does."""


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
    """A place that figures are sent to. Made and used in one thread of one process.

    :param recorder: is told what was dropped.
    :cvar place: as the log names it.
    """

    place: str

    def __init__(self, recorder: Recorder, *, environment: str, service: str) -> None:
        self._dimensions = {"Environment": environment, "Service": service}
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


class Publisher:
    """Publishes the figures of all processes of a host. Made and used in one thread of one process.

    :param take: gives what this process has counted since it was asked before.
    :param is_ending: whether this is the last time.
    """

    def __init__(
        self,
        take: Callable[[], Figures],
        host: HostWork,
        sinks: Sequence[Publish],
        is_ending: Callable[[], bool],
    ) -> None:
        self._take = take
        self._host = host
        self._sinks = sinks
        self._is_ending = is_ending

    def publish(self) -> None:
        """Publish the new figures, or leave them to the process that publishes."""
        mine = self._take()
        if not self._host.lead() and self._host.leave(encode(mine)):
            if not self._is_ending() or not self._host.succeeds():
                return
            mine = {}
        found = together([mine, *map(decode, self._host.collect())])
        if found:
            for sink in self._sinks:
                sink(found)
        if self._is_ending():
            self._host.resign()
