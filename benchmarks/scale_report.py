"""The figures of ``python -m benchmarks.scale`` as Markdown, and the page that has them."""

from __future__ import annotations

from collections.abc import Iterable

from .page import DOCS, table, written_into
from .scale_figures import Call, Cost, Figures, Load, Size
from .scale_plan import BUSY, Demand, Plan
from .scale_worker import WRITES

PAGE = DOCS / "explanation" / "scaling.md"

LATENCY_MS, PER_SECOND, FAILOVER_SECONDS = 1.0, 10_000, 30.0
"""What an operation may take in the same zone, how many there shall be, and how long a failover may take."""

QUIET = 0.25
"""The share of the processors that other programs may use."""

_WARNING = (
    "**The machine was busy. Times are several times too long, also those of processors, and what is calculated from "
    "them is too large by as much: repeat this on a quiet machine. Bytes and numbers are as they should be.**\n"
)

MONTH_MINUTES = 730 * 60

WHAT_IS_MIXED = f"{1 - WRITES:.0%} reads, {WRITES:.0%} writes"


def measured(figures: Figures) -> str:
    """Return the tables of all that was measured."""
    parts = [figures.machine + "\n", *([_WARNING] if figures.others > QUIET else [])]
    parts += [f"**Not measured:** {note}.\n" for note in figures.notes]
    parts += ["### Size of a session\n", _memory(figures), _costs(figures)]
    parts += ["### Number of sessions\n", _growth(figures)]
    parts += ["### Workers\n", _loads(figures.workers), "### Shards\n", _loads(figures.shards)]
    parts += ["### The database\n", _database(figures)]
    return "\n".join(parts)


def _memory(figures: Figures) -> str:
    rows = [
        [row.title, f"{row.size:,}", f"{row.sessions:,}", f"{row.memory:,.0f}", f"{row.tight:,.0f}"]
        for row in figures.sizes
    ]
    head = ["session", "bytes as JSON", "sessions", "bytes of Redis each", "with `hash-max-listpack-value 1024`"]
    return table(head, rows)


_COSTS = ["script, µs", "Redis, CPU µs", "worker, CPU µs", "p50, ms", "p99, ms", "bytes to Redis", "bytes from it"]


def _cost(cost: Cost) -> list[str]:
    times = [f"{cost.script:,.0f}", f"{cost.server:,.0f}", f"{cost.client:,.0f}", *_latency(cost)]
    return [*times, f"{cost.bytes_in:,.0f}", f"{cost.bytes_out:,.0f}"]


def _latency(cost: Cost) -> list[str]:
    return [f"{cost.p50 / 1000:.2f}", f"{cost.p99 / 1000:.2f}"]


def _costs_of(row: Size) -> list[tuple[str, Cost]]:
    """Return kind of request → its cost."""
    kinds = {"read": row.read, "read again": row.again, "read again, near cache": row.near, "write": row.write}
    return list(kinds.items())


def _costs(figures: Figures) -> str:
    rows = [[f"{row.title}: {name}", *_cost(cost)] for row in figures.sizes for name, cost in _costs_of(row)]
    return table(["session, request", *_COSTS], rows)


def _growth(figures: Figures) -> str:
    head = [
        "sessions",
        "bytes of Redis each",
        *(f"{kind}: {what}" for kind in ("read", "write") for what in _COSTS[:5]),
    ]
    rows = [
        [f"{row.sessions:,}", f"{row.memory:,.0f}", *_cost(row.read)[:5], *_cost(row.write)[:5]]
        for row in figures.growth
    ]
    return table(head, rows, texts=0)


def _loads(loads: Iterable[Load]) -> str:
    head = ["workers", "shards", "operations a second", "p50, ms", "p99, ms", "worker, CPU µs", "Redis, CPU µs"]
    rows = [
        [
            f"{load.workers}",
            f"{load.shards}",
            f"{load.per_second:,.0f}",
            *_latency(load.cost),
            f"{load.cost.client:,.0f}",
            f"{load.cost.server:,.0f}",
            f"{load.busy:.0%}",
            f"{load.connections}",
        ]
        for load in loads
    ]
    return table([*head, "Redis' core is busy", "connections"], rows, texts=0)


