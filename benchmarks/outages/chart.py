"""``python -m benchmarks.outages.chart``: the table of docs/outages.md as pictures, for docs/explanation/charts.md.

SVGs that need nothing beside them, for light and dark pages, with the figures as text for those that do not see them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from ..page import DOCS, between
from .report import COMPARISON

SYSTEMS = ("flask_langpont_session", "Flask-Session", "Django cached_db")
"""In the order of the table's columns."""

_STYLE = """
    svg { --paper: #ffffff; --ink: #1f2328; --line: #d0d7de; --s0: #0969da; --s1: #bf8700; --s2: #8250df }
    @media (prefers-color-scheme: dark) {
      svg { --paper: #0d1117; --ink: #e6edf3; --line: #3d444d; --s0: #58a6ff; --s1: #d29922; --s2: #bc8cff }
    }
    text { fill: var(--ink); font: 13px system-ui, sans-serif }
    .paper { fill: var(--paper) } .line { stroke: var(--line) } .title { font-weight: 600 }
    .s0 { fill: var(--s0) } .s1 { fill: var(--s1) } .s2 { fill: var(--s2) }
"""

_LEFT, _RIGHT, _TOP, _BAR, _GAP, _WIDTH = 372, 60, 66, 15, 11, 860


def _share(cell: str, *patterns: str) -> float:
    """Return the percentage of `bad of all` wherever one of the patterns stands before it."""
    found = [pair for pattern in patterns for pair in re.findall(rf"{pattern} (\d+) of (\d+)", cell)]
    whole = sum(int(all_) for _, all_ in found)
    return 100 * sum(int(bad) for bad, _ in found) / whole if whole else 0.0


def _users(cell: str) -> float:
    """Return how many users were signed out without wishing it, or stayed signed in although they wished not to."""
    return float(sum(map(int, re.findall(r"(?:logged out:|resurrected:|still signed in:) (\d+)", cell))))


def _slowest(cell: str) -> float:
    [seconds] = re.findall(r"slowest: ([\d.]+) s", cell)
    return float(seconds)


@dataclass(frozen=True)
class Chart:
    """One picture.

    :param read: the figure in a cell of the table (without its asterisks).
    :param unit: stands behind each figure, in the words for those that do not see it.
    :param form: how a figure is written.
    """

    name: str
    title: str
    read: Callable[[str], float]
    unit: str
    form: str


CHARTS = (
    Chart("errors", "Requests that were answered 5xx during and after an outage, percent",
          lambda cell: _share(cell, "5xx:"), "%", "{:.0f}"),
    Chart("slowest", "The slowest answer, seconds", _slowest, " s", "{:.2f}"),
    Chart("lost", "Writes that were acknowledged and are not there afterwards, percent",
          lambda cell: _share(cell, "account", "drafts"), "%", "{:.0f}"),
    Chart("users", "Of six users: signed out against their will, or not signed out although they wished it",
          _users, "", "{:.0f}"),
)  # fmt: skip


def rows(document: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each outage of the table, and what it did to each system."""
    for line in between(document, COMPARISON).splitlines():
        if "5xx:" in line:
            outage, *cells = (cell.strip() for cell in line.replace("**", "").strip("|").split("|"))
            yield outage, cells


def svg(chart: Chart, document: str) -> str:
    """Return the picture. :param document: the text of docs/outages.md."""
    shown = [(outage, [chart.read(cell) for cell in cells]) for outage, cells in rows(document)]
    group = len(SYSTEMS) * _BAR + _GAP
    height = _TOP + len(shown) * group + 6
    unit = (_WIDTH - _LEFT - _RIGHT) / max(figure for _, figures in shown for figure in figures)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-labelledby="title figures">',
        f'  <title id="title">{escape(chart.title)}</title>',
        f'  <desc id="figures">{escape(_in_words(chart, shown))}</desc>',
        f"  <style>{_STYLE}  </style>",
        f'  <rect class="paper" width="{_WIDTH}" height="{height}"/>',
        f'  <text class="title" x="12" y="22">{escape(chart.title)}</text>',
        *_legend(),
    ]
    for number, (outage, figures) in enumerate(shown):
        lines += _group(chart, _TOP + number * group, outage, figures, unit)
    return "\n".join([*lines, "</svg>", ""])


def _in_words(chart: Chart, shown: Sequence[tuple[str, Sequence[float]]]) -> str:
    parts = []
    for outage, figures in shown:
        said = ", ".join(
            f"{name} {chart.form.format(figure)}{chart.unit}" for name, figure in zip(SYSTEMS, figures, strict=True)
        )
        parts.append(f"{outage}: {said}.")
    return " ".join(parts)


def _legend() -> Iterator[str]:
    left = 12
    for number, name in enumerate(SYSTEMS):
        yield f'  <rect class="s{number}" x="{left}" y="34" width="12" height="12"/>'
        yield f'  <text x="{left + 18}" y="45">{escape(name)}</text>'
        left += 38 + 7 * len(name)


def _group(chart: Chart, top: int, outage: str, figures: Sequence[float], unit: float) -> Iterator[str]:
    bottom = top + len(figures) * _BAR
    yield f'  <text x="{_LEFT - 12}" y="{(top + bottom) / 2 + 4:.1f}" text-anchor="end">{escape(outage)}</text>'
    yield f'  <line class="line" x1="{_LEFT - 1}" x2="{_LEFT - 1}" y1="{top - 2}" y2="{bottom}"/>'
    for number, figure in enumerate(figures):
        y, width = top + number * _BAR, figure * unit
        yield f'  <rect class="s{number}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 2}"/>'
        yield f'  <text x="{_LEFT + width + 6:.1f}" y="{y + 11}">{chart.form.format(figure)}</text>'


def pictures(document: str) -> Mapping[str, str]:
    """Return file name → picture."""
    return {f"outages-{chart.name}.svg": svg(chart, document) for chart in CHARTS}


def draw() -> None:
    """Put the pictures of docs/outages.md, as it is, into docs/images/."""
    document = (DOCS / "outages.md").read_text(encoding="utf-8")
    for name, picture in pictures(document).items():
        (DOCS / "images" / name).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    draw()
