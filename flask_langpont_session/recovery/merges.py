"""Merges: the changes of sessions that wait in the journal are brought into what the stores have, field by field.

What waits for one category of one session is sent together, many categories in a round trip. Ordinary auth keys of
users go to the database, by compare-and-set. Before them go carries: the data that sessions have under former ids is
brought to the present ones.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from ..metrics.losses import Cause, Loss, Losses
from ..policy.categories import AUTH
from ..policy.changes import Basis, CategoryChange, Operation, apply_change
from ..policy.copies import CategoryCopy, RecordRef, SharedCopy, mark_of_copy, written_at
from ..policy.errors import ErrorClass, StoreError
from ..policy.health import PRIMARY
from ..policy.ids import SIGNED_IN
from ..policy.rows import AuthRow
from ..stores.backend import Backend
from ..stores.host.board import Shared
from ..stores.host.entries import Carry, PendingWrite
from ..stores.host.journal import LINGER
from ..stores.host.opening import is_full
from ..stores.redis.commands import new_write_id
from ..stores.redis.records import ABSENT, SINCE, TIME, Merge, Merged, MergeStep, Outcome
from ..support.logs import fields
from . import steps
from .rows import Pushes, Sent, split
from .steps import Pages, Reach, Step

if TYPE_CHECKING:
    from .giving_back import GivingBack

log = logging.getLogger(__name__)

_OF_ONE_SESSION = frozenset({ErrorClass.DATA, ErrorClass.LOCAL})
"""Classes with which a server refuses one session's changes, and will again: the others must not wait for them."""

_LONG_AGO = 1
"""Microseconds since 1970. What was there under a former id was acknowledged before all that was written since."""

_Group = Sequence[PendingWrite]
"""Entries that wait for one category of one session."""

_Place = tuple[str, str]
"""The digest of a session, and a category."""


