"""The contestants: six ways to have (or not to have) a session, each behind the same Flask application."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from flask import Flask, session
from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin
from flask.wrappers import Request, Response
from flask_session.redis import RedisSessionInterface
from msgspec import json

from flask_langpont_session import LangPontSession
from flask_langpont_session.events import level_changed
from flask_langpont_session.extension import state_of

from . import near_cache
from .measure import ASKING, OURS, Reply, call, environ_for
from .scenarios import SIZES, VALUE, Meeting, add_pages


class Contestant:
    """A Flask application with one kind of session.

    :param redis_url: the server all contestants share.
    """

    name = ""
    label = ""
    limit: int | None = None
    """Largest session that fits, in bytes."""

    outages = 0
    """How often a store was lost or found again: with any, the run says nothing."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self.meeting = Meeting()
        self.app = Flask(__name__)
        self.app.config["SECRET_KEY"] = "a key of the benchmarks, 32 bytes or more"
        self.set_up()
        add_pages(self.app, self.regenerate, self.meeting)

    def set_up(self) -> None:
        """Install the session interface."""

    def regenerate(self) -> None:
        """Give the session a new id at sign-in."""

    def close(self) -> None:
        """End what runs beside the application."""

    def begin(self, data: Mapping[str, Any]) -> str:
        """Store a new session with this data. Return the Cookie header that leads to it."""
        reply = self.get("/fill", value=data)
        return reply.cookie or ""

    def get(self, path: str, cookie: str = "", value: object = "theme-000") -> Reply:
        """Make one request. :raises RuntimeError: it did not succeed."""
        reply = call(self.app.wsgi_app, {**environ_for(path, cookie), VALUE: value})
        if reply.status != "200 OK":
            raise RuntimeError(f"{self.name}: {path} answered {reply.status}")
        return reply


# -- without a server ----------------------------------------------------------------------------------------------


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
        self._sessions = _NoSessions()
        self.app.session_interface = self._sessions

    def begin(self, data: Mapping[str, Any]) -> str:
        cookie = f"number={len(self._sessions.dicts)}"
        self._sessions.dicts[cookie] = _PlainSession(data)
        return cookie


class SignedCookie(Contestant):
    """Flask's own session."""

    name, label = "cookie", "Flask's cookie session"
    limit = 4093

    def set_up(self) -> None:
        self.app.session_interface = SecureCookieSessionInterface()


# -- with a server -------------------------------------------------------------------------------------------------


class FlaskSession(Contestant):
    """Flask-Session on Redis with its defaults."""

    name, label = "flask-session", "Flask-Session, defaults"

    def set_up(self) -> None:
        from flask_session import Session

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


class _HashSession(dict[str, Any], SessionMixin):
    def __init__(self, sid: str, data: Mapping[str, Any]) -> None:
        super().__init__(data)
        self.sid = sid
        self.left: str | None = None
        self.changed: set[str] = set()

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.changed.add(key)

    def update(self, *args: Any, **kwargs: Any) -> None:
        super().update(*args, **kwargs)
        self.changed.update(dict(*args, **kwargs))


class _HashSessions(SessionInterface):
    """Three hashes, read and prolonged in one pipeline; changed fields go out in another. It guards against nothing."""

    life = 3600
    category_of: Mapping[str, str] = {key: name for name, data in SIZES["1 KB"].items() for key in data}
    categories = tuple(SIZES["1 KB"])

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)

    def open_session(self, app: Flask, request: Request) -> _HashSession:
        sid = request.cookies.get("session")
        if not sid:
            return _HashSession(secrets.token_urlsafe(32), {})
        pipeline = self.client.pipeline(transaction=False)
        for category in self.categories:
            pipeline.hgetall(f"hand:{category}:{{{sid}}}")
        for category in self.categories:
            pipeline.expire(f"hand:{category}:{{{sid}}}", self.life)
        hashes = pipeline.execute()[: len(self.categories)]
        return _HashSession(sid, {name.decode(): json.decode(raw) for found in hashes for name, raw in found.items()})

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        assert isinstance(session, _HashSession)
        response.vary.add("Cookie")
        if not session.changed:
            return
        changes: dict[str, dict[str, bytes]] = {}
        for key in session.changed:
            changes.setdefault(self.category_of.get(key, "ui"), {})[key] = json.encode(session[key])
        pipeline = self.client.pipeline(transaction=False)
        for category, fields in changes.items():
            pipeline.hset(f"hand:{category}:{{{session.sid}}}", mapping=fields)  # type: ignore[arg-type]
            pipeline.expire(f"hand:{category}:{{{session.sid}}}", self.life)
        if session.left:
            pipeline.delete(*(f"hand:{category}:{{{session.left}}}" for category in self.categories))
        pipeline.execute()
        response.set_cookie("session", session.sid, httponly=True)


class HandWritten(Contestant):
    """By hand: the least that a session in three hashes has to do, without SQL."""

    name, label = "by-hand", "written by hand: 3 HGETALL + 3 EXPIRE (+ HSET + EXPIRE)"

    def set_up(self) -> None:
        self.app.session_interface = _HashSessions(self.redis_url)

    def regenerate(self) -> None:
        found: Any = session
        found.left, found.sid = found.sid, secrets.token_urlsafe(32)
        found.changed.update(found)


class Ours(Contestant):
    """This package.

    :param folder: for its journal.
    """

    name, label = OURS, "**flask_langpont_session**"
    near = True
    """Whether it uses the near cache."""

    def __init__(self, redis_url: str, database_url: str, folder: Path) -> None:
        self._database_url = database_url
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(redis_url)

    def set_up(self) -> None:
        settings = {
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": self._database_url,
            "JOURNAL": str(self._folder / "journal.sqlite3"),
            # Patience costs nothing while all is well. With the defaults, a busy machine would be an outage, and an
            # outage is not what is measured.
            "REDIS_TIMEOUT": 3.0,
            "DATABASE_TIMEOUT": 3.0,
            "REQUEST_BUDGET": 5.0,
            **near_cache.setting(on=self.near),
        }
        self.app.config.update({f"LANGPONT_SESSION_{name}": value for name, value in settings.items()})
        LangPontSession(self.app)
        level_changed.connect(self._note_outage, sender=self.app)
        state_of(self.app).backend.database.upkeep.create_tables()

    def _note_outage(self, app: Flask, *, event: object) -> None:
        self.outages += 1

    def close(self) -> None:
        state = state_of(self.app)
        state.monitor.stop()
        state.backend.database.engine.dispose()
        state.backend.journal.close()


class OursWithoutNearCache(Ours):
    """This package, which then asks Redis at each read."""

    name, label = ASKING, "… without the near cache"
    near = False


def without_sql(redis_url: str) -> list[Contestant]:
    """Return all contestants but ours, in the order of the report."""
    kinds: tuple[type[Contestant], ...] = (Bare, SignedCookie, FlaskSession, FlaskSessionUnrefreshed, HandWritten)
    return [kind(redis_url) for kind in kinds]
