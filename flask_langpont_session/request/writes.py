"""Saving a session: the database first, then Redis, then the journal. Rights that the database does not take are
refused.

:class:`Saves` is asked; :class:`RowWrites` writes the rows of signed-in sessions, :class:`CategoryWrites` all data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import events
from ..config.settings import Settings
from ..events import EndedBy
from ..exceptions import GrantRefused, SessionLimitReached, UnreadableValue
from ..policy.categories import AUTH, AUTHENTICATED_AT
from ..policy.changes import CategoryChange, Fields, apply_change, difference
from ..policy.copies import CategoryCopy, RecordRef
from ..policy.errors import ErrorClass, StoreError
from ..policy.health import DATABASE, PRIMARY, READ, WRITE
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from ..policy.leases import Life, begins_to_live_shorter
from ..policy.levels import Kept
from ..policy.loaded import Loaded
from ..policy.plans import Note, Plan, Saved
from ..policy.rows import AuthRow, Created, EndedSession, Limit, RowState
from ..policy.serializer import decode
from ..policy.users import is_only_remembered, noted, user_of
from ..stores.redis.commands import new_write_id
from ..stores.redis.records import Merged, Restore, Written
from ..support.logs import fields
from .journal_writer import RedisTime
from .plain_changes import Sent
from .revocations import Part
from .scope import LOOK_FOR_LOSS, REVOKE, SAVE, SAVE_ROW, SIGN_IN, TAKE_DISPLACED, VERIFY, RequestScope

if TYPE_CHECKING:
    from .repository import SessionRepository

log = logging.getLogger(__name__)

_BEFORE_US = 3_600_000_000
"""Microseconds: the data of an old session counts as that much older than the request that takes it over, so that
nothing which any request writes meanwhile is undone by it."""


class Saves(Part):
    """Brings a request's changes to the stores.

    :ivar row_writes: writes the rows of signed-in sessions.
    """

    def __init__(self, repository: SessionRepository, categories: CategoryWrites, row_writes: RowWrites) -> None:
        super().__init__(repository)
        self.row_writes = row_writes
        self._categories = categories
        self._revocations = repository.revocations

    def save(self, plan: Plan, scope: RequestScope) -> Saved:
        """Store a request's changes, the database first.

        :raises GrantRefused: a sign-in or change of rights, and the database does not answer. Nothing was changed.
        :raises SessionLimitReached: a sign-in of a user that may have no more sessions. Nothing was changed.
        """
        if plan.is_new and plan.target and plan.target.kind == SIGNED_IN:
            try:
                return self._sign_in(plan, scope)
            finally:
                if plan.ends and plan.origin:
                    # The sign-out that came first holds, whatever becomes of the sign-in, and under any id.
                    self._revocations.revoke(plan.origin.digest, scope, EndedBy.USER)
        is_carried = self._categories.carry(plan, scope)
        durable = True
        if plan.ends and plan.origin:
            place = self._revocations.end([plan.origin.digest], scope, EndedBy.USER, keeps_data=bool(plan.carries))
            plan.note_kept([AUTH], place)
            durable = place is Kept.DATABASE
        if not plan.target or not (plan.changes or plan.carries):
            return Saved(stored=False, durable=durable)
        row = self._save_auth(plan, scope) if plan.target.kind == SIGNED_IN else None
        names = tuple(plan.changes)
        stored = self._categories.save(plan, plan.target, scope, row) or is_carried
        if stored:
            self._count_save(plan, plan.target, names)
            if plan.leaves and plan.origin:
                self._categories.leave(plan.origin, scope, plan.life, carried=plan.carries if is_carried else ())
        has_ended = plan.target.kind == SIGNED_IN and self._ended.is_dead(plan.target.digest)
        return Saved(stored, durable, ended=has_ended, row=row)

    def _sign_in(self, plan: Plan, scope: RequestScope) -> Saved:
        target, origin = plan.target, plan.origin
        assert target is not None
        auth = plan.changes.pop(AUTH, None)
        payload = dict(auth.sets) if auth else {}
        old = origin.digest if origin and origin.kind == SIGNED_IN else None
        began = self._clock()
        try:
            created = self.row_writes.new_row(plan, target.digest, payload, old, scope)
        except StoreError as error:
            raise self.row_writes.refused(error) from None
        if created is None or created.row.state is not RowState.VALID:
            return self._came_too_late(plan, old, scope)
        row = created.row
        self._memory.put_auth(row, began)
        plan.note_kept([AUTH], Kept.DATABASE)
        self._categories.carry(plan, scope)
        if old:
            self._revocations.make_known({old: 0}, scope, in_database=True, keeps_data=bool(plan.carries))
        elif origin:
            self._reports.no_longer_in_use(origin.digest)  # its data is left to run out
        self._tell(plan, target.digest, old, created.ended)
        self._count_save(plan, target)
        self._categories.save(plan, target, scope, row)
        if created.ended:
            self._revocations.displaced([each.digest for each in created.ended if each.digest != old], scope)
        return Saved(stored=True, row=row)

    def _tell(self, plan: Plan, digest: str, old: str | None, ended: Sequence[EndedSession]) -> None:
        """Tell the stores and this worker of a new row.

        :param old: digest of the signed-in session that it takes the place of.
        :param ended: what ended in its transaction.
        """
        emit, name, before = self._reports.emit, events.short(digest), events.short(old or "")
        if plan.renames:
            emit(events.id_changed, events.IdChanged(name, before, plan.confirms))
            if plan.confirms:
                emit(events.confirmed, events.Confirmed(name))
            return
        if ended:
            replaced = [each.digest for each in ended if each.digest == old and each.lived]
            self._reports.signed_out(replaced, EndedBy.USER, in_database=True)
        emit(events.signed_in, events.SignedIn(name))

    def _came_too_late(self, plan: Plan, old: str | None, scope: RequestScope) -> Saved:
        """Return the outcome for a session that ended before it had another id, or its user was signed in.

        :raises GrantRefused: it was a sign-in: the user was logged out everywhere at this moment.
        """
        if not plan.renames:
            raise self.row_writes.refused()
        if old:
            self._revocations.make_known({old: 0}, scope, in_database=True)
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
        if self._ended.is_dead(target.digest):
            return Saved(stored=False, ended=True)
        auth = plan.changes.pop(AUTH, None) if target.kind == SIGNED_IN else None
        names = tuple(plan.changes)
        # Before the row: where there is one, another request may read what belongs to it.
        is_laid = self._categories.lay_beneath(plan, target, scope)
        if target.kind == SIGNED_IN:
            began = self._clock()
            row = self.row_writes.adopted_row(plan, target.digest, auth.sets if auth else {}, note, scope)
            if row is None:
                return Saved(stored=False, ended=True)
            self._memory.put_auth(row, began)
            self._reports.emit(events.signed_in, events.SignedIn(events.short(target.digest), adopted=True))
        stored = self._categories.save(plan, target, scope, row) or is_laid or row is not None
        if stored:
            self._count_save(plan, target, names)
        return Saved(stored)

    def _save_auth(self, plan: Plan, scope: RequestScope) -> AuthRow | None:
        """Update the SQL row of a session that lives. Return the new row; None: there is nothing to push."""
        if plan.is_for_shadow:
            return None  # the auth keys of an anonymous shadow are plain data
        change = plan.changes.pop(AUTH, None)
        row = plan.loaded.row if plan.loaded else None
        if change is None or row is None:
            return None  # without a row there is no user to write this for: an unverifiable session keeps what it has
        waits = self._journal_writer.has_writes(RecordRef(row.digest, SIGNED_IN), [AUTH], scope)
        if waits and not plan.grants:
            # What waits for the database goes first; rights never wait.
            self._keep(plan, change, row.digest, scope)
            return None
        is_confirmed = plan.loaded is not None and plan.loaded.of(AUTH).source == DATABASE
        began, number = self._clock(), None

        def write(row: AuthRow) -> AuthRow | None:
            nonlocal number
            number = self._backend.row_changing(row.digest)
            return self.row_writes.compare_and_set(row, apply_change(row.payload, change), plan, scope)

        try:
            updated = self.row_writes.compete(row, write, scope, is_confirmed=is_confirmed)
        except StoreError as error:
            if plan.grants:
                raise self.row_writes.refused(error) from None
            self._keep(plan, change, row.digest, scope)
            plan.permanence_changed = False  # the row lives as long as before, and so does its cookie
            return None
        if updated is None or updated.state is not RowState.VALID:
            self._revocations.make_known({row.digest: row.version}, scope, in_database=True)
            return None
        self._backend.row_changed(row.digest, number)
        self._memory.put_auth(updated, began, change=number)
        plan.note_kept([AUTH], Kept.DATABASE)
        if waits and (ordinary := self._without_rights(change)):
            # In the place of what waits, which would else undo it.
            self._keep(plan, ordinary, row.digest, scope)
        return updated

    def _keep(self, plan: Plan, change: CategoryChange, digest: str, scope: RequestScope) -> None:
        """Have the journal keep a change of auth until the database takes it."""
        ref, now = RecordRef(digest, SIGNED_IN), self._categories.now(digest)
        self._journal_writer.keep(plan, ref, {AUTH: change}, now, scope=scope)

    def _without_rights(self, change: CategoryChange) -> CategoryChange:
        rest = CategoryChange(change.life_ms, seen=change.seen)
        for key, value in change.writes.items():
            if not self._settings.is_identity(key):
                rest.put(key, value)
        return rest

    def _count_save(self, plan: Plan, target: SessionId, names: Iterable[str] = ()) -> None:
        """Count a new session or id, and note it as in use; also an anonymous one whose data lives longer.

        :param names: the categories that were saved.
        """
        if plan.is_new:
            keeps_on = plan.renames or (target.kind != SIGNED_IN and plan.origin and not plan.ends)
            self._reports.recorder.count("sessions_regenerated" if keeps_on else "sessions_created")
        is_signed_in = target.kind == SIGNED_IN
        if self._reports.in_use is None or plan.is_for_shadow or (is_signed_in and not plan.is_new):
            return
        lives = [self._backend.life_of(name, target.kind, plan.life) for name in names or plan.carries]
        self._reports.in_use.served(target.digest, plan.life.idle_ms if is_signed_in else max(lives))


class RowWrites(Part):
    """Makes and changes the rows of signed-in sessions.

    :param make_refusal: makes the answer to a grant that the database does not decide about.
    """

    def __init__(self, repository: SessionRepository, make_refusal: Callable[[str], GrantRefused]) -> None:
        super().__init__(repository)
        self._make_refusal = make_refusal

    def new_row(self, plan: Plan, digest: str, payload: Fields, old: str | None, scope: RequestScope) -> Created | None:
        """Write the row of a minted id; the row before ends in the same transaction.

        :return: None: this was a change of id, and the session has ended meanwhile.
        :raises StoreError: the database did not answer.
        :raises SessionLimitReached: the user has as many sessions as is allowed, and none ends for another one.
        :raises GrantRefused: the application did not say how many are allowed.
        """
        if plan.renames:
            change = difference(plan.renames.payload, payload)
            change.deletes.discard(AUTHENTICATED_AT)  # what no view sees is none of what it takes along
            row = self.compete(
                plan.renames,
                lambda row: self._renamed(row, digest, apply_change(row.payload, change), plan, scope),
                scope,
            )
            return None if row is None else Created(row)
        user_id = self._user_of(payload, plan.user)
        if is_only_remembered(payload):
            payload = noted(payload, 0)  # else its beginning would count as soon as it is said to be fresh
        try:
            limit = limit_of(user_id, self._settings)
        except UnknownLimit:
            raise self.refused() from None
        begun = self._begun(plan, payload, user_id)
        create, sign_in = self._database.create, SIGN_IN
        created = scope.require(sign_in, create, digest, kill=old, limit=limit, **begun)
        if created is None:
            raise SessionLimitReached
        return created

    def take_displaced(self, digest: str, scope: RequestScope) -> bool:
        """Return whether a session has ended for a sign-in of its user, or by its user on another device. True only
        once; False also where the database does not answer."""
        return bool(scope.attempt(TAKE_DISPLACED, self._database.devices.take_displaced, digest))

    def was_displaced(self, digest: str, scope: RequestScope) -> bool | None:
        """Return the same as :meth:`.Devices.was_displaced`. None: the database does not answer."""
        return scope.attempt(VERIFY, self._database.devices.was_displaced, digest)

    def _renamed(self, row: AuthRow, digest: str, payload: Fields, plan: Plan, scope: RequestScope) -> AuthRow | None:
        if plan.confirms:
            payload = noted(payload, row.read_at)
        return scope.require(
            SIGN_IN,
            self._database.regenerate,
            row.digest,
            successor=digest,
            seen=row.version,
            payload=payload,
            **self._new_life(payload, plan),
        )

    @staticmethod
    def _begun(plan: Plan, payload: Fields, user_id: str | None) -> dict[str, Any]:
        """Return the columns of a session that begins."""
        life = plan.life.of(payload)
        lives = {"idle_ms": life.idle_ms, "absolute_ms": life.absolute_ms}
        return {"user_id": user_id, "payload": payload, "device": plan.device, **lives}

    @staticmethod
    def _new_life(payload: Fields, plan: Plan) -> dict[str, int | None]:
        """Return the idle time of a row that goes on, and its life in all where that is not as it was."""
        life = plan.life.of(payload)
        is_shorter = life is not plan.life
        return {
            "idle_ms": life.idle_ms,
            "absolute_ms": life.absolute_ms if plan.permanence_changed or is_shorter else None,
        }

    def adopted_row(self, plan: Plan, digest: str, payload: Fields, note: Note, scope: RequestScope) -> AuthRow | None:
        user_id = self._user_of(payload)
        overlay = self._journal_writer.overlay(RecordRef(digest, SIGNED_IN), scope)
        if user_id in overlay.users:
            return None  # this host has logged the user out everywhere, and the database has yet to hear of it
        if not overlay.is_known:
            raise scope.gave_up("journal", "BusyJournal")  # it may have: the next request asks again
        return scope.require(
            SIGN_IN,
            self._database.adopt,
            digest,
            note=note.digest,
            note_ms=note.life_ms,
            **self._begun(plan, noted(payload, 0), user_id),  # when its user signed in is not known here
        )

    def never_adopt(self, note: Note, scope: RequestScope) -> None:
        """Have the database know that an old session is over, if it answers."""
        scope.attempt(REVOKE, self._database.note_adopted, note.digest, note.life_ms)

    def refused(self, error: StoreError | None = None, key: str = "") -> GrantRefused:
        """Count a grant that the database does not decide about, and return the answer to it.

        :param error: what it said. That it is the data no breaker and no alert tells.
        :param key: the session key that was set, if a view is to be told at once.
        """
        if error is not None and error.error_class is ErrorClass.DATA:
            log.error(
                "the database refuses the data of a sign-in or a change of rights, and will again: %s",
                error,
                extra=fields("grant_data_refused", **error.log_data),
            )
        self._reports.recorder.count("grants_refused")
        self._reports.emit(events.grant_refused, events.GrantWasRefused())
        if key:
            log.info("the database has to decide about session[%r]", key, extra=fields("grant_refused", key=key))
        return self._make_refusal(key)

    def compete(
        self,
        row: AuthRow,
        write: Callable[[AuthRow], AuthRow | None],
        scope: RequestScope,
        *,
        is_confirmed: bool = False,
    ) -> AuthRow | None:
        """Change a row by compare-and-set. A request that lost reloads and merges its own keys, as often as its budget
        lets it: another one has won each time.

        :param write: writes the row that follows from one; None: that one is not the present one.
        :param is_confirmed: the database said the row in this request. What Redis tells of it is believed for a while,
            but nothing that lasts is made of it.
        :return: the row; None: the session is dead.
        :raises StoreError: the database did not answer, or others were faster until the budget was spent; or the
            session was idle for too long since this request was told of it.
        """
        if not scope.can(DATABASE, WRITE):  # nor is there a reason to read
            raise scope.gave_up(DATABASE, "BreakerOpen")
        current: AuthRow | None = row if is_confirmed else self._present(row, scope)
        while current is not None and current.state is RowState.VALID:
            updated = write(current)
            if updated is not None:
                return updated
            current = self._present(current, scope)
        return None

    def _present(self, row: AuthRow, scope: RequestScope) -> AuthRow | None:
        """Return the row as the database has it now, with the later of the idle expiries."""
        current = self._reload(row.digest, scope)
        if current is not None and current.live and current.version < row.version:
            current = self._verifier.gone_back(current, row.version, row, scope)
        if current is not None and current.state is RowState.IDLE_EXPIRED:
            if row.idle_expires_at <= current.read_at:
                # No session is ended for being idle on this request's word, whose lease has run out meanwhile.
                raise scope.gave_up(DATABASE, "IdleExpired")
            current = self._reload(row.digest, scope, row.idle_expires_at)  # the lease knew of a later use
        return current

    def _reload(self, digest: str, scope: RequestScope, idle_seen: int | None = None) -> AuthRow | None:
        return scope.require(VERIFY, self._database.load, digest, idle_seen=idle_seen)

    def compare_and_set(self, row: AuthRow, payload: Fields, plan: Plan, scope: RequestScope) -> AuthRow | None:
        """Return the row after an update; None: it is not at that version any more.

        :raises GrantRefused: the session would have to live shorter from now on, which takes another id.
        """
        if begins_to_live_shorter(plan.life, row.payload, payload):
            self._ended.raise_min_version(row.digest, row.version)  # the next request knows, and asks for a new id
            raise self.refused()
        return scope.require(
            SAVE_ROW,
            self._database.update,
            row.digest,
            seen=row.version,
            payload=payload,
            user_id=self._user_of(payload, row.user_id),
            **self._new_life(payload, plan),
        )

    def _user_of(self, payload: Fields, known: str | None = None) -> str | None:
        """Return the user a payload belongs to, as text: the first that one of USER_KEYS names.

        :param known: whom the row belongs to, or the sign-in has named; one value that is damaged, or names none, does
            not take it from them.
        """
        for key in self._settings.user_keys:
            try:
                user = user_of(decode(payload[key])) if key in payload else None
            except UnreadableValue:
                return known
            if user is not None:
                return user
        return known


class UnknownLimit(Exception):
    """The application's callable did not say how many sessions a user may have."""


