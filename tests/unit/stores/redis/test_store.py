"""Methods of the store: what each sends, how long it waits, and what it makes of the replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import hiredis
import pytest
from redis import exceptions as driver

from flask_langpont_session.policy.changes import CategoryChange, Operation
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.redis import commands
from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.link import Link
from flask_langpont_session.stores.redis.records import Limits, Merge, Merged, MergeStep, Outcome, Written
from flask_langpont_session.stores.redis.server_identity import ServerIdentity
from flask_langpont_session.stores.redis.store import RedisStore
from tests.support.auth_records import packed
from tests.support.clock import Clock

from .told_server import Pool, Server, ToldLag

D = "d" * 43
OTHER = "o" * 43
REF = RecordRef(D, "a")
META = D[:8].encode() + b"17%014d17%014d%06x" % (0, 0, 0) + b"write.1" + b"%07x%04x" % (8, 1)
UI = [b"@m", META, b"lang", b'"jp"']
LIVE = packed({"@d": D, "@live": 1, "@v": 3, "@at": 5, "@i": 9, "@x": 9, "@c": 1, "@e": 0}).encode()
AUTH = [b"@m", LIVE, b"@u", b"7", b"_user_id", b'"7"']
ROW = AuthRow(D, "7", 1, True, {"_user_id": b'"7"'}, 2, 1000, 4_000_000_000_000, 4_000_000_000_001, 0)
CHANGES = {"ui": CategoryChange(60_000, sets={"lang": b'"jp"'})}
LIMITS = Limits(9, 99, 9)
MERGE = Merge(D, "ui", [MergeStep(Operation.SET, "lang", b'"jp"')], "free", 9)
WRITTEN = b"written" + b"%016d" % 3 + META
WAIT = 1.5

SCRIPTS = {one.sha: name.lower() for name, one in vars(commands).items() if isinstance(one, commands.Script)}


def key(category: str, digest: str = D) -> bytes:
    return f"session:{category}:{{{digest}}}".encode()


class Method(NamedTuple):
    """A call of a method, and the question and answer that belong to it.

    :param sent: the script, or the command, and its keys.
    :param says: a reply that it can get.
    :param makes: of what it returns, what it is to be.
    """

    call: Callable[[RedisStore], Any]
    sent: tuple[str, list[bytes]]
    says: Any
    makes: Callable[[Any], bool]


METHODS = {
    "read": Method(
        lambda s: s.read(RecordRef(D, "u"), {"ui": 0, "auth": 5}, timeout=WAIT),
        ("read", [key("ui"), key("auth")]),
        [1, UI, AUTH, 0, 9],
        lambda found: found.records["ui"].fields == {"lang": b'"jp"'} and found.auth.row.version == 3,
    ),
    "read, shadow": Method(
        lambda s: s.read(RecordRef(D, "a", shadow=True), {"ui": 0}, timeout=WAIT),
        ("read", [key("ui") + b":anon"]),
        [1, [], 0, 9],
        lambda found: not found.records["ui"].fields,
    ),
    "copies": Method(
        lambda s: s.copies([(D, "ui")], timeout=WAIT),
        ("read", [key("ui")]),
        [1, UI, 0, 9],
        lambda found: (found[0].fields, found[0].mark) == ({"lang": b'"jp"'}, META),
    ),
    "auths": Method(
        lambda s: s.auths([D], timeout=WAIT),
        ("read", [key("auth")]),
        [1, AUTH, 0, 9],
        lambda found: found[0].auth.row.user_id == "7",
    ),
    "write": Method(
        lambda s: s.write(REF, CHANGES, guard="free", limits=LIMITS, timeout=WAIT, write_id="write.1"),
        ("write", [key("auth"), key("ui")]),
        WRITTEN,
        lambda found: found.status == "written" and found.versions["ui"].before == 3,
    ),
    "push": Method(
        lambda s: s.push(ROW, 1, 60_000, timeout=WAIT),
        ("push", [key("auth")]),
        b"older",
        lambda found: found == "older",
    ),
    "push_many": Method(
        lambda s: s.push_many([(ROW, 1)], ("auth",), stamp_ms=1, timeout=WAIT),
        ("push", [key("auth")]),
        b"pushed",
        lambda found: found == [b"pushed"],
    ),
    "extend_idle": Method(
        lambda s: s.extend_idle(D, 1000, timeout=WAIT),
        ("extend_idle", [key("auth")]),
        17,
        lambda found: found == 17,
    ),
    "merge_all": Method(
        lambda s: s.merge_all([MERGE], limits=LIMITS, timeout=WAIT, write_id="write.1"),
        ("merge", [key("auth"), key("ui")]),
        [b"merged", 5, 1],
        lambda found: found == [Merged("merged", 5, (Outcome.APPLIED,))],
    ),
    "quarantine": Method(
        lambda s: s.quarantine(REF, "ui", timeout=WAIT),
        ("quarantine", [key("ui"), key("ui") + b":aside"]),
        1,
        lambda found: found is None,
    ),
}
READS = {"read", "read, shadow", "copies", "auths"}
CALLS = pytest.mark.parametrize("name", METHODS)


class Changes:
    """Notes which sessions were changed."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def of(self, digest: str) -> bytes | None:
        return b""

    def change(self, digest: str, known: bytes | None = None) -> bytes | None:
        self.noted.append(digest)
        return b""

    def are_usable(self) -> bool:
        return True


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def link(server: Server, clock: Clock) -> Link:
    pool: Any = Pool(server)
    return Link("primary", pool, server_identity=ServerIdentity(), lag=ToldLag(clock))


