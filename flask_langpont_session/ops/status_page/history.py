"""The last hour of one process, in slices of ten seconds, for its status page. The monitor collects the data, without
work for requests.

The size is bounded by the hour and by the fixed sets of sources and durations.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...metrics.recorder import Amounts, Interval, Reader
from ...policy.health import DATABASE, PRIMARY, REPLICA, Health
from ...support.forks import renew_in_children
from ..exporters.aggregate import FINE

SPAN = 3600
"""Seconds that are kept."""

STEP = 10
"""Seconds of one slice."""

_PAUSE = 5.0
"""Seconds between two looks at the recorder: each look copies the recorder's data."""

_CHANGES = 120
"""The most changes of the level that are kept: unstable stores may cause more in an hour."""

REDIS = "redis"

_ANSWERED = {("load", PRIMARY): PRIMARY, ("load", REPLICA): REPLICA, ("verify", DATABASE): DATABASE}
_COUNTED = {"near_cache_hits": "near", "fallback_local": "local", "fallback_default": "default"}

SOURCES = ("near", PRIMARY, REPLICA, DATABASE, "local", "default")
"""The sources of a session's data: known without a question, a store, this host's copy, the configuration."""


@dataclass(slots=True)
class Slice:
    """The answers, times and waiting changes of one slice of time, or of several.

    :param began: seconds since 1970.
    :param answers: one of :data:`SOURCES` → number of answers.
    :param took: ``redis`` or ``database`` → times of its calls, in milliseconds.
    :param waiting: the most changes that waited in the host's journal; None: the journal could not be read.
    """

    began: float
    answers: Counter[str] = field(default_factory=Counter)
    took: dict[str, Counter[float]] = field(default_factory=dict)
    waiting: int | None = 0

    def add(self, answers: Mapping[str, int], took: Mapping[str, Amounts], waiting: int | None) -> None:
        """Add the figures of a part of the slice."""
        self.answers.update(answers)
        for store, amounts in took.items():
            self.took.setdefault(store, Counter()).update(amounts)
        self.waiting = None if waiting is None or self.waiting is None else max(self.waiting, waiting)

    def percentile(self, store: str, share: float) -> float | None:
        """Return the milliseconds that a share (0–1) of the calls did not exceed; None: no call."""
        amounts = self.took.get(store, Counter[float]())
        left = share * sum(amounts.values())
        for amount in sorted(amounts):
            left -= amounts[amount]
            if left <= 0:
                return amount
        return None


class LevelChange(NamedTuple):
    """A change of the level, with the new level.

    :param at: seconds since 1970.
    """

    at: float
    level: int


class History:
    """The last hour of one process. A forked child begins with nothing.

    :param reader: of the recorder, for this history alone.
    :param health: gives the level.
    :param now: seconds since 1970.
    :param clock: monotonic seconds.
    :ivar began: the beginning of the history, seconds since 1970.
    """

    def __init__(
        self,
        reader: Reader,
        health: Health,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._health = health
        self._now = now
        self._clock = clock
        self._begin()
        renew_in_children(self, History._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._slices: deque[Slice] = deque(maxlen=SPAN // STEP + 1)  # the first is seen only in part
        self._next_look = 0.0
        self.began = self._now()
        self._changes = deque([LevelChange(self.began, self._health.level)], maxlen=_CHANGES)

    def attend(self, waiting: int | None) -> None:
        """Note the level, and the recorder's figures since the last look, if the last look is some seconds ago.

        :param waiting: the number of changes that wait in the host's journal; None: the journal cannot be read.
        """
        if self._clock() >= self._next_look:
            self.look(waiting)
        elif self._health.level != self._changes[-1].level:
            with self._lock:
                self._note_level()

    def look(self, waiting: int | None) -> None:
        """Note the level, and the recorder's figures since the last look.

        :param waiting: see :meth:`attend`.
        """
        with self._lock:
            self._note_level()
            self._next_look = self._clock() + _PAUSE
            interval, now = self._reader.take(), self._now()
            began = now - now % STEP
            if not self._slices or self._slices[-1].began < began:
                self._slices.append(Slice(began))
            self._slices[-1].add(_answers_in(interval), _took_in(interval), waiting)

    def _note_level(self) -> None:
        level = self._health.level
        if level != self._changes[-1].level:
            self._changes.append(LevelChange(self._health.since, level))

    def slices(self, since: float) -> list[Slice]:
        """Return the slices that ended after `since`, oldest first."""
        with self._lock:
            return [together([one]) for one in self._slices if one.began + STEP > since]

    def changes(self, since: float) -> list[LevelChange]:
        """Return the changes of the level since `since`, oldest first, after the level at `since`, if known."""
        with self._lock:
            known = list(self._changes)
        first = max((number for number, change in enumerate(known) if change.at <= since), default=0)
        return known[first:]


def _answers_in(interval: Interval) -> Counter[str]:
    """Return the number of answers from each source."""
    found: Counter[str] = Counter()
    for operation, series in interval.series.items():
        source = _ANSWERED.get((operation.name, operation.source))
        if source is not None and operation.outcome in FINE:
            found[source] += series.count
    for counter, source in _COUNTED.items():
        found[source] += interval.counters.get(counter, 0)
    return found


def _took_in(interval: Interval) -> dict[str, Counter[float]]:
    found: dict[str, Counter[float]] = {}
    for operation, series in interval.series.items():
        store = _STORES.get(operation.source)
        if store is not None:
            found.setdefault(store, Counter()).update(series.durations)
    return found


_STORES = {PRIMARY: REDIS, REPLICA: REDIS, DATABASE: DATABASE}


def together(slices: Sequence[Slice]) -> Slice:
    """Merge slices, one at least, into one."""
    whole = Slice(slices[0].began)
    for one in slices:
        whole.add(one.answers, one.took, one.waiting)
    return whole
