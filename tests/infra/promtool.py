"""Rules of Prometheus over figures of an exporter's pages: promtool says which alerts fire."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from devservers.processes import LONG
from tests.support.programs import required

MONITORING = Path(__file__).parents[2] / "infra" / "monitoring"
RULES = MONITORING / "rules.yml"

EVERY = 15
"""Seconds between two looks of Prometheus at a page."""

JOB = 'job="shop"'
TARGET = f'{JOB}, instance="host-1:8000"'
"""What Prometheus adds to each series of a page."""

Series = Mapping[str, Sequence[float | None]]
"""A series as PromQL writes it → its value at each look; None: it was not there."""

STALE = "stale"


def promtool(*arguments: str) -> str:
    """Return the output of promtool; an error fails the test."""
    done = subprocess.run(
        [required("promtool", "prometheus"), *arguments], capture_output=True, text=True, timeout=LONG
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Evaluation(NamedTuple):
    """Expressions over figures and rules, and the values that they must have.

    :param expected: the number of a look, an expression, and each sample's labels with its value.
    :param told: the number of a look, the one alert of a name that fires then, its labels and its annotations.
    :param every: seconds between two looks at the pages, and at the rules. Each look costs as much as there are samples
        in the windows of the rules: over hours, one a minute is enough.
    """

    name: str
    series: Series
    expected: Iterable[tuple[int, str, Mapping[str, float]]]
    told: Iterable[tuple[int, str, Mapping[str, str], Mapping[str, str]]] = ()
    every: int = EVERY


def evaluate(folder: Path, evaluation: Evaluation) -> None:
    """Compare what expressions yield with what they are to yield.

    :param folder: for a file.
    """
    name, series, expected, told, every = evaluation
    test = {
        "name": name,
        "interval": f"{every}s",
        "input_series": [{"series": name, "values": " ".join(_written(values))} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": f"{look * every}s",
                "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
            }
            for look, expression, samples in expected
        ],
        "alert_rule_test": [
            {
                "eval_time": f"{look * every}s",
                "alertname": alert,
                "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}],
            }
            for look, alert, labels, annotations in told
        ],
    }
    file = folder / "promtool.json"  # which is YAML, too
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": f"{every}s", "tests": [test]}))
    promtool("test", "rules", str(file))


def firing(names: Collection[str]) -> dict[str, float]:
    """Return the samples of the expression :data:`FIRING` if exactly these alerts fire."""
    return {f'{{alertname="{name}"}}': 1 for name in names}


FIRING = 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0'
"""The alerts that fire at a moment."""

EVER_FIRED = 'count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[1d])) > bool 0'
"""The alerts that have fired until then, however shortly."""


def _written(values: Sequence[float | None]) -> Iterable[str]:
    before: float | None = None
    for value in values:
        if value is not None:
            yield "NaN" if math.isnan(value) else repr(value)
        else:
            yield STALE if before is not None else "_"  # Prometheus knows at once that a series is no more on a page
        before = value


def joined(pages: Sequence[str]) -> dict[str, list[float | None]]:
    """The series of the pages that one host has shown, look by look."""
    found: dict[str, list[float | None]] = {}
    for number, page in enumerate(pages):
        for name, value in _series(page).items():
            found.setdefault(name, [None] * len(pages))[number] = value
    return found


@cache
def _series(page: str) -> dict[str, float]:
    """Each series of a page as Prometheus stores it, and its value."""
    samples = (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return {f"{name.removesuffix('}')}{',' if '{' in name else '{'}{TARGET}}}": float(value) for name, value in samples}
