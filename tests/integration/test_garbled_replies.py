"""Replies of any kind: nothing but StoreError comes out of the store, and that connection is not used again."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis._parsers import _HiredisParser, _RESP3Parser

from devservers.processes import wait_until
from flask_langpont_session.policy.changes import CategoryChange, Operation
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.redis.records import Limits, Merge, MergeStep
from flask_langpont_session.stores.redis.store import RedisStore
from tests.faults.strange_server import GREETING, StrangeServer, resp

from .scripts_server import store_on

D = "d" * 43
VISITOR, USER = RecordRef(D, "a"), RecordRef(D, "u")
ROW = AuthRow(D, "7", 1, True, {"_user_id": b'"7"'}, 2, 1000, 4_000_000_000_000, 4_000_000_000_001, 0)
UI = CategoryChange(60_000, sets={"lang": b'"jp"'})
LIMITS = Limits(9, 99, 9)
META = D[:8].encode() + b"17%014d17%014d%06x" % (0, 0, 0) + b"write.1" + b"%07x%04x" % (8, 1)
STEPS = [MergeStep(Operation.SET, "lang", b'"jp"'), MergeStep(Operation.ADD, "n", 1, "added.1")]
MERGES = [Merge(D, "ui", STEPS, "free", 9), Merge(D, "translation", STEPS, "alive", 9)]
WAIT = 0.05
"""Seconds; short, because part of a reply is waited for as long as this. A good one may take longer."""

Call = Callable[[RedisStore], Any]
HASH = [b"@m", f"{D[:11]}L{'0' * 36} 3 0".encode(), b"lang", b'"jp"']
METHODS: dict[str, tuple[Call, Any]] = {
    "read": (
        lambda s: s.read(VISITOR, {"ui": 0, "auth": 5}, timeout=WAIT),
        [1, [b"@m", META, b"lang", b'"jp"'], [], 0, 9],
    ),
    "copies": (lambda s: s.copies([(D, "ui")], timeout=WAIT), [1, [b"@m", META, b"lang", b'"jp"'], 0, 9]),
    "read u": (
        lambda s: s.read(USER, {"ui": 0, "auth": 5}, timeout=WAIT),
        [1, [b"@m", META], HASH, 0, 9],
    ),
    "write": (
        lambda s: s.write(VISITOR, {"ui": UI}, guard="free", limits=LIMITS, timeout=WAIT, write_id="write.1"),
        b"written" + b"%016d" % 3 + META,
    ),
    "push": (lambda s: s.push(ROW, 1, 60_000, timeout=WAIT), b"pushed"),
    "push_many d": (lambda s: s.push_many([(D, 1)], ("auth", "ui"), stamp_ms=0, timeout=WAIT), b"buried"),
    "push_many": (lambda s: s.push_many([(ROW, 1)], ("auth",), stamp_ms=1, timeout=WAIT), b"older"),
    "extend_idle": (lambda s: s.extend_idle(D, 1000, timeout=WAIT), 17),
    "canary": (lambda s: s.endpoint.look_at_canary(None, timeout=WAIT), [1, b"generation", 2]),
    "merge late": (lambda s: s.merge_all(MERGES[:1], limits=LIMITS, timeout=WAIT, write_id="write.1"), [b"late", 7]),
    "merge_all": (
        lambda s: s.merge_all(MERGES, limits=LIMITS, timeout=WAIT, write_id="write.1"),
        [b"merged", 5, 4, 3],
    ),
    "quarantine": (lambda s: s.quarantine(VISITOR, "ui", timeout=WAIT), 1),
    "run_commands": (lambda s: s.run_commands([("ZCOUNT", "k", 0, 1)], timeout=WAIT), 3),
    "time": (lambda s: s.endpoint.time_ms(timeout=WAIT), [b"1700000000", b"5"]),
    "probe": (lambda s: s.endpoint.probe("k", "v", timeout=WAIT), b"v"),
    "probe_read": (lambda s: s.endpoint.probe_read(timeout=WAIT), [1, HASH, 0, 9]),
}
"""Name → how a method is called, and a reply it can get."""

BANNERS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    b"E\x00\x00\x00\x85SFATAL\x00VFATAL\x00C0A000\x00Munsupported frontend protocol\x00\x00",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00",
    b"",
)
ODD = (
    b":1\r\n", b":-7\r\n", b"+OK\r\n", b"$-1\r\n", b"_\r\n", b"*0\r\n", b"*-1\r\n", b"#t\r\n", b",1.5\r\n", b",nan\r\n",
    b"%1\r\n+a\r\n:1\r\n", b"~2\r\n:1\r\n:2\r\n", b"(1234567890123456789012345678901\r\n", b"=7\r\ntxt:abc\r\n",
    b"$2\r\n\xff\xfe\r\n",
    b"*1\r\n*1\r\n*1\r\n$-1\r\n", b"*3\r\n:1\r\n$-1\r\n:2\r\n", b"*2\r\n-ERR inside\r\n:1\r\n", b"!9\r\nERR a bad\r\n",
    b"$99999999999\r\nx\r\n", b"$-7\r\n", b"$x\r\n", b"*x\r\n", b":\r\n", b":1e9\r\n", b"*1000000\r\n:1\r\n",
    b">3\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n:1\r\n", b">1\r\n:1\r\n", b">0\r\n", b">2\r\n+MOVING\r\n:1\r\n",
    b"-\r\n", b"-ERR\r\n", b"-ODD something new\r\n", b"-\xff\xfe \xff\r\n", b"-LOADING\r\n", b"-MOVED x y\r\n",
    b"-MOVED 1 :\r\n", b"-ASK 1 h:1\r\n", b"-NOAUTH x\r\n", b"-WRONGTYPE x\r\n", b"-NOSCRIPT x\r\n", b"-READONLY x\r\n",
    b"*1\r\n" * 3000,
)  # fmt: skip


def mutated(good: Any, rng: random.Random) -> bytes:
    """A reply that no server gives to this, or gives in another moment."""
    whole = resp(good)
    kind = rng.randrange(7)
    if kind == 0:
        return rng.choice(ODD)
    if kind == 1:
        return rng.choice(BANNERS)
    if kind == 2:
        return whole[: rng.randrange(len(whole))]
    if kind == 3:
        at = rng.randrange(len(whole))
        return whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
    if kind == 4:
        return rng.randbytes(rng.randrange(40))
    if kind == 5 and isinstance(good, list):
        parts = [resp(part) for part in good]
        parts[rng.randrange(len(parts))] = rng.choice(ODD)
        return b"*%d\r\n%b" % (len(parts), b"".join(parts))
    return rng.choice(ODD) + whole


@pytest.fixture(scope="module")
def server() -> Iterator[StrangeServer]:
    with StrangeServer() as server:
        yield server


@pytest.fixture(params=[_HiredisParser, _RESP3Parser])
def store(request: pytest.FixtureRequest, server: StrangeServer) -> Iterator[RedisStore]:
    server.say(lambda command: None)
    options = {"socket_connect_timeout": 1, "timeout": 0.1, "max_connections": 2, "parser_class": request.param}
    with store_on(server.url(), socket_timeout=WAIT, **options) as store:
        yield store


# A probe asks for several things, and what is late is tried again until there is no time.
@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"probe", "merge late"}))
def test_a_good_reply_is_understood(store: RedisStore, server: StrangeServer, name: str) -> None:
    """A good reply is understood, which shows that the test below is about the strange ones; the connection is kept,
    and used again."""
    call, good = METHODS[name]
    server.say(
        lambda command: resp(good) if command not in ("HELLO", "INFO", "SET") and is_asked(name, command) else None
    )
    wait_until(lambda: works(store, call), "a good reply")

    def works_again() -> bool:  # on a busy machine a reply may be late, which ends the connection
        before = server.accepted
        return works(store, call) and (server.accepted == before or name == "probe_read")

    wait_until(works_again, "another one over the same connection")


def works(store: RedisStore, call: Call) -> bool:
    try:
        call(store)
    except StoreError as error:
        assert error.timed_out, "a busy machine is all that may come between"
        return False
    return True


def is_asked(name: str, command: str) -> bool:
    """Return whether a command is what the method asks, and not part of the greeting."""
    return command != "TIME" or name == "time"


@pytest.mark.parametrize(
    ("name", "where"), [*((name, "answer") for name in METHODS), ("read", "greeting")], ids="-".join
)
def test_nothing_but_a_store_error_comes_out(store: RedisStore, server: StrangeServer, name: str, where: str) -> None:
    """Random and mutated replies to the question or to the greeting. Replayed by the name of the test alone."""
    call, good = METHODS[name]
    rng = random.Random(f"{name} {where}")
    errors = 0
    for number in range(20 if where == "answer" else 60):
        store.forget_connections()
        victim = rng.choice(sorted(GREETING))
        odd = mutated(good if where == "answer" else b"x", rng)

        def answer(command: str, victim: str = victim, odd: bytes = odd) -> bytes | None:
            if where == "greeting":
                return odd if command == victim else None
            return odd if command not in GREETING else None

        server.say(answer, and_close=number % 8 > 0)
        try:
            call(store)
        except StoreError as error:
            errors += 1
            if error.cause in {
                "InvalidResponse",
                "TimeoutError",
                "ConnectionError",
                "RecursionError",
                "AttributeError",
            }:
                assert not store.link.connections.idle, f"kept after {odd[:40]!r}"
        assert store.link.connections.in_use == 0
    assert errors


def test_what_ends_a_thread_is_not_caught_and_leaves_no_connection(
    store: RedisStore, server: StrangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A greenlet that is killed, a request that a timer ends: the reply that comes later answers no request."""
    server.say(lambda command: b":1\r\n" if command == "EVALSHA" else None)
    store.extend_idle(D, 1, timeout=5)
    [connection] = store.link.connections.idle

    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.extend_idle(D, 1, timeout=5)
    assert store.link.connections.idle == []
    assert store.link.connections.in_use == 0
    assert store.extend_idle(D, 1, timeout=5) == 1


def test_the_depth_of_a_reply_does_no_harm(server: StrangeServer) -> None:
    """Nested deeper than Python recurses."""
    deep = b"*1\r\n" * (sys.getrecursionlimit() * 2)
    server.say(lambda command: deep if command == "EVALSHA" else None)
    with store_on(server.url(), parser_class=_RESP3Parser) as store:
        with pytest.raises(StoreError):
            store.read(VISITOR, {"ui": 0}, timeout=5)
        assert store.link.connections.idle == []
