"""Flask-Session on Redis, as its documentation says: a client of one's own, everything else by default."""

from __future__ import annotations

from flask import Flask, session
from flask_session import Session
from flask_session.redis import RedisSessionInterface
from redis import Redis

from .pages import REDIS_URL, SECRET_KEY, add_pages, from_environment

TIMEOUT = 1.0
"""Seconds, of both time-outs that the client can be given."""


def create_app() -> Flask:
    """Return the application. A client made by ``from_url`` tries nothing again; one made by ``Redis(host=…)`` would do
    so ten times."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = SECRET_KEY
    app.config["SESSION_TYPE"] = "redis"
    url = from_environment(REDIS_URL)
    app.config["SESSION_REDIS"] = Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
    Session(app)

    def regenerate() -> None:
        interface = app.session_interface
        assert isinstance(interface, RedisSessionInterface)
        interface.regenerate(session)

    add_pages(app, regenerate)
    return app
