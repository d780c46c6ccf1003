"""The one thread per process that probes stores, replays the journal and closes breakers.

Requests may open a breaker, only this thread closes one: two good probes in a row over new connections, then what
waited is replayed, then requests come back. It probes for ever, with full jitter from 0.1 to 1 s. It starts lazily:
a thread started before a fork (gunicorn --preload) does not exist in the workers.
"""

from __future__ import annotations

import logging
import math
import random
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from . import events
from .forks import renew_in_children
from .health import DATABASE, PRIMARY, READ, REPLICA, WRITE
from .reconciler import Reconciler, answering
from .repository import SessionRepository
from .stores.base import ErrorClass, StoreError

log = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between looks at the host's journal: how soon a sibling worker's outage is noticed here."""

GOOD_PROBES = 2
"""Probes in a row that close a breaker: one could be luck in a flapping network."""

SLOW_PROBES = 2
"""Slow probes in a row that confirm that a store is slow."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_REFUSED_PAUSE = 3.0
"""Seconds. Who is refused gets in again only when a person or a rotation has changed something."""

_PROBE_TIMEOUT = 0.5
_BOTH = frozenset({READ, WRITE})

_ANXIOUS = 2.0
"""Seconds between canaries to the remaining stores while one is lost."""

_COPIES_LINGER = 5.0
"""Seconds after a recovery during which a slower sibling worker may still read the published copies, and after a
worker's last announcement that it is in an outage."""


def own_lag(seconds: float = 0.01) -> float:
    """How much later than asked for this process goes on after a pause: what is slow then is not a store.

    :param seconds: of the pause.
    """
    began = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - began - seconds


