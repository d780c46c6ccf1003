"""The scripts on real servers: what each does to every kind of record it can meet. Valkey, and Redis where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from devservers.servers import Valkey
from flask_langpont_session.policy.changes import CategoryChange, Operation
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.leases import TOMBSTONE_MS
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.redis.commands import QUARANTINE_MS, new_write_id
from flask_langpont_session.stores.redis.records import Limits, Merge, Merged, MergeStep, Outcome, Written
from flask_langpont_session.stores.redis.store import RedisStore
from tests.support.auth_records import packed, says

from .scripts_server import (
    DIGEST,
    EMPTY,
    LIFE,
    USER,
    VISITOR,
    key,
    store_on,
    without,
)

LIMITS = Limits(256, 65_536, EMPTY)
WAIT = 2.0
OLD, NEW = 1, 9_999_999_999_999_999
"""Before and after everything that the server wrote."""

APPLIED, CONFLICT = Outcome.APPLIED, Outcome.CONFLICT


@pytest.fixture
def store(server: Valkey, raw: Any) -> Iterator[RedisStore]:
    with store_on(server.url, socket_timeout=WAIT, max_connections=2, timeout=0.5) as store:
        yield store


def row(version: int = 1, **changes: Any) -> AuthRow:
    far = 4_000_000_000_000
    first = AuthRow(DIGEST, "7", version, True, {"_user_id": b'"7"'}, 2, 1000, far, far + 1, 0)
    return replace(first, **changes)


def change(**changes: Any) -> CategoryChange:
    return CategoryChange(LIFE, **changes)


def written(
    store: RedisStore,
    guard: str = "free",
    limits: tuple[int, int] = LIMITS[:2],
    *,
    write_id: str | None = None,
    timeout: float = WAIT,
    shadow: bool = False,
    push: tuple[AuthRow, int] | None = None,
    **changes: CategoryChange,
) -> Written:
    return store.write(
        RecordRef(DIGEST, "a", shadow),
        changes,
        guard=guard,
        limits=Limits(*limits, EMPTY),
        timeout=timeout,
        write_id=write_id or new_write_id(),
        push=push,
        push_life_ms=LIFE,
    )


def write(store: RedisStore, guard: str = "free", limits: tuple[int, int] = LIMITS[:2], **more: Any) -> str:
    return written(store, guard, limits, **more).status


def step(operation: str, name: str, value: bytes | int = b"", mode: str = "since", moment: int = NEW) -> MergeStep:
    """A change that wins unless the field was written after the moment."""
    return MergeStep(Operation(operation), name, value, mode, moment)


def addition(name: str, by: int, token: str | None = None) -> MergeStep:
    return MergeStep(Operation.ADD, name, by, token or new_write_id(), 0)


def merge(store: RedisStore, *steps: MergeStep, guard: str = "free", limits: tuple[int, int] = LIMITS[:2]) -> Merged:
    whole = Merge(DIGEST, "ui", steps, guard, LIFE)
    [merged] = store.merge_all([whole], limits=Limits(*limits, EMPTY), timeout=WAIT, write_id=new_write_id())
    if isinstance(merged, StoreError):
        raise merged
    return merged


def data(raw: Any, category: str = "ui") -> dict[str, str]:
    """The fields of a category without ours."""
    return {name: value for name, value in raw.hgetall(key(category)).items() if not name.startswith("@")}


def given(store: RedisStore, record: str) -> None:
    """Bring the auth record into a state."""
    if record == "alive":
        assert store.push(row(), 1, LIFE, timeout=WAIT) == "pushed"
    elif record == "tombstone":
        store.push_many([(DIGEST, 2)], ("auth", "ui"), stamp_ms=0, timeout=WAIT)


# -- guards ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guard", "record", "status"),
    [
        ("free", "absent", "written"),
        ("free", "alive", "written"),
        ("free", "tombstone", "written"),
        ("alive", "absent", "gone"),
        ("alive", "alive", "written"),
        ("alive", "tombstone", "dead"),
        ("new", "absent", "written"),
        ("new", "alive", "written"),
        ("new", "tombstone", "dead"),
    ],
)
def test_a_write_and_a_merge_are_guarded_by_the_auth_record(
    store: RedisStore, raw: Any, guard: str, record: str, status: str
) -> None:
    """A client that may not write changes nothing, not even a life; and writes of an outage do not revive a session
    that ended meanwhile."""
    given(store, record)
    is_let_in = status == "written"
    assert write(store, guard, ui=change(sets={"lang": b'"ja"'})) == status
    assert data(raw) == ({"lang": '"ja"'} if is_let_in else {})
    assert raw.exists(key("ui")) == is_let_in
    raw.delete(key("ui"))
    if guard != "new":  # only a sign-in has it, and none is merged
        found = merge(store, step("set", "lang", b'"ja"'), guard=guard)
        assert (found.status, found.outcomes) == (("merged", (APPLIED,)) if is_let_in else (status, ()))
        assert raw.exists(key("ui")) == is_let_in


def test_the_shadow_has_records_of_its_own(store: RedisStore, raw: Any) -> None:
    """Late requests of a dead session write beside it, in the same slot."""
    given(store, "tombstone")
    write(store, shadow=True, ui=change(sets={"lang": b"1"}))
    assert not raw.exists(key("ui"))
    assert store.read(RecordRef(DIGEST, "a", shadow=True), {"ui": 0}, timeout=WAIT).records["ui"].fields == {
        "lang": b"1"
    }
    assert says(raw, key("auth"))["@live"] == "0"


# -- write -------------------------------------------------------------------------------------------------------------


def test_a_write_sets_deletes_and_adds_in_several_categories(store: RedisStore, raw: Any) -> None:
    """One script; each category has versions of its own, which are stamps of the server's clock."""
    first = written(store, ui=change(sets={"lang": b'"ja"', "theme": b'"dark"'})).versions["ui"]
    second = written(
        store,
        ui=change(sets={"lang": b'"en"'}, deletes={"theme", "never_there"}),
        translation=change(sets={"input_text": b'"x"'}, increments={"usage_count": 3}),
    )
    assert second.status == "written"
    ui, translation = second.versions["ui"], second.versions["translation"]
    assert (first.before, ui.before, translation.before) == (0, first.after, 0)
    assert 0 <= store.endpoint.time_ms(timeout=WAIT) - ui.after // 1000 < 10_000
    assert ui.after > first.after
    assert translation.after == ui.after
    assert data(raw) == {"lang": '"en"'}
    assert data(raw, "translation") == {"input_text": '"x"', "usage_count": "3"}
    assert raw.hget(key("ui"), "@m")[:8] == DIGEST[:8]


