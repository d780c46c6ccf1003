"""Which stores answer, and the level that follows. Breakers per store and direction; no I/O."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from . import policy
from .breaker import Breaker
from .forks import renew_in_children
from .stores.base import ErrorClass, StoreError

PRIMARY, REPLICA, DATABASE = "primary", "replica", "database"
READ, WRITE = "read", "write"
Endpoint = tuple[str, str]
"""A store and a direction, for example ``("primary", "write")``."""

_AT_ONCE = frozenset({ErrorClass.IDENTITY_REFUSED})


@dataclass(frozen=True, slots=True)
class View:
    """What one request believes of the stores; it only ever loses some, never gains.

    :param up: endpoints whose breaker was closed when the request began, minus those that failed it since.
    :param outage_age: seconds since Redis last answered reads.
    """

    up: frozenset[Endpoint]
    outage_age: float
    local_ttl: float
    reader: str | None = field(init=False)
    """The Redis that answers reads: the primary while it can."""
    level: int = field(init=False)
    """The degradation level this request is at."""

    def __post_init__(self) -> None:
        # Once, here: a request asks for them several times, and nearly all requests share one view.
        reader = next((store for store in (PRIMARY, REPLICA) if self.can(store)), None)
        level = policy.level(
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

    def without(self, store: str, *directions: str) -> View:
        """The same view after a failure."""
        lost = {(store, direction) for direction in directions}
        return View(self.up - lost, self.outage_age, self.local_ttl)


class Health:
    """The breakers of all stores.

    :param stores: names of the stores there are (a deployment may have no replica).
    :param threshold: cheap failures in a row that open a breaker.
    :param local_ttl: seconds a local copy may be used; the age of an outage at which level 2 becomes 3.
    :param on_change: called with (old level, new level) after the level changed; must not raise or block.
    :param on_lost: called with (store, direction, error class) when a breaker opened; must not raise or block.
    :param on_failure: called with the store at every failure that concerns health: somebody should look at it, so
        that an outage is noticed without waiting for more requests to fail; must not raise or block.
    :param slow: seconds above which a call to a Redis is a slow one.
    :param on_slow: called with the store when half of its calls were: somebody should look whether it is the store;
        must not raise or block.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        stores: Iterable[str],
        *,
        threshold: int = 3,
        local_ttl: float = 1800,
        on_change: Callable[[int, int], None] = lambda old, new: None,
        on_lost: Callable[[str, str, str], None] = lambda store, direction, cause: None,
        on_failure: Callable[[str], None] = lambda store: None,
        slow: float = math.inf,
        on_slow: Callable[[str], None] = lambda store: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._local_ttl = local_ttl
        self._on_change = on_change
        self._on_lost = on_lost
        self._on_failure = on_failure
        self._slow = slow
        self._on_slow = on_slow
        self.breakers = {(store, way): Breaker(threshold) for store in stores for way in (READ, WRITE)}
        # With every breaker closed, which is nearly always, all requests share this one value.
        self._all_up = View(frozenset(self.breakers), 0.0, local_ttl)
        self._open = 0
        self._redis_lost_at: float | None = None
        self._level = 0
        self.since = time.time()
        renew_in_children(self, Health._renew_locks)

    def _renew_locks(self) -> None:
        for breaker in self.breakers.values():
            breaker.renew_lock()

    def view(self) -> View:
        """What a request that begins now may believe."""
        if not self._open:
            return self._all_up
        up = frozenset(endpoint for endpoint, breaker in self.breakers.items() if breaker.closed)
        age = 0.0 if self._redis_lost_at is None else self._clock() - self._redis_lost_at
        return View(up, age, self._local_ttl)

    @property
    def level(self) -> int:
        """The level now."""
        return self.view().level

    def succeeded(self, store: str, direction: str, took: float = 0.0) -> None:
        """A store answered a request.

        :param took: seconds.
        """
        breaker = self.breakers[store, direction]
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
            for way in ways:
                self._count(error, way)
            self._on_failure(error.store)
        return ways

    def _count(self, error: StoreError, direction: str) -> None:
        at_once = error.timed_out or error.error_class in _AT_ONCE
        if self.breakers[error.store, direction].failed(self._clock(), error.error_class.name, at_once=at_once):
            self._changed()
            self._on_lost(error.store, direction, error.error_class.name.lower())

    def close(self, store: str, direction: str) -> None:
        """For the monitor only: the store is healthy again and nothing waits for it."""
        self.breakers[store, direction].close()
        self._changed()

    def open_stores(self) -> frozenset[Endpoint]:
        """The endpoints that requests do not use at the moment."""
        if not self._open:
            return frozenset()
        return frozenset(endpoint for endpoint, breaker in self.breakers.items() if not breaker.closed)

    def refresh(self) -> None:
        """Report a change of level that came with time alone (2 → 3). The monitor calls it."""
        self._changed()

    def _changed(self) -> None:
        self._open = sum(not breaker.closed for breaker in self.breakers.values())
        view = self.view()
        if view.reader is not None:
            self._redis_lost_at = None
        elif self._redis_lost_at is None:
            self._redis_lost_at = self._clock()
        old, self._level = self._level, self.view().level
        if old != self._level:
            self.since = time.time()
            self._on_change(old, self._level)
