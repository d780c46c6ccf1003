"""The benchmarks run: every contestant answers every page."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.scenarios import SCENARIOS


def test_every_contestant_takes_part_in_every_scenario_of_sqlite() -> None:
    """With as few requests as there can be; what they say means nothing."""
    names = [scenario.name for scenario in SCENARIOS if scenario.database == "sqlite"]
    chosen = [part for name in names for part in ("--only", name)]
    command = [sys.executable, "-m", "benchmarks", "--quick", *chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    assert "all contestants answered the same" in done.stdout
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:-1] for line in done.stdout.splitlines() if line.count("|") > 2
    }
    for contestant in (
        "Flask-Session, defaults",
        "… the same with plain scripts: no protocol",
        "**flask_langpont_session**",
    ):
        assert len(rows[contestant]) == len(names)
    assert "–" not in "".join(rows["**flask_langpont_session**"])


def test_the_server_tells_every_connection_that_holds_a_session() -> None:
    """Else the program that measures what this costs ends with an error."""
    command = [sys.executable, "-m", "benchmarks.write_cost", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == ["0", "1", "16", "256"]
    assert all(float(row[1]) > 0 for row in rows)