def test_every_write_sets_its_life(store: RedisStore, raw: Any) -> None:
    """Nothing of ours lies in Redis for ever, whatever the operation was."""
    operations: dict[str, Callable[[], object]] = {
        "set": lambda: write(store, ui=change(sets={"a": b"1"})),
        "delete": lambda: write(store, ui=change(deletes={"a"})),
        "increment": lambda: write(store, ui=change(increments={"n": 1})),
        "merge": lambda: merge(store, step("set", "m", b"1")),
        "last deletion": lambda: write(store, ui=change(deletes={"m", "n"})),
        "first set": lambda: write(store, ui=change(sets={"a": b"1"})),
        "merged last deletion": lambda: merge(store, step("del", "a")),
        "merged addition": lambda: merge(store, addition("n", 1)),
        "merged wipe": lambda: merge(store, step("wipe", "@")),
        "wipe": lambda: write(store, ui=change(wipe=True)),
        "wipe and set": lambda: write(store, ui=change(wipe=True, sets={"a": b"1"})),
    }
    for name, operation in operations.items():
        operation()
        life = LIFE if data(raw) else EMPTY
        assert life - 5000 < raw.pttl(key("ui")) <= life, name
        raw.persist(key("ui"))
    store.push(row(), 1, LIFE, timeout=WAIT)
    assert 0 < raw.pttl(key("auth")) <= LIFE


