"""Python programs that start at once: forked from a process that has imported what they need, by multiprocessing."""

import ctypes
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Fork:
    """``main()`` of a module in a process and a session of its own, with its output added to ``log``.

    It is used like a ``subprocess.Popen``, and is killed when this process ends, in whatever way. The module of the
    first one is imported once for all; another one is imported by each of its processes.

    :param module: its name.
    :param env: all environment variables. They are there after the import.
    """

    def __init__(self, module: str, *, log: Path, env: Mapping[str, str]) -> None:
        _CONTEXT.set_forkserver_preload([module])  # heeded until the first start
        self._process = _CONTEXT.Process(target=_run, args=(module, log, dict(env)), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code; None: the process runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return when it has ended. :raises subprocess.TimeoutExpired: it runs after so many seconds."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _run(module: str, log: Path, env: Mapping[str, str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        # The server that has forked us ends when the last process has closed this: that is to be the one we work for.
        os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(env)
    importlib.import_module(module).main()
