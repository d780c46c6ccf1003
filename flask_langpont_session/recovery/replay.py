"""Brings home what an outage left behind, beside the monitor: in a thread of its own, a slice at a time.

A store that answers again is used by requests at once, whatever waits for it. That is safe, because nothing that waits
is known to this host by the store alone:

- **Reads.** Every worker of the host lays over each answer what the journal holds of that session: a revocation makes
  it dead, a newer row raises the version that is believed, changes are shown, and a category to which data is still to
  be brought counts as not known. (Without a file each worker does so for what it keeps itself.)
- **Writes.** What is written of a category, or of auth, while changes of it wait goes behind them into the journal:
  what this host acknowledged reaches the stores in that order.
- **Other hosts** never wait for this host's breakers: they believe a lease for VERIFY_INTERVAL, and their own journals.
  How soon they hear of a revocation depends on how soon it is brought home, hence the order: it comes before all data,
  and the database is told before Redis is.
- **A Redis that lost data** is not believed by the fence, whichever breaker is closed. What Redis was not told while
  this worker could not see it is brought to it as soon as it is in use; until then a lease counts no longer than any.

One worker of a host replays at a time. The others do not wait for it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from ..policy.values import StoreError
from ..stores.backend import Backend
from ..support.forks import renew_in_children
from ..support.threads import PeriodicThread, end_all
from .reconciler import Progress, Reconciler, answering, answering_shards
from .refill import Refill

log = logging.getLogger(__name__)

T = TypeVar("T")

SLICE = 0.25
"""Seconds for which one kind of work keeps the others from having their turn."""

_LET_OTHERS_IN = 0.003
"""Seconds between two slices: whoever waits for the journal's file looks once in a millisecond whether it is free."""

_PAUSE = 0.2
"""Seconds between looks at what is to be done."""

_SHARE_OF_TIME = 0.1
"""The most that looking through a journal whose entries wait for a lost shard may take of this thread's time."""

_COPIES_LINGER = 5.0
"""Seconds after a recovery during which a slower sibling worker may still read the published copies, and after a
worker's last announcement that it is in an outage."""

_EXIT_WAIT = 5.0
"""Seconds that :meth:`Replay.stop` waits for the call that is under way."""


def ask_journal(call: Callable[[], T], asking: str) -> T | None:
    """What the journal says; None: it cannot be used. The requests' alarm tells that, it is not the end of a thread.

    :param asking: names the thread for the log.
    """
    try:
        return call()
    except StoreError as error:
        log.warning("the %s cannot use the journal: %s", asking, error)
        return None