@pytest.mark.parametrize("foreign", [False, True])
def test_a_record_of_any_size_begins_anew(store: RedisStore, raw: Any, foreign: bool) -> None:
    """More fields than Lua passes to one call: none of the old ones is left, be they ours or another program's."""
    many = {f"old{number}": b"1" for number in range(2500)}
    if foreign:
        for category in ("ui", "auth"):
            raw.hset(key(category), mapping={"@m": "x", **many})
    else:
        write(store, limits=(4096, 65_536), ui=change(sets=many))
        store.push(row(1, payload=many), 1, LIFE, timeout=WAIT)
    assert write(store, ui=change(wipe=not foreign, sets={"new": b"1"})) == "written"
    assert data(raw) == {"new": "1"}
    assert store.push(row(2, payload={"_user_id": b'"7"'}), 2, LIFE, timeout=WAIT) == "pushed"
    assert data(raw, "auth") == {"_user_id": '"7"'}
    raw.hset(key("auth"), mapping=many)
    store.push_many([(DIGEST, 4)], ("auth",), stamp_ms=0, timeout=WAIT)
    assert raw.hkeys(key("auth")) == ["@m"]


def test_a_counter_takes_no_more_room_the_more_it_counts(store: RedisStore, raw: Any) -> None:
    """However often it is added to, it is one number in one field."""
    for _ in range(100):
        assert write(store, limits=(2, 100), ui=change(sets={"a": b"1"}, increments={"n": 1})) == "written"
    assert data(raw) == {"a": "1", "n": "100"}
    for _ in range(20):
        assert write(store, limits=(2, 100), ui=change(increments={"n": 1})) == "written"
        assert write(store, limits=(2, 100), ui=change(deletes={"n"})) == "written"
    assert write(store, limits=(2, 100), ui=change(sets={"a": b"x" * 60})) == "written"


def test_the_limit_holds_over_many_changes(store: RedisStore, raw: Any) -> None:
    """Setting, changing, deleting, merging, in any order: what is counted is what is there."""
    limits = (10, 60)
    for _ in range(20):
        assert write(store, limits=limits, ui=change(sets={"a": b"12345", "b": b"1"})) == "written"
        assert write(store, limits=limits, ui=change(sets={"a": b"1"}, deletes={"b"})) == "written"
        assert write(store, limits=limits, ui=change(increments={"n": 1})) == "written"
        assert merge(store, step("set", "m", b"1234567890"), limits=limits).outcomes == (APPLIED,)
        assert write(store, limits=limits, ui=change(deletes={"m", "n", "never"})) == "written"
    assert data(raw) == {"a": "1"}
    assert write(store, limits=limits, ui=change(sets={"z": b"x" * 57})) == "written"  # 2 bytes are there
    assert write(store, limits=limits, ui=change(sets={"z": b"x" * 58})) == "large"


