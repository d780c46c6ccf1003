"""Removes what a killed server leaves behind."""

import ctypes
from pathlib import Path


def remove_leftovers(data: Path) -> None:
    """Remove what a killed PostgreSQL, with its cluster in ``data``, could not remove itself.

    That is its pid file, whose pid could be another process by the next start, and a few bytes of System V shared
    memory, whose id is the last word of the file's seventh line.
    """
    lock = data / "postmaster.pid"
    if lock.exists():
        for line in lock.read_text().splitlines()[6:7]:
            _remove_shared_memory(int(line.split()[-1]))
        lock.unlink()


def _remove_shared_memory(segment: int) -> None:
    ctypes.CDLL(None).shmctl(segment, 0, None)  # 0 is IPC_RMID; a segment that is gone already is no error
