"""The figures of ``python -m benchmarks`` as Markdown. Ratios first: absolute times are the machine's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .contestants import KINDS, Bare, Contestant, FlaskSession, Ours, OursWithoutNearCache
from .measure import Lane, Traffic
from .page import table
from .scenarios import SIZES, Scenario, bytes_of

PARALLEL = 50
"""Requests that write to one session at the same time."""

Kind = type[Contestant]


@dataclass
class Results:
    """Everything one run found.

    :param lanes: (scenario, contestant) → lane; `traffic` likewise.
    :param lost: contestant → lost updates of each try.
    :param outages: how often a store was lost or found.
    :param is_delayed: there was a network before the server.
    """

    machine: str
    scenarios: Sequence[Scenario]
    lanes: Mapping[tuple[str, str], Lane]
    is_delayed: bool
    traffic: Mapping[tuple[str, str], Traffic] = field(default_factory=dict)
    lost: Mapping[Kind, Sequence[int]] = field(default_factory=dict)
    outages: int = 0

    def ratio(self, scenario: Scenario, kind: Kind, *, added: bool = False) -> float | None:
        """Return a contestant's time against Flask-Session's; None: there is none, or they did not answer the same.

        :param added: what the session adds: bare Flask's time is taken off both.
        """
        lane, reference, bare = (self.lanes.get((scenario.name, each.name)) for each in (kind, FlaskSession, Bare))
        if not (lane and reference and bare and lane.agrees_with(reference)):
            return None
        off = bare.microseconds if added else 0.0
        return (lane.microseconds - off) / (reference.microseconds - off)


def markdown(results: Results) -> str:
    """Return the whole report."""
    parts = [f"{results.machine}\n"]
    if results.outages:
        parts += [f"**Stores were lost or found {results.outages} times: this run says nothing.**\n"]
    parts += [
        _sizes(),
        _bodies(results),
        "### Targets: a whole request, against Flask-Session with its defaults\n",
        _targets(results),
        "### Ratios to Flask-Session with its defaults: whole request / what the session adds\n",
        _by_scenario(results, lambda scenario, kind: _both_ratios(results, scenario, kind)),
        "### Medians, µs per request\n",
        _by_scenario(results, lambda scenario, kind: _microseconds(results, scenario, kind)),
    ]
    if results.traffic:
        parts += [
            "### On the wire, per request: round trips / commands / bytes to the server / bytes from it\n",
            _by_scenario(results, lambda scenario, kind: _traffic(results, scenario, kind)),
        ]
    if results.lost:
        rows = [[kind.label, ", ".join(map(str, tries))] for kind, tries in results.lost.items()]
        title = f"### {PARALLEL} parallel requests, each sets another key of one session: updates lost\n"
        parts += [title, table(["", "lost, each try"], rows)]
    return "\n".join(parts)


def _sizes() -> str:
    sizes = [
        f"{size}: " + ", ".join(f"{category} {bytes_of(size, category)}" for category in categories)
        for size, categories in SIZES.items()
    ]
    return f"Sessions, bytes of JSON: {'; '.join(sizes)}.\n"


def _bodies(results: Results) -> str:
    wrong = [
        f"{lane.contestant.label} in “{lane.scenario.title}”"
        for (scenario, _), lane in results.lanes.items()
        if not lane.agrees_with(results.lanes[scenario, FlaskSession.name])
    ]
    if not wrong:
        return "Bodies: all contestants answered the same in every round, and kept the same session.\n"
    return f"Bodies: **other answers than the reference, so no ratio**: {'; '.join(wrong)}.\n"


def _targets(results: Results) -> str:
    rows = []
    for scenario in results.scenarios:
        wanted = scenario.targets
        near = _met(results, scenario, Ours, wanted.delayed if results.is_delayed else wanted.near)
        asking = _met(results, scenario, OursWithoutNearCache, None if results.is_delayed else wanted.asking)
        rows.append([scenario.title, *near, *asking])
    return table(["scenario", "target", "measured", "met", "without near cache: target", "measured", "met"], rows)


def _met(results: Results, scenario: Scenario, kind: Kind, target: float | None) -> list[str]:
    whole = results.ratio(scenario, kind)
    if target is None:
        return ["–", _number(whole), "–"]
    return [f"≤ {target:.2f}", _number(whole), "–" if whole is None else "yes" if whole <= target else "**no**"]


def _by_scenario(results: Results, cell: Callable[[Scenario, Kind], str]) -> str:
    head = ["", *(scenario.title for scenario in results.scenarios)]
    return table(head, [[kind.label, *(cell(scenario, kind) for scenario in results.scenarios)] for kind in KINDS])


def _both_ratios(results: Results, scenario: Scenario, kind: Kind) -> str:
    whole = results.ratio(scenario, kind)
    return "–" if whole is None else f"{whole:.2f} / {_number(results.ratio(scenario, kind, added=True))}"


def _microseconds(results: Results, scenario: Scenario, kind: Kind) -> str:
    lane = results.lanes.get((scenario.name, kind.name))
    return f"{lane.microseconds:.0f}" if lane else "–"


def _traffic(results: Results, scenario: Scenario, kind: Kind) -> str:
    found = results.traffic.get((scenario.name, kind.name))
    if found is None:
        return "–"
    return f"{found.round_trips:g} / {found.commands:g} / {found.bytes_out:.0f} / {found.bytes_in:.0f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
