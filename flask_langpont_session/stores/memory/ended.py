"""Sessions and users that this worker knows to be over, for longer than any copy could revive them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from cachetools import LRUCache, TTLCache

from ...policy.leases import LONGEST_UNCONFIRMED_MS, TOMBSTONE_MS
from ...policy.rows import AuthRow
from ...support.forks import renew_in_children
from ..host.host_clock import since_start

DEAD = 2**63
"""The minimum version of a session that is dead: no version reaches it."""

_NO_VERSION = 0, 0.0

_PER_SESSION = 640
"""For so many bytes of memory one session is remembered: ten times as many as there is room for sessions of 6 KB."""

_MOST_USERS = 1000
"""The most users that were logged out everywhere of whom a worker keeps the time and the epoch."""

_NOT_SIGNED_OUT = -1, 0, -1


class _MinVersions(TTLCache[str, tuple[int, float], float]):
    """Digest → highest version seen, and when (monotonic seconds). Bounded: what must go before its time leaves a mark.

    :ivar evicted_at: monotonic seconds; copies confirmed before it may be older than a minimum version that is
        forgotten.
    :ivar any_died: whether any session was seen to end: in nearly every worker none was, or another one is asked for.
    """

    evicted_at = float("-inf")
    any_died = False

    def of(self, digest: str) -> int:
        """Return the highest version of a session that was seen; 0: none is known."""
        return self.get(digest, _NO_VERSION)[0]

    def raise_to(self, digest: str, version: int) -> bool:
        """Note that there is a row of this version. Return whether that is news."""
        is_news = self.of(digest) < version
        if is_news:
            self[digest] = version, self.timer()
        return is_news

    def kill(self, digest: str) -> None:
        """Note that a session is dead."""
        self.any_died = True
        self[digest] = DEAD, self.timer()

    def popitem(self) -> tuple[str, tuple[int, float]]:
        digest, (version, seen_at) = super().popitem()
        self.evicted_at = max(self.evicted_at, seen_at)
        return digest, (version, seen_at)


class SignedOutUsers:
    """Users that were logged out everywhere: until when, the epoch that ended all sessions of an earlier one, and when
    this worker was told. Bounded.

    :param now_ms: milliseconds since 1970.
    """

    def __init__(self, lock: threading.RLock, now_ms: Callable[[], int]) -> None:
        self._lock = lock
        self._now_ms = now_ms
        self._users: LRUCache[str, tuple[int, int, int]] = LRUCache(_MOST_USERS)

    def _of(self, row: AuthRow) -> tuple[int, int, int]:
        with self._lock:
            return self._users.get(row.user_id or "", _NOT_SIGNED_OUT)

    def note(self, user_id: str, until_ms: int, epoch: int) -> bool:
        """Note that sessions created until then, or in an earlier epoch, are over. Return whether that is news."""
        with self._lock:
            known = self._users.get(user_id, _NOT_SIGNED_OUT)
            ended = max(until_ms, known[0]), max(epoch, known[1])
            if is_news := ended != known[:2]:
                self._users[user_id] = *ended, self._now_ms()
        return is_news

    def are_over(self, row: AuthRow) -> bool:
        """Return whether a session began before its user was logged out."""
        if not self._users or row.user_id is None:
            return False
        until_ms, epoch, _ = self._of(row)
        return row.created_at <= until_ms or row.user_epoch < epoch

    def have_lost(self, row: AuthRow) -> bool:
        """Return whether a session is over for its epoch alone, and began after this worker was told of a later one: a
        database that says so has lost that."""
        until_ms, epoch, since_ms = self._of(row)
        return row.user_epoch < epoch and row.created_at > max(until_ms, since_ms)

    def go_back(self, row: AuthRow) -> None:
        """Note that the user is in the epoch of this row again. What began before the other one stays over."""
        until_ms, _, since_ms = self._of(row)
        with self._lock:
            self._users[row.user_id or ""] = max(until_ms, since_ms), row.user_epoch, since_ms


class DatabaseClock:
    """The clock of the database, by what it said and the time since the host's start, which cannot be set.

    :param clock: monotonic seconds; `since`: seconds since the host's start.
    """

    def __init__(self, clock: Callable[[], float], since: Callable[[], float] = since_start) -> None:
        self._clock = clock
        self._since = since
        self._ahead_ms: float | None = None

    def note(self, read_at: int, asked_at: float) -> None:
        """Note what time the database said it was. The quickest answer counts, until an answer contradicts it: the
        database's clock was set, or goes at another rate.

        :param read_at: milliseconds since 1970.
        :param asked_at: monotonic seconds, before it was asked.
        """
        now = self._since()
        at_least = read_at - now * 1000
        at_most = at_least + (self._clock() - asked_at) * 1000
        if self._ahead_ms is None or not at_least <= self._ahead_ms <= at_most:
            self._ahead_ms = at_most

    def latest_ms(self) -> int:
        """Return the database's clock at the latest, milliseconds since 1970; 0: it has not told it."""
        return 0 if self._ahead_ms is None else math.ceil(self._ahead_ms + self._since() * 1000)


