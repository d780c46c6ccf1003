"""The sending half of the alerts of a process: what the workers of its host have queued, one message at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

from ..metrics.recorder import Recorder
from ..support.logs import Failing, fields
from .fleet import MARK, Fleet, Say
from .incidents import AlertState, Notice, alert_of, dismiss, note_alone, note_outcome, postpone
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
        # Names of incidents that this host has claimed and not told yet, or of which no store has said since then
        # whether another one has told them (never: it has).
        self._claimed: set[str] = set()
        self._unknown_since: dict[str, float] = {}

    def send(self) -> None:
        """Send what is due, and say to the other hosts what goes on here."""
        while notice := self.incidents.take():
            self._attend(notice)
        now = self.incidents.clock()
        if not 0 <= now - self._marked_at < MARK / 4:
            self._marked_at = now
            names = {self._name_of(key) for key in self.incidents.burning()}
            self._claimed &= names
            self._unknown_since = {name: at for name, at in self._unknown_since.items() if name in names}
            self.fleet.go_on(names - self._claimed, self.incidents.name)
            for name in self._claimed:
                self.fleet.on_firing(name, self.incidents.name)

    def _attend(self, notice: Notice) -> None:
        name = self._name_of(notice.key)
        say = self._on_firing(notice, name) if notice.state is AlertState.FIRING else self._on_resolved(notice, name)
        if say is Say.TELL:
            if self._tell(notice) and not notice.alone:
                self._told(notice, name)
        elif say is Say.DROP:
            with self.incidents.changed() as host:
                dismiss(host, notice.serial)
        else:
            until = self.incidents.clock() + (_SOON if say is Say.UNKNOWN else self.incidents.terms.retry)
            with self.incidents.changed() as host:
                postpone(host, notice.serial, until)

    def _told(self, notice: Notice, name: str) -> None:
        self._claimed.discard(name)
        if notice.state is AlertState.FIRING:
            self.fleet.told(name, self.incidents.name, self.incidents.terms.repeat)
        else:
            self.fleet.called_off(name)

    def _on_resolved(self, notice: Notice, name: str) -> Say:
        if notice.alone:
            return Say.TELL if notice.tried else Say.DROP
        return self.fleet.on_resolved(name, self.incidents.name)

    def _on_firing(self, notice: Notice, name: str) -> Say:
        if self.fleet.is_muted():
            return Say.WAIT
        if notice.alone:
            return Say.TELL
        say = self.fleet.on_firing(name, self.incidents.name)
        if say is Say.UNKNOWN:
            now, terms = self.incidents.clock(), self.incidents.terms
            if now - self._unknown_since.setdefault(name, now) < terms.alone_after * terms.pace:
                return say
            with self.incidents.changed() as host:
                note_alone(host, notice.key)
            notice.alone = True
            return Say.TELL
        self._unknown_since[name] = math.inf
        if say is Say.TELL:
            self._claimed.add(name)
        return say

    def _name_of(self, key: str) -> str:
        return dedup_key(key, self._sender())

    def send_test(self, severity: str) -> Tested | None:
        """Send a marked message now, to the topic of a severity; None: alerts of that severity are not sent."""
        if not self.topics.takes(Severity(severity)):
            return None
        now, arn = self.incidents.clock(), self.topics.of(Severity(severity))
        notice = Notice(
            serial=0, key=TEST.name, state=AlertState.FIRING, since=now, at=now, seen=now, suppressed=0, firings=1
        )
        message = compose(notice, TEST, self._sender(), test=True, severity=Severity(severity))
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
            lost = note_outcome(host, notice.serial, now, terms, sent=problem is None)
        self._recorder.count("alerts_failed" if problem else "alerts_sent")
        data = {"alert": notice.key, "severity": alert_of(notice.key).severity.value, "state": notice.state.value}
        what = tuple(data.values())
        if problem is None:
            log.info("alert %s (%s): %s was sent", *what, extra=fields("alert_sent", **data))
        elif lost:
            log.error(
                "alert %s (%s): %s could not be sent, and is given up", *what, extra=fields("alert_given_up", **data)
            )
        elif notice.attempts == 0:
            log.error(
                "alert %s (%s): %s could not be sent; it is tried again", *what, extra=fields("alert_not_sent", **data)
            )
        return problem is None

    def _publish(self, notice: Notice) -> str | None:
        """Try once.

        :return: why it was not sent, in words; None: it was.
        """
        alert = alert_of(notice.key)
        try:
            self.topics.publish(self.topics.of(alert.severity), compose(notice, alert, self._sender()))
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
