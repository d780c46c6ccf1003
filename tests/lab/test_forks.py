"""Programs that are forked from one that has imported them are used like any other process, and end with us."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from devservers.processes import alive, wait_until

PARENT = """
import sys
from pathlib import Path
from devservers.forks import Fork
from tests.lab import forked

print(Fork(forked.__name__, log=Path(sys.argv[1]), env={"SAYS": "wait"}).pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells a process that its parent has died")
def test_a_fork_dies_with_the_process_that_wanted_it(tmp_path: Path) -> None:
    """The fork dies also if that process ends by kill -9."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", PARENT, str(log)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: log.exists() and "wait" in log.read_text(), "its output")
        parent.kill()
    wait_until(lambda: not alive(process), "its end")