@pytest.fixture
def store(link: Link) -> RedisStore:
    return RedisStore(Endpoint(link, prefix="session"))


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def noting(link: Link, changes: Changes) -> RedisStore:
    """Return a store that notes what it changes, for the other workers of the host."""
    return RedisStore(Endpoint(link, prefix="session"), change_ids=changes)


def sent(server: Server) -> list[tuple[str, list[bytes], list[bytes]]]:
    """The scripts and commands that were sent, with their keys and their arguments."""
    reader, found = hiredis.Reader(), []
    reader.feed(b"".join(server.received))
    while (parts := reader.gets()) is not False:
        if parts[0] in (b"EVALSHA", b"EVAL"):
            number = 3 + int(parts[2])
            name = SCRIPTS[parts[1]] if parts[0] == b"EVALSHA" else "spelled out"
            found.append((name, parts[3:number], parts[number:]))
        else:
            found.append((str(parts[0], "ascii"), parts[1:], []))
    return found


# -- every method ------------------------------------------------------------------------------------------------------


@CALLS
def test_a_method_is_one_question_and_its_answer(store: RedisStore, server: Server, name: str) -> None:
    """It waits as long as it is told to, and the connection is kept."""
    call, command, says, makes = METHODS[name]
    server.says = [says]
    assert makes(call(store))
    assert [(script, keys) for script, keys, _ in sent(server)] == [command]
    assert server.deadlines == [1000.0 + WAIT]
    assert (len(store.link.connections.idle), store.link.connections.in_use) == (1, 0)


@CALLS
@pytest.mark.parametrize("says", [None, b"nonsense", {b"a": 1}, [b"merged"], [1, 2], [1, [b"a"], 0, 9]], ids=repr)
def test_a_reply_that_it_cannot_get_is_an_error(store: RedisStore, server: Server, name: str, says: Any) -> None:
    """I11: it belongs to another question, and so may what comes next over that connection. Of a read it says nothing
    of the server's health: it is asked anew."""
    server.says = [says]
    with pytest.raises(StoreError) as caught:
        METHODS[name].call(store)
    assert caught.value.store == "primary"
    is_read = name.startswith("read")
    assert caught.value.error_class is (ErrorClass.DATA if is_read else ErrorClass.UNREACHABLE)
    assert (store.link.connections.idle, store.link.connections.in_use) == ([], 0)


