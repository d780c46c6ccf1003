"""Embedded metric format: what a document may hold, that nothing is lost on the way, and where it is written to."""

from __future__ import annotations

import io
import json
import sys
import threading
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_langpont_session import LangPontSession
from flask_langpont_session.extension import state_of
from flask_langpont_session.metrics.recorder import Reader, Recorder, Standing
from flask_langpont_session.ops.exporters import catalogue, emf
from flask_langpont_session.ops.exporters.emf import Document, Emf, documents
from flask_langpont_session.ops.exporters.figures import BY_NAME, Figure, Figures, figures, together

AT_MS = 1_790_000_000_123


def made(found: Figures) -> list[Document]:
    return list(documents(found, {"Environment": "test", "Service": "shop"}, AT_MS))


def wrong_in(document: Document) -> list[str]:
    """Return the parts of a document that the specification forbids."""
    wrong = []
    about = document["_aws"]
    if not isinstance(about["Timestamp"], int) or not 10**12 < about["Timestamp"] < 10**13:
        wrong.append("Timestamp is not in milliseconds")
    for directive in about["CloudWatchMetrics"]:
        if not 1 <= len(directive["Namespace"]) <= 255:
            wrong.append("Namespace")
        if len(directive["Metrics"]) > 100 or len({metric["Name"] for metric in directive["Metrics"]}) < len(
            directive["Metrics"]
        ):
            wrong.append("more than 100 metrics, or one twice")
        for dimensions in directive["Dimensions"]:
            if not len(dimensions) <= 30 or not all(isinstance(document[name], str) for name in dimensions):
                wrong.append("more than 30 dimensions, or one that is no text")
        for metric in directive["Metrics"]:
            target = document[metric["Name"]]
            values = target["Values"] if isinstance(target, dict) else target if isinstance(target, list) else [target]
            if not 1 <= len(values) <= 100 or not all(isinstance(value, float) for value in values):
                wrong.append(f"{metric['Name']}: not 1 to 100 numbers")
            if isinstance(target, dict) and (
                len(target["Counts"]) != len(values)
                or sum(target["Counts"]) != target["Count"]
                or not target["Min"] <= target["Sum"] / target["Count"] <= target["Max"]
            ):
                wrong.append(f"{metric['Name']}: counts")
    if len(json.dumps(document)) > 256 * 1024:
        wrong.append("larger than a log event")
    return wrong


def figures_of(document: Document) -> Figures:
    """Return the figures that CloudWatch makes of a document."""
    [directive] = document["_aws"]["CloudWatchMetrics"]
    [dimensions] = directive["Dimensions"]
    [*third] = [(name, document[name]) for name in dimensions if name not in catalogue.DIMENSIONS]
    found = {}
    for metric in directive["Metrics"]:
        assert metric["Unit"] == BY_NAME[metric["Name"]].unit
        target = document[metric["Name"]]
        counts: dict[float, float] = {}
        if isinstance(target, dict):
            counts = dict(zip(target["Values"], target["Counts"], strict=True))
        else:
            for value in target if isinstance(target, list) else [target]:
                counts[value] = counts.get(value, 0) + 1
        found[Figure(metric["Name"], *(third[0] if third else ()))] = counts
    return found


def test_an_interval_is_a_document_and_one_for_each_third_dimension() -> None:
    recorder = Recorder()
    recorder.observe("load", "all", "primary", "ok", 0.002)
    recorder.observe("verify", "all", "database", "ok", 0.003)
    recorder.measure("payload", "ui", 120)
    found = figures(Reader(recorder, lambda: 2, lambda: Standing(active=7)).take())
    whole, *others = made(found)
    assert whole["_aws"]["CloudWatchMetrics"][0]["Namespace"] == catalogue.NAMESPACE
    assert (whole["Environment"], whole["Service"], whole["_aws"]["Timestamp"]) == ("test", "shop", AT_MS)
    assert (whole["FallbackLevel"], whole["ActiveSessions"], whole["OperationLatency"]) == (2, 7, [2, 3])
    assert [document["_aws"]["CloudWatchMetrics"][0]["Dimensions"] for document in others] == [
        [["Environment", "Service", "Operation"]],
        [["Environment", "Service", "Operation"]],
        [["Environment", "Service", "Category"]],
    ]


