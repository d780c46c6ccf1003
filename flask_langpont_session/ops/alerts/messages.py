"""Alerts as messages for SNS: subject, body, attributes. Nothing secret or unprintable leaves the host, whatever the
details hold, and the key of an incident consists of names only."""

from __future__ import annotations

import json
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

from .incidents import CURE, AlertState, Notice, alert_of
from .table import CALM, Alert, Severity

SCHEMA_VERSION = 2

RUNBOOK = "https://flask-langpont-session.readthedocs.io/en/latest/operations/"
"""The site's page docs/operations.md, with a section for each alert."""

LONGEST_SUBJECT = 99
_LONGEST_TEXT = 300
_LONGEST_NAME = 80
_LONGEST_HOST = 48
_MOST_DETAILS = 20

_URL_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_NAMED_SECRET = re.compile(
    r"(?i)((?:password|passwd|pwd|secret|token|authorization|credential|cookie|session)[\w-]*[\"']?\s*[=:]\s*)\S+"
)
_LONG_TOKEN = re.compile(r"[A-Za-z0-9_+/=-]{32,}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of messages: the names of this process.

    :param environment: the setting ENVIRONMENT; `service`: SERVICE.
    """

    environment: str
    service: str
    host: str
    pid: int


def sender_here(environment: str, service: str) -> Sender:
    """Return this process as a sender; a forked child is another one."""
    return Sender(environment, service, socket.gethostname(), os.getpid())


@dataclass(frozen=True, slots=True)
class Message:
    """The parts of a message to SNS.

    :param text: for people: e-mail and all protocols not named below.
    :param body: for programs, as JSON: queues, functions, streams.
    :param notification: for subscribers by HTTP: a custom notification of Amazon Q Developer (AWS Chatbot), which shows
        it in chat channels.
    :param attributes: name → text, for filter policies of subscriptions.
    """

    subject: str
    text: str
    body: str
    notification: str
    attributes: Mapping[str, str]

    @property
    def by_protocol(self) -> str:
        """Return the JSON by which SNS sends a different text to each kind of subscriber."""
        texts = {"default": self.text}
        texts |= dict.fromkeys(("sqs", "lambda", "firehose"), self.body)
        texts |= dict.fromkeys(("http", "https"), self.notification)
        return json.dumps(texts)


def compose(notice: Notice, sender: Sender, *, test: bool = False, severity: Severity | None = None) -> Message:
    """Return a message for people (subject) and programs (body, attributes).

    :param test: the message is marked as a test, so that no operator gets up for it.
    :param severity: in place of the alert's own; for tests.
    """
    alert = alert_of(notice.key)
    severity = severity or alert.severity
    mark = "[TEST] " if test else ""
    word = "RESOLVED" if notice.state is AlertState.RESOLVED else severity.upper()
    cause = safe_text(notice.incident.details.get("cause", "")) if notice.state is AlertState.FIRING else ""
    title = f"{alert.title}: {cause}" if cause else alert.title
    subject = f"{mark}[{word}] {title} ({sender.service} {sender.environment})"
    attributes = {
        "severity": severity.value,
        "state": notice.state.value,
        "environment": _name(sender.environment),
        "service": _name(sender.service),
        "alert": alert.name,
        "dedup_key": dedup_key(notice.key, sender),
    }
    facts = {"schema_version": SCHEMA_VERSION, "title": alert.title, **attributes, **_facts(notice, alert, sender)}
    if test:
        facts["test"] = True
    # ASCII: no control character and no half of a character reaches a terminal or parser.
    return Message(
        _subject(subject),
        _text(facts, alert),
        json.dumps(facts, indent=1),
        json.dumps(_notification(subject, _incident(notice.key, sender), facts, alert)),
        attributes,
    )


def _text(facts: Mapping[str, Any], alert: Alert) -> str:
    """Return the message in words, for people."""
    lines = [alert.title if facts["state"] == AlertState.FIRING else f"Over: {alert.title}", "", *_sentences(facts), ""]
    if facts["state"] == AlertState.FIRING:
        lines += [f"What users see: {alert.users_see}", f"What to do: {facts['what_to_do']}", ""]
    details = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts["details"].items())
    lines += [f"Details: {details}"] if details else []
    lines += [f"Runbook: {facts['runbook']}", f"Key: {facts['dedup_key']}"]
    return "\n".join(lines) + "\n"


def _sentences(facts: Mapping[str, Any]) -> Iterator[str]:
    where = f"{facts['service']} {facts['environment']}, told by host {facts['host']}"
    if facts.get("test"):
        yield "This is a test. Nothing has happened."
    if facts["state"] == AlertState.FIRING:
        yield f"{facts['severity'].capitalize()} since {_for_people(facts['since'])} ({where})."
    elif seconds := round(facts["duration_seconds"]):
        yield f"It lasted {timedelta(seconds=seconds)}, from {_for_people(facts['since'])} on ({where})."
    else:
        again = f"in the {CALM / 60:g} minutes after {_for_people(facts['since'])}"
        yield f"It was seen once, and not again {again} ({where})."


def _for_people(moment: str) -> str:
    return moment.replace("T", " ").replace("+00:00", " UTC")


def _notification(subject: str, thread: str, facts: Mapping[str, Any], alert: Alert) -> dict[str, Any]:
    """Return a custom notification of Amazon Q Developer in chat applications, version 1.0, in one thread for an alert,
    its recovery and the messages of other hosts."""
    content: dict[str, Any] = {
        "textType": "client-markdown",
        "title": subject,
        "description": "\n".join([*_sentences(facts), f"Users: {alert.users_see}"]),
        "nextSteps": [facts["what_to_do"], f"Runbook: {facts['runbook']}"],
        "keywords": [facts["severity"], facts["environment"], facts["alert"]],
    }
    context = {name: facts[name] for name in ("state", "severity", "environment", "service", "alert", "since", "host")}
    context |= {name: str(value) for name, value in facts["details"].items()}
    metadata = {
        "threadId": thread,
        "summary": subject,
        "eventType": facts["state"],
        "relatedResources": [f"{facts['service']} {facts['environment']}"],
        "additionalContext": context,
    }
    return {"version": "1.0", "source": "custom", "content": content, "metadata": metadata}


def dedup_key(key: str, sender: Sender) -> str:
    """Return the key of an incident, the same for all its messages: ``environment/service/alert[/scope]/host``. Each
    host has incidents of its own, so that the first recovery does not end the incidents of other hosts."""
    return f"{_incident(key, sender)}/{_name(sender.host)[:_LONGEST_HOST]}"


def _incident(key: str, sender: Sender) -> str:
    """Return the key of an incident without the host: the same for all hosts."""
    return f"{_name(sender.environment)}/{_name(sender.service)}/{key}"


def _facts(notice: Notice, alert: Alert, sender: Sender) -> dict[str, Any]:
    incident, details = notice.incident, safe_details(notice.incident.details)
    facts: dict[str, Any] = {
        "since": _time(incident.since),
        "at": _time(incident.told_at or incident.since),
        "host": safe_text(sender.host),
        "pid": sender.pid,
        "what_to_do": details.pop(CURE, alert.to_do),
        "details": details,
        "what_users_see": alert.users_see,
        "runbook": f"{RUNBOOK}#{alert.name}",
    }
    if notice.state is AlertState.RESOLVED:
        facts["duration_seconds"] = round(incident.seen - incident.since, 1)
    return facts


def safe_details(details: Mapping[str, object]) -> dict[str, str | int | float]:
    """Return the names and values that may leave the host."""
    shown = list(details.items())[:_MOST_DETAILS]
    return {safe_text(name): value if _is_number(value) else safe_text(value) for name, value in shown}


def _is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a number that JSON knows."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def safe_text(value: object) -> str:
    """Return a text without secrets, control characters or great length."""
    text = str(value)[: 10 * _LONGEST_TEXT]
    text = _URL_CREDENTIALS.sub("***@", text)
    text = _NAMED_SECRET.sub(r"\1***", text)
    text = _LONG_TOKEN.sub("***", text)
    text = _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."


def _subject(text: str) -> str:
    """Return the subject: SNS takes fewer than 100 printable characters without line breaks; e-mail programs take
    ASCII."""
    printable = re.sub(r"[^\x20-\x7e]", "?", text)
    return printable if len(printable) <= LONGEST_SUBJECT else f"{printable[: LONGEST_SUBJECT - 3]}..."


def _name(text: str) -> str:
    """Return a configured name as an attribute: SNS refuses empty ones."""
    return _UNPRINTABLE.sub("?", text)[:_LONGEST_NAME].strip() or "?"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
