"""This worker's memory: what it last saw of the sessions it serves. Bounded, and only as good as its age.

Everything kept here is encoded and immutable, so no two requests can share a value by reference.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from cachetools import TTLCache

from ..leases import TOMBSTONE_MS
from .base import AuthRow, CategoryCopy, Fields

K = TypeVar("K")
V = TypeVar("V")

_RENEWED_AFTER = 0.1
"""The part of its life after which an entry that is put again unchanged begins its life anew.

Nearly every put finds what is kept already, and putting it is the dear part of a cheap call. So a copy may go up to
this much before its time, and never after it.
"""

_SAME_MOMENT = 1.0
"""Seconds. A confirmation is an estimate over two clocks and a network: nothing is gained by a copy this much younger,
and nothing is lost, because what is kept instead counts as older than it is."""


@dataclass(frozen=True, slots=True)
class LocalAuth:
    """What the database said of a session, and when.

    :param row: the row.
    :param confirmed_at: seconds by the monotonic clock, taken before the database was asked.
    """

    row: AuthRow
    confirmed_at: float


class LocalCopies:
    """The copies of one worker process. Safe to use from several threads. A forked child begins with nothing.

    The life of an entry runs from its last put, or from up to a tenth of a life before it, and is not prolonged by
    reading; when there are too many, the one that was not used for longest goes first. Tombstones are kept apart: ten
    times as many, and for longer than any copy.

    :param size: how many auth copies, and as many category copies, are kept.
    :param ttl: seconds a copy is kept.
    :param clock: monotonic seconds.
    """

    def __init__(self, size: int, ttl: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._ttl = ttl
        self._clock = clock
        self._begin()
        _instances.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        # Each with the moment at which its life is to be renewed: the maps do not tell the age of an entry.
        self._auth: TTLCache[str, tuple[LocalAuth, float], float] = TTLCache(self._size, self._ttl, self._clock)
        self._copies: TTLCache[tuple[str, str], tuple[CategoryCopy, float], float] = TTLCache(
            self._size, self._ttl, self._clock
        )
        # As long as a copy can live plus as long as Redis keeps a tombstone: nothing that could revive the
        # session is left by then.
        self._dead: TTLCache[str, bool, float] = TTLCache(10 * self._size, self._ttl + TOMBSTONE_MS / 1000, self._clock)
        # Nearly every worker has seen nobody sign out yet, or is asked about somebody else.
        self._anyone_died = False
        # The few category names there are, so that one session can be forgotten without a search through all.
        self._names: set[str] = set()

    def auth(self, digest: str) -> LocalAuth | None:
        """What the database last said of this session; None: nothing known here, or dead."""
        with self._lock:
            held = _find(self._auth, digest)
        return held[0] if held else None

    def put_auth(self, row: AuthRow, confirmed_at: float) -> None:
        """Keep what the database said, unless something newer is kept or the session is dead.

        Newer is the higher version; of the same version, what was confirmed later.

        :param confirmed_at: seconds by the monotonic clock, taken before the database was asked.
        """
        with self._lock:
            held = _find(self._auth, row.digest)
            if held is None:
                if not self.is_dead(row.digest):
                    self._keep_auth(row, _frozen(row.payload), confirmed_at)
                return
            known, renewed_at = held  # what is kept is not dead: kill() takes it away
            if (known.row.version, known.confirmed_at) > (row.version, confirmed_at):
                return
            if not _says_the_same(known.row, row):
                self._keep_auth(row, _frozen(row.payload), confirmed_at)
            elif confirmed_at - known.confirmed_at >= _SAME_MOMENT:
                self._keep_auth(row, known.row.payload, confirmed_at)
            elif self._clock() >= renewed_at:
                self._auth[row.digest] = known, self._renewal()

    def category(self, digest: str, category: str) -> CategoryCopy | None:
        """The category as this worker last saw it; None: nothing known here, or the session is dead."""
        with self._lock:
            held = _find(self._copies, (digest, category))
        return held[0] if held else None

    def put_category(self, digest: str, category: str, copy: CategoryCopy, *, is_truth: bool = False) -> None:
        """Keep a category that was read as a whole, unless a higher version is kept or it is dead.

        :param is_truth: the primary said so just now: its version counts even if it is lower, because a category that
            was cleared begins anew.
        """
        key = digest, category
        with self._lock:
            held = _find(self._copies, key)
            if held is None:
                if not self.is_dead(digest):
                    self._keep(digest, category, copy.version, copy.fields)
                return
            known, renewed_at = held  # what is kept is not dead: kill() takes it away
            if known.version > copy.version and not is_truth:
                return
            if known.version != copy.version or known.fields != copy.fields:
                self._keep(digest, category, copy.version, copy.fields)
            elif self._clock() >= renewed_at:
                self._copies[key] = known, self._renewal()

    def patch_category(self, digest: str, category: str, changes: Mapping[str, bytes | None], version: int) -> None:
        """Apply a write to the copy that is kept; without one, nothing is stored.

        The copy takes the new version only if it is the next one. Otherwise other writes came between that
        this worker has not seen; the copy keeps its number, so that another worker's complete copy counts as
        newer. A copy that has this version already contains the write.

        :param changes: key → encoded value, None for a deleted key.
        :param version: the version that the write gave the category.
        """
        with self._lock:
            held = _find(self._copies, (digest, category))
            if held is not None and (known := held[0]).version < version:
                merged = {**known.fields, **changes}
                fields = {key: value for key, value in merged.items() if value is not None}
                is_next = version == known.version + 1
                self._keep(digest, category, version if is_next else known.version, fields)

    def kill(self, digest: str) -> None:
        """The session is dead: forget it, and let nothing of it be kept again."""
        with self._lock:
            self._anyone_died = True
            self._dead[digest] = True
            self.forget(digest)

    def is_dead(self, digest: str) -> bool:
        """Whether this worker knows that the session is dead. It stays so as long as the bounds allow."""
        if not self._anyone_died:
            return False
        with self._lock:
            # The question costs less than a get() that finds nothing; the get() keeps who is asked about for longest.
            return digest in self._dead and self._dead.get(digest, False)

    def live_categories(self) -> list[tuple[str, str, CategoryCopy]]:
        """Every copy that is not too old, as (digest, category, copy): to be shared when an outage begins."""
        with self._lock:
            self._copies.expire()
            kept = [(key, _find(self._copies, key)) for key in list(self._copies)]
        return [(digest, category, held[0]) for (digest, category), held in kept if held]

    def forget(self, digest: str) -> None:
        """Drop the copies of a session; if it is dead, it stays dead."""
        with self._lock:
            self._auth.pop(digest, None)
            for category in self._names:
                self._copies.pop((digest, category), None)

    def clear(self) -> None:
        """Drop all copies. The dead stay dead."""
        with self._lock:
            self._auth.clear()
            self._copies.clear()

    def forget_category(self, digest: str, category: str) -> None:
        """The category was cleared, or is not there any more."""
        with self._lock:
            self._copies.pop((digest, category), None)

    def forget_categories(self) -> None:
        """Another Redis server answers than before: versions may begin anew, and old copies would look newer."""
        with self._lock:
            self._copies.clear()

    def _keep(self, digest: str, category: str, version: int, fields: Fields) -> None:
        self._names.add(category)
        self._copies[digest, category] = CategoryCopy(version, _frozen(fields)), self._renewal()

    def _keep_auth(self, row: AuthRow, payload: Fields, confirmed_at: float) -> None:
        self._auth[row.digest] = LocalAuth(replace(row, payload=payload), confirmed_at), self._renewal()

    def _renewal(self) -> float:
        return self._clock() + self._ttl * _RENEWED_AFTER


def _frozen(fields: Fields) -> Fields:
    return MappingProxyType(dict(fields))


def _says_the_same(known: AuthRow, row: AuthRow) -> bool:
    """Whether two rows differ at most in when they were read. What is not asked here changes with the version only."""
    return (
        known.version == row.version and known.idle_expires_at == row.idle_expires_at and known.payload == row.payload
    )


def _find(entries: TTLCache[K, V, float], key: K) -> V | None:
    """What is kept and not too old. One look, where the map's own get() takes two and reads the clock for both."""
    try:
        return entries[key]
    except KeyError:
        return None


# Another thread may hold a lock, with a map half changed, at the moment of a fork; in the child that thread
# is gone.
_instances: weakref.WeakSet[LocalCopies] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for copies in list(_instances):
        copies._begin()


os.register_at_fork(after_in_child=_after_fork_in_child)
