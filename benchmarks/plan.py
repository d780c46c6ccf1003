"""``python -m benchmarks.plan --sessions 2000000``: what so many sessions need, by the figures of
benchmarks/results/measured.md. It measures nothing."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from .page import RESULTS, publish, table, table_in

PAGE = RESULTS / "plan.md"
MEASURED = RESULTS / "measured.md"


class Node(NamedTuple):
    """A type of ElastiCache's nodes.

    :param gib: its memory.
    :param gbit: what its network carries all the time, gigabits a second.
    :param price: USD an hour, on demand, Valkey, us-east-1.
    """

    gib: float
    gbit: float
    price: float


PRICES_OF = "October 2026"
NODES = {
    "cache.m7g.large": Node(6.38, 0.937, 0.1264),
    "cache.m7g.xlarge": Node(12.93, 1.876, 0.252),
    "cache.r7g.large": Node(13.07, 0.937, 0.1752),
    "cache.r7g.xlarge": Node(26.32, 1.876, 0.3496),
}
"""Those of ``infra/elasticache.yaml`` that are not burstable."""

GIB = 2**30
RESERVED = 0.25
"""The share of a node's memory that ElastiCache keeps for backups and failovers (``reserved-memory-percent``)."""

FULL = 0.75
"""The share of the rest that is planned to be used; the alarm on memory comes next."""

BUSY = 0.6
"""The share of one core, and of a node's network, that is planned to be used."""

TRACKING = 1_000_000 * 146
"""Bytes of a node in which it notes which keys near caches have: ``tracking-table-max-keys``, and what one takes."""

LANES = 8
"""Connections of near caches from one process to one shard, at most."""

MOST_CONNECTIONS = 65_000
"""Of one node of ElastiCache."""

TLS, APPENDED = 1.5, 1.2
"""Times the processor time of Redis: of everything with TLS (1.3 to 1.8), and of writes with an append-only file
(``appendfsync everysec``; 1.0 to 1.7). Single commands on 1 KB, five runs of each beside those without; Redis 8.0.2,
and of the file Valkey, too."""

HOURS = 730
"""Of a month."""

POOL = 4 + 2
"""Connections of a process to the database: ``DATABASE_CALLS``, and those that it has beside them."""

IDLE = 3600.0
"""``IDLE_TIMEOUT``, seconds: the row of a session in use is written once in a quarter of it."""

JOURNAL_ENTRIES = 100_000
"""Of ``JOURNAL_MAX_BYTES``, its default."""

VISITORS = 0.5
"""The share of the journal that changes of visitors may take."""


