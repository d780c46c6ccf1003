"""Saving a session: the database first, then Redis, then the journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import events
from ..events import EndedBy
from ..policy.categories import AUTH
from ..policy.changes import CategoryChange, apply_change
from ..policy.copies import RecordRef
from ..policy.errors import StoreError
from ..policy.health import DATABASE
from ..policy.ids import SIGNED_IN, SessionId
from ..policy.plans import Kept, Note, Plan, Saved
from ..policy.rows import AuthRow, EndedSession, RowState
from .category_writes import CategoryWrites
from .parts import Part, Parts
from .revocations import Revocations
from .row_writes import RowWrites
from .scope import RequestScope


class Saves(Part):
    """Brings a request's changes to the stores."""

    def __init__(self, parts: Parts, rows: RowWrites, categories: CategoryWrites, revocations: Revocations) -> None:
        super().__init__(parts)
        self._rows = rows
        self._categories = categories
        self._revocations = revocations

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
            created = self._rows.new_row(plan, target.digest, payload, old, scope)
        except StoreError as error:
            raise self._rows.refused(error) from None
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
            raise self._rows.refused()
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
            row = self._rows.adopted_row(plan, target.digest, auth.sets if auth else {}, note, scope)
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
            number = self._journal_writer.row_changing(row.digest)
            return self._rows.compare_and_set(row, apply_change(row.payload, change), plan, scope)

        try:
            updated = self._rows.compete(row, write, scope, is_confirmed=is_confirmed)
        except StoreError as error:
            if plan.grants:
                raise self._rows.refused(error) from None
            self._keep(plan, change, row.digest, scope)
            plan.permanence_changed = False  # the row lives as long as before, and so does its cookie
            return None
        if updated is None or updated.state is not RowState.VALID:
            self._revocations.make_known({row.digest: row.version}, scope, in_database=True)
            return None
        self._journal_writer.row_changed(row.digest, number)
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
