"""The host's own durable file of what could not be written where it belongs during an outage: what must still reach the
stores. What the workers of the host tell each other, in the same file, is the :mod:`.board`.

One SQLite file per host, shared by the host's worker processes. What a call wrote is on the disk when the
call returns, and every worker of the host sees it from then on. While everything is healthy the file is empty
and a request asks one question only, :meth:`Journal.is_empty`, which is answered from memory that they share.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...policy.changes import Basis, Operation
from ...policy.copies import RecordRef, SharedCopy
from ...policy.errors import StoreError
from ...policy.rows import AuthRow
from ...support.logs import fields
from ..codec.plain import PLAIN, Codec
from .board import Board, Outdated, Shared
from .commit_counter import CommitCounter
from .entries import (
    FIELD,
    Carry,
    Overlay,
    PendingPush,
    PendingRevocation,
    PendingUserRevocation,
    PendingWrite,
    Stays,
    as_known,
    as_stored,
    delete,
    end_carry,
    is_revoked,
    oldest_carries,
    oldest_writes,
    put_carry,
    put_push,
    put_write,
    read_overlay,
    take_carry_back,
    unmarked,
)
from .file import REPLAY_SECONDS, JournalFile
from .group_commit import Room
from .host_clock import HostClock
from .limits import JournalLimits
from .opening import DeletedJournal, is_full, one
from .register import end_former
from .revocation_queue import RevocationQueue
from .summary import ALL, NAMING, Summary, Waiting, find_sessions, read_session, read_summary, read_waiting

log = logging.getLogger(__name__)

__all__ = [
    "Carry",
    "Journal",
    "Overlay",
    "PendingPush",
    "PendingRevocation",
    "PendingUserRevocation",
    "PendingWrite",
    "Summary",
    "Waiting",
    "journal_at",
]

_MOST_NAMED = 50
"""The most entries of a kind whose sessions are remembered by name."""

_OF_SESSIONS = " UNION ALL ".join(
    f"SELECT * FROM (SELECT {column} AS digest FROM {table} LIMIT {_MOST_NAMED + 1})" for table, column in NAMING
)

# In one row: the interpreter's lock is given up with each, and in a busy process other threads want it.
_LOOK = f"""SELECT EXISTS (SELECT 1 FROM outages), EXISTS (SELECT 1 FROM user_revocations),
    (SELECT count(*) || ifnull(',' || group_concat(digest), '') FROM ({_OF_SESSIONS}))"""

_NOW_MADE_FROM = f"UPDATE writes SET base = ? WHERE {FIELD} AND seq > ? AND basis = ? AND moment = ? AND base IS ?"


def _made_from(entry: PendingWrite) -> tuple[object, ...]:
    """Return the arguments of :data:`_NOW_MADE_FROM`, of an entry as it is stored."""
    place = entry.digest, entry.shadow, entry.category, entry.field
    return entry.value, *place, entry.seq, Basis.SEEN, entry.moment, entry.base


class Look(NamedTuple):
    """The outcome of a look at the file.

    :param counter: of commits, and `word`: what it said then; None: the file may have changed already.
    :param is_empty: whether there was nothing.
    :param is_outage: whether an outage was announced.
    :param named: the sessions of which there was anything; None: there are too many, or it concerns any session.
    """

    counter: CommitCounter | None
    word: bytes
    is_empty: bool
    is_outage: bool
    named: frozenset[str] | None


_NOTHING = Look(None, b"", False, False, None)

LINGER = 5.0
"""Seconds after an outage during which a slower sibling worker may still read the published copies, and after a
worker's last announcement that it is in an outage: one of these may be missed. A copy is kept for as long after a
merge: its replica may not have that yet."""


class LastLook:
    """Looks at the file again only after a commit. May be used from any thread; errors are those of the file."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        # One value, so that no thread sees half of it: when the file was last looked at, and what was seen.
        self._seen = _NOTHING
        self._outage_at = -math.inf
        self._others: object = None

    def seen(self, wait: float | None) -> Look:
        """Return what there is at the moment. Costs about a microsecond if nothing was committed since."""
        if self._is_current(known := self._seen):
            return known
        with self._file.connected(wait) as db:
            # The counter is read first: a commit between the two reads makes the next call look again. Another thread
            # may have looked while this one waited for the connection.
            counter, word = self._file.counter, None
            with suppress(OSError):
                word = None if counter is None else counter.committed()
            if not self._is_current(known := self._seen):
                was_outage = known.is_outage
                known = self._seen = _seen(
                    None if word is None else counter, word or b"", *db.execute(_LOOK).fetchone()
                )
                if was_outage or known.is_outage:
                    self._outage_at = time.monotonic()
        return known

    def has_readers(self, wait: float | None = None) -> bool:
        """Return whether a worker of this host may read copies: one announces an outage, or did lately."""
        known = self.seen(wait)
        return known.is_outage or (not known.is_empty and time.monotonic() - self._outage_at < LINGER)

    def is_silent_about(self, digest: str, wait: float | None = None) -> bool:
        """Return whether the journal has nothing of this session. While much waits, False: an overlay tells.

        Costs about a microsecond. While a few sessions have something here, the requests of all others do not wait for
        the connection.
        """
        known = self._seen
        if not self._is_current(known):
            known = self.seen(wait)
        return known.named is not None and digest not in known.named

    def was_empty(self) -> bool:
        """Return whether there was nothing at the last look."""
        return self._seen.is_empty

    def _is_current(self, known: Look) -> bool:
        """Return whether nothing was committed since a look, and the file is not opened anew. Takes no lock."""
        counter = known.counter
        try:
            return counter is not None and counter is self._file.counter and counter.word() == known.word
        except OSError:
            return False

    def changed(self) -> bool:
        """Return whether another process committed anything since the last call. True at the first call."""
        before, self._others = self._others, self._file.others_state()
        if self._others != before:
            # A program that takes the counter's file away, or writes without it (an older release during an upgrade,
            # the sqlite3 program), is noticed now, if not at once.
            self.forget()
        return self._others != before

    def forget(self) -> None:
        """Have the next call look again."""
        self._seen = _NOTHING._replace(is_outage=self._seen.is_outage)


