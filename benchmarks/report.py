"""The figures as Markdown for people and as JSON for programs. Ratios first: absolute times are the machine's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .measure import ASKING, BARE, OURS, REFERENCE, Lane, Traffic
from .page import table
from .scenarios import SIZES, Scenario, bytes_of


@dataclass
class Results:
    """Everything one run found.

    :param labels: contestant → how the report calls it, in its order.
    :param lanes: (scenario, contestant) → lane.
    :param traffic: (scenario, contestant) → traffic.
    :param lost: contestant → lost updates of each try.
    :param delay: seconds of network in each direction.
    """

    versions: str
    labels: Mapping[str, str]
    scenarios: Sequence[Scenario]
    lanes: Mapping[tuple[str, str], Lane]
    traffic: Mapping[tuple[str, str], Traffic] = field(default_factory=dict)
    lost: Mapping[str, Sequence[int]] = field(default_factory=dict)
    requests: int = 0
    outages: int = 0
    delay: float = 0.0

    def ratio(self, scenario: Scenario, contestant: str, *, added: bool) -> float | None:
        """Return a contestant's time against Flask-Session's; None if they did not answer the same.

        :param added: what the session adds: bare Flask's time is taken off both.
        """
        lane, reference, bare = (self.lanes.get((scenario.name, name)) for name in (contestant, REFERENCE, BARE))
        if not (lane and reference and bare and lane.agrees_with(reference)):
            return None
        off = bare.microseconds if added else 0.0
        return (lane.microseconds - off) / (reference.microseconds - off)

    def disagreements(self) -> list[str]:
        """Return the contestants that answered something else than the reference, and in which scenario."""
        return [
            f"{self.labels[name]} in “{lane.scenario.title}”"
            for (scenario, name), lane in self.lanes.items()
            if not lane.agrees_with(self.lanes[scenario, REFERENCE])
        ]


def markdown(results: Results) -> str:
    """Return the whole report."""
    parts = [
        results.versions,
        *(
            [f"**Stores were lost or found {results.outages} times: this run says nothing.**\n"]
            if results.outages
            else []
        ),
        _sizes(),
        _bodies(results),
        "### Targets: a whole request, against Flask-Session with its defaults\n",
        _targets(results),
        "### Ratios to Flask-Session with its defaults: whole request / what the session adds\n",
        _by_scenario(results, lambda scenario, name: _both_ratios(results, scenario, name)),
        "### Medians, µs per request\n",
        _by_scenario(results, lambda scenario, name: _microseconds(results, scenario, name)),
    ]
    if results.traffic:
        parts += [
            "### On the wire, per request: round trips / commands / bytes to the server / bytes from it\n",
            _by_scenario(results, lambda scenario, name: _traffic(results, scenario, name)),
        ]
    if results.lost:
        title = f"### {results.requests} parallel requests, each sets another key of one session: updates lost\n"
        parts += [title, _lost(results)]
    return "\n".join(parts)


def _sizes() -> str:
    sizes = [
        f"{size}: " + ", ".join(f"{category} {bytes_of(size, category)}" for category in categories)
        for size, categories in SIZES.items()
    ]
    return f"Sessions, bytes of JSON: {'; '.join(sizes)}.\n"


def _bodies(results: Results) -> str:
    wrong = results.disagreements()
    if not wrong:
        return "Bodies: all contestants answered the same in every round, and kept the same session.\n"
    return f"Bodies: **other answers than the reference, so no ratio**: {'; '.join(wrong)}.\n"


def _targets(results: Results) -> str:
    rows = []
    for scenario in results.scenarios:
        wanted = scenario.targets
        near = _met(results, scenario, OURS, wanted.delayed if results.delay else wanted.near)
        asking = _met(results, scenario, ASKING, None if results.delay else wanted.asking)
        rows.append([scenario.title, *near, *asking])
    return table(["scenario", "target", "measured", "met", "without near cache: target", "measured", "met"], rows)


def _met(results: Results, scenario: Scenario, contestant: str, target: float | None) -> list[str]:
    whole = results.ratio(scenario, contestant, added=False)
    if target is None:
        return ["–", _number(whole), "–"]
    return [f"≤ {target:.2f}", _number(whole), "–" if whole is None else "yes" if whole <= target else "**no**"]


def _by_scenario(results: Results, cell: Any) -> str:
    head = ["", *(scenario.title for scenario in results.scenarios)]
    rows = [[label, *(cell(s, name) for s in results.scenarios)] for name, label in results.labels.items()]
    return table(head, rows)


def _both_ratios(results: Results, scenario: Scenario, name: str) -> str:
    whole = results.ratio(scenario, name, added=False)
    return "–" if whole is None else f"{whole:.2f} / {_number(results.ratio(scenario, name, added=True))}"


def _microseconds(results: Results, scenario: Scenario, name: str) -> str:
    lane = results.lanes.get((scenario.name, name))
    return f"{lane.microseconds:.0f}" if lane else "–"


def _traffic(results: Results, scenario: Scenario, name: str) -> str:
    found = results.traffic.get((scenario.name, name))
    if found is None:
        return "–"
    commands = sum(found.commands.values())
    return f"{found.round_trips:g} / {commands:g} / {found.bytes_out:.0f} / {found.bytes_in:.0f}"


def _lost(results: Results) -> str:
    rows = [[results.labels[name], ", ".join(map(str, tries))] for name, tries in results.lost.items()]
    return table(["", "lost, each try"], rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def as_json(results: Results) -> dict[str, Any]:
    """Return the figures, with every round's median in nanoseconds."""
    return {
        "versions": results.versions,
        "scenarios": {
            scenario.name: {
                name: {
                    "rounds_ns": lane.rounds,
                    "agrees": lane.agrees_with(results.lanes[scenario.name, REFERENCE]),
                    "whole": results.ratio(scenario, name, added=False),
                    "adds": results.ratio(scenario, name, added=True),
                    "traffic": _traffic_json(results.traffic.get((scenario.name, name))),
                }
                for (of, name), lane in results.lanes.items()
                if of == scenario.name
            }
            for scenario in results.scenarios
        },
        "targets": {scenario.name: asdict(scenario.targets) for scenario in results.scenarios},
        "lost": {"requests": results.requests, **results.lost},
        "outages": results.outages,
    }


def _traffic_json(found: Traffic | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "round_trips": found.round_trips,
        "commands": dict(found.commands),
        "bytes_out": found.bytes_out,
        "bytes_in": found.bytes_in,
    }
