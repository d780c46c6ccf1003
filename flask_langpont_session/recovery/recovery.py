"""Brings the stores what they missed in an outage, beside the monitor: in a thread of its own, a slice at a time.

A store that answers again is used by requests at once, whatever waits for it. That is safe, because nothing that waits
is known to this host by the store alone:

- **Reads.** Every worker of the host lays over each answer what the journal holds of that session: a revocation makes
  it dead, a newer row raises the version that is believed, changes are shown, and a category to which data is still to
  be brought counts as not known. (Without a file each worker does so for what it keeps itself.)
- **Writes.** What is written of a category, or of auth, while changes of it wait goes behind them into the journal:
  what this host acknowledged reaches the stores in that order.
- **Other hosts** never wait for this host's breakers: they believe a lease for VERIFY_INTERVAL, and their own journals.
  How soon they hear of a revocation depends on how soon it is sent, hence the order: revocations come before all data,
  and the database is told before Redis is. Then come data of former ids, rows, and changes of data; what is still to be
  carried from a session that was revoked stays behind its tombstone until that is done.
- **A Redis that lost data** is not believed by :class:`.ServerIdentity`, whichever breaker is closed. What Redis was
  not told while this worker could not see it is pushed as soon as it is in use; until then a lease counts no longer
  than any.

One worker of a host replays the journal at a time, and each gives back what it has. The others do not wait for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple

from ..policy.errors import ErrorClass, StoreError, role_of, shard_of
from ..policy.health import DATABASE, ONLY, PRIMARY
from ..stores.backend import Backend
from ..stores.host.opening import is_full
from ..stores.host.revocation_queue import RevocationQueue
from ..support.logs import Once, fields
from ..support.threads import PeriodicThread, end_all
from .giving_back import GivingBack, LossCount, Refill
from .merges import Carries, MergedCopies, Merges
from .revocations import DeliveredRevocations, MissedRevocations, MissedUserRevocations, Renewal
from .rows import Pushes, Resync
from .steps import Reach, Step, ask_journal, place_of

log = logging.getLogger(__name__)

SLICE = 0.25
"""Seconds for which one kind of work keeps the others from having their turn."""

_LET_OTHERS_IN = 0.003
"""Seconds between two slices: a worker that waits for the journal's file looks once in a millisecond if it is free."""

_PAUSE = 0.2
"""Seconds between looks at what is to be done."""

_SHARE_OF_TIME = 0.1
"""The most that looking through a journal whose entries wait for a lost shard may take of this thread's time."""

_EXIT_WAIT = 5.0
"""Seconds that :meth:`Recovery.stop` waits for the call that is under way."""

_SILENCE = 600.0
"""Seconds for which an error that is met again and again is not logged again."""

_NO_OUTAGE = frozenset({ErrorClass.DATA, ErrorClass.TOPOLOGY})
"""Classes of errors that say something of an entry, or of a slot that is being moved, and nothing of a store."""


class Progress(NamedTuple):
    """The outcome of one run.

    :param moved: whether any store was told anything.
    :param is_through: whether all that waits was looked at; else it goes on there at the next run.
    :param left: why an entry could not be sent, though the stores took others; None: all is well.
    """

    moved: bool = False
    is_through: bool = True
    left: StoreError | None = None


class Steps(NamedTuple):
    """The kinds of work of one worker, beginning with nothing.

    :param unkept: the revocations that the journal did not take.
    :param journal: the kinds of entries of the journal, in the order in which they are sent.
    """

    unkept: Sequence[Step]
    giving_back: GivingBack
    losses: LossCount
    delivered: DeliveredRevocations
    journal: Sequence[Step]
    merges: Merges
    copies: MergedCopies
    renewal: Renewal
    resync: Resync

    @classmethod
    def of(cls, backend: Backend, clock: Callable[[], float], now_ms: Callable[[], int]) -> Steps:
        """Return the steps of a worker that has the stores of an application."""
        pushes, copies, queue = Pushes(backend), MergedCopies(backend, clock), backend.journal.revocations
        giving_back = GivingBack(backend, Refill(backend, pushes), clock)
        merges = Merges(backend, pushes, copies, giving_back, now_ms)
        return cls(
            unkept=_revocations(backend, queue.held),
            giving_back=giving_back,
            losses=LossCount(backend, giving_back.refill),
            delivered=DeliveredRevocations(backend, now_ms, clock),
            journal=[*_revocations(backend, queue), Carries(backend, pushes, copies, giving_back), pushes, merges],
            merges=merges,
            copies=copies,
            renewal=Renewal(backend, clock),
            resync=Resync(backend, now_ms, clock),
        )


