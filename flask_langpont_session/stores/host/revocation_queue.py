"""The revocations that the database or Redis does not know yet, in the journal of this host."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial

from .entries import (
    PendingRevocation,
    PendingUserRevocation,
    delete,
    is_revoked,
    mark_done,
    put_revocation,
    put_user_revocation,
)
from .file import REPLAY_SECONDS, JournalFile


class RevocationQueue:
    """Sessions, and users with all their sessions, that have ended. Threads, waits and errors: see
    :class:`~.journal.Journal`.

    :param clock: seconds since 1970.
    """

    def __init__(self, file: JournalFile, *, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock

    def note(
        self,
        *digests: str,
        in_database: bool = False,
        in_redis: bool = False,
        wait: float | None = None,
        stays: bool = False,
    ) -> None:
        """Note that sessions are dead, and forget what was to be written for them; their shadows' writes stay.

        Of several notes about a session the one that waits for the database counts: what the database has may be a
        change of id only, after which the session goes on.

        :param in_database: the database has it already.
        :param in_redis: Redis has the tombstone already.
        :param stays: not given up when time is up, see :meth:`.JournalFile.transaction`.
        """
        now = int(self._clock() * 1000)

        def note(db: sqlite3.Connection) -> None:
            for digest in digests:
                put_revocation(db, digest, now, in_database)
                mark_done(db, digest, in_database=False, in_redis=in_redis)

        self._file.transaction(note, wait, stays=stays)

    def mark_done(self, *digests: str, in_database: bool = False, in_redis: bool = False) -> None:
        """Note which stores have these revocations now. An entry disappears when both have it."""

        def note(db: sqlite3.Connection) -> None:
            for digest in digests:
                mark_done(db, digest, in_database, in_redis)

        self._file.transaction(note, REPLAY_SECONDS)

    def is_revoked(self, digest: str, *, wait: float | None = None) -> bool:
        """Whether a revocation of this session waits here."""
        with self._file.connected(wait) as db:
            return is_revoked(db, digest)

    def pending(
        self, limit: int = 1000, *, database: bool = True, redis: bool = True, after: int = 0
    ) -> list[PendingRevocation]:
        """The oldest revocations that one of these stores lacks.

        :param after: only those with a higher number (`seq`).
        :param database: those the database lacks; `redis`: those Redis lacks. Entries that wait for a store which does
            not answer must not stand in the way of others.
        """
        sql = (
            "SELECT seq, digest, at_ms, in_database, in_redis FROM revocations"
            " WHERE seq > ? AND ((? AND NOT in_database) OR (? AND NOT in_redis)) ORDER BY seq LIMIT ?"
        )
        with self._file.connected() as db:
            rows = db.execute(sql, (after, database, redis, limit)).fetchall()
        return [PendingRevocation(seq, digest, at, bool(sql), bool(redis)) for seq, digest, at, sql, redis in rows]

    def note_user(
        self, user_id: str, *, until_ms: int = 0, epoch: int = 0, wait: float | None = None, stays: bool = False
    ) -> None:
        """Note that every session of a user which began until then, or in an earlier epoch, is dead: "log out
        everywhere", which not every store knows yet.

        Of several times the latest counts. What waits for single sessions of the user stays: the journal does not
        know when they began.

        :param until_ms: milliseconds since 1970; for the case that the database does not know of it.
        :param epoch: the user's epoch, if the database has raised it.
        :param stays: see :meth:`note`.
        """
        self._file.transaction(lambda db: put_user_revocation(db, user_id, until_ms, epoch), wait, stays=stays)

    def pending_users(self, limit: int = 1000, *, redis: bool = True) -> list[PendingUserRevocation]:
        """The users that are still to be logged out everywhere, the one that was noted longest ago first.

        :param redis: also those of whom only Redis has to be told.
        """
        sql = (
            "SELECT seq, user_id, until_ms, epoch, in_database, reached FROM user_revocations"
            " WHERE ? OR NOT in_database ORDER BY seq LIMIT ?"
        )
        with self._file.connected() as db:
            rows = db.execute(sql, (redis, limit)).fetchall()
        return [
            PendingUserRevocation(seq, user_id, until_ms, epoch, bool(in_database), reached)
            for seq, user_id, until_ms, epoch, in_database, reached in rows
        ]

    def advance_user(self, entry: PendingUserRevocation) -> None:
        """Note how far it is. One that was noted again since then begins anew. What is lost of this when the machine
        loses its power is done twice."""
        sql = "UPDATE user_revocations SET in_database = ?, reached = ? WHERE seq = ?"
        self._file.aside(lambda db: db.execute(sql, (entry.in_database, entry.reached, entry.seq)), REPLAY_SECONDS)

    def forget_user(self, entry: PendingUserRevocation) -> None:
        """All that follows from it is done. One that was noted again since then stays."""
        self._file.transaction(partial(delete, "user_revocations", [entry.seq]), REPLAY_SECONDS)
