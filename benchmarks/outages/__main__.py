"""``python -m benchmarks.outages``: the same outages for this package, Flask-Session and Django's ``cached_db``.

Every outage hits all systems at the same moment, under the same load.
"""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .. import charts
from ..page import arguments, machine, publish, say, table
from . import detection
from .faults import OUTAGES, Outage
from .history import Figures, figures
from .load import Load
from .stage import SYSTEMS, THREADS, WORKERS, Stage, System, compare_bodies, staged

QUIET = 1.5
"""Seconds without anything wrong after which all is well."""


@dataclass(frozen=True)
class Effort:
    """The amount of work.

    :param seconds: that an outage lasts.
    :param watched: seconds for which its end is watched at least, and at most.
    :param stay: browsers that stay, at each system; `leave`: that sign out.
    """

    outages: Sequence[Outage]
    seconds: float
    systems: Sequence[System] = SYSTEMS
    watched: tuple[float, float] = (4.0, 10.0)
    stay: int = 3
    leave: int = 3


BEFORE = 0.7
"""Seconds of load before an outage."""

FULL = Effort(OUTAGES, seconds=4.0)
QUICK = Effort(OUTAGES[:1], seconds=1.5, systems=SYSTEMS[:1], watched=(2.0, 8.0), stay=2, leave=2)


@dataclass(frozen=True)
class Row:
    """One outage.

    :param figures: system → what it did to the system's users.
    :param proof: what says that it was there.
    :param observed: seconds from its end to that of the observation.
    """

    outage: Outage
    figures: Mapping[str, Figures]
    proof: Sequence[str]
    observed: float


def measure(stage: Stage, outage: Outage, effort: Effort, seed: int) -> Row:
    """Let one outage happen. :raises NoOutage: it did not."""
    leaves = tuple(effort.seconds * (n + 0.5) / (effort.leave + 1) for n in range(effort.leave))
    loads = {name: Load(site.url, f"{seed}-{outage.name}", effort.stay, leaves) for name, site in stage.sites.items()}
    proof: list[str] = []
    for load in loads.values():
        load.start()
    try:
        time.sleep(BEFORE)  # the load without an outage is a part of what is measured
        began = time.monotonic()
        with outage.causing(stage, proof):
            for load in loads.values():
                load.outage()
            healed = time.monotonic()  # of one that is over when it has happened
            time.sleep(effort.seconds if outage.lasts else 0.0)  # how long it lasts is what the row is about
        healed = time.monotonic() if outage.lasts else healed

        def found(at: float) -> dict[str, Figures]:
            events = {name: list(load.events) for name, load in loads.items()}
            return {name: figures(events[name], began=began, healed=healed, ended=at, quiet=QUIET) for name in loads}

        _watch(found, healed, effort)
    finally:
        for load in loads.values():
            load.stop()
    ended = time.monotonic()
    return Row(outage, found(ended), proof, ended - healed)


def _watch(found: Callable[[float], dict[str, Figures]], healed: float, effort: Effort) -> None:
    least, most = effort.watched
    time.sleep(least)  # what goes wrong late would be missed by one that ends with the recovery
    while time.monotonic() < healed + most:
        if all(each.recovery is not None for each in found(time.monotonic()).values()):
            return
        time.sleep(0.25)  # looking reads all that was noted, and takes time from the load


# -- the report --------------------------------------------------------------------------------------------------------


def markdown(effort: Effort, seed: int) -> str:
    """Measure, and return the report. :raises BodiesDiffer: there is nothing to compare."""
    say("starting the servers")
    rows = []
    with staged(effort.systems) as stage:
        bodies = compare_bodies(stage)
        for outage in effort.outages:
            say(outage.title)
            rows.append(measure(stage, outage, effort, seed))
    names = [f"**{system.name}**" if system is SYSTEMS[0] else system.name for system in effort.systems]
    cells = [[row.outage.title, *(_cell(found, row.observed) for found in row.figures.values())] for row in rows]
    packages = [name for system in effort.systems for name in system.packages]
    return "\n".join(
        [
            machine(f"loopback; Linux {platform.release()}", *packages, "redis", "sqlalchemy", "psycopg", "gunicorn"),
            "",
            f"Each system: gunicorn with {WORKERS} workers of {THREADS} threads; {effort.stay} users who stay, and "
            f"{effort.leave} who sign out during the outage while a second tab of theirs goes on reading; each tab "
            f"asks every 0.1–0.2 s (seed {seed}). An outage lasts {effort.seconds:g} s (FLUSHALL: a moment) and hits "
            "all systems at once.",
            "",
            f"Before the first outage {bodies} answers (status and body) were compared: equal at all systems.",
            "",
            table(["outage", *names], cells, texts=1 + len(names)),
            "That each outage was there:",
            "",
            *(f"- {row.outage.title}: {'; '.join(row.proof)}." for row in rows),
            "",
            "How the systems were configured:",
            "",
            *(f"- {system.name}: {system.configured}." for system in effort.systems),
            "",
        ]
    )


def _cell(found: Figures, observed: float) -> str:
    lost = (f"{name} {_bad(found.lost[name])} of {number}" for name, number in sorted(found.written.items()))
    parts = [
        f"5xx: {_bad(found.errors)} of {found.requests}",
        f"slowest: {found.slowest:.2f} s",
        f"logged out: {_bad(found.logged_out)}" + (f" (+ {found.for_a_moment} briefly)" if found.for_a_moment else ""),
        f"lost writes: {', '.join(lost)}",
        f"resurrected: {_bad(found.resurrected)} of {found.signed_out}",
    ]
    if found.unanswered:
        parts.insert(1, f"no answer: {_bad(found.unanswered)}")
    if found.not_signed_out:
        parts.append(f"sign-out failed, still signed in: {_bad(found.not_signed_out)}")
    well = f"**not within {observed:.0f} s**" if found.recovery is None else f"{found.recovery:.1f} s"
    return "<br>".join([*parts, f"all well after: {well}"])


def _bad(number: int) -> str:
    return f"**{number}**" if number else "0"


def main() -> None:
    """Print the report; fail only if there is nothing to report."""
    parser = arguments("benchmarks.outages", __doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="repeat the load of another run")
    parser.add_argument("--detection", action="store_true", help="instead: how soon this package notices and recovers")
    options = parser.parse_args()
    if options.detection:
        kinds, times = (detection.KINDS[:1], 1) if options.quick else (detection.KINDS, 5)
        publish(detection.markdown(kinds, times), options, "detection")
        return
    publish(markdown(QUICK if options.quick else FULL, options.seed), options, "outage-report")
    if options.write:
        charts.draw()


if __name__ == "__main__":
    main()
