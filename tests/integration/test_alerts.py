"""Outages of real stores, as subscribers of SNS see them: moto's server, queues behind topics, filter policies."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlalchemy
from click.testing import Result
from flask import Flask

from devservers.processes import LONG, family, free_port, kill, spawn
from devservers.servers import Postgres, Valkey
from flask_langpont_session import events
from flask_langpont_session.aws import client as aws_client
from flask_langpont_session.ops.alerts import alerts as alerts_module
from flask_langpont_session.ops.alerts.incidents import Incident, decode_host
from flask_langpont_session.ops.cli.commands import langpont
from tests.support.alerts_endpoint import TOPICS, Endpoint, environment_of, wait_for
from tests.support.moto import moto_server

from .alerts_site import TERMS, TICK
from .behind import wait_for_level, wait_until_home
from .conftest import PATIENT, MakeApp, parts

ROOT = Path(__file__).parents[2]

SEVERITIES = ("info", "warning", "critical", "emergency")
REGION = "ap-northeast-1"


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with moto_server() as url:
        yield url


class Aws:
    """Four topics, and queues that are subscribed to all of them."""

    def __init__(self) -> None:
        self._sns, self._sqs = boto3.client("sns", region_name=REGION), boto3.client("sqs", region_name=REGION)
        self.topics = {
            severity: self._sns.create_topic(Name=f"langpont-{severity}-alerts")["TopicArn"] for severity in SEVERITIES
        }
        self._read: dict[str, list[dict[str, Any]]] = {}
        self._urls: dict[str, str] = {}

    def subscribe(self, name: str, policy: dict[str, list[str]] | None = None) -> str:
        """A queue that gets what its filter policy lets through."""
        url = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        for topic in self.topics.values():
            attributes = {"FilterPolicy": json.dumps(policy)} if policy else {}
            self._sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=attributes)
        self._urls[name], self._read[name] = url, []
        return name

    def messages(self, name: str) -> list[dict[str, Any]]:
        """Return the notifications that came so far, in the order in which they arrived."""
        while found := self._sqs.receive_message(QueueUrl=self._urls[name], MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                self._read[name].append(json.loads(message["Body"]))
                self._sqs.delete_message(QueueUrl=self._urls[name], ReceiptHandle=message["ReceiptHandle"])
        return self._read[name]

    def told(self, name: str) -> list[str]:
        """The same, as ``topic state alert``."""
        return [
            f"{message['TopicArn'].split('-')[-2]} {attribute(message, 'state')} {attribute(message, 'alert')}"
            for message in self.messages(name)
        ]


def attribute(message: dict[str, Any], name: str) -> str:
    return str(message["MessageAttributes"][name]["Value"])


@pytest.fixture
def aws(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name, value in environment_of(moto_url).items():
        monkeypatch.setenv(name, value)
    yield Aws()
    urllib.request.urlopen(urllib.request.Request(f"{moto_url}/moto-api/reset", method="POST")).close()


MakeAlerting = Callable[..., Flask]


@pytest.fixture
def make_alerting(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeAlerting]:
    """Yield a factory of applications with fast alerts. They wait for moto, which may answer late on a busy machine:
    a message that was given up, but taken, would be sent again."""
    monkeypatch.setattr(alerts_module, "TICK", TICK)
    monkeypatch.setattr(aws_client, "READ_TIMEOUT", 20)
    made: list[Flask] = []

    def make(topics: dict[str, str], *, pace: float = TERMS.pace, **config: Any) -> Flask:
        monkeypatch.setattr(alerts_module, "TERMS", replace(TERMS, pace=pace))
        app = make_app(ALERT_TOPICS=topics, **config)
        made.append(app)
        return app

    yield make
    for app in made:
        alerts = parts(app).alerts
        assert alerts is not None
        alerts.stop()


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    engine = sqlalchemy.create_engine(postgres.url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS langpont_sessions, langpont_users"))
    engine.dispose()
    yield postgres.url
    postgres.start()


class HeldClock:
    """The clock of an application's alerts, which can be held: nothing is pending for any time meanwhile."""

    def __init__(self, app: Flask) -> None:
        self._behind = 0.0
        self._held: float | None = None
        alerts = parts(app).alerts
        assert alerts is not None
        alerts.incidents.clock = self

    def __call__(self) -> float:
        return time.time() - self._behind if self._held is None else self._held

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the clock at the present time while this is open."""
        self._held = now = self()
        yield
        self._behind, self._held = time.time() - now, None


def arrived(aws: Aws, queue: str, *expected: str) -> None:
    """Exactly these come."""
    wait_for(lambda: len(aws.told(queue)) >= len(expected), lambda: aws.told(queue))
    assert sorted(aws.told(queue)) == sorted(expected)


# -- outages -----------------------------------------------------------------------------------------------------------


def test_an_outage_of_redis_is_told_and_called_off(aws: Aws, make_alerting: MakeAlerting, primary: Valkey) -> None:
    """Subscribers are told once what failed and what users get, and once that it is over; a filter gets what it
    asked for."""
    all_of_it, pager = aws.subscribe("all"), aws.subscribe("pager", {"severity": ["critical"], "state": ["firing"]})
    app = make_alerting(aws.topics)
    client = app.test_client()
    client.post("/set", json={"lang": "ja"})
    primary.kill()
    for _ in range(20):
        assert client.get("/all").status_code == 200
    firing = ["critical firing redis-connection-failed", "critical firing level-fallback"]
    arrived(aws, all_of_it, *firing)
    primary.start()
    resolved = ["critical resolved redis-connection-failed", "critical resolved level-fallback"]
    changed = ["info firing server-changed", "info resolved server-changed"]
    arrived(aws, all_of_it, *firing, *resolved, *changed)
    assert sorted(aws.told(pager)) == sorted(firing)
    [message] = [m for m in aws.messages(pager) if attribute(m, "alert") == "redis-connection-failed"]
    assert message["Subject"] == "[CRITICAL] Redis connection failed: refuses connections (LangPont production)"
    body = json.loads(message["Message"])
    assert body["details"] == {"store": "primary", "cause": "refuses connections"}
    assert attribute(message, "dedup_key") == body["dedup_key"]
    assert body["dedup_key"] == f"production/LangPont/redis-connection-failed/{socket.gethostname()}"


def test_all_stores_down_is_one_emergency(
    aws: Aws, make_alerting: MakeAlerting, primary: Valkey, postgres: Postgres, postgres_url: str
) -> None:
    """It speaks for everything that follows from it, and its end is told too."""
    queue = aws.subscribe("all", {"severity": ["warning", "critical", "emergency"]})
    app = make_alerting(aws.topics, DATABASE_URL=postgres_url)
    clock, client = HeldClock(app), app.test_client()
    client.post("/login/7")
    with clock.held():  # what is noticed first, or is slower to come back, would be an outage of its own for so long
        postgres.kill()
        primary.kill()
        client.get("/who")
        wait_for_level(app, 4)
    arrived(aws, queue, "emergency firing level-minimal")
    with clock.held():
        postgres.start()
        primary.start()
        wait_until_home(app)
    arrived(aws, queue, "emergency firing level-minimal", "emergency resolved level-minimal")


def test_a_wrong_password_is_no_outage(aws: Aws, make_alerting: MakeAlerting, primary: Valkey) -> None:
    """It is told as what it is, and called off when the password is right again."""
    queue = aws.subscribe("all", {"severity": ["critical"]})
    client = make_alerting(aws.topics).test_client()
    client.post("/set", json={"lang": "ja"})
    with primary.client() as redis:
        redis.config_set("requirepass", "another")
        try:
            redis.client_kill_filter(_type="normal", skipme=True)
            client.get("/all")
            firing = ["critical firing auth-failed", "critical firing level-fallback"]
            arrived(aws, queue, *firing)
        finally:
            redis.config_set("requirepass", "")
    arrived(aws, queue, *firing, "critical resolved auth-failed", "critical resolved level-fallback")
    [message] = [
        m for m in aws.messages(queue) if "firing auth-failed" in f"{attribute(m, 'state')} {attribute(m, 'alert')}"
    ]
    assert attribute(message, "dedup_key").startswith("production/LangPont/auth-failed/primary/")


@pytest.mark.real_time("what must not be sent has half a second to come")
def test_data_that_a_server_lost_is_told(aws: Aws, make_alerting: MakeAlerting, primary: Valkey) -> None:
    """It was emptied behind its connections; the application's own canary notices."""
    queue = aws.subscribe("all")
    app = make_alerting(aws.topics, HEALTH_INTERVAL=0.1)
    app.test_client().post("/set", json={"lang": "ja"})
    wait_for(lambda: parts(app).monitor.has_looked, lambda: "the monitor's first look")
    time.sleep(0.3)
    with primary.client() as redis:
        redis.flushall()
    arrived(aws, queue, "emergency firing data-lost")


