"""What is said of a journal that refuses."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, cast

import pytest
from blinker import Signal

from flask_langpont_session import events
from flask_langpont_session.metrics import Recorder
from flask_langpont_session.outbox import Outbox
from flask_langpont_session.stores.base import CategoryCopy, SharedCopy
from flask_langpont_session.stores.journal import Journal

FULL = events.JournalFailed("more than 0 entries")


class Refusing:
    """An outbox over a journal that has no room for a copy, and what it says."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.recorder = Recorder()
        self.sent: list[tuple[Signal, object]] = []
        self.outbox = Outbox(
            Journal(None, max_entries=0),
            cast(Any, None),  # asked for written changes only
            self.recorder,
            lambda signal, event: self.sent.append((signal, event)),
            clock=lambda: self.now,
        )

    def publish(self, version: int = 1) -> None:
        self.outbox.publish([SharedCopy("d", "ui", CategoryCopy(version, {}))])


@pytest.fixture
def refusing() -> Refusing:
    return Refusing()


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_every_failure_is_sent_and_counted(refusing: Refusing) -> None:
    """However often the journal refuses, no call fails, and each time is an event and a count."""
    for _ in range(3):
        refusing.publish()
    assert refusing.sent == [(events.journal_failed, FULL)] * 3
    assert refusing.recorder.counters() == {"journal_errors": 3}


def test_the_log_says_it_once_a_minute(refusing: Refusing, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is logged at once, and again only after a minute: an outage does not flood the log."""
    said = []
    for moment in (0, 1, 59.9, 60, 61, 120):
        refusing.now = 1_000.0 + moment
        refusing.publish()
        said.append(len(lines(caplog, logging.CRITICAL)))
    assert said == [1, 1, 1, 2, 2, 3]
    assert all("LANGPONT_SESSION_JOURNAL" in line for line in lines(caplog, logging.CRITICAL))


def test_one_sessions_value_is_no_alarm(refusing: Refusing, caplog: pytest.LogCaptureFixture) -> None:
    """I11: what only the data of one session is to blame for concerns no operator's disk."""
    refusing.publish(version=2**63)
    assert refusing.sent == []
    assert refusing.recorder.counters() == {"journal_rejected": 1}
    assert lines(caplog, logging.CRITICAL) == []
    assert len(lines(caplog, logging.WARNING)) == 1


def test_when_a_row_was_changed_is_known_to_all_or_nobody_is_believed(tmp_path: Path) -> None:
    """Sibling workers say when; a moment from before the machine's start says nothing; no journal: believe nobody."""
    now = 1_000.0
    journals = [Journal(tmp_path / "journal"), Journal(tmp_path / "journal"), Journal(tmp_path)]
    here, there, broken = (Outbox(each, cast(Any, None), Recorder(), clock=lambda: now) for each in journals)
    assert there.row_changed_at("d") < now
    here.row_changed("d")
    assert there.row_changed_at("d") == now
    assert there.row_changed_at("other") < now
    journals[0].row_changed("d", now + 1)
    assert there.row_changed_at("d") == -math.inf
    broken.row_changed("d")
    assert broken.row_changed_at("d") == math.inf
    for journal in journals:
        journal.close()
