"""The one thread per process that probes stores and closes breakers.

Requests may open a breaker, only this thread closes one: two good probes in a row over new connections, and requests
come back. What waited for the store is merged beside that, by :mod:`.replay`, which says why it is safe. This thread
probes for ever, with full jitter from 0.1 to 1 s. It starts lazily: a thread started before a fork (gunicorn
--preload) does not exist in the workers.

Each shard of a Redis that has several is lost, probed and recovered for itself.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Set
from contextlib import contextmanager, suppress

from .. import events
from ..policy.health import DATABASE, ONLY, PRIMARY, READ, REPLICA, WRITE
from ..policy.values import ErrorClass, StoreError, role_of, shard_of
from ..stores.backend import Backend
from ..stores.host.journal import Waiting
from ..stores.redis.cluster import ClusterStore
from ..support.forks import renew_in_children
from ..support.lag import PROCESS, Lag
from .calls import ask_journal
from .replay import Replay

log = logging.getLogger(__name__)

NOTHING_WAITS = Waiting(0, None)

POLL = 0.2
"""Seconds between looks at the host's journal: how soon a sibling worker's outage is noticed here."""

GOOD_PROBES = 2
"""Probes in a row that close a breaker: one could be luck in a flapping network."""

SLOW_PROBES = 2
"""Slow probes in a row that confirm that a store is slow."""

LATE_PROBES = 3
"""Probes without an answer in a row that tell a late process more than the answers that its requests had meanwhile."""

_LEAST_PACE = 0.2
"""The share of the patience with a Redis that a late process has at least."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_REFUSED_PAUSE = 3.0
"""Seconds. A worker that is refused gets in again only when a person or a rotation has changed something."""

_PROBE_TIMEOUT = 0.5
"""Seconds for a store that is lost. One that is not is waited for as long as requests wait, if that is longer: what
they would get an answer from is no outage."""

_BOTH = frozenset({READ, WRITE})

_LOOK_AT_JOURNAL = 1.0
"""Seconds between two looks at how much waits there."""

_ANXIOUS = 2.0
"""Seconds between canaries to the remaining stores while one is lost."""


