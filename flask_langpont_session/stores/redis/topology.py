"""The places of a Redis Cluster's shards: what its nodes say, and when to ask them again.

The map of the slots is learned and kept fresh by the monitor. A request uses it as it is: only the very first one of
a process may ask one node for it.

Where only AWS or a list knows whether this is a cluster, it may be none: then it is one shard, without a number.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from redis import exceptions as driver
from redis.crc import key_slot

from ...policy.errors import shard_of
from ...policy.leases import LONGEST_UNCONFIRMED_MS
from ...support.chance import CHANCE
from ...support.forks import renew_in_children
from ...support.lag import LEAST_WAIT
from ...support.logs import fields
from .nodes import NodeQueries, Nodes
from .slots import NO_SHARD, SINGLE, SLOTS, Address, Range, SlotMap, draw, moved, name_of, single

if TYPE_CHECKING:
    from .cluster import ClusterStore

log = logging.getLogger(__name__)

REST = 30.0
"""Seconds between two looks at the map while all is well."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
"""Seconds between two looks at the map while a shard does not answer, or requests were sent elsewhere."""

_PATIENCE = 0.5
"""Seconds for one node to say which server has which slot. Requests do not wait for that."""

_AVOIDED = 60.0
"""Seconds for which no canary is put into a slot that is being moved."""

_LAST_CHECKED = LONGEST_UNCONFIRMED_MS / 1000
"""Seconds after which no record is believed from before a move in any case."""


