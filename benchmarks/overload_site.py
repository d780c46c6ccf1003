"""The site that ``python -m benchmarks.overload`` loads: it says in headers which user it saw, and at which level."""

from __future__ import annotations

import os
import time

from flask import Flask, Response, session

from flask_langpont_session import LangPontSession
from flask_langpont_session.events import LevelChanged, level_changed
from flask_langpont_session.extension import state_of

COMPUTES = 0.05
"""Seconds of processor time that the page ``/compute`` takes."""


def create_app() -> Flask:
    """Return the application, configured by the environment; all waits and limits are the defaults."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "a key of the benchmarks, 32 bytes or more"
    for name in ("REDIS_URL", "DATABASE_URL", "JOURNAL"):
        app.config[f"LANGPONT_SESSION_{name}"] = os.environ[f"OVERLOAD_{name}"]
    LangPontSession(app)
    level_changed.connect(note, app)
    state_of(app).backend.database.upkeep.create_tables()
    app.post("/login/<user>")(login)
    app.get("/read")(seen)
    app.get("/write")(write)
    app.get("/compute")(compute)
    return app


def note(_: Flask, event: LevelChanged) -> None:
    """Say in the log which level this worker is at from now on."""
    print(f"LEVEL {os.getpid()} {time.time():.3f} {event.new}", flush=True)


def login(user: str) -> Response:
    """Sign in."""
    session["_user_id"] = user
    return seen()


def seen() -> Response:
    """Answer which user the session is of (``-``: of no user), and the level of this request."""
    user = session.get("_user_id") or "-"
    return Response(user, headers={"X-User": user, "X-Level": str(session.level)})  # type: ignore[attr-defined]


def write() -> Response:
    """Change the session."""
    session["temp_number"] = session.get("temp_number", 0) + 1
    return seen()


def compute() -> Response:
    """Work in pure Python, as a view that renders a large page does."""
    answer, until, number = seen(), time.thread_time() + COMPUTES, 0
    while time.thread_time() < until:
        number = sum(range(1000))
    answer.headers["X-Number"] = str(number)
    return answer
