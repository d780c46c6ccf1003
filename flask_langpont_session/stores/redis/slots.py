"""The map of a cluster: which shard has which slot, and where its servers are. Pure: it asks no server.

Servers that are no cluster are one shard that has every slot, and no number.

A shard keeps its number for as long as this process lives: breakers, server identities and metrics go by it. What makes
it the same shard is that its primary is one of the servers it had before; if none is, that it has the slots it had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

SLOTS = REDIS_CLUSTER_HASH_SLOTS
"""The number of slots of a cluster."""

NO_SHARD = 0
"""The number in :attr:`SlotMap.owners` for a slot that no shard has. Together they are a shard that has no server."""

SINGLE = NO_SHARD
"""In the place of a number: the one shard of what is no cluster. A map that has servers for it is not one of a cluster,
where it means that no shard is known."""


class Address(NamedTuple):
    """A host name or address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of one shard.

    :param primary: has the last word.
    :param replicas: those that the others believe to be well.
    """

    primary: Address
    replicas: tuple[Address, ...] = ()

    @property
    def all(self) -> frozenset[Address]:
        """Return all servers of the shard."""
        return frozenset((self.primary, *self.replicas))


@dataclass(frozen=True)
class SlotMap:
    """The slots and servers of a cluster, as far as they are known.

    :param owners: of each slot: the number of its shard, or :data:`NO_SHARD`. A single entry may be corrected in place.
    :param places: number → its servers. Numbers begin at 1, in the order of the slots when the map is the first;
        :data:`SINGLE` if this is no cluster.
    """

    owners: list[int]
    places: Mapping[int, Servers]

    @property
    def is_cluster(self) -> bool:
        """Return whether there are slots to be asked for."""
        return SINGLE not in self.places

    def number_of(self, digest: str) -> int:
        """Return the shard that has a session."""
        return self.owners[key_slot(digest.encode())]

    @property
    def homeless(self) -> int:
        """Return how many slots no shard has."""
        return self.owners.count(NO_SHARD) if NO_SHARD not in self.places else 0

    def at(self, address: Address) -> int | None:
        """Return the shard that has a server at an address."""
        return next((number for number, place in self.places.items() if address in place.all), None)

    def with_primary(self, address: Address) -> tuple[SlotMap, int]:
        """Return a map in which some shard has its primary at an address: a replica was promoted, or a shard is new."""
        number = self.at(address)
        if number is None:
            number = max(self.places, default=0) + 1
            place = Servers(address)
        else:
            known = self.places[number]
            place = Servers(address, tuple(sorted(known.all - {address})))
        return SlotMap(self.owners, {**self.places, number: place}), number


def name_of(number: int) -> str:
    """Return the end of the names of a shard's stores: ``:2``; nothing for the only one, and while none is known."""
    return f":{number}" if number else ""


def single(servers: Servers) -> SlotMap:
    """Return the map of what is no cluster."""
    return SlotMap([SINGLE] * SLOTS, {SINGLE: servers})


Range = tuple[int, int, Servers]
"""First slot, last slot, which servers have them."""


def read_ranges(reply: Sequence[Any], asked: Address) -> list[Range]:
    """Read the reply to ``CLUSTER SLOTS``.

    :param asked: the server that answered: a host that is not named is that one.
    :raises ValueError: it is not such a reply, or says that no server has any slot.
    """
    try:
        ranges = [
            (
                int(first),
                int(last),
                Servers(_address(nodes[0], asked), tuple(_address(node, asked) for node in nodes[1:])),
            )
            for first, last, *nodes in reply
        ]
    except (TypeError, IndexError, AttributeError, ValueError):
        raise ValueError("not a reply to CLUSTER SLOTS") from None
    if not ranges or not all(0 <= first <= last < SLOTS for first, last, _ in ranges):
        raise ValueError("no slots, or no such slots")
    return ranges


def _address(node: Sequence[Any], asked: Address) -> Address:
    host = node[0].decode() if node[0] else ""
    return Address(asked.host if host in ("", "?") else host, int(node[1]))


def draw(ranges: Iterable[Range], before: SlotMap | None = None) -> SlotMap:
    """Return a map of what a node says, with the shards' numbers of the map before, if that was one of a cluster."""
    if before is not None and not before.is_cluster:
        before = None
    found: dict[Address, tuple[Servers, list[tuple[int, int]]]] = {}
    for first, last, place in sorted(ranges):
        found.setdefault(place.primary, (place, []))[1].append((first, last))
    numbers = _numbers(found, before)
    owners = [NO_SHARD] * SLOTS
    for primary, (_, parts) in found.items():
        for first, last in parts:
            owners[first : last + 1] = [numbers[primary]] * (last - first + 1)
    return SlotMap(owners, {numbers[primary]: place for primary, (place, _) in found.items()})


def _numbers(
    found: Mapping[Address, tuple[Servers, list[tuple[int, int]]]], before: SlotMap | None
) -> dict[Address, int]:
    numbers: dict[Address, int] = {}
    if before is not None:
        for primary in found:
            number = before.at(primary)
            if number is not None and number not in numbers.values():
                numbers[primary] = number
        for primary in found.keys() - numbers.keys():
            owned = Counter(before.owners[slot] for part in found[primary][1] for slot in range(part[0], part[1] + 1))
            for number, _ in owned.most_common():
                if number != NO_SHARD and number not in numbers.values():
                    numbers[primary] = number
                    break
    free = (number for number in count(1) if before is None or number not in before.places)
    for primary in found:  # in the order of their slots
        if primary not in numbers:
            numbers[primary] = next(free)
    return numbers


def moved(before: SlotMap, after: SlotMap) -> list[int]:
    """Return the slots that another shard has than before, or that no shard had: what lies in them may be old. All of
    them if it was no cluster, or is none any more."""
    if before.is_cluster != after.is_cluster:
        return list(range(SLOTS))
    if before.owners == after.owners:
        return []
    pairs = zip(before.owners, after.owners, strict=True)
    return [slot for slot, (old, new) in enumerate(pairs) if old != new != NO_SHARD]


@lru_cache(maxsize=1024)
def tag_of(slot: int) -> str:
    """Return a text that, between braces in a key, puts that key into a slot."""
    return next(text for text in map(str, count()) if key_slot(text.encode()) == slot)
