"""Messages between the workers of a host, on real files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.policy.servers import ServerRecord
from flask_langpont_session.stores.host.board import PORTION, ResyncRound
from flask_langpont_session.stores.host.entries import NOTHING
from flask_langpont_session.stores.host.journal import Journal, journal_at
from flask_langpont_session.stores.host.limits import JournalLimits
from tests.support.clock import Clock
from tests.support.journals import KNOWN, questions, ref, write


def test_an_outage_is_announced_and_taken_back(journal: Journal, clock: Clock) -> None:
    """An announcement carries the time of the last one, and all ask the journal for as long as it stands."""
    journal.board.announce_outage("primary")
    clock.now += 1
    journal.board.announce_outage("primary")
    journal.board.announce_outage("database")
    assert journal.board.outages() == {"primary": 1_001_000, "database": 1_001_000}
    journal.board.outage_over("primary")
    assert journal.board.outages() == {"database": 1_001_000}
    assert not journal.is_empty()
    journal.board.outage_over("database")
    assert journal.is_empty()


def test_only_a_newer_copy_replaces_one(journal: Journal) -> None:
    """The highest version of the published copies stays."""
    for version in (5, 4, 5, 6, 2):
        journal.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(version, {"lang": b"%d" % version}))])
    assert journal.overlay(ref("d")).copies == {"ui": CategoryCopy(6, {"lang": b"6"})}


def test_copies_are_published_in_portions(durable: Journal, sibling: Journal) -> None:
    """Another worker that has to note a logout meanwhile comes in between, and sees what is there already."""
    seen: list[int] = []

    def copies() -> Iterator[SharedCopy]:
        for number in range(600):
            yield SharedCopy(f"d{number}", "ui", CategoryCopy(1, {}))
            if number % 250 == 0:
                sibling.revocations.note(f"r{number}")
                seen.append(sibling.counts()["copies"])

    durable.board.publish_copies(copies())
    assert 0 == seen[0] < seen[1] < seen[2]
    assert sibling.counts()["copies"] == 600


def test_as_many_copies_are_published_as_there_is_room_for(path: Path) -> None:
    """I30: in the order in which they are given. The rest of them is counted, and nothing else suffers: what is there
    already is brought up to date, and a change of a session is kept."""
    journal = journal_at(path, limits=JournalLimits(bytes=4 * 100_000))

    def publish(digest: str, version: int, size: int) -> int:
        return journal.board.publish_copies(
            [SharedCopy(digest, "ui", CategoryCopy(version, {"a": b"x" * size}))]
        ).left_out

    copies = [SharedCopy(f"d{number}", "ui", CategoryCopy(1, {"a": b"x" * 100})) for number in range(600)]
    left_out = journal.board.publish_copies(copies).left_out
    shared = [copy.digest for copy in journal.board.shared_copies().values()]
    assert 100 < len(shared) < 500
    assert shared == [copy.digest for copy in copies[: 600 - left_out]]
    assert (publish("d0", 2, 100), publish("d599", 1, 100), publish("d1", 2, 5000)) == (0, 1, 1)
    found = {copy.digest: copy.copy.version for copy in journal.board.shared_copies().values()}
    assert (found["d0"], found["d1"], found.get("d599")) == (2, 1, None)
    write(journal, a=b"1")
    journal.close()


def test_copies_are_cleared_and_writes_stay(journal: Journal) -> None:
    """Clearing the copies leaves everything else alone, however many there are."""
    journal.board.publish_copies(
        SharedCopy(f"d{number}", "ui", CategoryCopy(1, {})) for number in range(2 * PORTION + 1)
    )
    write(journal, a=b"1")
    journal.board.clear_copies(keep=3600.0)
    assert journal.counts()["copies"] != 0, "they were known just now"
    journal.board.clear_copies()
    assert {name: count for name, count in journal.counts().items() if count} == {"writes": 1}


def test_a_damaged_copy_is_none(tmp_path: Path) -> None:
    """Less is known of the session."""
    journal = journal_at(tmp_path / "journal")
    journal.board.publish_copies(
        [SharedCopy("d", name, CategoryCopy(1, {"a": b"1"})) for name in ("ui", "translation")]
    )
    with closing(sqlite3.connect(tmp_path / "journal")) as file:
        file.execute("UPDATE copies SET fields = x'c1' WHERE category = 'ui'")
        file.commit()
    assert journal.overlay(ref("d")).copies.keys() == {"translation"}
    assert [copy.category for copy in journal.board.shared_copies().values()] == ["translation"]
    journal.close()


@pytest.mark.parametrize(
    ("wanted", "is_covered"),
    [
        (ResyncRound("a", since_ms=100, began_ms=500), True),
        (ResyncRound("a", since_ms=200, began_ms=400), True),
        (ResyncRound("b", since_ms=100, began_ms=500), False),  # what it was told before is lost with the former one
        (ResyncRound("a", since_ms=99, began_ms=500), False),
        (ResyncRound("a", since_ms=100, began_ms=501), False),  # lost once more
    ],
    ids=["the same", "less of it", "another server", "longer ago", "a later incident"],
)
def test_a_round_that_leaves_nothing_to_be_done_is_not_repeated(wanted: ResyncRound, is_covered: bool) -> None:
    assert ResyncRound("a", since_ms=100, began_ms=500).covers(wanted) is is_covered


def test_a_server_is_no_entry(journal: Journal) -> None:
    """Knowing a server leaves the journal empty: it waits for nothing."""
    assert journal.board.server("redis:6379") is None
    journal.board.remember_server("redis:6379", KNOWN)
    assert (journal.board.server("redis:6379"), journal.board.server("redis:6380")) == (KNOWN, None)
    assert journal.is_empty()
    assert journal.overlay(ref("d")) == NOTHING
    assert not any(journal.counts().values())


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (replace(KNOWN, number=8), True),
        (replace(KNOWN, number=6), False),
        (replace(KNOWN, canary_id="h", number=1), True),
        (replace(KNOWN, identity="b", number=1), True),
        (replace(KNOWN, trust_since_ms=101, number=1), True),
        (replace(KNOWN, trust_since_ms=99, number=8), False),
        (replace(KNOWN, identity="b", canary_id="h", trust_since_ms=99), False),
    ],
)
def test_a_worker_that_does_not_know_of_an_incident_does_not_hide_it(
    journal: Journal, said: ServerRecord, kept: bool
) -> None:
    """S5: what a worker remembers may not date trust back; of one canary the higher number stays."""
    journal.board.remember_server("redis:6379", KNOWN)
    journal.board.remember_server("redis:6379", said)
    assert journal.board.server("redis:6379") == (said if kept else KNOWN)


def test_an_incident_noted_at_the_same_moment_is_not_hidden(
    durable: Journal, sibling: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S5: a worker that looked just before another one noted an incident sees it when it writes."""
    sibling.board.remember_server("redis:6379", replace(KNOWN, trust_since_ms=200))
    monkeypatch.setattr(durable.board, "server", lambda endpoint: None)
    durable.board.remember_server("redis:6379", KNOWN)
    assert sibling.board.server("redis:6379") == replace(KNOWN, trust_since_ms=200)


