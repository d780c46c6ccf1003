"""The way to one server: how its waits end, which connection is kept, and what an error becomes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions as driver

from flask_langpont_session.policy.values import ErrorClass, StoreError, Wait
from flask_langpont_session.stores.redis.commands import Command, plain
from flask_langpont_session.stores.redis.link import Link, Reports
from flask_langpont_session.stores.redis.server_identity import ServerIdentity
from flask_langpont_session.support.lag import Deadline

PING = plain("PING", fits=lambda reply: reply == b"PONG")


class Server:
    """What all connections of a test lead to.

    :ivar says: what it answers, one reply after the other; an exception that is no answer is raised.
    """

    def __init__(self) -> None:
        self.says: list[Any] = []
        self.received: list[bytes] = []
        self.made = 0
        self.deadlines: list[float] = []


class Connection:
    """One that needs no network."""

    redis_connect_func = None
    _sock = object()

    def __init__(self, *, server: Server) -> None:
        self.server = server
        self.deadline = Deadline(0.0)
        server.made += 1

    def connect(self) -> None:
        pass

    def disconnect(self) -> None:
        pass

    def is_quiet(self) -> bool:
        return True

    def exchange(self, data: bytes, count: int) -> list[Any]:
        self.server.received.append(data)
        self.server.deadlines.append(self.deadline.at)
        replies = [self.server.says.pop(0) for _ in range(count)]
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, driver.ResponseError):
                raise reply
        return replies


class Pool:
    """Says that there are such connections."""

    connection_class = Connection
    max_connections = 1
    timeout = 30.0

    def __init__(self, server: Server) -> None:
        self.connection_kwargs = {"server": server}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def surprises() -> list[str]:
    return []


@pytest.fixture
def link(server: Server, surprises: list[str]) -> Link:
    pool: Any = Pool(server)
    return Link("primary", pool, server_identity=ServerIdentity(), reports=Reports(surprised=surprises.append))


def test_a_good_reply_keeps_the_connection(link: Link, server: Server) -> None:
    server.says = [b"PONG", b"PONG"]
    assert link.run([PING], 1.0) == [b"PONG"]
    assert link.run([PING], 1.0) == [b"PONG"]
    assert (server.made, link.connections.in_use) == (1, 0)


def test_several_commands_are_one_packet(link: Link, server: Server) -> None:
    server.says = [b"PONG", b"PONG"]
    assert link.run([PING, PING], 1.0) == [b"PONG", b"PONG"]
    assert server.received == [PING.packed * 2]


def test_nothing_is_sent_for_nothing(link: Link, server: Server) -> None:
    assert link.run([], 1.0) == []
    assert server.made == 0


@pytest.mark.parametrize(
    ("said", "error_class", "is_kept"),
    [
        (b"no pong", ErrorClass.UNREACHABLE, False),
        (driver.ConnectionError("gone"), ErrorClass.UNREACHABLE, False),
        (driver.TimeoutError("late"), ErrorClass.UNREACHABLE, False),
        (driver.ResponseError("WRONGTYPE"), ErrorClass.DATA, True),
        (driver.NoPermissionError("NOPERM"), ErrorClass.IDENTITY_REFUSED, True),
    ],
)
def test_an_error_is_one_of_the_package(
    link: Link, server: Server, said: Any, error_class: ErrorClass, is_kept: bool
) -> None:
    """And a connection is kept only if its reply was read whole."""
    server.says = [said]
    with pytest.raises(StoreError) as caught:
        link.run([PING], 1.0)
    assert caught.value.error_class is error_class
    assert bool(link.connections.idle) is is_kept
    assert link.connections.in_use == 0


def test_what_stands_in_no_table_is_counted(link: Link, server: Server, surprises: list[str]) -> None:
    server.says = [driver.ResponseError("ODD something new")]
    with pytest.raises(StoreError):
        link.run([PING], 1.0)
    assert surprises == ["ResponseError"]


def test_a_script_that_is_not_known_is_spelled_out(link: Link, server: Server) -> None:
    server.says = [driver.NoScriptError(""), b"PONG"]
    script = Command(b"by its name", lambda reply: reply == b"PONG", lambda: b"its text")
    assert link.run([script], 1.0) == [b"PONG"]
    assert server.received == [b"by its name", b"its text"]


def test_a_server_that_was_the_primary_is_left_once(link: Link, server: Server) -> None:
    """The one that is it now is found by connecting anew."""
    server.says = [driver.ReadOnlyError(""), b"PONG"]
    assert link.run([PING], 1.0) == [b"PONG"]
    assert server.made == 2
    server.says = [driver.ReadOnlyError(""), driver.ReadOnlyError("")]
    with pytest.raises(StoreError) as caught:
        link.run([PING], 1.0)
    assert caught.value.error_class is ErrorClass.WRITE_REFUSED


def test_what_a_reply_means_is_known_before_the_connection_is_used_again(link: Link, server: Server) -> None:
    """One that belongs to another question: no reply of this connection can be believed any more."""
    server.says = [b"PONG", b"PONG"]
    seen: list[int] = []

    def understand(is_ours: bool) -> Callable[..., bool]:
        def understood(replies: Any, answered_by: Any) -> bool:
            seen.append(link.connections.in_use)
            return is_ours

        return understood

    link.run([PING], 1.0, understand(True))
    assert (seen, len(link.connections.idle)) == ([1], 1)
    link.run([PING], 1.0, understand(False))
    assert (seen, link.connections.idle) == ([1, 1], [])


def test_a_connection_whose_reply_is_none_to_its_question_is_not_kept(link: Link, server: Server) -> None:
    """I11: the next reply over it would be none to the next question."""
    server.says = [b"PONG"]

    def understand(replies: Any, answered_by: Any) -> bool:
        raise StoreError("primary", ErrorClass.DATA, "CrossedReply")

    with pytest.raises(StoreError):
        link.run([PING], 1.0, understand)
    assert (link.connections.idle, link.connections.in_use) == ([], 0)


@pytest.mark.usefixtures("on_time")
def test_the_wait_for_a_connection_comes_out_of_the_same_time(
    link: Link, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: a request that waited for a free one has so much less for the reply."""
    server.says = [b"PONG"]
    take, taken_at = link.connections.take, []

    def take_late(until: float) -> Any:
        connection = take(until)
        time.sleep(0.1)  # of the 20.05 s below less than 20 are left; if it takes longer, fewer are
        taken_at.append(time.monotonic())
        return connection

    monkeypatch.setattr(link.connections, "take", take_late)
    began = time.monotonic()
    link.run([PING], Wait(20.0, 20.05))
    [deadline], [taken] = server.deadlines, taken_at
    assert began + 20.0 < deadline < taken + 20.0


def test_a_command_may_stand_before_each_other_one(link: Link, server: Server) -> None:
    """As for keys that are still on their way; a refusal of it is of that one slot."""
    asking = link.announcing(b"ASKING")
    server.says = [b"OK", b"PONG", b"OK", b"PONG"]
    assert asking.run([PING, PING], 1.0) == [b"PONG", b"PONG"]
    assert server.received[-1] == (b"ASKING" + PING.packed) * 2
    server.says = [driver.NoPermissionError("NOPERM"), b"PONG"]
    assert asking.run([PING], 1.0) == [b"PONG"]
    server.says = [b"no OK", b"PONG"]
    with pytest.raises(StoreError):
        asking.run([PING], 1.0)
