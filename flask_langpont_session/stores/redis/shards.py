"""The stores of the shards of a cluster, which follow the map, see :mod:`.topology`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ...policy.errors import ErrorClass, StoreError
from ...policy.health import PRIMARY
from .slots import NO_SHARD, Servers, name_of
from .store import RedisStore
from .topology import ClusterTopology
from .wire import pack

_ASKING = pack(("ASKING",))


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
