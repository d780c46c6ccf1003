"""The cores on which a measurement and its server run."""

from __future__ import annotations

import os
from collections.abc import Mapping

CORES: Mapping[str, str] = {
    "apart": "client and server on a core each",
    "shared": "client and server on one core",
    "any": "client and server where the kernel puts them",
}


def pin(cores: str, *servers: int | None) -> None:
    """Pin this process, with the threads that it starts from now on, and its servers to their cores.

    Left alone, the kernel now and then puts both on one core. Waking the other side then costs next to nothing, a round
    trip a quarter, and every ratio is another one: one run could not be compared with the next. The same goes for two
    threads of one process that wait for each other.

    :param cores: one of :data:`CORES`.
    :param servers: their processes. None: one that has none here; everything stays where it is.
    """
    if cores == "any" or None in servers or not hasattr(os, "sched_setaffinity"):
        return
    available = sorted(os.sched_getaffinity(0))
    mine, theirs = (available[0], available[-1]) if cores == "apart" else (available[0], available[0])
    for server in filter(None, servers):
        os.sched_setaffinity(server, {theirs})
    os.sched_setaffinity(0, {mine})
