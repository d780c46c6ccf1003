"""A connection to the journal that the threads of a process use in turn."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ...support.lag import Deadline
from .forms import make_room, path_of
from .group_commit import busy
from .opening import open_database

TURNS = {side: threading.RLock() for side in ("write", "read", "shrink")}
"""Locks for all journals of this process, usually one: a fork has to stop and close every one of them. A thread that
takes several takes them in this order. Reentrant, because a signal handler may fork."""


class Side:
    """One connection, for all threads of this process, one at a time; opened when it is needed.

    :param path: of the journal, as the settings name it.
    :ivar opened: how often; what was learned from one connection says nothing about the next.
    :ivar place: the file that was opened last; None: it is in memory, or none was yet.
    """

    def __init__(self, path: Path | None, turn: str) -> None:
        self.place: Path | None = None
        self.connection: sqlite3.Connection | None = None
        self.opened = 0
        self._path = path
        self._turn = turn
        self._age = 0
        self._pid = 0
        self._patience = 0
        self._file: tuple[int, int] | None = None

    @contextmanager
    def taken(self, deadline: Deadline) -> Iterator[None]:
        """Have this side alone, until the end.

        :raises StoreError: the other threads took all the time there is.
        """
        turn = TURNS[self._turn]
        if not deadline.wait(lambda seconds: turn.acquire(timeout=seconds)):
            raise busy()
        try:
            yield
        finally:
            turn.release()

    def connect(self, age: int, until: float) -> sqlite3.Connection:
        """Return the connection; another one if the file was let go of since (`age` is another one)."""
        if self.connection is not None and self._age != age:
            self.close()
        if self.connection is None:
            self.place = self._path and path_of(self._path)
            connection = open_database(self.place, until)
            self._age, self._pid, self.opened, self._patience = age, os.getpid(), self.opened + 1, 0
            self._file = _identity(self.place)
            # Threads on the other side ask whether it is inherited: it comes last.
            self.connection = connection
        return self.connection

    def wait_for_others(self, seconds: float) -> None:
        """Let SQLite wait for another process, for at most so long: it may recover the file, or be the last to leave
        it, which keeps readers out, too. To be called with :meth:`taken` and connected."""
        assert self.connection is not None
        milliseconds = max(0, int(seconds * 1000))
        if not self._patience <= milliseconds <= 2 * self._patience:  # else it is near enough
            self.connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
            self._patience = milliseconds

    def close(self) -> None:
        """Close the connection. Never raises. To be called with :meth:`taken`, or where there are no other threads."""
        if self._path is not None and self.is_inherited():
            # Closing it here could remove the log that the parent writes to.
            return
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def is_gone(self) -> bool:
        """Return whether the file that is open here was deleted, or another one stands in its place: no other process,
        and none that starts, would find what is written to it."""
        return self.connection is not None and self._file != _identity(self.place)

    def is_inherited(self) -> bool:
        """Return whether the connection was opened by a process that this one was forked from."""
        return self.connection is not None and self._pid != os.getpid()


class Sides:
    """The connections of this process to one journal.

    :param path: of the journal, as the settings name it; None: in memory, by one connection only. No other process can
        keep that waiting.
    :ivar was_gone: see :meth:`is_gone`.
    """

    def __init__(self, path: Path | None) -> None:
        self.was_gone = False
        self._without_room = path
        self.write = Side(path, "write")
        self.read = self.write if path is None else Side(path, "read")
        self.shrink = self.write if path is None else Side(path, "shrink")

    @property
    def all(self) -> Sequence[Side]:
        """Return each of them."""
        return self.write, self.read, self.shrink

    def make_room(self) -> None:
        """Make sure, before one is opened for the first time, that no file of another program is in the way."""
        if self._without_room is not None:
            make_room(self._without_room)
            self._without_room = None

    def is_gone(self) -> bool:
        """Return whether the file of one of them was deleted, also if it has been opened anew since the last call that
        returned this."""
        was_gone, self.was_gone = self.was_gone, False
        return was_gone or any(side.is_gone() for side in self.all)


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return the device and number of a file; None: there is none."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status else None
