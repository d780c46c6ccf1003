"""The one thread per process that looks after the stores, in rounds.

Each round looks at the stores and closes the breakers of those that answer again, see :mod:`.probes`. What waited for a
store is merged beside that, by :mod:`.recovery`, which says why it is safe. The thread starts lazily: a thread started
before a fork (gunicorn --preload) does not exist in the workers.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from ..policy.health import ONLY
from ..stores.backend import Backend
from ..stores.host.journal import Waiting
from ..stores.host.opening import DeletedJournal
from ..support.chance import CHANCE
from ..support.forks import renew_in_children
from ..support.lag import PROCESS, Lag
from ..support.logs import fields
from ..support.threads import start_daemon
from .outages import NOTHING_WAITS, Outages
from .probes import Prober, Probes
from .recovery import Recovery
from .steps import ask_journal

log = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between looks at the host's journal: how soon a sibling worker's outage is noticed here."""

REST = 1.0
"""Seconds between two rounds while nothing happens in this process. The replay looks a tenth as often then: something
happens before there is anything for it to do."""

INTERVAL = 20.0
"""Seconds between two looks at stores that nothing is the matter with. An alert of what only these find, as of a
promoted replica, waits five seconds more, and shall come within 30."""

_LEAST_WAIT = 0.01
"""Seconds between two rounds at least, unless something is suspected."""


class Round(NamedTuple):
    """The findings of one round before it probes.

    :param lost: the names of the stores that requests do not use.
    :param waiting: what waits in the host's journal, as of a second ago; None: it cannot be read.
    :param is_at_rest: whether nothing is to be replayed.
    """

    lost: Set[str]
    waiting: Waiting | None
    is_at_rest: bool


