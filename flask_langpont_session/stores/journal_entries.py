"""What the journal keeps: its tables, and their rows as values.

A field that waits for Redis is one row however often it is written; :func:`put_write` says what remains of it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from operator import attrgetter

import msgspec

from .base import CategoryCopy, ErrorClass, SharedCopy, StoreError
from .journal_limits import SIZE_SCHEMA

SCHEMA_VERSION = 5

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
    """CREATE TABLE pushes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, version INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE copies (
        digest TEXT NOT NULL, category TEXT NOT NULL, version INTEGER NOT NULL, fields BLOB NOT NULL,
        PRIMARY KEY (digest, category))""",
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
class PendingUserRevocation:
    """A user who was logged out everywhere, of whose sessions not all stores have heard.

    :param until_ms: sessions that began then or earlier are dead, milliseconds since 1970. Later ones are not.
    :param epoch: sessions of an earlier epoch are dead too; 0: there is none.
    :param in_database: the database knows that they are dead.
    :param reached: up to this digest, the database and Redis have all that follows.
    """

    seq: int
    user_id: str
    until_ms: int
    epoch: int = 0
    in_database: bool = False
    reached: str = ""


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """What the workers of this host know of the Redis server behind an endpoint.

    :param identity: who it says it is; new after every start of a server process.
    :param trust_since_ms: when it was last found to be another server, or to have lost data, milliseconds since 1970
        by its own clock. What was stamped before counts no more.
    :param generation: of the canary that was last seen there; empty: none yet.
    :param number: of that canary; it grows within a generation.
    """

    identity: str
    trust_since_ms: int
    generation: str
    number: int

    def outdates(self, known: ServerRecord | None) -> bool:
        """Whether this is news to who knows `known`.

        A worker that has not heard of an incident yet must not hide it from workers that start now: trust is never
        dated back. (A failover to a server with a slow clock is not kept for a while; who starts then learns by
        itself.)
        """
        if known is None or self.trust_since_ms != known.trust_since_ms:
            return known is None or self.trust_since_ms > known.trust_since_ms
        return self.number > known.number or not self.is_same_as(known)

    def is_same_as(self, known: ServerRecord | None) -> bool:
        """Whether nothing has happened in between: only the canary's number may differ."""
        return known is not None and replace(known, number=self.number) == self


@dataclass(frozen=True, slots=True)
class PendingPush:
    """Redis lacks what the database has for this session."""

    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """A round of bringing what changed around an incident to Redis: what is to be done, or was done by this host.

    :param server: which server, and which generation of its canary, it was brought to.
    :param since_ms: from when on changed rows are in it, milliseconds since 1970 by the host's clock.
    :param began_ms: when it began; of one to be done: when at the earliest, for it must follow the incident.
    """

    server: str
    since_ms: int
    began_ms: int

    def covers(self, wanted: Settlement) -> bool:
        """Whether nothing is left to be done."""
        reaches_back, is_later = self.since_ms <= wanted.since_ms, self.began_ms >= wanted.began_ms
        return self.server == wanted.server and reaches_back and is_later


class Claim(StrEnum):
    """Who is to do what only one worker of a host has to do."""

    MINE = "mine"
    TAKEN = "taken"  # another worker is at it
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Overlay:
    """Everything this host knows about one session and the stores may not.

    :param revoked: the session is dead.
    :param writes: category → key → encoded value, None for a deleted key.
    :param deltas: category → key → what is to be added to the value in Redis.
    :param copies: category → the newest copy that a worker of this host published.
    :param users: user id → until when, for every user who was logged out everywhere, whoever's session this is: only
        the session's own record says whose it is and when it began. See :class:`PendingUserRevocation`.
    :param epochs: user id → the epoch that goes with it.
    :param version: of the row that Redis is to be told of; 0: of none that is known.
    """

    revoked: bool
    writes: Mapping[str, Mapping[str, bytes | None]]
    deltas: Mapping[str, Mapping[str, int]]
    copies: Mapping[str, CategoryCopy]
    users: Mapping[str, int] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    version: int = 0

    def followed_by(self, later: Overlay) -> Overlay:
        """What is to be laid over an answer that Redis gave between the two looks.

        A value that was brought home in between may be missing in the answer: it is laid over it, and where it is there
        nothing changes. An addition may be in it, and would be counted twice: only those count that wait still.
        """
        names = self.writes.keys() | later.writes.keys()
        writes = {name: {**self.writes.get(name, {}), **later.writes.get(name, {})} for name in names}
        return replace(self, writes=writes, deltas=later.deltas)


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


