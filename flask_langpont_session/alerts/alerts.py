"""Alerts to SNS: in each process one daemon thread looks at the conditions and moves the host's incidents on
(``lookout``), and another one sends what there is to tell (``outgoing``).

Nothing here runs in a request but what costs a dictionary entry. The workers of a host share their incidents in a file
beside the journal (``shared``), so that one of them tells what all of them see, with every store down; a worker that
dies leaves incidents and unsent messages to the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, request_started

from ..aws import client
from ..config.settings import Settings
from ..metrics.recorder import Recorder
from ..policy.health import Health
from ..support.threads import EXIT_WAIT, PeriodicThread, end_all
from .conditions import WITHOUT_STATE, Conditions
from .host_file import HostFile
from .incidents import Terms
from .lookout import Lookout
from .messages import sender_here
from .outgoing import Outgoing
from .shared import SharedIncidents, joined
from .topics import Topics

TICK = 1.0
"""Seconds between looks, and between looks for something to send."""

TERMS = Terms()
"""All but the repetition, which is a setting."""


class Alerts:
    """The two threads of one process.

    :param tick: seconds between looks, and between looks for something to send.
    """

    def __init__(self, lookout: Lookout, outgoing: Outgoing, tick: float) -> None:
        self.lookout = lookout
        self.outgoing = outgoing
        self._looking = PeriodicThread("alerts", self._begin_to_look, tick)
        self._sending = PeriodicThread("alerts-sender", self._begin_to_send, tick)

    def _begin_to_look(self) -> Callable[[], None]:
        self.lookout.begin()
        return self.lookout.look

    def _begin_to_send(self) -> Callable[[], None]:
        self.outgoing.begin()
        return self._send_until_the_end

    def _send_until_the_end(self) -> None:
        if self._sending.is_ending:
            # What the last look finds is to be sent too.
            self._looking.wait(EXIT_WAIT)
        self.outgoing.send()

    def happened(self, sender: object, event: object) -> None:
        """Something happened (a receiver of the package's signals): the next look finds it."""
        self.lookout.conditions.happened(event)
        self.ensure_started()

    def ensure_started(self, *_: object, **__: Any) -> None:
        """Start the threads in this process unless they run (a receiver of Flask's signals)."""
        self._looking.ensure_started()
        self._sending.ensure_started()

    def stop(self) -> None:
        """Look a last time, send what is due, and end the threads. For tests and orderly exits; a process that ends
        does it by itself."""
        end_all([self._looking, self._sending])


def attach(app: Flask, settings: Settings, health: Health, recorder: Recorder) -> Alerts:
    """Make alerts and connect them to the signals of `app`, for as long as they are referred to. Starts no thread."""
    client.load()
    file = HostFile(_file_beside(settings.journal), joined)
    incidents = SharedIncidents(file, replace(TERMS, repeat=settings.alert_repeat))
    sender = partial(sender_here, settings.environment, settings.service, settings.alert_runbook)
    alerts = Alerts(
        Lookout(Conditions(health, recorder, time.monotonic), incidents, recorder),
        Outgoing(incidents, Topics(settings.alert_topics), sender, recorder),
        TICK,
    )
    for signal in WITHOUT_STATE:
        signal.connect(alerts.happened, app)
    # A worker without events of its own has a look too: another one that saw something may have died.
    request_started.connect(alerts.ensure_started, app)
    return alerts


def _file_beside(journal: str | Path | None) -> Path | None:
    return Path(f"{Path(journal).resolve()}-alerts") if journal else None
