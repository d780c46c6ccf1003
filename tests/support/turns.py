"""The choice of the next files for a test process, where several run beside each other.

Most tests wait for servers, and leave the processors to others meanwhile; some compute all the time. Were the latter
all at the end, the processors would be idle before and too few then. So one process begins with those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

COMPUTING = ("tests/protocol/", "tests/unit/", "tests/integration/test_cookie_")
"""Folders, and beginnings of names of files, whose tests wait for next to nothing."""

LATE = ("tests/integration/",)
"""Many files, the smallest of which come last of all: so all processes end at about the same time."""

LONG = "tests/integration/test_two_releases.py"
"""A small file that takes two minutes: late, it would run on while the other processes have nothing left."""

ONE_PROCESS = ("tests/browser",)
"""Folders whose servers take longer to start than most of their tests take."""


def unit_of(test: str) -> str:
    """Return the unit that one process gets as a whole: a file, or one of the folders of `ONE_PROCESS`.

    :param test: as pytest names it.
    """
    file = test.split("::")[0]
    folder = file.rpartition("/")[0]
    return folder if folder in ONE_PROCESS else file


def next_of(units: Iterable[str], *, computes: bool, size: Callable[[str], int]) -> str:
    """The one to be given to a process; of several that are as good, the first.

    :param units: what is left; at least one.
    :param computes: whether the process is the one that begins with what computes.
    :param size: how long a unit may take, by what is known without running it: the bytes of its file.
    """

    def turn(unit: str) -> tuple[int, int]:
        if unit.startswith(COMPUTING):
            return (0 if computes else 3), 0
        return (2, -size(unit)) if unit.startswith(LATE) and unit != LONG else (1, 0)

    return min(units, key=turn)
