"""This worker's memory: bounds, versions, tombstones, threads and forks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flask_langpont_session.policy.values import AuthRow, CategoryCopy, Fields, SharedCopy
from flask_langpont_session.stores.local import DEAD, SESSION_BYTES, DatabaseClock, LocalAuth, LocalCopies
from tests.support.clock import Clock

ROW = AuthRow(
    digest="d",
    user_id="7",
    version=3,
    live=True,
    payload={"user_id": b"7"},
    user_epoch=0,
    created_at=0,
    idle_expires_at=10,
    absolute_expires_at=20,
    read_at=5,
)
COPY = CategoryCopy(4, {"text": b'"a"', "lang": b'"jp"'})


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def copies(clock: Clock) -> LocalCopies:
    return LocalCopies(100, 1800, clock=clock)


# Auth


def test_nothing_is_known_at_first(copies: LocalCopies) -> None:
    """A new memory knows no session, not even a dead one."""
    assert copies.auth("d") is None
    assert copies.category("d", "ui") is None
    assert not copies.is_dead("d")
    assert copies.live_categories() == []


def test_how_late_it_is_by_the_database_is_known_from_what_it_said(clock: Clock) -> None:
    """Not before that, nor from what Redis says; at the latest: it was asked at 3 s, and may have read then or later.
    The time since goes by the start of the host."""
    since = Clock(100.0)
    copies = LocalCopies(100, 1800, clock=clock)
    copies.database_clock = DatabaseClock(clock, since)
    clock.now = 10.0
    copies.put_auth(ROW, 9.0, 4)
    assert copies.database_clock.latest_ms() == 0
    copies.put_auth(replace(ROW, read_at=7_000), 3.0)
    assert copies.database_clock.latest_ms() == 14_000
    since.now = 160.0  # the host slept, which the other clock does not count
    assert copies.database_clock.latest_ms() == 74_000


def test_what_the_database_said_comes_back(copies: LocalCopies) -> None:
    """A row comes back with the moment at which it was confirmed."""
    copies.put_auth(ROW, 12.5)
    assert copies.auth("d") == LocalAuth(ROW, 12.5)


def test_what_this_worker_made_is_kept_as_such(copies: LocalCopies) -> None:
    """The number of its change goes with the row; what the database says later is only what it says."""
    copies.put_auth(ROW, 10.0, change=5)
    assert copies.auth("d") == LocalAuth(ROW, 10.0, 5)
    copies.put_auth(ROW, 10.001)
    assert copies.auth("d") == LocalAuth(ROW, 10.001)


@pytest.mark.parametrize(
    ("version", "confirmed_at", "replaced"),
    [(2, 99.0, False), (3, 9.0, False), (3, 11.0, True), (4, 9.0, True)],
)
def test_the_newer_row_stays(copies: LocalCopies, version: int, confirmed_at: float, replaced: bool) -> None:
    """The higher version wins, whenever it was confirmed; of the same version, the later confirmation."""
    copies.put_auth(ROW, 10.0)
    other = LocalAuth(replace(ROW, version=version, read_at=6), confirmed_at)
    copies.put_auth(other.row, other.confirmed_at)
    assert copies.auth("d") == (other if replaced else LocalAuth(ROW, 10.0))


@pytest.mark.parametrize("later", [0.0, 0.5, 0.999])
def test_a_moment_later_the_same_row_is_kept_as_it_was(copies: LocalCopies, later: float) -> None:
    """A row of which Redis says nothing new is not stored again for less than a second, and counts as the older one.
    What the database itself said just now is: it may be asked again because what is kept is a little too old."""
    copies.put_auth(ROW, 10.0)
    kept = copies.auth("d")
    copies.put_auth(replace(ROW, payload=dict(ROW.payload)), 10.0 + later, 6)
    assert copies.auth("d") is kept
    copies.put_auth(replace(ROW, read_at=6), 10.0 + later)
    assert copies.auth("d") == LocalAuth(replace(ROW, read_at=6), 10.0 + later)


def test_small_steps_add_up(copies: LocalCopies) -> None:
    """However often a session is confirmed, what is kept is less than a second behind."""
    for step in range(100):
        copies.put_auth(ROW, 10.0 + step * 0.3, 6)
        known = copies.auth("d")
        assert known is not None
        assert 10.0 + step * 0.3 - known.confirmed_at < 1


@pytest.mark.parametrize(
    "change", [{"version": 4}, {"payload": {"user_id": b"8"}}, {"payload": {}}, {"idle_expires_at": 11}]
)
def test_a_row_that_says_something_new_is_kept_at_once(copies: LocalCopies, change: dict[str, Any]) -> None:
    """A higher version, other data or another expiry replaces the row, however soon it comes."""
    copies.put_auth(ROW, 10.0)
    copies.put_auth(replace(ROW, **change), 10.001, 6)
    assert copies.auth("d") == LocalAuth(replace(ROW, read_at=6, **change), 10.001)


# Categories


def test_the_same_copy_is_not_copied_again(copies: LocalCopies) -> None:
    """Putting what is kept already changes nothing; other fields under the same version do."""
    copies.put_category("d", "ui", COPY)
    kept = copies.category("d", "ui")
    copies.put_category("d", "ui", CategoryCopy(4, dict(COPY.fields)))
    assert copies.category("d", "ui") is kept
    copies.put_category("d", "ui", CategoryCopy(4, {**COPY.fields, "text": b'"b"'}))
    assert copies.category("d", "ui") == CategoryCopy(4, {"text": b'"b"', "lang": b'"jp"'})


def test_a_category_never_gets_older(copies: LocalCopies) -> None:
    """A complete copy replaces one of the same or a lower version, never a higher one."""
    copies.put_category("d", "ui", COPY)
    copies.put_category("d", "ui", CategoryCopy(3, {}))
    assert copies.category("d", "ui") == COPY
    same = CategoryCopy(4, {"text": b"1"})
    copies.put_category("d", "ui", same)
    assert copies.category("d", "ui") == same


@pytest.mark.parametrize("asked_at", [9.0, 10.0, 11.0])
def test_what_the_primary_said_is_true_unless_it_was_asked_before(
    copies: LocalCopies, clock: Clock, asked_at: float
) -> None:
    """A category that was cleared begins anew, by a clock that may be behind. An answer that comes late is older than
    what another request has written or read meanwhile."""
    clock.now = 10.0
    is_late = asked_at < clock.now
    copies.put_category("d", "ui", COPY)
    assert copies.put_category("d", "ui", CategoryCopy(3, {}), as_of=asked_at) is not is_late
    assert copies.category("d", "ui") == (COPY if is_late else CategoryCopy(3, {}))


@pytest.mark.parametrize("asked_at", [9.0, 11.0])
def test_that_nothing_was_there_is_no_news_when_it_was_asked_before(clock: Clock, asked_at: float) -> None:
    """The category was begun since: nothing is missing, and nothing was lost."""
    missing: list[str] = []
    copies = LocalCopies(2, 60, on_missing=missing.append, clock=clock)
    clock.now = 10.0
    copies.put_category("d", "ui", COPY, kind="a")
    assert not copies.put_absent("d", "ui", 9, asked_at)
    is_late = asked_at < clock.now
    assert copies.category("d", "ui") == (COPY if is_late else CategoryCopy(9, {}))
    assert missing == ([] if is_late else ["d"])


def test_categories_and_sessions_are_apart(copies: LocalCopies) -> None:
    """A copy is found under its own session and category only."""
    copies.put_category("d", "ui", COPY)
    assert copies.category("d", "translation") is None
    assert copies.category("e", "ui") is None


def written(**changes: bytes) -> Callable[[Fields], Fields]:
    """What a write does to the fields that it finds."""
    return lambda fields: {**fields, **changes}


@pytest.mark.parametrize(("before", "after", "kept"), [(4, 5, 5), (4, 9, 9), (5, 9, 4), (3, 9, 4), (0, 9, 4)])
def test_a_patch_takes_the_version_of_a_write_that_found_the_copy(
    copies: LocalCopies, before: int, after: int, kept: int
) -> None:
    """A write is applied; the copy takes its version only if no write of others lies between."""
    copies.put_category("d", "ui", COPY)
    copies.patch_category("d", "ui", lambda fields: {"text": b'"b"', "new": fields["lang"]}, before, after)
    assert copies.category("d", "ui") == CategoryCopy(kept, {"text": b'"b"', "new": b'"jp"'})


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 4)])
def test_a_late_patch_is_already_contained(copies: LocalCopies, before: int, after: int) -> None:
    """A write that the complete copy already contains does not bring an older value back."""
    copies.put_category("d", "ui", COPY)
    copies.patch_category("d", "ui", written(text=b'"old"'), before, after)
    assert copies.category("d", "ui") == COPY


def test_a_patch_without_a_copy_stores_nothing(copies: LocalCopies) -> None:
    """A part of a category is never kept as if it were the whole."""
    copies.patch_category("d", "ui", written(text=b"1"), 0, 1)
    assert copies.category("d", "ui") is None


@pytest.mark.parametrize(
    ("held", "kept"),
    [
        (None, CategoryCopy(9, {})),
        (COPY, CategoryCopy(9, {})),
        (CategoryCopy(12, {"text": b"1"}), CategoryCopy(9, {})),
        (CategoryCopy(4, {}), CategoryCopy(4, {})),
        (CategoryCopy(12, {}), CategoryCopy(12, {})),
    ],
)
def test_that_nothing_is_there_is_kept_too(copies: LocalCopies, held: CategoryCopy | None, kept: CategoryCopy) -> None:
    """The primary has just said so: not to know would be another thing. Known again, it is not put anew each time."""
    if held is not None:
        copies.put_category("d", "ui", held)
    copies.put_absent("d", "ui", 9)
    assert copies.category("d", "ui") == kept
    assert [shared.copy for shared in copies.live_categories()] == [kept]


def test_what_is_seen_to_be_empty_all_the_time_is_never_unknown(copies: LocalCopies, clock: Clock) -> None:
    """Its life is renewed like that of any other copy: an outage must not find it just gone."""
    for number in range(1, 40):
        copies.put_absent("d", "ui", number)
        clock.now += 1800 / 8
        assert copies.category("d", "ui") == CategoryCopy(1, {})
    clock.now += 1800
    assert copies.category("d", "ui") is None


def test_a_write_after_nothing_was_there_builds_on_that(copies: LocalCopies) -> None:
    """The copy of a category that was seen to be empty takes part in what is written to it."""
    copies.put_absent("d", "ui", 9)
    copies.patch_category("d", "ui", written(text=b"1"), 9, 12)
    assert copies.category("d", "ui") == CategoryCopy(12, {"text": b"1"})


def test_nothing_is_shared_by_reference(copies: LocalCopies) -> None:
    """Changing what was handed in changes nothing inside, and what is handed out cannot be changed."""
    payload, fields = {"user_id": b"7"}, {"lang": b'"jp"'}
    copies.put_auth(replace(ROW, payload=payload), 0)
    copies.put_category("d", "ui", CategoryCopy(1, fields))
    payload.clear()
    fields.clear()
    known, copy = copies.auth("d"), copies.category("d", "ui")
    assert known is not None
    assert copy is not None
    assert (known.row.payload, copy.fields) == ({"user_id": b"7"}, {"lang": b'"jp"'})
    for mapping in (known.row.payload, copy.fields):
        with pytest.raises(TypeError):
            mapping["x"] = b"1"  # type: ignore[index]


def test_live_categories_are_those_to_publish(copies: LocalCopies, clock: Clock) -> None:
    """Listed are the copies that are neither too old nor of a dead session."""
    copies.put_category("old", "ui", COPY)
    clock.now = 1000
    copies.put_category("d", "ui", COPY)
    copies.put_category("d", "translation", COPY)
    copies.put_category("dead", "ui", COPY)
    copies.kill("dead")
    clock.now = 1800
    copies.put_category("d", "ui", CategoryCopy(COPY.version + 1, COPY.fields))
    clock.now = 1801
    assert sorted(copies.live_categories(), key=lambda entry: entry.category) == [
        SharedCopy("d", "translation", COPY, 801, began=COPY.version),
        SharedCopy("d", "ui", CategoryCopy(COPY.version + 1, COPY.fields), 1, began=COPY.version),
    ]


# The dead


def test_a_dead_session_is_forgotten_and_stays_dead(copies: LocalCopies) -> None:
    """After kill nothing of the session is found, and no late answer puts anything back."""
    copies.put_auth(ROW, 0)
    copies.put_category("d", "ui", COPY)
    copies.put_category("d", "translation", COPY)
    copies.kill("d")
    copies.put_auth(replace(ROW, version=99), 99)
    copies.put_category("d", "ui", CategoryCopy(99, {}))
    copies.put_absent("d", "ui", 99)
    copies.patch_category("d", "translation", written(text=b"1"), 4, 5)
    assert copies.is_dead("d")
    assert copies.auth("d") is None
    assert copies.category("d", "ui") is None
    assert copies.category("d", "translation") is None


def test_killing_one_session_spares_the_others(copies: LocalCopies) -> None:
    """Only the session that was killed is dead."""
    copies.put_auth(replace(ROW, digest="e"), 0)
    copies.put_category("e", "ui", COPY)
    copies.kill("d")
    assert not copies.is_dead("e")
    assert copies.auth("e") is not None
    assert copies.category("e", "ui") == COPY


def test_the_dead_that_are_asked_about_are_remembered_longest(clock: Clock) -> None:
    """Of too many tombstones the one goes that was never asked about; asking about the living counts for nothing."""
    copies = LocalCopies(1, 1800, clock=clock)
    for number in range(10):
        copies.kill(str(number))
    assert copies.is_dead("0")
    assert not copies.is_dead("alive")
    copies.kill("10")
    assert [number for number in range(11) if not copies.is_dead(str(number))] == [1]


def test_a_tombstone_outlives_every_copy(copies: LocalCopies, clock: Clock) -> None:
    """A session is known as dead for longer than any copy of it could have been kept, and an hour more."""
    copies.kill("d")
    clock.now = 1800 + 3599
    copies.put_auth(ROW, 0)
    assert copies.is_dead("d")
    assert copies.auth("d") is None


def test_a_tombstone_lives_as_long_as_the_settings_need(clock: Clock) -> None:
    """Where copies are believed for longer, the dead and the versions that were seen are remembered for longer."""
    copies = LocalCopies(100, 1800, tombstone_ms=7_200_000, clock=clock)
    copies.kill("d")
    copies.raise_min_version("e", 4)
    clock.now = 1800 + 7199
    assert copies.is_dead("d")
    assert copies.min_version("e") == 4
    clock.now = 1800 + 7201
    assert not copies.is_dead("d")


def test_forgetting_and_clearing_spare_tombstones(copies: LocalCopies) -> None:
    """Forgetting drops copies; the dead stay dead."""
    copies.put_auth(ROW, 0)
    copies.put_category("d", "ui", COPY)
    copies.kill("dead")
    copies.forget("d")
    assert copies.auth("d") is None
    assert copies.category("d", "ui") is None
    copies.put_category("d", "ui", COPY)
    copies.forget("dead")
    copies.clear()
    assert copies.category("d", "ui") is None
    assert copies.is_dead("dead")


# Minimum versions


def test_the_minimum_version_is_the_highest_version_seen(copies: LocalCopies) -> None:
    """I4: an older copy never lowers it. Nothing but a first version, or nothing at all, is no minimum version."""
    assert copies.min_version("d") == 0
    copies.put_auth(replace(ROW, version=1), 0)
    assert copies.min_version("d") <= 1
    for version, min_version in [(3, 3), (2, 3), (7, 7), (1, 7)]:
        copies.put_auth(replace(ROW, version=version), 99.0)
        assert copies.min_version("d") == min_version
    assert copies.min_version("e") == 0


def test_no_version_reaches_the_minimum_version_of_the_dead(copies: LocalCopies) -> None:
    """I5: and no later answer lowers it."""
    copies.kill("d")
    copies.put_auth(replace(ROW, version=2**62), 99)
    assert copies.min_version("d") == DEAD > 2**62


def test_a_minimum_version_outlives_the_copy(copies: LocalCopies, clock: Clock) -> None:
    """What was withdrawn stays withdrawn when the copy has gone, for an hour longer."""
    copies.put_auth(ROW, 0)
    clock.now = 1801
    assert copies.auth("d") is None
    assert copies.min_version("d") == 3
    copies.clear()
    copies.forget("d")
    assert copies.min_version("d") == 3
    clock.now = 1800 + 3599
    assert copies.min_version("d") == 3
    clock.now = 1800 + 3601
    assert copies.min_version("d") == 0
    assert copies.evicted_at == float("-inf")  # its time was over: no copy that old is believed anyway


def test_a_minimum_version_is_seen_again_from_its_last_rise(copies: LocalCopies, clock: Clock) -> None:
    """A higher version begins a life of its own."""
    copies.put_auth(ROW, 0)
    clock.now = 5000
    copies.put_auth(replace(ROW, version=4), 5000)
    clock.now = 5000 + 1800 + 3599
    assert copies.min_version("d") == 4


def test_a_minimum_version_that_must_go_before_its_time_leaves_a_mark(clock: Clock) -> None:
    """Copies confirmed before the forgotten minimum version was seen may be older than it: they count no more."""
    copies = LocalCopies(1, 1800, clock=clock)
    for number in range(10):
        clock.now = 100.0 + number
        copies.put_auth(replace(ROW, digest=str(number)), clock.now)
    assert copies.evicted_at == float("-inf")
    clock.now = 200.0
    copies.put_auth(replace(ROW, digest="one too many"), clock.now)
    assert copies.evicted_at == 100.0
    assert [number for number in range(10) if not copies.min_version(str(number))] == [0]


def test_the_mark_never_goes_back(clock: Clock) -> None:
    """Minimum versions go in the order of their use, not of the moments at which they were seen."""
    copies = LocalCopies(1, 1800, clock=clock)
    for number in range(10):
        clock.now = 100.0 + number
        copies.kill(str(number))
    assert copies.is_dead("0")  # used: number 1 goes first
    for moment in (200.0, 300.0):
        clock.now = moment
        copies.kill(str(moment))
        assert copies.evicted_at == {200.0: 101.0, 300.0: 102.0}[moment]
    for number in range(3, 10):
        copies.is_dead(str(number))
    copies.kill("and one more")
    assert not copies.is_dead("0")
    assert copies.evicted_at == 102.0


def test_a_first_version_needs_no_minimum_version(clock: Clock) -> None:
    """Nothing is below it: the many sessions that never change leave the places to those that do."""
    copies = LocalCopies(1, 1800, clock=clock)
    copies.put_auth(ROW, 0)
    for number in range(50):
        copies.put_auth(replace(ROW, digest=str(number), version=1), 0)
    assert copies.min_version("d") == 3
    assert copies.evicted_at == float("-inf")


# Logged out everywhere


def sessions_of(copies: LocalCopies, **created: int) -> None:
    for digest, created_at in created.items():
        copies.put_auth(replace(ROW, digest=digest, created_at=created_at), 0)


def test_a_user_is_signed_out_of_what_began_until_then(copies: LocalCopies) -> None:
    """S7: a session that begins later is not touched; that of another user neither."""
    sessions_of(copies, before=999, at=1000, after=1001)
    copies.put_auth(replace(ROW, digest="other", user_id="8", created_at=0), 0)
    copies.put_auth(replace(ROW, digest="nobody", user_id=None, created_at=0), 0)
    assert sorted(copies.sign_out_user("7", 1000)) == ["at", "before"]
    assert [digest for digest in ("before", "at", "after", "other", "nobody") if copies.is_dead(digest)] == [
        "before", "at",
    ]  # fmt: skip


def test_a_row_that_turns_up_later_is_signed_out_too(copies: LocalCopies) -> None:
    """Another worker, or Redis, may still have what this one has not seen yet."""
    copies.sign_out_user("7", 1000)
    for created_at, user_id, is_out in [
        (999, "7", True),
        (1000, "7", True),
        (1001, "7", False),
        (0, "8", False),
        (0, None, False),
    ]:
        row = replace(ROW, user_id=user_id, created_at=created_at)
        assert copies.is_signed_out(row) is is_out


def test_the_later_moment_counts(copies: LocalCopies) -> None:
    """The journal tells it again and again: an older word changes nothing, a newer one ends what began since."""
    sessions_of(copies, first=500, second=1500)
    assert copies.sign_out_user("7", 1000) == ["first"]
    assert copies.sign_out_user("7", 1000) == []
    assert copies.sign_out_user("7", 400) == []
    assert not copies.is_dead("second")
    assert copies.is_signed_out(replace(ROW, created_at=900))
    assert copies.sign_out_user("7", 2000) == ["second"]
    assert copies.is_signed_out(replace(ROW, created_at=1900))


@pytest.mark.parametrize(
    ("created_at", "epoch", "has_lost"),
    [(2001, 1, True), (2000, 1, False), (1001, 1, False), (1000, 1, False), (2001, 2, False), (2001, 3, False)],
)
def test_a_database_has_lost_an_epoch_in_which_no_session_can_have_begun(
    clock: Clock, created_at: int, epoch: int, has_lost: bool
) -> None:
    """I34: one that began before this worker was told of the later epoch may have begun before that, and stays over.
    The user is in the lost epoch then, and what began later is not over for it."""
    users = LocalCopies(100, 1800, clock=clock, now_ms=lambda: 2000).signed_out
    users.note("7", 1000, 2)
    row = replace(ROW, created_at=created_at, user_epoch=epoch)
    assert users.have_lost(row) is has_lost
    users.go_back(replace(ROW, created_at=2001, user_epoch=1))
    assert users.are_over(row) is (created_at <= 2000)


def test_many_users_are_remembered_and_no_more(copies: LocalCopies) -> None:
    """Memory is bounded, whatever an operator does."""
    for number in range(1001):
        copies.sign_out_user(str(number), 1000)
    signed_out = [n for n in range(1001) if copies.is_signed_out(replace(ROW, user_id=str(n), created_at=0))]
    assert signed_out == list(range(1, 1001))


# Bounds


def test_life_runs_from_the_last_put(copies: LocalCopies, clock: Clock) -> None:
    """Reading does not prolong an entry's life; putting it again does."""
    copies.put_auth(ROW, 0)
    copies.put_category("d", "ui", COPY)
    clock.now = 1000
    assert copies.auth("d") is not None
    copies.put_category("d", "ui", COPY)
    clock.now = 1800
    assert copies.auth("d") is None
    assert copies.category("d", "ui") == COPY
    clock.now = 2800
    assert copies.category("d", "ui") is None


