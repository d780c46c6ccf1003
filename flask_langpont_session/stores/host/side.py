"""A connection to the journal that the threads of a process use in turn."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...support.lag import Deadline
from .group_commit import busy
from .opening import open_database

TURNS = {side: threading.RLock() for side in ("write", "read", "shrink")}
"""Locks for all journals of this process, usually one: a fork has to stop and close every one of them. A thread that
takes several takes them in this order. Reentrant, because a signal handler may fork."""


class Side:
    """One connection, for all threads of this process, one at a time; opened when it is needed.

    :ivar opened: how often; what was learned from one connection says nothing about the next.
    """

    def __init__(self, path: Path | None, turn: str) -> None:
        self.connection: sqlite3.Connection | None = None
        self.opened = 0
        self._path = path
        self._turn = turn
        self._age = 0
        self._pid = 0
        self._patience = 0

    @contextmanager
    def taken(self, deadline: Deadline) -> Iterator[None]:
        """Alone on this side.

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
        """The connection; another one if the file was let go of since (`age` is another one)."""
        if self.connection is not None and self._age != age:
            self.close()
        if self.connection is None:
            connection = open_database(self._path, until)
            self._age, self._pid, self.opened, self._patience = age, os.getpid(), self.opened + 1, 0
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
        """Never raises. To be called with :meth:`taken`, or where there are no other threads."""
        if self._path is not None and self.is_inherited():
            # Closing it here could remove the log that the parent writes to.
            return
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def is_inherited(self) -> bool:
        """Whether the connection was opened by a process that this one was forked from."""
        return self.connection is not None and self._pid != os.getpid()
