"""The sending thread: SNS endpoints that fail in every way, the end of the process, forks, and several workers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from flask_langpont_session import events
from flask_langpont_session.alerts.alerts import TERMS, Alerts
from flask_langpont_session.alerts.conditions import Conditions
from flask_langpont_session.alerts.host_file import HostFile
from flask_langpont_session.alerts.incidents import Terms
from flask_langpont_session.alerts.lookout import Lookout
from flask_langpont_session.alerts.messages import sender_here
from flask_langpont_session.alerts.outgoing import Outgoing
from flask_langpont_session.alerts.shared import SharedIncidents, joined
from flask_langpont_session.alerts.table import Severity
from flask_langpont_session.alerts.topics import NotSent, Topics, short_name
from flask_langpont_session.aws import client
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.policy.health import Health
from tests.support.alerts_endpoint import TOPICS, Endpoint, environment_of, wait_for

LOST = events.DataLost("primary")
FIRING = "firing data-lost"
START = 1_790_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    for name, value in environment_of(server.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(client, "READ_TIMEOUT", 0.2)
    server.reset()
    return server


class Worker:
    """Alerts whose clock stands still unless it is moved."""

    def __init__(
        self, path: Path | None = None, *, topics: dict[str, str] = TOPICS, terms: Terms = TERMS, patience: float = 0.5
    ) -> None:
        self.now = float(START)
        self.recorder = Recorder()
        self.health = Health(["primary", "database"])
        incidents = SharedIncidents(HostFile(path, joined, patience=patience), terms, lambda: self.now)
        sender = partial(sender_here, "production", "LangPont", "docs/operations.md")
        self.alerts = Alerts(
            Lookout(Conditions(self.health, self.recorder, time.monotonic), incidents, self.recorder),
            Outgoing(incidents, Topics(topics), sender, self.recorder),
            tick=0.02,
        )

    def round(self) -> None:
        """What the threads do."""
        self.alerts.lookout.look()
        self.alerts.outgoing.send()

    def lose_data(self) -> None:
        """An event, told at once, without starting a thread."""
        self.alerts.lookout.conditions.happened(LOST)
        self.round()


# -- topics ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configured", "routes"),
    [
        ("info warning critical emergency", "info warning critical emergency"),
        ("warning emergency", "warning warning emergency emergency"),
        ("critical", "critical critical critical critical"),
        ("info", "info info info info"),
        ("info critical", "info critical critical critical"),
    ],
)
def test_a_severity_without_a_topic_goes_to_the_next_worse(configured: str, routes: str) -> None:
    """And if there is none, to the worst there is: nothing is dropped for want of a topic."""
    topics = Topics({severity: TOPICS[severity] for severity in configured.split()})
    assert [topics.of(severity) for severity in Severity] == [TOPICS[severity] for severity in routes.split()]


def test_a_topic_is_shown_without_its_account() -> None:
    """Account numbers do not belong in a log."""
    assert short_name(TOPICS["info"]) == "langpont-info-alerts (ap-northeast-1)"


# -- endpoints ---------------------------------------------------------------------------------------------------------


def test_a_message_arrives_as_it_was_composed(endpoint: Endpoint) -> None:
    """On the topic of its severity, with attributes that subscriptions can filter by."""
    worker = Worker()
    worker.lose_data()
    [message] = endpoint.sent
    assert message.topic == "langpont-emergency-alerts"
    assert message.subject == "[EMERGENCY] Redis lost session data (LangPont production)"
    assert message.body["pid"] == os.getpid()
    assert message.attributes == {
        "severity": "emergency",
        "state": "firing",
        "environment": "production",
        "service": "LangPont",
        "alert": "data-lost",
        "dedup_key": "production/LangPont/data-lost",
    }
    assert worker.recorder.counters() == {"alerts_sent": 1}
    worker.round()
    assert endpoint.requests == 1


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        ("500", "AWS does not answer as it should (ResponseParserError)"),
        ("Throttling", "AWS refuses (Throttling)"),
        ("hang", "AWS does not answer as it should (ReadTimeoutError)"),
    ],
)
def test_a_message_that_failed_is_tried_again(
    endpoint: Endpoint, behaviour: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After pauses, none of boto3's own; each failure is counted, and said when it begins."""
    worker, endpoint.behaviour = Worker(), behaviour
    began = time.monotonic()
    worker.lose_data()
    assert time.monotonic() - began < 30
    worker.round()
    assert endpoint.requests == 1
    worker.now += 31
    worker.round()
    worker.round()
    assert endpoint.requests == 2
    assert worker.recorder.counters() == {"alerts_failed": 2}
    endpoint.behaviour = "ok"
    worker.now += 61
    worker.round()
    assert endpoint.told() == [FIRING]
    assert worker.recorder.counters() == {"alerts_failed": 2, "alerts_sent": 1}
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("flask_langpont_session")]
    assert messages == [
        f"SNS does not accept alerts: {problem}. Check LANGPONT_SESSION_ALERT_TOPICS and the network.",
        "alert data-lost (emergency): firing could not be sent; it is tried again",
        "SNS accepts alerts again",
    ]
    assert "arn:" not in caplog.text


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("AuthorizationError", "the role of this host is not allowed to publish there (AuthorizationError)"),
        ("NotFound", "there is none of this name in this account and region (NotFound)"),
        ("KMSAccessDenied", "the role of this host is not allowed to use its KMS key (KMSAccessDenied)"),
    ],
)
def test_what_sns_refuses_is_said_in_words(code: str, problem: str) -> None:
    """Without AWS' own text, which names roles and accounts."""
    error = ClientError({"Error": {"Code": code, "Message": "arn:aws:iam::1:user/x"}}, "Publish")
    assert client.explain(error) == problem


