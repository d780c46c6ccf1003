"""CloudWatch: what a real client publishes to moto's server, and endpoints that do anything but take it."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from flask import Flask

from devservers.processes import LONG, wait_until
from devservers.servers import Valkey
from flask_langpont_session.exceptions import ConfigError
from flask_langpont_session.metrics.recorder import Reader, Recorder
from flask_langpont_session.ops.exporters import catalogue, cloudwatch
from flask_langpont_session.ops.exporters.cloudwatch import CloudWatch
from flask_langpont_session.ops.exporters.figures import Figures, figures
from flask_langpont_session.ops.exporters.publisher import Publisher
from flask_langpont_session.support import threads
from flask_langpont_session.support.host import HostWork
from flask_langpont_session.testing import switched_off
from tests.support.moto import moto_server

from .conftest import MakeApp, parts
from .counting import wait_for_monitors
from .exporters_site import be_quiet, running

ROOT = Path(__file__).parents[2]
REGION = "ap-northeast-1"
WHOLE = {"Environment": "test", "Service": "shop"}


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment with credentials and a region, and nothing else that boto3 could find on this machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", str(tmp_path / "no-config")),
        ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials")),
    ):
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def moto(moto_url: str, aws: pytest.MonkeyPatch) -> str:
    """The address of an empty CloudWatch, at which boto3 looks for the real one. On a busy machine it may take seconds
    for an answer, after which figures would be dropped, and a process that ends not wait for it."""
    aws.setattr(cloudwatch, "_WAIT", LONG)
    aws.setattr(threads, "EXIT_WAIT", 2 * LONG)
    urllib.request.urlopen(urllib.request.Request(f"{moto_url}/moto-api/reset", method="POST")).close()
    aws.setenv("AWS_ENDPOINT_URL", moto_url)
    return moto_url


@pytest.fixture
def make_exporting(make_app: MakeApp, aws: pytest.MonkeyPatch) -> Iterator[MakeApp]:
    """Applications that publish to CloudWatch: once, when they are stopped, unless told otherwise."""
    made: list[Flask] = []

    def make(**config: Any) -> Flask:
        app = make_app(**{"METRICS": ["cloudwatch"], "ENVIRONMENT": "test", "SERVICE": "shop", **config})
        if "METRICS_INTERVAL" not in config:
            be_quiet(app)
        made.append(app)
        return app

    yield make
    for app in made:
        stop(app)


def stop(app: Flask) -> None:
    exporting = parts(app).exporting
    assert exporting is not None
    exporting.stop()


def statistics(metric: catalogue.Metric) -> dict[str, float]:
    """Return what CloudWatch has of a metric under the two dimensions. (moto adds up what has a third one too.)"""
    now = datetime.now(UTC)
    points = boto3.client("cloudwatch").get_metric_statistics(
        Namespace=catalogue.NAMESPACE,
        MetricName=metric.name,
        Dimensions=[{"Name": name, "Value": value} for name, value in WHOLE.items()],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=7200,
        Statistics=["Sum", "SampleCount", "Minimum", "Maximum"],
    )["Datapoints"]
    assert {point["Unit"] for point in points} <= {metric.unit}
    return {
        "Sum": sum(point["Sum"] for point in points),
        "SampleCount": sum(point["SampleCount"] for point in points),
        "Maximum": max((point["Maximum"] for point in points), default=-1),
    }


def listed() -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Name and dimensions of everything that was put."""
    pages = boto3.client("cloudwatch").get_paginator("list_metrics").paginate(Namespace=catalogue.NAMESPACE)
    return {
        (metric["MetricName"], frozenset((pair["Name"], pair["Value"]) for pair in metric["Dimensions"]))
        for page in pages
        for metric in page["Metrics"]
    }


# -- it takes them -----------------------------------------------------------------------------------------------------


