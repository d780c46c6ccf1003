"""Rows of signed-in sessions as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from .changes import Fields


class RowState(StrEnum):
    """The state of a session of kind u in the database."""

    VALID = "valid"
    DEAD = "dead"
    IDLE_EXPIRED = "idle_expired"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class AuthRow:
    """One session of kind u as the database has it. All times are milliseconds since 1970 by the database's clock.

    :param digest: SHA-256 of the session id; the primary key.
    :param user_id: the user the session belongs to, as text; None for a session that has rights but no user.
    :param version: counts the changes of this row, from 1.
    :param live: False for ever once the session was revoked.
    :param payload: the auth category's session keys and their encoded values.
    :param user_epoch: the user's epoch when the session began.
    :param created_at: when the session began.
    :param idle_expires_at: when the session ends unless it is used.
    :param absolute_expires_at: when the session ends in any case.
    :param read_at: when the database read this row.
    :param was_idle: this reader has found it to be idle for too long, and has ended it: nothing else did so before.
    """

    digest: str
    user_id: str | None
    version: int
    live: bool
    payload: Fields
    user_epoch: int
    created_at: int
    idle_expires_at: int
    absolute_expires_at: int
    read_at: int
    was_idle: bool = field(default=False, compare=False)

    def read_as(self, payload: Fields, read_at: int) -> AuthRow:
        """Return the same row, read at another moment. Takes half as long as :func:`dataclasses.replace`, and nearly
        all reads of a store make one."""
        return AuthRow(
            self.digest,
            self.user_id,
            self.version,
            self.live,
            payload,
            self.user_epoch,
            self.created_at,
            self.idle_expires_at,
            self.absolute_expires_at,
            read_at,
        )

    @property
    def state(self) -> RowState:
        """Return the row's state. Dead counts before expired: a dead session stays dead whatever its times say."""
        if not self.live:
            return RowState.DEAD
        if self.read_at >= self.absolute_expires_at:
            return RowState.EXPIRED
        if self.read_at >= self.idle_expires_at:
            return RowState.IDLE_EXPIRED
        return RowState.VALID

    def ended_as_idle(self) -> AuthRow:
        """Return the row after its end for being idle."""
        return replace(self, live=False, version=self.version + 1, was_idle=True)

    def lives_on(self, margin_ms: int) -> bool:
        """Return whether a session that was ended lives nevertheless: it may be idle, but its absolute expiry is
        further away than two clocks differ."""
        return self.state in (RowState.VALID, RowState.IDLE_EXPIRED) and (
            self.read_at + margin_ms < self.absolute_expires_at
        )


class Limit(NamedTuple):
    """The most sessions that a user may have at a time.

    :param most: sessions, at least 1.
    :param ends_oldest: those that are too many end, the oldest first; else a sign-in is refused.
    """

    most: int
    ends_oldest: bool


class EndedSession(NamedTuple):
    """A session that the database has ended, or found to be over.

    :param version: of its row, from then on.
    :param lived: it was valid until then.
    :param successor: the digest under which it went on; None: under none.
    """

    digest: str
    version: int
    lived: bool
    successor: str | None = None


class Created(NamedTuple):
    """A session that began.

    :param ended: the sessions that ended in the same transaction.
    """

    row: AuthRow
    ended: Sequence[EndedSession] = ()


Position = tuple[int, str]
"""The place of a reader that goes through rows in the order of their last change: its time, and the digest."""


class ChangedRows(NamedTuple):
    """A part of the rows that changed.

    :param reached: where the next part begins; None: these are the last.
    """

    rows: list[AuthRow]
    reached: Position | None


class Found(NamedTuple):
    """The rows that the database has of many sessions.

    :param rows: digest → row, of those that have one.
    :param damaged: digests of those that have one which cannot be read: nothing follows from it.
    """

    rows: Mapping[str, AuthRow]
    damaged: Set[str]


class AuthEntry(NamedTuple):
    """The content of an auth hash: a tombstone, or a row with the moment the database confirmed it.

    :param row: None for a tombstone.
    :param confirmed_ms: the stamp, by the Redis clock.
    :param in_database: of a tombstone: the database had the revocation when it was left.
    :param is_readable: every value of the row can be decoded.
    """

    row: AuthRow | None
    confirmed_ms: int = 0
    in_database: bool = False
    is_readable: bool = True
