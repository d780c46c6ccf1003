"""The host's own durable file of what could not be written where it belongs during an outage.

One SQLite file per host, shared by the host's worker processes. What a call wrote is on the disk when the
call returns, and every worker of the host sees it from then on. While everything is healthy the file is empty
and a request asks one question only, :meth:`Journal.is_empty`, which is answered from memory that they share.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ...policy.values import Basis, ErrorClass, ServerRecord, SharedCopy, StoreError
from .commit_counter import Generation
from .entries import (
    FIELD,
    Claim,
    Overlay,
    PendingCarry,
    PendingPush,
    PendingRevocation,
    PendingUserRevocation,
    PendingWrite,
    Settlement,
    is_revoked,
    oldest_carries,
    oldest_writes,
    put_carry,
    put_copy,
    put_push,
    put_revocation,
    put_server,
    put_user_revocation,
    put_write,
    read_overlay,
    read_server,
    settle,
    shared_copies,
)
from .file import JournalFile
from .latest_versions import LatestVersions
from .limits import JournalLimits
from .opening import one
from .summary import Summary, Waiting, read_summary, read_waiting

log = logging.getLogger(__name__)

__all__ = [
    "Journal",
    "Overlay",
    "PendingCarry",
    "PendingPush",
    "PendingRevocation",
    "PendingUserRevocation",
    "PendingWrite",
    "Settlement",
    "Summary",
    "Waiting",
]

_MOST_NAMED = 50
"""Of how many entries of a kind it is remembered which sessions they are of."""

_OF_SESSIONS = " UNION ALL ".join(
    f"SELECT * FROM (SELECT {column} AS digest FROM {table} LIMIT {_MOST_NAMED + 1})"
    for table, column in (
        ("writes", "digest"), ("revocations", "digest"), ("pushes", "digest"), ("copies", "digest"),
        ("carries", "digest"), ("carries", "origin"),
    )
)  # fmt: skip

# In one row: the interpreter's lock is given up with each, and in a busy process others want it.
_LOOK = f"""SELECT EXISTS (SELECT 1 FROM outages), EXISTS (SELECT 1 FROM user_revocations),
    (SELECT count(*) || ifnull(',' || group_concat(digest), '') FROM ({_OF_SESSIONS}))"""

_NOW_MADE_FROM = f"UPDATE writes SET base = ? WHERE {FIELD} AND seq > ? AND basis = ? AND moment = ? AND base IS ?"

_REPLAY_WAIT = 5.0
"""Seconds for what no request waits for: giving up there means to do again what the stores have done already."""

_PORTION = 200
"""Copies that are written or deleted at a time: nobody who has to note a logout meanwhile may wait for all of them."""


Outdated: TypeAlias = "Counter[tuple[str, Basis]]"
"""Category and basis of values that waited → how many of them lost against what was shared."""


class _Look(NamedTuple):
    """What was seen of the file.

    :param state: of the file then; None: it may have changed already.
    :param is_empty: whether there was nothing.
    :param named: the sessions of which there was anything; None: there are too many, or it concerns any session.
    """

    state: tuple[Generation, bytes] | None
    is_empty: bool
    named: frozenset[str] | None


_NOTHING_SEEN = _Look(None, False, None)


class Carry(NamedTuple):
    """Data of some categories that a session had under a former id and is to have under the present one.

    :param origin: the digest of the former id.
    :param digest: of the present one, whose kind it is.
    :param left_us: when the former id was given up, microseconds by the Redis clock: what it had then is wiped when it
        was brought, and not shown any more. 0: it is left to run out.
    """

    origin: str
    digest: str
    kind: str
    categories: Sequence[str]
    left_us: int = 0


class Journal:
    """The journal. Every method may be called from any thread, and every one but :meth:`close` raises
    :class:`StoreError` with store ``journal``: WRITE_REFUSED when the disk is full or read-only, LOCAL when a
    limit of this package is reached, DATA for a value that cannot be kept (a number beyond 64 bits),
    UNREACHABLE for all else. What raised was not written and will not be; unless the error's ``sent`` is true: then it
    may be, or is and may get lost with the machine.

    Wherever there is a `wait`, it is the seconds that the call may take for all that it waits for: other threads, other
    processes and the disk together. When they are over it raises UNREACHABLE; ``timed_out``, too, if the write was
    under way by then. None: :data:`~.journal_file.BUSY_SECONDS`; what only the replay calls is more patient. Reading
    waits for no writer.

    :param path: the file; its folder is created if only that one is missing. None: kept in this process'
        memory, for as long as the process lives.
    :param clock: seconds since 1970.
    :param limits: how much is kept at most.
    """

    def __init__(
        self, path: Path | None, *, clock: Callable[[], float] = time.time, limits: JournalLimits | None = None
    ) -> None:
        self._file = JournalFile(path)
        self._clock = clock
        self._limits = limits or JournalLimits()
        # One value, so that no thread sees half of it: when the file was last looked at, and what was seen.
        self._looked = _NOTHING_SEEN
        self._seen: object = None
        self._versions, self._wipes = LatestVersions(path, "seen"), LatestVersions(path, "wiped")

    def open(self) -> None:
        """Create the file if need be and make sure that it can be written. Meant for the start of an
        application.

        Every other call opens by itself; this one only fails early. It leaves nothing open, so that a server
        which loads the application and then forks its workers has nothing to hand down.
        """
        self._file.open()
        if self._file.path is not None:
            self.close()

    def close(self) -> None:
        """Let go of the file. Never raises; the next call opens it again. A journal in memory is gone."""
        self._file.close()
        self._versions.close()
        self._wipes.close()
        self._looked = _NOTHING_SEEN

    def shrink(self) -> bool:
        """Keep the files small, which costs requests nothing if it is done often: copy what SQLite's log has gathered
        to the file, and give room that has become free back to the system, a portion at a time. Waits for the disk.

        :return: whether there may be more; next time, after others were let in.
        """
        return self._file.shrink()

    def alone(self) -> AbstractContextManager[bool]:
        """For what only one worker of the host may do at a time: whether it is this one. Nobody waits."""
        return self._file.alone()

    # -- questions -----------------------------------------------------------------------------------------------

    def is_empty(self, wait: float | None = None) -> bool:
        """Whether no write, revocation or push waits, no copy is published and no outage announced: nobody on this host
        has anything to say of any session, or to hear. Costs about a microsecond."""
        return self._look(wait).is_empty

    def is_silent_about(self, digest: str, wait: float | None = None) -> bool:
        """Whether there is nothing of this session. While much waits, False: :meth:`overlay` tells.

        Costs about a microsecond. While a few sessions have something here, the requests of all others do not wait for
        the connection.
        """
        named = self._look(wait).named
        return named is not None and digest not in named

    def _look(self, wait: float | None) -> _Look:
        state, known = self._file.state(), self._looked
        if state is not None and state == known.state:
            return known
        with self._file.connected(wait) as db:
            # The state is read first: a commit between the two reads makes the next call look again. Another thread may
            # have looked while this one waited for the connection.
            state, known = self._file.state(), self._looked
            if state is None or state != known.state:
                known = self._looked = _seen(state, *db.execute(_LOOK).fetchone())
        return known

    def changed(self) -> bool:
        """Whether another process committed anything since the last call. True at the first call."""
        seen, self._seen = self._seen, self._file.others_state()
        if self._seen != seen:
            # Somebody who takes the generation's file away, or writes without it (an older release during an upgrade,
            # the sqlite3 program), is noticed now, if not at once.
            self._looked = _NOTHING_SEEN
        return self._seen != seen

    def overlay(self, digest: str, *, shadow: bool = False, wait: float | None = None) -> Overlay:
        """Everything this host knows about a session, at one moment.

        :param shadow: what is known of the anonymous shadow of that session id; copies are never published of
            one.
        """
        with self._file.snapshot(wait) as db:
            return read_overlay(db, digest, shadow=shadow)

    def counts(self) -> Mapping[str, int]:
        """How many ``writes``, ``carries``, ``revocations``, ``user_revocations``, ``pushes``, ``copies``, ``outages``
        there are."""
        tables = ("writes", "carries", "revocations", "user_revocations", "pushes", "copies", "outages")
        with self._file.snapshot() as db:
            return {table: one(db, f"SELECT count(*) FROM {table}") for table in tables}

    @property
    def path(self) -> Path | None:
        """The file; None: it is in this process' memory."""
        return self._file.path

    def waiting(self) -> Waiting:
        """How much waits for a store, and since when."""
        with self._file.snapshot() as db:
            return read_waiting(db)

    def summary(self) -> Summary:
        """The same by kind, with how many sessions it is for and how large the file is."""
        with self._file.snapshot() as db:
            return read_summary(db, self._bytes(db))

    def _bytes(self, db: sqlite3.Connection) -> int:
        if self._file.path is None:
            return one(db, "PRAGMA page_count") * one(db, "PRAGMA page_size")
        files = (self._file.path, Path(f"{self._file.path}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    # -- revocations and pushes ----------------------------------------------------------------------------------

    def revoke(
        self, *digests: str, in_database: bool = False, in_redis: bool = False, wait: float | None = None
    ) -> None:
        """Note that sessions are dead, and forget what was to be written for them; their shadows' writes stay.

        Doing it again adds a store that has it by now, unless the database has not heard of it this time: what it had
        before may have been a change of id only, after which the session went on.

        :param in_database: the database has it already.
        :param in_redis: Redis has the tombstone already.
        """
        now = self._now_ms()

        def note(db: sqlite3.Connection) -> None:
            for digest in digests:
                put_revocation(db, digest, now, in_database)
                settle(db, digest, in_database, in_redis)

        self._file.transaction(note, wait)

    def settle_revocation(self, *digests: str, in_database: bool = False, in_redis: bool = False) -> None:
        """Note which stores have these revocations now. An entry disappears when both have it."""

        def note(db: sqlite3.Connection) -> None:
            for digest in digests:
                settle(db, digest, in_database, in_redis)

        self._file.transaction(note, _REPLAY_WAIT)

    def is_revoked(self, digest: str, *, wait: float | None = None) -> bool:
        """Whether a revocation of this session waits here."""
        with self._file.connected(wait) as db:
            return is_revoked(db, digest)

    def pending_revocations(
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

    def revoke_user(self, user_id: str, *, until_ms: int = 0, epoch: int = 0, wait: float | None = None) -> None:
        """Note that every session of a user which began until then, or in an earlier epoch, is dead: "log out
        everywhere", of which not every store has heard.

        Of several times the latest counts. What waits for single sessions of the user stays: the journal does not
        know when they began.

        :param until_ms: milliseconds since 1970; for the case that the database has not heard of it.
        :param epoch: the user's epoch, if the database has raised it.
        """
        self._file.transaction(lambda db: put_user_revocation(db, user_id, until_ms, epoch), wait)

    def pending_user_revocations(self, limit: int = 1000, *, redis: bool = True) -> list[PendingUserRevocation]:
        """The users who wait to be logged out everywhere, the one that was noted longest ago first.

        :param redis: also those of whom only Redis has to hear.
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

    def advance_user_revocation(self, entry: PendingUserRevocation) -> None:
        """Note how far it is. One that was noted again since then begins anew. What is lost of this when the machine
        loses its power is done twice."""
        sql = "UPDATE user_revocations SET in_database = ?, reached = ? WHERE seq = ?"
        self._file.aside(lambda db: db.execute(sql, (entry.in_database, entry.reached, entry.seq)), _REPLAY_WAIT)

    def forget_user_revocation(self, entry: PendingUserRevocation) -> None:
        """All that follows from it is done. One that was noted again since then stays."""
        self._delete("user_revocations", [entry.seq])

    def queue_push(self, digest: str, version: int = 0, *, wait: float | None = None) -> None:
        """Note that Redis lacks what the database has for this session.

        The database has it for good, so this does not wait for the disk. Where the machine loses its power at once,
        Redis learns it as from another host: when its copy has to be verified, or was changed around an incident.

        :param version: of its row, for the other workers: what they have of an older one is out of date. 0: unknown.
        """
        self._file.transaction(lambda db: put_push(db, digest, version), wait, forced=False)

    def pending_pushes(self, limit: int = 1000, *, after: int = 0) -> list[PendingPush]:
        """The oldest sessions that wait for a push.

        :param after: only those with a higher number (`seq`).
        """
        sql = "SELECT seq, digest FROM pushes WHERE seq > ? ORDER BY seq LIMIT ?"
        with self._file.connected() as db:
            rows = db.execute(sql, (after, limit)).fetchall()
        return [PendingPush(*row) for row in rows]

    def forget_push(self, *entries: PendingPush) -> None:
        """These pushes are done. One that was queued since then stays."""
        self._delete("pushes", [entry.seq for entry in entries])

    def row_changing(self, digest: str) -> int:
        """Let the other workers of the host know that this one is about to try a compare-and-set of a session's row.

        :return: the number of this try, for :meth:`row_changed` and :meth:`is_last_change`.
        """
        return self._file.numbers(lambda numbers: numbers.row_changing(digest))

    def row_changed(self, digest: str, at: float, number: int | None = None) -> None:
        """Let the other workers of the host know that a session has another row in the database. Not an entry: the
        change waits for nothing. Costs a microsecond.

        :param at: monotonic seconds, after the commit.
        :param number: of the try that succeeded. None: the change was no compare-and-set.
        """
        self._file.numbers(lambda numbers: numbers.row_changed(digest, at, number))

    def is_last_change(self, digest: str, number: int) -> bool:
        """Whether no worker of this host has changed the row after the try of this number, which succeeded."""
        return self._file.numbers(lambda numbers: numbers.is_last_change(digest, number))

    def row_changed_at(self, digest: str) -> float:
        """Monotonic seconds at which that was, or later. Long ago: it is not known to have been changed."""
        return self._file.numbers(lambda numbers: numbers.row_changed_at(digest))

    # -- writes --------------------------------------------------------------------------------------------------

    def put(
        self,
        entries: Sequence[PendingWrite],
        copies: Sequence[SharedCopy] = (),
        *,
        wait: float | None = None,
    ) -> list[PendingWrite]:
        """Keep changes of a session until Redis takes them, all or none, in this order.

        A session that is revoked here absorbs them; its shadow does not.

        :param copies: what is known of the session before these changes, see :meth:`publish_copies`.
        :return: those that were not kept because they were made without knowing what is there, and something is.
        :raises StoreError: of class DATA: what is to be added to is no whole number.
        """
        now = self._now_ms()
        session = (entries[0].digest, entries[0].shadow) if entries else None

        def put(db: sqlite3.Connection) -> list[PendingWrite]:
            return [
                entry
                for entry in entries
                if (entry.shadow or not is_revoked(db, entry.digest)) and not put_write(db, replace(entry, at_ms=now))
            ]

        left = _time_left(wait)
        left_out = self._file.transaction(self._limits.adding(put, session), wait)
        self._add_copies(copies, left())
        return left_out

    def carry(self, carry: Carry, copies: Sequence[SharedCopy] = (), *, wait: float | None = None) -> None:
        """Keep that what a session has under a former id is to be brought to the present one. What waits of it here
        waits for the present one from now on.

        :param copies: what is known of that data, see :meth:`publish_copies`.
        """
        now = self._now_ms()
        left = _time_left(wait)
        self._file.transaction(self._limits.adding(lambda db: put_carry(db, *carry, now_ms=now)), wait)
        self._add_copies(copies, left())

    def _add_copies(self, copies: Sequence[SharedCopy], wait: float | None) -> None:
        """Without them less is known of the session; nothing that was written is lost."""
        if copies:
            with suppress(StoreError):
                self._file.transaction(self._limits.adding(partial(self._put_copies, copies)), wait, forced=False)

    def pending_writes(self, limit: int = 1000, *, signed_in: bool = True, after: int = 0) -> list[PendingWrite]:
        """The changes that wait, the one that was made longest ago first.

        :param after: only those with a higher number (`seq`).
        :param signed_in: those of signed-in sessions too, for which the database must be asked.
        """
        with self._file.connected() as db:
            entries, damaged = oldest_writes(db, limit, signed_in, after)
        if damaged:
            log.error("%d damaged entries are removed from the journal: what they were to change is lost", len(damaged))
            self._delete("writes", damaged)
        return entries

    def mark_sent(self, entries: Mapping[PendingWrite, str], moments_ms: Mapping[str, int]) -> list[PendingWrite]:
        """These are about to be sent to Redis: from here on it may have them. Not forced to the disk.

        :param entries: with the id under which each is sent.
        :param moments_ms: digest → the clock of the server that has it, milliseconds since 1970.
        :return: those that may be sent. What was written again since it was read from here may not: its old value would
            look like somebody else's newer one, and an addition that has grown would be taken for made.
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

        return self._file.transaction(mark, _REPLAY_WAIT, forced=False)

    def forget_writes(
        self,
        entries: Iterable[PendingWrite],
        copies: Iterable[SharedCopy] = (),
        *,
        in_row: Iterable[PendingWrite] = (),
    ) -> Outdated:
        """These are settled, one way or the other. A field that was written again since it was read from here stays.

        :param in_row: those that are in a row of the database now. What took their place here meanwhile was made from
            them: without that it would be a conflict with them.
        :param copies: what they became part of, for workers that do not see it yet: see :meth:`publish_copies`. There
            is room for it where the entries were.
        :return: as of :meth:`publish_copies`.
        """
        settled, shared = [(entry.seq,) for entry in entries], list(copies)

        merged = [
            (e.value, e.digest, e.shadow, e.category, e.field, e.seq, Basis.SEEN, e.moment, e.base) for e in in_row
        ]

        def forget(db: sqlite3.Connection) -> Outdated:
            db.executemany("DELETE FROM writes WHERE seq = ?", settled)
            db.executemany(_NOW_MADE_FROM, merged)
            return self._put_copies(shared, db)

        return self._file.transaction(forget, _REPLAY_WAIT)

    def pending_carries(self, limit: int = 1000, *, after: int = 0) -> list[PendingCarry]:
        """The data under former ids that waits to be brought to present ones, the oldest first.

        :param after: only those with a higher number (`seq`).
        """
        with self._file.connected() as db:
            return oldest_carries(db, limit, after)

    def forget_carries(self, entries: Iterable[PendingCarry]) -> None:
        """These are done."""
        self._delete("carries", [entry.seq for entry in entries])

    # -- versions ------------------------------------------------------------------------------------------------

    def note_version(self, digest: str, category: str, version: int) -> None:
        """Let the other workers of the host know that this version of a category is what there is. Not an entry."""
        with _translated():
            self._versions.note(digest, category, version)

    def is_outdated(self, digest: str, category: str, version: int) -> bool:
        """Whether a worker of this host has seen a later version of a category."""
        with _translated():
            return self._versions.is_outdated(digest, category, version)

    def note_wipe(self, digest: str, category: str, version: int) -> None:
        """Let the other workers of the host know that a category was wiped at this version. Not an entry."""
        with _translated():
            self._wipes.note(digest, category, version)

    def is_wiped_since(self, digest: str, category: str, version: int) -> bool:
        """Whether a worker of this host has wiped a category after a version."""
        with _translated():
            return self._wipes.is_outdated(digest, category, version)

    # -- copies --------------------------------------------------------------------------------------------------

    def publish_copies(self, copies: Iterable[SharedCopy], *, wait: float | None = None) -> Outdated:
        """Share this worker's copies with the other workers of the host: as many as there is room for.

        :param copies: one that is not newer than what is there, or whose session is revoked here, is left out.
        :param wait: seconds, for each portion of them; others are let in between.
        :return: how many values that waited here they outdate, see :func:`~.entries.put_copy`.
        """
        lost: Outdated = Counter()
        waiting = iter(copies)
        while portion := list(islice(waiting, _PORTION)):
            lost.update(self._file.transaction(self._limits.adding(partial(self._put_copies, portion)), wait))
        return lost

    def _put_copies(self, copies: Iterable[SharedCopy], db: sqlite3.Connection) -> Outdated:
        lost: Outdated = Counter()
        for shared in copies:
            of_copy = shared.digest, shared.category, shared.copy.version
            is_outdated = self.is_outdated(*of_copy) or self.is_wiped_since(*of_copy)
            for basis, count in put_copy(db, shared, is_outdated=is_outdated).items():
                lost[shared.category, basis] += count
        return lost

    def shared_copies(self, limit: int = 1000, *, after: int = 0) -> Mapping[int, SharedCopy]:
        """What the workers of this host have published, by number.

        :param after: only those with a higher number.
        """
        with self._file.connected() as db:
            return shared_copies(db, limit, after)

    def clear_copies(self) -> None:
        """The outage is over: the copies have no use any more."""
        sql = "DELETE FROM copies WHERE rowid IN (SELECT rowid FROM copies LIMIT ?)"
        while self._file.transaction(lambda db: db.execute(sql, (_PORTION,)).rowcount, _REPLAY_WAIT):
            pass

    # -- settlements ---------------------------------------------------------------------------------------------

    def claim_settlement(self, claimant: str, wanted: Settlement, hold_ms: int) -> Claim:
        """Ask to be the one worker of this host that brings what changed around an incident to Redis.

        :param claimant: names the worker; who holds the claim prolongs it by asking again.
        :param hold_ms: the claim lapses then, so that a killed worker keeps nobody waiting for longer.
        """
        now = self._now_ms()

        def claim(db: sqlite3.Connection) -> Claim:
            row = db.execute("SELECT server, since_ms, began_ms, claimant, claimed_until_ms FROM settlement").fetchone()
            done, holder, until_ms = Settlement(*row[:3]), row[3], row[4]
            if done.covers(wanted):
                return Claim.DONE
            if holder not in ("", claimant) and now < until_ms:
                return Claim.TAKEN
            db.execute("UPDATE settlement SET claimant = ?, claimed_until_ms = ?", (claimant, now + hold_ms))
            return Claim.MINE

        return self._file.aside(claim, _REPLAY_WAIT)

    def end_settlement(self, claimant: str, done: Settlement | None) -> None:
        """Give the claim back.

        :param done: what was done; None: it failed, and somebody has to do it again.
        """

        def end(db: sqlite3.Connection) -> None:
            sql = "UPDATE settlement SET claimant = '', claimed_until_ms = 0 WHERE claimant = ?"
            if db.execute(sql, (claimant,)).rowcount and done is not None:
                db.execute(
                    "UPDATE settlement SET server = ?, since_ms = ?, began_ms = ?",
                    (done.server, done.since_ms, done.began_ms),
                )

        self._file.aside(end, _REPLAY_WAIT)

    # -- outages -------------------------------------------------------------------------------------------------

    def announce_outage(self, what: str) -> None:
        """Tell the other workers of the host at once, with the time of now.

        :param what: what fails, for example ``primary``.
        """
        now = self._now_ms()
        self._file.transaction(lambda db: db.execute("INSERT OR REPLACE INTO outages VALUES (?, ?)", (what, now)))

    def outages(self) -> Mapping[str, int]:
        """What fails, and when it was last announced, milliseconds since 1970."""
        with self._file.connected() as db:
            return dict(db.execute("SELECT what, at_ms FROM outages ORDER BY what").fetchall())

    def outage_over(self, what: str) -> None:
        """Take an announcement back."""
        self._file.transaction(lambda db: db.execute("DELETE FROM outages WHERE what = ?", (what,)))

    # -- servers -------------------------------------------------------------------------------------------------

    def server(self, endpoint: str, *, wait: float | None = None) -> ServerRecord | None:
        """What the workers of this host know of the Redis server behind an endpoint. Not an entry: it waits for
        nothing."""
        with self._file.connected(wait) as db:
            return read_server(db, endpoint)

    def remember_server(self, endpoint: str, record: ServerRecord) -> None:
        """Let workers that start later know. What is not news (:meth:`ServerRecord.outdates`) changes nothing.

        Meant to be called as often as a canary is sent: as long as only its number grows, nothing is forced to the
        disk, and no request is made to look at the journal.

        :param endpoint: a name for it, without a password.
        """
        known = self.server(endpoint)
        if record.outdates(known):
            write = self._file.aside if record.is_same_as(known) else self._file.transaction
            write(lambda db: put_server(db, endpoint, record))

    # -- inside --------------------------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _delete(self, table: str, numbers: Sequence[int]) -> int:
        """Rows by number, for the replay. How many there were."""
        sql, rows = f"DELETE FROM {table} WHERE seq = ?", [(number,) for number in numbers]
        return self._file.transaction(lambda db: db.executemany(sql, rows).rowcount, _REPLAY_WAIT)


def _time_left(wait: float | None) -> Callable[[], float | None]:
    """What is left of a wait that begins now; None: it has no end of its own."""
    if wait is None:
        return lambda: None
    end = time.monotonic() + wait
    return lambda: max(0.0, end - time.monotonic())


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError("journal", ErrorClass.UNREACHABLE, type(error).__name__) from error


def _seen(state: tuple[Generation, bytes] | None, outages: int, users: int, sessions: str) -> _Look:
    """:param sessions: how many entries of sessions there are, at least, and of which sessions."""
    number, *named = sessions.split(",")
    is_empty = not (outages or users or named)
    return _Look(state, is_empty, None if users or int(number) > _MOST_NAMED else frozenset(named))
