"""Locks for one process of a host at a time, which the system takes back from a process that is killed."""

from __future__ import annotations

import _thread
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import BuiltinFunctionType

from .files import open_private


class HostLock:
    """One holder among all processes and threads. Each use opens the file anew: two openings exclude each other.

    :param path: a file that has no other locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptors: set[int] = set()

    @contextmanager
    def waited(self, goes_on: Callable[[], bool]) -> Iterator[bool]:
        """Wait for the lock in the system's queue, in which all processes have their turn, and hold it until the end.

        :param goes_on: asked, where the system's queue cannot be used, about once in a millisecond.
        :return: whether it is held; False: it does not go on.
        """
        with self._opened() as descriptor:
            if _threads_are_native():
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield True
                return
            while not (is_held := takes(descriptor)) and goes_on():
                time.sleep(0.001)
            yield is_held

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Take the lock if it is free, until the end. Yield whether it was free."""
        with self._opened() as descriptor:
            yield takes(descriptor)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = open_private(self._path)
        self._descriptors.add(descriptor)
        try:
            yield descriptor
        finally:
            if descriptor in self._descriptors:  # else this is a forked child, which has forgotten it
                self._descriptors.discard(descriptor)
                release(descriptor)

    def forget(self) -> None:
        """Close the openings in a forked child: its parent goes on holding the lock."""
        descriptors, self._descriptors = self._descriptors, set()
        for descriptor in descriptors:
            os.close(descriptor)


def _threads_are_native() -> bool:
    """Return whether a thread that waits in the system lets the others run. A greenlet in its place would stop them
    all."""
    return isinstance(_thread.start_new_thread, BuiltinFunctionType)


def takes(descriptor: int) -> bool:
    """Take the lock for this opening of the file, and return whether no other opening holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def release(descriptor: int) -> None:
    """Release the lock of this opening of the file, and close it."""
    # Not by closing it alone: a child that was forked just now may have it open, too.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
