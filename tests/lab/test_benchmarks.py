"""Each benchmark runs, in its smallest form, and pages show the figures that are kept."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest

from benchmarks import scale_figures
from benchmarks.chart import PICTURE
from benchmarks.outages import chart, run
from benchmarks.outages.faults import OUTAGES
from benchmarks.outages.report import Results, markdown
from benchmarks.outages.run import QUICK
from benchmarks.outages.stage import LANGPONT, compare_bodies, staged
from benchmarks.page import DOCS
from benchmarks.scale_plan import Demand
from benchmarks.scale_report import PAGE, written_page
from benchmarks.scenarios import SCENARIOS
from tests.support.programs import output_of

PROGRAMS = {
    "benchmarks --quick --only read-one --only read-change": r"\*\*flask_langpont_session\*\* \| \d",
    "benchmarks.encryption --quick": r"\| \d",
    "benchmarks.freshness --quick": r"\| 0, kept \|",
    "benchmarks.memory --quick": r"\| \d",
    "benchmarks.replay --entries 400": '"sessions": 100',
    "benchmarks.scale --quick": r"\| shards of `cache.r7g.large` \|",
    "benchmarks.throughput --quick --client own --near-cache on": r"\| read and change \|",
}
"""What is run → what is printed, among other things. All of them end with an error where something was not there that
their figures are about."""


@pytest.mark.timeout(400)  # a few seconds of a quiet machine
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_benchmark_runs(program: str) -> None:
    """A benchmark runs to its end, and prints its tables."""
    output = output_of([sys.executable, "-m", *program.split()], 380)
    assert re.search(PROGRAMS[program], output), output


def test_one_outage_of_real_servers_becomes_a_row_with_its_proof() -> None:
    """This package alone, one outage: no user gets an error or is logged out, no sign-out is undone."""
    with staged((LANGPONT,)) as stage:
        assert compare_bodies(stage) == 10
        row = run.outage(stage, OUTAGES[0], replace(QUICK, watched=(2.0, 8.0)), seed=1)
    found = row.figures[LANGPONT.name]
    assert found.signed_out == QUICK.leave
    assert (found.errors, found.unanswered, found.logged_out, found.resurrected, found.not_signed_out) == (0,) * 5
    assert sum(found.written.values()) > 0
    assert "`refuse`" in row.proof[0]
    results = Results("a machine", (LANGPONT,), 10, "a load", [row])
    assert f"| {OUTAGES[0].title} | 5xx: 0 of {found.requests}<br>" in markdown(results)


def test_pages_and_pictures_show_the_figures_that_are_kept() -> None:
    """If not: ``python -m benchmarks.scale --plan --write`` and ``python -m benchmarks.outages.chart``."""
    page = PAGE.read_text(encoding="utf-8")
    assert written_page(scale_figures.read(), page) == page
    assert [name for name in vars(Demand()) if f"`{name}`" not in page] == []
    for name, picture in chart.pictures((DOCS / "outages.md").read_text(encoding="utf-8")).items():
        assert (DOCS / "images" / name).read_text(encoding="utf-8") == picture, name
    text = PICTURE.read_text(encoding="utf-8")
    assert [scenario.title for scenario in SCENARIOS if f"{scenario.title}: " not in text] == []