class Monitor:
    """Looks after the stores of one backend.

    :param notices: bring what is noticed of the stores elsewhere.
    :param attend: called every round: there may be another address for a store that is lost, or another token. It may
        take as long as a probe.
    :ivar backend: the stores.
    :ivar recovery: brings what waited to the stores.
    :ivar outages: what this worker's host shares of them.
    :ivar probes: what probing each store has found.
    :ivar is_stopping: whether the thread is to end.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        notices: Notices | None = None,
        attend: Callable[[Round], None] = lambda found: None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] | None = None,
        rng: random.Random | None = None,
        lag: Lag = PROCESS,
    ) -> None:
        self.backend = backend
        self._attend = attend

        clocked = partial(Probes, clock=clock, rng=rng or CHANCE, interval=INTERVAL)

        def parts() -> tuple[Recovery, Outages, Probes]:
            recovery = Recovery(backend, suspect=self.suspect, clock=clock, now_ms=now_ms)
            outages, prober = Outages(backend, clock=clock), Prober(backend, lag)
            return recovery, outages, clocked(backend, prober, recovery, outages)

        self._new_parts = parts
        self._begin()
        renew_in_children(self, Monitor._begin)
        if notices is not None:
            notices.monitor = self

    def _begin(self) -> None:
        """Begin with nothing; a forked child has neither the threads nor the knowledge of its parent."""
        self.recovery, self.outages, self.probes = self._new_parts()
        self._lock = threading.Lock()
        self._ticking = threading.RLock()
        self._wake = threading.Event()
        self.probes.prober.lag.on_overtime.add(self._wake)
        self._first_look = threading.Event()
        self._thread: threading.Thread | None = None
        self.is_stopping = False

    def ensure_started(self) -> None:
        """Start the thread in this process unless it runs, or was stopped. Costs an attribute look-up when it runs."""
        # A thread that finds another one at it need not wait for that.
        if self._thread is None and self._lock.acquire(blocking=False):
            try:
                if self._thread is None and not self.is_stopping:
                    self._start()
            finally:
                self._lock.release()

    def _start(self) -> None:
        self._thread = start_daemon("langpont-session-monitor", self._run)
        if self._thread is None:  # the next request tries again
            log.error(
                "the monitor of the session stores cannot be started: the system gives no more threads",
                extra=fields("monitor_not_started"),
            )

    @property
    def has_looked(self) -> bool:
        """Return whether this process has looked at every store once: before that it is not known that all is well."""
        return self._first_look.is_set()

    def wait_for_first_look(self, seconds: float) -> None:
        """Wait until this process has looked at every store, or until so much time has passed."""
        self._first_look.wait(seconds)

    def stop(self) -> None:
        """End the thread and that of the replay, and wait for them. For tests and orderly exits; they are daemons."""
        self.is_stopping = True
        self._wake.set()
        if self._thread not in (None, threading.current_thread()):
            self._thread.join(timeout=5)
        self.recovery.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let nothing happen beside requests while this is open: for an operator's look at the stores, and for tests
        that switch them off."""
        with self._ticking, self.recovery.paused():
            yield

    def suspect(self, store: str) -> None:
        """Look at a store at once, because a request met a failure, instead of waiting for more requests to meet it."""
        if threading.current_thread() is not self._thread:
            self.probes.of(store).is_suspect = True
            self._wake.set()

    def suspect_slowness(self, store: str) -> None:
        """Look whether a store is slow, because requests had to wait too long for too many answers."""
        self.probes.of(store).may_be_slow = True
        self._wake.set()

    def _run(self) -> None:
        has_joined = False
        while not self.is_stopping:
            try:
                if not has_joined:
                    self.recovery.steps.giving_back.join()
                    has_joined = True
                self.watch()
                self.recovery.ensure_started()
            except Exception:
                # The thread must outlive any surprise: without it no breaker would ever close again.
                log.exception(
                    "the session monitor met an error it does not know; it goes on", extra=fields("monitor_failed")
                )
            self._wait_for_next()

    def _wait_for_next(self) -> None:
        until_next, rests_until = self.probes.until_next(), time.monotonic() + REST
        pause = POLL if until_next is None else min(POLL, max(_LEAST_WAIT, until_next))
        while not self._wake.wait(pause) and self._rests() and time.monotonic() < rests_until:
            pass
        self._wake.clear()

    def _rests(self) -> bool:
        """Return whether this process has waited for nothing in the last second and nothing is to be done, here or on
        its host."""
        rests = (
            self.probes.prober.lag.rests
            and not (self.probes.is_canary_due or self.backend.health.lost_stores or self.backend.lacks)
            and self.outages.waiting == NOTHING_WAITS
            and bool(ask_journal(self.backend.journal.is_empty, "monitor"))
        )
        self.recovery.look_every(10 * REST if rests else POLL)
        return rests

    def tick(self) -> None:
        """Make one round of everything: :meth:`watch`, and a slice of the replay. For tests that drive it without the
        threads; a store that comes back has by then what waited for it, if that is not much."""
        self.watch()
        self.recovery.run_once()

    def watch(self) -> None:
        """Make one round: look at stores, and close the breakers of those that answer again."""
        with self._ticking:
            self._watch()
            self._first_look.set()

    def _watch(self) -> None:
        self.backend.database.calls.end_overdue()
        self.backend.register.look_for_former()
        self.backend.recorder.measure("process_lag", "process", self.probes.prober.lag.longest * 1000)
        self.probes.look_at_suspects()
        lost = self.backend.health.lost_stores
        self.outages.note_waiting()
        self.outages.share()
        self._attend(Round(lost, self.outages.waiting, self.recovery.steps.merges.nothing_waits))
        self.probes.probe_lost(lost)
        self.backend.health.refresh()
        ask_journal(self._tidy_journal, "monitor")

    def _tidy_journal(self) -> None:
        try:
            self.backend.journal.shrink()
        except DeletedJournal as error:
            self.backend.reports.journal_failed(error)


class Notices:
    """Passes on to the monitor what requests and connections notice of the stores. The monitor needs all stores, and
    some of what it needs tells it things: so this is made first, and the monitor last. Until then there is nothing to
    pass on: the monitor begins by looking at every store."""

    monitor: Monitor | None = None

    def suspect(self, store: str) -> None:
        """Note that a call to that store failed, or that it lacks what it had."""
        if self.monitor is not None:
            self.monitor.suspect(store)

    def suspect_slowness(self, store: str) -> None:
        """Note that too many answers of that store came too late."""
        if self.monitor is not None:
            self.monitor.suspect_slowness(store)

    def note_incident(self, shard: str = ONLY) -> None:
        """Note that Redis was exchanged for another server, or lost data."""
        if self.monitor is not None:
            self.monitor.recovery.note_incident(shard)