# -- workers -----------------------------------------------------------------------------------------------------------


class Site:
    """gunicorn with three workers, loaded before the fork."""

    workers = 3

    def __init__(self, folder: Path, redis: str, topics: dict[str, str], aws_url: str) -> None:
        self._port = free_port()
        options = ["--preload", "--workers", str(self.workers), "--bind", f"127.0.0.1:{self._port}"]
        options += ["--worker-tmp-dir", str(folder), "--no-control-socket"]
        self._process = spawn(
            [sys.executable, "-m", "gunicorn", *options, "tests.integration.alerts_site:create_app()"],
            log=folder / "log",
            cwd=ROOT,
            # What is given up, but was taken, is sent again.
            env={**site_environment(folder, redis, topics, aws_url), "SNS_TIMEOUT": "20"},
        )

    def ask(self) -> int | None:
        """A request; the process that answered it. None: no worker listens yet, or its worker was killed."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", "/pid")
            response = connection.getresponse()
            text = response.read()
            assert response.status == 200
            return int(text)
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def all_serve(self) -> set[int]:
        """Ask until every worker answered, so that each has its threads; their pids."""
        found: set[int] = set()

        def enough() -> bool:
            with ThreadPoolExecutor(self.workers) as pool:
                found.update(filter(None, pool.map(lambda _: self.ask(), range(self.workers))))
            return len(found) == self.workers

        wait_for(enough, lambda: found, 30)
        return found

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        kill(family(self._process.pid))
        self._process.wait()


def site_environment(folder: Path, redis: str, topics: dict[str, str], aws_url: str) -> dict[str, str]:
    return {
        "FOLDER": str(folder),
        "PYTHONPATH": str(ROOT),
        "FLASK_SECRET_KEY": "test key of the test suite, 32+ bytes",
        "FLASK_LANGPONT_SESSION_REDIS_URL": redis,
        "FLASK_LANGPONT_SESSION_ALERT_TOPICS": json.dumps(topics),
        **{f"FLASK_LANGPONT_SESSION_{name}": str(seconds) for name, seconds in PATIENT.items()},
        **environment_of(aws_url),
    }


OUTAGE = ["redis-connection-failed", "level-fallback"]


@pytest.mark.real_time("what must not be sent has half a second to come")
def test_a_host_tells_an_outage_once_though_the_worker_that_told_it_is_killed(
    aws: Aws, moto_url: str, primary: Valkey, tmp_path: Path
) -> None:
    """Three workers see it, one of them sends one message of each trouble; it is killed (and replaced) while the others
    go on seeing it; it is called off by another one, once."""
    queue = aws.subscribe("all", {"severity": ["critical", "emergency"]})
    firing, resolved = ([f"critical {state} {name}" for name in OUTAGE] for state in ("firing", "resolved"))
    with Site(tmp_path, primary.url, aws.topics, moto_url) as site:
        workers = site.all_serve()
        primary.kill()
        site.all_serve()
        arrived(aws, queue, *firing)
        told = senders(aws, queue)
        assert told <= workers
        # A worker that is killed before it has noted that a message was sent leaves it to another one.
        [kept] = tmp_path.glob("*-workers/alerts/state")
        wait_for(lambda: all(one.waiting is None for one in noted(kept)), lambda: "what was sent is noted")
        for pid in told:
            os.kill(pid, signal.SIGKILL)
        time.sleep(2 * TERMS.calm)  # nothing is to come: an alert that goes on is not over after its calm
        assert len(aws.told(queue)) == 2
        primary.start()
        arrived(aws, queue, *firing, *resolved)
        time.sleep(0.5)  # nothing more is to come: what would, comes within milliseconds
    assert sorted(aws.told(queue)) == sorted([*firing, *resolved])
    called_off = {json.loads(m["Message"])["pid"] for m in aws.messages(queue) if attribute(m, "state") == "resolved"}
    assert not called_off & told


def noted(kept: Path) -> list[Incident]:
    """Return the incidents that a host's workers have noted for the one that follows."""
    return list(decode_host(kept.read_bytes()).incidents.values())


