"""The SQL database: the only arbiter of auth. One row per session of kind u, one per user who logged out everywhere.

Every call is a short transaction of its own on its own connection, never the application's session or transaction,
and runs in a :class:`~flask_langpont_session.bulkhead.Bulkhead`: a request waits a bounded time whatever the driver
does. All times in the tables are milliseconds since 1970 by the database's clock, the only one all hosts share.

All writes are idempotent: after an unknown outcome, the same call again is safe.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import URL, Connection, Engine, Row, make_url
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from ..bulkhead import Bulkhead, DeadlineExceeded, NoFreeSlot
from .base import AuthRow, ErrorClass, Fields, StoreError

T = TypeVar("T")

NAME = "database"

PATIENT_SECONDS = 10.0
"""What nobody's request waits for (purge, lists for the reconciler, looking for tables) may take this long."""

OWN_SHARE = 0.8
"""The share of the time-out after which the database itself gives up, so that its reason arrives before ours."""

_SLIDE_AFTER = 0.25
"""The share of the idle time that passes before a read moves the idle expiry: one write instead of one per read."""


# -- tables --------------------------------------------------------------------------------------------------------


class now_ms(FunctionElement[int]):
    """Milliseconds since 1970 by the database's clock, when the statement began."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(now_ms)
def _now_ms(element: now_ms, compiler: Any, **options: Any) -> str:
    return "CAST(FLOOR(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP) * 1000) AS BIGINT)"


@compiles(now_ms, "postgresql")
def _now_ms_postgresql(element: now_ms, compiler: Any, **options: Any) -> str:
    # Not now(): that is when the transaction began. Not clock_timestamp(): no index is used with that.
    return "CAST(FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000) AS BIGINT)"


@compiles(now_ms, "sqlite")
def _now_ms_sqlite(element: now_ms, compiler: Any, **options: Any) -> str:
    # Of the ways to get milliseconds the one that SQLite older than 3.42 has too.
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(now_ms, "mysql", "mariadb")
def _now_ms_mysql(element: now_ms, compiler: Any, **options: Any) -> str:
    return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)"


def _exact_text(length: int) -> sa.String:
    """MySQL compares text without regard to case unless told otherwise: two digests, or two users, would be one."""
    binary = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(binary, "mysql", "mariadb")


METADATA = sa.MetaData()
"""For migrations: the tables of this package."""

SESSIONS = sa.Table(
    "langpont_sessions",
    METADATA,
    sa.Column("digest", _exact_text(43), primary_key=True),
    sa.Column("user_id", _exact_text(255), nullable=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("live", sa.Boolean, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("user_epoch", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("idle_expires_at", sa.BigInteger, nullable=False),
    sa.Column("absolute_expires_at", sa.BigInteger, nullable=False),
    sa.Index("ix_langpont_sessions_user_id", "user_id"),
    sa.Index("ix_langpont_sessions_updated_at", "updated_at"),
    sa.Index("ix_langpont_sessions_absolute_expires_at", "absolute_expires_at"),
)

USERS = sa.Table(
    "langpont_users",
    METADATA,
    sa.Column("user_id", _exact_text(255), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
)


# -- statements ----------------------------------------------------------------------------------------------------


def _epoch_of(user_id: ColumnElement[Any]) -> ColumnElement[int]:
    """The user's epoch. Who never logged out everywhere has no row, and epoch 0."""
    stored = sa.select(USERS.c.epoch).where(USERS.c.user_id == user_id).scalar_subquery()
    return sa.func.coalesce(stored, 0, type_=sa.BigInteger())


def _earlier(a: ColumnElement[int], b: ColumnElement[int]) -> ColumnElement[int]:
    return sa.case((a < b, a), else_=b)


_digest: ColumnElement[str] = sa.bindparam("key", type_=sa.String())
_user: ColumnElement[str] = sa.bindparam("user", type_=sa.String())
_ms: ColumnElement[int] = sa.bindparam("ms", type_=sa.BigInteger())
_idle_ms: ColumnElement[int] = sa.bindparam("idle_ms", type_=sa.BigInteger())
_absolute_ms: ColumnElement[int] = sa.bindparam("absolute_ms", type_=sa.BigInteger())
_s = SESSIONS.c