def test_a_life_is_renewed_when_a_tenth_of_it_is_over(copies: LocalCopies, clock: Clock) -> None:
    """Unchanged entries that are put all the time live on; each lives at least nine tenths from its last put."""
    while clock.now < 10_000:
        copies.put_auth(ROW, 10.0)
        copies.put_category("d", "ui", COPY)
        clock.now += 170
    clock.now += 1800 * 0.9 - 170
    assert copies.auth("d") is not None
    assert copies.category("d", "ui") == COPY
    clock.now += 1800 * 0.1
    assert copies.auth("d") is None
    assert copies.category("d", "ui") is None


def test_a_copy_that_is_written_all_the_time_lives_on(copies: LocalCopies, clock: Clock) -> None:
    """Each write is in it at once, whether it renews its life or not; it lives nine tenths of a life from the last."""
    copies.put_category("d", "ui", COPY)
    version = COPY.version
    while clock.now < 10_000:
        clock.now += 50
        copies.patch_category("d", "ui", written(number=b"%d" % clock.now), version, version + 1)
        version += 1
        assert copies.category("d", "ui") == CategoryCopy(version, {**COPY.fields, "number": b"%d" % clock.now})
        [shared] = copies.live_categories()
        assert (shared.copy.version, shared.age) == (version, 0)
    clock.now += 1800 * 0.9
    assert copies.category("d", "ui") is not None
    clock.now += 1800 * 0.1
    assert copies.category("d", "ui") is None


