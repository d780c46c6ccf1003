"""The lives of sessions and the leases on them: for how long something may be believed, kept and extended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .categories import KeyPatterns
from .changes import Fields
from .rows import AuthRow

LONGEST_UNCONFIRMED_MS = 3_600_000
"""The database down, Redis healthy: a confirmation older than this is not believed (one hour)."""

TOMBSTONE_MS = 3_600_000
"""The shortest life of a tombstone in Redis (one hour); see :attr:`LeaseTerms.tombstone_ms`."""

LONGEST_REQUEST_MS = 1_800_000
"""The longest time for which a request may go on with what it has read (half an hour): it may write so much later."""

CLOCK_TOLERANCE_MS = 1_000
"""The difference of clocks that is borne. A confirmation that lies further in the future is none."""

INCIDENT_MARGIN_MS = 60_000
"""No replica lags behind for longer, and no clock is off by more (one minute)."""

_SHORTEST_RENEWAL_MS = 1_000

EXTEND_AFTER = 0.25
"""The share of the idle time that passes before a use is noted, and the idle expiry moved: one write instead of one per
read."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """Terms on which a copy of auth data may be believed. All in milliseconds.

    :param verify_ms: with everything healthy, ask the database this often; 0: every time.
    :param grace_ms: with the database down, how old a confirmation may be after an incident.
    """

    verify_ms: int
    grace_ms: int

    @property
    def tombstone_ms(self) -> int:
        """Return how long Redis remembers the end of a session, and a worker beyond the life of its copies: as long as
        anything may believe, or write, what was true before."""
        return max(TOMBSTONE_MS, self.verify_ms + self.grace_ms + LONGEST_REQUEST_MS)

    @property
    def renewal_ms(self) -> int:
        """Return how often a tombstone that the database does not know of is written again in its life."""
        return max(_SHORTEST_RENEWAL_MS, min((self.verify_ms + self.grace_ms) // 2, self.tombstone_ms // 4))


@dataclass(frozen=True, slots=True)
class Life:
    """The life of a session, milliseconds.

    :param idle_ms: since its last use.
    :param absolute_ms: in all.
    :param is_permanent: whether it is that of ``session.permanent``, which a visitor's data has as well.
    :param is_use: whether reading the session is a use of it, which moves its idle expiry.
    :param privileges: say which sessions live shorter, and `shorter`: how long those live; None: all live alike.
    """

    idle_ms: int
    absolute_ms: int
    is_permanent: bool = field(default=False, kw_only=True)
    is_use: bool = field(default=True, kw_only=True)
    privileges: Privileges | None = field(default=None, kw_only=True)
    shorter: Life | None = field(default=None, kw_only=True)

    def of(self, payload: Fields) -> Life:
        """Return the life of a session with this auth data: a privileged one may be shorter."""
        if self.privileges is None or self.shorter is None or not self.privileges.are_in(payload):
            return self
        return self.shorter

    def left_of(self, row: AuthRow) -> int:
        """Return how long a record of this row may lie in Redis, milliseconds."""
        return max(1, min(self.of(row.payload).idle_ms, row.absolute_expires_at - row.read_at))

    def is_extension_due(self, row: AuthRow, now_ms: int) -> bool:
        """Return whether a quarter of the idle time has passed since a session's idle expiry was moved last."""
        left = row.idle_expires_at - now_ms
        return self.is_use and (
            left < self.of(row.payload).idle_ms * (1 - EXTEND_AFTER) and row.idle_expires_at < row.absolute_expires_at
        )

    def expiry_of_use(self, row: AuthRow) -> int:
        """Return the idle expiry of a session whose row was read just now: moved, if that is due."""
        if not self.is_extension_due(row, row.read_at):
            return row.idle_expires_at
        return min(row.read_at + self.of(row.payload).idle_ms, row.absolute_expires_at)


def life_of(row: AuthRow, seen_at: int | None, lives: Iterable[Life]) -> Life | None:
    """Return the life that a session has, by its expiries; None: it is none of these.

    Permanent sessions may live as long in all as others: the idle expiry and the note of the last use are set together.

    :param seen_at: when its use was noted last, milliseconds since 1970; None: that is not known.
    """
    whole, seen_at = row.absolute_expires_at - row.created_at, row.created_at if seen_at is None else seen_at
    fitting = [life for life in lives if life.of(row.payload).absolute_ms == whole]
    idle = row.idle_expires_at - seen_at
    return min(fitting, key=lambda life: abs(life.of(row.payload).idle_ms - idle), default=None)


def begins_to_live_shorter(life: Life, before: Fields, after: Fields) -> bool:
    """Return whether a change makes a session privileged and its life shorter for it. It takes another id then, because
    a later idle expiry of the present id may be anywhere.

    :param life: of sessions.
    :param before: its auth data; `after`: the same after a change.
    """
    return life.of(after) is not life and life.of(before) is life


class Privileges:
    """A session is privileged while a privilege key of it has one of some values.

    :param keys: the privilege keys.
    :param roles: those values, encoded.
    :param idle_ms: what a privileged session lives for at most since its last use; None: as long as any.
    :param absolute_ms: the same, in all.
    """

    def __init__(
        self, keys: KeyPatterns, roles: Iterable[bytes], idle_ms: int | None = None, absolute_ms: int | None = None
    ) -> None:
        self._keys = keys
        self._roles = frozenset(roles)
        self._idle_ms = idle_ms
        self._absolute_ms = absolute_ms

    def are_in(self, payload: Fields) -> bool:
        """Return whether a session with this auth data is privileged."""
        return any(value in self._roles and key in self._keys for key, value in payload.items())

    def life(self, idle_ms: int, absolute_ms: int, *, is_permanent: bool = False) -> Life:
        """Return the life of sessions, in which privileged ones live shorter if they are to.

        :param idle_ms: of one that is not privileged; `absolute_ms`: likewise.
        :param is_permanent: of those that are permanent.
        """
        if self._idle_ms is None and self._absolute_ms is None:
            return Life(idle_ms, absolute_ms, is_permanent=is_permanent)
        absolute = absolute_ms if self._absolute_ms is None else min(absolute_ms, self._absolute_ms)
        idle = min(absolute, idle_ms if self._idle_ms is None else min(idle_ms, self._idle_ms))
        return Life(idle_ms, absolute_ms, is_permanent=is_permanent, privileges=self, shorter=Life(idle, absolute))


def lease_ends(row: AuthRow, confirmed_ms: int, life: Life, terms: LeaseTerms) -> int:
    """Return from when on the database is to be asked about a row, milliseconds by the clock of its confirmation.

    One of these moments: VERIFY_INTERVAL has passed; one of its expiries has come; a quarter of the idle time has
    passed, and the database is asked to move the expiry on the way.
    """
    if terms.verify_ms <= 0:
        return 0
    ends = min(confirmed_ms + terms.verify_ms + 1, row.idle_expires_at, row.absolute_expires_at)
    if row.idle_expires_at < row.absolute_expires_at:
        ends = min(ends, int(row.idle_expires_at - life.of(row.payload).idle_ms * (1 - EXTEND_AFTER)) + 1)
    return ends
