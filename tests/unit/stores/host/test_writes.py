"""Entries of the journal when more is written, what a session is shown of them, and when a copy outdates them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flask_langpont_session.policy.changes import Basis, Operation
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.host.entries import WIPED_FIELD, PendingWrite
from flask_langpont_session.stores.host.journal import Journal, journal_at
from flask_langpont_session.stores.host.limits import JournalLimits
from tests.support.clock import Clock
from tests.support.journals import ref

SET, DELETE, ADD, WIPE, _ = Operation
BLIND, SEEN, UNSEEN = Basis
NOW = 1_000_000
"""Milliseconds; the host's clock."""


@pytest.fixture
def journal(clock: Clock) -> Iterator[Journal]:
    journal = journal_at(None, clock=clock)
    yield journal
    journal.close()


def change(operation: Operation, **more: Any) -> PendingWrite:
    fields = {"digest": "d", "kind": "a", "category": "ui", "field": "n", "moment": 5, **more}
    return PendingWrite(operation=operation, **fields)


def value(text: bytes | None, basis: Basis = BLIND, **more: Any) -> PendingWrite:
    """A field that is set; None: deleted."""
    return change(DELETE if text is None else SET, value=text, basis=basis, **more)


def seen(text: bytes | None, base: bytes | None, version: int, **more: Any) -> PendingWrite:
    """Return a write that was made from a value that was read."""
    return value(text, SEEN, moment=version, base=base, **more)


def addition(by: int, token: str = "added.1", **more: Any) -> PendingWrite:
    return change(ADD, delta=by, token=token, **{"moment": 0, **more})


def wipe(**more: Any) -> PendingWrite:
    return change(WIPE, field=WIPED_FIELD, **more)


def kept(journal: Journal) -> list[PendingWrite]:
    """Return the waiting writes in their order, without their own numbers and times."""
    return bare(journal.pending_writes())


def bare(entries: Iterable[PendingWrite]) -> list[PendingWrite]:
    """Return entries without the numbers and times that the journal gave them."""
    return [replace(entry, seq=0, at_ms=0) for entry in entries]


def sent(journal: Journal, write_id: str = "sent..1", moment_ms: int = 9) -> None:
    """The recovery has sent everything that waits."""
    journal.mark_sent(dict.fromkeys(journal.pending_writes(), write_id), {"d": moment_ms})


# -- what is left when more is written ---------------------------------------------------------------------------------


class Sent(NamedTuple):
    """The recovery sends everything that waits."""

    write_id: str = "sent..1"
    moment_ms: int = 9


class Left(NamedTuple):
    """Changes that are kept one after the other, and what is left of them.

    :param left: in its order.
    :param lost: of what the last call says that it is not kept.
    """

    calls: Sequence[Sequence[PendingWrite] | Sent]
    left: Sequence[PendingWrite]
    lost: Sequence[PendingWrite] = ()


UNKNOWN = addition(2, "request", is_sent=True, moment=8)
"""An addition of which a request does not know the outcome: it is under the id by which Redis may have it."""

GUESS, OTHER_GUESS = value(b"1", UNSEEN), value(b"1", UNSEEN, base=b"0")

PLACES: list[dict[str, Any]] = [{}, {"field": "m"}, {"category": "x"}, {"digest": "e"}, {"shadow": True}]

TWICE = "sent..1 sent..2 "

