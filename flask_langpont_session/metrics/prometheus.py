"""Figures for Prometheus: collectors of ``prometheus_client``, kept up to date by a thread, so that no request pays.

Under gunicorn each worker writes to files in ``PROMETHEUS_MULTIPROC_DIR`` and the one that is asked adds them up;
without it each process tells of itself. Nothing is registered at import, and once per registry: the applications of a
process share the collectors, which show the worst level and sums.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
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
from prometheus_client.multiprocess import MultiProcessCollector

from ..policy.values import ErrorClass
from ..support.forks import renew_in_children
from . import aggregate, catalogue
from .recorder import Amounts, Interval, Operation, Reader
from .session_index import Reading

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR" in os.environ
"""prometheus_client looks at it when it is imported, and so does this."""

INTERVAL = 1.0
"""Seconds that a figure may be old."""

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the histogram. All have two digits, so that rounded durations fall where the exact ones would."""

BYTES = tuple(float(2**exponent) for exponent in range(6, 21, 2))
"""Upper bounds of the sizes: 64 bytes to 1 MiB."""

_SOURCES = frozenset({"primary", "replica", "database", "none"})
_OUTCOMES = aggregate.FINE | {"error", "refused", "not_durable"} | {kind.name.lower() for kind in ErrorClass}
_REQUESTS = frozenset({"request", "request_save"})

_EVENTS = {
    "langpont_session_server_changes": (
        catalogue.SERVER_CHANGES,
        "Reconnections to another server process than before: a restart or a failover.",
    ),
    "langpont_session_data_losses": (
        catalogue.DATA_LOSSES,
        "Times that a Redis server lost data while the workers stayed connected.",
    ),
    "langpont_session_near_cache_hits": (
        catalogue.NEAR_CACHE_HITS,
        "Reads of a session for which Redis was not asked, because nothing had changed.",
    ),
    "langpont_session_grants_refused": (
        catalogue.GRANTS_REFUSED,
        "Sign-ins and changes of rights that were refused with 503.",
    ),
    "langpont_session_values_rejected": (catalogue.VALUES_REJECTED, "Changes of a session that could not be stored."),
    "langpont_session_alerts_failed": (catalogue.ALERTS_FAILED, "Failed attempts to send an alert by SNS."),
}
_LOSSES = {
    "langpont_session_writes_lost": catalogue.WRITES_LOST,
    "langpont_session_merge_conflicts": catalogue.MERGE_CONFLICTS,
    "langpont_session_merge_dropped": catalogue.MERGE_DROPPED,
    "langpont_session_request_only_writes": catalogue.REQUEST_ONLY_WRITES,
}
_LIFECYCLE = {
    "created": catalogue.SESSIONS_CREATED,
    "regenerated": catalogue.SESSIONS_REGENERATED,
    "ended": catalogue.SESSIONS_ENDED,
    "expired": catalogue.SESSIONS_EXPIRED,
}
_TRANSITIONS = {"open": "StoreLost", "closed": "StoreRecovered"}
_DROPPED = {"cloudwatch": "metrics_dropped", "alerts": "alerts_suppressed"}