class MergedCopies:
    """Reads merged categories back from Redis, for the workers of this host that do not read Redis yet: what leaves the
    journal is laid over their reads no more, and to them it would look undone.

    :param clock: monotonic seconds.
    :ivar recovered_at: when a store was last taken into use again.
    """

    def __init__(self, backend: Backend, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._clock = clock
        self._announced: Mapping[str, int] = {}
        self._announced_at = -math.inf
        self.recovered_at = clock()

    def clear(self) -> None:
        """Delete published copies, unless a worker of the host is, or may be, in an outage: one that has died announces
        nothing new. Those of the last merges stay.

        :raises StoreError: the journal cannot be used.
        """
        announced = self._backend.board.outages()
        if announced and announced != self._announced:
            self._announced_at = self._clock()
        self._announced = announced
        if self._clock() - max(self._announced_at, self.recovered_at) >= LINGER:
            self._backend.board.clear_copies(LINGER)

    def refresh(self, merged: Mapping[_Place, tuple[str, int]]) -> tuple[list[SharedCopy], set[_Place]]:
        """Keep categories as they are after a merge: if the server that has merged them is lost before its replica has
        them, no other worker may have them, and nothing else tells of what was wiped.

        :param merged: the kind of each session, and the version that Redis had by the merge; 0: of none.
        :return: those to be published for the other workers of this host, which may be all that there is if this one
            ends; and those that Redis has lost since. Of these nothing is kept: this host, and what waits in its
            journal, knows more than that.
        :raises StoreError: they cannot be read. Until they can, what was merged waits on, and is merged again.
        """
        memory, wanted = self._backend.memory, list(merged)
        asked_at = self._clock()
        copies = self._backend.primary.copies(wanted, timeout=steps.TIMEOUT) if wanted else []
        shared, lost = list[SharedCopy](), set[_Place]()
        for (digest, category), copy in zip(wanted, copies, strict=True):
            kind, version = merged[digest, category]
            if (copy.version if copy.mark else 0) < version:
                lost.add((digest, category))
                continue
            copy = _with_beginning(copy)
            memory.put_category(digest, category, copy, kind=kind, as_of=asked_at)
            shared.append(SharedCopy(digest, category, copy, kind=kind))
        return shared, lost


class Merges(Step):
    """Merges changes that were kept during an outage. Numbers are added where there is none, unless a worker was waited
    for in vain that may have one to give back: such an addition is in doubt then.

    :param now_ms: milliseconds since 1970 by the host's clock.
    :ivar nothing_waits: since a store came back, nothing has waited any more.
    """

    is_ordered = True

    def __init__(
        self, backend: Backend, pushes: Pushes, copies: MergedCopies, giving_back: GivingBack, now_ms: Callable[[], int]
    ) -> None:
        super().__init__(backend)
        self._pushes = pushes
        self._copies = copies
        self._giving_back = giving_back
        self._now_ms = now_ms
        self._as_of_ms = 0  # how long something has waited is counted until then; 0: until the first run
        self.nothing_waits = True
        self._pages = Pages(self._journal.pending_writes)
        self._merged: set[int] = set()  # the numbers of entries that wait only to be taken out of the journal
        self._journal.on_damaged = self._entry_was_damaged

    def _entry_was_damaged(self, category: str) -> None:
        # What stands in a damaged row may be anything, and a metric has few values.
        known = category if category in self._backend.table.categories else "unknown"
        self._losses.note(Loss.MERGE_DROPPED, Cause.DAMAGED_ENTRY, known)

    def recovered(self) -> None:
        """Note that a store is back: how long something has waited is counted until now, however long it takes to merge
        it, and whatever fails meanwhile."""
        if self.nothing_waits:
            self._as_of_ms, self.nothing_waits = self._now_ms(), False

    def pending(self, reach: Reach) -> Iterator[Sequence[_Group]]:
        """Yield what waits, in the order in which it was written, from where the last run was interrupted: that of many
        categories at a time, and auth of one session. While Redis is to be given back what it lost, none."""
        if not reach.redis or self._giving_back.holds(reach):
            return
        is_any = self._pages.is_under_way
        for page in self._pages if is_any else self._pages.begin():
            is_any, being_carried = True, steps.being_carried(self._backend)
            groups = _by_category(
                entry
                for entry in self._without_merged(page)
                if reach.has(entry.digest)
                and (reach.database or not _is_for_database(entry))
                and entry.digest not in being_carried
            )
            if for_redis := [group for group in groups if not _is_for_database(group[0])]:
                yield for_redis
            yield from ([group] for group in groups if _is_for_database(group[0]))
        self.nothing_waits = self.nothing_waits or not is_any

    def send(self, entries: Sequence[_Group], reach: Reach) -> bool:
        """Merge what waits for some categories, or for auth of one session. Return whether any of it is done."""
        try:
            if self._giving_back.holds_now(reach):
                return False
            groups = [group for group in entries if not self._giving_back.holds_session(group[0].digest, group[0].kind)]
            return bool(groups and self._merge(groups, reach))
        except StoreError:
            self._pages.begin()  # what comes after them must not be merged before them
            raise

    def give_up(self, entry: _Group, error: Exception) -> bool:
        """Give up what waits for a category and cannot be merged, and return True: all others go on."""
        steps.give_up(self._backend, entry[0].digest, entry[0].kind, [change.category for change in entry], error)
        self._forget(entry)
        return True

    def _merge(self, groups: Sequence[_Group], reach: Reach) -> set[PendingWrite]:
        self._as_of_ms = self._as_of_ms or self._now_ms()
        done = {entry for group in groups for entry in group if self._is_too_old(entry)}
        self._drop(done, Cause.TOO_OLD)
        left = [[entry for entry in group if entry not in done and self._journal.can_read(entry)] for group in groups]
        left = list(filter(None, left))
        if left and _is_for_database(left[0][0]):
            return done.union(*map(self._merge_auth, left))
        return done | (self._merge_groups(left, reach) if left else set())

    def _without_merged(self, entries: Sequence[PendingWrite]) -> list[PendingWrite]:
        """Return the entries that are still to be merged: others stand in the journal because its disk had no room to
        take them out."""
        merged = [entry for entry in entries if entry.seq in self._merged]
        if merged:
            self._forget(merged)
        return [entry for entry in entries if entry not in merged]

    def _forget(
        self, entries: Collection[PendingWrite], copies: Sequence[SharedCopy] = (), applied: Sequence[PendingWrite] = ()
    ) -> None:
        """Take entries that are done out of the journal. If the disk has no room for that, remember them."""
        numbers = {entry.seq for entry in entries}
        try:
            _take_out(self._backend, partial(self._journal.forget_writes, entries, applied=applied), copies)
        except StoreError as error:
            if not is_full(error):
                raise
            self._merged |= numbers
        else:
            self._merged -= numbers

    def _is_too_old(self, entry: PendingWrite) -> bool:
        """Return whether Redis may have forgotten by now what else was written, or wiped. A wipe holds however late it
        is: what was written since stays."""
        oldest_ms = self._backend.settings.local_cache_ttl * 1000
        return entry.operation is not Operation.WIPE and self._as_of_ms - entry.at_ms > oldest_ms

    def _merge_groups(self, groups: Sequence[_Group], reach: Reach) -> set[PendingWrite]:
        """Merge what waits for some categories, and return what is merged or dropped."""
        sent = self._pushes.send_with_rows(
            lambda some: self._send_unless_lost(some, reach), groups, lambda group: group[0].digest, reach
        )
        done: list[PendingWrite] = []
        merged: list[tuple[_Group, Merged]] = []
        failed: StoreError | None = None
        for group, reply in sent:
            if isinstance(reply, StoreError):
                if reply.error_class not in _OF_ONE_SESSION:
                    failed = reply
                    continue
                self._drop(group, Cause.REFUSED)
            elif reply.status == "late":
                failed = failed or StoreError(PRIMARY, ErrorClass.LOCAL, "LateCommand")
                continue
            elif reply.status == "gone":
                continue  # whether the session lives is not known
            elif reply.status == "dead":
                self._drop(group, Cause.SESSION_OVER)
            else:
                merged.append((group, reply))
                continue
            done += group
        there = self._forget_done(merged, done)
        if len(there) < len(merged):  # the rest waits on, under the id by which it was sent
            failed = failed or StoreError(PRIMARY, ErrorClass.LOCAL, "LostSince")
        if failed is not None:  # what comes after it must not be merged before it
            raise failed
        return {*done, *chain.from_iterable(there)}

    def _forget_done(self, merged: Sequence[tuple[_Group, Merged]], dropped: Sequence[PendingWrite]) -> list[_Group]:
        """Take out of the journal what was dropped, and what was merged and is there still. Return the latter."""
        places = {_place_of(entry): (entry.kind, 0) for entry in dropped if not entry.shadow}
        for [first, *_], reply in merged:
            if not first.shadow:
                places[_place_of(first)] = first.kind, reply.version
        copies, lost = list[SharedCopy](), set(places)
        try:
            copies, lost = self._copies.refresh(places)
        finally:  # a copy may bring back what Redis does not have any more, or may not
            waits = [each for each in merged if _place_of(each[0][0]) in lost]
            made = {e: reply.version for group, reply in waits for e in _made_from_what_was_read(group, reply.outcomes)}
            self._journal.note_merged(made)
        there = [(group, reply) for group, reply in merged if group[0].shadow or _place_of(group[0]) not in lost]
        applied = [entry for group, reply in there for entry in self._note_merged(group, reply)]
        groups = [group for group, _ in there]
        self._forget([*dropped, *chain.from_iterable(groups)], copies, applied)
        return groups

    def _note_merged(self, group: _Group, reply: Merged) -> Iterator[PendingWrite]:
        """Note a merge before its entries leave the journal: what a worker has from before lacks it.

        :return: the entries that were applied, and of which it is known what they were made from.
        """
        if reply.version and not group[0].shadow:
            place = _place_of(group[0])
            self._backend.register.note_version(*place, reply.version)
            if any(entry.operation is Operation.WIPE for entry in group):
                self._backend.register.note_wipe(*place, reply.version)
        self._backend.recorder.count("merged_fields", sum(outcome is Outcome.APPLIED for outcome in reply.outcomes))
        for entry, outcome in zip(group, reply.outcomes, strict=True):
            _note_outcome(self._losses, _place_of(entry), entry.basis, outcome)
        return _made_from_what_was_read(group, reply.outcomes)

    def _send_unless_lost(self, groups: Sequence[_Group], reach: Reach) -> Sent[_Group]:
        """Send what waits for some categories. Where Redis has less than this host has seen, send it only if Redis has
        not lost data: what it had has run out then."""
        less, sent = split(self._send(groups), "less")
        if less and not self._giving_back.holds_now(reach):
            sent += self._send(less, whatever_is_there=True)
        return sent

    def _send(self, groups: Sequence[_Group], *, whatever_is_there: bool = False) -> Sent[_Group]:
        """Send what waits for some categories in one round trip. Return what was sent of each, and the reply.

        From before it is sent each entry is marked with the id of its write: should the answer be lost, the next try
        knows by it what Redis has, and adds nothing twice. What was written again meanwhile is left for the next try.

        :param whatever_is_there: also where Redis has less than this host has seen.
        """
        write_id, now = new_write_id(), self._backend.clock()
        digests = {group[0].digest for group in groups}
        moments_ms = {digest: self._redis.estimated_ms(digest, now) for digest in digests}
        ids = {entry: used for group in groups if (used := _used_id(group) or write_id) for entry in group}
        sent = _by_category(self._journal.mark_sent(ids, moments_ms))
        merges = [self._merge_for(group, ids[group[0]], whatever_is_there=whatever_is_there) for group in sent]
        return list(zip(sent, steps.merge_all(self._backend, merges, write_id), strict=True))

    def _merge_for(self, group: _Group, write_id: str, *, whatever_is_there: bool) -> Merge:
        first = group[0]
        changes = [_step(entry, self._giving_back.is_overdue) for entry in group]
        life_ms = max(entry.life_ms for entry in group)
        merge = merge_of(self._backend, first.digest, first.category, first.kind, changes, _guard_of(first), life_ms)
        is_known = not (whatever_is_there or first.shadow)
        since = self._backend.register.latest_version(first.digest, first.category) if is_known else 0
        return merge._replace(write_id=write_id, shadow=first.shadow, since=since)

    def _merge_auth(self, group: _Group) -> set[PendingWrite]:
        """Merge ordinary auth keys into their row, and return the entries, all done. Rights never wait here."""
        try:
            row = self._pushes.push_one(group[0].digest)
        except StoreError as error:
            if error.error_class is not ErrorClass.DATA:
                raise
            return self._drop(group, Cause.DAMAGED_ROW)
        while row is not None:
            change = CategoryChange()
            in_row = [entry for entry in group if not self._is_right(entry.field) and _may_apply(entry, row)]
            for entry in in_row:
                change.put(entry.field, entry.value)
            if not change or self._update(row, change):
                applied = len(in_row)
                self._backend.recorder.count("merged_fields", applied)
                left = len(group) - applied
                self._losses.note(Loss.MERGE_CONFLICTS, Cause.WRITTEN_SINCE, AUTH, left, digest=row.digest)
                self._forget(group, applied=in_row)
                return set(group)
            row = self._pushes.push_one(row.digest)  # another one was faster: again, with what is there now
        return self._drop(group, Cause.SESSION_OVER)

    def _is_right(self, key: str) -> bool:
        """Return whether a key is a user or a right. This package lets none wait here."""
        return self._backend.settings.is_identity(key)

    def _update(self, row: AuthRow, change: CategoryChange) -> bool:
        updated = self._backend.database.update(
            row.digest,
            seen=row.version,
            payload=apply_change(row.payload, change),
            user_id=row.user_id,
            idle_ms=row.idle_expires_at - row.read_at,
            timeout=steps.TIMEOUT,
        )
        if updated is not None:
            self._backend.row_changed(row.digest)
            self._pushes.push_one(row.digest)
        return updated is not None

    def _drop(self, entries: Collection[PendingWrite], why: Cause) -> set[PendingWrite]:
        for entry in entries:
            self._losses.note(Loss.MERGE_DROPPED, why, entry.category, digest=entry.digest)
        if entries:
            log.warning(
                "%d changes of sessions that were kept during an outage are dropped: %s",
                *(len(entries), why),
                extra=fields("changes_dropped", number=len(entries), cause=why.value),
            )
            self._forget(entries)
        return set(entries)


def _take_out(backend: Backend, forget: Callable[[Sequence[SharedCopy]], Shared], copies: Sequence[SharedCopy]) -> None:
    """Take entries that are done out of the journal, and share in the same transaction what they became. Without that
    if the disk has no room for it: siblings are shown less then.

    :raises StoreError: the journal cannot be used, or the disk has no room for the deletions either.
    """
    try:
        shared = forget(copies)
    except StoreError as error:
        if not (copies and is_full(error)):
            raise
        shared = forget(())
    backend.reports.shared(*shared)


class Carries(Step):
    """Brings to the present ids of sessions the data that could not be read when they were given those."""

    def __init__(self, backend: Backend, pushes: Pushes, copies: MergedCopies, giving_back: GivingBack) -> None:
        super().__init__(backend)
        self._pushes = pushes
        self._copies = copies
        self._giving_back = giving_back

    def pending(self, reach: Reach) -> Iterator[Sequence[Carry]]:
        """Yield the carries whose shards answer. While Redis is to be given back what it lost, none."""
        if not reach.redis or self._giving_back.holds(reach):
            return
        for page in steps.pages(self._journal.pending_carries):
            yield from _unchained(carry for carry in page if reach.has(carry.origin) and reach.has(carry.digest))

    def send(self, entries: Sequence[Carry], reach: Reach) -> bool:
        """Bring what sessions had under former ids to the present ones, where nothing is there, and return whether any
        is done."""
        if self._giving_back.holds_now(reach):
            return False
        entries = [entry for entry in entries if not self._giving_back.holds_session(entry.digest, entry.kind)]
        wanted = [(entry.origin, name) for entry in entries for name in entry.categories]
        copies = dict(zip(wanted, self._redis.copies(wanted, timeout=steps.TIMEOUT), strict=True))
        if any(self._is_less(*place, copy) for place, copy in copies.items()) and self._giving_back.holds_now(reach):
            return False
        left = {entry: self._left(entry, copies) for entry in entries}
        merges = _with_records({entry: self._brought(entry, left[entry]) for entry in entries})
        versions: dict[_Place, int] = {}
        sent = self._pushes.send_with_rows(
            lambda some: self._carried(some, merges, versions), entries, lambda entry: entry.digest, reach
        )
        for entry, reply in sent:
            if isinstance(reply, StoreError) or reply.status == "dead":
                why = Cause.DAMAGED_ROW if isinstance(reply, StoreError) else Cause.SESSION_OVER
                for name in entry.categories:
                    self._losses.note(Loss.MERGE_DROPPED, why, name, digest=entry.digest)
        done = [entry for entry, reply in sent if not (isinstance(reply, Merged) and reply.status in ("gone", "late"))]
        done, kept = self._kept(done, versions)
        self._note_outcomes(done, merges, dict(sent))
        gone = list(self._lost({entry: left[entry] for entry in done}))
        _take_out(self._backend, partial(self._journal.forget_carries, done), kept)
        for origin, name in gone:
            self._losses.note(Loss.WRITES_LOST, Cause.LOST_BY_REDIS, name, digest=origin)
        return bool(done)

    def _note_outcomes(
        self,
        done: Sequence[Carry],
        merges: Mapping[Carry, Sequence[Merge]],
        replies: Mapping[Carry, Merged | StoreError],
    ) -> None:
        """Note what the present ids have not got, unless a later one of their former ids had it, too."""
        brought: set[tuple[_Place, str]] = set()
        for entry in done:
            reply, steps = replies[entry], [(m.category, step.name) for m in merges[entry] for step in m.steps]
            outcomes = () if isinstance(reply, StoreError) else reply.outcomes
            for (category, name), outcome in zip(steps, outcomes, strict=False):  # none if the session is over
                place = entry.digest, category
                if (place, name) not in brought:
                    _note_outcome(self._losses, place, Basis.SEEN, outcome)
                brought.add((place, name))

    def _kept(self, done: Sequence[Carry], versions: Mapping[_Place, int]) -> tuple[list[Carry], Sequence[SharedCopy]]:
        """Return the carries that Redis has still, and what they have become, which is to be shared: it may have lost
        data since.

        :param versions: of what was brought.
        """
        being_carried = steps.being_carried(self._backend, but_for=done)  # of these less is there than will be
        whole = [entry for entry in done if entry.digest not in being_carried]
        places = {(e.digest, name): (e.kind, versions.get((e.digest, name), 0)) for e in whole for name in e.categories}
        shared, lost = self._copies.refresh(places)
        for place in versions.keys() - lost:  # what a worker of this host has from before lacks what was brought
            self._backend.register.note_version(*place, versions[place])
        return [e for e in done if lost.isdisjoint((e.digest, name) for name in e.categories)], shared

    def give_up(self, entry: Carry, error: Exception) -> bool:
        """Give up a carry that cannot be done, and return True: its data stays where it is, until it runs out or its
        id's end takes it away."""
        steps.give_up(self._backend, entry.digest, entry.kind, entry.categories, error)
        self._journal.forget_carries([entry._replace(left_us=0)])
        return True

    def _left(self, entry: Carry, copies: Mapping[tuple[str, str], CategoryCopy]) -> dict[str, CategoryCopy]:
        """Return what is left under a former id; where Redis has lost that, what this host knew of it.

        :param copies: the digest of the former id and a category → what Redis has there.
        """
        known = self._journal.overlay(RecordRef(entry.digest, entry.kind)).copies
        return {name: _newer(copies[entry.origin, name], known.get(name)) for name in entry.categories}

    def _brought(self, entry: Carry, left: Mapping[str, CategoryCopy]) -> list[Merge]:
        """Return merges that bring what is left under a former id."""
        kept = {name: self._without_others(name, copy, entry.categories) for name, copy in left.items()}
        return [
            merge_of(self._backend, entry.digest, name, entry.kind, steps, _guard_of(entry), entry.lives[name])
            for name, copy in kept.items()
            if (steps := _steps_of(entry.origin, copy))
        ]

    def _lost(self, done: Mapping[Carry, Mapping[str, CategoryCopy]]) -> Iterator[tuple[str, str]]:
        """Yield digest and category of what this host has seen more of than was left anywhere."""
        register, now = self._backend.register, self._backend.clock()
        for entry, left in done.items():
            now_us = self._redis.estimated_ms(entry.origin, now) * 1000
            for name, copy in left.items():
                latest = register.latest_version(entry.origin, name)
                life_ms = entry.lives[name] or self._backend.life_of_kept(name, entry.kind)
                has_run_out = life_ms and latest < now_us - life_ms * 1000
                is_whole = (copy.version if copy.mark or copy.fields else 0) >= latest
                if not (is_whole or has_run_out or register.is_wiped_since(entry.origin, name, latest - 1000)):
                    yield entry.origin, name

    def _is_less(self, digest: str, category: str, copy: CategoryCopy) -> bool:
        """Return whether this host has seen more of a category than Redis has."""
        return (copy.version if copy.mark else 0) < self._backend.register.latest_version(digest, category)

    def _without_others(self, category: str, copy: CategoryCopy, carried: Sequence[str]) -> CategoryCopy:
        """Return a copy without the keys of other categories, which go along with theirs."""
        stays = self._backend.table.left_behind(category, copy.fields, carried)
        fields = {key: value for key, value in copy.fields.items() if key not in stays}
        return copy._replace(fields=fields) if stays else copy

    def _carried(
        self, entries: Sequence[Carry], merges: Mapping[Carry, Sequence[Merge]], versions: dict[_Place, int]
    ) -> Sent[Carry]:
        """Send the merges of some entries, and return the reply of Redis to each entry: the worst one to its merges.

        :param versions: get that of each category, by the merge.
        :raises StoreError: one of them failed.
        """
        sent = [merge for entry in entries for merge in merges[entry]]
        replies = self._merge_all(sent)
        versions |= {(merge.digest, merge.category): reply.version for merge, reply in zip(sent, replies, strict=True)}
        ended = iter(replies)
        replied = {entry: [next(ended) for _ in merges[entry]] for entry in entries}
        return [(entry, _worst(replied[entry])) for entry in entries]

    def _merge_all(self, merges: Sequence[Merge]) -> list[Merged]:
        """Send merges, and return how they ended.

        :raises StoreError: one of them failed.
        """
        done = []
        for reply in steps.merge_all(self._backend, merges):
            if isinstance(reply, StoreError):
                raise reply
            done.append(reply)
        return done


def _note_outcome(losses: Losses, place: _Place, basis: Basis, outcome: Outcome) -> None:
    """Note that Redis did not take a change, if it did not."""
    digest, category = place
    if outcome is Outcome.CONFLICT:
        losses.note(Loss.MERGE_CONFLICTS, Cause.of_conflict(basis), category, digest=digest)
    elif outcome is not Outcome.APPLIED:
        losses.note(Loss.MERGE_DROPPED, Cause[outcome.name], category, digest=digest)


def _worst(replies: Sequence[Merged]) -> Merged:
    """Return how several merges of one session ended, as one."""
    statuses = {reply.status for reply in replies}
    worst = next((status for status in ("gone", "late", "dead") if status in statuses), "merged")
    return Merged(worst, outcomes=tuple(chain.from_iterable(reply.outcomes for reply in replies)))


def _place_of(entry: PendingWrite) -> _Place:
    return entry.digest, entry.category


def _with_beginning(copy: CategoryCopy) -> CategoryCopy:
    """Return a copy as it was read behind a merge: what is not there may have been lost before."""
    return copy if copy.mark else copy._replace(began=copy.version)


def _used_id(group: _Group) -> str:
    """Return the id under which entries of a category were sent before; empty: they were not. They are sent under the
    same one again: else what fails for long would be followed by more and more ids."""
    return next((entry.doubts.split()[-1] for entry in group if entry.doubts), "")


def _made_from_what_was_read(group: _Group, outcomes: Sequence[Outcome]) -> Iterator[PendingWrite]:
    """Yield the entries that were applied, and of which it is known what they were made from."""
    for entry, outcome in zip(group, outcomes, strict=True):
        if outcome is Outcome.APPLIED and entry.basis is Basis.SEEN and entry.operation is not Operation.ADD:
            yield entry


def _is_for_database(entry: PendingWrite) -> bool:
    """Return whether an entry goes to the database: auth of a user is what the database says."""
    return entry.category == AUTH and entry.kind == SIGNED_IN and not entry.shadow


def _by_category(entries: Iterable[PendingWrite]) -> list[list[PendingWrite]]:
    """Return the entries by the category of one session that they are for, each in their order."""
    groups: dict[tuple[str, bool, str], list[PendingWrite]] = {}
    for entry in entries:
        groups.setdefault((entry.digest, entry.shadow, entry.category), []).append(entry)
    return list(groups.values())


def _guard_of(entry: PendingWrite | Carry) -> str:
    """Return the condition on which Redis takes an entry, see ``record.lua``."""
    is_shadow = isinstance(entry, PendingWrite) and entry.shadow
    return "alive" if entry.kind == SIGNED_IN and not is_shadow else "free"


def merge_of(
    backend: Backend, digest: str, category: str, kind: str, steps: Sequence[MergeStep], guard: str, life_ms: int = 0
) -> Merge:
    """Return a merge into a category.

    :param life_ms: how long it lives; 0: as :meth:`.Backend.life_of_kept` says.
    """
    return Merge(digest, category, steps, guard, life_ms or backend.life_of_kept(category, kind))


def _step(entry: PendingWrite, is_in_doubt: bool) -> MergeStep:
    """Return a change as Redis is told of it.

    :param is_in_doubt: whether an addition to what is not there may have been made before.
    """
    if entry.operation is Operation.ADD:
        moment = max(entry.moment, 1) if entry.is_sent else 0  # what was never sent cannot be in doubt
        base = b"" if is_in_doubt else None
        return MergeStep(Operation.ADD, entry.field, entry.delta, entry.token, moment, base, "", entry.acknowledged)
    return MergeStep(
        entry.operation,
        entry.field,
        entry.value or b"",
        _MODES[entry.basis],
        entry.moment,
        entry.base,
        entry.doubts,
        entry.acknowledged,
    )


_MODES = {Basis.BLIND: TIME, Basis.SEEN: SINCE, Basis.UNSEEN: ABSENT}


def _may_apply(write: PendingWrite, row: AuthRow) -> bool:
    """Return whether a field was not written since the host saw the row: the merge script's rule for Redis."""
    now = row.payload.get(write.field)
    return row.version == write.moment or now in (write.base, write.value)


def _newer(there: CategoryCopy, known: CategoryCopy | None) -> CategoryCopy:
    """Return the copy of Redis, unless this host knew more: a former id is over, and nothing of it is given back to a
    Redis that lost data, but for what was given back before."""
    if known is None or not (known.fields or not there.mark):
        return there
    if there.mark and (known.version == there.version or known.version <= (there.given_back or there.version)):
        return there
    later = {key: value for key, value in there.fields.items() if written_at(there.mark, key) > known.version}
    return known._replace(fields={**known.fields, **later}, additions=known.additions + there.additions)


def _steps_of(digest: str, copy: CategoryCopy) -> list[MergeStep]:
    """Return the steps that bring what was there under a former id, where nothing is under the present one."""
    fields = [MergeStep(Operation.SET, *field, ABSENT, acknowledged=_LONG_AGO) for field in copy.fields.items()]
    mark = copy.mark or (mark_of_copy(digest, copy) if copy.fields else b"")
    return [MergeStep(Operation.RECORD, value=mark), *fields] if mark else fields


def _with_records(merges: Mapping[Carry, Sequence[Merge]]) -> dict[Carry, list[Merge]]:
    """Return the merges. Where data of several former ids goes to one session, the first merge of a category begins
    with the record of whichever has one. It tells which writes of this host are in the data: else what waits, and was
    made from that data, would be a conflict with it."""
    records: dict[tuple[str, str], MergeStep] = {}
    for merge in (merge for some in merges.values() for merge in some):
        if merge.steps[0].operation is Operation.RECORD:
            records.setdefault((merge.digest, merge.category), merge.steps[0])

    def begun(merge: Merge) -> Merge:
        record = records.pop((merge.digest, merge.category), None)
        if record is None or merge.steps[0].operation is Operation.RECORD:
            return merge
        return merge._replace(steps=[record, *merge.steps])

    return {entry: [begun(merge) for merge in some] for entry, some in merges.items()}


def _unchained(carries: Iterable[Carry]) -> Iterator[list[Carry]]:
    """Yield carries in their order, those that can be done together in one list: none is from where another one
    goes."""
    together: list[Carry] = []
    for carry in carries:
        if any(carry.origin == before.digest for before in together):
            yield together
            together = []
        together.append(carry)
    if together:
        yield together
