"""``python -m benchmarks.chart FIGURES.json``: the ratios of ``python -m benchmarks --json FIGURES.json`` as a picture.

An SVG that needs nothing beside it, for light and dark pages, with the figures as text for those that do not see it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from .measure import ASKING, OURS
from .page import DOCS
from .scenarios import SCENARIOS

PICTURE = DOCS / "images" / "benchmarks.svg"

BARS: Mapping[str, str] = {
    OURS: "flask-langpont-session",
    ASKING: "the same without the near cache",
    "cookie": "Flask's cookie session",
}
"""Contestants that have a bar, and their names. Flask-Session is the line that they are compared with."""

TITLE = "Time of a whole request, as a ratio to Flask-Session on Redis with its defaults"

_STYLE = """
    svg { --paper: #ffffff; --ink: #1f2328; --line: #d1242f; --ours: #0969da; --asking: #80b8f0; --cookie: #8c959f }
    @media (prefers-color-scheme: dark) {
      svg { --paper: #0d1117; --ink: #e6edf3; --line: #ff7b72; --ours: #58a6ff; --asking: #1f4f8f; --cookie: #6e7681 }
    }
    text { fill: var(--ink); font: 13px system-ui, sans-serif }
    .paper { fill: var(--paper) } .line { stroke: var(--line); stroke-width: 1.5 } .title { font-weight: 600 }
    .value { stroke: var(--paper); stroke-width: 4px; paint-order: stroke }
    .ours { fill: var(--ours) } .ours-asking { fill: var(--asking) } .cookie { fill: var(--cookie) }
"""

_LEFT, _RIGHT, _TOP, _BAR, _GAP, _WIDTH = 290, 60, 74, 15, 11, 860


@dataclass(frozen=True)
class Group:
    """A scenario, and the ratio of each contestant that has one."""

    title: str
    ratios: Mapping[str, float]


def groups(figures: Mapping[str, Any]) -> list[Group]:
    """Return the groups from the JSON of a run, in the order of the report."""
    titles = {scenario.name: scenario.title for scenario in SCENARIOS}
    found = []
    for name, contestants in figures["scenarios"].items():
        ratios = {bar: contestants[bar]["whole"] for bar in BARS if contestants.get(bar, {}).get("whole") is not None}
        if ratios:
            found.append(Group(titles[name], ratios))
    return found


def svg(figures: Mapping[str, Any]) -> str:
    """Return the picture. :param figures: the JSON of a run."""
    shown = groups(figures)
    height = _TOP + sum(len(group.ratios) * _BAR + _GAP for group in shown) + 24
    unit = (_WIDTH - _LEFT - _RIGHT) / max(1.0, *(ratio for group in shown for ratio in group.ratios.values()))
    one = _LEFT + unit
    marks = list(_bars(shown, unit))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            'aria-labelledby="title figures">',
            f'  <title id="title">{escape(TITLE)}</title>',
            f'  <desc id="figures">{escape(_in_words(shown))}</desc>',
            f"  <style>{_STYLE}  </style>",
            f'  <rect class="paper" width="{_WIDTH}" height="{height}"/>',
            f'  <text class="title" x="12" y="24">{escape(TITLE)}: shorter is faster</text>',
            *_legend({bar for group in shown for bar in group.ratios}),
            *(mark for mark in marks if "<rect" in mark),
            f'  <line class="line" x1="{one:.1f}" x2="{one:.1f}" y1="{_TOP - 8}" y2="{height - 18}"/>',
            *(mark for mark in marks if "<text" in mark),
            f'  <text x="{one:.1f}" y="{height - 5}" text-anchor="middle">1.00 = Flask-Session</text>',
            "</svg>",
            "",
        ]
    )


def _in_words(shown: Sequence[Group]) -> str:
    parts = []
    for group in shown:
        ratios = ", ".join(f"{BARS[bar]} {ratio:.2f}" for bar, ratio in group.ratios.items())
        parts.append(f"{group.title}: {ratios}.")
    return "Flask-Session is 1.00. " + " ".join(parts)


def _legend(bars: set[str]) -> Iterator[str]:
    left = 12
    for bar, name in BARS.items():
        if bar in bars:
            yield f'  <rect class="{bar}" x="{left}" y="38" width="12" height="12"/>'
            yield f'  <text x="{left + 18}" y="49">{escape(name)}</text>'
            left += 38 + 7 * len(name)


def _bars(shown: Sequence[Group], unit: float) -> Iterator[str]:
    top = _TOP
    for group in shown:
        middle = top + len(group.ratios) * _BAR / 2 + 4
        yield f'  <text x="{_LEFT - 10}" y="{middle:.1f}" text-anchor="end">{escape(group.title)}</text>'
        for bar, ratio in group.ratios.items():
            width = ratio * unit
            yield f'  <rect class="{bar}" x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR - 2}"/>'
            yield f'  <text class="value" x="{_LEFT + width + 6:.1f}" y="{top + 11}">{ratio:.2f}</text>'
            top += _BAR
        top += _GAP


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=__doc__)
    parser.add_argument("figures", type=Path, help="what `python -m benchmarks --json` has written")
    parser.add_argument("--output", type=Path, default=PICTURE)
    options = parser.parse_args()
    options.output.write_text(svg(json.loads(options.figures.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
