"""The revocations that the database or Redis does not know yet, in the journal of this host."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from ...policy.errors import StoreError
from ...support.forks import renew_in_children
from .entries import (
    PendingRevocation,
    PendingUserRevocation,
    delete,
    is_revoked,
    mark_done,
    put_delivered,
    put_revocation,
    put_user_revocation,
)
from .file import REPLAY_SECONDS, JournalFile
from .group_commit import Room, Work
from .opening import is_full, open_database

T = TypeVar("T")

_MOST_UNWRITTEN = 10_000
"""Delivered revocations that a worker keeps in its memory until they are written."""


class OwnMemory:
    """A database of the same form as the journal's, in the memory of this process: it has no disk, and waits for no
    other call than those that use it. A forked child begins with nothing."""

    def __init__(self) -> None:
        self._begin()
        renew_in_children(self, OwnMemory._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    @contextmanager
    def connected(self, wait: float | None = None) -> Iterator[sqlite3.Connection]:
        """See :meth:`.JournalFile.connected`."""
        with self._lock:
            self._db = self._db or open_database(None, 0.0)
            yield self._db

    def transaction(self, work: Work[T], *_how: object, **_more: object) -> T:
        """See :meth:`.JournalFile.transaction`."""
        with self.connected() as db:
            return work(db)

    aside = transaction

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None


class RevocationQueue:
    """Sessions, and users with all their sessions, that have ended. Threads, waits and errors: see
    :class:`~.journal.Journal`.

    Those that both stores have wait for nothing any more. They are kept for as long as a tombstone, because a database
    may go back to a state from before: a failover to a server that lagged, a restored backup.

    :param clock: seconds since 1970.
    :param holds: whether what the file does not take is kept in this process' memory.
    :ivar held: that.
    :ivar has_held: whether anything may be there.
    """

    def __init__(
        self, file: JournalFile | OwnMemory, *, clock: Callable[[], float] = time.time, holds: bool = True
    ) -> None:
        self._file = file
        self._clock = clock
        self._unwritten: deque[tuple[str, int]] = deque(maxlen=_MOST_UNWRITTEN)
        # Which stores have entries of the file, where that could not be noted there: the database, Redis.
        self._told: dict[str, tuple[bool, bool]] = {}
        self.held: RevocationQueue = RevocationQueue(OwnMemory(), clock=clock, holds=False) if holds else self
        self.has_held = False

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
        now = self._now_ms()

        def note(db: sqlite3.Connection) -> None:
            for digest in digests:
                put_revocation(db, digest, now, in_database)
                mark_done(db, digest, now, in_database=False, in_redis=in_redis)

        self._take(note, wait, stays=stays)

    def _take(self, work: Work[None], wait: float | None, *, stays: bool) -> None:
        """Have the file take something. It is held if the file does not say that it has it: told twice, the stores
        are as told once."""
        try:
            self._file.transaction(work, wait, stays=stays, room=Room.RESERVED)
        except StoreError:
            self._hold(work)
            raise

    def _hold(self, work: Work[None]) -> None:
        self.held._file.transaction(work)
        self.has_held = True  # after it: see write_held()

    def mark_done(self, *digests: str, in_database: bool = False, in_redis: bool = False) -> None:
        """Note which stores have these revocations now. An entry waits no more when both have it. If the disk has no
        room for that, this process remembers it."""
        now = self._now_ms()

        def note(db: sqlite3.Connection) -> None:
            for digest in digests:
                mark_done(db, digest, now, in_database, in_redis)

        try:
            self._file.transaction(note, REPLAY_SECONDS, room=Room.RESERVED)
        except StoreError as error:
            if not is_full(error):
                raise
            for digest in digests:
                before = self._told.get(digest, (False, False))
                self._told[digest] = before[0] or in_database, before[1] or in_redis

    def note_delivered(self, *digests: str) -> None:
        """Note that both stores have these revocations. Costs no request anything: :meth:`keep_delivered` writes it."""
        now = self._now_ms()
        self._unwritten.extend((digest, now) for digest in digests)

    def keep_delivered(self) -> None:
        """Write what was noted since the last call, not forced to the disk."""
        noted = [self._unwritten.popleft() for _ in range(len(self._unwritten))]

        def keep(db: sqlite3.Connection) -> None:
            for digest, at_ms in noted:
                put_delivered(db, digest, at_ms)

        try:
            if noted:
                self._file.aside(keep, REPLAY_SECONDS)
        except StoreError:
            self._unwritten.extend(noted)
            raise

    def delivered(self, limit: int = 1000, *, after: str = "", before_ms: int | None = None) -> list[str]:
        """Return digests of sessions whose end both stores have, in their order.

        :param after: only those behind this one.
        :param before_ms: only those of which that was so before, milliseconds since 1970 by the host's clock.
        """
        sql = "SELECT digest FROM delivered WHERE digest > ? AND (? IS NULL OR at_ms < ?) ORDER BY digest LIMIT ?"
        with self._file.connected() as db:
            return [digest for (digest,) in db.execute(sql, (after, before_ms, before_ms, limit))]

    def tell_again(self, digests: Iterable[str]) -> int:
        """Have delivered revocations wait for both stores once more: the database has lost them.

        :return: how many those are; another worker may have been faster.
        """
        now, lost = self._now_ms(), list(digests)

        def tell(db: sqlite3.Connection) -> int:
            sql = "DELETE FROM delivered WHERE digest = ?"
            found = [digest for digest in lost if db.execute(sql, (digest,)).rowcount]
            for digest in found:
                put_revocation(db, digest, now, in_database=False)
            return len(found)

        return self._file.transaction(tell, REPLAY_SECONDS, room=Room.RESERVED)

    def forget_delivered(self, digests: Sequence[str], *, before_ms: int) -> None:
        """Forget those of some delivered revocations with which nothing is left that could revive these sessions.

        :param before_ms: they have been delivered since before that, milliseconds since 1970 by the host's clock.
        """

        def forget(db: sqlite3.Connection) -> None:
            sql = "DELETE FROM delivered WHERE digest = ? AND at_ms < ?"
            db.executemany(sql, [(digest, before_ms) for digest in digests])

        self._file.aside(forget, REPLAY_SECONDS)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def is_revoked(self, digest: str, *, wait: float | None = None) -> bool:
        """Return whether a revocation of this session waits here."""
        with self._file.connected(wait) as db:
            return is_revoked(db, digest)

    def pending(
        self, limit: int = 1000, *, database: bool = True, redis: bool = True, after: int = 0
    ) -> list[PendingRevocation]:
        """Return the oldest revocations that one of these stores lacks.

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
        told = [self._told.get(digest, (False, False)) for _, digest, *_ in rows]
        return [
            PendingRevocation(seq, digest, at, bool(sql or known[0]), bool(redis or known[1]))
            for (seq, digest, at, sql, redis), known in zip(rows, told, strict=True)
        ]

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
        self._take(lambda db: put_user_revocation(db, user_id, until_ms, epoch), wait, stays=stays)

    def pending_users(self, limit: int = 1000, *, redis: bool = True) -> list[PendingUserRevocation]:
        """Return the users that are still to be logged out everywhere, the one that was noted longest ago first.

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
        """Note how far the end of a user's sessions has come. A user that was noted again since then begins anew. What
        is lost of this when the machine loses its power is done twice."""
        sql = "UPDATE user_revocations SET in_database = ?, reached = ? WHERE seq = ?"
        self._file.aside(lambda db: db.execute(sql, (entry.in_database, entry.reached, entry.seq)), REPLAY_SECONDS)

    def forget_user(self, entry: PendingUserRevocation) -> None:
        """Forget a user, when all that follows from the entry is done. One that was noted again since then stays."""
        gone = partial(delete, "user_revocations", [entry.seq])
        self._file.transaction(gone, REPLAY_SECONDS, room=Room.RESERVED)

    # -- what there was no room for ------------------------------------------------------------------------------------

    def write_held(self) -> None:
        """Have the journal take what only this process knows.

        :raises StoreError: it still does not.
        """
        if not (self.has_held or self._told):
            return
        self.has_held = False  # what is held from here on says so again
        now, told = self._now_ms(), dict(self._told)
        revocations, users = self.held.pending(), self.held.pending_users()

        def write(db: sqlite3.Connection) -> None:
            for entry in revocations:
                put_revocation(db, entry.digest, entry.at_ms, entry.in_database)
                mark_done(db, entry.digest, now, entry.in_database, entry.in_redis)
            for user in users:
                put_user_revocation(db, user.user_id, 0, user.epoch)
                if not user.in_database:  # it knows of the epoch, and not of a time that was noted since
                    put_user_revocation(db, user.user_id, user.until_ms, 0)
            for digest, stores in told.items():
                mark_done(db, digest, now, *stores)

        try:
            self._file.transaction(write, REPLAY_SECONDS, room=Room.RESERVED)
        except StoreError:
            self.has_held = True
            raise
        self.held.forget(revocations, users)
        self.has_held = self.has_held or bool(self.held.pending(1) or self.held.pending_users(1))
        self._told = {digest: stores for digest, stores in self._told.items() if told.get(digest) != stores}

    def close(self) -> None:
        """Let go of the file. Never raises."""
        self._file.close()

    def forget(self, revocations: Iterable[PendingRevocation], users: Iterable[PendingUserRevocation]) -> None:
        """Forget entries that another queue has taken over. What was noted again meanwhile stays."""
        sql = "DELETE FROM revocations WHERE seq = ? AND in_database = ? AND in_redis = ?"

        def forget(db: sqlite3.Connection) -> None:
            db.executemany(sql, [(entry.seq, entry.in_database, entry.in_redis) for entry in revocations])
            delete("user_revocations", [user.seq for user in users], db)

        self._file.transaction(forget)