@CALLS
def test_a_refusal_is_an_error_of_its_class(store: RedisStore, server: Server, name: str) -> None:
    """Each of several merges is refused for itself."""
    server.says = [driver.NoPermissionError("NOPERM")]
    with pytest.raises(StoreError) as caught:
        for done in METHODS[name].call(store):
            raise done
    assert caught.value.error_class is ErrorClass.IDENTITY_REFUSED


@CALLS
def test_a_server_that_does_not_know_a_script_gets_its_text(store: RedisStore, server: Server, name: str) -> None:
    """With the same keys and arguments."""
    call, (_, keys), says, makes = METHODS[name]
    server.says = [driver.NoScriptError(""), says]
    assert makes(call(store))
    by_name, by_text = sent(server)
    assert (by_text[0], by_name[1], by_text[1]) == ("spelled out", keys, keys)
    assert by_text[2] == by_name[2]


@CALLS
@pytest.mark.parametrize("fails", [False, True])
def test_what_was_changed_is_noted_whatever_came_of_it(
    noting: RedisStore, server: Server, changes: Changes, name: str, fails: bool
) -> None:
    """The change is noted behind the question for the clock, whose answer the other workers' messages come before. A
    read notes nothing."""
    is_read, (call, command, says, makes) = name in READS, METHODS[name]
    server.says = [driver.TimeoutError()] if fails else [says] if is_read else [[b"1", b"2"], says]
    server.says *= 1 if is_read or not fails else 2
    if fails:
        with pytest.raises(StoreError):
            call(noting)
    else:
        assert makes(call(noting))
    assert [script for script, _, _ in sent(server)] == [*["TIME"] * (not is_read), command[0]]
    assert changes.noted == [D] * (not is_read)


def test_nothing_is_sent_for_nothing(noting: RedisStore, server: Server, changes: Changes) -> None:
    assert noting.merge_all([], limits=LIMITS, timeout=WAIT, write_id="write.1") == []
    assert noting.copies([], timeout=WAIT) == []
    assert noting.auths([], timeout=WAIT) == []
    noting.push_many([], ("auth",), stamp_ms=1, timeout=WAIT)
    assert (server.made, changes.noted) == (0, [])


# -- reading -----------------------------------------------------------------------------------------------------------


def test_what_was_read_before_need_not_be_sent_again(store: RedisStore, server: Server) -> None:
    """Unless all of it is asked for."""
    server.says = [[1, UI, 0, 9], [2, META, 0, 9], [3, UI, 0, 9]]
    found = [store.read(REF, {"ui": 0}, timeout=WAIT, anew=anew) for anew in (False, False, True)]
    assert [one.records["ui"].fields for one in found] == [{"lang": b'"jp"'}] * 3
    assert [arguments for _, _, arguments in sent(server)] == [[b"0"], [b"0", META], [b"0"]]


def test_an_unchanged_record_that_was_never_read_is_another_questions_reply(store: RedisStore, server: Server) -> None:
    server.says = [[1, META, 0, 9]]
    with pytest.raises(StoreError) as caught:
        store.read(REF, {"ui": 0}, timeout=WAIT)
    assert (caught.value.error_class, caught.value.cause) == (ErrorClass.DATA, "CrossedReply")
    assert store.link.connections.idle == []


def test_after_a_record_of_another_session_the_connection_is_not_used_again(store: RedisStore, server: Server) -> None:
    server.says = [[1, [b"@m", META.replace(b"d", b"o")], 0, 9]]
    found = store.read(REF, {"ui": 0}, timeout=WAIT)
    assert (found.foreign, found.damaged, store.link.connections.idle) == (("ui",), ("ui",), [])


def test_an_answer_says_what_the_server_is_and_since_when_it_counts(store: RedisStore, server: Server) -> None:
    store.server_identity.observe("another", now_ms=77, is_primary=False)
    server.says = [[100, [], 0, 9]]
    found = store.read(REF, {"ui": 0}, timeout=WAIT)
    assert (found.is_primary, found.trust_since_ms, found.now_ms) == (False, 77, 100)
    assert store.estimated_ms(D, 0.0) != 0  # it has said how late it is


# -- writing -----------------------------------------------------------------------------------------------------------


