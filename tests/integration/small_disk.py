"""A disk that is full."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count

import pytest
from flask import Flask

from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.stores.host.entries import PendingWrite, put_revocation, put_user_revocation, put_write

from .conftest import parts


def _put_write(db: sqlite3.Connection, name: str) -> None:
    put_write(
        db, PendingWrite(digest=name, kind="u", category="ui", operation=Operation.SET, field="a", value=b"1", at_ms=1)
    )


_FILLERS: tuple[Callable[[sqlite3.Connection, str], object], ...] = (
    lambda db, name: put_revocation(db, name, 1, in_database=False),
    lambda db, name: put_user_revocation(db, name, 1, 0),
    _put_write,
)
"""What waits for the database, so that no room is made while it is down."""


class Disk:
    """The room that an application's journal has."""

    def __init__(self, app: Flask) -> None:
        self._journal = parts(app).backend.journal
        self._monitor = parts(app).monitor
        assert self._journal.is_empty()

    def fill(self) -> None:
        """Leave no room for anything."""
        path = self._journal.file.reader.place
        assert path is not None
        with self._monitor.paused(), closing(sqlite3.connect(path, isolation_level=None)) as filler:
            # SQLite reads this as: the pages there are.
            filler.execute("PRAGMA max_page_count = 1")
            self._limit(1)
            for put in _FILLERS:
                with pytest.raises(sqlite3.OperationalError, match="is full"):
                    for number in count():
                        put(filler, str(number))

    def make_room(self) -> None:
        """Make room on the disk, as an operator does who tidies it."""
        self._limit(1_000_000)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Every write to a file fails, those of marks and deletions too: the system refuses what is beyond the limit of
        files, which is 0, also to root. The stores of the test are other processes."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def _limit(self, pages: int) -> None:
        connection = self._journal.file.writer.connection
        assert connection is not None
        connection.execute(f"PRAGMA max_page_count = {pages}")
