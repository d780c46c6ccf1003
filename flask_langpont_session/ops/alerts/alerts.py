"""Alerts to SNS: in each process one daemon thread looks at the conditions, moves the incidents on, and sends what is
due.

Nothing here runs in a request but what costs a dictionary entry. Of the workers of a host one has the incidents and
sends their messages, so that one of them tells what all of them see, with every store down; when it dies another one
goes on. Each host tells what it sees itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, request_started

from ...aws import client
from ...config.settings import Settings
from ...metrics.recorder import Recorder
from ...policy.health import Health
from ...support.host import HostWork, beside
from ...support.logs import Failing, fields
from ...support.threads import PeriodicThread, end_all
from .conditions import WITHOUT_STATE, Conditions, Remarks
from .incidents import AlertState, HostIncidents, Incident, Notice, Terms, alert_of
from .messages import Sender, compose, sender_here
from .table import TEST, Severity
from .topics import NotSent, Topics

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between looks."""

PATIENCE = 30.0
"""Seconds after which a worker that has the incidents and takes no messages is not waited for. An attempt to send takes
less, and after one that failed the worker looks again."""

TERMS = Terms()


class Alerts:
    """The alerts of one process.

    :param sender: tells of this process, as messages name it.
    :param tick: seconds between looks.
    """

    def __init__(
        self,
        conditions: Conditions,
        incidents: HostIncidents,
        topics: Topics,
        sender: Callable[[], Sender],
        recorder: Recorder,
        tick: float,
    ) -> None:
        self.conditions = conditions
        self.incidents = incidents
        self.topics = topics
        self._sender = sender
        self._recorder = recorder
        self._failing = Failing()
        self._thread = PeriodicThread("alerts", lambda: self._round, tick)

    def _round(self) -> None:
        is_last = self._thread.is_ending
        self.look(last=is_last)
        self.send()
        if is_last:
            self.incidents.work.resign()

    def look(self, *, last: bool = False) -> None:
        """Move the incidents on, or tell the process that does. What there is no topic for is no incident.

        :param last: this process ends.
        """
        found = self.conditions.look().items()
        sightings = {key: details for key, details in found if self.topics.takes(alert_of(key).severity)}
        self.incidents.look(sightings, last=last)

    def send(self) -> None:
        """Send what is due, until one message is not taken: the others wait for the next look, so that none of them
        keeps this process from looking for long."""
        while (notice := self.incidents.take()) and self._tell(notice):
            pass

    def _tell(self, notice: Notice) -> bool:
        """Try once to send a message, and note the outcome. Return whether it was sent."""
        alert = alert_of(notice.key)
        data = {"alert": notice.key, "severity": alert.severity.value, "state": notice.state.value}
        try:
            self.topics.publish(self.topics.of(alert.severity), compose(notice, self._sender()))
        except NotSent as error:
            self._recorder.count("alerts_failed")
            if self._failing.begins():  # once: an AWS outage must not fill the disk
                log.error(
                    "SNS does not accept alerts: %s. Check LANGPONT_SESSION_ALERT_TOPICS and the network. "
                    "Alert %s (%s): %s is the first that waits.",
                    *(error, *data.values()),
                    extra=fields("alerts_refused", **data, cause=str(error)),
                )
            self.incidents.note(notice, was_sent=False)
            return False
        self._recorder.count("alerts_sent")
        self.incidents.note(notice, was_sent=True)
        if self._failing.ends():
            log.warning("SNS accepts alerts again", extra=fields("alerts_accepted"))
        log.info("alert %s (%s): %s was sent", *data.values(), extra=fields("alert_sent", **data))
        return True

    def send_test(self, severity: Severity) -> None:
        """Send a marked message now, to the topic of a severity.

        :raises NotSent: it was refused, or SNS did not answer in time.
        """
        now = self.incidents.clock()
        notice = Notice(TEST.name, AlertState.FIRING, Incident(since=now, seen=now, told_at=now))
        self.topics.publish(self.topics.of(severity), compose(notice, self._sender(), test=True, severity=severity))

    def happened(self, sender: object, event: object) -> None:
        """Something happened (a receiver of the package's signals): the next look finds it."""
        self.conditions.happened(event)
        self.ensure_started()

    def ensure_started(self, *_: object, **__: Any) -> None:
        """Start the thread in this process unless it runs (a receiver of Flask's signals)."""
        self._thread.ensure_started()

    def stop(self) -> None:
        """Look a last time, send what is due, and end the thread. For tests and orderly exits; a process that ends does
        it by itself."""
        end_all([self._thread])


def attach(app: Flask, settings: Settings, health: Health, recorder: Recorder, remarks: Remarks) -> Alerts:
    """Make alerts and connect them to the signals of `app`, for as long as they are referred to. Starts no thread."""
    client.load()
    incidents = HostIncidents(HostWork(beside(settings.journal, "alerts"), "alerts", PATIENCE), TERMS)
    sender = partial(sender_here, settings.environment, settings.service)
    conditions = Conditions(health, remarks)
    alerts = Alerts(conditions, incidents, Topics(settings.alert_topics), sender, recorder, TICK)
    for signal in WITHOUT_STATE:
        signal.connect(alerts.happened, app)
    # A worker without events of its own has a look too: another one that saw something may have died.
    request_started.connect(alerts.ensure_started, app)
    return alerts
