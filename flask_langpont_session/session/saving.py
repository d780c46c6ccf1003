"""Saving one request's session, and what its response has to say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..policy.categories import AUTH
from ..policy.changes import CategoryChange, apply_change
from ..policy.devices import NO_DEVICE, Device
from ..policy.ids import ANONYMOUS, SIGNED_IN
from ..policy.plans import Kept, Plan, Saved
from ..policy.rows import AuthRow
from .identity import IdState
from .work import Work

if TYPE_CHECKING:
    from ..request.plain_changes import Sent


_STORED = Saved(stored=True)


class Saving:
    """Makes the plan of a save, has it carried out, and takes its result into the session.

    :param decide_about_rights: see :meth:`.AuthKeys.decide_about_rights`.
    :ivar places: category → where the last save put its data.
    """

    def __init__(self, work: Work, decide_about_rights: Callable[[CategoryChange], None]) -> None:
        self._work = work
        self._ids = work.ids
        self._decide_about_rights = decide_about_rights
        self.places: Mapping[str, Kept] = {}
        self._was_stored = False
        self._row: AuthRow | None = None

    def plan(self, changes: dict[str, CategoryChange] | None = None) -> Plan | None:
        """Return the plan of a save; None: there is nothing to write. A visitor without an id gets one if there is data
        to keep.

        :param changes: if they are known already.
        """
        level = self._ids.scope.level  # before anything is read for the save itself
        ids, identity = self._ids, self._ids.identity
        if changes is None:
            changes = self._all_changes()
        target = ids.target
        if target is None and any(changes.values()):
            target = ids.mint(ANONYMOUS)
        origin, permanence_changed = ids.origin, ids.must_save_permanence
        lives = target is not None and target is origin and target.kind == SIGNED_IN
        if lives and permanence_changed:  # a session that becomes permanent (or ceases to be) lives by another clock
            changes.setdefault(AUTH, CategoryChange(0))
        replaced = origin is not None and target is not None and target is not origin
        if not (changes or identity.must_end or replaced):
            return None
        return Plan(
            origin,
            target,
            ids.life,
            level,
            # Changing the row of a signed-in session needs its version; other changes need no read.
            self._work.load() if lives and AUTH in changes else self._work.loaded,
            changes,
            ends=identity.must_end,
            renames=identity.row,
            grants=self._work.grants,
            user=self._work.named,
            confirms=self._work.confirms,
            device=self._device() if identity.signs_in and identity.row is None else NO_DEVICE,
            permanence_changed=permanence_changed,
            carries=identity.carries if identity.minted else (),
        )

    def _device(self) -> Device:
        made, label = self._ids.context.device(), self._work.label
        return made if label is None else made._replace(label=label)

    def _all_changes(self) -> dict[str, CategoryChange]:
        work, identity = self._work, self._ids.identity
        former = None if work.loaded is None else work.loaded.former
        changes = work.now.by_category(work.stored_value, work.is_unknown, former)
        if AUTH in changes:
            self._decide_about_rights(changes[AUTH])
        if identity.must_wipe and self._ids.target is self._ids.origin and self._ids.origin is not None:
            for name in work.repository.table.categories:
                changes.setdefault(name, CategoryChange(0)).wipe = True
        return changes

    def finish(self) -> Saved | None:
        """Store the changes at the end of the request: a plain change on the straight line. As :meth:`save`."""
        ids, work = self._ids, self._work
        origin, now = ids.origin, work.now
        if origin is None or not ids.identity.is_untouched or ids.chosen_permanent is not None or now.saved:
            return self.save()
        changes, life = self._all_changes(), ids.context.life(origin.permanent)
        sent = work.repository.plain_changes.write(origin, changes, work.loaded, life, vars(ids).get("scope"))
        if sent is None or sent.written is None:
            if sent is not None and sent.scope is not None:
                ids.scope = sent.scope
            return self.save(changes, sent)
        self._was_stored = work.forced = True
        self.places = dict.fromkeys(changes, Kept.REDIS)
        now.mark_saved(changes)
        if work.loaded is not None and sent.written.shown is not None:
            work.loaded = sent.written.shown
        elif work.loaded is not None:
            self._show(changes)
        return _STORED

    def save(self, changes: dict[str, CategoryChange] | None = None, sent: Sent | None = None) -> Saved | None:
        """Store the changes since the last save; None: there was nothing to do.

        :param changes: if they are known already.
        :param sent: see :attr:`.Plan.sent`.
        :raises GrantRefused: a sign-in or change of rights, and the database does not answer. Nothing was changed.
        """
        if self._ids.target is None and self._ids.put_off is not None:
            return self._keep_nothing()
        plan = self.plan(changes)
        if plan is None:
            return None
        if sent is not None:  # the request was at level 0 until this failed
            plan.sent, plan.level = sent, 0
        changes, changes_permanence = dict(plan.changes), plan.permanence_changed
        saved = self._work.repository.saves.save(plan, self._ids.scope)
        self.places = dict.fromkeys(changes, Kept.NOWHERE) | plan.kept
        self._mark_saved(changes, saved)
        if changes_permanence and not plan.permanence_changed:
            self._keep_permanence()
        if saved.ended:
            self._work.came_too_late()
        return saved

    def _keep_nothing(self) -> Saved | None:
        """Report the request's changes as rejected; they last for the request. Its old session cannot be taken over
        yet, and an id of its own would make the browser forget the old session."""
        changes = self._all_changes()
        if not changes:
            return None
        for name, change in changes.items():
            for key in (*change.writes, *change.increments):
                self._work.repository.backend.reports.rejected(
                    name, key, "the old session of this browser cannot be taken over yet"
                )
        self.places = dict.fromkeys(changes, Kept.NOWHERE)
        saved = Saved(stored=False)
        self._mark_saved(changes, saved)
        return saved

    def _mark_saved(self, changes: Mapping[str, CategoryChange], saved: Saved) -> None:
        """Take `changes` into what this request sees, since they are saved, and do not store them again."""
        work, ids, identity = self._work, self._ids, self._ids.identity
        self._was_stored = self._was_stored or saved.stored
        self._row = saved.row or self._row
        if work.loaded is not None:
            self._show(changes)
        work.forced = True  # "modified" stays true after the save
        work.now.mark_saved(changes)
        work.grants = work.confirms = False
        identity.mark_saved()
        ids.saved_permanent = ids.permanent
        has_moved = identity.minted is not None and saved.stored and not saved.ended
        if has_moved or identity.state is IdState.ENDED:
            self._go_on()

    def _show(self, changes: Mapping[str, CategoryChange]) -> None:
        loaded = self._work.own_loaded()
        for name, change in changes.items():
            loaded.show(name, apply_change(loaded.of(name).shown, change))

    def _go_on(self) -> None:
        """Go on as if the request had come with the id that was made; only its cookie is still to be sent."""
        self._ids.identity.move()
        sid = self._ids.origin
        if sid is not None and sid.kind == SIGNED_IN:
            self._work.before, self._work.loaded = self._work.loaded, None  # a further change of auth needs its row

    def row_of(self, digest: str) -> AuthRow | None:
        """Return the row of this session, as this request wrote or read it; None: it has none that is believed.

        :param digest: under which it goes on.
        """
        written = self._row
        return written if written is not None and written.digest == digest else self._work.row

    def _keep_permanence(self) -> None:
        """Forget the permanent flag that the database did not get: until it is set again, the flag is what the cookie
        says."""
        self._ids.chosen_permanent = self._ids.saved_permanent = None

    @property
    def is_worth_a_cookie(self) -> bool:
        """Return whether the minted id leads anywhere: to stored data, to a user, or to a CSRF token that was given
        out."""
        signs_in = self._ids.minted is not None and self._ids.minted.kind == SIGNED_IN
        is_stored = self._was_stored or self._ids.adopted is not None
        return is_stored or self._ids.wants_cookie or signs_in

    @property
    def signed_in_anew(self) -> bool:
        """Return whether this request signed a user in, other than by taking over an old session."""
        minted = self._ids.minted
        return minted is not None and minted.kind == SIGNED_IN and minted is not self._ids.adopted