LEFT = {
    "only the same field of the same session, or of its shadow, is replaced": Left(
        [[value(b"1", **place) for place in PLACES], [value(b"2", **place) for place in PLACES]],
        [value(b"2", **place) for place in PLACES],
    ),
    "each sending leaves its id; an addition gets the moment 0 if the clock of its session's server is not known": Left(
        [
            [seen(b"1", b"0", 5), value(b"1", field="m"), addition(2, field="o", digest="e"), wipe(category="x")],
            *(Sent("sent..1"), Sent("sent..2")),
        ],
        [
            seen(b"1", b"0", 5, doubts=TWICE),
            value(b"1", field="m", doubts=TWICE),
            addition(2, field="o", digest="e", doubts=TWICE, is_sent=True),
            wipe(category="x", doubts=TWICE),
        ],
    ),
    "a wipe takes the place of everything in its category": Left(
        [[value(b"1"), addition(1, field="m"), GUESS, wipe(), value(b"1", category="x")], [wipe(moment=7)]],
        [value(b"1", category="x"), wipe(moment=7)],
    ),
    "a wipe takes the place of what was sent, but of no other session nor the shadow": Left(
        [[value(b"1"), wipe(), value(b"1", digest="e"), value(b"1", shadow=True)], Sent(), [wipe(moment=7)]],
        [
            value(b"1", digest="e", doubts="sent..1 "),
            value(b"1", shadow=True, doubts="sent..1 "),
            wipe(moment=7),
        ],
    ),
    "a deletion of what was never read deletes nothing": Left([[value(None, UNSEEN)]], []),
    "additions that were not sent are one, under the id of the first": Left(
        [[addition(2)], [addition(-5, "added.2"), addition(1, "added.3")]], [addition(-2)]
    ),
    "an addition that was sent is not changed any more: Redis may have it as it was": Left(
        [[addition(2)], Sent(), [addition(3, "added.2")], [addition(4, "added.3")]],
        [addition(2, moment=9000, is_sent=True, doubts="sent..1 "), addition(7, "added.2")],
    ),
    "an addition keeps the moment of its first sending: by it the server tells whether it remembers the id": Left(
        [[addition(2)], Sent("sent..1", 9), Sent("sent..2", 99)],
        [addition(2, moment=9000, is_sent=True, doubts=TWICE)],
    ),
    "an addition of unknown outcome stays apart": Left(
        [[addition(2)], [UNKNOWN], [addition(4, "added.3")]], [UNKNOWN, addition(6)]
    ),
    "an addition of unknown outcome waits behind a value: part of it, it would be made twice": Left(
        [[value(b"1")], [UNKNOWN]], [value(b"1"), UNKNOWN]
    ),
    "what is added after it waits behind it, too: part of the value, it would undo it": Left(
        [[value(b"1")], [UNKNOWN], [addition(4, "added.3")], [addition(5, "added.4")]],
        [value(b"1"), UNKNOWN, addition(9, "added.3")],
    ),
    "an addition to a guess waits behind it, which is dropped where Redis has a value": Left(
        [[GUESS], [addition(2)], [addition(3, "added.2")]], [GUESS, addition(5)]
    ),
    "a guess over additions is not kept": Left(
        [[addition(2)], [GUESS, value(b"1", field="m")]], [addition(2), value(b"1", field="m")], [GUESS]
    ),
    "nor is a deletion that is a guess": Left(
        [[addition(2)], [value(None, UNSEEN)]], [addition(2)], [value(None, UNSEEN)]
    ),
    "what is written after a wipe waits behind it, also written again": Left(
        [[wipe(), value(b"1"), addition(2, field="m")], [value(b"2"), addition(1, "added.2", field="m")]],
        [wipe(), value(b"2"), addition(3, field="m")],
    ),
    "a guess from before a wipe, which its request could not read, brings nothing back": Left(
        [[wipe(), OTHER_GUESS]], [wipe()], [OTHER_GUESS]
    ),
}


@pytest.mark.parametrize("row", LEFT.values(), ids=LEFT)
def test_what_is_left_when_more_is_written(journal: Journal, row: Left) -> None:
    lost: list[PendingWrite] = []
    for call in row.calls:
        if isinstance(call, Sent):
            sent(journal, *call)
        else:
            lost = journal.put(call)
    assert (kept(journal), bare(lost)) == (row.left, [*row.lost])


# -- a value over a value ----------------------------------------------------------------------------------------------

VALUES = {
    "blind": value(b"1", moment=5),
    "seen": seen(b"1", b"0", 5),
    "seen, absent": seen(b"1", None, 5),
    "unseen": value(b"1", UNSEEN, moment=5),
}


@pytest.mark.parametrize("before", VALUES)
@pytest.mark.parametrize("operation", [SET, DELETE])
def test_a_blind_value_takes_the_place_of_any(journal: Journal, before: str, operation: Operation) -> None:
    """It was made from nothing: it wins by its own time, whatever the one before knew."""
    journal.put([VALUES[before]])
    new = value(b"2" if operation is SET else None, moment=7)
    assert journal.put([new]) == []
    assert kept(journal) == [new]


