"""The stores of the shards of a cluster, and how a call finds the one that has its key.

A call goes by the map that there is (:mod:`.topology`). One that is sent elsewhere (MOVED, ASK) goes there once; a slot
whose keys are being moved (TRYAGAIN) is asked again twice. What does not work out then is served as in an outage,
without being one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from redis import exceptions as driver
from redis.crc import key_slot

from ...policy.errors import ErrorClass, StoreError
from ...policy.health import PRIMARY
from ...support.chance import CHANCE
from ...support.lag import LEAST_WAIT, Wait
from .errors import Redirected, translate
from .slots import NO_SHARD, Address, Servers, SlotMap, name_of
from .store import RedisStore
from .topology import ClusterTopology
from .wire import pack

T = TypeVar("T")

_ASKING = pack(("ASKING",))

_TRIES_AGAIN = 2
_PERSISTENT = 1.0
"""Seconds after which a slot that is between two shards does not get better by waiting for it."""

_COUNTERS = {"MovedError": "cluster_moved", "AskError": "cluster_ask", "TryAgainError": "cluster_try_again"}


class Shards:
    """A store for each shard, in one role; they follow the map.

    :param name: ``primary`` or ``replica``.
    :param make: makes the store of a shard.
    """

    def __init__(self, name: str, directory: ClusterTopology, make: Callable[[int], RedisStore]) -> None:
        self.name = name
        self.is_primary = name == PRIMARY
        self._directory = directory
        self._make = make
        self._stores: Mapping[int, RedisStore] = {}
        self._asking: dict[int, RedisStore] = {}
        directory.tell(self)

    def arrange(self, places: Mapping[int, Servers], *, has_hole: bool = False) -> None:
        """Have a store for each of these shards, as far as there are servers for this role.

        :param has_hole: some slots have no shard. Their store finds no server, and is lost.
        """
        wanted = [number for number, place in sorted(places.items()) if self.is_primary or place.replicas]
        if has_hole and self.is_primary:
            wanted.insert(0, NO_SHARD)
        if list(self._stores) == wanted:
            return
        gone = [store for number, store in self._stores.items() if number not in wanted]
        self._stores = {number: self._stores.get(number) or self._make(number) for number in wanted}
        self._asking = {number: store for number, store in self._asking.items() if number in wanted}
        self._directory.arranged(self.name, [name_of(number) for number in wanted])
        for store in gone:
            store.forget_connections()

    @property
    def all(self) -> Collection[RedisStore]:
        """Return the stores of all shards, in the order of their numbers."""
        return self._stores.values()

    def get(self, number: int) -> RedisStore | None:
        """Return the store of a shard; None: it has none."""
        return self._stores.get(number)

    def of(self, number: int) -> RedisStore:
        """Return the store of a shard.

        :raises StoreError: it has none.
        """
        store = self._stores.get(number)
        if store is None:
            raise StoreError(self.name, ErrorClass.UNREACHABLE, "SlotNotServed")
        return store

    def asking(self, number: int) -> RedisStore:
        """Return the store of a shard, for keys that are still on their way to it."""
        store = self._asking.get(number)
        if store is None:
            store = self._asking[number] = self.of(number).announcing(_ASKING)
        return store

    def find(self, timeout: float) -> None:
        """Find the shards, if none is known: ask one node after the other.

        :param timeout: seconds for each.
        :raises StoreError: no node answers.
        """
        if self._directory.map is None:
            with self._translated():
                self._directory.refresh(timeout)

    def known(self, timeout: float) -> SlotMap:
        """Return the map, see :meth:`ClusterTopology.learn`.

        :raises StoreError: no node says it.
        """
        known = self._directory.map
        if known is not None:
            return known
        with self._translated():
            return self._directory.learn(timeout)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ValueError:  # it answers, but knows of no slots yet
            raise StoreError(self.name, ErrorClass.UNREACHABLE, "NoSlots") from None
        except (driver.RedisError, OSError) as error:
            raise translate(self.name, error) from None


class Router:
    """Leads calls to the shards that have their keys.

    :param count: counts by name.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        shards: Shards,
        directory: ClusterTopology,
        *,
        count: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._shards = shards
        self._directory = directory
        self._count = count
        self._clock = clock
        self._sleep = sleep
        self._between: dict[int, float] = {}

    def route(self, key: str, timeout: float, call: Callable[[RedisStore, float], T]) -> T:
        """Ask the shard that has a key (of a session its digest), or where it says.

        :param timeout: seconds, of all stores that are asked, one after the other.
        """
        slot = key_slot(key.encode())
        ends = self._clock() + (timeout.whole if isinstance(timeout, Wait) else timeout)
        store = self._shards.of(self._shards.known(timeout).owners[slot])
        redirected, tries = False, 0
        while True:
            try:
                done = call(store, timeout)
            except Redirected as error:
                self._count(_COUNTERS[error.cause])
                if redirected or not self._shards.is_primary:
                    raise
                redirected = True
                store = self._follow(store, error)
            except StoreError as error:
                if error.cause not in _COUNTERS:
                    if error.error_class is ErrorClass.TOPOLOGY:  # no server has the slot, which the map does not know
                        self._directory.doubt()
                    raise
                self._count(_COUNTERS[error.cause])
                tries += 1
                self._wait_for(slot, error, tries, ends)
            else:
                if self._between:
                    self._between.pop(slot, None)
                return done
            left = ends - self._clock()
            timeout = Wait(min(timeout, left), left)
            if left < LEAST_WAIT:
                raise StoreError(store.name, ErrorClass.TOPOLOGY, "NoTimeLeft")

    def _follow(self, store: RedisStore, error: Redirected) -> RedisStore:
        address = Address(*error.address)
        if not address.host:
            address = Address(self._directory.host_of(store.name), address.port)
        if error.for_good:
            return self._shards.of(self._directory.note_moved(error.slot, address))
        number = self._directory.note_moving(error.slot, address)
        if number is None:
            raise error  # the monitor looks for it
        return self._shards.asking(number)

    def _wait_for(self, slot: int, error: StoreError, tries: int, ends: float) -> None:
        """Wait a moment for a slot of which some keys are here and some there, or are not anywhere yet.

        :raises StoreError: it is not worth it.
        """
        now = self._clock()
        is_persistent = now - self._between.setdefault(slot, now) > _PERSISTENT
        pause = CHANCE.uniform(0.025, 0.05)
        # However long it lasts, it is the matter of one slot: no breaker is told, or the whole shard would be lost.
        if is_persistent or tries > _TRIES_AGAIN or ends - now - pause < LEAST_WAIT:
            raise error
        self._sleep(pause)
