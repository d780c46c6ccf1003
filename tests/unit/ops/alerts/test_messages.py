"""Messages as they are sent: their shape, and that nothing secret or unprintable is in them."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_langpont_session.ops.alerts.incidents import AlertState, Incident, Notice
from flask_langpont_session.ops.alerts.messages import Message, Sender, compose, safe_text
from flask_langpont_session.ops.alerts.table import ALERTS, REDIS_CONNECTION_FAILED, Alert, Severity

INCIDENT = Incident(
    since=1_790_000_000.0,
    told_at=1_790_000_005.0,
    seen=1_790_000_065.25,
    details={"store": "primary", "cause": "does not answer", "cure": "look at its processor"},
)
NOTICE = Notice("redis-connection-failed", AlertState.FIRING, INCIDENT)
OVER = NOTICE._replace(state=AlertState.RESOLVED)
INCIDENT_KEY = "production/LangPont/redis-connection-failed"
SENDER = Sender("production", "LangPont", "web-1", 4711)


def parts(message: Message) -> tuple[str, dict[str, Any], dict[str, str]]:
    return message.subject, json.loads(message.body), dict(message.attributes)


def test_an_alarm_reads_like_this() -> None:
    """Subject for people, attributes for filters, a body for programs."""
    subject, body, attributes = parts(compose(NOTICE, SENDER))
    assert subject == "[CRITICAL] Redis connection failed: does not answer (LangPont production)"
    assert attributes == {
        "severity": "critical",
        "state": "firing",
        "environment": "production",
        "service": "LangPont",
        "alert": "redis-connection-failed",
        "dedup_key": f"{INCIDENT_KEY}/web-1",
    }
    assert body == {
        "schema_version": 2,
        "title": "Redis connection failed",
        **attributes,
        "since": "2026-09-21T14:13:20+00:00",
        "at": "2026-09-21T14:13:25+00:00",
        "host": "web-1",
        "pid": 4711,
        "details": {"store": "primary", "cause": "does not answer"},
        "what_users_see": REDIS_CONNECTION_FAILED.users_see,
        "what_to_do": "look at its processor",
        "runbook": "https://flask-langpont-session.readthedocs.io/en/latest/operations/#redis-connection-failed",
    }


def test_people_get_words() -> None:
    """The text is for e-mail, and for whatever SNS knows besides. What to do is what helps against the cause."""
    alert = REDIS_CONNECTION_FAILED
    texts = json.loads(compose(NOTICE, SENDER).by_protocol)
    unknown = msgspec.structs.replace(INCIDENT, details={"store": "primary"})
    general = json.loads(compose(NOTICE._replace(incident=unknown), SENDER).by_protocol)["default"]
    assert f"What to do: {alert.to_do}\n\nDetails: store primary\n" in general
    assert texts["default"] == (
        "Redis connection failed\n"
        "\n"
        "Critical since 2026-09-21 14:13:20 UTC (LangPont production, told by host web-1).\n"
        "\n"
        f"What users see: {alert.users_see}\n"
        "What to do: look at its processor\n"
        "\n"
        "Details: store primary, cause does not answer\n"
        "Runbook: https://flask-langpont-session.readthedocs.io/en/latest/operations/#redis-connection-failed\n"
        "Key: production/LangPont/redis-connection-failed/web-1\n"
    )
    assert "email" not in texts and texts["sqs"] == texts["lambda"] == texts["firehose"]
    over = json.loads(compose(OVER, SENDER).by_protocol)["default"]
    assert over.startswith(
        "Over: Redis connection failed\n\nIt lasted 0:01:05, from 2026-09-21 14:13:20 UTC on (LangPont production, "
    )
    assert "What to do" not in over
    tested = json.loads(compose(NOTICE._replace(key="test"), SENDER, test=True).by_protocol)["default"]
    assert "This is a test. Nothing has happened.\n" in tested
    short = Notice("data-lost", AlertState.RESOLVED, Incident(since=INCIDENT.since, seen=INCIDENT.since))
    once = "It was seen once, and not again in the 5 minutes after 2026-09-21 14:13:20 UTC (LangPont production, "
    assert once in json.loads(compose(short, SENDER).by_protocol)["default"]


def test_chat_channels_get_a_custom_notification() -> None:
    """The form is that of Amazon Q Developer in chat applications (AWS Chatbot); the end stands in the thread of the
    alarm, as do the messages of other hosts."""
    firing, resolved = (
        json.loads(json.loads(compose(notice, SENDER).by_protocol)["https"]) for notice in (NOTICE, OVER)
    )
    assert wrong_in(firing) == wrong_in(resolved) == []
    assert firing["content"]["title"] == "[CRITICAL] Redis connection failed: does not answer (LangPont production)"
    assert firing["content"]["nextSteps"][0] == "look at its processor"
    assert firing["metadata"]["threadId"] == resolved["metadata"]["threadId"] == INCIDENT_KEY
    assert (firing["metadata"]["eventType"], resolved["metadata"]["eventType"]) == ("firing", "resolved")
    assert firing["metadata"]["additionalContext"]["cause"] == "does not answer"


def wrong_in(notification: dict[str, Any]) -> list[str]:
    """Return the parts that Amazon's documentation of custom notifications does not know, and the missing ones."""
    texts = {
        "content": ("textType", "title", "description"),
        "metadata": ("threadId", "summary", "eventType"),
    }
    lists = {"content": ("nextSteps", "keywords"), "metadata": ("relatedResources",)}
    wrong = [f"unknown: {name}" for name in notification.keys() - {"version", "source", "id", "content", "metadata"}]
    if (notification["version"], notification["source"]) != ("1.0", "custom"):
        wrong.append("not version 1.0 of a custom one")
    if notification["content"]["textType"] != "client-markdown":
        wrong.append("textType")
    for part in ("content", "metadata"):
        known = {*texts[part], *lists[part], *(["additionalContext"] if part == "metadata" else [])}
        wrong += [f"unknown: {part}.{name}" for name in notification[part].keys() - known]
        wrong += [name for name in texts[part] if not isinstance(notification[part][name], str)]
        wrong += [name for name in lists[part] if not all(isinstance(one, str) for one in notification[part][name])]
    context = notification["metadata"]["additionalContext"]
    return wrong + [name for name, value in context.items() if not isinstance(value, str)]


