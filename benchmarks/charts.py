"""``python -m benchmarks.charts``: the tables of benchmarks/results/ as pictures in docs/images/.

SVGs that need nothing beside them, for light and dark pages, with the figures as text for those that do not see them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from .contestants import Ours, OursWithoutNearCache, SignedCookie
from .page import DOCS, RESULTS, table_in

IMAGES = DOCS / "images"

Groups = Sequence[tuple[str, Mapping[int, float]]]
"""Title of a group of bars → number of a series → its figure."""

_STYLE = """
    svg { --paper: #ffffff; --ink: #1f2328; --line: #d0d7de; --one: #d1242f }
    svg { --s0: #0969da; --s1: #bf8700; --s2: #8250df }
    @media (prefers-color-scheme: dark) {
      svg { --paper: #0d1117; --ink: #e6edf3; --line: #3d444d; --one: #ff7b72 }
      svg { --s0: #58a6ff; --s1: #d29922; --s2: #bc8cff }
    }
    text { fill: var(--ink); font: 13px system-ui, sans-serif }
    .paper { fill: var(--paper) } .line { stroke: var(--line) } .one { stroke: var(--one); stroke-width: 1.5 }
    .title { font-weight: 600 } .value { stroke: var(--paper); stroke-width: 4px; paint-order: stroke }
    .s0 { fill: var(--s0) } .s1 { fill: var(--s1) } .s2 { fill: var(--s2) }
"""

_LEFT, _RIGHT, _TOP, _BAR, _GAP, _WIDTH = 372, 60, 66, 15, 11, 860


@dataclass(frozen=True)
class Chart:
    """One picture.

    :param form: how a figure is written beside its bar; `unit` stands behind it in the text.
    :param one: the name of what has the figure 1: a line shows it.
    """

    name: str
    title: str
    series: Sequence[str]
    groups: Callable[[], Groups]
    form: str = "{:.2f}"
    unit: str = ""
    one: str = ""


# -- where the figures stand -------------------------------------------------------------------------------------------

_BARS = {
    Ours.label.strip("*"): "flask-langpont-session",
    OursWithoutNearCache.label: "the same without the near cache",
    SignedCookie.label: "Flask's cookie session",
}
"""A row of the ratios → its name in the picture."""


def _ratios() -> Groups:
    head, *rows = table_in(RESULTS / "requests.md", "requests", "### Ratios")
    by_label = {row[0]: [cell.split(" / ")[0] for cell in row] for row in rows}
    shown = [by_label[label] for label in _BARS]
    return [
        (title, {number: float(row[column]) for number, row in enumerate(shown) if row[column] != "–"})
        for column, title in enumerate(head)
        if column
    ]


def _outages(read: Callable[[str], float]) -> Callable[[], Groups]:
    def groups() -> Groups:
        _, *rows = table_in(RESULTS / "outage-report.md", "outage-report")
        return [(title, {number: read(cell) for number, cell in enumerate(cells)}) for title, *cells in rows]

    return groups


def _share(cell: str, *patterns: str) -> float:
    """Return the percentage of `bad of all` wherever one of the patterns stands before it."""
    found = [pair for pattern in patterns for pair in re.findall(rf"{pattern} (\d+) of (\d+)", cell)]
    whole = sum(int(all_) for _, all_ in found)
    return 100 * sum(int(bad) for bad, _ in found) / whole if whole else 0.0


def _users(cell: str) -> float:
    """Return how many users were signed out without wishing it, or stayed signed in although they wished not to."""
    return float(sum(map(int, re.findall(r"(?:logged out:|resurrected:|still signed in:) (\d+)", cell))))


_SYSTEMS = ("flask_langpont_session", "Flask-Session", "Django cached_db")

CHARTS = (
    Chart("benchmarks", "Time of a whole request, as a ratio to Flask-Session on Redis with its defaults",
          list(_BARS.values()), _ratios, one="Flask-Session"),
    Chart("outages-errors", "Requests that were answered 5xx during and after an outage, percent",
          _SYSTEMS, _outages(lambda cell: _share(cell, "5xx:")), "{:.0f}", "%"),
    Chart("outages-slowest", "The slowest answer, seconds",
          _SYSTEMS, _outages(lambda cell: float(re.findall(r"slowest: ([\d.]+) s", cell)[0])), unit=" s"),
    Chart("outages-lost", "Writes that were acknowledged and are not there afterwards, percent",
          _SYSTEMS, _outages(lambda cell: _share(cell, "account", "drafts")), "{:.0f}", "%"),
    Chart("outages-users", "Of six users: signed out against their will, or not signed out although they wished it",
          _SYSTEMS, _outages(_users), "{:.0f}"),
)  # fmt: skip


# -- the pictures ------------------------------------------------------------------------------------------------------


def svg(chart: Chart) -> str:
    """Return the picture."""
    groups = chart.groups()
    height = _TOP + sum(len(figures) * _BAR + _GAP for _, figures in groups) + (20 if chart.one else 6)
    most = max(figure for _, figures in groups for figure in figures.values())
    unit = (_WIDTH - _LEFT - _RIGHT) / max(most, 1.0 if chart.one else 0.0)
    marks = list(_bars(chart, groups, unit))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            'aria-labelledby="title figures">',
            f'  <title id="title">{escape(chart.title)}</title>',
            f'  <desc id="figures">{escape(_in_words(chart, groups))}</desc>',
            f"  <style>{_STYLE}  </style>",
            f'  <rect class="paper" width="{_WIDTH}" height="{height}"/>',
            f'  <text class="title" x="12" y="22">{escape(chart.title)}</text>',
            *_legend(chart),
            *(mark for mark in marks if "<text" not in mark),
            *(_line_at_one(chart, _LEFT + unit, height) if chart.one else ()),
            *(mark for mark in marks if "<text" in mark),
            "</svg>",
            "",
        ]
    )


def _in_words(chart: Chart, groups: Groups) -> str:
    parts = [f"{chart.one} is 1."] if chart.one else []
    for title, figures in groups:
        said = (f"{chart.series[number]} {chart.form.format(figure)}{chart.unit}" for number, figure in figures.items())
        parts.append(f"{title}: {', '.join(said)}.")
    return " ".join(parts)


def _legend(chart: Chart) -> Iterator[str]:
    left = 12
    for number, name in enumerate(chart.series):
        yield f'  <rect class="s{number}" x="{left}" y="34" width="12" height="12"/>'
        yield f'  <text x="{left + 18}" y="45">{escape(name)}</text>'
        left += 38 + 7 * len(name)


def _line_at_one(chart: Chart, left: float, height: int) -> Iterator[str]:
    yield f'  <line class="one" x1="{left:.1f}" x2="{left:.1f}" y1="{_TOP - 8}" y2="{height - 18}"/>'
    yield f'  <text x="{left:.1f}" y="{height - 5}" text-anchor="middle">1.00 = {escape(chart.one)}</text>'


def _bars(chart: Chart, groups: Groups, unit: float) -> Iterator[str]:
    top = _TOP
    for title, figures in groups:
        bottom = top + len(figures) * _BAR
        yield f'  <text x="{_LEFT - 12}" y="{(top + bottom) / 2 + 4:.1f}" text-anchor="end">{escape(title)}</text>'
        yield f'  <line class="line" x1="{_LEFT - 1}" x2="{_LEFT - 1}" y1="{top - 2}" y2="{bottom}"/>'
        for number, figure in figures.items():
            width = figure * unit
            yield f'  <rect class="s{number}" x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR - 2}"/>'
            yield f'  <text class="value" x="{_LEFT + width + 6:.1f}" y="{top + 11}">{chart.form.format(figure)}</text>'
            top += _BAR
        top += _GAP


def pictures() -> Mapping[Path, str]:
    """Return the file of each picture → the picture."""
    return {IMAGES / f"{chart.name}.svg": svg(chart) for chart in CHARTS}


def draw() -> None:
    """Draw all pictures from the pages as they are."""
    for path, picture in pictures().items():
        path.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    draw()
