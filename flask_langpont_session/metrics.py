"""One in-process recorder: what was done, where the answer came from, how it ended, how long it took.

The stores' walk, the save and the request hooks feed it; exporters read it. Recording is a dictionary update under a
lock: it never waits for anything.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flask import Flask, g

BUCKETS_MS = (0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)
"""Upper bounds of the duration histogram, milliseconds; fine where a healthy Redis answers, coarse above."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What one observation is about.

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
    """The observations of one operation since the process began.

    :param count: how many.
    :param seconds: their durations, added up.
    :param buckets: how many fell under each of :data:`BUCKETS_MS`, and in the last place those above all.
    """

    count: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))


class Recorder:
    """Counts and durations per operation, and plain counters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By the fields of an Operation: a tuple is made and hashed in a fraction of the time.
        self._series: dict[tuple[str, str, str, str], Series] = {}
        self._counters: dict[str, int] = {}

    def observe(self, name: str, category: str, source: str, outcome: str, seconds: float) -> None:
        """Record one operation."""
        key = name, category, source, outcome
        bucket = bisect_left(BUCKETS_MS, seconds * 1000)
        with self._lock:
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = Series()
            series.count += 1
            series.seconds += seconds
            series.buckets[bucket] += 1

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter, for example ``bad_cookies`` or ``merge_conflicts``."""
        with self._lock:
            self._counters[name] = self._counters.get(name, 0) + by

    def series(self) -> Mapping[Operation, Series]:
        """A copy of everything observed so far."""
        with self._lock:
            return {Operation(*key): Series(s.count, s.seconds, list(s.buckets)) for key, s in self._series.items()}

    def counters(self) -> Mapping[str, int]:
        """A copy of the counters."""
        with self._lock:
            return dict(self._counters)


def install_hooks(app: Flask, recorder: Recorder, clock: Callable[[], float] = time.perf_counter) -> None:
    """Time every request of `app`. The save runs after this and records itself."""

    def begin() -> None:
        g._langpont_began = clock()

    def end(error: BaseException | None) -> None:
        # In teardown, not after_request: a view that raised is a request too.
        began = g.pop("_langpont_began", None)
        if began is not None:
            outcome = "ok" if error is None else "error"
            recorder.observe("request", "all", "none", outcome, clock() - began)

    app.before_request(begin)
    app.teardown_request(end)
