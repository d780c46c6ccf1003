"""Alerts to SNS: one daemon thread per process looks at the conditions, moves the host's incidents on, and sends.

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

from ..config import Settings
from ..exporters.pump import Pump, end_all
from ..health import Health
from ..metrics import Recorder
from . import client, incidents
from .alert_table import TEST, Severity
from .conditions import WITHOUT_STATE, Conditions
from .host_file import HostFile
from .incidents import Host, Notice, Sightings, State, Terms, alert_of
from .messages import Sender, compose
from .topics import NotSent, Topics, short_name

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between looks."""

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
    :param tick: seconds between looks.
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
        self._problem: str | None = None
        self._pump = Pump("alerts", self._begin, tick)

    def _begin(self) -> Callable[[], None]:
        """What the thread does; called in each process anew, when it starts there."""
        self._watching_since = self._clock()
        self._problem = None
        return self.look

    def happened(self, sender: object, event: object) -> None:
        """Something happened (a receiver of the package's signals): the next look finds it."""
        self._conditions.happened(event)
        self._pump.ensure_started()

    def ensure_started(self, *_: object, **__: Any) -> None:
        """Start the thread in this process unless it runs (a receiver of Flask's signals)."""
        self._pump.ensure_started()

    def stop(self) -> None:
        """Look a last time, send what is due, and end the thread. For tests and orderly exits; a process that ends
        does it by itself."""
        end_all([self._pump])

    def look(self) -> None:
        """One round. Public so that tests can drive it without the thread."""
        sightings = self._conditions.look()
        if not sightings and _decoded(self._file.read()).is_idle:
            self._file.rejoin()
            return
        due, suppressed = self._file.update(lambda data: self._step(data, sightings))
        if suppressed:
            self._recorder.count("alerts_suppressed", suppressed)
        for notice in due:
            self._send(notice)

    def _step(self, data: bytes, sightings: Sightings) -> tuple[bytes, tuple[list[Notice], int]]:
        host, now = _decoded(data), self._clock()
        suppressed = incidents.step(host, sightings, now, self._terms, self._watching_since)
        due = incidents.take(host, now, self._terms)
        return msgspec.json.encode(host), (due, suppressed)

    def _send(self, notice: Notice) -> None:
        alert, problem = alert_of(notice.key), None
        try:
            self._topics.publish(self._topics.of(alert.severity), compose(notice, alert, self._sender()))
        except NotSent as error:
            problem = error.problem
        except Exception as error:
            # Left in the queue it would come back again and again, and keep others from being sent.
            log.exception("an alert met an error that is not known")
            problem = type(error).__name__
        self._note(problem)
        lost = self._file.update(lambda data: self._settle(data, notice.serial, sent=problem is None))
        if problem is None:
            self._recorder.count("alerts_sent")
            log.info("alert %s (%s): %s was sent", notice.key, alert.severity, notice.state)
        elif lost:
            self._recorder.count("alerts_failed")
            log.error("alert %s (%s): %s could not be sent", notice.key, alert.severity, notice.state)

    def _settle(self, data: bytes, serial: int, *, sent: bool) -> tuple[bytes, bool]:
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
    """Make alerts and connect them to the signals of `app`. Starts no thread."""
    client.load()
    alerts = Alerts(
        Conditions(health, recorder, time.monotonic),
        Topics(settings.alert_topics),
        HostFile(_file_beside(settings.journal)),
        recorder,
        environment=settings.environment,
        service=settings.service,
        runbook=settings.alert_runbook,
        terms=replace(TERMS, repeat=settings.alert_repeat),
        tick=TICK,
    )
    for signal in WITHOUT_STATE:
        signal.connect(alerts.happened, app, weak=False)
    # A worker without events of its own has a look too: another one that saw something may have died.
    request_started.connect(alerts.ensure_started, app, weak=False)
    return alerts


def _file_beside(journal: str | Path | None) -> Path | None:
    return Path(f"{Path(journal).resolve()}-alerts") if journal else None


def _decoded(data: bytes) -> Host:
    try:
        return msgspec.json.decode(data, type=Host) if data else Host()
    except msgspec.MsgspecError:
        # Another release wrote it. What burns is seen again soon.
        log.warning("what this host's workers noted of their incidents cannot be read; it is begun anew")
        return Host()
