"""One simulated time, from which every clock of the simulated world is read."""

from __future__ import annotations

START_MS = 1_700_000_000_000


class Clock:
    """Time that passes only when it is advanced. Milliseconds since 1970, except where a clock speaks in seconds."""

    def __init__(self) -> None:
        self._ms = START_MS

    @property
    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self._ms

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self._ms += ms

    def wait_until(self, moment_ms: int) -> None:
        """Let time pass until that moment, if it has not come yet."""
        self._ms = max(self._ms, moment_ms)

    def monotonic(self) -> float:
        """Seconds, as ``time.monotonic`` counts them: from a beginning of its own."""
        return (self._ms - START_MS) / 1000 + 1000.0

    def wall(self) -> float:
        """Seconds since 1970."""
        return self.now_ms / 1000


class SkewedClock:
    """The clock of one machine, which goes before or after the true time by a constant."""

    def __init__(self, clock: Clock, skew_ms: int = 0) -> None:
        self._clock = clock
        self.skew_ms = skew_ms

    @property
    def now_ms(self) -> int:
        """Milliseconds since 1970 as this machine believes."""
        return self._clock.now_ms + self.skew_ms
