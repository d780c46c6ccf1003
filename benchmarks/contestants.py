"""The contestants: ways to have (or not to have) a session, each behind the same Flask application."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from flask import Flask, session
from flask.sessions import SessionInterface, SessionMixin
from flask.wrappers import Request, Response
from flask_session import Session
from flask_session.redis import RedisSessionInterface

from devservers.constants import extended
from flask_langpont_session.config.settings import PATIENCE
from flask_langpont_session.events import level_changed
from flask_langpont_session.extension import state_of

from .scenarios import VALUE, Meeting, add_pages
from .wsgi import Reply, call, environ_for

SECRET_KEY = "a key of the benchmarks, 32 bytes or more"


class Contestant:
    """A Flask application with one kind of session.

    :param redis_url: of the server that all contestants share.
    :param folder: for files of its own.
    :param database_url: of the SQL database; empty: SQLite in the folder.
    :param settings: of this package, without their prefix.
    """

    name = ""
    label = ""
    #: Bytes of the largest session that fits; None: any.
    limit: int | None = None
    #: How often a store was lost or found again: with any, the run says nothing.
    outages = 0

    def __init__(self, redis_url: str, folder: Path, database_url: str = "", **settings: Any) -> None:
        self.redis_url, self.folder, self.settings = redis_url, folder, settings
        self.database_url = database_url or f"sqlite:///{folder / 'sessions.sqlite3'}"
        self.meeting = Meeting()
        self.app = Flask(__name__)
        self.app.config["SECRET_KEY"] = SECRET_KEY
        self.set_up()
        add_pages(self.app, self.regenerate, self.meeting)

    def set_up(self) -> None:
        """Install the session interface; Flask's own is there already."""

    def regenerate(self) -> None:
        """Give the session a new id at sign-in."""

    def close(self) -> None:
        """End what runs beside the application."""

    def begin(self, data: Mapping[str, Any]) -> str:
        """Store a new session with this data. Return the Cookie header that leads to it."""
        return self.get("/fill", value=data).cookie or ""

    def get(self, path: str, cookie: str = "", value: object = "theme-000") -> Reply:
        """Make one request. :raises RuntimeError: it did not succeed."""
        reply = call(self.app.wsgi_app, {**environ_for(path, cookie), VALUE: value})
        if reply.status != "200 OK":
            raise RuntimeError(f"{self.name}: {path} answered {reply.status}")
        return reply


class _PlainSession(dict[str, Any], SessionMixin):
    pass


class _NoSessions(SessionInterface):
    """Hands out dicts that are there already: what the pages themselves cost, and no session at all."""

    def __init__(self) -> None:
        self.dicts: dict[str, _PlainSession] = {}

    def open_session(self, app: Flask, request: Request) -> _PlainSession:
        return self.dicts[request.environ["HTTP_COOKIE"]]

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        pass


class Bare(Contestant):
    """Flask itself."""

    name, label = "bare", "bare Flask, no session"

    def set_up(self) -> None:
        self._sessions = self.app.session_interface = _NoSessions()

    def begin(self, data: Mapping[str, Any]) -> str:
        cookie = f"number={len(self._sessions.dicts)}"
        self._sessions.dicts[cookie] = _PlainSession(data)
        return cookie


class SignedCookie(Contestant):
    """Flask's own session."""

    name, label = "cookie", "Flask's cookie session"
    limit = 4093


class FlaskSession(Contestant):
    """Flask-Session on Redis with its defaults."""

    name, label = "flask-session", "Flask-Session, defaults"

    def set_up(self) -> None:
        self.app.config["SESSION_TYPE"] = "redis"
        self.app.config["SESSION_REDIS"] = redis.Redis.from_url(self.redis_url)
        Session(self.app)

    def regenerate(self) -> None:
        interface = self.app.session_interface
        assert isinstance(interface, RedisSessionInterface)
        interface.regenerate(session)


class FlaskSessionUnrefreshed(FlaskSession):
    """The same, but a session that is only read is not written, and so runs out while it is used."""

    name, label = "flask-session-unrefreshed", "… SESSION_REFRESH_EACH_REQUEST=False"

    def set_up(self) -> None:
        self.app.config["SESSION_REFRESH_EACH_REQUEST"] = False
        super().set_up()


class Ours(Contestant):
    """This package."""

    name, label = "ours", "**flask_langpont_session**"
    constants: Mapping[str, Any] = {}
    """Of the package, that are others (:mod:`devservers.constants`)."""

    def set_up(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": self.database_url,
            "JOURNAL": str(self.folder / "journal.sqlite3"),
            # Patience costs nothing while all is well. With the defaults, a busy machine would be an outage, and an
            # outage is not what is measured.
            **{name.upper(): value for name, value in PATIENCE.items()},
            **self.constants,
            **self.settings,
        }
        self.app.config.update({f"LANGPONT_SESSION_{name}": value for name, value in settings.items()})
        extended(self.app)
        level_changed.connect(self._note_outage, sender=self.app)
        state_of(self.app).backend.database.upkeep.create_tables()

    def _note_outage(self, app: Flask, *, event: object) -> None:
        self.outages += 1

    def close(self) -> None:
        state_of(self.app).close()


class OursWithoutNearCache(Ours):
    """This package, which then asks Redis at each read."""

    name, label = "ours-asking", "… without the near cache"
    constants: Mapping[str, Any] = {"NEAR_CACHE": ()}


KINDS: tuple[type[Contestant], ...] = (
    Bare,
    SignedCookie,
    FlaskSession,
    FlaskSessionUnrefreshed,
    OursWithoutNearCache,
    Ours,
)
"""All of them, in the order of the report."""
