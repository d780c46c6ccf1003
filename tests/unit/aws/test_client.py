"""Calls to AWS end in time, however slowly it answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions as aws

from flask_langpont_session.aws import client, endpoints
from flask_langpont_session.aws.credentials import IamToken, SecretToken
from flask_langpont_session.ops.alerts.messages import Message
from flask_langpont_session.ops.alerts.topics import NotSent, Topics
from flask_langpont_session.ops.exporters import cloudwatch
from flask_langpont_session.stores.redis.url import GroupName
from tests.support.dripping import dripping

REGION = "ap-northeast-1"
TOPIC = f"arn:aws:sns:{REGION}:123456789012:alerts"

BODY = b"{}" + b" " * 100
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
SLOW = {"body": (HEAD, BODY), "headers": (HEAD[:17], HEAD[17:] + BODY)}


def describe() -> None:
    endpoints.describe(GroupName("sessions", REGION))


def describe_serverless() -> None:
    endpoints.describe(GroupName("sessions", REGION, serverless=True))


def read_secret() -> None:
    token = SecretToken("app/token", "X", REGION)
    token._ask()


def publish_alert() -> None:
    try:
        Topics({"info": TOPIC}).publish(TOPIC, Message("subject", "text", "{}", "{}", {}))
    except NotSent as error:
        assert error.__cause__ is not None
        raise error.__cause__ from None


def publish_metrics() -> None:
    connected = cloudwatch.connect()
    try:
        connected.put_metric_data(Namespace="X", MetricData=[{"MetricName": "x", "Value": 1}])
    finally:
        connected.close()


def take_role() -> None:
    IamToken("app", GroupName("sessions", REGION), "X")._ask()


CALLS: list[Callable[[], None]] = [
    describe,
    describe_serverless,
    read_secret,
    publish_alert,
    publish_metrics,
    take_role,
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys for all calls but the one that gets its keys from STS."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "token").write_text("a token of Kubernetes")
    given = {
        "AWS_DEFAULT_REGION": REGION, "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(client, "READ_TIMEOUT", 0.2)
    monkeypatch.setattr(cloudwatch, "_WAIT", 0.2)


@pytest.mark.parametrize("slow", SLOW)
@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_drips_is_given_up(
    call: Callable[[], None], slow: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each byte comes long before the time-out between two; the whole answer would take ten times as long as it may."""
    with dripping(*SLOW[slow]) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        if call is take_role:
            monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/app")
            monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        else:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        with pytest.raises(aws.ReadTimeoutError):
            call()


def test_an_answer_that_comes_in_time_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer may come in several pieces, and the next one has the same time."""
    monkeypatch.setattr(client, "READ_TIMEOUT", 20)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    answer = b'{"SecretString": "a-token-of-16-and-more"}'
    head = HEAD.replace(b"%d" % len(BODY), b"%d" % len(answer))
    with dripping(head + answer[:-9], answer[-9:]) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        found: list[Any] = []
        with client.aws_client("secretsmanager", REGION) as secrets:
            found += [secrets.get_secret_value(SecretId="x")["SecretString"] for _ in range(2)]
    assert found == ["a-token-of-16-and-more"] * 2