class Ended:
    """Sessions and users that are over, and versions that must not be undone. Usable from any thread. A forked child
    begins with nothing.

    :param memory_bytes: of the worker's memory.
    :param ttl: seconds for which a copy of a session may be shown.
    :param tombstone_ms: for how long after that the end of a session is remembered.
    :param clock: monotonic seconds; `now_ms`: milliseconds since 1970.
    :ivar database_clock: how late it is by the database's clock.
    :ivar signed_out: users that were logged out everywhere.
    :ivar news: grows when another session is known to be dead, or of a higher version, or another user to be logged out
        everywhere: what follows from all that holds while this is the same.
    """

    def __init__(
        self,
        memory_bytes: int = 67_108_864,
        ttl: float = 1800,
        *,
        tombstone_ms: int = TOMBSTONE_MS,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.database_clock = DatabaseClock(clock)
        self._now_ms = now_ms
        self._most = max(10, memory_bytes // _PER_SESSION)
        # As long as a copy can live plus as long as one in Redis is believed: nothing that could revive a session, or
        # what it had before, is left by then.
        self._longest = ttl + max(tombstone_ms, LONGEST_UNCONFIRMED_MS) / 1000
        self._clock = clock
        self._begin()
        # Another thread may hold the lock, with a map half changed, at the moment of a fork.
        renew_in_children(self, Ended._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self.news = 0
        self._min_versions = _MinVersions(self._most, self._longest, self._clock)
        self.signed_out = SignedOutUsers(self._lock, self._now_ms)

    def min_version(self, digest: str) -> int:
        """Return the highest version of a session's row that this worker has seen; DEAD for one that has ended."""
        if digest not in self._min_versions:  # nearly every session has been what it is since its sign-in
            return 0
        with self._lock:
            return self._min_versions.of(digest)

    @property
    def evicted_at(self) -> float:
        """Return since when confirmed copies are as new as all forgotten minimum versions, monotonic seconds."""
        return self._min_versions.evicted_at

    def raise_min_version(self, digest: str, version: int) -> None:
        """Note that there is a row of this version: what is kept of an older one is out of date."""
        with self._lock:
            if self._min_versions.raise_to(digest, version):
                self.news += 1

    def kill(self, digest: str) -> None:
        """Note that a session is dead."""
        with self._lock:
            self._min_versions.kill(digest)
            self.news += 1

    def is_dead(self, digest: str) -> bool:
        """Return whether this worker knows that the session is dead. That is known for as long as the bounds allow."""
        if not self._min_versions.any_died:
            return False
        with self._lock:
            # The question costs less than a get() that finds nothing; the get() keeps what is asked for for longest.
            return digest in self._min_versions and self._min_versions.of(digest) == DEAD

    def note_user(self, user_id: str, until_ms: int, epoch: int) -> bool:
        """Note what :meth:`.Memory.sign_out_user` is told, and return whether that is news."""
        with self._lock:
            is_news = self.signed_out.note(user_id, until_ms, epoch)
            self.news += is_news
        return is_news

    def is_signed_out(self, row: AuthRow) -> bool:
        """Return whether a row belongs to a user that was logged out everywhere after the session began."""
        return self.signed_out.are_over(row)