def test_a_recovery_says_how_long_it_was() -> None:
    """It has the key and severity of its alarm, so that it reaches the same people."""
    subject, body, attributes = parts(compose(OVER, SENDER))
    assert subject == "[RESOLVED] Redis connection failed (LangPont production)"
    assert (attributes["state"], attributes["severity"]) == ("resolved", "critical")
    assert attributes["dedup_key"] == f"{INCIDENT_KEY}/web-1"
    assert body["duration_seconds"] == 65.2


def test_a_test_message_is_marked() -> None:
    """The mark is in the subject and in the body, and the message is an alert of its own."""
    subject, body, attributes = parts(
        compose(NOTICE._replace(key="test"), SENDER, test=True, severity=Severity.EMERGENCY)
    )
    assert subject.startswith("[TEST] [EMERGENCY] ")
    assert body["test"] is True
    assert (attributes["alert"], attributes["severity"]) == ("test", "emergency")


@pytest.mark.parametrize("name", [alert.name for alert in ALERTS])
def test_every_subject_fits(name: str) -> None:
    """Nothing of the title is cut off with the usual names."""
    [alert] = [alert for alert in ALERTS if alert.name == name]
    subject = compose(NOTICE._replace(key=name), SENDER, test=True).subject
    assert alert.title in subject
    assert subject.endswith("(LangPont production)")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rediss://app:hunter2@cache.example.com:6379/0", "rediss://***@cache.example.com:6379/0"),
        ("postgresql://u:p%40ss@db/app refused", "postgresql://***@db/app refused"),
        ("password=hunter2 host=db", "password=*** host=db"),
        ("AUTH_TOKEN: 'abc'", "AUTH_TOKEN: ***"),
        ("Authorization: Bearer", "Authorization: ***"),
        ("sid Zk3abcdefghijklmnopqrstuvwxyz0123456789-_AB gone", "sid *** gone"),
        ("master.group.abc123.apne1.cache.amazonaws.com:6379", "master.group.abc123.apne1.cache.amazonaws.com:6379"),
        ("two\r\nlines\x00\x1b[31m", "two\\u000d\\u000alines\\u0000\\u001b[31m"),
        ("接続失敗", "接続失敗"),
    ],
)
def test_texts_are_made_safe(text: str, shown: str) -> None:
    """No passwords, tokens, session ids or control characters; host names stay."""
    assert safe_text(text) == shown


TEXTS = st.text(st.characters(), max_size=400)
DETAILS = st.dictionaries(TEXTS, TEXTS | st.integers() | st.floats(), max_size=30)


@settings(max_examples=50)
@given(
    TEXTS.filter(bool),
    TEXTS.filter(bool),
    TEXTS,
    DETAILS,
    st.sampled_from(ALERTS),
    st.sampled_from(AlertState),
    st.booleans(),
)
def test_whatever_is_in_it_sns_takes_it(
    environment: str, service: str, host: str, details: dict[str, Any], alert: Alert, state: AlertState, test: bool
) -> None:
    """SNS' limits, and plain ASCII: moto and old e-mail programs would let more through."""
    sender = replace(SENDER, environment=environment, service=service, host=host)
    notice = Notice(alert.name, state, msgspec.structs.replace(INCIDENT, details=details))
    message = compose(notice, sender, test=test)
    assert re.fullmatch(r"[!-~][ -~]{0,98}", message.subject)
    assert re.fullmatch(r"[ -~\n]+", message.by_protocol)
    texts = json.loads(message.by_protocol, parse_constant=pytest.fail)
    assert not [one for one in texts["default"].replace("\n", "") if unicodedata.category(one) in ("Cc", "Cs")]
    size = len(message.by_protocol) + sum(len(name) + len(text.encode()) for name, text in message.attributes.items())
    assert size <= 256 * 1024
    for text in message.attributes.values():
        assert text
        assert text.isprintable() or not any(ord(character) < 32 or ord(character) == 127 for character in text)
    assert len(message.attributes["dedup_key"]) <= 255
    json.loads(message.body, parse_constant=pytest.fail)
    notification = json.loads(texts["https"], parse_constant=pytest.fail)
    assert wrong_in(notification) == []
