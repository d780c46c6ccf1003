"""The audit log: the life of signed-in sessions, one JSON object in a line.

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

Fields = dict[str, str | int | bool]

_LINES: Mapping[Signal, Callable[[Any], Fields]] = {
    events.signed_in: lambda event: {"event": "sign_in", "session": event.digest, "adopted": event.adopted},
    events.id_changed: lambda event: {
        "event": "id_change",
        "session": event.digest,
        "before": event.before,
        "why": "step_up" if event.confirmed else "application",
    },
    events.confirmed: lambda event: {"event": "step_up", "session": event.digest},
    events.session_revoked: lambda event: {
        "event": "sign_out",
        "session": event.digest,
        "by": event.cause.value,
        "durable": event.durable,
    },
    events.user_revoked: lambda event: {
        "event": "sign_out_everywhere",
        "by": event.cause.value,
        "sessions": event.sessions,
        "durable": event.durable,
    },
    events.grant_refused: lambda event: {"event": "refused"},
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
        head = {"schema": SCHEMA, "at": at, "service": self._service, "environment": self._environment}
        text = json.dumps(head | said)
        if self._handler is None:
            log.info("%s", text, extra=fields("audit"))
        else:
            record = log.makeRecord(log.name, logging.INFO, __file__, 0, "%s", (text,), None)
            self._handler.handle(record)
