"""I34: a database that went back is told again which sessions are over. A real journal; the database is told here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.rows import AuthRow, Found
from flask_langpont_session.recovery import steps
from flask_langpont_session.recovery.revocations import DeliveredRevocations
from flask_langpont_session.recovery.steps import Reach
from flask_langpont_session.stores.host.journal import journal_at
from tests.support.clock import Clock

HOUR = 3_600
FAR = 4_000_000_000_000
ROW = AuthRow("d", "7", 3, True, {}, 0, 0, FAR, FAR, 1000)
ENDED = [f"d{number}" for number in range(5)]


class Worker:
    """One whose sessions have ended, which both stores were told.

    :ivar living: sessions that the database takes for alive.
    :ivar asked: how many rows it was asked for, each time.
    """

    def __init__(self, clock: Clock) -> None:
        self.seconds = 0.0
        self.living: set[str] = set()
        self.asked: list[int] = []
        self.told_again = 0
        self.journal = journal_at(None, clock=clock)
        self.revocations = self.journal.revocations
        self.revocations.note(*ENDED)
        self.revocations.mark_done(*ENDED, in_database=True, in_redis=True)
        self.reports = SimpleNamespace(lost_commits=0, database_went_back=self.went_back, losses=None)
        backend: Any = SimpleNamespace(
            journal=self.journal,
            reports=self.reports,
            settings=SimpleNamespace(lease_terms=SimpleNamespace(tombstone_ms=2 * HOUR * 1000)),
            database=self,
            primary=None,
        )
        now_ms = lambda: int(clock.now * 1000)  # noqa: E731
        self.delivered = DeliveredRevocations(backend, now_ms, lambda: self.seconds)

    def run(self, end: float) -> bool:
        """Look at what is to be looked at, until that is all or it is late. Whether it is all."""
        reach = Reach(frozenset(), True)
        for page in self.delivered.pending(reach):
            self.delivered.send(page, reach)
            if self.seconds >= end:
                return False
        return True

    def load_many(self, digests: Sequence[str], timeout: float) -> Found:
        self.asked.append(len(digests))
        self.seconds += 1
        rows = {digest: replace(ROW, digest=digest, live=digest in self.living) for digest in digests}
        return Found(rows, frozenset())

    def went_back(self, commits: int) -> None:
        self.told_again += commits
        self.reports.lost_commits += commits

    def waiting(self) -> list[str]:
        return [entry.digest for entry in self.revocations.pending()]


@pytest.fixture
def worker(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(steps, "PIPELINE", 2)
    worker = Worker(clock)
    yield worker
    worker.journal.close()


def test_all_that_it_has_confirmed_is_looked_at_after_a_suspicion(worker: Worker) -> None:
    """In parts, as far as the time goes."""
    worker.living = {*ENDED[1:]}
    worker.delivered.suspect()
    assert not worker.run(2)
    assert (worker.asked, worker.waiting()) == ([2, 2], ENDED[1:4])
    assert worker.run(100)
    assert (worker.asked, worker.waiting(), worker.told_again) == ([2, 2, 1], ENDED[1:], 4)


def test_what_it_did_not_answer_is_asked_again(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.living = {*ENDED}
    worker.delivered.suspect()
    with monkeypatch.context() as patched:
        patched.setattr(worker, "load_many", Mock(side_effect=StoreError("database", ErrorClass.UNREACHABLE, "Test")))
        with pytest.raises(StoreError):
            worker.run(100)
    assert worker.run(100)
    assert worker.waiting() == ENDED


def test_it_is_suspected_as_well_by_what_a_request_has_found(worker: Worker) -> None:
    """The database is suspected by what a request has found elsewhere, and not by what was found here."""
    worker.living = {"d4"}
    worker.went_back(1)
    for _ in range(2):
        assert worker.run(100)
    assert (worker.asked, worker.waiting()) == ([2, 2, 1], ["d4"])


def test_each_is_looked_at_before_its_tombstone_expires_and_forgotten_then(worker: Worker, clock: Clock) -> None:
    """An end that the database has lost waits for it again."""
    worker.living = {"d1"}
    clock.now += 1.9 * HOUR
    assert worker.run(100)
    assert worker.asked == []
    clock.now += 0.1 * HOUR
    worker.seconds += 60
    for _ in range(3):
        assert worker.run(1000)
    assert (worker.asked, worker.waiting(), worker.revocations.delivered()) == ([2, 2, 1], ["d1"], [])
    worker.seconds += 60
    assert worker.run(1000)
    assert len(worker.asked) == 3
