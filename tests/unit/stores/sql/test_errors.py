"""Errors of SQL databases and their classes: the table cell by cell, with the exceptions that drivers really have."""

from __future__ import annotations

import sqlite3

import psycopg.errors
import pymysql
import pytest
import sqlalchemy as sa

from flask_langpont_session.policy.errors import HEALTH_CLASSES, ErrorClass, StoreError
from flask_langpont_session.stores.sql.bulkhead import DeadlineExceeded, NoFreeSlot, StartedLate
from flask_langpont_session.stores.sql.errors import (
    CLASSES,
    OwnTransaction,
    classify,
    leads_elsewhere,
    signs,
    store_error,
    waited_for_a_lock,
    was_taken_back,
)

SECRET = "INSERT INTO langpont_sessions VALUES ('sesame')"


class SQLiteError(sqlite3.OperationalError):
    """The error of SQLite's driver, under a name of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(SECRET)
        self.sqlite_errorname = name


def wrapped(origin: Exception) -> sa.exc.DBAPIError:
    """Return an error as SQLAlchemy hands it on."""
    wrap = sa.exc.DBAPIError.instance(SECRET, {}, origin, Exception, dialect=_dialect(origin), ismulti=False)
    assert isinstance(wrap, sa.exc.DBAPIError)
    return wrap


def _dialect(origin: Exception) -> sa.Dialect:
    if isinstance(origin, pymysql.Error):
        return sa.make_url("mysql+pymysql://").get_dialect()()
    return sa.make_url("sqlite://" if isinstance(origin, sqlite3.Error) else "postgresql+psycopg://").get_dialect()()


def of_postgresql(state: str) -> sa.exc.DBAPIError:
    """Return the error that psycopg makes of an SQLSTATE."""
    return wrapped(psycopg.errors.lookup(state)(SECRET))


def of_mariadb(number: int, text: str = SECRET) -> sa.exc.DBAPIError:
    """Return the error that PyMySQL makes of a number; mysqlclient makes the same."""
    return wrapped(pymysql.err.error_map.get(number, pymysql.OperationalError)(number, text))


# What kept a transaction from writing; the class of the same thing met by a read, where that differs.
POSTGRESQL = {
    "08006": "U",  # connection failure
    "22003": "D",  # a number that is too big
    "22P05": "D",  # a character that cannot be stored
    "23505": "D",  # duplicate key
    "25006": "WB",  # read-only: a standby
    "25P02": "U",  # a transaction that failed before
    "26000": "U",  # a prepared statement that is not there: a pooler between
    "28000": "A",
    "28P01": "A",  # wrong password
    "3D000": "U",  # no such database
    "40001": "B",  # serialization failure; a standby that cannot wait for a reader
    "40P01": "B",  # deadlock
    "42501": "A",  # no rights
    "42601": "U",  # syntax error: not this database
    "42703": "U",  # no such column
    "42P01": "N",  # no such table
    "53100": "WB",  # disk full
    "53200": "B",  # out of memory
    "53300": "B",  # too many connections
    "54000": "D",  # too big
    "55P03": "WB",  # lock not available
    "57014": "U",  # statement time-out
    "57P01": "U",  # shut down by the administrator
    "57P02": "U",  # crashed
    "57P03": "B",  # starting up
    "57P05": "U",  # the connection was idle for too long
    "58030": "U",  # I/O error
    "XX000": "U",  # internal error
    "XX001": "U",  # data corrupted
}

MARIADB = {
    1020: "B",  # changed since it was read: of a snapshot
    1021: "WB",  # disk full
    1037: "B",  # out of memory
    1038: "B",  # out of memory for sorting
    1040: "B",  # too many connections
    1041: "B",  # out of resources
    1044: "A",  # not this database
    1045: "A",  # wrong password
    1049: "U",  # no such database
    1053: "U",  # shutting down
    1062: "D",  # duplicate key
    1064: "U",  # syntax error: not this database
    1114: "WB",  # table full
    1129: "A",  # this host is blocked
    1130: "A",  # this host is not allowed
    1142: "A",  # no rights
    1143: "A",  # no rights to a column
    1146: "N",  # no such table
    1153: "D",  # too big
    1203: "B",  # too many connections of this user
    1205: "WB",  # lock not available
    1213: "B",  # deadlock
    1223: "WB",  # a backup has the lock
    1226: "B",  # the user has used up an hour's share
    1227: "A",  # not this user
    1264: "D",  # a number that is too big
    1290: "WB",  # read-only: a replica
    1317: "U",  # ended by the administrator
    1366: "D",  # a character that cannot be stored
    1406: "D",  # too long
    1665: "WB",  # binlog_format = STATEMENT
    1698: "A",
    1792: "WB",  # read-only transaction
    1836: "WB",  # read-only server
    1927: "U",  # the connection was ended
    1969: "WU",  # time is up: a write waited for a lock, a read for an answer
    2003: "U",  # refused
    2006: "U",  # gone
    2013: "U",  # lost
    3024: "U",  # time is up, of MySQL's reads
}

SQLITE = {
    "SQLITE_AUTH": "A",
    "SQLITE_BUSY": "WB",
    "SQLITE_BUSY_SNAPSHOT": "WB",
    "SQLITE_BUSY_RECOVERY": "WB",
    "SQLITE_CANTOPEN": "U",
    "SQLITE_CANTOPEN_ISDIR": "U",
    "SQLITE_CONSTRAINT_PRIMARYKEY": "D",
    "SQLITE_CORRUPT": "U",
    "SQLITE_ERROR": "U",  # all that is not said otherwise
    "SQLITE_FULL": "WB",
    "SQLITE_INTERRUPT": "U",
    "SQLITE_IOERR_FSYNC": "U",
    "SQLITE_LOCKED_SHAREDCACHE": "WB",
    "SQLITE_MISMATCH": "D",
    "SQLITE_NOMEM": "B",
    "SQLITE_NOTADB": "U",
    "SQLITE_PERM": "A",
    "SQLITE_PROTOCOL": "U",
    "SQLITE_READONLY": "WB",
    "SQLITE_READONLY_DBMOVED": "WB",
    "SQLITE_SCHEMA": "U",
    "SQLITE_TOOBIG": "D",
}


class Psycopg2Error(Exception):
    """psycopg2 has SQLSTATE by another name."""

    pgcode = "55P03"


OURS_AND_OTHERS: list[tuple[Exception, str]] = [
    (wrapped(Psycopg2Error()), "WB"),
    (wrapped(sqlite3.OperationalError("no such table: langpont_users")), "N"),
    (NoFreeSlot(), "L"),
    (StartedLate(), "L"),
    (OwnTransaction(), "L"),
    (DeadlineExceeded(), "U"),
    (sa.exc.TimeoutError(), "L"),  # the pool is exhausted: no DBAPIError, and no time-out of the database
    (sa.exc.InvalidRequestError(), "U"),
    (sa.exc.OperationalError("", {}, Exception(SECRET)), "U"),
    (sa.exc.InterfaceError("", {}, Exception(SECRET)), "U"),
    (sa.exc.DataError("", {}, Exception(SECRET)), "D"),
    (sa.exc.IntegrityError("", {}, Exception(SECRET)), "D"),
    (wrapped(psycopg.errors.ConnectionTimeout(SECRET)), "U"),
    (wrapped(psycopg.OperationalError(SECRET)), "U"),
    (OverflowError(), "D"),
    (UnicodeEncodeError("utf-8", "\ud800", 0, 1, SECRET), "D"),
    (OSError(), "U"),
    (ZeroDivisionError(), "U"),
]

CELLS: dict[str, list[tuple[Exception, str]]] = {
    "PostgreSQL": [(of_postgresql(state), classes) for state, classes in POSTGRESQL.items()],
    "MariaDB": [(of_mariadb(number), classes) for number, classes in MARIADB.items()],
    "SQLite": [(wrapped(SQLiteError(name)), classes) for name, classes in SQLITE.items()],
    "others": OURS_AND_OTHERS,
}


@pytest.mark.parametrize("database", CELLS)
def test_an_error_has_a_class(database: str) -> None:
    """An error has one class in a transaction that writes, and one in a transaction that reads."""
    found = [(error, f"{classify(error).value}{classify(error, writing=False).value}") for error, _ in CELLS[database]]
    assert found == [(error, classes[0] + classes[-1]) for error, classes in CELLS[database]]


def test_each_sign_of_the_table_has_an_example() -> None:
    """A new sign in the table of the code fails here until it has an example, with its class for a write and for a
    read."""
    told_by = {
        next((sign for sign in signs(error) if sign in CLASSES), Exception)
        for cells in CELLS.values()
        for error, _ in cells
    }
    assert CLASSES.keys() - told_by == set()


def test_every_state_that_psycopg_knows_has_a_class_that_concerns_health_or_one_user() -> None:
    """Our own limits are never read into what a server says, and topology is nothing that SQL has."""
    found = (getattr(error, "sqlstate", None) for error in vars(psycopg.errors).values())
    states = {state for state in found if isinstance(state, str)}
    assert len(states) > 200
    classes = {classify(of_postgresql(state)) for state in states}
    assert classes == HEALTH_CLASSES | {ErrorClass.DATA}


def test_every_code_that_sqlite_has_is_known_by_its_primary_one() -> None:
    """The extended ones mean the same, only more exactly."""
    names = [name for name in vars(sqlite3) if name.startswith("SQLITE_") and isinstance(getattr(sqlite3, name), int)]
    extended = [name for name in names if name.count("_") > 1 and "_".join(name.split("_")[:2]) in SQLITE]
    assert len(extended) > 10
    for name in extended:
        assert classify(SQLiteError(name)) == classify(wrapped(SQLiteError(name)))
        assert classify(wrapped(SQLiteError(name))) == classify(wrapped(SQLiteError("_".join(name.split("_")[:2]))))


@pytest.mark.parametrize(
    ("error", "cause", "timed_out"),
    [
        (DeadlineExceeded(SECRET), "DeadlineExceeded", True),
        (of_postgresql("57014"), "QueryCanceled", True),
        (wrapped(psycopg.errors.ConnectionTimeout(SECRET)), "ConnectionTimeout", True),
        (of_postgresql("55P03"), "LockNotAvailable", False),
        (of_mariadb(1969), "OperationalError 1969", False),
        (of_mariadb(3024), "OperationalError 3024", True),
        (of_mariadb(1146, "Table 'x.langpont_users' doesn't exist"), "langpont_users is not there; in a new", False),
        (of_mariadb(1045), "OperationalError 1045", False),
        (wrapped(SQLiteError("SQLITE_BUSY_SNAPSHOT")), "SQLITE_BUSY_SNAPSHOT", False),
        (
            wrapped(sqlite3.OperationalError("no such table: langpont_users")),
            "langpont_users is not there; in a new",
            False,
        ),
        (sa.exc.TimeoutError(SECRET), "TimeoutError", False),
        (KeyError(SECRET), "KeyError", False),
    ],
    ids=lambda value: repr(getattr(value, "orig", value))[:40],
)
def test_an_error_is_told_by_name_and_quotes_nothing(error: Exception, cause: str, timed_out: bool) -> None:
    """Statements and values stand in the drivers' texts, and nowhere in ours."""
    told = store_error(error, writing=True)
    assert told.cause.startswith(cause)
    assert told.timed_out is timed_out
    assert "sesame" not in str(told)


