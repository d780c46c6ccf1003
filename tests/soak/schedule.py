"""The faults of a soak, their times and stores: a function of the seed and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.faults import proxy
from tests.faults.proxy import Fault

PRIMARY, REPLICA, DATABASE = "primary", "replica", "database"

#: What the network does, by the proxy before each of the stores.
NETWORK = {
    "refuse": proxy.REFUSE,
    "hang": proxy.HANG,
    "delay": proxy.delay(0.15),
    "cut_after": proxy.cut_after(4),
    "swallow_reply": proxy.SWALLOW_REPLY,
    "stall_reply": proxy.STALL_REPLY,
    "garbage": proxy.garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "reset": proxy.RESET,
    "flip": proxy.flip(0),  # the byte that says what kind of reply follows
}

FREEZE, RESTART, RESTART_EMPTY, FLUSH = "freeze", "restart", "restart_empty", "flush"
#: SIGSTOP; SIGKILL and a start from what was on the disk; SIGKILL and a start from nothing; FLUSHALL.
SERVER = {
    PRIMARY: (FREEZE, RESTART, RESTART_EMPTY, FLUSH),
    REPLICA: (FREEZE, RESTART),
    DATABASE: (FREEZE, RESTART),
}

SILENT = frozenset({"refuse", "hang", "reset", FREEZE, RESTART})
"""Nothing reaches the store: nothing can have been committed meanwhile."""

LONG = frozenset({"hang", FREEZE})
LONGEST = 6.0
"""Seconds for which a store that says nothing does so, where time allows: longer than any request may wait."""

_SHARE = 0.85
"""Of a long fault's slot."""

_SLOT = 3.2
"""Seconds from the beginning of one fault of a store to that of the next, on average, where time allows."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One fault of one store.

    :param at: when it begins, in seconds since the soak began.
    :param seconds: how long it lasts.
    """

    store: str
    fault: str
    at: float
    seconds: float

    @property
    def network(self) -> Fault | None:
        """Return the fault of the proxy; None where the server itself fails."""
        return NETWORK.get(self.fault)


def faults_of(store: str) -> tuple[str, ...]:
    """Every way in which this store fails."""
    return (*NETWORK, *SERVER[store])


def plan(seed: int, seconds: float) -> dict[str, Sequence[Episode]]:
    """Store → its faults in their order; each kind comes at least once, and the stores fail independently."""
    return {store: list(_lane(store, random.Random(f"{seed}-{store}"), seconds)) for store in SERVER}


def _lane(store: str, chance: random.Random, seconds: float) -> Iterator[Episode]:
    faults = faults_of(store)
    rounds = max(1, int(seconds / (_SLOT * len(faults))))
    for number in range(rounds):
        at = seconds / rounds * number
        for fault, slot in _slots(faults, chance, seconds / rounds):
            lasts = slot * (_SHARE if fault in LONG else chance.uniform(0.35, 0.7))
            yield Episode(store, fault, at + (slot - lasts) * chance.random(), lasts)
            at += slot


def _slots(faults: Sequence[str], chance: random.Random, seconds: float) -> Iterator[tuple[str, float]]:
    """The faults in some order, and the time for each with the pauses around it."""
    order = chance.sample(faults, len(faults))
    long = min(LONGEST / _SHARE, seconds / 4)
    left = seconds - long * len(LONG.intersection(faults))
    weights = {fault: chance.uniform(0.5, 1.5) for fault in order if fault not in LONG}
    for fault in order:
        yield fault, long if fault in LONG else left * weights[fault] / sum(weights.values())


def deaths(seed: int, seconds: float) -> list[float]:
    """Return the times at which a worker is killed. None is late in the soak: each worker shall live through faults."""
    chance = random.Random(f"{seed}-workers")
    number = max(2, int(seconds / 15))
    return sorted(chance.uniform(0.1, 0.6) * seconds for _ in range(number))