def test_a_growing_number_costs_requests_nothing(durable: Journal, sibling: Journal) -> None:
    """The canary's number is noted without making any worker look at the journal again; a sibling sees it."""
    sibling.board.remember_server("redis:6379", KNOWN)
    assert durable.is_empty()
    asked = questions(durable)
    sibling.board.remember_server("redis:6379", replace(KNOWN, number=8))
    assert durable.is_empty()
    assert asked == []
    assert durable.board.server("redis:6379") == replace(KNOWN, number=8)


def test_only_a_growing_number_is_not_forced_to_the_disk(durable: Journal, forced: list[str]) -> None:
    """An incident is forced to the disk, as every entry is after what was not."""
    times = []
    for number, trust_since_ms in ((7, 100), (8, 100), (8, 101)):
        durable.board.remember_server("redis:6379", replace(KNOWN, number=number, trust_since_ms=trust_since_ms))
        times.append(len(forced))
    assert times == [1, 1, 2]


def test_a_shared_copy_says_for_how_long_it_has_been_known(durable: Journal, clock: Clock) -> None:
    """By its worker before that, too; a newer one begins anew, and so does what another worker knew later."""

    def ages() -> list[float]:
        return [copy.age for copy in durable.board.shared_copies().values()]

    durable.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(1, {"a": b"1"}), age=2.0)])
    clock.now += 5.0
    assert ages() == [7.0]
    durable.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(1, {"a": b"1"}), age=9.0)])
    assert ages() == [7.0]
    durable.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(1, {"a": b"1"}), age=3.0)])
    assert ages() == [3.0]
    durable.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(2, {"a": b"1"}), age=1.0)])
    assert ages() == [1.0]