@pytest.mark.parametrize(
    ("limits", "changes", "status"),
    [
        ((3, 1000), {"sets": {"c": b"1"}}, "written"),
        ((3, 1000), {"sets": {"c": b"1", "d": b"1"}}, "large"),
        ((3, 1000), {"sets": {"c": b"1", "d": b"1"}, "deletes": {"a"}}, "written"),
        ((3, 1000), {"sets": {"a": b"2", "b": b"2", "c": b"2"}}, "written"),
        ((3, 1000), {"increments": {"c": 1, "d": 1}}, "large"),
        ((3, 1000), {"increments": {"b": 1, "c": 1}}, "written"),
        ((3, 1000), {"sets": {"c": b"1", "d": b"1", "e": b"1"}, "wipe": True}, "written"),
        ((9, 10), {"sets": {"c": b"12345"}}, "written"),  # a1 b1 c12345: 10 bytes
        ((9, 10), {"sets": {"c": b"123456"}}, "large"),
        ((9, 10), {"sets": {"c": b"123456"}, "deletes": {"a"}}, "written"),
        ((9, 10), {"sets": {"a": b"1234567"}}, "written"),
        ((9, 4), {"deletes": {"a"}}, "written"),
    ],
)
def test_limits_are_checked_with_what_is_there(
    store: RedisStore, raw: Any, limits: tuple[int, int], changes: dict[str, Any], status: str
) -> None:
    """The script counts, so that a request that never read the category cannot make it too large."""
    write(store, ui=change(sets={"a": b"1", "b": b"1"}))
    assert write(store, limits=limits, translation=change(sets={"x": b"1"}), ui=change(**changes)) == status
    if status == "large":
        assert data(raw) == {"a": "1", "b": "1"}
        assert not raw.exists(key("translation"))


def test_a_deletion_is_taken_when_the_limits_were_lowered(store: RedisStore, raw: Any) -> None:
    """A deletion is taken if the rest is still too large, but smaller than before."""
    write(store, ui=change(sets={"a": b"1", "b": b"1", "c": b"1"}))
    assert write(store, limits=(1, 3), ui=change(deletes={"a"})) == "written"
    assert data(raw) == {"b": "1", "c": "1"}


FOREIGN: dict[str, Callable[[Any], object]] = {
    "a value that is longer": lambda client: client.hset(key("ui"), "a", "x" * 500),
    "fields more": lambda client: client.hset(key("ui"), mapping={f"f{number}": "x" for number in range(9)}),
    "a field less": lambda client: client.hdel(key("ui"), "a"),
}
"""What an operator does to the fields of a record past the scripts, which count them."""


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_record_changed_past_the_scripts_is_counted_anew(
    store: RedisStore, raw: Any, foreign: Callable[[Any], object]
) -> None:
    """Its own numbers are wrong then. Neither do they make a record too large for ever, nor do they let it grow."""
    limits = (5, 60)
    write(store, limits=limits, ui=change(sets={"a": b"x" * 40, "b": b"1"}))
    foreign(raw)
    gone = {f"f{number}" for number in range(9)}
    assert write(store, limits=limits, ui=change(sets={"a": b"2"}, deletes=gone)) == "written"
    assert write(store, limits=limits, ui=change(sets={"a": b"x" * 30, "b": b"22"})) == "written"
    assert merge(store, step("set", "m", b"x" * 24), limits=limits).outcomes == (APPLIED,)
    assert merge(store, step("set", "n", b"x"), limits=limits).outcomes == (Outcome.LARGE,)
    assert write(store, limits=limits, ui=change(sets={"n": b"x"})) == "large"
    assert data(raw) == {"a": "x" * 30, "b": "22", "m": "x" * 24}


def test_a_write_with_an_auth_record_pushes_first(store: RedisStore, raw: Any) -> None:
    """Both commands are in one packet: the guard of the write finds what the push brought, if the server knows the
    script."""
    store.push(row(), 5, LIFE, timeout=WAIT)
    raw.delete(key("auth"))
    first = written(store, "alive", push=(row(), 5), ui=change(sets={"lang": b"1"}))
    assert (first.status, set(first.versions)) == ("written", {"ui"})
    assert data(raw, "auth") == {"_user_id": '"7"'}
    store.push_many([(DIGEST, 2)], ("auth", "ui"), stamp_ms=0, timeout=WAIT)
    assert written(store, "alive", push=(row(9), 9)).status == "dead"
    assert written(store, "alive", push=(row(9), 9), ui=change(sets={"lang": b"1"})).status == "dead"
    assert raw.keys("*") == [key("auth")]


