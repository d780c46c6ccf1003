"""How much the journal keeps, of whom: visitors and copies can never take the room that signed-in users' data needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from .base import ErrorClass, StoreError

T = TypeVar("T")

_USERS, _VISITORS, _COPIES = "users", "visitors", "copies"

_COPIES_SHARE = 0.25
"""Of everything. Copies show what was; what waits to be merged comes first."""

_WRITE = ("digest", "category", "field", "value", "base")
_COPY = ("digest", "category", "fields")


def _bytes(row: str, *columns: str) -> str:
    """SQL: of some columns of a row."""
    return " + ".join(f"coalesce(length(CAST({row}.{column} AS BLOB)), 0)" for column in columns)


def _room(row: str, *columns: str) -> str:
    """SQL: bytes that a row takes in the file at most, with its part of an index: a small one may be alone on a page
    that it fills by half, a large one has pages of its own, the last one of which is nearly empty."""
    content = _bytes(row, *columns)
    return f"min(2 * ({content}), {content} + 6000) + 200"


def _owner(table: str, row: str) -> str:
    if table == "copies":
        return f"'{_COPIES}'"
    return f"CASE WHEN {row}.shadow OR {row}.kind = 'a' THEN '{_VISITORS}' ELSE '{_USERS}' END"


def _trigger(table: str, event: str, *steps: tuple[str, str]) -> str:
    updates = "".join(
        f"""UPDATE size SET entries = entries {sign} 1,
                bytes = bytes {sign} ({_room(row, *(_COPY if table == "copies" else _WRITE))})
            WHERE owner = {_owner(table, row)};"""
        for row, sign in steps
    )
    return f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN {updates} END"


SIZE_SCHEMA = (
    "CREATE TABLE size (owner TEXT PRIMARY KEY, entries INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID",
    f"INSERT INTO size VALUES ('{_USERS}', 0, 0), ('{_VISITORS}', 0, 0), ('{_COPIES}', 0, 0)",
    # Kept, not counted: counting 100,000 rows at every write would cost more than the write itself. (Of what INSERT OR
    # REPLACE deletes no trigger hears.)
    *(
        _trigger(table, event, *steps)
        for table in ("writes", "copies")
        for event, steps in (
            ("INSERT", [("NEW", "+")]),
            ("DELETE", [("OLD", "-")]),
            ("UPDATE", [("OLD", "-"), ("NEW", "+")]),
        )
    ),
)
"""Of each owner: how many rows of ``writes`` and ``copies`` there are, and what they take of the file at most."""

_SIZES = "SELECT owner, entries, bytes FROM size"
_OF_SESSION = f"""SELECT count(*), coalesce(sum({_bytes("writes", *_WRITE[2:])}), 0)
    FROM writes WHERE digest = ? AND shadow = ?"""


class Size(NamedTuple):
    """How much there is of something."""

    entries: int
    bytes: int

    def has_grown(self, before: Size) -> bool:
        """In either way."""
        return self.entries > before.entries or self.bytes > before.bytes


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """What the journal keeps at most. Revocations and pushes are not limited.

    :param entries: written fields and published copies in all.
    :param bytes: of the file, as far as it is in use.
    :param session_entries: written fields of one session.
    :param session_bytes: of one session: names and values of its written fields, and what they had been.
    :param visitor_share: 0 to 0.5: of `entries` and `bytes`, for all sessions together that are not signed in.
    """

    entries: int = 100_000
    bytes: int = 268_435_456
    session_entries: int = 4_000
    session_bytes: int = 1_048_576
    visitor_share: float = 0.5

    def adding(
        self, work: Callable[[sqlite3.Connection], T], session: tuple[str, bool] | None = None
    ) -> Callable[[sqlite3.Connection], T]:
        """The same work, which fails if it makes more of what is too much.

        :param session: which one is written to, and whether it is its shadow.
        :return: raises StoreError of class LOCAL with the name of the setting as cause.
        """

        def add(db: sqlite3.Connection) -> T:
            before = _sizes(db)
            result = work(db)
            after = _sizes(db)
            if after != before:
                self._check(before, after, _in_use(db))
            if session is not None and _sum(after).has_grown(_sum(before)):
                self._check_session(db, *session)
            return result

        return add

    def _check(self, before: Mapping[str, Size], after: Mapping[str, Size], in_use: int) -> None:
        """What adds nothing, such as a field that is written again, goes on in a full journal."""
        self._compare(before[_VISITORS], after[_VISITORS], self.visitor_share, "VISITOR_SHARE", "VISITOR_SHARE")
        self._compare(before[_COPIES], after[_COPIES], _COPIES_SHARE, "MAX_ENTRIES", "MAX_BYTES")
        self._compare(_sum(before), _sum(after), 1, "MAX_ENTRIES", "MAX_BYTES")
        # Where much was taken out again pages may be filled worse than reckoned.
        if in_use > self.bytes and _sum(after).has_grown(_sum(before)):
            raise _reached("MAX_BYTES")

    def _compare(self, before: Size, after: Size, share: float, entries: str, bytes: str) -> None:
        if after.entries > max(before.entries, share * self.entries):
            raise _reached(entries)
        if after.bytes > max(before.bytes, share * self.bytes):
            raise _reached(bytes)

    def _check_session(self, db: sqlite3.Connection, digest: str, shadow: bool) -> None:
        size = Size(*db.execute(_OF_SESSION, (digest, shadow)).fetchone())
        if size.entries > self.session_entries:
            raise _reached("SESSION_ENTRIES")
        if size.bytes > self.session_bytes:
            raise _reached("SESSION_BYTES")


def _sizes(db: sqlite3.Connection) -> dict[str, Size]:
    return {owner: Size(entries, taken) for owner, entries, taken in db.execute(_SIZES)}


def _in_use(db: sqlite3.Connection) -> int:
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _sum(sizes: Mapping[str, Size]) -> Size:
    return Size(sum(size.entries for size in sizes.values()), sum(size.bytes for size in sizes.values()))


def _reached(name: str) -> StoreError:
    return StoreError("journal", ErrorClass.LOCAL, f"JOURNAL_{name} is reached")
