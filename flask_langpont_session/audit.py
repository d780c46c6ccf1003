"""The audit log: what becomes of signed-in sessions, one JSON object in a line.

Nothing of it is imported, and nothing listens, unless an application calls :func:`write_audit_log`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from blinker import Signal
from flask import Flask

from . import events
from .extension import state_of
from .support.logs import fields

SCHEMA = "langpont.audit/1"
"""Stands in every line. Another number means that a field has gone or means something else; new fields and events may
come with the same one."""

EXTENSION = "langpont_session_audit"

log = logging.getLogger(__name__)

Fields = Mapping[str, str | int | bool]


def _signed_in(event: events.SignedIn) -> Fields:
    return {"event": "sign_in", "session": event.digest, "adopted": event.adopted}


def _id_changed(event: events.IdChanged) -> Fields:
    why = "step_up" if event.confirmed else "application"
    return {"event": "id_change", "session": event.digest, "before": event.before, "why": why}


def _confirmed(event: events.Confirmed) -> Fields:
    return {"event": "step_up", "session": event.digest}


def _session_revoked(event: events.SessionRevoked) -> Fields:
    return {"event": "sign_out", "session": event.digest, "by": event.cause.value, "durable": event.durable}


def _user_revoked(event: events.UserRevoked) -> Fields:
    by = event.cause.value
    return {"event": "sign_out_everywhere", "by": by, "sessions": event.sessions, "durable": event.durable}


def _refused(event: events.GrantWasRefused) -> Fields:
    return {"event": "refused"}


_LINES: Mapping[Signal, Callable[[Any], Fields]] = {
    events.signed_in: _signed_in,
    events.id_changed: _id_changed,
    events.confirmed: _confirmed,
    events.session_revoked: _session_revoked,
    events.user_revoked: _user_revoked,
    events.grant_refused: _refused,
}
"""Signal → what a line says of its event."""


def write_audit_log(app: Flask, handler: logging.Handler | None = None) -> None:
    """Have what becomes of the signed-in sessions of an application written, one JSON object in a line, see
    ``docs/how-to/audit.md``. Call it once, after ``init_app``.

    >>> write_audit_log(app, logging.FileHandler("/var/log/shop/audit.jsonl"))     # doctest: +SKIP

    A line names sessions by the first eight characters of their digests. It has no session id, no whole digest, no
    user, no key or value of a session, and no address.

    :param handler: writes the lines, in no other format; None: the logger ``flask_langpont_session.audit`` gets them,
        at level INFO.
    :raises RuntimeError: it was called for this application before, or the extension is not set up.
    """
    if EXTENSION in app.extensions:
        raise RuntimeError("write_audit_log() was called for this application before")
    settings = state_of(app).settings
    app.extensions[EXTENSION] = _AuditLog(app, settings.service, settings.environment, handler)


class _AuditLog:
    """Listens to one application. Signals hold it weakly, so that it goes with the application.

    :param service: stands in each line; so does `environment`.
    """

    def __init__(self, app: Flask, service: str, environment: str, handler: logging.Handler | None) -> None:
        self._service = service
        self._environment = environment
        self._handler = handler
        if handler is not None:
            handler.setFormatter(logging.Formatter("%(message)s"))
        self._listeners = [self._listener(make) for make in _LINES.values()]
        for signal, listener in zip(_LINES, self._listeners, strict=True):
            signal.connect(listener, app)

    def _listener(self, make: Callable[[Any], Fields]) -> Callable[..., None]:
        def listener(sender: Flask, event: Any) -> None:
            self._write(make(event))

        return listener

    def _write(self, said: Fields) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {
            "schema": SCHEMA,
            "at": at,
            "service": self._service,
            "environment": self._environment,
            **said,
        }
        text = json.dumps(line)
        if self._handler is None:
            log.info("%s", text, extra=fields("audit"))
        else:
            record = log.makeRecord(log.name, logging.INFO, __file__, 0, "%s", (text,), None)
            self._handler.handle(record)