_NAMES = tuple(column.name for column in fields(PendingWrite))
_COLUMNS = ", ".join(_NAMES)
# SQLite gives the number.
_INSERT = f"INSERT INTO writes ({', '.join(_NAMES[1:])}) VALUES ({', '.join('?' * len(_NAMES[1:]))})"
_values = attrgetter(*_NAMES[1:])

FIELD = "digest = ? AND shadow = ? AND category = ? AND field = ?"
"""The condition for one field in ``writes``."""

_PUT_COPY = """INSERT INTO copies (digest, category, version, fields)
    SELECT ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM revocations WHERE digest = ?)
    ON CONFLICT (digest, category) DO UPDATE SET version = excluded.version, fields = excluded.fields
        WHERE excluded.version > copies.version"""


def put_write(db: sqlite3.Connection, entry: PendingWrite) -> None:
    """Keep a field, merged with what waits of it already, under a new number."""
    place = (entry.digest, entry.shadow, entry.category, entry.field)
    row = db.execute(f"SELECT {_COLUMNS} FROM writes WHERE {FIELD}", place).fetchone()
    if row is not None:
        entry = _merged(_pending_write(row), entry)
        # Not INSERT OR REPLACE: of what that deletes no trigger hears, and the entries would be counted wrong.
        db.execute(f"DELETE FROM writes WHERE {FIELD}", place)
    db.execute(_INSERT, _values(_on_what_is_shared(db, entry)))


def _on_what_is_shared(db: sqlite3.Connection, entry: PendingWrite) -> PendingWrite:
    """A worker of the host has seen, before this was written, what it is to build on: what it is made from may be
    older, and what lies between is no change by somebody else *since*."""
    if entry.shadow or entry.base_version is None:
        return entry
    copy = next((copy for category, copy in _copies(db, entry.digest) if category == entry.category), None)
    if copy is None or copy.version <= entry.base_version:
        return entry
    return replace(entry, base=copy.fields.get(entry.field), base_version=copy.version)


def put_copy(db: sqlite3.Connection, shared: SharedCopy, since_ms: int) -> None:
    """Share a copy, unless one as new is there or the session is revoked; what was written on this host after it was
    known builds on it, whoever wrote it.

    :param since_ms: when it was known, milliseconds since 1970 by the host's clock.
    """
    digest, category, copy = shared[:3]
    db.execute(_PUT_COPY, (digest, category, copy.version, msgspec.msgpack.encode(dict(copy.fields)), digest))
    waiting = db.execute(
        """SELECT seq, field FROM writes
        WHERE digest = ? AND shadow = 0 AND category = ? AND base_version < ? AND at_ms >= ?""",
        (digest, category, copy.version, since_ms),
    )
    db.executemany(
        "UPDATE writes SET base = ?, base_version = ? WHERE seq = ?",
        [(copy.fields.get(field), copy.version, seq) for seq, field in waiting.fetchall()],
    )


def oldest_writes(db: sqlite3.Connection, limit: int, signed_in: bool, after: int) -> list[PendingWrite]:
    """The fields that wait, the one that was written longest ago first, from behind that number."""
    sql = f"SELECT {_COLUMNS} FROM writes WHERE seq > ? AND (? OR kind = 'a' OR shadow) ORDER BY seq LIMIT ?"
    rows = db.execute(sql, (after, signed_in, limit))
    return [_pending_write(row) for row in rows]


