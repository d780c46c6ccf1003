"""This worker's memory: bounds, versions, tombstones, threads and forks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import CategoryCopy, Change, RecordRef, SharedCopy
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.memory.ended import DEAD, DatabaseClock, Ended
from flask_langpont_session.stores.memory.memory import IN_USE, LARGEST_SHARE, LocalAuth, Memory
from flask_langpont_session.stores.redis.lane import Copy, Lane
from flask_langpont_session.stores.redis.records import Written
from flask_langpont_session.stores.redis.server_identity import Server
from tests.support.children import in_child_of_locked, locked
from tests.support.clock import Clock
from tests.support.known import content, known, wrote

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
WRITTEN = {"text": b'"b"', "lang": b'"jp"', "new": b"1"}


DIGEST = "d" * 43
META = DIGEST[:8].encode() + b"%016d%016d" % (9, 4) + b"000000" + b"-------" + b"0" * 11


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def memory(clock: Clock) -> Memory:
    return Memory(ttl=1800, clock=clock)


# Auth


def test_how_late_it_is_by_the_database_is_known_from_what_it_said(clock: Clock) -> None:
    """Not before that, nor from what Redis says; at the latest: it was asked at 3 s, and may have read then or later.
    The time since goes by the start of the host."""
    since = Clock(100.0)
    memory = Memory(ttl=1800, clock=clock)
    memory.ended.database_clock = DatabaseClock(clock, since)
    clock.now = 10.0
    memory.put_auth(ROW, 9.0, 4)
    assert memory.ended.database_clock.latest_ms() == 0
    memory.put_auth(replace(ROW, read_at=7_000), 3.0)
    assert memory.ended.database_clock.latest_ms() == 14_000
    since.now = 160.0  # the host slept, which the other clock does not count
    assert memory.ended.database_clock.latest_ms() == 74_000


@pytest.mark.parametrize(
    ("asked_at", "read_at", "latest_ms"),
    [
        (18.0, 23_500, 25_000),  # slow: it says no more than before
        (19.9, 24_950, 25_000),
        (19.9, 24_500, 24_600),  # quicker than the first one was
        (19.0, 25_500, 26_500),  # set forward
        (18.0, 4_000, 6_000),  # set back
    ],
)
def test_the_quickest_answer_tells_the_time_of_the_database(
    clock: Clock, asked_at: float, read_at: int, latest_ms: int
) -> None:
    """Unless an answer contradicts it."""
    told = DatabaseClock(clock, clock)
    clock.now = 10.0
    told.note(14_800, 9.8)
    clock.now = 20.0
    told.note(read_at, asked_at)
    assert told.latest_ms() == latest_ms


@pytest.mark.parametrize(
    ("version", "confirmed_at", "replaced"),
    [(2, 99.0, False), (3, 9.0, False), (3, 11.0, True), (4, 9.0, True)],
)
def test_the_newer_row_stays(memory: Memory, version: int, confirmed_at: float, replaced: bool) -> None:
    """The higher version wins, whenever it was confirmed; of the same version, the later confirmation."""
    memory.put_auth(ROW, 10.0)
    other = LocalAuth(replace(ROW, version=version, read_at=6), confirmed_at)
    memory.put_auth(other.row, other.confirmed_at)
    assert memory.auth("d") == (other if replaced else LocalAuth(ROW, 10.0))


@pytest.mark.parametrize(
    "change", [{"version": 4}, {"payload": {"user_id": b"8"}}, {"payload": {}}, {"idle_expires_at": 11}]
)
def test_a_row_that_says_something_new_is_kept_at_once(memory: Memory, change: dict[str, Any]) -> None:
    """A higher version, other data or another expiry replaces the row, however soon it comes."""
    memory.put_auth(ROW, 10.0)
    memory.put_auth(replace(ROW, **change), 10.001, 6)
    assert memory.auth("d") == LocalAuth(replace(ROW, read_at=6, **change), 10.001)


# Categories


@pytest.mark.parametrize("asked_at", [9.0, 10.0, 11.0])
def test_what_the_primary_said_is_true_unless_it_was_asked_before(
    memory: Memory, clock: Clock, asked_at: float
) -> None:
    """A category that was cleared begins anew, by a clock that may be behind. An answer that comes late is older than
    what another request has written or read meanwhile."""
    clock.now = 10.0
    is_late = asked_at < clock.now
    memory.put_category("d", "ui", known(COPY))
    assert memory.put_category("d", "ui", known(CategoryCopy(3, {})), as_of=asked_at) is not is_late
    assert content(memory.category("d", "ui")) == (COPY if is_late else CategoryCopy(3, {}))


@pytest.mark.parametrize("asked_at", [9.0, 11.0])
def test_that_nothing_was_there_is_no_news_when_it_was_asked_before(clock: Clock, asked_at: float) -> None:
    """The category was begun since: nothing is missing, and nothing was lost."""
    missing: list[str] = []
    memory = Memory(ttl=60, clock=clock)
    memory.on_missing = missing.append
    clock.now = 10.0
    memory.put_category("d", "ui", known(COPY), kind="a")
    assert not memory.put_absent("d", "ui", 9, asked_at)
    is_late = asked_at < clock.now
    assert content(memory.category("d", "ui")) == (COPY if is_late else CategoryCopy(9, {}))
    assert missing == ([] if is_late else ["d"])


def test_what_the_primary_misses_is_known_until_it_is_certain_that_nothing_was_lost(
    memory: Memory, clock: Clock
) -> None:
    """A loss may have come after the look that found none, and a look at one shard says nothing of another."""
    memory.put_category("d", "ui", known(COPY), kind="a")
    clock.now = 5.0
    memory.put_absent("d", "ui", 9)
    for before, shard, is_known in ((5.0, "d", True), (6.0, "e", True), (6.0, "d", False)):
        memory.nothing_was_lost(before, lambda digest, shard=shard: digest == shard)  # type: ignore[misc]
        found = content(memory.category("d", "ui", before_loss=True))
        assert found == (COPY if is_known else CategoryCopy(9, {}))


@pytest.mark.parametrize(
    ("held", "before", "after", "kept"),
    [
        (COPY, 4, 5, CategoryCopy(5, WRITTEN)),
        (COPY, 4, 9, CategoryCopy(9, WRITTEN)),
        (COPY, 5, 9, CategoryCopy(4, WRITTEN)),  # writes of others lie between
        (COPY, 3, 9, CategoryCopy(4, WRITTEN)),
        (COPY, 2, 3, COPY),  # it is contained already
        (COPY, 3, 4, COPY),
        (None, 3, 4, None),  # what else there is is not known
        (CategoryCopy(9, {}), 9, 12, CategoryCopy(12, {"text": b'"b"', "new": b"1"})),
    ],
)
def test_a_copy_takes_the_version_of_a_write_that_found_it(
    memory: Memory, held: CategoryCopy | None, before: int, after: int, kept: CategoryCopy | None
) -> None:
    if held is not None:
        memory.put_category("d", "ui", known(held))
    wrote(memory, "d", "ui", before, after, text=b'"b"', new=b"1")
    assert content(memory.category("d", "ui")) == kept


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
def test_that_nothing_is_there_is_kept_too(memory: Memory, held: CategoryCopy | None, kept: CategoryCopy) -> None:
    """The primary has just said so: not to know would be another thing. Known again, it is not put anew each time."""
    if held is not None:
        memory.put_category("d", "ui", known(held))
    memory.put_absent("d", "ui", 9)
    assert content(memory.category("d", "ui")) == kept
    assert [content(shared.copy) for shared in memory.live_categories()] == [kept]


def test_what_is_seen_to_be_empty_all_the_time_is_never_unknown(memory: Memory, clock: Clock) -> None:
    """Its life is renewed like that of any other copy: an outage must not find it just gone."""
    for number in range(1, 40):
        memory.put_absent("d", "ui", number)
        clock.now += 1800 / 8
        assert content(memory.category("d", "ui")) == CategoryCopy(1, {})
    clock.now += 1800
    assert memory.category("d", "ui") is None


def test_nothing_is_shared_by_reference(memory: Memory) -> None:
    """Changing what was handed in changes nothing inside, and what is handed out cannot be changed."""
    payload, change = {"user_id": b"7"}, CategoryChange(0, sets={"lang": b'"jp"'})
    memory.put_auth(replace(ROW, payload=payload), 0)
    memory.write("d", "ui", change, Change(0, 1))
    payload.clear()
    change.sets.clear()
    auth, copy = memory.auth("d"), memory.category("d", "ui")
    assert auth is not None and copy is not None
    assert (auth.row.payload, copy.fields) == ({"user_id": b"7"}, {"lang": b'"jp"'})
    with pytest.raises(TypeError):
        auth.row.payload["x"] = b"1"  # type: ignore[index]


def test_live_categories_are_those_to_publish(memory: Memory, clock: Clock) -> None:
    """Listed are the copies that are neither too old nor of a dead session."""
    memory.put_category("old", "ui", known(COPY))
    clock.now = 1000
    memory.put_category("d", "ui", known(COPY))
    memory.put_category("d", "translation", known(COPY))
    memory.put_category("dead", "ui", known(COPY))
    memory.kill("dead")
    clock.now = 1800
    memory.put_category("d", "ui", known(CategoryCopy(COPY.version + 1, COPY.fields)))
    clock.now = 1801
    assert sorted(memory.live_categories(), key=lambda entry: entry.category) == [
        SharedCopy("d", "translation", COPY, 801),
        SharedCopy("d", "ui", CategoryCopy(COPY.version + 1, COPY.fields), 1),
    ]


# The dead


def test_a_dead_session_is_forgotten_and_stays_dead(memory: Memory, clock: Clock) -> None:
    """No late answer puts anything of it back, for an hour longer than a copy could have been kept (I5). Others live
    on; to forget what is kept of them kills none."""
    for digest in ("d", "e"):
        memory.put_auth(replace(ROW, digest=digest), 0)
        memory.put_category(digest, "ui", known(COPY))
        memory.put_category(digest, "translation", known(COPY))
    memory.kill("d")
    clock.now = 1000
    assert [memory.ended.is_dead(digest) for digest in ("d", "e", "unknown")] == [True, False, False]
    assert content(memory.category("e", "ui")) == COPY
    memory.forget("e")
    assert (memory.auth("e"), memory.category("e", "ui")) == (None, None)
    memory.forget("d")
    memory.clear()
    clock.now = 1800 + 3599
    memory.put_auth(replace(ROW, version=2**62), 99)
    memory.put_category("d", "ui", known(CategoryCopy(99, {})))
    memory.put_absent("d", "ui", 99)
    wrote(memory, "d", "translation", 4, 5, text=b"1")
    assert (memory.auth("d"), memory.category("d", "ui"), memory.category("d", "translation")) == (None, None, None)
    assert memory.ended.is_dead("d") and memory.ended.min_version("d") == DEAD > 2**62


def test_the_dead_that_are_asked_about_are_remembered_longest(clock: Clock) -> None:
    """If there are too many tombstones, one that was never asked about goes; asking about a live session counts for
    nothing."""
    memory = Memory(1, 1800, clock=clock)
    for number in range(10):
        memory.kill(str(number))
    assert memory.ended.is_dead("0")
    assert not memory.ended.is_dead("alive")
    memory.kill("10")
    assert [number for number in range(11) if not memory.ended.is_dead(str(number))] == [1]


def test_a_tombstone_lives_as_long_as_the_settings_need(clock: Clock) -> None:
    """If copies are believed for longer, tombstones and seen versions are remembered for longer, too."""
    memory = Memory(clock=clock, ended=Ended(tombstone_ms=7_200_000, clock=clock))
    memory.kill("d")
    memory.ended.raise_min_version("e", 4)
    clock.now = 1800 + 7199
    assert memory.ended.is_dead("d")
    assert memory.ended.min_version("e") == 4
    clock.now = 1800 + 7201
    assert not memory.ended.is_dead("d")


# Minimum versions


def test_the_minimum_version_is_the_highest_version_seen(memory: Memory) -> None:
    """I4: an older copy never lowers it. Nothing but a first version, or nothing at all, is no minimum version."""
    assert memory.ended.min_version("d") == 0
    memory.put_auth(replace(ROW, version=1), 0)
    assert memory.ended.min_version("d") <= 1
    for version, min_version in [(3, 3), (2, 3), (7, 7), (1, 7)]:
        memory.put_auth(replace(ROW, version=version), 99.0)
        assert memory.ended.min_version("d") == min_version
    assert memory.ended.min_version("e") == 0


def test_a_minimum_version_outlives_the_copy(memory: Memory, clock: Clock) -> None:
    """A change that was withdrawn stays withdrawn for an hour after the copy has gone, counted from the last rise."""
    memory.put_auth(ROW, 0)
    clock.now = 1801
    memory.put_auth(replace(ROW, version=2), 1801)
    memory.clear()
    memory.forget("d")
    clock.now = 1800 + 3599
    assert memory.ended.min_version("d") == 3
    memory.put_auth(replace(ROW, version=4), clock.now)
    clock.now += 1800 + 3599
    assert memory.ended.min_version("d") == 4
    clock.now += 2
    assert memory.ended.min_version("d") == 0
    assert memory.ended.evicted_at == float("-inf")  # its time was over: no copy that old is believed anyway


def test_a_minimum_version_that_must_go_before_its_time_leaves_a_mark(clock: Clock) -> None:
    """Copies confirmed before the forgotten minimum version was seen may be older than it: they count no more."""
    memory = Memory(1, 1800, clock=clock)
    for number in range(10):
        clock.now = 100.0 + number
        memory.put_auth(replace(ROW, digest=str(number)), clock.now)
    assert memory.ended.evicted_at == float("-inf")
    clock.now = 200.0
    memory.put_auth(replace(ROW, digest="one too many"), clock.now)
    assert memory.ended.evicted_at == 100.0
    assert [number for number in range(10) if not memory.ended.min_version(str(number))] == [0]


def test_the_mark_never_goes_back(clock: Clock) -> None:
    """Minimum versions go in the order of their use, not of the moments at which they were seen."""
    memory = Memory(1, 1800, clock=clock)
    for number in range(10):
        clock.now = 100.0 + number
        memory.kill(str(number))
    assert memory.ended.is_dead("0")  # used: number 1 goes first
    for moment in (200.0, 300.0):
        clock.now = moment
        memory.kill(str(moment))
        assert memory.ended.evicted_at == {200.0: 101.0, 300.0: 102.0}[moment]
    for number in range(3, 10):
        memory.ended.is_dead(str(number))
    memory.kill("and one more")
    assert not memory.ended.is_dead("0")
    assert memory.ended.evicted_at == 102.0


def test_a_first_version_needs_no_minimum_version(clock: Clock) -> None:
    """Nothing is below it: the many sessions that never change leave the places to those that do."""
    memory = Memory(1, 1800, clock=clock)
    memory.put_auth(ROW, 0)
    for number in range(50):
        memory.put_auth(replace(ROW, digest=str(number), version=1), 0)
    assert memory.ended.min_version("d") == 3
    assert memory.ended.evicted_at == float("-inf")


# Logged out everywhere


def test_a_user_is_signed_out_of_what_began_until_then(memory: Memory) -> None:
    """S7: a session that begins later is not touched, nor one of another user. A row that another worker, or Redis,
    may still have is over as well."""
    rows = [
        replace(ROW, digest=digest, user_id=user_id, created_at=created_at)
        for digest, user_id, created_at in (
            ("before", "7", 999), ("at", "7", 1000), ("after", "7", 1001), ("other", "8", 0), ("visitor", None, 0),
        )
    ]  # fmt: skip
    for row in rows:
        memory.put_auth(row, 0)
    assert sorted(memory.sign_out_user("7", 1000)) == ["at", "before"]
    assert [row.digest for row in rows if memory.ended.is_dead(row.digest)] == ["before", "at"]
    assert [row.digest for row in rows if memory.ended.is_signed_out(row)] == ["before", "at"]
    assert memory.sign_out_user("7", 1000, epoch=1) == ["after"], "it began in an earlier epoch"


def test_the_later_moment_counts(memory: Memory) -> None:
    """The journal tells it again and again: an older word changes nothing, a newer one ends what began since."""
    for digest, created_at in (("first", 500), ("second", 1500)):
        memory.put_auth(replace(ROW, digest=digest, created_at=created_at), 0)
    ended = [memory.sign_out_user("7", until_ms) for until_ms in (1000, 1000, 400)]
    assert ended == [["first"], [], []]
    assert memory.ended.is_signed_out(replace(ROW, created_at=900))
    assert memory.sign_out_user("7", 2000) == ["second"]


@pytest.mark.parametrize(
    ("created_at", "epoch", "has_lost"),
    [(2001, 1, True), (2000, 1, False), (1001, 1, False), (1000, 1, False), (2001, 2, False), (2001, 3, False)],
)
def test_a_database_has_lost_an_epoch_in_which_no_session_can_have_begun(
    clock: Clock, created_at: int, epoch: int, has_lost: bool
) -> None:
    """I34: one that began before this worker was told of the later epoch may have begun before that, and stays over.
    The user is in the lost epoch then, and what began later is not over for it."""
    users = Ended(clock=clock, now_ms=lambda: 2000).signed_out
    users.note("7", 1000, 2)
    row = replace(ROW, created_at=created_at, user_epoch=epoch)
    assert users.have_lost(row) is has_lost
    users.go_back(replace(ROW, created_at=2001, user_epoch=1))
    assert users.are_over(row) is (created_at <= 2000)


def test_many_users_are_remembered_and_no_more(memory: Memory) -> None:
    """Memory is bounded, whatever an operator does."""
    for number in range(1001):
        memory.sign_out_user(str(number), 1000)
    signed_out = [n for n in range(1001) if memory.ended.is_signed_out(replace(ROW, user_id=str(n), created_at=0))]
    assert signed_out == list(range(1, 1001))


# Bounds


def test_life_runs_from_the_last_put(memory: Memory, clock: Clock) -> None:
    """Reading does not prolong an entry's life; putting it again does."""
    memory.put_auth(ROW, 0)
    memory.put_category("d", "ui", known(COPY))
    clock.now = 1000
    assert memory.auth("d") is not None
    memory.put_category("d", "ui", known(COPY))
    clock.now = 1800
    assert memory.auth("d") is None
    assert content(memory.category("d", "ui")) == COPY
    clock.now = 2800
    assert memory.category("d", "ui") is None


