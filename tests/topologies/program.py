"""``tests.topologies.life`` as a process."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from devservers.processes import wait_until

ROOT = Path(__file__).parents[2]


class Program:
    """``tests.topologies.life``, and what its workers say. A context manager."""

    def __init__(self, url: str, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.topologies.life", url, str(folder)]
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)

    @property
    def pid(self) -> int:
        """Process id of the one that was started; workers may be its children."""
        return self._process.pid

    def __enter__(self) -> Program:
        self._reader.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, 9)
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as words:
            for word in words:
                self._words.put(word.strip())
        self._words.put("the end")

    def says(self, word: str, workers: Sequence[str]) -> None:
        """Return when all workers have said it. Any other word is none of theirs."""
        words = {self._next() for _ in workers}
        assert words == {f"{worker} {word}" for worker in workers}, self._errors.read_text()

    def _next(self) -> str:
        try:
            return self._words.get(timeout=60)
        except queue.Empty:
            return f"nothing within a minute: {self._errors.read_text()}"

    def ends(self) -> None:
        wait_until(lambda: self._process.poll() is not None, "the end of the program")
        assert self._process.returncode == 0, self._errors.read_text()
