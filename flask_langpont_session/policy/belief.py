"""The table of the sources that are believed about a signed-in session, and when. Pure rules; see docs/guarantees.md.

The database is the only arbiter. Every other copy is a lease on what it said: it carries the moment at which the
confirming read of the database *began*, so that a revocation during the read can never hide behind a newer stamp.

The end of a session is believed first, from any source: a tombstone in any Redis, the journal, this worker, or the end
of all sessions of its user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .health import DATABASE, PRIMARY
from .leases import CLOCK_TOLERANCE_MS, LONGEST_UNCONFIRMED_MS, LeaseTerms, Life, Privileges, lease_ends
from .rows import AuthRow

DEGRADED_VERIFY_MS = 2_000
"""While Redis is unhealthy this worker asks the database at most every two seconds for one session."""

LOCAL = "local"
"""The memory of this worker, beside the stores."""


class Sighting(NamedTuple):
    """A copy of a session's auth row, and facts about the place of the copy. Times in milliseconds.

    :param confirmed_ms: when the read of the database that confirmed it began.
    :param now_ms: now, by the same clock.
    :param trust_since_ms: since when this worker's view of the place is unbroken; an earlier confirmation does not
        count, because the place may have lost or restored data since.
    :param min_version: the highest version of the row that this worker has seen anywhere.
    """

    row: AuthRow
    confirmed_ms: int
    now_ms: int
    trust_since_ms: int
    min_version: int = 0

    @property
    def age_ms(self) -> int:
        """Return the time since the confirmation."""
        return self.now_ms - self.confirmed_ms

    @property
    def is_unbroken(self) -> bool:
        """Return whether nothing can have been lost between the confirmation and now."""
        return self.confirmed_ms > self.trust_since_ms

    @property
    def is_current(self) -> bool:
        """Return whether this worker has seen no newer version. A right once seen as withdrawn is never shown again."""
        return self.row.version >= self.min_version

    def is_leased(self, life: Life, terms: LeaseTerms) -> bool:
        """Return whether the copy may be believed without a question to the database: no newer version is known,
        nothing can have been lost, the confirmation was not in the future, and the lease has not ended."""
        is_sound = self.is_current and self.is_unbroken and self.age_ms >= -CLOCK_TOLERANCE_MS
        return is_sound and self.now_ms < lease_ends(self.row, self.confirmed_ms, life, terms)

    def outlives(self, ms: int) -> bool:
        """Return whether the copy may be believed after the end of the lease: no newer version is known, no expiry has
        passed, and the confirmation is at most `ms` old, and not in the future, where it would never expire."""
        is_in_time = self.now_ms < min(self.row.idle_expires_at, self.row.absolute_expires_at)
        return self.is_current and is_in_time and -CLOCK_TOLERANCE_MS <= self.age_ms <= ms


class Situation(NamedTuple):
    """The state of the stores at the moment when a request decides about a session.

    :param primary: the primary takes reads and writes, so the end of a session could have been noted there.
    :param database: the database may be asked.
    :param is_fresh: only the database may say that the session is valid.
    :param is_busy: the database does not answer because it is too busy, and for no other reason.
    """

    life: Life
    terms: LeaseTerms
    privileges: Privileges
    primary: bool
    database: bool
    is_fresh: bool = False
    is_busy: bool = False

    def is_privileged(self, row: AuthRow) -> bool:
        """Return whether a privilege key has one of PRIVILEGED_ROLES as its value."""
        return self.privileges.are_in(row.payload)


def is_leased(seen: Sighting, at: Situation) -> bool:
    """Return whether a copy in Redis may be used without asking the database."""
    return seen.is_leased(at.life, at.terms)


def was_just_asked(seen: Sighting, at: Situation) -> bool:
    """Return whether this worker asked the database so recently that it need not ask again while Redis is unhealthy."""
    return seen.is_unbroken and seen.outlives(DEGRADED_VERIFY_MS)


def survives_database_outage(seen: Sighting, at: Situation) -> bool:
    """Return whether a copy in a healthy Redis may be used although the database does not answer.

    With an unbroken view the limit is an hour; after an incident, for a privileged role, and if the database is only
    busy, GRACE.
    """
    only_grace = at.is_busy or at.is_privileged(seen.row) or not seen.is_unbroken
    return seen.outlives(at.terms.grace_ms if only_grace else LONGEST_UNCONFIRMED_MS)


def survives_everything_down(seen: Sighting, at: Situation) -> bool:
    """Return whether this worker's own copy may be used without a word of Redis or the database."""
    return not at.is_privileged(seen.row) and seen.outlives(at.terms.grace_ms)


class Belief(NamedTuple):
    """A row of the table: a source, when it is asked, and when its word is believed.

    :param primary: asked only while :attr:`Situation.primary` has this value; None: always. `database`: likewise.
    :param is_believed: the rule; None: the source is always believed.
    """

    source: str
    primary: bool | None
    database: bool | None
    is_believed: Callable[[Sighting, Situation], bool] | None

    def is_asked(self, at: Situation) -> bool:
        """Return whether this source is asked."""
        return (
            self.primary in (None, at.primary)
            and self.database in (None, at.database)
            and (self.source == DATABASE or not at.is_fresh)
        )


BELIEFS = (
    #      source    primary  database  believed if
    Belief(PRIMARY,  True,    None,     is_leased),
    Belief(LOCAL,    False,   True,     was_just_asked),
    Belief(DATABASE, None,    True,     None),
    Belief(PRIMARY,  True,    False,    survives_database_outage),
    Belief(LOCAL,    None,    False,    survives_everything_down),
)  # fmt: skip
"""Sources in the order in which they are asked. If none is believed, the session is unverifiable."""
