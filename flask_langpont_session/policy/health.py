"""Which stores answer, and the level that follows. Breakers per store and direction; no I/O.

A Redis of several shards is several stores: ``primary:1``, ``primary:2`` … What stands behind the name is its *shard*
(``":2"``; of the only shard of a single primary it is ``""``), and a session sees the stores of its own shard only. So
a shard that is lost is lost for its own sessions, and for no others.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..support.forks import renew_in_children
from . import levels
from .breaker import Breaker
from .values import ErrorClass, StoreError, role_of, shard_of

PRIMARY, REPLICA, DATABASE = "primary", "replica", "database"
READ, WRITE = "read", "write"
Endpoint = tuple[str, str]
"""A store and a direction, for example ``("primary", "write")``."""

ONLY = ""
"""The shard of a single primary; of a cluster whose shards are not known yet, or the slots of it that have no shard."""

_AT_ONCE = frozenset({ErrorClass.IDENTITY_REFUSED, ErrorClass.NO_TABLES})


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """What one request believes of the stores; it only ever loses some, never gains.

    :param up: endpoints whose breaker was closed when the request began, minus those that failed it since.
    :param outage_age: seconds since Redis last answered reads.
    :param lost_at: since when the primary is kept from requests in a direction, monotonic seconds; infinity: it is not,
        or this request is among the first to notice.
    """

    up: frozenset[Endpoint]
    outage_age: float
    local_ttl: float
    lost_at: float = math.inf
    reader: str | None = field(init=False)
    """The Redis that answers reads: the primary while it can."""
    level: int = field(init=False)
    """The degradation level this request is at."""

    def __post_init__(self) -> None:
        # Once, here: a request asks for them several times, and nearly all requests share one view.
        reader = next((store for store in (PRIMARY, REPLICA) if self.can(store)), None)
        level = levels.level(
            reads=reader is not None,
            writes=self.can(PRIMARY, WRITE),
            database=self.can(DATABASE),
            outage_age=self.outage_age,
            local_ttl=self.local_ttl,
        )
        object.__setattr__(self, "reader", reader)
        object.__setattr__(self, "level", level)

    def can(self, store: str, direction: str = READ) -> bool:
        """Whether this request may still use that store in that direction."""
        return (store, direction) in self.up

    def without(self, store: str, *directions: str) -> HealthSnapshot:
        """The same view after a failure."""
        lost = {(store, direction) for direction in directions}
        return HealthSnapshot(self.up - lost, self.outage_age, self.local_ttl, self.lost_at)


class Health:
    """The breakers of all stores.

    :param stores: names of the stores there are (a deployment may have no replica).
    :param threshold: cheap failures in a row that open a breaker.
    :param local_ttl: seconds a local copy may be used; the age of an outage at which level 2 becomes 3.
    :param on_change: called with (old level, new level) after the level changed; must not raise or block.
    :param on_lost: called with (the last error, direction) when a breaker opened; must not raise or block.
    :param on_failure: called with the store at every failure that concerns health: the monitor should look at it, so
        that an outage is noticed without waiting for more requests to fail; must not raise or block.
    :param slow: seconds above which a call to a Redis is a slow one.
    :param on_slow: called with the store when half of its calls were: the monitor should look whether it is the store;
        must not raise or block.
    :param clock: monotonic seconds.
    :param locate: digest → the shard its session lies on.
    :param share: shard → the share of all sessions (0–1) that lies on it.
    """

    def __init__(
        self,
        stores: Iterable[str],
        *,
        threshold: int = 3,
        local_ttl: float = 1800,
        on_change: Callable[[int, int], None] = lambda old, new: None,
        on_lost: Callable[[StoreError, str], None] = lambda error, direction: None,
        on_failure: Callable[[str], None] = lambda store: None,
        slow: float = math.inf,
        on_slow: Callable[[str], None] = lambda store: None,
        clock: Callable[[], float] = time.monotonic,
        locate: Callable[[str], str] = lambda digest: ONLY,
        share: Callable[[str], float] = lambda shard: 1.0,
    ) -> None:
        self._clock = clock
        self._threshold = threshold
        self._local_ttl = local_ttl
        self._on_change = on_change
        self._on_lost = on_lost
        self._on_failure = on_failure
        self._slow = slow
        self._on_slow = on_slow
        self.locate = locate
        self._share = share
        self.breakers: Mapping[Endpoint, Breaker] = {}
        self._open = 0
        self._redis_lost_at: dict[str, float] = {}
        self._level = 0
        self._lock = threading.Lock()
        self._arrange(stores)
        self.since = time.time()
        renew_in_children(self, Health._renew_locks)

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        for breaker in self.breakers.values():
            breaker.renew_lock()

    def arrange(self, role: str, shards: Iterable[str]) -> None:
        """The shards that one role's stores are on were found, or became others.

        A shard that was not known is as the whole was while no shard was known, and the whole, if there are none any
        more, as the worst of them: the end of an outage has to be told.
        """
        wanted = {f"{role}{shard}" for shard in shards}
        with self._lock:
            before = {store for store, _ in self.breakers}
            kept = {store for store in before if role_of(store) != role or store in wanted}
            if before != kept | wanted:
                self._arrange(kept | wanted)
        self._changed()

    def _arrange(self, stores: Iterable[str]) -> None:
        known = self.breakers

        def breaker(store: str, way: str) -> Breaker:
            if (store, way) in known:
                return known[store, way]
            new, role = Breaker(self._threshold), role_of(store)
            for (other, direction), before in known.items():
                if not before.closed and direction == way and role == role_of(other) and role in (store, other):
                    new.opened_at, new.cause = before.opened_at, before.cause
            return new

        # Others read while this goes on: each of these is exchanged as a whole.
        self.breakers = {(store, way): breaker(store, way) for store in sorted(stores) for way in (READ, WRITE)}
        self.shards = tuple(sorted({shard_of(store) for store in stores if role_of(store) == PRIMARY})) or (ONLY,)
        # With every breaker closed, which is nearly always, all requests to a shard share one value.
        self._whole = {shard: HealthSnapshot(self._endpoints(shard), 0.0, self._local_ttl) for shard in self.shards}
        self._open = sum(not breaker.closed for breaker in self.breakers.values())

    def _endpoints(self, shard: str, *, only_closed: bool = False) -> frozenset[Endpoint]:
        """By role, as a session on that shard sees them."""
        return frozenset(
            (role_of(store), way)
            for (store, way), breaker in self.breakers.items()
            if (role_of(store) == DATABASE or shard_of(store) == shard) and (breaker.closed or not only_closed)
        )

    def view(self, shard: str | None = None) -> HealthSnapshot:
        """What a request that begins now may believe.

        :param shard: where its session lies; None: the worst there is.
        """
        if shard is None:
            return max((self.view(each) for each in self.shards), key=lambda view: view.level)
        if not self._open and shard in self._whole:
            return self._whole[shard]
        lost_at = self._redis_lost_at.get(shard)
        age = 0.0 if lost_at is None else self._clock() - lost_at
        return HealthSnapshot(
            self._endpoints(shard, only_closed=True), age, self._local_ttl, self._primary_lost_at(shard)
        )

    def _primary_lost_at(self, shard: str) -> float:
        breakers = (self.breakers.get((f"{PRIMARY}{shard}", way)) for way in (READ, WRITE))
        opened = (breaker.opened_at for breaker in breakers if breaker is not None)
        return min((at for at in opened if at is not None), default=math.inf)

    @property
    def best_shard(self) -> str:
        """A shard that is as well as any, for a session that lies nowhere yet."""
        return min(self.shards, key=lambda shard: self.view(shard).level) if self._open else self.shards[0]

    @property
    def level(self) -> int:
        """The level now; of several shards, of the worst."""
        return self.view().level

    @property
    def lost_shards(self) -> tuple[str, ...]:
        """The shards whose primary does not take both reads and writes."""
        if not self._open:
            return ()
        return tuple(shard for shard in self.shards if not self.is_whole(f"{PRIMARY}{shard}"))

    @property
    def lost_share(self) -> float:
        """The share of all sessions (0–1) that lies on those."""
        return sum(map(self._share, self.lost_shards))

    def cause(self, store: str) -> ErrorClass | None:
        """Why requests do not use a store, in one direction at least; None: they do, in both."""
        breakers = (self.breakers.get((store, way)) for way in (READ, WRITE))
        causes = (ErrorClass.__members__.get(breaker.cause) for breaker in breakers if breaker is not None)
        return next((cause for cause in causes if cause is not None), None)

    def is_whole(self, store: str) -> bool:
        """Whether requests use a store, in both directions."""
        return not self.open_stores() & {(store, READ), (store, WRITE)}

    def succeeded(self, store: str, direction: str, took: float = 0.0) -> None:
        """A store answered a request.

        :param took: seconds.
        """
        breaker = self.breakers.get((store, direction))
        if breaker is None:  # its shard was found, or left, meanwhile
            return
        breaker.succeeded()
        # A database may take its time: it writes to a disk.
        if took > self._slow and store != DATABASE and breaker.was_slow(self._clock()):
            self._on_slow(store)

    def failed(self, error: StoreError, direction: str) -> tuple[str, ...]:
        """Count an error against its store, as far as its class concerns health.

        :return: the directions that are lost for the request that saw it.
        """
        ways = (WRITE,) if error.error_class is ErrorClass.WRITE_REFUSED else (READ, WRITE)
        if (error.store, direction) not in self.breakers:
            return ways
        if error.concerns_health:
            # One user's row that stays locked must not keep others from signing in: a probe, which has rows of its own,
            # finds out whether it is more.
            for way in () if error.may_be_one_row else ways:
                self._count(error, way)
            self._on_failure(error.store)
        return ways

    def answers(self, store: str) -> int:
        """How many requests a store has answered, about: whether it grows says whether it answers."""
        breakers = (self.breakers.get((store, way)) for way in (READ, WRITE))
        return sum(breaker.answers for breaker in breakers if breaker is not None)

    def doubted(self, store: str) -> None:
        """A store did not answer a process that was late itself: the monitor has to say whose fault it is."""
        if (store, READ) in self.breakers:
            self._on_failure(store)

    def _count(self, error: StoreError, direction: str) -> None:
        at_once = error.timed_out or error.error_class in _AT_ONCE
        breaker = self.breakers.get((error.store, direction))
        if breaker and breaker.failed(self._clock(), error.error_class.name, at_once=at_once):
            self._changed()
            self._on_lost(error, direction)

    def close(self, store: str, direction: str) -> None:
        """For the monitor only: the store is healthy again and nothing waits for it."""
        breaker = self.breakers.get((store, direction))
        if breaker is not None:
            breaker.close()
        self._changed()

    def open_stores(self) -> frozenset[Endpoint]:
        """The endpoints that requests do not use at the moment."""
        if not self._open:
            return frozenset()
        return frozenset(endpoint for endpoint, breaker in self.breakers.items() if not breaker.closed)

    def age_outage(self, seconds: float) -> None:
        """Redis does not answer since so much longer already. For tests: an old outage has a level of its own."""
        self._redis_lost_at = {shard: at - seconds for shard, at in self._redis_lost_at.items()}
        self._changed()

    def refresh(self) -> None:
        """Report a change of level that came with time alone (2 → 3). The monitor calls it."""
        self._changed()

    def _changed(self) -> None:
        self._open = sum(not breaker.closed for breaker in self.breakers.values())
        lost_at = {
            shard: self._redis_lost_at.get(shard, self._redis_lost_at.get(ONLY, self._clock()))
            for shard in self.shards
            if self.view(shard).reader is None
        }
        self._redis_lost_at = lost_at
        old, self._level = self._level, self.view().level
        if old != self._level:
            self.since = time.time()
            self._on_change(old, self._level)
