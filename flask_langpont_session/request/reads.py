"""Reading a session: one round trip to the Redis that answers, and what the table gives where none does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from .. import events
from ..policy.categories import AUTH
from ..policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from ..policy.records import (
    Life,
    Loaded,
    Verdict,
    apply_writes,
)
from ..policy.values import (
    StoreError,
)
from ..stores.host.journal import Overlay
from ..stores.redis.records import Answer
from .journal_writer import NOTHING
from .parts import Parts
from .scope import RequestScope
from .verifier import RedisReply

T = TypeVar("T")

_READ_TRIES = 3
"""The primary, the replica, and once again a server whose reply was not understood."""


class Reads:
    """Loads sessions."""

    def __init__(self, parts: Parts) -> None:
        self._backend = parts.backend
        self._reports = parts.backend.reports
        self._settings = parts.backend.settings
        self._table = parts.backend.table
        self._local = parts.backend.local
        self._clock = parts.backend.clock
        self._fallback = parts.fallback
        self._journal_writer = parts.journal_writer
        self._verifier = parts.verifier
        self._others = tuple(name for name in self._table.loaded_together if name != AUTH)
        self._known_lives: dict[tuple[tuple[str, ...], str, int], Mapping[str, int]] = {}

    def load(self, sid: SessionId, scope: RequestScope, life: Life, *, fresh: bool = False) -> Loaded:
        """Everything a session's first touch needs, in one round trip while all is well. Never raises StoreError.

        :param fresh: the database is asked about auth whatever is known, and no other store is believed.
        """
        scope = scope.to(sid.digest)
        if sid.kind != SIGNED_IN:
            return self._load_anonymous(sid, scope, life, Verdict.ANONYMOUS)
        overlay = self._journal_writer.overlay(sid.digest, scope)
        fresh = fresh or not overlay.is_known  # the journal may have said that it is over
        if overlay.revoked:
            # The entry goes as soon as the stores have it, which this worker need not find answering yet.
            self._local.kill(sid.digest)
        for user_id, until_ms in overlay.users.items():
            self._local.sign_out_user(user_id, until_ms, overlay.epochs.get(user_id, 0))
        if self._local.is_dead(sid.digest):
            return self._load_anonymous(sid, scope, life, Verdict.DEAD)
        if overlay.version and scope.can(DATABASE, READ):
            # Another worker of the host has changed the row, and Redis cannot tell.
            self._local.raise_min_version(sid.digest, overlay.version)
        others = self._others
        heard = self._read(sid, scope, life, (AUTH, *others), kind=SIGNED_IN)
        loaded = self._verifier.verify(sid.digest, scope, life, heard, fresh=fresh)
        if loaded.row and self._local.is_signed_out(loaded.row):
            loaded = Loaded.verified(Verdict.DEAD, heard.now_ms)
        if loaded.shadow:
            self._local.kill(sid.digest)
            return self._load_anonymous(sid, scope, life, Verdict.DEAD)
        if loaded.row and AUTH in overlay.writes:
            shown = dict(loaded.fields[AUTH])
            apply_writes(shown, self._ordinary(overlay.writes[AUTH]), {})
            loaded.fields[AUTH] = shown
        self._show(loaded, others, sid, scope, heard, overlay)
        self._count_load(loaded, scope, life)
        return loaded

    def load_more(self, sid: SessionId, scope: RequestScope, life: Life, loaded: Loaded, category: str) -> None:
        """Add a category that is loaded on demand to `loaded`."""
        scope = scope.to(sid.digest)
        kind = ANONYMOUS if loaded.shadow else sid.kind
        overlay = self._journal_writer.overlay(sid.digest, scope, shadow=loaded.shadow)
        heard = self._read(sid, scope, life, (category,), kind=kind, shadow=loaded.shadow)
        self._show(loaded, (category,), sid, scope, heard, overlay)
        if kind != SIGNED_IN:
            self._withhold_identity(loaded)

    def _load_anonymous(self, sid: SessionId, scope: RequestScope, life: Life, verdict: Verdict) -> Loaded:
        shadow = verdict is Verdict.DEAD
        names = self._table.loaded_together
        overlay = self._journal_writer.overlay(sid.digest, scope, shadow=shadow)
        heard = self._read(sid, scope, life, names, kind=ANONYMOUS, shadow=shadow)
        loaded = Loaded(verdict, now_ms=heard.now_ms)
        self._show(loaded, names, sid, scope, heard, overlay)
        self._withhold_identity(loaded)
        self._count_load(loaded, scope, life)
        return loaded

    def _withhold_identity(self, loaded: Loaded) -> None:
        """Without a row in the database there is neither user nor right, whatever a record, copy or journal says."""
        if fields := loaded.fields.get(AUTH):
            loaded.fields[AUTH] = self._ordinary(fields)

    def _ordinary(self, fields: Mapping[str, T]) -> dict[str, T]:
        """Auth data without users and rights: what may be stored elsewhere than in a row."""
        return {key: value for key, value in fields.items() if not self._settings.is_identity(key)}

    def _read(
        self,
        sid: SessionId,
        scope: RequestScope,
        life: Life,
        names: tuple[str, ...],
        *,
        kind: str,
        shadow: bool = False,
    ) -> RedisReply:
        """Ask the Redis that answers, if one does."""
        for _ in range(_READ_TRIES):  # a store that failed is out of the view; one that is misread is asked again
            source = scope.view.reader
            if source is None:
                break
            slides = source == PRIMARY and scope.can(PRIMARY, WRITE)
            lives = self._lives(names, kind, life.idle_ms if slides else 0)
            asked_at = self._clock()
            try:
                answer = self._ask(source, sid.digest, lives, scope, kind, shadow)
            except StoreError:
                continue
            if self._reports.in_use and answer.moved_ms and kind == ANONYMOUS and not shadow:
                self._reports.in_use.served(sid.digest, answer.moved_ms)
            for category in answer.damaged:
                self._quarantine(sid.digest, category, source, scope, shadow, category in answer.foreign)
            return RedisReply(answer, source, asked_at)
        return RedisReply(None, "none", self._clock())

    def _lives(self, names: tuple[str, ...], kind: str, idle_ms: int) -> Mapping[str, int]:
        """The life to slide each category to. There are few combinations, and every read needs one of them."""
        wanted = (names, kind, idle_ms)
        lives = self._known_lives.get(wanted)
        if lives is None:
            life = Life(idle_ms, idle_ms)
            lives = {name: self._backend.life_of(name, kind, life) if idle_ms else 0 for name in names}
            self._known_lives[wanted] = lives
        return lives

    def _ask(
        self, source: str, digest: str, lives: Mapping[str, int], scope: RequestScope, kind: str, shadow: bool
    ) -> Answer:
        store = self._backend.redis[source]
        return scope.ask(
            source,
            READ,
            "load",
            self._settings.redis_timeout,
            lambda timeout: store.read(digest, lives, timeout=timeout, shadow=shadow, kind=kind),
        )

    def _quarantine(
        self, digest: str, category: str, source: str, scope: RequestScope, shadow: bool, foreign: bool
    ) -> None:
        self._reports.recorder.count("records_set_aside")
        self._reports.emit(events.record_set_aside, events.RecordSetAside(source, category))
        if source == PRIMARY:
            scope.attempt(
                PRIMARY,
                WRITE,
                "quarantine",
                self._settings.redis_timeout,
                lambda timeout: self._backend.primary.quarantine(
                    digest, category, timeout=timeout, shadow=shadow, only_foreign=foreign
                ),
            )

    def _show(
        self,
        loaded: Loaded,
        names: Iterable[str],
        sid: SessionId,
        scope: RequestScope,
        heard: RedisReply,
        overlay: Overlay,
    ) -> None:
        kind = ANONYMOUS if loaded.shadow else sid.kind
        known = None if overlay is NOTHING else overlay
        level = scope.level
        answer, source = heard.answer, heard.source
        for name in names:
            is_behind = source == REPLICA and answer and self._is_behind(sid.digest, name, answer, overlay)
            if answer is None or is_behind or not overlay.is_known:  # the journal may have said that it is wiped
                self._fallback.show_without_answer(loaded, name, sid.digest, level=level, kind=kind, overlay=known)
            else:
                self._fallback.show_answer(
                    loaded,
                    name,
                    sid.digest,
                    answer,
                    source=source,
                    asked_at=heard.asked_at,
                    remember=source == PRIMARY and not loaded.shadow,
                    level=level,
                    kind=kind,
                    overlay=known,
                )

    def _is_behind(self, digest: str, category: str, answer: Answer, overlay: Overlay) -> bool:
        """Whether a replica has less than this host has seen already. What it does not have at all it may have yet to
        hear of."""
        version = answer.records[category].copy.version
        held = self._local.category(digest, category), overlay.copies.get(category)
        return not version or any(copy is not None and copy.version > version for copy in held)

    def _count_load(self, loaded: Loaded, scope: RequestScope, life: Life) -> None:
        """What stood in for the primary, and which signed-in session is in use."""
        if scope.level:
            for source in {*loaded.sources.values(), *loaded.exceptions.values()} - {PRIMARY, "none"}:
                self._reports.recorder.count(f"fallback_{source}")
        row = loaded.row
        if self._reports.in_use is None or row is None:
            return
        # Leases are shared, so all workers together ask the database about a session once in a while.
        by_database = loaded.sources[AUTH] == DATABASE
        now_ms = row.read_at if by_database else loaded.now_ms
        is_due = life.is_slide_due(row, now_ms)  # still: the database could not note this use, but Redis did
        if is_due or by_database:
            ends = now_ms + life.idle_ms if is_due else row.idle_expires_at
            self._reports.in_use.served(row.digest, min(ends, row.absolute_expires_at) - now_ms)
