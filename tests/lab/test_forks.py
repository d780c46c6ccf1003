"""Programs that are forked from one that has imported them are used like any other process, and end with us."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from devservers.forks import Fork
from devservers.processes import LONG, alive, wait_until
from tests.lab import forked


def test_a_fork_runs_in_an_environment_and_a_session_of_its_own(tmp_path: Path) -> None:
    """Its output is added to the log."""
    log = tmp_path / "log"
    log.write_text("before\n")
    fork = Fork(forked.__name__, log=log, env={"SAYS": "here"})
    assert fork.wait(LONG) == 0
    assert fork.poll() == 0
    assert log.read_text() == "before\nhere True ['SAYS']\n"
    fork.send_signal(signal.SIGKILL)  # there is none any more that it could reach


def test_a_fork_is_waited_for_and_killed(tmp_path: Path) -> None:
    """A fork is waited for and killed as a subprocess is."""
    fork = Fork(forked.__name__, log=tmp_path / "log", env={"SAYS": "wait"})
    with pytest.raises(subprocess.TimeoutExpired):
        fork.wait(0.01)
    assert fork.poll() is None
    fork.send_signal(signal.SIGKILL)
    assert fork.wait(LONG) == -signal.SIGKILL


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
