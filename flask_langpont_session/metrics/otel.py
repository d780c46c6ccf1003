"""Figures and spans for OpenTelemetry, by its API alone: which SDK and exporter there are, if any, is the application's
choice. Like Prometheus' they are those of one process, kept up to date by a thread.

Names and attributes are of this package. What a driver's instrumentation tells (``db.client.…``) is left to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from . import aggregate, catalogue
from .recorder import Amounts, Interval, Reader, Recorder
from .session_index import SessionsInUse

SCOPE = "flask_langpont_session"
"""Name of the instrumentation scope."""

INTERVAL = 1.0
"""Seconds that a figure may be old."""

_NAME = "langpont.session."
_LEVEL = "0 normal, 1 replica, 2 local copies, 3 database, 4 minimal."
_OPERATION, _BACKEND, _OUTCOME = f"{_NAME}operation", f"{_NAME}backend", f"{_NAME}outcome"


class Gauges:
    """What is as it is at the moment."""

    def __init__(self, meter: metrics.Meter) -> None:
        self.level = meter.create_gauge(f"{_NAME}degradation_level", "1", _LEVEL)
        self.shards_lost = meter.create_gauge(f"{_NAME}shards_lost", "{shard}", catalogue.SHARDS_LOST.meaning)
        self.active = meter.create_gauge(f"{_NAME}active", "{session}", "Sessions in use, of all hosts together.")
        self.in_use = meter.create_gauge(f"{_NAME}pool.in_use", "{connection}", "Redis connections in use.")
        self.lag = meter.create_gauge(f"{_NAME}process_lag", "s", catalogue.PROCESS_LAG.meaning)

    def set(self, interval: Interval) -> None:
        """As of the end of an interval."""
        self.level.set(interval.level)
        self.shards_lost.set(interval.lost_shards)
        for amounts in aggregate.measured(interval, "process_lag").values():
            self.lag.set(max(amounts) * 0.001)


class Counts:
    """What is added up, and how long and how large things were."""

    def __init__(self, meter: metrics.Meter) -> None:
        def counter(name: str, text: str, unit: str = "1") -> metrics.Counter:
            return meter.create_counter(_NAME + name, unit, text)

        def histogram(name: str, text: str, unit: str) -> metrics.Histogram:
            return meter.create_histogram(_NAME + name, unit, text)

        self.operations = counter("operations", "Calls to stores, requests and saves.", "{operation}")
        self.durations = histogram("operation.duration", "Time of calls to stores, of requests and of saves.", "s")
        self.waits = histogram("pool.wait_time", catalogue.POOL_WAIT_TIME.meaning, "s")
        self.payloads = histogram("payload.size", catalogue.PAYLOAD_BYTES.meaning, "By")
        self.fallbacks = counter("fallback.operations", catalogue.FALLBACK_OPERATIONS.meaning, "{operation}")
        self.transitions = counter("circuit.transitions", catalogue.CIRCUIT_TRANSITIONS.meaning, "{transition}")
        self.lifecycle = counter("lifecycle", "Sessions that began, got a new id, ended.", "{session}")
        self.events = {metric: counter(name, metric.meaning) for name, metric in aggregate.EVENTS.items()}
        self.losses = {metric: counter(name, metric.meaning, "{key}") for name, metric in aggregate.LOSSES.items()}

    def add(self, interval: Interval) -> None:
        """Bring in what an interval has."""
        self._add_operations(interval)
        for backend, number in aggregate.fallbacks(interval).items():
            self.fallbacks.add(number, {_BACKEND: backend})
        for to, name in aggregate.TRANSITIONS.items():
            self.transitions.add(interval.counters.get(name, 0), {f"{_NAME}to": to})
        for event, metric in aggregate.LIFECYCLE.items():
            self.lifecycle.add(aggregate.counted(interval, metric), {f"{_NAME}event": event})
        for metric, counter in self.events.items():
            counter.add(aggregate.counted(interval, metric))
        for metric, counter in self.losses.items():
            for (cause, category), number in aggregate.not_kept(interval, metric).items():
                counter.add(number, {f"{_NAME}cause": cause, f"{_NAME}category": category})

    def _add_operations(self, interval: Interval) -> None:
        for operation, series in interval.series.items():
            word, backend, outcome = aggregate.labels_of(operation)
            attributes = {_OPERATION: word, _BACKEND: backend}
            self.operations.add(series.count, {**attributes, _OUTCOME: outcome})
            _record(self.durations, series.durations, attributes, unit=0.001)
        for backend, amounts in aggregate.measured(interval, "pool_wait").items():
            _record(self.waits, amounts, {_BACKEND: backend}, unit=0.001)
        for category, amounts in aggregate.measured(interval, "payload").items():
            _record(self.payloads, amounts, {f"{_NAME}category": category}, unit=1)


def _record(histogram: metrics.Histogram, amounts: Amounts, attributes: Mapping[str, Any], *, unit: float) -> None:
    for amount, number in amounts.items():
        for _ in range(number):
            histogram.record(amount * unit, attributes)


class OpenTelemetry:
    """Keeps the instruments up to date. Made and used in one thread of one process.

    :param active: gives the latest look at the number of sessions in use; None: there was none yet.
    :param in_use: gives connections in use, by store.
    """

    def __init__(
        self, reader: Reader, active: Callable[[], SessionsInUse | None], in_use: Callable[[], Mapping[str, int]]
    ) -> None:
        meter = metrics.get_meter(SCOPE)
        self._counts = Counts(meter)
        self._gauges = Gauges(meter)
        self._reader = reader
        self._active = active
        self._in_use = in_use

    def publish(self) -> None:
        """Bring in what is new."""
        interval = self._reader.take()
        self._counts.add(interval)
        self._gauges.set(interval)
        for store, number in self._in_use().items():
            self._gauges.in_use.set(number, {_BACKEND: store})
        reading = self._active()
        if reading is not None and reading.number is not None:
            self._gauges.active.set(reading.number)


class TracingRecorder(Recorder):
    """Records, and makes a span of each call to a store in whatever is traced at the moment."""

    def __init__(self) -> None:
        super().__init__()
        self._tracer = trace.get_tracer(SCOPE)

    def observe(self, name: str, category: str, source: str, outcome: str, seconds: float) -> None:
        """Record one operation, which has just ended."""
        super().observe(name, category, source, outcome, seconds)
        if source == "none" or not trace.get_current_span().is_recording():
            return
        end = time.time_ns()
        attributes = {_OPERATION: aggregate.operation_word(name), _BACKEND: source, _OUTCOME: outcome}
        span = self._tracer.start_span(
            f"session {name}", kind=SpanKind.CLIENT, attributes=attributes, start_time=end - int(seconds * 1e9)
        )
        if outcome not in aggregate.FINE:
            span.set_attribute("error.type", outcome)
            span.set_status(StatusCode.ERROR)
        span.end(end)
