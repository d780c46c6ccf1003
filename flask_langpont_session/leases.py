"""May this copy of auth data be believed? Pure rules over versions and stamps; see docs/guarantees.md.

The database is the only arbiter. Every other copy is a lease on what it said: it carries the moment at which the
confirming read of the database *began*, so that a revocation during the read can never hide behind a newer stamp.
"""

from __future__ import annotations

from dataclasses import dataclass

from .stores.base import AuthRow

LONGEST_UNCONFIRMED_MS = 3_600_000
"""The database down, Redis healthy: a confirmation older than this is not believed (one hour)."""

DEGRADED_VERIFY_MS = 2_000
"""While Redis is unhealthy this worker asks the database at most every two seconds for one session."""

TOMBSTONE_MS = 3_600_000
"""How long a tombstone is kept in Redis: VERIFY + GRACE + the longest request, generously."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a copy may be believed. All in milliseconds.

    :param verify_ms: with everything healthy, ask the database this often.
    :param grace_ms: with the database down, how old a confirmation may be after an incident.
    """

    verify_ms: int
    grace_ms: int


@dataclass(frozen=True, slots=True)
class Life:
    """How long a session lives, milliseconds.

    :param idle_ms: since its last use.
    :param absolute_ms: in all.
    """

    idle_ms: int
    absolute_ms: int

    def left_of(self, row: AuthRow) -> int:
        """How long a record of this row may lie in Redis."""
        return max(1, min(self.idle_ms, row.absolute_expires_at - row.read_at))


def is_leased(*, confirmed_ms: int, now_ms: int, trust_since_ms: int, terms: LeaseTerms) -> bool:
    """Whether an entry in Redis may be used without asking the database.

    :param confirmed_ms: the entry's stamp, by the Redis clock.
    :param now_ms: the Redis clock now.
    :param trust_since_ms: since when this worker's view of that Redis is unbroken; a stamp from before says nothing,
        because that server may have lost or restored data.
    """
    return trust_since_ms < confirmed_ms and now_ms - confirmed_ms <= terms.verify_ms


def survives_database_outage(
    *, confirmed_ms: int, now_ms: int, trust_since_ms: int, privileged: bool, terms: LeaseTerms
) -> bool:
    """Whether an entry in a healthy Redis may be used although the database does not answer.

    An unbroken view carries it for an hour. After an incident, and for privileged roles always, only GRACE counts.
    """
    age = now_ms - confirmed_ms
    if privileged or confirmed_ms <= trust_since_ms:
        return age <= terms.grace_ms
    return age <= LONGEST_UNCONFIRMED_MS


def survives_everything_down(*, age_ms: float, privileged: bool, terms: LeaseTerms) -> bool:
    """Whether this worker's own copy may be used although neither Redis nor the database answers."""
    return not privileged and age_ms <= terms.grace_ms
