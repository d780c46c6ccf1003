"""The errors of the SQL database: a class for the rest of the package, and a name that quotes no value.

The drivers are many and raise more than their documentation says. An error that is in no table must count against the
database rather than end as an answer or a crash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ...policy import causes
from ...policy.errors import ErrorClass, StoreError
from ...support.errors import LangPontSessionError
from .bulkhead import DeadlineExceeded, NoFreeSlot, StartedLate

NAME = "database"
"""The name of the store in errors."""


class OwnTransaction(LangPontSessionError):
    """The caller waits for a lock that it holds itself: its own transaction, open on the engine that it shares."""

    def __init__(self) -> None:
        super().__init__(
            "this request's own transaction on the engine of LANGPONT_SESSION_DATABASE_URL is open, and SQLite lets "
            "only one connection write; commit it before the session is changed, or write the URL of another file there"
        )


_U, _B, _W = ErrorClass.UNREACHABLE, ErrorClass.BUSY, ErrorClass.WRITE_REFUSED
_A, _D, _L = ErrorClass.IDENTITY_REFUSED, ErrorClass.DATA, ErrorClass.LOCAL
_N = ErrorClass.NO_TABLES

_NO_TABLE = "no such table"
"""SQLite has no code for it, only these words."""

CLASSES: Mapping[object, ErrorClass] = {
    # our own limits
    NoFreeSlot: _L,
    StartedLate: _L,
    PoolTimeout: _L,
    OwnTransaction: _L,
    DeadlineExceeded: _U,
    # PostgreSQL: SQLSTATE, or its first two characters
    "22": _D,  # data exception
    "23": _D,  # integrity constraint violation
    "25006": _W,  # read-only transaction: a standby, or a primary that was demoted
    "28": _A,  # invalid authorization
    "40": _B,  # deadlock, serialization failure: rolled back
    "42501": _A,  # insufficient privilege
    "42P01": _N,  # undefined table
    "53": _B,  # insufficient resources
    "53300": _B,  # too many connections
    "53100": _W,  # disk full
    "54": _D,  # a value or statement beyond the server's limits
    "55P03": _W,  # another transaction has the lock, and did not give it back in time
    "57P03": _B,  # starting up
    # MariaDB and MySQL: number
    1020: _B,  # the row has changed since it was read: rolled back
    1021: _W,  # disk full
    1037: _B,  # out of memory …
    1038: _B,
    1040: _B,  # too many connections
    1041: _B,
    1044: _A,  # this user may not use the database
    1045: _A,  # wrong password
    1114: _W,  # a table is full: no room for its file
    1129: _A,  # this host is blocked …
    1130: _A,  # … or not allowed
    1142: _A,  # this user may not use the table …
    1143: _A,  # … or a column
    1146: _N,
    1153: _D,  # longer than max_allowed_packet
    1203: _B,  # the user has too many connections
    1205: _W,  # another transaction has the lock, and did not give it back in time
    1213: _B,  # deadlock: rolled back
    1223: _W,  # FLUSH TABLES WITH READ LOCK, by a backup
    1226: _B,  # the user has too many connections, or has asked too much in this hour
    1227: _A,  # this user may not
    1290: _W,  # read_only: a replica, or a primary that was demoted
    1366: _D,  # characters that the column cannot hold
    1406: _D,  # too long for the column
    1665: _W,  # binlog_format = STATEMENT, with which READ COMMITTED cannot write
    1698: _A,  # not by this way of signing in
    1792: _W,  # read-only transaction
    1836: _W,  # innodb_read_only
    1969: _W,  # MariaDB: time is up, for whatever it waited. No read waits for a lock: of a write it was one, as a rule
    # SQLite: name of the primary result code
    _NO_TABLE: _N,
    "SQLITE_AUTH": _A,
    "SQLITE_BUSY": _W,  # another connection has the lock of the file
    "SQLITE_CONSTRAINT": _D,
    "SQLITE_FULL": _W,
    "SQLITE_LOCKED": _W,  # another connection of a shared cache has the lock of the table
    "SQLITE_MISMATCH": _D,
    "SQLITE_NOMEM": _B,
    "SQLITE_PERM": _A,
    "SQLITE_READONLY": _W,
    "SQLITE_TOOBIG": _D,
    # classes of SQLAlchemy and of Python
    DataError: _D,
    IntegrityError: _D,
    OverflowError: _D,
    UnicodeError: _D,
    Exception: _U,
}
"""Sign of an error → its class. The most specific sign counts; any that is not here is class U, the careful one:
no connection, a statement that took too long, a file that is no database, a bug of a driver."""

_SAID = (
    ("password authentication failed", causes.PASSWORD, _A),
    ("no pg_hba.conf entry", causes.PASSWORD, _A),
    ("too many clients", causes.USED_UP, _B),
    ("too many connections", causes.USED_UP, _B),
    ("remaining connection slots", causes.USED_UP, _B),
    ("the database system is starting up", "starting up", _B),
    ("failed to resolve host", causes.NO_NAME, _U),
    ("could not translate host name", causes.NO_NAME, _U),
    ("Name or service not known", causes.NO_NAME, _U),
    ("Connection refused", causes.REFUSED, _U),
    ("certificate has expired", causes.EXPIRED, _A),
    ("certificate expired", causes.EXPIRED, _A),
    ("certificate verify failed", causes.NOT_TRUSTED, _A),
)
"""Part of the text of an error that has no code, as a driver meets it while it connects → cause and class. The first
that fits counts."""

_NO_CONNECTION_LEFT = frozenset({"53300", 1040, 1203})

_WHILE_READING: Mapping[object, ErrorClass] = {1969: _U, _W: _B}
"""Sign or class → the class if a read met it. As a rule a database that takes no writes can still be read. A read that
meets such an error nevertheless (a file that is locked as a whole, no room to sort in) cannot read, and must count
against reads."""

_TIMED_OUT = frozenset({DeadlineExceeded, "57014", 1969, 3024, "ConnectionTimeout"})
"""Signs that the next caller would have to wait as long again, unless it was for a lock, which few others want."""

_LOCKED_ROW = frozenset({"55P03", 1205, 1969})
"""Signs of a write that waited too long for a lock, where each row has one of its own."""

_WAITED_FOR_A_LOCK = frozenset({DeadlineExceeded, "SQLITE_BUSY", "SQLITE_LOCKED"})
"""Signs of a write that waited too long for SQLite's lock, if it waited for nothing else."""

