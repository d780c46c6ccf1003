"""Sign-ins of users that may have so many sessions at a time.

The number is decided in the transaction that makes the row, with the user's row locked: however many sign-ins of one
user there are at once, on however many hosts, no more of them are valid afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from ...policy.values import NO_DEVICE, Created, Device, Ended, ErrorClass, Fields, Limit, StoreError
from . import tables as sql
from .calls import Calls
from .errors import NAME
from .rows import Rows

_TRIES = 3
"""The second one finds the user's row; only if an operator erases the user at the same moment, the third does."""


class _NoRoom(Exception):  # no error: an answer that takes the transaction back
    pass


class _NewUser(Exception):  # the same: there is no row to lock yet
    pass


class LimitedSignIns:
    """Makes rows as :meth:`.Database.create` does, where there is room for them.

    :param calls: run it.
    :param rows: read and write them.
    """

    def __init__(self, calls: Calls, rows: Rows) -> None:
        self._calls = calls
        self._rows = rows

    def create(
        self,
        digest: str,
        *,
        limit: Limit,
        user_id: str,
        payload: Fields,
        idle_ms: int,
        absolute_ms: int,
        kill: str | None = None,
        device: Device = NO_DEVICE,
        timeout: float | None = None,
    ) -> Created | None:
        """A new row, version 1. Repeating it after an unknown outcome returns the row that is there.

        :param limit: what the user may have, the new session included.
        :param kill: digest of a session that ends in the same transaction, and does not count.
        :return: None: the user has as many sessions as the limit allows, and none is to be ended for this one.
        :raises StoreError: of class D when there is another row under this digest, or the same one has changed.
        """
        values = {
            "key": digest,
            "user": user_id,
            "fields": self._rows.text(digest, payload, 1),
            "idle_ms": min(idle_ms, absolute_ms),
            "absolute_ms": absolute_ms,
            **device._asdict(),
        }

        def create(connection: Connection) -> Created | None:
            _lock(connection, user_id)
            before = self._rows.one(connection, digest)
            if before is not None:
                if (before.version, before.user_id, before.payload) != (1, user_id, payload):
                    raise StoreError(NAME, ErrorClass.DATA, "AnotherRow")
                return Created(before)
            replaced = [] if kill is None else sql.end(connection, [kill])
            ended = [*(each.ended for each in replaced), *_make_room(connection, user_id, limit)]
            row = self._rows.inserted(connection, values)
            return None if row is None else Created(row, ended)

        return self._calls.in_request(lambda: self._with_user(user_id, create), timeout)

    def take_displaced(self, digest: str, timeout: float | None = None) -> bool:
        """Whether a session has ended for a sign-in of its user. True is said once."""

        def work() -> bool:
            with self._calls.connections.writing() as connection:
                return bool(connection.execute(sql.TAKE_DISPLACED, {"key": digest}).rowcount)

        return self._calls.in_request(work, timeout)

    def was_displaced(self, digest: str, timeout: float | None = None) -> bool:
        """The same, however often it was said; but not of one that ended for a limit as soon as it had begun."""

        def work() -> bool:
            with self._calls.connections.reading() as connection:
                return connection.execute(sql.SELECT_DISPLACED, {"key": digest}).first() is not None

        return self._calls.in_request(work, timeout, writing=False)

    def _with_user(self, user_id: str, create: Callable[[Connection], Created | None]) -> Created | None:
        for _ in range(_TRIES):
            with suppress(_NewUser):
                return self._once(create)
            # In a transaction of its own. One that goes on after it would make a deadlock with others that insert the
            # same row: each of them holds a shared lock of InnoDB, and waits for all others' to get an exclusive one.
            with suppress(IntegrityError), self._calls.connections.writing() as connection:
                connection.execute(sql.KNOWN_USER, {"user": user_id})
        raise StoreError(NAME, ErrorClass.BUSY, "UserErased")

    def _once(self, create: Callable[[Connection], Created | None]) -> Created | None:
        # A sign-in that is refused ends nothing: the exception takes all of the transaction back.
        with suppress(_NoRoom), self._calls.connections.writing() as connection:
            return create(connection)
        return None


def _lock(connection: Connection, user_id: str) -> None:
    """Have other sign-ins of the user wait until this transaction has ended.

    :raises _NewUser: the user has no row.
    """
    if not connection.execute(sql.LOCK_USER, {"user": user_id}).rowcount:
        raise _NewUser


def _make_room(connection: Connection, user_id: str, limit: Limit) -> Sequence[Ended]:
    """The sessions that were ended for a new one.

    :raises _NoRoom: there is no room, and nothing is to be ended.
    """
    rows = connection.execute(sql.SELECT_VALID, {"user": user_id})
    valid = [Ended(row.digest, row.version, lived=True) for row in rows]
    excess = valid[: max(0, len(valid) + 1 - limit.most)]
    if excess and not limit.ends_oldest:
        raise _NoRoom
    if excess:
        connection.execute(sql.DISPLACE, {"digests": [each.digest for each in excess], "cause": sql.LIMIT})
    return excess
