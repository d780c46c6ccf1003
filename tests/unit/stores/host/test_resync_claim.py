"""One worker per host brings what changed around an incident to Redis: the claim in the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_langpont_session.stores.host.entries import Claim, ResyncRound
from flask_langpont_session.stores.host.journal import journal_at

HOLD = 6000


class Host:
    """Two workers on one journal, and a clock."""

    def __init__(self, path: Path | None) -> None:
        self.now = 1_000_000
        self.a = journal_at(path, clock=lambda: self.now / 1000)
        self.b = journal_at(path, clock=lambda: self.now / 1000) if path else self.a

    def wanted(self, server: str = "x", since: int = 1000) -> ResyncRound:
        return ResyncRound(server, since_ms=self.now - since, began_ms=self.now - since)


@pytest.fixture(params=["file", "memory"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return Host(tmp_path / "journal" if request.param == "file" else None)


def done(wanted: ResyncRound, now: int) -> ResyncRound:
    return ResyncRound(wanted.server, wanted.since_ms - 60_000, now)


def test_one_works_and_the_other_waits_until_it_is_done(host: Host) -> None:
    """The work is done for both then; neither repeats it."""
    wanted = host.wanted()
    assert host.a.board.claim_resync("a", wanted, HOLD) is Claim.MINE
    assert host.b.board.claim_resync("b", wanted, HOLD) is Claim.TAKEN
    host.a.board.end_resync("a", done(wanted, host.now))
    assert host.b.board.claim_resync("b", wanted, HOLD) is Claim.DONE
    assert host.a.is_empty()


def test_a_sibling_that_noticed_a_little_earlier_needs_no_round_of_its_own(host: Host) -> None:
    """A finished round covers a minute before what its worker asked for."""
    first = host.wanted(since=1000)
    host.a.board.claim_resync("a", first, HOLD)
    host.a.board.end_resync("a", done(first, host.now))
    assert host.b.board.claim_resync("b", host.wanted(since=30_000), HOLD) is Claim.DONE
    assert host.b.board.claim_resync("b", host.wanted(since=90_000), HOLD) is Claim.MINE


def test_another_incident_is_another_round(host: Host) -> None:
    """Another server, another id of the canary, or a later moment."""
    wanted = host.wanted()
    host.a.board.claim_resync("a", wanted, HOLD)
    host.a.board.end_resync("a", done(wanted, host.now))
    assert host.b.board.claim_resync("b", host.wanted(server="y"), HOLD) is Claim.MINE
    host.b.board.end_resync("b", None)
    host.now += 5000
    assert host.b.board.claim_resync("b", host.wanted(), HOLD) is Claim.MINE


def test_a_killed_worker_keeps_the_others_waiting_for_a_bounded_time(host: Host) -> None:
    """The claim lapses; the worker that lost it does not give back another one's."""
    wanted = host.wanted()
    host.a.board.claim_resync("a", wanted, HOLD)
    host.now += HOLD - 1
    assert host.b.board.claim_resync("b", wanted, HOLD) is Claim.TAKEN
    host.now += 1
    assert host.b.board.claim_resync("b", wanted, HOLD) is Claim.MINE
    host.a.board.end_resync("a", done(wanted, host.now))
    assert host.a.board.claim_resync("a", wanted, HOLD) is Claim.TAKEN


def test_the_worker_at_it_prolongs_the_claim(host: Host) -> None:
    """Many rows take longer than one hold."""
    wanted = host.wanted()
    for _ in range(3):
        assert host.a.board.claim_resync("a", wanted, HOLD) is Claim.MINE
        host.now += HOLD - 1
    assert host.b.board.claim_resync("b", wanted, HOLD) is Claim.TAKEN


def test_what_failed_is_done_by_another_worker(host: Host) -> None:
    """The claim is given back undone."""
    wanted = host.wanted()
    host.a.board.claim_resync("a", wanted, HOLD)
    host.a.board.end_resync("a", None)
    assert host.b.board.claim_resync("b", wanted, HOLD) is Claim.MINE
