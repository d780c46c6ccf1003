"""The nodes of a Redis Cluster: where to ask, and asking them which of them has which slot."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from redis import exceptions as driver

from ...support.chance import CHANCE
from ...support.forks import renew_in_children
from .slots import Address, Range, Servers, read_ranges


class Nodes(NamedTuple):
    """The configuration of a cluster: what is known before any node is asked.

    :param seeds: where to ask when nothing else is known.
    :param tls: whether the nodes speak TLS.
    :param options: of all connections: credentials, and what TLS needs.
    :param single: the servers, if it is known that they are no cluster; else None.
    """

    seeds: Callable[[], Sequence[Address]]
    tls: Callable[[], bool]
    options: Mapping[str, Any]
    single: Callable[[], Servers | None] = lambda: None


class NodeAnswer(NamedTuple):
    """The answer of a node.

    :param epoch: the cluster's, as far as that node knows: the higher, the newer is what it says.
    :param ranges: which servers have which slots.
    """

    epoch: int
    ranges: Sequence[Range]


class NodeQueries:
    """Asks the nodes of a cluster which of them has which slot.

    :param connect: connects to a node within some seconds.
    """

    def __init__(self, nodes: Nodes, connect: Callable[[Address, float], Any]) -> None:
        self._nodes = nodes
        self._connect = connect
        self._silent: set[Address] = set()
        self._begin()
        renew_in_children(self, NodeQueries._begin)

    def _begin(self) -> None:
        """Begin at a random seed: workers must not ask the same node all at once."""
        self._turn = CHANCE.randrange(1 << 16)

    def ask_a_seed(self, timeout: float) -> NodeAnswer:
        """Ask one of the seeds, another one each time.

        :raises Exception: what the node's connection raised, or ValueError: it does not know.
        """
        seeds = self._nodes.seeds()
        if not seeds:
            raise driver.ConnectionError("no node is known")
        self._turn += 1
        return self._ask(seeds[self._turn % len(seeds)], timeout)

    def ask_all(self, known: Collection[Address], epoch: int, timeout: float) -> NodeAnswer:
        """Ask one node after the other, the known ones and then the seeds, until one knows as much as this process;
        else return the answer of the node that knows most.

        :param epoch: what we know.
        :param timeout: seconds for each.
        :raises Exception: the last one's error; none answered.
        """
        older: NodeAnswer | None = None
        trouble: Exception = driver.ConnectionError("no node is known")
        for address in self._in_order(known):
            try:
                answer = self._ask(address, timeout)
            except (driver.RedisError, OSError, ValueError) as error:
                self._silent.add(address)
                trouble = error
                continue
            self._silent.discard(address)
            if answer.epoch >= epoch:
                return answer
            # It missed an election: cut off from the others, it would send us back to the demoted.
            older = max(older or answer, answer, key=lambda said: said.epoch)
        if older is None:
            raise trouble
        return older

    def _in_order(self, known: Collection[Address]) -> Iterator[Address]:
        shuffled = sorted(known)
        CHANCE.shuffle(shuffled)
        # A node that did not answer last time may keep us waiting for a time-out.
        yield from sorted(shuffled, key=lambda address: address in self._silent)
        yield from (address for address in self._nodes.seeds() if address not in known)

    def _ask(self, address: Address, timeout: float) -> NodeAnswer:
        connection = self._connect(address, timeout)
        try:
            connection.send_packed_command(
                connection.pack_commands([("CLUSTER", "SLOTS"), ("CLUSTER", "INFO")]), check_health=False
            )
            reply = connection.read_response(disable_decoding=True)
            try:
                info = connection.read_response(disable_decoding=True)
            except driver.ResponseError:  # a right that is missing; then no node is more up to date than another
                info = b""
        finally:
            connection.disconnect()
        epoch = re.search(rb"cluster_current_epoch:([0-9]+)", info)
        return NodeAnswer(int(epoch[1]) if epoch else 0, read_ranges(reply, address))