@dataclass(frozen=True)
class Demand:
    """The demand on a site; docs/explanation/scaling.md says what each number means."""

    sessions: float = 10_000_000
    active: float = 500_000
    requests: float = 10_000
    size: float = 1024
    writes: float = 0.2
    hits: float = 0.0
    users: float = 1.0
    stay: float = 43_200
    verify: float = 60
    hosts: float = 8
    workers: float = 64
    threads: float = 4
    replicas: float = 1
    price: float = 0
    node: str = "cache.r7g.large"

    def __post_init__(self) -> None:
        """Check the numbers. :raises ValueError: they make no sense."""
        for name in ("sessions", "active", "requests", "size", "stay", "verify", "hosts", "workers", "threads"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: a number above 0 is expected")
        for name in ("writes", "hits", "users"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: a share from 0 to 1 is expected")
        if not (0 <= self.replicas <= 5 and 0 <= self.price < math.inf):
            raise ValueError("replicas must be from 0 to 5, and price a number of USD")
        most = min(self.sessions, self.verify * self.requests)
        if self.active > most:
            raise ValueError(f"active: each makes a request in {self.verify:g} s, so {most:g} at most")


@dataclass(frozen=True)
class Cost:
    """The cost of one request: microseconds of processors of Redis and of the worker, and bytes."""

    server: float
    client: float
    bytes_in: float
    bytes_out: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(one + another for one, another in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __mul__(self, times: float) -> Cost:
        return Cost(*(times * one for one in vars(self).values()))


def _number(cell: str) -> float:
    return float(cell.replace(",", ""))


class Measured:
    """The measured figures, for sessions of one size: between the sizes of the page, or beyond them, on straight
    lines.

    :ivar memory: bytes of Redis for each session, and `index`: for its place in the index of those in use.
    :ivar costs: request → its cost.
    :ivar row: bytes of a row in the database; `read` and `commit`: microseconds of the database and of the worker.
    """

    def __init__(self, size: float) -> None:
        _, *sizes = table_in(MEASURED, "measured", "### Size of a session")
        _, *requests = table_in(MEASURED, "measured", "| session, request |")
        bytes_of = {row[0]: _number(row[1]) for row in sizes}
        self.memory = at(size, [(bytes_of[row[0]], _number(row[3])) for row in sizes])

        def cost(kind: str) -> Cost:
            rows = [row for row in requests if row[0].endswith(f": {kind}")]
            at_sizes = [bytes_of[row[0].removesuffix(f": {kind}")] for row in rows]
            columns = ([_number(row[column]) for row in rows] for column in (2, 3, 6, 7))
            return Cost(*(at(size, list(zip(at_sizes, column, strict=True))) for column in columns))

        self.costs = {kind: cost(kind) for kind in ("read", "read again, near cache", "write")}
        database = [row[1] for row in table_in(MEASURED, "measured", "### The database")]
        self.row, self.index = _number(database[2]), _number(database[5])
        self.read, self.commit = ([_number(part) for part in cell.split(";")[:2]] for cell in database[3:5])


def at(size: float, points: Sequence[tuple[float, float]]) -> float:
    """Return the value for a size between the measured points, or beyond them, on straight lines."""
    (x0, y0), (x1, y1) = next((pair for pair in pairwise(points) if size <= pair[1][0]), (points[-2], points[-1]))
    return max(y0 + (size - x0) * (y1 - y0) / (x1 - x0), 0.0)


class Plan:
    """The needs of a demand; all rates are per second."""

    def __init__(self, demand: Demand) -> None:
        self.demand, self.node, self.measured = demand, NODES[demand.node], Measured(demand.size)
        signed_in = demand.sessions * demand.users
        self.sign_ins = signed_in / demand.stay
        #: One of each signed-in session, and those that ended since the last nightly purge.
        self.rows = signed_in + self.sign_ins * 86_400
        #: Of the database: each active session once in ``VERIFY_INTERVAL``.
        self.reads = demand.active * demand.users / demand.verify
        #: Writes that move the idle expiry of rows.
        self.extensions = demand.active * demand.users / (IDLE / 4)
        self.commits = self.sign_ins + self.extensions
        #: Of all requests together: reads that send everything, or hits of the near cache, and writes.
        kinds = self.measured.costs
        read = kinds["read"] * (1 - demand.hits) + kinds["read again, near cache"] * demand.hits
        self.cost = (read + kinds["write"] * demand.writes) * demand.requests
        #: Cores of Redis: rows that the database has confirmed or made are written there, too.
        writes = demand.writes * demand.requests + self.reads + self.commits
        self.write_cores = writes * kinds["write"].server / 1e6
        self.server_cores = self.write_cores + read.server * demand.requests / 1e6
        asked = [self.reads * self.measured.read[n] + self.commits * self.measured.commit[n] for n in (0, 1)]
        self.database_cores, self.client_cores = asked[0] / 1e6, (self.cost.client + asked[1]) / 1e6
        self.bytes_each = self.measured.memory + self.measured.index
        self.bytes_per_shard = self.node.gib * GIB * (1 - RESERVED) * FULL - TRACKING
        #: Each process has a connection per thread to each shard, and those of its near cache.
        self.connections_each = demand.threads + min(demand.threads, LANES)

    @cached_property
    def shards_by(self) -> Mapping[str, int]:
        """Return reason → how many shards it asks for."""
        link = BUSY * self.node.gbit * 1e9 / 8
        return {
            "memory": math.ceil(self.demand.sessions * self.bytes_each / self.bytes_per_shard),
            "processor": math.ceil(self.server_cores / BUSY),
            "network": math.ceil(max(self.cost.bytes_in, self.cost.bytes_out) / link),
        }

    @property
    def shards(self) -> int:
        """Return how many shards there must be."""
        return max(self.shards_by.values())

    def summary(self) -> str:
        """Return the table of all that is needed."""
        demand, cost = self.demand, self.cost
        asks = ", ".join(f"{name} asks for {number}" for name, number in self.shards_by.items())
        connections = demand.workers * self.connections_each
        nodes, price = self.shards * (1 + demand.replicas), demand.price or self.node.price
        priced = f"{price:g} USD an hour each" + ("" if demand.price else f", us-east-1, {PRICES_OF}")
        needed = {
            "memory of Redis": f"{_gb(demand.sessions * self.bytes_each)}; {self.bytes_each:,.0f} bytes each",
            f"shards of `{demand.node}`": f"{self.shards}: {asks}",
            "sessions per shard": f"{demand.sessions / self.shards:,.0f}",
            "processor of Redis": f"{self.server_cores:.2f} cores in all",
            "the same with TLS": f"{self.server_cores * TLS:.2f} cores",
            "the same with an append-only file": f"{self.server_cores + self.write_cores * (APPENDED - 1):.2f} cores",
            "processor of the workers, for sessions": f"{self.client_cores:.1f} cores in all",
            "network, in all": f"{cost.bytes_in * 8 / 1e6:,.0f} Mbit/s to Redis, {cost.bytes_out * 8 / 1e6:,.0f} "
            "Mbit/s from it",
            "connections": f"{connections:,.0f} to each shard, {connections * self.shards:,.0f} in all",
            "rows in the database, before the nightly purge": f"{self.rows:,.0f}, "
            f"{_gb(self.rows * self.measured.row)} with indexes",
            "reads of the database": f"{self.reads:,.0f} a second: {demand.active * demand.users:,.0f} active users / "
            f"{demand.verify:g} s",
            "commits of the database": f"{self.sign_ins:,.0f} sign-ins and about {self.extensions:,.0f} extensions of "
            "the idle time a second",
            "processor of the database": f"{self.database_cores:.1f} cores",
            "ElastiCache, on demand": f"{nodes:,.0f} nodes, {nodes * price * HOURS:,.0f} USD a month ({priced})",
        }
        return table(["what", "needed"], [list(row) for row in needed.items()], texts=2)

    def parts(self) -> str:
        """Return the table of the parts, and where each must be split."""
        return table(["part", "needed", "one takes", "must be split at", "what to do then"], self._parts(), texts=5)

    def _parts(self) -> Iterator[Sequence[str]]:
        yield from self._parts_of_redis()
        yield from self._parts_of_the_database()
        demand = self.demand
        kept = demand.requests * demand.writes / demand.hosts
        of_visitors = kept * (1 - demand.users)
        full = JOURNAL_ENTRIES / kept if kept else math.inf
        half = VISITORS * JOURNAL_ENTRIES / of_visitors if of_visitors else math.inf
        yield (
            "journal, all shards away",
            f"{kept:,.0f} entries a second per host at most: further changes of a category add none",
            f"{JOURNAL_ENTRIES:,} entries (`JOURNAL_MAX_BYTES`), {VISITORS:.0%} of them of visitors",
            f"{min(full, half):,.0f} s of an outage; with one shard of {self.shards} away {self.shards} times as long",
            "a larger `JOURNAL_MAX_BYTES`, or more hosts: each has a journal of its own",
        )
        yield (
            "metrics",
            f"an index of {_gb(demand.sessions * self.measured.index)} in Redis; {demand.workers:,.0f} requests to "
            "CloudWatch per interval",
            "the index is 16 sorted sets, which lie on at most 16 shards",
            "a shard whose sets do not fit beside its sessions",
            "Prometheus in place of CloudWatch saves the requests; without `METRICS` there is no index",
        )

    def _parts_of_redis(self) -> Iterable[Sequence[str]]:
        demand, held = self.demand, self.bytes_per_shard / self.bytes_each
        served = BUSY * demand.requests / self.server_cores
        yield (
            "server memory",
            _gb(demand.sessions * self.bytes_each),
            f"{_gb(self.bytes_per_shard)} per node: {held:,.0f} sessions",
            f"each further {held:,.0f} sessions",
            "one shard more (online resharding), or the next node type; `hash-max-listpack-value 1024` first",
        )
        yield (
            "server processor",
            f"{self.server_cores:.2f} cores",
            f"{served:,.0f} requests a second per shard, at {BUSY:.0%} of a core",
            f"each further {served:,.0f} requests a second",
            "one shard more: commands run on one core, so a node with more cores does not replace it",
        )
        yield (
            "connections",
            f"{demand.workers * self.connections_each:,.0f} per shard",
            f"{MOST_CONNECTIONS:,} per node",
            f"{MOST_CONNECTIONS / self.connections_each:,.0f} workers of {demand.threads:g} threads",
            "fewer threads per worker, or a second cluster for a part of the hosts: more shards do not help, each "
            "worker is connected to all",
        )

    def _parts_of_the_database(self) -> Iterable[Sequence[str]]:
        demand, core = self.demand, 1e6 * BUSY / self.measured.read[0]
        each = core * demand.verify / demand.users if demand.users else math.inf
        yield (
            "database reads",
            f"{self.reads:,.0f} a second",
            f"{core:,.0f} a second per core, at {BUSY:.0%} of it",
            f"each further {each:,.0f} active sessions",
            "a larger `VERIFY_INTERVAL` (rights that are withdrawn count that much later), then more cores; replicas "
            "of the database are not used",
        )
        yield (
            "database reads, all shards away",
            f"{demand.requests * demand.users:,.0f} a second at most",
            f"{core:,.0f} a second per core, at {BUSY:.0%} of it",
            f"each further {core / demand.users if demand.users else math.inf:,.0f} requests a second",
            "send a user's requests to the same worker, which asks at most once in 2 s about each session; then more "
            "cores",
        )
        yield (
            "sign-in commits",
            f"{self.commits:,.0f} a second",
            f"{1e6 * BUSY / self.measured.commit[0]:,.0f} a second per core, and what the disk can make durable",
            "the commits that the disk of the primary can make durable",
            "a faster disk, or group commit in the database (`commit_delay`); a larger `IDLE_TIMEOUT` makes fewer "
            "extensions",
        )
        yield (
            "database connections",
            f"{demand.workers * POOL:,.0f}",
            "`max_connections` of the database",
            f"{POOL} per worker",
            "PgBouncer in transaction mode",
        )


def _gb(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the plan into the page as well")
    for field in fields(Demand):
        kind = {"choices": NODES} if field.name == "node" else {"type": float}
        parser.add_argument(f"--{field.name}", default=field.default, **kind)
    options = parser.parse_args()
    try:
        plan = Plan(Demand(**{field.name: getattr(options, field.name) for field in fields(Demand)}))
    except ValueError as error:
        parser.error(str(error))
    publish(plan.summary(), options, "plan", PAGE)
    publish(plan.parts(), options, "parts", PAGE)


if __name__ == "__main__":
    main()
