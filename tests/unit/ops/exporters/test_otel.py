"""OpenTelemetry: what its own SDK collects of the instruments and spans, in memory."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask, session
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from flask_langpont_session import LangPontSession
from flask_langpont_session.extension import state_of
from flask_langpont_session.metrics.losses import Cause, Loss
from flask_langpont_session.metrics.recorder import Reader, Recorder, Standing, count_level
from flask_langpont_session.ops.exporters.otel import Instruments, TracingRecorder, instruments

Attributes = frozenset[tuple[str, Any]]


class Sdk:
    """An application's SDK, in the place of the global one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        monkeypatch.setattr(metrics, "get_meter", self._meters.get_meter)
        monkeypatch.setattr(trace, "get_tracer", self.tracers.get_tracer)

    def points(self) -> Mapping[tuple[str, Attributes], Any]:
        """Name and attributes, without what all begin with → number, or data point of a histogram."""
        data = self._reader.get_metrics_data()
        found = {}
        for scope in data.resource_metrics[0].scope_metrics if data else ():
            assert scope.scope.name == "flask_langpont_session"
            for metric in scope.metrics:
                assert metric.unit and metric.description
                for point in metric.data.data_points:
                    value = point.value if hasattr(point, "value") else point
                    found[_short(metric.name), _short_all(point.attributes or {})] = value
        return found

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended, without the application's own."""
        ended = self._spans.get_finished_spans()
        return [span for span in ended if span.name.startswith("session ")]


def _short(name: str) -> str:
    return name.removeprefix("langpont.session.")


def _short_all(attributes: Mapping[str, Any]) -> Attributes:
    return frozenset((_short(name), value) for name, value in attributes.items())


def of(**attributes: str) -> Attributes:
    return frozenset(attributes.items())


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Sdk:
    return Sdk(monkeypatch)


def test_what_was_recorded_is_in_the_instruments(sdk: Sdk) -> None:
    """Counts, durations in seconds, sizes, losses; and states as they are."""
    recorder, level = Recorder(), 2
    for milliseconds, outcome in ((2, "ok"), (40, "ok"), (200, "unreachable"), (1, "something new")):
        recorder.observe("load", "all", "primary", outcome, milliseconds / 1000)
    recorder.observe("request", "all", "none", "ok", 0.5)
    recorder.measure("payload", "ui", 120)
    recorder.measure("pool_wait", "primary", 5)
    recorder.measure("process_lag", "process", 30)
    for counter in ("fallback_local", "StoreLost", "sessions_created", "grants_refused"):
        recorder.count(counter, 3)
    recorder.count_loss(Loss.WRITES_LOST, Cause.JOURNAL_FULL, "ui", 4)
    count_level(recorder, 4)
    standing = Standing(in_use={"primary": 6}, causes={("primary", "unreachable"): True}, active=17)
    made, reader = instruments(), Reader(recorder, lambda: level, lambda: standing)
    made.add(reader.take())
    points = sdk.points()
    read = {"operation": "read", "backend": "primary"}
    assert points["operations", of(**read, outcome="ok")] == 2
    assert points["operations", of(**read, outcome="unreachable")] == 1
    assert points["operations", of(**read, outcome="other")] == 1
    durations = points["operation.duration", of(**read)]
    assert (durations.count, durations.sum) == (4, pytest.approx(0.243))
    assert points["operation.duration", of(operation="request", backend="none")].sum == pytest.approx(0.5)
    assert points["payload.size", of(category="ui")].sum == 120
    assert points["pool.wait_time", of(backend="primary")].sum == pytest.approx(0.005)
    assert points["fallback.operations", of(backend="local")] == 3
    assert points["circuit.transitions", of(to="open")] == 3
    assert points["lifecycle", of(event="created")] == 3
    assert points["grants_refused", of()] == 3
    assert points["writes_lost", of(cause="journal full", category="ui")] == 4
    assert points["degradation_level", of()] == 4
    assert points["active", of()] == 17
    assert points["pool.in_use", of(backend="primary")] == 6
    assert points["process_lag", of()] == pytest.approx(0.03)
    assert points["store.cause", of(backend="primary", cause="unreachable")] == 1
    level, standing = 0, Standing(active=math.nan)
    made.add(reader.take())
    made.add(reader.take())
    points = sdk.points()
    assert points["operations", of(**read, outcome="ok")] == 2
    assert points["degradation_level", of()] == 0
    assert points.get(("active", of()), 17) == 17  # the oldest SDK shows what was set since it was asked last