def test_an_unchanged_put_counts_as_use(clock: Clock) -> None:
    """What is put again without a change is not the one that was not used for longest."""
    copies = LocalCopies(2, 1800, clock=clock)
    for digest in ("a", "b", "a", "c"):
        copies.put_auth(replace(ROW, digest=digest), 10.0)
        copies.put_category(digest, "ui", COPY)
    assert [digest for digest in "abc" if copies.auth(digest) and copies.category(digest, "ui")] == ["a", "c"]


def test_the_least_used_goes_first(clock: Clock) -> None:
    """With one entry too many the one that was not read or put for longest is dropped."""
    copies = LocalCopies(2, 1800, clock=clock)
    for digest in ("a", "b"):
        copies.put_category(digest, "ui", COPY)
    copies.category("a", "ui")
    copies.put_category("c", "ui", COPY)
    assert copies.category("b", "ui") is None
    assert {copy.digest for copy in copies.live_categories()} == {"a", "c"}


CATEGORIES = ("auth", "ui", "translation")


def test_the_categories_of_a_session_take_no_room_from_other_sessions(clock: Clock) -> None:
    """D20: a visitor has a cart and nothing else, and that nothing else is there is kept, too. What goes is a whole
    session."""
    copies = LocalCopies(2, 1800, clock=clock)
    for digest in ("a", "b", "c"):
        for category in CATEGORIES[:2]:
            copies.put_absent(digest, category, 9)
        copies.put_category(digest, "translation", COPY)
    assert [digest for digest in "abc" if all(copies.category(digest, name) for name in CATEGORIES)] == ["b", "c"]
    assert [name for name in CATEGORIES if copies.category("a", name)] == []