class Monitor:
    """Probes the stores of one repository.

    :param interval: seconds between canaries while everything is healthy.
    :param slow: seconds above which a probe is not a good one.
    :param attend: called every round with the names of the stores that are lost: somebody may know another place for
        them, or another token. Must not block.
    """

    def __init__(
        self,
        repository: SessionRepository,
        *,
        interval: float,
        slow: float,
        attend: Callable[[Set[str]], None] = lambda lost: None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rng: random.Random | None = None,
    ) -> None:
        self._repository = repository
        self._health = repository.health
        self._journal = repository.journal
        self._reconciler = Reconciler(repository, now_ms)
        self._interval = interval
        self._slow = slow
        self._attend = attend
        self._clock = clock
        self._rng = rng or random.Random()
        terms = repository.settings.lease_terms
        self._renewal = max(_LONGEST_PAUSE, (terms.verify_ms + terms.grace_ms) / 2000)
        self._probes: dict[str, Callable[[], frozenset[str]]] = {
            PRIMARY: self._probe_primary,
            DATABASE: self._probe_database,
        }
        if REPLICA in repository.redis:
            self._probes[REPLICA] = self._probe_replica
        self._reset()
        renew_in_children(self, Monitor._reset)

    def _reset(self) -> None:
        """As new: a forked child has neither the thread nor the locks' holders."""
        self._lock = threading.Lock()
        # One canary per process: workers must not read each other's.
        self._canary_key = f"{self._repository.settings.key_prefix}:canary:{secrets.token_hex(4)}"
        self._ticking = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._suspects: set[str] = set()
        self._slow_suspects: set[str] = set()
        self._took: dict[str, float] = {}  # seconds that the last probe of a store waited for its answer
        self._lost: set[str] = set()
        self._good: dict[str, int] = {}
        self._pauses: dict[str, float] = {}
        self._next_probe: dict[str, float] = {}
        self._next_canary = 0.0
        self._rounds = 0
        self._published = False
        self._next_announcement = 0.0
        self._announced: Mapping[str, int] = {}
        self._announced_at = -math.inf
        self._recovered_at = self._clock()
        self._last_good = self._clock()
        self._incident: float | None = None
        self._next_renewal = 0.0

    def ensure_started(self) -> None:
        """Start the thread in this process unless it runs. Costs an attribute look-up when it does."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="langpont-session-monitor", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread is to be had now: the next request tries again
            log.error("the monitor of the session stores cannot be started: %s", error)
        else:
            self._thread = thread

    @property
    def has_looked(self) -> bool:
        """Whether this process has looked at every store once: before that nobody can say that all is well."""
        return self._rounds > 0

    def stop(self) -> None:
        """End the thread and wait for it. For tests and orderly exits; the thread is a daemon."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No ticks while this is open; for tests that switch stores off by hand."""
        with self._ticking:
            yield

    def suspect(self, store: str) -> None:
        """A request met a failure: look at that store now instead of waiting for more requests to meet it."""
        if threading.current_thread() is not self._thread:
            self._suspects.add(store)
            self._wake.set()

    def suspect_slowness(self, store: str) -> None:
        """Requests had to wait too long for too many answers: look whether it is the store."""
        self._slow_suspects.add(store)
        self._wake.set()

    def note_incident(self) -> None:
        """Redis was exchanged for another server, or lost data: what changed lately is brought to it again."""
        self._incident_since(self._last_good)
        if threading.current_thread() is not self._thread:
            self._wake.set()

    def _incident_since(self, moment: float) -> None:
        known = self._incident
        self._incident = moment if known is None else min(known, moment)
        self._next_renewal = 0.0

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.tick()
            except Exception:
                # The thread must outlive any surprise: without it no breaker would ever close again.
                log.exception("the session monitor met an error it does not know; it goes on")
            self._wake.wait(POLL if not self._next_probe else min(POLL, self._until_next_probe()))
            self._wake.clear()

    def _until_next_probe(self) -> float:
        return max(0.01, min(self._next_probe.values()) - self._clock())

    def tick(self) -> None:
        """One round. Public so that tests can drive it without the thread."""
        with self._ticking:
            self._tick()
            self._rounds += 1

    def _tick(self) -> None:
        self._repository.database.end_overdue()
        self._look_at_suspects()
        lost = {store for store, _ in self._health.open_stores()}
        self.share_outage()
        self._attend(lost)
        if not lost:
            self._next_probe.clear()
        self._drain()
        self._settle_incident(*answering(self._repository))
        for store in lost:
            if self._clock() >= self._next_probe.get(store, 0):
                self._probe(store)
        self._health.refresh()

    def share_outage(self) -> None:
        """When no Redis answers any more: let the host's other workers have this one's copies, once."""
        answers = self._health.view().reader is not None
        if not answers and not self._published:
            self._repository.publish_copies()
            self._next_announcement = 0.0
        if not answers and self._clock() >= self._next_announcement:
            # As long as it lasts: a worker that has recovered takes it back for all of them.
            self._next_announcement = self._clock() + _ANXIOUS
            self._guarded(lambda: self._journal.announce_outage(PRIMARY))
        was_announced = self._published or (self._rounds == 0 and self._guarded(self._journal.outages))
        if answers and was_announced:  # here, or by a worker that died during the outage
            self._guarded(lambda: self._journal.outage_over(PRIMARY))
        self._published = not answers

    def _siblings_are_in_trouble(self) -> bool:
        return bool(self._guarded(self._journal.changed)) and bool(self._guarded(self._journal.outages))

    def _somebody_needs_copies(self) -> bool:
        """Whether a worker of the host is, or may be, in an outage: one that has died announces nothing new."""
        announced = self._guarded(self._journal.outages) or {}
        if announced and announced != self._announced:
            self._announced_at = self._clock()
        self._announced = announced
        return self._clock() - max(self._announced_at, self._recovered_at) < _COPIES_LINGER

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Use the journal; its failure is an alarm of the repository's, not the end of monitoring."""
        try:
            return call()
        except StoreError as error:
            log.warning("the monitor cannot use the journal: %s", error)
            return None

    def _drain(self) -> None:
        """Bring home what waits for stores that answer, other workers' entries too; clear up when all is well again."""
        if self._guarded(self._journal.is_empty) in (True, None):
            return
        redis, database = answering(self._repository)
        if redis or database:
            self._replay(redis, database)
        if redis and not database and self._clock() >= self._next_renewal:
            self._renew_tombstones()
        if redis and not self._somebody_needs_copies():
            self._guarded(self._journal.clear_copies)

    def _replay(self, redis: bool, database: bool) -> bool:
        """Whether the answering stores took what they can take, but for single entries: those wait on, laid over all
        reads of this host, and keep nobody from a store."""
        try:
            left = self._reconciler.run(redis=redis, database=database)
        except StoreError as error:
            if error.store == "journal":
                log.critical("the journal cannot be replayed: %s. Check LANGPONT_SESSION_JOURNAL and its disk.", error)
                return True  # requests go on without it, so nothing is gained by keeping a store from them
            self._health.failed(error, WRITE)
            log.info("replaying the journal was interrupted and will be repeated: %s", error)
            return False
        if left is not None:
            self._suspects.add(left.store)
            log.info("an entry of the journal could not be brought home and is tried again: %s", left)
        return True

    def _renew_tombstones(self) -> None:
        """While only this host knows of a revocation, besides Redis, Redis must not forget it."""
        self._next_renewal = self._clock() + self._renewal
        self._with_stores(self._reconciler.renew_tombstones)

    def _settle_incident(self, redis: bool, database: bool) -> bool:
        """Whether Redis has what changed since the last incident began."""
        since = self._incident
        if since is None:
            return True
        if not (redis and database):
            return False
        self._incident = None  # one that is noticed from here on is another one
        ms_ago = int((self._clock() - since) * 1000)
        if self._with_stores(lambda: self._reconciler.settle_changes(ms_ago)):
            return True
        self._incident_since(since)
        return False

    def _with_stores(self, work: Callable[[], bool]) -> bool:
        """Whether it is done; a store that failed is looked at, and the work is to be done again."""
        try:
            return work()
        except StoreError as error:
            if error.store != "journal":
                # Much work that fails says little of what requests ask for: a canary does.
                self._suspects.add(error.store)
            log.info("what an outage left behind could not be settled and will be repeated: %s", error)
            return False

    def _look_at_suspects(self) -> None:
        """Canaries: to all stores now and then, at once to those that failed somebody here or on this host."""
        lost = {store for store, _ in self._health.open_stores()}
        due = self._clock() >= self._next_canary
        if due:
            self._next_canary = self._clock() + (min(self._interval, _ANXIOUS) if lost else self._interval)
        # Where one store is lost the others carry its load: whether they can is worth knowing at once.
        if due or lost - self._lost or self._siblings_are_in_trouble():
            self._suspects.update(self._probes)
        self._lost = lost
        suspects, self._suspects = self._suspects, set()
        for store in suspects:
            if store not in lost:  # those have probes of their own
                self._send_canary(store)
        slow, self._slow_suspects = self._slow_suspects, set()
        for store in slow - lost:
            if self._is_slow(store):
                log.warning("session store %s answers, but takes longer than SLOW_MS", store)
                self._health.failed(StoreError(store, ErrorClass.UNREACHABLE, "Slow", timed_out=True), READ)

    def _is_slow(self, store: str) -> bool:
        """Whether several probes find it slow, too, while this process itself is not held up."""
        for _ in range(SLOW_PROBES):
            try:
                self._probes[store]()
            except StoreError as error:
                self._health.failed(error, READ)
                return False
            if self._took.get(store, 0.0) <= self._slow or own_lag() > self._slow / 2:
                return False
        return True

    def _send_canary(self, store: str) -> None:
        # As often as it takes to open a breaker: an idle worker must notice an outage as surely as a busy one.
        for _ in range(self._repository.settings.failure_threshold):
            try:
                self._probes[store]()
                break
            except StoreError as error:
                self._health.failed(error, READ)
        if store == PRIMARY and not self._health.open_stores() & {(PRIMARY, READ), (PRIMARY, WRITE)}:
            self._look_for_losses()

    def _look_for_losses(self) -> None:
        """What keeps its connections (an emptied server, a restored snapshot) shows by the canary."""
        primary = self._repository.primary
        try:
            canary = primary.look_at_canary(primary.fence.canary, timeout=_PROBE_TIMEOUT)
        except StoreError as error:
            self._health.failed(error, WRITE)
            return
        if primary.fence.saw(canary):
            log.warning("the primary lost data behind its connections; every signed-in session is verified once")
            self._repository.emit(events.data_lost, events.DataLost(PRIMARY))
        self._last_good = self._clock()

    def _probe(self, store: str) -> None:
        """One probe of a store that requests do not use."""
        began = self._clock()
        self._took.pop(store, None)
        try:
            healthy = self._probes[store]()
        except StoreError:
            healthy = frozenset()
        took = self._took.get(store, self._clock() - began)
        recovered = healthy & {way for name, way in self._health.open_stores() if name == store}
        if not recovered or took > self._slow:
            self._good[store] = 0
            longest = _REFUSED_PAUSE if self._is_refused(store) else _LONGEST_PAUSE
            pause = self._pauses[store] = min(longest, self._pauses.get(store, _FIRST_PAUSE / 2) * 2)
            # Full jitter: the workers of a fleet must not probe in step.
            self._next_probe[store] = self._clock() + self._rng.uniform(_FIRST_PAUSE / 2, pause)
            return
        self._good[store] = self._good.get(store, 0) + 1
        self._next_probe[store] = self._clock() + _FIRST_PAUSE / 2
        if self._good[store] >= GOOD_PROBES:
            self.recover(store, recovered)

    def _is_refused(self, store: str) -> bool:
        return self._health.breakers[store, READ].cause == ErrorClass.IDENTITY_REFUSED.name

    def recover(self, store: str, directions: Collection[str]) -> None:
        """Replay what waited for a store, then, and only then, let requests use it again.

        What changed meanwhile is brought to Redis as far as that is done at once; the rest follows. Nobody believes
        what Redis has from before: leases have run out, and after a loss the fence stands. While the database is kept
        from requests, though, they go by what Redis says.
        """
        if store in self._repository.redis:
            self._repository.redis[store].forget_connections()
        redis, database = answering(self._repository)
        whole = WRITE in directions
        redis, database = redis or (store == PRIMARY and whole), database or (store == DATABASE and whole)
        if store in (PRIMARY, DATABASE):
            self._incident_since(min(self._opened_at(store, way) for way in directions))
        if not self._replay(redis, database):
            self._good[store] = 0
            return
        self._settle_incident(redis, database)
        for direction in directions:
            self._close(store, direction)
        self._good[store] = 0
        self._pauses.pop(store, None)
        self._next_probe.pop(store, None)
        self._recovered_at = self._clock()

    def _opened_at(self, store: str, direction: str) -> float:
        opened_at = self._health.breakers[store, direction].opened_at
        return self._clock() if opened_at is None else opened_at

    def _close(self, store: str, direction: str) -> None:
        seconds = self._clock() - self._opened_at(store, direction)
        self._health.close(store, direction)
        self._repository.emit(events.store_recovered, events.StoreRecovered(store, direction, seconds))

    def _probe_primary(self) -> frozenset[str]:
        store = self._repository.primary
        value = secrets.token_hex(8)
        try:
            self._took[PRIMARY] = store.probe(self._canary_key, value, timeout=_PROBE_TIMEOUT)
        except StoreError as error:
            if error.error_class is not ErrorClass.WRITE_REFUSED:
                raise
            store.probe_read(timeout=_PROBE_TIMEOUT)
            if (PRIMARY, WRITE) not in self._health.open_stores():
                self._health.failed(error, WRITE)
            return frozenset({READ})
        return _BOTH

    def _probe_replica(self) -> frozenset[str]:
        self._took[REPLICA] = self._repository.redis[REPLICA].probe_read(timeout=_PROBE_TIMEOUT)
        return _BOTH

    def _probe_database(self) -> frozenset[str]:
        database = self._repository.database
        try:
            database.probe(_PROBE_TIMEOUT)
        except StoreError as error:
            if error.error_class is not ErrorClass.WRITE_REFUSED:
                raise
            database.probe_read(_PROBE_TIMEOUT)
            if (DATABASE, WRITE) not in self._health.open_stores():
                self._health.failed(error, WRITE)
            return frozenset({READ})
        return _BOTH
