"""The sending half of the alerts of a process: what the workers of its host have queued, one message at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from ..metrics.recorder import Recorder
from .host_file import Busy
from .incidents import Notice, State, alert_of
from .messages import Sender, compose
from .shared import SharedIncidents
from .table import TEST, Severity
from .topics import NotSent, Topics, short_name

log = logging.getLogger(__name__)


class Tested(NamedTuple):
    """What became of a test message.

    :param topic: without its account.
    :param problem: why it was not sent, in words; None: it was.
    """

    topic: str
    problem: str | None


class Outgoing:
    """Sends the messages of a host.

    :param sender: tells of this process, as messages name it.
    """

    def __init__(
        self, incidents: SharedIncidents, topics: Topics, sender: Callable[[], Sender], recorder: Recorder
    ) -> None:
        self._incidents = incidents
        self._topics = topics
        self._sender = sender
        self._recorder = recorder
        self.begin()

    def begin(self) -> None:
        """As new; called in each process, when its thread starts there."""
        self._problem: str | None = None
        self._tried: tuple[Notice, str | None] | None = None

    def send(self) -> None:
        """Send what is due."""
        try:
            self._note_outcome()
            while notice := self._incidents.take():
                self._tried = notice, self._publish(notice)
                self._note_outcome()
        except Busy:
            # The next round goes on here: what was sent must not be sent again for want of a note.
            return

    def send_test(self, severity: str) -> Tested:
        """Send a marked message now, to the topic of a severity."""
        now, arn = self._incidents.clock(), self._topics.of(Severity(severity))
        notice = Notice(
            serial=0, key=TEST.name, state=State.FIRING, since=now, at=now, seen=now, suppressed=0, firings=1
        )
        message = compose(notice, TEST, self._sender(), test=True, severity=Severity(severity))
        try:
            self._topics.publish(arn, message)
        except NotSent as error:
            return Tested(short_name(arn), error.problem)
        return Tested(short_name(arn), None)

    def _publish(self, notice: Notice) -> str | None:
        """Try once.

        :return: why it was not sent, in words; None: it was.
        """
        alert, problem = alert_of(notice.key), None
        try:
            self._topics.publish(self._topics.of(alert.severity), compose(notice, alert, self._sender()))
        except NotSent as error:
            problem = error.problem
        except Exception as error:
            # It must not come back at once, again and again, nor keep others from being sent.
            log.exception("sending an alert failed with an unexpected error")
            problem = type(error).__name__
        self._note(problem)
        return problem

    def _note_outcome(self) -> None:
        """Note what became of the message that was tried last."""
        if self._tried is None:
            return
        notice, problem = self._tried
        lost = self._incidents.note_outcome(notice, sent=problem is None)
        self._tried = None
        self._recorder.count("alerts_failed" if problem else "alerts_sent")
        what = (notice.key, alert_of(notice.key).severity, notice.state)
        if problem is None:
            log.info("alert %s (%s): %s was sent", *what)
        elif lost:
            log.error("alert %s (%s): %s could not be sent, and is given up", *what)
        elif notice.attempts == 0:
            log.error("alert %s (%s): %s could not be sent; it is tried again", *what)

    def _note(self, problem: str | None) -> None:
        """Said when it begins and when it is over: an AWS outage must not fill the disk."""
        before, self._problem = self._problem, problem
        if problem is not None and before is None:
            log.error("SNS does not accept alerts: %s. Check LANGPONT_SESSION_ALERT_TOPICS and the network.", problem)
        elif problem is None and before is not None:
            log.warning("SNS accepts alerts again")
