"""One run: every outage hits all systems at the same moment, under the same load."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .faults import OUTAGES, Outage, lasting
from .history import Figures, figures
from .load import Load
from .report import Row
from .stage import Stage

QUIET = 1.5
"""Seconds without anything wrong after which all is well."""


@dataclass(frozen=True)
class Effort:
    """The amount of work.

    :param outages: by name, in their order.
    :param seconds: that an outage lasts.
    :param before: seconds of load before it.
    :param watched: seconds for which its end is watched at least, and at most.
    :param stay: browsers that stay, at each system; `leave`: that sign out.
    """

    outages: Sequence[str]
    seconds: float
    before: float = 0.7
    watched: tuple[float, float] = (4.0, 10.0)
    stay: int = 3
    leave: int = 3


FULL = Effort([outage.name for outage in OUTAGES], seconds=4.0)
QUICK = Effort(["refused", "aof", "slow", "readonly"], seconds=1.5, before=0.4, watched=(2.5, 3.0), stay=2, leave=2)


def outage(stage: Stage, kind: Outage, effort: Effort, seed: int) -> Row:
    """Let one outage happen. :raises NoOutage: it did not."""
    leaves = tuple(effort.seconds * (n + 0.5) / (effort.leave + 1) for n in range(effort.leave))
    loads = {name: Load(site.url, f"{seed}-{kind.name}", effort.stay, leaves) for name, site in stage.sites.items()}
    proof: list[str] = []
    for load in loads.values():
        load.start()
    try:
        time.sleep(effort.before)
        began = time.monotonic()
        with kind.causing(stage, proof):
            for load in loads.values():
                load.outage()
            healed = time.monotonic() if not kind.lasts else None
            lasting(kind, effort.seconds)
        healed = healed or time.monotonic()

        def found(at: float) -> dict[str, Figures]:
            events = {name: list(load.events) for name, load in loads.items()}
            return {name: figures(events[name], began=began, healed=healed, ended=at, quiet=QUIET) for name in loads}

        _watch(found, healed, effort)
    finally:
        for load in loads.values():
            load.stop()
    ended = time.monotonic()
    return Row(kind, found(ended), proof, ended - healed)


def _watch(found: Callable[[float], dict[str, Figures]], healed: float, effort: Effort) -> None:
    least, most = effort.watched
    time.sleep(least)
    while time.monotonic() < healed + most:
        if all(each.recovery is not None for each in found(time.monotonic()).values()):
            return
        time.sleep(0.25)