def _revocations(backend: Backend, queue: RevocationQueue) -> list[Step]:
    sessions = MissedRevocations(backend, queue)
    return [MissedUserRevocations(backend, queue, sessions), sessions]


class Recovery:
    """One worker's work after an outage.

    :param suspect: called with a store that failed: it should be probed.
    :param clock: monotonic seconds.
    :param now_ms: milliseconds by the clock of the host's workers; None: that of the backend.
    :ivar steps: what is done, and what of it is left.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        suspect: Callable[[str], None] = lambda store: None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._backend = backend
        self._suspect = suspect
        self._clock = clock
        self._now_ms = now_ms or backend.now_ms
        self._thread = PeriodicThread("replay", lambda: self._work, _PAUSE)
        self._turn = threading.RLock()
        self._next_drain = 0.0
        self._unknown = Once(_SILENCE, self._clock)
        # By shard: when all was well there for certain; the second one by its own clock.
        self._last_good: dict[str, tuple[float, int]] = {}
        self._began = self._clock()
        self.steps = Steps.of(self._backend, self._clock, self._now_ms)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def ensure_started(self) -> None:
        """Start the thread in this process unless it runs. Costs an attribute look-up when it does."""
        self._thread.ensure_started()

    def look_every(self, seconds: float) -> None:
        """Look for work every so many seconds from now on."""
        self._thread.pace(seconds)

    def stop(self) -> None:
        """End the thread, and wait for the call that is under way."""
        end_all([self._thread], _EXIT_WAIT)
        self._keep_delivered()
        self.steps.giving_back.end()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do nothing while this is open, but in the thread that opened it."""
        with self._turn:
            yield

    def _work(self) -> None:
        # Without a pause while there is more to do: others get the interpreter, and the journal, between two slices.
        while not self._thread.is_ending and not self.run_once():
            time.sleep(_LET_OTHERS_IN)  # the next slice waits for nothing: other threads and workers come first

    # -- what is noticed of the stores ---------------------------------------------------------------------------------

    def note_incident(self, shard: str = ONLY) -> None:
        """Note that Redis was exchanged for another server, or lost data: what changed lately is brought to it again,
        and what this worker holds. Usable from any thread, and does not block."""
        since, well_until_ms = self._last_good.get(shard, (self._began, 0))
        self.incident_since(since, [shard])
        self.steps.giving_back.begin(shard, well_until_ms)

    def incident_since(self, moment: float, shards: Collection[str]) -> None:
        """Note that these shards of Redis may lack what changed since a moment (monotonic seconds)."""
        self.steps.resync.incident_since(moment, shards)
        self.steps.renewal.begin()

    def look_for_losses(self, store: str, timeout: float) -> None:
        """Look whether a primary lost data that keeps its connections (an emptied server, a restored snapshot): its
        canary shows it.

        :param timeout: seconds that it is waited for.
        :raises StoreError: it does not answer, or takes no writes.
        """
        began = self._clock()
        canary, shard = self._backend.look_for_loss(store, timeout), shard_of(store)
        if not self.gives_back:
            locate = self._backend.health.locate
            self._backend.memory.nothing_was_lost(began, lambda digest: locate(digest) == shard)
        self._last_good[shard] = self._clock(), canary.now_ms

    def recovered(self, store: str, since: float) -> None:
        """Note that requests use a store again that was away since a moment (monotonic seconds): Redis may not know
        what changed meanwhile, and the database may have gone back."""
        if role_of(store) == PRIMARY:
            self.incident_since(since, [shard_of(store)])
        elif role_of(store) == DATABASE:
            self.steps.delivered.suspect()
        self.steps.copies.recovered_at = self._clock()
        self.steps.merges.recovered()

    @property
    def gives_back(self) -> bool:
        """Return whether Redis is still to be given back what this worker holds."""
        return self.steps.giving_back.refill.is_wanted

    @property
    def has_incidents(self) -> bool:
        """Return whether anything is still to be pushed to Redis because of an incident."""
        return self.steps.resync.has_incidents

    # -- a slice of everything -----------------------------------------------------------------------------------------

    def run_once(self, seconds: float = SLICE) -> bool:
        """Do one slice of everything that is to be done now. Public so that tests can drive it without the thread.

        :param seconds: for each kind of work; what is under way then is ended.
        :return: whether there is nothing more that this worker could do at once.
        """
        with self._turn:
            reach, steps = Reach.of(self._backend), self.steps
            refill = steps.giving_back.refill
            self._tell_unkept(reach, seconds)
            was_due = refill.is_due(reach)
            is_given = not was_due or self._go_on([refill], reach, seconds, alone=True).is_through
            steps.giving_back.go_on()
            self._go_on([steps.losses], reach, seconds)
            self._keep_delivered()
            is_looked_at = self._go_on([steps.delivered], reach, seconds).is_through
            is_drained = self._drain(reach, seconds)
            self._go_on([steps.resync], reach, seconds)
            if steps.resync.is_unfinished and reach.database:  # as after an incident that is noticed now
                steps.renewal.begin()
            # What this worker has to give back since it met another server by what it did, others wait for.
            is_news = not was_due and refill.is_due(reach)
            return is_given and is_looked_at and is_drained and not is_news

    def _tell_unkept(self, reach: Reach, seconds: float) -> None:
        """Have the journal take the revocations that only this process knows of; where it still does not, tell the
        stores of them."""
        queue = self._backend.journal.revocations
        with suppress(StoreError):
            queue.write_held()
        if queue.has_held:
            self._go_on(self.steps.unkept, reach, seconds)

    def _keep_delivered(self) -> None:
        ask_journal(self._backend.journal.revocations.keep_delivered, "replay")

    def _drain(self, reach: Reach, seconds: float) -> bool:
        """Send what waits in the journal for stores that answer, other workers' entries too; clear up when all is well
        again. Return whether nothing more can be done at once."""
        is_empty = ask_journal(self._backend.journal.is_empty, "replay")
        if is_empty:
            self.steps.merges.nothing_waits = True
        began, is_lost = self._clock(), bool(self._backend.health.lost_shards)
        if is_empty is not False or began < self._next_drain:
            return True
        is_any = reach.redis or reach.database
        progress = self._go_on(self.steps.journal, reach, seconds, alone=True) if is_any else Progress()
        is_renewed = self._go_on([self.steps.renewal], reach, seconds).is_through
        if reach.redis and not (is_lost or self._backend.lacks):
            ask_journal(self.steps.copies.clear, "replay")
        if reach.redis and is_lost and not progress.moved:
            self._next_drain = self._clock() + (self._clock() - began) / _SHARE_OF_TIME
        return progress.is_through and is_renewed

    def _go_on(self, steps: Sequence[Step], reach: Reach, seconds: float, *, alone: bool = False) -> Progress:
        """Go on with some kinds of work; what fails is to be done again. An error that is not known stops nothing else.

        :param alone: they belong to one worker of the host at a time, which may be another one.
        """
        try:
            with self._backend.journal.alone() if alone else nullcontext(True) as is_mine:
                progress = self.run(steps, reach, seconds) if is_mine else Progress()
        except StoreError as error:
            self._was_interrupted(error, is_replay=alone)
            return Progress()
        except Exception as error:
            self._note_unknown(error)
            return Progress()
        if progress.left is not None:
            self._look_at(progress.left)
            log.info(
                "an entry of the journal could not be merged and is tried again: %s",
                progress.left,
                extra=fields("entry_not_merged", **progress.left.log_data),
            )
        return progress

    def _was_interrupted(self, error: StoreError, *, is_replay: bool) -> None:
        if is_replay and error.store == "journal":
            log.critical(
                "the journal cannot be replayed: %s. Check LANGPONT_SESSION_JOURNAL and its disk.",
                error,
                extra=fields("journal_not_replayed", **error.log_data),
            )
            return
        self._look_at(error)
        log.info(
            "bringing the stores what they missed was interrupted and will be repeated: %s",
            error,
            extra=fields("replay_interrupted", **error.log_data),
        )

    def _look_at(self, error: StoreError) -> None:
        """Have an error's store probed: much work that fails says little of what requests ask for, a canary does."""
        if error.store != "journal":
            self._suspect(error.store)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def run(self, steps: Sequence[Step], reach: Reach, seconds: float) -> Progress:
        """Send what waits, of each kind the oldest first, until nothing more can be sent.

        :param seconds: after these nothing more is begun.
        :raises StoreError: a store that was said to answer did not. Nothing is lost, run again.
        """
        end, moved = self._clock() + seconds, False
        while True:
            done = self._run_once_through(steps, reach, end)
            moved = moved or done.moved
            if not (done.moved and done.is_through) or self._clock() >= end:
                return done._replace(moved=moved)

    def _run_once_through(self, steps: Sequence[Step], reach: Reach, end: float) -> Progress:
        moved, left = False, None
        for step in steps:
            for entries in self._pending(step, reach):
                try:
                    moved = step.send(entries, reach) or moved
                except Exception as error:
                    if isinstance(error, StoreError) and (step.is_ordered or _is_of_journal(error)):
                        raise
                    moved_some, left = self._one_by_one(step, entries, reach, error, left)
                    moved = moved or moved_some
                if self._clock() >= end:
                    return Progress(moved, False, left)
        return Progress(moved, True, left)

    def _pending(self, step: Step, reach: Reach) -> Iterator[Sequence[Any]]:
        """Yield entries of one kind, as far as they can be read."""
        try:
            yield from step.pending(reach)
        except StoreError:
            raise
        except Exception as error:
            self._note_unknown(error)

    def _one_by_one(
        self, step: Step, entries: Sequence[Any], reach: Reach, error: Exception, left: StoreError | None
    ) -> tuple[bool, StoreError | None]:
        """Send entries one by one that could not be sent together.

        :param left: why an entry was left before.
        :return: whether any was sent, and why one was left.
        """
        moved = False
        for entry in entries:
            failed: Exception | None = error
            if len(entries) > 1:
                try:
                    moved, failed = step.send([entry], reach) or moved, None
                except Exception as again:
                    failed = again
            if isinstance(failed, StoreError):
                if step.is_ordered:
                    raise failed
                left = _worse(left, failed)
            elif failed is not None and step.give_up(entry, failed):
                moved = True
            elif failed is not None:
                self._note_unknown(failed)
        return moved, left

    def _note_unknown(self, error: Exception) -> None:
        """Log an error that the recovery does not know, once in a while: it may be met at each round."""
        place = place_of(error)
        if self._unknown.is_due(place):
            log.error(
                "a step of the recovery failed with %s in %s. What it is for is tried again; all else goes on.",
                *(type(error).__name__, place),
                extra=fields("recovery_step_failed", cause=type(error).__name__, place=place),
            )


def _worse(left: StoreError | None, failed: StoreError) -> StoreError:
    """Return why entries were left. One of them must not keep all others, or a whole host, from the stores.

    :raises StoreError: two say that no store answers, unless it is about their data.
    """
    known = left is not None and _is_outage(left)
    if _is_of_journal(failed) or (known and _is_outage(failed)):
        raise failed
    return left if left is not None and known else failed


def _is_outage(error: StoreError) -> bool:
    """Return whether an error says that a store does not answer. A full disk keeps no entry from the stores."""
    return error.error_class not in _NO_OUTAGE and not is_full(error)


def _is_of_journal(error: StoreError) -> bool:
    """Return whether the journal cannot be used, unless it is only full."""
    return error.store == "journal" and not is_full(error)