def _seen(counter: CommitCounter | None, word: bytes, outages: int, users: int, sessions: str) -> Look:
    """:param sessions: how many entries of sessions there are, at least, and of which sessions."""
    number, *named = sessions.split(",")
    are_named = not users and int(number) <= _MOST_NAMED
    is_empty = not (outages or users or named)
    return Look(counter, word, is_empty, bool(outages), frozenset(named) if are_named else None)


class Journal:
    """The journal. Every method may be called from any thread, and every one but :meth:`close` raises
    :class:`StoreError` with store ``journal``: WRITE_REFUSED when the disk is full or read-only, LOCAL when a
    limit of this package is reached, DATA for a value that cannot be kept (a number beyond 64 bits),
    UNREACHABLE for all else. What raised was not written and will not be; unless the error's ``sent`` is true: then it
    may be, or is and may get lost with the machine.

    Wherever there is a `wait`, it is the seconds that the call may take for all that it waits for: other threads, other
    processes and the disk together. When they are over it raises UNREACHABLE; ``timed_out``, too, if the write was
    under way by then. None: :data:`~.file.BUSY_SECONDS`; what only the replay calls is more patient. Reading
    waits for no writer.

    :param file: where it is kept.
    :ivar file: where it is kept; without a path: in this process' memory.
    :ivar clock: seconds since 1970, of all workers of the host: order and age go by it, see :class:`.HostClock`.
    :ivar board: what the workers of the host tell each other, in the same file.
    :ivar is_silent_about: gets a digest and, perhaps, a `wait`, see :meth:`LastLook.is_silent_about`.
    :ivar has_readers: see :meth:`LastLook.has_readers`.
    :ivar was_empty: see :meth:`LastLook.was_empty`; `changed`: see :meth:`LastLook.changed`.
    :ivar revocations: the sessions and users whose end has not reached every store.
    """

    on_damaged: Callable[[str], None] = staticmethod(lambda category: None)
    """Called with the category of each entry that was removed because it cannot be read, as far as that can be."""

    def __init__(self, file: JournalFile, board: Board) -> None:
        self.file = file
        self.board = board
        self.clock, self.codec, self._limits = board.clock, board.codec, board.limits
        self._last_look = look = LastLook(file)
        self.is_silent_about, self.was_empty, self.changed = look.is_silent_about, look.was_empty, look.changed
        self.has_readers = look.has_readers
        self.revocations = RevocationQueue(file, clock=self.clock)

    def open(self) -> None:
        """Create the file if need be and make sure that it can be written. Meant for the start of an
        application.

        Every other call opens by itself; this one only fails early. It leaves nothing open, so that a server
        which loads the application and then forks its workers has nothing to hand down.
        """
        self.file.open()
        if self.file.path is not None:
            self.close()
            end_former(self.file.path)

    def close(self) -> None:
        """Let go of the file, and of the board's. Never raises; the next call opens them again. A journal in memory is
        gone."""
        self._let_go()
        self.revocations.held.close()

    def _let_go(self) -> None:
        self.file.close()
        self.board.register.close()
        self._last_look.forget()

    def shrink(self) -> bool:
        """Keep the files small, which costs requests nothing if it is done often: copy what SQLite's log has gathered
        to the file, and give room that has become free back to the system, a portion at a time. Waits for the disk.

        :return: whether there may be more; next time, after others were let in.
        :raises DeletedJournal: once; the next call of any kind makes the journal anew.
        """
        if self.file.sides.is_gone():
            self._let_go()  # but not of the revocations that it did not take
            raise DeletedJournal
        return self.file.shrink()

    def alone(self) -> AbstractContextManager[bool]:
        """Yield whether this worker may do what only one worker of the host may do at a time. Waits for no other."""
        return self.file.alone()

    # -- questions -----------------------------------------------------------------------------------------------------

    def is_empty(self, wait: float | None = None) -> bool:
        """Return whether no write, revocation or push waits, no copy is published and no outage announced: no worker of
        this host has anything to tell or to learn of any session. Costs about a microsecond."""
        return self._last_look.seen(wait).is_empty

    def overlay(self, ref: RecordRef, *, wait: float | None = None) -> Overlay:
        """Return everything this host knows about a session, or about its anonymous shadow, at one moment."""
        with self.file.snapshot(wait) as db:
            return read_overlay(db, ref, int((self.clock() - self._limits.copies_ttl) * 1000), self.codec)

    def counts(self) -> Mapping[str, int]:
        """Return how many entries of each kind there are, published copies and announced outages too."""
        with self.file.snapshot() as db:
            return {table: one(db, f"SELECT count(*) FROM {table}") for table in ALL}

    def waiting(self) -> Waiting:
        """Return how much waits for a store, and since when."""
        with self.file.snapshot() as db:
            return _shown(self.clock, read_waiting(db))

    def summary(self) -> Summary:
        """Return what waits by kind, with how many sessions it is for and how large the file is."""
        with self.file.snapshot() as db:
            found = read_summary(db, _bytes(self.file.reader.place, db))
        return found._replace(kinds={kind: _shown(self.clock, waiting) for kind, waiting in found.kinds.items()})

    def of_session(self, digest: str, row: AuthRow | None) -> Mapping[str, Waiting]:
        """Return what the journal has of one session, by kind, see :func:`.read_session`."""
        with self.file.snapshot() as db:
            found = read_session(db, digest, row)
        return {kind: _shown(self.clock, waiting) for kind, waiting in found.items()}

    def find(self, beginning: str) -> set[str]:
        """Return the digests with this beginning of sessions for which there is anything."""
        with self.file.connected() as db:
            return find_sessions(db, beginning)

    # -- writes --------------------------------------------------------------------------------------------------------

    def put(
        self, entries: Sequence[PendingWrite], copies: Sequence[SharedCopy] = (), *, wait: float | None = None
    ) -> list[PendingWrite]:
        """Keep changes of a session until Redis takes them, all or none, in this order.

        A session that is revoked here absorbs them; its shadow does not. Wipes alone are not given up when time is up:
        what a session had must not be seen again.

        :param copies: what is known of the session before these changes, see :meth:`.Board.publish_copies`.
        :return: what was made without knowing what is there, and is lost because something is: of these changes, which
            are not kept then, and of those that waited. Only the latter have a number.
        :raises StoreError: of class DATA: what is to be added to is no whole number.
        """
        now = int(self.clock() * 1000)
        entries = [as_stored(replace(entry, at_ms=now), self.codec) for entry in entries]
        session = (entries[0].digest, entries[0].shadow) if entries else None

        def put(db: sqlite3.Connection) -> list[PendingWrite]:
            alive = [entry for entry in entries if entry.shadow or not is_revoked(db, entry.digest)]
            return [lost for entry in alive if (lost := put_write(db, entry))]

        left = _time_left(wait)
        stays = all(entry.operation is Operation.WIPE for entry in entries)
        room = Room.USUAL if stays else Room.GROWING
        lost = self.file.transaction(self._limits.adding(put, session), wait, stays=stays, room=room)
        self.board.add_copies(copies, left())
        return [as_known(entry, self.codec) for entry in lost]

    def carry(
        self,
        carry: Carry,
        copies: Callable[[], Sequence[SharedCopy]] = tuple,
        *,
        stays: Stays = lambda entry: False,
        wait: float | None = None,
    ) -> tuple[list[PendingWrite], Outdated]:
        """Keep that what a session has under a former id is to be brought to the present one. What waits of it here
        waits for the present one from now on. If there is no time, it is done as soon as there is, unless the former id
        is given up by it: then the session keeps that id, and what it has.

        :param copies: says what is known of that data, see :meth:`.Board.publish_copies`. Asked when nothing waits for
            the former id any more: until then another worker may merge it.
        :param stays: says which changes of these categories go on waiting for the former id.
        :return: changes under the present id that are not kept, as of :meth:`put`; and how many of those that wait gave
            way to the copies, see :func:`.put_copy`.
        """
        now = int(self.clock() * 1000)
        left = _time_left(wait)
        put = self._limits.adding(lambda db: put_carry(db, carry, now_ms=now, codec=self.codec, stays=stays))
        try:
            left_out = self.file.transaction(put, wait, stays=not carry.left_us, room=Room.GROWING)
        except StoreError as error:
            if carry.left_us and error.timed_out:  # its commit was under way
                with suppress(StoreError):
                    self.file.transaction(lambda db: take_carry_back(db, carry, self.codec), 0.0, stays=True)
            raise
        outdated = self.board.add_copies(copies(), left())
        return [as_known(entry, self.codec) for entry in left_out], outdated

    def pending_writes(self, limit: int = 1000, *, after: int = 0) -> list[PendingWrite]:
        """Return the changes that wait, the one that was made longest ago first.

        :param after: only those with a higher number (`seq`).
        """
        with self.file.connected() as db:
            found, damaged = oldest_writes(db, limit, after)
        _remove(self, "writes", damaged)
        entries = [as_known(entry, self.codec) for entry in found]
        sealed = {e.seq: e.category for e in entries if self.codec.is_damaged(e.value) and self.can_read(e)}
        if sealed:
            log.error(
                "%d entries of the journal cannot be decrypted and are removed: what they were to change is lost",
                len(sealed),
                extra=fields("entries_not_decrypted", number=len(sealed)),
            )
            _remove_these(self, "writes", sealed)
        return [entry for entry in entries if entry.seq not in sealed]

    def can_read(self, entry: PendingWrite) -> bool:
        """Return whether this process understands what an entry is to change. Else the entry waits for a process that
        does: it is sealed by a key that this one does not have."""
        return not any(map(self.codec.lacks_key_of, (entry.value, entry.base)))

    def mark_sent(self, entries: Mapping[PendingWrite, str], moments_ms: Mapping[str, int]) -> list[PendingWrite]:
        """Mark entries that are about to be sent to Redis: from here on it may have them. Not forced to the disk.

        :param entries: with the id under which each is sent.
        :param moments_ms: digest → the clock of the server that has it, milliseconds since 1970.
        :return: those that may be sent. What was written again since it was read from here may not: its old value would
            look like a newer one of another worker, and an addition that has grown would be taken for made. Where the
            disk has no room for a mark: those that may be sent again without one, see :func:`.unmarked`.
        """
        sql = """UPDATE writes SET doubts = CASE WHEN instr(doubts, ?) THEN doubts ELSE doubts || ? END,
            moment = CASE WHEN token <> '' AND NOT is_sent THEN ? ELSE moment END, is_sent = token <> ''
            WHERE seq = ?"""
        sent = dict(entries)

        def mark(db: sqlite3.Connection) -> list[PendingWrite]:
            def may_be_sent(entry: PendingWrite, write_id: str) -> bool:
                moment = moments_ms.get(entry.digest, 0) * 1000
                return db.execute(sql, (f"{write_id} ", f"{write_id} ", moment, entry.seq)).rowcount > 0

            return [entry for entry, write_id in sent.items() if may_be_sent(entry, write_id)]

        try:
            return self.file.transaction(mark, REPLAY_SECONDS, forced=False, room=Room.RESERVED)
        except StoreError as error:
            if not is_full(error):
                raise
            with self.file.connected() as db:
                return unmarked(db, list(sent))

    def note_merged(self, versions: Mapping[PendingWrite, int]) -> None:
        """Note that a store has what waits, as of a version, though it waits on: a server that is given that back by
        a copy does not say whose it is, and what takes its place here meanwhile is made from it.

        :param versions: of values that were made from what was read.
        """
        rows = [(version, entry.seq) for entry, version in versions.items()]
        merged = [_made_from(as_stored(entry, self.codec)) for entry in versions]

        def note(db: sqlite3.Connection) -> None:
            db.executemany("UPDATE writes SET base = value, moment = ? WHERE seq = ?", rows)
            db.executemany(_NOW_MADE_FROM, merged)

        if rows:
            self.file.transaction(note, REPLAY_SECONDS, room=Room.RESERVED)

    def forget_writes(
        self,
        entries: Iterable[PendingWrite],
        copies: Iterable[SharedCopy] = (),
        *,
        applied: Iterable[PendingWrite] = (),
    ) -> Shared:
        """Forget entries that are done. A field that was written again since it was read from here stays.

        :param applied: those that a store has now. What took their place here meanwhile was made from
            them: without that it would be a conflict with them.
        :param copies: what they became part of, for workers that do not see it yet: see
            :meth:`.Board.publish_copies`. There is room for it where the entries were.
        :return: as of :meth:`.Board.publish_copies`.
        """
        done, shared = [(entry.seq,) for entry in entries], list(copies)

        merged = [_made_from(as_stored(entry, self.codec)) for entry in applied]

        def forget(db: sqlite3.Connection) -> Shared:
            db.executemany("DELETE FROM writes WHERE seq = ?", done)
            db.executemany(_NOW_MADE_FROM, merged)
            return self.board.put_copies(shared, db)

        return self.file.transaction(forget, REPLAY_SECONDS, room=Room.RESERVED)

    def pending_carries(self, limit: int = 1000, *, after: int = 0) -> list[Carry]:
        """Return the data under former ids that waits to be brought to present ones, the oldest first.

        :param after: only those with a higher number (`seq`).
        """
        with self.file.connected() as db:
            entries, damaged = oldest_carries(db, limit, after)
        _remove(self, "carries", damaged)
        return entries

    def forget_carries(self, entries: Iterable[Carry], copies: Iterable[SharedCopy] = ()) -> Shared:
        """Forget carries that are done, and let the wipes of former ids that were given up wait in their place.

        :param copies: and the return value: as of :meth:`forget_writes`.
        """
        done, shared = list(entries), list(copies)

        def forget(db: sqlite3.Connection) -> Shared:
            for carry in done:
                end_carry(db, carry)
            return self.board.put_copies(shared, db)

        return self.file.transaction(forget, REPLAY_SECONDS, room=Room.RESERVED)

    # -- pushes --------------------------------------------------------------------------------------------------------

    def queue_push(self, digest: str, version: int = 0, *, wait: float | None = None) -> None:
        """Note that Redis lacks what the database has for this session.

        The database has it for good, so this does not wait for the disk. Where the machine loses its power at once,
        Redis learns it as from another host: when its copy has to be verified, or was changed around an incident.

        :param version: of its row, for the other workers: what they have of an older one is out of date. 0: unknown.
        """
        self.file.transaction(lambda db: put_push(db, digest, version), wait, forced=False)

    def pending_pushes(self, limit: int = 1000, *, after: int = 0) -> list[PendingPush]:
        """Return the oldest sessions that wait for a push.

        :param after: only those with a higher number (`seq`).
        """
        sql = "SELECT seq, digest FROM pushes WHERE seq > ? ORDER BY seq LIMIT ?"
        with self.file.connected() as db:
            rows = db.execute(sql, (after, limit)).fetchall()
        return [PendingPush(*row) for row in rows]

    def forget_push(self, *entries: PendingPush) -> None:
        """Forget pushes that are done. One that was queued since then stays."""
        _delete(self.file, "pushes", [entry.seq for entry in entries])


