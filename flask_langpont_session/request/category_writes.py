"""Writing categories: to Redis, else to the journal as the table says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from ..policy.changes import CategoryChange, apply_change
from ..policy.copies import CategoryCopy, RecordRef
from ..policy.errors import StoreError
from ..policy.health import DATABASE, PRIMARY, READ, WRITE
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from ..policy.leases import Life
from ..policy.loaded import Loaded
from ..policy.plans import Kept, Plan
from ..policy.rows import AuthRow
from ..stores.redis.commands import new_write_id
from ..stores.redis.records import Merged, Restore, Written
from .journal_writer import RedisTime
from .parts import Part, Parts
from .plain_changes import Sent
from .scope import LOOK_FOR_LOSS, SAVE, RequestScope

_BEFORE_US = 3_600_000_000
"""Microseconds: the data of an old session counts as that much older than the request that takes it over, so that
nothing which any request writes meanwhile is undone by it."""


class CategoryWrites(Part):
    """Stores what requests have changed of categories."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._fallback = parts.fallback

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
        if plan.loaded and not (plan.is_new or plan.loaded.shadow):
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
            self._reports.rejected(culprit, key, f"category {culprit!r}: {refused.status}")
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
        changes = {name: CategoryChange(0, wipe=True) for name in sorted(names)}
        self.save(Plan(origin, origin, life, scope.level, changes=changes), origin, scope, None)
        self._reports.no_longer_in_use(origin.digest)
