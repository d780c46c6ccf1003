"""Sessions as records: load, save, revoke. Walks the stores as the policy table says; knows no Flask.

The database is the only arbiter of auth; Redis and local copies are leases on what it said; dead is for ever.
Writes of auth go database → Redis → local. What Redis missed waits in this host's journal, which every read overlays
until the reconciler has brought it home.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from blinker import Signal

from . import events
from .categories import AUTH, Feature
from .config import Settings
from .cookies import ANONYMOUS, SIGNED_IN, SessionId
from .exceptions import GrantRefused
from .health import DATABASE, PRIMARY, READ, WRITE, Health
from .metrics import Recorder
from .outbox import NOTHING, Outbox
from .policy import Behaviour
from .records import Life, Loaded, Plan, Saved, Verdict, apply_change, apply_writes
from .serializer import decode
from .stores.base import AuthRow, CategoryChange, Fields, RowState, StoreError
from .stores.database import Database
from .stores.journal import Journal, Overlay
from .stores.local import LocalCopies
from .stores.redis import Answer, RedisStore, Written
from .verifier import Verifier
from .visibility import Visibility
from .walk import Walk

T = TypeVar("T")

log = logging.getLogger(__name__)

_MOST_NOTED = 256
"""Unclaimed keys that are logged at most: an application that makes up keys must not fill memory or logs."""

_UPDATE_TRIES = 3
"""A compare-and-set that lost is merged onto the winner and tried again; more losers than this are not one user."""


class SessionRepository:
    """The records of all sessions of one application.

    :param redis: ``primary`` and perhaps ``replica`` → store.
    :param emit: called with a signal and an event; must not raise.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        redis: Mapping[str, RedisStore],
        database: Database,
        local: LocalCopies,
        journal: Journal,
        health: Health,
        recorder: Recorder,
        emit: Callable[[Signal, object], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.table = settings.table
        self.redis = redis
        self.primary = redis[PRIMARY]
        self.database = database
        self.local = local
        self.journal = journal
        self.health = health
        self.recorder = recorder
        self.emit = emit
        self._clock = clock
        self._limits = (settings.max_fields, settings.max_category_bytes)
        self._visibility = Visibility(settings, local)
        self._outbox = Outbox(journal, self._visibility, recorder)
        self._verifier = Verifier(
            settings,
            primary=self.primary,
            database=database,
            local=local,
            recorder=recorder,
            emit=emit,
            clock=clock,
        )
        longest = max((c.ttl for c in self.table.categories.values() if c.ttl), default=settings.idle_timeout)
        self._anonymous_ms = longest * 1000
        self._others = tuple(name for name in self.table.loaded_together if name != AUTH)
        self._known_lives: dict[tuple[tuple[str, ...], str, int], Mapping[str, int]] = {}
        self._noted: set[str] = set()

    def begin(self) -> Walk:
        """Start one request's walk through the stores."""
        return Walk(self.health, self.recorder, self.settings.request_budget)

    def behaviour(self, feature: Feature, kind: str, level: int) -> Behaviour:
        """What a feature of a session of some kind gets at a level."""
        return self._visibility.behaviour(feature, kind, level)

    def life_of(self, category: str, kind: str, life: Life) -> int:
        """Milliseconds a category's data may lie unused: its own TTL, cut to the session's life."""
        ttl = self.table.categories[category].ttl
        whole = life.idle_ms if kind == SIGNED_IN else self._anonymous_ms
        return whole if ttl is None else min(ttl * 1000, whole)

    # -- reading ---------------------------------------------------------------------------------------------------

    def load(self, sid: SessionId, walk: Walk, life: Life) -> Loaded:
        """Everything a session's first touch needs, in one round trip while all is well. Never raises StoreError."""
        if sid.kind != SIGNED_IN:
            return self._load_anonymous(sid, walk, life, Verdict.ANONYMOUS)
        overlay = self._outbox.overlay(sid.digest)
        if overlay.revoked or self.local.is_dead(sid.digest):
            return self._load_anonymous(sid, walk, life, Verdict.DEAD)
        others = self._others
        answer, source = self._read(sid, walk, life, (AUTH, *others), kind=SIGNED_IN)
        loaded = self._verifier.judge(
            sid,
            walk,
            life,
            answer.auth if answer else None,
            answer.now_ms if answer else 0,
            by_primary=source == PRIMARY and self.primary.fence.is_primary,
        )
        if loaded.shadow:
            self.local.kill(sid.digest)
            return self._load_anonymous(sid, walk, life, Verdict.DEAD)
        if AUTH in overlay.writes:
            shown = dict(loaded.fields[AUTH])
            apply_writes(shown, overlay.writes[AUTH], {})
            loaded.fields[AUTH] = shown
        self._show(loaded, others, sid, walk, answer, source, overlay)
        return loaded

    def load_more(self, sid: SessionId, walk: Walk, life: Life, loaded: Loaded, category: str) -> None:
        """Add a category that is loaded on demand to `loaded`."""
        kind = ANONYMOUS if loaded.shadow else sid.kind
        answer, source = self._read(sid, walk, life, (category,), kind=kind, shadow=loaded.shadow)
        overlay = self._outbox.overlay(sid.digest, shadow=loaded.shadow)
        self._show(loaded, (category,), sid, walk, answer, source, overlay)

    def _load_anonymous(self, sid: SessionId, walk: Walk, life: Life, verdict: Verdict) -> Loaded:
        shadow = verdict is Verdict.DEAD
        names = self.table.loaded_together
        overlay = self._outbox.overlay(sid.digest, shadow=shadow)
        answer, source = self._read(sid, walk, life, names, kind=ANONYMOUS, shadow=shadow)
        loaded = Loaded(verdict, now_ms=answer.now_ms if answer else 0)
        self._show(loaded, names, sid, walk, answer, source, overlay)
        return loaded

    def _read(
        self, sid: SessionId, walk: Walk, life: Life, names: tuple[str, ...], *, kind: str, shadow: bool = False
    ) -> tuple[Answer | None, str]:
        """Ask the Redis that answers; None when none does."""
        while source := walk.view.reader:
            slides = source == PRIMARY and walk.can(PRIMARY, WRITE)
            lives = self._lives(names, kind, life.idle_ms if slides else 0)
            try:
                answer = self._ask(source, sid.digest, lives, walk, kind, shadow)
            except StoreError:
                continue
            for category in answer.damaged:
                self._set_aside(sid.digest, category, source, walk, shadow)
            return answer, source
        return None, "none"

    def _lives(self, names: tuple[str, ...], kind: str, idle_ms: int) -> Mapping[str, int]:
        """The life to slide each category to. There are few combinations, and every read needs one of them."""
        wanted = (names, kind, idle_ms)
        lives = self._known_lives.get(wanted)
        if lives is None:
            life = Life(idle_ms, idle_ms)
            lives = {name: self.life_of(name, kind, life) if idle_ms else 0 for name in names}
            self._known_lives[wanted] = lives
        return lives

    def _ask(self, source: str, digest: str, lives: Mapping[str, int], walk: Walk, kind: str, shadow: bool) -> Answer:
        store = self.redis[source]
        return walk.ask(
            source,
            READ,
            "load",
            self.settings.redis_timeout,
            lambda timeout: store.read(digest, lives, timeout=timeout, shadow=shadow, kind=kind),
        )

    def _set_aside(self, digest: str, category: str, source: str, walk: Walk, shadow: bool) -> None:
        self.recorder.count("records_set_aside")
        self.emit(events.record_set_aside, events.RecordSetAside(source, category))
        if source == PRIMARY:
            self._to_primary(
                walk,
                "set_aside",
                lambda timeout: self.primary.set_aside(digest, category, timeout=timeout, shadow=shadow),
            )

    def _show(
        self,
        loaded: Loaded,
        names: Iterable[str],
        sid: SessionId,
        walk: Walk,
        answer: Answer | None,
        source: str,
        overlay: Overlay,
    ) -> None:
        kind = ANONYMOUS if loaded.shadow else sid.kind
        known = None if overlay is NOTHING else overlay
        level = walk.level
        for name in names:
            if answer is None:
                self._visibility.show_without_answer(loaded, name, sid.digest, level=level, kind=kind, overlay=known)
            else:
                self._visibility.show_answer(
                    loaded,
                    name,
                    sid.digest,
                    answer.categories[name],
                    source=source,
                    remember=source == PRIMARY and not loaded.shadow,
                    level=level,
                    kind=kind,
                    overlay=known,
                )

    # -- writing ---------------------------------------------------------------------------------------------------

    def save(self, plan: Plan, walk: Walk) -> Saved:
        """Bring a request's changes home, database first.

        :raises GrantRefused: a sign-in or change of rights, and the database does not answer. Nothing was changed.
        """
        if plan.is_new and plan.target and plan.target.kind == SIGNED_IN:
            try:
                return self._sign_in(plan, walk)
            except GrantRefused:
                if plan.ends and plan.origin:
                    self.revoke(plan.origin.digest, walk)  # the sign-out that came first holds all the same
                raise
        durable = True
        if plan.ends and plan.origin:
            durable = self.revoke(plan.origin.digest, walk)
        if not plan.target or not plan.changes:
            return Saved(stored=False, durable=durable)
        row = self._save_auth(plan, walk) if plan.target.kind == SIGNED_IN else None
        stored = self._save_categories(plan, plan.target, walk, row)
        if plan.is_new and plan.origin and not plan.ends:
            self._leave(plan.origin, walk)
        return Saved(stored, durable)

    def _sign_in(self, plan: Plan, walk: Walk) -> Saved:
        target, origin = plan.target, plan.origin
        assert target is not None
        auth = plan.changes.pop(AUTH, None)
        payload = dict(auth.sets) if auth else {}
        old = origin.digest if origin and origin.kind == SIGNED_IN else None
        began = self._clock()
        row = walk.attempt(
            DATABASE,
            WRITE,
            "sign_in",
            self.settings.database_timeout,
            lambda timeout: self.database.create(
                target.digest,
                user_id=self._user_of(payload),
                payload=payload,
                idle_ms=plan.life.idle_ms,
                absolute_ms=plan.life.absolute_ms,
                kill=old,
                timeout=timeout,
            ),
        )
        if row is None:
            raise self.refused()
        self.local.put_auth(row, began)
        if old:
            self._settle_revoked(old, 0, walk, in_database=True)
        self._save_categories(plan, target, walk, row)
        return Saved(stored=True)

    def refused(self) -> GrantRefused:
        """The answer to a grant that nobody can decide about, counted."""
        self.recorder.count("grants_refused")
        self.emit(events.grant_refused, events.GrantWasRefused())
        return GrantRefused()

    def _save_auth(self, plan: Plan, walk: Walk) -> AuthRow | None:
        """Update the SQL row of a session that lives. Returns the new row; None: there is nothing to push."""
        if plan.is_for_shadow:
            return None  # the auth keys of an anonymous shadow are plain data
        change = plan.changes.pop(AUTH, None)
        row = plan.loaded.row if plan.loaded else None
        if change is None or row is None:
            return None  # without a row there is nobody to write this for: an unverifiable session keeps what it has
        began = self._clock()
        try:
            updated = self._update(row, change, plan, walk)
        except StoreError:
            if plan.grants:
                raise self.refused() from None
            self._outbox.keep(plan, {AUTH: change})
            return None
        if updated is None:
            self._settle_revoked(row.digest, row.version, walk, in_database=True)
        else:
            self.local.put_auth(updated, began)
        return updated

    def _update(self, row: AuthRow, change: CategoryChange, plan: Plan, walk: Walk) -> AuthRow | None:
        """Compare-and-set; who lost reloads and merges its own keys. None: the session is dead.

        :raises StoreError: the database did not answer, or others were faster every time.
        """
        for _ in range(_UPDATE_TRIES):
            updated = self._compare_and_set(row, apply_change(row.payload, change), plan, walk)
            if updated is not None:
                return updated
            current = self._reload(row.digest, walk)
            if current is None or current.state is not RowState.VALID:
                return None
            row = current
        raise walk.gave_up(DATABASE, "TooManyConflicts")

    def _reload(self, digest: str, walk: Walk) -> AuthRow | None:
        return walk.ask(
            DATABASE,
            READ,
            "verify",
            self.settings.database_timeout,
            lambda timeout: self.database.load(digest, idle_ms=0, timeout=timeout),
        )

    def _compare_and_set(self, row: AuthRow, payload: Fields, plan: Plan, walk: Walk) -> AuthRow | None:
        if not walk.can(DATABASE, WRITE):
            raise walk.gave_up(DATABASE, "BreakerOpen")
        return walk.ask(
            DATABASE,
            WRITE,
            "save",
            self.settings.database_timeout,
            lambda timeout: self.database.update(
                row.digest,
                seen=row.version,
                payload=payload,
                user_id=self._user_of(payload),
                idle_ms=plan.life.idle_ms,
                absolute_ms=plan.life.absolute_ms if plan.permanence_changed else None,
                timeout=timeout,
            ),
        )

    def _save_categories(self, plan: Plan, target: SessionId, walk: Walk, row: AuthRow | None) -> bool:
        """Write to Redis what changed, the auth record first; else to the journal what the table keeps."""
        changes = {name: change for name, change in plan.changes.items() if change}
        if not changes and row is None:
            return False
        if plan.is_for_shadow:
            return self._write_shadow(plan, target, walk, changes)
        self._give_life(changes, target.kind, plan.life)
        written = self._write_guarded(plan, target, walk, changes, row)
        if written is None:
            return self._keep_for_later(plan, target, walk, changes, row)
        if written.status == "dead":
            self.local.kill(target.digest)
            return not plan.is_new and self._write_shadow(plan, target, walk, changes)
        return self._was_written(plan, target, changes, written, walk)

    def _write_guarded(
        self, plan: Plan, target: SessionId, walk: Walk, changes: dict[str, CategoryChange], row: AuthRow | None
    ) -> Written | None:
        guard = "free" if target.kind != SIGNED_IN else "new" if plan.is_new else "alive"
        stamp = plan.loaded.now_ms if plan.loaded else 0
        written = self._write(target.digest, changes, guard, walk, row, stamp, plan.life)
        if written and written.status == "gone":
            # Redis lost a session that SQL may still know: push it again and try once more.
            found = self._ask_arbiter(target.digest, walk, plan.life)
            if found is None:
                return None  # nobody says that it is dead
            if found.row is None:
                return Written("dead")
            written = self._write(target.digest, changes, guard, walk, found.row, 0, plan.life)
        return written

    def _write(
        self,
        digest: str,
        changes: dict[str, CategoryChange],
        guard: str,
        walk: Walk,
        row: AuthRow | None,
        stamp: int,
        life: Life,
    ) -> Written | None:
        return self._to_primary(
            walk,
            "save",
            lambda timeout: self.primary.write(
                digest,
                changes,
                guard=guard,
                limits=self._limits,
                timeout=timeout,
                push=(row, stamp) if row else None,
                push_life_ms=life.left_of(row) if row else 0,
            ),
        )

    def _ask_arbiter(self, digest: str, walk: Walk, life: Life) -> Loaded | None:
        """What the database says of a session; None: it did not answer."""
        if not walk.can(DATABASE, READ):
            return None
        try:
            return self._verifier.ask_database(digest, walk, life, 0)
        except StoreError:
            return None

    def _write_shadow(self, plan: Plan, target: SessionId, walk: Walk, changes: dict[str, CategoryChange]) -> bool:
        """The session is dead: what its late requests write is the anonymous shadow of its id, without auth."""
        self._give_life(changes, ANONYMOUS, plan.life)
        written = self._to_primary(
            walk,
            "save",
            lambda timeout: self.primary.write(
                target.digest, changes, guard="free", limits=self._limits, timeout=timeout, shadow=True
            ),
        )
        if written is None:
            return self._outbox.keep(plan, changes, shadow=True)
        return self._was_written(plan, target, changes, written, walk, shadow=True)

    def _give_life(self, changes: Mapping[str, CategoryChange], kind: str, life: Life) -> None:
        for name, change in changes.items():
            change.life_ms = self.life_of(name, kind, life)

    def _keep_for_later(
        self, plan: Plan, target: SessionId, walk: Walk, changes: Mapping[str, CategoryChange], row: AuthRow | None
    ) -> bool:
        """Redis did not take it. Returns whether anything outlives the request all the same."""
        if row:
            self._outbox.queue_push(row.digest)
        if plan.loaded is None and not plan.is_new:
            # Only who knows what was there before can merge without undoing what others write meanwhile.
            plan.loaded = self.load(target, walk, plan.life)
        kept = self._outbox.keep(plan, changes)
        return kept or row is not None

    def _was_written(
        self,
        plan: Plan,
        target: SessionId,
        changes: Mapping[str, CategoryChange],
        written: Written,
        walk: Walk,
        *,
        shadow: bool = False,
    ) -> bool:
        if written.status != "written":
            return self._write_the_rest(plan, target, changes, written, walk, shadow)
        if not shadow:
            self._visibility.remember_write(target.digest, plan.loaded, changes, written.versions)
        self._outbox.taken(target.digest, changes, shadow=shadow)
        return True

    def _write_the_rest(
        self,
        plan: Plan,
        target: SessionId,
        changes: Mapping[str, CategoryChange],
        refused: Written,
        walk: Walk,
        shadow: bool,
    ) -> bool:
        """One category cannot take its change (``large``, ``no number``); the others are none the worse for it."""
        culprit = refused.category or ""
        for key in changes[culprit].writes | changes[culprit].increments:
            self.reject(culprit, key, f"category {culprit!r}: {refused.status}")
        rest = {name: change for name, change in changes.items() if name != culprit}
        if not rest:
            return False
        if shadow:
            return self._write_shadow(plan, target, walk, rest)
        plan.changes = rest
        return self._save_categories(plan, target, walk, None)

    def _to_primary(self, walk: Walk, operation: str, call: Callable[[float], T]) -> T | None:
        return walk.attempt(PRIMARY, WRITE, operation, self.settings.redis_timeout, call)

    def _leave(self, origin: SessionId, walk: Walk) -> None:
        """Remove the data of an anonymous session that was given another id."""
        if origin.kind != SIGNED_IN:
            names = tuple(self.table.categories)
            self._to_primary(walk, "remove", lambda timeout: self.primary.remove(origin.digest, names, timeout=timeout))

    # -- revoking --------------------------------------------------------------------------------------------------

    def revoke(self, digest: str, walk: Walk) -> bool:
        """End a signed-in session for ever: database, Redis, this worker; what does not answer hears it later.

        :return: whether the database knows it already.
        """
        self.local.kill(digest)
        in_database, version = self._revoke_in_database(digest, walk)
        self._settle_revoked(digest, version, walk, in_database=in_database)
        self.emit(events.session_revoked, events.SessionRevoked(events.short(digest), in_database))
        return in_database

    def _revoke_in_database(self, digest: str, walk: Walk) -> tuple[bool, int]:
        if not walk.can(DATABASE, WRITE):
            return False, 0
        try:
            version = walk.ask(
                DATABASE,
                WRITE,
                "revoke",
                self.settings.database_timeout,
                lambda timeout: self.database.kill(digest, timeout=timeout),
            )
        except StoreError:
            return False, 0
        return True, version or 0

    def _settle_revoked(self, digest: str, version: int, walk: Walk, *, in_database: bool) -> None:
        self.local.kill(digest)
        in_redis = self._verifier.bury(digest, version, walk)
        if not (in_database and in_redis):
            self._outbox.revoke(digest, in_database=in_database, in_redis=in_redis)

    # -- reporting -------------------------------------------------------------------------------------------------

    def note_unclaimed(self, key: str) -> None:
        """Say once per key that only the catch-all claims it: probably CATEGORIES forgot it."""
        if key in self._noted or not self.table.is_catch_all(key) or len(self._noted) >= _MOST_NOTED:
            return
        self._noted.add(key)
        log.info(
            "session key %r is claimed by no feature but the catch-all %r; LANGPONT_SESSION_CATEGORIES may name it",
            key,
            self.table.feature_of(key).name,
        )

    def reject(self, category: str, key: str | None, reason: str) -> None:
        """Report a change that could not be stored at save time, when no view is there to be told any more."""
        what = f"session key {key!r}" if key else f"session data of category {category!r}"
        log.error("%s was not stored (%s); the old data is kept", what, reason)
        self.recorder.count("values_rejected")
        self.emit(events.value_rejected, events.ValueRejected(category, key, reason))

    def publish_copies(self) -> None:
        """Put this worker's live local copies where the other workers of the host can read them."""
        self._outbox.publish(self.local.live_categories())

    def _user_of(self, payload: Fields) -> str | None:
        """The user a payload belongs to: the first of USER_KEYS that is set, as text."""
        for key in self.settings.user_keys:
            value = decode(payload[key]) if key in payload else None
            if value is not None:
                return str(value)
        return None
