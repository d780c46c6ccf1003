"""A lock for one process of a host at a time, which the system takes back from a process that is killed."""

from __future__ import annotations

import _thread
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import BuiltinFunctionType

from .private_file import open_private


class HostLock:
    """One holder among all processes and threads. Each use opens the file anew: two openings exclude each other.

    :param path: a file that has no other locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Whether the lock was free; then it is held until :meth:`release`."""
        descriptor = open_private(self._path)
        if not _takes(descriptor):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def wait(self, goes_on: Callable[[], bool]) -> bool:
        """Wait for it in the system's queue, in which all processes have their turn.

        :param goes_on: asked, where the system's queue cannot be used, about once in a millisecond.
        :return: whether it is held; False: it does not go on.
        """
        descriptor = self._descriptor = open_private(self._path)
        if _threads_are_native():
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return True
        while not _takes(descriptor):
            if not goes_on():
                self.release()
                return False
            time.sleep(0.001)
        return True

    def release(self) -> None:
        """Let go of it, if it is held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                # Not by closing it alone: a child that was forked just now may have it open, too.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            finally:
                os.close(descriptor)

    @contextmanager
    def waited(self, goes_on: Callable[[], bool]) -> Iterator[bool]:
        """:meth:`wait`, and :meth:`release` at the end."""
        try:
            yield self.wait(goes_on)
        finally:
            self.release()

    def forget(self) -> None:
        """In a forked child: the parent goes on holding it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _threads_are_native() -> bool:
    """Whether a thread that waits in the system keeps no other one from running. Where greenlets are in their place, it
    would keep all."""
    return isinstance(_thread.start_new_thread, BuiltinFunctionType)


def _takes(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
