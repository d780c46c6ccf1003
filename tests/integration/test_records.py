"""The record of a category, and what a merge makes of it: on Valkey, on Redis, and on fakeredis.

A merge brings what a host kept in an outage. It may not undo what was written since, and must not lose what was not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fakeredis
import pytest

from devservers.servers import Valkey
from flask_langpont_session.policy.changes import CategoryChange, Operation
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.stores.redis.commands import MERGE, WRITE, Command, Guarded
from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.link import Link
from flask_langpont_session.stores.redis.records import (
    ABSENT,
    SINCE,
    TIME,
    Limits,
    Merge,
    Merged,
    MergeStep,
    Outcome,
    Written,
    addition_id,
    change_arguments,
)
from flask_langpont_session.stores.redis.server_identity import ServerIdentity
from flask_langpont_session.stores.redis.store import RedisStore

from .scripts_server import DIGEST, EMPTY, LIFE, VISITOR, key, made, store_on

WAIT = 2.0
LIMITS = Limits(256, 65_536, EMPTY)
WIPED, BEGUN, TRIMMED = "*wiped*", "*begun*", "-------"
CONFLICT, APPLIED, LARGE, IN_DOUBT, NO_NUMBER = Outcome
SECOND, HOUR = 1_000_000, 3_600_000_000
"""Microseconds, as stamps are."""


REAL = ("valkey", "redis")
SERVERS = (*REAL, "fakeredis")


@pytest.fixture(scope="module", params=["valkey"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey | None]:
    """A real server, or None."""
    if request.param == "fakeredis":
        yield None
        return
    with made(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture
def client(server: Valkey | None) -> Iterator[Any]:
    """Yield a client that looks behind the store's back; the server is empty."""
    with server.client() if server else fakeredis.FakeRedis(decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def store(server: Valkey | None, client: Any) -> Iterator[RedisStore]:
    if server is None:
        link = Link("primary", client.connection_pool, server_identity=ServerIdentity())
        yield RedisStore(Endpoint(link, prefix="session"))
        return
    with store_on(server.url, socket_timeout=WAIT, max_connections=2) as store:
        yield store


on_each = pytest.mark.parametrize("server", SERVERS, indirect=True, scope="module")
"""For what depends on the server's Lua, clock or replies. The rules are those of the scripts, on any server."""

about_a_process = pytest.mark.parametrize("server", REAL, indirect=True, scope="module")
"""What a client object cannot be: frozen, or at the other end of a socket."""


@dataclass(frozen=True, slots=True)
class Meta:
    """The field ``@m``, see ``record.lua``."""

    digest: str
    stamp: int
    horizon: int
    author: str
    bytes: int
    count: int
    additions: tuple[tuple[str, int], ...] = ()
    lately: tuple[tuple[str, str, int, int], ...] = ()
    lag: int = 0

    @classmethod
    def of(cls, text: str) -> Meta:
        head, *names = text[64:].split("\1")
        additions = tuple((head[at : at + 7], int(head[at + 7 : at + 20])) for at in range(0, len(head), 20))
        ring = tuple(
            (name, note[:7], int(note[7:23]), int(note[23:], 16))
            for name, note in zip(names[::2], names[1::2], strict=True)
        )
        sizes = int(text[53:60], 16), int(text[60:64], 16)
        moments, lag = (int(text[8:24]), int(text[24:40])), int(text[40:46], 16)
        return cls(text[:8], *moments, text[46:53], *sizes, additions, ring, lag)

    def text(self) -> str:
        head = f"{self.digest}{self.stamp:016}{self.horizon:016}{self.lag:06x}{self.author}"
        additions = "".join(f"{token}{at_ms:013}" for token, at_ms in self.additions)
        ring = "".join(f"\1{name}\1{author}{stamp:016}{lag:06x}" for name, author, stamp, lag in self.lately)
        return f"{head}{self.bytes:07x}{self.count:04x}{additions}{ring}"

    def earlier(self, by: int) -> Meta:
        """The same, so many microseconds ago."""
        return replace(
            self,
            stamp=self.stamp - by,
            horizon=self.horizon - by,
            additions=tuple((token, at_ms - by // 1000) for token, at_ms in self.additions),
            lately=tuple((name, author, stamp - by, lag) for name, author, stamp, lag in self.lately),
        )


def meta(client: Any) -> Meta:
    return Meta.of(client.hget(key("ui"), "@m"))


def put_meta(client: Any, changed: Meta) -> None:
    client.hset(key("ui"), "@m", changed.text())


def data(client: Any) -> dict[str, str]:
    return {name: value for name, value in client.hgetall(key("ui")).items() if not name.startswith("@")}


def whole(client: Any) -> dict[str, str]:
    found: dict[str, str] = client.hgetall(key("ui"))
    return found


def assert_counted(client: Any) -> None:
    """Assert that the record's count and bytes are those of its fields."""
    fields = data(client)
    size = sum(len(name.encode()) + len(value.encode()) for name, value in fields.items())
    assert (meta(client).count, meta(client).bytes) == (len(fields), size)


def write(store: RedisStore, write_id: str = "write.1", limits: Limits = LIMITS, **changes: Any) -> Written:
    change = CategoryChange(LIFE, **changes)
    return store.write(VISITOR, {"ui": change}, guard="free", limits=limits, timeout=WAIT, write_id=write_id)


def stamp(store: RedisStore, write_id: str = "write.1", **changes: Any) -> int:
    """The stamp that a write makes."""
    written = write(store, write_id, **changes)
    assert written.status == "written"
    return written.versions["ui"].after


def merge(store: RedisStore, *steps: MergeStep, write_id: str = "merge.1", limits: Limits = LIMITS) -> Merged:
    merges = [Merge(DIGEST, "ui", steps, "free", LIFE)]
    [merged] = store.merge_all(merges, limits=limits, timeout=WAIT, write_id=write_id)
    if isinstance(merged, StoreError):
        raise merged
    return merged


def outcomes(store: RedisStore, *steps: MergeStep, **more: Any) -> list[Outcome]:
    return list(merge(store, *steps, **more).outcomes)


def put(
    name: str,
    value: bytes | None,
    moment: int,
    base: Any = None,
    mode: str = SINCE,
    doubts: str = "",
    acknowledged: int = 0,
) -> MergeStep:
    """Set a field; None: delete it."""
    operation = Operation.DELETE if value is None else Operation.SET
    return MergeStep(operation, name, value or b"", mode, moment, base, doubts, acknowledged)


def blind(name: str, value: bytes | None, moment: int, doubts: str = "") -> MergeStep:
    """Return a merge step of a value that was set without a read and acknowledged at that moment."""
    return put(name, value, moment, None, TIME, doubts, moment)


def add(name: str, by: int, token: str = "added.1", sent_at: int = 0) -> MergeStep:
    return MergeStep(Operation.ADD, name, by, token, sent_at)


def wipe(moment: int, doubts: str = "") -> MergeStep:
    return MergeStep(Operation.WIPE, "@", moment=moment, doubts=doubts)


# -- stamps ------------------------------------------------------------------------------------------------------------


@on_each
def test_stamps_only_grow(store: RedisStore, client: Any) -> None:
    """A record's stamp grows whatever is done to it, emptied, wiped or set anew: copies of it are in order for ever."""
    steps: list[Callable[[], tuple[int, int]]] = [
        lambda: written(sets={"a": b"1", "b": b"2"}),
        lambda: written(deletes={"a"}),
        lambda: written(deletes={"b"}),
        lambda: written(sets={"a": b"1"}),
        lambda: written(wipe=True),
        lambda: written(wipe=True),
        lambda: written(sets={"a": b"1"}),
        lambda: written(wipe=True, sets={"a": b"1"}),
        lambda: written(increments={"n": 1}),
        lambda: merged(put("a", b"9", 9 * 10**15)),
        lambda: merged(wipe(9 * 10**15)),
        lambda: merged(wipe(9 * 10**15), add("n", 1, "added.2")),
    ]

    def written(**changes: Any) -> tuple[int, int]:
        return write(store, **changes).versions["ui"][:2]

    def merged(*steps: MergeStep) -> tuple[int, int]:
        before = store.read(VISITOR, {"ui": 0}, timeout=WAIT).records["ui"].version
        return before, merge(store, *steps).version

    last = 0
    for number, step in enumerate(steps):
        before, after = step()
        assert (before, after > before) == (last, True), number
        assert store.read(VISITOR, {"ui": 0}, timeout=WAIT).records["ui"].version == after
        assert abs(store.endpoint.time_ms(timeout=WAIT) - after // 1000) < 10_000
        assert_counted(client)
        last = after


def test_a_stamp_is_more_than_the_one_before_whatever_the_clock_says(store: RedisStore, client: Any) -> None:
    """Two writes are in order, also after a failover to a server whose clock is behind."""
    stamp(store, sets={"a": b"1"})
    ahead = meta(client).earlier(-HOUR)
    put_meta(client, ahead)
    assert write(store, sets={"a": b"2"}).versions["ui"][:2] == (ahead.stamp, ahead.stamp + 1)
    assert write(store, wipe=True).versions["ui"][:2] == (ahead.stamp + 1, ahead.stamp + 2)
    assert merge(store, put("a", b"3", ahead.stamp + 9)).version == ahead.stamp + 3


def test_a_merge_that_changes_nothing_makes_no_version(store: RedisStore, client: Any) -> None:
    """Conflicts, and what is there already: the record is as it was, to the last byte and the life that it had."""
    first = stamp(store, sets={"a": b"1"})
    client.pexpire(key("ui"), 5000)
    before = whole(client)
    merged = merge(store, put("a", b"1", 0), put("a", b"9", 0), put("z", None, 0))
    assert merged == Merged("merged", first, (APPLIED, CONFLICT, APPLIED))
    assert whole(client) == before
    assert client.pttl(key("ui")) <= 5000


def test_a_merge_of_nothing_into_nothing_leaves_nothing(store: RedisStore, client: Any) -> None:
    """A deletion of what is not there makes no record."""
    assert merge(store, put("a", None, 0)) == Merged("merged", 0, (APPLIED,))
    assert client.keys("*") == []


# -- horizon, author, what was written lately --------------------------------------------------------------------------


def test_a_record_begins_with_the_write_that_made_it(store: RedisStore, client: Any) -> None:
    """The record says only once, for all its fields, which write made it."""
    first = stamp(store, "write.1", sets={f"field{number}": b"1" for number in range(50)}, increments={"n": 1})
    assert replace(meta(client), bytes=0, count=0, additions=()) == Meta(DIGEST[:8], first, first, "write.1", 0, 0)


def test_what_a_record_says_of_itself_takes_no_more_than_64_bytes(store: RedisStore, client: Any) -> None:
    """Until a field is written again. With a longer value (hash-max-listpack-value) a hash takes twice the room."""
    stamp(store, "write.1", sets={f"field{number}": b"1" for number in range(50)})
    assert len(client.hget(key("ui"), "@m")) == 64


def test_each_later_write_of_a_field_is_noted(store: RedisStore, client: Any) -> None:
    """The newest last, each field once, with the write that did it; deletions too."""
    first = stamp(store, "write.1", sets={"a": b"1", "b": b"1", "c": b"1"})
    second = stamp(store, "write.2", sets={"a": b"2"}, deletes={"b"})
    third = stamp(store, "write.3", increments={"n": 1})
    fourth = merge(store, put("a", b"3", third), write_id="merge.1").version
    found = meta(client)
    assert (found.stamp, found.horizon, found.author) == (fourth, first, "write.1")
    assert found.lately == (("b", "write.2", second, 0), ("n", "write.3", third, 0), ("a", "merge.1", fourth, 0))


def test_a_wipe_is_what_is_known_of_all_fields(store: RedisStore, client: Any) -> None:
    """A wipe stands for all fields; a field that is set in the same write is noted behind it."""
    stamp(store, "write.1", sets={"a": b"1"})
    stamp(store, "write.2", sets={"b": b"1"})
    wiped = stamp(store, "write.3", wipe=True, sets={"a": b"2"})
    found = meta(client)
    assert (found.horizon, found.author, found.lately) == (wiped, WIPED, (("a", "write.3", wiped, 0),))


@pytest.mark.parametrize("length", [1, 30, 100, 350, 450])
def test_what_was_written_lately_takes_no_more_room_the_more_it_is(store: RedisStore, client: Any, length: int) -> None:
    """Older notes are dropped and raise the horizon: a field that was written since is never taken for unwritten."""
    names = [f"{number:0{length}}" for number in range(10, 40)]
    first = stamp(store, "write.1", sets={"other": b"1"})
    stamps = [stamp(store, "write.2", sets={name: b"1"}) for name in names]
    found = meta(client)
    kept = [name for name, *_ in found.lately]
    assert sum(len(name) + 31 for name in kept) <= 400
    assert kept == names[len(names) - len(kept) :]
    assert len(kept) == 400 // (max(length, 2) + 31)
    dropped = len(names) - len(kept)
    assert (found.horizon, found.author) == ((stamps[dropped - 1], BEGUN) if dropped else (first, "write.1"))
    assert_counted(client)


def test_what_is_dropped_after_a_wipe_leaves_no_word_of_the_beginning(store: RedisStore, client: Any) -> None:
    """For a record that began from nothing the beginning is remembered, for one that was wiped it is not."""
    stamp(store, "write.1", sets={"a": b"1"})
    stamp(store, "write.2", wipe=True)
    for number in range(30):
        stamp(store, "write.3", sets={f"field{number}": b"1"})
    assert meta(client).author == TRIMMED


def test_one_write_of_many_fields_is_noted_as_far_as_there_is_room(store: RedisStore, client: Any) -> None:
    """The rest is known by the horizon."""
    stamp(store, "write.1", sets={"a": b"1"})
    second = stamp(store, "write.2", sets={f"field{number:02}": b"1" for number in range(100)}, deletes={"a"})
    found = meta(client)
    assert (found.horizon, found.author) == (second, BEGUN)
    names = [f"field{number:02}" for number in range(91, 100)] + ["a"]
    assert found.lately == tuple((name, "write.2", second, 0) for name in names)


def test_after_an_hour_a_field_is_not_noted_any_more(store: RedisStore, client: Any) -> None:
    """The next write drops notes older than an hour; younger ones stay."""
    stamp(store, "write.1", sets={"a": b"1"})
    stamp(store, "write.2", sets={"b": b"1"})
    put_meta(client, meta(client).earlier(HOUR // 2))
    stamp(store, "write.3", sets={"c": b"1"})
    old = meta(client).earlier(HOUR // 2 + SECOND)
    put_meta(client, old)
    stamp(store, "write.4", sets={"d": b"1"})
    found = meta(client)
    assert [name for name, *_ in found.lately] == ["c", "d"]
    assert (found.horizon, found.author) == (old.lately[0][2], BEGUN)


@on_each
@pytest.mark.parametrize("name", ["a\1b", "\1", "\1\1", "a\1write.1" + "1" * 16, "日本\1語", "%a(.-)[", "a b", "-"])
def test_any_name_can_be_noted(store: RedisStore, client: Any, name: str) -> None:
    """A session key is any text; the record is whole after it, and tells when it was written."""
    stamp(store, "write.1", sets={"a": b"1", name: b"1"})
    second = stamp(store, "write.2", sets={name: b"2"})
    assert outcomes(store, put(name, b"9", second - 1)) == [CONFLICT]
    assert outcomes(store, put(name, b"9", second), write_id="write.3") == [APPLIED]
    for number in range(40):
        assert write(store, "write.4", sets={f"field{number}": b"1"}).status == "written"
    assert write(store, "write.5", deletes={name}).status == "written"
    assert name not in data(client)
    assert_counted_bytes(store, client)


def assert_counted_bytes(store: RedisStore, client: Any) -> None:
    fields = store.read(VISITOR, {"ui": 0}, timeout=WAIT).records["ui"].fields
    size = sum(len(name.encode()) + len(value) for name, value in fields.items())
    found = client.hget(key("ui"), "@m")
    assert (int(found[53:60], 16), int(found[60:64], 16)) == (size, len(fields))


# -- the rules of a merge ----------------------------------------------------------------------------------------------

# a: set by write.1, then by write.2. b: set by write.1, deleted by write.2. d: set by write.1. c: never there.
FIRST, SECOND_WRITE, BEFORE = "first", "second", "before"


def given(store: RedisStore) -> dict[str, int]:
    """The record that the rules are tried on, and its moments."""
    first = stamp(store, "write.1", sets={"a": b"1", "b": b"1", "d": b"1"})
    second = stamp(store, "write.2", sets={"a": b"2"}, deletes={"b"})
    return {BEFORE: first - 1, FIRST: first, SECOND_WRITE: second, "between": second - 1}


@on_each
@pytest.mark.parametrize("value", [b"9", None], ids=["set", "delete"])
@pytest.mark.parametrize(
    ("name", "moment", "base", "doubts", "outcome"),
    [
        # the field was written since: only over the value that was seen
        ("a", FIRST, b"1", "", CONFLICT),
        ("a", FIRST, b"2", "", APPLIED),
        ("a", FIRST, None, "", CONFLICT),
        ("a", BEFORE, None, "", CONFLICT),
        ("a", "between", b"1", "", CONFLICT),
        # it was not
        ("a", SECOND_WRITE, b"2", "", APPLIED),
        ("a", SECOND_WRITE, b"7", "", APPLIED),
        ("a", SECOND_WRITE, None, "", APPLIED),
        # it was, by this host itself, whose replies were lost
        ("a", FIRST, b"1", "write.2 ", APPLIED),
        ("a", FIRST, b"1", "other.1 write.2 other.2 ", APPLIED),
        ("a", FIRST, b"1", "write.1 other.1 ", CONFLICT),
        # another field of its category was written since, not this one
        ("d", FIRST, b"1", "", APPLIED),
        ("d", FIRST, b"7", "", APPLIED),
        ("d", FIRST, None, "", APPLIED),
        ("d", SECOND_WRITE, None, "", APPLIED),
        # whether this one was is not known: only over the value that was seen
        ("d", BEFORE, b"1", "", APPLIED),
        ("d", BEFORE, b"7", "", CONFLICT),
        ("d", BEFORE, None, "", CONFLICT),
        ("d", BEFORE, None, "write.1 ", APPLIED),
        ("d", BEFORE, None, "write.2 ", CONFLICT),
    ],
)
def test_a_kept_value_wins_unless_its_field_was_written_since(
    store: RedisStore, client: Any, name: str, moment: str, base: Any, doubts: str, outcome: Outcome, value: Any
) -> None:
    """I17: the field counts, not its category. Where that is not known, only the value that was seen is replaced."""
    moments = given(store)
    before = data(client)
    assert outcomes(store, put(name, value, moments[moment], base, SINCE, doubts)) == [outcome]
    after = before if outcome is CONFLICT else {**before, name: "9"}
    assert data(client) == {
        field: text for field, text in after.items() if (field, value) != (name, None) or (outcome is CONFLICT)
    }
    assert_counted(client)


@pytest.mark.parametrize(
    ("name", "moment", "base", "doubts", "mode", "outcome"),
    [
        # deleted since
        ("b", FIRST, b"1", "", SINCE, CONFLICT),
        ("b", FIRST, None, "", SINCE, CONFLICT),
        ("b", FIRST, b"1", "write.2 ", SINCE, APPLIED),
        ("b", SECOND_WRITE, b"1", "", SINCE, APPLIED),
        # never there
        ("c", BEFORE, None, "", SINCE, APPLIED),
        ("c", BEFORE, b"7", "", SINCE, APPLIED),
        ("c", FIRST, b"7", "", SINCE, APPLIED),
        # made without reading: only where nothing is, and nothing was lately
        ("a", SECOND_WRITE, None, "", ABSENT, CONFLICT),
        ("a", SECOND_WRITE, b"2", "", ABSENT, CONFLICT),
        ("a", FIRST, None, "write.2 ", ABSENT, APPLIED),
        ("a", FIRST, None, "write.1 ", ABSENT, CONFLICT),
        ("b", SECOND_WRITE, None, "", ABSENT, CONFLICT),
        ("b", FIRST, None, "write.2 ", ABSENT, APPLIED),
        ("c", FIRST, None, "", ABSENT, APPLIED),
        ("c", BEFORE, None, "", ABSENT, APPLIED),
        ("d", SECOND_WRITE, None, "", ABSENT, CONFLICT),
        ("d", BEFORE, None, "write.1 ", ABSENT, APPLIED),
        ("d", BEFORE, None, "write.2 ", ABSENT, CONFLICT),
        # made from nothing: where it is not known when that was written also over what is known to be older
        ("d", BEFORE, b"1", "", TIME, APPLIED),
        ("d", BEFORE, b"7", "", TIME, CONFLICT),
        ("d", BEFORE, None, "", TIME, CONFLICT),
        ("a", FIRST, b"2", "", TIME, CONFLICT),
    ],
)
def test_what_is_set_where_nothing_is_or_may_be(
    store: RedisStore, client: Any, name: str, moment: str, base: Any, doubts: str, mode: str, outcome: Outcome
) -> None:
    """I16: what was made without knowing what is there replaces nothing, or only what is older."""
    moments = given(store)
    before = data(client)
    assert outcomes(store, put(name, b"9", moments[moment], base, mode, doubts)) == [outcome]
    assert data(client) == (before if outcome is CONFLICT else {**before, name: "9"})
    assert_counted(client)


@pytest.mark.parametrize("mode", [SINCE, ABSENT])
@pytest.mark.parametrize(("name", "value"), [("a", b"2"), ("d", b"1"), ("b", None), ("c", None)])
def test_what_is_there_already_is_applied(store: RedisStore, client: Any, name: str, value: Any, mode: str) -> None:
    """A merge whose reply was lost is no conflict the next time, and changes nothing more."""
    given(store)
    before = whole(client)
    assert outcomes(store, put(name, value, 0, b"7", mode)) == [APPLIED]
    assert whole(client) == before


@pytest.mark.parametrize(
    ("name", "moment", "base", "mode", "outcome"),
    [
        ("gone", -1, b"1", SINCE, CONFLICT),
        ("gone", -1, None, SINCE, CONFLICT),
        ("gone", 0, b"1", SINCE, APPLIED),
        ("gone", 1, None, SINCE, APPLIED),
        ("gone", -1, None, ABSENT, CONFLICT),
        ("gone", 1, None, ABSENT, APPLIED),
        ("put", -1, b"1", SINCE, CONFLICT),
        ("put", -1, b"2", SINCE, APPLIED),
        ("put", 0, None, SINCE, APPLIED),
        ("put", 1, None, ABSENT, CONFLICT),
    ],
)
def test_after_a_wipe_nothing_from_before_comes_back(
    store: RedisStore, client: Any, name: str, moment: int, base: Any, mode: str, outcome: Outcome
) -> None:
    """A moment before, at, or after it: the wipe is a write of every field."""
    stamp(store, "write.1", sets={"gone": b"1", "put": b"1"})
    wiped = stamp(store, "write.2", wipe=True, sets={"put": b"2"})
    assert outcomes(store, put(name, b"9", wiped + moment, base, mode)) == [outcome]
    assert data(client) == {"put": "2", **({name: "9"} if outcome is APPLIED else {})}


def test_what_is_not_remembered_is_unknown(store: RedisStore, client: Any) -> None:
    """The ring ran over: of what it dropped it is not known when it was written, and it is left as it is."""
    first = stamp(store, "write.1", sets={"a": b"1"})
    for number in range(30):
        last = stamp(store, "write.2", sets={f"field{number}": b"1"})
    assert meta(client).author == BEGUN
    assert outcomes(
        store,
        put("a", b"9", first),  # though it was not written since
        put("a", b"9", first, b"7"),
        put("field0", b"9", first),
        put("new", b"9", first),
        put("newer", b"9", first, b"7"),
        put("absent", b"9", first, mode=ABSENT),
        put("field29", b"9", last),
        put("field0", b"8", last, b"1"),
    ) == [CONFLICT, CONFLICT, CONFLICT, APPLIED, APPLIED, APPLIED, APPLIED, APPLIED]
    assert outcomes(store, put("a", b"9", first, b"1")) == [APPLIED]


over_what_is_not_ours = pytest.mark.parametrize(
    ("server", "there"),
    [
        (server, there)
        for server in SERVERS
        for there in ("nothing", "another type", "another session's", "a hash of strangers")
        if (server, there) != ("fakeredis", "another type")  # its scripts cannot look at the text of an error
    ],
    indirect=["server"],
    scope="module",
)


@over_what_is_not_ours
def test_a_merge_into_a_record_that_is_not_ours_applies_everything(store: RedisStore, client: Any, there: str) -> None:
    """Redis lost the category: it was not written since. What lay in its place holds nothing of ours and goes."""
    foreign(client, there)
    steps = [
        put("a", b"9", 7, b"1"),
        put("b", None, 7, b"1"),
        put("c", b"1", 7, mode=ABSENT),
        add("n", 2),
        put("z2", b"1", 0),
    ]
    merged = merge(store, *steps)
    assert merged.outcomes == (APPLIED,) * 5
    assert data(client) == {"a": "9", "c": "1", "n": "2", "z2": "1"}
    assert store.read(VISITOR, {"ui": 0}, timeout=WAIT).records["ui"].version == merged.version
    assert store.read(VISITOR, {"ui": 0}, timeout=WAIT).damaged == ()
    assert_counted(client)
    assert 0 < client.pttl(key("ui")) <= LIFE


@over_what_is_not_ours
@pytest.mark.parametrize(
    ("changes", "after"),
    [
        ({"sets": {"a": b"9"}, "increments": {"n": 1}}, {"a": "9", "n": "1"}),
        ({"deletes": {"a"}}, {}),
        ({"wipe": True}, {}),
        ({"wipe": True, "sets": {"a": b"9"}}, {"a": "9"}),
    ],
)
def test_a_write_over_a_record_that_is_not_ours_begins_anew(
    store: RedisStore, client: Any, there: str, changes: dict[str, Any], after: dict[str, str]
) -> None:
    """Nothing of it is read, counted, or left."""
    foreign(client, there)
    assert write(store, **changes).versions["ui"].before == 0
    assert data(client) == after
    assert_counted(client)
    assert store.read(VISITOR, {"ui": 0}, timeout=WAIT).damaged == ()


def foreign(client: Any, what: str) -> None:
    if what == "another type":
        client.rpush(key("ui"), "x")
    elif what == "another session's":
        other = Meta("e" * 8, 5, 5, "write.1", 4, 2, (("added.1", 5),))
        client.hset(key("ui"), mapping={"@m": other.text(), "a": "1", "n": "5", "z": "1"})
    elif what != "nothing":
        client.hset(key("ui"), mapping={"a": "1", "n": "no number", "z": "1"})


@on_each
def test_several_steps_are_decided_one_by_one(store: RedisStore, client: Any) -> None:
    """One conflict does not take its neighbours with it, and a later step sees what an earlier one did."""
    moments = given(store)
    assert outcomes(
        store,
        put("a", b"9", moments[FIRST], b"1"),
        put("d", b"9", moments[FIRST], b"1"),
        add("n", 1),
        put("c", b"3", moments[FIRST], mode=ABSENT),
        add("c", 4, "added.2"),
    ) == [CONFLICT, APPLIED, APPLIED, APPLIED, APPLIED]
    assert data(client) == {"a": "2", "d": "9", "n": "1", "c": "7"}


@pytest.mark.parametrize("mode", [SINCE, TIME])
def test_what_this_merge_has_just_written_is_no_write_by_another(store: RedisStore, client: Any, mode: str) -> None:
    """Two steps for one field are applied one after the other."""
    moment = stamp(store, "write.1", sets={"a": b"1"}) + 1
    assert outcomes(store, put("a", b"2", moment, mode=mode), put("a", b"3", moment, mode=mode)) == [APPLIED, APPLIED]
    assert data(client) == {"a": "3"}
    assert [name for name, *_ in meta(client).lately] == ["a"]


# -- what was acknowledged before it was merged ------------------------------------------------------------------------


def merged_late(store: RedisStore) -> tuple[int, int, int]:
    """A field that was acknowledged ten seconds before it was merged. The version before, both moments."""
    before = stamp(store, "write.1", sets={"a": b"1", "b": b"1"})
    acknowledged = before - 10 * SECOND
    merged = merge(store, put("a", b"2", before, b"1", acknowledged=acknowledged), write_id="merge.0")
    assert merged.outcomes == (APPLIED,)
    return before, acknowledged, merged.version


@pytest.mark.parametrize("said_again", [b"x", None])
def test_what_is_there_already_is_as_late_as_it_was_said_last(
    store: RedisStore, client: Any, said_again: bytes | None
) -> None:
    """Another host's older value does not come back because the newer one changed nothing."""
    before = stamp(store, "write.1", sets={"a": b"x", "b": b"1"} if said_again else {"b": b"1"}) - 20 * SECOND
    put_meta(client, meta(client).earlier(20 * SECOND))
    latest = before + 8 * SECOND
    assert outcomes(store, blind("a", said_again, latest), write_id="merge.1") == [APPLIED]
    assert outcomes(store, blind("a", b"y", before + 4 * SECOND), write_id="merge.2") == [CONFLICT]
    assert data(client) == {"b": "1"} | ({"a": "x"} if said_again else {})


@pytest.mark.parametrize("damaged", ["@m of nothing", "x" * 60, "1" * 16 + "x" * 60, "1" * 40 + "x" * 20])
def test_a_record_that_cannot_be_understood_is_begun_anew(store: RedisStore, client: Any, damaged: str) -> None:
    """As one of another session: what waits for it would be tried for ever."""
    client.hset(key("ui"), mapping={"@m": DIGEST[:8] + damaged, "a": "1"})
    assert outcomes(store, blind("b", b"2", 1)) == [APPLIED]
    assert data(client) == {"b": "2"}


def test_what_is_noted_of_a_record_may_be_damaged(store: RedisStore, client: Any) -> None:
    """It says nothing then; the record is changed as one that knows no more than its horizon."""
    stamp(store, "write.1", sets={"a": b"1"})
    client.hset(key("ui"), "@m", meta(client).text() + "\1a\1short")
    assert outcomes(store, blind("b", b"2", 2**52)) == [APPLIED]
    assert stamp(store, "write.2", sets={"a": b"3"})
    assert data(client) == {"a": "3", "b": "2"}


def test_when_a_kept_value_was_acknowledged_is_noted(store: RedisStore, client: Any) -> None:
    """Beside the stamp of its merge, to the millisecond."""
    _, acknowledged, version = merged_late(store)
    [(name, author, noted, lag)] = meta(client).lately
    assert (name, author, noted) == ("a", "merge.0", version)
    assert 0 <= noted - lag * 1000 - acknowledged < 1000


@pytest.mark.parametrize(
    ("mode", "since_acknowledged", "outcome"),
    [(TIME, 1, APPLIED), (TIME, -1, CONFLICT), (SINCE, 1, CONFLICT), (SINCE, -1, CONFLICT), (ABSENT, 1, CONFLICT)],
)
def test_of_two_values_made_from_nothing_the_one_that_was_acknowledged_later_wins(
    store: RedisStore, client: Any, mode: str, since_acknowledged: int, outcome: Outcome
) -> None:
    """The value that was acknowledged later wins, whichever host merges first. A value made from a version has to
    know what came to the record since."""
    _, acknowledged, _ = merged_late(store)
    moment = acknowledged + since_acknowledged * SECOND
    assert outcomes(store, put("a", b"9", moment, b"1", mode)) == [outcome]
    assert data(client)["a"] == ("9" if outcome is APPLIED else "2")


@pytest.mark.parametrize("since_acknowledged", [1, -1])
def test_each_field_of_a_record_that_a_merge_begins_is_as_old_as_it_is(
    store: RedisStore, client: Any, since_acknowledged: int
) -> None:
    """Redis had lost it, or it is carried to a new id: what was acknowledged after a field and comes later wins."""
    acknowledged = store.endpoint.time_ms(timeout=WAIT) * 1000 - 10 * SECOND
    before = acknowledged - 5 * SECOND
    steps = [put("a", b"1", before, acknowledged=before), put("b", b"1", before, acknowledged=acknowledged)]
    assert outcomes(store, *steps, write_id="merge.0") == [APPLIED, APPLIED]
    outcome = APPLIED if since_acknowledged > 0 else CONFLICT
    moment = acknowledged + since_acknowledged * SECOND
    assert outcomes(store, blind("a", b"9", moment), blind("b", None, moment)) == [APPLIED, outcome]
    assert data(client) == ({"a": "9"} if outcome is APPLIED else {"a": "9", "b": "1"})


@pytest.mark.parametrize("since_acknowledged", [1, -1])
def test_a_wipe_takes_what_was_acknowledged_before_it(store: RedisStore, client: Any, since_acknowledged: int) -> None:
    """Though it was merged after it."""
    _, acknowledged, _ = merged_late(store)
    assert outcomes(store, wipe(acknowledged + since_acknowledged * SECOND)) == [APPLIED]
    assert ("a" in data(client)) == (since_acknowledged < 0)
    assert_counted(client)


def test_a_sum_has_the_moment_of_its_last_addition(store: RedisStore, client: Any) -> None:
    """A wipe that was acknowledged later takes it."""
    before = stamp(store, "write.1", sets={"a": b"1"})
    assert outcomes(store, add("n", 1)._replace(acknowledged=before - 10 * SECOND)) == [APPLIED]
    assert outcomes(store, wipe(before - 5 * SECOND), write_id="merge.2") == [APPLIED]
    assert data(client) == {"a": "1"}


# -- wipes in a merge --------------------------------------------------------------------------------------------------


@on_each
def test_a_kept_wipe_takes_what_was_there_and_keeps_what_was_written_since(store: RedisStore, client: Any) -> None:
    """I20: the user cleared the session in the outage; what another host wrote after that stays."""
    moment = stamp(store, "write.1", sets={"a": b"1", "b": b"1"}) + 1
    stamp(store, "write.2", sets={"b": b"2"}, increments={"n": 5})
    assert outcomes(store, wipe(moment)) == [APPLIED]
    assert data(client) == {"b": "2", "n": "5"}
    assert_counted(client)
    assert outcomes(store, wipe(9 * 10**15)) == [APPLIED]
    assert data(client) == {}
    assert_counted(client)


def test_what_follows_a_wipe_is_applied(store: RedisStore, client: Any) -> None:
    """A change after the wipe is applied whatever its moment and its base: when it was written the wipe had been
    acknowledged."""
    stamp(store, "write.1", sets={"a": b"1", "b": b"1", "c": b"1", "n": b"7"})
    moment = stamp(store, "write.2", sets={"b": b"2"}) + 1
    merged = merge(
        store,
        wipe(moment),
        blind("a", b"9", moment),
        put("b", b"9", 5),
        put("c", b"9", 5, mode=ABSENT),
        add("n", 2),
    )
    assert merged.outcomes == (APPLIED,) * 5
    assert data(client) == {"a": "9", "b": "9", "c": "9", "n": "2"}
    assert_counted(client)
    assert merged.version == meta(client).stamp


def test_what_another_host_wrote_since_is_in_the_way_of_what_follows_a_wipe(store: RedisStore, client: Any) -> None:
    """It was kept by the wipe, so there is something."""
    first = stamp(store, "write.1", sets={"a": b"1"})
    stamp(store, "write.2", sets={"a": b"2"})
    assert outcomes(store, wipe(first), put("a", b"9", first), blind("b", b"9", first)) == [
        APPLIED, CONFLICT, APPLIED,
    ]  # fmt: skip
    assert data(client) == {"a": "2", "b": "9"}


def test_what_was_written_after_a_wipe_and_is_merged_after_it_is_applied(store: RedisStore, client: Any) -> None:
    """The wipe is merged at once; what the user wrote then, before the merge, waits for the next batch."""
    stamp(store, "write.1", sets={"a": b"1"})
    moment = store.endpoint.time_ms(timeout=WAIT) * 1000 + 999
    time.sleep(0.02)  # the merge comes later than that, by the clock of a server that no test can set
    assert outcomes(store, wipe(moment), write_id="merge.1") == [APPLIED]
    assert (
        outcomes(
            store,
            blind("a", b"9", moment + 1000),
            blind("b", b"9", moment + 1000),
            put("d", b"9", moment + 1000, mode=ABSENT),
            add("n", 1),
            write_id="merge.2",
        )
        == [APPLIED] * 4
    )
    assert outcomes(store, blind("z", b"9", moment - 2000), put("z", b"9", moment - 2000, b"1")) == [CONFLICT, CONFLICT]
    assert data(client) == {"a": "9", "b": "9", "d": "9", "n": "1"}


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("fraction", [0, 1, 500, 999])
def test_what_the_request_of_a_wipe_wrote_may_come_in_another_batch(
    store: RedisStore, client: Any, fraction: int, times: int
) -> None:
    """Both have one moment, which the record knows to the millisecond, however often the wipe is merged. What another
    request wrote before it is gone."""
    stamp(store, "write.1", sets={"a": b"1"})
    time.sleep(0.002)  # the moment is later than the write, by the server's own clock in milliseconds
    moment = store.endpoint.time_ms(timeout=WAIT) * 1000 + fraction
    time.sleep(0.02)  # the merge comes later than that, by the clock of a server that no test can set
    for number in range(times):
        assert outcomes(store, wipe(moment), write_id=f"merge.{number}") == [APPLIED]
    assert outcomes(store, blind("z", b"9", moment - 1000), write_id="merge.8") == [CONFLICT]
    assert outcomes(store, blind("a", b"9", moment), blind("b", b"9", moment), write_id="merge.9") == [APPLIED, APPLIED]
    assert data(client) == {"a": "9", "b": "9"}


def test_what_a_wipe_left_because_it_is_unknown_is_left_by_what_has_the_same_moment(
    store: RedisStore, client: Any
) -> None:
    """The value is left, because the same wipe would else take it when it is merged once more."""
    moment = stamp(store, "write.1", sets={"a": b"1"})
    for number in range(30):
        stamp(store, "write.2", sets={f"field{number}": b"1"})
    assert meta(client).author == BEGUN
    time.sleep(0.02)  # the merge comes later than that, by the clock of a server that no test can set
    for number in range(3):
        assert outcomes(store, wipe(moment), write_id=f"merge.{number}") == [APPLIED]
        assert data(client)["a"] == "1"
    assert outcomes(store, blind("a", b"9", moment), write_id="merge.9") == [CONFLICT]


@pytest.mark.parametrize("again", ["the next run", "the same run"])
def test_a_wipe_whose_reply_was_lost_is_merged_once_more(store: RedisStore, client: Any, again: str) -> None:
    """The wipe is merged once more with what followed it. Nothing of that is lost, and nothing is counted twice."""
    stamp(store, "write.1", sets={"a": b"1", "b": b"1"})
    moment = stamp(store, "write.2", sets={"b": b"2"}) + 50_000  # as far as the host knows the server's clock
    doubts = "merge.1 " if again == "the next run" else ""
    steps = [wipe(moment, doubts), blind("a", b"9", moment, doubts), add("n", 3)]
    for write_id in ("merge.1", "merge.2" if doubts else "merge.1"):
        assert outcomes(store, *steps, write_id=write_id) == [APPLIED, APPLIED, APPLIED]
        assert data(client) == {"a": "9", "n": "3"}
        assert_counted(client)
    time.sleep(0.06)
    stamp(store, "write.3", sets={"a": b"7"}, increments={"n": 4})
    assert outcomes(store, *steps, write_id="merge.3") == [APPLIED, CONFLICT, APPLIED]
    assert data(client) == {"a": "7", "n": "7"}


def test_a_write_that_wiped_and_whose_reply_was_lost_is_no_loss(store: RedisStore, client: Any) -> None:
    """A request cleared the session and counted anew; it is kept under the id by which Redis may have it."""
    stamp(store, "write.1", sets={"a": b"1", "n": b"7"})
    wiped = stamp(store, "write.2", wipe=True, sets={"a": b"2"}, increments={"n": 3})
    moment, doubts = wiped + 250_000, "write.2 "
    steps = [wipe(moment, doubts), blind("a", b"2", moment, doubts), add("n", 3, "write.2", moment)]
    assert outcomes(store, *steps) == [APPLIED, APPLIED, APPLIED]
    assert data(client) == {"a": "2", "n": "3"}


def test_a_wipe_leaves_what_was_acknowledged_after_it_though_that_comes_first(store: RedisStore, client: Any) -> None:
    """The journal got the wipe later than it was acknowledged."""
    written = stamp(store, "write.1", sets={"a": b"1", "b": b"1"})
    steps = [blind("a", b"2", written + 2000), wipe(written + 1000)]
    assert outcomes(store, *steps) == [APPLIED, APPLIED]
    assert data(client) == {"a": "2"}


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "steps", "expected"),
    [
        ((3, 1000), [put("c", b"1", 0)], [APPLIED]),
        ((3, 1000), [put("c", b"1", 0), put("d", b"1", 0)], [APPLIED, LARGE]),
        ((3, 1000), [put("c", b"1", 0), put("a", None, 0, b"1"), put("d", b"1", 0)], [APPLIED] * 3),
        ((3, 1000), [add("c", 1), add("d", 1, "added.2")], [APPLIED, LARGE]),
        ((3, 1000), [add("a", 1), add("a", 1, "added.2")], [APPLIED, APPLIED]),
        ((9, 10), [put("c", b"12345", 0)], [APPLIED]),  # a1 b1 c12345: 10 bytes
        ((9, 10), [put("c", b"123456", 0)], [LARGE]),
        ((9, 10), [put("c", b"123456", 0), put("c", b"1", 0)], [LARGE, APPLIED]),
        ((9, 10), [put("a", b"1234567", 0, b"1")], [APPLIED]),
        ((9, 10), [put("a", b"12345678", 0, b"1")], [LARGE]),
        ((9, 10), [add("a", 12_345_678)], [LARGE]),
        ((9, 10), [add("a", 1_234_567)], [APPLIED]),
        ((9, 10), [wipe(9 * 10**15), put("c", b"123456789", 9 * 10**15)], [APPLIED, APPLIED]),
        ((9, 10), [wipe(9 * 10**15), put("c", b"1234567890", 9 * 10**15)], [APPLIED, LARGE]),
    ],
)
def test_a_merge_keeps_the_limits(
    store: RedisStore, client: Any, limits: tuple[int, int], steps: Sequence[MergeStep], expected: list[Outcome]
) -> None:
    """I20: in an outage as at level 0. What is too large is left out, and a later write is possible all the same."""
    stamp(store, sets={"a": b"1", "b": b"1"})
    within = Limits(*limits, EMPTY)
    assert outcomes(store, *steps, limits=within) == expected
    assert_counted(client)
    found = meta(client)
    assert found.count <= within.fields
    assert found.bytes <= within.bytes
    for name in data(client):
        assert write(store, limits=within, sets={name: b"1"}).status == "written"


def test_what_was_too_large_and_is_not_noted_may_be_added_later(store: RedisStore, client: Any) -> None:
    """An addition for which there was no room was not made."""
    stamp(store, sets={"a": b"1"})
    assert outcomes(store, add("n", 5), limits=Limits(1, 100, EMPTY)) == [LARGE]
    assert meta(client).additions == ()
    assert outcomes(store, add("n", 5)) == [APPLIED]
    assert data(client) == {"a": "1", "n": "5"}


# -- additions ---------------------------------------------------------------------------------------------------------


def test_an_addition_is_made_once(store: RedisStore, client: Any) -> None:
    """An addition is known by its id, whether a merge made it or a request; another id is another addition."""
    stamp(store, "write.1", increments={"n": 2})
    assert outcomes(store, add("n", 2, "write.1")) == [APPLIED]
    for _ in range(3):
        assert outcomes(store, add("n", 5, "added.1")) == [APPLIED]
    assert outcomes(store, add("n", 5, "added.2")) == [APPLIED]
    assert data(client) == {"n": "12"}
    assert [token for token, _ in meta(client).additions] == ["write.1", "added.1", "added.2"]
    assert abs(meta(client).additions[-1][1] - store.endpoint.time_ms(timeout=WAIT)) < 10_000


@pytest.mark.parametrize("was_made", [False, True])
@pytest.mark.parametrize("together", [True, False])
def test_each_addition_of_a_request_has_an_id_of_its_own(
    store: RedisStore, client: Any, was_made: bool, together: bool
) -> None:
    """The request whose reply was lost counted two things: both were counted, or both are now, in one batch or two."""
    stamp(store, "write.1", sets={"a": b"1"})
    if was_made:
        stamp(store, "write.2", increments={"n": 1, "m": 2})
    steps = [add(name, by, addition_id("write.2", by - 1), 5) for name, by in (("n", 1), ("m", 2))]
    for _ in range(2):
        for batch in [steps] if together else [[step] for step in steps]:
            assert outcomes(store, *batch) == [APPLIED] * len(batch)
        assert data(client) == {"a": "1", "n": "1", "m": "2"}
    assert [token for token, _ in meta(client).additions] == ["write.2", "grite.2"]


def test_one_request_with_many_additions_takes_no_more_ids_than_are_remembered(store: RedisStore, client: Any) -> None:
    """Otherwise the request's last additions would put its first one in doubt."""
    names = [f"field{number}" for number in range(9)]
    stamp(store, "write.2", increments=dict.fromkeys(names, 1))
    tokens = [addition_id("write.2", number) for number in range(9)]
    assert tokens == ["write.2", "grite.2", "hrite.2", "irite.2", "jrite.2", *["krite.2"] * 4]
    assert [token for token, _ in meta(client).additions] == tokens[:6]
    before = whole(client)
    steps = [add(name, 1, token, 5) for name, token in zip(names, tokens, strict=True)]
    assert outcomes(store, *steps) == [APPLIED] * 9
    assert whole(client) == before


@on_each
def test_many_additions_of_one_merge_put_none_of_them_in_doubt(store: RedisStore, client: Any) -> None:
    """They were not made before it, and it makes each once. What it can not remember is in doubt afterwards only."""
    steps = [add(f"field{number}", 1, f"added.{number}", 5) for number in range(9)]
    assert outcomes(store, *steps) == [APPLIED] * 9
    assert data(client) == {f"field{number}": "1" for number in range(9)}
    assert outcomes(store, *steps) == [IN_DOUBT] * 3 + [APPLIED] * 6
    assert data(client) == {f"field{number}": "1" for number in range(9)}


def test_an_addition_that_may_be_forgotten_is_in_doubt(store: RedisStore, client: Any) -> None:
    """Six others came since it was sent: it may have been made before them. Twice would be wrong, so it is not."""
    stamp(store, "write.0", sets={"n": b"0"})
    sent_at = store.endpoint.time_ms(timeout=WAIT) * 1000
    for number in range(5):
        stamp(store, f"write.{number}", increments={"n": 1})
        assert outcomes(store, add("n", 0, f"write.{number}", sent_at)) == [APPLIED]
    assert len(meta(client).additions) == 5
    stamp(store, "write.5", increments={"n": 1})
    before = whole(client)
    assert outcomes(store, add("n", 100, "added.1", sent_at)) == [IN_DOUBT]
    assert whole(client) == before
    assert outcomes(store, add("n", 1, "write.0", sent_at)) == [APPLIED], "it is remembered"
    assert whole(client) == before
    later = (meta(client).additions[0][1] + 1) * 1000
    assert outcomes(store, add("n", 100, "added.1", later)) == [APPLIED], "sent after the oldest that is remembered"
    assert outcomes(store, add("n", 1000, "added.2", 0)) == [APPLIED], "never sent before"
    assert data(client) == {"n": "1106"}
    assert [token for token, _ in meta(client).additions] == [
        "write.2", "write.3", "write.4", "write.5", "added.1", "added.2",
    ]  # fmt: skip


def test_additions_outlive_a_wipe(store: RedisStore, client: Any) -> None:
    """Additions that were counted and then cleared are not counted once more."""
    stamp(store, "write.1", increments={"n": 2})
    stamp(store, "write.2", wipe=True)
    assert outcomes(store, add("n", 2, "write.1", 5)) == [APPLIED]
    assert data(client) == {}


def test_a_read_tells_which_additions_are_in_what_it_found(store: RedisStore) -> None:
    """The read tells so, lest what waits in a journal and was made already is shown twice."""
    stamp(store, "write.1", sets={"a": b"1"})
    assert store.read(VISITOR, {"ui": 0}, timeout=WAIT).records["ui"].additions == b""
    stamp(store, "write.2", increments={"n": 1})
    merge(store, add("n", 1, "added.1"))
    found = store.read(VISITOR, {"ui": 0}, timeout=WAIT).records["ui"].additions
    assert [found[at : at + 7] for at in range(0, len(found), 20)] == [b"write.2", b"added.1"]


@pytest.mark.parametrize("text", [b'"x"', b"1.5", b"9" * 30, b"", b"null", b"-", b"--1", b" 1"])
def test_an_addition_to_what_is_no_number_is_left_out(store: RedisStore, client: Any, text: bytes) -> None:
    """The other steps are applied all the same."""
    stamp(store, sets={"n": text})
    assert outcomes(store, add("n", 1), put("a", b"1", 0)) == [NO_NUMBER, APPLIED]
    assert data(client) == {"n": text.decode(), "a": "1"}
    assert meta(client).additions == ()


EDGE = 10**18 - 1


@pytest.mark.parametrize(
    ("stored", "by", "total"),
    [
        (EDGE - 1, 1, EDGE),
        (EDGE, 1, None),
        (-EDGE + 1, -1, -EDGE),
        (-EDGE, -1, None),
        (EDGE, -EDGE, 0),
        (-EDGE, EDGE, 0),
        (EDGE, -EDGE - 1, None),
        (2**53, 1, 2**53 + 1),
        (10**9 - 1, 1, 10**9),
        (10**9, -1, 10**9 - 1),
        (-(10**9), 1, -(10**9) + 1),
        (1, -(10**9), 1 - 10**9),
        (-1, 10**9, 10**9 - 1),
        (10**17, 10**17, 2 * 10**17),
        (5 * 10**17, 5 * 10**17, None),
        (0, 0, 0),
    ],
)
def test_numbers_of_eighteen_digits_are_added_exactly(
    store: RedisStore, client: Any, stored: int, by: int, total: int | None
) -> None:
    """Lua's own numbers have fifteen; by a write as by a merge."""
    for how in ("write", "merge"):
        stamp(store, wipe=True, sets={"n": b"%d" % stored})
        if how == "write":
            refused = write(store, increments={"n": by}).status == "no number"
        else:
            refused = outcomes(store, add("n", by)) == [NO_NUMBER]
        assert refused == (total is None)
        assert data(client) == {"n": str(stored if total is None else total)}


@on_each
def test_any_two_numbers_are_added_exactly(store: RedisStore, client: Any) -> None:
    """Numbers of any length and sign are added; a sum of more than eighteen digits is refused."""
    rng, expected = random.Random(11), {}
    pairs = [
        tuple(rng.choice((-1, 1)) * rng.randrange(10 ** rng.randrange(1, 19)) for _ in range(2)) for _ in range(200)
    ]
    stamp(store, sets={f"n{number}": b"%d" % a for number, (a, _) in enumerate(pairs)})
    found = outcomes(
        store, *(add(f"n{number}", b, f"{rng.getrandbits(28):07x}") for number, (_, b) in enumerate(pairs))
    )
    for number, (a, b) in enumerate(pairs):
        fits = abs(a + b) <= EDGE
        assert found[number] is (APPLIED if fits else NO_NUMBER), (a, b)
        expected[f"n{number}"] = str(a + b if fits else a)
    assert data(client) == expected


# -- deadlines ---------------------------------------------------------------------------------------------------------


def commands(deadline_ms: int, write_id: str = "late..1") -> list[Command]:
    keys = [key("auth"), key("ui")]
    head = Guarded(Limits(9, 999, EMPTY), deadline_ms, write_id).head("free", DIGEST)
    change = CategoryChange(LIFE, sets={"late": b"1"}, increments={"n": 1}, wipe=True)
    return [
        WRITE(keys, [head, *change_arguments(change, change.sets)]),
        MERGE(keys, [head, LIFE, f"{0:016}", "wipe", "@", "", "since", 9 * 10**15, 0, "", "", 0]),
    ]


@on_each
@pytest.mark.parametrize("number", [0, 1])
def test_what_arrives_after_its_deadline_does_nothing(store: RedisStore, client: Any, number: int) -> None:
    """A late write does nothing, and says how late it is; in time it does everything."""
    stamp(store, sets={"a": b"1"})
    before, now_ms = whole(client), store.endpoint.time_ms(timeout=WAIT)
    [reply] = store.link.run([commands(now_ms - 1)[number]], WAIT)
    assert reply[0] == b"late"
    assert 0 <= reply[1] - now_ms < 10_000
    assert whole(client) == before
    [reply] = store.link.run([commands(now_ms + 60_000)[number]], WAIT)
    assert reply.startswith(b"written") if number == 0 else reply[0] == b"merged"
    assert "a" not in data(client)


@about_a_process
@pytest.mark.parametrize("how", ["write", "merge"])
def test_what_is_stuck_in_the_socket_of_a_stopped_server_does_nothing(
    store: RedisStore, server: Valkey, client: Any, how: str
) -> None:
    """Its sender gave up; by the time that the server goes on, something else may have been written."""
    change = {"ui": CategoryChange(LIFE, sets={"a": b"2"}, increments={"n": 1})}
    steps = [put("a", b"2", 9 * 10**15), add("n", 1)]
    stamp(store, sets={"a": b"1"})
    server.freeze()
    try:
        with pytest.raises(StoreError) as caught:
            if how == "write":
                store.write(VISITOR, change, guard="free", limits=LIMITS, timeout=0.1, write_id="stuck.1")
            else:
                merges = [Merge(DIGEST, "ui", steps, "free", LIFE)]
                store.merge_all(merges, limits=LIMITS, timeout=0.1, write_id="stuck.1")
        assert (caught.value.timed_out, caught.value.sent) == (True, True)
    finally:
        server.thaw()
    client.ping()
    assert data(client) == {"a": "1"}
    assert [author for _, author, *_ in meta(client).lately] == []
    assert outcomes(store, *steps) == [APPLIED, APPLIED]
    assert data(client) == {"a": "2", "n": "1"}


# -- copies ------------------------------------------------------------------------------------------------------------


@on_each
def test_copies_are_categories_as_they_are(store: RedisStore) -> None:
    """Copies are the categories as they are; a missing one is empty as of now, which is later than any write that
    made it so."""
    first = stamp(store, sets={"a": b"1"})
    found, absent = store.copies([(DIGEST, "ui"), (DIGEST, "translation")], timeout=WAIT)
    assert found[:2] == (first, {"a": b"1"})
    assert found.mark.startswith(DIGEST[:8].encode())
    assert absent.fields == {}
    assert abs(absent.version // 1000 - store.endpoint.time_ms(timeout=WAIT)) < 10_000
    wiped = stamp(store, wipe=True)
    assert [copy[:2] for copy in store.copies([(DIGEST, "ui")], timeout=WAIT)] == [(wiped, {})]
    assert store.copies([], timeout=WAIT) == []
