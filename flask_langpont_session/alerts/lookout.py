"""The looking half of the alerts of a process: which conditions hold, and what follows from that for the incidents of
its host. It never waits for a network: others would think that what only this process sees is over.
"""

from __future__ import annotations

from ..metrics.recorder import Recorder
from .conditions import Conditions
from .host_file import Busy
from .incidents import Sightings, alert_of
from .shared import SharedIncidents


class Lookout:
    """Looks at the conditions of this process.

    :ivar watching_since: since when, by the clock of the incidents: it cannot know that something is over which it has
        not watched for long enough itself.
    """

    def __init__(self, conditions: Conditions, incidents: SharedIncidents, recorder: Recorder) -> None:
        self.conditions = conditions
        self.incidents = incidents
        self._recorder = recorder
        self.begin()

    def begin(self) -> None:
        """As new; called in each process, when its thread starts there."""
        self.watching_since = self.incidents.clock()
        self._missed: Sightings = {}

    def look(self) -> None:
        """Move the incidents on."""
        sightings = {**self._missed, **self.conditions.look()}
        if not sightings and self.incidents.is_idle:
            return
        now = self.incidents.clock()
        # A clock that is set back must not leave an incident burning until it has caught up.
        self.watching_since = min(self.watching_since, now)
        try:
            suppressed = self.incidents.step(sightings, now, now - self.watching_since)
        except Busy:
            # States are looked up again the next time; of what happened nothing else will tell.
            self._missed = {key: details for key, details in sightings.items() if alert_of(key).happens_once}
            return
        self._missed = {}
        if suppressed:
            self._recorder.count("alerts_suppressed", suppressed)
