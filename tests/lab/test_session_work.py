"""The table of what the session takes is one of real outages."""

import subprocess
import sys


def test_each_kind_of_work_is_timed_before_the_outage_and_in_it() -> None:
    """A row each, with a time."""
    command = [sys.executable, "-m", "benchmarks.session_work", "--calls", "5", "--rounds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows[:2]] == ["4 KB kept by the disk", "a commit by SQLite alone"]
    asked = ["read, database asked", "write, auth, database asked"]
    kinds = ["read", "write, `high`", "write, `medium`", "write, auth", *asked, "a mix of these"]
    assert [(row[0], row[1]) for row in rows[2:]] == [(kind, level) for level in "02" for kind in kinds]
    assert all(0 <= float(row[2]) <= float(row[3]) for row in rows)
    assert all(float(row[2]) > 0 for row in rows[2:])  # where fsync is switched off the disk takes nothing
