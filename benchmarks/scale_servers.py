"""The servers and the worker processes of ``python -m benchmarks.scale``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from devservers.cluster import running_shards
from devservers.servers import Valkey

from .cores import pin
from .scale_worker import Order, Report, work
from .workers import Process

IS_SMALL = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 2
"""Whether clients and servers have to share two cores."""


class Servers:
    """The shards, and what they say of themselves, added up.

    :param clients: one of each.
    :param replicas: one of each, in a cluster.
    """

    def __init__(self, nodes: Sequence[Valkey], clients: Sequence[redis.Redis], replicas: Sequence[Valkey]) -> None:
        self.nodes, self.replicas = nodes, replicas
        self._clients = clients

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that lead an application to these servers."""
        if len(self.nodes) == 1 and not self._info("cluster")[0]["cluster_enabled"]:
            return {"REDIS_URL": self.nodes[0].url}
        return {"REDIS_URL": f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"}

    def _info(self, section: str) -> list[Any]:
        return [client.info(section) for client in self._clients]

    def memory(self) -> int:
        """Return the bytes in use, without the buffers of connections."""
        return sum(found["used_memory"] - found["mem_clients_normal"] for found in self._info("memory"))

    def connections(self) -> int:
        """Return the number of the workers' connections."""
        return sum(found["connected_clients"] - 1 for found in self._info("clients"))

    def counters(self) -> dict[str, float]:
        """Return seconds of processors, microseconds and calls of scripts, bytes."""
        scripts = [
            entry
            for found in self._info("commandstats")
            for name, entry in found.items()
            if name in ("cmdstat_evalsha", "cmdstat_eval")
        ]
        stats = self._info("stats")
        return {
            "cpu": sum(found["used_cpu_user"] + found["used_cpu_sys"] for found in self._info("cpu")),
            "usec": sum(entry["usec"] for entry in scripts),
            "calls": sum(entry["calls"] for entry in scripts),
            "bytes_in": sum(found["total_net_input_bytes"] for found in stats),
            "bytes_out": sum(found["total_net_output_bytes"] for found in stats),
        }

    def set(self, name: str, value: str) -> None:
        """Change a setting of all."""
        for client in self._clients:
            client.config_set(name, value)


@contextmanager
def apart(*servers: int | None) -> Iterator[None]:
    """On a machine of two cores, servers have one, and what this process starts meanwhile has the other."""
    if not IS_SMALL:
        yield
        return
    before = os.sched_getaffinity(0)
    pin("apart", *servers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serving(folder: Path, shards: int | None = None, extra: Sequence[str] = ()) -> Iterator[Servers]:
    """Run a single server, or a cluster of so many shards with a replica each, which stays in the background.

    :param extra: options of each node of a cluster.
    """
    with ExitStack() as stack:
        if shards is None:
            nodes = [stack.enter_context(Valkey(folder / "valkey", appendonly=False))]
        else:
            nodes = stack.enter_context(running_shards(folder, shards, extra))
        stack.enter_context(apart(*(node.pid for node in nodes)))
        primaries = nodes[:shards]
        clients = [stack.enter_context(redis.Redis(port=node.port, socket_timeout=30.0)) for node in primaries]
        yield Servers(primaries, clients, nodes[len(primaries) :])


class Crew:
    """Worker processes of one host.

    :param settings: of their applications.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._arguments = folder, settings
        self._workers: list[Process] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.close()

    def grow(self, size: int) -> None:
        """Have so many workers."""
        while len(self._workers) < size:
            # The first one makes the files that all share, and learns which server it is that they trust.
            count = size - len(self._workers) if self._workers else 1
            new = [Process(work, *self._arguments) for _ in range(count)]
            self._workers += new
            for worker in new:
                worker.answer()

    def do(self, orders: Sequence[Order]) -> list[Report]:
        """Have each worker do one; those beyond have nothing to do."""
        for worker, order in zip(self._workers, orders, strict=False):
            worker.send(order)
        return [worker.answer() for worker in self._workers[: len(orders)]]


@contextmanager
def crew(folder: Path, servers: Servers, size: int = 1, **settings: Any) -> Iterator[Crew]:
    """Run so many workers on these servers."""
    with Crew(folder, servers.settings | settings) as workers:
        workers.grow(size)
        yield workers
