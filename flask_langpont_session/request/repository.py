"""Sessions as records: load, save, revoke. Walks the stores as the policy table says; knows no Flask.

The database is the only arbiter of auth; Redis and local copies are leases on what it said; dead is for ever.
Writes of auth go database → Redis → local. What Redis missed waits in this host's journal, which every read overlays
until the reconciler has brought it home.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar, cast

from blinker import Signal

from .. import events
from ..config.settings import Settings
from ..exceptions import GrantRefused, UnreadableValue
from ..metrics.recorder import InUse, Recorder
from ..policy.categories import AUTH, Feature
from ..policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE, Health
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from ..policy.levels import Behaviour
from ..policy.records import (
    NO_FIELDS,
    Kept,
    Life,
    Loaded,
    Note,
    Plan,
    Revoked,
    Saved,
    Verdict,
    apply_change,
    apply_writes,
    difference,
)
from ..policy.serializer import decode
from ..policy.users import user_of
from ..policy.values import (
    AuthRow,
    CategoryChange,
    CategoryCopy,
    ErrorClass,
    Fields,
    RowState,
    SharedCopy,
    StoreError,
    role_of,
)
from ..stores.host.journal import Journal, Overlay
from ..stores.local import LocalCopies
from ..stores.redis.cluster import ClusterStore, Redis
from ..stores.redis.records import Answer, Limits, Merged, Restore, Written
from ..stores.redis.store import RedisStore, new_write_id
from ..stores.sql.database import Database
from ..support.single_flight import SingleFlight
from .fallback import Fallback
from .journal_writer import NOTHING, JournalWriter
from .scope import RequestScope
from .verifier import Confirmed, RedisReply, Verifier

T = TypeVar("T")

log = logging.getLogger(__name__)

_READ_TRIES = 3
"""The primary, the replica, and once again a server whose reply was not understood."""

_MOST_SETTLED = 200
"""Sessions of a user who is logged out everywhere that the request itself brings home: they take no longer than what
else it asks for."""

_MINT_TRIES = 8
"""Ids that are thrown away for a shard that answers: of two that is one in 256 requests that does not get one."""

_BEFORE_US = 3_600_000_000
"""Microseconds: the data of an old session counts as that much older than the request that takes it over, so that
nothing which any request writes meanwhile is undone by it."""

_UPDATE_TRIES = 3
"""A compare-and-set that lost is merged onto the winner and tried again; more losers than this are not one user."""


class _Sent(NamedTuple):
    """A write that was sent to Redis.

    :param written: None: it was not written, as far as is known.
    :param doubt: then the id of the write, if Redis may have it, or get it yet.
    :param sent_us: and when it was sent, microseconds by the Redis clock.
    """

    written: Written | None
    doubt: str = ""
    sent_us: int = 0


class SessionRepository:
    """The records of all sessions of one application.

    :param redis: ``primary`` and perhaps ``replica`` → store.
    :param emit: called with a signal and an event; must not raise.
    :param clock: monotonic seconds.
    :param now_ms: milliseconds since 1970.
    :param in_use: is told which sessions are in use.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        redis: Mapping[str, Redis],
        database: Database,
        local: LocalCopies,
        journal: Journal,
        health: Health,
        recorder: Recorder,
        emit: Callable[[Signal, object], None],
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        flights: SingleFlight[Confirmed] | None = None,
        in_use: InUse | None = None,
    ) -> None:
        self.settings = settings
        self.table = settings.table
        # A cluster's store does all that sessions ask of a server's; what concerns one server is asked of `store`.
        self.redis = cast("Mapping[str, RedisStore]", redis)
        self.primary = self.redis[PRIMARY]
        self.database = database
        self.local = local
        self.journal = journal
        self.health = health
        self.recorder = recorder
        self.emit = emit
        self._clock = clock
        self._now_ms = now_ms
        self.limits = Limits(settings.max_fields, settings.max_category_bytes, settings.local_cache_ttl * 1000)
        self._fallback = Fallback(settings, local, journal)
        self._journal_writer = JournalWriter(journal, self._fallback, recorder, emit, clock=clock)
        self._verifier = Verifier(
            settings,
            primary=self.primary,
            database=database,
            local=local,
            journal_writer=self._journal_writer,
            recorder=recorder,
            emit=emit,
            clock=clock,
            flights=flights,
        )
        longest = max((c.ttl for c in self.table.categories.values() if c.ttl), default=settings.idle_timeout)
        self._anonymous_ms = longest * 1000
        self._others = tuple(name for name in self.table.loaded_together if name != AUTH)
        self._known_lives: dict[tuple[tuple[str, ...], str, int], Mapping[str, int]] = {}
        self._in_use = in_use
        self.make_refusal: Callable[[], GrantRefused] = GrantRefused

    def begin(self, budget: float | None = None, digest: str | None = None) -> RequestScope:
        """Begin one request over the stores.

        :param budget: seconds it may wait for stores in all; None: REQUEST_BUDGET.
        :param digest: of the session that it is about; None: of one that is yet to begin, see :meth:`placed`.
        """
        shard = self.health.best_shard if digest is None else self.health.locate(digest)
        return RequestScope(self.health, self.recorder, budget or self.settings.request_budget, self._clock, shard)

    def placed(self, mint: Callable[[], SessionId]) -> SessionId:
        """A new session id that lies on a shard that is well, if there is one: nobody has to begin in an outage."""
        lost = self.health.lost_shards
        sid = mint()
        if lost and len(lost) < len(self.health.shards):
            for _ in range(_MINT_TRIES):
                if self.health.locate(sid.digest) not in lost:
                    break
                sid = mint()
        return sid

    def store(self, name: str) -> RedisStore:
        """The Redis behind a name as health has it: a server, or one shard of a cluster.

        :raises StoreError: that shard is not known, or not any more.
        """
        store: RedisStore | None = self.redis[role_of(name)]
        if isinstance(store, ClusterStore):
            store = store.stores.get(name)
        if store is None:
            raise StoreError(name, ErrorClass.TOPOLOGY, "NoSuchShard")
        return store

    def behaviour(self, feature: Feature, kind: str, level: int) -> Behaviour:
        """What a feature of a session of some kind gets at a level."""
        return self._fallback.behaviour(feature, kind, level)

    def life_of(self, category: str, kind: str, life: Life) -> int:
        """Milliseconds a category's data may lie unused: its own TTL, cut to the session's life."""
        ttl = self.table.categories[category].ttl
        whole = life.idle_ms if kind == SIGNED_IN else self._anonymous_ms
        return whole if ttl is None else min(ttl * 1000, whole)

    # -- reading ---------------------------------------------------------------------------------------------------

    def load(self, sid: SessionId, scope: RequestScope, life: Life, *, fresh: bool = False) -> Loaded:
        """Everything a session's first touch needs, in one round trip while all is well. Never raises StoreError.

        :param fresh: the database is asked about auth whatever is known, and nobody else is believed.
        """
        scope = scope.to(sid.digest)
        if sid.kind != SIGNED_IN:
            return self._load_anonymous(sid, scope, life, Verdict.ANONYMOUS)
        overlay = self._journal_writer.overlay(sid.digest, scope)
        fresh = fresh or not overlay.is_known  # the journal may have said that it is over
        if overlay.revoked:
            # The entry goes as soon as the stores have it, which this worker need not find answering yet.
            self.local.kill(sid.digest)
        for user_id, until_ms in overlay.users.items():
            self.local.sign_out_user(user_id, until_ms, overlay.epochs.get(user_id, 0))
        if self.local.is_dead(sid.digest):
            return self._load_anonymous(sid, scope, life, Verdict.DEAD)
        if overlay.version and scope.can(DATABASE, READ):
            # Another worker of the host has changed the row, and Redis cannot tell.
            self.local.raise_min_version(sid.digest, overlay.version)
        others = self._others
        heard = self._read(sid, scope, life, (AUTH, *others), kind=SIGNED_IN)
        loaded = self._verifier.verify(sid.digest, scope, life, heard, fresh=fresh)
        if loaded.row and self.local.is_signed_out(loaded.row):
            loaded = Loaded.verified(Verdict.DEAD, heard.now_ms)
        if loaded.shadow:
            self.local.kill(sid.digest)
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
        names = self.table.loaded_together
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
        users, rights = self.settings.user_key_patterns, self.settings.privilege_key_patterns
        return {key: value for key, value in fields.items() if key not in users and key not in rights}

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
            if self._in_use and answer.moved_ms and kind == ANONYMOUS and not shadow:
                self._in_use.served(sid.digest, answer.moved_ms)
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
            lives = {name: self.life_of(name, kind, life) if idle_ms else 0 for name in names}
            self._known_lives[wanted] = lives
        return lives

    def _ask(
        self, source: str, digest: str, lives: Mapping[str, int], scope: RequestScope, kind: str, shadow: bool
    ) -> Answer:
        store = self.redis[source]
        return scope.ask(
            source,
            READ,
            "load",
            self.settings.redis_timeout,
            lambda timeout: store.read(digest, lives, timeout=timeout, shadow=shadow, kind=kind),
        )

    def _quarantine(
        self, digest: str, category: str, source: str, scope: RequestScope, shadow: bool, foreign: bool
    ) -> None:
        self.recorder.count("records_set_aside")
        self.emit(events.record_set_aside, events.RecordSetAside(source, category))
        if source == PRIMARY:
            self._to_primary(
                scope,
                "quarantine",
                lambda timeout: self.primary.quarantine(
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
        version = answer.categories[category].version
        held = self.local.category(digest, category), overlay.copies.get(category)
        return not version or any(copy is not None and copy.version > version for copy in held)

    # -- writing ---------------------------------------------------------------------------------------------------

    def save(self, plan: Plan, scope: RequestScope) -> Saved:
        """Bring a request's changes home, database first.

        :raises GrantRefused: a sign-in or change of rights, and the database does not answer. Nothing was changed.
        """
        if plan.is_new and plan.target and plan.target.kind == SIGNED_IN:
            try:
                return self._sign_in(plan, scope)
            finally:
                if plan.ends and plan.origin:
                    # The sign-out that came first holds, whatever becomes of the sign-in, and under any id.
                    self.revoke(plan.origin.digest, scope)
        is_carried = self._carry(plan, scope)
        durable = True
        if plan.ends and plan.origin:
            place = self._revoke(plan.origin.digest, scope, keeps_data=bool(plan.carries))
            plan.note_kept([AUTH], place)
            durable = place is Kept.DATABASE
        if not plan.target or not (plan.changes or plan.carries):
            return Saved(stored=False, durable=durable)
        row = self._save_auth(plan, scope) if plan.target.kind == SIGNED_IN else None
        names = tuple(plan.changes)
        stored = self._save_categories(plan, plan.target, scope, row) or is_carried
        if stored:
            self._count_save(plan, plan.target, names)
        if plan.leaves and plan.origin:
            self._leave(plan.origin, scope, plan.life, is_carried=bool(plan.carries))
        has_ended = plan.target.kind == SIGNED_IN and self.local.is_dead(plan.target.digest)
        return Saved(stored, durable, ended=has_ended)

    def _sign_in(self, plan: Plan, scope: RequestScope) -> Saved:
        target, origin = plan.target, plan.origin
        assert target is not None
        auth = plan.changes.pop(AUTH, None)
        payload = dict(auth.sets) if auth else {}
        old = origin.digest if origin and origin.kind == SIGNED_IN else None
        began = self._clock()
        try:
            row = self._new_row(plan, target.digest, payload, old, scope)
        except StoreError:
            raise self.refused() from None
        if row is None or row.state is not RowState.VALID:
            return self._came_too_late(plan, old, scope)
        self.local.put_auth(row, began)
        plan.note_kept([AUTH], Kept.DATABASE)
        self._carry(plan, scope)
        if old:
            self._settle_revoked(old, 0, scope, in_database=True, keeps_data=bool(plan.carries))
            self.recorder.count("sessions_ended", by=int(not plan.renames))
        elif origin:
            self.no_longer_in_use(origin.digest)  # its data is left to run out
        self._count_save(plan, target)
        self._save_categories(plan, target, scope, row)
        return Saved(stored=True)

    def _new_row(
        self, plan: Plan, digest: str, payload: Fields, old: str | None, scope: RequestScope
    ) -> AuthRow | None:
        """The row of a minted id; the one before ends in the same transaction.

        :return: None: this was a change of id, and the session has ended meanwhile.
        :raises StoreError: the database did not answer.
        """
        if plan.renames:
            change = difference(plan.renames.payload, payload)
            return self._compete(
                plan.renames,
                lambda row: self._renamed(row, digest, apply_change(row.payload, change), plan, scope),
                scope,
            )
        life = plan.life

        def create(timeout: float) -> AuthRow:
            return self.database.create(
                digest,
                user_id=self._user_of(payload),
                payload=payload,
                idle_ms=life.idle_ms,
                absolute_ms=life.absolute_ms,
                kill=old,
                timeout=timeout,
            )

        return self._write_row(scope, "sign_in", create)

    def _renamed(self, row: AuthRow, digest: str, payload: Fields, plan: Plan, scope: RequestScope) -> AuthRow | None:
        return self._write_row(
            scope,
            "sign_in",
            lambda timeout: self.database.regenerate(
                row.digest,
                successor=digest,
                seen=row.version,
                payload=payload,
                idle_ms=plan.life.idle_ms,
                absolute_ms=plan.life.absolute_ms if plan.permanence_changed else None,
                timeout=timeout,
            ),
        )

    def _write_row(self, scope: RequestScope, operation: str, write: Callable[[float], T]) -> T:
        """:raises StoreError: the database did not answer."""
        if not scope.can(DATABASE, WRITE):
            raise scope.gave_up(DATABASE, "BreakerOpen")
        return scope.ask(DATABASE, WRITE, operation, self.settings.database_timeout, write)

    def _came_too_late(self, plan: Plan, old: str | None, scope: RequestScope) -> Saved:
        """The session ended while this request was about to give it another id, or to sign its user in.

        :raises GrantRefused: it was a sign-in: the user was logged out everywhere at this moment.
        """
        if not plan.renames:
            raise self.refused()
        if old:
            self._settle_revoked(old, 0, scope, in_database=True)
        return Saved(stored=False, ended=True)

    def adopt(self, plan: Plan, note: Note, scope: RequestScope) -> Saved:
        """Store a session that was taken over from elsewhere. Of several requests that do so at once, each with the
        same target, one makes the row, and none undoes what another one has changed since.

        :param plan: of a new session, as :meth:`save` gets it.
        :param note: by which a signed-in one is known to be taken over already.
        :return: `ended`: it was taken over before, and may go on; or it is over.
        :raises StoreError: the database did not answer.
        """
        target, row = plan.target, None
        assert target is not None
        if self.local.is_dead(target.digest):
            return Saved(stored=False, ended=True)
        auth = plan.changes.pop(AUTH, None) if target.kind == SIGNED_IN else None
        names = tuple(plan.changes)
        # Before the row: where there is one, another request may read what belongs to it.
        is_laid = self._lay_beneath(plan, target, scope)
        if target.kind == SIGNED_IN:
            began = self._clock()
            row = self._adopted_row(target.digest, auth.sets if auth else {}, plan.life, note, scope)
            if row is None:
                return Saved(stored=False, ended=True)
            self.local.put_auth(row, began)
        stored = self._save_categories(plan, target, scope, row) or is_laid or row is not None
        if stored:
            self._count_save(plan, target, names)
        return Saved(stored)

    def _adopted_row(self, digest: str, payload: Fields, life: Life, note: Note, scope: RequestScope) -> AuthRow | None:
        user_id = self._user_of(payload)
        if user_id is not None and user_id in self._journal_writer.overlay(digest, scope).users:
            return None  # this host has logged the user out everywhere, and the database has yet to hear of it
        return self._write_row(
            scope,
            "sign_in",
            lambda timeout: self.database.adopt(
                digest,
                note=note.digest,
                note_ms=note.life_ms,
                user_id=user_id,
                payload=payload,
                idle_ms=life.idle_ms,
                absolute_ms=life.absolute_ms,
                timeout=timeout,
            ),
        )

    def _lay_beneath(self, plan: Plan, target: SessionId, scope: RequestScope) -> bool:
        """Give Redis data as if it had been there before; what was written since stays. Whether it has it."""
        scope = scope.to(target.digest)
        self._give_life(plan.changes, target.kind, plan.life)
        guard, as_of = "new" if target.kind == SIGNED_IN else "free", self._now_us(target.digest) - _BEFORE_US
        copies = [
            Restore(target.digest, name, CategoryCopy(as_of, change.sets), guard, change.life_ms, is_partial=True)
            for name, change in plan.changes.items()
        ]
        if not copies:
            return False
        done = self._to_primary(
            scope,
            "save",
            lambda timeout: self.primary.merge_all(
                copies, limits=self.limits, timeout=timeout, write_id=new_write_id()
            ),
        )
        if done is None or not all(isinstance(reply, Merged) and reply.status == "merged" for reply in done):
            return False
        self._count_payload(plan.changes)
        plan.changes.clear()
        return True

    def never_adopt(self, note: Note, scope: RequestScope) -> None:
        """An old session is over: have the database know it, if it answers."""
        scope.attempt(
            DATABASE,
            WRITE,
            "revoke",
            self.settings.database_timeout,
            lambda timeout: self.database.note_adopted(note.digest, note.life_ms, timeout),
        )

    def refused(self) -> GrantRefused:
        """The answer to a grant that nobody can decide about, counted."""
        self.recorder.count("grants_refused")
        self.emit(events.grant_refused, events.GrantWasRefused())
        return self.make_refusal()

    def _save_auth(self, plan: Plan, scope: RequestScope) -> AuthRow | None:
        """Update the SQL row of a session that lives. Returns the new row; None: there is nothing to push."""
        if plan.is_for_shadow:
            return None  # the auth keys of an anonymous shadow are plain data
        change = plan.changes.pop(AUTH, None)
        row = plan.loaded.row if plan.loaded else None
        if change is None or row is None:
            return None  # without a row there is nobody to write this for: an unverifiable session keeps what it has
        waits = self._journal_writer.has_writes(row.digest, [AUTH])
        if waits and not plan.grants:
            # What waits for the database goes first; rights never wait.
            self._journal_writer.keep(plan, {AUTH: change}, scope.level, self._now_us(row.digest))
            return None
        is_confirmed = plan.loaded is not None and plan.loaded.sources.get(AUTH) == DATABASE
        began, number = self._clock(), None

        def write(row: AuthRow) -> AuthRow | None:
            nonlocal number
            number = self._journal_writer.row_changing(row.digest)
            return self._compare_and_set(row, apply_change(row.payload, change), plan, scope)

        try:
            updated = self._compete(row, write, scope, is_confirmed=is_confirmed)
        except StoreError:
            if plan.grants:
                raise self.refused() from None
            self._journal_writer.keep(plan, {AUTH: change}, scope.level, self._now_us(row.digest), scope=scope)
            plan.permanence_changed = False  # the row lives as long as before, and so does its cookie
            return None
        if updated is None or updated.state is not RowState.VALID:
            self._settle_revoked(row.digest, row.version, scope, in_database=True)
            return None
        self._journal_writer.row_changed(row.digest, number)
        self.local.put_auth(updated, began, change=number)
        plan.note_kept([AUTH], Kept.DATABASE)
        if waits and (ordinary := self._without_rights(change)):
            # In the place of what waits, which would else undo it.
            self._journal_writer.keep(plan, {AUTH: ordinary}, scope.level, self._now_us(row.digest))
        return updated

    def _without_rights(self, change: CategoryChange) -> CategoryChange:
        rest = CategoryChange(change.life_ms, seen=change.seen)
        for key, value in change.writes.items():
            if key not in self.settings.user_keys and key not in self.settings.privilege_key_patterns:
                rest.put(key, value)
        return rest

    def _compete(
        self,
        row: AuthRow,
        write: Callable[[AuthRow], AuthRow | None],
        scope: RequestScope,
        *,
        is_confirmed: bool = False,
    ) -> AuthRow | None:
        """Compare-and-set; who lost reloads and merges its own keys. None: the session is dead.

        :param write: writes the row that follows from one; None: that one is not the present one.
        :param is_confirmed: the database said the row in this request. What Redis tells of it is believed for a while,
            but nothing that lasts is made of it.
        :raises StoreError: the database did not answer, or others were faster every time.
        """
        if not scope.can(DATABASE, WRITE):  # nor is there a reason to read
            raise scope.gave_up(DATABASE, "BreakerOpen")
        current: AuthRow | None = row if is_confirmed else self._present(row, scope)
        for _ in range(_UPDATE_TRIES):
            if current is None or current.state is not RowState.VALID:
                return None
            updated = write(current)
            if updated is not None:
                return updated
            current = self._present(current, scope)
        raise scope.gave_up(DATABASE, "TooManyConflicts")

    def _present(self, row: AuthRow, scope: RequestScope) -> AuthRow | None:
        """What the database says of a row now, with the later of the idle expiries."""
        current = self._reload(row.digest, scope)
        if current is not None and current.state is RowState.IDLE_EXPIRED:
            current = self._reload_in_use(current, row.idle_expires_at, scope)
        return current

    def _reload(self, digest: str, scope: RequestScope, idle_seen: int | None = None) -> AuthRow | None:
        if not scope.can(DATABASE, READ):
            raise scope.gave_up(DATABASE, "BreakerOpen")
        return scope.ask(
            DATABASE,
            READ,
            "verify",
            self.settings.database_timeout,
            lambda timeout: self.database.load(digest, idle_ms=0, idle_seen=idle_seen, timeout=timeout),
        )

    def _reload_in_use(self, current: AuthRow, idle_seen: int, scope: RequestScope) -> AuthRow | None:
        """A row that is behind: the lease that this request was given knew of a later use.

        :raises StoreError: that has run out meanwhile; nobody is ended for being idle on this request's word.
        """
        if idle_seen <= current.read_at:
            raise scope.gave_up(DATABASE, "IdleExpired")
        return self._reload(current.digest, scope, idle_seen)

    def _compare_and_set(self, row: AuthRow, payload: Fields, plan: Plan, scope: RequestScope) -> AuthRow | None:
        return self._write_row(
            scope,
            "save",
            lambda timeout: self.database.update(
                row.digest,
                seen=row.version,
                payload=payload,
                user_id=self._user_of(payload, row.user_id),
                idle_ms=plan.life.idle_ms,
                absolute_ms=plan.life.absolute_ms if plan.permanence_changed else None,
                timeout=timeout,
            ),
        )

    def _save_categories(self, plan: Plan, target: SessionId, scope: RequestScope, row: AuthRow | None) -> bool:
        """Write to Redis what changed, the auth record first; else to the journal what the table keeps.

        What was written earlier and waits in the journal comes first: then the change waits behind it, and so does one
        that was made without knowing what Redis has.
        """
        scope = scope.to(target.digest)
        changes = {name: change for name, change in plan.changes.items() if change}
        if not changes and row is None:
            return False
        if plan.is_for_shadow:
            return self._write_shadow(plan, target, scope, changes)
        self._give_life(changes, target.kind, plan.life)
        waits = self._must_wait(target.digest, changes, scope)
        sent = self._write_guarded(plan, target, scope, {} if waits else changes, row)
        if sent.written is None:
            return self._keep_for_later(plan, target, scope, changes, row, sent)
        if sent.written.status == "dead":
            self.local.kill(target.digest)
            return not plan.is_new and self._write_shadow(plan, target, scope, changes)
        if waits:
            return self._keep_for_later(plan, target, scope, changes, None, sent) or row is not None
        return self._was_written(plan, target, changes, sent.written, scope)

    def _must_wait(
        self, digest: str, changes: Mapping[str, CategoryChange], scope: RequestScope, *, shadow: bool = False
    ) -> bool:
        is_unseen = any(change.unseen for change in changes.values())
        return is_unseen or self._journal_writer.has_writes(digest, changes, scope, shadow=shadow)

    def _write_guarded(
        self,
        plan: Plan,
        target: SessionId,
        scope: RequestScope,
        changes: dict[str, CategoryChange],
        row: AuthRow | None,
    ) -> _Sent:
        if not changes and row is None:
            return _Sent(Written("written"))
        guard = "free" if target.kind != SIGNED_IN else "new" if plan.is_new else "alive"
        stamp = self._stamp_of(row, plan.loaded)
        # A session that is not permanent any more is to live shorter than Redis remembers.
        sent = self._write(target.digest, changes, guard, scope, row, stamp, plan.life, exact=plan.permanence_changed)
        if sent.written and sent.written.status == "gone":
            # Redis lost a session that SQL may still know: push it again and try once more.
            found = self._ask_arbiter(target.digest, scope, plan.life)
            if found is not None and found.shadow:
                return _Sent(Written("dead"))
            if found is None or found.row is None:
                return _Sent(None)  # that it is dead is not known either
            for _ in range(2):  # a server that was restarted may have to learn the push first
                sent = self._write(target.digest, changes, guard, scope, found.row, 0, plan.life)
                if sent.written is None or sent.written.status != "gone":
                    return sent
            return _Sent(None)
        return sent

    def _stamp_of(self, row: AuthRow | None, loaded: Loaded | None) -> int:
        """The Redis clock before the database said what is to be pushed; 0: unknown, and it is asked again."""
        known_ms = loaded.now_ms if loaded else 0
        held = self.local.auth(row.digest) if row and not known_ms else None
        return self.primary.estimated_ms(held.row.digest, held.confirmed_at) if held else known_ms

    def _write(
        self,
        digest: str,
        changes: dict[str, CategoryChange],
        guard: str,
        scope: RequestScope,
        row: AuthRow | None,
        stamp: int,
        life: Life,
        exact: bool = False,
    ) -> _Sent:
        return self._send(
            digest,
            scope,
            lambda timeout, write_id: self.primary.write(
                digest,
                changes,
                guard=guard,
                limits=self.limits,
                timeout=timeout,
                write_id=write_id,
                push=(row, stamp) if row else None,
                push_life_ms=life.left_of(row) if row else 0,
                push_exact=exact,
            ),
        )

    def _send(self, digest: str, scope: RequestScope, write: Callable[[float, str], Written]) -> _Sent:
        """Send a write to the primary."""
        if not scope.can(PRIMARY, WRITE):
            return _Sent(None)
        write_id, began = new_write_id(), self._clock()
        try:
            written = scope.ask(
                PRIMARY, WRITE, "save", self.settings.redis_timeout, lambda timeout: write(timeout, write_id)
            )
        except StoreError as error:
            if not error.sent:
                return _Sent(None)
            return _Sent(None, write_id, max(1, self.primary.estimated_ms(digest, began) * 1000))
        return _Sent(None if written.status == "late" else written)

    def _now_us(self, digest: str) -> int:
        """The clock of the Redis that has a session, microseconds since 1970, or a little later: what this worker wrote
        there before is not taken for what was written since."""
        return (self.primary.estimated_ms(digest, self._clock(), latest=True) or self._now_ms()) * 1000

    def _ask_arbiter(self, digest: str, scope: RequestScope, life: Life) -> Loaded | None:
        """What the database says of a session; None: it did not answer."""
        if not scope.can(DATABASE, READ):
            return None
        try:
            # Redis has just said that it has nothing: it knows of no later use.
            return self._verifier.ask_database(digest, scope, life, stamp_ms=0, idle_seen=0, alone=True)
        except StoreError:
            return None

    def _write_shadow(
        self, plan: Plan, target: SessionId, scope: RequestScope, changes: dict[str, CategoryChange]
    ) -> bool:
        """The session is dead: what its late requests write is the anonymous shadow of its id, without auth."""
        self._give_life(changes, ANONYMOUS, plan.life)
        sent = _Sent(None)
        if not self._must_wait(target.digest, changes, scope, shadow=True):
            sent = self._send(
                target.digest,
                scope,
                lambda timeout, write_id: self.primary.write(
                    target.digest,
                    changes,
                    guard="free",
                    limits=self.limits,
                    timeout=timeout,
                    write_id=write_id,
                    shadow=True,
                ),
            )
        if sent.written is None:
            now_us = self._now_us(target.digest)
            return self._journal_writer.keep(
                plan, changes, scope.level, now_us, shadow=True, doubt=sent.doubt, sent_us=sent.sent_us, scope=scope
            )
        return self._was_written(plan, target, changes, sent.written, scope, shadow=True)

    def _give_life(self, changes: Mapping[str, CategoryChange], kind: str, life: Life) -> None:
        for name, change in changes.items():
            change.life_ms = self.life_of(name, kind, life)

    def _keep_for_later(
        self,
        plan: Plan,
        target: SessionId,
        scope: RequestScope,
        changes: Mapping[str, CategoryChange],
        row: AuthRow | None,
        sent: _Sent,
    ) -> bool:
        """Redis did not take it, or not yet. Returns whether anything outlives the request all the same."""
        if row:
            self._journal_writer.queue_push(row.digest, row.version, scope=scope)
        fitting = {name: change for name, change in changes.items() if self._fits(plan, name, change)}
        now_us = self._now_us(target.digest)
        kept = self._journal_writer.keep(
            plan, fitting, scope.level, now_us, doubt=sent.doubt, sent_us=sent.sent_us, scope=scope
        )
        self.recorder.count("fallback_journal", by=int(kept))
        return kept or row is not None

    def _fits(self, plan: Plan, name: str, change: CategoryChange) -> bool:
        """Whether a category is within its limits after a change, as far as is known here; else that is said, and the
        change is not kept."""
        if plan.loaded is None or plan.is_new:
            return True
        after = apply_change(plan.loaded.fields.get(name, NO_FIELDS), change)
        size = sum(len(key.encode()) + len(value) for key, value in after.items())
        if not change.sets or (size <= self.limits.bytes and len(after) <= self.limits.fields):
            return True
        self.reject(name, max(change.sets, key=lambda key: len(change.sets[key])), f"category {name!r}: large")
        return False

    def _was_written(
        self,
        plan: Plan,
        target: SessionId,
        changes: Mapping[str, CategoryChange],
        written: Written,
        scope: RequestScope,
        *,
        shadow: bool = False,
    ) -> bool:
        if written.status != "written":
            return self._write_the_rest(plan, target, changes, written, scope, shadow)
        self._count_payload(changes)
        plan.note_kept(changes, Kept.REDIS)
        if not shadow:
            self._fallback.remember_write(target.digest, plan.loaded, changes, written.versions, target.kind)
            self._journal_writer.written(target.digest, changes, scope)
        return True

    def _write_the_rest(
        self,
        plan: Plan,
        target: SessionId,
        changes: Mapping[str, CategoryChange],
        refused: Written,
        scope: RequestScope,
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
            return self._write_shadow(plan, target, scope, rest)
        plan.changes = rest
        return self._save_categories(plan, target, scope, None)

    def _to_primary(self, scope: RequestScope, operation: str, call: Callable[[float], T]) -> T | None:
        return scope.attempt(PRIMARY, WRITE, operation, self.settings.redis_timeout, call)

    def _carry(self, plan: Plan, scope: RequestScope) -> bool:
        """Have the journal bring what the plan says to the target. Whether it will."""
        if not (plan.carries and plan.origin):
            return False
        return self._journal_writer.carry(plan, self._now_us(plan.origin.digest), scope)

    def _leave(self, origin: SessionId, scope: RequestScope, life: Life, *, is_carried: bool) -> None:
        """Wipe the data of an anonymous session that was given another id.

        :param is_carried: the replay does so, when it has brought the data to the other id.
        """
        if not is_carried:
            changes = {name: CategoryChange(0, wipe=True) for name in self.table.categories}
            self._save_categories(Plan(origin, origin, life, changes=changes), origin, scope, None)
        self.no_longer_in_use(origin.digest)

    # -- revoking --------------------------------------------------------------------------------------------------

    def revoke(self, digest: str, scope: RequestScope) -> bool:
        """End a signed-in session for ever: database, Redis, this worker; what does not answer hears it later.

        :return: whether the database knows it already.
        """
        return self._revoke(digest, scope) is Kept.DATABASE

    def _revoke(self, digest: str, scope: RequestScope, *, keeps_data: bool = False) -> Kept:
        self.recorder.count("sessions_ended", by=int(not self.local.is_dead(digest)))
        self.local.kill(digest)
        dead = self._revoke_in_database(digest, scope)
        in_database, places = dead is not None, []
        for name, version in dead or [(digest, 0)]:
            places.append(self._settle_revoked(name, version, scope, in_database=in_database, keeps_data=keeps_data))
            self.emit(events.session_revoked, events.SessionRevoked(events.short(name), in_database))
        return places[0]

    def _revoke_in_database(self, digest: str, scope: RequestScope) -> list[tuple[str, int]] | None:
        """Digest and version of what is dead now; None: the database does not answer."""
        return scope.attempt(
            DATABASE,
            WRITE,
            "revoke",
            self.settings.database_timeout,
            lambda timeout: self.database.revoke(digest, timeout=timeout),
        )

    def _settle_revoked(
        self, digest: str, version: int, scope: RequestScope, *, in_database: bool, keeps_data: bool = False
    ) -> Kept:
        """Have the stores and this host hear that a session is dead.

        :param keeps_data: what it had is still to be brought to another id; it goes after that.
        """
        self.local.kill(digest)
        self.row_changed(digest)
        self.no_longer_in_use(digest)
        names = (AUTH,) if keeps_data else tuple(self.table.categories)
        in_redis = self._verifier.write_tombstone(digest, max(version, int(in_database)), scope, names)
        is_gone = in_redis and not keeps_data
        waits = not (in_database and is_gone) and self._journal_writer.revoke(
            digest, in_database=in_database, in_redis=is_gone, scope=scope
        )
        if in_database:
            return Kept.DATABASE
        return Kept.JOURNAL if waits else Kept.REDIS if in_redis else Kept.NOWHERE

    def sessions_of(self, user_id: str, scope: RequestScope) -> list[AuthRow]:
        """The valid sessions of a user, without those that this host knows to be dead.

        :raises StoreError: the database does not answer.
        """
        if not scope.can(DATABASE, READ):
            raise scope.gave_up(DATABASE, "BreakerOpen")
        rows = scope.ask(
            DATABASE,
            READ,
            "list",
            self.settings.database_timeout,
            lambda timeout: self.database.sessions_of(user_id, timeout=timeout),
        )
        return [row for row in rows if row.state is RowState.VALID and not self._is_known_dead(row)]

    def _is_known_dead(self, row: AuthRow) -> bool:
        overlay = self._journal_writer.overlay(row.digest)
        is_out = row.user_id is not None and row.created_at <= overlay.users.get(row.user_id, -1)
        return overlay.revoked or is_out or self.local.is_dead(row.digest) or self.local.is_signed_out(row)

    def revoke_user(self, user_id: str, scope: RequestScope) -> Revoked:
        """End all sessions of a user, those being created just now too.

        It holds when the user's epoch is raised, however many rows there are. What follows for each of them is done
        for as many as a request has time for, else by the reconciler, from the journal. With the database down this
        host holds it against every session that began until now, and tells the database as soon as it answers.
        """
        epoch = scope.attempt(
            DATABASE,
            WRITE,
            "revoke",
            self.settings.database_timeout,
            lambda timeout: self.database.kill_user(user_id, timeout=timeout),
        )
        if epoch is None:
            return self._revoke_user_later(user_id, scope)

        def end_some(timeout: float) -> list[str]:
            try:
                return self.database.kill_user_until(user_id, 0, timeout, epoch=epoch, limit=_MOST_SETTLED)
            except StoreError as error:
                # It has heard what matters. That many rows take too long must not open its breaker.
                raise scope.gave_up(DATABASE, error.cause) from None

        digests = scope.attempt(DATABASE, WRITE, "revoke", self.settings.database_timeout, end_some)
        in_redis = self._settle_all(digests or [], scope, in_database=True)
        self.local.sign_out_user(user_id, 0, epoch)
        if not in_redis or digests is None or len(digests) >= _MOST_SETTLED:
            self._journal_writer.revoke_user(user_id, epoch=epoch, scope=scope)
        return Revoked(durable=True, sessions=len(digests or []))

    def _revoke_user_later(self, user_id: str, scope: RequestScope) -> Revoked:
        until_ms = self._now_ms()
        # The journal first: from then on every worker of the host knows.
        self._journal_writer.revoke_user(user_id, until_ms, scope=scope)
        digests = self.local.sign_out_user(user_id, until_ms)
        self.recorder.count("sessions_ended", by=len(digests))
        self._settle_all(digests, scope, in_database=False)
        return Revoked(durable=False, sessions=len(digests))

    def _settle_all(self, digests: Sequence[str], scope: RequestScope, *, in_database: bool) -> bool:
        """Of a user who was logged out everywhere. The dead too: what Redis or a copy says of them may be older.

        :return: whether Redis has them.
        """
        self.recorder.count("sessions_ended", by=sum(not self.local.is_dead(digest) for digest in digests))
        for digest in digests:
            self.local.kill(digest)
            self.row_changed(digest)
            self.no_longer_in_use(digest)
        buried = [self._write_tombstones(group, scope, in_database) for group in self._by_shard(digests)]
        in_redis = all(buried)
        if digests and not in_database:
            self._journal_writer.revoke(*digests, in_redis=in_redis, in_database=False, scope=scope)
        for digest in digests:
            self.emit(events.session_revoked, events.SessionRevoked(events.short(digest), in_database))
        return in_redis

    def _by_shard(self, digests: Iterable[str]) -> Iterable[Sequence[str]]:
        groups: dict[str, list[str]] = {}
        for digest in digests:
            groups.setdefault(self.health.locate(digest), []).append(digest)
        return groups.values()

    def _write_tombstones(self, digests: Sequence[str], scope: RequestScope, in_database: bool) -> bool:
        """Sessions of one shard. Whether it has the tombstones."""
        names = tuple(self.table.categories)

        def write_tombstone(timeout: float) -> bool:
            dead = [(digest, int(in_database)) for digest in digests]
            self.primary.settle([], dead, names, stamp_ms=0, timeout=timeout)
            return True

        return bool(self._to_primary(scope.to(digests[0]), "write_tombstone", write_tombstone))

    # -- reporting -------------------------------------------------------------------------------------------------

    def _count_load(self, loaded: Loaded, scope: RequestScope, life: Life) -> None:
        """What stood in for the primary, and which signed-in session is in use."""
        if scope.level:
            for source in {*loaded.sources.values(), *loaded.exceptions.values()} - {PRIMARY, "none"}:
                self.recorder.count(f"fallback_{source}")
        row = loaded.row
        if self._in_use is None or row is None:
            return
        # Leases are shared, so all workers together ask the database about a session once in a while.
        is_due = life.is_slide_due(row, row.read_at)  # still: the database could not note this use, but Redis did
        if is_due or loaded.sources[AUTH] == DATABASE:
            ends = row.read_at + life.idle_ms if is_due else row.idle_expires_at
            self._in_use.served(row.digest, min(ends, row.absolute_expires_at) - row.read_at)

    def _count_save(self, plan: Plan, target: SessionId, names: Iterable[str] = ()) -> None:
        """A session that began or has another id now, or an anonymous one whose data lives longer for it: it is in use.

        :param names: the categories that were saved.
        """
        if plan.is_new:
            keeps_on = plan.renames or (target.kind != SIGNED_IN and plan.origin and not plan.ends)
            self.recorder.count("sessions_regenerated" if keeps_on else "sessions_created")
        is_signed_in = target.kind == SIGNED_IN
        if self._in_use is None or plan.is_for_shadow or (is_signed_in and not plan.is_new):
            return
        lives = [self.life_of(name, target.kind, plan.life) for name in names or plan.carries]
        self._in_use.served(target.digest, plan.life.idle_ms if is_signed_in else max(lives))

    def _count_payload(self, changes: Mapping[str, CategoryChange]) -> None:
        for name, change in changes.items():
            if change.sets:
                self.recorder.measure("payload", name, sum(map(len, change.sets)) + sum(map(len, change.sets.values())))

    def no_longer_in_use(self, digest: str) -> None:
        """Have a session that is over counted no more."""
        if self._in_use is not None:
            self._in_use.ended(digest)

    def reject(self, category: str, key: str | None, reason: str) -> None:
        """Report a change that could not be stored at save time, when no view is there to be told any more."""
        what = f"session key {key!r}" if key else f"session data of category {category!r}"
        log.error("%s was not stored (%s); the old data is kept", what, reason)
        self.recorder.count("values_rejected")
        self.emit(events.value_rejected, events.ValueRejected(category, key, reason))

    def row_changed(self, digest: str) -> None:
        """Have no worker of this host believe what it was told of this session before."""
        self._journal_writer.row_changed(digest)

    def note_wipe(self, digest: str, category: str, version: int) -> None:
        """Have no worker of this host give Redis back what a category had before."""
        self._fallback.note_wipe(digest, category, version)

    def was_wiped(self, copy: SharedCopy) -> bool:
        """Whether a worker of this host has wiped a category since a copy of it was made."""
        return self._fallback.is_wiped_since(copy)

    def publish_copies(self, shards: Container[str]) -> None:
        """Put this worker's live local copies of sessions on these shards where the host's other workers read them."""
        copies = self.local.live_categories()
        self._journal_writer.publish([copy for copy in copies if self.health.locate(copy.digest) in shards])

    def _user_of(self, payload: Fields, known: str | None = None) -> str | None:
        """The user a payload belongs to: whom the first of USER_KEYS names that names one, as text.

        :param known: whom the row belongs to; one value that is damaged, or names none, does not take it from them.
        """
        for key in self.settings.user_keys:
            try:
                user = user_of(decode(payload[key])) if key in payload else None
            except UnreadableValue:
                return known
            if user is not None:
                return user
        return known
