"""D26, I33: a real disk that is full. What ends sessions and what empties the journal has its reserve there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOUNTED = 'mount -t tmpfs -o size=3m none "$0" && shift 0 && exec "$@"'


def on_small_disk(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program that sees a disk of 3 MB in a folder. A user without rights may mount in a namespace of its own."""
    program = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNTED, str(folder), *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(program, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=False)


def test_i33_on_a_full_disk_sessions_are_ended_and_the_journal_is_emptied(tmp_path: Path) -> None:
    """The reserve is given back for that, and nothing else takes it; once there is room for it again, changes are kept
    again."""
    try:
        can = on_small_disk(tmp_path, "true").returncode == 0
    except FileNotFoundError:
        can = False
    if not can:
        pytest.skip("no disk can be mounted here: unshare and user namespaces are needed")
    ran = on_small_disk(tmp_path, sys.executable, "-m", "tests.integration.full_disk", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["cause"] == "SQLITE_FULL"
    assert found["kept"] > 0
    assert found["revocations"] == 200
    assert found["replayed"] == found["kept"]
    assert found["refused"] == [True, True, False]
