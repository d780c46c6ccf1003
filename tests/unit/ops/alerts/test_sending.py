"""Sending: SNS endpoints that fail in every way, the end of the process, several workers, several hosts."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devservers.processes import LONG
from flask_langpont_session import events
from flask_langpont_session.aws import client
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.ops.alerts.alerts import TERMS, Alerts
from flask_langpont_session.ops.alerts.conditions import Conditions
from flask_langpont_session.ops.alerts.incidents import HostIncidents, Terms
from flask_langpont_session.ops.alerts.messages import Sender
from flask_langpont_session.ops.alerts.table import Severity
from flask_langpont_session.ops.alerts.topics import Topics, short_name
from flask_langpont_session.policy.health import Health
from flask_langpont_session.support.host import HostWork
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
    monkeypatch.setattr(client, "READ_TIMEOUT", 20)  # what is given up, but was taken, is sent again
    server.reset()
    return server


class Worker:
    """Alerts whose clock stands still unless it is moved."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        topics: dict[str, str] = TOPICS,
        terms: Terms = TERMS,
        host: str = "web-1",
    ) -> None:
        self.now = float(START)
        self.recorder = Recorder()
        self.work = HostWork(folder, "alerts", 30)
        self.alerts = Alerts(
            Conditions(Health(["primary", "database"])),
            HostIncidents(self.work, terms, lambda: self.now),
            Topics(topics),
            lambda: Sender("production", "LangPont", host, os.getpid()),
            self.recorder,
            tick=0.02,
        )

    def round(self) -> None:
        """Do one round of the thread's work."""
        self.alerts.look()
        self.alerts.send()

    def wait(self, seconds: float) -> None:
        """Let so much time pass, with a round every ten seconds."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 10, end)
            self.round()

    def lose_data(self) -> None:
        """An event, told at once, without starting a thread."""
        self.alerts.conditions.happened(LOST)
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
    """If no worse severity has a topic, the message goes to the worst there is: nothing is dropped for want of a
    topic."""
    topics = Topics({severity: TOPICS[severity] for severity in configured.split()})
    assert [topics.of(severity) for severity in Severity] == [TOPICS[severity] for severity in routes.split()]


def test_what_is_for_information_is_sent_to_a_topic_of_its_own_or_not_at_all(endpoint: Endpoint) -> None:
    """It is no incident then, and holds nothing back."""
    changed = events.ServerChanged("primary")
    for topics, told in (({"critical": TOPICS["critical"]}, []), (TOPICS, ["firing server-changed/primary"])):
        worker = Worker(topics=topics)
        worker.alerts.conditions.happened(changed)
        worker.round()
        assert endpoint.told() == told


def test_a_topic_is_shown_without_its_account() -> None:
    """Account numbers do not belong in a log."""
    assert short_name(TOPICS["info"]) == "langpont-info-alerts (ap-northeast-1)"


# -- endpoints ---------------------------------------------------------------------------------------------------------


def test_a_message_arrives_as_it_was_composed(endpoint: Endpoint) -> None:
    """The message is on the topic of its severity, with attributes that subscriptions can filter by."""
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
        "dedup_key": "production/LangPont/data-lost/web-1",
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
    endpoint: Endpoint,
    behaviour: str,
    problem: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message is tried again after pauses, none of boto3's own; each failure is counted, and said when it
    begins."""
    worker, endpoint.behaviour = Worker(), behaviour
    if behaviour == "hang":
        monkeypatch.setattr(client, "READ_TIMEOUT", 0.2)
    worker.lose_data()
    worker.round()
    assert endpoint.requests == 1
    worker.now += 31
    worker.round()
    worker.round()
    assert endpoint.requests == 2
    assert worker.recorder.counters() == {"alerts_failed": 2}
    endpoint.behaviour = "ok"
    monkeypatch.setattr(client, "READ_TIMEOUT", 20)
    worker.now += 61
    worker.round()
    assert endpoint.told() == [FIRING]
    assert worker.recorder.counters() == {"alerts_failed": 2, "alerts_sent": 1}
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("flask_langpont_session")]
    assert messages == [
        f"SNS does not accept alerts: {problem}. Check LANGPONT_SESSION_ALERT_TOPICS and the network. "
        "Alert data-lost (emergency): firing is the first that waits.",
        "SNS accepts alerts again",
    ]
    assert "arn:" not in caplog.text


