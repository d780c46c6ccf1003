"""Statements over the driver's cursor, on each engine: they say and fail as SQLAlchemy has it, and whatever watches an
engine sees them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from devservers.processes import LONG
from devservers.servers import Postgres
from flask_langpont_session.policy.causes import USED_UP
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.sql import cursor
from flask_langpont_session.stores.sql.database import Database, make_engine
from flask_langpont_session.stores.sql.tables import METADATA

from .conftest import on_sqlite
from .rows import create, load, update

OWNERS: dict[str, Callable[[str], sa.Engine]] = {
    "its own": lambda url: make_engine(url, LONG),
    "the application's": lambda url: sa.create_engine(url, pool_pre_ping=True, hide_parameters=True),
}


@pytest.fixture(params=OWNERS)
def database(request: pytest.FixtureRequest, database_url: str) -> Iterator[Database]:
    """Yield a store with an engine of its own, and one with an engine of the application's."""
    engine = OWNERS[request.param](database_url)
    METADATA.create_all(engine)
    database = Database(engine, timeout=LONG)
    yield database
    database.close()
    engine.dispose()


@contextmanager
def listened_to(target: Any, event: str = "before_cursor_execute") -> Iterator[list[str]]:
    """The statements that a listener gets."""
    found: list[str] = []

    def listen(connection: Any, driver: Any, statement: str, *rest: Any) -> None:
        found.append(statement)

    sa.event.listen(target, event, listen)
    yield found
    sa.event.remove(target, event, listen)


