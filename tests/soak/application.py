"""The stories' application with what else a soak asks for: counting, fresh reads, logging out everywhere.

``tests.soak.application:create_app()`` is what gunicorn loads.
"""

from __future__ import annotations

import logging
from typing import Any, cast

from flask import Blueprint, Flask, current_app, request

from example_app.app import csrf
from example_app.session import live
from flask_langpont_session import LangPontSession
from tests.stories.application import create_app as create_stories
from tests.stories.application import me

pages = Blueprint("soak", __name__)


def create_app() -> Flask:
    """Configured by environment variables that begin with ``FLASK_``."""
    logging.basicConfig(format="%(asctime)s %(process)d %(message)s")
    logging.getLogger("flask_langpont_session").setLevel(logging.DEBUG)  # what is said there is searched for secrets
    csrf.exempt(pages)
    app = create_stories()
    app.register_blueprint(pages)
    return app


def _me() -> dict[str, Any]:
    return cast(dict[str, Any], me()) | {"count": live().get("usage_count", 0)}


@pages.get("/all-of-me")
def all_of_me() -> dict[str, Any]:
    """Return the visitor's session as this worker shows it, the counter included."""
    return _me()


@pages.get("/fresh")
def fresh() -> dict[str, Any]:
    """Return the session as the database has it, and whether the database answered."""
    known = live().fresh("auth")
    return _me() | {"fresh": known}


@pages.post("/count")
def count() -> dict[str, Any]:
    """Add one."""
    live().increment("usage_count")
    return _me()


@pages.post("/everywhere")
def everywhere() -> dict[str, Any]:
    """End all sessions of ``user``, as an operator does. No session of its own is needed."""
    interface = cast(LangPontSession, current_app.session_interface)
    ended = interface.revoke_user(request.form["user"])
    return _me() | {"durable": ended.durable}