ROOM = 60 * 1950
"""Bytes: for thirty to sixty sessions like :data:`COPY`, by what is counted of them."""


def fill(memory: Memory, used: str = "") -> None:
    """Keep more sessions than there is room for, and use one all the while."""
    for number in range(120):
        memory.put_category(f"other {number}", "ui", known(COPY))
        memory.entry(used)


@pytest.mark.parametrize(
    ("use", "is_known"),
    [
        (lambda memory: memory.category("d", "ui"), True),
        (lambda memory: memory.put_category("d", "ui", known(COPY)), True),
        (lambda memory: memory.auth("d"), True),
        (lambda memory: memory.entry("d"), True),
        (lambda memory: memory.live_categories(), False),  # else an outage would make all equally old
        (lambda memory: memory.held(), False),
        (lambda memory: None, False),
    ],
    ids=["shown", "confirmed", "auth", "near", "listed", "given back", "not used"],
)
def test_what_was_not_used_lately_goes_first(clock: Clock, use: Callable[[Memory], object], is_known: bool) -> None:
    """All of a session, whatever of it was used."""
    memory = Memory(ROOM, clock=clock)
    memory.put_auth(ROW, 0.0)
    memory.put_category("d", "ui", known(COPY))
    memory.put_absent("d", "translation", 9)
    for number in range(120):
        memory.put_category(f"other {number}", "ui", known(COPY))
        use(memory)
    found = memory.auth("d"), memory.category("d", "ui"), memory.category("d", "translation")
    assert [part is not None for part in found] == [is_known] * 3
    assert 30 <= len({copy.digest for copy in memory.live_categories()}) <= 61


