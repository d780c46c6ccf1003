"""``python -m benchmarks``: what a request costs, of all contestants in one run on real servers on loopback.

Targets are printed, met or not; nothing fails on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from devservers.servers import Postgres, Valkey

from . import charts, measure
from .contestants import KINDS, Bare, Contestant, FlaskSession, Ours, SignedCookie
from .cores import apart
from .measure import Lane
from .network import Network
from .page import arguments, machine, publish, say
from .report import PARALLEL, Results, markdown
from .scenarios import SCENARIOS, Scenario


@dataclass(frozen=True)
class Effort:
    """The amount of measuring. :param tries: of parallel requests."""

    rounds: int
    calls: int
    tries: int


FULL, QUICK = Effort(rounds=41, calls=40, tries=5), Effort(rounds=5, calls=8, tries=1)
DELAYED = Effort(rounds=15, calls=20, tries=0)
"""Each request takes longer, and all of them alike: fewer tell as much."""


@contextmanager
def running(databases: set[str], delay: float) -> Iterator[tuple[redis.Redis, dict[str, list[Contestant]]]]:
    """Run the servers that are needed. Yield a client of Redis, and the contestants on each SQL database.

    :param delay: seconds of network before Redis, in each direction.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmarks-")))
        valkey = stack.enter_context(Valkey(folder / "valkey", appendonly=False))
        servers: list[Valkey | Postgres | Network] = [valkey]
        url = valkey.url
        if delay:
            servers.append(network := stack.enter_context(Network(folder / "network", valkey.port, delay)))
            url = network.instead_of(url)
        if "postgresql" in databases:
            servers.append(postgres := stack.enter_context(Postgres(folder / "postgres")))
        stack.enter_context(apart(*(server.pid for server in servers)))
        there = [kind(url, folder / kind.name) for kind in KINDS]
        by_database = {"sqlite": there}
        if "postgresql" in databases:
            ours = Ours(url, folder / "ours-postgresql", postgres.url)
            by_database["postgresql"] = [*(one for one in there if not isinstance(one, Ours)), ours]
        for contestant in {id(one): one for each in by_database.values() for one in each}.values():
            stack.callback(contestant.close)
        yield stack.enter_context(valkey.client()), by_database


def run(scenarios: Sequence[Scenario], effort: Effort, *, everything: bool, delay: float) -> Results:
    """Measure. Without `everything` only the scenarios: no lost updates."""
    with running({scenario.database for scenario in scenarios}, delay) as (admin, contestants):
        lanes = [
            Lane(contestant, scenario)
            for scenario in scenarios
            for contestant in contestants[scenario.database]
            if measure.fits(contestant, scenario)
        ]
        measure.run_rounds(lanes, effort.rounds, effort.calls)
        say("counting traffic")
        served = [lane for lane in lanes if not delay and not isinstance(lane.contestant, Bare | SignedCookie)]
        traffic = {_names(lane): measure.traffic(lane, admin) for lane in served}
        rivals = [one for one in contestants["sqlite"] if everything and type(one) in (FlaskSession, Ours)]
        where = "loopback, client and server on a core each"
        if delay:
            where += f", {delay * 1000:g} ms of network each way"
        return Results(
            machine(where, "flask", "flask-session", "redis", "hiredis", "sqlalchemy", "msgspec"),
            scenarios,
            {_names(lane): lane for lane in lanes},
            bool(delay),
            traffic,
            {type(one): [measure.lost_updates(one, PARALLEL) for _ in range(effort.tries)] for one in rivals},
            sum(one.outages for each in contestants.values() for one in each),
        )


def _names(lane: Lane) -> tuple[str, str]:
    return lane.scenario.name, lane.contestant.name


def main() -> None:
    """Print the report."""
    parser = arguments("benchmarks", __doc__)
    parser.add_argument("--only", metavar="SCENARIO", action="append", choices=[s.name for s in SCENARIOS])
    parser.add_argument("--delay", metavar="MS", type=float, default=0, help="of network, in each direction")
    options = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if not options.only or scenario.name in options.only]
    effort = QUICK if options.quick else DELAYED if options.delay else FULL
    everything = not (options.only or options.delay)
    results = run(chosen, effort, everything=everything, delay=options.delay / 1000)
    publish(markdown(results), options, "requests-delayed" if options.delay else "requests")
    if options.write:
        charts.draw()


if __name__ == "__main__":
    main()
