"""Copies that were read over one connection are kept, by the order in which a server's messages arrive."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from flask_langpont_session.policy.copies import CategoryCopy, RecordRef
from flask_langpont_session.stores.memory.memory import Memory
from flask_langpont_session.stores.redis.lane import Copy, Lane, Unsuitable
from flask_langpont_session.stores.redis.near import NearCache, Reading
from flask_langpont_session.stores.redis.records import Answer
from flask_langpont_session.stores.redis.server_identity import Server
from flask_langpont_session.stores.redis.wire import HEARS, Wire
from flask_langpont_session.support.lag import Deadline

pytestmark = pytest.mark.skipif(not HEARS, reason="hiredis is too old to tell messages from replies")

OURS, OTHER = "d" * 43, "e" * 43
LIVES = {"ui": 1000}
PONG = b"+PONG\r\n"
ALL = b">2\r\n$10\r\ninvalidate\r\n_\r\n"


def changed(*digests: str) -> bytes:
    """The server's message that a category of these sessions has changed."""
    keys = [f"session:ui:{{{digest}}}".encode() for digest in digests]
    return b">2\r\n$10\r\ninvalidate\r\n*%d\r\n" % len(keys) + b"".join(b"$%d\r\n%b\r\n" % (len(k), k) for k in keys)


class Connection:
    """One of redis-py's, as far as a lane looks at it."""

    protocol: object = 3

    def __init__(self, ours: socket.socket) -> None:
        self._sock: Any = Wire(ours, Deadline(math.inf))
        self.is_closed = False

    def exchange(self, data: bytes, count: int) -> list[Any]:
        replies: list[Any] = self._sock.exchange(data, count, ResponseError)
        return replies

    def disconnect(self) -> None:
        self.is_closed = True
        self._sock.close()


