"""Which files a test process is given next, where several run beside each other.

Most tests wait for servers, and leave the processors to others meanwhile; some compute all the time. Were the latter
all at the end, the processors would be idle before and too few then. So one process begins with those.
"""

from __future__ import annotations

from collections.abc import Iterable

COMPUTING = ("tests/protocol/", "tests/unit/")
"""Folders whose tests wait for nothing."""

LATE = ("tests/integration/",)
"""Many small files: when they come last, all processes end at about the same time."""

ONE_PROCESS = ("tests/browser", "tests/stories")
"""Folders whose servers take longer to start than most of their tests take."""


def unit_of(test: str) -> str:
    """What is given to one process as a whole: a file, or one of these folders.

    :param test: as pytest names it.
    """
    file = test.split("::")[0]
    folder = file.rpartition("/")[0]
    return folder if folder in ONE_PROCESS else file


def next_of(units: Iterable[str], *, computes: bool) -> str:
    """The one to be given to a process; of several that are as good, the first.

    :param units: what is left; at least one.
    :param computes: whether the process is the one that begins with what computes.
    """

    def turn(unit: str) -> int:
        if unit.startswith(COMPUTING):
            return 0 if computes else 3
        return 2 if unit.startswith(LATE) else 1

    return min(units, key=turn)
