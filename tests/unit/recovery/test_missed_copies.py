"""Copies of what the primary does not have any more: kept aside until it is known whether it lost data."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.copies import CategoryCopy
from flask_langpont_session.stores.memory.memory import Memory
from tests.support.clock import Clock
from tests.support.known import content, known, wrote

COPY = CategoryCopy(5, {"lang": b'"ja"'})
ROOM = 30 * 2000


@pytest.fixture
def memory(clock: Clock) -> Memory:
    return Memory(ROOM, 60, clock=clock)


def held(memory: Memory) -> list[tuple[str, CategoryCopy, str]]:
    return [(shared.digest, shared.copy, shared.kind) for shared in memory.held()]


def test_what_is_missing_is_kept_aside_and_looked_for(clock: Clock) -> None:
    """A request is shown that nothing is there; what was there can be given back."""
    missing: list[str] = []
    memory = Memory(ttl=60, clock=clock)
    memory.on_missing = missing.append
    memory.put_category("d", "ui", known(COPY), kind="a")
    memory.put_absent("d", "ui", 9)
    memory.put_absent("d", "ui", 10)
    assert missing == ["d"]
    assert content(memory.category("d", "ui")) == CategoryCopy(9, {})
    assert held(memory) == [("d", COPY, "a")]


def test_what_was_over_when_nothing_was_lost_is_forgotten(memory: Memory, clock: Clock) -> None:
    """By a look that began after it was missed; of sessions on the server that was looked at."""
    for digest in ("d", "e"):
        memory.put_category(digest, "ui", known(COPY), kind="a")
        memory.put_absent(digest, "ui", 9)
    memory.nothing_was_lost(clock.now, lambda digest: True)
    assert len(held(memory)) == 2
    clock.now += 1
    memory.nothing_was_lost(clock.now, lambda digest: digest == "d")
    assert held(memory) == [("e", COPY, "a")]


def test_what_was_never_there_is_not_given_back(memory: Memory) -> None:
    """Neither is a copy of an unknown kind of session, which is no sign of a loss either."""
    missing: list[str] = []
    memory.on_missing = missing.append
    memory.put_absent("d", "ui", 9)
    memory.put_category("e", "ui", known(COPY))
    memory.put_absent("e", "ui", 9)
    assert (held(memory), missing) == ([], [])


def test_that_nothing_was_there_says_nothing_of_the_time_before(memory: Memory) -> None:
    """I32: a copy that is made of it began from nothing at that moment."""
    memory.put_absent("d", "ui", 9)
    copy = memory.category("d", "ui")
    assert copy is not None and copy.began == 9


def test_what_was_missed_is_shown_while_it_is_young_enough(memory: Memory, clock: Clock) -> None:
    """I30: as long as any copy since its last confirmation, however late it was missed."""
    memory.put_category("d", "ui", known(COPY), kind="a")
    clock.now += 30
    memory.put_absent("d", "ui", 9)
    clock.now += 29
    assert content(memory.category("d", "ui", before_loss=True)) == COPY
    clock.now += 1
    assert content(memory.category("d", "ui", before_loss=True)) == CategoryCopy(9, {})


def test_a_wipe_is_given_back(memory: Memory) -> None:
    """It says that nothing older may come back, though nothing is there."""
    memory.put_category("d", "ui", known(CategoryCopy(7, {}), began=0), kind="a")
    memory.put_absent("d", "ui", 9)
    assert held(memory) == [("d", CategoryCopy(7, {}), "a")]


def test_the_end_of_a_session_takes_all_of_it(memory: Memory) -> None:
    """Nothing of it is given back."""
    memory.put_category("d", "ui", known(COPY), kind="u")
    memory.put_absent("d", "ui", 9)
    memory.kill("d")
    assert held(memory) == []


def test_they_are_as_old_as_their_last_confirmation(memory: Memory, clock: Clock) -> None:
    """I30: that something is missing does not make it younger."""
    memory.put_category("d", "ui", known(COPY), kind="a")
    clock.now += 50
    memory.put_absent("d", "ui", 9)
    assert [shared.age for shared in memory.held()] == [50]
    clock.now += 9
    assert [shared.age for shared in memory.held()] == [59]
    clock.now += 1
    assert held(memory) == []


def test_they_are_bounded(memory: Memory, clock: Clock) -> None:
    """Missed copies are bounded in number and in time, as all memory is."""
    for number in range(100):
        memory.put_category(str(number), "ui", known(COPY), kind="a")
        memory.put_absent(str(number), "ui", 9)
    assert 10 < len(held(memory)) < 50
    clock.now += 61
    assert held(memory) == []


def test_a_copy_says_since_when_it_knows_what_was_there(memory: Memory) -> None:
    """A write keeps what is known of that; where nothing is known, it is not before the write."""
    memory.put_category("d", "ui", known(COPY, began=3), kind="a")
    wrote(memory, "d", "ui", 5, 6)
    memory.put_category("e", "ui", known(COPY, began=5), kind="a")
    memory.put_absent("f", "ui", 4)
    wrote(memory, "f", "ui", 0, 6, "a")
    assert {shared.digest: shared.copy.began for shared in memory.held()} == {"d": 3, "e": 5, "f": 6}
    assert content(memory.category("d", "ui")) == CategoryCopy(6, COPY.fields)
