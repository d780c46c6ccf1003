"""Circuit breakers that are told and asked, one for each store and direction. No I/O; the time is an argument.

Requests may open one; only the monitor closes it. There is no half-open traffic of users: while it is open, the
monitor's probes stand for them, and two good ones in a row are needed (one could be luck in a flapping network).

A Redis of several shards is several stores: ``primary:1``, ``primary:2`` … What stands behind the name is its *shard*
(``":2"``; of the only shard of a single primary it is ``""``).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .errors import DATABASE, PRIMARY, StoreError, role_of, shard_of

READ, WRITE = "read", "write"
Access = tuple[str, str]
"""A store, and the direction in which it is used: for example ``("primary", "write")``."""

ONLY = ""
"""The shard of a single primary; of a cluster whose shards are not known yet, or the slots of it that have no shard."""

FAILURES = 3
"""Quick failures in a row (refused, reset) that open a breaker. Half of the calls in a window do, too, where answers
come in between. A time-out opens it at once: the next request would have to wait as long again."""

WINDOW = 2.0
"""Seconds over which calls are counted, from the first bad one on."""

LEAST_CALLS = 10
"""Calls in a window before its share of bad ones means anything."""


@dataclass(slots=True)
class _Window:
    """Calls since the first bad one. While all is well there is none, and nothing to count.

    :param since: monotonic seconds.
    """

    since: float
    good: int = 0
    failed: int = 0
    slow: int = 0

    @property
    def calls(self) -> int:
        return self.good + self.failed

    def is_bad(self, bad: int) -> bool:
        return self.calls >= LEAST_CALLS and bad * 2 >= self.calls


@dataclass
class Breaker:
    """One direction (reads or writes) of one store.

    :param error: why it is open: the last that was met.
    :param answers: that requests had, about.
    :param asked_at: monotonic seconds, when the latest request that had an answer asked for it.
    """

    opened_at: float | None = None
    error: StoreError | None = None
    answers: int = 0
    asked_at: float = -math.inf
    _failures: int = 0
    _window: _Window | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def closed(self) -> bool:
        """Return whether requests may use the store."""
        return self.opened_at is None

    def succeeded(self, asked_at: float) -> None:
        """Note that a request was answered. While the breaker is open this says nothing: the answer may be an old one.

        :param asked_at: monotonic seconds, when it asked.
        """
        self.answers += 1  # a lost addition of two threads at once does not matter
        if asked_at > self.asked_at:
            self.asked_at = asked_at
        if self._window is not None:
            self._window.good += 1
        if self._failures and self.opened_at is None:
            self._failures = 0

    def note_slow(self, now: float) -> bool:
        """Note that a call that succeeded took too long. Return whether so many did that the monitor should look why.

        :param now: monotonic seconds.
        """
        with self._lock:
            window = self._window_at(now)
            window.slow += 1
            if not window.is_bad(window.slow):
                return False
            self._window = None  # what was looked at need not be looked at again at every call
            return True

    @property
    def cause(self) -> str:
        """Return the name of the class of errors for which it is open; empty: it is not."""
        return "" if self.error is None else self.error.error_class.name

    def failed(self, now: float, error: StoreError, *, at_once: bool) -> bool:
        """Note that a request failed. Return whether this failure opened the breaker.

        :param now: monotonic seconds.
        :param at_once: do not count, open.
        """
        with self._lock:
            self._failures += 1
            window = self._window_at(now)
            window.failed += 1
            bad = at_once or self._failures >= FAILURES or window.is_bad(window.failed)
            if self.opened_at is not None or not bad:
                return False
            self.opened_at, self.error = now, error
            return True

    def renew(self, error: StoreError) -> bool:
        """Note that a probe met another error while the breaker was open. Return whether that is of another class."""
        with self._lock:
            before, self.error = self.error, error if self.opened_at is not None else None
            return self.error is not None and before is not None and before.error_class is not error.error_class

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where the thread that held it does not exist."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the breaker and forget the failures: the monitor found the store healthy."""
        with self._lock:
            self.opened_at, self.error, self._failures, self._window = None, None, 0, None

    def _window_at(self, now: float) -> _Window:
        window = self._window
        if window is None or now - window.since > WINDOW:
            window = self._window = _Window(now)
        return window


class Breakers:
    """The breakers of all stores. Read from any thread; changed under a lock of its owner.

    :param stores: names of the stores there are (a deployment may have no replica).
    :ivar by_access: exchanged as a whole, because others read while it changes.
    :ivar shards: of the primaries.
    :ivar open: how many are open.
    """

    def __init__(self, stores: Iterable[str]) -> None:
        self.by_access: Mapping[Access, Breaker] = {}
        self._put(stores)

    def renew_locks(self) -> None:
        """Replace the locks in a forked child, where the threads that held them do not exist."""
        for breaker in self.by_access.values():
            breaker.renew_lock()

    def arrange(self, role: str, shards: Iterable[str]) -> bool:
        """Take over the shards of one role's stores. Return whether they differ from before.

        A shard that was not known is as the whole was while no shard was known, and the whole, if there are none any
        more, as the worst of them: the end of an outage has to be told.
        """
        wanted = {f"{role}{shard}" for shard in shards}
        before = {store for store, _ in self.by_access}
        kept = {store for store in before if role_of(store) != role or store in wanted}
        if before == kept | wanted:
            return False
        self._put(kept | wanted)
        return True

    def _put(self, stores: Iterable[str]) -> None:
        stores = sorted(stores)
        self.by_access = {(store, way): self._breaker(store, way) for store in stores for way in (READ, WRITE)}
        self.shards = tuple(sorted({shard_of(store) for store in stores if role_of(store) == PRIMARY})) or (ONLY,)
        self.count()

    def _breaker(self, store: str, way: str) -> Breaker:
        known = self.by_access.get((store, way))
        if known is not None:
            return known
        new, role = Breaker(), role_of(store)
        for (other, direction), before in self.by_access.items():
            if not before.closed and direction == way and role == role_of(other) and role in (store, other):
                new.opened_at, new.error = before.opened_at, before.error
        return new

    def count(self) -> None:
        """Count the open breakers anew, after one was opened or closed."""
        self.open = sum(not breaker.closed for breaker in self.by_access.values())

    def accesses(self, shard: str, *, only_closed: bool = False) -> frozenset[Access]:
        """Return the accesses of a session on that shard, by role instead of by store."""
        return frozenset(
            (role_of(store), way)
            for (store, way), breaker in self.by_access.items()
            if (role_of(store) == DATABASE or shard_of(store) == shard) and (breaker.closed or not only_closed)
        )

    def of(self, store: str) -> list[Breaker]:
        """Return the breakers of a store: reads, then writes; of an unknown store, none."""
        read = self.by_access.get((store, READ))
        return [] if read is None else [read, self.by_access[store, WRITE]]

    def open_accesses(self) -> frozenset[Access]:
        """Return the accesses that requests do not use at the moment."""
        if not self.open:
            return frozenset()
        return frozenset(access for access, breaker in self.by_access.items() if not breaker.closed)

    def error(self, store: str) -> StoreError | None:
        """Return why requests do not use a store, in one direction at least; None: they use it in both."""
        return next((breaker.error for breaker in self.of(store) if breaker.error is not None), None)
