"""Opening a file of the journal: the own one is made if need be, and none may be another user's. Which file is the one
to be opened: see :mod:`.forms`."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...policy.errors import ErrorClass, StoreError
from ...support.files import UnsafeFile, check_folder, check_private, create_private, make_private, open_private
from .entries import ADDED, ADDED_TABLES, APPLICATION_ID, FORMS, SCHEMA

FAILURES = (sqlite3.Error, OSError, OverflowError, UnicodeError)
"""The errors of SQLite and the system, and Python's for a value that SQLite cannot keep."""

_FILE_IS_WELL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR_WRITE})
"""Result codes after which there is nothing to be gained by opening the file anew."""

_REFUSED = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY})
_REFUSED_BY_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})

_PAGES_OF_LOG = 4_000
"""Pages of 4 KB in SQLite's -wal after which a commit has to copy them to the file, while all others wait. It should
not come to that: see :meth:`JournalFile.shrink`."""

_LARGEST_LOG = 8_388_608
"""Bytes to which SQLite cuts its -wal off when it begins it anew."""


RESERVE = 524_288
"""Bytes: what is written of one batch of entries, twice."""


class DeletedJournal(StoreError):
    """The file that this process had open was deleted, or its folder was."""

    def __init__(self) -> None:
        super().__init__("journal", ErrorClass.UNREACHABLE, "its file was deleted, with all that waited in it")


def open_database(path: Path | None, until: float) -> sqlite3.Connection:
    """Return a connection to a file in the form of this release; without a path, to a new database in memory.

    What it commits is safe from the death of this process, but not from that of the machine: see
    :meth:`JournalFile.transaction`. It waits for no other process, unless it is told to by `busy_timeout`.

    :param until: monotonic seconds: how long other processes that make the same file now are waited for.
    """
    if path is not None:
        _make_place(path)
    name, left = ":memory:" if path is None else path, max(0.0, until - time.monotonic())
    connection = sqlite3.connect(name, timeout=left, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, until)
        for file in files_of(path):
            make_private(file)
    except BaseException:  # Ctrl-C, too: the caller has nothing that it could close
        connection.close()
        raise
    return connection


def begun(connection: sqlite3.Connection, statement: str, goes_on: Callable[[], bool]) -> bool:
    """Execute a statement that needs the whole file, as soon as other processes leave it.

    SQLite's own waiting looks a dozen times, ever more rarely, and for some statements not at all.

    :param goes_on: asked about once in a millisecond whether to wait on.
    :return: whether it was executed.
    """
    while not _takes(connection, statement):
        if not goes_on():
            return False
        time.sleep(0.001)
    return True


def _takes(connection: sqlite3.Connection, statement: str) -> bool:
    try:
        connection.execute(statement)
    except sqlite3.OperationalError as error:
        if code_of(error) != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


