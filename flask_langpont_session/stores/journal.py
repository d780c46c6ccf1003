"""The host's own durable file of what could not be written where it belongs during an outage.

One SQLite file per host, shared by the host's worker processes. What a call wrote is on the disk when the
call returns, and every worker of the host sees it from then on. While everything is healthy the file is empty
and a request asks one question only, :meth:`Journal.is_empty`, which is answered from memory.

Three rules of SQLite shape this file:

- A connection must not live through a fork. The child would believe that it holds the locks its parent holds,
  and when the parent closes, SQLite removes the log that the child still writes to: acknowledged writes
  vanish without an error. So every connection is closed *before* a fork, and opened again where it is needed.
- Closing *any* descriptor of a file drops all locks this process has on it, SQLite's too. So nothing here
  opens the file by other means once it exists.
- ``PRAGMA data_version`` changes when, and only when, another connection has committed. It costs about a
  microsecond, so nothing needs to be read again as long as it stays the same.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from .base import CategoryCopy, ErrorClass, StoreError

BUSY_SECONDS = 0.2
"""How long a call waits for another worker's write. A write takes a few milliseconds."""

SCHEMA_VERSION = 1

_APPLICATION_ID = 0x4C50534A
"""Marks the file as a journal, so that no tables are ever added to somebody else's database."""

_SCHEMA = (
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
    f"PRAGMA application_id = {_APPLICATION_ID}",
)

_IS_EMPTY = """SELECT NOT (EXISTS (SELECT 1 FROM revocations) OR EXISTS (SELECT 1 FROM pushes)
    OR EXISTS (SELECT 1 FROM writes) OR EXISTS (SELECT 1 FROM copies))"""

_WRITE_COLUMNS = (
    "seq, digest, kind, shadow, user_id, category, field, value, delta, is_delta, base, base_version, at_ms"
)