def test_what_requests_did_is_what_cloudwatch_shows(make_exporting: MakeApp, moto: str) -> None:
    """Every metric of the contract under its dimensions, and the sums are right."""
    app = make_exporting()
    users = [app.test_client() for _ in range(3)]
    for number, user in enumerate(users):
        user.post("/set", json={"lang": "jp"})
        user.post(f"/login/{number}")
        user.get("/who")
    users[0].post("/logout")
    wait_for_monitors()  # the monitor measures, too
    parts(app).backend.memory.clear()  # what the database said a moment ago would do
    with switched_off(app, "primary"):
        users[1].get("/who")
    exporting = parts(app).exporting
    assert exporting is not None
    exporting.active.update()
    observed = [(o, s) for o, s in parts(app).recorder.series().items() if o.source != "none"]
    stop(app)

    everything = listed()
    plain = frozenset(WHOLE.items())
    assert {name for name, dimensions in everything if dimensions == plain} == {metric.name for metric in catalogue.ALL}
    thirds = {(name, *pair) for name, dimensions in everything for pair in dimensions - plain}
    asked = {"read", "write", "regenerate", "verify", "delete"}
    assert {third for third in thirds if third[1] == "Operation"} == {
        (name, "Operation", word) for name in ("Operations", "Errors", "OperationLatency") for word in asked
    }
    assert {third for third in thirds if third[1] == "Backend"} == {
        ("FallbackOperations", "Backend", word) for word in ("database", "default", "local")
    }
    assert {third for third in thirds if third[1] == "Category"} == {("PayloadBytes", "Category", "ui")}
    for metric, expected in (
        (catalogue.HEARTBEAT, 1),
        (catalogue.SESSIONS_CREATED, 7),  # three visitors, who signed in; one signed out, whose language goes on
        (catalogue.SESSIONS_ENDED, 1),
        (catalogue.SESSIONS_REGENERATED, 0),
        (catalogue.ACTIVE_SESSIONS, 3),
        (catalogue.CIRCUIT_TRANSITIONS, 4),
        (catalogue.METRICS_DROPPED, 0),
    ):
        assert statistics(metric)["Sum"] == expected, metric
    assert statistics(catalogue.FALLBACK_LEVEL)["Maximum"] == 2  # over by now, and not missed
    # moto adds up what is published under two dimensions and under three.
    done = sum(series.count for _, series in observed)
    milliseconds = sum(bound * number for _, series in observed for bound, number in series.durations.items())
    assert statistics(catalogue.OPERATIONS)["Sum"] == 2 * done
    assert statistics(catalogue.OPERATION_LATENCY)["SampleCount"] == 2 * done
    assert statistics(catalogue.OPERATION_LATENCY)["Sum"] == pytest.approx(2 * milliseconds)


