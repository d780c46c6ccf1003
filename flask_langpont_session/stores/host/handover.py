"""Going over from the former form of the journal to the own one, and what is to be done if the former one comes back.

Files of two forms are never written to beside each other, but for the moment until a worker sees that the former
release was started again. What is in the own file by then is brought to the former one.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ...support.lag import Deadline
from .entries import (
    FORMER_VERSION,
    PendingWrite,
    delete,
    is_revoked,
    mark_done,
    of_field,
    oldest_writes,
    put_push,
    put_revocation,
    put_server,
    put_user_revocation,
    put_write,
    read_servers,
)
from .file import BUSY_SECONDS, REPLAY_SECONDS, JournalFile
from .forms import CLOSED, alone_with, may_be_former, open_journal, path_of
from .opening import complete, files_of, form_of, one, open_database, translated, written
from .summary import ALL

_WAIT = 0.5
"""Seconds that other processes are waited for that write to the own file at the same moment."""

_PORTION = 500
"""Changes that are brought to the former file in one transaction; others are let in between."""

_NOTHING_WAITS = " AND ".join(f"NOT EXISTS (SELECT 1 FROM {table})" for table in ALL)


def hand_over(file: JournalFile) -> None:
    """Go on with the file that is to be used: a worker of the former release may have been started, or have ended.

    Costs a system call where there is no former file. Meant to be called once a second.

    :raises StoreError: a file cannot be used.
    """
    if file.path is None or not may_be_former(file.path):
        return
    was_brought = False
    with file.alone() as is_alone:  # what was read from one file is not to be marked in the other one
        if not is_alone:
            return
        if file.sides.lead_elsewhere():
            file.close()
        with translated(), file.sides.shrink.taken(Deadline.after(BUSY_SECONDS)):  # forks wait for it
            was_brought = take_back(file.path)
            if not file.sides.something_waits:
                end_former(file.path)
    if was_brought:
        file.transaction(lambda db: None, REPLAY_SECONDS, forced=False)  # so that requests look again


def end_former(journal: Path) -> bool:
    """Remove the file in the former form if nothing waits in it and no process has it open.

    :param journal: as the settings name it.
    :return: whether it is gone.
    """
    former = path_of(journal, FORMER_VERSION)
    with alone_with(former) as db:
        if db is None:
            return False
        form = form_of(db)
        if form == FORMER_VERSION and one(db, f"SELECT {_NOTHING_WAITS}"):
            complete(db)
            _bring_what_is_known(db, path_of(journal))
            db.execute(f"PRAGMA user_version = {CLOSED}")
            form = CLOSED
        if form != CLOSED:
            return False
        db.execute("COMMIT")
        # SQLite's log goes here: at the end of the connection its name may be that of another process' log.
        db.execute("PRAGMA journal_mode = DELETE")
        for file in files_of(former):
            file.unlink(missing_ok=True)
    return True


def take_back(journal: Path) -> bool:
    """Bring what waits in the file of the own form to that of the former one, if no process has the own one open.

    A process that is killed on the way leaves both as they are, and the next one begins anew: what was brought already
    is what it is put in place of. An addition is known by its id.

    :param journal: as the settings name it.
    :return: whether there was anything.
    """
    own = path_of(journal)
    if not own.exists():
        return False
    with alone_with(own) as source:
        if source is None or one(source, f"SELECT {_NOTHING_WAITS}"):
            return False
        target, _ = open_journal(journal, time.monotonic() + _WAIT)
        with closing(target):
            target.execute("PRAGMA synchronous = FULL")  # it is on the disk before it is taken out of the other file
            with written(target, time.monotonic() + _WAIT):
                _raise_numbers(target, _numbers(source))
                _copy_delivered(source, target)
            _bring(target, _ended(source))
            _bring(target, _changes(source))
        for table in ALL:
            source.execute(f"DELETE FROM {table}")
        source.execute("COMMIT")
    return True


Step = Callable[[sqlite3.Connection], Any]
"""Puts one entry into the file that it is given."""


def _bring(target: sqlite3.Connection, steps: Iterable[Step]) -> None:
    waiting = iter(steps)
    while portion := list(islice(waiting, _PORTION)):
        with written(target, time.monotonic() + _WAIT):
            for step in portion:
                step(target)


def _ended(source: sqlite3.Connection) -> Iterator[Step]:
    """Yield the ends of sessions, the pushes and the carries: all that comes before changes."""
    for digest, at_ms, in_database, in_redis in _rows(source, "digest, at_ms, in_database, in_redis", "revocations"):
        yield partial(put_revocation, digest=digest, now_ms=at_ms, in_database=bool(in_database))
        yield partial(mark_done, digest=digest, now_ms=at_ms, in_database=False, in_redis=bool(in_redis))
    for user_id, until_ms, epoch in _rows(source, "user_id, until_ms, epoch", "user_revocations"):
        yield partial(put_user_revocation, user_id=user_id, until_ms=until_ms, epoch=epoch)
    for digest, version in _rows(source, "digest, version", "pushes"):
        yield partial(put_push, digest=digest, version=version)
    for row in _rows(source, _OF_CARRY, "carries"):
        yield partial(_put_row, "carries", _OF_CARRY, row)


def _changes(source: sqlite3.Connection) -> Iterator[Step]:
    after = 0
    while True:
        entries, damaged = oldest_writes(source, _PORTION, after)
        yield from (partial(_put_back, entry=entry) for entry in entries)
        if len(entries) + len(damaged) < _PORTION:
            return
        after = max([*damaged, *(entry.seq for entry in entries)])


def _put_back(db: sqlite3.Connection, entry: PendingWrite) -> None:
    """Put a change where it belongs among those of its field: what was written after it is put after it again."""
    if is_revoked(db, entry.digest) and not entry.shadow:
        return
    waiting = of_field(db, entry)
    if entry.token and any(row.token == entry.token for row in waiting):
        return
    later = [row for row in waiting if row.at_ms > entry.at_ms]
    delete("writes", [row.seq for row in later], db)
    for change in (entry, *later):
        put_write(db, change)


_OF_CARRY = "origin, digest, kind, categories, lives_ms, left_us, at_ms"


def _rows(db: sqlite3.Connection, columns: str, table: str) -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT {columns} FROM {table} ORDER BY seq").fetchall()


def _put_row(table: str, columns: str, row: tuple[Any, ...], db: sqlite3.Connection) -> None:
    """Insert a row, unless it is there already."""
    names = columns.split(", ")
    there = db.execute(f"SELECT 1 FROM {table} WHERE {' AND '.join(f'{name} = ?' for name in names)}", row).fetchone()
    if there is None:
        db.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", row)


def _bring_what_is_known(former: sqlite3.Connection, own: Path) -> None:
    """Bring what the host knows of its servers, and which numbers were given: none of them may mean another entry."""
    with closing(open_database(own, time.monotonic() + _WAIT)) as db, written(db, time.monotonic() + _WAIT):
        _raise_numbers(db, _numbers(former))
        for endpoint, record in read_servers(former).items():
            put_server(db, endpoint, record)
        _copy_delivered(former, db)


def _copy_delivered(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Copy the ends of sessions that both stores have: they are known for as long as a store might lose them."""
    rows = source.execute("SELECT digest, at_ms FROM delivered").fetchall()
    target.executemany("INSERT OR IGNORE INTO delivered VALUES (?, ?)", rows)


def _numbers(db: sqlite3.Connection) -> dict[str, int]:
    """Return the highest number that was given in each table."""
    return dict(db.execute("SELECT name, seq FROM sqlite_sequence").fetchall())


def _raise_numbers(db: sqlite3.Connection, numbers: dict[str, int]) -> None:
    known = _numbers(db)
    for table, number in numbers.items():
        if number > known.get(table, -1):
            db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))
