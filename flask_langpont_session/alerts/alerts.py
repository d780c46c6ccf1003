"""Alerts to SNS: in each process one daemon thread looks at the conditions and moves the incidents on, and never
waits for a network: what goes on would seem to be over meanwhile. Another one sends what there is to tell
(``outgoing``).

Nothing here runs in a request but what costs a dictionary entry. Of the workers of a host one has the incidents and
sends their messages (``of_host``), so that one of them tells what all of them see, with every store down; when it dies
another one goes on. Of the hosts one tells what all of them see, as long as a store answers (``fleet``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flask import Flask, request_started

from ..aws import client
from ..config.settings import Settings
from ..metrics.recorder import Recorder
from ..policy.health import Health
from ..support.host import HostWork, beside
from ..support.threads import EXIT_WAIT, PeriodicThread, end_all
from .conditions import WITHOUT_STATE, Conditions
from .fleet import Fleet, Store
from .incidents import Terms, alert_of
from .messages import sender_here
from .of_host import HostIncidents
from .outgoing import Outgoing
from .topics import Topics

TICK = 1.0
"""Seconds between looks, and between looks for something to send."""

PATIENCE = 30.0
"""Seconds after which a worker that has the incidents and takes no messages is not waited for."""

TERMS = Terms()


class Alerts:
    """The two threads of one process.

    :param tick: seconds between looks, and between looks for something to send.
    """

    def __init__(self, conditions: Conditions, outgoing: Outgoing, tick: float) -> None:
        self.conditions = conditions
        self.outgoing = outgoing
        self._looking = PeriodicThread("alerts", self._begin_to_look, tick)
        self._sending = PeriodicThread("alerts-sender", self._begin_to_send, tick)

    def _begin_to_look(self) -> Callable[[], None]:
        return lambda: self.look(last=self._looking.is_ending)

    def look(self, *, last: bool = False) -> None:
        """Move the incidents on, or tell the process that does. What there is no topic for is no incident.

        :param last: this process ends.
        """
        takes, found = self.outgoing.topics.takes, self.conditions.look().items()
        sightings = {key: details for key, details in found if takes(alert_of(key).severity)}
        self.outgoing.incidents.look(sightings, last=last)

    def _begin_to_send(self) -> Callable[[], None]:
        self.outgoing.begin()
        return self._send_until_the_end

    def _send_until_the_end(self) -> None:
        if self._sending.is_ending:
            # What the last look finds is to be sent too.
            self._looking.wait(EXIT_WAIT)
        self.outgoing.send()
        if self._sending.is_ending:
            self.outgoing.incidents.work.resign()

    def happened(self, sender: object, event: object) -> None:
        """Something happened (a receiver of the package's signals): the next look finds it."""
        self.conditions.happened(event)
        self.ensure_started()

    def ensure_started(self, *_: object, **__: Any) -> None:
        """Start the threads in this process unless they run (a receiver of Flask's signals)."""
        self._looking.ensure_started()
        self._sending.ensure_started()

    def stop(self) -> None:
        """Look a last time, send what is due, and end the threads. For tests and orderly exits; a process that ends
        does it by itself."""
        end_all([self._looking, self._sending])


def attach(app: Flask, settings: Settings, health: Health, recorder: Recorder, stores: Sequence[Store]) -> Alerts:
    """Make alerts and connect them to the signals of `app`, for as long as they are referred to. Starts no thread.

    :param stores: where the hosts note what they know together.
    """
    client.load()
    work = HostWork(beside(settings.journal, "alerts"), "alerts", PATIENCE)
    incidents = HostIncidents(work, TERMS)
    sender = partial(sender_here, settings.environment, settings.service, settings.alert_runbook)
    outgoing = Outgoing(incidents, Topics(settings.alert_topics), sender, Fleet(stores), recorder)
    alerts = Alerts(Conditions(health, recorder, time.monotonic), outgoing, TICK)
    for signal in WITHOUT_STATE:
        signal.connect(alerts.happened, app)
    # A worker without events of its own has a look too: another one that saw something may have died.
    request_started.connect(alerts.ensure_started, app)
    return alerts
