"""Reading a session: one round trip to the Redis that answers, and what the table gives where none does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from .. import events
from ..policy.categories import AUTH
from ..policy.changes import apply_writes
from ..policy.copies import CategoryCopy, RecordRef
from ..policy.errors import StoreError
from ..policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from ..policy.leases import Life
from ..policy.loaded import Loaded, Verdict
from ..stores.host.entries import NOTHING, Overlay
from ..stores.redis.records import Answer, Lack
from .fallback import Showing, is_given_back_since
from .former import FormerPlaces
from .line import Line
from .scope import LOAD, LOAD_REPLICA, LOOK_FOR_LOSS, QUARANTINE, RequestScope
from .verifier import Verifier

if TYPE_CHECKING:
    from .repository import SessionRepository

T = TypeVar("T")

_READ_TRIES = 3
"""The primary, the replica, and once again a server whose reply was not understood."""


class Reads:
    """Loads sessions.

    :ivar verifier: decides whether a session of a user is valid.
    :ivar line: knows those that need no question.
    """

    def __init__(self, repository: SessionRepository) -> None:
        self.verifier = Verifier(repository.backend, repository.journal_writer)
        self.line = Line(repository, self.verifier)
        self._backend = repository.backend
        self._reports = repository.backend.reports
        self._ended = repository.backend.memory.ended
        self._fallback = repository.fallback
        self._journal_writer = repository.journal_writer
        self._others = tuple(name for name in repository.backend.table.loaded_together if name != AUTH)
        self._of_user = (AUTH, *self._others)
        self._former = FormerPlaces(repository)

    def load(
        self, sid: SessionId, scope: RequestScope, life: Life, *, fresh: bool = False, on_line: bool = True
    ) -> Loaded:
        """Load everything a session's first touch needs, in one round trip while all is well. Never raises StoreError.

        :param fresh: the database is asked about auth whatever is known, and no other store is believed.
        :param on_line: it may be known without a question.
        """
        digest = sid.digest
        scope = scope.to(digest)
        if on_line and not fresh and (seen := self.line.read(sid, life, scope.view)):
            return seen
        if sid.kind != SIGNED_IN:
            return self._load_anonymous(digest, scope, life, Verdict.ANONYMOUS, fresh=fresh)
        ref = RecordRef(digest, SIGNED_IN)
        overlay = self._told_by_journal(ref, scope)
        is_fresh = fresh or not overlay.is_known  # the journal may have said that it is over
        if self._ended.is_dead(digest):
            return self._load_anonymous(digest, scope, life, Verdict.DEAD, fresh=is_fresh)
        answer = self._read(ref, scope, life, self._of_user, fresh=is_fresh)
        loaded = self.verifier.verify(digest, scope, life, answer, fresh=is_fresh)
        if loaded.verdict is Verdict.UNVERIFIABLE and is_fresh and not fresh:
            # The journal may be less busy by now. What it says may have been merged: Redis is asked after it.
            overlay = self._told_by_journal(ref, scope)
            if self._ended.is_dead(digest):
                loaded.verdict = Verdict.DEAD
            elif overlay.is_known:
                answer = self._read(ref, scope, life, self._of_user, fresh=True)
                loaded = self.verifier.verify(digest, scope, life, answer)
        row = loaded.row
        is_over = row is not None and self._ended.is_signed_out(row) and not self.verifier.has_lost_epoch(row, scope)
        if is_over or loaded.verdict is Verdict.DEAD:
            self._backend.memory.kill(digest)
            return self._load_anonymous(digest, scope, life, Verdict.DEAD, fresh=is_fresh)
        if row and AUTH in overlay.writes:
            self._show_what_waits(loaded, overlay.writes[AUTH])
        self._show(loaded, ref, self._others, scope, answer, overlay)
        self._count_load(loaded, ref, scope, life)
        return loaded

    def _told_by_journal(self, ref: RecordRef, scope: RequestScope) -> Overlay:
        """Return what the journal says of a signed-in session, and take it over."""
        digest, overlay = ref.digest, self._journal_writer.overlay(ref, scope)
        if overlay is NOTHING:
            return overlay
        if overlay.revoked:
            # The entry goes as soon as the stores have it, which this worker need not find answering yet.
            self._backend.memory.kill(digest)
        for user_id, until_ms in overlay.users.items():
            self._backend.memory.sign_out_user(user_id, until_ms, overlay.epochs.get(user_id, 0))
        if overlay.version and scope.can(DATABASE, READ):
            # Another worker of the host has changed the row, and Redis cannot tell.
            self._ended.raise_min_version(digest, overlay.version)
        return overlay

    def load_more(
        self, sid: SessionId, scope: RequestScope, life: Life, loaded: Loaded, category: str, *, fresh: bool = False
    ) -> None:
        """Add a category that is loaded on demand to `loaded`, which is the request's own.

        :param fresh: Redis is to send it as a whole, whatever this worker knows.
        """
        scope = scope.to(sid.digest)
        ref = RecordRef(sid.digest, ANONYMOUS if loaded.shadow else sid.kind, loaded.shadow)
        overlay = self._journal_writer.overlay(ref, scope)
        if (
            overlay is NOTHING
            and not (fresh or ref.shadow)
            and (seen := self.line.read(sid, life, scope.view, (category,)))
        ):
            loaded.keep_from(seen, (category,))
        else:
            answer = self._read(ref, scope, life, (category,), fresh=fresh)
            self._show(loaded, ref, (category,), scope, answer, overlay)
        self._former.note(loaded, overlay)
        if ref.kind != SIGNED_IN:
            self._withhold_identity(loaded)

    def _load_anonymous(self, digest: str, scope: RequestScope, life: Life, verdict: Verdict, *, fresh: bool) -> Loaded:
        ref = RecordRef(digest, ANONYMOUS, verdict is Verdict.DEAD)
        names = self._backend.settings.table.loaded_together
        overlay = self._journal_writer.overlay(ref, scope)
        answer = self._read(ref, scope, life, names, fresh=fresh)
        loaded = Loaded(verdict, now_ms=answer.now_ms)
        self._show(loaded, ref, names, scope, answer, overlay)
        self._withhold_identity(loaded)
        self._count_load(loaded, ref, scope, life)
        return loaded

    def _withhold_identity(self, loaded: Loaded) -> None:
        """Withhold users and rights of a session without a row, whatever a record, copy or journal says."""
        if (found := loaded.of(AUTH)).shown:
            ordinary = found.copy._replace(fields=self._ordinary(found.copy.fields))
            loaded.categories[AUTH] = found._replace(copy=ordinary)
            loaded.show(AUTH, self._ordinary(found.shown))

    def _show_what_waits(self, loaded: Loaded, writes: Mapping[str, bytes | None]) -> None:
        """Show auth keys that wait in the journal for the database; users and rights are not taken from there."""
        shown = dict(loaded.of(AUTH).shown)
        apply_writes(shown, self._ordinary(writes), {})
        loaded.show(AUTH, shown)

    def _ordinary(self, fields: Mapping[str, T]) -> dict[str, T]:
        """Return auth data without users and rights: what may be stored elsewhere than in a row."""
        return {key: value for key, value in fields.items() if not self._backend.settings.is_identity(key)}

    def _read(self, ref: RecordRef, scope: RequestScope, life: Life, names: tuple[str, ...], *, fresh: bool) -> Answer:
        """Ask the Redis that answers, if one does."""
        lack = self._backend.lack_of(ref)
        for _ in range(_READ_TRIES):  # a store that failed is out of the snapshot; one that is misread is asked again
            source = scope.view.reader
            if source is None:
                break
            extends = source == PRIMARY and scope.can(PRIMARY, WRITE) and life.is_use
            lives = self.line.lives(names, ref.kind, life, extends=extends)
            asked_at = self._backend.clock()
            operation, store = LOAD if source == PRIMARY else LOAD_REPLICA, self._backend.redis[source]
            try:
                answer: Answer = scope.ask(operation, store.read, ref, lives, anew=fresh)
            except StoreError:
                continue
            if self._reports.in_use and answer.moved_ms and ref.kind == ANONYMOUS and not ref.shadow:
                self._reports.in_use.served(ref.digest, answer.moved_ms)
            for category in answer.damaged:
                self._quarantine(ref, category, source, scope, category in answer.foreign)
            if source == PRIMARY:
                # It is asked twice: what is given back while Redis is asked may not be part of its answer.
                lack = lack or self._backend.lack_of(ref)
                if lack is None and extends and (names_lost := self._seem_lost(ref, answer, lives)):
                    primary = PRIMARY + self._backend.health.locate(ref.digest)
                    looked = scope.attempt(LOOK_FOR_LOSS, self._backend.look_for_loss, primary)
                    lack = self._backend.lack_of(ref)
                    if lack is None and looked is None:  # there was no time to look: it may have lost that
                        lack = Lack(asked_at, 0)
                        self._backend.memory.on_missing(ref.digest)
                    elif lack is None:
                        self._count_lost(ref, answer, names_lost)
                if lack is not None:  # it is asked again: what is missing when all have given back is lost
                    self._backend.memory.put_near(ref.digest, ())
                return answer._replace(source=source, asked_at=asked_at, lack=lack)
            return answer._replace(source=source, asked_at=asked_at)
        return Answer()

    def _seem_lost(self, ref: RecordRef, answer: Answer, lives: Mapping[str, int]) -> list[str]:
        """Return the categories of which the primary lacks what this host knows it had, and what cannot have run out
        since.

        :param lives: of the categories, milliseconds.
        """
        if ref.shadow or (answer.auth is not None and answer.auth.row is None):  # of what has ended, all data is gone
            return []
        names = answer.records.keys() & self._fallback.kept_locally
        return [
            name
            for name in names - {*answer.damaged}
            if self._lacks(ref, name, answer.records[name], answer.now_ms * 1000, lives[name] * 1000)
        ]

    def _count_lost(self, ref: RecordRef, answer: Answer, names: Iterable[str]) -> None:
        """Count what Redis lost and was not given back: this host has seen it, and has no copy of it. What is there is
        kept as a copy by that read, so that each worker counts a loss once."""
        for name in names:
            there = answer.records[name]
            latest = self._backend.register.latest_version(ref.digest, name)
            is_known = there.given_back or self._backend.memory.category(ref.digest, name) is not None
            if not (is_known or self._backend.register.is_wiped_since(ref.digest, name, latest - 1000)):
                self._reports.losses.lost_by_redis(ref.digest, name, there, latest)

    def _lacks(self, ref: RecordRef, name: str, there: CategoryCopy, now_us: int, life_us: int) -> bool:
        """Return whether the primary lacks data of one category, as :meth:`_seem_lost` does.

        :param now_us: the server's clock, and `life_us`: of the category, microseconds.
        """
        kept_us = self._backend.settings.local_cache_ttl * 1_000_000
        if there.version and there.began <= now_us - kept_us and not there.given_back:  # nearly all there are
            return False
        held = self._backend.memory.category(ref.digest, name)
        if there.given_back:
            since, until = there.given_back, there.version
            if not is_given_back_since(there, held):
                return False
        else:
            since, until = now_us - life_us, there.began or now_us
        if there.given_back and (held is None or held.version <= since):  # it may be this worker's older copy
            return self._fallback.has_seen_more(ref.digest, name, there, since)
        if held is None:
            register = self._backend.register
            is_missing = not there.version and register.is_outdated(ref.digest, name, since)
            # What was written before Redis was asked is part of its answer.
            return is_missing or max(since, there.version) < register.latest_version(ref.digest, name) < now_us
        return bool(held.fields) and since < held.version < until

    def _quarantine(self, ref: RecordRef, category: str, source: str, scope: RequestScope, foreign: bool) -> None:
        self._reports.recorder.count("records_set_aside")
        self._reports.emit(events.record_set_aside, events.RecordSetAside(source, category))
        if source == PRIMARY:
            quarantine = self._backend.primary.quarantine
            scope.attempt(QUARANTINE, quarantine, ref, category, only_foreign=foreign)

    def _show(
        self,
        loaded: Loaded,
        ref: RecordRef,
        names: Iterable[str],
        scope: RequestScope,
        answer: Answer,
        overlay: Overlay,
    ) -> None:
        to = Showing(loaded, ref, scope.view.level, overlay)
        for name in names:
            is_behind = answer.source == REPLICA and self._is_behind(ref, name, answer, overlay)
            if (
                answer.source == "none" or is_behind or not overlay.is_known
            ):  # the journal may have said that it is wiped
                self._fallback.show_without_answer(to, name)
            else:
                self._fallback.show_answer(to, name, answer)
        self._former.note(loaded, overlay)

    def _is_behind(self, ref: RecordRef, category: str, answer: Answer, overlay: Overlay) -> bool:
        """Return whether a replica has less than this host has seen already: this worker, or another one that has not
        shared its copies yet. A replica may have yet to hear of what it does not have at all."""
        version = answer.records[category].version
        held = self._backend.memory.category(ref.digest, category), overlay.copies.get(category)
        if not version or any(copy is not None and copy.version > version for copy in held):
            return True
        return not ref.shadow and self._backend.register.is_outdated(ref.digest, category, version)

    def _count_load(self, loaded: Loaded, ref: RecordRef, scope: RequestScope, life: Life) -> None:
        """Count which stores stood in for the primary, and note which signed-in session is in use. Keys that lie in
        another category than their feature's are prolonged."""
        if loaded.former:
            self._former.prolong(loaded, ref, scope, life)
        if scope.level:
            sources = {state.source for state in loaded.categories.values()}
            for source in {*sources, *loaded.exceptions.values()} - {PRIMARY, "none"}:
                self._reports.recorder.count(f"fallback_{source}")
        if self._reports.in_use is not None and (row := loaded.row):
            # Leases are shared, so all workers together ask the database about a session once in a while.
            by_database = loaded.of(AUTH).source == DATABASE
            now_ms = row.read_at if by_database else loaded.now_ms
            is_due = life.is_extension_due(row, now_ms)  # still: the database could not note this use, but Redis did
            if is_due or by_database:
                ends = now_ms + life.of(row.payload).idle_ms if is_due else row.idle_expires_at
                self._reports.in_use.served(row.digest, min(ends, row.absolute_expires_at) - now_ms)
