"""What an error of the SQL database says: a class for the rest of the package, and a name that quotes no value.

The drivers are many and raise more than their documentation says. An error that nobody knows must count against the
database rather than end as an answer or a crash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..bulkhead import DeadlineExceeded, NoFreeSlot, StartedLate
from .base import ErrorClass, StoreError

NAME = "database"
"""What errors call the store."""

_U, _B, _W = ErrorClass.UNREACHABLE, ErrorClass.BUSY, ErrorClass.WRITE_REFUSED
_A, _D, _L = ErrorClass.IDENTITY_REFUSED, ErrorClass.DATA, ErrorClass.LOCAL

_CLASSES: Mapping[object, ErrorClass] = {
    # our own limits
    NoFreeSlot: _L,
    StartedLate: _L,
    PoolTimeout: _L,
    DeadlineExceeded: _U,
    # PostgreSQL: SQLSTATE, or its first two characters
    "22": _D,  # data exception
    "23": _D,  # integrity constraint violation
    "25006": _W,  # read-only transaction: a standby, or a primary that was demoted
    "28": _A,  # invalid authorization
    "40": _B,  # deadlock, serialization failure: rolled back
    "42501": _A,  # insufficient privilege
    "53": _B,  # insufficient resources, too many connections
    "53100": _W,  # disk full
    "57P03": _B,  # starting up
    # SQLite: name of the primary result code
    "SQLITE_CONSTRAINT": _D,
    "SQLITE_FULL": _W,
    "SQLITE_MISMATCH": _D,
    "SQLITE_READONLY": _W,
    "SQLITE_TOOBIG": _D,
    # classes of SQLAlchemy and of Python
    DataError: _D,
    IntegrityError: _D,
    OverflowError: _D,
    UnicodeError: _D,
    Exception: _U,
}
"""What an error says about the database. The most specific sign counts; what is not here is class U, the careful one:
a lock that was not free, no connection, a missing table, a bug of a driver."""

_TIMED_OUT = frozenset({DeadlineExceeded, "57014", "ConnectionTimeout"})
"""Of those, which mean that the next caller would have to wait as long again."""

_MISSING_TABLE = re.compile(r"langpont_(?:sessions|users)")


def classify(exc: BaseException) -> ErrorClass:
    """What kind of failure an exception of a driver, of SQLAlchemy or of our own limits is."""
    return next((_CLASSES[sign] for sign in _signs(exc) if sign in _CLASSES), _U)


@contextmanager
def translated(noticed: Callable[[StoreError], None]) -> Iterator[None]:
    """Whatever comes out of the block becomes a StoreError.

    :param noticed: is told each error before it is raised.
    """
    try:
        yield
    except Exception as exc:
        error = exc if isinstance(exc, StoreError) else _store_error(exc)
        noticed(error)
        raise error from None


def _store_error(exc: Exception) -> StoreError:
    timed_out = any(sign in _TIMED_OUT for sign in _signs(exc))
    return StoreError(NAME, classify(exc), _cause(exc), timed_out=timed_out)


def _signs(exc: BaseException) -> Iterator[object]:
    """What the table may know an error by, the most specific first."""
    origin = getattr(exc, "orig", None)
    if state := getattr(origin, "sqlstate", None):
        yield from (state, state[:2])
    if name := getattr(origin, "sqlite_errorname", None):
        yield "_".join(name.split("_")[:2])
    yield type(origin).__name__
    yield from type(exc).__mro__


def _cause(exc: Exception) -> str:
    """The name of the error. Of its text, which may quote values, only the name of a table of ours that is missing."""
    origin = exc.orig if isinstance(exc, DBAPIError) else None
    if origin is None:
        return type(exc).__name__
    missing = getattr(origin, "sqlstate", None) == "42P01" or "no such table" in str(origin)
    if missing and (table := _MISSING_TABLE.search(str(origin))):
        return f"no table {table[0]}, see `flask langpont init-db`"
    return getattr(origin, "sqlite_errorname", None) or type(origin).__name__