def read_overlay(db: sqlite3.Connection, digest: str, *, shadow: bool) -> Overlay:
    """All of one session, or of its anonymous shadow; copies are never published of one."""
    sql = "SELECT category, field, value, delta, is_delta FROM writes WHERE digest = ? AND shadow = ?"
    writes: dict[str, dict[str, bytes | None]] = {}
    deltas: dict[str, dict[str, int]] = {}
    for category, key, value, delta, is_delta in db.execute(sql, (digest, shadow)):
        if is_delta:
            deltas.setdefault(category, {})[key] = delta
        else:
            writes.setdefault(category, {})[key] = value
    copies = {} if shadow else dict(_copies(db, digest))
    ended = db.execute("SELECT user_id, until_ms, epoch FROM user_revocations").fetchall()
    users, epochs = {user: until_ms for user, until_ms, _ in ended}, {user: epoch for user, _, epoch in ended if epoch}
    return Overlay(is_revoked(db, digest), writes, deltas, copies, users, epochs, _pushed_version(db, digest))


def put_push(db: sqlite3.Connection, digest: str, version: int) -> None:
    """Keep that a session waits for a push, under a new number: forgetting an older entry does not forget this one."""
    known = max(version, _pushed_version(db, digest))
    db.execute("INSERT OR REPLACE INTO pushes (digest, version) VALUES (?, ?)", (digest, known))


def _pushed_version(db: sqlite3.Connection, digest: str) -> int:
    row = db.execute("SELECT version FROM pushes WHERE digest = ?", (digest,)).fetchone()
    return row[0] if row else 0


def is_revoked(db: sqlite3.Connection, digest: str) -> bool:
    """Whether a revocation of this session waits."""
    return db.execute("SELECT 1 FROM revocations WHERE digest = ?", (digest,)).fetchone() is not None


def put_revocation(db: sqlite3.Connection, digest: str, now_ms: int, in_database: bool) -> None:
    """Keep that a session is dead, and nothing else of it but its shadow's writes. :func:`settle` says who knows."""
    db.execute(
        """INSERT INTO revocations (digest, at_ms, in_database, in_redis) VALUES (?, ?, FALSE, FALSE)
        ON CONFLICT (digest) DO UPDATE SET in_database = in_database AND ?""",
        (digest, now_ms, in_database),
    )
    db.execute("DELETE FROM writes WHERE digest = ? AND NOT shadow", (digest,))
    db.execute("DELETE FROM copies WHERE digest = ?", (digest,))


def settle(db: sqlite3.Connection, digest: str, in_database: bool, in_redis: bool) -> None:
    """Add the stores that have a revocation now; it goes when both have it."""
    db.execute(
        "UPDATE revocations SET in_database = max(in_database, ?), in_redis = max(in_redis, ?) WHERE digest = ?",
        (in_database, in_redis, digest),
    )
    db.execute("DELETE FROM revocations WHERE digest = ? AND in_database AND in_redis", (digest,))


def put_user_revocation(db: sqlite3.Connection, user_id: str, until_ms: int, epoch: int) -> None:
    """Keep what ends most, under a new number: forgetting an older entry does not forget this one.

    :param epoch: not 0: the database has raised it, which ends all that there is and makes the time needless.
    """
    sql = "SELECT until_ms, epoch FROM user_revocations WHERE user_id = ?"
    known_until_ms, known_epoch = db.execute(sql, (user_id,)).fetchone() or (until_ms, 0)
    db.execute(
        "INSERT OR REPLACE INTO user_revocations (user_id, until_ms, epoch, in_database) VALUES (?, ?, ?, ?)",
        (user_id, 0 if epoch else max(until_ms, known_until_ms), max(epoch, known_epoch), epoch > 0),
    )


def read_server(db: sqlite3.Connection, endpoint: str) -> ServerRecord | None:
    """What is known of an endpoint."""
    sql = "SELECT identity, trust_since_ms, generation, number FROM servers WHERE endpoint = ?"
    row = db.execute(sql, (endpoint,)).fetchone()
    return row and ServerRecord(*row)


def put_server(db: sqlite3.Connection, endpoint: str, record: ServerRecord) -> None:
    """Keep what is known of an endpoint, unless newer things are."""
    if record.outdates(read_server(db, endpoint)):
        row = (endpoint, record.identity, record.trust_since_ms, record.generation, record.number)
        db.execute("INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?, ?)", row)


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
