"""The pages of the two Flask applications, and what all three applications answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, request, session
from flask.typing import ResponseReturnValue

REDIS_URL = "OUTAGES_REDIS_URL"
DATABASE_URL = "OUTAGES_DATABASE_URL"
JOURNAL = "OUTAGES_JOURNAL"
#: Environment variables by which an application finds what it needs.

SECRET_KEY = "a key of the outage report, 32 bytes or more"

USER = "user_id"
LISTS = {"account": "session_token", "drafts": "translation_context"}
"""What the writing page writes → the session key. By flask_langpont_session's default table the first is an auth key,
which it mirrors to SQL, and the second is data of priority ``high``. To the others a key is a key."""


def shown(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every page answers."""
    return {"user": session.get(USER), **{name: list(session.get(key, [])) for name, key in LISTS.items()}}


def from_environment(name: str) -> str:
    """Return a value that the report gives its applications."""
    return os.environ[name]


def add_pages(app: Flask, regenerate: Callable[[], None], level: Callable[[], int] | None = None) -> None:
    """Add pages: sign in, read, write, sign out.

    :param regenerate: gives the session a new id; called at sign-in.
    :param level: what is answered as ``level`` besides, for measurements.
    """

    def page() -> ResponseReturnValue:
        return shown(session) | ({"level": level()} if level else {})

    if "langpont_session" not in app.extensions:  # which has this page of its own

        @app.get("/healthz/live")
        def live() -> ResponseReturnValue:
            return "ok"

    @app.post("/sign-in")
    def sign_in() -> ResponseReturnValue:
        regenerate()
        session[USER] = request.form["user"]
        return page()

    @app.get("/read")
    def read() -> ResponseReturnValue:
        return page()

    @app.post("/write/<what>")
    def write(what: str) -> ResponseReturnValue:
        key = LISTS[what]
        session[key] = [*session.get(key, []), int(request.form["number"])]
        return page()

    @app.post("/sign-out")
    def sign_out() -> ResponseReturnValue:
        session.clear()
        return page()