def test_the_thread_publishes_by_itself(make_exporting: MakeApp, moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request of a process starts it; nothing else has to be called."""
    monkeypatch.setattr(threads.CHANCE, "uniform", lambda low, high: low)  # type: ignore[attr-defined]
    app = make_exporting(METRICS_INTERVAL=1)
    assert statistics(catalogue.HEARTBEAT)["Sum"] == 0
    app.test_client().get("/untouched")
    wait_until(lambda: statistics(catalogue.HEARTBEAT)["Sum"] >= 1, "a heartbeat")


# -- it does not -------------------------------------------------------------------------------------------------------


NONSENSE = "nonsense"


class Endpoint(ThreadingHTTPServer):
    """A place that answers as it is told.

    :ivar answer: status and error code; None: never.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.answer: tuple[int, str] | None = (200, "")
        self.hits = 0
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), Answering)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        self.server.hits += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.answer is None:
            self.server.over.wait(LONG)
            return
        status, code = self.server.answer
        body = b"\xff\x00" if code == NONSENSE else json.dumps({"__type": code} if code else {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint(aws: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        aws.setenv("AWS_ENDPOINT_URL", server.url)
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def a_publisher() -> tuple[Publisher, Recorder]:
    recorder = Recorder()
    reader = Reader(recorder, lambda: 0)
    publisher = Publisher(
        lambda: figures(reader.take()),
        HostWork(None, "metrics", 60),
        [CloudWatch(recorder, environment="test", service="shop").publish],
        lambda: False,
    )
    return publisher, recorder


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ((400, "Throttling"), "Throttling"),
        ((403, "AccessDenied"), "AccessDenied"),
        ((500, "InternalServiceError"), "InternalServiceError"),
        ((502, NONSENSE), "UnicodeDecodeError"),
        (None, "ReadTimeoutError"),
    ],
)
def test_a_refusal_is_one_attempt_one_line_and_a_count(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture, answer: tuple[int, str] | None, cause: str
) -> None:
    """If CloudWatch refuses, a real client makes no retry of botocore's. Afterwards everything is as before."""
    publisher, recorder = a_publisher()
    caplog.set_level(logging.INFO, "flask_langpont_session")
    endpoint.answer = answer
    publisher.publish()
    dropped = recorder.counters()["metrics_dropped"]
    publisher.publish()
    assert (endpoint.hits, recorder.counters()["metrics_dropped"]) == (2, 2 * dropped)
    assert dropped > 10
    assert [cause in line for line in caplog.messages] == [True]
    endpoint.answer = (200, "")
    publisher.publish()
    publisher.publish()
    assert endpoint.hits == 4
    assert recorder.counters()["metrics_dropped"] == 2 * dropped
    assert len(caplog.messages) == 2


def test_a_port_where_nothing_listens(aws: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Refused at once; as is what is no address; and without credentials nothing is sent at all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        publisher, recorder = a_publisher()
        publisher.publish()
    assert "EndpointConnectionError" in caplog.text
    aws.setenv("AWS_ENDPOINT_URL", "nonsense")
    other, recorder = a_publisher()
    other.publish()
    assert "ValueError" in caplog.text
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws.delenv(name)
    other, recorder = a_publisher()
    other.publish()
    assert "there are no AWS credentials" in caplog.text
    assert recorder.counters()["metrics_dropped"] > 10


def test_credentials_that_come_later_are_found(aws: pytest.MonkeyPatch, moto: str) -> None:
    """A role that is attached late, a file that is written late: no restart is needed."""
    aws.delenv("AWS_ACCESS_KEY_ID")
    publisher, recorder = a_publisher()
    publisher.publish()
    aws.setenv("AWS_ACCESS_KEY_ID", "test")
    publisher.publish()
    assert statistics(catalogue.METRICS_DROPPED)["Sum"] == recorder.counters()["metrics_dropped"] > 10


def test_no_request_waits_while_the_endpoint_hangs(
    make_exporting: MakeApp, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests are answered while one thread is stuck in the sending, and none of their threads ever sends."""
    senders: set[str] = set()
    stuck = threading.Event()
    publish = CloudWatch.publish

    def watched(sink: CloudWatch, found: Figures) -> None:
        senders.add(threading.current_thread().name)
        stuck.set()
        try:
            publish(sink, found)
        finally:
            stuck.clear()

    monkeypatch.setattr(CloudWatch, "publish", watched)
    monkeypatch.setattr(threads.CHANCE, "uniform", lambda low, high: low)  # type: ignore[attr-defined]
    endpoint.answer = None
    app = make_exporting(METRICS_INTERVAL=1)
    client = app.test_client()
    client.get("/untouched")
    assert stuck.wait(10)
    served = 0
    while stuck.is_set() and served < 20:
        assert client.post("/set", json={"lang": str(served)}).status_code == 200
        served += 1
    assert served >= 3
    wait_until(lambda: parts(app).recorder.counters().get("metrics_dropped", 0) > 0, "drops are counted")
    endpoint.answer = (200, "")
    assert senders == {"langpont-session-publisher"}


# -- processes ---------------------------------------------------------------------------------------------------------

APPLICATION = """
    import os, sys
    from pathlib import Path
    from flask import Flask, session
    from flask_langpont_session import LangPontSession
    from flask_langpont_session.extension import state_of
    from tests.integration.exporters_site import be_quiet

    folder = Path(sys.argv[1])
    app = Flask("app", instance_path=str(folder))
    app.testing = True
    app.config.update(
        SECRET_KEY="test key of the test suite, 32+ bytes",
        LANGPONT_SESSION_REDIS_URL=sys.argv[2],
        LANGPONT_SESSION_METRICS=["cloudwatch"],
        LANGPONT_SESSION_ENVIRONMENT="test",
        LANGPONT_SESSION_SERVICE="shop",
    )
    LangPontSession(app)
    state_of(app).backend.database.upkeep.create_tables()
    be_quiet(app)

    @app.post("/set")
    def set_language():
        session["lang"] = "jp"
        return "set"

    def visit(times):
        for _ in range(times):
            assert app.test_client().post("/set").status_code == 200

"""


PATIENCE = LONG / 2
"""Seconds that a process is given to end: many times what it may take, and half of what an endpoint hangs for."""


def run(program: str, folder: Path, redis: str) -> None:
    """Run a program, which ends in time after its last word."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(APPLICATION) + textwrap.dedent(program), str(folder), redis],
        cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore::DeprecationWarning"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "last word\n"
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_process_ends_in_time_while_the_endpoint_hangs(endpoint: Endpoint, primary: Valkey, tmp_path: Path) -> None:
    """The figures that are left are sent once, and the exit does not wait for an answer that does not come."""
    endpoint.answer = None
    run("visit(2); print('last word', flush=True)", tmp_path, primary.url)
    assert endpoint.hits == 1


FORKING = """
    from flask_langpont_session.support import threads
    threads.EXIT_WAIT = 20.0  # however late this machine is
    visit(2)
    child = os.fork()
    if child == 0:
        visit(3)  # and its end publishes
    else:
        os.waitpid(child, 0)
        print("last word", flush=True)
"""


def test_a_forked_child_publishes_its_own(moto: str, primary: Valkey, tmp_path: Path) -> None:
    """A child has a thread of its own, and publishes nothing twice: what the parent counted is the parent's."""
    run(FORKING, tmp_path, primary.url)
    assert statistics(catalogue.HEARTBEAT)["Sum"] == 2
    assert statistics(catalogue.SESSIONS_CREATED)["Sum"] == 5


def test_workers_publish_what_is_left_at_sigterm(moto: str, primary: Valkey, tmp_path: Path) -> None:
    """Each worker publishes what it has counted in one request or two, also if it was forked with a loaded
    application."""
    config = {"METRICS": '["cloudwatch"]', "ENVIRONMENT": "test", "SERVICE": "shop"}
    with running(tmp_path, primary.url, preload=True, quiet=True, **config) as site:
        total = sum(site.visited().values())
        assert statistics(catalogue.HEARTBEAT)["Sum"] == 0
    assert statistics(catalogue.HEARTBEAT)["Sum"] == 2
    assert statistics(catalogue.SESSIONS_CREATED)["Sum"] == total


COUNTING = """
    import sys
    from pathlib import Path
    from flask_langpont_session.ops.exporters import cloudwatch
    from flask_langpont_session.ops.exporters.figures import figures
    from flask_langpont_session.ops.exporters.publisher import Publisher
    from flask_langpont_session.metrics.recorder import Reader, Recorder
    from flask_langpont_session.support.host import HostWork

    recorder = Recorder()
    reader = Reader(recorder, lambda: 0)
    publisher = Publisher(
        lambda: figures(reader.take()),
        HostWork(Path(sys.argv[1]), "metrics", 180),
        [cloudwatch.CloudWatch(recorder, environment="test", service="shop").publish],
        lambda: False,
    )
    for line in sys.stdin:
        recorder.count("sessions_created", int(line))
        publisher.publish()
        print("done", flush=True)
"""


class Counting:
    """A worker of a host, which counts and lets an interval pass when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(COUNTING), str(folder)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def count(self, number: int) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def test_one_worker_of_a_host_publishes_and_another_one_when_it_is_killed(moto: str, tmp_path: Path) -> None:
    """Each figure once, in one request per interval: MetricsDropped has one sample of each."""
    workers = [Counting(tmp_path / "work") for _ in range(3)]
    first, second, third = workers
    try:
        first.count(1)
        second.count(10)
        third.count(100)
        assert (statistics(catalogue.SESSIONS_CREATED)["Sum"], statistics(catalogue.HEARTBEAT)["Sum"]) == (1, 1)
        first.count(2)
        assert (statistics(catalogue.SESSIONS_CREATED)["Sum"], statistics(catalogue.HEARTBEAT)["Sum"]) == (113, 4)
        assert statistics(catalogue.SESSIONS_CREATED)["SampleCount"] == 4
        second.count(20)
        first.kill()
        third.count(200)
        assert (statistics(catalogue.SESSIONS_CREATED)["Sum"], statistics(catalogue.HEARTBEAT)["Sum"]) == (333, 6)
        second.count(40)
        third.count(0)
        assert (statistics(catalogue.SESSIONS_CREATED)["Sum"], statistics(catalogue.HEARTBEAT)["Sum"]) == (373, 8)
        assert statistics(catalogue.METRICS_DROPPED)["SampleCount"] == 4
    finally:
        for worker in workers:
            worker.kill()


# -- start -------------------------------------------------------------------------------------------------------------


def test_a_missing_region_is_found_at_start(make_exporting: MakeApp, aws: pytest.MonkeyPatch) -> None:
    """It would not heal. AWS_REGION, which boto3 does not read, is good enough."""
    aws.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigError, match="region"):
        make_exporting()
    aws.setenv("AWS_REGION", "eu-west-1")
    make_exporting()
    assert cloudwatch.connect().meta.region_name == "eu-west-1"


def test_an_application_that_exports_nothing_pays_nothing(primary: Valkey, tmp_path: Path) -> None:
    """No import of boto3, prometheus_client or an exporter, and no thread; nor of what takes over old sessions. Before
    the first request there is no thread at all: a server that forks its workers then would hand down its lock."""
    program = """
        import json, sys, threading
        from flask import Flask
        from flask_langpont_session import LangPontSession
        app = Flask("app", instance_path=sys.argv[1])
        app.testing = True
        app.config.update(SECRET_KEY="x" * 40, LANGPONT_SESSION_REDIS_URL=sys.argv[2])
        app.config.update(LANGPONT_SESSION_JOURNAL=sys.argv[1] + "/journal")
        LangPontSession(app)
        assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
        app.test_client().get("/")
        own = ("ops.alerts", "adoption", "ops.exporters")
        heavy = ("boto3", "botocore", "prometheus_client")
        heavy += tuple(f"flask_langpont_session.{name}" for name in own)
        print(json.dumps([sorted(name for name in sys.modules if name.startswith(heavy)),
                          sorted(thread.name for thread in threading.enumerate())]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), primary.url],
        cwd=ROOT, capture_output=True, text=True, timeout=LONG, check=True,
    )  # fmt: skip
    modules, threads = json.loads(done.stdout)
    assert modules == []
    assert not [name for name in threads if "publisher" in name or "active" in name or "prometheus" in name]