def test_of_what_is_over_when_sns_is_back_only_the_end_is_told(endpoint: Endpoint) -> None:
    """It calls off an alarm that may have arrived without an answer, and says that there was one."""
    worker, endpoint.behaviour = Worker(), "500"
    worker.lose_data()
    worker.now += 31
    worker.round()
    endpoint.behaviour = "ok"
    worker.now += 300
    worker.round()
    assert endpoint.told() == ["resolved data-lost"]


def test_a_recovery_that_is_given_up_is_said_to_be_lost(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    """After a day of trying; the log is the last place that can say so."""
    worker = Worker(terms=Terms(keep=100))
    worker.lose_data()
    endpoint.behaviour = "500"
    for _ in range(3):
        worker.now += 301
        worker.round()
    assert "alert data-lost (emergency): resolved could not be sent, and is given up" in caplog.text
    before = endpoint.requests
    worker.now += 1000
    worker.round()
    assert endpoint.requests == before


def test_the_second_try_is_the_message_of_the_first(endpoint: Endpoint) -> None:
    """It says when the incident began, not when it got through."""
    worker, endpoint.behaviour = Worker(), "Throttling"
    worker.lose_data()
    endpoint.behaviour = "ok"
    worker.now += 31
    worker.round()
    [message] = endpoint.sent
    assert message.body["at"] == "2026-09-21T14:13:20+00:00"


def test_nothing_listens(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection is a failure as any other."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        Worker().lose_data()
    assert "SNS does not accept alerts: AWS does not answer as it should (EndpointConnectionError)" in caplog.text


def test_there_are_no_credentials(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is asked for at start, so nothing fails there."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    Worker().lose_data()
    assert "SNS does not accept alerts: there are no AWS credentials" in caplog.text
    assert endpoint.requests == 0


# -- the thread --------------------------------------------------------------------------------------------------------


def test_an_event_only_leaves_a_note(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A request that sends a signal neither touches the host's file nor waits for AWS: another thread does."""
    threads: set[str] = set()

    def watch(owner: type, name: str) -> None:
        call = getattr(owner, name)

        def watched(*arguments: Any) -> Any:
            threads.add(threading.current_thread().name)
            return call(*arguments)

        monkeypatch.setattr(owner, name, watched)

    watch(HostFile, "update")
    watch(Topics, "publish")
    worker = Worker(tmp_path / "alerts")
    for _ in range(1000):
        worker.alerts.happened(None, event=LOST)
    wait_for(lambda: endpoint.told() == [FIRING], endpoint.told)
    worker.alerts.stop()
    assert threads == {"langpont-session-alerts", "langpont-session-alerts-sender"}


def test_the_thread_outlives_what_it_does_not_know(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else an active alert would never be resolved."""
    worker = Worker()
    look = Conditions.look

    def surprise(_: Conditions) -> Any:
        monkeypatch.setattr(Conditions, "look", look)
        raise ZeroDivisionError

    monkeypatch.setattr(Conditions, "look", surprise)
    worker.alerts.happened(None, event=LOST)
    wait_for(lambda: endpoint.told() == [FIRING], endpoint.told)
    worker.alerts.stop()
    assert "ZeroDivisionError" in caplog.text


def test_a_healthy_host_writes_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    """There is not even a file, and no client of AWS."""
    worker = Worker(tmp_path / "alerts")
    for _ in range(3):
        worker.round()
    assert list(tmp_path.iterdir()) == []


def test_another_release_may_have_written_the_file(
    endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is begun anew, also where no alert is active, and that is said once; what is active is seen again."""
    HostFile(tmp_path / "alerts").update(lambda _: (b'{"incidents": 7}', None))
    worker, other = Worker(tmp_path / "alerts"), Worker(tmp_path / "alerts")
    other.alerts.outgoing.send()
    for _ in range(3):
        worker.round()
        other.round()
    assert caplog.text.count("cannot be read; the file is begun anew") == 1
    worker.lose_data()
    assert endpoint.told() == [FIRING]
    assert caplog.text.count("cannot be read; the file is begun anew") == 1


def test_an_alert_that_this_release_does_not_know_is_left_alone(endpoint: Endpoint, tmp_path: Path) -> None:
    """A newer worker of a rolling deployment wrote it; that one tells it. After a day none will."""
    later = b'{"incidents":{"to-come":{"since":1,"seen":1}},"queue":[{"serial":1,"key":"to-come/x","state":"firing",'
    later += b'"since":1,"at":1,"seen":1,"suppressed":0,"firings":1}],"serial":1}'
    file = HostFile(tmp_path / "alerts")
    file.update(lambda _: (later, None))
    worker = Worker(tmp_path / "alerts")
    worker.now = 80_000.0
    worker.lose_data()
    assert endpoint.told() == [FIRING]
    assert b"to-come/x" in file.read()
    worker.now = 90_000.0
    worker.round()
    assert b"to-come" not in file.read()


def test_a_message_that_cannot_be_sent_does_not_come_back_at_once(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error counts as a failed attempt."""

    def surprise(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Topics, "publish", surprise)
    worker = Worker()
    worker.lose_data()
    for _ in range(4):
        worker.now += 61
        worker.round()
    assert worker.recorder.counters() == {"alerts_failed": 4}
    assert caplog.text.count("sending an alert failed with an unexpected error") == 4


def test_what_a_process_could_not_send_is_sent_by_another(endpoint: Endpoint, tmp_path: Path) -> None:
    """It was killed while it waited for SNS: the message is in the host's file."""
    endpoint.behaviour = "hang"
    first = Worker(tmp_path / "alerts")
    first.alerts.lookout.conditions.happened(LOST)
    sending = threading.Thread(target=first.round)
    sending.start()
    wait_for(lambda: endpoint.requests == 1, lambda: endpoint.requests)
    second = Worker(tmp_path / "alerts")
    endpoint.behaviour = "ok"
    second.round()
    assert endpoint.told() == []
    second.now += 61
    second.round()
    assert endpoint.told() == [FIRING]
    sending.join()


# -- looking -----------------------------------------------------------------------------------------------------------


def test_a_worker_that_sends_goes_on_seeing(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A resolver hangs for minutes in the one worker that sees it: the others do not think that it is over."""
    resolved, stop = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        resolved.set()
        stop.wait(30)
        raise NotSent("an unknown reason")

    monkeypatch.setattr(Topics, "publish", hang)
    sees, other, file = Worker(tmp_path / "alerts"), Worker(tmp_path / "alerts"), HostFile(tmp_path / "alerts")

    def noted(what: bytes) -> bool:
        return what in file.read()

    sees.alerts.happened(None, event=LOST)
    assert resolved.wait(20)
    for step in (200, 400, 600):
        sees.now = other.now = START + step
        sees.alerts.happened(None, event=LOST)
        wait_for(partial(noted, b'"seen":%d' % sees.now), file.read)
        other.alerts.lookout.look()
        assert b"resolved" not in file.read()
    stop.set()
    sees.alerts.stop()


def test_a_lock_that_is_held_for_a_while_makes_no_messages_more(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worker that was stopped, a disk that stalls: what happened is noted afterwards, and told once per host."""
    workers = [Worker(tmp_path / "alerts", patience=0.01) for _ in range(4)]
    HostFile(tmp_path / "alerts").update(lambda _: (b"", None))
    with (tmp_path / "alerts").open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        for worker in workers:
            worker.lose_data()
        for worker in workers:
            worker.round()
        assert endpoint.requests == 0
    for worker in workers:
        worker.round()
    assert endpoint.told() == [FIRING]


def test_a_lock_that_is_held_after_sending_does_not_send_it_twice(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That it was sent is noted when the file is free."""
    worker, publish = Worker(tmp_path / "alerts", patience=0.01), Topics.publish
    with contextlib.ExitStack() as held:

        def publish_and_hold(*arguments: Any) -> None:
            publish(*arguments)
            fcntl.flock(held.enter_context((tmp_path / "alerts").open("rb")), fcntl.LOCK_EX)

        monkeypatch.setattr(Topics, "publish", publish_and_hold)
        worker.lose_data()
        worker.round()
        assert worker.recorder.counters() == {}
    worker.round()
    worker.now += 61
    worker.round()
    assert endpoint.told() == [FIRING]
    assert worker.recorder.counters() == {"alerts_sent": 1}


def test_what_was_told_alone_is_called_off_together(endpoint: Endpoint, tmp_path: Path) -> None:
    """The folder of the file comes back in the middle of an incident."""
    folder = tmp_path / "folder"
    worker, other = Worker(folder / "alerts"), Worker(folder / "alerts")
    worker.lose_data()
    assert endpoint.told() == [FIRING]
    folder.mkdir()
    worker.round()
    other.now = worker.now = worker.now + 301
    other.alerts.lookout.watching_since -= 1000
    other.round()
    assert endpoint.told() == [FIRING, "resolved data-lost"]


def test_a_worker_that_went_on_alone_comes_back_though_nothing_happens(endpoint: Endpoint, tmp_path: Path) -> None:
    """It sees nothing any more; what the others left behind is for it to call off."""
    folder = tmp_path / "folder"
    alone, dead = Worker(folder / "alerts"), Worker(folder / "alerts")
    alone.lose_data()
    alone.now += 301
    alone.round()
    assert endpoint.told() == [FIRING, "resolved data-lost"]
    folder.mkdir()
    dead.lose_data()
    alone.round()
    alone.now += 301
    alone.round()
    assert endpoint.told() == [FIRING, "resolved data-lost"] * 2


def test_a_clock_that_is_set_back_keeps_nothing_burning(endpoint: Endpoint) -> None:
    """Neither the incident's nor the worker's own time may be of the future."""
    worker = Worker()
    worker.now += 1000
    worker.lose_data()
    worker.now -= 7200
    worker.round()
    worker.now += 299
    worker.round()
    assert endpoint.told() == [FIRING]
    worker.now += 2
    worker.round()
    assert endpoint.told() == [FIRING, "resolved data-lost"]