def senders(aws: Aws, queue: str) -> set[int]:
    return {json.loads(message["Message"])["pid"] for message in aws.messages(queue)}


@pytest.mark.real_time("what must not be sent has half a second to come")
def test_a_message_survives_the_worker_that_is_killed_while_it_sends(primary: Valkey, tmp_path: Path) -> None:
    """SNS hangs, and the worker that waits for it is killed: another one sends what it had taken, once."""
    with Endpoint() as endpoint, Site(tmp_path, primary.url, TOPICS, endpoint.url) as site:
        site.all_serve()
        endpoint.behaviour = "hang"
        primary.kill()
        site.all_serve()
        wait_for(lambda: endpoint.requests > 0, lambda: endpoint.requests)
        killed = endpoint.asked[0].body["pid"]
        os.kill(killed, signal.SIGKILL)
        endpoint.behaviour = "ok"
        wait_for(lambda: len(endpoint.sent) >= 2, endpoint.told)
        time.sleep(0.5)  # nothing more is to come: what would, comes within milliseconds
    assert sorted(endpoint.told()) == sorted(f"firing {name}" for name in OUTAGE)
    assert killed not in {message.body["pid"] for message in endpoint.sent}


ENDS = """
import sys

from flask_langpont_session.events import DataLost
from flask_langpont_session.extension import state_of
from flask_langpont_session.support import threads
from tests.integration.alerts_site import create_app

app = create_app()
if len(sys.argv) > 1:
    threads.EXIT_WAIT = float(sys.argv[1])
state_of(app).alerts.happened(None, event=DataLost("primary"))
sys.stdin.read()
"""


