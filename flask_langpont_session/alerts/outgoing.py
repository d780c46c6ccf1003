"""The sending half of the alerts of a process: what the workers of its host have queued, one message at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

from ..metrics.recorder import Recorder
from ..support.logs import Failing, fields
from .fleet import CLAIM, HELD, MARK, Fleet, Say
from .incidents import AlertState, Incident, Notice, alert_of, note_outcome, postpone
from .messages import Sender, compose, dedup_key
from .of_host import HostIncidents
from .table import TEST, Severity
from .topics import NotSent, Topics, short_name

log = logging.getLogger(__name__)

_SOON = 1.0
"""Seconds after which stores are asked again that did not answer."""


class Tested(NamedTuple):
    """The outcome of a test message.

    :param topic: without its account.
    :param problem: why it was not sent, in words; None: it was.
    """

    topic: str
    problem: str | None


class Outgoing:
    """Sends the messages of a host.

    :param sender: tells of this process, as messages name it.
    :param fleet: says what other hosts have told.
    """

    def __init__(
        self, incidents: HostIncidents, topics: Topics, sender: Callable[[], Sender], fleet: Fleet, recorder: Recorder
    ) -> None:
        self.incidents = incidents
        self.fleet = fleet
        self.topics = topics
        self._sender = sender
        self._recorder = recorder
        self.begin()

    def begin(self) -> None:
        """Begin anew; called in each process, when its thread starts there."""
        self._failing = Failing()
        self._marked_at = -math.inf

    def send(self) -> None:
        """Send what is due, and say to the other hosts what goes on here."""
        while notice := self.incidents.take():
            self._attend(notice)
        now = self.incidents.clock()
        if not 0 <= now - self._marked_at < MARK / 4:
            self._marked_at = now
            for key, incident in self.incidents.shared().items():
                self.fleet.go_on(self._name_of(key), self.incidents.name, _held(incident))

    def _attend(self, notice: Notice) -> None:
        name = self._name_of(notice.key)
        say = self._on_firing(notice, name) if notice.state is AlertState.FIRING else self._on_resolved(notice, name)
        if say is Say.TELL:
            if self._tell(notice) and not notice.is_alone:
                self._told(notice, name)
        elif say is Say.DROP:
            with self.incidents.changed() as host:
                host.incidents.pop(notice.key, None)
        else:
            until = self.incidents.clock() + (_SOON if say is Say.UNKNOWN else self.incidents.terms.retry)
            with self.incidents.changed() as host:
                postpone(host, notice.key, until)

    def _told(self, notice: Notice, name: str) -> None:
        if notice.state is AlertState.FIRING:
            self.fleet.go_on(name, self.incidents.name, HELD)
        else:
            self.fleet.called_off(name)

    def _on_resolved(self, notice: Notice, name: str) -> Say:
        if notice.is_alone:
            return Say.TELL if notice.incident.tried else Say.DROP
        return self.fleet.on_resolved(name, self.incidents.name)

    def _on_firing(self, notice: Notice, name: str) -> Say:
        if self.fleet.is_muted():
            return Say.WAIT
        if notice.is_alone:
            return Say.TELL
        say = self.fleet.on_firing(name, self.incidents.name)
        answered, terms = notice.incident.answered or say is not Say.UNKNOWN, self.incidents.terms
        waited = self.incidents.clock() - (notice.incident.told_at or 0)
        notice.incident.alone = not answered and waited >= terms.alone_after * terms.pace
        with self.incidents.changed() as host:
            if incident := host.incidents.get(notice.key):
                incident.answered, incident.alone = answered, notice.incident.alone
        return Say.TELL if notice.incident.alone else say

    def _name_of(self, key: str) -> str:
        return dedup_key(key, self._sender())

    def send_test(self, severity: str) -> Tested | None:
        """Send a marked message now, to the topic of a severity; None: alerts of that severity are not sent."""
        if not self.topics.takes(Severity(severity)):
            return None
        now, arn = self.incidents.clock(), self.topics.of(Severity(severity))
        notice = Notice(TEST.name, AlertState.FIRING, Incident(since=now, seen=now, told_at=now))
        message = compose(notice, self._sender(), test=True, severity=Severity(severity))
        try:
            self.topics.publish(arn, message)
        except NotSent as error:
            return Tested(short_name(arn), error.problem)
        return Tested(short_name(arn), None)

    def _tell(self, notice: Notice) -> bool:
        """Try once to send a message, and note the outcome. Return whether it was sent."""
        problem = self._publish(notice)
        self._note(problem)
        now, terms = self.incidents.clock(), self.incidents.terms
        with self.incidents.changed() as host:
            lost = note_outcome(host, notice, now, terms, sent=problem is None)
        self._recorder.count("alerts_failed" if problem else "alerts_sent")
        data = {"alert": notice.key, "severity": alert_of(notice.key).severity.value, "state": notice.state.value}
        what = tuple(data.values())
        if problem is None:
            log.info("alert %s (%s): %s was sent", *what, extra=fields("alert_sent", **data))
        elif lost:
            log.error(
                "alert %s (%s): %s could not be sent, and is given up", *what, extra=fields("alert_given_up", **data)
            )
        elif notice.incident.attempts == 0:
            log.error(
                "alert %s (%s): %s could not be sent; it is tried again", *what, extra=fields("alert_not_sent", **data)
            )
        return problem is None

    def _publish(self, notice: Notice) -> str | None:
        """Try once.

        :return: why it was not sent, in words; None: it was.
        """
        try:
            self.topics.publish(self.topics.of(alert_of(notice.key).severity), compose(notice, self._sender()))
        except NotSent as error:
            return error.problem
        except Exception as error:
            # It must not come back at once, again and again, nor keep others from being sent.
            log.exception("sending an alert failed with an unexpected error", extra=fields("alert_failed"))
            return type(error).__name__
        return None

    def _note(self, problem: str | None) -> None:
        """Log when sending begins to fail, and when that is over: an AWS outage must not fill the disk."""
        if problem is None:
            if self._failing.ends():
                log.warning("SNS accepts alerts again", extra=fields("alerts_accepted"))
        elif self._failing.begins():
            log.error(
                "SNS does not accept alerts: %s. Check LANGPONT_SESSION_ALERT_TOPICS and the network.",
                problem,
                extra=fields("alerts_refused", cause=problem),
            )


def _held(incident: Incident) -> float:
    """Return for how many seconds other hosts need not tell an incident that this one sees."""
    if not incident.tried:
        return 0.0
    return HELD if incident.waiting is None else CLAIM