_SELECT = sa.select(
    _s.digest,
    _s.user_id,
    _s.version,
    # Of an earlier epoch is as dead as revoked.
    sa.and_(_s.live, _s.user_epoch == sa.func.coalesce(USERS.c.epoch, 0)).label("live"),
    _s.payload,
    _s.user_epoch,
    _s.created_at,
    _s.idle_expires_at,
    _s.absolute_expires_at,
    now_ms().label("read_at"),
).select_from(SESSIONS.outerjoin(USERS, _s.user_id == USERS.c.user_id))
_SELECT_ONE = _SELECT.where(_s.digest == _digest)
_SELECT_OF_USER = _SELECT.where(_s.user_id == _user).order_by(_s.created_at)
_SELECT_CHANGED = _SELECT.where(_s.updated_at >= now_ms() - _ms).order_by(_s.updated_at)

_INSERT = SESSIONS.insert().values(
    digest=_digest,
    user_id=_user,
    version=1,
    live=True,
    payload=sa.bindparam("fields", type_=sa.Text()),
    user_epoch=_epoch_of(_user),
    created_at=now_ms(),
    updated_at=now_ms(),
    idle_expires_at=now_ms() + _idle_ms,
    absolute_expires_at=now_ms() + _absolute_ms,
)


def _update_statement(absolute: ColumnElement[int]) -> sa.Update:
    """Compare-and-set. Who is dead by epoch is not updated either, else a new epoch could be written over it."""
    return (
        SESSIONS.update()
        .where(_s.digest == _digest, _s.version == sa.bindparam("seen"), _s.live)
        .where(_s.idle_expires_at > now_ms(), _s.absolute_expires_at > now_ms())
        .where(_s.user_epoch == _epoch_of(_s.user_id))
        .values(
            user_id=_user,
            version=_s.version + 1,
            payload=sa.bindparam("fields", type_=sa.Text()),
            user_epoch=_epoch_of(_user),
            updated_at=now_ms(),
            idle_expires_at=_earlier(now_ms() + _idle_ms, absolute),
            absolute_expires_at=absolute,
        )
    )


_UPDATE = _update_statement(_s.absolute_expires_at)
_UPDATE_LIFE = _update_statement(_s.created_at + _absolute_ms)

_KILL = (
    SESSIONS.update()
    .where(_s.digest == _digest, _s.live)
    .values(live=False, version=_s.version + 1, updated_at=now_ms())
)
_SELECT_VERSION = sa.select(_s.version).where(_s.digest == _digest)

# Whoever holds the row is writing it, and most writes move the expiry anyway: a read never waits for a lock.
_LOCK_TO_SLIDE = sa.select(_s.digest).where(_s.digest == _digest).with_for_update(skip_locked=True)
_SLIDE = SESSIONS.update().where(_s.digest == _digest, _s.live, _s.idle_expires_at < _ms).values(idle_expires_at=_ms)

_RAISE_EPOCH = USERS.update().where(USERS.c.user_id == _user).values(epoch=USERS.c.epoch + 1)
_FIRST_EPOCH = USERS.insert().values(user_id=_user, epoch=1)
# The rows die by the epoch, unchanged; the stamp is for those who ask what changed.
_TOUCH_OF_USER = SESSIONS.update().where(_s.user_id == _user).values(updated_at=now_ms())
_DIGESTS_OF_USER = sa.select(_s.digest).where(_s.user_id == _user)

_SELECT_OLD = (
    sa.select(_s.digest)
    .where(_s.absolute_expires_at < now_ms() - _ms)
    .limit(sa.bindparam("most", type_=sa.Integer()))
    .with_for_update(skip_locked=True)
)
_DELETE = SESSIONS.delete().where(_s.digest.in_(sa.bindparam("digests", expanding=True)))
_FORGET_USER = USERS.delete().where(USERS.c.user_id == _user)


# -- the store -----------------------------------------------------------------------------------------------------


