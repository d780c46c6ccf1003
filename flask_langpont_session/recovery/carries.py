"""Carries: the data that sessions have under former ids is brought to the present ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..metrics.losses import Cause, Loss
from ..policy.changes import Operation
from ..policy.copies import CategoryCopy, RecordRef
from ..policy.errors import ErrorClass, StoreError
from ..policy.health import PRIMARY
from ..policy.ids import ANONYMOUS
from ..stores.backend import Backend
from ..stores.host.entries import WIPED_FIELD, Carry
from ..stores.redis.commands import new_write_id
from ..stores.redis.records import ABSENT, TIME, Merge, Merged, MergeStep
from . import steps
from .merges import MergedCopies, guard_of, merge_of
from .rows import Pushes, Sent
from .steps import Reach, Step

if TYPE_CHECKING:
    from .giving_back import GivingBack

_LONG_AGO = 1
"""Microseconds since 1970. What was there under a former id was acknowledged before all that was written since."""


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
        wanted = [(entry.origin, name) for entry in entries for name in entry.categories]
        if self._giving_back.holds_now(reach):
            return False
        copies = dict(zip(wanted, self._redis.copies(wanted, timeout=steps.TIMEOUT), strict=True))
        if any(self._is_less(*place, copy) for place, copy in copies.items()) and self._giving_back.holds_now(reach):
            return False
        merges = _with_records({entry: self._brought(entry, copies) for entry in entries})
        sent = self._pushes.send_with_rows(
            lambda some: self._carried(some, merges), entries, lambda entry: entry.digest, reach
        )
        for entry, reply in sent:
            if isinstance(reply, StoreError) or reply.status == "dead":
                why = Cause.DAMAGED_ROW if isinstance(reply, StoreError) else Cause.SESSION_OVER
                for name in entry.categories:
                    self._losses.note(Loss.MERGE_DROPPED, why, name)
        done = [entry for entry, reply in sent if not (isinstance(reply, Merged) and reply.status in ("gone", "late"))]
        self._wipe([entry for entry in done if entry.left_us])
        self._journal.forget_carries(done)
        being_carried = steps.being_carried(self._backend)  # of these less is there than will be
        whole = [entry for entry in done if entry.digest not in being_carried]
        changed = {(entry.digest, name): entry.kind for entry in whole for name in entry.categories}
        # What the host has of a former id is from before it was given up, and could be shown or given back to Redis.
        changed |= {(entry.origin, name): ANONYMOUS for entry in done if entry.left_us for name in entry.categories}
        self._backend.reports.shared(*self._backend.board.publish_copies(self._copies.refresh(changed)))
        return bool(done)

    def give_up(self, entry: Carry, error: Exception) -> bool:
        """Give up a carry that cannot be done, and return True: its data stays where it is, until it runs out or its
        id's end takes it away."""
        steps.give_up(self._backend, entry.digest, entry.kind, entry.categories, error)
        self._journal.forget_carries([entry])
        return True

    def _brought(self, entry: Carry, copies: Mapping[tuple[str, str], CategoryCopy]) -> list[Merge]:
        """Return merges that bring what lies under a former id; where Redis has lost that, what this host knew of it.

        :param copies: the digest of the former id and a category → what Redis has there.
        """
        known = self._journal.overlay(RecordRef(entry.digest, entry.kind)).copies
        left = {name: _newer(copies[entry.origin, name], known.get(name)) for name in entry.categories}
        left = {name: self._without_others(name, copy, entry.categories) for name, copy in left.items()}
        return [
            merge_of(self._backend, entry.digest, name, entry.kind, steps, guard_of(entry), entry.lives[name])
            for name, copy in left.items()
            if (steps := _steps_of(copy))
        ]

    def _is_less(self, digest: str, category: str, copy: CategoryCopy) -> bool:
        """Return whether this host has seen more of a category than Redis has."""
        return (copy.version if copy.mark else 0) < self._backend.register.latest_version(digest, category)

    def _without_others(self, category: str, copy: CategoryCopy, carried: Sequence[str]) -> CategoryCopy:
        """Return a copy without the keys of other categories, which go along with theirs."""
        stays = self._backend.table.left_behind(category, copy.fields, carried)
        fields = {key: value for key, value in copy.fields.items() if key not in stays}
        return copy._replace(fields=fields) if stays else copy

    def _wipe(self, entries: Sequence[Carry]) -> None:
        """Wipe what former ids had that were given up.

        :raises StoreError: they may have it still. To be done again, with all that was carried.
        """
        places = [(entry, name) for entry in entries for name in entry.categories]
        wipes = [
            merge_of(self._backend, entry.origin, name, ANONYMOUS, [_wipe_at(entry.left_us)], "free")
            for entry, name in places
        ]
        replies = self._merge_all(wipes)
        for (entry, name), reply in zip(places, replies, strict=True):
            if reply.status != "merged":
                raise StoreError(PRIMARY, ErrorClass.LOCAL, "LateCommand")
            self._backend.register.note_wipe(entry.origin, name, reply.version)

    def _carried(self, entries: Sequence[Carry], merges: Mapping[Carry, Sequence[Merge]]) -> Sent[Carry]:
        """Send the merges of some entries, and return the reply of Redis to each entry: the worst one to its merges.

        :raises StoreError: one of them failed.
        """
        replies = iter(self._merge_all([merge for entry in entries for merge in merges[entry]]))
        statuses = {entry: {next(replies).status for _ in merges[entry]} for entry in entries}
        worst = ("gone", "late", "dead")
        return [(entry, Merged(next((s for s in worst if s in statuses[entry]), "merged"))) for entry in entries]

    def _merge_all(self, merges: Sequence[Merge]) -> list[Merged]:
        """Send merges, and return how they ended.

        :raises StoreError: one of them failed.
        """
        limits, write_id = self._backend.limits, new_write_id()
        done = []
        replies = self._redis.merge_all(merges, limits=limits, timeout=steps.TIMEOUT, write_id=write_id)
        for merge, reply in zip(merges, replies, strict=True):
            if isinstance(reply, StoreError):
                raise reply
            if reply.version:  # what a worker of this host has from before lacks what was brought
                self._backend.register.note_version(merge.digest, merge.category, reply.version)
            done.append(reply)
        return done


def _newer(there: CategoryCopy, known: CategoryCopy | None) -> CategoryCopy:
    """Return the copy of Redis, unless this host knew more: a former id is over, and nothing of it is given back to a
    Redis that lost data."""
    if known is None or (there.mark and not (known.fields and known.version > there.version)):
        return there
    return known


def _wipe_at(moment_us: int) -> MergeStep:
    return MergeStep(Operation.WIPE, WIPED_FIELD, b"", TIME, moment_us, acknowledged=moment_us)


def _steps_of(copy: CategoryCopy) -> list[MergeStep]:
    """Return the steps that bring what was there under a former id, where nothing is under the present one."""
    fields = [MergeStep(Operation.SET, *field, ABSENT, acknowledged=_LONG_AGO) for field in copy.fields.items()]
    return [MergeStep(Operation.RECORD, value=copy.mark), *fields] if copy.mark else fields


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