@contextmanager
def completed(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit at the end what is executed inside a transaction that has begun, or roll it back if anything fails."""
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def written(connection: sqlite3.Connection, until: float) -> Iterator[None]:
    """Write what is executed in here whole or not at all.

    :param until: monotonic seconds: how long other processes that write are waited for.
    :raises StoreError: they went on for longer.
    """
    _patiently(connection, "BEGIN IMMEDIATE", until)
    with completed(connection):
        yield


@contextmanager
def translated() -> Iterator[None]:
    """Raise one of :data:`FAILURES` as the StoreError that the rest of the package knows."""
    try:
        yield
    except FAILURES as error:
        raise store_error(error) from error


def one(connection: sqlite3.Connection, sql: str) -> int:
    """Return the one number that a statement asks for."""
    row = connection.execute(sql).fetchone()
    return int(row[0])


def _is_refused(error: Exception) -> bool:
    """Return whether the disk takes no more. About a quota, or file limit, SQLite says only that a write failed."""
    by_system = isinstance(error, OSError) and error.errno in _REFUSED_BY_SYSTEM
    is_write = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_WRITE
    return by_system or is_write or code_of(error) in _REFUSED


def is_well(error: Exception) -> bool:
    """Return whether the file is as it should be, though something failed."""
    return getattr(error, "sqlite_errorcode", 0) in _FILE_IS_WELL or code_of(error) in _FILE_IS_WELL


def code_of(error: Exception) -> int:
    """Return SQLite's primary result code; 0: not an error of SQLite."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def store_error(error: Exception) -> StoreError:
    """Return one of :data:`FAILURES` as the rest of the package knows it."""
    if isinstance(error, UnsafeFile):
        return StoreError("journal", ErrorClass.UNREACHABLE, str(error))
    # The name SQLite or the system gives the error says what is wrong, and unlike the text it quotes nothing.
    cause = getattr(error, "sqlite_errorname", type(error).__name__)
    if isinstance(error, (OverflowError, UnicodeError)):
        return StoreError("journal", ErrorClass.DATA, cause)
    return StoreError("journal", ErrorClass.WRITE_REFUSED if _is_refused(error) else ErrorClass.UNREACHABLE, cause)


def full() -> StoreError:
    """Return the error that there is no room on the disk."""
    return StoreError("journal", ErrorClass.WRITE_REFUSED, "SQLITE_FULL")


def is_full(error: Exception) -> bool:
    """Return whether the journal refused something for want of room, or because its disk is read-only."""
    if not isinstance(error, StoreError):
        return _is_refused(error)
    return error.store == "journal" and error.error_class is ErrorClass.WRITE_REFUSED


def log_path(path: Path) -> Path:
    """Return the file that SQLite writes commits to."""
    return Path(f"{path.resolve()}-wal")


def lock_path(path: Path) -> Path:
    """Return the file at which processes queue up to write."""
    return Path(f"{path.resolve()}-lock")


def hold_reserve(path: Path | None) -> bool:
    """Allocate room on the disk, unless it is there, for what must be written however full it is: ends of sessions,
    marks and deletions. While it is not whole, nothing that makes the journal grow is taken.

    :param path: of the journal; None: it is in memory, and needs none.
    :return: False: there is no room for it.
    """
    if path is None or not hasattr(os, "posix_fallocate"):
        return True
    with suppress(FileNotFoundError):
        if _reserve_path(path).lstat().st_size >= RESERVE:
            return True
    try:
        descriptor = open_private(_reserve_path(path))
        try:
            os.posix_fallocate(descriptor, 0, RESERVE)
        finally:
            os.close(descriptor)
    except OSError:
        give_back_reserve(path)  # a part of it may have been allocated, and would keep others from their room
        return False
    return True


def give_back_reserve(path: Path) -> bool:
    """Make room by cutting the reserve off: what was refused is written again. Return whether there was any of it."""
    with suppress(OSError):
        descriptor = open_private(_reserve_path(path), os.O_RDWR)
        try:
            had = os.fstat(descriptor).st_size > 0
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        return had
    return False


def _reserve_path(path: Path) -> Path:
    return Path(f"{path}-reserve")


def files_of(path: Path | None) -> list[Path]:
    """Return the file that SQLite was given, and those that it puts beside it."""
    return [] if path is None else [path, log_path(path), Path(f"{path.resolve()}-shm")]


def _make_place(path: Path) -> None:
    """Make the file. Links to its -wal and -shm, which SQLite does not follow, and other owners are refused before."""
    check_folder(path.parent)
    with suppress(FileExistsError):
        path.parent.mkdir(mode=0o700)
    for file in files_of(path):
        check_private(file)
    create_private(path)


def _prepare(connection: sqlite3.Connection, until: float) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_LOG}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_OF_LOG}")
    if _is_blank(connection):
        # Before all else, or it has no effect: free pages can be given back later, some at a time.
        _patiently(connection, "PRAGMA auto_vacuum = INCREMENTAL", until)
        _patiently(connection, "PRAGMA journal_mode = WAL", until)
        _create_schema(connection, until)
    form = form_of(connection)
    if form not in FORMS:
        cause = "the file is not a journal" if form is None else f"the file has form {form}"
        raise StoreError("journal", ErrorClass.UNREACHABLE, cause)
    if _lacking(connection):  # a worker of the former release has made it
        with written(connection, until):
            _complete(connection)
    connection.execute("PRAGMA busy_timeout = 0")


def form_of(connection: sqlite3.Connection) -> int | None:
    """Return the form of a journal; 0: the file is empty. None: it is no journal."""
    if _is_blank(connection):
        return 0
    return (
        one(connection, "PRAGMA user_version") if one(connection, "PRAGMA application_id") == APPLICATION_ID else None
    )


def _complete(connection: sqlite3.Connection) -> None:
    """Give a file what this release adds, within a transaction: another worker may have been first."""
    for statement in _lacking(connection):
        connection.execute(statement)


def _lacking(connection: sqlite3.Connection) -> list[str]:
    """Return the statements of :data:`ADDED` and :data:`ADDED_TABLES` that are still to be executed."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return [statement for table, statement in ADDED_TABLES.items() if table not in tables] + [
        f"ALTER TABLE {table} ADD COLUMN {column}"
        for table, columns in ADDED.items()
        for there in [{name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}]
        for column in columns
        if column.split()[0] not in there
    ]


def _is_blank(connection: sqlite3.Connection) -> bool:
    return not one(connection, "SELECT EXISTS (SELECT 1 FROM sqlite_schema)")


def _create_schema(connection: sqlite3.Connection, until: float) -> None:
    with written(connection, until):
        if _is_blank(connection):  # else another worker was first
            for statement in SCHEMA:
                connection.execute(statement)
            _complete(connection)


def _patiently(connection: sqlite3.Connection, statement: str, until: float) -> None:
    if not begun(connection, statement, lambda: time.monotonic() < until):
        raise StoreError("journal", ErrorClass.UNREACHABLE, "SQLITE_BUSY")
