"""Each benchmark runs, in its smallest form, and pages show the figures that are kept."""

from __future__ import annotations

import re
import sys
from dataclasses import fields

import pytest

from benchmarks import charts, plan
from benchmarks.page import DOCS
from tests.support.programs import output_of, required

PROGRAMS = {
    "benchmarks --quick --only read-one --only read-change": r"\*\*flask_langpont_session\*\* \| \d",
    "benchmarks.encryption --quick": r"\| \d",
    "benchmarks.freshness --quick": r"\| 0, kept \|",
    "benchmarks.journal --quick": r"\| PostgreSQL \| 400 \| \d",
    "benchmarks.memory --quick": r"\| \d",
    "benchmarks.outages --quick --detection": r"\| connections refused \| \d.* \| 0 \|",
    "benchmarks.outages --quick": r"\| 5xx: 0 of \d+<br>.*<br>logged out: 0<br>.*<br>resurrected: 0 of 2<br>all well",
    "benchmarks.scale --quick": r"\| bytes per row, indexes included \| \d",
    "benchmarks.throughput --quick": r"\| read and change \|",
}
"""What is run → what is printed, among other things. All of them end with an error where something was not there that
their figures are about."""


@pytest.mark.timeout(400)  # a few seconds of a quiet machine
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_benchmark_runs(program: str) -> None:
    """A benchmark runs to its end, and prints its tables."""
    if "throughput" in program:
        required("wrk")
    output = output_of([sys.executable, "-m", *program.split()], 380)
    assert re.search(PROGRAMS[program], output), output


def test_pages_and_pictures_show_the_figures_that_are_kept() -> None:
    """If not: ``python -m benchmarks.plan --write`` and ``python -m benchmarks.charts``."""
    page = plan.PAGE.read_text(encoding="utf-8")
    made = plan.Plan(plan.Demand())
    assert made.summary() in page and made.parts() in page
    described = (DOCS / "explanation" / "scaling.md").read_text(encoding="utf-8")
    assert [field.name for field in fields(plan.Demand) if f"`{field.name}`" not in described] == []
    for path, picture in charts.pictures().items():
        assert path.read_text(encoding="utf-8") == picture, path
