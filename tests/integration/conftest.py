"""Real servers, started once for the whole run and reset between tests, never restarted for tidiness."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from flask import Flask, jsonify, request, session

from devservers.constants import extended
from devservers.servers import Postgres, Valkey
from flask_langpont_session.build import State
from flask_langpont_session.extension import state_of
from flask_langpont_session.ops.exporters import session_index as active
from flask_langpont_session.stores.host import file as journal_file
from flask_langpont_session.stores.redis.store import RedisStore
from tests.faults.proxy import FaultProxy
from tests.support import patience

from .mariadb import MariaDB
from .scripts_server import made


@pytest.fixture(scope="session")
def primary_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("primary")) as server:
        yield server


@pytest.fixture(scope="session")
def replica_server(tmp_path_factory: pytest.TempPathFactory, primary_server: Valkey) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("replica"), replica_of=primary_server) as server:
        yield server


@pytest.fixture
def primary(primary_server: Valkey) -> Valkey:
    """The primary, empty and running."""
    primary_server.start()
    with primary_server.client() as client:
        client.flushall()
    return primary_server


@pytest.fixture
def proxy(primary: Valkey) -> Iterator[FaultProxy]:
    """Yield a proxy between an application and the primary. Name this fixture before the application's, so that the
    proxy outlives the application."""
    assert primary.port
    with FaultProxy("127.0.0.1", primary.port) as proxy:
        yield proxy


@pytest.fixture
def replica(primary: Valkey, replica_server: Valkey) -> Valkey:
    """The replica, running and following."""
    replica_server.start()
    return replica_server


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server for tests of the store alone, on each program in turn."""
    with made(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture
def raw(server: Valkey) -> Iterator[Any]:
    """A client to look behind the store's back; the server is empty."""
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with MariaDB(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def database_url_on(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes an empty database, given its engine."""

    def make(name: str) -> str:
        if name.startswith("sqlite"):
            return f"sqlite:///{tmp_path / name.replace(', ', '-')}.sqlite3"
        server = {"postgresql": "postgres", "mariadb": "mariadb"}[name]
        url: str = request.getfixturevalue(server).url
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS langpont_sessions, langpont_users"))
        engine.dispose()
        return url

    return make


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest, database_url_on: Callable[[str], str]) -> str:
    """An empty database, on each engine in turn."""
    return database_url_on(request.param)


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what no statement decides."""


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An empty SQLite database, for tests that are not about SQL."""
    return f"sqlite:///{tmp_path / 'sessions.sqlite3'}"


@pytest.fixture(autouse=True)
def a_slow_disk_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of how long the journal is waited for say that themselves."""
    monkeypatch.setattr(journal_file, "BUSY_SECONDS", patience.JOURNAL)


@pytest.fixture(autouse=True)
def patient_exporters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine that lets the count of sessions wait is no fault of Redis."""
    monkeypatch.setattr(active, "TIMEOUT", 30.0)


MakeApp = Callable[..., Flask]


PATIENT = {"DATABASE_TIMEOUT": 3.0, "REDIS_TIMEOUT": 3.0, "REQUEST_BUDGET": 6.0}
"""A busy machine that lets a store wait is no fault of the store: only tests of hangs have short waits of their own."""

SHORT_WAITS = {"REDIS_TIMEOUT": 0.2}
"""The defaults, for tests in which Redis hangs."""


ENCRYPTED: Mapping[str, Any] = {
    "ENCRYPTION_KEYS": [bytes(range(200, 232)).hex(), bytes(range(100, 132)).hex()],
    "ENCRYPTED_CATEGORIES": ["auth", "ui"],  # the other one has counters
}

ENCRYPTED_TOO = frozenset({"test_near_cache"})
"""Modules whose tests run a second time with encryption: copies of sealed values are believed. What users get is the
same."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every module with encryption, and no other way, if LANGPONT_ENCRYPTED=1: tests that look at what the
    stores have fail then."""
    if "encryption" not in metafunc.fixturenames:
        return
    if os.environ.get("LANGPONT_ENCRYPTED"):
        metafunc.parametrize("encryption", [ENCRYPTED], ids=["encrypted"])
    elif metafunc.module.__name__.rpartition(".")[2] in ENCRYPTED_TOO:
        metafunc.parametrize("encryption", [{}, ENCRYPTED], ids=["plain", "encrypted"])


@pytest.fixture
def encryption() -> Mapping[str, Any]:
    """Settings."""
    return {}


def in_production(make_app: MakeApp) -> MakeApp:
    """Return a factory of applications as users are served: where one is developed or tested, what cannot be stored is
    raised."""

    def make(**config: Any) -> Flask:
        app = make_app(**config)
        app.testing = False
        return app

    return make


@pytest.fixture
def make_app(primary: Valkey, sqlite_url: str, tmp_path: Path, encryption: Mapping[str, Any]) -> Iterator[MakeApp]:
    """Yield a factory of applications on the real servers, which end with the test; `config` without the prefix."""
    made: list[Flask] = []

    def make(**config: Any) -> Flask:
        app = Flask("app", instance_path=str(tmp_path))
        flask_keys = {key: config.pop(key) for key in list(config) if key.startswith(("SESSION_", "SECRET", "PERM"))}
        budget = config.get("REQUEST_BUDGET", PATIENT["REQUEST_BUDGET"])
        settings = {
            "REDIS_URL": primary.url,
            "DATABASE_URL": sqlite_url,
            "JOURNAL": str(tmp_path / "journal.sqlite3"),
            **{name: min(seconds, budget) for name, seconds in PATIENT.items()},
            **encryption,
            **config,
        }
        app.config.update({"SECRET_KEY": "test key of the test suite, 32+ bytes", "TESTING": True, **flask_keys})
        app.config.update({f"LANGPONT_SESSION_{key}": value for key, value in settings.items() if value is not ...})
        extended(app)
        made.append(app)
        unforced(state_of(app).backend.database.engine)
        state_of(app).backend.database.upkeep.create_tables()
        add_views(app)
        return app

    yield make
    for app in made:
        close(app)


def unforced(engine: sqlalchemy.Engine) -> None:
    """Do not wait for the disk at each commit to SQLite: what is tested is to survive processes, not power cuts."""
    if engine.dialect.name == "sqlite":
        sqlalchemy.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))


def close(app: Flask) -> None:
    """End what an application runs, and an engine of its own."""
    state_of(app).close()
    if engine := state_of(app).settings.database_engine:
        engine.dispose()


def add_views(app: Flask) -> None:
    """The few pages most tests need."""

    @app.post("/set")
    def set_keys() -> str:
        session.update(request.get_json())
        return "set"

    @app.get("/get/<key>")
    def get_key(key: str) -> Any:
        return jsonify(value=session.get(key), present=key in session)

    @app.get("/all")
    def get_all() -> Any:
        return jsonify(dict(session))

    @app.post("/pop/<key>")
    def pop_key(key: str) -> Any:
        return jsonify(value=session.pop(key, None))

    @app.post("/login/<user>")
    def login(user: str) -> str:
        session["_user_id"] = user
        session["_fresh"] = True
        session["user_role"] = request.args.get("role", "user")
        return f"hello {user}"

    @app.post("/logout")
    def logout() -> str:
        session.pop("_user_id", None)
        return "bye"

    @app.get("/who")
    def who() -> Any:
        return jsonify(user=session.get("_user_id"), level=session.level, lang=session.get("lang"))  # type: ignore[attr-defined]

    @app.get("/untouched")
    def untouched() -> str:
        return "untouched"


def parts(app: Flask) -> State:
    """The parts of an application, for tests that look inside."""
    return state_of(app)


def redis_store(app: Flask, role: str = "primary") -> RedisStore:
    """The store of a single server, for what only that has."""
    store = parts(app).backend.redis[role]
    assert isinstance(store, RedisStore)
    return store


def cookie_of(response: Any, name: str = "session") -> str | None:
    """The value of the session cookie that a response sets; None if it sets none; "" if it deletes it."""
    for header in response.headers.getlist("Set-Cookie"):
        if header.startswith(f"{name}="):
            return str(header.split(";")[0].split("=", 1)[1])
    return None