def limit_of(user_id: str | None, settings: Settings) -> Limit | None:
    """Return a user's limit by MAX_SESSIONS_PER_USER and ON_LIMIT; None: there is none, as for rights without a user.

    :raises UnknownLimit: MAX_SESSIONS_PER_USER is a callable, and raised, or returned what is no number of sessions.
        It is logged. What is not known is not taken for no limit.
    """
    most = settings.max_sessions_per_user
    if most is None or user_id is None:
        return None
    if callable(most):
        most = _asked(most, user_id)
    return None if most is None else Limit(most, settings.on_limit == "end_oldest")


def _asked(ask: Callable[[str], int | None], user_id: str) -> int | None:
    try:
        most = ask(user_id)
    except Exception as error:
        log.exception(
            "LANGPONT_SESSION_MAX_SESSIONS_PER_USER failed; the sign-in is refused", extra=fields("max_sessions_failed")
        )
        raise UnknownLimit from error
    if most is None or (type(most) is int and most >= 1):
        return most
    returned = most if type(most) is int else f"a value of type {type(most).__name__}"
    log.error(
        "LANGPONT_SESSION_MAX_SESSIONS_PER_USER returned %s, not a whole number from 1, or None for no limit; "
        "the sign-in is refused",
        returned,
        extra=fields("max_sessions_unusable", returned=returned),
    )
    raise UnknownLimit