def write(store: RedisStore, changed: dict[str, CategoryChange] | None = None, **options: Any) -> Written:
    changed = CHANGES if changed is None else changed
    return store.write(REF, changed, guard="free", limits=LIMITS, timeout=WAIT, write_id="write.1", **options)


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ([b"dead"], Written("dead")),
        ([b"gone"], Written("gone")),
        ([b"large", 1], Written("large", category="ui")),
        ([b"no number", 1], Written("no number", category="ui")),
    ],
    ids=repr,
)
def test_a_write_that_was_not_done_says_why(store: RedisStore, server: Server, says: Any, found: Written) -> None:
    server.says = [says]
    assert write(store) == found


@pytest.mark.parametrize(("known_ms", "deadline"), [(5_000, b"0000000006500999"), (0, b"9999999999999999")])
def test_what_arrives_too_late_is_to_do_nothing(
    store: RedisStore, server: Server, monkeypatch: pytest.MonkeyPatch, known_ms: int, deadline: bytes
) -> None:
    """The deadline is by the server's clock, if that is known."""
    monkeypatch.setattr(store.server_identity, "estimated_ms", lambda at: known_ms)
    server.says = [WRITTEN]
    write(store)
    [(_, _, arguments)] = sent(server)
    assert deadline in arguments[0]


@pytest.mark.parametrize(
    ("says", "status"), [([b"pushed", WRITTEN], "written"), ([b"dead", WRITTEN], "dead"), ([b"ended", WRITTEN], "dead")]
)
def test_a_row_is_pushed_before_what_is_written(store: RedisStore, server: Server, says: Any, status: str) -> None:
    """Both are in one packet: the write is guarded by the record."""
    server.says = says
    assert write(store, push=(ROW, 1), push_life_ms=9, push_exact=True).status == status
    assert [script for script, _, _ in sent(server)] == ["push", "write"]
    assert len(server.received) == 1
    assert sent(server)[0][2][:2] == [b"9", b"1"]


@pytest.mark.parametrize(
    ("says", "status"), [(b"pushed", "written"), (b"older", "written"), (b"dead", "dead"), (b"ended", "dead")]
)
def test_a_row_may_be_all_that_is_written(store: RedisStore, server: Server, says: bytes, status: str) -> None:
    server.says = [says]
    assert write(store, {}, push=(ROW, 1), push_life_ms=9) == Written(status)
    assert [script for script, _, _ in sent(server)] == ["push"]


def test_rows_and_tombstones_are_one_round_trip(noting: RedisStore, server: Server, changes: Changes) -> None:
    server.says = [[b"1", b"2"], b"pushed", b"buried"]
    noting.push_many([(ROW, 1), (OTHER, 4)], ("auth", "ui"), stamp_ms=1, timeout=WAIT)
    assert [script for script, _, _ in sent(server)] == ["TIME", "push", "write_tombstone"]
    assert (len(server.received), changes.noted) == (1, [D, OTHER])


# -- merging -----------------------------------------------------------------------------------------------------------


def test_a_merge_that_is_refused_keeps_no_other_from_being_made(store: RedisStore, server: Server) -> None:
    server.says = [driver.ResponseError("WRONGTYPE"), [b"merged", 5, 1], [b"dead"]]
    refused, made, dead = store.merge_all([MERGE] * 3, limits=LIMITS, timeout=WAIT, write_id="write.1")
    assert isinstance(refused, StoreError) and refused.error_class is ErrorClass.DATA
    assert (made, dead) == (Merged("merged", 5, (Outcome.APPLIED,)), Merged("dead"))
    assert len(server.received) == 1


# -- other commands ----------------------------------------------------------------------------------------------------


def test_plain_commands_are_one_round_trip(store: RedisStore, server: Server) -> None:
    server.says = [3, None]
    assert store.run_commands([("ZCOUNT", "k", 0, 1), ("GET", "k")], timeout=WAIT) == [3, None]
    assert [name for name, _, _ in sent(server)] == ["ZCOUNT", "GET"]
    assert (len(server.received), server.deadlines) == (1, [1000.0 + WAIT])