class Replay:
    """What one worker does about outages that are over.

    :param renewal: seconds between two times that tombstones are written again of which the database has not heard.
    :param suspect: called with a store that failed: somebody should look at it.
    :param now_ms: milliseconds since 1970; ages of journal entries only.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        renewal: float,
        suspect: Callable[[str], None] = lambda store: None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._backend = backend
        self._health = backend.health
        self._journal = backend.journal
        self._clock = clock
        self._renewal = renewal
        self._suspect = suspect
        self.reconciler = Reconciler(backend, now_ms, clock)
        self.reconciler.copies_are_needed = self._somebody_needs_copies
        self._refill = Refill(backend, self.reconciler.push)
        self._pump = PeriodicThread("replay", lambda: self._work, _PAUSE)
        self._reset()
        renew_in_children(self, Replay._reset)

    def _reset(self) -> None:
        """As new: a forked child has neither the locks' holders nor its parent's copies."""
        self._lock = threading.Lock()
        self._turn = threading.RLock()
        self._incidents: dict[str, float] = {}
        self._next_renewal = 0.0
        self._is_settling = False
        self._next_drain = 0.0
        self._announced: Mapping[str, int] = {}
        self._announced_at = -math.inf
        self._recovered_at = self._clock()
        self._refill.forget()

    # -- told by the monitor -----------------------------------------------------------------------------------------

    def ensure_started(self) -> None:
        """Start the thread in this process unless it runs. Costs an attribute look-up when it does."""
        self._pump.ensure_started()

    def stop(self) -> None:
        """End the thread, and wait for the call that is under way."""
        end_all([self._pump], _EXIT_WAIT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is done while this is open, but by who opened it."""
        with self._turn:
            yield

    def incident_since(self, moment: float, shards: Collection[str]) -> None:
        """What changed since a moment (monotonic seconds) may not be known to these shards of Redis."""
        with self._lock:
            for shard in shards:
                self._incidents[shard] = min(moment, self._incidents.get(shard, moment))
        self._next_renewal = 0.0

    def may_have_lost(self, shard: str, well_until_ms: int) -> None:
        """A shard of Redis was exchanged for another server, or lost data: it gets back what this host holds.

        :param well_until_ms: by its clock, when it is known to have had everything; 0: it is not known.
        """
        self._refill.ask_for(shard, well_until_ms)

    def recovered(self) -> None:
        """A store is in use again."""
        self._recovered_at = self._clock()
        self.reconciler.recovered()

    @property
    def gives_back(self) -> bool:
        """Whether Redis is still to be given back what this worker holds."""
        return self._refill.is_wanted

    @property
    def has_incidents(self) -> bool:
        """Whether anything is still to be brought to Redis because of an incident."""
        return bool(self._incidents) or self._is_settling

    # -- the work ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        # Without a pause while there is more to do: others get the interpreter, and the journal, between two slices.
        while not self._pump.is_ending and not self.run_once():
            time.sleep(_LET_OTHERS_IN)

    def run_once(self, seconds: float = SLICE) -> bool:
        """One slice of everything that is to be done now. Public so that tests can drive it without the thread.

        :param seconds: for each kind of work; what is under way then is ended.
        :return: whether there is nothing more that this worker could do at once.
        """
        with self._turn:
            redis, database = answering(self._backend)
            shards = answering_shards(self._backend)
            is_given = self._give_back(shards, database, seconds)
            # Additions are made to what Redis is given back, not to nothing.
            data = not self._refill.is_due(shards, database)
            is_drained = self._drain(redis, database, shards, seconds, data=data)
            self._settle_incidents(shards, database)
            return is_given and is_drained

    def _drain(self, redis: bool, database: bool, shards: frozenset[str], seconds: float, *, data: bool) -> bool:
        """Bring home what waits for stores that answer, other workers' entries too; clear up when all is well again.

        :param data: changes of sessions too.
        :return: whether nothing more can be done at once.
        """
        is_empty = ask_journal(self._journal.is_empty, "replay")
        if is_empty:
            self.reconciler.is_home = True
        began, lost = self._clock(), self._health.lost_shards
        if is_empty in (True, None) or began < self._next_drain:
            return True
        progress = self._replay(redis, database, shards, seconds, data) if redis or database else None
        if redis and self._clock() >= self._next_renewal:
            self._renew_tombstones(shards)
        if redis and not lost and data and not self._somebody_needs_copies():
            ask_journal(self._journal.clear_copies, "replay")
        if redis and lost and not (progress and progress.moved):
            self._next_drain = self._clock() + (self._clock() - began) / _SHARE_OF_TIME
        return progress is None or progress.is_through

    def _replay(
        self, redis: bool, database: bool, shards: frozenset[str], seconds: float, data: bool
    ) -> Progress | None:
        """What was brought home; None: another worker of the host is at it, or it was interrupted."""
        try:
            with self._journal.alone() as is_alone:
                if not is_alone:
                    return None
                progress = self.reconciler.run(
                    redis=redis, database=database, shards=shards, data=data, seconds=seconds
                )
        except StoreError as error:
            if error.store == "journal":
                log.critical("the journal cannot be replayed: %s. Check LANGPONT_SESSION_JOURNAL and its disk.", error)
            else:
                # Much work that fails says little of what requests ask for: a canary does.
                self._suspect(error.store)
                log.info("replaying the journal was interrupted and will be repeated: %s", error)
            return None
        if progress.left is not None:
            self._suspect(progress.left.store)
            log.info("an entry of the journal could not be brought home and is tried again: %s", progress.left)
        return progress

    def _renew_tombstones(self, shards: Container[str]) -> None:
        """While only this host knows of a revocation, besides Redis, Redis must not forget it."""
        self._next_renewal = self._clock() + self._renewal
        self._with_stores(lambda: self.reconciler.renew_tombstones(shards))

    def _settle_incidents(self, shards: frozenset[str], database: bool) -> None:
        """Bring what changed since the last incident to those shards of Redis where there was one."""
        if not database:
            return
        with self._lock:
            since = {shard: at for shard, at in sorted(self._incidents.items()) if shard in shards}
            self._is_settling = bool(since)
            for shard in since:
                del self._incidents[shard]  # one that is noticed from here on is another one
        if not since:
            return
        ms_ago, is_done = int((self._clock() - min(since.values())) * 1000), False
        try:
            is_done = self._with_stores(lambda: self.reconciler.settle_changes(ms_ago, tuple(since)))
        finally:
            for shard, moment in () if is_done else since.items():
                self.incident_since(moment, [shard])
            self._is_settling = False

    def _give_back(self, shards: frozenset[str], database: bool, seconds: float) -> bool:
        """Give Redis what this worker has of sessions, where it lost them. Whether nothing more can be done at once."""
        if not self._refill.is_due(shards, database):
            return True

        try:
            with self._journal.alone() as is_alone:
                return not is_alone or self._refill.run(shards, database, self._clock() + seconds)
        except StoreError as error:
            self._note_failure(error)
            return True

    def _with_stores(self, work: Callable[[], bool]) -> bool:
        """Whether it is done; a store that failed is looked at, and the work is to be done again."""
        try:
            return work()
        except StoreError as error:
            self._note_failure(error)
            return False

    def _note_failure(self, error: StoreError) -> None:
        if error.store != "journal":
            self._suspect(error.store)
        log.info("what an outage left behind could not be settled and will be repeated: %s", error)

    def _somebody_needs_copies(self) -> bool:
        """Whether a worker of the host is, or may be, in an outage: one that has died announces nothing new."""
        announced = ask_journal(self._journal.outages, "replay") or {}
        if announced and announced != self._announced:
            self._announced_at = self._clock()
        self._announced = announced
        return self._clock() - max(self._announced_at, self._recovered_at) < _COPIES_LINGER
