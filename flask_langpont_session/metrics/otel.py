"""Figures and spans for OpenTelemetry, by its API alone: which SDK and exporter there are, if any, is the application's
choice. Like Prometheus' they are those of one process, kept up to date by a thread.

Names and attributes are of this package. What a driver's instrumentation tells (``db.client.…``) is left to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from . import aggregate, catalogue
from .recorder import Interval, Reader, Recorder
from .session_index import SessionsInUse

SCOPE = "flask_langpont_session"
"""Name of the instrumentation scope."""

INTERVAL = 1.0
"""Seconds that a figure may be old."""

_NAME = "langpont.session."
_LEVEL = "0 normal, 1 replica, 2 local copies, 3 database, 4 minimal."
_OPERATION, _BACKEND, _OUTCOME = f"{_NAME}operation", f"{_NAME}backend", f"{_NAME}outcome"


class Instruments:
    """The counters, histograms and gauges of this package."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._counters = [
            (exported, meter.create_counter(f"{_NAME}{exported.otel or exported.name}", exported.unit, exported.text))
            for exported in aggregate.COUNTS
            if exported.otel != ""
        ]
        self._histograms = [
            (exported, meter.create_histogram(f"{_NAME}{exported.otel}", exported.unit, exported.text))
            for exported in aggregate.HISTOGRAMS
        ]
        self.level = meter.create_gauge(f"{_NAME}degradation_level", "1", _LEVEL)
        self.shards_lost = meter.create_gauge(f"{_NAME}shards_lost", "{shard}", catalogue.SHARDS_LOST.meaning)
        self.active = meter.create_gauge(f"{_NAME}active", "{session}", "Sessions in use, of all hosts together.")
        self.in_use = meter.create_gauge(f"{_NAME}pool.in_use", "{connection}", "Redis connections in use.")
        self.lag = meter.create_gauge(f"{_NAME}process_lag", "s", catalogue.PROCESS_LAG.meaning)

    def add(self, interval: Interval) -> None:
        """Add an interval's counts, and set the gauges to the values at its end."""
        for exported, counter in self._counters:
            for labels, number in exported.found(interval):
                counter.add(number, _attributes(exported, labels))
        for exported, histogram in self._histograms:
            for labels, amounts in exported.found(interval):
                attributes = _attributes(exported, labels)
                for amount in aggregate.each(amounts, exported.unit):
                    histogram.record(amount, attributes)
        self.level.set(interval.level)
        self.shards_lost.set(interval.lost_shards)
        for amounts in aggregate.measured(interval, "process_lag").values():
            self.lag.set(max(amounts) * 0.001)


def _attributes(exported: aggregate.Exported, labels: Iterable[str]) -> dict[str, str]:
    return {f"{_NAME}{name}": label for name, label in zip(exported.labels, labels, strict=True)}


class OpenTelemetry:
    """Keeps the instruments up to date. Made and used in one thread of one process.

    :param active: gives the latest look at the number of sessions in use; None: there was none yet.
    :param in_use: gives connections in use, by store.
    """

    def __init__(
        self, reader: Reader, active: Callable[[], SessionsInUse | None], in_use: Callable[[], Mapping[str, int]]
    ) -> None:
        self._instruments = Instruments(metrics.get_meter(SCOPE))
        self._reader = reader
        self._active = active
        self._in_use = in_use

    def publish(self) -> None:
        """Add what is new since the last call."""
        self._instruments.add(self._reader.take())
        for store, number in self._in_use().items():
            self._instruments.in_use.set(number, {_BACKEND: store})
        reading = self._active()
        if reading is not None and reading.number is not None:
            self._instruments.active.set(reading.number)


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