class CategoryWrites(Part):
    """Stores what requests have changed of categories.

    :param now_ms: milliseconds since 1970.
    """

    def __init__(self, repository: SessionRepository, now_ms: Callable[[], int]) -> None:
        super().__init__(repository)
        self._now_ms = now_ms
        self._fallback = repository.fallback

    def save(self, plan: Plan, target: SessionId, scope: RequestScope, row: AuthRow | None) -> bool:
        """Write to Redis what changed, the auth record first; else to the journal what the table keeps.

        What was written earlier and waits in the journal comes first: then the change waits behind it, and so does one
        that was made without knowing what Redis has.
        """
        ref, scope = RecordRef(target.digest, target.kind), scope.to(target.digest)
        changes = {name: change for name, change in plan.changes.items() if change}
        if not changes and row is None:
            return False
        if plan.is_for_shadow:
            return self._write_shadow(plan, ref.digest, scope, changes)
        self._give_life(changes, target.kind, plan)
        if plan.loaded and not plan.is_new:
            for name, change in changes.items():
                found = plan.loaded.of(name)
                change.since = found.copy.version if found.copy.mark and found.source == PRIMARY else 0
        if plan.sent is not None:  # Redis may have it, or get it yet
            return self._keep_for_later(plan, ref, scope, changes, row, plan.sent)
        waits = bool(changes) and self._must_wait(ref, changes, scope, is_new=plan.is_new)
        sent = self._write_guarded(plan, ref, scope, {} if waits else changes, row)
        if sent.written is None:
            return self._keep_for_later(plan, ref, scope, changes, row, sent)
        if sent.written.status == "dead":
            self._memory.kill(target.digest)
            return not plan.is_new and self._write_shadow(plan, ref.digest, scope, changes)
        if waits:
            overtake = partial(self._overtake, plan, ref, scope, changes)
            return self._keep_for_later(plan, ref, scope, changes, None, sent, overtake) or row is not None
        return self._note_written(plan, ref, changes, sent.written, scope)

    def _must_wait(
        self, ref: RecordRef, changes: Mapping[str, CategoryChange], scope: RequestScope, *, is_new: bool = False
    ) -> bool:
        """Return whether changes have to wait in the journal.

        :param is_new: nothing was stored under this id before, and so nothing of it can be lost.
        """
        for change in changes.values():
            if change.unseen:
                return True
        if not is_new and self._backend.lack_of(ref) and not self._fallback.kept_locally.isdisjoint(changes):
            return True
        return self._journal_writer.has_writes(ref, changes, scope)

    def _write_guarded(
        self, plan: Plan, ref: RecordRef, scope: RequestScope, changes: dict[str, CategoryChange], row: AuthRow | None
    ) -> Sent:
        if not changes and row is None:
            return Sent(Written("written"))
        guard = "free" if ref.kind != SIGNED_IN else "new" if plan.is_new else "alive"
        # A session that is not permanent any more is to live shorter than Redis remembers.
        push = row and self._push(row, self._stamp_of(row, plan.loaded), plan.life, exact=plan.permanence_changed)
        sent = self._send(ref, changes, scope, guard=guard, **(push or {}))
        if sent.written and sent.written.status == "gone":
            # Redis lost a session that SQL may still know: push it again and try once more.
            found = self._ask_arbiter(ref.digest, scope, plan.life)
            if found is not None and found.shadow:
                return Sent(Written("dead"))
            if found is None or found.row is None:
                return Sent(None)  # that it is dead is not known either
            for _ in range(2):  # a server that was restarted may have to learn the push first
                push = self._push(found.row, 0, plan.life)
                sent = self._send(ref, changes, scope, guard=guard, **push)
                if sent.written is None or sent.written.status != "gone":
                    return sent
            return Sent(None)
        return sent

    def _stamp_of(self, row: AuthRow, loaded: Loaded | None) -> int:
        """Return the Redis clock before the database told what is to be pushed; 0: unknown, and it is asked again."""
        known_ms = loaded.now_ms if loaded else 0
        held = None if known_ms else self._memory.auth(row.digest)
        return self._primary.estimated_ms(held.row.digest, held.confirmed_at) if held else known_ms

    @staticmethod
    def _push(row: AuthRow, stamp: int, life: Life, *, exact: bool = False) -> dict[str, Any]:
        """Return the options by which a write pushes a row as well."""
        return {"push": (row, stamp), "push_life_ms": life.left_of(row), "push_exact": exact}

    def _send(self, ref: RecordRef, changes: Mapping[str, CategoryChange], scope: RequestScope, **options: Any) -> Sent:
        """Send a write to the primary.

        :param options: of :meth:`.RedisStore.write`.
        """
        if not scope.can(PRIMARY, WRITE):
            return Sent(None)
        write_id, began = new_write_id(), self._clock()
        try:
            written = scope.ask(
                SAVE,
                self._primary.write,
                ref,
                changes,
                limits=self._backend.limits,
                write_id=write_id,
                **options,
            )
        except StoreError as error:
            if not error.sent:
                return Sent(None)
            return Sent(None, write_id, max(1, self._primary.estimated_ms(ref.digest, began) * 1000))
        if written.status == "less" and self._has_lost(ref, scope):
            return Sent(None)
        if written.status == "less":  # what was read has run out
            for change in changes.values():
                change.since = 0
            return self._send(ref, changes, scope, **options)
        return Sent(None if written.status == "late" else written)

    def _has_lost(self, ref: RecordRef, scope: RequestScope) -> bool:
        """Look whether Redis has lost data. Return whether it has, or may have."""
        primary = PRIMARY + self._backend.health.locate(ref.digest)
        looked = scope.attempt(LOOK_FOR_LOSS, self._backend.look_for_loss, primary)
        return looked is None or self._backend.lack_of(ref) is not None

    def now(self, digest: str) -> RedisTime:
        """Return the clock of the Redis that has a session. What this worker wrote there before is older than the
        latest of it, what any worker writes from now on is younger than the earliest."""
        at = self._clock()
        earliest, latest = (self._primary.estimated_ms(digest, at, latest=latest) for latest in (False, True))
        host = self._now_ms()
        return RedisTime((earliest or host) * 1000, (latest or host) * 1000)

    def _ask_arbiter(self, digest: str, scope: RequestScope, life: Life) -> Loaded | None:
        """Return what the database says of a session; None: it did not answer."""
        if not scope.can(DATABASE, READ):
            return None
        try:
            # Redis has just said that it has nothing: it knows of no later use.
            return self._verifier.ask_database(digest, scope, life, stamp_ms=0, idle_seen=0)
        except StoreError:
            return None

    def _write_shadow(self, plan: Plan, digest: str, scope: RequestScope, changes: dict[str, CategoryChange]) -> bool:
        """Write late changes of a dead session to the anonymous shadow of its id, without auth."""
        if not changes:
            return False  # it was a change of auth only
        ref, sent = RecordRef(digest, ANONYMOUS, shadow=True), Sent(None)
        self._give_life(changes, ref.kind, plan)
        if not self._must_wait(ref, changes, scope):
            sent = self._send(ref, changes, scope, guard="free")
        if sent.written is None:
            now = self.now(digest)
            return self._journal_writer.keep(
                plan, ref, changes, now, doubt=sent.doubt, sent_us=sent.sent_us, scope=scope
            )
        return self._note_written(plan, ref, changes, sent.written, scope)

    def _give_life(self, changes: Mapping[str, CategoryChange], kind: str, plan: Plan) -> None:
        former = plan.loaded.former if plan.loaded else None
        longer = self._backend.lives_of_former(former, kind, plan.life) if former else {}
        for name, change in changes.items():
            change.life_ms = longer.get(name) or self._backend.life_of(name, kind, plan.life)

    def _keep_for_later(
        self,
        plan: Plan,
        ref: RecordRef,
        scope: RequestScope,
        changes: Mapping[str, CategoryChange],
        row: AuthRow | None,
        sent: Sent,
        instead: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Keep what Redis did not take, or not yet. Return whether anything outlives the request.

        :param instead: see :meth:`.JournalWriter.keep`.
        """
        if row:
            self._journal_writer.queue_push(row.digest, row.version, scope=scope)
        fitting = {name: change for name, change in changes.items() if self._fits(plan, name, change)}
        now = self.now(ref.digest)
        kept = self._journal_writer.keep(
            plan, ref, fitting, now, doubt=sent.doubt, sent_us=sent.sent_us, scope=scope, instead=instead
        )
        self._reports.recorder.count("fallback_journal", by=int(kept))
        return kept or row is not None

    def _overtake(self, plan: Plan, ref: RecordRef, scope: RequestScope, changes: Mapping[str, CategoryChange]) -> bool:
        """Write to Redis what should wait behind what waits already, and has no room in the journal: what it takes the
        place of goes (I33). Return whether Redis has it."""
        if any(change.unseen for change in changes.values()) or not scope.can(PRIMARY, WRITE):
            return False
        if not self._journal_writer.take_out(ref, changes, scope):
            return False
        written = self._write_guarded(plan, ref, scope, dict(changes), None).written
        if written is None or written.status != "written":
            return False
        return self._note_written(plan, ref, changes, written, scope)

    def _fits(self, plan: Plan, name: str, change: CategoryChange) -> bool:
        """Return whether a category is within its limits after a change, as far as is known here. Else report the
        change, which is not kept."""
        if plan.loaded is None or plan.is_new:
            return True
        after = apply_change(plan.loaded.of(name).shown, change)
        size = sum(len(key.encode()) + len(value) for key, value in after.items())
        if not change.sets or (size <= self._backend.limits.bytes and len(after) <= self._backend.limits.fields):
            return True
        self._reports.rejected(
            name, max(change.sets, key=lambda key: len(change.sets[key])), f"category {name!r}: large"
        )
        return False

    def _note_written(
        self, plan: Plan, ref: RecordRef, changes: Mapping[str, CategoryChange], written: Written, scope: RequestScope
    ) -> bool:
        if written.status != "written":
            return self._write_the_rest(plan, ref, changes, written, scope)
        if not changes:
            return True  # it was a row alone
        self._reports.payload(changes)
        plan.note_kept(changes, Kept.REDIS)
        if not ref.shadow:
            self._fallback.remember_write(ref.digest, plan.loaded, changes, written, ref.kind)
            self._journal_writer.written(ref.digest, changes, scope)
        return True

    def _write_the_rest(
        self, plan: Plan, ref: RecordRef, changes: Mapping[str, CategoryChange], refused: Written, scope: RequestScope
    ) -> bool:
        """Write the changes of the other categories, where one cannot take its change (``large``, ``no number``)."""
        culprit = refused.category or ""
        for key in changes[culprit].writes | changes[culprit].increments:
            # That a record holds no number may be what another program, or a damaged record, made of it.
            is_mistake, why = refused.status == "large", f"category {culprit!r}: {refused.status}"
            self._reports.rejected(culprit, key, why, is_mistake=is_mistake)
        rest = {name: change for name, change in changes.items() if name != culprit}
        if not rest:
            return False
        if ref.shadow:
            return self._write_shadow(plan, ref.digest, scope, rest)
        plan.changes = rest
        assert plan.target is not None
        return self.save(plan, plan.target, scope, None)

    def lay_beneath(self, plan: Plan, target: SessionId, scope: RequestScope) -> bool:
        """Give Redis data as if it had been there before; what was written since stays. Return whether Redis has it."""
        scope = scope.to(target.digest)
        self._give_life(plan.changes, target.kind, plan)
        guard, as_of = "new" if target.kind == SIGNED_IN else "free", self.now(target.digest).earliest_us - _BEFORE_US
        copies = [
            Restore(target.digest, name, CategoryCopy(as_of, change.sets), guard, change.life_ms, is_partial=True)
            for name, change in plan.changes.items()
        ]
        if not copies:
            return False
        merge, limits = self._primary.merge_all, self._backend.limits
        done = scope.attempt(SAVE, merge, copies, limits=limits, write_id=new_write_id())
        if done is None or not all(isinstance(reply, Merged) and reply.status == "merged" for reply in done):
            return False
        self._reports.payload(plan.changes)
        plan.changes.clear()
        return True

    def carry(self, plan: Plan, scope: RequestScope) -> bool:
        """Have the journal bring what the plan says to the target. Return whether it will."""
        if not (plan.carries and plan.origin and plan.target):
            return False
        lives_ms = [self._backend.life_of(name, plan.target.kind, plan.life) for name in plan.carries]
        return self._journal_writer.carry(plan, self.now(plan.origin.digest).latest_us, lives_ms, scope)

    def leave(self, origin: SessionId, scope: RequestScope, life: Life, *, carried: Collection[str]) -> None:
        """Wipe the data of an anonymous session that was given another id.

        :param carried: categories that the replay wipes, when it has brought their data to the other id.
        """
        names = self._backend.table.categories.keys() - set(carried)
        changes = {name: CategoryChange(wipe=True) for name in sorted(names)}
        self.save(Plan(origin, origin, life, scope.level, changes=changes), origin, scope, None)
        self._reports.no_longer_in_use(origin.digest)
