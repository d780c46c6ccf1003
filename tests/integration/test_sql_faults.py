"""Faults of the SQL database, row by row: the error class, which users it stops, what pages show, how it is over.

Each row is caused for real, by a lock, a setting, a file, or the proxy before the server. Those of PostgreSQL and
SQLite that are rows of the fault matrix (``tests/faults/matrix.py``) are not repeated here.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, after_this_request, request, session
from flask.wrappers import Response

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session import LangPontSession
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import FAILURES
from tests.faults.proxy import HANG, REFUSE, Fault, FaultProxy

from .behind import NO_LIMITS, age_entry, emptied, outcomes, questions, sign_in, wait_until_home
from .conftest import MakeApp, parts, redis_store
from .counting import wait_for_monitors
from .mariadb import MariaDB

TIMEOUT = 0.5
"""Seconds that a database has here which does not answer."""

PATIENCE = 1.5
"""Seconds that one has which says what is wrong: a fifth of it lies between the end of a wait for a lock and ours."""

USER = "sesame-user"
BOTH = frozenset({"read", "write"})
WRITES = frozenset({"write"})
NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Place:
    """The database in which a fault is to happen.

    :param url: leads to the database, not through the proxy.
    :param admin_url: the same for an administrator.
    """

    app: Flask
    url: str
    proxy: FaultProxy | None = None
    admin_url: str | None = None

    @contextmanager
    def admin(self) -> Iterator[sa.Connection]:
        """Yield another client's connection; each statement is committed."""
        engine = sa.create_engine(self.admin_url or self.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection

    def renew_connections(self) -> None:
        """Let new connections be made, as after those before have been idle for too long."""
        with parts(self.app).monitor.paused():  # one that it borrowed would never be closed
            parts(self.app).backend.database.engine.dispose()


Cause = Callable[[Place], AbstractContextManager[object]]


@dataclass(frozen=True)
class Row:
    """One fault.

    :param on: ``sqlite``, ``postgresql`` or ``mariadb``.
    :param cause: lasts while it is open.
    :param error: the class of what a call that meets it is answered, or the monitor that was faster.
    :param lost: the directions whose breaker opens.
    :param hangs: it is noticed by waiting. (All else is noticed however patient the application is.)
    """

    name: str
    on: str
    cause: Cause
    error: str
    lost: frozenset[str]
    hangs: bool = False

    @property
    def timeout(self) -> float:
        """Return the time-out for an application that meets this fault."""
        return TIMEOUT if self.hangs else PATIENCE


def lock_table(mode: str) -> Cause:
    @contextmanager
    def lock(place: Place) -> Iterator[None]:
        with place.admin() as connection:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql(f"LOCK TABLE langpont_sessions IN {mode} MODE")
            yield
            connection.exec_driver_sql("ROLLBACK")

    return lock


@contextmanager
def read_only_file(place: Place) -> Iterator[None]:
    """Connections of this time never write again: only new ones do."""
    engine = parts(place.app).backend.database.engine

    def refuse(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA query_only = ON")

    sa.event.listen(engine, "connect", refuse)
    place.renew_connections()
    yield
    sa.event.remove(engine, "connect", refuse)


@contextmanager
def locked_for_backup(place: Place) -> Iterator[None]:
    """MariaDB: no client writes, or commits, while a backup copies the files."""
    with place.admin() as connection:
        connection.exec_driver_sql("FLUSH TABLES WITH READ LOCK")
        yield
        connection.exec_driver_sql("UNLOCK TABLES")


def global_setting(name: str) -> Cause:
    @contextmanager
    def switch_on(place: Place) -> Iterator[None]:
        with place.admin() as connection:
            connection.exec_driver_sql(f"SET GLOBAL {name} = 1")
            place.renew_connections()
            try:
                yield
            finally:
                connection.exec_driver_sql(f"SET GLOBAL {name} = 0")

    return switch_on


@contextmanager
def too_many_connections(place: Place) -> Iterator[None]:
    """Others have them all. (MariaDB keeps one more for an administrator, and knows no fewer than ten.)"""
    with place.admin() as connection, ExitStack() as others:
        [before] = connection.exec_driver_sql("SELECT @@max_connections").one()
        connection.exec_driver_sql("SET GLOBAL max_connections = 10")
        engine = sa.create_engine(place.url, poolclass=sa.NullPool)
        try:
            with parts(place.app).monitor.paused():
                place.renew_connections()
                for _ in range(20):
                    with suppress(sa.exc.OperationalError):
                        others.enter_context(engine.connect())
            yield
        finally:
            connection.exec_driver_sql(f"SET GLOBAL max_connections = {before}")


@contextmanager
def hidden_table(place: Place) -> Iterator[None]:
    def rename(old: str, new: str) -> None:
        with place.admin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")

    place.app.testing = False  # where it would be made again
    rename("langpont_sessions", "hidden")
    yield
    rename("hidden", "langpont_sessions")


def on_the_way(fault: Fault, *, connected: bool = True) -> Cause:
    @contextmanager
    def fail(place: Place) -> Iterator[None]:
        assert place.proxy is not None
        if not connected:
            place.renew_connections()
        with place.proxy.failing(fault):
            yield
        assert place.proxy.hits[fault.name] > 0

    return fail


ROWS = [
    Row("read-only", "sqlite", read_only_file, "WRITE_REFUSED", WRITES),
    Row("black hole, connecting", "postgresql", on_the_way(HANG, connected=False), "UNREACHABLE", BOTH, hangs=True),
    Row("locked against writes", "postgresql", lock_table("EXCLUSIVE"), "WRITE_REFUSED", WRITES),
    Row("locked against reads", "postgresql", lock_table("ACCESS EXCLUSIVE"), "BUSY", BOTH),
    Row("refused", "mariadb", on_the_way(REFUSE), "UNREACHABLE", BOTH),
    Row("no greeting", "mariadb", on_the_way(HANG, connected=False), "UNREACHABLE", BOTH, hangs=True),
    Row("locked for a backup", "mariadb", locked_for_backup, "WRITE_REFUSED", WRITES),
    Row("read-only after failover", "mariadb", global_setting("read_only"), "WRITE_REFUSED", WRITES),
    Row("too many connections", "mariadb", too_many_connections, "BUSY", BOTH),
    Row("missing table", "mariadb", hidden_table, "NO_TABLES", BOTH),
]


@pytest.fixture
def place(row: Row, make_app: MakeApp, sqlite_url: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """An application on the database that a row is about."""

    def app_on(url: str) -> Flask:
        return make_app(DATABASE_URL=url, DATABASE_TIMEOUT=row.timeout, REQUEST_BUDGET=2 * row.timeout)

    if row.on == "sqlite":
        yield Place(app_on(sqlite_url), sqlite_url)
        return
    server: Postgres | MariaDB = request.getfixturevalue({"postgresql": "postgres"}.get(row.on, row.on))
    url = emptied(server)
    with FaultProxy("127.0.0.1", server.port, greets=row.on == "mariadb") as proxy:
        way = proxy.instead_of(url) + NO_LIMITS[row.on]
        yield Place(app_on(way), url, proxy, getattr(server, "admin_url", None))


def lost(app: Flask) -> frozenset[str]:
    """The directions in which requests do not use the database."""
    return frozenset(way for store, way in parts(app).health.open_stores() if store == "database")


def end_lease(app: Flask, primary: Valkey, digest: str) -> None:
    """The database said so a minute ago, and is to be asked again."""
    age_entry(primary, digest, 61_000, "@at")
    redis_store(app).server_identity.trust_since_ms -= 61_000


def answers(app: Flask) -> bool:
    return bool(app.test_client().post(f"/login/{USER}").status_code == 200)


def visited(app: Flask, primary: Valkey, user: Any) -> frozenset[str]:
    """Return the lost stores after visitors came in vain, and a signed-in user came and noticed nothing."""
    assert not answers(app)
    end_lease(app, primary, user.digest)
    assert user.get("/who").json["user"] == USER
    return lost(app)


def calls_have_ended(app: Flask) -> bool:
    database = parts(app).backend.database
    return not (database.calls.requests.busy or database.calls.probes.busy or database.calls.patient.busy)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.on}: {row.name}")
def test_a_fault_of_the_database(row: Row, place: Place, primary: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """Signed-in users stay so, a user who signs in is told to come back, and it is over by itself."""
    app = place.app
    caplog.set_level(logging.DEBUG)
    user = sign_in(app, USER, input_text="sesame-text")
    wait_for_monitors()
    with row.cause(place):
        refused = app.test_client().post(f"/login/{USER}")
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert "Set-Cookie" not in refused.headers
        # A busy machine may lose more for a moment, and finds out.
        wait_until(lambda: visited(app, primary, user) == row.lost, f"breaker for {row.lost}")
        end_lease(app, primary, user.digest)
        asked = questions(app)
        assert user.get("/who").json == {"user": USER, "level": 0, "lang": None}
        assert (questions(app) > asked) == ("read" not in row.lost)
        assert row.error in {parts(app).health.breakers["database", way].cause for way in row.lost}
    wait_until_home(app)
    wait_until(lambda: answers(app), "an answer")
    assert user.get("/who").json["user"] == USER
    assert lost(app) == NONE
    wait_until(lambda: calls_have_ended(app), "the end of hung calls")
    assert "sesame" not in caplog.text


@pytest.mark.parametrize("on", ["postgres", "mariadb"])
def test_a_request_that_waits_for_a_locked_row_keeps_no_other_waiting(
    make_app: MakeApp, on: str, request: pytest.FixtureRequest
) -> None:
    """A person looks at one user's row in a transaction and goes for a coffee: that user cannot sign out or get other
    rights meanwhile; all others sign in, and no breaker opens."""
    url = emptied(request.getfixturevalue(on))
    app = make_app(DATABASE_URL=url, DATABASE_TIMEOUT=PATIENCE / 2, REQUEST_BUDGET=PATIENCE)
    user = sign_in(app, USER)
    locker = sa.create_engine(url, poolclass=sa.NullPool)
    with parts(app).monitor.paused(), locker.connect() as connection, connection.begin():
        row = {"digest": user.digest}
        connection.execute(sa.text("SELECT * FROM langpont_sessions WHERE digest = :digest FOR UPDATE"), row)
        for _ in range(FAILURES):
            assert user.post("/set", json={"user_role": "editor"}).status_code == 503
        assert lost(app) == NONE
        assert answers(app)
    assert outcomes(app, "database") == {"ok", "write_refused"}
    assert user.post("/set", json={"user_role": "editor"}).status_code == 200


@pytest.mark.parametrize("on", ["postgres", "mariadb"])
def test_connections_that_the_server_closed_cost_no_request_anything(
    make_app: MakeApp, on: str, request: pytest.FixtureRequest
) -> None:
    """Connections are closed as after an hour without visitors, behind a firewall that forgets, or after a restart:
    no request meets them."""
    server: Postgres | MariaDB = request.getfixturevalue(on)
    url = emptied(server)
    with FaultProxy("127.0.0.1", server.port, greets=on == "mariadb") as proxy:
        app = make_app(DATABASE_URL=proxy.instead_of(url))
        sign_in(app, USER)
        with parts(app).monitor.paused():
            open_before = proxy.connections
            proxy.drop_connections()
            assert proxy.connections == 0 < open_before
            assert answers(app)
        assert outcomes(app, "database") == {"ok"}
        assert lost(app) == NONE
        parts(app).close()


# -- the application's own engine ----------------------------------------------------------------------------------


SHARED = "LANGPONT_SESSION_DATABASE_URL"

OWN_WORK: dict[str, tuple[str, ...]] = {
    "has written": ("INSERT INTO notes VALUES ('mine')",),
    "has the lock": ("BEGIN IMMEDIATE",),
}


@pytest.fixture
def shared(make_app: MakeApp, tmp_path: Path) -> Flask:
    """An application that shares its SQLite engine, and whose pages leave a transaction open meanwhile."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'shared.sqlite3'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (text VARCHAR)")
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    app = make_app(DATABASE_URL=engine, DATABASE_TIMEOUT=PATIENCE / 2, REQUEST_BUDGET=PATIENCE)

    @app.post("/page/<user>")
    def work_and_sign_in(user: str) -> str:
        connection = engine.connect()
        for statement in request.get_json():
            connection.exec_driver_sql(statement)

        def finish() -> None:
            connection.commit()
            connection.close()

        @after_this_request
        def keep(response: Response) -> Response:
            # Later than the save of the session, as an application's own teardown is.
            response.call_on_close(finish)
            return response

        session["_user_id"] = user
        return "worked"

    return app


def engine_of(app: Flask) -> sa.Engine:
    """The application's."""
    engine: sa.Engine = app.config[SHARED]
    return engine


def notes(app: Flask) -> list[str]:
    with engine_of(app).connect() as connection:
        return list(connection.exec_driver_sql("SELECT text FROM notes").scalars())


@pytest.mark.parametrize("name", OWN_WORK)
def test_an_own_open_transaction_is_named(shared: Flask, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The request holds the lock that its session waits for: it is told which setting that is about and what to do.
    The database is not to blame, and the application's work is neither committed nor undone."""
    with parts(shared).monitor.paused():  # to which it is a lock like any other
        for _ in range(4):
            with shared.test_client().post(f"/page/{USER}", json=OWN_WORK[name]) as answer:
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert lost(shared) == NONE
    assert outcomes(shared, "database") == {"local"}
    assert notes(shared) == ["mine"] * 4 * (name == "has written")
    [record] = [record for record in caplog.records if SHARED in record.getMessage()]
    assert record.levelname == "ERROR"
    assert "commit it" in record.getMessage()
    assert "LANGPONT_SESSION_DATABASE_URL" in record.getMessage()
    assert answers(shared)


def test_an_own_transaction_that_has_written_is_named_without_waiting(shared: Flask) -> None:
    """Nothing is even begun: there is nothing to wait for."""
    begun: list[object] = []
    database = parts(shared).backend.database
    with shared.app_context(), engine_of(shared).connect() as connection:
        connection.exec_driver_sql("INSERT INTO notes VALUES ('mine')")
        sa.event.listen(database.engine, "begin", lambda connection: begun.append(connection))
        with parts(shared).monitor.paused(), pytest.raises(StoreError, match=SHARED) as caught:
            database.kill("digest")
    assert begun == []
    assert caught.value.error_class is ErrorClass.LOCAL


def test_a_sign_out_in_an_own_transaction_holds(shared: Flask) -> None:
    """It is kept in the journal and written when the lock is free."""
    user = sign_in(shared, USER)
    with shared.app_context(), engine_of(shared).connect() as connection:
        connection.exec_driver_sql("INSERT INTO notes VALUES ('mine')")
        revoked = LangPontSession().revoke(user.digest, shared)
        connection.rollback()
    assert not revoked.durable
    assert user.get("/who").json["user"] is None
    wait_until_home(shared)
    row = parts(shared).backend.database.load(user.digest)
    assert row is not None
    assert not row.live
