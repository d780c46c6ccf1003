"""Merges what an outage left behind, beside the monitor: in a thread of its own, a slice at a time.

A store that answers again is used by requests at once, whatever waits for it. That is safe, because nothing that waits
is known to this host by the store alone:

- **Reads.** Every worker of the host lays over each answer what the journal holds of that session: a revocation makes
  it dead, a newer row raises the version that is believed, changes are shown, and a category to which data is still to
  be brought counts as not known. (Without a file each worker does so for what it keeps itself.)
- **Writes.** What is written of a category, or of auth, while changes of it wait goes behind them into the journal:
  what this host acknowledged reaches the stores in that order.
- **Other hosts** never wait for this host's breakers: they believe a lease for VERIFY_INTERVAL, and their own journals.
  How soon they hear of a revocation depends on how soon it is replayed, hence the order: it comes before all data,
  and the database is told before Redis is.
- **A Redis that lost data** is not believed by :class:`.ServerIdentity`, whichever breaker is closed. What Redis was
  not told while this worker could not see it is pushed as soon as it is in use; until then a lease counts no longer
  than any.

One worker of a host replays at a time. The others do not wait for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Container, Iterator
from contextlib import contextmanager

from ..policy.values import StoreError
from ..stores.backend import Backend
from ..support.forks import renew_in_children
from ..support.logs import fields
from ..support.threads import PeriodicThread, end_all
from .calls import ask_journal
from .giving_back import GivingBack
from .lost_commits import LostCommits
from .reconciler import Progress, Reconciler, answering
from .refill import Refill
from .resync import Resync

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
"""Seconds that :meth:`Replay.stop` waits for the call that is under way."""


class Replay:
    """One worker's work after an outage.

    :param suspect: called with a store that failed: it should be probed.
    :param now_ms: milliseconds by the clock of the host's workers.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        suspect: Callable[[str], None] = lambda store: None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        now_ms = now_ms or backend.now_ms
        self._backend = backend
        self._clock = clock
        self._renewal = backend.settings.lease_terms.renewal_ms / 1000
        self._suspect = suspect
        self.reconciler = Reconciler(backend, now_ms, clock)
        self._resync = Resync(backend, now_ms, clock)
        self._lost_commits = LostCommits(backend, now_ms, clock)
        self.giving_back = GivingBack(backend, Refill(backend, self.reconciler.pushes.push), clock)
        self._thread = PeriodicThread("replay", lambda: self._work, _PAUSE)
        self._reset()
        renew_in_children(self, Replay._reset)

    def _reset(self) -> None:
        """As new: a forked child has neither the locks' holders nor its parent's copies."""
        self._turn = threading.RLock()
        self._next_renewal = 0.0
        self._next_drain = 0.0
        self.reconciler.copies.forget()
        self._resync.forget()
        self._lost_commits.forget()
        self.giving_back.refill.forget()
        self.giving_back.reset()

    # -- told by the monitor -----------------------------------------------------------------------------------------

    def ensure_started(self) -> None:
        """Start the thread in this process unless it runs. Costs an attribute look-up when it does."""
        self._thread.ensure_started()

    def look_every(self, seconds: float) -> None:
        """Look so often from now on at what is to be done."""
        self._thread.pace(seconds)

    def stop(self) -> None:
        """End the thread, and wait for the call that is under way."""
        end_all([self._thread], _EXIT_WAIT)
        self._keep_delivered()
        self.giving_back.end()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is done while this is open, but by the thread that opened it."""
        with self._turn:
            yield

    def incident_since(self, moment: float, shards: Collection[str]) -> None:
        """What changed since a moment (monotonic seconds) may not be known to these shards of Redis."""
        self._resync.incident_since(moment, shards)
        self._next_renewal = 0.0

    def may_have_lost(self, shard: str, well_until_ms: int) -> None:
        """A shard of Redis was exchanged for another server, or lost data: it gets back what this host holds.

        :param well_until_ms: by its clock, when it is known to have had everything; 0: it is not known.
        """
        self.giving_back.refill.ask_for(shard, well_until_ms)
        self.giving_back.begin(shard, well_until_ms)

    def database_is_back(self) -> None:
        """The database was away: it may have gone back meanwhile."""
        self._lost_commits.suspect()

    def recovered(self) -> None:
        """A store is in use again."""
        self.reconciler.copies.recovered()
        self.reconciler.recovered()

    @property
    def gives_back(self) -> bool:
        """Whether Redis is still to be given back what this worker holds."""
        return self.giving_back.refill.is_wanted

    @property
    def has_incidents(self) -> bool:
        """Whether anything is still to be pushed to Redis because of an incident."""
        return self._resync.has_incidents

    # -- the work ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        # Without a pause while there is more to do: others get the interpreter, and the journal, between two slices.
        while not self._thread.is_ending and not self.run_once():
            time.sleep(_LET_OTHERS_IN)

    def run_once(self, seconds: float = SLICE) -> bool:
        """One slice of everything that is to be done now. Public so that tests can drive it without the thread.

        :param seconds: for each kind of work; what is under way then is ended.
        :return: whether there is nothing more that this worker could do at once.
        """
        with self._turn:
            shards, database = answering(self._backend)
            self._apart(lambda: self._tell_held(shards, database))
            was_due = self.giving_back.refill.is_due(shards, database)
            is_given = self._apart(lambda: self._give_back(shards, database, seconds))
            # Additions are made to what Redis is given back, not to nothing; unless that fails in an unknown way.
            data = is_given is None or not self.giving_back.holds(shards, database)
            if data and not self._backend.lacks:
                self._apart(lambda: self._with_stores(self.giving_back.refill.count_lost))
            is_looked_at = self._apart(lambda: self._look_for_lost_commits(database, seconds))
            is_drained = self._apart(lambda: self._drain(database, shards, seconds, data=data))
            self._apart(lambda: self._resync_shards(shards, database))
            # What this worker has to give back since it met another server by what it did, others wait for.
            is_news = not was_due and self.giving_back.refill.is_due(shards, database)
            return False not in (is_given, is_looked_at, is_drained) and not is_news

    def _apart(self, work: Callable[[], bool]) -> bool | None:
        """Do one kind of work, and return what it says; None: it failed in a way that is not known. The others are done
        all the same."""
        try:
            return work()
        except Exception as error:
            self.reconciler.note_unknown(error)
            return None

    def _keep_delivered(self) -> None:
        ask_journal(self._backend.journal.revocations.keep_delivered, "replay")

    def _look_for_lost_commits(self, database: bool, seconds: float) -> bool:
        """Have a database that went back told again what it had confirmed. Whether nothing more can be done at once."""
        self._keep_delivered()
        return not database or self._with_stores(lambda: self._lost_commits.run(self._clock() + seconds), failed=True)

    def _tell_held(self, shards: frozenset[str], database: bool) -> bool:
        """Tell the stores of the sign-outs that this worker served and its journal did not take."""

        def tell() -> bool:
            self.reconciler.tell_held(bool(shards), database, shards)
            return True

        return self._with_stores(tell)

    def _drain(self, database: bool, shards: frozenset[str], seconds: float, *, data: bool) -> bool:
        """Replay what waits for stores that answer, other workers' entries too; clear up when all is well again.

        :param data: changes of sessions too.
        :return: whether nothing more can be done at once.
        """
        is_empty = ask_journal(self._backend.journal.is_empty, "replay")
        if is_empty:
            self.reconciler.nothing_waits = True
        began, lost = self._clock(), self._backend.health.lost_shards
        if is_empty in (True, None) or began < self._next_drain:
            return True
        progress = self._replay(database, shards, seconds, data) if shards or database else None
        if shards and self._clock() >= self._next_renewal:
            self._renew_tombstones(shards)
        if shards and not lost and data and not self.reconciler.copies.are_needed():
            ask_journal(self._backend.board.clear_copies, "replay")
        if shards and lost and not (progress and progress.moved):
            self._next_drain = self._clock() + (self._clock() - began) / _SHARE_OF_TIME
        return progress is None or progress.is_through

    def _replay(self, database: bool, shards: frozenset[str], seconds: float, data: bool) -> Progress | None:
        """What was replayed; None: another worker of the host is at it, or it was interrupted."""
        try:
            with self._backend.journal.alone() as is_alone:
                if not is_alone:
                    return None
                self.reconciler.hold(lambda: self.giving_back.holds_now(shards, database))
                self.reconciler.merges.adds_to_nothing = not self.giving_back.is_overdue
                progress = self.reconciler.run(
                    redis=bool(shards), database=database, shards=shards, data=data, seconds=seconds
                )
        except StoreError as error:
            if error.store == "journal":
                log.critical(
                    "the journal cannot be replayed: %s. Check LANGPONT_SESSION_JOURNAL and its disk.",
                    error,
                    extra=fields("journal_not_replayed", **error.log_data),
                )
            else:
                # Much work that fails says little of what requests ask for: a canary does.
                self._suspect(error.store)
                log.info(
                    "replaying the journal was interrupted and will be repeated: %s",
                    error,
                    extra=fields("replay_interrupted", **error.log_data),
                )
            return None
        if progress.left is not None:
            if progress.left.store != "journal":
                self._suspect(progress.left.store)
            log.info(
                "an entry of the journal could not be merged and is tried again: %s",
                progress.left,
                extra=fields("entry_not_merged", **progress.left.log_data),
            )
        return progress

    def _renew_tombstones(self, shards: Container[str]) -> None:
        """While only this host knows of a revocation, besides Redis, Redis must not forget it."""
        self._next_renewal = self._clock() + self._renewal
        self._with_stores(lambda: self.reconciler.revocations.renew_tombstones(shards))

    def _resync_shards(self, shards: frozenset[str], database: bool) -> bool:
        """Push what changed since the last incident to those shards of Redis where there was one. Whether that is
        done."""
        if not database:
            return False
        is_done = False
        try:
            is_done = self._with_stores(lambda: self._resync.run(shards))
        finally:
            if not is_done:  # as after an incident that is noticed now
                self._next_renewal = 0.0
        return is_done

    def _give_back(self, shards: frozenset[str], database: bool, seconds: float) -> bool:
        """Give Redis what this worker has of sessions, where it lost them. Whether nothing more can be done at once."""

        def give() -> bool:
            with self._backend.journal.alone() as is_alone:
                return not is_alone or self.giving_back.refill.run(shards, database, self._clock() + seconds)

        return not self.giving_back.refill.is_due(shards, database) or self._with_stores(give, failed=True)

    def _with_stores(self, work: Callable[[], bool], *, failed: bool = False) -> bool:
        """What the work says, or `failed`: the store is looked at, and the work is to be done again."""
        try:
            return work()
        except StoreError as error:
            if error.store != "journal":
                self._suspect(error.store)
            log.info(
                "restoring Redis after an outage was interrupted and will be repeated: %s",
                error,
                extra=fields("restore_interrupted", **error.log_data),
            )
            return failed
