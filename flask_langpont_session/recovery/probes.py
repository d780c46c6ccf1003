"""The probes of the stores: what probing each of them has found so far, and when it is probed next.

Requests may open a breaker, only probes close one: two good ones in a row over new connections. A store that requests
do not use is probed for ever, with full jitter up to 1 s (3 s, if it refuses this worker); one that they use is sent a
canary now and then.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..policy.breaker import FAILURES
from ..policy.causes import SLOW
from ..policy.errors import ErrorClass, StoreError, role_of, shard_of
from ..policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE
from ..stores.backend import Backend
from ..support.lag import Lag
from ..support.logs import fields

if TYPE_CHECKING:
    from .outages import Outages
    from .recovery import Recovery

log = logging.getLogger(__name__)

GOOD_PROBES = 2
"""Probes in a row that close a breaker: one could be luck in a flapping network."""

SLOW_PROBES = 2
"""Slow probes in a row that confirm that a store is slow."""

LATE_PROBES = 3
"""Probes without an answer in a row that tell a late process more than the answers that its requests had meanwhile."""

PROBE_TIMEOUT = 0.5
"""Seconds for a store that is lost. One that is not is waited for as long as requests wait, if that is longer: what
they would get an answer from is no outage."""

_LEAST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_REFUSED_PAUSE = 3.0
"""Seconds. A worker that is refused gets in again only when a person or a rotation has changed something."""

_ANXIOUS = 2.0
"""Seconds between canaries to the remaining stores while one is lost."""

_BOTH = frozenset({READ, WRITE})


def _slow(store: str) -> StoreError:
    return StoreError(store, ErrorClass.UNREACHABLE, SLOW, timed_out=True)


@dataclass
class StoreProbe:
    """The state of probing one store: what was found so far, and when it is probed next. Time is an argument.

    :ivar good: good probes in a row of a store that is lost.
    :ivar pause: seconds that the pause before the next probe takes at most.
    :ivar next_at: monotonic seconds, when a store that is lost is probed next; 0: at once.
    :ivar is_suspect: whether a canary is to be sent; so it is to a store that is new.
    :ivar may_be_slow: whether requests had to wait too long for it, and probes are to say whether it is the store.
    :ivar was_lost: whether requests did not use it in the last round.
    """

    name: str
    good: int = 0
    pause: float = _LEAST_PAUSE
    next_at: float = 0.0
    is_suspect: bool = True
    may_be_slow: bool = False
    was_lost: bool = False

    def succeeded(self, now: float) -> bool:
        """Count a good probe.

        :return: whether requests can use the store again.
        """
        self.good += 1
        self.next_at = now + _LEAST_PAUSE
        return self.good >= GOOD_PROBES

    def failed(self, now: float, uniform: Callable[[float, float], float], *, refused: bool = False) -> None:
        """Count a probe that was in vain, or slow: the next one comes later.

        :param uniform: a random number between two.
        :param refused: whether the store refuses this worker.
        """
        self.good = 0
        self.pause = min(_REFUSED_PAUSE if refused else _LONGEST_PAUSE, self.pause * 2)
        # Full jitter: the workers of a fleet must not probe in step.
        self.next_at = now + uniform(_LEAST_PAUSE, self.pause)

    def recovered(self) -> None:
        """Begin with short pauses again: requests use the store, and this is for the next outage."""
        self.good, self.pause, self.next_at = 0, _LEAST_PAUSE, 0.0


class ProbeAnswer(NamedTuple):
    """A store's answer to a probe.

    :ivar ways: the directions in which it answers.
    :ivar took: seconds that it was waited for; None: not measured.
    """

    ways: frozenset[str]
    took: float | None = None


class Prober:
    """Makes the calls, and tells a store that does not answer from a process that is late itself.

    :ivar lag: how late this process is.
    """

    def __init__(self, backend: Backend, lag: Lag) -> None:
        self._backend = backend
        self._health = backend.health
        self.lag = lag
        self._slow = backend.settings.slow
        redis = max(PROBE_TIMEOUT, backend.settings.redis_timeout)
        database = max(PROBE_TIMEOUT, backend.settings.database_timeout)
        self.patience = {PRIMARY: redis, REPLICA: redis, DATABASE: database}
        # There is a canary per process: workers must not read each other's.
        self._canary_key = f"{self._backend.settings.key_prefix}:canary:{secrets.token_hex(4)}"
        self._overtimes = self.lag.overtimes

    def take_overtime(self) -> bool:
        """Return whether a wait has gone on after its time since the last call."""
        before, self._overtimes = self._overtimes, self.lag.overtimes
        return before != self._overtimes

    def took_too_long(self, took: float, late: float) -> bool:
        """Return whether a probe took too many seconds, and the store is the cause rather than this process.

        :param late: what this process had been late before it, see :meth:`Lag.late`.
        """
        return took > self._slow and not self.lag.is_late(took, late)

    def confirm_slow(self, store: str) -> bool:
        """Return whether a store is slow: ask it several times, while this process itself is not held up."""
        for _ in range(SLOW_PROBES):
            late = self.lag.late()
            try:
                answer = self.look(store)
            except StoreError as error:
                self._health.failed(error, READ)
                return False
            if not self.took_too_long(answer.took or 0.0, late):
                return False
        return True

    def look(self, store: str) -> ProbeAnswer:
        """Probe a store. A late process repeats a probe that had no answer while requests had theirs.

        :raises StoreError: the store's, or of class L: this process has not found out.
        """
        whole = self.patience[role_of(store)]
        for _ in range(LATE_PROBES - 1):
            began, late = self.lag.clock(), self.lag.late()
            try:
                return self.ask(store, self.patience_with(store))
            except StoreError as error:
                waited = self.lag.clock() - began
                is_excused = self.lag.is_late(waited, late) and self._has_answered_since(store, began)
                if not error.timed_out or (waited >= whole and not is_excused):
                    raise
        return self.ask(store, whole)

    def _has_answered_since(self, store: str, began: float) -> bool:
        """Return whether a request had an answer for which it asked after a moment. One that asked before, and came to
        read its answer later, says nothing of the store as it is now."""
        return any(breaker.asked_at > began for (name, _), breaker in self._health.breakers.items() if name == store)

    def patience_with(self, store: str) -> float:
        """Return for how many seconds a store is waited for. A late process waits longer by itself, and shall know soon
        all the same; but a call of the database has to wait for its turn again and again."""
        role = role_of(store)
        return self.patience[role] if role == DATABASE else self.lag.with_overtime(self.patience[role])

    def ask(self, store: str, timeout: float) -> ProbeAnswer:
        """Probe a store once, and return its answer.

        :param timeout: seconds.
        :raises StoreError: the store answers in no direction.
        """
        role = role_of(store)
        place: Any = self._backend.database if role == DATABASE else self._backend.find(store, timeout)
        if role == REPLICA:
            answer = ProbeAnswer(_BOTH, place.probe_read(timeout=timeout))
            self._refuse_promoted(store, timeout)
            return answer
        written = () if role == DATABASE else (self._canary_key, secrets.token_hex(8))
        try:
            return ProbeAnswer(_BOTH, place.probe(*written, timeout=timeout))
        except StoreError as error:
            if error.error_class is not ErrorClass.WRITE_REFUSED:
                raise
            place.probe_read(timeout=timeout)
            if (store, WRITE) not in self._health.open_stores():
                self._health.failed(error, WRITE)
            self._health.renew_cause(error, WRITE)
            return ProbeAnswer(frozenset({READ}))

    def _refuse_promoted(self, store: str, timeout: float) -> None:
        """Look whether a replica that has just answered has become a primary. Its own one is asked, too: in a failover
        what is known of that is of before.

        :raises StoreError: it is a primary with data of its own.
        """
        if self._backend.promotion_of(store) is None:
            return
        try:
            self._backend.endpoint(f"{PRIMARY}{shard_of(store)}").probe_read(timeout=timeout)
        except StoreError:
            return
        if (error := self._backend.promotion_of(store)) is not None:
            raise error


class Probes:
    """The probes of all stores of one backend.

    :param clock: monotonic seconds.
    :param interval: seconds between canaries while all stores are well.
    :ivar prober: makes the calls.
    """

    def __init__(
        self,
        backend: Backend,
        prober: Prober,
        recovery: Recovery,
        outages: Outages,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        interval: float,
    ) -> None:
        self._backend = backend
        self._health = backend.health
        self.prober = prober
        self._recovery = recovery
        self._outages = outages
        self._clock = clock
        self._rng = rng
        self._interval = interval
        self._probes: dict[str, StoreProbe] = {}
        self._next_canary = 0.0

    def of(self, store: str) -> StoreProbe:
        """Return the probe of one store. Usable from any thread."""
        return self._probes.get(store) or self._probes.setdefault(store, StoreProbe(store))

    def until_next(self) -> float | None:
        """Return the seconds until a store that is lost is to be probed; None: none is."""
        moments = [probe.next_at for probe in list(self._probes.values()) if probe.next_at]
        return min(moments) - self._clock() if moments else None

    @property
    def is_canary_due(self) -> bool:
        """Return whether it is time to look at all stores again, whether anything is suspected or not."""
        return self._clock() >= self._next_canary

    # -- stores that requests use --------------------------------------------------------------------------------------

    def look_at_suspects(self) -> None:
        """Send canaries: to all stores now and then, at once to those that failed here or on this host."""
        lost = self._health.lost_stores
        for probe in self._take_suspects(lost):
            if probe.name not in lost:  # those have probes of their own
                self._send_canary(probe.name)
        for probe in list(self._probes.values()):
            may_be_slow, probe.may_be_slow = probe.may_be_slow, False
            if may_be_slow and probe.name not in lost and self.prober.confirm_slow(probe.name):
                log.warning(
                    "session store %s answers, but takes longer than half of REDIS_TIMEOUT",
                    probe.name,
                    extra=fields("store_slow", store=probe.name),
                )
                self._health.failed(_slow(probe.name), READ)

    def _take_suspects(self, lost: Collection[str]) -> list[StoreProbe]:
        """Return the probes of stores that are suspected now, which are not suspected any more after this."""
        stores = {store for store, _ in self._health.breakers}
        used = [self.of(store) for store in stores]  # a new one is suspect
        for probe in self._those_to_look_at(used, lost):
            probe.is_suspect = True
        for probe in used:
            probe.was_lost = probe.name in lost
        suspects = [probe for probe in list(self._probes.values()) if probe.is_suspect]
        for probe in suspects:
            probe.is_suspect = False
        for gone in set(self._probes) - stores:
            del self._probes[gone]
        return sorted(suspects, key=lambda probe: role_of(probe.name) == DATABASE)  # which may take its time

    def _those_to_look_at(self, used: list[StoreProbe], lost: Collection[str]) -> list[StoreProbe]:
        """Return the probes for which a canary is due, whether or not a call to their store failed."""
        if due := self.is_canary_due:
            self._next_canary = self._clock() + (min(self._interval, _ANXIOUS) if lost else self._interval)
        was_overtime = self.prober.take_overtime()
        # Where one store is lost the others carry its load: whether they can is worth knowing at once.
        is_new = any(probe.name in lost and not probe.was_lost for probe in used)
        if due or is_new or self._outages.siblings_are_in_trouble():
            return used
        # A probe of the database takes a late process a second, in which it does not look at the others.
        is_idle = not self._backend.database.calls.requests.busy
        return [probe for probe in used if was_overtime and not (is_idle and role_of(probe.name) == DATABASE)]

    def _send_canary(self, store: str) -> None:
        # As often as it takes to open a breaker: an idle worker must notice an outage as surely as a busy one.
        for _ in range(FAILURES):
            try:
                self.prober.look(store)
                break
            except StoreError as error:
                self._health.failed(error, READ)
                if error.error_class is ErrorClass.LOCAL:
                    self.of(store).is_suspect = True
            if not self._health.is_whole(store):
                break
        if role_of(store) == PRIMARY and self._health.is_whole(store):
            self._look_for_losses(store)

    def _look_for_losses(self, store: str) -> None:
        try:
            self._recovery.look_for_losses(store, self.prober.patience_with(store))
        except StoreError as error:
            if error.timed_out and self.prober.lag.is_behind:  # a probe says more
                self.of(store).is_suspect = True
            else:
                self._health.failed(error, WRITE)

    # -- stores that requests do not use -------------------------------------------------------------------------------

    def probe_lost(self, lost: Collection[str]) -> None:
        """Probe those of these stores whose time has come, and close the breakers of those that answer again."""
        for probe in list(self._probes.values()):
            if probe.name not in lost:
                probe.next_at = 0.0
        for probe in map(self.of, lost):
            if self._clock() >= probe.next_at:
                self._probe(probe)

    def _probe(self, probe: StoreProbe) -> None:
        began, late = self._clock(), self.prober.lag.late()
        answer = ProbeAnswer(frozenset())
        try:
            answer = self.prober.ask(probe.name, PROBE_TIMEOUT)
        except StoreError as error:
            if (probe.name, READ) not in self._health.open_stores():  # it was lost for writing alone
                self._health.failed(error, READ)
            self._health.renew_cause(error, READ, WRITE)
        took = self._clock() - began if answer.took is None else answer.took
        recovered = answer.ways & {way for name, way in self._health.open_stores() if name == probe.name}
        is_slow = bool(recovered) and self.prober.took_too_long(took, late)
        if is_slow:
            self._health.renew_cause(_slow(probe.name), READ, WRITE)
        if not recovered or is_slow:
            probe.failed(self._clock(), self._rng.uniform, refused=self._is_refused(probe.name))
        elif probe.succeeded(self._clock()):
            if self._has_told_of_losses(probe.name, answer.ways):
                self.recover(probe.name, recovered)
            else:
                probe.failed(self._clock(), self._rng.uniform)

    def _has_told_of_losses(self, store: str, ways: Collection[str]) -> bool:
        """Look whether a primary lost data while it was not used, before anything is read there, or merged. Return
        whether it has answered."""
        if role_of(store) != PRIMARY or WRITE not in ways:
            return True
        self._forget_connections(store)
        try:
            self._recovery.look_for_losses(store, PROBE_TIMEOUT)
        except StoreError:
            return False
        return True

    def _forget_connections(self, store: str) -> None:
        with suppress(StoreError):  # its shard is none any more
            self._backend.endpoint(store).link.forget_connections()

    def _is_refused(self, store: str) -> bool:
        breaker = self._health.breakers.get((store, READ))
        return breaker is not None and breaker.cause == ErrorClass.IDENTITY_REFUSED.name

    def recover(self, store: str, directions: Collection[str]) -> None:
        """Let requests use a store again; what waited for it, and what it was not told meanwhile, follows."""
        if role_of(store) != DATABASE:
            self._forget_connections(store)
        self._recovery.recovered(store, min(self._opened_at(store, way) for way in directions))
        self._health.close(store, directions)
        self.of(store).recovered()

    def _opened_at(self, store: str, direction: str) -> float:
        breaker = self._health.breakers.get((store, direction))
        return self._clock() if breaker is None or breaker.opened_at is None else breaker.opened_at
