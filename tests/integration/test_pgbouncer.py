"""PgBouncer in transaction mode, with its defaults: what connections begin with is refused there, and what one sets for
itself would be another client's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from devservers.processes import LONG
from devservers.servers import Postgres
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.rows import RowState
from flask_langpont_session.stores.sql.database import Database, make_engine

from .behind import emptied
from .pgbouncer import PgBouncer
from .rows import create, load, locked, together, until_it_answers, update

SHORT = 0.25
LIMITS = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"

POOLERS = {
    "as it comes": "",
    # As many set it for other applications: options arrive nowhere, without a word.
    "deaf": "ignore_startup_parameters = options",
    # Every transaction may be on another server connection, and every client has the same one.
    "without prepared statements": "max_prepared_statements = 0\ndefault_pool_size = 2",
}


@pytest.fixture(scope="module")
def bouncers(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, PgBouncer]]:
    """Each kind; started when it is needed."""
    made = {name: PgBouncer(tmp_path_factory.mktemp("pgbouncer"), postgres, extra) for name, extra in POOLERS.items()}
    yield made
    for bouncer in made.values():
        bouncer.stop()


@pytest.fixture(params=POOLERS)
def bouncer(bouncers: dict[str, PgBouncer], postgres: Postgres, request: pytest.FixtureRequest) -> PgBouncer:
    emptied(postgres)
    bouncers[request.param].start()
    return bouncers[request.param]


@pytest.fixture(params=["psycopg", "psycopg2"])
def url(bouncer: PgBouncer, request: pytest.FixtureRequest) -> str:
    """Through the pooler, by each driver."""
    return bouncer.url.replace("+psycopg", f"+{request.param}")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A store with the default time-out, warmed up."""
    database = Database(make_engine(url, SHORT), timeout=LONG)
    database.upkeep.create_tables()
    until_it_answers(database)
    yield database
    database.close()


def limits(connection: sa.Connection) -> Any:
    return tuple(connection.exec_driver_sql(LIMITS).one())


def test_rows_are_kept_as_without_it(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Statements are run often enough for a driver to prepare them, by several connections at once."""
    for number in range(8):
        rows = together(*(partial(create, database, f"{letter}{number}") for letter in "abcd"))
        assert [row.version for row in rows] == [1] * 4
    create(database)
    assert update(database, 1) is not None
    assert load(database).version == 2
    assert database.kill_user("7") == 1
    assert database.load_many(["digest"], LONG).rows["digest"].state is RowState.DEAD
    assert database.upkeep.purge(0) == 0


def test_limits_are_those_of_each_transaction(database: Database, url: str) -> None:
    """Limits hold for reading transactions as well, with patience or without; the next client of the server
    connection has none."""
    with database.connections.reading() as connection:
        assert limits(connection) == ("200ms", "100ms")
    with database.connections.writing() as connection:
        assert limits(connection) == ("200ms", "100ms")
    with database.connections.patience(10), database.connections.writing() as connection:
        assert limits(connection) == ("8s", "4s")
    stranger = sa.create_engine(url)
    for _ in range(4):
        with stranger.connect() as connection:
            assert limits(connection) == ("0", "0")
    stranger.dispose()


def test_a_locked_row_is_an_error_soon(database: Database, postgres: Postgres) -> None:
    """The error comes in time, as without PgBouncer: the lock was the reason, and the caller is told."""
    create(database)
    direct = Database(make_engine(postgres.url, LONG), timeout=LONG)
    with locked(direct), pytest.raises(StoreError, match="LockNotAvailable") as caught:
        database.kill("digest")
    assert caught.value.error_class is ErrorClass.WRITE_REFUSED
    assert database.kill("digest") == 2
    direct.close()


def test_it_is_said_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log says once that PgBouncer refuses the options, which explains why a read takes four round trips instead
    of one."""
    caplog.set_level(logging.INFO, "flask_langpont_session")
    database = Database(make_engine(url, SHORT), timeout=LONG)
    database.upkeep.create_tables()
    for _ in range(3):
        database.probe(LONG)
        database.connections.distrust()
    database.close()
    said = [record for record in caplog.records if "takes no start-up options" in record.getMessage()]
    assert len(said) == 1


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_without_a_pooler_options_are_taken(postgres: Postgres, driver: str) -> None:
    """Limits cost no round trip, and neither does the end of a transaction that only reads."""
    url = emptied(postgres).replace("+psycopg", f"+{driver}")
    database = Database(make_engine(f"{url}?options=-c%20statement_timeout%3D7s", SHORT), timeout=LONG)
    database.upkeep.create_tables()
    with database.connections.reading() as connection:
        assert limits(connection) == ("7s", "100ms")  # what the URL says itself is kept
        assert connection.connection.driver_connection.autocommit  # type: ignore[union-attr]
    create(database)
    assert load(database).state is RowState.VALID
    database.close()
