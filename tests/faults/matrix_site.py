"""A site for one row of the fault matrix: the application in this process, its stores behind proxies, and visitors.

Every value that a visitor has is found nowhere else, so that a page that shows another's data, or a log that quotes
any, gives itself away.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask, jsonify, request, session
from werkzeug.test import TestResponse

from devservers.constants import extended
from devservers.servers import Postgres, Valkey
from flask_langpont_session import LangPontSession, SessionTooLarge
from flask_langpont_session.policy.ids import digest_of
from flask_langpont_session.testing import captured_events
from tests.integration.conftest import close, cookie_of, parts

from .matrix_servers import Pair
from .proxy import FaultProxy

DEFAULT_THEME = "plain"
_KEYS = {"text": "input_text", "theme": "theme", "token": "session_token"}
SECRET_KEY = f"key-of-the-fault-matrix-{secrets.token_hex(16)}"

PATIENT: Mapping[str, Any] = {
    "REDIS_TIMEOUT": 1.5,
    "DATABASE_TIMEOUT": 1.0,
    "REQUEST_BUDGET": 4.0,
    "DEFAULTS": {"theme": DEFAULT_THEME},
}
"""What takes no busy machine for a fault. A row that is about one of these says so."""


@dataclass
class Site:
    """The application of one row, with its servers and the proxies before them.

    :param proxies: store → what stands before it.
    :param config: settings of the application, without the prefix.
    :param postgres: the database; None: SQLite, which nothing can stand before.
    :param resolver: what knows the primary's name, where it has one.
    """

    pair: Pair
    proxies: Mapping[str, FaultProxy]
    folder: Path
    config: Mapping[str, Any]
    postgres: Postgres | None = None
    events: list[object] = field(default_factory=list)
    resolver: Any = None
    _apps: list[Flask] = field(default_factory=list)
    _listening: ExitStack = field(default_factory=ExitStack)

    @property
    def app(self) -> Flask:
        """The worker that serves."""
        return self._apps[-1]

    def server(self, store: str) -> Valkey:
        """``primary`` or ``replica``."""
        return self.pair.primary if store == "primary" else self.pair.replica

    @property
    def database_file(self) -> Path:
        """Return the path of SQLite's database."""
        return self.folder / "sessions.sqlite3"

    @property
    def database_url(self) -> str:
        """Return the URL by which the application reaches the database."""
        if self.postgres is None:
            return f"sqlite:///{self.database_file}"
        return self.proxies["database"].instead_of(self.postgres.url)

    @property
    def direct_database_url(self) -> str:
        """Return the URL of the database for a client without a proxy before it."""
        return self.postgres.url if self.postgres else self.database_url

    def start(self) -> None:
        """Start another worker in place of the one before. No store needs to answer."""
        self.stop()
        app = Flask("app", instance_path=str(self.folder))
        settings: dict[str, Any] = {
            "REDIS_URL": self.proxies["primary"].url("redis"),
            "REPLICA_URL": self.proxies["replica"].url("redis"),
            "DATABASE_URL": self.database_url,
            "JOURNAL": str(self.folder / "journal.sqlite3"),
            **PATIENT,
            **{key: value(self) if callable(value) else value for key, value in self.config.items()},
        }
        app.config.update(SECRET_KEY=SECRET_KEY, TESTING=True, PROPAGATE_EXCEPTIONS=False)
        app.config.update({f"LANGPONT_SESSION_{key}": value for key, value in settings.items() if value is not ...})
        _add_pages(app, extended(app))
        app.testing = False  # as users are served: a damaged record must fail no page
        self._apps.append(app)
        self.events = self._listening.enter_context(captured_events(app))

    def create_tables(self) -> None:
        """Create the tables of the database."""
        parts(self.app).backend.database.upkeep.create_tables()

    def stop(self) -> None:
        """No worker serves any more."""
        self._listening.close()
        if self._apps:
            close(self.app)


def _add_pages(app: Flask, interface: LangPontSession) -> None:
    @app.errorhandler(SessionTooLarge)
    def too_large(error: Exception) -> tuple[str, int]:
        return "too large", 413

    @app.get("/read")
    def read() -> Any:
        return jsonify(
            level=session.level,  # type: ignore[attr-defined]
            auth=[session.get("_user_id"), session.get("session_token")],
            translation=session.get("input_text"),
            ui=session.get("theme"),
        )

    @app.post("/write")
    def write() -> str:
        session.update(request.get_json())
        return "written"

    @app.post("/count")
    def count() -> str:
        return str(session.increment("usage_count"))  # type: ignore[attr-defined]

    @app.post("/sign-in")
    def sign_in() -> str:
        session.update(request.get_json())
        return "hello"

    @app.post("/sign-out")
    def sign_out() -> str:
        session.pop("_user_id", None)
        return "bye"

    @app.post("/sign-out-everywhere")
    def sign_out_everywhere() -> str:
        return str(interface.revoke_user(session["_user_id"]).durable)


