"""Gates at which a request waits inside its view, until a test opens them: files, which all processes see."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

LONGEST_HOLD = 30.0
"""Seconds after which a held request goes on: a test that failed must not keep a worker's thread."""


@dataclass(frozen=True)
class Gate:
    """One of them.

    :param folder: the same for the test and the workers.
    :param name: whose file ``<name>.reached`` says that a request waits, and ``<name>.open`` lets it go on.
    """

    folder: Path
    name: str

    @property
    def is_reached(self) -> bool:
        """Return whether a request waits here, or has waited."""
        return (self.folder / f"{self.name}.reached").exists()

    def open(self) -> None:
        """Let go what waits here, and what will come."""
        (self.folder / f"{self.name}.open").touch()

    def wait(self) -> None:
        """Wait inside of a view until the gate is open."""
        (self.folder / f"{self.name}.reached").touch()
        latest = time.monotonic() + LONGEST_HOLD
        while not (self.folder / f"{self.name}.open").exists() and time.monotonic() < latest:
            time.sleep(0.005)  # the test may be in another process, which can only leave a file
