"""The file of a journal: which one it is, and opening it. It is made if need be, and none may be another user's.

A journal has one form, which the former release reads and writes as well: what this release has beyond it are columns
and tables (:data:`ADDED`), which it adds to the file. So workers of both share the file that the setting
names. Where a file of another program, or in another form, has taken that place, that is left alone, and the journal is
beside it. :func:`archive` gives such files other names.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ...policy.errors import ErrorClass, StoreError
from ...support.files import UnsafeFile, beside, check_folder, check_private, create_private, make_private, open_private
from .limits import SIZE_SCHEMA

SCHEMA_VERSION = 8
"""The form of the journal, which the former release makes as well."""

FORMS = frozenset({SCHEMA_VERSION, 9})
"""The forms that this release reads and writes; form 9 has the same tables, with all that is added."""

ADDED: Mapping[str, tuple[str, ...]] = {
    "writes": ("life_ms INTEGER NOT NULL DEFAULT 0",),
    "carries": ("lives_ms TEXT NOT NULL DEFAULT ''",),
    "settlement": ("round TEXT NOT NULL DEFAULT ''",),
}
"""Table → the columns that this release adds to what the former one makes. Each needs a default: a worker of the former
release, which may have the same file open, names only the columns that it knows."""

ADDED_TABLES = {"delivered": "CREATE TABLE delivered (digest TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID"}
"""The tables that this release adds."""

APPLICATION_ID = 0x4C50534A
"""Marks the file as a journal, so that no tables are ever added to another program's database."""

SCHEMA = (
    # AUTOINCREMENT: a number is never given twice, so "delete number 7" cannot hit a value written meanwhile.
    """CREATE TABLE writes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL, kind TEXT NOT NULL, shadow INTEGER NOT NULL,
        category TEXT NOT NULL, operation TEXT NOT NULL, field TEXT NOT NULL, value BLOB, delta INTEGER NOT NULL,
        basis TEXT NOT NULL, moment INTEGER NOT NULL, base BLOB, doubts TEXT NOT NULL,
        token TEXT NOT NULL, is_sent INTEGER NOT NULL, acknowledged INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        UNIQUE (digest, shadow, category, field, token))""",
    """CREATE TABLE carries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, origin TEXT NOT NULL, digest TEXT NOT NULL, kind TEXT NOT NULL,
        categories TEXT NOT NULL, left_us INTEGER NOT NULL, at_ms INTEGER NOT NULL)""",
    "CREATE INDEX carries_by_digest ON carries (digest)",
    "CREATE INDEX carries_by_origin ON carries (origin)",
    """CREATE TABLE revocations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL,
        in_database INTEGER NOT NULL, in_redis INTEGER NOT NULL)""",
    """CREATE TABLE pushes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, version INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE copies (
        digest TEXT NOT NULL, category TEXT NOT NULL, version INTEGER NOT NULL, fields BLOB NOT NULL,
        additions BLOB NOT NULL, kind TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (digest, category))""",
    "CREATE TABLE outages (what TEXT PRIMARY KEY, at_ms INTEGER NOT NULL)",
    *SIZE_SCHEMA,
    """CREATE TABLE user_revocations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL UNIQUE, until_ms INTEGER NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 0, in_database INTEGER NOT NULL DEFAULT FALSE,
        reached TEXT NOT NULL DEFAULT '')""",
    """CREATE TABLE servers (
        endpoint TEXT PRIMARY KEY, identity TEXT NOT NULL, trust_since_ms INTEGER NOT NULL,
        generation TEXT NOT NULL, number INTEGER NOT NULL)""",
    """CREATE TABLE settlement (
        id INTEGER PRIMARY KEY CHECK (id = 0), server TEXT NOT NULL, since_ms INTEGER NOT NULL,
        began_ms INTEGER NOT NULL, claimant TEXT NOT NULL, claimed_until_ms INTEGER NOT NULL)""",
    "INSERT INTO settlement VALUES (0, '', 0, 0, '', 0)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
    f"PRAGMA application_id = {APPLICATION_ID}",
)
"""Makes the tables of the former release; :data:`ADDED` and :data:`ADDED_TABLES` are still to come."""

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


LOG = "wal"
"""The end of the name of the file that SQLite writes commits to."""

RESERVE = 524_288
"""Bytes: what is written of one batch of entries, twice."""

_PATIENCE = 0.05
"""Seconds for which other processes are waited for that have a file open for a moment."""


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


