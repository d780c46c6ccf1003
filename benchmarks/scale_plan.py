"""Calculates the needs of so many sessions from measured figures: ``python -m benchmarks.scale --plan sessions=…``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from .page import table
from .scale_figures import Figures


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

HOURS = 730
"""Of a month."""

CALLS_BESIDE = 2
"""Connections to the database that a process has beside those of ``DATABASE_CONCURRENCY``, which is 4."""

CONCURRENCY = 4
IDLE = 3600.0
"""``IDLE_TIMEOUT``, seconds: the row of a session in use is written once in a quarter of it."""

JOURNAL_ENTRIES = 100_000
"""Of ``JOURNAL_MAX_BYTES``, its default."""


@dataclass(frozen=True)
class Demand:
    """The demand on a site.

    :param sessions: that are stored at a time.
    :param active: of them, those that are used within one ``VERIFY_INTERVAL``.
    :param requests: a second, that read their session.
    :param size: bytes of one session as JSON.
    :param writes: the share of the requests that change their session, too.
    :param hits: the share of the reads that near caches answer.
    :param users: the share of the sessions that are signed in.
    :param stay: seconds for which a session is stored, on average.
    :param verify: ``VERIFY_INTERVAL``, seconds.
    :param hosts: with workers.
    :param workers: processes, of all hosts.
    :param threads: of each worker.
    :param replicas: of each shard.
    :param node: a key of :data:`NODES`.
    :param price: USD an hour for one node; 0: that of :data:`NODES`.
    """

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
    node: str = "cache.r7g.large"
    price: float = 0

    @classmethod
    def read(cls, said: Iterable[str]) -> Demand:
        """Read a demand from texts like ``sessions=1000000``. :raises ValueError: one cannot be read, or they
        contradict each other; the text says which and what to write instead."""
        values: dict[str, str | float] = {}
        names = {field.name for field in fields(cls)}
        for text in said:
            name, _, value = text.partition("=")
            if name not in names:
                raise ValueError(f"{text}: one of {', '.join(sorted(names))} is expected before the =")
            if name == "node":
                values[name] = value
                continue
            try:
                values[name] = float(value)
            except ValueError:
                raise ValueError(f"{text}: a number is expected behind the =") from None
        demand = cls(**values)  # type: ignore[arg-type]
        demand._check()
        return demand

    def _check(self) -> None:
        if self.node not in NODES:
            raise ValueError(f"node={self.node}: known are {', '.join(NODES)}")
        for name in ("sessions", "active", "requests", "size", "stay", "verify", "hosts", "workers", "threads"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name):g}: a number above 0 is expected")
        for name in ("writes", "hits", "users"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name):g}: a share from 0 to 1 is expected")
        if not (0 <= self.replicas <= 5 and 0 <= self.price < math.inf):
            raise ValueError("replicas= must be from 0 to 5, and price= a number of USD")
        most = min(self.sessions, self.verify * self.requests)
        if self.active > most:
            raise ValueError(f"active={self.active:g}: each makes a request in {self.verify:g} s, so {most:g} at most")


def at(size: float, points: Sequence[tuple[float, float]]) -> float:
    """Return the value for a size between the measured points, or beyond them, on straight lines."""
    pairs = list(pairwise(points)) or [(points[0], (points[0][0] + 1, points[0][1]))]
    (x0, y0), (x1, y1) = next((pair for pair in pairs if size <= pair[1][0]), pairs[-1])
    return max(y0 + (size - x0) * (y1 - y0) / (x1 - x0), 0.0)


class Part(NamedTuple):
    """One part of the whole, and where it ends.

    :param needs: what is asked of it; `one`: what one of its units takes; `ends`: when it must be split, or be
        something larger; `then`: what to do.
    """

    name: str
    needs: str
    one: str
    ends: str
    then: str


class Plan:
    """The needs of a demand."""

    def __init__(self, demand: Demand, figures: Figures) -> None:
        self.demand = demand
        self.figures = figures
        self.node = NODES[demand.node]

    def _at(self, *names: str) -> float:
        """Return a figure of the table of sizes, for sessions of this size."""

        def value(found: object) -> float:
            for name in names:
                found = getattr(found, name)
            assert isinstance(found, float)
            return found

        return at(self.demand.size, [(row.size, value(row)) for row in self.figures.sizes])

    # -- memory, processors, network -------------------------------------------------------------------------------

    @cached_property
    def bytes_each(self) -> float:
        """Return the bytes of a session, and of its place in the index of those in use."""
        return self._at("memory") + self.figures.index

    @cached_property
    def bytes_per_shard(self) -> float:
        """Return the bytes of sessions that one node is planned to hold."""
        return self.node.gib * GIB * (1 - RESERVED) * FULL - TRACKING

    def _each(self, name: str) -> float:
        """Return a figure of one request: a read that sends everything, or a hit of the near cache, and a write for
        some."""
        reads = (1 - self.demand.hits) * self._at("read", name) + self.demand.hits * self._at("near", name)
        return reads + self.demand.writes * self._at("write", name)

    @cached_property
    def server_cores(self) -> float:
        """Return the cores of Redis, for reads and writes, and for rows that the database has confirmed or made."""
        pushes = self.reads + self.commits
        return (self.demand.requests * self._each("server") + pushes * self._at("write", "server")) / 1e6

    @cached_property
    def requests_per_shard(self) -> float:
        """Return the requests a second that one node is planned to serve: commands run on one core."""
        return BUSY * self.demand.requests / self.server_cores

    @cached_property
    def client_cores(self) -> float:
        """Return the cores of the workers that work on sessions all the time."""
        asked = self.reads * self.figures.database.read.client + self.commits * self.figures.database.commit.client
        return (self.demand.requests * self._each("client") + asked) / 1e6

    @cached_property
    def wire(self) -> tuple[float, float]:
        """Return the bytes a second to the servers and from them."""
        return self.demand.requests * self._each("bytes_in"), self.demand.requests * self._each("bytes_out")

    @cached_property
    def bytes_per_link(self) -> float:
        """Return the bytes a second that the network of one node is planned to carry in one direction."""
        return BUSY * self.node.gbit * 1e9 / 8

    @cached_property
    def shards_by(self) -> dict[str, int]:
        """Return reason → how many shards it asks for."""
        return {
            "memory": math.ceil(self.demand.sessions * self.bytes_each / self.bytes_per_shard),
            "processor": math.ceil(self.server_cores / BUSY),
            "network": math.ceil(max(self.wire) / self.bytes_per_link),
        }

    @cached_property
    def shards(self) -> int:
        """Return how many shards there must be."""
        return max(self.shards_by.values())

    @cached_property
    def nodes(self) -> float:
        """Return the number of primaries and replicas."""
        return self.shards * (1 + self.demand.replicas)

    @cached_property
    def dollars(self) -> float:
        """Return the price of a month in USD."""
        return self.nodes * (self.demand.price or self.node.price) * HOURS

    # -- connections, database -------------------------------------------------------------------------------------

    @cached_property
    def connections(self) -> float:
        """Return the connections to one shard, at most: each process has one per thread, and those of its near
        cache."""
        return self.demand.workers * self._connections_each

    @property
    def _connections_each(self) -> float:
        return self.demand.threads + min(self.demand.threads, LANES)

    @cached_property
    def sign_ins(self) -> float:
        """Return the sign-ins a second."""
        return self.demand.sessions * self.demand.users / self.demand.stay

    @cached_property
    def rows(self) -> float:
        """Return the rows of the database: one per signed-in session, and those that ended since the last nightly
        purge."""
        return self.demand.sessions * self.demand.users + self.sign_ins * 86_400

    @cached_property
    def reads(self) -> float:
        """Return the reads a second of the database: each active session once in ``VERIFY_INTERVAL``."""
        return self.demand.active * self.demand.users / self.demand.verify

    @cached_property
    def extensions(self) -> float:
        """Return the writes a second that move the idle expiry of rows."""
        return self.demand.active * self.demand.users / (IDLE / 4)

    @property
    def commits(self) -> float:
        """Return the commits a second."""
        return self.sign_ins + self.extensions

    @cached_property
    def database_cores(self) -> float:
        """Return the cores of the database."""
        database = self.figures.database
        return (self.reads * database.read.server + self.commits * database.commit.server) / 1e6

    # -- the tables ------------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Return the table of all that is needed."""
        demand, shards = self.demand, self.shards_by
        rows = [
            ["memory of Redis", f"{_gb(demand.sessions * self.bytes_each)}; {self.bytes_each:,.0f} bytes each"],
            [
                f"shards of `{demand.node}`",
                f"{self.shards}: {', '.join(f'{name} asks for {n}' for name, n in shards.items())}",
            ],
            ["sessions per shard", f"{demand.sessions / self.shards:,.0f}"],
            ["processor of Redis", f"{self.server_cores:.2f} cores in all"],
            ["processor of the workers, for sessions", f"{self.client_cores:.1f} cores in all"],
            [
                "network, in all",
                f"{self.wire[0] * 8 / 1e6:,.0f} Mbit/s to Redis, {self.wire[1] * 8 / 1e6:,.0f} Mbit/s from it",
            ],
            [
                "connections",
                f"{self.connections:,.0f} to each shard, {self.connections * self.shards:,.0f} in all",
            ],
            [
                "rows in the database, before the nightly purge",
                f"{self.rows:,.0f}, {_gb(self.rows * self.figures.database.row)} with indexes",
            ],
            [
                "reads of the database",
                f"{self.reads:,.0f} a second: {demand.active * demand.users:,.0f} active users / {demand.verify:g} s",
            ],
            [
                "commits of the database",
                f"{self.sign_ins:,.0f} sign-ins and about {self.extensions:,.0f} extensions of the idle time a second",
            ],
            ["processor of the database", f"{self.database_cores:.1f} cores"],
            [
                "ElastiCache, on demand",
                f"{self.nodes:,.0f} nodes, {self.dollars:,.0f} USD a month ({self._price_of()})",
            ],
        ]
        return table(["what", "needed"], rows, texts=2)

    def _price_of(self) -> str:
        price = self.demand.price or self.node.price
        return f"{price:g} USD an hour each" + ("" if self.demand.price else f", us-east-1, {PRICES_OF}")

    def parts(self) -> str:
        """Return the table of the parts, and where each must be split."""
        head = ["part", "needed", "one takes", "must be split at", "what to do then"]
        return table(head, [list(part) for part in self._parts()], texts=5)

    def _parts(self) -> Iterable[Part]:
        demand, database = self.demand, self.figures.database
        held, served = self.bytes_per_shard / self.bytes_each, self.requests_per_shard
        yield Part(
            "server memory",
            _gb(demand.sessions * self.bytes_each),
            f"{_gb(self.bytes_per_shard)} per node: {held:,.0f} sessions",
            f"each further {held:,.0f} sessions",
            "one shard more (online resharding), or the next node type; `hash-max-listpack-value 1024` first",
        )
        yield Part(
            "server processor",
            f"{self.server_cores:.2f} cores",
            f"{served:,.0f} requests a second per shard, at {BUSY:.0%} of a core",
            f"each further {served:,.0f} requests a second",
            "one shard more: commands run on one core, so a node with more cores does not replace it",
        )
        yield Part(
            "connections",
            f"{self.connections:,.0f} per shard",
            f"{MOST_CONNECTIONS:,} per node",
            f"{MOST_CONNECTIONS / self._connections_each:,.0f} workers of {demand.threads:g} threads",
            "fewer threads per worker, or a second cluster for a part of the hosts: more shards do not help, each "
            "worker is connected to all",
        )
        core = 1e6 * BUSY / database.read.server
        yield Part(
            "database reads",
            f"{self.reads:,.0f} a second",
            f"{core:,.0f} a second per core, at {BUSY:.0%} of it",
            f"each further {core * demand.verify / demand.users:,.0f} active sessions"
            if demand.users
            else "– (no session is signed in)",
            "a larger `VERIFY_INTERVAL` (rights that are withdrawn count that much later), then more cores; replicas "
            "of the database are not used",
        )
        yield Part(
            "sign-in commits",
            f"{self.commits:,.0f} a second",
            f"{1e6 * BUSY / database.commit.server:,.0f} a second per core, and what the disk can make durable",
            "the commits that the disk of the primary can make durable",
            "a faster disk, or group commit in the database (`commit_delay`); a larger `IDLE_TIMEOUT` makes fewer "
            "extensions",
        )
        pooled = demand.workers * (CONCURRENCY + CALLS_BESIDE)
        yield Part(
            "database connections",
            f"{pooled:,.0f}",
            "`max_connections` of the database",
            f"{CONCURRENCY + CALLS_BESIDE} per worker",
            "PgBouncer in transaction mode, or a smaller `DATABASE_CONCURRENCY`",
        )
        kept = demand.requests * demand.writes / demand.hosts
        lasts = f"{JOURNAL_ENTRIES / kept:,.0f} s" if kept else "for ever"
        yield Part(
            "journal, all shards away",
            f"{kept:,.0f} entries a second per host",
            f"{JOURNAL_ENTRIES:,} entries (`JOURNAL_MAX_BYTES`)",
            f"{lasts} of an outage; with one shard of {self.shards} away {self.shards} times as long",
            "a larger `JOURNAL_MAX_BYTES`, or more hosts: each has a journal of its own",
        )
        yield Part(
            "metrics",
            f"an index of {_gb(demand.sessions * self.figures.index)} in Redis; {demand.workers:,.0f} requests to "
            "CloudWatch per interval",
            "the index is 16 sorted sets, which lie on at most 16 shards",
            "a shard whose sets do not fit beside its sessions",
            "Prometheus in place of CloudWatch saves the requests; without `METRICS` there is no index",
        )


def _gb(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"