numbers = st.dictionaries(st.integers(0, 10**6).map(float), st.integers(1, 10**9).map(float), min_size=1, max_size=250)
names = st.builds(
    lambda name, of: Figure(name, BY_NAME[name].by or "", of) if of and BY_NAME[name].by else Figure(name),
    st.sampled_from([*BY_NAME]),
    st.sampled_from(["", "read", "ui"]),
)


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(names, numbers, max_size=40))
def test_whatever_was_counted_makes_documents_that_are_accepted(found: Figures) -> None:
    """Nothing is lost or there twice."""
    made_ = made(found)
    assert [wrong for document in made_ for wrong in wrong_in(document)] == []
    assert together(map(figures_of, made_)) == found


def test_more_metrics_than_a_document_holds_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emf, "MOST_METRICS", 10)
    found = figures(Reader(Recorder(), lambda: 0).take())
    sizes = [len(document["_aws"]["CloudWatchMetrics"][0]["Metrics"]) for document in made(found)]
    assert max(sizes) == 10 and sum(sizes) == len(found)
    assert together(map(figures_of, made(found))) == found


# -- where it goes -----------------------------------------------------------------------------------------------------

FOUND: Figures = {Figure("Heartbeat"): {1.0: 2.0}}


def an_emf() -> tuple[Emf, Recorder]:
    recorder = Recorder()
    return Emf(recorder, environment="test", service="my shop"), recorder


def test_what_cannot_be_written_is_dropped_counted_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writes, recorder = an_emf()
    closed = io.StringIO()
    closed.close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        for _ in range(3):
            writes.publish(FOUND)
    assert recorder.counters() == {"metrics_dropped": 6}
    assert [line.partition(":")[0] for line in caplog.messages] == ["the standard output does not accept metrics"]
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    writes.publish(FOUND)
    writes.publish(FOUND)
    assert [json.loads(line)["MetricsDropped"] for line in out.getvalue().splitlines()] == [6, 0]


# -- an application ----------------------------------------------------------------------------------------------------


def an_application(folder: Path) -> Flask:
    app = Flask("app", instance_path=str(folder))
    app.testing = True
    app.config.update(
        SECRET_KEY="test key of the test suite, 32+ bytes",
        LANGPONT_SESSION_REDIS_URL="redis://127.0.0.1:1/0",
        LANGPONT_SESSION_METRICS=["emf"],
    )
    LangPontSession(app)

    @app.post("/count")
    def count() -> str:
        state_of(app).recorder.count("values_rejected")
        return "counted"

    return app


def written(capsys: pytest.CaptureFixture[str]) -> list[Document]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"_aws"')]
    assert [wrong for document in lines for wrong in wrong_in(document)] == []
    return [document for document in lines if "Heartbeat" in document]


def test_in_lambda_each_request_writes_at_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread would be frozen with its process; so there is none."""
    monkeypatch.setattr(emf, "IN_LAMBDA", True)
    app = an_application(tmp_path)
    for number in range(1, 3):
        assert app.test_client().post("/count").status_code == 200
        [document] = written(capsys)
        assert document["Heartbeat"] == 1, number
        assert document["ValuesRejected"] == 1
    names = [thread.name for thread in threading.enumerate()]
    assert "langpont-session-publisher" not in names
    state_of(app).close()


def test_elsewhere_a_thread_writes_once_per_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = an_application(tmp_path)
    for _ in range(3):
        assert app.test_client().post("/count").status_code == 200
    state_of(app).close()
    assert sum(document["ValuesRejected"] for document in written(capsys)) == 3
