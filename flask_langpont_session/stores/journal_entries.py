"""What the journal keeps: its tables, and their rows as values.

A field that waits for Redis is one row however often it is written; :func:`put_write` says what remains of it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from operator import attrgetter

import msgspec

from .base import CategoryCopy, ErrorClass, StoreError

SCHEMA_VERSION = 1

APPLICATION_ID = 0x4C50534A
"""Marks the file as a journal, so that no tables are ever added to somebody else's database."""

SCHEMA = (
    # AUTOINCREMENT: a number is never given twice, so "delete number 7" cannot hit a value written meanwhile.
    """CREATE TABLE writes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL, kind TEXT NOT NULL,
        shadow INTEGER NOT NULL, user_id TEXT, category TEXT NOT NULL, field TEXT NOT NULL, value BLOB,
        delta INTEGER NOT NULL, is_delta INTEGER NOT NULL, base BLOB, base_version INTEGER,
        at_ms INTEGER NOT NULL,
        UNIQUE (digest, shadow, category, field))""",
    """CREATE TABLE revocations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL,
        in_database INTEGER NOT NULL, in_redis INTEGER NOT NULL)""",
    "CREATE TABLE pushes (seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE)",
    """CREATE TABLE copies (
        digest TEXT NOT NULL, category TEXT NOT NULL, version INTEGER NOT NULL, fields BLOB NOT NULL,
        PRIMARY KEY (digest, category))""",
    "CREATE TABLE outages (what TEXT PRIMARY KEY, at_ms INTEGER NOT NULL)",
    # Kept, not counted: counting 100,000 rows at every write would cost more than the write itself.
    "CREATE TABLE size (entries INTEGER NOT NULL)",
    "INSERT INTO size VALUES (0)",
    *(
        f"""CREATE TRIGGER {table}_{event} AFTER {event} ON {table}
        BEGIN UPDATE size SET entries = entries {step}; END"""
        for table in ("writes", "copies")
        for event, step in (("INSERT", "+ 1"), ("DELETE", "- 1"))
    ),
    f"PRAGMA user_version = {SCHEMA_VERSION}",
    f"PRAGMA application_id = {APPLICATION_ID}",
)

