"""The numbers of entries that wait in the journal."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.host.journal import Carry, Journal, PendingWrite, Waiting, journal_at
from flask_langpont_session.stores.host.summary import KINDS
from tests.support.clock import Clock


@pytest.fixture(params=["file", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Any:
    journal = journal_at(tmp_path / "journal.sqlite" if request.param == "file" else None, clock=clock)
    yield journal
    journal.close()


def write(digest: str, field: str = "a", kind: str = "u", *, shadow: bool = False) -> PendingWrite:
    return PendingWrite(
        digest=digest, kind=kind, shadow=shadow, category="ui", operation=Operation.SET, field=field, value=b"1"
    )


def test_an_empty_journal_has_noughts(journal: Journal) -> None:
    """An empty journal counts nought of every kind, and has no oldest entry."""
    summary = journal.summary()
    assert summary.kinds == dict.fromkeys(KINDS, Waiting(0, None))
    assert (summary.signed_in, summary.visitors) == (0, 0)
    assert summary.bytes > 0
    assert journal.waiting() == Waiting(0, None)


def test_each_kind_has_its_number_and_its_oldest(journal: Journal, clock: Clock) -> None:
    """A field that is written again is as old as its last write; what bears no time has none."""
    journal.put([write("A"), write("B")])
    clock.now += 10
    journal.put([write("A"), write("A", "b"), write("C", kind="a")])
    journal.carry(Carry("X", "B", "u", ["ui"]))
    clock.now += 10
    journal.revocations.note("D", in_database=True)
    journal.revocations.note_user("7", until_ms=1_005_000)
    journal.queue_push("E")
    journal.board.publish_copies([SharedCopy("F", "ui", CategoryCopy(1, {}))])
    assert journal.summary().kinds == {
        "writes": Waiting(4, 1_000_000),
        "carries": Waiting(1, 1_010_000),
        "revocations": Waiting(1, 1_020_000),
        "user_revocations": Waiting(1, 1_005_000),
        "pushes": Waiting(1, None),
        "copies": Waiting(1, None),
    }
    assert journal.waiting() == Waiting(8, 1_000_000)
    journal.forget_writes(journal.pending_writes())
    assert journal.waiting() == Waiting(4, 1_005_000)


def test_a_session_is_counted_once_whatever_waits_for_it(journal: Journal) -> None:
    """A shadow is a visitor's; copies wait for nothing."""
    journal.put([write("A"), write("A", "b"), write("B", kind="a"), write("C", shadow=True)])
    journal.carry(Carry("A", "D", "u", ["ui"]))
    journal.queue_push("A")
    journal.revocations.note("E")
    journal.board.publish_copies([SharedCopy("F", "ui", CategoryCopy(1, {}))])
    assert (journal.summary().signed_in, journal.summary().visitors) == (3, 2)


@pytest.mark.parametrize(
    ("until_ms", "epoch", "found"),
    [(1_000, 0, Waiting(1, 1_000)), (999, 0, Waiting(0, None)), (0, 4, Waiting(1, None)), (0, 3, Waiting(0, None))],
    ids=["as old", "younger", "an earlier epoch", "the same epoch"],
)
def test_what_ends_all_sessions_of_a_user_is_found_for_each(
    journal: Journal, until_ms: int, epoch: int, found: Waiting
) -> None:
    """A user is logged out everywhere up to a time, or by an epoch that the database has raised."""
    journal.revocations.note_user("7", until_ms=until_ms, epoch=epoch)
    row = AuthRow("A", "7", 1, True, {}, 3, 1_000, 0, 0, 0)
    assert journal.of_session("A", row)["user_revocations"] == found
    assert journal.of_session("A", None)["user_revocations"].entries == 0


def test_an_age_is_never_below_nought() -> None:
    """The host's clock may have been set back."""
    assert Waiting(1, 1_000_000).oldest_seconds(1_002.34) == 2.3
    assert Waiting(1, 1_000_000).oldest_seconds(999.0) == 0
    assert Waiting(1, None).oldest_seconds(999.0) is None


def test_it_can_be_read_while_another_writes(tmp_path: Path) -> None:
    """Every look is at one moment: no kind is ahead of another that is written before it."""
    path, stop = tmp_path / "journal.sqlite", threading.Event()
    writer, reader = journal_at(path), journal_at(path)
    writer.open()

    def work() -> None:
        for number in range(50):
            writer.put([write(f"{number}")])
            writer.carry(Carry("X", f"{number}", "u", ["ui"]))
        stop.set()

    thread = threading.Thread(target=work)
    thread.start()
    looks = 0
    while not stop.is_set():
        kinds = reader.summary().kinds
        assert 0 <= kinds["writes"].entries - kinds["carries"].entries <= 1
        looks += 1
    thread.join()
    assert looks
    assert reader.waiting().entries == 100