def test_as_many_fields_as_a_category_can_have_fit_in_one_write(store: RedisStore, raw: Any) -> None:
    """A script takes many fields at once, and lets go of them."""
    names = [f"k{number}" for number in range(4096)]
    limits = (4096, 1_000_000)
    assert write(store, limits=limits, ui=change(sets=dict.fromkeys(names, b"1"))) == "written"
    assert len(data(raw)) == len(names)
    assert write(store, limits=limits, ui=change(deletes=set(names))) == "written"
    assert data(raw) == {}


def test_more_deletions_than_a_category_can_have_fields(store: RedisStore, raw: Any) -> None:
    """A view may set and remove ten thousand names; that is no reason for an error of the server."""
    write(store, ui=change(sets={"lang": b"1", "k5": b"1"}))
    assert write(store, ui=change(deletes={f"k{number}" for number in range(10_000)})) == "written"
    assert data(raw) == {"lang": "1"}


# -- push and tombstones -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "new", "result"),
    [
        (None, (1, 100), "pushed"),
        ((3, 100), (4, 50), "pushed"),
        ((3, 100), (3, 101), "pushed"),
        ((3, 100), (3, 100), "pushed"),
        ((3, 100), (3, 99), "older"),
        ((3, 100), (2, 200), "older"),
        ((9, 100), (10, 100), "pushed"),  # numbers, not texts
        ("tombstone", (99, 10**13), "ended"),
        ("tombstone of what the database may not know", (99, 10**13), "dead"),
    ],
)
def test_a_push_is_a_compare_and_set(store: RedisStore, raw: Any, there: Any, new: Any, result: str) -> None:
    """A tombstone absorbs everything; else the higher version wins; same version: the newer stamp. A tombstone that the
    database knows of may be of a change of id, after which the session goes on."""
    if isinstance(there, str):
        store.push_many([(DIGEST, 2 if there == "tombstone" else 0)], ("auth", "ui"), stamp_ms=0, timeout=WAIT)
    elif there:
        store.push(row(there[0], payload={"_user_id": b'"7"', "old": b"1"}), there[1], LIFE, timeout=WAIT)
    before = says(raw, key("auth"))
    assert store.push(row(new[0]), new[1], LIFE, timeout=WAIT) == result
    after = says(raw, key("auth"))
    if result == "pushed":
        assert (after["@v"], after["@at"], after["@live"]) == (str(new[0]), str(new[1]), "1")
        assert data(raw, "auth") == {"_user_id": '"7"'}
    else:
        assert after == before


@pytest.mark.parametrize(("ahead", "result"), [(-60_000, "older"), (500, "older"), (60_000, "pushed")])
def test_a_stamp_of_the_future_keeps_nothing_out(store: RedisStore, raw: Any, ahead: int, result: str) -> None:
    """Readers believe none that lies further ahead than clocks may be apart: the next confirmation replaces it."""
    now = store.endpoint.time_ms(timeout=WAIT)
    store.push(row(3), now + ahead, LIFE, timeout=WAIT)
    assert store.push(row(3), now - 120_000, LIFE, timeout=WAIT) == result
    assert store.push(row(2), now, LIFE, timeout=WAIT) == "older"  # the version counts all the same


def test_what_was_pushed_is_read_back_exactly(store: RedisStore) -> None:
    """Row and stamp; a session without a user has none afterwards either."""
    for pushed in (row(), row(2, user_id=None, payload={"early_access": b"true"}), row(3, user_id="利用者")):
        store.push(pushed, pushed.version * 10, LIFE, timeout=WAIT)
        answer = store.read(USER, {"auth": 0}, timeout=WAIT)
        assert answer.auth is not None
        assert answer.auth.row == replace(pushed, read_at=answer.now_ms)
        assert answer.auth.confirmed_ms == pushed.version * 10


def test_a_push_replaces_a_record_of_another_type(store: RedisStore, raw: Any) -> None:
    """Auth heals from the database."""
    raw.rpush(key("auth"), "x")
    assert store.push(row(), 1, LIFE, timeout=WAIT) == "pushed"
    assert data(raw, "auth") == {"_user_id": '"7"'}


