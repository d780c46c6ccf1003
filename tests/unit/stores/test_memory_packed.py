"""Sessions that were not asked for lately take little room, and say the same as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_langpont_session.policy.copies import NOT_THERE, CategoryCopy, RecordRef
from flask_langpont_session.policy.rows import AuthEntry, AuthRow
from flask_langpont_session.stores.memory import memory as module
from flask_langpont_session.stores.memory.memory import Memory
from flask_langpont_session.stores.redis.lane import Copy, Lane
from flask_langpont_session.stores.redis.server_identity import Server
from tests.support.clock import Clock
from tests.support.known import known

FIELDS = {"user_id": b"7"}
ROW = AuthRow("d", "7", 3, True, FIELDS, 0, 1, 10**13, 10**13 + 1, 5)
UI = known(CategoryCopy(4, {"theme": b'"dark"'}, b"", b"x" * 20, 3), mark=b"ui")
RECORDS = {
    "ui": UI,
    "translation": known(CategoryCopy(5, {"text": b'"a"', "lang": b'"jp"'}), mark=b"text", began=0),
    "auth": CategoryCopy(3, FIELDS, b"auth", auth=AuthEntry(ROW, 77, is_readable=False)),
}


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def memory(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Return one that keeps the objects of one session."""
    monkeypatch.setattr(module, "OPEN", 1)
    return Memory(ttl=1800, clock=clock)


def use_another(memory: Memory) -> None:
    memory.put_category("other", "ui", known(CategoryCopy(1, {"theme": b"1"})))
    memory.opened("other")


def near(lane: Lane, **records: CategoryCopy) -> Copy:
    return Copy(dict.fromkeys(records, 1), "u", 1, records, 0.0, 0.0, 9.0, b"", Server("run"), lane, lane.over)


def fill(memory: Memory, clock: Clock) -> Lane:
    """Keep a session of which there is one of everything."""
    lane = Lane(memory)
    memory.put_category("d", "ui", UI, kind="u")
    clock.now = 7.5
    memory.put_category("d", "data", known(CategoryCopy(8, {"cart": b"[]"})), kind="u")
    memory.put_absent("d", "data", 9)
    memory.note(RecordRef("d", "u"), RECORDS)
    memory.put_near("d", (near(lane, **RECORDS, data=NOT_THERE), near(lane, auth=RECORDS["auth"])))
    memory.put_auth(ROW, 0.0)
    return lane


def said(memory: Memory) -> tuple[object, ...]:
    """Return all that it says of the session."""
    entry = memory.entry("d")
    assert entry is not None
    copies = [(dict(copy.records), copy.over) for copy in entry.near]
    return (
        dict(entry.records),
        entry.copies(),
        entry.lost(),
        memory.auth("d"),
        copies,
        memory.held(),
        memory.live_categories(),
    )


def test_a_session_says_the_same_when_it_is_packed_and_when_it_is_asked_for_again(memory: Memory, clock: Clock) -> None:
    fill(memory, clock)
    before, entry = said(memory), memory.entry("d")
    assert entry is not None
    weight = entry.weight
    use_another(memory)
    packed = said(memory)
    assert entry.weight < weight * 0.5 and not isinstance(entry.records, dict)
    assert memory.opened("d") is entry and isinstance(entry.records, dict) and entry.weight == weight
    opened = said(memory)
    # Of what was not there its place in the answer says the same as what is kept.
    for told in (packed, opened):
        answers: Any = told[4]
        assert answers[0][0].pop("data").fields == {}
    whole: Any = before[4]
    assert whole[0][0].pop("data") is NOT_THERE
    use_another(memory)
    assert before[:6] == packed[:6] == opened[:6]


def test_the_row_of_a_sign_in_is_what_its_record_has(memory: Memory, clock: Clock) -> None:
    fill(memory, clock)
    use_another(memory)
    entry = memory.opened("d")
    assert entry is not None
    auth = entry.records["auth"]
    assert auth.auth is not None and auth.auth.row == ROW and auth.auth.row.payload is auth.fields


def test_a_copy_that_differs_from_what_is_kept_stays_what_it_was(memory: Memory) -> None:
    """Another connection may have said something newer meanwhile."""
    lane = Lane(memory)
    memory.put_near("d", (near(lane, ui=UI),))
    newer = known(CategoryCopy(9, {"theme": b'"light"'}), mark=b"newer")
    memory.put_category("d", "ui", newer)
    use_another(memory)
    entry = memory.entry("d")
    assert entry is not None and dict(entry.near[0].records) == {"ui": UI} and entry.records["ui"] == newer
    memory.opened("d")
    assert entry.near[0].records == {"ui": UI} and entry.records == {"ui": newer}


@pytest.mark.parametrize(
    "change",
    [
        lambda memory: memory.put_category("d", "ui", known(CategoryCopy(9, {"theme": b'"light"'}))),
        lambda memory: memory.put_absent("d", "translation", 9),
        lambda memory: memory.note(RecordRef("d", "u"), {"translation": known(CategoryCopy(9, {}), mark=b"9")}),
        lambda memory: memory.put_near("d", ()),
        lambda memory: memory.forget("d"),
        lambda memory: memory.kill("d"),
    ],
    ids=["put", "absent", "noted", "near", "forgotten", "dead"],
)
def test_a_packed_session_is_changed_like_another(
    clock: Clock, memory: Memory, change: Callable[[Memory], object]
) -> None:
    plain = Memory(ttl=1800, clock=clock)
    for each in (memory, plain):
        clock.now = 0.0
        fill(each, clock)
        if each is memory:
            use_another(memory)
        change(each)
    found, wanted = memory.opened("d"), plain.opened("d")
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        assert (found.records, found.copies(), found.lost()) == (wanted.records, wanted.copies(), wanted.lost())


def test_what_is_not_vouched_for_any_more_is_no_hit_of_a_packed_session(memory: Memory, clock: Clock) -> None:
    lane = fill(memory, clock)
    use_another(memory)
    found = lane.find("d", {"auth": 1}, "u")
    assert found is not None and found.records["auth"] == RECORDS["auth"]
    use_another(memory)
    lane.drop("d")
    assert found.over is None and lane.find("d", {"auth": 1}, "u") is None


def test_a_large_session_gains_nothing_by_it_and_stays_as_it_is(memory: Memory) -> None:
    memory.put_category("d", "ui", known(CategoryCopy(4, {"text": b"x" * 20_000})))
    use_another(memory)
    entry = memory.entry("d")
    assert entry is not None and isinstance(entry.records, dict)


def test_of_a_session_that_went_meanwhile_nothing_is_packed(memory: Memory) -> None:
    memory.put_category("d", "ui", UI)
    memory.forget("d")
    use_another(memory)
    assert memory.sessions == 1
