"""One in-process recorder: which operation, from which source it was answered, how it ended, how long it took.

The requests' scopes, the save, the events and the request hooks feed it; exporters read it. Recording only appends a
note, and one thread adds up some hundred notes later; it never waits, neither for an exporter nor for another thread
that records. A duration or a size is counted under its first two digits, rounded up: that is precise enough for a
percentile, and few enough numbers to send.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple, TypeVar

from ..support.forks import renew_in_children

T = TypeVar("T")

BOUNDS = (*(float(f"{digits}e{power}") for power in range(-3, 7) for digits in range(10, 100)), 1e8)
"""The values to which milliseconds and bytes are rounded up: two digits from 0.01 on; the last stands for all above."""

_LAST = len(BOUNDS) - 1

_MOST_NOTED = 128
"""Records of one kind that are written down before all are added: one call in so many takes as long as all of them."""

Amounts = Mapping[float, int]
"""One of :data:`BOUNDS` → how many observations were that much."""


class Observation(NamedTuple):
    """The subject of an observation.

    :param name: ``load``, ``save``, ``verify``, ``revoke``, ``request`` …
    :param category: the session category, or ``all``.
    :param source: the store that was asked (``primary``, ``replica``, ``database`` …), or ``none``.
    :param outcome: ``ok``, ``miss``, ``refused``, or an error class in lower case.
    """

    name: str
    category: str
    source: str
    outcome: str


@dataclass(slots=True)
class Series:
    """The observations of one operation.

    :param count: how many.
    :param seconds: their durations, added up.
    :param durations: one of :data:`BOUNDS`, in milliseconds → how many took so long.
    """

    count: int = 0
    seconds: float = 0.0
    durations: dict[float, int] = field(default_factory=Counter)

    def since(self, before: Series) -> Series:
        """Return the observations added since `before`, an earlier copy."""
        return Series(
            self.count - before.count, self.seconds - before.seconds, _added(self.durations, before.durations)
        )


class Measure(NamedTuple):
    """The subject of a measured amount, which is no operation.

    :param name: ``payload`` (bytes of the changed fields of a category), ``pool_wait`` (milliseconds until a connection
        was there, when none lay ready), ``process_lag`` (milliseconds, see :attr:`.lag.Lag.longest`).
    :param of: the session category, the store, or ``process``.
    """

    name: str
    of: str


class NotKept(NamedTuple):
    """Changes of sessions that were not kept, see :mod:`~flask_langpont_session.metrics.losses`.

    :param what: one of the words of ``Loss``.
    :param cause: one of the words of ``Cause``.
    """

    what: str
    cause: str
    category: str


class Recorder:
    """Counts and durations per operation, measured amounts, and plain counters. A forked child begins at nought."""

    def __init__(self) -> None:
        # By the fields of an Observation (4), a Measure (2) or a NotKept (3), or by the name of a counter (1): a plain
        # tuple is made in a fraction of the time.
        self._noted: defaultdict[Any, list[Any]] = defaultdict(list)
        self._begin()
        renew_in_children(self, Recorder._begin)  # the parent publishes what it has counted itself

    def _begin(self) -> None:
        self._lock = threading.Lock()
        for noted in self._noted.values():
            noted.clear()
        self._sums: Counter[Any] = Counter()
        self._amounts: defaultdict[Any, Counter[float]] = defaultdict(Counter)

    def observe(self, name: str, category: str, source: str, outcome: str, seconds: float) -> None:
        """Record one operation."""
        self.add((name, category, source, outcome), seconds)

    def measure(self, name: str, of: str, amount: float) -> None:
        """Record one amount, see :class:`Measure`."""
        self.add((name, of), amount)

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter, for example ``duplicate_cookies``."""
        self.add((name,), by)

    def noting(self, *key: str) -> Callable[[float], None]:
        """Return a function that records one kind in a fraction of the time, for what happens once in a request: each
        call adds one record.

        :param key: the fields of an :class:`Observation` or a :class:`Measure`, or the name of a counter.
        """
        return self._noted[key].append

    def count_loss(self, what: str, cause: str, category: str, by: int = 1) -> None:
        """Count changes of sessions that are not kept, in all and by cause and category. See :mod:`.losses`."""
        self.count(what, by)
        self.add((what, cause, category), by)

    def add(self, key: tuple[str, ...], amount: float) -> None:
        """Record one amount of one kind.

        :param key: as of :meth:`noting`, one of a :class:`NotKept` too.
        """
        # The thread that holds the lock may have been suspended with it, and then all threads that record would wait
        # for that one, again and again. So none waits: each writes down what is to be added, for one that has the lock.
        noted = self._noted[key]
        noted.append(amount)
        if len(noted) > _MOST_NOTED and self._lock.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._lock.release()

    def _catch_up(self) -> None:
        # No pairs are made meanwhile, which could begin a garbage collection, and with it code that records.
        for key in list(self._noted):
            noted = self._noted[key]
            if number := len(noted):
                amounts = noted[:number]
                del noted[:number]  # what other threads append meanwhile stays
                self._sums[key] += sum(amounts)
                if len(key) in (2, 4):
                    rounded = [seconds * 1000 for seconds in amounts] if len(key) == 4 else amounts
                    places = map(bisect_left, repeat(BOUNDS), rounded, repeat(0), repeat(_LAST))
                    self._amounts[key].update(map(BOUNDS.__getitem__, places))

    def losses(self) -> Mapping[NotKept, int]:
        """Return a copy of the losses, with the number of changes of each."""
        with self._up_to_date():
            return {NotKept(*key): number for key, number in self._sums.items() if len(key) == 3}

    def series(self) -> Mapping[Observation, Series]:
        """Return a copy of everything observed so far."""
        with self._up_to_date():
            return {
                Observation(*key): Series(sum(durations.values()), self._sums[key], dict(durations))
                for key, durations in self._amounts.items()
                if len(key) == 4
            }

    def amounts(self) -> Mapping[Measure, Amounts]:
        """Return a copy of everything measured so far."""
        with self._up_to_date():
            return {Measure(*key): dict(amounts) for key, amounts in self._amounts.items() if len(key) == 2}

    def counters(self) -> Mapping[str, int]:
        """Return a copy of the counters."""
        with self._up_to_date():
            return {key[0]: number for key, number in self._sums.items() if len(key) == 1}

    @contextmanager
    def _up_to_date(self) -> Iterator[None]:
        with self._lock:
            self._catch_up()
            yield


