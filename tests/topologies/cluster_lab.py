"""A cluster of three shards, each a primary and a replica, as six real processes on 127.0.0.1."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis

from devservers.cluster import SLOTS as SLOTS
from devservers.cluster import join, last_slot, says
from devservers.processes import LONG, free_port, wait_until
from devservers.servers import Valkey

SHARDS = 3

_SETTINGS = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "1500",
    "cluster-require-full-coverage": "no",
    "cluster-allow-replica-migration": "no",  # every replica stays with its shard
    "cluster-replica-validity-factor": "0",  # a replica is promoted however busy the machine was
    "repl-ping-replica-period": "1",  # Redis does not name a replica that has received nothing yet
}


class Move:
    """A slot on its way from one node to another.

    :param others: the other primaries.
    """

    def __init__(self, slot: int, source: Valkey, target: Valkey, others: Sequence[Valkey]) -> None:
        self.slot = slot
        self._source = source
        self._target = target
        self._others = others

    def begin(self) -> None:
        """Each of the two knows that it is on its way."""
        with self._source.client() as source, self._target.client() as target:
            names = [client.execute_command("CLUSTER", "MYID") for client in (source, target)]
            target.execute_command("CLUSTER", "SETSLOT", self.slot, "IMPORTING", names[0])
            source.execute_command("CLUSTER", "SETSLOT", self.slot, "MIGRATING", names[1])

    def keys(self, wanted: Callable[[str], bool] = lambda key: True) -> None:
        """Move those keys that are still at the source."""
        with self._source.client() as source:
            keys: Any = source.execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, 1000)
            moved = [key for key in keys if wanted(key)]
            if moved:
                source.execute_command("MIGRATE", "127.0.0.1", self._target.port, "", 0, 5000, "KEYS", *moved)

    def end(self) -> None:
        """Assign the slot to its new shard. All primaries are told, as ``redis-cli`` does: what they only hear from
        each other they may contradict, when slots are moved quickly one after the other."""
        with self._target.client() as target:
            name = target.execute_command("CLUSTER", "MYID")
        for node in (self._target, self._source, *self._others):
            wait_until(partial(self._takes, node, name), "a primary that takes the slot's new place")

    def _takes(self, node: Valkey, owner: str) -> bool:
        """Tell a primary where the slot is. It refuses while its replicas are late, as on a busy machine."""
        with node.client() as client:
            try:
                return bool(client.execute_command("CLUSTER", "SETSLOT", self.slot, "NODE", owner))
            except redis.ResponseError as refusal:
                if not str(refusal).startswith("NOREPLICAS"):
                    raise
        return False


class Cluster:
    """The six nodes. Shard n is made of node n and node n + 3, whichever of them is its primary."""

    def __init__(self, nodes: Sequence[Valkey], buses: Sequence[int]) -> None:
        self.nodes = list(nodes)
        self._buses = list(buses)
        self._moved: list[int] = []

    @property
    def url(self) -> str:
        """Return the URL for the application, which names some of the nodes."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[::2])}"

    def pair(self, shard: int) -> list[Valkey]:
        """The two nodes of a shard."""
        return [self.nodes[shard], self.nodes[shard + SHARDS]]

    def primary(self, shard: int) -> Valkey:
        """The node that is the primary by its own word."""
        awake = [node for node in self.pair(shard) if node.running and not node.frozen]
        [found] = [node for node in awake if self.says(node, "ROLE")[0] == "master"]
        return found

    def home(self, slot: int) -> int:
        """The shard that a slot belongs to while nothing is moved."""
        return next(shard for shard in range(SHARDS) if slot <= _last(shard))

    says = staticmethod(says)

    def keys(self, pattern: str = "session:*") -> dict[int, set[str]]:
        """Shard → the keys that its primary has."""
        return {shard: set(self.says(self.primary(shard), "KEYS", pattern)) for shard in range(SHARDS)}

    def form(self) -> None:
        """Make one cluster of six nodes that know nothing."""
        join(self.nodes, self._buses, SHARDS)

    def be_patient(self) -> None:
        """Let no node be taken for dead until the next reset."""
        self.everywhere("CONFIG", "SET", "cluster-node-timeout", int(2 * LONG * 1000))

    def reset(self) -> None:
        """All nodes run, every shard has a primary, a replica that follows it, and its own slots; they are empty."""
        self.start()
        self.everywhere("CONFIG", "SET", "cluster-node-timeout", _SETTINGS["cluster-node-timeout"])
        for slot in self._moved:
            self.give(slot, self.home(slot))
        self._moved.clear()
        wait_until(self.is_whole, "a cluster at rest", pause=0.05)
        for shard in range(SHARDS):
            self.says(self.primary(shard), "FLUSHALL")

    def start(self, *nodes: Valkey) -> None:
        """Start what does not run, all at once."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(Valkey.start, nodes or self.nodes))

    def kill(self, *nodes: Valkey) -> None:
        """SIGKILL, all at once."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(Valkey.kill, nodes or self.nodes))

    def hand_over(self, shard: int) -> None:
        """Make the replica of a shard its primary, and the primary its replica, while both are well."""
        [replica] = [node for node in self.pair(shard) if node is not self.primary(shard)]
        self.says(replica, "CLUSTER", "FAILOVER")
        wait_until(lambda: self.says(replica, "ROLE")[0] == "master", "the promotion")

    def is_whole(self) -> bool:
        """Return whether all nodes agree on which has what, and every replica follows."""
        try:
            maps = [self._map(node) for node in self.nodes]
            infos = [self.says(node, "INFO", "replication") for node in self.nodes]
            ok = all("cluster_state:ok" in str(self.says(node, "CLUSTER", "INFO")) for node in self.nodes)
        except redis.RedisError:
            return False
        # A node may not name each replica yet.
        if any(one != maps[0] for one in maps) or any(len(part) != 4 for part in maps[0]):
            return False
        following = [info for info in infos if info["role"] == "slave" and info["master_link_status"] == "up"]
        return ok and len(following) == SHARDS

    def everywhere(self, *command: Any) -> None:
        """Tell all nodes."""
        for node in self.nodes:
            self.says(node, *command)

    def refused(self) -> list[str]:
        """Return the commands and keys that the nodes have refused for want of rights, since each was started."""
        nodes = [node for node in self.nodes if node.running]
        return [str(entry["object"]) for node in nodes for entry in self.says(node, "ACL", "LOG")]

    # -- moving slots ----------------------------------------------------------------------------------------------

    def begin_move(self, slot: int, to: int) -> Move:
        """A slot is on its way to another shard; its keys are where they were."""
        self._moved.append(slot)
        owner = self.owner(slot)
        others = [self.primary(shard) for shard in range(SHARDS) if shard not in (owner, to)]
        move = Move(slot, self.primary(owner), self.primary(to), others)
        move.begin()
        return move

    def give(self, slot: int, to: int) -> None:
        """Move a slot with all its keys."""
        if self.owner(slot) != to:
            move = self.begin_move(slot, to)
            move.keys()
            move.end()
        else:
            self.says(self.primary(to), "CLUSTER", "SETSLOT", slot, "STABLE")

    def give_at_once(self, slot: int, to: int) -> None:
        """Move a slot with all its keys in one step, which Valkey 9 can."""
        self._moved.append(slot)
        name = self.says(self.primary(to), "CLUSTER", "MYID")
        source = self.primary(self.owner(slot))
        self.says(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", name)
        wait_until(lambda: self._has(to, slot), "the slot's arrival")

    def owner(self, slot: int) -> int:
        """The shard that has a slot, by the word of its own primary."""
        for shard in range(SHARDS):
            if self._has(shard, slot):
                return shard
        raise LookupError(slot)

    def _has(self, shard: int, slot: int) -> bool:
        primary = self.primary(shard)
        return any(first <= slot <= last and node[1] == primary.port for first, last, node, *_ in self._map(primary))

    def _map(self, node: Valkey) -> list[Any]:
        with redis.Redis(port=node.port, socket_timeout=10.0) as client:
            found: Any = client.connection_pool.get_connection()
            try:
                found.send_command("CLUSTER", "SLOTS")
                ranges: list[Any] = found.read_response()
            finally:
                client.connection_pool.release(found)
        return sorted([first, last, *([n[0], n[1]] for n in nodes)] for first, last, *nodes in ranges)


def _last(shard: int) -> int:
    return last_slot(shard, SHARDS)


@contextmanager
def running_cluster(folder: Path, engine: Any = Valkey, extra: Sequence[str] = ()) -> Iterator[Cluster]:
    """A cluster at rest; ended with all its processes.

    :param engine: what the nodes are.
    :param extra: further options of each node, as on its command line.
    """
    buses = [free_port() for _ in range(2 * SHARDS)]
    settings = [part for name, value in _SETTINGS.items() for part in (f"--{name}", value)]
    nodes = [
        engine(folder / f"node{number}", appendonly=False, extra=(*settings, "--cluster-port", str(bus), *extra))
        for number, bus in enumerate(buses)
    ]
    cluster = Cluster(nodes, buses)
    with ExitStack() as ends:
        for node in nodes:
            ends.callback(node.kill)
        cluster.start()
        cluster.form()
        cluster.reset()
        yield cluster
