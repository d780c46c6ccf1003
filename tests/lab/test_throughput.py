"""The figures of throughput compare sites that do the same."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import OURS, REFERENCE
from benchmarks.throughput import VIEWS, Case, Different, Sample, compare, contestants
from tests.support.programs import output_of

SAMPLE = Sample(per_second=100.0, p50=1.0, p99=2.0, worker_cpu=0.001, server_cpu=0.001, errors=0)


def case(*ours: Sample) -> Case:
    """One in which Flask-Session gave 100 answers a second, then 50."""
    others = [SAMPLE, replace(SAMPLE, per_second=50.0)]
    return Case("case", {("read", OURS): list(ours), ("read", REFERENCE): others})


def test_a_ratio_is_one_of_the_same_round() -> None:
    """A slow half minute of the machine is in both."""
    assert case(replace(SAMPLE, per_second=200.0), SAMPLE).ratio("read", OURS) == 2.0


def test_there_is_no_ratio_of_answers_that_were_wrong() -> None:
    """One is enough, at either site."""
    assert case(SAMPLE, replace(SAMPLE, errors=1)).ratio("read", OURS) is None
    assert case(SAMPLE, replace(SAMPLE, errors=1)).ratio("read", REFERENCE) == 1.0


@dataclass
class Shows:
    """A site that shows this."""

    name: str
    shown: list[str]

    def bodies(self) -> list[str]:
        return self.shown


def test_sites_that_show_something_else_are_not_compared() -> None:
    """One body is enough."""
    sites: list[Any] = [Shows("one", ["a", "b"]), Shows("other", ["a", "b"]), Shows("third", ["a", "c"])]
    compare(sites[:2])
    with pytest.raises(Different, match="third"):
        compare(sites)


def test_every_site_answers_every_view(tmp_path: Path) -> None:
    """Over connections that are closed after each answer, with a network between."""
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.throughput", "--quick", "--client", "own", "--json", str(figures)]
    output_of(command, 110)
    [case] = json.loads(figures.read_text())["cases"]
    assert case["title"].startswith("sync, 2 × 1; 0.25 ms of network each way")
    assert case["views"].keys() == {view.title for view in VIEWS}
    for found in case["views"].values():
        assert list(found) == contestants("both")
        for site in found.values():
            assert site["ratio"] is not None, found