@pytest.mark.parametrize(
    ("differently", "is_kept"), [({}, True), ({"is_primary": False}, False), ({"damaged": ("ui",)}, False)]
)
def test_only_a_whole_answer_of_a_primary_is_kept(differently: dict[str, Any], is_kept: bool) -> None:
    """A replica may be behind, and tells of no change that it has not got yet."""
    kept: list[str] = []
    unused: Any = SimpleNamespace()
    lane: Any = SimpleNamespace(keep=lambda digest, copy: kept.append(digest), over=None)
    near = NearCache(unused, unused, unused, copies_ttl=60.0, clock=lambda: 1.0)
    answer = Answer(1, {"ui": CategoryCopy(1, {})}, due_ms=-1, **differently)
    near.keep(Reading(RecordRef(OURS, "a"), LIVES, lane, unused, b"stamp", 0.0), answer, Server("run"))
    assert bool(kept) is is_kept


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield both ends of a connection: the worker's and the server's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def server(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    return ends[1]


@pytest.fixture
def lane(ends: tuple[socket.socket, socket.socket]) -> Lane:
    ours, server = ends
    lane = Lane(Memory())
    server.sendall(b"+OK\r\n")
    lane.open(Connection(ours))
    assert b"TRACKING" in server.recv(100)
    return lane


def copy(lane: Lane, *names: str) -> Copy:
    """Return a copy of these categories, as it was read."""
    records = {name: CategoryCopy(1, {"theme": b"dark"}) for name in names}
    lives = dict.fromkeys(names, 1000)
    return Copy(lives, "a", 1, records, 0.0, 0.0, math.inf, b"stamp", Server("run"), lane, lane.over)


def read(lane: Lane, server: socket.socket, *arrives: bytes, digest: str = OURS, name: str = "ui") -> None:
    """A read of a category: what arrives until its reply is there, the reply included."""
    connection = lane.take()
    server.sendall(b"".join(arrives))
    connection.exchange(b"*1\r\n$4\r\nPING\r\n", 1)
    lane.keep(digest, copy(lane, name))
    lane.give_back(connection)


def has(lane: Lane, digest: str = OURS) -> bool:
    return lane.is_up_to_date() and lane.find(digest, LIVES, "a") is not None


def test_what_was_read_is_kept_until_it_is_named(lane: Lane, server: socket.socket) -> None:
    read(lane, server, PONG)
    assert has(lane) and has(lane) and not has(lane, OTHER)
    server.sendall(changed(OTHER))
    assert has(lane)
    server.sendall(changed(OTHER, OURS))
    assert not has(lane)


def test_what_is_named_behind_the_reply_is_not_kept(lane: Lane, server: socket.socket) -> None:
    """It lies in the parser then, where no look at the socket sees it."""
    read(lane, server, PONG, changed(OURS))
    assert not has(lane)


def test_a_reply_too_many_ends_the_connection(lane: Lane, server: socket.socket) -> None:
    """It would answer the next question."""
    read(lane, server, PONG, b"+stray\r\n")
    assert not has(lane) and not lane.is_open


def test_half_a_message_behind_the_reply_counts_when_it_is_whole(lane: Lane, server: socket.socket) -> None:
    message = changed(OURS)
    read(lane, server, PONG, message[:20])
    assert has(lane)
    server.sendall(message[20:])
    assert not has(lane)


def test_what_is_named_while_it_is_asked_for_is_not_kept(lane: Lane, server: socket.socket) -> None:
    """The message may be of a change before the reply, or of one behind it: the next read will tell."""
    read(lane, server, changed(OURS), PONG)
    assert not has(lane)
    read(lane, server, PONG)
    assert has(lane)


@pytest.mark.parametrize(
    "message",
    [ALL, b">2\r\n$7\r\nstrange\r\n$1\r\nx\r\n", b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\nx\r\n:1\r\n", b">0\r\n"],
)
def test_a_message_that_names_no_keys_is_about_all_of_them(lane: Lane, server: socket.socket, message: bytes) -> None:
    """FLUSHALL, a table of keys that is full; and what is none of the messages that were asked for."""
    read(lane, server, PONG)
    read(lane, server, PONG, digest=OTHER)
    server.sendall(message)
    assert not has(lane) and not has(lane, OTHER)
    read(lane, server, message, PONG)
    assert not has(lane)


@pytest.mark.parametrize("arrives", [None, b"+stray\r\n", b"!garbled"])
def test_a_connection_that_is_not_good_any_more_vouches_for_nothing(
    lane: Lane, server: socket.socket, arrives: bytes | None
) -> None:
    """Closed; a reply that nothing was asked for; bytes that are no message."""
    read(lane, server, PONG)
    if arrives is None:
        server.shutdown(socket.SHUT_RDWR)
    else:
        server.sendall(arrives)
    assert lane.take() is None  # a request that comes right then need not notice
    assert not has(lane) and not lane.is_open and lane.asked_at == -math.inf


def test_a_look_never_waits(ends: tuple[socket.socket, socket.socket]) -> None:
    """A look does not wait, whatever an application has made the default of all its sockets."""
    ours, server = ends
    lane = Lane(Memory())
    server.sendall(b"+OK\r\n")
    socket.setdefaulttimeout(0.01)
    try:
        lane.open(Connection(ours))
    finally:
        socket.setdefaulttimeout(None)
    read(lane, server, PONG)
    assert has(lane)


def test_while_a_question_is_under_way_nothing_is_vouched_for(lane: Lane, server: socket.socket) -> None:
    """Its thread may have taken a message out of the socket that it has not read yet."""
    read(lane, server, PONG)
    connection = lane.take()
    assert connection is not None and not has(lane) and lane.take() is None
    server.sendall(changed(OTHER))
    assert not has(lane)
    lane.give_back(connection)
    assert has(lane)


def test_a_lane_that_is_not_used_any_more_closes_its_connection_when_it_can(lane: Lane) -> None:
    connection = lane.take()
    lane.end()
    assert not connection.is_closed
    lane.give_back(connection)
    assert connection.is_closed and not lane.is_open


def test_a_lane_that_ends_while_its_connection_is_given_back_closes_it(lane: Lane) -> None:
    class Late(list[Any]):
        """Gets what is given back just after another thread has looked for it."""

        def append(self, connection: Any) -> None:
            lane.end()
            super().append(connection)

    connection = lane.take()
    lane._free = Late()
    lane.give_back(connection)
    assert connection.is_closed and not lane.is_open


def test_a_copy_is_of_what_was_asked_for(lane: Lane, server: socket.socket) -> None:
    read(lane, server, PONG)
    assert lane.find(OURS, dict(LIVES), "a") and lane.find(OURS, {"ui": 2}, "a") is None
    assert lane.find(OURS, LIVES, "u") is None


def test_what_one_connection_vouches_for_another_one_does_not(
    lane: Lane, server: socket.socket, ends: tuple[socket.socket, socket.socket]
) -> None:
    """The memory is that of all of them, and keeps what was read."""
    read(lane, server, PONG)
    assert Lane(lane.memory).find(OURS, LIVES, "a") is None
    assert has(lane)


def test_only_what_can_hear_is_used(ends: tuple[socket.socket, socket.socket]) -> None:
    """A server that refuses, a connection without RESP3, one that is none of this package's own, a parser in Python."""
    ours, server = ends
    server.sendall(b"-NOPERM no\r\n")
    with pytest.raises(Unsuitable, match="right"):
        Lane(Memory()).open(Connection(ours))
    old = Connection(ours)
    old.protocol = 2
    with pytest.raises(Unsuitable, match="RESP3"):
        Lane(Memory()).open(old)
    with pytest.raises(Unsuitable, match="own"):
        Lane(Memory()).open(object())
    parsed = Connection(ours)
    parsed.exchange = lambda data, count: [b"OK"]  # type: ignore[method-assign]
    with pytest.raises(Unsuitable, match="hiredis"):
        Lane(Memory()).open(parsed)
