"""An application that is ended before its process leaves nothing running."""

from __future__ import annotations

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from devservers.processes import free_port, wait_until
from flask_langpont_session.extension import state_of

from .conftest import MakeApp, close
from .leftover_threads import threads

TOPIC = "arn:aws:sns:ap-northeast-1:123456789012:alerts"


@pytest.fixture
def busy_app(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """Return an application that exports and alerts, to an AWS that is not there."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-1")
    return make_app(
        METRICS=["cloudwatch", "prometheus"],
        METRICS_REGISTRY=CollectorRegistry(),
        ALERT_TOPICS=dict.fromkeys(("info", "warning", "critical", "emergency"), TOPIC),
    )


def test_what_runs_beside_the_requests_ends_with_the_application(busy_app: Flask) -> None:
    """Monitor, exporters, alerts, the journal's thread and those that wait for the database; other applications keep
    theirs, and the one that measures how late this process is serves all of them."""
    before = threads()
    expected = {
        "langpont-session-monitor",
        "langpont-session-active",
        "langpont-session-publisher",
        "langpont-session-prometheus",
        "langpont-session-alerts",
        "langpont-database",
        "langpont-session-journal",  # started by the monitor, which may take its time
    }
    assert busy_app.test_client().post("/login/7").status_code == 200
    wait_until(lambda: expected <= {thread.name for thread in threads() - before}, "all threads")
    close(busy_app)
    assert threads() <= before


def test_an_application_may_be_closed_twice_and_asked_again(make_app: MakeApp) -> None:
    """Its connections come back with the next request; its threads do not."""
    app = make_app()
    assert app.test_client().post("/login/7").status_code == 200
    before = threads()
    for _ in range(2):
        state_of(app).close()
    assert app.test_client().post("/login/8").status_code == 200
    assert "langpont-session-monitor" not in {thread.name for thread in threads() - before}
