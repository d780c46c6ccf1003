"""Sessions as records: load, save, revoke. Walks the stores as the policy table says; knows no Flask.

The database is the only arbiter of auth; Redis and local copies are leases on what it said; dead is for ever.
Writes of auth go database → Redis → local. What Redis missed waits in this host's journal, which every read overlays
until the reconciler has brought it home.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from blinker import Signal

from . import events
from .categories import AUTH, Feature, Priority
from .config import Settings
from .cookies import SIGNED_IN, SessionId
from .exceptions import GrantRefused, LangPontSessionError
from .health import DATABASE, PRIMARY, READ, REPLICA, WRITE, Health
from .leases import DEGRADED_VERIFY_MS, is_leased, survives_database_outage, survives_everything_down
from .metrics import Recorder
from .policy import Behaviour
from .serializer import decode, encode
from .stores.base import AuthRow, CategoryCopy, ErrorClass, Fields, RowState, StoreError
from .stores.database import Database
from .stores.journal import Journal, Overlay
from .stores.local import LocalCopies
from .stores.redis import Answer, AuthEntry, CategoryChange, RedisStore, Written
from .walk import Walk

log = logging.getLogger(__name__)

NO_FIELDS: Fields = {}
_NOTHING = Overlay(revoked=False, writes={}, deltas={}, copies={})
_MOST_NOTED = 256
"""Unclaimed keys that are logged at most: an application that makes up keys must not fill memory or logs."""

_UPDATE_TRIES = 3
"""A compare-and-set that lost is merged onto the winner and tried again; more losers than this are not one user."""

_AS_DEFAULT = frozenset({Behaviour.DEFAULT_VALUE, Behaviour.DISABLE_FEATURE})


class Verdict(StrEnum):
    """What is known of a session's auth."""

    ANONYMOUS = "anonymous"  # kind a: there is nothing to know
    VALID = "valid"
    DEAD = "dead"
    UNVERIFIABLE = "unverifiable"  # nobody who may say so answers


@dataclass(frozen=True, slots=True)
class Life:
    """How long a session lives, milliseconds.

    :param idle_ms: since its last use.
    :param absolute_ms: in all.
    """

    idle_ms: int
    absolute_ms: int


@dataclass(slots=True)
class Loaded:
    """What a session's first touch found.

    :param fields: category → session key → encoded value, as this request may see it.
    :param versions: category → version Redis counted when last known.
    :param sources: category → store that answered.
    :param exceptions: feature → where its data is from instead (``journal``, ``default``).
    :param defaulted: keys that show a configured default because the table says so; never data.
    :param row: the auth row that was believed; None unless `verdict` is VALID.
    :param now_ms: the Redis clock before anything was read; 0: unknown.
    """

    verdict: Verdict
    fields: dict[str, Fields]
    versions: dict[str, int]
    sources: dict[str, str]
    exceptions: dict[str, str] = field(default_factory=dict)
    defaulted: set[str] = field(default_factory=set)
    row: AuthRow | None = None
    now_ms: int = 0

    @property
    def shadow(self) -> bool:
        """Whether the data is that of the anonymous shadow: the session itself is dead."""
        return self.verdict is Verdict.DEAD


@dataclass(slots=True)
class Plan:
    """What a save has to do.

    :param origin: the id the request came with.
    :param target: the id the data is for; the same, a minted one, or None (nothing is kept).
    :param changes: category → what changed. For a minted target they are complete, carried data included.
    :param ends: the origin is to be revoked.
    :param grants: an auth change among `changes` needs the arbiter.
    :param permanence_changed: the life of the SQL row is to be set anew.
    """

    origin: SessionId | None
    target: SessionId | None
    life: Life
    loaded: Loaded | None = None
    changes: dict[str, CategoryChange] = field(default_factory=dict)
    ends: bool = False
    grants: bool = False
    permanence_changed: bool = False

    @property
    def is_new(self) -> bool:
        """Whether the target was minted in this request."""
        return self.target is not None and self.target is not self.origin