@contextmanager
def logged(database: Database, caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The statements in the log."""
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        found: list[str] = []
        yield found
        found += caplog.messages


WATCHERS: dict[str, Callable[[Database, Any], AbstractContextManager[list[str]]]] = {
    "before": lambda database, caplog: listened_to(database.engine),
    "after": lambda database, caplog: listened_to(database.engine, "after_cursor_execute"),
    "every engine's": lambda database, caplog: listened_to(sa.Engine),
    "log": logged,
}


def calls(database: Database, digest: str) -> list[Any]:
    """Make the calls that requests make, and return their results without times."""
    created = create(database, digest)
    updated = update(database, 1, digest)
    found = load(database, digest)
    assert updated is not None
    assert found.idle_expires_at == updated.idle_expires_at > found.read_at >= created.created_at > 0
    said = [(row.digest, row.user_id, row.version, row.live, dict(row.payload)) for row in (created, updated, found)]
    return [*said, database.load("unknown"), update(database, 1, digest), database.kill(digest)]


def test_sqlalchemy_does_not_run_what_it_has_compiled(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign-in, a change and a read of a session."""
    create(database, "first")  # what a dialect asks its first connection
    run = cursor.run
    ran: list[Any] = []

    def noted(connection: Any, statement: Any, values: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(sa.engine.Connection, "execute", None)
            ran.append(statement)
            return run(connection, statement, values)

    for module in ("rows", "database"):
        monkeypatch.setattr(f"flask_langpont_session.stores.sql.{module}.run", noted)
    calls(database, "digest")
    assert len(ran) >= 5


@on_sqlite
@pytest.mark.parametrize("by", WATCHERS)
def test_what_is_watched_is_seen_and_comes_to_the_same(
    database: Database, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Listeners of the engine or of all engines, and the log, get every statement."""
    unseen = calls(database, "digest")
    with WATCHERS[by](database, caplog) as statements:
        seen = calls(database, "other!")
    text = "\n".join(statements)
    for beginning in ("INSERT INTO langpont_sessions", "UPDATE langpont_sessions", "SELECT langpont_sessions.digest"):
        assert beginning in text
    assert [str(each).replace("other!", "digest") for each in seen] == [str(each) for each in unseen]


@pytest.mark.parametrize("database", ["its own"], indirect=True)
def test_a_row_that_is_there_already_is_told_as_ever(database: Database) -> None:
    """Errors of a row that exists twice and of a missing table are recognised from the driver's error."""
    create(database, "digest")
    assert create(database, "digest").version == 1
    with pytest.raises(StoreError) as caught:
        create(database, "digest", user_id="8")
    assert (caught.value.error_class, caught.value.cause) == (ErrorClass.DATA, "AnotherRow")
    with database.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE langpont_sessions"))
    with pytest.raises(StoreError, match="langpont_sessions is not there") as caught:
        load(database, "digest")
    assert caught.value.error_class is ErrorClass.NO_TABLES


def test_an_older_driver_says_the_same(on_postgres: Database, postgres: Postgres) -> None:
    """It has another form of parameters, and other types of errors."""
    older = Database(make_engine(postgres.url.replace("+psycopg:", "+psycopg2:"), LONG), timeout=LONG)
    assert str(calls(older, "older!")).replace("older!", "digest") == str(calls(on_postgres, "digest"))
    with pytest.raises(StoreError, match="AnotherRow"):
        create(older, "digest", user_id="8")
    older.close()


REFUSALS = {
    "40001": ("SerializationFailure", ErrorClass.BUSY, False),
    "40P01": ("DeadlockDetected", ErrorClass.BUSY, False),
    "57014": ("QueryCanceled", ErrorClass.UNREACHABLE, True),
    "55P03": ("LockNotAvailable", ErrorClass.WRITE_REFUSED, False),
    "25006": ("ReadOnlySqlTransaction", ErrorClass.WRITE_REFUSED, False),
    "53300": (USED_UP, ErrorClass.BUSY, False),
}
"""SQLSTATE → name, class, and whether it counts as a time-out."""


@pytest.fixture
def on_postgres(postgres: Postgres) -> Iterator[Database]:
    """An empty one, on which a write fails as its user's name says."""
    database = Database(make_engine(postgres.url, LONG), timeout=LONG)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS langpont_sessions, langpont_users")
    database.upkeep.create_tables()
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF length(NEW.user_id) = 5 THEN RAISE EXCEPTION 'sesame' USING ERRCODE = NEW.user_id; END IF; "
            "RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON langpont_sessions FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    yield database
    database.close()


@pytest.mark.parametrize("sqlstate", REFUSALS)
def test_a_refusal_has_the_class_that_it_always_had(on_postgres: Database, sqlstate: str) -> None:
    """The word for its cause, or the server's own, and nothing of its text."""
    name, error_class, timed_out = REFUSALS[sqlstate]
    on_postgres.calls.timeout = 0.5  # what is taken back is tried again for so long
    with pytest.raises(StoreError) as caught:
        create(on_postgres, "digest", user_id=sqlstate)
    error = caught.value
    assert (error.cause, error.error_class, error.timed_out) == (name, error_class, timed_out)


QUESTIONS: dict[str, tuple[Callable[[Database], object], set[str]]] = {
    "a sign-in": (lambda database: create(database, "digest"), {"insert"}),
    "one in another's place": (
        lambda database: create(database, "digest", kill="first"),
        {"begin", "select", "update", "insert", "commit"},
    ),
    "a read": (lambda database: load(database, "first"), {"select"}),
    "a change": (lambda database: update(database, 1, "first"), {"begin", "update", "select", "commit"}),
    "a row that is there": (
        lambda database: create(database, "first"),
        {"insert", "rollback", "begin", "select", "commit"},
    ),
}
"""A call, and what MariaDB is asked for it, each once."""


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
@pytest.mark.parametrize("database", ["its own"], indirect=True)
@pytest.mark.parametrize("name", QUESTIONS)
def test_mariadb_is_asked_nothing_twice(database: Database, database_url: str, name: str) -> None:
    """A single statement opens no transaction, and after a commit nothing is rolled back."""
    call, asked = QUESTIONS[name]
    create(database, "first")
    watching = sa.create_engine(database_url)
    names = ", ".join(f"'Com_{word}'" for word in ("begin", "commit", "insert", "rollback", "select", "update"))

    def counts() -> dict[str, int]:
        rows = connection.exec_driver_sql(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({names})").all()
        return {word.removeprefix("Com_"): int(number) for word, number in rows}

    with watching.connect() as connection:
        before = counts()
        call(database)
        after = counts()
    watching.dispose()
    done = {word: after[word] - before[word] for word in after}
    assert {word: number for word, number in done.items() if number} == dict.fromkeys(asked, 1)


KILLS = {"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL {}"}

CALLS: dict[str, Callable[[Database], object]] = {
    "alone": lambda database: create(database, "digest"),
    "in a transaction": lambda database: create(database, "digest", kill="other"),
    "a read": lambda database: database.load("digest"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("database_url", KILLS, indirect=True)
@pytest.mark.parametrize("database", ["its own"], indirect=True)
def test_a_connection_that_is_lost_in_a_statement_is_not_lent_again(
    database: Database, database_url: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The lost connection does not go back to the pool either, which would complain of it."""
    others = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")

    def end(connection: Any, record: Any, proxy: Any) -> None:
        number = connection.info.backend_pid if "postgresql" in database_url else connection.thread_id()
        with others.connect() as other:
            other.exec_driver_sql(KILLS[others.dialect.name.replace("mysql", "mariadb")].format(number))

    CALLS[call](database)
    sa.event.listen(database.engine, "checkout", end)
    with pytest.raises(StoreError) as caught:
        CALLS[call](database)
    sa.event.remove(database.engine, "checkout", end)
    assert caught.value.error_class is ErrorClass.UNREACHABLE
    CALLS[call](database)
    assert [record.message for record in caplog.records if record.name.startswith("sqlalchemy")] == []
    others.dispose()
