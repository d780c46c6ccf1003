"""The demo's AWS: the application's metrics and alerts arrive at moto's server, and the page shows them."""

import json
import urllib.request
from collections.abc import Iterator, Mapping

import pytest

from devservers.aws import Aws
from devservers.processes import wait_until
from lab.servers import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(workers=1, aws=True) as running:
        yield running


def received(lab: Lab) -> Mapping[str, list[dict[str, str]]]:
    """Return what AWS has received, as the page shows it; asking makes traffic, too."""
    with urllib.request.urlopen(f"{lab.url}/lab/state", timeout=10) as answer:
        found: Mapping[str, list[dict[str, str]]] = json.load(answer)["aws"]
    return found


def test_metrics_and_alerts_arrive(lab: Lab) -> None:
    """Within seconds CloudWatch has numbers, and an outage is a message that is called off afterwards."""

    def metrics() -> dict[str, str]:
        return {metric["name"]: metric["value"] for metric in received(lab)["metrics"]}

    wait_until(lambda: {"ActiveSessions", "FallbackLevel", "Operations"} <= set(metrics()), "metrics", pause=0.3)
    assert metrics()["FallbackLevel"] == "0"
    lab.act("primary", "stop")
    told = {"severity": "critical", "state": "firing", "alert": "redis-connection-failed"}
    wait_until(lambda: told in received(lab)["messages"], "an alert", pause=0.3)
    lab.act("primary", "start")
    wait_until(lambda: int(metrics()["FallbackLevel"]) >= 1, "a level in CloudWatch", pause=0.3)


def test_prometheus_finds_its_page(lab: Lab) -> None:
    with urllib.request.urlopen(f"{lab.url}/metrics", timeout=10) as answer:
        assert b"langpont_session_active" in answer.read()


def test_no_process_reaches_a_real_account(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever credentials and profiles the machine has, the application gets none of them."""
    monkeypatch.setenv("AWS_PROFILE", "company")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "real")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", "https://sns.example.com")
    assert isinstance(lab.aws, Aws)
    given = {name: value for name, value in lab.environment({}).items() if name.startswith("AWS_")}
    assert given == lab.aws.environment()
    assert given["AWS_ENDPOINT_URL"] == lab.aws.url