@dataclass(frozen=True, slots=True)
class Saved:
    """How a save ended.

    :param stored: something that a later request can find was written somewhere.
    :param durable: the database knows of the revocation that was part of it (True if there was none).
    """

    stored: bool
    durable: bool = True


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
        self._defaults = {key: encode(key, value) for key, value in settings.defaults.items()}
        self._privileged = {encode("role", role) for role in settings.privileged_roles}
        self._kept_locally = frozenset(
            feature.category for feature in self.table.features.values() if self._is_kept_locally(feature)
        )
        longest = max((c.ttl for c in self.table.categories.values() if c.ttl), default=settings.idle_timeout)
        self._anonymous_ms = longest * 1000
        self._noted: set[str] = set()

    # -- reading ---------------------------------------------------------------------------------------------------

    def begin(self) -> Walk:
        """Start one request's walk through the stores."""
        return Walk(self.health, self.recorder, self.settings.request_budget)

    def load(self, sid: SessionId, walk: Walk, life: Life) -> Loaded:
        """Everything a session's first touch needs, in one round trip while all is well. Never raises StoreError."""
        names = self.table.loaded_together()
        if sid.kind != SIGNED_IN:
            return self._load_anonymous(sid, walk, life, names, Verdict.ANONYMOUS)
        names = (AUTH, *(name for name in names if name != AUTH))
        overlay = self._overlay(sid.digest)
        if overlay.revoked or self.local.is_dead(sid.digest):
            return self._load_anonymous(sid, walk, life, names, Verdict.DEAD)
        answer, source = self._read(sid, walk, life, names)
        loaded = self._judge(sid, walk, life, answer, source)
        if loaded.verdict is Verdict.DEAD:
            self.local.kill(sid.digest)
            return self._load_anonymous(sid, walk, life, names, Verdict.DEAD)
        if AUTH in overlay.writes:
            shown = dict(loaded.fields[AUTH])
            _apply(shown, overlay.writes[AUTH], {})
            loaded.fields[AUTH] = shown
        for name in names:
            if name != AUTH:
                self._show(loaded, name, sid, walk, answer, source, overlay)
        return loaded

    def load_more(self, sid: SessionId, walk: Walk, life: Life, loaded: Loaded, category: str) -> None:
        """Add a category that is loaded on demand to `loaded`."""
        answer, source = self._read(sid, walk, life, (category,), shadow=loaded.shadow)
        overlay = self._overlay(sid.digest, shadow=loaded.shadow)
        self._show(loaded, category, sid, walk, answer, source, overlay)

    def _load_anonymous(self, sid: SessionId, walk: Walk, life: Life, names: Iterable[str], verdict: Verdict) -> Loaded:
        shadow = verdict is Verdict.DEAD
        overlay = self._overlay(sid.digest, shadow=shadow)
        answer, source = self._read(sid, walk, life, names, shadow=shadow)
        loaded = Loaded(verdict, {}, {}, {}, now_ms=answer.now_ms if answer else 0)
        for name in names:
            self._show(loaded, name, sid, walk, answer, source, overlay)
        return loaded

    def _read(
        self, sid: SessionId, walk: Walk, life: Life, names: Iterable[str], *, shadow: bool = False
    ) -> tuple[Answer | None, str]:
        """Ask the Redis that answers; None when none does."""
        kind = "a" if shadow else sid.kind
        while source := walk.view.reader:
            touch = source == PRIMARY and walk.can(PRIMARY, WRITE)
            lives = {name: self.life_of(name, kind, life) if touch else 0 for name in names}
            store = self.redis[source]
            try:
                answer = walk.ask(
                    source,
                    READ,
                    "load",
                    self.settings.redis_timeout,
                    lambda timeout, store=store, lives=lives: store.read(  # type: ignore[misc]
                        sid.digest, lives, timeout=timeout, shadow=shadow, kind=kind
                    ),
                )
            except StoreError:
                continue
            for category in answer.damaged:
                self._set_aside(sid.digest, category, source, walk, shadow)
            return answer, source
        return None, "none"

    def life_of(self, category: str, kind: str, life: Life) -> int:
        """Milliseconds a category's data may lie unused: its own TTL, cut to the session's life."""
        ttl = self.table.categories[category].ttl
        whole = life.idle_ms if kind == SIGNED_IN else self._anonymous_ms
        return whole if ttl is None else min(ttl * 1000, whole)

    def _set_aside(self, digest: str, category: str, source: str, walk: Walk, shadow: bool) -> None:
        self.recorder.count("records_set_aside")
        self.emit(events.record_set_aside, events.RecordSetAside(source, category))
        if source == PRIMARY and walk.can(PRIMARY, WRITE):
            self._try(
                walk,
                "set_aside",
                lambda timeout: self.primary.set_aside(digest, category, timeout=timeout, shadow=shadow),
            )

    def _try(self, walk: Walk, operation: str, call: Callable[[float], Any]) -> Any:
        """Ask the primary to write; None when it did not (health and the recorder were told)."""
        if not walk.can(PRIMARY, WRITE):
            return None
        try:
            return walk.ask(PRIMARY, WRITE, operation, self.settings.redis_timeout, call)
        except StoreError:
            return None

    def _overlay(self, digest: str, *, shadow: bool = False) -> Overlay:
        try:
            return _NOTHING if self.journal.is_empty() else self.journal.overlay(digest, shadow=shadow)
        except StoreError as error:
            self._journal_failed(error)
            return _NOTHING

    def _journal_failed(self, error: StoreError) -> None:
        self.recorder.count("journal_errors")
        log.critical("the journal cannot be used: %s. Check LANGPONT_SESSION_JOURNAL and its disk.", error)

    # -- what a category shows -------------------------------------------------------------------------------------

    def behaviour(self, feature: Feature, kind: str, level: int) -> Behaviour:
        """What a feature gets. Auth keys of an anonymous session have no SQL row: they count as high."""
        anonymous_auth = feature.category == AUTH and kind != SIGNED_IN
        return self.settings.behaviour(Priority.HIGH if anonymous_auth else feature.priority, level)

    def _show(
        self,
        loaded: Loaded,
        name: str,
        sid: SessionId,
        walk: Walk,
        answer: Answer | None,
        source: str,
        overlay: Overlay,
    ) -> None:
        """Put into `loaded` what this request may see of one category."""
        answered = answer.categories[name] if answer else None
        kind = "a" if loaded.shadow else sid.kind
        level = walk.level
        copy = answered
        if answered is None:
            copy = _newer(self.local.category(sid.digest, name), overlay.copies.get(name))
        elif source == PRIMARY and name in self._kept_locally and answered.version and not loaded.shadow:
            self.local.put_category(sid.digest, name, answered)
        fields: Fields = copy.fields if copy else NO_FIELDS
        loaded.versions[name] = copy.version if copy else 0
        loaded.sources[name] = source if answered else "local"
        if level or overlay is not _NOTHING:
            fields = self._degraded(fields, name, kind, level, answered is not None, loaded, overlay)
        loaded.fields[name] = fields

    def _degraded(
        self, fields: Fields, name: str, kind: str, level: int, answered: bool, loaded: Loaded, overlay: Overlay
    ) -> Fields:
        behaviours = {f.name: self.behaviour(f, kind, level) for f in self.table.features_in(name)}
        shown = {
            key: value
            for key, value in fields.items()
            if answered or behaviours[self.table.feature_of(key).name] is Behaviour.LOCAL_CACHE_FALLBACK
        }
        _apply(shown, overlay.writes.get(name, {}), overlay.deltas.get(name, {}))
        for feature in self.table.features_in(name):
            if behaviours[feature.name] in _AS_DEFAULT and not answered:
                loaded.exceptions[feature.name] = "default"
            elif any(self.table.feature_of(key) is feature for key in overlay.writes.get(name, {})):
                loaded.exceptions[feature.name] = "journal"
        for key, value in self._defaults.items():
            feature = self.table.feature_of(key)
            if feature.category == name and behaviours[feature.name] in _AS_DEFAULT and key not in shown:
                shown[key] = value
                loaded.defaulted.add(key)
        return shown

    def _is_kept_locally(self, feature: Feature) -> bool:
        kinds = (SIGNED_IN, "a") if feature.category == AUTH else (SIGNED_IN,)
        levels = self.settings.behaviour_table[feature.priority]
        return any(self.behaviour(feature, k, n) is Behaviour.LOCAL_CACHE_FALLBACK for k in kinds for n in levels)

    # -- may this auth be believed? --------------------------------------------------------------------------------

    def _judge(self, sid: SessionId, walk: Walk, life: Life, answer: Answer | None, source: str) -> Loaded:
        """``protocol.md`` section 3: lease, else the database, else what an outage allows."""
        entry = answer.auth if answer else None
        now_ms = answer.now_ms if answer else 0
        if entry and entry.row is None:
            return _verdict(Verdict.DEAD, now_ms)
        # A replica never decides auth, and neither does a primary that has become one.
        if source == REPLICA or not self.primary.fence.is_primary:
            entry = None
        if entry and self._is_leased(entry, now_ms, walk):
            return self._believe(entry, source, now_ms)
        if walk.can(DATABASE, READ):
            held = self.local.auth(sid.digest)
            if not _primary_is_healthy(walk) and held and self._age_ms(held.confirmed_at) <= DEGRADED_VERIFY_MS:
                return _verdict(Verdict.VALID, now_ms, held.row, "local")
            try:
                return self._ask_database(sid, walk, life, now_ms if source == PRIMARY else 0)
            except StoreError:
                pass  # told to health by the walk; what an outage of the database allows follows
        return self._without_database(sid, entry, now_ms, walk)

    def _is_leased(self, entry: AuthEntry, now_ms: int, walk: Walk) -> bool:
        row = entry.row
        assert row is not None  # tombstones were sorted out before
        return (
            _primary_is_healthy(walk)
            and row.state is RowState.VALID
            and is_leased(
                confirmed_ms=entry.confirmed_ms,
                now_ms=now_ms,
                trust_since_ms=self.primary.fence.trust_since_ms,
                terms=self.settings.lease_terms,
            )
            and self._decodes(row)
        )

    def _decodes(self, row: AuthRow) -> bool:
        """Damaged auth data is not shown in part: the database has the whole."""
        try:
            for value in row.payload.values():
                decode(value)
        except LangPontSessionError:
            self.recorder.count("records_set_aside")
            self.emit(events.record_set_aside, events.RecordSetAside(PRIMARY, AUTH))
            return False
        return True

    def _believe(self, entry: AuthEntry, source: str, now_ms: int) -> Loaded:
        assert entry.row is not None
        self.local.put_auth(entry.row, self._clock() - (now_ms - entry.confirmed_ms) / 1000)
        return _verdict(Verdict.VALID, now_ms, entry.row, source)

    def _ask_database(self, sid: SessionId, walk: Walk, life: Life, stamp_ms: int) -> Loaded:
        began = self._clock()
        row = walk.ask(
            DATABASE,
            READ,
            "verify",
            self.settings.database_timeout,
            lambda timeout: self.database.load(sid.digest, idle_ms=life.idle_ms, timeout=timeout),
        )
        if row is None or row.state is not RowState.VALID:
            version = row.version if row else 0
            self._try(walk, "bury", lambda timeout: self._bury(sid.digest, version, timeout))
            return _verdict(Verdict.DEAD, stamp_ms)
        self.local.put_auth(row, began)
        if stamp_ms:
            life_ms = _row_life_ms(row, life)
            pushed = self._try(walk, "push", lambda timeout: self.primary.push(row, stamp_ms, life_ms, timeout=timeout))
            if pushed == "dead":
                return _verdict(Verdict.DEAD, stamp_ms)
        return _verdict(Verdict.VALID, stamp_ms, row, DATABASE)

    def _without_database(self, sid: SessionId, entry: AuthEntry | None, now_ms: int, walk: Walk) -> Loaded:
        terms = self.settings.lease_terms
        if entry and _primary_is_healthy(walk) and self._survives(entry, now_ms):
            return self._believe(entry, PRIMARY, now_ms)
        held = self.local.auth(sid.digest)
        if held and survives_everything_down(
            age_ms=self._age_ms(held.confirmed_at), privileged=self.is_privileged(held.row), terms=terms
        ):
            return _verdict(Verdict.VALID, now_ms, held.row, "local")
        return _verdict(Verdict.UNVERIFIABLE, now_ms)

    def _survives(self, entry: AuthEntry, now_ms: int) -> bool:
        row = entry.row
        return (
            row is not None
            and row.state is RowState.VALID
            and survives_database_outage(
                confirmed_ms=entry.confirmed_ms,
                now_ms=now_ms,
                trust_since_ms=self.primary.fence.trust_since_ms,
                privileged=self.is_privileged(row),
                terms=self.settings.lease_terms,
            )
            and self._decodes(row)
        )

    def is_privileged(self, row: AuthRow) -> bool:
        """Whether a privilege key has one of PRIVILEGED_ROLES as its value."""
        patterns = self.settings.privilege_key_patterns
        return any(value in self._privileged and key in patterns for key, value in row.payload.items())

    def _age_ms(self, confirmed_at: float) -> float:
        return (self._clock() - confirmed_at) * 1000

    def _bury(self, digest: str, version: int, timeout: float) -> bool:
        self.primary.bury(digest, version, tuple(self.table.categories), timeout=timeout)
        return True

    # -- writing ---------------------------------------------------------------------------------------------------

    def save(self, plan: Plan, walk: Walk) -> Saved:
        """Bring a request's changes home, database first.

        :raises GrantRefused: a sign-in or change of rights, and the database does not answer. Nothing was changed.
        """
        if plan.is_new and plan.target and plan.target.kind == SIGNED_IN:
            return self._sign_in(plan, walk)
        durable = True
        if plan.ends and plan.origin:
            durable = self.revoke(plan.origin.digest, walk)
        if not plan.target or not plan.changes:
            return Saved(stored=False, durable=durable)
        row = self._save_auth(plan, walk) if plan.target.kind == SIGNED_IN else None
        stored = self._save_categories(plan, walk, row)
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
        row = self._arbitrate(
            walk,
            "sign_in",
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
        self.local.put_auth(row, began)
        if old:
            self._settle_revoked(old, 0, walk)
        self._save_categories(plan, walk, row)
        return Saved(stored=True)

    def _arbitrate(self, walk: Walk, operation: str, call: Callable[[float], Any]) -> Any:
        """Ask the database for what only it can grant.

        :raises GrantRefused: it does not answer.
        """
        try:
            if walk.can(DATABASE, WRITE):
                return walk.ask(DATABASE, WRITE, operation, self.settings.database_timeout, call)
        except StoreError:
            pass  # counted by the walk; the refusal below is what the user gets
        self.recorder.count("grants_refused")
        self.emit(events.grant_refused, events.GrantWasRefused())
        raise GrantRefused

    def _save_auth(self, plan: Plan, walk: Walk) -> AuthRow | None:
        """Update the SQL row of a session that lives. Returns the new row; None: there is nothing to push."""
        row = plan.loaded.row if plan.loaded else None
        if plan.loaded and plan.loaded.shadow:
            return None  # the auth keys of an anonymous shadow are plain data
        # Without a row there is nobody to write this for: an unverifiable session keeps what it has.
        change = plan.changes.pop(AUTH, None)
        if not change or row is None:
            return None
        try:
            if not walk.can(DATABASE, WRITE):
                raise StoreError(DATABASE, ErrorClass.LOCAL, "BreakerOpen")
            updated = self._update(row, change, plan, walk)
        except StoreError:
            if plan.grants:
                self.recorder.count("grants_refused")
                self.emit(events.grant_refused, events.GrantWasRefused())
                raise GrantRefused from None
            self._journal_changes(plan, {AUTH: change})
            return None
        if updated is None:
            self.local.kill(row.digest)
        else:
            self.local.put_auth(updated, self._clock())
        return updated

    def _update(self, row: AuthRow, change: CategoryChange, plan: Plan, walk: Walk) -> AuthRow | None:
        """Compare-and-set; who lost reloads and merges its own keys. None: the session is dead."""
        absolute_ms = plan.life.absolute_ms if plan.permanence_changed else None
        for _ in range(_UPDATE_TRIES):
            payload = apply_change(row.payload, change)
            updated = walk.ask(
                DATABASE,
                WRITE,
                "save",
                self.settings.database_timeout,
                lambda timeout, row=row, payload=payload: self.database.update(  # type: ignore[misc]
                    row.digest,
                    seen=row.version,
                    payload=payload,
                    user_id=self._user_of(payload),
                    idle_ms=plan.life.idle_ms,
                    absolute_ms=absolute_ms,
                    timeout=timeout,
                ),
            )
            if updated is not None:
                return updated
            current = walk.ask(
                DATABASE,
                READ,
                "verify",
                self.settings.database_timeout,
                lambda timeout: self.database.load(row.digest, idle_ms=0, timeout=timeout),
            )
            if current is None or current.state is not RowState.VALID:
                return None
            row = current
        raise StoreError(DATABASE, ErrorClass.LOCAL, "TooManyConflicts")

    def _save_categories(self, plan: Plan, walk: Walk, row: AuthRow | None) -> bool:
        """Write to Redis what changed, the auth record first; else to the journal what the table keeps."""
        target = plan.target
        assert target is not None
        changes = {name: change for name, change in plan.changes.items() if change}
        if not changes and row is None:
            return False
        if plan.loaded and plan.loaded.shadow and not plan.is_new:
            return self._write_shadow(plan, walk, changes)
        self._give_life(changes, target.kind, plan.life)
        written = self._write(plan, walk, changes, row, "new" if plan.is_new else "alive")
        if written is None:
            if row:
                self._journal(lambda: self.journal.queue_push(row.digest))
            if plan.loaded is None and not plan.is_new:
                # Only who knows what was there before can merge without undoing what others write meanwhile.
                plan.loaded = self.load(target, walk, plan.life)
            return self._journal_changes(plan, changes) or row is not None
        if written.status == "dead":
            self.local.kill(target.digest)
            return not plan.is_new and self._write_shadow(plan, walk, changes)
        return self._was_written(plan, changes, written)

    def _give_life(self, changes: Mapping[str, CategoryChange], kind: str, life: Life) -> None:
        for name, change in changes.items():
            change.life_ms = self.life_of(name, kind, life)

    def _write_shadow(self, plan: Plan, walk: Walk, changes: dict[str, CategoryChange]) -> bool:
        """The session is dead: what its late requests write is the anonymous shadow of its id, without auth."""
        target = plan.target
        assert target is not None
        self._give_life(changes, "a", plan.life)
        written: Written | None = self._try(
            walk,
            "save",
            lambda timeout: self.primary.write(
                target.digest, changes, guard="free", limits=self._limits, timeout=timeout, shadow=True
            ),
        )
        if written is None:
            return self._journal_changes(plan, changes, shadow=True)
        return self._was_written(plan, changes, written, shadow=True)

    def _write(
        self, plan: Plan, walk: Walk, changes: dict[str, CategoryChange], row: AuthRow | None, guard: str
    ) -> Written | None:
        target = plan.target
        assert target is not None
        guard = guard if target.kind == SIGNED_IN else "free"
        stamp = plan.loaded.now_ms if plan.loaded else 0

        def write(push: AuthRow | None) -> Written | None:
            result: Written | None = self._try(
                walk,
                "save",
                lambda timeout: self.primary.write(
                    target.digest,
                    changes,
                    guard=guard,
                    limits=self._limits,
                    timeout=timeout,
                    push=(push, stamp) if push else None,
                    push_life_ms=_row_life_ms(push, plan.life) if push else 0,
                ),
            )
            return result

        written = write(row)
        if written and written.status == "gone":
            # Redis lost a session that SQL may still know: push it again and try once more.
            row = self._row_of(target, walk, plan.life)
            written = write(row) if row else Written("dead")
        return written

    def _row_of(self, sid: SessionId, walk: Walk, life: Life) -> AuthRow | None:
        if not walk.can(DATABASE, READ):
            return None
        try:
            loaded = self._ask_database(sid, walk, life, 0)
        except StoreError:
            return None
        return loaded.row

    def _was_written(
        self, plan: Plan, changes: Mapping[str, CategoryChange], written: Written, *, shadow: bool = False
    ) -> bool:
        target = plan.target
        assert target is not None
        if written.status != "written":
            self.reject(written.category or "", None, f"the write was refused: {written.status}")
            return False
        if not shadow:
            self._remember(target.digest, plan.loaded, changes, written.versions)
        if not self._journal_is_empty():
            for name, change in changes.items():
                touched = {*change.sets, *change.deletes}
                self._journal(
                    lambda name=name, touched=touched: self.journal.forget_fields(  # type: ignore[misc]
                        target.digest, name, touched, shadow=shadow
                    )
                )
        return True

    def _remember(
        self, digest: str, loaded: Loaded | None, changes: Mapping[str, CategoryChange], versions: Mapping[str, int]
    ) -> None:
        """Keep the local copy as new as this worker's own writes."""
        for name, change in changes.items():
            if name not in self._kept_locally:
                continue
            version = versions[name]
            known = loaded is not None and name in loaded.fields and loaded.versions[name] == version - 1
            if known and loaded:
                fields = apply_change(loaded.fields[name], change)
                self.local.put_category(digest, name, CategoryCopy(version, fields))
            else:
                self.local.patch_category(digest, name, {**change.sets, **dict.fromkeys(change.deletes)}, version)

    def _journal_is_empty(self) -> bool:
        try:
            return self.journal.is_empty()
        except StoreError as error:
            self._journal_failed(error)
            return True

    def _journal(self, call: Callable[[], None]) -> bool:
        """Do something with the journal; False (and an alarm) when its disk refuses."""
        try:
            call()
        except StoreError as error:
            self._journal_failed(error)
            return False
        return True

    def _journal_changes(self, plan: Plan, changes: Mapping[str, CategoryChange], *, shadow: bool = False) -> bool:
        """Keep what the table keeps of changes that Redis did not take. Returns whether anything was kept."""
        target = plan.target
        assert target is not None
        kind = "a" if shadow else target.kind
        kept = False
        for name, change in changes.items():
            sets = {key: value for key, value in change.sets.items() if self._outlives_request(key, kind)}
            deletes = {key for key in change.deletes if self._outlives_request(key, kind)}
            increments = {key: by for key, by in change.increments.items() if self._outlives_request(key, kind)}
            if sets or deletes or increments:
                kept = self._journal_category(plan, name, sets, deletes, increments, shadow) or kept
        return kept

    def _outlives_request(self, key: str, kind: str) -> bool:
        """Whether a write of this key outlives the request in an outage. Auth that may wait is kept like high."""
        feature = self.table.feature_of(key)
        if feature.category == AUTH:
            return True
        return self.behaviour(feature, kind, 1) is Behaviour.LOCAL_CACHE_FALLBACK

    def _journal_category(
        self,
        plan: Plan,
        name: str,
        sets: Fields,
        deletes: set[str],
        increments: Mapping[str, int],
        shadow: bool,
    ) -> bool:
        target, loaded = plan.target, plan.loaded
        assert target is not None
        known = loaded if loaded and not plan.is_new and loaded.shadow == shadow else None
        before = known.fields.get(name, NO_FIELDS) if known else NO_FIELDS
        version = known.versions.get(name) or None if known else None  # 0: nobody who answers has seen it
        kind = "a" if shadow else target.kind
        changes: dict[str, bytes | None] = {**sets, **dict.fromkeys(deletes)}

        def write() -> None:
            if changes:
                self.journal.write(
                    target.digest,
                    kind=kind,
                    shadow=shadow,
                    category=name,
                    changes=changes,
                    base={key: before.get(key) for key in changes},
                    base_version=version,
                )
            for key, by in increments.items():
                self.journal.increment(
                    target.digest,
                    kind=kind,
                    shadow=shadow,
                    category=name,
                    field=key,
                    by=by,
                    base=before.get(key),
                    base_version=version,
                )

        return self._journal(write)

    # -- revoking --------------------------------------------------------------------------------------------------

    def revoke(self, digest: str, walk: Walk) -> bool:
        """End a signed-in session for ever: database, Redis, this worker; what does not answer hears it later.

        :return: whether the database knows it already.
        """
        self.local.kill(digest)
        version: int | None = None
        in_database = False
        if walk.can(DATABASE, WRITE):
            try:
                version = walk.ask(
                    DATABASE,
                    WRITE,
                    "revoke",
                    self.settings.database_timeout,
                    lambda timeout: self.database.kill(digest, timeout=timeout),
                )
                in_database = True
            except StoreError:
                pass  # the journal keeps it
        self._settle_revoked(digest, version or 0, walk, in_database=in_database)
        self.emit(events.session_revoked, events.SessionRevoked(events.short(digest), in_database))
        return in_database

    def _settle_revoked(self, digest: str, version: int, walk: Walk, *, in_database: bool = True) -> None:
        self.local.kill(digest)
        in_redis = bool(self._try(walk, "bury", lambda timeout: self._bury(digest, version, timeout)))
        if not (in_database and in_redis):
            self._journal(lambda: self.journal.revoke(digest, in_database=in_database, in_redis=in_redis))

    def _leave(self, origin: SessionId, walk: Walk) -> None:
        """Remove the data of an anonymous session that was given another id."""
        if origin.kind != SIGNED_IN:
            names = tuple(self.table.categories)
            self._try(walk, "remove", lambda timeout: self.primary.remove(origin.digest, names, timeout=timeout))

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
        log.error("session data of category %r was not stored (%s); the old data is kept", category, reason)
        self.recorder.count("values_rejected")
        self.emit(events.value_rejected, events.ValueRejected(category, key, reason))

    def _user_of(self, payload: Fields) -> str | None:
        """The user a payload belongs to: the first of USER_KEYS that is set, as text."""
        for key in self.settings.user_keys:
            if key in payload:
                value = decode(payload[key])
                if value is not None:
                    return str(value)
        return None

    def publish_copies(self) -> None:
        """Put this worker's live local copies where the other workers of the host can read them."""
        self._journal(lambda: self.journal.publish_copies(self.local.live_categories()))


def apply_change(fields: Fields, change: CategoryChange) -> dict[str, bytes]:
    """The fields after a change."""
    after = {} if change.wipe else dict(fields)
    _apply(after, {**change.sets, **dict.fromkeys(change.deletes)}, change.increments)
    return after


def _apply(fields: dict[str, bytes], writes: Mapping[str, bytes | None], deltas: Mapping[str, int]) -> None:
    for key, value in writes.items():
        if value is None:
            fields.pop(key, None)
        else:
            fields[key] = value
    for key, by in deltas.items():
        now = fields.get(key, b"0")
        if now.lstrip(b"-").isdigit():
            fields[key] = b"%d" % (int(now) + by)


def _newer(mine: CategoryCopy | None, hosts: CategoryCopy | None) -> CategoryCopy | None:
    """The host's copies are there so that its workers agree: on equal versions they win."""
    if mine and hosts:
        return mine if mine.version > hosts.version else hosts
    return mine or hosts


def _verdict(verdict: Verdict, now_ms: int, row: AuthRow | None = None, source: str = "none") -> Loaded:
    fields: dict[str, Fields] = {AUTH: row.payload if row else NO_FIELDS}
    return Loaded(verdict, fields, {AUTH: row.version if row else 0}, {AUTH: source}, row=row, now_ms=now_ms)


def _primary_is_healthy(walk: Walk) -> bool:
    return walk.can(PRIMARY, READ) and walk.can(PRIMARY, WRITE)


def _row_life_ms(row: AuthRow, life: Life) -> int:
    return max(1, min(life.idle_ms, row.absolute_expires_at - row.read_at))
