"""The effects of a read on the found row: the idle expiry of a session in use moves, and a session idle for too long
ends."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from ...policy.leases import Life
from ...policy.rows import AuthRow, RowState
from . import tables as sql
from .cursor import run
from .engines import Connections
from .rows import Rows

_ENDS_BY_IDLENESS = frozenset({RowState.VALID, RowState.IDLE_EXPIRED})
"""The states of a row whose idle expiry still decides something."""


def after_read(connections: Connections, rows: Rows, row: AuthRow, life: Life | None, idle_seen: int | None) -> AuthRow:
    """Return the row after the effects of a read on it.

    :param row: as read by a connection that is back in the pool: a call never holds two connections.
    :param life: of the session, to move its expiry; None: the expiry moves no further than Redis' expiry.
    :param idle_seen: Redis' idle expiry, milliseconds since 1970. 0: Redis has none. None: no answer.
    """
    stored, row = row.idle_expires_at, _by_later_expiry(row, idle_seen)
    if row.state not in _ENDS_BY_IDLENESS:
        return row
    # The read has succeeded. That a database which is locked, full or read-only cannot note it is no reason to take
    # the answer back: the next read tries again, and the probe finds out about the database.
    with suppress(SQLAlchemyError):
        if row.state is RowState.VALID:
            expires_at = row.idle_expires_at if life is None else life.expiry_of_use(row)
            if expires_at > stored:
                values = {"ms": expires_at, "seen": stored}
                moved = replace(row, idle_expires_at=expires_at)
                return _by_later_expiry(_noted(connections, rows, sql.EXTEND_IDLE, values, row, moved), idle_seen)
        elif idle_seen is not None:
            return _noted(connections, rows, sql.KILL_IDLE, {"seen": row.version}, row, row.ended_as_idle())
    return row


def note_use(connections: Connections, rows: Rows, row: AuthRow, seen_at: int, after_ms: int) -> None:
    """Note the use of a session, unless a use was noted a moment ago.

    The idle expiry does not move for a session that may be idle for its whole life, as permanent sessions by default:
    without this note, the user's list of devices would show only the time of the sign-in.

    :param row: as read by a connection that is back in the pool.
    :param seen_at: the time of the last note, milliseconds since 1970.
    """
    if row.state is RowState.VALID and row.read_at - seen_at >= after_ms:
        with suppress(SQLAlchemyError):  # as in :func:`after_read`
            _noted(connections, rows, sql.NOTE_USE, {"seen": seen_at}, row, row)


def _noted(
    connections: Connections,
    rows: Rows,
    statement: sa.Update,
    values: Mapping[str, Any],
    row: AuthRow,
    changed: AuthRow,
) -> AuthRow:
    """Return the row after a statement that makes it `changed`; the row as it is, if another transaction has locked or
    changed it."""
    with connections.writing_without_waiting() as connection:
        if not run(connection, sql.LOCK_FOR_READER, {"key": row.digest}).row:
            return row
        if run(connection, statement, {"key": row.digest, **values}).changed:
            return changed
        return rows.one(connection, row.digest) or row


def _by_later_expiry(row: AuthRow, idle_seen: int | None) -> AuthRow:
    """Return the row with the later of the database's and Redis' idle expiries."""
    later = min(idle_seen or 0, row.absolute_expires_at)
    if later <= row.idle_expires_at or row.state not in _ENDS_BY_IDLENESS:
        return row
    return replace(row, idle_expires_at=later)
