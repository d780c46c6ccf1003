"""The limits of the journal: visitors and copies can never take the room that signed-in users' data needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from ...policy.errors import ErrorClass, StoreError

T = TypeVar("T")

BYTES_OF_AN_ENTRY = 2_684
"""The bytes of the journal for each entry: 100,000 of them in 256 MiB. An entry takes less, unless values are large."""

_COPIES_SHARE = 0.25
"""The share of the journal that copies may take. They show what was; what waits to be merged comes first."""

_WRITE = ("digest", "category", "field", "value", "base")
_COPY = ("digest", "category", "fields")
_CARRY = ("origin", "digest", "categories")

_COLUMNS = {"writes": _WRITE, "copies": _COPY, "carries": _CARRY}
_PARTS = {
    "writes": ("visitor", "({row}.shadow OR {row}.kind = 'a')"),
    "copies": ("copy", "TRUE"),
    "carries": ("visitor", "({row}.kind = 'a')"),
}
"""Table → which part of the whole its rows are counted in as well, and under which condition (SQL)."""


def _bytes(row: str, *columns: str) -> str:
    """Return SQL for the bytes of some columns of a row."""
    return " + ".join(f"coalesce(length(CAST({row}.{column} AS BLOB)), 0)" for column in columns)


def _room(row: str, *columns: str) -> str:
    """Return SQL for the bytes that a row takes in the file at most, with its part of an index: a small one may be
    alone on a page that it fills by half, a large one has pages of its own, the last one of which is nearly empty."""
    content = _bytes(row, *columns)
    return f"min(2 * ({content}), {content} + 6000) + 200"


def _trigger(table: str, event: str, *steps: tuple[str, str]) -> str:
    """Return a trigger that keeps the sizes: counting 100,000 rows at every write would cost more than the write
    itself. (Of what INSERT OR REPLACE deletes no trigger hears.)"""
    updates = ""
    for row, sign in steps:
        part, condition = _PARTS[table][0], _PARTS[table][1].format(row=row)
        room = f"({_room(row, *_COLUMNS[table])})"
        updates += f"""UPDATE size SET entries = entries {sign} 1, bytes = bytes {sign} {room},
            {part}_entries = {part}_entries {sign} {condition},
            {part}_bytes = {part}_bytes {sign} {condition} * {room};"""
    return f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN {updates} END"


SIZE_SCHEMA = (
    """CREATE TABLE size (
        entries INTEGER NOT NULL, bytes INTEGER NOT NULL, visitor_entries INTEGER NOT NULL,
        visitor_bytes INTEGER NOT NULL, copy_entries INTEGER NOT NULL, copy_bytes INTEGER NOT NULL)""",
    "INSERT INTO size VALUES (0, 0, 0, 0, 0, 0)",
    *(
        _trigger(table, event, *steps)
        for table in _COLUMNS
        for event, steps in (
            ("INSERT", [("NEW", "+")]),
            ("DELETE", [("OLD", "-")]),
            ("UPDATE", [("OLD", "-"), ("NEW", "+")]),
        )
    ),
)
"""The number of rows of ``writes``, ``copies`` and ``carries``, and the most bytes that they take of the file: in all,
those of visitors, and copies."""

_OF_SESSION = f"""SELECT count(*), coalesce(sum({_bytes("writes", *_WRITE[2:])}), 0)
    FROM writes WHERE digest = ? AND shadow = ?"""


_BYTES, _VISITORS = "JOURNAL_MAX_BYTES", "the share of visitors"
_NAMES = ("the most entries", _BYTES, _VISITORS, _VISITORS, _BYTES)


class Sizes(NamedTuple):
    """The columns of ``size``."""

    entries: int
    bytes: int
    visitor_entries: int
    visitor_bytes: int
    copy_entries: int
    copy_bytes: int

    @property
    def limited(self) -> tuple[int, ...]:
        """Return what is limited: copies are limited in bytes only, as there are several of each session in use."""
        return (self.entries - self.copy_entries, self.bytes, self.visitor_entries, self.visitor_bytes, self.copy_bytes)

    def has_grown(self, before: Sizes) -> bool:
        """Return whether there are more entries or more bytes than before."""
        return self.entries > before.entries or self.bytes > before.bytes


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """The most that the journal keeps. Revocations and pushes are not limited.

    :param entries: written fields in all.
    :param bytes: of the file, as far as it is in use.
    :param session_entries: written fields of one session.
    :param session_bytes: of one session: names and values of its written fields, and what they had been.
    :param visitor_share: 0 to 0.5: of `entries` and `bytes`, for all sessions together that are not signed in.
    :param copies_ttl: seconds for which a copy may be used.
    """

    entries: int = 100_000
    bytes: int = 268_435_456
    session_entries: int = 4_000
    session_bytes: int = 1_048_576
    visitor_share: float = 0.5
    copies_ttl: float = 1800.0

    def adding(
        self, work: Callable[[sqlite3.Connection], T], session: tuple[str, bool] | None = None
    ) -> Callable[[sqlite3.Connection], T]:
        """Return the same work, which fails if it adds to what exceeds a limit.

        :param session: which one is written to, and whether it is its shadow.
        :return: raises StoreError of class LOCAL with the limit as cause.
        """

        def add(db: sqlite3.Connection) -> T:
            before = _sizes(db)
            result = work(db)
            if self._check(db, before) and session is not None:
                self._check_session(db, *session)
            return result

        return add

    def fitting(self, db: sqlite3.Connection, work: Callable[[], T]) -> T | None:
        """Do a part of a transaction. If it adds to what exceeds a limit, it is taken back.

        :return: None: it was.
        """
        before = _sizes(db)
        db.execute("SAVEPOINT part")
        try:
            result = work()
            self._check(db, before)
        except StoreError as error:
            if error.error_class is not ErrorClass.LOCAL:
                raise
            db.execute("ROLLBACK TO part")
            return None
        finally:
            db.execute("RELEASE part")
        return result

    def _check(self, db: sqlite3.Connection, before: Sizes) -> bool:
        """Raise if something exceeds its limit and has grown. Return whether anything has grown. What adds nothing,
        such as a field that is written again, goes on in a full journal."""
        after = _sizes(db)
        all_of_it = self.entries, self.bytes
        of_visitors = self.visitor_share * self.entries, self.visitor_share * self.bytes
        most = (*all_of_it, *of_visitors, _COPIES_SHARE * self.bytes)
        for now, then, limit, name in zip(after.limited, before.limited, most, _NAMES, strict=True):
            if now > limit and now > then:
                raise _reached(name)
        has_grown = after.has_grown(before)
        if has_grown:
            self._check_file(db, after)
        return has_grown

    def _check_file(self, db: sqlite3.Connection, after: Sizes) -> None:
        """Raise if the file is too large. Pages may be filled worse than reckoned, but hardly by half."""
        if 2 * after.bytes > self.bytes and _in_use(db) > self.bytes:
            raise _reached(_BYTES)

    def _check_session(self, db: sqlite3.Connection, digest: str, shadow: bool) -> None:
        entries, taken = db.execute(_OF_SESSION, (digest, shadow)).fetchone()
        if entries > self.session_entries:
            raise _reached("the most entries of a session")
        if taken > self.session_bytes:
            raise _reached("the most bytes of a session")


def _sizes(db: sqlite3.Connection) -> Sizes:
    return Sizes(*db.execute("SELECT * FROM size").fetchone())


def _in_use(db: sqlite3.Connection) -> int:
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _reached(name: str) -> StoreError:
    return StoreError("journal", ErrorClass.LOCAL, f"{name} is reached")
