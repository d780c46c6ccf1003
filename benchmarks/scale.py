"""``python -m benchmarks.scale``: what sessions cost as there are more of them, larger ones, more workers, more shards.

Real Valkey servers and PostgreSQL on loopback. Sessions are written in the form that the store gives them, many in one
round trip, and read and written by worker processes through the repository, without HTTP. On a machine of two cores all
workers share one and all servers the other: figures of more workers say how it degrades. What a server can do follows
from the processor time that it takes for an operation.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import psutil
import redis
import sqlalchemy as sa
from redis.crc import key_slot

from devservers.cluster import LONG, last_slot, running_shards, says
from devservers.servers import Postgres, Valkey
from flask_langpont_session.stores.sql.database import Database, make_engine
from flask_langpont_session.stores.sql.tables import SESSIONS

from .cores import CORES, apart
from .memory import used
from .page import arguments, machine, publish, say, table
from .plan import PAGE
from .scale_worker import WARM, Order, Report, data_of_size, session, work
from .workers import Process

KB = 1024
FAILOVER_SHARDS = 3
"""The fewest of which a majority is left when one is lost."""

NODE_TIMEOUT = 15.0
"""``cluster-node-timeout``, seconds."""

_ROWS_AT_A_TIME = 5000
_YEAR_MS = 365 * 86_400_000


@dataclass(frozen=True)
class Effort:
    """The amount of measuring.

    :param seconds: of each kind of request.
    :param sizes: bytes of a session → how many.
    :param sessions: numbers of sessions of 1 KB, one after the other.
    :param shards: numbers of them; three are among them, of which one is lost.
    :param workers_of_shards: that use them.
    :param stored: sessions of 1 KB that several workers and shards have.
    :param votes: whether the other primaries vote for the new one; on a busy machine they may take a minute.
    :param rows: of the database; `calls`: of each kind.
    """

    seconds: float
    sizes: Mapping[int, int]
    sessions: Sequence[int]
    workers: Sequence[int]
    shards: Sequence[int]
    workers_of_shards: int
    stored: int
    votes: bool
    rows: int
    calls: int


_SIZES = {KB: 10_000, 10 * KB: 3000, 100 * KB: 500, KB * KB: 60}
FULL = Effort(3.0, _SIZES, (10_000, 100_000, 1_000_000), (1, 2, 4, 8, 16), (1, 2, 3, 6), 4, 20_000, True, 100_000, 2000)
QUICK = Effort(0.0, {KB: 40, 100 * KB: 20}, (40, 80), (1,), (3,), 1, 60, False, 50, 10)


# -- servers and workers -----------------------------------------------------------------------------------------------


@dataclass
class Servers:
    """The shards, and what they say of themselves, added up.

    :param clients: one of each.
    :param replicas: one of each, in a cluster.
    """

    nodes: Sequence[Valkey]
    clients: Sequence[redis.Redis]
    replicas: Sequence[Valkey]

    @property
    def url(self) -> str:
        """Return the URL that leads an application to these servers."""
        if not self.replicas:
            return self.nodes[0].url
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def memory(self) -> int:
        """Return the bytes in use, without the buffers of connections."""
        return sum(map(used, self.clients))

    def connections(self) -> int:
        """Return the number of the workers' connections."""
        found: list[Any] = [client.info("clients") for client in self.clients]
        return sum(each["connected_clients"] - 1 for each in found)

    def counters(self) -> Mapping[str, float]:
        """Return seconds of processors, microseconds and calls of scripts, bytes."""
        every: list[Any] = [client.info("all") for client in self.clients]
        scripts = [found["cmdstat_evalsha"] for found in every if "cmdstat_evalsha" in found]
        return {
            "cpu": sum(found["used_cpu_user"] + found["used_cpu_sys"] for found in every),
            "usec": sum(script["usec"] for script in scripts),
            "calls": sum(script["calls"] for script in scripts),
            "bytes_in": sum(found["total_net_input_bytes"] for found in every),
            "bytes_out": sum(found["total_net_output_bytes"] for found in every),
        }


@contextmanager
def serving(folder: Path, shards: int | None = None) -> Iterator[Servers]:
    """Run a single server, or a cluster of so many shards with a replica each."""
    with ExitStack() as stack:
        if shards is None:
            nodes = [stack.enter_context(Valkey(folder / "valkey", appendonly=False))]
        else:
            timeout = ("--cluster-node-timeout", str(int(NODE_TIMEOUT * 1000)))
            nodes = stack.enter_context(running_shards(folder, shards, timeout))
        if len(CORES) == 2:
            stack.enter_context(apart(*(node.pid for node in nodes)))
        primaries = nodes[:shards]
        clients = [stack.enter_context(node.client()) for node in primaries]
        yield Servers(primaries, clients, nodes[len(primaries) :])


