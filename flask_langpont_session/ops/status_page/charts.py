"""The charts, as rectangles on a plane that is as wide as the time they show, in seconds. What is drawn is said in
words, too.

The plane is stretched to the width of the page, so there is no text on it: labels stand beside it, in HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from ...policy.errors import DATABASE
from ...policy.levels import LEVELS
from .facts import Facts
from .history import REDIS, SOURCES, STEP, Slice, together

HEIGHT = 100

COLUMNS = 60
"""Parts of the time, each of which has a column of its own."""

DECADES = (1000, 100, 10, 1, 0.1)
"""Milliseconds at which the latency chart has its lines, from above; one decade more is below the last."""


class Rectangle(NamedTuple):
    """A rectangle: seconds from the left, and parts of :data:`HEIGHT` from above. `kind`: the class in the
    stylesheet."""

    x: float
    y: float
    width: float
    height: float
    kind: str


class Chart(NamedTuple):
    """One drawing.

    :param said: what it shows, in a sentence or two.
    :param labels: from above, each beside an equal part of the height.
    :param lines: heights of horizontal lines.
    :param legend: class in the stylesheet → what it stands for.
    """

    name: str
    title: str
    said: str
    rectangles: Sequence[Rectangle]
    labels: Sequence[str]
    lines: Sequence[float]
    legend: Sequence[tuple[str, str]] = ()
    budget_at: float | None = None


class Period(NamedTuple):
    """A period of one level, seconds since 1970."""

    level: int
    began: float
    ended: float


def charts(facts: Facts) -> list[Chart]:
    """Return all four charts."""
    return [_levels(facts), _latency(facts), _answers(facts), _journal(facts)]


def periods(facts: Facts) -> list[Period]:
    """Return the levels there were, oldest first; the first one may have begun before."""
    ends = [*(change.at for change in facts.changes[1:]), facts.now]
    found = (Period(change.level, change.at, end) for change, end in zip(facts.changes, ends, strict=True))
    return [period for period in found if period.ended > facts.now - facts.span]


def _levels(facts: Facts) -> Chart:
    left, row, least = facts.now - facts.span, HEIGHT / len(LEVELS), facts.span / 400  # which can still be seen
    found, seconds = [], dict.fromkeys(LEVELS, 0.0)
    for level, began, ended in periods(facts):
        began = max(began, left)
        seconds[level] += ended - began
        y = HEIGHT - (level + 1) * row
        x = min(began - left, facts.span - least)
        found.append(Rectangle(x, y + row * 0.2, max(ended - began, least), row * 0.6, f"level-{level}"))
    worst = max(level for level in LEVELS if seconds[level] or level == facts.report["level"])
    if worst:
        away = ", ".join(f"{duration(seconds[level])} at level {level}" for level in LEVELS if level and seconds[level])
        said = f"{away}; the worst was level {worst} ({LEVELS[worst]})."
    else:
        said = "Level 0 (normal) all the time."
    labels = [f"{level} {LEVELS[level]}" for level in sorted(LEVELS, reverse=True)]
    return Chart("levels", "Level", said, found, labels, [row * number for number in range(1, len(LEVELS))])


def _latency(facts: Facts) -> Chart:
    found = []
    for number, store in enumerate((REDIS, DATABASE)):
        for x, width, part in _columns(facts):
            low, high = part.percentile(store, 0.5), part.percentile(store, 0.99)
            if low is not None and high is not None:
                top, bottom = _height_of(high), _height_of(low)
                half = width / 2
                found.append(Rectangle(x + number * half, top - 1, half * 0.8, bottom - top + 2, store))
    lines = [_height_of(decade) for decade in DECADES[1:]]
    labels = [f"{decade:g} ms" for decade in DECADES]
    budget = facts.budget * 1000
    legend = [(REDIS, "Redis"), (DATABASE, "database"), ("budget", f"the budget of a request, {budget:g} ms")]
    slow = [_slowest(facts, store) for store in (REDIS, DATABASE)]
    said = (
        f"Each bar is of {duration(facts.span / COLUMNS)}: half of the calls took no longer than its lower end (p50), "
        f"99 of 100 no longer than its upper end (p99). In the worst, p99 was {slow[0]} for Redis and {slow[1]} for "
        "the database."
    )
    title = "Time of calls to the stores"
    return Chart("latency", title, said, found, labels, lines, legend, _height_of(budget))


def _slowest(facts: Facts, store: str) -> str:
    found = [part.percentile(store, 0.99) for _, _, part in _columns(facts)]
    return milliseconds(max((one for one in found if one is not None), default=None))


def _height_of(amount: float) -> float:
    """Return the height of milliseconds on a logarithmic scale, a fifth of the height to a decade."""
    row = HEIGHT / len(DECADES)
    return min(max((math.log10(DECADES[0]) - math.log10(max(amount, 1e-3))) * row, 1), HEIGHT - 1)


SOURCE_NAMES = dict(
    zip(
        SOURCES,
        ("near cache", "Redis, the primary", "a replica of Redis", "the database", "this host's copies", "DEFAULTS"),
        strict=True,
    )
)


def _answers(facts: Facts) -> Chart:
    columns = list(_columns(facts))
    totals = [part.answers.total() for _, _, part in columns]
    most = _rounded(max(totals, default=0))
    found = []
    for x, width, part in columns:
        top = float(HEIGHT)
        for source in SOURCES:
            if number := part.answers[source]:
                height = number / most * HEIGHT
                top -= height
                found.append(Rectangle(x, top, width * 0.9, height, f"from-{source}"))
    said = f"{sum(totals):,} answers, by where they came from; each column is of {duration(facts.span / COLUMNS)}."
    legend = [(f"from-{source}", SOURCE_NAMES[source]) for source in SOURCES]
    return Chart("answers", "Where answers came from", said, found, *_scale(most), legend)


def _journal(facts: Facts) -> Chart:
    columns = list(_columns(facts))
    known = [part.waiting for _, _, part in columns if part.waiting is not None]
    most = _rounded(max(known, default=0))
    found = []
    for x, width, part in columns:
        if part.waiting is None:
            found.append(Rectangle(x, 0, width * 0.9, HEIGHT, "unknown"))
        elif part.waiting:
            height = part.waiting / most * HEIGHT
            found.append(Rectangle(x, HEIGHT - height, width * 0.9, height, "waiting"))
    said = f"At most {max(known):,} changes waited." if any(known) else "Nothing waited."
    legend = [("waiting", "changes of all workers of this host")]
    if len(known) < len(columns):
        said += " For a while the journal could not be read."
        legend.append(("unknown", "it could not be read"))
    return Chart("journal", "What waited in this host's journal", said, found, *_scale(most), legend)


def _columns(facts: Facts) -> Iterator[tuple[float, float, Slice]]:
    """Yield left edge and width of each column, as far as it lies in the time that is shown."""
    left = facts.now - facts.span
    for began, ended, part in parts(facts, COLUMNS):
        x = max(began - left, 0.0)
        width = min(ended - left, facts.span) - x
        if width > 0:
            yield x, width, part


def parts(facts: Facts, number: int) -> Iterator[tuple[float, float, Slice]]:
    """Yield begin and end of each of so many equal parts of the time of which anything is remembered, oldest first."""
    width = max(facts.span / number, STEP)
    for began, slices in groupby(facts.slices, key=lambda one: one.began // width * width):
        yield began, began + width, together(list(slices))


def _scale(most: int) -> tuple[list[str], list[float]]:
    """Return labels and lines at the top and in the middle."""
    return [f"{most:,}", f"{most // 2:,}"], [HEIGHT / 2]


def _rounded(most: int) -> int:
    """Return an even number of two digits at most that is as much at least."""
    step = 2 * int(10 ** max(len(str(most)) - 2, 0))
    return max(math.ceil(most / step) * step, 2)


def duration(seconds: float) -> str:
    """Return a duration in words; one that a clock, set back meanwhile, has made negative is none."""
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 60 else f"{minutes / 60:.1f} h"


def milliseconds(amount: float | None) -> str:
    """Return milliseconds in words; None: there is none."""
    return "–" if amount is None else f"{amount:g} ms"
