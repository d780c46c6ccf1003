"""This host's journal as the repository uses it: what waits for a store that does not answer.

The journal must never be a reason for a request to fail. When its disk refuses, that is an alarm for an operator and
the request goes on with what is left.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..metrics.losses import Cause, Loss
from ..metrics.reports import Reports
from ..policy.categories import AUTH
from ..policy.changes import NO_FIELDS, Basis, CategoryChange, Operation
from ..policy.copies import CategoryCopy, RecordRef, SharedCopy
from ..policy.errors import StoreError
from ..policy.ids import SIGNED_IN
from ..policy.levels import WAITING, Kept
from ..policy.plans import Plan
from ..stores.backend import journal_did_not_say
from ..stores.host.entries import NOTHING, UNKNOWN, WIPED_FIELD, Carry, Overlay, PendingWrite, take_out
from ..stores.host.group_commit import Room, is_busy
from ..stores.host.opening import is_full
from ..stores.redis.commands import new_write_id
from ..stores.redis.records import addition_id
from .fallback import Fallback
from .scope import LEAST_AT_LAST, RequestScope

if TYPE_CHECKING:
    from ..stores.host.journal import Journal

T = TypeVar("T")

log = logging.getLogger(__name__)

_FIRST = 1 / 3
"""The share of a request's time in which the journal has to say what waits: Redis and the database are asked after it,
and know more."""


class RedisTime(NamedTuple):
    """The Redis clock at some moment, microseconds since 1970: between these two, which are as far apart as Redis' last
    answer took."""

    earliest_us: int
    latest_us: int


class JournalWriter:
    """Reads and fills the journal by the rules of the table."""

    def __init__(self, journal: Journal, fallback: Fallback, reports: Reports) -> None:
        self._journal = journal
        self._board = journal.board
        self._revocations = journal.revocations
        self._fallback = fallback
        self._reports = reports

    def overlay(self, ref: RecordRef, scope: RequestScope | None = None) -> Overlay:
        """Return what this host knows of a session beyond what Redis says; :data:`NOTHING` nearly always.
        :data:`UNKNOWN`: the journal is busy. An unusable journal has nothing to say: Redis must do without it.

        :param scope: of the request, out of whose budget the wait comes.
        """
        try:
            if self._journal.is_silent_about(ref.digest, _wait(scope)):
                return NOTHING
            return _noted(scope, partial(self._journal.overlay, ref), _FIRST)
        except StoreError as error:
            journal_did_not_say(self._reports, error)
            return UNKNOWN if is_busy(error) else NOTHING

    def queue_push(self, digest: str, version: int = 0, *, scope: RequestScope | None = None) -> None:
        """Note that Redis lacks what the database has of this session.

        :param version: of its row; 0: unknown.
        """
        self._do(partial(self._journal.queue_push, digest, version), scope)

    def revoke(self, *digests: str, in_database: bool, in_redis: bool, scope: RequestScope | None = None) -> bool:
        """Keep revocations that not every store knows of yet. Return whether the journal has them; if not in time, it
        may get them later."""
        stores = {"in_database": in_database, "in_redis": in_redis}
        return self._do(partial(self._revocations.note, *digests, **stores, stays=True), scope)

    def revoke_user(
        self, user_id: str, until_ms: int = 0, *, epoch: int = 0, scope: RequestScope | None = None
    ) -> None:
        """Keep that a user was logged out everywhere, which not every store knows yet.

        :param until_ms: of the sessions created until then, milliseconds since 1970; the database does not know it.
        :param epoch: of the sessions of an earlier epoch; the database knows it.
        """
        ended = {"until_ms": until_ms, "epoch": epoch}
        self._do(partial(self._revocations.note_user, user_id, **ended, stays=True), scope)

    def publish(self, copies: Iterable[SharedCopy], scope: RequestScope | None = None) -> None:
        """Put local copies where the other workers of the host can read them."""
        self._do(lambda wait: self._reports.shared(*self._board.publish_copies(copies, wait=wait)), scope)

    def has_writes(self, ref: RecordRef, names: Iterable[str], scope: RequestScope | None = None) -> bool:
        """Return whether data of one of these categories waits here, or may. What is written then comes after it,
        whether Redis answers or not."""
        overlay = self.overlay(ref, scope)
        return overlay is not NOTHING and (not overlay.is_known or any(map(overlay.has_writes, names)))

    def written(self, digest: str, names: Iterable[str], scope: RequestScope | None = None) -> None:
        """Share what Redis has just taken of these categories with the other workers, while one of them may not reach
        Redis: it shall see them, too."""
        if self._has_readers(scope) and (copies := self._fallback.copies(digest, names)):
            self.publish(copies, scope)

    def _has_readers(self, scope: RequestScope | None) -> bool:
        try:
            return self._journal.has_readers(_wait(scope))
        except StoreError as error:
            journal_did_not_say(self._reports, error)
            return is_busy(error)

    def keep(
        self,
        plan: Plan,
        ref: RecordRef,
        changes: Mapping[str, CategoryChange],
        now: RedisTime,
        *,
        doubt: str = "",
        sent_us: int = 0,
        scope: RequestScope | None = None,
        instead: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Keep what the table keeps of changes that Redis did not take; the rest lasts for this request only. Of a
        request that was at level 0 all of it is kept.

        :param ref: of the plan's target, or of its shadow.
        :param doubt: the id of a write by which Redis may have it all the same; `sent_us`: when that was sent, by the
            Redis clock.
        :param instead: called where the journal's disk has no room; whether it has kept the changes elsewhere.
        :return: whether anything was kept.
        """
        level, now_us = plan.level, self._as_of(ref.digest, changes, now.latest_us)
        entries: list[PendingWrite] = []
        for name, change in changes.items():
            # What the request sees of them from here on is what is kept: what is made of it later is known to be.
            self._journal.codec.to_store_once(ref.digest, name, change.sets)
            # What a session takes along to another id was stored, and is lost if it is not kept.
            is_moved = plan.is_new and plan.origin is not None and name not in plan.carries
            for entry in self._entries(plan, ref, name, change, now_us, doubt, sent_us):
                if (
                    level == 0
                    or is_moved
                    or entry.operation is Operation.WIPE
                    or self._outlives_request(entry.field, ref.kind, level)
                ):
                    entries.append(entry)
                else:
                    plan.note_kept([name], Kept.NOWHERE)
                    self._reports.dropped(name, entry.field, level)
        copies = self._empty_copies(plan, ref, now.earliest_us) if entries and plan.is_new else []
        return bool(entries) and self._put(plan, entries, copies, scope, instead)

    def _as_of(self, digest: str, names: Iterable[str], now_us: int) -> int:
        """Return the moment of a change, microseconds by the Redis clock: later than what this host has seen of these
        categories, whichever server's clock that was by, and however well another worker knew it."""
        seen = (self._board.register.latest_version(digest, name) + 1000 for name in names)
        return max((now_us, *seen))

    def _empty_copies(self, plan: Plan, ref: RecordRef, since_us: int) -> list[SharedCopy]:
        """Return empty copies of a new id, for the categories of which nothing is yet to be brought there.

        :param since_us: a version that is older than any write which comes after this request: else such a write would
            be taken for part of the nothing.
        """
        of_user = {AUTH} if ref.kind == SIGNED_IN else set()
        names = self._fallback.kept_locally - of_user - set(plan.carries)
        return [SharedCopy(ref.digest, name, CategoryCopy(since_us, NO_FIELDS)) for name in sorted(names)]

    def _put(
        self,
        plan: Plan,
        entries: Sequence[PendingWrite],
        copies: Sequence[SharedCopy],
        scope: RequestScope | None,
        instead: Callable[[], bool],
    ) -> bool:
        names = [entry.category for entry in entries]
        try:
            for lost in _noted(scope, partial(self._journal.put, entries, copies)):
                if not lost.seq:  # else it is an earlier request's
                    plan.note_kept([lost.category], Kept.NOWHERE)
                self._reports.losses.note(Loss.MERGE_CONFLICTS, Cause.MADE_WITHOUT_READING, lost.category)
        except StoreError as error:
            if is_full(error) and instead():
                return True
            self._note_lost(plan, names, error)
            return False
        plan.note_kept(names, Kept.JOURNAL)
        return True

    def take_out(self, ref: RecordRef, changes: Mapping[str, CategoryChange], scope: RequestScope | None) -> bool:
        """Take out of the journal what waits for the fields that are changed now, because Redis is about to get what
        comes after it. Return whether it is out; what is no part of these changes, and lost by that, is counted.

        :param changes: category → change.
        """

        def take(db: sqlite3.Connection) -> Mapping[str, int]:
            return {
                name: take_out(db, ref, name, None if change.wipe else change.writes, change.increments)
                for name, change in changes.items()
            }

        try:
            taken = _noted(scope, partial(self._journal.file.transaction, take, room=Room.RESERVED))
        except StoreError:
            return False
        for name, count in taken.items():
            self._reports.losses.note(Loss.MERGE_CONFLICTS, Cause.WRITTEN_SINCE, name, count)
        return True

    def _note_lost(self, plan: Plan, names: Sequence[str], error: StoreError) -> None:
        """Report that the journal did not take something of these categories."""
        self._reports.journal_failed(error)
        plan.note_kept(names, Kept.NOWHERE)
        for name in names:
            self._reports.losses.note(Loss.WRITES_LOST, Cause.of(error), name)

    def carry(self, plan: Plan, now_us: int, lives_ms: Sequence[int] = (), scope: RequestScope | None = None) -> bool:
        """Keep that the target of a plan is to have what its origin had, too, as soon as that can be read. To be called
        before any data of the origin may go: where the origin is given up, that goes when it was brought.

        :param now_us: the Redis clock, microseconds since 1970.
        :param lives_ms: how long each of its carried categories may lie unused.
        :return: whether that is kept; False too where there is nothing to be brought.
        """
        if not (plan.carries and plan.origin and plan.target):
            return False
        left_us = self._as_of(plan.origin.digest, plan.carries, now_us) if plan.leaves else 0
        carry = Carry(plan.origin.digest, plan.target.digest, plan.target.kind, plan.carries, left_us, lives_ms)

        def stays(entry: PendingWrite) -> bool:
            return bool(self._fallback.table.left_behind(entry.category, (entry.field,), plan.carries))

        put = partial(self._journal.carry, carry, lambda: list(self._known(plan)), stays=stays)

        try:
            left_out, outdated = _noted(scope, put)
        except StoreError as error:
            self._note_lost(plan, plan.carries, error)
            return False
        for lost in left_out:
            self._reports.losses.note(Loss.MERGE_CONFLICTS, Cause.MADE_WITHOUT_READING, lost.category)
        self._reports.losses.outdated(outdated)
        plan.note_kept(plan.carries, Kept.JOURNAL)
        return True

    def _known(self, plan: Plan) -> Iterator[SharedCopy]:
        """Yield what could be read of the data that a plan carries: the target has it, unless a worker of this host has
        changed it since, for example by merging what waited when it was read."""
        loaded, origin, target = plan.loaded, plan.origin, plan.target
        if loaded is None or origin is None or target is None:
            return
        for name in plan.carries:
            found = loaded.of(name)
            copy, is_lost = found.copy, found.gap is not None and found.gap.whole
            if copy.version and not is_lost and not self._board.register.is_outdated(origin.digest, name, copy.version):
                stays = self._fallback.table.left_behind(name, copy.fields, plan.carries)
                shown = {key: value for key, value in copy.fields.items() if key not in stays} if stays else copy.fields
                yield SharedCopy(target.digest, name, copy._replace(fields=shown))

    def _outlives_request(self, key: str, kind: str, level: int) -> bool:
        """Return whether a key is kept beyond its request. A user's auth that may wait (no rights) always is."""
        feature = self._fallback.table.feature_of(key)
        if feature.category == AUTH and kind == SIGNED_IN:
            return True
        return self._fallback.behaviour(feature, kind, level) in WAITING

    def _entries(
        self, plan: Plan, ref: RecordRef, name: str, change: CategoryChange, now_us: int, doubt: str, sent_us: int
    ) -> Iterator[PendingWrite]:
        """Yield a change of one category as entries of the journal, in the order in which they are to be applied."""
        doubts = f"{doubt} " if doubt else ""

        def entry(operation: Operation, field: str, **more: Any) -> PendingWrite:
            common = {**ref._asdict(), "category": name, "doubts": doubts, "acknowledged": now_us}
            common["life_ms"] = change.life_ms
            return PendingWrite(operation=operation, field=field, **{**common, "moment": now_us, **more})

        if change.wipe:
            yield entry(Operation.WIPE, WIPED_FIELD)
        for key, value in change.writes.items():
            operation = Operation.DELETE if value is None else Operation.SET
            yield entry(operation, key, value=value, **self._basis(plan, ref, name, change, key))
        for number, (key, by) in enumerate(change.increments.items()):
            if doubt:  # by what is remembered of later ones it is told whether this one may be forgotten
                sent = {"token": addition_id(doubt, number), "is_sent": True, "moment": sent_us}
            else:
                sent = {"token": new_write_id(), "moment": 0}
            yield entry(Operation.ADD, key, delta=by, **sent)

    def _basis(self, plan: Plan, ref: RecordRef, name: str, change: CategoryChange, key: str) -> dict[str, Any]:
        """Return what a value was made from, as columns of an entry."""
        loaded = plan.loaded
        of_user = name == AUTH and ref.kind == SIGNED_IN
        is_elsewhere = plan.is_new and name not in plan.carries
        if loaded is None or is_elsewhere or change.wipe or loaded.shadow != ref.shadow or key in change.unseen:
            if key not in change.unseen or change.wipe:
                return {}
            return {"basis": Basis.UNSEEN, "base": loaded.of(name).shown.get(key) if loaded else None}
        # What is written after a wipe stays, whether that waits still or was merged since by another worker.
        found = loaded.of(name)
        if not (of_user or key in change.seen) or found.is_wiped:
            return {}
        return {"basis": Basis.SEEN, "moment": found.copy.version, "base": found.shown.get(key)}

    def _do(self, call: Callable[..., object], scope: RequestScope | None = None) -> bool:
        try:
            _noted(scope, call)
        except StoreError as error:
            self._reports.journal_failed(error)
            return False
        return True


def _noted(scope: RequestScope | None, call: Callable[..., T], share: float = 1.0) -> T:
    """Use the journal, within the budget of a request if it is for one: `call` gets the seconds that it may `wait`."""
    return call(wait=None) if scope is None else scope.note(lambda seconds: call(wait=seconds), share)


def _wait(scope: RequestScope | None) -> float | None:
    return None if scope is None else LEAST_AT_LAST
