"""Facts → the page. A pure function: no request, no session, no store, and nothing of the application's templates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ...policy.errors import DATABASE
from ...policy.levels import LEVELS
from .charts import HEIGHT, SOURCE_NAMES, charts, duration, milliseconds, parts, periods
from .facts import Facts
from .history import REDIS, SOURCES, Slice, together

_FOLDER = Path(__file__).parent / "templates"

STYLE = (_FOLDER / "status.css").read_text(encoding="utf-8")
"""The stylesheet, for a URL of its own: a policy of an application as a rule allows what is its own, and nothing that
stands in a page."""

POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of the page: a browser may load its stylesheet, and nothing else."""

SPANS = {3600.0: "last hour", 600.0: "last ten minutes"}
"""Seconds that the charts may show → in words."""

EVERY = 30
"""Seconds between two loads of the page by a browser that was told to repeat it. It is told by a link only: unasked, it
would take the time to read away (WCAG 2.2.1)."""

_ROWS = 12
"""Parts of the time, each of which has a row in the last table."""


class Row(NamedTuple):
    """A part of the time in numbers."""

    began: float
    level: int
    times: Sequence[str]
    answers: Sequence[int]
    waiting: int | None


def render(facts: Facts) -> str:
    """Return the page as HTML."""
    whole = together(facts.slices) if facts.slices else Slice(facts.now)
    total = whole.answers.total()
    return _template().render(
        facts=facts,
        charts=charts(facts),
        height=HEIGHT,
        spans=SPANS,
        every=EVERY,
        periods=periods(facts)[::-1],
        shares=[
            (SOURCE_NAMES[source], whole.answers[source], whole.answers[source] / total if total else 0.0)
            for source in SOURCES
        ],
        times=[(store, _times(whole, store)) for store in (REDIS, DATABASE)],
        rows=_rows(facts),
        sources=[SOURCE_NAMES[source] for source in SOURCES],
    )


def _rows(facts: Facts) -> list[Row]:
    """Return the last hour in numbers, newest first."""
    found = []
    for began, ended, part in parts(facts, _ROWS):
        levels = [period.level for period in periods(facts) if period.began < ended and period.ended > began]
        times = [*_times(part, REDIS), *_times(part, DATABASE)]
        answers = [part.answers[source] for source in SOURCES]
        found.append(Row(began, max(levels, default=facts.report["level"]), times, answers, part.waiting))
    return found[::-1]


def _times(part: Slice, store: str) -> list[str]:
    return [milliseconds(part.percentile(store, share)) for share in (0.5, 0.99)]


@cache
def _template() -> Template:
    """Return the template, from an environment of our own: the application's has its own globals, which may look at the
    session."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clock=_clock, duration=duration, number="{:,}".format, breakable=_breakable)
    environment.globals["level_names"] = LEVELS
    return environment.get_template("status.html")


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


def _breakable(name: str) -> Markup:
    """Let a name break after its underscores, for narrow columns."""
    return Markup("_<wbr>").join(name.split("_"))
