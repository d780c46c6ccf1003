"""After an outage: the order in which what this host's journal holds reaches the stores. Revocations go first, then
data of former ids, pushes and changes of data. What is still to be carried from a session that was revoked stays behind
its tombstone until that is done.

Everything here is idempotent (absolute values, versions, compare-and-set, additions with ids that Redis remembers), so
it may be repeated after any failure.

Of a Redis of several shards some may answer and others not: what is for those waits, and nothing else does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from ..policy.health import DATABASE, ONLY
from ..policy.values import ErrorClass, StoreError
from ..stores.backend import Backend
from ..stores.host.opening import is_full
from ..support.logs import Once, fields
from . import calls
from .carries import Carries, unchained
from .copies import MergedCopies
from .giving_up import place_of
from .merges import Merges, is_for_database
from .pushes import Pushes
from .revocations import MissedRevocations

log = logging.getLogger(__name__)

_SILENCE = 600.0
"""Seconds for which an error that is met again and again is not logged again."""

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
    :param give_up: told of an entry that cannot be replayed, and why in a way that is not known: whether it takes it
        out of the journal. Others stay, for they end sessions, and are tried again.
    """

    replay: Callable[[Sequence[Any]], bool]
    entries: Sequence[Any]
    is_ordered: bool = False
    give_up: Callable[[Any, Exception], bool] = lambda entry, error: False


