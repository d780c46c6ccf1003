"""Deciding about a session's auth: a loop over the table of :mod:`.policy.belief`, and the repairs that follow from it.

Only the primary's entries are leases on what the database said. A replica never decides auth, and neither does a
primary that has become one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .. import events
from ..policy.belief import BELIEFS, Sighting, Situation
from ..policy.categories import AUTH
from ..policy.errors import StoreError
from ..policy.health import DATABASE, PRIMARY, READ, WRITE
from ..policy.leases import INCIDENT_MARGIN_MS, Life, lease_ends
from ..policy.loaded import Loaded, Verdict
from ..policy.rows import AuthEntry, AuthRow, RowState
from ..policy.users import narrowed
from ..stores.backend import Backend
from ..stores.memory.ended import DEAD
from ..stores.redis.near import Hit
from ..stores.redis.records import Answer
from .journal_writer import JournalWriter
from .scope import EXTEND_IDLE, PUSH, REPAIR, VERIFY, WRITE_TOMBSTONE, RequestScope

_ALIVE = frozenset({RowState.VALID, RowState.IDLE_EXPIRED})


class Verifier:
    """Decides about one session at a time; remembers what it believed in the local copies."""

    def __init__(self, backend: Backend, journal_writer: JournalWriter) -> None:
        settings = backend.settings
        self._backend = backend
        self._settings = settings
        self._terms = settings.lease_terms
        self._primary = backend.primary
        self._database = backend.database
        self._memory = backend.memory
        self._ended = backend.memory.ended
        self._journal_writer = journal_writer
        self._reports = backend.reports
        self._clock = backend.clock

    def verify(self, digest: str, scope: RequestScope, life: Life, answer: Answer, *, fresh: bool = False) -> Loaded:
        """Decide what is known of a session of kind u that is not dead as far as this host knows.

        :param fresh: only the database may say that it is valid.
        """
        entry, is_well = answer.auth, scope.primary_is_healthy
        if entry and entry.row is None:
            self._repair(digest, scope, in_database=entry.in_database)
            return Loaded.verified(Verdict.DEAD, answer.now_ms)
        at = Situation(
            life, self._terms, self._settings.privileges, is_well, scope.can(DATABASE, READ), fresh, scope.view.is_busy
        )
        in_redis = self._copy_in_redis(entry, answer) if entry and is_well and not fresh else None
        for belief in BELIEFS:
            if not belief.is_asked(at):
                continue
            if belief.is_believed is None:
                try:
                    return self.ask_database(digest, scope, life, answer.stamp_ms, _idle_seen(answer), entry)
                except StoreError:  # the scope has told health
                    at = at._replace(database=False, is_busy=scope.view.is_busy)
                    continue
            seen = in_redis if belief.source == PRIMARY else self._own_copy(digest, scope)
            if seen and belief.is_believed(seen, at):
                if belief.source == PRIMARY:
                    self._memory.put_auth(seen.row, answer.asked_at - seen.age_ms / 1000, seen.confirmed_ms)
                    if not at.database and life.is_extension_due(seen.row, seen.now_ms):
                        self._extend_idle(seen.row, scope, life)
                return Loaded.verified(Verdict.VALID, answer.now_ms, seen.row, belief.source)
        return Loaded.verified(Verdict.UNVERIFIABLE, answer.now_ms)

    def leased(self, life: Life, hit: Hit) -> tuple[AuthRow, float] | None:
        """Return the row of a signed-in session that may be believed without a question, and until when it may be by
        time alone (monotonic seconds); None: Redis is to be asked."""
        entry = hit.copy.records[AUTH].auth
        if entry is None or entry.row is None or not entry.is_readable:
            return None
        row, now_ms = entry.row, hit.latest_ms
        copy = self._copy(row, entry.confirmed_ms, now_ms, hit.trust_since_ms, hit.at)
        if not copy.is_leased(life, self._terms) or self._ended.is_signed_out(row):
            return None
        left_ms = lease_ends(row, entry.confirmed_ms, life, self._terms) - now_ms
        return row, hit.at + (left_ms - 1) / 1000  # one millisecond less: now was rounded

    def ask_database(
        self,
        digest: str,
        scope: RequestScope,
        life: Life,
        stamp_ms: int,
        idle_seen: int | None = None,
        entry: AuthEntry | None = None,
    ) -> Loaded:
        """Return the database's word, and bring Redis up to it when `stamp_ms` (the Redis clock before this) is known.

        :param idle_seen: the idle expiry that Redis knows, see :meth:`Database.load`.
        :param entry: what Redis says.
        :raises StoreError: the database did not answer.
        """
        version, known = self._latest(digest, entry)
        began = self._clock()
        row: AuthRow | None = scope.ask(VERIFY, self._database.load, digest, life=life, idle_seen=idle_seen)
        if row is not None and row.version < version and row.state in _ALIVE:
            row = self.gone_back(row, version, known, scope)
            if row is not None and row.version < version:
                return Loaded.verified(Verdict.VALID, stamp_ms, row, DATABASE)
        if row is None or row.state in (RowState.DEAD, RowState.EXPIRED):
            self.write_tombstones([(digest, row.version if row else 0)], scope)
            self._tell_of_the_end(digest, row, known, stamp_ms)
            return Loaded.verified(Verdict.DEAD, stamp_ms)
        if row.state is RowState.IDLE_EXPIRED:
            # Redis, which may know of a later use, was not there to be asked: nothing is said and nothing is killed.
            return Loaded.verified(Verdict.UNVERIFIABLE, stamp_ms)
        self._memory.put_auth(row, began)
        pushed = self._push(row, scope, life, stamp_ms) if stamp_ms else None
        if pushed in ("dead", "ended"):
            self._repair(digest, scope, in_database=pushed == "ended")
            return Loaded.verified(Verdict.DEAD, stamp_ms)
        if life.is_extension_due(row, row.read_at):
            self._extend_idle(row, scope, life)  # the database could not note the use: read-only, full, or locked
        return Loaded.verified(Verdict.VALID, stamp_ms, row, DATABASE)

    def _tell_of_the_end(self, digest: str, row: AuthRow | None, known: AuthRow | None, stamp_ms: int) -> None:
        """Report that a session has run out, or that the database has lost the row that this host knows.

        :param row: what the database says; None: it has none.
        """
        if row is None and known is not None and stamp_ms:
            # No row is deleted before its life in all has ended.
            self._reports.database_went_back(int(replace(known, read_at=stamp_ms).lives_on(INCIDENT_MARGIN_MS)))
        elif row is not None and (row.state is RowState.EXPIRED or row.was_idle):
            self._reports.signed_out([digest], events.EndedBy.EXPIRY, in_database=True)

    def _latest(self, digest: str, entry: AuthEntry | None) -> tuple[int, AuthRow | None]:
        """Return the highest version of a row that is known here before the database is asked, which may have lost its
        commit; 0: none is known. And the row at that version; None: only the number is known."""
        held, version = self._memory.auth(digest), self._ended.min_version(digest)
        rows = [row for row in (held.row if held else None, entry.row if entry else None) if row is not None]
        newest = max(rows, key=lambda row: row.version, default=None)
        if newest is None or newest.version < version < DEAD:
            return (0 if version >= DEAD else version), None
        return newest.version, newest

    def gone_back(self, row: AuthRow, version: int, known: AuthRow | None, scope: RequestScope) -> AuthRow | None:
        """Return the row that takes the place of one whose later version the database has lost.

        That version was known before this row was asked for, and versions never go down: the database went back. The
        row is written above it, so that it is leased again; compare-and-set proves that it was there.

        :param version: the later one.
        :param known: the row at it; users and rights that it does not have are withdrawn.
        :return: as it is now; None: there is none any more. Below that version: it could not be written, and what is
            withdrawn is not shown.
        :raises StoreError: another request was faster, and then the database did not answer.
        """
        users, rights = self._settings.user_key_patterns, self._settings.privilege_key_patterns
        narrow = replace(row, payload=narrowed(row, known, users, rights))
        values = {"seen": row.version, "version": version + 1, "payload": narrow.payload}
        if not scope.can(DATABASE, WRITE):
            return narrow
        try:
            is_raised = scope.ask(REPAIR, self._database.raise_version, row.digest, **values)
        except StoreError:
            return narrow
        if is_raised:
            self._backend.row_changed(row.digest)
            self._reports.database_went_back(1)
            return replace(narrow, version=version + 1)
        current = scope.ask(VERIFY, self._database.load, row.digest)
        if current is None or not current.live or current.version >= version:
            return current
        return replace(current, payload=narrowed(current, known, users, rights))

    def has_lost_epoch(self, row: AuthRow, scope: RequestScope) -> bool:
        """Return whether a session that is over for its user's epoch began after that, in a database that went back.
        Without this no session that the user begins would live on this worker.

        :param row: of that session.
        """
        users = self._ended.signed_out
        if not users.have_lost(row):
            return False
        current = scope.attempt(VERIFY, self._database.load, row.digest)
        if current is None or current.state is not RowState.VALID or not users.have_lost(current):
            return False
        users.go_back(current)
        self._reports.database_went_back(1)
        return True

    def write_tombstones(
        self, dead: Sequence[tuple[str, int]], scope: RequestScope, categories: Sequence[str] = (AUTH,)
    ) -> bool:
        """Put tombstones of one shard into Redis. Return whether they are there.

        :param dead: digest, version.
        :param categories: whose data goes. All of it only on the word of the host that ended the session: another one
            may still have to bring some of it to the id that took its place. Behind a tombstone nothing reads it.
        """
        scope, push = scope.to(dead[0][0]), self._primary.push_many
        return scope.did(WRITE_TOMBSTONE, push, dead, categories, stamp_ms=0)

    def _repair(self, digest: str, scope: RequestScope, *, in_database: bool = False) -> None:
        """End the row of a session that has a tombstone in Redis, whatever was to end it. Once per worker and session.

        :param in_database: the database knew it before: nothing waits for it. (It may have been a change of id, after
            which the session goes on.) If the row lives, the database went back.
        """
        row = scope.attempt(VERIFY, self._database.load, digest) if in_database else None
        if in_database and (row is None or not row.live):
            return
        if scope.did(REPAIR, self._database.kill, digest):
            self._backend.row_changed(digest)
            self._reports.database_went_back(int(row is not None and row.lives_on(INCIDENT_MARGIN_MS)))
        elif not in_database:
            self._journal_writer.revoke(digest, in_database=False, in_redis=True, scope=scope)

    def _push(self, row: AuthRow, scope: RequestScope, life: Life, stamp_ms: int) -> str | None:
        return scope.attempt(PUSH, self._primary.push, row, stamp_ms, life.left_of(row))

    def _copy_in_redis(self, entry: AuthEntry, answer: Answer) -> Sighting | None:
        """Return the primary's copy; None: it is another server's, or damaged. That is not shown in part: the database
        has the whole."""
        row = entry.row
        if row is None or not answer.by_primary:
            return None
        if not entry.is_readable:
            self._reports.recorder.count("records_set_aside")
            self._reports.emit(events.record_set_aside, events.RecordSetAside(PRIMARY, AUTH))
            return None
        return self._copy(row, entry.confirmed_ms, answer.now_ms, answer.trust_since_ms, answer.asked_at)

    def _copy(self, row: AuthRow, confirmed_ms: int, now_ms: int, trust_since_ms: int, at: float) -> Sighting:
        if (evicted_at := self._ended.evicted_at) > float("-inf"):
            trust_since_ms = max(trust_since_ms, now_ms - int((at - evicted_at) * 1000))
        return Sighting(row, confirmed_ms, now_ms, trust_since_ms, self._ended.min_version(row.digest))

    def _own_copy(self, digest: str, scope: RequestScope) -> Sighting | None:
        """Return this worker's own copy, aged by its own clock; None: it has none.

        It is unbroken while the database may be asked, if it was confirmed since the outage began (before, another
        worker may have put a later row into Redis) and no other worker of this host has changed the row since.
        """
        held = self._memory.auth(digest)
        if held is None:
            return None
        row, age_ms = held.row, int((self._clock() - held.confirmed_at) * 1000)
        is_unbroken = (
            scope.can(DATABASE, READ) and held.confirmed_at >= scope.view.lost_at and self._backend.is_up_to_date(held)
        )
        trust_since_ms = 0 if is_unbroken else row.read_at
        return Sighting(row, row.read_at, row.read_at + age_ms, trust_since_ms, self._ended.min_version(digest))

    def _extend_idle(self, row: AuthRow, scope: RequestScope, life: Life) -> None:
        """Note in Redis that the session is in use; the database is told when it answers again."""
        idle_ms = life.of(row.payload).idle_ms
        if scope.attempt(EXTEND_IDLE, self._primary.extend_idle, row.digest, idle_ms):
            self._journal_writer.queue_push(row.digest, scope=scope)


def _idle_seen(answer: Answer) -> int | None:
    """Return the idle expiry that Redis knows; None: it cannot say, and no session may be ended for being idle."""
    row = answer.auth.row if answer.auth else None
    if answer.by_primary and AUTH not in answer.damaged:
        return row.idle_expires_at if row else 0
    # A replica may be behind: what it knows of a use counts, what it does not know says nothing.
    return row.idle_expires_at if row and row.idle_expires_at > answer.now_ms else None
