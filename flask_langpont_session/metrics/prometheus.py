"""Figures for Prometheus: collectors of ``prometheus_client``, kept up to date by a thread, so that no request pays.

Under gunicorn each worker writes to files in ``PROMETHEUS_MULTIPROC_DIR`` and the one that is asked adds them up;
without it each process tells of itself. Nothing is registered at import, and once per registry: the applications of a
process share the collectors, which show the worst level and sums.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from flask import Blueprint, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from ..policy.breaker import PRIMARY
from ..support.forks import renew_in_children
from . import aggregate
from .losses import CAUSES
from .recorder import Interval, Reader
from .session_index import SessionsInUse

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR" in os.environ
"""prometheus_client looks at it when it is imported, and so does this."""

INTERVAL = 1.0
"""Seconds that a figure may be old."""

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the histogram. All have two digits, so that rounded durations fall where the exact ones would."""

BYTES = tuple(float(2**exponent) for exponent in range(6, 21, 2))
"""Upper bounds of the sizes: 64 bytes to 1 MiB."""

_BUCKETS = {"s": SECONDS, "By": BYTES}

_NAME = "langpont_session_"


class Standing(NamedTuple):
    """The state of one application's stores at a moment.

    :param in_use: connections in use, by store.
    :param usable: store and direction → whether requests use it; of several shards, all of them.
    :param waiting: how many changes wait in the host's journal; None: it cannot be read.
    :param oldest: seconds that the oldest of them has waited.
    :param near: connections of the near cache; None: there is to be none.
    """

    in_use: Mapping[str, int] = {}
    usable: Mapping[tuple[str, str], bool] = {}
    waiting: int | None = 0
    oldest: float = 0.0
    near: int | None = None


GAUGES: Mapping[str, tuple[str, Any, tuple[str, ...]]] = {
    "pool_in_use": ("Redis connections in use at this moment.", "livesum", ("backend",)),
    "degradation_level": ("0 normal, 1 replica, 2 local copies, 3 database, 4 minimal.", "livemax", ()),
    "shards_lost": (
        "Shards of Redis that do not take reads and writes; a single primary is one shard, slots that no shard has are "
        "one more.",
        "livemax",
        (),
    ),
    "store_up": (
        "1 while requests use a store in a direction, 0 while they do without it; of several shards, the worst.",
        "livemin",
        ("backend", "way"),
    ),
    "journal_waiting": (
        "Changes in this host's journal that wait for a store; NaN while it cannot be read.",
        "livemax",
        (),
    ),
    "journal_oldest_seconds": (
        "For how long the oldest change in this host's journal has waited; 0 if none waits.",
        "livemax",
        (),
    ),
    "near_cache_connections": (
        "Connections of the near cache; nothing is shown where the configuration wants none.",
        "livesum",
        ("backend",),
    ),
    "process_lag_seconds": (
        "How late a worker went on when it wanted to, at the most in the last second or two; rounded up to two digits.",
        "livemax",
        (),
    ),
    "active": ("Sessions in use, of all hosts together; NaN while Redis cannot tell.", "mostrecent", ()),
}
"""Name → text, which of several processes' values is shown, labels."""