class Reconciler:
    """Replays the journal, many sessions at a time.

    :param now_ms: milliseconds by the clock of the host's workers; ages of journal entries only.
    :param clock: monotonic seconds.
    :ivar merges: of changes of data.
    :ivar nothing_waits: since a store came back, nothing has waited any more.
    """

    def __init__(
        self,
        backend: Backend,
        now_ms: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = backend.journal
        self._locate = backend.health.locate
        self._now_ms = now_ms or backend.now_ms
        self._clock = clock
        self.copies = MergedCopies(backend, clock)
        self.pushes = Pushes(backend)
        self.revocations = MissedRevocations(backend)
        self._carries = Carries(backend, self.pushes, self.copies)
        self.merges = Merges(backend, self.pushes, self.copies, self._now_ms())
        self.nothing_waits = True
        self._unknown = Once(_SILENCE, clock)
        self._after = 0  # the number of the change that was looked at last; 0: none of this pass

    def recovered(self) -> None:
        """A store is back: how long something has waited is counted until now, however long it takes to merge it, and
        whatever fails meanwhile."""
        if self.nothing_waits:
            self.merges.as_of_ms, self.nothing_waits = self._now_ms(), False

    def hold(self, must_wait: Callable[[], bool]) -> None:
        """Ask before each step that brings data to Redis whether it must wait, because Redis may have lost some."""
        self.merges.must_wait = self._carries.must_wait = must_wait

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
        for steps in self._kinds(redis, database, shards, data):
            for step in self._those_of(steps):
                try:
                    moved = step.replay(step.entries) or moved
                except StoreError as error:
                    if (error.store == "journal" and not is_full(error)) or step.is_ordered:
                        self._after = 0
                        raise
                    moved_some, left = self._one_by_one(step, error, left)
                    moved = moved or moved_some
                except Exception as error:
                    moved_some, left = self._one_by_one(step, error, left)
                    moved = moved or moved_some
                if self._clock() >= end:
                    return Progress(moved, False, left)
        return Progress(moved, True, left)

    def tell_held(self, redis: bool, database: bool, shards: Container[str]) -> None:
        """Have the journal take the revocations that only this process knows of; where it still does not, tell the
        stores of them.

        :raises StoreError: one of them does not answer.
        """
        queue = self._journal.revocations
        with suppress(StoreError):
            queue.write_held()
        if any(queue.held()):
            being_carried = calls.ask_journal(self._carries.waiting, "replay") or ()
            self.revocations.tell_held(redis, database, shards, being_carried)

    def _kinds(self, redis: bool, database: bool, shards: Container[str], data: bool) -> Iterator[Iterator[_Step]]:
        """Yield the steps of each kind of entry; an error of one kind stops no other kind."""
        if database:
            yield self._users(redis, shards)
        yield self._revocations(redis, database, shards)
        if redis and data:
            yield self._carried(database, shards)
        if redis and database:
            yield self._pushes(shards)
        if redis and data:
            yield self._changes(database, shards)

    def _those_of(self, steps: Iterator[_Step]) -> Iterator[_Step]:
        """Steps of one kind, a batch of entries each, as far as they can be read."""
        try:
            yield from steps
        except StoreError:
            raise
        except Exception as error:
            self.note_unknown(error)

    def _users(self, redis: bool, shards: Container[str]) -> Iterator[_Step]:
        for user in self._journal.revocations.pending_users(calls.BATCH, redis=redis):
            revoke = partial(self.revocations.revoke_user, redis=redis, shards=shards)
            yield _Step(partial(revoke, being_carried=self._carries.waiting()), [user])

    def _revocations(self, redis: bool, database: bool, shards: Container[str]) -> Iterator[_Step]:
        revoke = partial(self.revocations.revoke, redis=redis, database=database, shards=shards)
        for revocations in calls.pages(partial(self._journal.revocations.pending, database=database, redis=redis)):
            yield _Step(partial(revoke, being_carried=self._carries.waiting()), revocations)

    def _carried(self, database: bool, shards: Container[str]) -> Iterator[_Step]:
        carry = partial(self._carries.carry, database=database)
        for carries in calls.pages(self._journal.pending_carries):
            reached = [c for c in carries if self._locate(c.origin) in shards and self._locate(c.digest) in shards]
            yield from (_Step(carry, some, give_up=self._carries.give_up) for some in unchained(reached))

    def _pushes(self, shards: Container[str]) -> Iterator[_Step]:
        for pushes in calls.pages(self._journal.pending_pushes):
            yield _Step(self.pushes.push_pending, [push for push in pushes if self._locate(push.digest) in shards])

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
                yield _Step(partial(self.merges.merge, database=database), reached, is_ordered=True)
            if len(waiting) < calls.BATCH:
                break
        self.nothing_waits = self.nothing_waits or not (waiting or self._after)
        self._after = 0

    def _one_by_one(self, step: _Step, error: Exception, left: StoreError | None) -> tuple[bool, StoreError | None]:
        """Replay entries one by one that could not be replayed together.

        :param left: why an entry was left before.
        :return: whether any was replayed, and why one was left.
        """
        moved = False
        for entry in step.entries:
            failed: Exception | None = error
            if len(step.entries) > 1:
                try:
                    moved, failed = step.replay([entry]) or moved, None
                except Exception as again:
                    failed = again
            if isinstance(failed, StoreError):
                left = _worse(left, failed)
            elif failed is not None:
                is_given_up = step.give_up(entry, failed)
                moved = moved or is_given_up
                if not is_given_up:
                    self.note_unknown(failed)
        return moved, left

    def note_unknown(self, error: Exception) -> None:
        """Log an error that the recovery does not know, once in a while: it may be met at each round."""
        place = place_of(error)
        if self._unknown.is_due(place):
            log.error(
                "a step of the recovery failed with %s in %s. What it is for is tried again; all else goes on.",
                *(type(error).__name__, place),
                extra=fields("recovery_step_failed", cause=type(error).__name__, place=place),
            )


def _worse(left: StoreError | None, failed: StoreError) -> StoreError:
    """Why entries were left. One of them must not keep all others, or a whole host, from the stores.

    :raises StoreError: two say that no store answers, unless it is about their data.
    """
    known = left is not None and _is_outage(left)
    if (failed.store == "journal" and not is_full(failed)) or (known and _is_outage(failed)):
        raise failed
    return left if left is not None and known else failed


def _is_outage(error: StoreError) -> bool:
    """Return whether an error says that a store does not answer. A full disk keeps no entry from the stores."""
    return error.error_class not in _NO_OUTAGE and not is_full(error)


def answering(backend: Backend) -> tuple[frozenset[str], bool]:
    """What requests use at the moment in both directions: the shards of the primary, and whether the database."""
    health = backend.health
    return frozenset(health.shards) - set(health.lost_shards), health.is_whole(DATABASE)
