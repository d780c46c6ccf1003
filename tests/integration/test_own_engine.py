"""An engine of the application's own: nothing of the package is to be seen in the application's use of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from devservers.processes import LONG
from devservers.servers import Postgres
from flask_langpont_session.stores.sql.database import Database, make_engine
from flask_langpont_session.stores.sql.tables import METADATA

from .conftest import MakeApp, on_sqlite
from .mariadb import MariaDB

EVENTS = {"pool": ("connect", "checkout", "checkin", "close"), "dispatch": ("begin",), "dialect": ("do_connect",)}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """Yield an engine as an application makes one, with a listener and a ping."""
    engine = sa.create_engine(database_url, pool_pre_ping=True, hide_parameters=True)
    sa.event.listen(engine, "checkout", lambda connection, record, proxy: None)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


def listeners(engine: sa.Engine) -> dict[str, Any]:
    """All listeners of an engine and its pool, and how it pings."""
    found: dict[str, Any] = {"do_ping": vars(engine.dialect).get("do_ping")}
    for place, names in EVENTS.items():
        dispatch: Any = engine.dispatch if place == "dispatch" else getattr(engine, place).dispatch
        found |= {f"{place} {name}": list(getattr(dispatch, name)) for name in names}
    return found


LISTENED_TO = {"sqlite": "dispatch begin", "postgresql": "dialect do_connect", "mysql": "dialect do_connect"}
"""What another pool cannot tell: that a transaction is open in this thread; that a connection is being made."""


def test_the_pool_of_the_application_is_never_used(engine: sa.Engine) -> None:
    """No listener of ours stays, no connection of it is taken, replaced or closed: not after an outage either."""
    before, pool = listeners(engine), engine.pool
    one, two = Database(engine, timeout=LONG), Database(engine, timeout=LONG)
    for database in (one, two):
        database.probe(LONG)
        assert database.load("no digest of a session") is None
    event = LISTENED_TO[engine.dialect.name]
    there = listeners(engine)
    assert len(there[event]) == len(before[event]) + 2
    assert {**there, event: before[event]} == before
    assert engine.pool.status() == pool.status()
    assert engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    one.close()
    assert len(listeners(engine)[event]) == len(before[event]) + 1
    for database in (two, two, one):
        database.close()
    assert (listeners(engine), engine.pool) == (before, pool)
    two.probe(LONG)


def test_connections_are_made_as_the_application_makes_them(postgres: Postgres) -> None:
    """The creator, the listeners and the schema's name of the application's engine hold for these connections, too."""
    made: list[str] = []

    def connect() -> Any:
        made.append("by the application")
        return psycopg.connect(postgres.url.replace("+psycopg", ""))

    engine = sa.create_engine("postgresql+psycopg://", creator=connect, isolation_level="SERIALIZABLE")
    METADATA.create_all(engine)

    @sa.event.listens_for(engine, "connect")
    def note(connection: Any, record: object) -> None:
        made.append("prepared")

    made.clear()
    database = Database(engine.execution_options(schema_translate_map={None: "public"}), timeout=LONG)
    database.probe(LONG)
    assert made == ["by the application", "prepared"]
    with database.engine.connect() as connection:
        assert connection.get_isolation_level() == "SERIALIZABLE"
        assert connection.get_execution_options()["schema_translate_map"][None] == "public"
    database.close()
    engine.dispose()


@on_sqlite
def test_a_pool_that_the_application_has_emptied_is_its_own_affair(database_url: str) -> None:
    """Sessions have connections of their own: with one in all, which a view holds, its session is saved."""
    engine = sa.create_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    database = Database(engine, timeout=LONG)
    database.upkeep.create_tables()
    with engine.connect():
        database.probe(LONG)
        assert database.load("digest") is None
    database.close()
    engine.dispose()


def test_connecting_is_limited_for_sessions_alone(postgres: Postgres) -> None:
    """The limit holds for sessions alone, whatever connected before."""
    engine = sa.create_engine(postgres.url, poolclass=sa.NullPool, hide_parameters=True)
    limits: list[object] = []
    database = Database(engine, timeout=LONG)
    sa.event.listen(
        engine, "do_connect", lambda dialect, record, args, params: limits.append(params.get("connect_timeout"))
    )
    database.upkeep.create_tables()
    limits.clear()
    for _ in range(2):
        database.probe_read(LONG)
        engine.connect().close()
    database.close()
    assert limits == [2, None, 2, None]


@pytest.mark.parametrize("owner", ["its own", "the application's"])
def test_the_limit_for_a_greeting_is_none_for_answers(mariadb: MariaDB, owner: str) -> None:
    """PyMySQL has one limit for both: with two seconds for every answer no patient call could work."""
    engine = make_engine(mariadb.url, LONG) if owner == "its own" else sa.create_engine(mariadb.url)
    METADATA.create_all(engine)
    engine.dispose()
    database = Database(engine, timeout=LONG)
    database.probe(LONG)
    with database.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        assert (driver.connect_timeout, driver._read_timeout) == (2, None)
        assert database.engine.pool.checkedout() == 1  # type: ignore[attr-defined]
    database.close()
    engine.dispose()


def test_an_engine_of_ours_sees_what_others_have_committed(mariadb: MariaDB) -> None:
    """In MariaDB's own mode a transaction goes on seeing what there was when it first read, and locks what is not
    there."""
    database = Database(make_engine(mariadb.url, LONG), timeout=LONG)
    with database.connections.writing() as connection:
        assert connection.exec_driver_sql("SELECT @@tx_isolation, @@innodb_snapshot_isolation").one() == (
            "READ-COMMITTED",
            0,
        )
    database.close()


def test_a_user_whom_the_engine_has_no_form_for_is_in_the_log(
    mariadb: MariaDB, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A 503 at each try, and nothing is wrong with the database: only the log can tell. It does not name the user."""
    engine = sa.create_engine(mariadb.url, connect_args={"charset": "latin1"})
    client: Any = make_app(DATABASE_URL=engine).test_client()
    assert client.post("/set", json={"_user_id": "7"}).status_code == 200
    assert client.post("/set", json={"_user_id": "花子"}).status_code == 503
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "refuses the data" in record.getMessage() and "花子" not in record.getMessage()
    assert client.get("/get/_user_id").json["value"] == "7"
    engine.dispose()
