"""Copies of what the primary does not have any more: kept aside until it is known whether it lost data."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.values import CategoryCopy, SharedCopy
from flask_langpont_session.stores.local import LocalCopies
from tests.support.clock import Clock

COPY = CategoryCopy(5, {"lang": b'"ja"'})


@pytest.fixture
def copies(clock: Clock) -> LocalCopies:
    return LocalCopies(4, 60, clock=clock)


def held(copies: LocalCopies) -> list[tuple[str, CategoryCopy, str]]:
    return [(shared.digest, shared.copy, shared.kind) for shared in copies.held()]


def test_what_is_missing_is_kept_aside_and_looked_for(clock: Clock) -> None:
    """A request is shown that nothing is there; what was there can be given back."""
    missing: list[str] = []
    copies = LocalCopies(4, 60, on_missing=missing.append, clock=clock)
    copies.put_category("d", "ui", COPY, kind="a")
    copies.put_absent("d", "ui", 9)
    copies.put_absent("d", "ui", 10)
    assert missing == ["d"]
    assert copies.category("d", "ui") == CategoryCopy(9, {})
    assert held(copies) == [("d", COPY, "a")]


def test_what_was_over_when_nothing_was_lost_is_forgotten(copies: LocalCopies, clock: Clock) -> None:
    """By a look that began after it was missed; of sessions on the server that was looked at."""
    for digest in ("d", "e"):
        copies.put_category(digest, "ui", COPY, kind="a")
        copies.put_absent(digest, "ui", 9)
    copies.nothing_was_lost(clock.now, lambda digest: True)
    assert len(held(copies)) == 2
    clock.now += 1
    copies.nothing_was_lost(clock.now, lambda digest: digest == "d")
    assert held(copies) == [("e", COPY, "a")]


def test_what_was_never_there_is_not_given_back(copies: LocalCopies) -> None:
    """Neither is a copy of an unknown kind of session."""
    copies.put_absent("d", "ui", 9)
    copies.put_category("e", "ui", COPY)
    copies.put_absent("e", "ui", 9)
    assert held(copies) == []


def test_a_wipe_is_given_back(copies: LocalCopies) -> None:
    """It says that nothing older may come back, though nothing is there."""
    copies.put_category("d", "ui", CategoryCopy(7, {}), kind="a", began=0)
    copies.put_absent("d", "ui", 9)
    assert held(copies) == [("d", CategoryCopy(7, {}), "a")]


def test_the_end_of_a_session_takes_all_of_it(copies: LocalCopies) -> None:
    """Nothing of it is given back."""
    copies.put_category("d", "ui", COPY, kind="u")
    copies.put_absent("d", "ui", 9)
    copies.kill("d")
    assert held(copies) == []


def test_they_are_as_old_as_their_last_confirmation(copies: LocalCopies, clock: Clock) -> None:
    """I30: that something is missing does not make it younger."""
    copies.put_category("d", "ui", COPY, kind="a")
    clock.now += 50
    copies.put_absent("d", "ui", 9)
    assert [shared.age for shared in copies.held()] == [50]
    clock.now += 9
    assert [shared.age for shared in copies.held()] == [59]
    clock.now += 1
    assert held(copies) == []


def test_they_are_bounded(copies: LocalCopies, clock: Clock) -> None:
    """In number and in time, as all copies."""
    for number in range(10):
        copies.put_category(str(number), "ui", COPY, kind="a")
        copies.put_absent(str(number), "ui", 9)
    assert len(held(copies)) == 4
    clock.now += 61
    assert held(copies) == []


def test_a_copy_says_since_when_it_knows_what_was_there(copies: LocalCopies) -> None:
    """A write keeps what is known of that; where nothing is known, it is not before the write."""
    copies.put_category("d", "ui", COPY, kind="a", began=3)
    copies.patch_category("d", "ui", dict, 5, 6)
    copies.put_category("d", "ui", CategoryCopy(8, {}), kind="a")
    copies.put_category("e", "ui", COPY, kind="a")
    copies.put_absent("f", "ui", 4)
    copies.patch_category("f", "ui", dict, 0, 6, "a")
    assert {shared.digest: shared.began for shared in copies.held()} == {"d": 3, "e": 5, "f": 4}
    assert copies.shared("d", "ui") == SharedCopy("d", "ui", CategoryCopy(8, {}), kind="a", began=3)