def hold_reserve(path: Path | None) -> bool:
    """Allocate room on the disk, unless it is there, for what must be written however full it is: ends of sessions,
    marks and deletions. While it is not whole, nothing that makes the journal grow is taken.

    :param path: of the journal; None: it is in memory, and needs none.
    :return: False: there is no room for it.
    """
    if path is None or not hasattr(os, "posix_fallocate"):
        return True
    with suppress(FileNotFoundError):
        if beside(path, "reserve").lstat().st_size >= RESERVE:
            return True
    try:
        descriptor = open_private(beside(path, "reserve"))
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
        descriptor = open_private(beside(path, "reserve"), os.O_RDWR)
        try:
            had = os.fstat(descriptor).st_size > 0
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        return had
    return False


def files_of(path: Path | None) -> list[Path]:
    """Return the file that SQLite was given, and those that it puts beside it."""
    return [] if path is None else [path, beside(path, LOG), beside(path, "shm")]


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


# -- the files in its place -------------------------------------------------------------------------------------------


class Unread(NamedTuple):
    """A file of the journal that this release does not use.

    :param why: for operators.
    """

    path: Path
    why: str


def path_of(journal: Path) -> Path:
    """Return the file of a journal.

    :param journal: as the settings name it.
    """
    instead = _instead(journal)
    return instead if os.path.lexists(instead) else journal


def make_room(journal: Path) -> None:
    """Make a file beside the place of the journal if that is taken. To be called before a process opens the journal for
    the first time: a file that is damaged while it is used is no other program's."""
    if path_of(journal) == journal and _is_taken(journal):
        create_private(_instead(journal))


def _instead(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}-{max(FORMS)}")


@contextmanager
def alone_with(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Yield a connection while no other one to this file is open, of any process; it is in a transaction.

    SQLite keeps a lock of the file for as long as a connection is open that has read something, and none for a process
    that will only open it: what it finds then, it must be able to go on with.

    :return: None: another one is open.
    """
    with closing(_connect(path)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        until = time.monotonic() + _PATIENCE
        yield connection if begun(connection, "BEGIN EXCLUSIVE", lambda: time.monotonic() < until) else None


def unread(journal: Path) -> list[Unread]:
    """Return the files in the place of the journal and beside it that this release cannot use: older and newer forms,
    other programs' files, and what is damaged. None of them is changed."""
    numbered = [path for path in journal.parent.glob(f"{journal.name}-[0-9]*") if _is_number(journal, path)]
    in_use, found = path_of(journal), [path for path in (journal, *sorted(numbered)) if _has_size(path)]
    looked_at = {path: _why_not(path) or ("" if path == in_use else f"{in_use.name} is used") for path in found}
    return [Unread(path, why) for path, why in looked_at.items() if why]


def archive(journal: Path) -> list[tuple[Path, Path]]:
    """Rename what :func:`unread` finds, with what SQLite has put beside it.

    :return: former and present names.
    :raises OSError: it cannot be renamed.
    """
    moved = []
    for path, _ in unread(journal):
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        for file in files_of(path):
            if file.exists():
                name = path.with_name(f"{path.name}.aside-{stamp}{file.name.removeprefix(path.name)}")
                file.rename(name)
                moved.append((file, name))
    return moved


def _connect(path: Path) -> sqlite3.Connection:
    """Return a connection to a file that is there; none is made."""
    name = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(name, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)


def _has_size(path: Path) -> bool:
    try:
        return path.lstat().st_size > 0
    except OSError:
        return False


def _is_number(journal: Path, path: Path) -> bool:
    return path.name.removeprefix(f"{journal.name}-").isdecimal()


def _is_taken(path: Path) -> bool:
    """Return whether a file is there that is no journal of this form, or of no database at all. What cannot be looked
    at is not: the error of opening it says why."""
    if not _has_size(path):
        return False
    try:
        return _form_at(path) not in (0, *FORMS)
    except FAILURES as error:
        return code_of(error) == sqlite3.SQLITE_NOTADB


def _form_at(path: Path) -> int | None:
    for file in files_of(path):
        check_private(file)
    with closing(_connect(path)) as connection:
        return form_of(connection)


def _why_not(path: Path) -> str:
    """Say why a file cannot be used; empty: it can."""
    try:
        form = _form_at(path)
    except UnsafeFile as error:
        return str(error)
    except FAILURES as error:
        return "" if code_of(error) == sqlite3.SQLITE_BUSY else f"it cannot be read ({store_error(error).cause})"
    if form is None:
        return "it is not a journal"
    if form > max(FORMS):
        return f"a newer release has written it, in form {form}"
    return "" if form in (0, *FORMS) else f"an older release has written it, in form {form}"