@dataclass
class Crew:
    """Worker processes of one host. A context manager."""

    folder: Path
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Have no worker yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._workers: list[Process] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.close()

    def do(self, *orders: Order) -> list[Report]:
        """Have as many workers as there are orders, and each of them do one."""
        while len(self._workers) < len(orders):
            # The first one makes the files that all share, and learns which server it is that they trust.
            self._workers.append(Process(work, self.folder, self.settings))
            self._workers[-1].answer()
        for worker, order in zip(self._workers, orders, strict=False):
            worker.send(order)
        return [worker.answer() for worker in self._workers[: len(orders)]]


def crew(folder: Path, servers: Servers, **settings: Any) -> Crew:
    """Return the workers of a host on these servers."""
    return Crew(folder / "host", {"REDIS_URL": servers.url, **settings})


# -- figures -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """The cost of one operation; times in microseconds.

    :param script: in the script, by the server's own statistics: wall time.
    :param server: processor time of the server, its sockets included; `client`: of the worker.
    :param bytes_in: to the server; `bytes_out`: from it.
    :param per_second: operations of all workers; `busy`: the share of one core that all servers took.
    """

    script: float
    server: float
    client: float
    p50: float
    p99: float
    bytes_in: float
    bytes_out: float
    per_second: float
    busy: float

    def cells(self) -> list[str]:
        """Return the cells of a table: times, then bytes."""
        times = [f"{self.script:,.0f}", f"{self.server:,.0f}", f"{self.client:,.0f}", *self.latency()]
        return [*times, f"{self.bytes_in:,.0f}", f"{self.bytes_out:,.0f}"]

    def latency(self) -> list[str]:
        """Return the cells of p50 and p99, in milliseconds."""
        return [f"{self.p50 / 1000:.2f}", f"{self.p99 / 1000:.2f}"]


def timed(servers: Servers, workers: Crew, *orders: Order) -> Cost:
    """Measure orders that are carried out at the same time."""
    workers.do(*(replace(order, seconds=0.0) for order in orders))
    before, began = servers.counters(), time.perf_counter()
    reports = workers.do(*orders)
    seconds, after = time.perf_counter() - began, servers.counters()
    spent = {name: after[name] - before[name] for name in before}
    took = sorted(us for report in reports for us in report.took)
    number = len(took)
    return Cost(
        script=spent["usec"] / max(1, spent["calls"]),
        server=spent["cpu"] / number * 1e6,
        client=sum(report.cpu for report in reports) / number * 1e6,
        p50=took[number // 2],
        p99=took[int(number * 0.99)],
        bytes_in=spent["bytes_in"] / number,
        bytes_out=spent["bytes_out"] / number,
        per_second=sum(len(report.took) / report.seconds for report in reports),
        busy=spent["cpu"] / seconds,
    )


_COSTS = ["script, µs", "Redis, CPU µs", "worker, CPU µs", "p50, ms", "p99, ms", "bytes to Redis", "bytes from it"]


# -- what is measured, each a table ------------------------------------------------------------------------------------


def sizes(folder: Path, effort: Effort) -> str:
    """Measure sessions of each size. One worker has all that the package has, one no near cache, and one remembers
    nothing."""
    memory, costs = [], []
    with serving(folder) as servers, ExitStack() as stack:
        workers = stack.enter_context(crew(folder, servers))
        asking = stack.enter_context(crew(folder, servers, NEAR_CACHE=[]))
        forgetful = stack.enter_context(crew(folder, servers, MEMORY_BYTES=0))
        for size, number in effort.sizes.items():
            title = f"{size // KB} KB" if size < KB * KB else f"{size // KB // KB} MB"
            first = 1000 * size
            loose = _growth(servers, lambda: workers.do(Order("fill", first, number, size)), number)  # noqa: B023
            order = Order("read", first, number, size, effort.seconds)
            known = replace(order, count=min(number, WARM))  # a worker remembers all of them, unless they are too large
            for kind, cost in (
                ("read", timed(servers, forgetful, order)),
                ("read again", timed(servers, asking, known)),
                ("read again, near cache", timed(servers, workers, known)),
                ("write", timed(servers, workers, replace(order, work="write"))),
            ):
                costs.append([f"{title}: {kind}", *cost.cells()])
            servers.clients[0].config_set("hash-max-listpack-value", "1024")
            tight = _growth(servers, lambda: workers.do(Order("fill", first + number, number, size)), number)  # noqa: B023
            servers.clients[0].config_set("hash-max-listpack-value", "64")
            as_json = sum(len(msgspec.json.encode(part)) for part in data_of_size(size).values())
            memory.append([title, f"{as_json:,}", f"{number:,}", f"{loose:,.0f}", f"{tight:,.0f}"])
    head = ["session", "bytes as JSON", "sessions", "bytes of Redis each", "with `hash-max-listpack-value 1024`"]
    return f"{table(head, memory)}\n{table(['session, request', *_COSTS], costs)}"


def _growth(servers: Servers, fill: Callable[[], object], number: int) -> float:
    """Return the bytes of the servers for each further session."""
    before = servers.memory()
    fill()
    return (servers.memory() - before) / number


def numbers(folder: Path, effort: Effort) -> str:
    """Measure more and more sessions on one server."""
    rows, there = [], 0
    with serving(folder) as servers, crew(folder, servers, MEMORY_BYTES=0) as workers:
        empty = servers.memory()
        for number in effort.sessions:
            workers.do(Order("fill", there, number - there))
            memory, there = (servers.memory() - empty) / number, number
            # Of the later half: those that are asked for lie anywhere in the memory of the server.
            order = Order("read", number // 2, number // 2, KB, effort.seconds)
            read, write = (timed(servers, workers, replace(order, work=kind)) for kind in ("read", "write"))
            rows.append([f"{number:,}", f"{memory:,.0f}", *read.cells()[:5], *write.cells()[:5]])
    head = [f"{kind}: {what}" for kind in ("read", "write") for what in _COSTS[:5]]
    return table(["sessions", "bytes of Redis each", *head], rows, texts=0)


_LOADS = ["workers", "shards", "operations a second", "p50, ms", "p99, ms", "worker, CPU µs", "Redis, CPU µs"]
_LOADS += ["Redis' core is busy", "connections"]


def _load(servers: Servers, workers: Crew, number: int, order: Order) -> list[str]:
    cost = timed(servers, workers, *[order] * number)
    return [
        *(str(number), str(len(servers.nodes)), f"{cost.per_second:,.0f}", *cost.latency()),
        *(f"{cost.client:,.0f}", f"{cost.server:,.0f}", f"{cost.busy:.0%}", str(servers.connections())),
    ]


def more_workers(folder: Path, effort: Effort) -> tuple[str, float]:
    """Measure more and more workers on one server; and the bytes of a session in the index of those in use."""
    with serving(folder) as servers, crew(folder, servers) as workers:
        workers.do(Order("fill", 0, effort.stored))
        order = Order("mixed", 0, effort.stored, KB, effort.seconds)
        rows = [_load(servers, workers, number, order) for number in effort.workers]
        index = _growth(servers, lambda: workers.do(Order("index", 0, effort.stored)), effort.stored)
    return table(_LOADS, rows, texts=0), index


def more_shards(folder: Path, effort: Effort) -> str:
    """Measure the same workers on more and more shards of a cluster, each with a replica; and the loss of one of three
    primaries."""
    rows, lost = [], ""
    for shards in effort.shards:
        place = folder / f"{shards}"
        with serving(place, shards) as servers, crew(place, servers) as workers:
            workers.do(Order("fill", 0, effort.stored))
            order = Order("mixed", 0, effort.stored, KB, effort.seconds)
            rows.append(_load(servers, workers, effort.workers_of_shards, order))
            if shards == FAILOVER_SHARDS:
                lost = _failover(servers, workers, effort)
    return f"{table(_LOADS, rows, texts=0)}\n{lost}\n"


def _failover(servers: Servers, workers: Crew, effort: Effort) -> str:
    """Kill a primary, and measure until its replica takes over, which is as soon as the other primaries agree on
    that."""
    last = last_slot(0, FAILOVER_SHARDS)
    first = next(n for n in range(effort.stored) if key_slot(session(n).digest.encode()) <= last)
    killed = time.monotonic()
    servers.nodes[0].kill()
    if not effort.votes:
        says(servers.replicas[0], "CLUSTER", "FAILOVER", "TAKEOVER")
    [report] = workers.do(Order("return", first, 1, seconds=2 * LONG))
    return (
        f"One of three primaries is killed (`cluster-node-timeout {NODE_TIMEOUT * 1000:.0f}`): after "
        f"{time.monotonic() - killed:.1f} s its replica stores a change. The {len(report.took):,} requests of a worker "
        f"meanwhile are all answered, the slowest after {max(report.took) / 1000:.0f} ms, and what they change is kept "
        "in the journal."
    )


def database(folder: Path, effort: Effort, index: float) -> str:
    """Measure PostgreSQL, as the package uses it."""
    with ExitStack() as stack:
        server = stack.enter_context(Postgres(folder))
        if len(CORES) == 2:
            stack.enter_context(apart(server.pid))
        store = Database(make_engine(server.url, 10.0), timeout=10.0)
        stack.callback(store.engine.dispose)
        store.upkeep.create_tables()
        payload = {name: msgspec.json.encode(value) for name, value in data_of_size(KB)["auth"].items()}
        row = _fill_rows(store, effort.rows, payload)
        life: dict[str, Any] = {"idle_ms": _YEAR_MS, "absolute_ms": _YEAR_MS, "user_id": "1207"}
        step = max(1, effort.rows // effort.calls)

        def read(n: int) -> object:
            return store.load(session(n * step % effort.rows).digest, idle_ms=0)

        def create(n: int) -> object:
            return store.create(session(effort.rows + n).digest, payload=payload, **life)

        rows = [
            ["rows", f"{effort.rows:,}"],
            ["bytes per row, indexes included", f"{row:,.0f}"],
            ["a read: PostgreSQL, CPU µs; worker, CPU µs; p50, ms", _calls(server.pid, effort.calls, read)],
            ["a sign-in: PostgreSQL, CPU µs; worker, CPU µs; p50, ms", _calls(server.pid, effort.calls, create)],
            ["bytes of Redis per session in the index of sessions in use", f"{index:,.0f}"],
        ]
    return table(["PostgreSQL", "measured"], rows)


def _fill_rows(store: Database, rows: int, payload: Mapping[str, bytes]) -> float:
    """Write rows. Return the bytes of each, with its share of the indexes."""
    text = json.dumps({name: value.decode() for name, value in payload.items()})
    now = int(time.time() * 1000)
    same = {"version": 1, "live": True, "payload": text, "user_epoch": 0}
    same |= dict.fromkeys(("created_at", "updated_at"), now)
    same |= dict.fromkeys(("idle_expires_at", "absolute_expires_at"), now + _YEAR_MS)
    with store.engine.begin() as connection:
        for first in range(0, rows, _ROWS_AT_A_TIME):
            part = range(first, min(rows, first + _ROWS_AT_A_TIME))
            values = [{"digest": session(n).digest, "user_id": str(n), **same} for n in part]
            connection.execute(sa.insert(SESSIONS), values)
        size = connection.execute(sa.text("SELECT pg_total_relation_size('langpont_sessions')")).scalar_one()
    return float(size) / rows


def _calls(pid: int | None, number: int, call: Callable[[int], object]) -> str:
    call(0)
    before, cpu, took = _processors(pid), time.process_time(), []
    for n in range(1, number + 1):
        began = time.perf_counter()
        assert call(n) is not None, f"row {n} is not there"
        took.append(time.perf_counter() - began)
    own, theirs = time.process_time() - cpu, _processors(pid) - before
    # Linux counts the processor time of others in hundredths of a second.
    return f"{max(1.0, theirs / number * 1e6):,.0f}; {own / number * 1e6:,.0f}; {sorted(took)[number // 2] * 1000:.2f}"


def _processors(pid: int | None) -> float:
    first = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in [first, *first.children(recursive=True)])


# -- the report --------------------------------------------------------------------------------------------------------


def markdown(effort: Effort) -> str:
    """Measure, and return the report."""
    where = "all workers on one core, all servers on another" if len(CORES) == 2 else "all where the kernel puts them"
    what = machine(f"loopback; {where}", "redis", "hiredis", "sqlalchemy", "psycopg")
    parts = [f"{what} Load of the machine before the run: {os.getloadavg()[0]:.1f}.\n"]
    with TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        say("sizes of sessions")
        parts += ["### Size of a session\n", sizes(folder / "sizes", effort)]
        say("numbers of sessions")
        parts += ["### Number of sessions\n", numbers(folder / "numbers", effort)]
        say("workers")
        loads, index = more_workers(folder / "workers", effort)
        parts += ["### Workers\n", loads]
        say("shards")
        parts += ["### Shards\n", more_shards(folder / "shards", effort)]
        say("database")
        parts += ["### The database\n", database(folder / "postgres", effort, index)]
    return "\n".join(parts)


if __name__ == "__main__":
    options = arguments("benchmarks.scale", __doc__).parse_args()
    publish(markdown(QUICK if options.quick else FULL), options, "measured", PAGE)
