"""The health of the stores, and the level that follows from it. No I/O.

A session sees the stores of its own shard only: the loss of a shard concerns the shard's own sessions alone.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..support.forks import renew_in_children
from . import levels
from .breaker import FAILURES as FAILURES
from .breaker import ONLY as ONLY
from .breaker import READ as READ
from .breaker import WRITE as WRITE
from .breaker import Access, Breaker, Breakers
from .errors import DATABASE as DATABASE
from .errors import PRIMARY as PRIMARY
from .errors import REPLICA as REPLICA
from .errors import ErrorClass, StoreError, role_of

_AT_ONCE = frozenset({ErrorClass.IDENTITY_REFUSED, ErrorClass.NO_TABLES})


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """The stores that one request may use. During the request stores are only taken away, never added.

    :param up: the accesses whose breaker was closed when the request began, minus those that failed it since.
    :param outage_age: seconds since Redis last answered reads.
    :param lost_at: since when requests do not use the primary in a direction, monotonic seconds; infinity: they do, or
        this request is among the first to notice.
    :param is_busy: the database is out for this request because it is too busy, and for no other reason. That is no
        outage, so the level stays.
    """

    up: frozenset[Access]
    outage_age: float
    local_ttl: float
    lost_at: float = math.inf
    is_busy: bool = False
    reader: str | None = field(init=False)
    """The Redis that answers reads: the primary while it can."""
    level: int = field(init=False)
    """The degradation level this request is at."""

    def __post_init__(self) -> None:
        # Computed once: a request reads both several times, and nearly all requests share a snapshot.
        reader = next((store for store in (PRIMARY, REPLICA) if self.can(store)), None)
        level = levels.level(
            reads=reader is not None,
            writes=self.can(PRIMARY, WRITE),
            database=self.can(DATABASE) or self.is_busy,
            outage_age=self.outage_age,
            local_ttl=self.local_ttl,
        )
        object.__setattr__(self, "reader", reader)
        object.__setattr__(self, "level", level)

    def can(self, store: str, direction: str = READ) -> bool:
        """Return whether this request may still use that store in that direction."""
        return (store, direction) in self.up

    def without(self, store: str, *directions: str, is_busy: bool = False) -> HealthSnapshot:
        """Return the snapshot after a failure.

        :param is_busy: the store is too busy for this request, and not down.
        """
        lost = {(store, direction) for direction in directions}
        is_busy = is_busy and (self.is_busy or self.can(DATABASE)) if store == DATABASE else self.is_busy
        return HealthSnapshot(self.up - lost, self.outage_age, self.local_ttl, self.lost_at, is_busy)


class HealthLimits(NamedTuple):
    """Thresholds: how long a local copy may be used, and when a call is slow.

    :param local_ttl: seconds a local copy may be used; the age of an outage at which level 2 becomes 3.
    :param slow: seconds above which a call to a Redis is a slow one.
    """

    local_ttl: float = 1800
    slow: float = math.inf


@dataclass(frozen=True, slots=True)
class Listeners:
    """Callbacks for changes of the stores' health. None of them may raise or block.

    :param level_changed: called with (old level, new level) after the level changed.
    :param store_lost: called with (the last error, directions) when breakers of a store opened.
    :param cause_changed: called with the error when probes find another reason for the loss of a store.
    :param store_back: called with (the store, directions, seconds of the loss) when breakers closed.
    :param store_failed: called with the store at every failure that concerns health: the monitor should probe the
        store, so that an outage is noticed before more requests fail.
    :param store_is_slow: called with the store when half of the calls were slow: the monitor should find out whether
        the store is the cause.
    """

    level_changed: Callable[[int, int], None] = lambda old, new: None
    store_lost: Callable[[StoreError, Sequence[str]], None] = lambda error, ways: None
    store_back: Callable[[str, Sequence[str], float], None] = lambda store, ways, seconds: None
    store_failed: Callable[[str], None] = lambda store: None
    store_is_slow: Callable[[str], None] = lambda store: None
    cause_changed: Callable[[StoreError], None] = lambda error: None


class Shards(NamedTuple):
    """The distribution of sessions over the shards of the primary.

    :param locate: digest → the shard its session lies on.
    :param share: shard → the share of all sessions (0–1) that lies on it.
    """

    locate: Callable[[str], str] = lambda digest: ONLY
    share: Callable[[str], float] = lambda shard: 1.0


class Health:
    """The health of all stores, as the requests of this process use it.

    :param stores: names of the stores there are (a deployment may have no replica).
    :param clock: monotonic seconds.
    :param now: seconds since 1970.
    :ivar since: when the level changed last, seconds since 1970.
    """

    def __init__(
        self,
        stores: Iterable[str],
        *,
        limits: HealthLimits | None = None,
        listeners: Listeners | None = None,
        shards: Shards | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._now = now
        self._limits = limits or HealthLimits()
        self._listeners = listeners or Listeners()
        self.locate, self._share = shards or Shards()
        self._breakers = Breakers(stores)
        self._redis_lost_at: dict[str, float] = {}
        self._level = 0
        self._lock = threading.Lock()
        self._note_whole()
        self.since = now()
        renew_in_children(self, Health._renew_locks)

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self._breakers.renew_locks()

    @property
    def breakers(self) -> Mapping[Access, Breaker]:
        """Return all breakers, by store and direction."""
        return self._breakers.by_access

    @property
    def shards(self) -> tuple[str, ...]:
        """Return the shards of the primary."""
        return self._breakers.shards

    def arrange(self, role: str, shards: Iterable[str]) -> None:
        """Take over the shards of one role's stores, see :meth:`.Breakers.arrange`."""
        with self._lock:
            if self._breakers.arrange(role, shards):
                self._note_whole()
        self.refresh()

    def _note_whole(self) -> None:
        # With every breaker closed, the usual case, all requests to a shard share a snapshot.
        ttl = self._limits.local_ttl
        self._whole = {shard: HealthSnapshot(self._breakers.accesses(shard), 0.0, ttl) for shard in self.shards}

    def snapshot(self, shard: str | None = None) -> HealthSnapshot:
        """Return the snapshot for a request that begins at this moment.

        :param shard: the shard of the request's session; None: the worst shard.
        """
        if shard is None:
            return max((self.snapshot(each) for each in self.shards), key=lambda view: view.level)
        if not self._breakers.open and shard in self._whole:
            return self._whole[shard]
        lost_at = self._redis_lost_at.get(shard)
        age = 0.0 if lost_at is None else self.clock() - lost_at
        up = self._breakers.accesses(shard, only_closed=True)
        opened = (breaker.opened_at for breaker in self._breakers.of(f"{PRIMARY}{shard}"))
        primary_lost_at = min((at for at in opened if at is not None), default=math.inf)
        return HealthSnapshot(up, age, self._limits.local_ttl, primary_lost_at)

    @property
    def best_shard(self) -> str:
        """Return a shard that no other is better than, for a session without a shard."""
        shards = self.shards
        return min(shards, key=lambda shard: self.snapshot(shard).level) if self._breakers.open else shards[0]

    @property
    def level(self) -> int:
        """Return the present level; of several shards, that of the worst."""
        return self.snapshot().level

    @property
    def lost_shards(self) -> tuple[str, ...]:
        """Return the shards whose primary does not take both reads and writes."""
        if not self._breakers.open:
            return ()
        return tuple(shard for shard in self.shards if not self.is_whole(f"{PRIMARY}{shard}"))

    @property
    def lost_share(self) -> float:
        """Return the share of all sessions (0–1) that lies on lost shards."""
        return sum(map(self._share, self.lost_shards))

    def error(self, store: str) -> StoreError | None:
        """Return why requests do not use a store in some direction, by the last probe; None: they use both."""
        return self._breakers.error(store)

    def is_whole(self, store: str) -> bool:
        """Return whether requests use a store in both directions."""
        return not self.open_stores() & {(store, READ), (store, WRITE)}

    def succeeded(self, store: str, direction: str, took: float = 0.0, asked_at: float = -math.inf) -> None:
        """Note that a store answered a request.

        :param took: seconds.
        :param asked_at: monotonic seconds of the question.
        """
        breaker = self._breakers.by_access.get((store, direction))
        if breaker is None:  # the shard was added, or removed, meanwhile
            return
        breaker.succeeded(asked_at)
        # A database may be slow, because it writes to a disk.
        if took > self._limits.slow and store != DATABASE and breaker.note_slow(self.clock()):
            self._listeners.store_is_slow(store)

    def failed(self, error: StoreError, direction: str) -> tuple[str, ...]:
        """Count an error against its store, as far as its class concerns health.

        :return: the directions lost for the request with the error.
        """
        ways = (WRITE,) if error.error_class is ErrorClass.WRITE_REFUSED else (READ, WRITE)
        if (error.store, direction) not in self.breakers:
            return ways
        if error.concerns_health:
            # A locked row of one user must not keep other users from signing in: a probe, with rows of its own, finds
            # out whether more rows are locked.
            if not error.may_be_one_row and (opened := [way for way in ways if self._opens(error, way)]):
                self.refresh()
                self._listeners.store_lost(error, opened)
            self._listeners.store_failed(error.store)
        return ways

    def answers(self, store: str) -> int:
        """Return about how many requests a store has answered. While the number grows, the store answers."""
        found = self._breakers.of(store)
        return found[0].answers + found[1].answers if found else 0

    def doubted(self, store: str) -> None:
        """Have the monitor probe a store that did not answer a process that was late itself: either may be at fault."""
        if (store, READ) in self.breakers:
            self._listeners.store_failed(store)

    def _opens(self, error: StoreError, direction: str) -> bool:
        """Count an error. Return whether it opened the breaker."""
        at_once = error.timed_out or error.error_class in _AT_ONCE
        breaker = self.breakers.get((error.store, direction))
        return breaker is not None and breaker.failed(self.clock(), error, at_once=at_once)

    def renew_cause(self, error: StoreError, *ways: str) -> None:
        """Take over the reason of a store's loss from a probe. For the monitor only."""
        if not error.concerns_health:
            return
        opened = [breaker for way in ways if (breaker := self.breakers.get((error.store, way))) is not None]
        if sum(breaker.renew(error) for breaker in opened):
            self._listeners.cause_changed(error)

    def close(self, store: str, directions: Collection[str]) -> None:
        """Close the breakers of a store that is healthy again. For the monitor only."""
        now, away = self.clock(), 0.0
        for breaker in filter(None, (self.breakers.get((store, way)) for way in directions)):
            away = max(away, now - (now if breaker.opened_at is None else breaker.opened_at))
            breaker.close()
        self.refresh()
        self._listeners.store_back(store, sorted(directions), away)

    def open_stores(self) -> frozenset[Access]:
        """Return the accesses that requests do not use at the moment."""
        return self._breakers.open_accesses()

    @property
    def lost_stores(self) -> frozenset[str]:
        """Return the stores that requests do not use at the moment, in one direction at least."""
        return frozenset(store for store, _ in self.open_stores())

    def usable(self) -> dict[Access, bool]:
        """Return role and direction → whether requests use all stores of the role in the direction. A replica is only
        read."""
        found: dict[Access, bool] = {}
        for (store, way), breaker in self.breakers.items():
            access = role_of(store), way
            if access != (REPLICA, WRITE):
                found[access] = found.get(access, True) and breaker.closed
        return found

    def age_outage(self, seconds: float) -> None:
        """Make the outage of Redis older by `seconds`. For tests: an old outage has a level of its own."""
        self._redis_lost_at = {shard: at - seconds for shard, at in self._redis_lost_at.items()}
        self.refresh()

    def refresh(self) -> None:
        """Report a change of level; the monitor calls this for a change by time alone (2 → 3)."""
        self._breakers.count()
        lost_at = {
            shard: self._redis_lost_at.get(shard, self._redis_lost_at.get(ONLY, self.clock()))
            for shard in self.shards
            if self.snapshot(shard).reader is None
        }
        self._redis_lost_at = lost_at
        old, self._level = self._level, self.snapshot().level
        if old != self._level:
            self.since = self._now()
            self._listeners.level_changed(old, self._level)
