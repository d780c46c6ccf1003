"""The nodes of a Redis Cluster: where to ask, and asking them which of them has which slot."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from redis import exceptions as driver

from ...support.chance import CHANCE
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


class NodeQueries:
    """Asks the nodes of a cluster which of them has which slot.

    :param connect: connects to a node within some seconds.
    """

    def __init__(self, nodes: Nodes, connect: Callable[[Address, float], Any]) -> None:
        self._nodes = nodes
        self._connect = connect
        self._silent: set[Address] = set()
        self._epoch = 0

    def ask(self, known: Collection[Address], timeout: float, *, at_most: int | None = None) -> Sequence[Range]:
        """Ask one node after the other, the known ones and then the seeds, until one knows as much as this process;
        else return the answer of the node that knows most.

        :param timeout: seconds for each.
        :param at_most: of them; another one the next time, if it does not answer.
        :return: which servers have which slots.
        :raises Exception: what the last node's connection raised, or ValueError: it does not know; none answered.
        """
        older: tuple[int, Sequence[Range]] | None = None
        trouble: Exception = driver.ConnectionError("no node is known")
        for address in islice(self._in_order(known), at_most):
            try:
                epoch, ranges = self._ask(address, timeout)
            except (driver.RedisError, OSError, ValueError) as error:
                self._silent.add(address)
                trouble = error
                continue
            self._silent.discard(address)
            if older is None or epoch > older[0]:
                older = epoch, ranges
            # One that knows less missed an election: cut off from the others, it would send us back to the demoted.
            if epoch >= self._epoch:
                break
        if older is None:
            raise trouble
        self._epoch, ranges = older
        return ranges

    def _in_order(self, known: Collection[Address]) -> Iterator[Address]:
        yield from self._shuffled(known)
        yield from self._shuffled(set(self._nodes.seeds()).difference(known))

    def _shuffled(self, addresses: Collection[Address]) -> Sequence[Address]:
        """Return addresses in an order that is not that of other workers, which would ask the same node all at once."""
        shuffled = sorted(addresses)
        CHANCE.shuffle(shuffled)
        # A node that did not answer last time may keep us waiting for a time-out.
        return sorted(shuffled, key=lambda address: address in self._silent)

    def _ask(self, address: Address, timeout: float) -> tuple[int, Sequence[Range]]:
        """Return the epoch of the cluster as far as a node knows it (the higher, the newer is what it says), and which
        servers have which slots."""
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
        return int(epoch[1]) if epoch else 0, read_ranges(reply, address)