@pytest.mark.parametrize("operation", [SET, DELETE])
@pytest.mark.parametrize(
    ("before", "is_seen"), [(name, True) for name in VALUES if name != "unseen"] + [(name, False) for name in VALUES]
)
def test_what_is_made_from_a_value_that_waits_knows_no_more_than_that(
    journal: Journal, before: str, operation: Operation, is_seen: bool
) -> None:
    """The request saw the value that waits, but not what Redis has: that value's basis, moment and base stay."""
    first = VALUES[before]
    journal.put([first])
    text = b"2" if operation is SET else None
    assert journal.put([seen(text, b"1", 7) if is_seen else value(text, UNSEEN, moment=7, base=b"1")]) == []
    expected = replace(first, operation=operation, value=text)
    assert kept(journal) == ([] if (operation, first.basis) == (DELETE, UNSEEN) else [expected])


@pytest.mark.parametrize("operation", [SET, DELETE])
@pytest.mark.parametrize(("base", "is_lost"), [(b"9", True), (b"1", False), (None, False)])
def test_what_is_made_from_what_the_stores_have_knows_more_than_a_guess(
    journal: Journal, operation: Operation, base: bytes | None, is_lost: bool
) -> None:
    """A guess waited when a store was reached again: the request saw the store's value, not the guess. That is lost if
    it is another one."""
    guess = VALUES["unseen"]
    journal.put([guess])
    new = seen(b"2" if operation is SET else None, base, 7)
    assert bare(journal.put([new])) == ([guess] if is_lost else [])
    assert kept(journal) == [new]


@pytest.mark.parametrize("operation", [SET, DELETE])
@pytest.mark.parametrize("before", VALUES)
@pytest.mark.parametrize("seen_value", [None, b"9"])
def test_what_was_made_without_reading_does_not_replace_what_waits(
    journal: Journal, before: str, operation: Operation, seen_value: bytes | None
) -> None:
    """A worker that could not read the journal in time does not put a list of one in the place of the real one."""
    journal.put([VALUES[before]])
    guess = value(b"2" if operation is SET else None, UNSEEN, moment=7, base=seen_value)
    assert bare(journal.put([guess])) == [guess]
    assert kept(journal) == [VALUES[before]]


def test_doubts_are_kept_with_whatever_takes_the_place(journal: Journal) -> None:
    """Redis may have any of the values that were sent: none of them is another worker's."""
    journal.put([seen(b"1", b"0", 5, doubts="first.. ")])
    sent(journal, "second.")
    journal.put([value(b"2", moment=7, doubts="third.. ")])
    [entry] = kept(journal)
    assert entry.doubts.split() == ["third..", "first..", "second."]
    journal.put([seen(b"3", b"2", 9)])
    assert kept(journal)[0].doubts.split() == ["third..", "first..", "second."]
    assert kept(journal)[0].moment == 7


def test_a_field_that_is_written_again_is_younger(journal: Journal, clock: Clock) -> None:
    """It goes to the end of the line, and its age is counted anew."""
    journal.put([value(b"1"), value(b"1", field="m")])
    clock.now += 5
    journal.put([value(b"2")])
    entries = journal.pending_writes()
    assert [(entry.field, entry.at_ms) for entry in entries] == [("m", NOW), ("n", NOW + 5000)]
    assert [entry.seq for entry in entries] == [2, 3]


# -- additions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "after"), [(b"41", b"43"), (b"-1", b"1"), (b"0", b"2"), (None, b"2"), (b"-2", b"0")])
@pytest.mark.parametrize("basis", [BLIND, SEEN])
def test_an_addition_to_a_value_that_waits_is_made_here(
    journal: Journal, text: bytes | None, after: bytes, basis: Basis
) -> None:
    """A deleted key counts as 0. What the value was made from stays."""
    first = seen(text, b"9", 5) if basis is SEEN else value(text)
    journal.put([first])
    journal.put([addition(2)])
    assert kept(journal) == [replace(first, operation=SET, value=after)]


