"""Redis Cluster on this machine: nodes that know nothing are made one cluster."""

from collections.abc import Sequence
from typing import Any

from devservers.processes import wait_until
from devservers.valkey import Valkey

SLOTS = 16384
LONG = 60.0
"""Seconds; a bound that is only reached when something is broken."""


def last_slot(shard: int, shards: int) -> int:
    """Return the last slot of a shard, when all have the same number of slots; of shard -1 the one before the first."""
    return (shard + 1) * SLOTS // shards - 1


def says(node: Valkey, *command: Any) -> Any:
    """Return a node's answer to a command."""
    with node.client() as client:
        return client.execute_command(*command)


def join(nodes: Sequence[Valkey], buses: Sequence[int], shards: int) -> None:
    """Make one cluster of nodes that know nothing: node n is the primary of shard n, node n + `shards` its replica.

    :param buses: the port of each node's cluster bus.
    """
    for number, node in enumerate(nodes, 1):
        says(node, "CLUSTER", "SET-CONFIG-EPOCH", number)
    for shard in range(shards):
        says(nodes[shard], "CLUSTER", "ADDSLOTSRANGE", last_slot(shard - 1, shards) + 1, last_slot(shard, shards))
    for node, bus in zip(nodes[1:], buses[1:], strict=True):
        says(nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
    names = [says(node, "CLUSTER", "MYID") for node in nodes]
    # One that another node is only about to know is counted there already, but under another name.
    wait_until(lambda: all(_knows(node, names) for node in nodes), f"{len(nodes)} nodes that know each other")
    for number, node in enumerate(nodes[shards:]):
        says(node, "CLUSTER", "REPLICATE", names[number % shards])


def _knows(node: Valkey, names: Sequence[str]) -> bool:
    known = str(says(node, "CLUSTER", "NODES"))
    return all(name in known for name in names)