class _Measured:
    """The histograms: how long, how big."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.durations = Histogram(
            "langpont_session_operation_duration_seconds",
            "Time of calls to stores, of requests and of their saves; rounded up to two digits.",
            ("operation", "backend"),
            buckets=SECONDS,
            registry=registry,
        )
        self.waits = Histogram(
            "langpont_session_pool_wait_seconds",
            "Time that a request waited for a Redis connection when none was free; rounded up to two digits.",
            ("backend",),
            buckets=SECONDS,
            registry=registry,
        )
        self.payloads = Histogram(
            "langpont_session_payload_bytes",
            "Size of the names and values that a save wrote to one category; rounded up to two digits.",
            ("category",),
            buckets=BYTES,
            registry=registry,
        )

    def add(self, interval: Interval) -> None:
        """Bring in what an interval has."""
        for operation, series in interval.series.items():
            _observe(self.durations.labels(_word(operation), _backend(operation)), series.durations, unit=0.001)
        for backend, amounts in aggregate.measured(interval, "pool_wait").items():
            _observe(self.waits.labels(backend), amounts, unit=0.001)
        for category, amounts in aggregate.measured(interval, "payload").items():
            _observe(self.payloads.labels(category), amounts, unit=1)


class _Gauges:
    """What is so at the moment: of the applications of this process together, the worst or the sum."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_use = Gauge(
            "langpont_session_pool_in_use",
            "Redis connections in use at this moment.",
            ("backend",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.level = Gauge(
            "langpont_session_degradation_level",
            "0 normal, 1 replica, 2 local copies, 3 database, 4 minimal.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.shards_lost = Gauge(
            "langpont_session_shards_lost",
            "Shards of Redis that do not take reads and writes; a single primary is one shard, slots that no shard "
            "has are one more.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.process_lag = Gauge(
            "langpont_session_process_lag_seconds",
            "How late a worker went on when it wanted to, at the most in the last second or two; rounded up to two "
            "digits.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.active = Gauge(
            "langpont_session_active",
            "Sessions in use, of all hosts together; NaN while Redis cannot tell.",
            multiprocess_mode="mostrecent",
            registry=registry,
        )
        if not MULTIPROCESS:
            # Among several processes what was not set is not shown; and this would hide what another one has set.
            self.active.set(math.nan)
        self._begin()
        renew_in_children(self, _Gauges._begin)

    def _begin(self) -> None:
        """As new: a forked child shows nothing of what its parent is like."""
        self._lock = threading.Lock()
        self._states: WeakKeyDictionary[object, tuple[int, int, Mapping[str, int]]] = WeakKeyDictionary()

    def show(self, publisher: object, level: int, in_use: Mapping[str, int], lost_shards: int = 0) -> None:
        """Show what one application of this process is like now, together with the others.

        :param publisher: whose it is; what it showed before is forgotten.
        :param level: its degradation level.
        :param in_use: its connections in use, by store.
        :param lost_shards: how many it finds lost.
        """
        with self._lock:
            self._states[publisher] = level, lost_shards, in_use
            states = list(self._states.values())
            self.level.set(max(level for level, _, _ in states))
            self.shards_lost.set(max(lost for _, lost, _ in states))
            for store in in_use:
                self.in_use.labels(store).set(sum(used.get(store, 0) for _, _, used in states))

    def show_active(self, reading: Reading) -> None:
        """Show how many sessions are in use, as far as that is known."""
        self.active.set(math.nan if reading.number is None else reading.number)

    def add(self, interval: Interval) -> None:
        """Bring in what an interval has."""
        for amounts in aggregate.measured(interval, "process_lag").values():
            self.process_lag.set(max(amounts) * 0.001)


class _Counted:
    """The counters: how often."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.operations = counter(
            "langpont_session_operations", "Calls to stores, requests and saves.", "operation", "backend", "outcome"
        )
        self.fallbacks = counter(
            "langpont_session_fallback_operations",
            "Times that another source was used instead of the primary.",
            "backend",
        )
        self.transitions = counter(
            "langpont_session_circuit_transitions", "Circuit breakers that opened or closed.", "to"
        )
        self.lifecycle = counter("langpont_session_lifecycle", "Sessions that began, got a new id, ended.", "event")
        self.dropped = counter("langpont_session_dropped", "Metrics and alerts that were not sent.", "sink")
        self.events = {name: counter(name, text) for name, (_, text) in _EVENTS.items()}
        self.losses = {name: counter(name, of.meaning, "cause", "category") for name, of in _LOSSES.items()}

    def expect(self, categories: Iterable[str]) -> None:
        """Show a nought for every loss there may be: of a series that begins with its first loss, `increase()` does not
        see that one."""
        for category in categories:
            for name, metric in _LOSSES.items():
                for cause in catalogue.CAUSE_VALUES[metric]:
                    self.losses[name].labels(cause, category)

    def add(self, interval: Interval) -> None:
        """Bring in what an interval has."""
        for operation, series in interval.series.items():
            outcome = operation.outcome if operation.outcome in _OUTCOMES else "other"
            self.operations.labels(_word(operation), _backend(operation), outcome).inc(series.count)
        for backend, number in aggregate.fallbacks(interval).items():
            self.fallbacks.labels(backend).inc(number)
        for labelled, counters in ((self.transitions, _TRANSITIONS), (self.dropped, _DROPPED)):
            for label, name in counters.items():
                labelled.labels(label).inc(interval.counters.get(name, 0))
        for event, metric in _LIFECYCLE.items():
            self.lifecycle.labels(event).inc(aggregate.counted(interval, metric))
        for name, (metric, _) in _EVENTS.items():
            self.events[name].inc(aggregate.counted(interval, metric))
        for name, metric in _LOSSES.items():
            for labels, number in aggregate.not_kept(interval, metric).items():
                self.losses[name].labels(*labels).inc(number)


class Collectors:
    """What one registry shows of this package."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.measured = _Measured(registry)
        self.gauges = _Gauges(registry)
        self.counted = _Counted(registry)

    def add(self, interval: Interval) -> None:
        """Bring in what an interval has."""
        for part in (self.measured, self.gauges, self.counted):
            part.add(interval)


def _word(operation: Operation) -> str:
    return operation.name if operation.name in _REQUESTS else aggregate.operation_word(operation.name)


def _backend(operation: Operation) -> str:
    return operation.source if operation.source in _SOURCES else "other"


def _observe(histogram: Histogram, amounts: Amounts, *, unit: float) -> None:
    for amount, number in amounts.items():
        for _ in range(number):
            histogram.observe(amount * unit)


_made: WeakKeyDictionary[CollectorRegistry, Collectors] = WeakKeyDictionary()
_making = threading.Lock()


def collectors_of(registry: CollectorRegistry | None) -> Collectors:
    """The collectors in a registry, made at the first call.

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
    :param in_use: gives the connections in use now, by store.
    """

    def __init__(
        self,
        reader: Reader,
        collectors: Collectors,
        active: Callable[[], Reading | None],
        in_use: Callable[[], Mapping[str, int]],
    ) -> None:
        self._reader = reader
        self._collectors = collectors
        self._active = active
        self._in_use = in_use
        self._shown: Reading | None = None

    def publish(self) -> None:
        """Bring in what is new."""
        interval = self._reader.take()
        self._collectors.add(interval)
        self._collectors.gauges.show(self, interval.level, self._in_use(), interval.lost_shards)
        reading = self._active()
        if reading is not None and reading is not self._shown:
            self._shown = reading  # each once: the most recent look counts, whichever worker's it was
            self._collectors.gauges.show_active(reading)


def page(url: str, registry: Any) -> Blueprint:
    """A page at `url` for the scraper. The web server decides which clients may read it."""
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
