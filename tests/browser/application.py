"""The lab's application with an address that takes its time, and few sessions for one of its users.

``tests.browser.application:create_app()`` is what gunicorn loads.
"""

from __future__ import annotations

from pathlib import Path

from flask import Flask, current_app, session
from flask.typing import ResponseReturnValue

from lab.app import create_app as create_lab
from tests.support.gates import Gate


def create_app() -> Flask:
    """Return the application. ``FLASK_GATES`` is the folder through which held requests are let go."""
    app = create_lab({"LANGPONT_SESSION_MAX_SESSIONS_PER_USER": {"admin": 2}.get})
    app.add_url_rule("/held/<gate>", view_func=held)
    return app


def held(gate: str) -> ResponseReturnValue:
    """Read the session, wait until the gate opens, then write what was read, and one more: a request that others
    overtake."""
    seen = session.get("bookmarked_count", 0)
    Gate(Path(current_app.config["GATES"]), gate).wait()
    session["bookmarked_count"] = seen + 1
    return {"bookmarked_count": seen + 1}