@pytest.mark.parametrize(("size", "kept"), [(0, "bcde"), (SESSION_BYTES - 10, "bcde"), (SESSION_BYTES, "cde")])
@pytest.mark.parametrize("way", ["read", "written"])
def test_a_large_session_counts_as_several(clock: Clock, size: int, kept: str, way: str) -> None:
    """All copies together are bounded in bytes, however a session became large."""
    copies = LocalCopies(4, 1800, clock=clock)
    large = {"large": b"x" * size}
    for digest in "abcde":
        if digest != "e" or way == "written":
            copies.put_category(digest, "ui", CategoryCopy(1, {}))
        if digest == "e":
            copies.patch_category(digest, "ui", lambda fields: {**fields, **large}, 1, 2)
            copies.put_category(digest, "ui", CategoryCopy(2, large))
    assert "".join(digest for digest in "abcde" if copies.category(digest, "ui")) == kept


def test_a_session_that_is_larger_than_all_the_room_has_it_for_itself(clock: Clock) -> None:
    """A worker with little memory keeps the session that it serves all the time."""
    copies = LocalCopies(2, 1800, clock=clock)
    copies.put_category("a", "ui", COPY)
    copies.put_category("large", "ui", CategoryCopy(1, {"large": b"x" * 10 * SESSION_BYTES}))
    assert [copy.digest for copy in copies.live_categories()] == ["large"]