@pytest.mark.parametrize("damaged", [False, True])
def test_a_burial_leaves_a_tombstone_and_no_data(store: RedisStore, raw: Any, damaged: bool) -> None:
    """A tombstone takes the place of all data. Auth is never deleted: the tombstone stops late writes, and expires
    by itself."""
    given(store, "alive")
    write(store, ui=change(sets={"lang": b"1"}), translation=change(sets={"input_text": b"1"}))
    if damaged:
        raw.delete(key("auth"))
        raw.set(key("auth"), "x")
    store.push_many([(DIGEST, 4)], ("translation", "auth", "ui"), stamp_ms=0, timeout=WAIT)
    assert says(raw, key("auth")) == {"@d": DIGEST[:11], "@v": "4", "@live": "0"}
    assert raw.keys("*") == [key("auth")]
    assert TOMBSTONE_MS - 5000 < raw.pttl(key("auth")) <= TOMBSTONE_MS
    entry = store.read(USER, {"auth": 0}, timeout=WAIT).auth
    assert entry is not None
    assert entry.row is None


def test_reading_does_not_lengthen_a_tombstone(store: RedisStore, raw: Any) -> None:
    """It lives for the time it was given, however often a replayed cookie asks."""
    given(store, "tombstone")
    raw.pexpire(key("auth"), 5000)
    store.read(USER, {"auth": 3_600_000, "ui": 3_600_000}, timeout=WAIT)
    assert raw.pttl(key("auth")) <= 5000


# -- read --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "left", "extends"),
    [(100_000, 80_000, False), (100_000, 70_000, True), (0, 1000, False), (100_000, None, False)],
)
def test_a_read_extends_a_life_after_a_quarter(
    store: RedisStore, raw: Any, life: int, left: int | None, extends: bool
) -> None:
    """The read extends the life in the same round trip; 0 leaves it alone, and a record without a life (not ours)
    gets none."""
    write(store, ui=change(sets={"lang": b"1"}))
    raw.persist(key("ui")) if left is None else raw.pexpire(key("ui"), left)
    store.read(VISITOR, {"ui": life}, timeout=WAIT)
    now = raw.pttl(key("ui"))
    if left is None:
        assert now == -1
    else:
        assert (now > left) == extends


def test_nothing_there_is_an_answer(store: RedisStore) -> None:
    """A miss is version 0 and no fields; it is not an error, and nothing is damaged."""
    answer = store.read(USER, {"auth": LIFE, "ui": LIFE}, timeout=WAIT)
    assert answer.auth is None
    assert (answer.records["ui"].version, dict(answer.records["ui"].fields)) == (0, {})
    assert answer.damaged == ()
    assert abs(answer.now_ms - store.endpoint.time_ms(timeout=WAIT)) < 2000


def test_a_damaged_record_does_not_hide_its_neighbours(store: RedisStore, raw: Any) -> None:
    """Each category is answered for itself."""
    write(store, ui=change(sets={"lang": b"1"}))
    raw.rpush(key("translation"), "x")
    raw.hset(key("auth"), mapping={"@m": packed({"@d": DIGEST, "@live": "1"}), "_user_id": "7"})
    answer = store.read(USER, {"auth": LIFE, "translation": LIFE, "ui": LIFE}, timeout=WAIT)
    assert set(answer.damaged) == {"auth", "translation"}
    assert answer.auth is None
    assert answer.records["ui"].fields == {"lang": b"1"}


