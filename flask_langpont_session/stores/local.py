"""This worker's memory: what it last saw of the sessions it serves. Bounded, and only as good as its age.

Everything kept here is encoded and immutable, so no two requests can share a value by reference.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from cachetools import Cache, LRUCache, TTLCache

from ..policy.leases import LONGEST_UNCONFIRMED_MS, TOMBSTONE_MS
from ..policy.values import AuthRow, CategoryCopy, Fields, SharedCopy
from ..support.forks import renew_in_children
from .host.host_clock import since_start

DEAD = 2**63
"""The minimum version of a session that is dead: no version reaches it."""

_NO_VERSION = 0, 0.0

_MOST_USERS = 1000
"""The most users that were logged out everywhere of whom a worker keeps the time and the epoch."""

_NOT_SIGNED_OUT = -1, 0, -1

SESSION_BYTES = 4096
"""Names and values that a session may have in its categories, and still counts as one of those that are kept."""

_NO_FIELDS: Fields = MappingProxyType({})

K = TypeVar("K")
V = TypeVar("V")

_RENEWED_AFTER = 0.1
"""The part of its life after which an entry that is put again unchanged begins its life anew.

Nearly every put finds what is kept already, and putting it is the dear part of a cheap call. So a copy may go up to
this much before its time, and never after it.
"""

_SAME_MOMENT = 1.0
"""Seconds. A confirmation that Redis tells of is an estimate over two clocks and a network: nothing is gained by a copy
this much younger, and nothing is lost, because what is kept instead counts as older than it is."""


@dataclass(frozen=True, slots=True)
class LocalAuth:
    """What the database said of a session, and when.

    :param row: the row; its `read_at` goes with `confirmed_at`.
    :param confirmed_at: seconds by the monotonic clock, taken before the database was asked.
    :param change: the number of the compare-and-set by which this worker made it so; None: it has only read it.
    """

    row: AuthRow
    confirmed_at: float
    change: int | None = None


@dataclass(slots=True)
class _Held:
    """A category that is kept.

    :param kept_at: when it was confirmed last, by an answer of the primary or by a write, monotonic seconds.
    :param kind: of the session; empty: not known, or nothing was there.
    :param began: see :class:`SharedCopy`.
    :param size: bytes of names and values.
    :param missed_at: when the primary did not have it any more, monotonic seconds.
    """

    copy: CategoryCopy
    kept_at: float
    kind: str
    began: int
    size: int
    missed_at: float = math.inf

    def shared(self, digest: str, category: str, now: float) -> SharedCopy:
        """Return it for other workers and servers, with its age."""
        return SharedCopy(digest, category, self.copy, now - self.kept_at, self.kind, self.began)


class _MinVersions(TTLCache[str, tuple[int, float], float]):
    """Digest → highest version seen, and when (monotonic seconds). Bounded: what must go before its time leaves a mark.

    :ivar evicted_at: monotonic seconds; copies confirmed before it may be older than a minimum version that is
        forgotten.
    :ivar any_died: whether any session was seen to end: in nearly every worker none was, or another one is asked for.
    """

    evicted_at = float("-inf")
    any_died = False

    def of(self, digest: str) -> int:
        """0: none is known."""
        return self.get(digest, _NO_VERSION)[0]

    def raise_to(self, digest: str, version: int) -> bool:
        """There is a row of this version. Whether that is news."""
        is_news = self.of(digest) < version
        if is_news:
            self[digest] = version, self.timer()
        return is_news

    def kill(self, digest: str) -> None:
        """The session is dead."""
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
        """Sessions created until then, or in an earlier epoch, are over. Whether that is news."""
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
        """The user is in the epoch of this row again. What began before the other one stays over."""
        until_ms, _, since_ms = self._of(row)
        with self._lock:
            self._users[row.user_id or ""] = max(until_ms, since_ms), row.user_epoch, since_ms


class DatabaseClock:
    """The clock of the database, by what it said last and the time since the host's start, which cannot be set.

    :param clock: monotonic seconds; `since`: seconds since the host's start.
    """

    def __init__(self, clock: Callable[[], float], since: Callable[[], float] = since_start) -> None:
        self._clock = clock
        self._since = since
        self._ahead_ms: float | None = None

    def note(self, read_at: int, asked_at: float) -> None:
        """The database said how late it was.

        :param read_at: milliseconds since 1970.
        :param asked_at: monotonic seconds, before it was asked.
        """
        self._ahead_ms = read_at - (self._since() - self._clock() + asked_at) * 1000

    def latest_ms(self) -> int:
        """Return how late it is at the latest, milliseconds since 1970; 0: it has not said so."""
        return 0 if self._ahead_ms is None else math.ceil(self._ahead_ms + self._since() * 1000)


class _Bounds(NamedTuple):
    """Of what is kept.

    :param ttl: seconds a copy is kept.
    :param longest: seconds a minimum version is kept: as long as a copy can live plus as long as one in Redis is
        believed. Nothing that could revive the session, or what it had before, is left by then.
    """

    size: int
    ttl: float
    longest: float


class KeptSessions(LRUCache[str, dict[str, _Held]]):
    """The categories of sessions by digest and name, bounded by how many sessions there are and by what they hold.

    :param most: sessions.
    :param ttl: seconds for which a category is known since it was confirmed.
    :param clock: monotonic seconds.
    """

    def __init__(self, most: int, ttl: float, clock: Callable[[], float]) -> None:
        super().__init__(most, self._counts_as)
        self._ttl = ttl
        self._clock = clock

    def _counts_as(self, session: Mapping[str, _Held]) -> int:
        """Return for how many sessions one counts."""
        counted = 1 + sum(held.size for held in session.values()) // SESSION_BYTES
        return min(counted, int(self.maxsize))  # one that is larger than all the room has it for itself

    def find(self, digest: str, category: str) -> _Held | None:
        """Return what is known of a category; None: nothing, or it was not confirmed for too long."""
        session = _find(self, digest)
        held = session.get(category) if session else None
        return held if held and self._clock() - held.kept_at < self._ttl else None

    def put(self, digest: str, category: str, held: _Held) -> None:
        """Keep one category."""
        # Taken out first, so that it counts as what it is now: up to cachetools 7.1, a session that grows would take
        # the room of what it was as well.
        session = self.pop(digest, None) or {}
        session[category] = held
        self[digest] = session

    def all(self) -> list[tuple[str, str, _Held]]:
        """Return the digest, category and copy of all that is kept. That is no use of it."""
        sessions = [(digest, Cache.__getitem__(self, digest)) for digest in self]
        return [(digest, category, held) for digest, session in sessions for category, held in session.items()]

    def live(self) -> list[SharedCopy]:
        """Return all that is known, what was confirmed last first."""
        now = self._clock()
        live = [found for found in self.all() if now - found[2].kept_at < self._ttl]
        live.sort(key=lambda found: -found[2].kept_at)
        return [held.shared(digest, category, now) for digest, category, held in live]


class LocalCopies:
    """The copies of one worker process. Safe to use from several threads. A forked child begins with nothing.

    A category is known until its time is over since it was confirmed last. The life of an auth copy runs from its last
    put, or from up to a tenth of a life before it. Neither is prolonged by reading. When there are too many, the
    session that was not used for longest goes first. Tombstones are kept apart: ten times as many, and for longer than
    any copy.

    :param size: of how many sessions auth copies are kept, and of how many sessions the other categories; one with more
        than :data:`SESSION_BYTES` in these counts as several.
    :param ttl: seconds a copy is kept.
    :param tombstone_ms: for how long after that the end of a session is remembered.
    :param on_missing: called with a digest when the primary does not have what it had: it may have lost data. Must not
        raise or block.
    :param clock: monotonic seconds; `now_ms`: milliseconds since 1970.
    :ivar database_clock: how late it is by the database's clock.
    :ivar signed_out: users that were logged out everywhere.
    :ivar news: grows when another session is known to be dead, or of a higher version, or another user to be logged out
        everywhere: what follows from all that holds while this is the same.
    """

    def __init__(
        self,
        size: int,
        ttl: float,
        *,
        tombstone_ms: int = TOMBSTONE_MS,
        on_missing: Callable[[str], None] = lambda digest: None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.database_clock = DatabaseClock(clock)
        self._on_missing = on_missing
        self._now_ms = now_ms
        self._bounds = _Bounds(size, ttl, ttl + max(tombstone_ms, LONGEST_UNCONFIRMED_MS) / 1000)
        self._clock = clock
        self._begin()
        # Another thread may hold the lock, with a map half changed, at the moment of a fork.
        renew_in_children(self, LocalCopies._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self.news = 0
        size, ttl, longest = self._bounds
        # With the moment when it was put, or its life was renewed last: the map does not tell the age of an entry.
        self._auth: TTLCache[str, tuple[LocalAuth, float], float] = TTLCache(size, ttl, self._clock)
        self._copies = KeptSessions(size, ttl, self._clock)
        # What the primary does not have any more, as it seems: until it is known whether it lost data.
        self._missed = KeptSessions(size, ttl, self._clock)
        self._min_versions = _MinVersions(10 * size, longest, self._clock)
        self.signed_out = SignedOutUsers(self._lock, self._now_ms)

    def auth(self, digest: str) -> LocalAuth | None:
        """What the database last said of this session; None: nothing known here, or dead."""
        with self._lock:
            held = _find(self._auth, digest)
        return held[0] if held else None

    def put_auth(
        self, row: AuthRow, confirmed_at: float, confirmed_ms: int | None = None, *, change: int | None = None
    ) -> None:
        """Keep what the database said, unless something newer is kept or the session is dead.

        Newer is the higher version; of the same version, what was confirmed later. The version becomes the minimum
        version.

        :param confirmed_at: seconds by the monotonic clock, taken before the database was asked.
        :param confirmed_ms: the same moment as milliseconds since 1970, as Redis tells it; None: when the row was read,
            by the database's own word.
        :param change: the number of this worker's change that made it so.
        """
        with self._lock:
            if confirmed_ms is None:
                self.database_clock.note(row.read_at, confirmed_at)
            if row.version > 1:
                self.raise_min_version(row.digest, row.version)
            held = _find(self._auth, row.digest)
            if held is None:
                if not self.is_dead(row.digest):
                    self._keep_auth(row, _frozen(row.payload), confirmed_at, confirmed_ms, change)
                return
            known, kept_at = held  # what is kept is not dead: kill() takes it away
            if (known.row.version, known.confirmed_at) > (row.version, confirmed_at):
                return
            if not _says_the_same(known.row, row):
                self._keep_auth(row, _frozen(row.payload), confirmed_at, confirmed_ms, change)
            elif confirmed_ms is None or confirmed_at - known.confirmed_at >= _SAME_MOMENT:
                self._keep_auth(row, known.row.payload, confirmed_at, confirmed_ms, change)
            elif _is_due(kept_at, self._clock(), self._bounds.ttl):
                self._auth[row.digest] = known, self._clock()

    def min_version(self, digest: str) -> int:
        """The highest version of a session's row that this worker has seen; DEAD for one that has ended."""
        if digest not in self._min_versions:  # nearly every session has been what it is since its sign-in
            return 0
        with self._lock:
            return self._min_versions.of(digest)

    @property
    def evicted_at(self) -> float:
        """Monotonic seconds. A copy that was confirmed before may be older than a minimum version that is forgotten."""
        return self._min_versions.evicted_at

    def raise_min_version(self, digest: str, version: int) -> None:
        """There is a row of this version: what is kept of an older one is out of date."""
        with self._lock:
            if self._min_versions.raise_to(digest, version):
                self.news += 1

    def category(self, digest: str, category: str, *, before_loss: bool = False) -> CategoryCopy | None:
        """The category as this worker last saw it; None: nothing known here, or the session is dead.

        :param before_loss: as it was before the primary did not have it any more, if that may have lost it.
        """
        with self._lock:
            held = self._missed.find(digest, category) if before_loss else None
            held = held or self._copies.find(digest, category)
        return held.copy if held else None

    def shared(self, digest: str, category: str) -> SharedCopy | None:
        """The same, to be shared with the other workers of the host."""
        with self._lock:
            held = self._copies.find(digest, category)
            return held.shared(digest, category, held.kept_at) if held else None

    def put_category(
        self,
        digest: str,
        category: str,
        copy: CategoryCopy,
        *,
        kind: str = "",
        began: int | None = None,
        as_of: float = -math.inf,
    ) -> bool:
        """Keep a category that was read as a whole, unless a higher version is kept or it is dead.

        :param kind: of the session; empty: it is not known.
        :param began: if it began from nothing, as of when at the latest; 0: it did not. None: as what is kept; nothing
            is: perhaps not before this version.
        :param as_of: of what the primary said: when it was asked at the earliest, monotonic seconds. Its version counts
            even if it is lower than what was kept before that, because a category that was cleared begins anew.
        :return: whether this is news here.
        """
        with self._lock:
            held = self._copies.find(digest, category)
            if held is None:
                if not self.is_dead(digest):
                    self._keep(digest, category, copy, kind, copy.version if began is None else began)
                return True
            known = held.copy  # what is kept is not dead: kill() takes it away
            if known.version > copy.version and held.kept_at > as_of:
                return False
            is_news = known.version != copy.version or known.fields != copy.fields
            if is_news or (kind and not held.kind):
                self._keep(digest, category, copy, kind or held.kind, held.began if began is None else began)
            else:
                held.kept_at = self._clock()
        return is_news

    def put_absent(self, digest: str, category: str, version: int, as_of: float = math.inf) -> bool:
        """The primary said that nothing is there. That is kept, too: it is not the same as not to know.

        :param version: the moment of that, as a version.
        :param as_of: when it was asked at the earliest, monotonic seconds: what was kept since then is later.
        :return: whether something was there before, as far as is known here, and it is not perhaps lost.
        """
        with self._lock:
            held = self._copies.find(digest, category)
            if held is not None and not held.copy.fields:
                held.kept_at = self._clock()  # it is so still
                return False
            if self.is_dead(digest) or (held is not None and held.kept_at > as_of):
                return False
            is_missing = held is not None and bool(held.kind)
            if held is not None and is_missing:
                held.missed_at = self._clock()
                self._missed.put(digest, category, held)
            self._keep(digest, category, CategoryCopy(version, _NO_FIELDS), "", version)
        if is_missing:
            self._on_missing(digest)
        return held is not None and not is_missing

    def patch_category(
        self, digest: str, category: str, apply: Callable[[Fields], Fields], before: int, after: int, kind: str = ""
    ) -> None:
        """Apply a write to the copy that is kept; without one, nothing is stored.

        The copy takes the new version only if it was the one before the write. Otherwise other writes came between that
        this worker has not seen; the copy keeps its version, so that another worker's complete copy counts as
        newer. A copy that is as new as the write already contains it.

        :param apply: what the write does to the fields.
        :param before: the version that the write found; `after`: the one that it made.
        """
        with self._lock:
            held = self._copies.find(digest, category)
            if held is not None and (known := held.copy).version < after:
                version = after if known.version == before else known.version
                copy = known._replace(version=version, fields=apply(known.fields))
                self._keep(digest, category, copy, kind or held.kind, held.began)

    def kill(self, digest: str) -> None:
        """The session is dead: forget it, and let nothing of it be kept again."""
        with self._lock:
            self._min_versions.kill(digest)
            self.forget(digest)
            self.news += 1

    def is_dead(self, digest: str) -> bool:
        """Whether this worker knows that the session is dead. It stays so as long as the bounds allow."""
        if not self._min_versions.any_died:
            return False
        with self._lock:
            # The question costs less than a get() that finds nothing; the get() keeps what is asked for for longest.
            return digest in self._min_versions and self._min_versions.of(digest) == DEAD

    def sign_out_user(self, user_id: str, until_ms: int, epoch: int = 0) -> list[str]:
        """The user was logged out everywhere, and not every store knows it yet.

        :param until_ms: sessions created until then are dead, milliseconds since 1970.
        :param epoch: those of an earlier epoch are dead too.
        :return: the digests of those known here; they are dead now.
        """
        with self._lock:
            if not self.signed_out.note(user_id, until_ms, epoch):
                return []
            rows = [held[0].row for digest in list(self._auth) if (held := _find(self._auth, digest))]
            dead = [row.digest for row in rows if row.user_id == user_id and self.is_signed_out(row)]
            for digest in dead:
                self.kill(digest)
            self.news += 1
        return dead

    def is_signed_out(self, row: AuthRow) -> bool:
        """Whether a row belongs to a user that was logged out everywhere after the session began."""
        return self.signed_out.are_over(row)

    def live_categories(self) -> list[SharedCopy]:
        """Return every copy that is not too old, the one that was confirmed last first: to be shared when an outage
        begins."""
        with self._lock:
            return self._copies.live()

    def held(self) -> list[SharedCopy]:
        """Return every copy of what was really there, or was wiped, as :meth:`live_categories` does: to be given back
        to a primary that lost it."""
        with self._lock:
            live = [*self._missed.live(), *self._copies.live()]
        return [copy for copy in live if copy.kind]

    def nothing_was_lost(self, before: float, concerns: Callable[[str], bool]) -> None:
        """What the primary did not have any more was really over.

        :param before: monotonic seconds; what was missed later may be lost all the same.
        :param concerns: whether it is the one that has a session, by its digest.
        """
        if self._missed:
            with self._lock:
                for digest, category, held in self._missed.all():
                    if held.missed_at < before and concerns(digest):
                        self._missed[digest].pop(category, None)

    def forget(self, digest: str) -> None:
        """Drop the copies of a session; if it is dead, it stays dead."""
        with self._lock:
            self._auth.pop(digest, None)
            self._copies.pop(digest, None)
            self._missed.pop(digest, None)

    def clear(self) -> None:
        """Drop all copies. The dead stay dead."""
        with self._lock:
            self._auth.clear()
            self._copies.clear()
            self._missed.clear()

    def forget_category(self, digest: str, category: str) -> None:
        """The category was cleared, or is not there any more."""
        with self._lock:
            if session := _find(self._copies, digest):
                session.pop(category, None)

    def _keep(self, digest: str, category: str, copy: CategoryCopy, kind: str, began: int) -> None:
        fields = _frozen(copy.fields) if copy.fields else _NO_FIELDS
        size = sum(map(len, fields)) + sum(map(len, fields.values()))
        kept = _Held(copy._replace(fields=fields), self._clock(), kind, began, size)
        self._copies.put(digest, category, kept)

    def _keep_auth(
        self, row: AuthRow, payload: Fields, confirmed_at: float, confirmed_ms: int | None, change: int | None
    ) -> None:
        read_at = row.read_at if confirmed_ms is None else confirmed_ms
        self._auth[row.digest] = LocalAuth(row.read_as(payload, read_at), confirmed_at, change), self._clock()


def _is_due(kept_at: float, now: float, ttl: float) -> bool:
    """Whether the life of an entry that was put at `kept_at` is to be renewed."""
    return now >= kept_at + ttl * _RENEWED_AFTER


def _frozen(fields: Fields) -> Fields:
    return MappingProxyType(dict(fields))


def _says_the_same(known: AuthRow, row: AuthRow) -> bool:
    """Whether two rows differ at most in when they were read. What is not asked here changes with the version only."""
    return (
        known.version == row.version and known.idle_expires_at == row.idle_expires_at and known.payload == row.payload
    )


def _find(entries: Cache[K, V], key: K) -> V | None:
    """What is kept and not too old. One look, where the map's own get() takes two and reads the clock for both."""
    try:
        return entries[key]
    except KeyError:
        return None