def test_sessions_in_use_that_had_to_go_are_counted(clock: Clock) -> None:
    """A figure for operators: there is too little memory."""
    memory = Memory(ROOM, clock=clock)
    for digest in ("a", "b"):
        memory.put_category(digest, "ui", known(COPY))
    clock.now += IN_USE + 1
    fill(memory)
    alone = memory.forgotten
    assert 30 <= memory.sessions <= 61
    assert alone == 120 - memory.sessions  # the two were not in use any more
    fill(memory, used="other 1")
    assert memory.forgotten > alone


@pytest.mark.parametrize(
    ("way", "grown"),
    [("read", 1), ("written", 1), ("near", 2), ("noted", 1), ("missed", 1), ("signed in", 1)],
)
def test_all_that_is_kept_of_a_session_counts(memory: Memory, way: str, grown: int) -> None:
    """However a session became large, it takes the room of others; what several parts share counts once."""
    large = known(CategoryCopy(9, {"large": b"x" * 9000}), mark=b"mark")
    memory.put_category("d", "ui", large if way == "missed" else known(COPY), kind="a")
    entry = memory.entry("d")
    assert entry is not None
    before = 0 if way == "missed" else entry.weight
    if way == "read":
        memory.put_category("d", "ui", large)
    elif way == "written":
        wrote(memory, "d", "ui", 4, 9, large=b"x" * 9000)
    elif way == "near":
        memory.put_near("d", (near(ui=known(COPY)), near(ui=large), near(ui=large._replace(mark=b"other"))))
    elif way == "noted":
        memory.note(RecordRef("d", "a"), {"translation": large})
    elif way == "signed in":
        memory.put_auth(replace(ROW, payload=large.fields), 0.0)
    else:
        memory.put_absent("d", "ui", 9)
    assert 8000 * grown < entry.weight - before < 12_000 * grown


