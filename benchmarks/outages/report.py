"""The figures as a Markdown table with a column per system, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .faults import Outage
from .history import Figures
from .stage import System

COMPARISON, DETECTION = "outage-report", "detection"
"""What of a document is the commands': what lies between ``<!-- name -->`` and ``<!-- end of name -->``."""


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


@dataclass(frozen=True)
class Results:
    """Everything one run found.

    :param machine: machine and versions, in a sentence.
    :param bodies: how many bodies were equal at all systems before the first outage.
    :param load: the load, in a sentence.
    """

    machine: str
    systems: Sequence[System]
    bodies: int
    load: str
    rows: Sequence[Row]


def markdown(results: Results) -> str:
    """Return the whole report."""
    systems = [system.name for system in results.systems]
    lines = [
        results.machine,
        "",
        results.load,
        "",
        f"Before the first outage {results.bodies} answers (status and body) were compared: equal at all systems.",
        "",
        f"| outage | {' | '.join(_heading(name) for name in systems)} |",
        f"| --- |{' --- |' * len(systems)}",
    ]
    for row in results.rows:
        cells = [_cell(row.figures[name], row.observed) for name in systems]
        lines.append(f"| {row.outage.title} | {' | '.join(cells)} |")
    lines += ["", "That each outage was there:", ""]
    lines += [f"- {row.outage.title}: {'; '.join(row.proof)}." for row in results.rows]
    lines += ["", "How the systems were configured:", ""]
    lines += [f"- {system.name}: {system.configured}." for system in results.systems]
    return "\n".join(lines) + "\n"


def _heading(name: str) -> str:
    return f"**{name}**" if name == "flask_langpont_session" else name


def _cell(found: Figures, observed: float) -> str:
    parts = [
        f"5xx: {_bad(found.errors)} of {found.requests}",
        f"slowest: {found.slowest:.2f} s",
        f"logged out: {_bad(found.logged_out)}" + (f" (+ {found.for_a_moment} briefly)" if found.for_a_moment else ""),
        "lost writes: "
        + ", ".join(f"{name} {_bad(found.lost[name])} of {n}" for name, n in sorted(found.written.items())),
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


def as_json(results: Results) -> dict[str, Any]:
    """Return the figures, for programs."""
    return {
        "machine": results.machine,
        "load": results.load,
        "bodies": results.bodies,
        "systems": {system.name: system.configured for system in results.systems},
        "outages": {
            row.outage.name: {
                "title": row.outage.title,
                "proof": list(row.proof),
                "observed": row.observed,
                "figures": {name: asdict(found) for name, found in row.figures.items()},
            }
            for row in results.rows
        },
    }