def test_what_was_confirmed_last_comes_first(copies: LocalCopies, clock: Clock) -> None:
    """Where there is no room for all, those that are in use are shared and given back. To list them is no use of
    them."""
    for digest in ("a", "b", "c"):
        clock.now += 1
        copies.put_category(digest, "ui", COPY, kind="a")
    clock.now += 1
    copies.put_category("b", "ui", COPY)
    for listed in (copies.live_categories(), copies.held()):
        assert [copy.digest for copy in listed] == ["b", "c", "a"]


def test_listing_is_no_use(clock: Clock) -> None:
    """Else the beginning of an outage would make all copies equally old."""
    copies = LocalCopies(2, 1800, clock=clock)
    for digest in ("a", "b", "a"):
        copies.put_category(digest, "ui", COPY)
    copies.live_categories()
    copies.put_category("c", "ui", COPY)
    assert {copy.digest for copy in copies.live_categories()} == {"a", "c"}


@pytest.mark.parametrize(
    ("confirm", "is_known"),
    [
        (lambda copies: copies.put_category("d", "ui", COPY), True),
        (lambda copies: copies.patch_category("d", "ui", dict, 4, 5), True),
        (lambda copies: copies.put_category("d", "ui", CategoryCopy(3, {})), False),  # another server's, or late
        (lambda copies: copies.patch_category("d", "ui", dict, 3, 4), False),  # it is part of the copy already
        (lambda copies: copies.category("d", "ui"), False),
        (lambda copies: copies.live_categories(), False),
    ],
    ids=["the primary said it again", "own write", "older answer", "late write", "shown", "listed"],
)
def test_i30_a_copy_is_as_old_as_its_last_confirmation(
    copies: LocalCopies, clock: Clock, confirm: Callable[[LocalCopies], object], is_known: bool
) -> None:
    """One that was not confirmed for too long is neither shown, shared nor given back."""
    copies.put_category("d", "ui", COPY, kind="a")
    clock.now = 1000
    confirm(copies)
    clock.now = 1800
    assert [copies.category("d", "ui") is not None, bool(copies.live_categories()), bool(copies.held())] == [
        is_known
    ] * 3
    assert [copy.age for copy in copies.held()] == ([800] if is_known else [])