def test_every_instrument_is_documented(sdk: Sdk) -> None:
    """The table has every instrument and nothing else; its names stand there without what all begin with."""
    docs = (Path(__file__).parents[4] / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = docs.partition("<!-- instruments: begin -->")[2].partition("<!-- instruments: end -->")[0]
    documented = {_short(name.removeprefix("…")) for name in re.findall("`([^`]+)`", table)}
    made: set[str] = set()
    meter = metrics.get_meter("flask_langpont_session")

    class Noting:
        def __getattr__(self, create: str) -> Any:
            def noted(name: str, *rest: Any) -> Any:
                made.add(_short(name))
                return getattr(meter, create)(name, *rest)

            return noted

    noting = cast(Any, Noting())
    Instruments(noting)
    assert made == documented


def test_calls_to_stores_are_spans_where_the_application_traces(sdk: Sdk) -> None:
    """Each below the span that is open, as long as the call took; a failure is one of the span."""
    recorder = TracingRecorder()
    recorder.observe("load", "all", "primary", "ok", 0.25)
    assert sdk.spans() == []
    with sdk.tracers.get_tracer("application").start_as_current_span("GET /") as request:
        recorder.observe("load", "all", "primary", "miss", 0.25)
        recorder.observe("verify", "all", "database", "unreachable", 0.5)
        recorder.observe("request_save", "all", "none", "ok", 1)
    good, failed = sdk.spans()
    assert (good.name, failed.name) == ("session load", "session verify")
    for span, seconds in ((good, 0.25), (failed, 0.5)):
        assert span.parent is not None and span.parent.span_id == request.get_span_context().span_id
        assert span.kind is SpanKind.CLIENT
        assert span.start_time is not None and span.end_time is not None
        assert span.end_time - span.start_time == seconds * 1e9
    assert _short_all(good.attributes or {}) == of(operation="read", backend="primary", outcome="miss")
    assert good.status.status_code is StatusCode.UNSET
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "unreachable"
    assert sum(series.count for series in recorder.series().values()) == 4


def test_without_an_sdk_nothing_happens() -> None:
    """The API alone does nothing."""
    recorder = TracingRecorder()
    with trace.get_tracer("application").start_as_current_span("GET /"):
        recorder.observe("load", "all", "primary", "ok", 0.25)
    instruments().add(Reader(recorder, lambda: 0).take())
    assert sum(series.count for series in recorder.series().values()) == 1


def test_an_application_that_asks_for_it_is_seen(sdk: Sdk, tmp_path: Path) -> None:
    """A sign-in asks the database: that is in the trace, and in the instruments."""
    app = Flask("app", instance_path=str(tmp_path))
    app.testing = True
    app.config.update(
        SECRET_KEY="test key of the test suite, 32+ bytes",
        LANGPONT_SESSION_REDIS_URL="redis://127.0.0.1:1/0",
        LANGPONT_SESSION_METRICS=["otel"],
    )
    LangPontSession(app)

    @app.get("/")
    def index() -> str:
        session["_user_id"] = "7"
        return "seen"

    with sdk.tracers.get_tracer("application").start_as_current_span("GET /") as request:
        assert app.test_client().get("/").text == "seen"
    state_of(app).close()
    spans = sdk.spans()
    assert {span.context.trace_id for span in spans if span.context} == {request.get_span_context().trace_id}
    assert "session sign_in" in {span.name for span in spans}
    assert sdk.points()["operations", of(operation="regenerate", backend="database", outcome="ok")] == 1


def test_one_that_does_not_has_a_recorder_that_makes_none(tmp_path: Path) -> None:
    """Requests pay nothing for it."""
    app = Flask("app", instance_path=str(tmp_path))
    app.testing = True
    app.config.update(SECRET_KEY="x" * 40, LANGPONT_SESSION_REDIS_URL="redis://127.0.0.1:1/0")
    LangPontSession(app)
    assert type(state_of(app).recorder) is Recorder
    state_of(app).close()
