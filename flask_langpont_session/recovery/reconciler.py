"""After an outage: the order in which what this host's journal holds reaches the stores. Data of former ids is carried
first, for what follows needs it; then revocations, pushes and data.

Everything here is idempotent (absolute values, versions, compare-and-set, additions with ids that Redis remembers), so
it may be repeated after any failure.

Of a Redis of several shards some may answer and others not: what is for those waits, and nothing else does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..policy.health import DATABASE, ONLY
from ..policy.values import ErrorClass, StoreError
from ..stores.backend import Backend
from . import calls
from .carries import Carries, unchained
from .copies import MergedCopies
from .merges import Merges, is_for_database
from .pushes import Pushes
from .revocations import MissedRevocations

_NO_OUTAGE = frozenset({ErrorClass.DATA, ErrorClass.TOPOLOGY})
"""Classes of errors that say something of an entry, or of a slot that is being moved, and nothing of a store."""


class Progress(NamedTuple):
    """What one run did.

    :param moved: whether any store was told anything.
    :param is_through: whether all that waits was looked at; else it goes on there at the next run.
    :param left: why an entry could not be replayed, though the stores took others; None: all is well.
    """

    moved: bool
    is_through: bool
    left: StoreError | None = None


class _Step(NamedTuple):
    """Entries that are replayed together.

    :param replay: whether it did any of them.
    :param is_ordered: what comes after them must not be replayed before them.
    """

    replay: Callable[[Sequence[Any]], bool]
    entries: Sequence[Any]
    is_ordered: bool = False


class Reconciler:
    """Replays the journal, many sessions at a time.

    :param now_ms: wall clock in milliseconds; ages of journal entries only.
    :param clock: monotonic seconds.
    :ivar nothing_waits: since a store came back, nothing has waited any more.
    """

    def __init__(
        self,
        backend: Backend,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = backend.journal
        self._locate = backend.health.locate
        self._now_ms = now_ms
        self._clock = clock
        self.copies = MergedCopies(backend, clock)
        self.pushes = Pushes(backend)
        self.revocations = MissedRevocations(backend)
        self._carries = Carries(backend, self.pushes, self.copies)
        self._merges = Merges(backend, self.pushes, self.copies, now_ms())
        self.nothing_waits = True
        self._after = 0  # the number of the change that was looked at last; 0: none of this pass

    def recovered(self) -> None:
        """A store is back: how long something has waited is counted until now, however long it takes to merge it, and
        whatever fails meanwhile."""
        if self.nothing_waits:
            self._merges.as_of_ms, self.nothing_waits = self._now_ms(), False

    def run(
        self,
        *,
        redis: bool,
        database: bool,
        shards: Container[str] = (ONLY,),
        data: bool = True,
        seconds: float = calls.PATIENCE,
    ) -> Progress:
        """Replay what the answering stores can take of what waits: data of former ids, revocations, pushes, data; of
        each the oldest first.

        :param redis: the primary answers; `database`: the database answers.
        :param shards: those of the primary that answer.
        :param data: changes of sessions too.
        :param seconds: after these nothing more is begun.
        :raises StoreError: a store that was said to answer did not. Nothing is lost, run again.
        """
        end, moved = self._clock() + seconds, False
        while True:
            done = self._run_once(redis, database, shards, data, end)
            moved = moved or done.moved
            if not (done.moved and done.is_through) or self._clock() >= end:
                return done._replace(moved=moved)

    def _run_once(self, redis: bool, database: bool, shards: Container[str], data: bool, end: float) -> Progress:
        """Once through all that waits."""
        moved, left = False, None
        for step in self._steps(redis, database, shards, data):
            try:
                moved = step.replay(step.entries) or moved
            except StoreError as error:
                if error.store == "journal" or step.is_ordered:
                    self._after = 0
                    raise
                moved_some, left = _one_by_one(step, error, left)
                moved = moved or moved_some
            if self._clock() >= end:
                return Progress(moved, False, left)
        return Progress(moved, True, left)

    def _steps(self, redis: bool, database: bool, shards: Container[str], data: bool) -> Iterator[_Step]:
        """What is to be done, a batch at a time."""
        if redis and data:
            for carries in calls.pages(self._journal.pending_carries):
                reached = [c for c in carries if self._locate(c.origin) in shards and self._locate(c.digest) in shards]
                yield from (_Step(partial(self._carries.carry, database=database), some) for some in unchained(reached))
        if database:
            for user in self._journal.revocations.pending_users(calls.BATCH, redis=redis):
                yield _Step(partial(self.revocations.revoke_user, redis=redis, shards=shards), [user])
        revoke = partial(self.revocations.revoke, redis=redis, database=database, shards=shards)
        for revocations in calls.pages(partial(self._journal.revocations.pending, database=database, redis=redis)):
            yield _Step(partial(revoke, being_carried=self._carries.waiting()), revocations)
        if redis and database:
            for pushes in calls.pages(self._journal.pending_pushes):
                yield _Step(self.pushes.push_pending, [push for push in pushes if self._locate(push.digest) in shards])
        if redis and data:
            yield from self._changes(database, shards)

    def _changes(self, database: bool, shards: Container[str]) -> Iterator[_Step]:
        """The changes that wait, from where the last run was interrupted."""
        while waiting := self._journal.pending_writes(calls.BATCH, after=self._after):
            being_carried = self._carries.waiting()
            reached = [
                entry
                for entry in waiting
                if self._locate(entry.digest) in shards
                and (database or not is_for_database(entry))
                and entry.digest not in being_carried
            ]
            self._after = waiting[-1].seq
            if reached:
                yield _Step(partial(self._merges.merge, database=database), reached, is_ordered=True)
            if len(waiting) < calls.BATCH:
                break
        self.nothing_waits = self.nothing_waits or not (waiting or self._after)
        self._after = 0


def _one_by_one(step: _Step, error: StoreError, left: StoreError | None) -> tuple[bool, StoreError | None]:
    """Replay entries one by one that could not be replayed together.

    :param left: why an entry was left before.
    :return: whether any was replayed, and why one was left.
    """
    moved = False
    for entry in step.entries:
        failed: StoreError | None = error
        if len(step.entries) > 1:
            try:
                moved, failed = step.replay([entry]) or moved, None
            except StoreError as again:
                failed = again
        if failed is not None:
            left = _worse(left, failed)
    return moved, left


def _worse(left: StoreError | None, failed: StoreError) -> StoreError:
    """Why entries were left. One of them must not keep all others, or a whole host, from the stores.

    :raises StoreError: two say that no store answers, unless it is about their data.
    """
    known = left is not None and left.error_class not in _NO_OUTAGE
    if failed.store == "journal" or (known and failed.error_class not in _NO_OUTAGE):
        raise failed
    return left if left is not None and known else failed


def answering(backend: Backend) -> tuple[frozenset[str], bool]:
    """What requests use at the moment in both directions: the shards of the primary, and whether the database."""
    health = backend.health
    return frozenset(health.shards) - set(health.lost_shards), health.is_whole(DATABASE)
