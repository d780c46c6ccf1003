"""A clock for what is told the time: it passes when a test says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds, of whichever clock it stands for."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now
