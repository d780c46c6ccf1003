"""Losses: every cause is one of a closed set, counted, and sent as an event."""

from __future__ import annotations

from typing import Any

import pytest

from flask_langpont_session import events
from flask_langpont_session.metrics.losses import CAUSES, Cause, Loss, Losses
from flask_langpont_session.metrics.recorder import NotKept, Reader, Recorder
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.levels import LEVELS
from flask_langpont_session.stores.redis.records import Outcome


def test_a_loss_is_counted_in_all_and_by_cause_and_category_and_sent() -> None:
    """One event for each note; nothing is said of nothing."""
    recorder, sent = Recorder(), list[Any]()
    losses = Losses(recorder, lambda signal, event: sent.append((signal, event)))
    losses.note(Loss.WRITES_LOST, Cause.JOURNAL_FULL, "ui", 2)
    losses.note(Loss.WRITES_LOST, Cause.JOURNAL_FAILED, "ui")
    losses.note(Loss.WRITES_LOST, Cause.LOST_BY_REDIS, "ui", digest="d" * 43)
    losses.note(Loss.MERGE_CONFLICTS, Cause.WRITTEN_SINCE, "ui", 0)
    assert recorder.counters() == {"writes_lost": 4}
    assert recorder.losses() == {
        NotKept("writes_lost", "journal full", "ui"): 2,
        NotKept("writes_lost", "journal failed", "ui"): 1,
        NotKept("writes_lost", "lost by redis", "ui"): 1,
    }
    assert sent == [
        (events.writes_not_kept, events.WritesNotKept("writes_lost", "journal full", "ui", 2)),
        (events.writes_not_kept, events.WritesNotKept("writes_lost", "journal failed", "ui", 1)),
        (events.writes_not_kept, events.WritesNotKept("writes_lost", "lost by redis", "ui", 1, "dddddddd")),
    ]


def test_a_reader_gets_the_losses_that_are_new() -> None:
    """Each once, and only those of its interval."""
    recorder = Recorder()
    reader = Reader(recorder, lambda: 0)
    recorder.count_loss(Loss.MERGE_DROPPED, Cause.TOO_OLD, "ui", 2)
    assert reader.take().losses == {NotKept("merge_dropped", "too old", "ui"): 2}
    recorder.count_loss(Loss.MERGE_DROPPED, Cause.TOO_OLD, "ui")
    assert reader.take().losses == {NotKept("merge_dropped", "too old", "ui"): 1}
    assert reader.take().losses == {}


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (StoreError("journal", ErrorClass.WRITE_REFUSED, "SQLITE_FULL"), Cause.JOURNAL_FULL),
        (StoreError("journal", ErrorClass.LOCAL, "more than 100000 entries"), Cause.JOURNAL_FULL),
        (StoreError("journal", ErrorClass.UNREACHABLE, "SQLITE_BUSY"), Cause.JOURNAL_FAILED),
        (StoreError("journal", ErrorClass.UNREACHABLE, "SQLITE_NOTADB"), Cause.JOURNAL_FAILED),
        (StoreError("journal", ErrorClass.DATA, "not an integer"), Cause.NO_NUMBER),
    ],
)
def test_an_error_of_the_journal_is_one_of_the_causes(error: StoreError, cause: Cause) -> None:
    """The cause is one of the set whatever SQLite or the system calls the error: names of errors are no closed set."""
    assert Cause.of(error) is cause
    assert cause in CAUSES[Loss.WRITES_LOST]


def test_every_loss_has_causes_and_every_cause_a_loss() -> None:
    """All outcomes of a merge and all levels of an outage are causes of some loss."""
    assert set(CAUSES) == set(Loss)
    assert {cause for causes in CAUSES.values() for cause in causes} == set(Cause)
    outcomes = {Cause[outcome.name] for outcome in Outcome if outcome.name not in ("APPLIED", "CONFLICT")}
    assert outcomes <= set(CAUSES[Loss.MERGE_DROPPED])
    assert CAUSES[Loss.REQUEST_ONLY_WRITES] == tuple(Cause.at_level(level) for level in LEVELS if level)
