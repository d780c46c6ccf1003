"""I33: sessions that have ended, and that no journal could be told of."""

from __future__ import annotations

import pytest

from flask_langpont_session.stores.host.entries import PendingRevocation, PendingUserRevocation
from flask_langpont_session.stores.host.held_revocations import HeldRevocations
from tests.support.clock import Clock

AT_MS = 1_000_000


@pytest.fixture
def held(clock: Clock) -> HeldRevocations:
    return HeldRevocations(clock)


@pytest.mark.parametrize("first", [(True, False), (False, True)], ids=["database", "redis"])
def test_one_is_held_until_both_stores_have_it(held: HeldRevocations, first: tuple[bool, bool]) -> None:
    """Those that stand in the journal are its own."""
    held.keep("d", False, False)
    assert held.mark_done(["d", "other"], *first) == ["other"]
    assert held.revocations() == [PendingRevocation(0, "d", AT_MS, *first)]
    assert held.mark_done(["d"], not first[0], not first[1]) == []
    assert not held


def test_the_note_that_waits_for_the_database_counts(held: HeldRevocations) -> None:
    """What Redis has it has, whichever note says so."""
    held.keep("d", True, True)
    held.keep("d", False, False)
    assert held.revocations() == [PendingRevocation(0, "d", AT_MS, False, True)]


def test_what_could_not_be_noted_of_an_entry_of_the_journal_is_known_here(held: HeldRevocations) -> None:
    held.tell("d", True, False)
    assert held.known_of(PendingRevocation(7, "d", AT_MS, False, False)).in_database
    held.tell("d", False, True)
    assert held.told() == [("d", True, True)]
    assert held.known_of(PendingRevocation(8, "e", AT_MS, False, True)) == PendingRevocation(8, "e", AT_MS, False, True)


def test_of_several_times_of_a_user_the_latest_counts(held: HeldRevocations) -> None:
    """It goes when all that followed from it is done, unless the user was logged out anew meanwhile."""
    held.keep_user("7", 5, 1)
    held.keep_user("7", 3, 2)
    [entry] = held.users()
    assert entry == PendingUserRevocation(0, "7", 5, 2, in_database=True)
    held.keep_user("7", 6, 0)
    assert held.forget_user(entry)
    [entry] = held.users()
    assert entry.until_ms == 6
    assert held.forget_user(entry)
    assert held.users() == []