def test_more_of_the_dead_are_remembered_than_of_the_living(clock: Clock) -> None:
    """Ten times as many tombstones as copies are kept, and no more."""
    copies = LocalCopies(2, 1800, clock=clock)
    for number in range(21):
        copies.kill(str(number))
    assert [number for number in range(21) if not copies.is_dead(str(number))] == [0]


# Threads and forks


def test_many_threads_at_once(clock: Clock) -> None:
    """Threads that put, read, patch, list, kill and let time pass never fail and never revive the dead."""
    copies = LocalCopies(20, 5, clock=clock)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for step in range(300):
                digest = str((seed * 7 + step) % 40)
                copies.put_auth(replace(ROW, digest=digest, version=step), step)
                copies.put_category(digest, "ui", CategoryCopy(step, {"n": b"1"}))
                copies.patch_category(digest, "ui", written(n=b"2"), step, step + 1)
                if step % 10 == 0:
                    copies.kill(f"dead{step % 50}")
                    copies.put_auth(replace(ROW, digest=f"dead{step % 50}"), 0)
                    assert copies.auth(f"dead{step % 50}") is None
                    copies.live_categories()
                clock.now += 0.01
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(copies.live_categories()) <= 20


def test_a_forked_child_begins_with_nothing(copies: LocalCopies) -> None:
    """A child is a new worker: it has no copies, its own lock, and the parent keeps what it had."""
    copies.put_category("d", "ui", COPY)
    if (child := os.fork()) == 0:
        copies.put_category("e", "ui", COPY)
        os._exit(len(copies.live_categories()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert copies.category("d", "ui") == COPY


def test_a_fork_under_load_leaves_no_lock_behind() -> None:
    """Children forked while other threads use the memory can use theirs at once."""
    script = """
        import os, threading, warnings
        from flask_langpont_session.policy.values import CategoryCopy
        from flask_langpont_session.stores.local import LocalCopies
        warnings.simplefilter("ignore")
        copies, stop = LocalCopies(100, 1800), threading.Event()
        def work():
            while not stop.is_set():
                copies.put_category("d", "ui", CategoryCopy(1, {"a": b"1"}))
        threads = [threading.Thread(target=work) for _ in range(3)]
        [thread.start() for thread in threads]
        for _ in range(20):
            if (child := os.fork()) == 0:
                copies.kill("d")
                os._exit(copies.is_dead("d"))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        stop.set()
        [thread.join() for thread in threads]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
