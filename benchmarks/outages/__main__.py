"""``python -m benchmarks.outages``: the same outages for this package, Flask-Session and Django's ``cached_db``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
from importlib.metadata import version
from pathlib import Path

from ..page import DOCS, write_into
from . import chart, detection, run
from .faults import OUTAGES
from .report import COMPARISON, DETECTION, Results, as_json, markdown
from .run import FULL, QUICK, Effort
from .stage import SYSTEMS, THREADS, WORKERS, Stage, System, compare_bodies, staged

DOCUMENT = DOCS / "outages.md"


def compare(systems: tuple[System, ...], effort: Effort, seed: int) -> Results:
    """Make one run. :raises BodiesDiffer: there is nothing to compare. :raises NoOutage: there is nothing to report."""
    _say("starting the servers")
    with staged(systems) as stage:
        bodies = compare_bodies(stage)
        rows = []
        for kind in OUTAGES:
            if kind.name in effort.outages:
                _say(kind.title)
                rows.append(run.outage(stage, kind, effort, seed))
        return Results(_machine(stage, systems), systems, bodies, _load(effort, seed), rows)


def _machine(stage: Stage, systems: tuple[System, ...]) -> str:
    with stage.redis.client() as redis:
        server = redis.info("server")
        assert isinstance(server, dict)
    packages = [name for system in systems for name in system.packages]
    found = ", ".join(f"{name} {version(name)}" for name in [*packages, "redis", "sqlalchemy", "psycopg", "gunicorn"])
    valkey = server.get("valkey_version") or server["redis_version"]
    return (
        f"{os.cpu_count()} cores, loopback; Linux {platform.release()}, Python {platform.python_version()}, "
        f"Valkey {valkey}, PostgreSQL 18; {found}."
    )


def _load(effort: Effort, seed: int) -> str:
    return (
        f"Each system: gunicorn with {WORKERS} workers of {THREADS} threads; {effort.stay} users who stay, and "
        f"{effort.leave} who sign out during the outage while a second tab of theirs goes on reading; each tab asks "
        f"every 0.1–0.2 s (seed {seed}). An outage lasts {effort.seconds:g} s (FLUSHALL: a moment) and hits all "
        "systems at once."
    )


def _say(text: str) -> None:
    print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Print the report; fail only if there is nothing to report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outages", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four short outages: does it run?")
    parser.add_argument("--seed", type=int, default=None, help="repeat the load of another run")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there (not of --detection)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/outages.md as well")
    parser.add_argument("--detection", action="store_true", help="instead: how soon this package notices and recovers")
    options = parser.parse_args()
    if options.detection:
        name, text = DETECTION, detection.report(times=2 if options.quick else 5, seconds=1.0, say=_say)
    else:
        seed = random.randrange(1_000_000) if options.seed is None else options.seed
        results = compare(SYSTEMS, QUICK if options.quick else FULL, seed)
        name, text = COMPARISON, markdown(results)
        if options.json:
            options.json.write_text(json.dumps(as_json(results), indent=1) + "\n")
    print(f"\r{'':<60}\r", end="", file=sys.stderr, flush=True)
    print(text)
    if options.write:
        write_into(DOCUMENT, name, text)
        chart.draw()


if __name__ == "__main__":
    main()