def test_a_read_that_took_too_long_is_waited_for_no_more() -> None:
    """MariaDB says the same of a write that waited for a lock, and few others want that one."""
    assert store_error(of_mariadb(1969), writing=False).timed_out


def test_an_own_transaction_is_named_with_what_to_do() -> None:
    """The message has both ways out: the commit, and a database of its own."""
    told = store_error(OwnTransaction(), writing=True)
    assert "LANGPONT_SESSION_DATABASE_URL" in told.cause
    assert "commit" in told.cause
    assert not told.concerns_health


def test_a_busy_database_is_not_asked_for_new_connections() -> None:
    """All else that concerns health may mean that a connection leads to the wrong server."""
    elsewhere = {kind for kind in ErrorClass if leads_elsewhere(StoreError("database", kind, "cause"))}
    assert elsewhere == HEALTH_CLASSES - {ErrorClass.BUSY}


@pytest.mark.parametrize(
    ("error", "is_victim", "has_waited"),
    [
        (of_postgresql("40P01"), True, False),
        (of_postgresql("40001"), True, False),
        (of_mariadb(1213), True, False),
        (of_mariadb(1020), True, False),
        (of_mariadb(1205), False, False),
        (of_postgresql("55P03"), False, False),
        (DeadlineExceeded(), False, True),
        (wrapped(SQLiteError("SQLITE_BUSY")), False, True),
        (wrapped(SQLiteError("SQLITE_LOCKED_SHAREDCACHE")), False, True),
        (wrapped(SQLiteError("SQLITE_FULL")), False, False),
        (NoFreeSlot(), False, False),
    ],
)
def test_what_may_be_begun_anew_is_known(error: Exception, is_victim: bool, has_waited: bool) -> None:
    """A victim of another transaction at once, not while a lock is still held; a wait for SQLite's lock by its end."""
    assert (was_taken_back(error), waited_for_a_lock(error)) == (is_victim, has_waited)