@dataclass(frozen=True)
class Answer:
    """The answer of a page, and the time it took (seconds)."""

    status: int
    cookie: str | None
    seconds: float
    shown: Mapping[str, Any] | None
    text: str
    headers: Mapping[str, str]


class Visitor:
    """A browser with data of its own in all categories. Not for several threads at a time.

    :param is_user: signs in.
    """

    def __init__(self, site: Site, *, is_user: bool = True) -> None:
        self.site = site
        self.is_user = is_user
        self.cookie: str | None = None
        self.answers: list[Answer] = []
        self.counted = 0
        self.values = {name: f"{name}-{secrets.token_hex(8)}" for name in ("user", "token", "text", "theme")}
        self.seen_values = set(self.values.values())
        self.is_signed_in = False

    def arrive(self) -> None:
        """Sign in, store data in each category, have them counted once, and look at them."""
        if self.is_user:
            answer = self.sign_in()
            assert answer.status == 200, answer
        answer = self.send("POST", "/write", {"input_text": self.values["text"], "theme": self.values["theme"]})
        assert answer.status == 200, answer
        self.cookie = self.cookie or answer.cookie
        self.count()
        assert self.read().shown == {"level": 0, **self.everything}
        self.answers.clear()

    @property
    def everything(self) -> dict[str, Any]:
        """Return the data that a page shows of this visitor when all is well."""
        return {"auth": self.identity, "translation": self.values["text"], "ui": self.values["theme"]}

    @property
    def identity(self) -> list[str | None]:
        """Return user and token as the page shows them."""
        return [self.values["user"], self.values["token"]] if self.is_signed_in else [None, None]

    @property
    def digest(self) -> str:
        """Return the name under which the session is stored."""
        return digest_of(self.sid)

    @property
    def sid(self) -> str:
        """The session's id."""
        return (self.cookie or "").split(".")[0]

    def read(self) -> Answer:
        """Look at a page that shows all."""
        return self.send("GET", "/read")

    def write(self, name: str = "text", size: int = 0) -> Answer:
        """Store a new value in ``text`` (translation), ``theme`` (ui) or ``token`` (auth, but no right).

        :param size: fill it up to so many characters.
        """
        value = f"{name}-{secrets.token_hex(8)}".ljust(size, "x")
        self.seen_values.add(value)
        answer = self.send("POST", "/write", {_KEYS[name]: value})
        if answer.status == 200:
            self.values[name] = value
        return answer

    def count(self) -> Answer:
        """Add one on the server's side."""
        answer = self.send("POST", "/count")
        self.counted += answer.status == 200
        return answer

    def sign_in(self) -> Answer:
        """Sign in, and use the new cookie of kind u, unless the sign-in is refused."""
        answer = self.send("POST", "/sign-in", {"_user_id": self.values["user"], "session_token": self.values["token"]})
        self.is_signed_in = answer.status == 200
        self.cookie = answer.cookie or self.cookie
        return answer

    def sign_out(self) -> Answer:
        """The cookie stays, so that it can be tried again."""
        answer = self.send("POST", "/sign-out")
        self.is_signed_in = False
        return answer

    def send(self, method: str, path: str, json: Any = None) -> Answer:
        """Send one request with the cookie as it is, and keep the answer."""
        client = self.site.app.test_client(use_cookies=False)
        began = time.monotonic()
        headers = {"Cookie": f"session={self.cookie}"} if self.cookie else {}
        response: TestResponse = client.open(path, method=method, json=json, headers=headers)
        seconds = time.monotonic() - began
        shown = response.json if response.is_json else None
        answer = Answer(
            response.status_code, cookie_of(response), seconds, shown, response.text, dict(response.headers)
        )
        self.answers.append(answer)
        return answer

    def secrets(self) -> Iterator[str]:
        """Yield the values that no log may contain."""
        yield from self.seen_values
        if self.cookie:
            yield from (self.cookie, self.sid, self.digest)


@contextmanager
def proxies(pair: Pair, postgres: Postgres | None) -> Iterator[dict[str, FaultProxy]]:
    """A proxy before each server."""
    ports = {"primary": pair.primary.port, "replica": pair.replica.port}
    if postgres is not None:
        ports["database"] = postgres.port
    with ExitStack() as stack:
        yield {store: stack.enter_context(FaultProxy("127.0.0.1", port)) for store, port in ports.items()}