SLOW_SNS = {"SNS_TIMEOUT": "100"}
"""Of the process' own: seconds that it waits for an answer."""


def test_what_happened_just_before_the_end_of_a_process_is_told(primary: Valkey, tmp_path: Path) -> None:
    """An alert is told as long as there is time for it: the end waits for more than the usual seconds here, for a
    busy machine."""
    with Endpoint() as endpoint:
        environment = site_environment(tmp_path, primary.url, TOPICS, endpoint.url)
        command = [sys.executable, "-c", ENDS, "60"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=100, env={**environment, **SLOW_SNS})
        assert (endpoint.told(), endpoint.requests) == (["firing data-lost"], 1)


def test_the_end_of_a_process_does_not_wait_for_an_sns_that_hangs(primary: Valkey, tmp_path: Path) -> None:
    """The process does not wait for an SNS that has been sent a message and does not answer."""
    with Endpoint() as endpoint:
        endpoint.behaviour = "hang"
        environment = site_environment(tmp_path, primary.url, TOPICS, endpoint.url)
        command = [sys.executable, "-c", ENDS]
        with subprocess.Popen(command, stdin=subprocess.PIPE, env={**environment, **SLOW_SNS}) as process:
            try:
                wait_for(lambda: endpoint.requests == 1, lambda: endpoint.requests, 60)
                assert process.stdin is not None
                process.stdin.close()
                assert process.wait(LONG) == 0
            finally:
                process.kill()
        assert (endpoint.told(), endpoint.requests) == ([], 1)


# -- SNS that fails ----------------------------------------------------------------------------------------------------


def test_a_hanging_sns_slows_no_request(
    make_alerting: MakeAlerting, monkeypatch: pytest.MonkeyPatch, primary: Valkey
) -> None:
    """Requests go on in the middle of an outage, with a message on its way that SNS does not accept."""
    monkeypatch.setattr(aws_client, "READ_TIMEOUT", 60)
    with Endpoint() as endpoint:
        for name, value in environment_of(endpoint.url).items():
            monkeypatch.setenv(name, value)
        endpoint.behaviour = "hang"
        client = make_alerting({"critical": TOPICS["critical"]}).test_client()
        primary.kill()
        client.get("/all")
        wait_for(lambda: endpoint.requests == 1, lambda: endpoint.requests)
        for _ in range(100):
            assert client.get("/all").status_code == 200
        # The message is still on its way: none of the requests waited for it.
        assert (endpoint.requests, endpoint.sent) == (1, [])
        endpoint.reset()