_FAILURES = (sqlite3.Error, OSError, OverflowError, UnicodeError)
_REFUSED = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY})
_REFUSED_BY_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_INTEGER = re.compile(rb"-?(0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """One field of a session that waits to be merged into Redis.

    :param seq: given anew at each write of the field, never twice, always higher.
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

    seq: int
    digest: str
    kind: str
    shadow: bool
    user_id: str | None
    category: str
    field: str
    value: bytes | None
    delta: int
    is_delta: bool
    base: bytes | None
    base_version: int | None
    at_ms: int


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


class Journal:
    """The journal. Every method may be called from any thread, and every one but :meth:`close` raises
    :class:`StoreError` with store ``journal``: WRITE_REFUSED when the disk is full or read-only, LOCAL when a
    limit of this package is reached, DATA for a value that cannot be kept (a number beyond 64 bits),
    UNREACHABLE for all else. What raised was not written.

    :param path: the file; its folder is created if only that one is missing. None: kept in this process'
        memory, for as long as the process lives.
    :param clock: seconds since 1970.
    :param max_entries: how many written fields and published copies are kept at most. Revocations and pushes
        are not limited.
    """

    def __init__(
        self, path: Path | None, *, clock: Callable[[], float] = time.time, max_entries: int = 100_000
    ) -> None:
        self._path = path
        self._clock = clock
        self._max_entries = max_entries
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._empty: bool | None = None
        self._empty_at = 0
        self._seen: int | None = None
        _journals.add(self)

    def open(self) -> None:
        """Create the file if need be and make sure that it can be written. Meant for the start of an
        application.

        Every other call opens by itself; this one only fails early. It leaves nothing open, so that a server
        which loads the application and then forks its workers has nothing to hand down.
        """
        with self._transaction():
            pass
        if self._path is not None:
            self.close()

    def close(self) -> None:
        """Let go of the file. Never raises; the next call opens it again. A journal in memory is gone."""
        with _lock:
            self._disconnect()

    # Questions

    def is_empty(self) -> bool:
        """Whether no write, revocation or push waits and no copy is published. Costs microseconds."""
        with self._connected() as db:
            # The version is read first: a commit between the two reads makes the next call look again.
            version = _data_version(db)
            if self._empty is None or version != self._empty_at:
                self._empty = bool(_one(db, _IS_EMPTY))
                self._empty_at = version
            return self._empty

    def changed(self) -> bool:
        """Whether another process committed anything since the last call. True at the first call."""
        with self._connected() as db:
            seen, self._seen = self._seen, _data_version(db)
            return self._seen != seen

    def overlay(self, digest: str, *, shadow: bool = False) -> Overlay:
        """Everything this host knows about a session, at one moment.

        :param shadow: what is known of the anonymous shadow of that session id; copies are never published of
            one.
        """
        with self._transaction("DEFERRED") as db:
            rows = db.execute(
                "SELECT category, field, value, delta, is_delta FROM writes WHERE digest = ? AND shadow = ?",
                (digest, shadow),
            ).fetchall()
            copies = {} if shadow else _copies(db, digest)
            revoked = _is_revoked(db, digest)
        writes: dict[str, dict[str, bytes | None]] = {}
        deltas: dict[str, dict[str, int]] = {}
        for category, field, value, delta, is_delta in rows:
            if is_delta:
                deltas.setdefault(category, {})[field] = delta
            else:
                writes.setdefault(category, {})[field] = value
        return Overlay(revoked, writes, deltas, copies)

    def counts(self) -> Mapping[str, int]:
        """How many ``writes``, ``revocations``, ``pushes``, ``copies`` and ``outages`` there are."""
        tables = ("writes", "revocations", "pushes", "copies", "outages")
        with self._transaction("DEFERRED") as db:
            return {table: _one(db, f"SELECT count(*) FROM {table}") for table in tables}

    # Revocations and pushes

    def revoke(self, digest: str, *, in_database: bool = False, in_redis: bool = False) -> None:
        """Note that a session is dead, and forget what was to be written for it; its shadow's writes stay.

        Doing it again changes nothing but to add a store that has it by now.

        :param in_database: the database has it already.
        :param in_redis: Redis has the tombstone already.
        """
        with self._transaction() as db:
            db.execute(
                """INSERT INTO revocations (digest, at_ms, in_database, in_redis) VALUES (?, ?, ?, ?)
                ON CONFLICT (digest) DO UPDATE SET in_database = max(in_database, excluded.in_database),
                    in_redis = max(in_redis, excluded.in_redis)""",
                (digest, self._now_ms(), in_database, in_redis),
            )
            db.execute("DELETE FROM writes WHERE digest = ? AND NOT shadow", (digest,))
            db.execute("DELETE FROM copies WHERE digest = ?", (digest,))
            _drop_settled(db, digest)

    def settle_revocation(self, digest: str, *, in_database: bool = False, in_redis: bool = False) -> None:
        """Note which stores have the revocation now. The entry disappears when both have."""
        with self._transaction() as db:
            db.execute(
                """UPDATE revocations SET in_database = max(in_database, ?), in_redis = max(in_redis, ?)
                WHERE digest = ?""",
                (in_database, in_redis, digest),
            )
            _drop_settled(db, digest)

    def is_revoked(self, digest: str) -> bool:
        """Whether a revocation of this session waits here."""
        with self._connected() as db:
            return _is_revoked(db, digest)

    def pending_revocations(self, limit: int = 1000) -> list[PendingRevocation]:
        """The oldest revocations that not both stores have."""
        sql = "SELECT seq, digest, at_ms, in_database, in_redis FROM revocations ORDER BY seq LIMIT ?"
        with self._connected() as db:
            rows = db.execute(sql, (limit,)).fetchall()
        return [PendingRevocation(seq, digest, at, bool(sql), bool(redis)) for seq, digest, at, sql, redis in rows]

    def queue_push(self, digest: str) -> None:
        """Note that Redis lacks what the database has for this session."""
        with self._transaction() as db:
            # A new number each time, so that forgetting an older entry does not forget this one.
            db.execute("INSERT OR REPLACE INTO pushes (digest) VALUES (?)", (digest,))

    def pending_pushes(self, limit: int = 1000) -> list[PendingPush]:
        """The oldest sessions that wait for a push."""
        with self._connected() as db:
            rows = db.execute("SELECT seq, digest FROM pushes ORDER BY seq LIMIT ?", (limit,)).fetchall()
        return [PendingPush(*row) for row in rows]

    def forget_push(self, entry: PendingPush) -> None:
        """The push is done. One that was queued since then stays."""
        with self._transaction() as db:
            db.execute("DELETE FROM pushes WHERE seq = ?", (entry.seq,))

    # Writes

    def write(
        self,
        digest: str,
        *,
        kind: str,
        user_id: str | None = None,
        shadow: bool = False,
        category: str,
        changes: Mapping[str, bytes | None],
        base: Mapping[str, bytes | None],
        base_version: int | None,
    ) -> None:
        """Keep changed fields of a session until Redis takes them. The last value of a field wins.

        A session that is revoked here absorbs the write; its shadow does not.

        :param changes: key → encoded value, None for a deleted key.
        :param base: key → the encoded value Redis had when last known. The first one is kept as long as the
            field waits: it describes Redis before the outage.
        :param base_version: the category's version that goes with ``base``; None: not known.
        """
        now = self._now_ms()
        self._put(
            PendingWrite(
                seq=0,
                digest=digest,
                kind=kind,
                shadow=shadow,
                user_id=user_id,
                category=category,
                field=field,
                value=value,
                delta=0,
                is_delta=False,
                base=base.get(field),
                base_version=base_version,
                at_ms=now,
            )
            for field, value in changes.items()
        )

    def increment(
        self,
        digest: str,
        *,
        kind: str,
        user_id: str | None = None,
        shadow: bool = False,
        category: str,
        field: str,
        by: int,
        base: bytes | None = None,
        base_version: int | None = None,
    ) -> None:
        """Keep an increment of a field until Redis takes it. Increments add up.

        Over a value that waits itself, the value is changed instead (a deleted key counts as 0).

        :raises StoreError: of class DATA, when that value is not an integer.
        """
        entry = PendingWrite(
            seq=0,
            digest=digest,
            kind=kind,
            shadow=shadow,
            user_id=user_id,
            category=category,
            field=field,
            value=None,
            delta=by,
            is_delta=True,
            base=base,
            base_version=base_version,
            at_ms=self._now_ms(),
        )
        self._put([entry])

    def pending_writes(self, limit: int = 1000) -> list[PendingWrite]:
        """The fields that wait, the one that was written longest ago first."""
        sql = f"SELECT {_WRITE_COLUMNS} FROM writes ORDER BY seq LIMIT ?"
        with self._connected() as db:
            return [_pending_write(row) for row in db.execute(sql, (limit,))]

    def forget_writes(self, entries: Iterable[PendingWrite]) -> None:
        """These are merged. A field that was written again since it was read from here stays."""
        with self._transaction() as db:
            db.executemany("DELETE FROM writes WHERE seq = ?", [(entry.seq,) for entry in entries])

    def forget_fields(self, digest: str, category: str, fields: Iterable[str], *, shadow: bool = False) -> None:
        """Redis has taken newer values of these fields directly."""
        with self._transaction() as db:
            db.executemany(
                "DELETE FROM writes WHERE digest = ? AND shadow = ? AND category = ? AND field = ?",
                [(digest, shadow, category, field) for field in fields],
            )

    # Copies

    def publish_copies(self, copies: Iterable[tuple[str, str, CategoryCopy]]) -> None:
        """Share this worker's copies with the other workers of the host: all of them, or none if there is no
        room.

        :param copies: digest, category, copy. One that is not newer than what is there, or whose session is
            revoked here, is left out.
        """
        rows = [
            (digest, category, copy.version, msgspec.msgpack.encode(dict(copy.fields)), digest)
            for digest, category, copy in copies
        ]
        with self._adding() as db:
            db.executemany(
                """INSERT INTO copies (digest, category, version, fields)
                SELECT ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM revocations WHERE digest = ?)
                ON CONFLICT (digest, category)
                    DO UPDATE SET version = excluded.version, fields = excluded.fields
                    WHERE excluded.version > copies.version""",
                rows,
            )

    def clear_copies(self) -> None:
        """The outage is over: the copies have no use any more."""
        deleted = 1
        while deleted:
            # In portions: nobody who has to note a logout meanwhile may wait for the whole of it.
            with self._transaction() as db:
                deleted = db.execute("DELETE FROM copies WHERE rowid IN (SELECT rowid FROM copies LIMIT 1000)").rowcount

    # Outages

    def announce_outage(self, what: str) -> None:
        """Tell the other workers of the host at once, with the time of now.

        :param what: what fails, for example ``primary``.
        """
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO outages VALUES (?, ?)", (what, self._now_ms()))

    def outages(self) -> Mapping[str, int]:
        """What fails, and when it was last announced, milliseconds since 1970."""
        with self._connected() as db:
            return dict(db.execute("SELECT what, at_ms FROM outages ORDER BY what").fetchall())

    def outage_over(self, what: str) -> None:
        """Take an announcement back."""
        with self._transaction() as db:
            db.execute("DELETE FROM outages WHERE what = ?", (what,))

    # Inside

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _put(self, entries: Iterable[PendingWrite]) -> None:
        with self._adding() as db:
            for entry in entries:
                if entry.shadow or not _is_revoked(db, entry.digest):
                    _replace(db, entry)

    @contextmanager
    def _adding(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is taken back when it makes the journal too large."""
        with self._transaction() as db:
            before = _entries(db)
            yield db
            # Whatever does not add entries (a field written again) works in a full journal too.
            after = _entries(db)
            if after > before and after > self._max_entries:
                raise StoreError("journal", ErrorClass.LOCAL, f"more than {self._max_entries} entries")

    @contextmanager
    def _transaction(self, mode: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with self._connected() as db:
            _patiently(db, f"BEGIN {mode}")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if mode == "IMMEDIATE":
                    self._empty = None

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone, with the driver's errors translated."""
        with _lock:
            try:
                yield self._connection_here()
            except _FAILURES as error:
                if self._path is not None:
                    # The next call begins anew: the file may be repaired or replaced by then.
                    self._disconnect()
                raise _store_error(error) from error

    def _connection_here(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _open(self._path)
            self._pid = os.getpid()
        elif self._is_inherited():
            # Forked by C code that runs none of Python's hooks, with the connection open. There is no safe
            # way on: this process would write where nobody looks. (After open() nothing is open, so that a
            # server which forks like this works all the same.)
            raise StoreError("journal", ErrorClass.LOCAL, "forked while open")
        return self._connection

    def _is_inherited(self) -> bool:
        return self._connection is not None and self._pid != os.getpid()

    def _disconnect(self) -> None:
        if self._path is not None and self._is_inherited():
            # Closing it here could remove the log that the parent writes to.
            return
        connection, self._connection = self._connection, None
        self._empty = self._seen = None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


# One lock for all journals of this process, usually one: a fork has to stop and close every one of them.
# Reentrant, because a signal handler may fork.
_lock = threading.RLock()
_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _before_fork() -> None:
    _lock.acquire()
    for journal in list(_journals):
        if journal._path is not None:
            journal._disconnect()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for journal in list(_journals):
        if journal._path is None:
            # What is in the parent's memory is for the parent to merge, once.
            journal._disconnect()


os.register_at_fork(before=_before_fork, after_in_parent=lambda: _lock.release(), after_in_child=_after_fork_in_child)


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        _create(path)
    connection = sqlite3.connect(
        ":memory:" if path is None else path,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        _prepare(connection)
        if path is not None:
            _make_private(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Only the owner may read what sessions contain. SQLite gives its -wal and -shm the mode of the file."""
    with suppress(FileExistsError):
        path.parent.mkdir(mode=0o700)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _make_private(path: Path) -> None:
    """Take rights back that somebody gave since, for example by restoring a copy."""
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with suppress(FileNotFoundError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA synchronous = FULL")
    if _is_blank(db):
        _patiently(db, "PRAGMA journal_mode = WAL")
        _create_schema(db)
    if _one(db, "PRAGMA application_id") != _APPLICATION_ID:
        raise StoreError("journal", ErrorClass.UNREACHABLE, "the file is not a journal")
    if (version := _one(db, "PRAGMA user_version")) != SCHEMA_VERSION:
        raise StoreError("journal", ErrorClass.UNREACHABLE, f"schema version {version}")


def _is_blank(db: sqlite3.Connection) -> bool:
    return not _one(db, "SELECT EXISTS (SELECT 1 FROM sqlite_schema)")


def _patiently(db: sqlite3.Connection, statement: str) -> None:
    """Run a statement that needs the write lock, as soon as other workers leave it.

    SQLite's own waiting looks a dozen times, ever more rarely, and for some statements not at all: a sibling
    that writes without a pause would keep a logout out.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    db.execute("PRAGMA busy_timeout = 0")
    try:
        while not _takes(db, statement, last=time.monotonic() > deadline):
            time.sleep(0.001)
    finally:
        db.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")


def _takes(db: sqlite3.Connection, statement: str, *, last: bool) -> bool:
    try:
        db.execute(statement)
    except sqlite3.OperationalError as error:
        if last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _create_schema(db: sqlite3.Connection) -> None:
    _patiently(db, "BEGIN IMMEDIATE")
    # Another worker may have been first.
    if _is_blank(db):
        for statement in _SCHEMA:
            db.execute(statement)
    db.execute("COMMIT")


def _store_error(error: Exception) -> StoreError:
    # The name SQLite or the system gives the error says what is wrong, and unlike the text it quotes nothing.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    cause = getattr(error, "sqlite_errorname", type(error).__name__)
    if isinstance(error, (OverflowError, UnicodeError)):
        return StoreError("journal", ErrorClass.DATA, cause)
    refused = code in _REFUSED or (isinstance(error, OSError) and error.errno in _REFUSED_BY_SYSTEM)
    return StoreError("journal", ErrorClass.WRITE_REFUSED if refused else ErrorClass.UNREACHABLE, cause)


def _one(db: sqlite3.Connection, sql: str, *parameters: object) -> int:
    row = db.execute(sql, parameters).fetchone()
    return int(row[0])


def _data_version(db: sqlite3.Connection) -> int:
    return _one(db, "PRAGMA data_version")


def _entries(db: sqlite3.Connection) -> int:
    return _one(db, "SELECT entries FROM size")


def _is_revoked(db: sqlite3.Connection, digest: str) -> bool:
    return bool(_one(db, "SELECT EXISTS (SELECT 1 FROM revocations WHERE digest = ?)", digest))


def _drop_settled(db: sqlite3.Connection, digest: str) -> None:
    db.execute("DELETE FROM revocations WHERE digest = ? AND in_database AND in_redis", (digest,))


def _copies(db: sqlite3.Connection, digest: str) -> dict[str, CategoryCopy]:
    rows = db.execute("SELECT category, version, fields FROM copies WHERE digest = ?", (digest,)).fetchall()
    return {
        category: CategoryCopy(version, msgspec.msgpack.decode(fields, type=dict[str, bytes]))
        for category, version, fields in rows
    }


def _replace(db: sqlite3.Connection, entry: PendingWrite) -> None:
    place = (entry.digest, entry.shadow, entry.category, entry.field)
    where = "WHERE digest = ? AND shadow = ? AND category = ? AND field = ?"
    row = db.execute(f"SELECT {_WRITE_COLUMNS} FROM writes {where}", place).fetchone()
    if row is not None:
        entry = _merged(_pending_write(row), entry)
        db.execute(f"DELETE FROM writes {where}", place)
    columns = _WRITE_COLUMNS.removeprefix("seq, ")
    db.execute(f"INSERT INTO writes ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _values(entry))


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


def _values(entry: PendingWrite) -> tuple[object, ...]:
    return (
        entry.digest,
        entry.kind,
        entry.shadow,
        entry.user_id,
        entry.category,
        entry.field,
        entry.value,
        entry.delta,
        entry.is_delta,
        entry.base,
        entry.base_version,
        entry.at_ms,
    )


def _pending_write(row: tuple[object, ...]) -> PendingWrite:
    entry = PendingWrite(*row)  # type: ignore[arg-type]  # the columns are in the order of the fields
    return replace(entry, shadow=bool(entry.shadow), is_delta=bool(entry.is_delta))
