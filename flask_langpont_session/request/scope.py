"""One request's way through the stores: which ones it may still ask, for what, and how long it may still wait.

The snapshot is taken when the request first needs a store and only ever shrinks: a store that fails mid-way is reported
to health, and the same request goes on without it. All waits of a request come out of one budget, in which the time
that this process is late does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..policy.errors import ErrorClass, StoreError, role_of
from ..policy.health import DATABASE, ONLY, PRIMARY, READ, REPLICA, WRITE, Health, HealthSnapshot
from ..support import lag
from ..support.lag import LEAST_WAIT, Wait, no_answer

if TYPE_CHECKING:
    from ..metrics.recorder import Recorder

T = TypeVar("T")


LEAST_AT_LAST = 0.05
"""Seconds that the host's journal is waited for at least, and Redis by what ends a session: both are told after stores
that may have been waited for in vain, and no later request does it again."""

FIRST, FIRST_ANSWERS = 0.75, 50
"""Seconds at least, beside the budget, for about so many answers of the database that are a process's first.
Connections have to be made for them, and a Redis that is away may have used up what there was to be waited."""


class StoreCall(NamedTuple):
    """A kind of call that requests make to a store. Two that do the same for a user have the same name.

    :param name: for the recorder.
    :param store: the role of the store that is asked, and `way`: whether that is a ``read`` or a ``write``.
    """

    name: str
    store: str
    way: str


LOAD, LOAD_REPLICA = StoreCall("load", PRIMARY, READ), StoreCall("load", REPLICA, READ)
LOOK_FOR_LOSS, QUARANTINE = StoreCall("load", PRIMARY, WRITE), StoreCall("quarantine", PRIMARY, WRITE)
SAVE, PUSH = StoreCall("save", PRIMARY, WRITE), StoreCall("push", PRIMARY, WRITE)
EXTEND_IDLE = StoreCall("extend_idle", PRIMARY, WRITE)
WRITE_TOMBSTONE = StoreCall("write_tombstone", PRIMARY, WRITE)
VERIFY, LIST_SESSIONS = StoreCall("verify", DATABASE, READ), StoreCall("list", DATABASE, READ)
SAVE_ROW, SIGN_IN = StoreCall("save", DATABASE, WRITE), StoreCall("sign_in", DATABASE, WRITE)
REPAIR, REVOKE = StoreCall("repair", DATABASE, WRITE), StoreCall("revoke", DATABASE, WRITE)
TAKE_DISPLACED = StoreCall("verify", DATABASE, WRITE)


class RequestScope:
    """The stores as one request sees them, for sessions of one shard; see :meth:`to`.

    :param timeouts: role of a store → seconds that a call to it may take, if the request has so many left.
    :param budget: seconds this request may wait for stores, all together.
    :param clock: monotonic seconds.
    :param shard: of the session it is about.
    """

    __slots__ = ("_clock", "_health", "_left", "_others", "_recorder", "_shard", "_timeouts", "view")

    def __init__(
        self,
        health: Health,
        recorder: Recorder,
        timeouts: Mapping[str, float],
        budget: float,
        clock: Callable[[], float] = time.monotonic,
        shard: str = ONLY,
    ) -> None:
        self._health = health
        self._recorder = recorder
        self._timeouts = timeouts
        self._left = [budget]  # one number for all shards
        self._clock = clock
        self._shard = shard
        self._others: dict[str, RequestScope] | None = None  # by shard; most requests have to do with one only
        self.view: HealthSnapshot = health.snapshot(shard)

    def to(self, digest: str) -> RequestScope:
        """Return the same request on its way to a session: its shard's stores, and what is left of the one budget."""
        shard = self._health.locate(digest)
        return self if shard == self._shard else self._branch(shard)

    def _branch(self, shard: str) -> RequestScope:
        if self._others is None:
            self._others = {self._shard: self}
        if shard in self._others:
            return self._others[shard]
        other = RequestScope(self._health, self._recorder, self._timeouts, 0.0, self._clock, shard)
        lost = [way for way in (READ, WRITE) if not self.can(DATABASE, way)]
        if lost:
            other.view = other.view.without(DATABASE, *lost, is_busy=self.view.is_busy)
        other._left, other._others = self._left, self._others
        self._others[shard] = other
        return other

    @property
    def level(self) -> int:
        """Return the degradation level this request is at."""
        return self.view.level

    def can(self, store: str, direction: str) -> bool:
        """Return whether this request may still ask that store."""
        return (store, direction) in self.view.up

    def ask(self, operation: StoreCall, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Ask one store.

        :param call: gets the arguments and, as `timeout`, the seconds it may wait: those of its store, cut to what
            is left of the budget, as a :class:`Wait`.
        :raises StoreError: after health was told, and the store is out for the rest of this request.
        """
        name, store, direction = operation
        left, clock, timeout = self._left[0], self._clock, self._timeouts[store]
        is_first = store == DATABASE and self._health.answers(store) < FIRST_ANSWERS
        allowed = max(FIRST, timeout) if is_first else timeout if timeout < left else left
        if allowed < LEAST_WAIT:
            raise self._lost(self.gave_up(store, "RequestBudgetSpent"), direction)
        began = clock()
        process = lag.of(clock)
        late = process.late(began)
        try:
            answer = call(*arguments, timeout=Wait(allowed, max(allowed, left)), **options)
        except StoreError as error:
            found = self.failed(operation, error, allowed, began, late)
            if is_first:
                self._left[0] = left
            raise found from None
        took = self._took(process, began, late)
        if not is_first:
            self._left[0] -= min(allowed, took)
        self._health.succeeded(store if store == DATABASE else store + self._shard, direction, took, began)
        self._recorder.observe(name, "all", store, "ok", took)
        return answer

    def failed(self, operation: StoreCall, error: StoreError, allowed: float, began: float, late: float) -> StoreError:
        """Tell health of an error, and return it as it counts. The store is out for the rest of this request.

        :param allowed: seconds that it was waited for.
        :param began: when that began, monotonic seconds, and `late`: what :meth:`.lag.Lag.late` said then.
        """
        if error.timed_out:
            error = self._explained(error, allowed, self._timeouts[operation.store], late)
        took = self._took(lag.of(self._clock), began, late)
        self._failed(error, operation.way, operation.name, took)
        return error

    @property
    def left(self) -> float:
        """Return how many seconds this request may still wait for stores."""
        return self._left[0]

    def require(self, operation: StoreCall, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Ask one store, as :meth:`ask` does.

        :raises StoreError: also where it is known that the store does not answer.
        """
        if not self.can(operation.store, operation.way):
            raise self.gave_up(operation.store, "BreakerOpen")
        return self.ask(operation, call, *arguments, **options)

    def attempt(self, operation: StoreCall, call: Callable[..., T], *arguments: Any, **options: Any) -> T | None:
        """Ask a store whose failure changes nothing but what is done next; None: it failed."""
        try:
            return self.require(operation, call, *arguments, **options)
        except StoreError:
            return None

    def did(self, operation: StoreCall, call: Callable[..., object], *arguments: Any, **options: Any) -> bool:
        """Ask a store as :meth:`attempt` does, and return whether it did it: the answer says nothing."""
        try:
            self.require(operation, call, *arguments, **options)
        except StoreError:
            return False
        return True

    def note(self, call: Callable[[float], T], share: float = 1.0) -> T:
        """Use the host's journal. It has what is left of the budget, and its time comes out of that.

        :param call: gets the seconds it may wait.
        :param share: of what is left, that it may wait at most: stores that are still to be asked need the rest.
        """
        began = self._clock()
        process = lag.of(self._clock)
        late = process.late(began)
        allowed = max(LEAST_AT_LAST, self._left[0] * share)
        try:
            return call(allowed)
        finally:
            # A wait of a late process goes on; that is not at the expense of the stores.
            self._left[0] = max(0.0, self._left[0] - min(allowed, self._took(process, began, late)))

    def spare_some(self) -> None:
        """Have at least :data:`LEAST_AT_LAST` left to wait for stores."""
        self._left[0] = max(self._left[0], LEAST_AT_LAST)

    @staticmethod
    def gave_up(store: str, why: str) -> StoreError:
        """Return an error of ours, not of the store: health does not count it."""
        return StoreError(store, ErrorClass.LOCAL, why)

    @property
    def primary_is_healthy(self) -> bool:
        """Return whether the primary takes reads and writes."""
        return self.can(PRIMARY, READ) and self.can(PRIMARY, WRITE)

    def _took(self, process: lag.Lag, began: float, late: float) -> float:
        """Return the seconds that have passed for this process."""
        now = self._clock()
        return max(0.0, now - began - process.late(now) + late)

    def _explained(self, error: StoreError, allowed: float, timeout: float, late: float) -> StoreError:
        """Return a time-out as it counts: it must not open the breaker of a store that was not given its time.

        :param late: what :meth:`.lag.Lag.late` said before.
        """
        process = lag.of(self._clock)
        error_class, cause = error.error_class, no_answer(allowed, process.late() - late)
        if not error.concerns_health:
            return error
        if allowed < timeout:
            error_class, cause = ErrorClass.LOCAL, "RequestBudgetSpent"
        elif process.is_late(allowed, late):
            error_class, cause = ErrorClass.LOCAL, f"ProcessLate: {cause}"
            self._health.doubted(error.store)
        return StoreError(error.store, error_class, cause, timed_out=True, sent=error.sent)

    def _failed(self, error: StoreError, direction: str, operation: str, took: float) -> None:
        self._left[0] = max(0.0, self._left[0] - took)
        role = role_of(error.store)
        self._recorder.observe(operation, "all", role, error.error_class.name.lower(), took)
        lost = self._health.failed(error, direction)
        if error.error_class is not ErrorClass.DATA:
            self._lost(error, *lost)

    def _lost(self, error: StoreError, *ways: str) -> StoreError:
        """Ask a store no more for this request. The database is the same one for all shards."""
        role, is_busy = role_of(error.store), error.error_class is ErrorClass.LOCAL
        for scope in self._others.values() if self._others and role == DATABASE else (self,):
            scope.view = scope.view.without(role, *ways, is_busy=is_busy)
        return error