# -- wiring ------------------------------------------------------------------------------------------------------------


def test_without_topics_there_is_nothing(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """No alerts, no listener of a signal, no thread; one line in the log."""
    with caplog.at_level(logging.INFO, logger="flask_langpont_session"):
        app = make_app()
    assert parts(app).alerts is None
    assert not list(events.data_lost.receivers_for(app))
    assert caplog.text.count("no alerts are sent") == 1


def test_every_event_that_tells_something_is_listened_to(make_alerting: MakeAlerting) -> None:
    """States are looked up, so only what has none; nothing is started before the first request."""
    app = make_alerting({"critical": "arn:aws:sns:ap-northeast-1:123456789012:critical"})
    listened_to = {signal.name for signal in events.ALL if list(signal.receivers_for(app))}
    assert listened_to == {"server-changed", "data-lost", "database-went-back", "journal-failed", "changes-given-up"}
    assert not running()
    app.test_client().get("/untouched")
    assert running() == ["langpont-session-alerts"]


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("langpont-session-alerts")]


def test_what_the_workers_share_lies_beside_the_journal(
    aws: Aws, make_alerting: MakeAlerting, primary: Valkey, tmp_path: Path
) -> None:
    """Nothing is kept before the first incident."""
    client = make_alerting(aws.topics).test_client()
    client.post("/set", json={"lang": "jp"})  # a visitor with a session asks Redis, and so notices
    folder = tmp_path / "journal.sqlite3-workers" / "alerts"
    wait_for((folder / "lock").exists, lambda: list(tmp_path.iterdir()))
    assert not (folder / "state").exists()
    primary.kill()
    client.get("/all")
    wait_for((folder / "state").exists, lambda: list(folder.iterdir()))


# -- flask langpont alert-test -----------------------------------------------------------------------------------------


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(langpont, ["alert-test", *arguments])


def test_alert_test_reaches_every_topic(aws: Aws, make_alerting: MakeAlerting) -> None:
    """A marked message per severity, composed as all others; nothing else is looked at."""
    queue = aws.subscribe("all")
    result = run(make_alerting(aws.topics))
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"{severity:10} langpont-{severity}-alerts (ap-northeast-1): sent" for severity in SEVERITIES
    ]
    assert sorted(aws.told(queue)) == sorted(f"{severity} firing test" for severity in SEVERITIES)
    for message in aws.messages(queue):
        assert message["Subject"].startswith(f"[TEST] [{attribute(message, 'severity').upper()}] ")
        assert json.loads(message["Message"])["test"] is True


def test_alert_test_of_one_severity_without_a_topic_of_its_own(aws: Aws, make_alerting: MakeAlerting) -> None:
    """It shows where that severity really goes."""
    queue = aws.subscribe("all")
    result = run(make_alerting({"critical": aws.topics["critical"]}), "--severity", "warning")
    assert (result.exit_code, result.output) == (0, "warning    langpont-critical-alerts (ap-northeast-1): sent\n")
    assert [attribute(message, "severity") for message in aws.messages(queue)] == ["warning"]


def test_alert_test_says_what_failed(aws: Aws, make_alerting: MakeAlerting) -> None:
    """Each topic is tried; one that fails is an exit code of 1."""
    missing = {**aws.topics, "emergency": aws.topics["emergency"].replace("emergency", "no-such")}
    result = run(make_alerting(missing))
    assert result.exit_code == 1
    *others, last = result.output.splitlines()
    assert [line.endswith(": sent") for line in others] == [True, True, True]
    reason = "there is none of this name in this account and region (NotFound)"
    assert last == f"emergency  langpont-no-such-alerts (ap-northeast-1): {reason}"


def test_alert_test_without_topics_or_with_a_strange_severity(make_app: MakeApp) -> None:
    """Both are mistakes, and say so."""
    result = run(make_app())
    assert result.exit_code == 1
    assert "LANGPONT_SESSION_ALERT_TOPICS names no topic" in result.output
    assert run(make_app(), "--severity", "fatal").exit_code == 2
