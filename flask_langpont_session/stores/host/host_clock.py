"""A clock that all workers of a host share and that never jumps: it decides order and age in the journal (I31).

It goes by the time since the host was started, which no one can set. Where that begins is noted once for each start, in
a small file beside the journal: at the wall clock's time then, but behind all that was told before. So an earlier start
is older whatever became of the wall clock, and only the time between two starts is counted by the wall clock.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from ...support.files import beside, open_private
from .commit_counter import COUNTER

_RECORD = struct.Struct("=16sqq")
"""The start of the host, what its time since then is to be added to, and the latest time that was told."""

_NOTED_EVERY_US = 1_000_000
_MARGIN_US = 2 * _NOTED_EVERY_US
"""The time that was told may be so much later than the one that is noted."""


since_start = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""Returns the seconds since the host was started, those included for which it slept."""


def start_of_host() -> bytes:
    """Return what names the present start of the host; empty where the system does not say it."""
    with suppress(OSError, ValueError):
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    return b""


class HostClock:
    """Seconds since 1970, as they were when the host was started, and as many more as have passed since.

    Calling it never raises: a worker that cannot use the file has a clock of its own, which does not jump either.

    :param path: of the journal; None: this process has the clock for itself.
    :param wall: seconds since 1970; `since`: since the start of the host; `start`: names that.
    """

    def __init__(
        self,
        path: Path | None,
        wall: Callable[[], float] = lambda: time.time(),
        since: Callable[[], float] = since_start,
        start: bytes | None = None,
    ) -> None:
        self._path = path and beside(path, "clock")
        self._wall = wall
        self._since = since
        self._start = (start_of_host() if start is None else start).ljust(16, b"\0")[:16]
        self._begins_us: int | None = None
        self._noted_us = 0

    def __call__(self) -> float:
        """Return what time it is."""
        begins = self._begins_us
        since = int(self._since() * 1_000_000)
        if begins is None or since - self._noted_us >= _NOTED_EVERY_US:
            begins, self._noted_us = self._noted(since), since
        return (begins + since) / 1_000_000

    def shown(self, at_ms: int) -> int:
        """Return a time of this clock, milliseconds, as the wall clock would have it now."""
        return at_ms + int((self._wall() - self()) * 1000)

    def _noted(self, since: int) -> int:
        """Note what time it is. Return where the time since the host's start begins."""
        known = self._begins_us
        own = int(self._wall() * 1_000_000) - since if known is None else known
        with suppress(OSError):  # it is tried again in a second
            own = own if self._path is None else self._exchanged(self._path, since, own, patiently=known is None)
        self._begins_us = own
        return own

    def _exchanged(self, path: Path, since: int, own: int, *, patiently: bool) -> int:
        # A command makes no file that the workers could not use: one is made where they have made others.
        makes = os.O_CREAT if path.with_name(f"{path.name.removesuffix('clock')}{COUNTER}").exists() else 0
        descriptor = open_private(path, os.O_RDWR | makes)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if patiently else fcntl.LOCK_NB))
            found = os.pread(descriptor, _RECORD.size, 0)
            start, begins, latest = _RECORD.unpack(found) if len(found) == _RECORD.size else (b"", own, 0)
            if start != self._start:
                begins = own if own + since > latest + _MARGIN_US else latest + _MARGIN_US - since
            os.pwrite(descriptor, _RECORD.pack(self._start, begins, max(latest, begins + since)), 0)
        finally:
            os.close(descriptor)
        return int(begins)
