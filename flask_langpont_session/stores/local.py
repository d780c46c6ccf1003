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

from cachetools import TTLCache

from ..leases import TOMBSTONE_MS
from .base import AuthRow, CategoryCopy, Fields


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

    The life of an entry runs from its last put and is not prolonged by reading; when there are too many, the
    one that was not used for longest goes first. Tombstones are kept apart: ten times as many, and for longer
    than any copy.

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
        self._auth: TTLCache[str, LocalAuth, float] = TTLCache(self._size, self._ttl, self._clock)
        self._copies: TTLCache[tuple[str, str], CategoryCopy, float] = TTLCache(self._size, self._ttl, self._clock)
        # As long as a copy can live plus as long as Redis keeps a tombstone: nothing that could revive the
        # session is left by then.
        self._dead: TTLCache[str, bool, float] = TTLCache(10 * self._size, self._ttl + TOMBSTONE_MS / 1000, self._clock)
        # The few category names there are, so that one session can be forgotten without a search through all.
        self._names: set[str] = set()

    def auth(self, digest: str) -> LocalAuth | None:
        """What the database last said of this session; None: nothing known here, or dead."""
        with self._lock:
            return self._auth.get(digest)

    def put_auth(self, row: AuthRow, confirmed_at: float) -> None:
        """Keep what the database said, unless something newer is kept or the session is dead.

        Newer is the higher version; of the same version, what was confirmed later.

        :param confirmed_at: seconds by the monotonic clock, taken before the database was asked.
        """
        entry = LocalAuth(replace(row, payload=_frozen(row.payload)), confirmed_at)
        with self._lock:
            known = self._auth.get(row.digest)
            if not self.is_dead(row.digest) and (known is None or _age(known) <= _age(entry)):
                self._auth[row.digest] = entry

    def category(self, digest: str, category: str) -> CategoryCopy | None:
        """The category as this worker last saw it; None: nothing known here, or the session is dead."""
        with self._lock:
            return self._copies.get((digest, category))

    def put_category(self, digest: str, category: str, copy: CategoryCopy) -> None:
        """Keep a category that was read as a whole, unless a higher version is kept or it is dead."""
        with self._lock:
            known = self._copies.get((digest, category))
            if not self.is_dead(digest) and (known is None or known.version <= copy.version):
                self._keep(digest, category, copy.version, copy.fields)

    def patch_category(self, digest: str, category: str, changes: Mapping[str, bytes | None], version: int) -> None:
        """Apply a write to the copy that is kept; without one, nothing is stored.

        The copy takes the new version only if it is the next one. Otherwise other writes came between that
        this worker has not seen; the copy keeps its number, so that another worker's complete copy counts as
        newer. A copy that has this version already contains the write.

        :param changes: key → encoded value, None for a deleted key.
        :param version: the version that the write gave the category.
        """
        with self._lock:
            known = self._copies.get((digest, category))
            if known is not None and known.version < version:
                merged = {**known.fields, **changes}
                fields = {key: value for key, value in merged.items() if value is not None}
                is_next = version == known.version + 1
                self._keep(digest, category, version if is_next else known.version, fields)

    def kill(self, digest: str) -> None:
        """The session is dead: forget it, and let nothing of it be kept again."""
        with self._lock:
            self._dead[digest] = True
            self.forget(digest)

    def is_dead(self, digest: str) -> bool:
        """Whether this worker knows that the session is dead. It stays so as long as the bounds allow."""
        with self._lock:
            return self._dead.get(digest, False)

    def live_categories(self) -> list[tuple[str, str, CategoryCopy]]:
        """Every copy that is not too old, as (digest, category, copy): to be shared when an outage begins."""
        with self._lock:
            self._copies.expire()
            kept = [(key, self._copies.get(key)) for key in list(self._copies)]
        return [(digest, category, copy) for (digest, category), copy in kept if copy is not None]

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

    def forget_categories(self) -> None:
        """Another Redis server answers than before: versions may begin anew, and old copies would look newer."""
        with self._lock:
            self._copies.clear()

    def _keep(self, digest: str, category: str, version: int, fields: Fields) -> None:
        self._names.add(category)
        self._copies[digest, category] = CategoryCopy(version, _frozen(fields))


def _frozen(fields: Fields) -> Fields:
    return MappingProxyType(dict(fields))


def _age(entry: LocalAuth) -> tuple[int, float]:
    return entry.row.version, entry.confirmed_at


# Another thread may hold a lock, with a map half changed, at the moment of a fork; in the child that thread
# is gone.
_instances: weakref.WeakSet[LocalCopies] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for copies in list(_instances):
        copies._begin()


os.register_at_fork(after_in_child=_after_fork_in_child)