_INTEGER = re.compile(rb"-?(0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class PendingRevocation:
    """A session that is dead, as long as not both the database and Redis know it.

    :param at_ms: when it was first revoked here, milliseconds since 1970 by the host's clock.
    :param in_database: the database has it.
    :param in_redis: Redis has the tombstone.
    """

    seq: int
    digest: str
    at_ms: int
    in_database: bool
    in_redis: bool


@dataclass(frozen=True, slots=True)
class PendingPush:
    """Redis lacks what the database has for this session."""

    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class Overlay:
    """Everything this host knows about one session and the stores may not.

    :param revoked: the session is dead.
    :param writes: category → key → encoded value, None for a deleted key.
    :param deltas: category → key → what is to be added to the value in Redis.
    :param copies: category → the newest copy that a worker of this host published.
    """

    revoked: bool
    writes: Mapping[str, Mapping[str, bytes | None]]
    deltas: Mapping[str, Mapping[str, int]]
    copies: Mapping[str, CategoryCopy]


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWrite:
    """One field of a session that waits to be merged into Redis. The columns of ``writes`` are named like this.

    :param seq: given anew at each write of the field, never twice, always higher. 0: not kept yet.
    :param digest: the session.
    :param kind: ``a`` anonymous, ``u`` signed in.
    :param shadow: belongs to the anonymous shadow of a dead session id.
    :param user_id: the user of a session of kind u.
    :param category: the category the field belongs to.
    :param field: the session key.
    :param value: the encoded value; None: the key was deleted, or this is an increment.
    :param delta: what is to be added, when ``is_delta``; else 0.
    :param is_delta: this is an increment, not a value.
    :param base: the encoded value that Redis had when last known; None: absent or not known.
    :param base_version: the version the category had in Redis when last known; None: not known.
    :param at_ms: when the field was last written, milliseconds since 1970 by the host's clock.
    """

    seq: int = 0
    digest: str
    kind: str
    shadow: bool
    user_id: str | None
    category: str
    field: str
    value: bytes | None = None
    delta: int = 0
    is_delta: bool = False
    base: bytes | None
    base_version: int | None
    at_ms: int


_NAMES = tuple(field.name for field in fields(PendingWrite))
_COLUMNS = ", ".join(_NAMES)
# SQLite gives the number.
_INSERT = f"INSERT INTO writes ({', '.join(_NAMES[1:])}) VALUES ({', '.join('?' * len(_NAMES[1:]))})"
_values = attrgetter(*_NAMES[1:])

FIELD = "digest = ? AND shadow = ? AND category = ? AND field = ?"
"""The condition for one field in ``writes``."""

PUT_COPY = """INSERT INTO copies (digest, category, version, fields)
    SELECT ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM revocations WHERE digest = ?)
    ON CONFLICT (digest, category) DO UPDATE SET version = excluded.version, fields = excluded.fields
        WHERE excluded.version > copies.version"""
"""Publish a copy, unless one as new is there or the session is revoked."""


def put_write(db: sqlite3.Connection, entry: PendingWrite) -> None:
    """Keep a field, merged with what waits of it already, under a new number."""
    place = (entry.digest, entry.shadow, entry.category, entry.field)
    row = db.execute(f"SELECT {_COLUMNS} FROM writes WHERE {FIELD}", place).fetchone()
    if row is not None:
        entry = _merged(_pending_write(row), entry)
        # Not INSERT OR REPLACE: of what that deletes no trigger hears, and the entries would be counted wrong.
        db.execute(f"DELETE FROM writes WHERE {FIELD}", place)
    db.execute(_INSERT, _values(entry))


def oldest_writes(db: sqlite3.Connection, limit: int, signed_in: bool) -> list[PendingWrite]:
    """The fields that wait, the one that was written longest ago first."""
    sql = f"SELECT {_COLUMNS} FROM writes WHERE ? OR kind = 'a' OR shadow ORDER BY seq LIMIT ?"
    rows = db.execute(sql, (signed_in, limit))
    return [_pending_write(row) for row in rows]


def read_overlay(db: sqlite3.Connection, digest: str, *, shadow: bool) -> Overlay:
    """All of one session, or of its anonymous shadow; copies are never published of one."""
    sql = "SELECT category, field, value, delta, is_delta FROM writes WHERE digest = ? AND shadow = ?"
    writes: dict[str, dict[str, bytes | None]] = {}
    deltas: dict[str, dict[str, int]] = {}
    for category, field, value, delta, is_delta in db.execute(sql, (digest, shadow)):
        if is_delta:
            deltas.setdefault(category, {})[field] = delta
        else:
            writes.setdefault(category, {})[field] = value
    copies = {} if shadow else dict(_copies(db, digest))
    return Overlay(is_revoked(db, digest), writes, deltas, copies)


def is_revoked(db: sqlite3.Connection, digest: str) -> bool:
    """Whether a revocation of this session waits."""
    return db.execute("SELECT 1 FROM revocations WHERE digest = ?", (digest,)).fetchone() is not None


def settle(db: sqlite3.Connection, digest: str, in_database: bool, in_redis: bool) -> None:
    """Add the stores that have a revocation now; it goes when both have it."""
    db.execute(
        "UPDATE revocations SET in_database = max(in_database, ?), in_redis = max(in_redis, ?) WHERE digest = ?",
        (in_database, in_redis, digest),
    )
    db.execute("DELETE FROM revocations WHERE digest = ? AND in_database AND in_redis", (digest,))


def copy_row(digest: str, category: str, copy: CategoryCopy) -> tuple[object, ...]:
    """What PUT_COPY asks for."""
    return digest, category, copy.version, msgspec.msgpack.encode(dict(copy.fields)), digest


def _copies(db: sqlite3.Connection, digest: str) -> Iterator[tuple[str, CategoryCopy]]:
    sql = "SELECT category, version, fields FROM copies WHERE digest = ?"
    for category, version, blob in db.execute(sql, (digest,)):
        yield category, CategoryCopy(version, msgspec.msgpack.decode(blob, type=dict[str, bytes]))


def _pending_write(row: tuple[object, ...]) -> PendingWrite:
    entry = PendingWrite(**dict(zip(_NAMES, row, strict=True)))  # type: ignore[arg-type]
    return replace(entry, shadow=bool(entry.shadow), is_delta=bool(entry.is_delta))


def _merged(waiting: PendingWrite, new: PendingWrite) -> PendingWrite:
    """What is to be kept when a field that waits is written again."""
    new = replace(new, base=waiting.base, base_version=waiting.base_version)
    if not new.is_delta:
        return new
    if waiting.is_delta:
        return replace(new, delta=waiting.delta + new.delta)
    return replace(new, value=_added(waiting.value, new.delta), delta=0, is_delta=False)


def _added(value: bytes | None, by: int) -> bytes:
    if value is None:
        return b"%d" % by
    if not _INTEGER.fullmatch(value):
        raise StoreError("journal", ErrorClass.DATA, "not an integer")
    return b"%d" % (int(value) + by)