@pytest.mark.parametrize(("setting", "value", "normal"), [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")])
def test_a_server_that_refuses_writes_still_answers_reads(
    store: RedisStore, raw: Any, setting: str, value: str, normal: str
) -> None:
    """Extending the life is tried and may fail; the write is an error of class W."""
    write(store, ui=change(sets={"lang": b"1"}))
    raw.pexpire(key("ui"), LIFE // 2)  # so that the read would extend it
    raw.config_set(setting, value)
    try:
        assert store.read(VISITOR, {"ui": LIFE}, timeout=WAIT).records["ui"].fields == {"lang": b"1"}
        with pytest.raises(StoreError) as caught:
            write(store, ui=change(sets={"lang": b"2"}))
        assert caught.value.error_class is ErrorClass.WRITE_REFUSED
    finally:
        raw.config_set(setting, normal)
    assert data(raw) == {"lang": "1"}


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_a_damaged_record_is_quarantined(store: RedisStore, raw: Any) -> None:
    """Kept for a day beside its place, in the same slot; doing it again, or with nothing there, does no harm."""
    raw.rpush(key("ui"), "x")
    for _ in range(2):
        store.quarantine(VISITOR, "ui", timeout=WAIT)
        assert not raw.exists(key("ui"))
        assert raw.lrange(f"{key('ui')}:aside", 0, -1) == ["x"]
        assert QUARANTINE_MS - 5000 < raw.pttl(f"{key('ui')}:aside") <= QUARANTINE_MS


@pytest.mark.parametrize("loss", ["emptied", "tombstone", "expired", "another type"])
def test_what_is_known_is_believed_only_while_it_is_there(store: RedisStore, raw: Any, loss: str) -> None:
    """A record that the store knows is believed only while Redis has it, whatever took it away."""
    store.push(row(), 1, LIFE, timeout=WAIT)
    write(store, "alive", ui=change(sets={"lang": b"1"}))
    for _ in range(2):
        store.read(USER, {"auth": 0, "ui": 0}, timeout=WAIT)
    if loss == "tombstone":
        store.push_many([(DIGEST, 1)], ["auth", "ui"], stamp_ms=0, timeout=WAIT)
    elif loss == "emptied":
        raw.flushall()
    else:
        for name in ("auth", "ui"):
            raw.delete(key(name))
            if loss == "another type":
                raw.set(key(name), "x")
    found = store.read(USER, {"auth": 0, "ui": 0}, timeout=WAIT)
    assert found.records["ui"].fields == {}
    assert (found.auth is not None and found.auth.row is None) == (loss == "tombstone")
    assert found.damaged == (("auth", "ui") if loss == "another type" else ())


@pytest.mark.parametrize("missing", ["hgetall", "hset"])
def test_a_probe_needs_the_rights_that_requests_need(store: RedisStore, raw: Any, missing: str) -> None:
    """A probe with fewer rights would close a breaker that the next request opens again."""
    raw.execute_command("ACL", "SETUSER", "default", f"-{missing}")
    try:
        with pytest.raises(StoreError) as caught:
            store.endpoint.probe("session:canary:test", "value", timeout=WAIT)
        assert caught.value.error_class is ErrorClass.IDENTITY_REFUSED
    finally:
        raw.execute_command("ACL", "SETUSER", "default", f"+{missing}")


# -- rights that are missing, memory that is used up -------------------------------------------------------------------


@contextmanager
def out_of_memory(raw: Any) -> Iterator[None]:
    """The server takes no data more, and gives none up for it."""
    raw.config_set("maxmemory", "1")
    try:
        yield
    finally:
        raw.config_set("maxmemory", "0")


def records(raw: Any) -> dict[str, Any]:
    """All that is there, but for when it expires."""
    return {name: raw.hgetall(name) for name in raw.keys("*")}


@pytest.mark.parametrize("right", ["hset", "pexpire", "hdel", "hgetall"])
@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.push(row(2, payload={"_user_id": b'"8"'}), 2, LIFE, timeout=WAIT),
        lambda store: write(store, ui=change(sets={"b": b"1"}, wipe=True)),
    ],
    ids=["push", "write"],
)
def test_what_is_refused_costs_no_record(store: RedisStore, raw: Any, call: Callable[[Any], Any], right: str) -> None:
    """A script is not taken back: what was done before a command was refused stays done."""
    given(store, "alive")
    write(store, ui=change(sets={"a": b"1", "n": b"1"}))
    before = records(raw)
    with without(raw, right), pytest.raises(StoreError) as caught:
        call(store)
    assert caught.value.error_class is ErrorClass.IDENTITY_REFUSED
    assert records(raw) == before


@pytest.mark.parametrize("right", ["hset", "hdel", "pexpire"])
def test_an_addition_that_is_refused_has_not_been_made(store: RedisStore, raw: Any, right: str) -> None:
    """It is made again later, with everything else that was refused."""
    write(store, ui=change(sets={"n": b"1", "a": b"1"}))
    changed = change(sets={"b": b"1"}, deletes={"a"}, increments={"n": 5})
    with without(raw, right), pytest.raises(StoreError):
        write(store, ui=changed, other=changed)
    assert data(raw)["n"] == "1"
    assert write(store, ui=changed, other=changed) == "written"
    assert data(raw) == {"n": "6", "b": "1"}
    assert data(raw, "other") == {"n": "5", "b": "1"}


@pytest.mark.parametrize("right", ["hset", "hdel", "pexpire", "hgetall", "del"])
def test_a_merge_that_is_refused_changes_nothing(store: RedisStore, raw: Any, right: str) -> None:
    """The replay would take it for done. Nothing of it is done half way, and all of it is done the next time."""
    write(store, ui=change(sets={"n": b"1", "a": b"1", "b": b"1"}))
    before = records(raw)
    steps = [step("wipe", "@"), addition("n", 1, "added.1"), step("set", "c", b"1")]
    with without(raw, right):
        [refused] = store.merge_all(
            [Merge(DIGEST, "ui", steps, "free", LIFE)], limits=LIMITS, timeout=WAIT, write_id="merge.1"
        )
        if isinstance(refused, Merged):
            assert right == "del"  # which it does not need
            return
        assert (refused.error_class, refused.sent) == (ErrorClass.IDENTITY_REFUSED, False)
    assert records(raw) == before
    assert merge(store, *steps).outcomes == (APPLIED, APPLIED, APPLIED)
    assert data(raw) == {"n": "1", "c": "1"}


def test_a_merge_into_a_server_out_of_memory_changes_nothing(store: RedisStore, raw: Any) -> None:
    """Its addition was not made; with room it is made once."""
    write(store, ui=change(sets={"n": b"1"}))
    before, added = records(raw), addition("n", 1, "added.1")
    with out_of_memory(raw), pytest.raises(StoreError) as caught:
        merge(store, added, step("set", "a", b"1"))
    assert caught.value.error_class is ErrorClass.WRITE_REFUSED
    assert records(raw) == before
    for _ in range(2):
        assert merge(store, added).outcomes == (APPLIED,)
    assert data(raw) == {"n": "2"}


def test_a_server_out_of_memory_takes_what_replaces_or_ends_something_and_nothing_new(
    store: RedisStore, raw: Any
) -> None:
    """Rights that were withdrawn and sessions that have ended are worth more than what is there."""
    given(store, "alive")
    with out_of_memory(raw):
        assert store.push(row(2), 2, LIFE, timeout=WAIT) == "pushed"
        store.push_many([(DIGEST, 3)], ("auth",), stamp_ms=0, timeout=WAIT)
        for new in (
            lambda: store.push(replace(row(), digest="e" * 43), 1, LIFE, timeout=WAIT),
            lambda: merge(store, step("set", "a", b"1")),
            lambda: write(store, ui=change(sets={"a": b"1"})),
        ):
            with pytest.raises(StoreError) as caught:
                new()
            assert caught.value.error_class is ErrorClass.WRITE_REFUSED
    assert raw.keys("*") == [key("auth")]
    assert says(raw, key("auth")) == {"@d": DIGEST[:11], "@v": "3", "@live": "0"}