def _delete(file: JournalFile, table: str, numbers: Sequence[int]) -> None:
    file.transaction(partial(delete, table, numbers), REPLAY_SECONDS, room=Room.RESERVED)


def _remove(journal: Journal, table: str, damaged: Mapping[int, str]) -> None:
    """Take entries away that cannot be read.

    :param damaged: their numbers → the category of each.
    """
    if not damaged:
        return
    number = len(damaged)
    log.error(
        "%d damaged entries are removed from the journal: what they were to change is lost",
        number,
        extra=fields("entries_damaged", number=number),
    )
    _remove_these(journal, table, damaged)


def _remove_these(journal: Journal, table: str, damaged: Mapping[int, str]) -> None:
    _delete(journal.file, table, list(damaged))
    for category in damaged.values():
        journal.on_damaged(category)


def journal_at(
    path: Path | None,
    *,
    clock: Callable[[], float] | None = None,
    limits: JournalLimits | None = None,
    codec: Codec = PLAIN,
) -> Journal:
    """Return the journal in a file, with its board.

    :param path: of the file; its folder is created if only that one is missing. None: kept in this process' memory, for
        as long as the process lives.
    :param clock: seconds since 1970, of all workers of the host. None: a :class:`.HostClock`.
    :param limits: how much is kept at most.
    :param codec: of the values.
    """
    file = JournalFile(path)
    return Journal(file, Board(file, clock=clock, limits=limits, codec=codec))


def _shown(clock: Callable[[], float], waiting: Waiting) -> Waiting:
    """Return what waits with a time that can be compared with the wall clock."""
    if waiting.oldest_ms is None or not isinstance(clock, HostClock):
        return waiting
    return waiting._replace(oldest_ms=clock.shown(waiting.oldest_ms))


def _time_left(wait: float | None) -> Callable[[], float | None]:
    """Return a function that says what is left of a wait that begins now; None: it has no end of its own."""
    if wait is None:
        return lambda: None
    end = time.monotonic() + wait
    return lambda: max(0.0, end - time.monotonic())


def _bytes(path: Path | None, db: sqlite3.Connection) -> int:
    """Return the size of the file, with what has not been moved into it yet."""
    if path is None:
        return one(db, "PRAGMA page_count") * one(db, "PRAGMA page_size")
    files = (path, Path(f"{path}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