@pytest.mark.parametrize("text", [b'"x"', b"1.5", b"true", b"007", b"[1]", b"", b"--1"])
def test_an_addition_to_something_else_is_refused(journal: Journal, text: bytes) -> None:
    """An error of class DATA; the value stays."""
    journal.put([value(text)])
    with pytest.raises(StoreError) as caught:
        journal.put([addition(1)])
    assert caught.value.error_class is ErrorClass.DATA
    assert kept(journal) == [value(text)]


@pytest.mark.parametrize("is_sent", [False, True])
@pytest.mark.parametrize("operation", [SET, DELETE])
@pytest.mark.parametrize("basis", [BLIND, SEEN])
def test_a_value_takes_the_place_of_additions(
    journal: Journal, basis: Basis, operation: Operation, is_sent: bool
) -> None:
    """It was made from their sum, or from nothing. That Redis may have one of them is no change by another host."""
    journal.put([addition(2)])
    if is_sent:
        sent(journal)
    journal.put([addition(3, "added.2")])
    text = b"9" if operation is SET else None
    new = seen(text, b"8", 7) if basis is SEEN else value(text, moment=7)
    journal.put([new])
    assert kept(journal) == [replace(new, doubts="sent..1 " if is_sent else "")]


# -- wipes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("basis", [SEEN, UNSEEN])
def test_what_is_made_after_a_wipe_is_made_from_nothing(journal: Journal, basis: Basis) -> None:
    """The value counts by its own time, whatever version was read then, as if its key had not been read: the wipe
    was acknowledged. A record that was wiped since that version, by this very wipe, is not in its way."""
    new = value(b"1", basis, moment=5, acknowledged=8)
    blind = value(b"1", moment=8, acknowledged=8)
    journal.put([wipe(acknowledged=7), new])
    journal.put([replace(new, field="m", base=None), replace(new, field="o", category="x")])
    assert kept(journal)[1:] == [blind, replace(blind, field="m"), replace(new, field="o", category="x")]
    journal.put([replace(new, value=b"2", base=b"1", acknowledged=9)])
    assert kept(journal)[-1] == replace(blind, value=b"2", moment=9, acknowledged=9)


def test_a_copy_outdates_nothing_that_was_made_after_a_wipe(journal: Journal) -> None:
    """It may be from before the wipe, which is not in Redis yet."""
    journal.put([wipe(), seen(b"1", None, 5, acknowledged=8)])
    assert not journal.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(7, {"n": b"0"}))]).outdated
    assert [entry.value for entry in kept(journal)] == [None, b"1"]


def test_a_wipe_that_comes_late_takes_nothing_that_was_acknowledged_after_it(journal: Journal, clock: Clock) -> None:
    """I16: by a worker that did not know of it. A later wipe holds as well."""

    def put(at: float, *entries: PendingWrite) -> None:
        clock.now = at
        journal.put(entries)

    put(1000, value(b"1"), value(b"1", field="m"))
    put(1002, value(b"2"))
    put(1001, wipe())
    assert kept(journal) == [value(b"2"), wipe()]
    put(1003, wipe(acknowledged=3))
    put(1001, wipe())
    assert kept(journal) == [wipe(acknowledged=3)]


# -- what a session is shown -------------------------------------------------------------------------------------------


def test_the_overlay_tells_values_additions_guesses_and_wipes_apart(journal: Journal) -> None:
    """The overlay is by category, with the id of each addition, so that what Redis counts already is not added once
    more."""
    journal.put([addition(2)])
    sent(journal)
    journal.put([addition(3, "added.2"), addition(4, "added.3", field="m")])
    journal.put([value(b"1", UNSEEN, field="guess"), value(None, field="gone"), wipe(category="x")])
    overlay = journal.overlay(ref("d"))
    assert overlay.deltas == {"ui": {"n": [("added.1", 2), ("added.2", 3)], "m": [("added.3", 4)]}}
    assert overlay.writes == {"ui": {"guess": b"1", "gone": None}}
    assert overlay.guesses == {"ui": {"guess"}}
    assert overlay.wiped == {"x"}
    assert [overlay.has_writes(name) for name in ("ui", "x", "translation")] == [True, True, False]


def test_after_a_wipe_nothing_is_a_guess(journal: Journal) -> None:
    """Whatever Redis has is gone: what is written then is what is there."""
    journal.put([wipe(), value(b"1", UNSEEN)])
    overlay = journal.overlay(ref("d"))
    assert overlay.writes == {"ui": {"n": b"1"}}
    assert overlay.guesses == {}
    assert overlay.wiped == {"ui"}


