"""Figures and spans for OpenTelemetry, by its API alone: which SDK and exporter there are, if any, is the application's
choice. Like Prometheus' they are those of one process, kept up to date by a thread.

Names and attributes are of this package. What a driver's instrumentation tells (``db.client.…``) is left to it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, StatusCode

from ...metrics.recorder import Interval, Recorder
from . import aggregate, catalogue
from .catalogue import Kind

SCOPE = "flask_langpont_session"
"""Name of the instrumentation scope."""

_NAME = "langpont.session."
_OPERATION, _BACKEND, _OUTCOME = f"{_NAME}operation", f"{_NAME}backend", f"{_NAME}outcome"


class Instruments:
    """The counters, histograms and gauges of this package. Made and used in one thread of one process."""

    def __init__(self, meter: metrics.Meter) -> None:
        make: Mapping[Kind, Callable[..., Any]] = {
            Kind.COUNTER: meter.create_counter,
            Kind.GAUGE: meter.create_gauge,
            Kind.HISTOGRAM: meter.create_histogram,
        }
        self._made = [
            (exported, make[exported.kind](f"{_NAME}{exported.otel or exported.name}", exported.unit, exported.text))
            for exported in catalogue.EXPORTED
            if exported.otel != ""
        ]

    def add(self, interval: Interval) -> None:
        """Add an interval's counts, and set the gauges to the values at its end."""
        for exported, instrument in self._made:
            for labels, value in exported.found(interval):
                names = (f"{_NAME}{name}" for name in exported.labels)
                attributes = dict(zip(names, labels, strict=True))
                if exported.kind is Kind.COUNTER:
                    instrument.add(value, attributes)
                elif exported.kind is Kind.HISTOGRAM:
                    for amount in catalogue.each(value, exported.unit):
                        instrument.record(amount, attributes)
                elif not math.isnan(value):
                    instrument.set(value, attributes)


def instruments() -> Instruments:
    """Return the instruments of the application's SDK, whichever that is."""
    return Instruments(metrics.get_meter(SCOPE))


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
