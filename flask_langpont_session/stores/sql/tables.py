"""The tables of the SQL database, and the statements about them; what their rows mean is in :mod:`.rows`.

All times are milliseconds since 1970 by the database's clock, the only one all hosts share. Every statement may be
repeated after an unknown outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from ...policy.devices import LONGEST_LABEL
from ...policy.rows import EndedSession


class now_ms(FunctionElement[int]):
    """Return SQL for the milliseconds since 1970 by the database's clock, when the statement began."""

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


NO_PAD, NO_PAD_OF_MYSQL = "utf8mb4_nopad_bin", "utf8mb4_0900_bin"
"""The collation by which a space at the end counts, as it does in other databases; MySQL has it by another name."""


def _exact_text(length: int, collation: str = "utf8mb4_bin") -> sa.String:
    """Return text that MySQL, too, compares with regard to case: else two digests, or two users, would be one."""
    binary = mysql.VARCHAR(length, charset="utf8mb4", collation=collation)
    return sa.String(length).with_variant(binary, "mysql", "mariadb")


def _payload() -> sa.Text:
    """Return a long type: MySQL's TEXT holds 64 KiB, in the database's character set (in latin1 no Japanese)."""
    return sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


METADATA = sa.MetaData()
"""For migrations: the tables of this package."""

LIMIT = "limit"
"""Ended for a sign-in of the same user, beyond MAX_SESSIONS_PER_USER."""

DEVICE = "device"
"""Ended by its user, on another device."""

OTHER_BROWSER_MS = 30_000
"""After so long a session is taken for that of another browser than the one whose sign-in ended it for a limit. A
browser that opens several pages at once, each of which signs in by a remember cookie, has its sessions end each other.
"""

TOLD = " told"
"""Behind either, once the user has been told of it."""

