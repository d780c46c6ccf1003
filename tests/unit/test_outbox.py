"""What is said of a journal that refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from blinker import Signal

from flask_langpont_session import events
from flask_langpont_session.metrics import Recorder
from flask_langpont_session.outbox import Outbox
from flask_langpont_session.stores.base import AuthRow, CategoryCopy, SharedCopy
from flask_langpont_session.stores.journal import Journal
from flask_langpont_session.stores.journal_limits import JournalLimits
from flask_langpont_session.stores.local import LocalAuth

NOW = 1_000.0
ROW = AuthRow("d", "7", 1, True, {}, 0, 1, 2, 3, 1)
FULL = events.JournalFailed("JOURNAL_MAX_ENTRIES is reached")


class Refusing:
    """An outbox over a journal that has no room for a copy, and what it says."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.recorder = Recorder()
        self.sent: list[tuple[Signal, object]] = []
        self.outbox = Outbox(
            Journal(None, limits=JournalLimits(entries=0)),
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


def outboxes(folder: Path, now: float) -> Iterator[tuple[Outbox, Outbox, Outbox]]:
    """Two workers of a host, and one whose journal cannot be used."""
    journals = [Journal(folder / "journal"), Journal(folder / "journal"), Journal(folder)]
    one, other, broken = (Outbox(each, cast(Any, None), Recorder(), clock=lambda: now) for each in journals)
    yield one, other, broken
    for journal in journals:
        journal.close()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Outbox, Outbox, Outbox]]:
    yield from outboxes(tmp_path, NOW)


def test_a_copy_from_before_a_change_is_out_of_date_to_all(hosts: tuple[Outbox, Outbox, Outbox]) -> None:
    """Sibling workers say when; a moment from before the machine's start says nothing; no journal: believe nobody."""
    here, there, broken = hosts
    before, after = LocalAuth(ROW, NOW - 1), LocalAuth(ROW, NOW)
    assert there.is_up_to_date(before)
    here.row_changed("d")
    assert not there.is_up_to_date(before) and not here.is_up_to_date(before)
    assert there.is_up_to_date(after)
    assert there.is_up_to_date(replace(before, row=replace(ROW, digest="other")))
    here._journal.row_changed("d", NOW + 1)
    assert there.is_up_to_date(before)
    broken.row_changed("d")
    assert not broken.is_up_to_date(after)


def test_what_a_worker_has_made_is_up_to_date_until_another_one_tries(hosts: tuple[Outbox, Outbox, Outbox]) -> None:
    """Its own change is no reason to ask; whoever changes the row next says so before, or after if it cannot fail."""
    one, other, broken = hosts
    for change in (other.row_changing, other.row_changed, one.row_changing, one.row_changed):
        number = one.row_changing("d")
        one.row_changed("d", number)
        made = LocalAuth(ROW, NOW - 1, number)
        assert one.is_up_to_date(made)
        assert not other.is_up_to_date(LocalAuth(ROW, NOW - 1))
        change("d")
        assert not one.is_up_to_date(made)
    assert broken.row_changing("d") is None


def test_of_two_changes_the_later_one_counts_whoever_notes_it_first(hosts: tuple[Outbox, Outbox, Outbox]) -> None:
    """Who comes second has read what the first has made; that the first is slow to say when does not matter."""
    one, other, _ = hosts
    first = one.row_changing("d")
    second = other.row_changing("d")
    other.row_changed("d", second)
    one.row_changed("d", first)
    assert not one.is_up_to_date(LocalAuth(ROW, NOW - 1, first))
    assert other.is_up_to_date(LocalAuth(ROW, NOW - 1, second))