class _Gauges:
    """The gauges: the worst, or the sum, over the applications of this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._shown = {
            name: Gauge(_NAME + name, text, labels, multiprocess_mode=mode, registry=registry)
            for name, (text, mode, labels) in GAUGES.items()
        }
        if not MULTIPROCESS:
            # Among several processes what was not set is not shown; and this would hide what another one has set.
            self._shown["active"].set(math.nan)
        self._begin()
        renew_in_children(self, _Gauges._begin)

    def _begin(self) -> None:
        """Begin anew in a forked child, which shows nothing of its parent."""
        self._lock = threading.Lock()
        self._states: WeakKeyDictionary[object, tuple[int, int, Standing]] = WeakKeyDictionary()

    def show(self, publisher: object, level: int, lost_shards: int, standing: Standing) -> None:
        """Show one application's present state, together with the others of this process.

        :param publisher: whose it is; what it showed before is forgotten.
        :param level: its degradation level.
        :param lost_shards: how many it finds lost.
        """
        with self._lock:
            self._states[publisher] = level, lost_shards, standing
            states = list(self._states.values())
            self._shown["degradation_level"].set(max(level for level, _, _ in states))
            self._shown["shards_lost"].set(max(lost for _, lost, _ in states))
            self._show_stores([standing for _, _, standing in states])

    def _show_stores(self, all_of: Sequence[Standing]) -> None:
        for store in {store for one in all_of for store in one.in_use}:
            self._shown["pool_in_use"].labels(store).set(sum(one.in_use.get(store, 0) for one in all_of))
        for store, way in {endpoint for one in all_of for endpoint in one.usable}:
            self._shown["store_up"].labels(store, way).set(all(one.usable.get((store, way), True) for one in all_of))
        waiting = [math.nan if one.waiting is None else one.waiting for one in all_of]
        self._shown["journal_waiting"].set(math.nan if any(map(math.isnan, waiting)) else max(waiting))
        self._shown["journal_oldest_seconds"].set(max(one.oldest for one in all_of))
        if near_connections := [one.near for one in all_of if one.near is not None]:
            self._shown["near_cache_connections"].labels(PRIMARY).set(sum(near_connections))

    def show_active(self, reading: SessionsInUse) -> None:
        """Show how many sessions are in use; NaN: not known."""
        self._shown["active"].set(math.nan if reading.number is None else reading.number)

    def add(self, interval: Interval) -> None:
        """Show the process lag of an interval."""
        for amounts in aggregate.measured(interval, "process_lag").values():
            self._shown["process_lag_seconds"].set(max(amounts) * 0.001)


class _WithoutCreated:
    """A registry as one collector, without its series ``…_created``.

    Each counter and each histogram has such a series, which says when it began: nothing here needs that, and they would
    be a quarter of all series. prometheus_client can leave them out for a whole process only, those of the
    application's own metrics included.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def describe(self) -> Iterable[Metric]:
        """Return the names, so that a registry refuses them a second time."""
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics without those series."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class Collectors:
    """The collectors of this package in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        own = CollectorRegistry()
        self._histograms = [
            (each, Histogram(_NAME + each.name, each.text, each.labels, buckets=_BUCKETS[each.unit], registry=own))
            for each in aggregate.HISTOGRAMS
        ]
        self.gauges = _Gauges(own)
        self._counters = {
            each.name: (each, Counter(_NAME + each.name, each.text, each.labels, registry=own))
            for each in aggregate.COUNTS
        }
        registry.register(_WithoutCreated(own))

    def expect(self, categories: Iterable[str]) -> None:
        """Show a nought for every loss there may be: where a series begins with its first loss, `increase()` does not
        see that loss."""
        for category in categories:
            for loss, causes in CAUSES.items():
                for cause in causes:
                    self._counters[loss][1].labels(cause, category)

    def add(self, interval: Interval) -> None:
        """Add an interval's counts."""
        for exported, histogram in self._histograms:
            for labels, amounts in exported.found(interval):
                shown = histogram.labels(*labels)
                for amount in aggregate.each(amounts, exported.unit):
                    shown.observe(amount)
        self.gauges.add(interval)
        for exported, counter in self._counters.values():
            for labels, number in exported.found(interval):
                (counter.labels(*labels) if labels else counter).inc(number)


_made: WeakKeyDictionary[CollectorRegistry, Collectors] = WeakKeyDictionary()
_making = threading.Lock()


def collectors_of(registry: CollectorRegistry | None) -> Collectors:
    """Return the collectors in a registry, made at the first call.

    :param registry: None: the one that prometheus_client offers by default.
    """
    registry = REGISTRY if registry is None else registry
    with _making:
        found = _made.get(registry)
        if found is None:
            found = _made[registry] = Collectors(registry)
    return found


class Prometheus:
    """Keeps the collectors up to date. Made and used in one thread of one process.

    :param active: gives the latest look at the number of sessions in use; None: there was none yet.
    :param standing: says what the stores are like now.
    """

    def __init__(
        self,
        reader: Reader,
        collectors: Collectors,
        active: Callable[[], SessionsInUse | None],
        standing: Callable[[], Standing],
    ) -> None:
        self._reader = reader
        self._collectors = collectors
        self._active = active
        self._standing = standing
        self._shown: SessionsInUse | None = None

    def publish(self) -> None:
        """Add what is new since the last call, and show the present state."""
        interval = self._reader.take()
        self._collectors.add(interval)
        self._collectors.gauges.show(self, interval.level, interval.lost_shards, self._standing())
        reading = self._active()
        if reading is not None and reading is not self._shown:
            self._shown = reading  # each once: the most recent look counts, whichever worker's it was
            self._collectors.gauges.show_active(reading)


def page(url: str, registry: Any) -> Blueprint:
    """Return a blueprint with a page at `url` for the scraper. The web server decides which clients may read it."""
    pages = Blueprint("langpont_session_metrics", __name__)

    @pages.get(url)
    def metrics() -> Response:
        response = Response(generate_latest(_shown(registry)), content_type=CONTENT_TYPE_LATEST)
        response.headers["Cache-Control"] = "no-store"
        return response

    return pages


def _shown(registry: CollectorRegistry | None) -> CollectorRegistry:
    if MULTIPROCESS:
        all_processes = CollectorRegistry()
        MultiProcessCollector(all_processes)  # type: ignore[no-untyped-call]
        return all_processes
    return REGISTRY if registry is None else registry
