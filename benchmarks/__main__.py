"""``python -m benchmarks``: real servers on loopback, all contestants in one run, a Markdown report on stdout."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from devservers.servers import Postgres, Valkey

from . import measure
from .chart import PICTURE, svg
from .contestants import Contestant, Ours, OursWithoutNearCache, without_sql
from .cores import CORES, pin
from .measure import BARE, OURS, REFERENCE, Lane
from .network import Network
from .page import BENCHMARKS, write_into
from .report import Results, as_json, markdown
from .scenarios import SCENARIOS, Scenario

PARALLEL = 50


@dataclass(frozen=True)
class Effort:
    """The amount of measuring."""

    rounds: int
    calls: int
    tries: int


FULL = Effort(rounds=41, calls=40, tries=5)
QUICK = Effort(rounds=5, calls=8, tries=1)
DELAYED = replace(FULL, rounds=15, calls=20)
"""Each request takes longer, and all of them alike: fewer tell as much."""


@dataclass(frozen=True)
class Stage:
    """The servers, and the contestants that run on them.

    :param others: all contestants but ours.
    :param ours: SQL engine → our application on it.
    """

    admin: redis.Redis
    others: Sequence[Contestant]
    ours: dict[str, Contestant]

    def contestants(self, scenario: Scenario) -> list[Contestant]:
        """Return the contestants that take part in a scenario."""
        others = [one for one in self.others if scenario.database == "sqlite" or not isinstance(one, Ours)]
        contestants = [*others, self.ours[scenario.database]]
        return [contestant for contestant in contestants if measure.fits(contestant, scenario)]


@contextmanager
def staged(databases: set[str], cores: str = "apart", delay: float = 0.0) -> Iterator[Stage]:
    """Start the servers that are needed; stop them at the end.

    :param cores: one of :data:`CORES`.
    :param delay: seconds of network before the server, in each direction.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmarks-")))
        valkey = stack.enter_context(Valkey(folder / "valkey", appendonly=False))
        servers: list[Valkey | Postgres | Network] = [valkey]
        url = valkey.url
        if delay:
            servers.append(network := stack.enter_context(Network(folder / "network", valkey.port, delay)))
            url = network.instead_of(url)
        urls = {"sqlite": f"sqlite:///{folder / 'sessions.sqlite3'}"}
        if "postgresql" in databases:
            servers.append(postgres := stack.enter_context(Postgres(folder / "postgres")))
            urls["postgresql"] = postgres.url
        pin(cores, *(server.pid for server in servers))
        ours: dict[str, Contestant] = {
            name: Ours(url, database, folder / f"ours-{name}") for name, database in urls.items()
        }
        more: list[Contestant] = [
            OursWithoutNearCache(url, urls["sqlite"], folder / "asking"),
        ]
        for contestant in (*ours.values(), *more):
            stack.callback(contestant.close)
        others = [*without_sql(url), *more]
        yield Stage(stack.enter_context(redis.Redis.from_url(valkey.url)), others, ours)


def run(scenarios: Sequence[Scenario], effort: Effort, *, cores: str, everything: bool, delay: float = 0.0) -> Results:
    """Measure. Without `everything` only the scenarios: no lost updates."""
    with staged({scenario.database for scenario in scenarios}, cores, delay) as stage:
        lanes = [Lane(contestant, scenario) for scenario in scenarios for contestant in stage.contestants(scenario)]
        measure.run_rounds(lanes, rounds=effort.rounds, calls=effort.calls, progress=_say)
        _say("counting traffic")
        served = [lane for lane in lanes if not delay and lane.contestant.name not in (BARE, "cookie")]
        contestants = [*stage.others, stage.ours["sqlite"]]
        return Results(
            versions=_versions(stage.admin, cores, delay),
            delay=delay,
            labels={contestant.name: contestant.label for contestant in contestants},
            scenarios=scenarios,
            lanes={_names(lane): lane for lane in lanes},
            traffic={_names(lane): measure.traffic(lane, stage.admin, 20) for lane in served},
            lost=_lost(contestants, effort) if everything else {},
            requests=PARALLEL,
            outages=sum(contestant.outages for contestant in stage.ours.values()),
        )


def _names(lane: Lane) -> tuple[str, str]:
    return lane.scenario.name, lane.contestant.name


def _lost(contestants: Sequence[Contestant], effort: Effort) -> dict[str, list[int]]:
    _say(f"{PARALLEL} parallel requests")
    rivals = [contestant for contestant in contestants if contestant.name in (REFERENCE, OURS)]
    return {c.name: [measure.lost_updates(c, PARALLEL) for _ in range(effort.tries)] for c in rivals}


def _versions(admin: redis.Redis, cores: str, delay: float) -> str:
    server = admin.info("server")
    assert isinstance(server, dict)
    packages = ("flask", "flask-session", "redis", "hiredis", "sqlalchemy", "msgspec")
    mine = ", ".join(f"{name} {version(name)}" for name in packages)
    valkey = server.get("valkey_version") or server["redis_version"]
    machine = f"{os.cpu_count()} cores, loopback, {CORES[cores]}"
    if delay:
        machine += f", {delay * 1000:g} ms of network each way"
    return f"{machine}. Python {platform.python_version()}, Valkey {valkey}, {mine}.\n"


def _say(text: str) -> None:
    print(f"\r{text:<40}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Run the benchmarks. Targets are printed, met or not; nothing fails on them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean little")
    parser.add_argument("--only", metavar="SCENARIO", action="append", choices=[s.name for s in SCENARIOS])
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every round's figures there")
    parser.add_argument("--write", action="store_true", help="put report and picture into docs/ as well")
    parser.add_argument("--delay", metavar="MS", type=float, default=0, help="of network, in each direction")
    if hasattr(os, "sched_setaffinity"):
        parser.add_argument("--cores", choices=CORES, default="apart", help="where client and server run")
    options = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if not options.only or scenario.name in options.only]
    cores = getattr(options, "cores", "any")
    effort = QUICK if options.quick else DELAYED if options.delay else FULL
    everything = not (options.only or options.delay)
    results = run(chosen, effort, cores=cores, everything=everything, delay=options.delay / 1000)
    _say("")
    print("\r", end="", file=sys.stderr)
    text, figures = markdown(results), as_json(results)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.write:
        write_into(BENCHMARKS, "requests-delayed" if options.delay else "requests", text)
        if not options.delay:
            PICTURE.write_text(svg(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