class Monitor:
    """Probes the stores of one backend.

    :ivar replay: brings what waited in the journal to the stores.
    :param interval: seconds between canaries while everything is healthy.
    :param slow: seconds above which a probe is not a good one.
    :param attend: called every round with the names of the stores that are lost: there may be another address for
        them, or another token. It may take as long as a probe.
    :ivar waiting: what waits in the host's journal, as of a second ago; None: it cannot be read.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        interval: float,
        slow: float,
        attend: Callable[[Set[str]], None] = lambda lost: None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rng: random.Random | None = None,
        lag: Lag = PROCESS,
    ) -> None:
        self._lag = lag
        self._backend = backend
        self._health = backend.health
        self._journal = backend.journal
        self._board = backend.board
        self._interval = interval
        self._slow = slow
        self._attend = attend
        self._clock = clock
        self._rng = rng or random.Random()
        self._renewal = backend.settings.lease_terms.renewal_ms / 1000
        self.replay = Replay(backend, renewal=self._renewal, suspect=self.suspect, clock=clock, now_ms=now_ms)
        self._patience = {
            PRIMARY: max(_PROBE_TIMEOUT, backend.settings.redis_timeout),
            REPLICA: max(_PROBE_TIMEOUT, backend.settings.redis_timeout),
            DATABASE: max(_PROBE_TIMEOUT, backend.settings.database_timeout),
        }
        self._probes: dict[str, Callable[[str, float], frozenset[str]]] = {
            PRIMARY: self._probe_primary,
            REPLICA: self._probe_replica,
            DATABASE: self._probe_database,
        }
        self._reset()
        renew_in_children(self, Monitor._reset)

    def _reset(self) -> None:
        """As new: a forked child has neither the thread nor the locks' holders."""
        self._lock = threading.Lock()
        # One canary per process: workers must not read each other's.
        self._canary_key = f"{self._backend.settings.key_prefix}:canary:{secrets.token_hex(4)}"
        self._ticking = threading.RLock()
        self._wake = threading.Event()
        self._lag.on_overtime.add(self._wake)
        self._first_look = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._suspects: set[str] = set()
        self._slow_suspects: set[str] = set()
        self._took: dict[str, float] = {}  # seconds that the last probe of a store waited for its answer
        self._lost: set[str] = set()
        self._known: set[str] = set()
        self._good: dict[str, int] = {}
        self._pauses: dict[str, float] = {}
        self._next_probe: dict[str, float] = {}
        self._next_canary = 0.0
        self._overtimes = self._lag.overtimes
        self._rounds = 0
        self._published: frozenset[str] = frozenset()
        self._next_announcement = 0.0
        self._next_look = 0.0
        self.waiting: Waiting | None = NOTHING_WAITS
        # By shard: when all was well there for certain, and since when it may have lost something.
        self._last_good: dict[str, float] = {}
        self._well_until_ms: dict[str, int] = {}  # the same by its own clock
        self._began = self._clock()

    def ensure_started(self) -> None:
        """Start the thread in this process unless it runs, or was stopped. Costs an attribute look-up when it runs."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._stopping:
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
        """Whether this process has looked at every store once: before that it is not known that all is well."""
        return self._rounds > 0

    def wait_for_first_look(self, seconds: float) -> None:
        """Wait until then, or until so much time has passed."""
        self._first_look.wait(seconds)

    def stop(self) -> None:
        """End the thread and that of the replay, and wait for them. For tests and orderly exits; they are daemons."""
        self._stopping = True
        self._wake.set()
        if self._thread not in (None, threading.current_thread()):
            self._thread.join(timeout=5)
        self.replay.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing happens beside requests while this is open; for tests that switch stores off by hand."""
        with self._ticking, self.replay.paused():
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

    def note_incident(self, shard: str = ONLY) -> None:
        """Redis was exchanged for another server, or lost data: what changed lately is brought to it again, and what
        this worker holds."""
        self.replay.incident_since(self._last_good.get(shard, self._began), [shard])
        self.replay.may_have_lost(shard, self._well_until_ms.get(shard, 0))

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.watch()
                self.replay.ensure_started()
            except Exception:
                # The thread must outlive any surprise: without it no breaker would ever close again.
                log.exception("the session monitor met an error it does not know; it goes on")
            self._wake.wait(POLL if not self._next_probe else min(POLL, self._until_next_probe()))
            self._wake.clear()

    def _until_next_probe(self) -> float:
        return max(0.01, min(self._next_probe.values()) - self._clock())

    def tick(self) -> None:
        """One round of everything: :meth:`watch`, and a slice of the replay. For tests that drive it without the
        threads; a store that comes back has by then what waited for it, if that is not much."""
        self.watch()
        self.replay.run_once()

    def watch(self) -> None:
        """One round: look at stores, and close the breakers of those that answer again."""
        with self._ticking:
            self._watch()
            self._rounds += 1
            self._first_look.set()

    def _watch(self) -> None:
        self._backend.database.end_overdue()
        self._backend.recorder.measure("process_lag", "process", self._lag.longest * 1000)
        self._look_at_suspects()
        lost = {store for store, _ in self._health.open_stores()}
        self._note_waiting(ask_journal(self._journal.is_empty, "monitor"))
        self.share_outage()
        self._attend(lost)
        for store in self._next_probe.keys() - lost:
            del self._next_probe[store]
        for store in lost:
            if self._clock() >= self._next_probe.get(store, 0):
                self._probe(store)
        self._health.refresh()
        ask_journal(self._journal.shrink, "monitor")

    def share_outage(self) -> None:
        """When no Redis answers any more: let the host's other workers have this one's copies, once."""
        silent = frozenset(shard for shard in self._health.shards if self._health.view(shard).reader is None)
        if silent - self._published:
            self._backend.share_copies(silent - self._published)
            self._next_announcement = 0.0
        if silent and self._clock() >= self._next_announcement:
            # As long as it lasts: a worker that has recovered takes it back for all of them.
            self._next_announcement = self._clock() + _ANXIOUS
            ask_journal(lambda: self._board.announce_outage(PRIMARY), "monitor")
        was_announced = bool(self._published)
        if not was_announced and self._rounds == 0:
            was_announced = bool(ask_journal(self._board.outages, "monitor"))
        if not silent and was_announced:  # here, or by a worker that died during the outage
            ask_journal(lambda: self._board.outage_over(PRIMARY), "monitor")
        self._published = silent

    def _siblings_are_in_trouble(self) -> bool:
        return bool(ask_journal(self._journal.changed, "monitor")) and bool(ask_journal(self._board.outages, "monitor"))

    def _note_waiting(self, is_empty: bool | None) -> None:
        """So that a health page can say it without asking the file."""
        if is_empty is not False:
            self.waiting, self._next_look = NOTHING_WAITS if is_empty else None, 0.0
        elif self._clock() >= self._next_look:
            self._next_look = self._clock() + _LOOK_AT_JOURNAL
            self.waiting = ask_journal(self._journal.waiting, "monitor")

    def _look_at_suspects(self) -> None:
        """Canaries: to all stores now and then, at once to those that failed here or on this host."""
        lost = {store for store, _ in self._health.open_stores()}
        due = self._clock() >= self._next_canary
        if due:
            self._next_canary = self._clock() + (min(self._interval, _ANXIOUS) if lost else self._interval)
        stores = {store for store, _ in self._health.breakers}
        self._suspects.update(stores - self._known)
        self._known = stores
        # Where one store is lost the others carry its load: whether they can is worth knowing at once.
        overtimes, self._overtimes = self._overtimes, self._lag.overtimes
        if due or lost - self._lost or self._siblings_are_in_trouble():
            self._suspects.update(stores)
        elif overtimes != self._overtimes:
            # A probe of the database takes a late process a second, in which it does not look at the others.
            is_idle = not self._backend.database.in_use
            self._suspects.update(store for store in stores if not (is_idle and role_of(store) == DATABASE))
        self._lost = lost
        suspects, self._suspects = self._suspects, set()
        for store in sorted(suspects, key=lambda store: role_of(store) == DATABASE):  # which may take its time
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
            late = self._lag.late()
            try:
                self._look_at(store)
            except StoreError as error:
                self._health.failed(error, READ)
                return False
            if not self._took_too_long(self._took.get(store, 0.0), late):
                return False
        return True

    def _took_too_long(self, took: float, late: float) -> bool:
        """Whether it was the store that took a probe so many seconds.

        :param late: what this process had been late before it, see :meth:`Lag.late`.
        """
        return took > self._slow and not self._lag.is_late(took, late)

    def _send_canary(self, store: str) -> None:
        # As often as it takes to open a breaker: an idle worker must notice an outage as surely as a busy one.
        for _ in range(self._backend.settings.failure_threshold):
            try:
                self._look_at(store)
                break
            except StoreError as error:
                self._health.failed(error, READ)
                if error.error_class is ErrorClass.LOCAL:
                    self._suspects.add(store)
            if not self._health.is_whole(store):
                break
        if role_of(store) == PRIMARY and self._health.is_whole(store):
            self._look_for_losses(store)

    def _look_at(self, store: str) -> None:
        """One probe. A late process repeats one that it had no answer to while requests had theirs.

        :raises StoreError: the store's, or of class L: this process has not found out.
        """
        for number in range(LATE_PROBES, 0, -1):
            answers, late = self._health.answers(store), self._lag.late()
            patience = self._patience_with(role_of(store))
            try:
                self._probes[role_of(store)](store, patience)
                return
            except StoreError as error:
                is_clear = self._health.answers(store) == answers or not self._lag.is_late(patience, late)
                if number == 1 or is_clear or not error.timed_out:
                    raise

    def _patience_with(self, role: str) -> float:
        """Seconds. A late process waits longer by itself, and shall know soon all the same; but a call of the database
        has to wait for its turn again and again."""
        return self._patience[role] * (1.0 if role == DATABASE else max(_LEAST_PACE, self._lag.pace))

    def _look_for_losses(self, store: str = PRIMARY) -> None:
        """What keeps its connections (an emptied server, a restored snapshot) shows by the canary."""
        began = self._clock()
        try:
            primary = self._backend.store(store)
            canary = primary.look_at_canary(primary.server_identity.canary, timeout=self._patience[PRIMARY])
        except StoreError as error:
            self._health.failed(error, WRITE)
            return
        shard = shard_of(store)
        if primary.server_identity.saw(canary):
            log.warning("the %s lost data behind its connections; its signed-in sessions are verified once", store)
            self._backend.reports.emit(events.data_lost, events.DataLost(store))
        elif not self.replay.gives_back:
            locate = self._health.locate
            self._backend.local.nothing_was_lost(began, lambda digest: locate(digest) == shard)
        self._last_good[shard], self._well_until_ms[shard] = self._clock(), canary.now_ms

    def _probe(self, store: str) -> None:
        """One probe of a store that requests do not use."""
        began, late = self._clock(), self._lag.late()
        self._took.pop(store, None)
        try:
            healthy = self._probes[role_of(store)](store, _PROBE_TIMEOUT)
        except StoreError:
            healthy = frozenset()
        took = self._took.get(store, self._clock() - began)
        recovered = healthy & {way for name, way in self._health.open_stores() if name == store}
        if not recovered or self._took_too_long(took, late):
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
        breaker = self._health.breakers.get((store, READ))
        return breaker is not None and breaker.cause == ErrorClass.IDENTITY_REFUSED.name

    def recover(self, store: str, directions: Collection[str]) -> None:
        """Let requests use a store again; what waited for it, and what it was not told meanwhile, follows."""
        role = role_of(store)
        if role != DATABASE:
            with suppress(StoreError):  # its shard is none any more
                self._backend.store(store).forget_connections()
        if role in (PRIMARY, DATABASE):
            opened_at = min(self._opened_at(store, way) for way in directions)
            self.replay.incident_since(opened_at, self._health.shards if role == DATABASE else [shard_of(store)])
        self.replay.recovered()
        away = max(self._close(store, direction) for direction in directions)
        ways = " and ".join(f"{direction}s" for direction in sorted(directions))
        log.warning("session store %s is used for %s again, after %.1f s", store, ways, away)
        self._good[store] = 0
        self._pauses.pop(store, None)
        self._next_probe.pop(store, None)

    def _opened_at(self, store: str, direction: str) -> float:
        breaker = self._health.breakers.get((store, direction))
        return self._clock() if breaker is None or breaker.opened_at is None else breaker.opened_at

    def _close(self, store: str, direction: str) -> float:
        """For how many seconds requests did not use it."""
        seconds = self._clock() - self._opened_at(store, direction)
        self._health.close(store, direction)
        self._backend.reports.emit(events.store_recovered, events.StoreRecovered(store, direction, seconds))
        return seconds

    def _probe_primary(self, name: str, timeout: float) -> frozenset[str]:
        primary = self._backend.primary
        if isinstance(primary, ClusterStore):
            primary.find_shards(timeout)
        store = self._backend.store(name)  # none of this name, if shards were found: each has probes of its own
        value = secrets.token_hex(8)
        try:
            self._took[name] = store.probe(self._canary_key, value, timeout=timeout)
        except StoreError as error:
            if error.error_class is not ErrorClass.WRITE_REFUSED:
                raise
            store.probe_read(timeout=timeout)
            if (name, WRITE) not in self._health.open_stores():
                self._health.failed(error, WRITE)
            return frozenset({READ})
        return _BOTH

    def _probe_replica(self, name: str, timeout: float) -> frozenset[str]:
        self._took[name] = self._backend.store(name).probe_read(timeout=timeout)
        return _BOTH

    def _probe_database(self, name: str, timeout: float) -> frozenset[str]:
        database = self._backend.database
        try:
            database.probe(timeout)
        except StoreError as error:
            if error.error_class is not ErrorClass.WRITE_REFUSED:
                raise
            database.probe_read(timeout)
            if (DATABASE, WRITE) not in self._health.open_stores():
                self._health.failed(error, WRITE)
            return frozenset({READ})
        return _BOTH
