"""The cores on which a measurement and its servers run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def apart(*servers: int | None) -> Iterator[None]:
    """Pin this process, with the threads and processes that it starts meanwhile, to one core, and servers to another.

    Left alone, the kernel now and then puts both on one core. Waking the other side then costs next to nothing, a round
    trip a quarter, and every ratio is another one: one run could not be compared with the next.

    :param servers: their processes. None: one that has none here; everything stays where it is.
    """
    if not CORES or None in servers:
        yield
        return
    for server in filter(None, servers):
        os.sched_setaffinity(server, {CORES[-1]})
    os.sched_setaffinity(0, {CORES[0]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)
