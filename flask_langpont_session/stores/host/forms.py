"""The files of a journal: each form of it has a name of its own, so that workers of two releases run beside each other.

A release knows its own form and the former one. Where there is a file in the former form it is the one that is used, as
a worker of the former release uses it: both see what the other one keeps, in one order. As soon as nothing waits in it
and no process has it open it is closed for good and removed, and all go on with the own form: :mod:`.handover`.

- The own form is the former one with some more columns (:data:`~.entries.ADDED`), which the former file is given, too.
- A process that opened the file just before it is removed finds that it is closed, and opens the next one.
- The counter of commits is that of all releases. Each release has a register of its own (:mod:`.register`): a worker
  that has met the former form reads and writes both.
- Files in any other form are left alone. :func:`archive` gives them other names.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ...support.files import UnsafeFile, check_folder, check_private, make_private
from .entries import FORMER_VERSION, SCHEMA_VERSION
from .opening import FAILURES, add_columns, begun, code_of, files_of, form_of, open_database, store_error, tune

CLOSED = -1
"""Stands in place of the form in a file that is about to be removed."""

_FIRST_WITH_A_NAME = 9
"""Older forms are all in the file that the setting names, which is why no release before this could read another's."""

_UNREADABLE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})

_PATIENCE = 0.05
"""Seconds for which other processes are waited for that have a file open for a moment."""

_foreign: set[tuple[int, int, int]] = set()
"""Files that were found to be in no form that this release can use, by device, number and last change."""


class Unread(NamedTuple):
    """A file of the journal that this release cannot use.

    :param why: for operators.
    """

    path: Path
    why: str


def path_of(journal: Path, form: int = SCHEMA_VERSION) -> Path:
    """Return the file of a form.

    :param journal: as the settings name it.
    """
    return journal if form < _FIRST_WITH_A_NAME else journal.with_name(f"{journal.name}-{form}")


def file_in_use(journal: Path) -> Path:
    """Return the file that is to be used now: that of the former form where there is one, else the own."""
    with suppress(*FAILURES):
        if (former := _open_former(path_of(journal, FORMER_VERSION), time.monotonic() + _PATIENCE)) is not None:
            former.close()
            return path_of(journal, FORMER_VERSION)
    return path_of(journal)


def is_there(journal: Path) -> bool:
    """Return whether there is a file in a form that this release can use."""
    return file_in_use(journal).exists()


def may_be_former(journal: Path) -> bool:
    """Return whether there may be a file in the former form. Costs one system call."""
    return _has_content(path_of(journal, FORMER_VERSION))


def open_journal(journal: Path | None, until: float) -> tuple[sqlite3.Connection, Path | None]:
    """Return a connection to the file that is to be used now, and that file.

    :param journal: None: a new database in memory.
    :param until: as of :func:`.open_database`.
    """
    if journal is None:
        return open_database(None, until), None
    place = path_of(journal, FORMER_VERSION)
    if (former := _open_former(place, until)) is not None:
        return former, place
    place = path_of(journal)
    return open_database(place, until), place


def is_former(journal: Path, place: Path | None) -> bool:
    """Return whether this is the file of the former form."""
    return place == path_of(journal, FORMER_VERSION)


@contextmanager
def alone_with(path: Path, patience: float = _PATIENCE) -> Iterator[sqlite3.Connection | None]:
    """Yield a connection while no other one to this file is open, of any process; it is in a transaction.

    SQLite keeps a lock of the file for as long as a connection is open that has read something, and none for a process
    that will only open it: what it finds then, it must be able to go on with.

    :return: None: another one is open.
    """
    with closing(_connect(path)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        until = time.monotonic() + patience
        yield connection if begun(connection, "BEGIN EXCLUSIVE", lambda: time.monotonic() < until) else None


def unread(journal: Path) -> list[Unread]:
    """Return the files of the journal that this release cannot use: older forms than the former one, newer ones, and
    what is damaged. None of them is changed."""
    place = path_of(journal, FORMER_VERSION)
    newer = [path for path in place.parent.glob(f"{place.name}-[0-9]*") if _number_of(place, path) > SCHEMA_VERSION]
    looked_at = {path: _why_not(path) for path in (place, path_of(journal), *sorted(newer)) if _has_size(path)}
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


def _open_former(path: Path, until: float) -> sqlite3.Connection | None:
    """Return a connection to a file in the former form, which gets what the own form has beyond it; None: there is no
    such file."""
    if not _has_content(path):
        return None
    check_folder(path.parent)
    for file in files_of(path):
        check_private(file)
    try:
        connection = _connect(path, max(0.0, until - time.monotonic()))
    except sqlite3.OperationalError:
        if path.exists():
            raise
        return None  # it was removed just now
    try:
        form = form_of(connection)
        if form == FORMER_VERSION:
            tune(connection)
            add_columns(connection, until)
            connection.execute("PRAGMA busy_timeout = 0")
            for file in files_of(path):
                make_private(file)
            return connection
        is_foreign = form not in (0, CLOSED)  # a worker of the former release may be about to make it
    except sqlite3.DatabaseError as error:
        connection.close()
        if code_of(error) not in _UNREADABLE:
            raise
        is_foreign = True
    except BaseException:  # Ctrl-C, too: as long as the connection is open the file cannot be removed
        connection.close()
        raise
    connection.close()
    if is_foreign:
        _foreign.update(_named(path))
    return None


def _connect(path: Path, patience: float = 0.0) -> sqlite3.Connection:
    """Return a connection to a file that is there; none is made."""
    name = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(name, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)


def _has_content(path: Path) -> bool:
    return _has_size(path) and not _foreign.intersection(_named(path))


def _has_size(path: Path) -> bool:
    try:
        return path.lstat().st_size > 0
    except OSError:
        return False


def _named(path: Path) -> Iterator[tuple[int, int, int]]:
    with suppress(OSError):
        status = path.lstat()
        yield status.st_dev, status.st_ino, status.st_mtime_ns


def _number_of(place: Path, path: Path) -> int:
    number = path.name.removeprefix(f"{place.name}-")
    return int(number) if number.isdecimal() else 0


def _why_not(path: Path) -> str:
    """Say why a file cannot be used; empty: it can."""
    try:
        check_private(path)
        with closing(_connect(path, _PATIENCE)) as connection:
            form = form_of(connection)
    except UnsafeFile as error:
        return str(error)
    except FAILURES as error:
        return "" if code_of(error) == sqlite3.SQLITE_BUSY else f"it cannot be read ({store_error(error).cause})"
    if form is None:
        return "it is not a journal"
    if form > SCHEMA_VERSION:
        return f"a newer release has written it, in form {form}"
    if form in (0, CLOSED, FORMER_VERSION, SCHEMA_VERSION):
        return ""
    return f"an older release has written it, in form {form}"
