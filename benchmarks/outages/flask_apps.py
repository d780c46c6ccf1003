"""The same four pages with two kinds of session; what all three applications answer. Each is loaded by gunicorn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask import Flask, request, session
from flask.typing import ResponseReturnValue
from flask_session import Session
from flask_session.redis import RedisSessionInterface
from redis import Redis

from example_app.session import live
from flask_langpont_session import LangPontSession

REDIS_URL, DATABASE_URL, JOURNAL = "OUTAGES_REDIS_URL", "OUTAGES_DATABASE_URL", "OUTAGES_JOURNAL"
"""Environment variables by which an application finds what it needs."""

SECRET_KEY = "a key of the outage report, 32 bytes or more"

TIMEOUT = 1
"""Seconds, of every time-out that the other systems can be given."""

TOOK = "X-Took"
"""Header: seconds from the entry into the application until its response was complete."""

USER = "user_id"
LISTS = {"account": "session_token", "drafts": "translation_context"}
"""What the writing page writes → the session key. By flask_langpont_session's default table the first is an auth key,
which it mirrors to SQL, and the second is data of priority ``high``. To the others a key is a key."""


def shown(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every page answers."""
    return {"user": session.get(USER), **{name: list(session.get(key, [])) for name, key in LISTS.items()}}


def create_langpont() -> Flask:
    """Return flask_langpont_session with its defaults, on Redis and the database; a sign-in has a new id by itself."""
    app = _app()
    for name in (REDIS_URL, DATABASE_URL, JOURNAL):
        app.config[name.replace("OUTAGES", "LANGPONT_SESSION")] = os.environ[name]
    LangPontSession(app)
    return app


def create_timed() -> Flask:
    """Return the same; every answer says at which level it was made and how long that took."""
    app = create_langpont()
    app.after_request(_add_level)
    app.wsgi_app = _Timed(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _add_level(response: Any) -> Any:
    response.headers[LEVEL] = live().level
    return response


LEVEL = "X-Level"
"""Header: the level of the request."""


class _Timed:
    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        began = time.perf_counter()

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            # Flask has saved the session by now.
            return start_response(status, [*headers, (TOOK, f"{time.perf_counter() - began:.6f}")], *rest)

        return self._app(environ, start)


def create_flask_session() -> Flask:
    """Return Flask-Session on Redis, as its documentation says: a client of one's own, everything else by default. A
    client made by ``from_url`` tries nothing again; one made by ``Redis(host=…)`` would do so ten times."""
    app = _app()
    app.config["SESSION_TYPE"] = "redis"
    redis = Redis.from_url(os.environ[REDIS_URL], socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
    app.config["SESSION_REDIS"] = redis
    Session(app)
    app.add_url_rule("/healthz/live", view_func=lambda: "ok")  # flask_langpont_session has one
    return app


def _app() -> Flask:
    """Return an application with pages: sign in, read, write, sign out."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = SECRET_KEY

    @app.post("/sign-in")
    def sign_in() -> ResponseReturnValue:
        if isinstance(app.session_interface, RedisSessionInterface):
            app.session_interface.regenerate(session)
        session[USER] = request.form["user"]
        return shown(session)

    @app.get("/read")
    def read() -> ResponseReturnValue:
        return shown(session)

    @app.post("/write/<what>")
    def write(what: str) -> ResponseReturnValue:
        key = LISTS[what]
        session[key] = [*session.get(key, []), int(request.form["number"])]
        return shown(session)

    @app.post("/sign-out")
    def sign_out() -> ResponseReturnValue:
        session.clear()
        return shown(session)

    return app