class ClusterTopology:
    """The map of one cluster, as far as this process knows it.

    :param connect: connects to a node within some seconds, to ask it for the map.
    :param clock: monotonic seconds.
    :ivar map: None: no node has answered yet.
    """

    def __init__(
        self, nodes: Nodes, connect: Callable[[Address, float], Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.map: SlotMap | None = None
        self.arrived: dict[int, float] = {}
        """Slot → monotonic seconds since when another shard than before answers for it."""
        self.nodes = nodes
        self.arranged: Callable[[str, Sequence[str]], None] = lambda role, shards: None
        """Told a role and its shards, whenever they are others."""
        self._queries = NodeQueries(nodes, connect)
        self._clock = clock
        self._stores: list[ClusterStore] = []
        self._avoided: dict[int, float] = {}
        self._begin()
        renew_in_children(self, ClusterTopology._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._is_doubtful, self._looked_at, self._pause = False, -math.inf, _SHORTEST_PAUSE

    def tell(self, store: ClusterStore) -> None:
        """Have a store follow the map."""
        self._stores.append(store)

    # -- in requests -----------------------------------------------------------------------------------------------

    def number_of(self, digest: str) -> int:
        """Return the shard that has a session; NO_SHARD: none, or not known yet."""
        return self.map.number_of(digest) if self.map is not None else NO_SHARD

    def locate(self, digest: str) -> str:
        """Return the shard of a session, as its stores' names end."""
        return name_of(self.number_of(digest))

    def learn(self, timeout: float) -> SlotMap:
        """Return the map; the first requests that need it ask one node.

        :raises Exception: what the node's connection raised, or ValueError: it does not know.
        """
        began = self._clock()
        if not self._lock.acquire(timeout=timeout):
            raise driver.TimeoutError("another thread is still asking for the map")
        try:
            if self.map is None:
                self.refresh(max(timeout - (self._clock() - began), LEAST_WAIT), at_most=1)
            assert self.map is not None
            return self.map
        finally:
            self._lock.release()

    def host_of(self, store: str) -> str:
        """Return the host of the primary behind a store of a shard; empty: it is not known."""
        number = int(shard_of(store)[1:] or SINGLE)
        return self.map.places[number].primary.host if self.map and number in self.map.places else ""

    def share(self, shard: str) -> float:
        """Return the share of all sessions (0–1) that lies on a shard, which is named as by :meth:`locate`."""
        return self.map.owners.count(int(shard[1:] or NO_SHARD)) / SLOTS if self.map is not None else 1.0

    def note_moved(self, slot: int, address: Address) -> int:
        """Note which server has a slot by a node's word. Return its shard."""
        with self._lock:
            assert self.map is not None
            number = self.map.at(address)
            if number is None or self.map.places[number].primary != address:
                corrected, number = self.map.with_primary(address)
                self._adopt(corrected)
            if self.map.owners[slot] != number:
                self.map.owners[slot] = number
                self.arrived[slot] = self._clock()
            self.doubt()
            return number

    def note_moving(self, slot: int, address: Address) -> int | None:
        """Note that a slot is on its way, by a node's word. Return the shard that it goes to, if that is known."""
        self.doubt()
        self.arrived.setdefault(slot, self._clock())
        return self.map.at(address) if self.map else None

    def since_arrival(self, digest: str) -> float | None:
        """Return for how many seconds another shard than before has answered for a session; None: the same one does, as
        far as that still matters."""
        arrived = self.arrived and self.arrived.get(key_slot(digest.encode()))
        return self._clock() - arrived if arrived else None

    def doubt(self) -> None:
        """Have the monitor look at the map soon."""
        self._is_doubtful = True

    # -- in the monitor --------------------------------------------------------------------------------------------

    def attend(self, lost: bool) -> None:
        """Look at the map again if it is time. Waits for nodes that do not answer.

        :param lost: some shard does not answer: it may have another primary by now.
        """
        is_urgent = lost or self._is_doubtful
        if not is_urgent:
            self._pause = _SHORTEST_PAUSE
        if self._clock() < self._looked_at + (self._pause if is_urgent else REST):
            return
        self._pause = min(_LONGEST_PAUSE, self._pause * 2) if lost else _SHORTEST_PAUSE
        self._is_doubtful = False
        try:
            self.refresh(_PATIENCE)
        except (driver.RedisError, OSError, ValueError):
            return  # a request that needs a node will see that it does not answer
        finally:
            # Workers that lost the same shard must not ask in step.
            self._looked_at = self._clock() - CHANCE.uniform(0, self._pause / 2)

    def adopt_single(self) -> bool:
        """Return whether the servers are known to be no cluster: then that is the map, without a question."""
        servers = self.nodes.single()
        if servers is None:
            return False
        with self._lock:
            self._change_to(single(servers))
        return True

    def refresh(self, timeout: float, *, at_most: int | None = None) -> None:
        """Ask the nodes, see :meth:`NodeQueries.ask`.

        :param timeout: seconds for each.
        :param at_most: of them.
        :raises Exception: the last one's error; none answered.
        """
        if self.adopt_single():
            return
        known = {address for place in self.map.places.values() for address in place.all} if self.map else set()
        ranges = self._queries.ask(known, timeout, at_most=at_most)
        with self._lock:
            self._take_over(ranges)

    def canary_slot(self, number: int) -> int:
        """Return the first slot of a shard that is not on its way to another one."""
        now = self._clock()
        owners = self.map.owners if self.map else ()
        own = (slot for slot, owner in enumerate(owners) if owner == number)
        return next((slot for slot in own if self._avoided.get(slot, 0.0) < now), 0)

    def avoid(self, slot: int) -> None:
        """Have no canary lie in that slot for a while."""
        self._avoided[slot] = self._clock() + _AVOIDED
        self.doubt()

    def _take_over(self, ranges: Sequence[Range]) -> None:
        after = draw(ranges, self.map)
        if self._change_to(after):
            nodes = {address for place in after.places.values() for address in place.all}
            shards = len(after.places)
            log.info(
                "the cluster has %d shards on %d nodes",
                *(shards, len(nodes)),
                extra=fields("cluster_changed", shards=shards, nodes=len(nodes)),
            )

    def _change_to(self, after: SlotMap) -> bool:
        before = self.map
        if after == before:
            return False
        now = self._clock()
        if before is not None:
            self.arrived = {slot: at for slot, at in self.arrived.items() if now - at < _LAST_CHECKED}
            self.arrived.update(dict.fromkeys(moved(before, after), now))
        self._adopt(after)
        return True

    def _adopt(self, after: SlotMap) -> None:
        # In this order no request is sent to a shard that is not there yet, or not any more.
        before = self.map or after
        for store in self._stores:
            store.arrange({**before.places, **after.places}, has_hole=bool(before.homeless or after.homeless))
        self.map = after
        for store in self._stores:
            store.arrange(after.places, has_hole=bool(after.homeless))