def test_of_what_is_over_when_sns_is_back_only_the_end_is_told(endpoint: Endpoint) -> None:
    """It calls off an alarm that may have arrived without an answer, and says that there was one."""
    worker, endpoint.behaviour = Worker(), "500"
    worker.lose_data()
    worker.wait(290)
    endpoint.behaviour = "ok"
    worker.wait(LONG)
    assert endpoint.told() == ["resolved data-lost"]


def test_the_second_try_is_the_message_of_the_first(endpoint: Endpoint) -> None:
    """It says when the incident began, not when it got through."""
    worker, endpoint.behaviour = Worker(), "Throttling"
    worker.lose_data()
    endpoint.behaviour = "ok"
    worker.now += 31
    worker.round()
    [message] = endpoint.sent
    assert message.body["at"] == "2026-09-21T14:13:20+00:00"


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
    """A request that sends a signal neither touches the host's files nor waits for AWS: another thread does."""
    threads: set[str] = set()

    def watch(owner: type, name: str) -> None:
        call = getattr(owner, name)

        def watched(*arguments: Any) -> Any:
            threads.add(threading.current_thread().name)
            return call(*arguments)

        monkeypatch.setattr(owner, name, watched)

    watch(HostWork, "lead")
    watch(HostWork, "keep")
    watch(Topics, "publish")
    worker = Worker(tmp_path / "alerts")
    for _ in range(1000):
        worker.alerts.happened(None, event=LOST)
    wait_for(lambda: endpoint.told() == [FIRING], endpoint.told)
    worker.alerts.stop()
    assert threads == {"langpont-session-alerts"}


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


def test_a_healthy_host_keeps_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    """There is not even a client of AWS."""
    workers = [Worker(tmp_path / "alerts") for _ in range(2)]
    for _ in range(3):
        for worker in workers:
            worker.round()
    assert [path.name for path in (tmp_path / "alerts").iterdir()] == ["lock"]


def keep(folder: Path, state: bytes) -> None:
    """Write the state of an earlier worker to the host's file."""
    before = HostWork(folder, "alerts", 30)
    assert before.lead()
    before.keep(state)
    before.resign()


