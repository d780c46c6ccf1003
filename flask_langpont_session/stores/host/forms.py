"""The file of a journal, and the files that are none which this release can use.

A journal has one form, which the former release reads and writes as well: what this release has beyond it are columns
and tables (:data:`~.entries.ADDED`), which it adds to the file. So workers of both share the file that the setting
names. Where a file of another program, or in another form, has taken that place, that is left alone, and the journal is
beside it. :func:`archive` gives such files other names.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ...support.files import UnsafeFile, check_private, create_private
from .entries import FORMS
from .opening import FAILURES, begun, code_of, files_of, form_of, store_error

_PATIENCE = 0.05
"""Seconds for which other processes are waited for that have a file open for a moment."""


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
    beside = _beside(journal)
    return beside if os.path.lexists(beside) else journal


def make_room(journal: Path) -> None:
    """Make a file beside the place of the journal if that is taken. To be called before a process opens the journal for
    the first time: a file that is damaged while it is used is no other program's."""
    if path_of(journal) == journal and _is_taken(journal):
        create_private(_beside(journal))


def _beside(journal: Path) -> Path:
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
