"""The circuit breakers of all stores, by store and direction. No I/O.

A Redis of several shards is several stores: ``primary:1``, ``primary:2`` … What stands behind the name is its *shard*
(``":2"``; of the only shard of a single primary it is ``""``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .breaker import Breaker
from .values import ErrorClass, role_of, shard_of

PRIMARY, REPLICA, DATABASE = "primary", "replica", "database"
READ, WRITE = "read", "write"
Endpoint = tuple[str, str]
"""A store and a direction, for example ``("primary", "write")``."""

ONLY = ""
"""The shard of a single primary; of a cluster whose shards are not known yet, or the slots of it that have no shard."""


class Breakers:
    """Those there are. Read from any thread; changed under a lock of its owner.

    :param stores: names of the stores there are (a deployment may have no replica).
    :param threshold: cheap failures in a row that open a breaker.
    :ivar by_endpoint: exchanged as a whole, because others read while it changes.
    :ivar shards: of the primaries.
    :ivar open: how many are open.
    """

    def __init__(self, stores: Iterable[str], threshold: int) -> None:
        self._threshold = threshold
        self.by_endpoint: Mapping[Endpoint, Breaker] = {}
        self._put(stores)

    def renew_locks(self) -> None:
        """In a forked child: the threads that held them are not there."""
        for breaker in self.by_endpoint.values():
            breaker.renew_lock()

    def arrange(self, role: str, shards: Iterable[str]) -> bool:
        """The shards that one role's stores are on were found, or became others. Whether they are others.

        A shard that was not known is as the whole was while no shard was known, and the whole, if there are none any
        more, as the worst of them: the end of an outage has to be told.
        """
        wanted = {f"{role}{shard}" for shard in shards}
        before = {store for store, _ in self.by_endpoint}
        kept = {store for store in before if role_of(store) != role or store in wanted}
        if before == kept | wanted:
            return False
        self._put(kept | wanted)
        return True

    def _put(self, stores: Iterable[str]) -> None:
        stores = sorted(stores)
        self.by_endpoint = {(store, way): self._breaker(store, way) for store in stores for way in (READ, WRITE)}
        self.shards = tuple(sorted({shard_of(store) for store in stores if role_of(store) == PRIMARY})) or (ONLY,)
        self.count()

    def _breaker(self, store: str, way: str) -> Breaker:
        known = self.by_endpoint.get((store, way))
        if known is not None:
            return known
        new, role = Breaker(self._threshold), role_of(store)
        for (other, direction), before in self.by_endpoint.items():
            if not before.closed and direction == way and role == role_of(other) and role in (store, other):
                new.opened_at, new.cause = before.opened_at, before.cause
        return new

    def count(self) -> None:
        """One was opened or closed."""
        self.open = sum(not breaker.closed for breaker in self.by_endpoint.values())

    def endpoints(self, shard: str, *, only_closed: bool = False) -> frozenset[Endpoint]:
        """By role, as a session on that shard sees them."""
        return frozenset(
            (role_of(store), way)
            for (store, way), breaker in self.by_endpoint.items()
            if (role_of(store) == DATABASE or shard_of(store) == shard) and (breaker.closed or not only_closed)
        )

    def of(self, store: str) -> list[Breaker]:
        """Those of a store."""
        found = (self.by_endpoint.get((store, way)) for way in (READ, WRITE))
        return [breaker for breaker in found if breaker is not None]

    def open_endpoints(self) -> frozenset[Endpoint]:
        """Those that requests do not use at the moment."""
        if not self.open:
            return frozenset()
        return frozenset(endpoint for endpoint, breaker in self.by_endpoint.items() if not breaker.closed)

    def cause(self, store: str) -> ErrorClass | None:
        """Why requests do not use a store, in one direction at least; None: they do, in both."""
        causes = (ErrorClass.__members__.get(breaker.cause) for breaker in self.of(store))
        return next((cause for cause in causes if cause is not None), None)