class Database:
    """The auth rows. Every method raises :class:`StoreError` for whatever the database or its driver does wrong.

    Times given are milliseconds, time-outs seconds. May be used from any thread, and in a forked child: that gets
    connections of its own, the inherited ones are left alone.

    :param engine: from :func:`make_engine`, or the application's; only its connections are used. Its pooled
        connections are replaced after an outage and, in a forked child, left to the parent.
    :param timeout: seconds a caller waits for one call, connecting included.
    :param concurrency: calls at a time. More are refused (class L), not queued.
    """

    def __init__(self, engine: Engine, *, timeout: float = 0.25, concurrency: int = 4) -> None:
        self.engine = engine
        self.timeout = timeout
        self._dialect = engine.dialect.name
        # A single statement needs no BEGIN and no COMMIT, which are a round trip each. SQLite has no round trips.
        self._reader = engine if self._is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = engine.execution_options(**{_WRITES: True})
        self._requests = Bulkhead(concurrency, "langpont-database")
        # Slots of their own: a hung database must not keep the probe from finding out that it answers again.
        self._probes = Bulkhead(1, "langpont-database-probe")
        self._patient = Bulkhead(1, "langpont-database-patient")
        self._was_ill = False
        self._distrusted_before = 0.0
        self._gate = _ForkGate()
        event.listen(engine, "connect", _note_beginning)
        event.listen(engine, "checkout", self._check_age)
        _databases.add(self)

    @property
    def _is_sqlite(self) -> bool:
        return self._dialect == "sqlite"

    def load(self, digest: str, *, idle_ms: int, timeout: float | None = None) -> AuthRow | None:
        """The row of a session, or None. A valid row that is in use has its idle expiry moved on the way.

        :param idle_ms: the idle time; the expiry is moved when more than a quarter of it has passed. 0: never.
        """

        def work() -> AuthRow | None:
            with self._reader.connect() as connection:
                row = _one_row(connection, digest)
            # The reading connection is back in the pool: one call never holds two.
            return self._slid(row, idle_ms) if row else None

        return self._in_request(work, timeout)

    def create(
        self,
        digest: str,
        *,
        user_id: str | None,
        payload: Fields,
        idle_ms: int,
        absolute_ms: int,
        kill: str | None = None,
        timeout: float | None = None,
    ) -> AuthRow:
        """A new row, version 1. Repeating it after an unknown outcome returns the row that is there.

        :param kill: digest of a session that ends in the same transaction.
        :raises StoreError: of class D when there is another row under this digest, or the same one has changed.
        """
        values = {
            "key": digest,
            "user": user_id,
            "fields": _to_text(payload),
            "idle_ms": min(idle_ms, absolute_ms),
            "absolute_ms": absolute_ms,
        }

        def insert(connection: Connection) -> AuthRow | None:
            if kill is not None:
                connection.execute(_KILL, {"key": kill})
            connection.execute(_INSERT, values)
            return _one_row(connection, digest)

        def find(connection: Connection) -> AuthRow | None:
            row = _one_row(connection, digest)
            known = row and row.version == 1 and (row.user_id, row.payload) == (user_id, payload)
            return row if known else None

        row = self._in_request(lambda: self._inserted(insert, find), timeout)
        if row is None:
            raise StoreError(NAME, ErrorClass.DATA, "AnotherRow")
        return row

    def update(
        self,
        digest: str,
        *,
        seen: int,
        payload: Fields,
        user_id: str | None,
        idle_ms: int,
        absolute_ms: int | None = None,
        timeout: float | None = None,
    ) -> AuthRow | None:
        """Compare-and-set. None: the row is not valid, or not at that version any more; nothing was changed.

        :param seen: the version that the new payload was made from.
        :param absolute_ms: a new life in all, counted from the session's beginning. None: as it is.
        """
        values: dict[str, Any] = {
            "key": digest,
            "seen": seen,
            "user": user_id,
            "fields": _to_text(payload),
            "idle_ms": idle_ms,
        }
        statement = _UPDATE
        if absolute_ms is not None:
            statement, values["absolute_ms"] = _UPDATE_LIFE, absolute_ms

        def work() -> AuthRow | None:
            with self._writer.begin() as connection:
                changed = connection.execute(statement, values).rowcount
                return _one_row(connection, digest) if changed else None

        return self._in_request(work, timeout)

    def kill(self, digest: str, timeout: float | None = None) -> int | None:
        """End a session for ever. Returns the row's version, None if there is no row. A dead one stays as it is."""

        def work() -> int | None:
            with self._writer.begin() as connection:
                connection.execute(_KILL, {"key": digest})
                version: int | None = connection.execute(_SELECT_VERSION, {"key": digest}).scalar()
                return version

        return self._in_request(work, timeout)

    def kill_user(self, user_id: str, timeout: float | None = None) -> list[str]:
        """End all sessions of a user, also those being created just now. Returns the digests of all rows there are."""

        values = {"user": user_id}

        def touched(connection: Connection) -> list[str]:
            connection.execute(_TOUCH_OF_USER, values)
            return list(connection.execute(_DIGESTS_OF_USER, values).scalars())

        def first(connection: Connection) -> list[str]:
            connection.execute(_FIRST_EPOCH, values)
            return touched(connection)

        def again(connection: Connection) -> list[str] | None:
            return touched(connection) if connection.execute(_RAISE_EPOCH, values).rowcount else None

        def work() -> list[str]:
            with self._writer.begin() as connection:
                if (digests := again(connection)) is not None:
                    return digests
            # If two do it for the first time at once, the second finds the row of the first.
            return self._inserted(first, again) or []

        return self._in_request(work, timeout)

    def sessions_of(self, user_id: str, timeout: float | None = None) -> list[AuthRow]:
        """All rows of a user, oldest first, dead and expired ones too."""
        return self._in_request(lambda: self._list(_SELECT_OF_USER, {"user": user_id}), timeout)

    def changed_since(self, ms_ago: int) -> list[AuthRow]:
        """All rows changed in the last milliseconds, in the order of the change. A moved idle expiry is no change."""
        return self._patiently(lambda: self._list(_SELECT_CHANGED, {"ms": ms_ago}))

    def purge(self, grace_ms: int, limit: int = 1000) -> int:
        """Delete rows whose life in all ended longer than `grace_ms` ago. Returns how many: `limit` means: again."""

        def work() -> int:
            with self._patient_transaction() as connection:
                found = connection.execute(_SELECT_OLD, {"ms": grace_ms, "most": limit})
                digests = list(found.scalars())
                return connection.execute(_DELETE, {"digests": digests}).rowcount if digests else 0

        return self._patiently(work)

    def probe(self, timeout: float) -> None:
        """Whether the database takes writes: one real commit that leaves nothing behind.

        :raises StoreError: it does not; also at once while an earlier probe still hangs.
        """
        name = f"@probe-{secrets.token_hex(8)}"  # a name of its own: probes of many hosts never meet at one row

        def work() -> None:
            with self._writer.begin() as connection:
                connection.execute(_FIRST_EPOCH, {"user": name})
                connection.execute(_FORGET_USER, {"user": name})

        if self._was_ill:
            # Nobody knows which server the pooled connections lead to, if to any. Requests come back only after a
            # probe, so that they never meet an old one.
            self._was_ill, self._distrusted_before = False, time.monotonic()
        try:
            self._bounded(self._probes, work, timeout)
        except StoreError as error:
            if error.error_class is ErrorClass.LOCAL:  # elsewhere our own limit; here an answer that is overdue
                raise StoreError(NAME, ErrorClass.UNREACHABLE, error.cause, timed_out=True) from None
            raise

    def create_tables(self) -> None:
        """Create the tables that are missing. Not bounded in time, and not for the request path."""
        with _translated(self), self._gate.passed():
            try:
                with self._patient_transaction() as connection:
                    METADATA.create_all(connection)
            except SQLAlchemyError:
                # Several workers start at once, and none of them may fail because another was first.
                if self._missing_tables():
                    raise

    def missing_tables(self) -> list[str]:
        """Names of the tables that are not there."""
        return self._patiently(self._missing_tables)

    def close(self) -> None:
        """Close idle connections. Later calls open new ones."""
        self.engine.dispose()

    # -- how a call runs -----------------------------------------------------------------------------------------

    def _in_request(self, work: Callable[[], T], timeout: float | None) -> T:
        allowed = self.timeout if timeout is None else min(self.timeout, timeout)
        return self._bounded(self._requests, work, allowed)

    def _patiently(self, work: Callable[[], T]) -> T:
        return self._bounded(self._patient, work, PATIENT_SECONDS)

    def _bounded(self, bulkhead: Bulkhead, work: Callable[[], T], timeout: float) -> T:
        def passing() -> T:
            with self._gate.passed():
                return work()

        with _translated(self):
            return bulkhead.call(passing if self._is_sqlite else work, timeout)

    @contextmanager
    def _patient_transaction(self) -> Iterator[Connection]:
        with self._writer.begin() as connection:
            if self._dialect == "postgresql":
                for setting in ("statement_timeout", "lock_timeout"):
                    connection.exec_driver_sql(f"SET LOCAL {setting} = {int(PATIENT_SECONDS * 1000)}")
            yield connection

    def _inserted(
        self, insert: Callable[[Connection], T | None], otherwise: Callable[[Connection], T | None]
    ) -> T | None:
        """Two short transactions instead of a savepoint, which would cost every insert two round trips."""
        try:
            with self._writer.begin() as connection:
                return insert(connection)
        except IntegrityError:
            pass
        with self._writer.begin() as connection:
            return otherwise(connection)

    def _list(self, statement: sa.Select[Any], values: Mapping[str, Any]) -> list[AuthRow]:
        with self._reader.connect() as connection:
            return [_auth_row(row) for row in connection.execute(statement, values)]

    def _missing_tables(self) -> list[str]:
        with self._reader.connect() as connection:
            there = set(sa.inspect(connection).get_table_names())
        return [name for name in METADATA.tables if name not in there]

    def _slid(self, row: AuthRow, idle_ms: int) -> AuthRow:
        """The row with its idle expiry moved, if that is due."""
        left = row.idle_expires_at - row.read_at
        expires_at = min(row.read_at + idle_ms, row.absolute_expires_at)
        due = idle_ms and left < idle_ms * (1 - _SLIDE_AFTER) and row.idle_expires_at < expires_at
        if not due or not row.live or left <= 0 or row.read_at >= row.absolute_expires_at:
            return row
        # The read has succeeded. That a database which is locked, full or read-only cannot note it is no reason to
        # take the answer back: the next read tries again, and the probe finds out about the database.
        with suppress(SQLAlchemyError):
            return self._slide(row, expires_at)
        return row

    def _slide(self, row: AuthRow, expires_at: int) -> AuthRow:
        with self._writer.connect() as connection, self._without_waiting(connection), connection.begin():
            if not connection.execute(_LOCK_TO_SLIDE, {"key": row.digest}).first():
                return row
            connection.execute(_SLIDE, {"key": row.digest, "ms": expires_at})
        return replace(row, idle_expires_at=expires_at)

    @contextmanager
    def _without_waiting(self, connection: Connection) -> Iterator[None]:
        """SQLite has no SKIP LOCKED; there the wait for the lock is taken away for a moment."""
        driver: Any = connection.connection.driver_connection
        if not self._is_sqlite:
            yield
            return
        [waits] = driver.execute("PRAGMA busy_timeout").fetchone()
        driver.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            driver.execute(f"PRAGMA busy_timeout = {waits}")

    # -- after something went wrong ------------------------------------------------------------------------------

    def _noticed(self, error: StoreError) -> None:
        self._was_ill = self._was_ill or error.concerns_health

    def _check_age(self, connection: object, record: Any, proxy: object) -> None:
        """Called for every connection that leaves the pool. This error makes the pool close it and open a new one."""
        if record.info.get(_BEGAN, 0.0) < self._distrusted_before:
            raise DisconnectionError

    def _before_fork(self) -> None:
        # SQLite keeps in memory which locks the process holds. A child inherits that memory but not the locks, and
        # would believe in them for ever: nothing may be open when the process forks.
        if self._is_sqlite:
            self._gate.close(PATIENT_SECONDS)
            self.engine.dispose()

    def _after_fork_in_parent(self) -> None:
        if self._is_sqlite:
            self._gate.open()

    def _after_fork_in_child(self) -> None:
        self._gate = _ForkGate()
        # Not closed: that would say goodbye to the server on the parent's connections.
        self.engine.dispose(close=False)