def test_a_shadow_is_shown_its_own(journal: Journal) -> None:
    """A wipe, an addition, a guess and a copy of the session say nothing of its shadow."""
    journal.board.publish_copies([SharedCopy("d", "ui", COPY)])
    journal.put([wipe(), addition(2), value(b"1", UNSEEN, field="m")])
    overlay = journal.overlay(ref("d", shadow=True))
    assert (overlay.writes, overlay.deltas, overlay.guesses, overlay.wiped) == ({}, {}, {}, frozenset())
    assert overlay.copies == {}


# -- marked as sent, forgotten -----------------------------------------------------------------------------------------


def test_what_was_written_again_before_it_was_marked_is_not_marked(journal: Journal) -> None:
    """It is another entry, which is not sent as it was."""
    journal.put([value(b"1")])
    read = journal.pending_writes()
    journal.put([value(b"2"), value(b"1", field="m")])
    assert journal.mark_sent(dict.fromkeys(read, "sent..1"), {}) == []
    assert kept(journal) == [value(b"2"), value(b"1", field="m")]
    read += journal.pending_writes()
    assert journal.mark_sent(dict.fromkeys(read, "sent..2"), {}) == read[1:]


def test_what_is_written_while_it_is_sent_stays_and_knows_it(journal: Journal) -> None:
    """The merge's own value is not taken for another host's newer one, by its id; the next merge may replace it."""
    journal.put([seen(b"1", b"0", 5)])
    read = journal.pending_writes()
    journal.mark_sent(dict.fromkeys(read, "sent..1"), {})
    journal.put([seen(b"2", b"1", 6)])
    journal.forget_writes(read)
    assert kept(journal) == [seen(b"2", b"0", 5, doubts="sent..1 ")]


# -- copies ------------------------------------------------------------------------------------------------------------

COPY = CategoryCopy(7, {"n": b"0", "same": b"1"})


@pytest.mark.parametrize(
    ("waiting", "left", "lost"),
    [
        # the field is as it was: the value is made from the newer version all the same
        (seen(b"1", b"0", 5), seen(b"1", b"0", 7), 0),
        (seen(b"1", None, 5, field="new"), seen(b"1", None, 7, field="new"), 0),
        (seen(None, b"0", 5), seen(None, b"0", 7), 0),
        # what was to be written stands there
        (seen(b"1", b"0", 5, field="same"), seen(b"1", b"1", 7, field="same"), 0),
        (seen(None, b"0", 5, field="new"), seen(None, None, 7, field="new"), 0),
        # another host has changed it since
        (seen(b"1", b"9", 5), None, 1),
        (seen(None, b"9", 5), None, 1),
        (seen(b"1", b"9", 5, field="new"), None, 1),
        # or this host has, by a write whose outcome it does not know: the merge finds out
        (seen(b"1", b"9", 5, doubts="sent..1 "), seen(b"1", b"9", 5, doubts="sent..1 "), 0),
        # it was made from this version or a later one
        (seen(b"1", b"9", 7), seen(b"1", b"9", 7), 0),
        (seen(b"1", b"9", 8), seen(b"1", b"9", 8), 0),
        # its request could not read what is there: the merge would not put it there either
        (value(b"1", UNSEEN), None, 1),
        (value(b"0", UNSEEN), value(b"0", UNSEEN), 0),
        (value(b"1", UNSEEN, field="new"), value(b"1", UNSEEN, field="new"), 0),
        (value(b"1", UNSEEN, doubts="sent..1 "), value(b"1", UNSEEN, doubts="sent..1 "), 0),
        # it was not made from any, or is of the shadow
        (value(b"1"), value(b"1"), 0),
        (value(b"1", UNSEEN, shadow=True), value(b"1", UNSEEN, shadow=True), 0),
        (addition(2), addition(2), 0),
        (wipe(), wipe(), 0),
        (seen(b"1", b"9", 5, shadow=True), seen(b"1", b"9", 5, shadow=True), 0),
        (seen(b"1", b"9", 5, digest="e"), seen(b"1", b"9", 5, digest="e"), 0),
        (seen(b"1", b"9", 5, category="x"), seen(b"1", b"9", 5, category="x"), 0),
    ],
)
def test_a_newer_copy_outdates_what_was_made_from_an_older_one(
    journal: Journal, waiting: PendingWrite, left: PendingWrite | None, lost: int
) -> None:
    """A sibling has seen what was written since. What lost is not shown any more, and is counted at once."""
    journal.put([waiting])
    assert journal.board.publish_copies([SharedCopy("d", "ui", COPY)]).outdated == (
        {("d", "ui", waiting.basis): 1} if lost else {}
    )
    assert kept(journal) == ([left] if left else [])
    assert journal.counts()["writes"] == 1 - lost


