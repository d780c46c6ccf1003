"""The figures of freshness: a stale read is found, and the cases that the report is about take place."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

from flask import Flask

from benchmarks.freshness.__main__ import Results, Row, markdown
from benchmarks.freshness.disturbances import DISTURBANCES
from benchmarks.freshness.stage import together
from benchmarks.freshness.worker import LONG, Seen, Worker, lateness
from tests.support.programs import output_of


def test_late_is_the_first_read_that_shows_the_change() -> None:
    """From the word until it began. The one at once is not late, and at some time the reader gives up."""
    clock = count(10)
    assert lateness(lambda: "new", "new", lambda: next(clock)) == ("new", 0)
    shown = iter(["old", "other", "new"])
    assert lateness(lambda: next(shown), "new", lambda: next(clock)) == ("old", 2)
    assert lateness(lambda: "old", "new", lambda: next(clock) * LONG) == ("old", None)


def found_by_a_reader(bodies: Sequence[str], hits: Iterator[int]) -> dict[str, Any]:
    """What it finds of one change from "old" to "new", being shown these bodies."""
    app, shown = Flask(__name__), iter(bodies)
    app.add_url_rule("/read", view_func=lambda: next(shown))
    words = (["hold", "/read", "cookie", "old"], ["now", "new"], ["end"])
    with open(os.devnull, "w") as other:
        lines = StringIO("".join(json.dumps(word) + "\n" for word in words))
        return Worker(app, lines, other.fileno(), lambda: next(hits)).read()


def test_a_stale_read_is_counted() -> None:
    """It is shown the old value twice after the word, and its copy has answered the read before."""
    found = found_by_a_reader(["", "old", "old", "old", "old", "new"], count())
    [late] = found.pop("late")
    assert late > 0
    assert found == {"rounds": 1, "held": 1, "without": [], "never": 0}


def test_a_read_that_shows_neither_value_is_not_stale() -> None:
    """The stores were not reached."""
    found = found_by_a_reader(["old", "old", "None", "new"], count())
    [without] = found.pop("without")
    assert without > 0
    assert found == {"rounds": 1, "held": 1, "late": [], "never": 0}


def test_a_read_that_no_copy_has_answered_is_none_of_a_near_cache() -> None:
    """So the report cannot say that a cache which is off is fresh."""
    found = found_by_a_reader(["old", "old", "new"], iter([7, 7]))
    assert found == {"rounds": 1, "held": 0, "late": [], "without": [], "never": 0}


def test_the_report_says_what_is_not_kept() -> None:
    """Stale reads against the promise, how late they were, and whether there was a near cache."""
    seen = together([Seen(2, 2, [1.0, 3.0]), Seen(1, 1, [2.0]), Seen(1, 0, [], [5.0], 1)])
    rows = [
        Row("a", "valkey", seen, 0, ("proof", "seen")),
        Row("b", "redis", Seen(3), 0),
        Row("c", "redis", Seen(3, 3)),
    ]
    text = markdown(Results("machine", rows))
    assert (
        "| a | valkey | 4 | 3 | 4 | 0, **broken** | 2.00 / 3.00 / 3.00; **1 never** | 1: 5.00 / 5.00 / 5.00 |" in text
    )
    assert "| b | redis | 3 | no near cache | 0 | 0, kept | – | 0 |" in text
    assert "| c | redis | 3 | 3 | 0 | – | – | 0 |" in text
    assert "- proof, valkey: seen." in text


def test_every_case_takes_place(tmp_path: Path) -> None:
    """The program ends with an error where what it does to a server is not seen there."""
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.freshness", "--quick", "--json", str(figures)]
    output_of(command, 110)
    rows = json.loads(figures.read_text())["rows"]
    assert len(rows) == 5 + len(DISTURBANCES)
    for row in rows:
        assert row["seen"]["rounds"] > 0
        assert row["seen"]["never"] == 0, row
        if row["promised"] is not None:
            assert len(row["seen"]["late"]) <= row["promised"], row