def _database(figures: Figures) -> str:
    found = figures.database
    rows = [
        ["rows", f"{found.rows:,}"],
        ["bytes per row, indexes included", f"{found.row:,.0f}"],
        ["a read: PostgreSQL, CPU µs; worker, CPU µs; p50, ms", _call(found.read)],
        ["a sign-in: PostgreSQL, CPU µs; worker, CPU µs; p50, ms", _call(found.commit)],
        ["bytes of Redis per session in the index of sessions in use", f"{figures.index:,.0f}"],
    ]
    return table(["PostgreSQL", "measured"], rows)


def _call(call: Call) -> str:
    return f"{call.server:,.0f}; {call.client:,.0f}; {call.p50:.2f}"


def targets(figures: Figures) -> str:
    """Return the goals beside what was measured."""
    smallest = figures.sizes[0]
    best = max(figures.workers, key=lambda load: load.per_second)
    mixed, lost = best.cost.server, figures.failover
    each, left = BUSY * 1e6 / mixed, max(0.0, LATENCY_MS - smallest.read.p50 / 1000)
    rows = [
        [
            f"an operation takes less than {LATENCY_MS:g} ms in the same zone",
            f"on loopback, sessions of {smallest.title}, p50 / p99 in ms: "
            + ", ".join(f"{name} {' / '.join(_latency(cost))}" for name, cost in _costs_of(smallest))
            + ". A read that asks, and a write, is one round trip, so "
            f"{left:.2f} ms are left for the network at p50",
            "the network of a zone",
        ],
        [
            f"{PER_SECOND:,} operations a second",
            f"{best.per_second:,.0f} a second by {best.workers} worker(s), all on one core ({WHAT_IS_MIXED}); Redis "
            f"took {mixed:.0f} µs of its core for each. So {each:,.0f} a second per shard at {BUSY:.0%} of a core, and "
            f"{PER_SECOND:,} by {-(-PER_SECOND // each):.0f} shard(s)",
            f"{PER_SECOND:,} at once: that needs more cores than this machine has",
        ],
        [
            f"a failover takes less than {FAILOVER_SECONDS:g} s",
            f"a killed primary of a Valkey cluster with `cluster-node-timeout {lost.node_timeout * 1000:.0f}`: "
            f"{lost.seconds:.1f} s until its replica stored a change. The {lost.requests:,} requests of a worker "
            f"meanwhile were all answered, the slowest after {lost.slowest:.0f} ms, and what they changed was kept in "
            "the journal",
            "ElastiCache: how soon it promotes a replica, and how soon its DNS follows",
        ],
        [
            f"available 99.9 % of the time ({MONTH_MINUTES / 1000:.0f} minutes a month may be lost)",
            "answers of 5xx that the session causes in an outage: none but those that refuse a sign-in "
            "([I13](../guarantees.md#the-invariants-by-number), [measured](../outages.md)). What an outage takes away, "
            "the metric `FallbackLevel` tells",
            "a month of anything; what AWS promises for its part is in its service level agreement",
        ],
    ]
    return table(["goal", "measured, or calculated from it", "not measured"], rows, texts=3)


def written_page(figures: Figures, page: str) -> str:
    """Return the page with these figures."""
    plan = Plan(Demand(), figures)
    reports = {
        "measured": measured(figures),
        "plan": plan.summary(),
        "parts": plan.parts(),
        "targets": targets(figures),
    }
    for name, report in reports.items():
        page = written_into(page, name, report)
    return page


def write_page(figures: Figures) -> None:
    """Put figures into the page."""
    PAGE.write_text(written_page(figures, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