SESSIONS = sa.Table(
    "langpont_sessions",
    METADATA,
    sa.Column("digest", _exact_text(43), primary_key=True),
    sa.Column("user_id", _exact_text(255, NO_PAD), nullable=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("live", sa.Boolean, nullable=False),
    sa.Column("payload", _payload(), nullable=False),
    sa.Column("user_epoch", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("idle_expires_at", sa.BigInteger, nullable=False),
    sa.Column("absolute_expires_at", sa.BigInteger, nullable=False),
    # The digest under which the session goes on, once it was given another id: a revocation must find it.
    sa.Column("successor", _exact_text(43), nullable=True),
    # What ended it, for the user to be told once: :data:`LIMIT`, :data:`DEVICE`, or nothing. :data:`TOLD` behind it.
    sa.Column("ended_by", _exact_text(16), nullable=True),
    # For the user's list of devices. The first two are stored where a setting, or the application itself, has it so.
    sa.Column("label", _exact_text(LONGEST_LABEL), nullable=True),
    sa.Column("network", _exact_text(43), nullable=True),
    sa.Column("seen_at", sa.BigInteger, nullable=True),
    # With the digest: of many rows a part is taken at a time, in this order.
    sa.Index("ix_langpont_sessions_user_id", "user_id", "digest"),
    sa.Index("ix_langpont_sessions_updated_at", "updated_at", "digest"),
    sa.Index("ix_langpont_sessions_absolute_expires_at", "absolute_expires_at"),
)

USERS = sa.Table(
    "langpont_users",
    METADATA,
    sa.Column("user_id", _exact_text(255, NO_PAD), primary_key=True),
    # None: the user was never logged out everywhere; the row is there to be locked, see :mod:`.session_limits`.
    sa.Column("epoch", sa.BigInteger, nullable=True),
)


def metadata_for(dialect: Dialect) -> sa.MetaData:
    """Return the tables as one server takes them.

    :param dialect: of a connection: only there MySQL differs from MariaDB.
    """
    if dialect.name != "mysql" or getattr(dialect, "is_mariadb", False):
        return METADATA
    tables = sa.MetaData()
    for table in METADATA.sorted_tables:
        table.to_metadata(tables).c.user_id.type = _exact_text(255, NO_PAD_OF_MYSQL)
    return tables


# -- statements --------------------------------------------------------------------------------------------------------


def _epoch_of(user_id: ColumnElement[Any]) -> ColumnElement[int]:
    """Return SQL for a user's epoch. A user that was never logged out everywhere has no row, and epoch 0, as has one
    for whom only the time was noted."""
    stored = sa.select(USERS.c.epoch).where(USERS.c.user_id == user_id).scalar_subquery()
    return sa.func.coalesce(stored, sa.literal_column("0"), type_=sa.BigInteger())


def _earlier(a: ColumnElement[int], b: ColumnElement[int]) -> ColumnElement[int]:
    return sa.case((a < b, a), else_=b)


_digest: ColumnElement[str] = sa.bindparam("key", type_=sa.String())
_user: ColumnElement[str] = sa.bindparam("user", type_=sa.String())
_fields: ColumnElement[str] = sa.bindparam("fields", type_=sa.Text())
_ms: ColumnElement[int] = sa.bindparam("ms", type_=sa.BigInteger())
_after: ColumnElement[str] = sa.bindparam("after", type_=sa.String())
_most: ColumnElement[int] = sa.bindparam("most", type_=sa.Integer())
_digests: ColumnElement[str] = sa.bindparam("digests", expanding=True)
_idle_ms: ColumnElement[int] = sa.bindparam("idle_ms", type_=sa.BigInteger())
_absolute_ms: ColumnElement[int] = sa.bindparam("absolute_ms", type_=sa.BigInteger())
_seen: ColumnElement[int] = sa.bindparam("seen", type_=sa.BigInteger())
_before_epoch: ColumnElement[int] = sa.bindparam("epoch", type_=sa.BigInteger())
_successor: ColumnElement[str] = sa.bindparam("successor", type_=sa.String())
_cause: ColumnElement[str] = sa.bindparam("cause", type_=sa.String())
_s = SESSIONS.c

_is_of_epoch = _s.user_epoch == _epoch_of(_s.user_id)
_is_in_time = sa.and_(_s.idle_expires_at > now_ms(), _s.absolute_expires_at > now_ms())
_is_valid = sa.and_(_s.live, _is_in_time, _is_of_epoch)
_is_as_seen = sa.and_(_s.digest == _digest, _s.version == _seen, _is_valid)
"""The condition of a compare-and-set. A session that is dead by epoch is not changed either, else a new epoch could be
written over it."""
_ended = {"live": False, "version": _s.version + 1, "updated_at": now_ms()}
_absolute = sa.func.coalesce(_s.created_at + _absolute_ms, _s.absolute_expires_at)
"""A new life in all, counted from the session's beginning; as it is where none is given."""


def _row(live: ColumnElement[bool]) -> Sequence[ColumnElement[Any]]:
    """Return the columns that :class:`~.rows.Rows` needs, in the order of :class:`.AuthRow`."""
    return (
        _s.digest,
        _s.user_id,
        _s.version,
        live.label("live"),
        _s.payload,
        _s.user_epoch,
        _s.created_at,
        _s.idle_expires_at,
        _s.absolute_expires_at,
        now_ms().label("read_at"),
    )


# Of an earlier epoch is as dead as revoked.
_is_live = sa.and_(_s.live, _s.user_epoch == sa.func.coalesce(USERS.c.epoch, 0))
_SELECT = sa.select(*_row(_is_live)).select_from(SESSIONS.outerjoin(USERS, _s.user_id == USERS.c.user_id))
SELECT_ONE = _SELECT.where(_s.digest == _digest)
SELECT_THESE = _SELECT.where(_s.digest.in_(_digests))
SELECT_RENAMED = sa.select(_s.digest).where(
    _s.digest.in_(_digests), _s.successor.is_not(None), _s.updated_at > now_ms() - _ms
)
SELECT_DESCRIBED = SELECT_ONE.add_columns(_s.updated_at, _s.successor, _s.ended_by, _s.seen_at)
SELECT_IN_USE = SELECT_ONE.add_columns(_s.seen_at)
SELECT_OF_USER = _SELECT.where(_s.user_id == _user).order_by(_s.created_at)
_described = _s.label, _s.network, _s.seen_at, _s.successor
SELECT_DEVICES = SELECT_OF_USER.add_columns(*_described)
_is_in_use = sa.and_(_is_live, _is_in_time, sa.func.coalesce(_s.seen_at, _s.created_at) >= _ms)
SELECT_ALL = _SELECT.add_columns(*_described).where(_is_in_use, _s.digest > _after).order_by(_s.digest).limit(_most)
COUNT_ALL = (
    sa.select(sa.func.count()).select_from(SESSIONS.outerjoin(USERS, _s.user_id == USERS.c.user_id)).where(_is_in_use)
)
_SELECT_BY_CHANGE = _SELECT.add_columns(_s.updated_at).order_by(_s.updated_at, _s.digest).limit(_most)
SELECT_CHANGED = _SELECT_BY_CHANGE.where(_s.updated_at >= now_ms() - _ms)
SELECT_CHANGED_AFTER = _SELECT_BY_CHANGE.where(_s.updated_at >= _ms, sa.or_(_s.updated_at > _ms, _s.digest > _after))

INSERT = SESSIONS.insert().values(
    digest=_digest,
    user_id=_user,
    version=sa.literal_column("1"),
    live=sa.true(),
    payload=_fields,
    user_epoch=_epoch_of(_user),
    created_at=now_ms(),
    updated_at=now_ms(),
    idle_expires_at=now_ms() + _idle_ms,
    absolute_expires_at=now_ms() + _absolute_ms,
    label=sa.bindparam("label", None, sa.String()),
    network=sa.bindparam("network", None, sa.String()),
    seen_at=now_ms(),
)

INSERT_ADOPTED = SESSIONS.insert().values(
    digest=_digest,
    user_id=None,
    version=1,
    live=False,
    payload="{}",
    user_epoch=0,
    created_at=now_ms(),
    updated_at=0,  # nothing follows from it: it is no change that Redis must be told
    idle_expires_at=now_ms(),
    absolute_expires_at=now_ms() + _absolute_ms,
)
"""Notes that an old session was taken over: a dead row, kept for as long as the old session could be used."""


UPDATE = (
    SESSIONS.update()
    .where(_is_as_seen)
    .values(
        user_id=_user,
        version=_s.version + 1,
        payload=_fields,
        user_epoch=_epoch_of(_user),
        updated_at=now_ms(),
        idle_expires_at=_earlier(now_ms() + _idle_ms, _absolute),
        absolute_expires_at=_absolute,
        seen_at=now_ms(),
    )
)

# No idle expiry is looked at: the session is not used by this.
RAISE_VERSION = (
    SESSIONS.update()
    .where(_s.digest == _digest, _s.version == _seen, _s.live, _is_of_epoch)
    .values(version=sa.bindparam("to", type_=sa.BigInteger()), payload=_fields, updated_at=now_ms())
)

INSERT_RETURNING = INSERT.returning(_s.user_epoch, _s.created_at)
UPDATE_RETURNING = UPDATE.returning(*_row(_s.live))

KILL = SESSIONS.update().where(_s.digest == _digest, _s.live).values(_ended)
RENAME = SESSIONS.update().where(_is_as_seen).values({**_ended, "successor": _successor})

_succeeding = {
    "digest": _successor,
    "user_id": _s.user_id,
    "version": sa.literal_column("1"),
    "live": sa.true(),
    "payload": _fields,
    "user_epoch": _s.user_epoch,
    "created_at": _s.created_at,
    "updated_at": now_ms(),
    "idle_expires_at": _earlier(now_ms() + _idle_ms, _absolute),
    "absolute_expires_at": _absolute,
    "label": _s.label,
    "network": _s.network,
    "seen_at": now_ms(),
}
INSERT_SUCCESSOR = SESSIONS.insert().from_select(
    list(_succeeding), sa.select(*_succeeding.values()).where(_s.digest == _digest)
)
"""Inserts a session under another digest: as old as before, ended by what ends its predecessor."""

SELECT_VERSION = sa.select(_s.version).where(_s.digest == _digest)

# A transaction that holds the row is writing it, and most writes move the expiry anyway: a read never waits for a lock.
LOCK_FOR_READER = sa.select(_s.digest).where(_s.digest == _digest).with_for_update(skip_locked=True)
# Compare-and-set: of several transactions that read the same row and would move its expiry, one does.
EXTEND_IDLE = (
    SESSIONS.update()
    .where(_s.digest == _digest, _s.live, _s.idle_expires_at == _seen, _is_of_epoch)
    .values(idle_expires_at=_ms, seen_at=now_ms())
)
NOTE_USE = (
    SESSIONS.update()
    .where(_s.digest == _digest, _s.live, sa.func.coalesce(_s.seen_at, 0) == _seen)
    .values(seen_at=now_ms())
)
# Of a reader that knows a later expiry and one that does not, the first decides: the other changes nothing.
KILL_IDLE = KILL.where(_s.version == _seen, _s.idle_expires_at <= now_ms())

RAISE_EPOCH = USERS.update().where(USERS.c.user_id == _user).values(epoch=sa.func.coalesce(USERS.c.epoch, 0) + 1)
INSERT_USER = USERS.insert().values(user_id=_user, epoch=sa.bindparam("first", type_=sa.BigInteger()))
KEEP_EPOCH = USERS.update().where(USERS.c.user_id == _user, USERS.c.epoch.is_(None)).values(epoch=0)
SELECT_ENDED = (
    sa.select(_s.digest)
    .where(_s.user_id == _user, _s.live, _is_in_time, _s.user_epoch == _before_epoch - 1)
    .order_by(_s.digest)
)
SELECT_EPOCH = sa.select(USERS.c.epoch).where(USERS.c.user_id == _user)

# A write: SQLite knows no other lock, and an engine of the application may begin its transaction with the first one.
LOCK_USER = USERS.update().where(USERS.c.user_id == _user).values(epoch=USERS.c.epoch)
SELECT_VALID = (
    sa.select(_s.digest, (_s.version + 1).label("version"))
    .where(_s.user_id == _user, _is_valid)
    .order_by(_s.created_at, _s.digest)
)
"""The sessions in which a user is signed in, oldest first, each with the version that it has once it was ended."""

# A transaction that takes many rows takes them in one order, or two of them would wait for each other for ever.
_LOCK = sa.select(_s.digest, _s.successor, _s.version, _s.live).order_by(_s.digest).with_for_update()
_is_over = sa.or_(_s.created_at <= _ms, _s.user_epoch < _before_epoch)
LOCK_UNTIL = _LOCK.where(_s.user_id == _user, _is_over, _s.digest > _after).limit(_most)
# Only of those that are valid until then it is told that they ended.
LOCK_THESE = _LOCK.add_columns(_is_valid.label("lived")).where(_s.digest.in_(_digests))
# Those of an earlier epoch are dead without it; the stamp is for those that ask what changed.
KILL_THESE = SESSIONS.update().where(_s.digest.in_(_digests), _s.live).values(_ended)
DISPLACE = KILL_THESE.values(ended_by=_cause)
TAKE_DISPLACED = (
    SESSIONS.update().where(_s.digest == _digest, _s.ended_by.in_([LIMIT, DEVICE])).values(ended_by=_s.ended_by + TOLD)
)
_has_lived = _s.updated_at - _s.created_at > OTHER_BROWSER_MS
SELECT_DISPLACED = sa.select(_s.digest).where(
    _s.digest == _digest,
    sa.or_(_s.ended_by.in_([DEVICE, DEVICE + TOLD]), sa.and_(_s.ended_by.is_not(None), _has_lived)),
)

SELECT_LABEL = sa.select(_s.label).where(_s.digest == _digest)
LABEL = SESSIONS.update().where(_s.digest == _digest, _s.live).values(label=sa.bindparam("text", type_=sa.String()))
SELECT_SUCCESSOR = sa.select(_s.successor).where(_s.digest == _digest)

SELECT_OLD = (
    sa.select(_s.digest).where(_s.absolute_expires_at < now_ms() - _ms).limit(_most).with_for_update(skip_locked=True)
)
DELETE = SESSIONS.delete().where(_s.digest.in_(_digests))
DELETE_OF_USER = SESSIONS.delete().where(_s.user_id == _user)
FORGET_USER = USERS.delete().where(USERS.c.user_id == _user)


# -- rows --------------------------------------------------------------------------------------------------------------


def beginning_with(text: str) -> sa.Select[str]:
    """Return a query of digests that begin so, case included. Without a fitting index it reads the whole table."""
    like = _s.digest.startswith(text, autoescape=True)  # whose case does not count in SQLite
    return sa.select(_s.digest).where(like, sa.func.substr(_s.digest, 1, len(text)) == text).limit(_most)


def end(
    connection: Connection, digests: Iterable[str], kill: sa.Update = KILL_THESE, **values: Any
) -> list[EndedSession]:
    """End sessions for ever, in a transaction of their caller's. Return those that have a row.

    :param kill: the statement, with what `values` it needs besides.
    """
    rows = connection.execute(LOCK_THESE, {"digests": sorted(digests)}).all()
    if rows:
        connection.execute(kill, {"digests": [row.digest for row in rows], **values})
    return [EndedSession(row.digest, row.version + bool(row.live), bool(row.lived), row.successor) for row in rows]