def near(**records: CategoryCopy) -> Copy:
    return Copy({}, "a", 1, records, 0.0, 0.0, 9.0, b"", Server("run"), Lane(Memory()), object())


@pytest.mark.parametrize(("before", "kept"), [(3, 9), (8, 9), (9, 10), (0, 9), (10, 9)])
def test_a_write_that_is_told_late_takes_nothing_back(memory: Memory, before: int, kept: int) -> None:
    """Another thread may have read what came after it, over another connection, before its writer says so. What is
    kept becomes as new as a write only if it was what the server had before."""
    digest, after = "d" * 43, before + 1
    there, meta = (b"%b%016d%016d%b" % (b"d" * 8, at, at, b"000000write.100000080001") for at in (9, after))
    memory.put_category(digest, "ui", known(CategoryCopy(9, {"text": b"9"}), mark=there))
    change = CategoryChange(1, sets={"text": b"%d" % after})
    done = Written("written", {"ui": Change(before, after, meta)})
    is_known = memory.rewrite(digest, memory.opened(digest), [], {"ui": change}, done, b"")
    assert content(memory.category(digest, "ui")) == CategoryCopy(kept, {"text": b"%d" % kept})
    assert is_known is done.is_held is (before == 9)


def test_by_the_first_write_of_a_category_it_is_not_known_yet_whose_it_is(memory: Memory) -> None:
    """I25: a copy without the kind of its session is not given back."""
    digest = "d" * 43
    memory.put_absent(digest, "ui", 9)
    change, meta = (
        CategoryChange(0, sets={"text": b"1"}),
        b"%b%016d%016d%b" % (b"d" * 8, 10, 10, b"000000write.100000050001"),
    )
    done = Written("written", {"ui": Change(0, 10, meta)})
    assert memory.rewrite(digest, memory.opened(digest), [], {"ui": change}, done, b"")
    assert not done.is_held


