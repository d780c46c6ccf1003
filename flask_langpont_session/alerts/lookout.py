"""The looking half of the alerts of a process: which conditions hold, and what follows from that for the incidents of
its host. It never waits for a network: what goes on would seem to be over meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from ..metrics.recorder import Recorder
from .conditions import Conditions
from .incidents import alert_of
from .of_host import HostIncidents
from .table import Severity


class Lookout:
    """Looks at the conditions of this process.

    :param is_told: whether there is a topic for alerts of a severity; others are no incidents.
    """

    def __init__(
        self,
        conditions: Conditions,
        incidents: HostIncidents,
        recorder: Recorder,
        is_told: Callable[[Severity], bool],
    ) -> None:
        self.conditions = conditions
        self.incidents = incidents
        self._recorder = recorder
        self._is_told = is_told

    def look(self, *, last: bool = False) -> None:
        """Move the incidents on, or tell the process that does.

        :param last: this process ends.
        """
        found = self.conditions.look().items()
        sightings = {key: details for key, details in found if self._is_told(alert_of(key).severity)}
        suppressed = self.incidents.look(sightings, last=last)
        if suppressed:
            self._recorder.count("alerts_suppressed", suppressed)
