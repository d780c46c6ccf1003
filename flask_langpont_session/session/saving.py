"""Saving one request's session, and what its response has to say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..policy.categories import AUTH
from ..policy.changes import CategoryChange, apply_change
from ..policy.devices import NO_DEVICE, Device
from ..policy.ids import ANONYMOUS, SIGNED_IN
from ..policy.levels import Kept
from ..policy.plans import Plan, Saved
from ..policy.rows import AuthRow
from .auth_keys import AuthKeys
from .identity import IdState
from .work import Work

if TYPE_CHECKING:
    from ..request.plain_changes import Sent


_STORED = Saved(stored=True)


class Saving:
    """Makes the plan of a save, has it carried out, and takes its result into the session."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def plan(self, changes: dict[str, CategoryChange] | None = None) -> Plan | None:
        """Return the plan of a save; None: there is nothing to write. A visitor without an id gets one if there is data
        to keep.

        :param changes: if they are known already.
        """
        work, level = self._work, self._work.scope.level  # before anything is read for the save itself
        if changes is None:
            changes = self._all_changes()
        target = work.target
        if target is None and any(changes.values()):
            target = work.give_id(ANONYMOUS)
        origin, permanence_changed = work.origin, work.must_save_permanence
        lives = target is not None and target is origin and target.kind == SIGNED_IN
        if lives and permanence_changed:  # a session that becomes permanent (or ceases to be) lives by another clock
            changes.setdefault(AUTH, CategoryChange())
        replaced = origin is not None and target is not None and target is not origin
        if not (changes or work.must_end or replaced):
            return None
        return Plan(
            origin,
            target,
            work.life,
            level,
            # Changing the row of a signed-in session needs its version; other changes need no read.
            work.load() if lives and AUTH in changes else work.loaded,
            changes,
            ends=work.must_end,
            renames=work.renamed_row,
            grants=work.grants,
            user=work.named,
            confirms=work.confirms,
            device=self._device() if work.signs_in and work.renamed_row is None else NO_DEVICE,
            permanence_changed=permanence_changed,
            carries=work.carries if work.minted else (),
        )

    def _device(self) -> Device:
        made, label = self._work.context.device(), self._work.label
        return made if label is None else made._replace(label=label)

    def _all_changes(self) -> dict[str, CategoryChange]:
        work = self._work
        former = None if work.loaded is None else work.loaded.former
        changes = work.now.by_category(work.stored_value, work.is_unknown, former)
        if AUTH in changes:
            AuthKeys(work).decide_about_rights(changes[AUTH])
        if work.must_wipe and work.target is work.origin and work.origin is not None:
            for name in work.repository.table.categories:
                changes.setdefault(name, CategoryChange()).wipe = True
        return changes

    def finish(self) -> Saved | None:
        """Store the changes at the end of the request: a plain change on the straight line. As :meth:`save`."""
        work, now = self._work, self._work.now
        origin = work.origin
        if origin is None or not work.is_untouched or work.chosen_permanent is not None or now.saved:
            return self.save()
        changes, life = self._all_changes(), work.context.life(origin.permanent)
        sent = work.repository.plain_changes.write(origin, changes, work.loaded, life, work.way)
        if sent is None or sent.written is None:
            if sent is not None and sent.scope is not None:
                work.way = sent.scope
            return self.save(changes, sent)
        work.was_stored = work.forced = True
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
        work = self._work
        if work.target is None and work.put_off is not None:
            return self._keep_nothing()
        plan = self.plan(changes)
        if plan is None:
            return None
        if sent is not None:  # the request was at level 0 until this failed
            plan.sent, plan.level = sent, 0
        changes, changes_permanence = dict(plan.changes), plan.permanence_changed
        saved = work.repository.saves.save(plan, work.scope)
        work.places = dict.fromkeys(changes, Kept.NOWHERE) | plan.kept
        self._mark_saved(changes, saved)
        if changes_permanence and not plan.permanence_changed:
            # The database did not get the flag: until it is set again, it is what the cookie says.
            work.chosen_permanent = work.saved_permanent = None
        if saved.ended:
            work.came_too_late()
        return saved

    def _keep_nothing(self) -> Saved | None:
        """Report the request's changes as rejected; they last for the request. Its old session cannot be taken over
        yet, and an id of its own would make the browser forget the old session."""
        changes = self._all_changes()
        if not changes:
            return None
        for name, change in changes.items():
            for key in (*change.writes, *change.increments):
                why = "the old session of this browser cannot be taken over yet"
                self._work.repository.backend.reports.rejected(name, key, why, is_mistake=False)
        self._work.places = dict.fromkeys(changes, Kept.NOWHERE)
        saved = Saved(stored=False)
        self._mark_saved(changes, saved)
        return saved

    def _mark_saved(self, changes: Mapping[str, CategoryChange], saved: Saved) -> None:
        """Take `changes` into what this request sees, since they are saved, and do not store them again."""
        work = self._work
        work.was_stored = work.was_stored or saved.stored
        work.written = saved.row or work.written
        if work.loaded is not None:
            self._show(changes)
        work.forced = True  # "modified" stays true after the save
        work.now.mark_saved(changes)
        work.grants = work.confirms = False
        work.mark_saved()
        work.saved_permanent = work.permanent
        has_moved = work.minted is not None and saved.stored and not saved.ended
        if has_moved or work.state is IdState.ENDED:
            self._go_on()

    def _show(self, changes: Mapping[str, CategoryChange]) -> None:
        loaded = self._work.own_loaded()
        for name, change in changes.items():
            loaded.show(name, apply_change(loaded.of(name).shown, change))

    def _go_on(self) -> None:
        """Go on as if the request had come with the id that was made; only its cookie is still to be sent."""
        work = self._work
        work.move()
        if work.origin is not None and work.origin.kind == SIGNED_IN:
            work.before, work.loaded = work.loaded, None  # a further change of auth needs its row

    def row_of(self, digest: str) -> AuthRow | None:
        """Return the row of this session, as this request wrote or read it; None: it has none that is believed.

        :param digest: under which it goes on.
        """
        written = self._work.written
        return written if written is not None and written.digest == digest else self._work.row