_BEGAN = "langpont_began"


def _note_beginning(connection: object, record: Any) -> None:
    record.info[_BEGAN] = time.monotonic()


class _ForkGate:
    """Holds calls off while the process forks, and the fork until the calls have ended."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._forks = 0

    @contextmanager
    def passed(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._forks)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def close(self, seconds: float) -> None:
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: not self._inside, seconds)

    def open(self) -> None:
        with self._changed:
            # A store made during a fork by another thread was not closed for it.
            self._forks = max(0, self._forks - 1)
            self._changed.notify_all()


_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _before_fork() -> None:
    for database in list(_databases):
        database._before_fork()


def _after_fork_in_parent() -> None:
    for database in list(_databases):
        database._after_fork_in_parent()


def _after_fork_in_child() -> None:
    for database in list(_databases):
        database._after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


# -- rows ----------------------------------------------------------------------------------------------------------

_payload_from_text = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _to_text(payload: Fields) -> str:
    """One JSON object of the encoded values, to be read by people as well."""
    return msgspec.json.encode({key: msgspec.Raw(value) for key, value in payload.items()}).decode()


def _from_text(text: str) -> Fields:
    try:
        return {key: bytes(value) for key, value in _payload_from_text(text).items()}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise StoreError(NAME, ErrorClass.DATA, "UnreadablePayload") from None


def _auth_row(row: Row[Any]) -> AuthRow:
    return AuthRow(
        digest=row.digest,
        user_id=row.user_id,
        version=row.version,
        live=bool(row.live),
        payload=_from_text(row.payload),
        user_epoch=row.user_epoch,
        created_at=row.created_at,
        idle_expires_at=row.idle_expires_at,
        absolute_expires_at=row.absolute_expires_at,
        read_at=row.read_at,
    )


def _one_row(connection: Connection, digest: str) -> AuthRow | None:
    row = connection.execute(_SELECT_ONE, {"key": digest}).first()
    return None if row is None else _auth_row(row)


# -- errors --------------------------------------------------------------------------------------------------------

_U, _B, _W = ErrorClass.UNREACHABLE, ErrorClass.BUSY, ErrorClass.WRITE_REFUSED
_A, _D, _L = ErrorClass.IDENTITY_REFUSED, ErrorClass.DATA, ErrorClass.LOCAL

_CLASSES: Mapping[object, ErrorClass] = {
    # our own limits
    NoFreeSlot: _L,
    PoolTimeout: _L,
    DeadlineExceeded: _U,
    # PostgreSQL: SQLSTATE, or its first two characters
    "22": _D,  # data exception
    "23": _D,  # integrity constraint violation
    "25006": _W,  # read-only transaction: a standby, or a primary that was demoted
    "28": _A,  # invalid authorization
    "40": _B,  # deadlock, serialization failure: rolled back
    "42501": _A,  # insufficient privilege
    "53": _B,  # insufficient resources, too many connections
    "53100": _W,  # disk full
    "57P03": _B,  # starting up
    # SQLite: name of the primary result code
    "SQLITE_CONSTRAINT": _D,
    "SQLITE_FULL": _W,
    "SQLITE_MISMATCH": _D,
    "SQLITE_READONLY": _W,
    "SQLITE_TOOBIG": _D,
    # classes of SQLAlchemy and of Python
    DataError: _D,
    IntegrityError: _D,
    OverflowError: _D,
    UnicodeError: _D,
    Exception: _U,
}
"""What an error says about the database. The most specific sign counts; what is not here is class U, the careful one:
a lock that was not free, no connection, a missing table, a bug of a driver."""

_TIMED_OUT = frozenset({DeadlineExceeded, "57014", "ConnectionTimeout"})
"""Of those, which mean that the next caller would have to wait as long again."""

_MISSING_TABLE = re.compile(r"langpont_(?:sessions|users)")


def classify(exc: BaseException) -> ErrorClass:
    """What kind of failure an exception of a driver, of SQLAlchemy or of our own limits is."""
    return next((_CLASSES[sign] for sign in _signs(exc) if sign in _CLASSES), _U)


def _signs(exc: BaseException) -> Iterator[object]:
    """What the table may know an error by, the most specific first."""
    origin = getattr(exc, "orig", None)
    if state := getattr(origin, "sqlstate", None):
        yield from (state, state[:2])
    if name := getattr(origin, "sqlite_errorname", None):
        yield "_".join(name.split("_")[:2])
    yield type(origin).__name__
    yield from type(exc).__mro__


def _store_error(exc: Exception) -> StoreError:
    timed_out = any(sign in _TIMED_OUT for sign in _signs(exc))
    return StoreError(NAME, classify(exc), _cause(exc), timed_out=timed_out)


def _cause(exc: Exception) -> str:
    """The name of the error. Of its text, which may quote values, only the name of a table of ours that is missing."""
    origin = exc.orig if isinstance(exc, DBAPIError) else None
    if origin is None:
        return type(exc).__name__
    missing = getattr(origin, "sqlstate", None) == "42P01" or "no such table" in str(origin)
    if missing and (table := _MISSING_TABLE.search(str(origin))):
        return f"no table {table[0]}, see `flask langpont init-db`"
    return getattr(origin, "sqlite_errorname", None) or type(origin).__name__


@contextmanager
def _translated(database: Database) -> Iterator[None]:
    """Whatever comes out of a driver becomes a StoreError. Drivers are many and raise more than their documentation
    says; an error that nobody knows must count against the database rather than end as an answer or a crash."""
    error: StoreError
    try:
        yield
        return
    except StoreError as exc:
        error = exc
    except Exception as exc:
        error = _store_error(exc)
    database._noticed(error)
    raise error from None


# -- engines -------------------------------------------------------------------------------------------------------

_WRITES = "langpont_writes"


def make_engine(url: str, timeout: float) -> Engine:
    """An engine for :class:`Database` alone, in which every wait is bounded and no value reaches a log.

    :param url: for SQLAlchemy. What it says itself (`connect_timeout` …) is kept.
    :param timeout: seconds, as given to :class:`Database`.
    """
    address = make_url(url)
    dialect = address.get_backend_name()
    # Database bounds how many connections there are; a second limit here could only differ from that.
    engine = sa.create_engine(
        address,
        connect_args=_postgresql_arguments(address, timeout) if dialect == "postgresql" else {},
        hide_parameters=True,
        max_overflow=-1,
        pool_recycle=1800,
        pool_use_lifo=True,
    )
    if dialect == "sqlite":
        _prepare_sqlite(engine, int(timeout * OWN_SHARE * 1000))
    return engine


def _postgresql_arguments(url: URL, timeout: float) -> dict[str, Any]:
    """For libpq. Its statement time-out frees the slot of a slow query; a connection whose other end is gone, without
    a word, ends within seconds."""
    own_ms = max(1, int(timeout * OWN_SHARE * 1000))
    bounds = f"-c statement_timeout={own_ms} -c lock_timeout={max(1, own_ms // 2)}"
    arguments: dict[str, Any] = {
        "connect_timeout": 2,  # the least that libpq does
        "keepalives": 1,
        "keepalives_idle": 2,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "tcp_user_timeout": 3000,
        "application_name": "flask-langpont-session",
    }
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    return arguments | {"options": f"{bounds} {url.query.get('options', '')}".strip()}


def _prepare_sqlite(engine: Engine, busy_ms: int) -> None:
    @event.listens_for(engine, "do_connect")
    def create(dialect: Any, record: Any, args: tuple[Any, ...], params: dict[str, Any]) -> None:
        if not str(args[0]).startswith("file:"):
            _create_private(Path(args[0]))

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: object) -> None:
        # No BEGIN by the driver: it would begin deferred, and a deferred transaction fails instead of waiting when it
        # turns out to write.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {busy_ms}")
        _use_wal(connection, busy_ms / 1000)
        # FULL: a logout that was answered survives a power cut. NORMAL may lose the last commits in WAL mode.
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get(_WRITES):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _create_private(path: Path) -> None:
    """Only the owner may read what sessions contain. SQLite gives its -wal and -shm the mode of the file."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _use_wal(connection: sqlite3.Connection, seconds: float) -> None:
    """Readers and the writer do not wait for each other. Turning it on is the one thing SQLite does not wait for."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