class Standing(NamedTuple):
    """The state of one application at a moment.

    :param lost_shards: shards of Redis that do not take reads and writes.
    :param usable: role of a store and direction → whether requests use it; of several shards, all of them.
    :param causes: store and the word for a cause → whether requests do without the store for it; causes that are over
        stay among them.
    :param in_use: connections in use, by store.
    :param waiting: how many changes wait in the host's journal; None: it cannot be read.
    :param oldest: seconds that the oldest of them has waited.
    :param near: connections of the near cache; None: there is to be none.
    :param active: sessions in use, if there is a new number to be shown; NaN: Redis cannot tell.
    """

    lost_shards: int = 0
    usable: Mapping[tuple[str, str], bool] = {}
    causes: Mapping[tuple[str, str], bool] = {}
    in_use: Mapping[str, int] = {}
    waiting: int | None = 0
    oldest: float = 0.0
    near: int | None = None
    active: float | None = None


class Interval(NamedTuple):
    """The records between two looks.

    :param series: of the operations that were done.
    :param amounts: what was measured.
    :param counters: of those that moved.
    :param level: the highest degradation level there was.
    :param losses: changes of sessions that were not kept.
    :param level_now: the level at its end.
    :param standing: the state at its end.
    """

    series: Mapping[Observation, Series]
    amounts: Mapping[Measure, Amounts]
    counters: Mapping[str, int]
    level: int
    losses: Mapping[NotKept, int] = {}
    level_now: int = 0
    standing: Standing = Standing()


class Reader:
    """Hands out the records since the last call: each exporter has a reader of its own. For one thread.

    :param level: says the degradation level now.
    :param standing: says what the application is like now.
    """

    def __init__(
        self, recorder: Recorder, level: Callable[[], int], standing: Callable[[], Standing] = Standing
    ) -> None:
        self._recorder = recorder
        self._level = level
        self._standing = standing
        self._series: Mapping[Observation, Series] = {}
        self._amounts: Mapping[Measure, Amounts] = {}
        self._counters: Mapping[str, int] = {}
        self._losses: Mapping[NotKept, int] = {}
        self._last_level = 0

    def take(self) -> Interval:
        """Return what was recorded since the last call."""
        series, amounts, counters = self._recorder.series(), self._recorder.amounts(), self._recorder.counters()
        done = {operation: s.since(self._series.get(operation, _NOTHING)) for operation, s in series.items()}
        measured = {what: _added(counts, self._amounts.get(what, {})) for what, counts in amounts.items()}
        moved = _added(counters, self._counters)
        losses = self._recorder.losses()
        lost, self._losses = _added(losses, self._losses), losses
        level = self._level()
        passed = [number for name, number in _LEVELS.items() if name in moved]
        highest = max(level, self._last_level, *passed)
        self._series, self._amounts, self._counters, self._last_level = series, amounts, counters, level
        return Interval(
            {operation: s for operation, s in done.items() if s.count},
            {what: counts for what, counts in measured.items() if counts},
            moved,
            highest,
            lost,
            level,
            self._standing(),
        )


def _added(now: Mapping[T, int], before: Mapping[T, int]) -> dict[T, int]:
    """Return by how much numbers have grown, without those that have not."""
    return {key: number - before.get(key, 0) for key, number in now.items() if number != before.get(key, 0)}


_NOTHING = Series()
_LEVELS = {f"level_{number}": number for number in range(5)}


def count_level(recorder: Recorder, level: int) -> None:
    """Count that the degradation level moved to `level`, so that a reader does not miss it, however short it lasts."""
    recorder.count(f"level_{level}")


BEGAN = "flask_langpont_session.began"
"""The place in a request's environ of when it began: seconds by :func:`time.perf_counter`."""


def record_request(recorder: Recorder, environ: dict[str, Any], outcome: str) -> None:
    """Record the end of a request whose beginning is in its environ. Only the first end counts."""
    began = environ.pop(BEGAN, None)
    if began is not None:
        recorder.add(("request", "all", "none", outcome), time.perf_counter() - began)