def test_another_release_may_have_kept_the_incidents(
    endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are begun anew, and that is said once; what is active is seen again."""
    keep(tmp_path / "alerts", b'{"incidents": 7}')
    worker = Worker(tmp_path / "alerts")
    for _ in range(3):
        worker.round()
    worker.lose_data()
    assert endpoint.told() == [FIRING]
    assert caplog.text.count("cannot be read, and are begun anew") == 1


def test_an_alert_that_this_release_does_not_know_is_left_out(endpoint: Endpoint, tmp_path: Path) -> None:
    """A newer worker of a rolling deployment kept it; its workers see it again when one of them leads."""
    keep(tmp_path / "alerts", b'{"incidents":{"to-come/x":{"since":1,"seen":1,"told_at":1,"waiting":"firing"}}}')
    worker = Worker(tmp_path / "alerts")
    worker.lose_data()
    assert endpoint.told() == [FIRING]
    assert b"to-come" not in worker.work.kept()


def test_a_surprise_while_sending_does_not_come_back_at_once(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt is counted before it is made; the thread logs the surprise and goes on."""
    worker = Worker()
    with monkeypatch.context() as patch:
        patch.setattr(Topics, "publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            worker.lose_data()
        worker.round()
    worker.now += 31
    worker.round()
    assert endpoint.told() == [FIRING]


def test_one_message_that_is_not_taken_ends_a_round(endpoint: Endpoint) -> None:
    """Each may take seconds; the worker looks in between, for itself and the others."""
    worker, endpoint.behaviour = Worker(), "500"
    for store in ("primary", "replica"):
        worker.alerts.conditions.happened(events.ServerChanged(store))
    worker.round()
    assert endpoint.requests == 1
    worker.round()
    assert endpoint.requests == 2
    endpoint.behaviour = "ok"
    worker.now += 31
    worker.round()
    assert endpoint.told() == ["firing server-changed/primary", "firing server-changed/replica"]


# -- workers of a host -------------------------------------------------------------------------------------------------


def test_one_worker_tells_what_any_of_them_sees(endpoint: Endpoint, tmp_path: Path) -> None:
    first, second = Worker(tmp_path / "alerts"), Worker(tmp_path / "alerts")
    first.round()
    second.lose_data()
    assert endpoint.requests == 0
    first.round()
    assert endpoint.told() == [FIRING]
    first.now = second.now = START + 301
    second.round()
    first.round()
    assert endpoint.told() == [FIRING, "resolved data-lost"]


def test_what_a_process_could_not_send_is_sent_by_another(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed while it waited for SNS: the message is in what it has kept."""
    endpoint.behaviour = "hang"
    first = Worker(tmp_path / "alerts")
    first.alerts.conditions.happened(LOST)
    with monkeypatch.context() as patch:
        patch.setattr(client, "READ_TIMEOUT", 1)
        sending = threading.Thread(target=first.round)
        sending.start()
        wait_for(lambda: endpoint.requests == 1, lambda: endpoint.requests)
    first.work.resign()
    second = Worker(tmp_path / "alerts")
    endpoint.behaviour = "ok"
    second.round()
    assert endpoint.told() == [FIRING]
    sending.join()


def test_an_incident_is_called_off_by_the_worker_that_follows(endpoint: Endpoint, tmp_path: Path) -> None:
    """The worker that follows calls the incident off, not before it has looked for long enough itself."""
    first = Worker(tmp_path / "alerts")
    second = Worker(tmp_path / "alerts")
    first.lose_data()
    second.round()
    first.work.resign()
    second.now += 301
    second.round()
    assert endpoint.told() == [FIRING]
    second.now += 301
    second.round()
    assert endpoint.told() == [FIRING, "resolved data-lost"]


def test_what_was_told_alone_is_called_off_together(endpoint: Endpoint, tmp_path: Path) -> None:
    """The folder comes back in the middle of an incident, when another worker is there already."""
    place = tmp_path / "alerts"
    place.touch()
    worker = Worker(place)
    other = Worker(place)
    worker.lose_data()
    assert endpoint.told() == [FIRING]
    place.unlink()
    other.round()
    worker.round()
    for later in (1, 301):
        other.now = worker.now = START + later
        other.round()
        worker.round()
    assert endpoint.told() == [FIRING, "resolved data-lost"]


def test_the_end_of_a_worker_hands_on_what_it_has_just_seen(endpoint: Endpoint, tmp_path: Path) -> None:
    """The worker's own last look is handed on, and the lock."""
    first, second = Worker(tmp_path / "alerts"), Worker(tmp_path / "alerts")
    first.round()
    second.round()
    second.alerts.happened(None, event=LOST)
    second.alerts.stop()
    first.round()
    assert endpoint.told() == [FIRING]
    first.alerts.ensure_started()
    first.alerts.stop()
    assert second.work.lead()


# -- hosts -------------------------------------------------------------------------------------------------------------


def test_each_host_tells_what_it_sees_and_calls_off_its_own(endpoint: Endpoint) -> None:
    """The key has the host: the first one that recovers resolves nothing of another one."""
    first, second = Worker(host="web-1"), Worker(host="web-2")
    first.lose_data()
    second.lose_data()
    first.wait(310)
    keys = [(message.attributes["state"], message.attributes["dedup_key"]) for message in endpoint.sent]
    one, other = (f"production/LangPont/data-lost/web-{number}" for number in (1, 2))
    assert keys == [("firing", one), ("firing", other), ("resolved", one)]
    threads = {json.loads(message.texts["https"])["metadata"]["threadId"] for message in endpoint.sent}
    assert threads == {"production/LangPont/data-lost"}
