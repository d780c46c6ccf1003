"""Alerts to SNS: in each process one daemon thread looks at the conditions and moves the host's incidents on, and
another one sends what there is to tell. The look never waits for a network: others would think that what only this
process sees is over.

Nothing here runs in a request but what costs a dictionary entry. The workers of a host share their incidents in a file
beside the journal (``host_file``), so that one of them tells what all of them see, with every store down; a worker that
dies leaves incidents and unsent messages to the others.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from flask import Flask, request_started

from ..aws import client
from ..config.settings import Settings
from ..metrics.recorder import Recorder
from ..policy.health import Health
from ..support.threads import EXIT_WAIT, PeriodicThread, end_all
from . import incidents
from .conditions import WITHOUT_STATE, Conditions
from .host_file import Busy, HostFile
from .incidents import Host, Notice, Sightings, State, Terms, alert_of
from .messages import Sender, compose
from .table import TEST, Severity
from .topics import NotSent, Topics, short_name

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between looks, and between looks for something to send."""

TERMS = Terms()
"""All but the repetition, which is a setting."""


class Tested(NamedTuple):
    """What became of a test message.

    :param topic: without its account.
    :param problem: why it was not sent, in words; None: it was.
    """

    topic: str
    problem: str | None


class Alerts:
    """The alerts of one process.

    :param file: what the workers of this host share.
    :param environment: the setting ENVIRONMENT; `service`: SERVICE; `runbook`: ALERT_RUNBOOK.
    :param tick: seconds between looks, and between looks for something to send.
    :param clock: seconds since 1970.
    """

    def __init__(
        self,
        conditions: Conditions,
        topics: Topics,
        file: HostFile,
        recorder: Recorder,
        *,
        environment: str,
        service: str,
        runbook: str,
        terms: Terms,
        tick: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._conditions = conditions
        self._topics = topics
        self._file = file
        self._recorder = recorder
        self._environment = environment
        self._service = service
        self._runbook = runbook
        self._terms = terms
        self._clock = clock
        self._watching_since = clock()
        self._missed: Sightings = {}
        self._problem: str | None = None
        self._tried: tuple[Notice, str | None] | None = None
        self._looking = PeriodicThread("alerts", self._begin_to_look, tick)
        self._sending = PeriodicThread("alerts-sender", self._begin_to_send, tick)

    def _begin_to_look(self) -> Callable[[], None]:
        """What the thread that looks does; called in each process anew, when it starts there."""
        self._watching_since, self._missed = self._clock(), {}
        return self.look

    def _begin_to_send(self) -> Callable[[], None]:
        """Likewise for the thread that sends."""
        self._problem = self._tried = None
        return self._send_until_the_end

    def _send_until_the_end(self) -> None:
        if self._sending.is_ending:
            # What the last look finds is to be sent too.
            self._looking.wait(EXIT_WAIT)
        self.send()

    def happened(self, sender: object, event: object) -> None:
        """Something happened (a receiver of the package's signals): the next look finds it."""
        self._conditions.happened(event)
        self.ensure_started()

    def ensure_started(self, *_: object, **__: Any) -> None:
        """Start the threads in this process unless they run (a receiver of Flask's signals)."""
        self._looking.ensure_started()
        self._sending.ensure_started()

    def stop(self) -> None:
        """Look a last time, send what is due, and end the threads. For tests and orderly exits; a process that ends
        does it by itself."""
        end_all([self._looking, self._sending])

    # -- looking ---------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Move the incidents on, without any network. Public so that tests can drive it without the thread."""
        sightings = {**self._missed, **self._conditions.look()}
        if not sightings and self._is_idle():
            return
        now = self._clock()
        # A clock that is set back must not leave an incident burning until it has caught up.
        self._watching_since = min(self._watching_since, now)
        try:
            suppressed = self._file.update(lambda data: self._step(data, sightings, now))
        except Busy:
            # States are looked up again the next time; of what happened nothing else will tell.
            self._missed = {key: details for key, details in sightings.items() if alert_of(key).happens_once}
            return
        self._missed = {}
        if suppressed:
            self._recorder.count("alerts_suppressed", suppressed)

    def _is_idle(self) -> bool:
        """Whether nothing burns or waits. Where that cannot be told it has to be settled, by writing."""
        host = _read(self._file.read())
        return host is not None and host.is_idle and not self._file.is_cut_off

    def _step(self, data: bytes, sightings: Sightings, now: float) -> tuple[bytes, int]:
        host = _decoded(data)
        suppressed = incidents.step(host, sightings, now, self._terms, now - self._watching_since)
        return msgspec.json.encode(host), suppressed

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(self) -> None:
        """Send what is due, one message at a time. Public as :meth:`look` is."""
        try:
            self._settle()
            while notice := self._take():
                self._tried = notice, self._publish(notice)
                self._settle()
        except Busy:
            # The next round goes on here: what was sent must not be sent again for want of a note.
            return

    def _take(self) -> Notice | None:
        host = _read(self._file.read())
        if host is None or not host.queue:
            return None
        return self._file.update(self._taken)

    def _taken(self, data: bytes) -> tuple[bytes, Notice | None]:
        host = _decoded(data)
        notice = incidents.take(host, self._clock(), self._terms)
        return (msgspec.json.encode(host), notice) if notice else (data, None)

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
            log.exception("an alert met an error that is not known")
            problem = type(error).__name__
        self._note(problem)
        return problem

    def _settle(self) -> None:
        """Note what became of the message that was tried last."""
        if self._tried is None:
            return
        notice, problem = self._tried
        lost = self._file.update(lambda data: self._settled(data, notice.serial, sent=problem is None))
        self._tried = None
        self._recorder.count("alerts_failed" if problem else "alerts_sent")
        what = (notice.key, alert_of(notice.key).severity, notice.state)
        if problem is None:
            log.info("alert %s (%s): %s was sent", *what)
        elif lost:
            log.error("alert %s (%s): %s could not be sent, and is given up", *what)
        elif notice.attempts == 0:
            log.error("alert %s (%s): %s could not be sent; it is tried again", *what)

    def _settled(self, data: bytes, serial: int, *, sent: bool) -> tuple[bytes, bool]:
        host = _decoded(data)
        lost = incidents.settle(host, serial, self._clock(), self._terms, sent=sent)
        return msgspec.json.encode(host), lost

    def _sender(self) -> Sender:
        return Sender(self._environment, self._service, socket.gethostname(), os.getpid(), self._runbook)

    def _note(self, problem: str | None) -> None:
        """Said when it begins and when it is over: an AWS outage must not fill the disk."""
        before, self._problem = self._problem, problem
        if problem is not None and before is None:
            log.error("SNS takes no alerts: %s. Check LANGPONT_SESSION_ALERT_TOPICS and the network.", problem)
        elif problem is None and before is not None:
            log.warning("SNS takes alerts again")

    # -- for operators ---------------------------------------------------------------------------------------------

    def send_test(self, severity: str) -> Tested:
        """Send a marked message now, to the topic of a severity."""
        now, arn = self._clock(), self._topics.of(Severity(severity))
        notice = Notice(
            serial=0, key=TEST.name, state=State.FIRING, since=now, at=now, seen=now, suppressed=0, firings=1
        )
        message = compose(notice, TEST, self._sender(), test=True, severity=Severity(severity))
        try:
            self._topics.publish(arn, message)
        except NotSent as error:
            return Tested(short_name(arn), error.problem)
        return Tested(short_name(arn), None)


def attach(app: Flask, settings: Settings, health: Health, recorder: Recorder) -> Alerts:
    """Make alerts and connect them to the signals of `app`, for as long as they are referred to. Starts no thread."""
    client.load()
    alerts = Alerts(
        Conditions(health, recorder, time.monotonic),
        Topics(settings.alert_topics),
        HostFile(_file_beside(settings.journal), joined),
        recorder,
        environment=settings.environment,
        service=settings.service,
        runbook=settings.alert_runbook,
        terms=replace(TERMS, repeat=settings.alert_repeat),
        tick=TICK,
    )
    for signal in WITHOUT_STATE:
        signal.connect(alerts.happened, app)
    # A worker without events of its own has a look too: another one that saw something may have died.
    request_started.connect(alerts.ensure_started, app)
    return alerts


def _file_beside(journal: str | Path | None) -> Path | None:
    return Path(f"{Path(journal).resolve()}-alerts") if journal else None


def joined(shared: bytes, own: bytes) -> bytes:
    """What the workers of a host know together, with what one of them went through alone."""
    host = _decoded(shared)
    incidents.join(host, _decoded(own))
    return msgspec.json.encode(host)


def _read(data: bytes) -> Host | None:
    """None: it cannot be read."""
    try:
        return incidents.decode_host(data) if data else Host()
    except msgspec.MsgspecError:
        return None


def _decoded(data: bytes) -> Host:
    host = _read(data)
    if host is None:
        # Another release wrote it. What burns is seen again soon.
        log.warning("what this host's workers noted of their incidents cannot be read; it is begun anew")
    return host or Host()