_TAKEN_BACK = frozenset({"40001", "40P01", 1020, 1213})
"""Signs that the database ended a transaction in favour of another one: it need only be begun anew."""

_LEADS_ELSEWHERE = frozenset({_U, _W, _A, _N})
"""Classes after which a connection may lead to a server that is not the one to ask any more. Not class B: what is busy
shall not be asked for new connections as well."""

BRING_BACK = (
    "in a new installation run `flask langpont init-db`; if a migration renamed or dropped it, bring it back: an empty "
    "one signs every user out"
)
"""The cure where a table is missing."""

_MISSING_TABLE = re.compile(r"langpont_(?:sessions|users)")


def classify(exc: BaseException, *, writing: bool = True) -> ErrorClass:
    """Return the class of an exception of a driver, of SQLAlchemy or of our own limits.

    :param writing: whether it was met by a transaction that writes.
    """
    sign = next((sign for sign in signs(exc) if sign in CLASSES), Exception)
    error_class = CLASSES[sign]
    if error_class is _U and (said := _said(exc)):
        error_class = said[1]
    return error_class if writing else _WHILE_READING.get(sign, _WHILE_READING.get(error_class, error_class))


def lacks_tables(exc: BaseException) -> bool:
    """Return whether the database answers, and has not been given its tables."""
    return classify(exc) is _N


def leads_elsewhere(error: StoreError) -> bool:
    """Return whether connections that are open now should not be used again."""
    return error.error_class in _LEADS_ELSEWHERE


def was_taken_back(exc: BaseException) -> bool:
    """Return whether the database rolled a transaction back that would do no harm a moment later."""
    return any(sign in _TAKEN_BACK for sign in signs(exc))


def waited_for_a_lock(exc: BaseException) -> bool:
    """Return whether a write may have failed because it waited too long for SQLite's lock."""
    return any(sign in _WAITED_FOR_A_LOCK for sign in signs(exc))


def store_error(exc: Exception, *, writing: bool) -> StoreError:
    """Return an exception as the rest of the package knows it; see :func:`classify`."""
    if isinstance(exc, StoreError):
        return exc
    error_class = classify(exc, writing=writing)
    timed_out = error_class is not _W and any(sign in _TIMED_OUT for sign in signs(exc))
    error = StoreError(NAME, error_class, _cause(exc), timed_out=timed_out)
    error.may_be_one_row = error_class is _W and any(sign in _LOCKED_ROW for sign in signs(exc))
    return error


def signs(exc: BaseException) -> Iterator[object]:
    """Yield the signs by which the tables may know an error, the most specific first."""
    origin = getattr(exc, "orig", None) or exc  # not everything comes through SQLAlchemy
    if state := getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None):  # psycopg, psycopg2
        yield from (state, state[:2])
    if number := _number(origin):
        yield number
    if _NO_TABLE in str(origin):
        yield _NO_TABLE
    if name := getattr(origin, "sqlite_errorname", None):
        yield "_".join(name.split("_")[:2])
    yield type(origin).__name__
    yield from type(exc).__mro__


def _cause(exc: Exception) -> str:
    """Return an error's name. Of its text, which may quote values, only the name of a table of ours that is missing."""
    origin = exc.orig if isinstance(exc, DBAPIError) else None
    if isinstance(exc, OwnTransaction):
        return str(exc)
    if origin is None:
        return type(exc).__name__
    if lacks_tables(exc) and (table := _MISSING_TABLE.search(str(origin))):
        return f"{table[0]} is not there; {BRING_BACK}"
    if any(sign in _NO_CONNECTION_LEFT for sign in signs(exc)):
        return causes.USED_UP
    if (said := _said(exc)) and classify(exc) is said[1]:
        return said[0]
    number = _number(origin)
    return getattr(origin, "sqlite_errorname", None) or type(origin).__name__ + (f" {number}" if number else "")


def _said(exc: BaseException) -> tuple[str, ErrorClass] | None:
    """Return what a driver said that could not connect, in our words, and its class; None: it has a code, or says
    something else."""
    origin = getattr(exc, "orig", None) or exc
    if getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None):
        return None
    text = str(origin) if isinstance(exc, DBAPIError) else ""
    return next(((word, kind) for says, word, kind in _SAID if says in text), None)


def _number(origin: BaseException) -> int | None:
    """Return the error's number in MariaDB and MySQL. The system's own (`errno`) are smaller than all of theirs."""
    first = origin.args[0] if origin.args else None
    return first if type(first) is int and first >= 1000 else None
