"""Sign-ins of users that may have so many sessions at a time.

The number is decided in the transaction that makes the row, with the user's row locked: however many sign-ins of one
user there are at once, on however many hosts, no more of them are valid afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from ...policy.errors import ErrorClass, StoreError
from ...policy.rows import AuthRow, Created, EndedSession, Limit
from . import tables as sql
from .cursor import run
from .engines import Connections, inserted
from .errors import NAME

_TRIES = 3
"""The second one finds the user's row; only if an operator erases the user at the same moment, the third does."""


class _NoRoom(Exception):  # no error: an answer that takes the transaction back
    pass


class _NewUser(Exception):  # the same: there is no row to lock yet
    pass


def inserted_within(
    connections: Connections,
    user_id: str,
    limit: Limit,
    insert: Callable[[Connection], Created],
    otherwise: Callable[[Connection], Created],
) -> Created | None:
    """Insert a row as :func:`.inserted` does, and end what is too much then. None: there is no room for it."""

    def insert_and_make_room(connection: Connection) -> Created:
        # Other sign-ins of the user wait from here on until this transaction has ended.
        if not run(connection, sql.LOCK_USER, {"user": user_id}).changed:
            raise _NewUser
        created = insert(connection)
        return created._replace(ended=[*created.ended, *_make_room(connection, created.row, limit)])

    for _ in range(_TRIES):
        try:
            return inserted(connections, insert_and_make_room, otherwise)
        except _NoRoom:
            return None
        except _NewUser:
            # In a transaction of its own. One that goes on after it would make a deadlock with others that insert the
            # same row: each of them holds a shared lock of InnoDB, and waits for all others' to get an exclusive one.
            with suppress(IntegrityError), connections.writing() as connection:
                connection.execute(sql.INSERT_USER, {"user": user_id, "first": None})
    raise StoreError(NAME, ErrorClass.BUSY, "UserErased")


def _make_room(connection: Connection, row: AuthRow, limit: Limit) -> Sequence[EndedSession]:
    """End the sessions that are too many beside a new one, and return them.

    :raises _NoRoom: there is no room, and nothing is to be ended.
    """
    found = connection.execute(sql.SELECT_VALID, {"user": row.user_id})
    others = [EndedSession(each.digest, each.version, lived=True) for each in found if each.digest != row.digest]
    excess = others[: max(0, len(others) + 1 - limit.most)]
    if excess and not limit.ends_oldest:
        raise _NoRoom
    if excess:
        connection.execute(sql.DISPLACE, {"digests": [each.digest for each in excess], "cause": sql.LIMIT})
    return excess