@pytest.mark.parametrize(("wipe", "began"), [(True, 0), (False, 5)])
def test_what_begins_with_a_wipe_says_that_nothing_else_is_there(memory: Memory, wipe: bool, began: int) -> None:
    """I32: else it may have begun after a loss, and is given back as a part."""
    memory.write("d", "ui", CategoryChange(0, sets={"text": b"1"}, wipe=wipe), Change(3 if wipe else 0, 5), kind="a")
    copy = memory.category("d", "ui")
    assert copy is not None and copy.began == began


def test_what_is_too_large_is_not_kept(clock: Clock) -> None:
    """Else one session would push all others out. Nothing that is older is kept of it either."""
    memory = Memory(ROOM, clock=clock)
    memory.put_category("d", "ui", known(COPY))
    wrote(memory, "d", "ui", 4, 5, large=b"x" * (ROOM // LARGEST_SHARE))
    assert memory.entry("d") is None and memory.live_categories() == []


# What need not be sent again


UI = RecordRef("d", "a")


def records(memory: Memory, digest: str = "d") -> Mapping[str, CategoryCopy]:
    entry = memory.entry(digest)
    return {} if entry is None else entry.records


def test_what_was_read_is_known_by_its_mark(memory: Memory) -> None:
    """Categories that are loaded on demand are read by themselves; shadows are not kept, nor is what is not there."""
    first, second, third = (known(CategoryCopy(n, {"k": b"x"}), mark=b"%d" % n) for n in (1, 2, 3))
    memory.note(UI, {"ui": first, "absent": known(CategoryCopy(0, {}))})
    memory.note(UI, {"translation": second})
    memory.note(UI, {"ui": third})
    memory.note(UI._replace(shadow=True), {"ui": first})
    assert records(memory) == {"ui": third, "translation": second}
    assert records(memory, "e") == {}
    memory.kill("d")
    memory.note(UI, {"ui": first})
    assert records(memory) == {}


def test_a_copy_that_an_outage_may_show_is_replaced_by_its_own_rule_alone(memory: Memory) -> None:
    """A server that may have lost data said something older: that is no reason to forget what is known."""
    copy = known(COPY, mark=b"new")
    memory.put_category("d", "ui", copy)
    memory.note(UI, {"ui": known(CategoryCopy(1, {}), mark=b"old")})
    assert (records(memory), memory.category("d", "ui")) == ({"ui": copy}, copy)


@pytest.mark.parametrize(
    ("change", "before", "mark"),
    [
        (CategoryChange(0, sets={"text": b"1"}), 4, META),
        (CategoryChange(0, deletes={"text"}), 4, META),
        (CategoryChange(0, sets={"text": b"1"}, wipe=True), 3, META),
        (CategoryChange(0, sets={"text": b"1"}), 0, META),
        (CategoryChange(0, increments={"n": 1}), 4, b""),  # the server adds: its form of the number counts
        (CategoryChange(0, sets={"text": b"1"}), 3, b""),  # another write came between
    ],
)
def test_an_own_write_is_known_by_its_mark(memory: Memory, change: CategoryChange, before: int, mark: bytes) -> None:
    """The mark is that of the server's description, if all of it is known."""
    memory.put_category(DIGEST, "ui", known(COPY, mark=b"before"))
    memory.write(DIGEST, "ui", change, Change(before, 9, META))
    assert records(memory, DIGEST)["ui"].mark == mark


def test_what_was_confirmed_last_comes_first(memory: Memory, clock: Clock) -> None:
    """If there is no room for all copies, those in use are shared and given back. Listing copies does not count as
    use."""
    for digest in ("a", "b", "c"):
        clock.now += 1
        memory.put_category(digest, "ui", known(COPY), kind="a")
    clock.now += 1
    memory.put_category("b", "ui", known(COPY))
    for listed in (memory.live_categories(), memory.held()):
        assert [copy.digest for copy in listed] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("confirm", "is_known"),
    [
        (lambda memory: memory.put_category("d", "ui", known(COPY)), True),
        (lambda memory: wrote(memory, "d", "ui", 4, 5), True),
        (lambda memory: memory.put_category("d", "ui", known(CategoryCopy(3, {}))), False),  # another server's, or late
        (lambda memory: wrote(memory, "d", "ui", 3, 4), False),  # it is part of the copy already
        (lambda memory: memory.category("d", "ui"), False),
        (lambda memory: memory.live_categories(), False),
    ],
    ids=["the primary said it again", "own write", "older answer", "late write", "shown", "listed"],
)
def test_i30_a_copy_is_as_old_as_its_last_confirmation(
    memory: Memory, clock: Clock, confirm: Callable[[Memory], object], is_known: bool
) -> None:
    """One that was not confirmed for too long is neither shown, shared nor given back."""
    memory.put_category("d", "ui", known(COPY), kind="a")
    clock.now = 1000
    confirm(memory)
    clock.now = 1800
    assert [memory.category("d", "ui") is not None, bool(memory.live_categories()), bool(memory.held())] == [
        is_known
    ] * 3
    assert [copy.age for copy in memory.held()] == ([800] if is_known else [])


# Threads and forks


def test_a_forked_child_begins_with_nothing(memory: Memory) -> None:
    """A child is a new worker: it has no memory and its own locks, and the parent keeps what it had."""
    memory.put_category("d", "ui", known(COPY))

    def of_the_child() -> bool:
        memory.put_category("e", "ui", known(COPY))
        memory.kill("f")
        return [copy.digest for copy in memory.live_categories()] == ["e"] and memory.ended.is_dead("f")

    with locked(memory.ended):
        assert in_child_of_locked(memory, of_the_child)
    assert [copy.digest for copy in memory.live_categories()] == ["d"]