def test_a_copy_from_before_a_wipe_says_nothing_of_what_could_not_be_read(journal: Journal) -> None:
    """Another worker has emptied the category since, which the copy does not know."""
    journal.put([value(b"1", UNSEEN)])
    journal.board.register.note_wipe("d", "ui", COPY.version + 1000)  # noted to the millisecond
    assert not journal.board.publish_copies([SharedCopy("d", "ui", COPY)]).outdated
    assert kept(journal) == [value(b"1", UNSEEN)]


def test_a_copy_that_is_no_newer_outdates_nothing(journal: Journal) -> None:
    """A copy of a session that is revoked outdates nothing either."""
    journal.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(9, {"n": b"8"}))])
    journal.put([seen(b"1", b"9", 5)])
    assert not +journal.board.publish_copies([SharedCopy("d", "ui", COPY)]).outdated
    journal.put([seen(b"1", b"9", 5, digest="e", shadow=True)])
    journal.revocations.note("e")
    assert not +journal.board.publish_copies([SharedCopy("e", "ui", COPY)]).outdated
    assert len(kept(journal)) == 2


def test_what_builds_on_a_copy_is_compared_with_the_next_one(journal: Journal) -> None:
    """The base follows from copy to copy, for as long as the field stays as it was."""
    journal.put([seen(b"1", b"0", 5)])
    journal.board.publish_copies([SharedCopy("d", "ui", COPY)])
    journal.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(8, {"n": b"0"}))])
    assert kept(journal) == [seen(b"1", b"0", 8)]
    shared = journal.board.publish_copies([SharedCopy("d", "ui", CategoryCopy(9, {"n": b"7"}))])
    assert shared.outdated == {("d", "ui", SEEN): 1}
    assert kept(journal) == []


def test_a_merge_publishes_what_it_made(journal: Journal) -> None:
    """The copy is published in one transaction with the entries that go, so that no worker sees neither; room is
    where they were."""
    full = journal_at(None, limits=JournalLimits(entries=1))
    full.put([value(b"2", kind="u")])
    merged = full.pending_writes()
    assert full.forget_writes(merged, [SharedCopy("d", "ui", CategoryCopy(7, {"n": b"2"}))]) == ({}, 0)
    assert full.pending_writes() == []
    assert full.overlay(ref("d")).copies == {"ui": CategoryCopy(7, {"n": b"2"})}
    full.close()


def test_what_the_copy_of_a_merge_outdates_is_told(journal: Journal) -> None:
    """The outdated entries are told by category, as of a copy that is published."""
    journal.put([value(b"2")])
    merged = journal.pending_writes()
    journal.put([seen(b"1", b"9", 5, field="m"), seen(b"1", b"9", 5, field="o")])
    shared = journal.forget_writes(merged, [SharedCopy("d", "ui", CategoryCopy(7, {"n": b"2"}))])
    assert shared.outdated == {("d", "ui", SEEN): 2}
    assert kept(journal) == []


def test_two_workers_write_one_field_in_one_order(tmp_path: Path) -> None:
    """I18: what the one acknowledged first is below what the other one writes then."""
    one, two = journal_at(tmp_path / "journal"), journal_at(tmp_path / "journal")
    one.put([addition(2)])
    two.put([addition(3, "added.2")])
    one.put([seen(b"[1]", b"[]", 5, field="list")])
    two.put([seen(b"[1,2]", b"[1]", 5, field="list")])
    expected = [addition(5), seen(b"[1,2]", b"[]", 5, field="list")]
    assert kept(one) == kept(two) == expected
    one.close()
    two.close()
