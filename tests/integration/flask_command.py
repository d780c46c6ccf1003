"""The ``flask`` command in a process that is forked after Flask and the package were imported."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from flask.cli import main as flask

import flask_langpont_session.ops.cli.commands  # noqa: F401  # what takes time to import
from devservers.forks import Fork
from devservers.web import PROJECT

ARGUMENTS, FOLDER = "FLASK_COMMAND_ARGUMENTS", "FLASK_COMMAND_FOLDER"
"""Environment variables: what is typed behind ``flask``, a line each, and where."""

ERRORS = "errors"
"""The file for what goes to standard error."""


def main() -> None:
    """Run ``flask`` in the fork."""
    os.chdir(os.environ.pop(FOLDER))
    errors = os.open(ERRORS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 2)
    os.close(errors)
    sys.argv = ["flask", *os.environ.pop(ARGUMENTS).splitlines()]
    sys.path.insert(0, "")
    flask()


class RunningCommand:
    """``flask ARGUMENTS`` in a folder, begun just now."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self._arguments, self._folder = arguments, folder
        self.output = folder / "output"
        self.output.unlink(missing_ok=True)
        environment = {**os.environ, ARGUMENTS: "\n".join(arguments), FOLDER: str(folder)}
        self.process = Fork(__name__, log=self.output, env=environment)

    def answer(self, seconds: float) -> subprocess.CompletedProcess[str]:
        """Return the command's answer once it has ended. :raises subprocess.TimeoutExpired: it has not ended within
        `seconds`."""
        code = self.process.wait(seconds)
        errors = (self._folder / ERRORS).read_text()
        return subprocess.CompletedProcess(self._arguments, code, self.output.read_text(), errors)


def run_flask(folder: Path, arguments: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Return the answer of ``flask ARGUMENTS`` in a folder. :raises subprocess.TimeoutExpired: none within
    `seconds`."""
    return RunningCommand(folder, arguments).answer(seconds)


def on_terminal(folder: Path, arguments: Sequence[str], until: Callable[[str], bool], stop: int = 0) -> tuple[int, str]:
    """``flask ARGUMENTS`` as it is typed at a terminal: its exit code, and all that was to be seen there.

    :param until: gets what was seen so far, and says whether that is all that is waited for.
    :param stop: the signal that ends it then; 0: it ends by itself.
    """
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", *arguments], cwd=folder, stdin=slave, stdout=slave, stderr=slave,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{PROJECT}", "TERM": "xterm", "COLUMNS": "80"},
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    seen, is_stopped = "", False
    guard = threading.Timer(60, process.kill)
    guard.start()
    with open(master, "rb", buffering=0) as terminal:
        while part := _read(terminal):
            seen += part.decode(errors="replace")
            if stop and not is_stopped and until(seen):
                process.send_signal(stop)
                is_stopped = True
    code = process.wait()
    guard.cancel()
    assert until(seen), seen
    return code, seen


def _read(terminal: BinaryIO) -> bytes:
    """Empty: the last process has closed its side, which Linux says by an error."""
    try:
        return terminal.read(65536)
    except OSError:
        return b""
