"""The figures of a replay are those of one that took place."""

import json
import subprocess
import sys


def test_all_that_waits_is_replayed() -> None:
    """And the primary is in use again."""
    command = [sys.executable, "-m", "benchmarks.replay", "--entries", "400"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    found = json.loads(done.stdout)
    assert (found["entries"], found["sessions"]) == (400, 100)
    assert found["seconds"] > 0
    assert found["primary_back"] > 0
