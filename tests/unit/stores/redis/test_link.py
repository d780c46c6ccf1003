"""The way to one server: how its waits end, which connection is kept, and what an error becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions as driver

from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.redis.commands import Command, plain
from flask_langpont_session.stores.redis.link import Link, Reports
from flask_langpont_session.stores.redis.server_identity import ServerIdentity
from flask_langpont_session.support.lag import Wait
from tests.support.clock import Clock

from .told_server import Pool, Server, ToldLag

PING = plain("PING", fits=lambda reply: reply == b"PONG")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def surprises() -> list[str]:
    return []


@pytest.fixture
def link(server: Server, surprises: list[str], clock: Clock) -> Link:
    pool: Any = Pool(server)
    reports = Reports(surprised=surprises.append)
    return Link("primary", pool, server_identity=ServerIdentity(), reports=reports, lag=ToldLag(clock))


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
    """The connection is kept only if its reply was read whole."""
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


UNKNOWN = driver.NoScriptError("")


def script(name: bytes) -> Command:
    return Command(b"+" + name, lambda reply: reply == name, lambda: b"text of " + name)


def test_of_scripts_that_are_not_known_the_first_is_spelled_out(link: Link, server: Server) -> None:
    """By its text the server knows the others that call it. They are sent together, in the same order."""
    server.says = [UNKNOWN, b"b", UNKNOWN, UNKNOWN, b"a", b"a", UNKNOWN, b"c"]
    assert link.run([*map(script, (b"a", b"b", b"a", b"c"))], 1.0) == [b"a", b"b", b"a", b"c"]
    assert server.received == [b"+a+b+a+c", b"text of a+a+c", b"text of c"]


@pytest.mark.parametrize(
    ("takes", "deadlines", "is_done"),
    [(0.3, [1001.0, 1001.2, 1001.2], True), (0.6, [1001.0, 1001.2], False), (1.197, [1001.0], False)],
)
def test_a_script_that_is_not_known_gets_no_time_of_its_own(
    link: Link, server: Server, clock: Clock, takes: float, deadlines: list[float], is_done: bool
) -> None:
    """I12: a request waits for all tries together for as long as for one. What had no time was not done."""

    def pass_time() -> None:
        clock.now += takes

    server.before_answer = pass_time
    server.says = [UNKNOWN, UNKNOWN, b"a", UNKNOWN, b"c"]
    commands, timeout = [script(b"a"), script(b"c")], Wait(1.0, 1.2)
    if is_done:
        assert link.run(commands, timeout) == [b"a", b"c"]
    else:
        with pytest.raises(StoreError, match="LateCommand") as caught:
            link.run(commands, timeout)
        assert (caught.value.error_class, caught.value.sent) == (ErrorClass.LOCAL, False)
    assert server.deadlines == [pytest.approx(deadline) for deadline in deadlines]


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


@pytest.mark.parametrize(
    ("timeout", "waited", "until"),
    [
        (Wait(20.0, 20.05), 0.0, 1020.0),
        (Wait(20.0, 20.05), 0.1, 1020.05),
        (1.0, 0.9, 1001.9),
    ],
    ids=["at once", "a request that has no more time", "no request"],
)
def test_the_wait_for_a_connection_comes_out_of_the_same_time(
    link: Link,
    server: Server,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    timeout: float,
    waited: float,
    until: float,
) -> None:
    """I12: a request that waited for a free one has so much less for the reply. What is no request has as much time
    again to connect."""
    server.says = [b"PONG"]
    take = link.connections.take

    def take_late(end: float) -> Any:
        connection = take(end)
        clock.now += waited
        return connection

    monkeypatch.setattr(link.connections, "take", take_late)
    link.run([PING], timeout)
    assert server.deadlines == [pytest.approx(until)]


@pytest.mark.parametrize(("timeout", "until"), [(Wait(0.1, 0.15), 1000.15), (Wait(0.1, 9.0), 1000.2), (1.0, 1001.0)])
def test_a_new_connection_has_the_time_to_connect(link: Link, server: Server, timeout: float, until: float) -> None:
    """A request: so much, or what it has left of its time; all else: as much as for an answer, if that is more."""
    server.says = [b"PONG"]
    link.run([PING], timeout)
    assert server.connected_until == [pytest.approx(until)]


@pytest.mark.parametrize(("passed", "is_tried_again"), [(0.0, True), (1.19, True), (1.196, False)])
def test_another_server_is_looked_for_while_there_is_time(
    link: Link, server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch, passed: float, is_tried_again: bool
) -> None:
    """The second try needs time to connect, within the second that a request has."""
    server.says = [driver.ReadOnlyError(""), b"PONG"]
    forget = link.connections.forget

    def forget_late() -> None:
        forget()
        clock.now += passed

    monkeypatch.setattr(link.connections, "forget", forget_late)
    if is_tried_again:
        assert link.run([PING], Wait(1.0, 1.2)) == [b"PONG"]
    else:
        with pytest.raises(StoreError):
            link.run([PING], Wait(1.0, 1.2))
    assert server.made == 1 + is_tried_again


@pytest.mark.parametrize(("left", "is_done"), [(0.1, True), (0.001, False)])
def test_what_the_server_calls_late_is_sent_again_if_it_is_in_time(
    link: Link, server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch, left: float, is_done: bool
) -> None:
    """Its clock was set. The next deadline is by what it says of its clock."""
    server.says = [[b"late", 5_000], [b"done"]]
    deadlines: list[int] = []

    def commands(deadline_ms: int) -> list[Command]:
        deadlines.append(deadline_ms)
        return [plain("SET", "k", deadline_ms, fits=lambda reply: True)]

    note = link.server_identity.note_clock

    def note_late(*of: Any) -> None:
        note(*of)
        clock.now += 1.2 - left

    monkeypatch.setattr(link.server_identity, "note_clock", note_late)
    if is_done:
        assert link.run_in_time(commands, Wait(1.0, 1.2)) == [[b"done"]]
        assert deadlines == [0, pytest.approx(5_000 + left * 1000, abs=1)]
    else:
        with pytest.raises(StoreError, match="LateCommand"):
            link.run_in_time(commands, Wait(1.0, 1.2))


BUSY = driver.ResponseError("BUSY a script does not end")


CLOCK, DONE = [b"1", b"2"], b"written%016d%b%016d" % (1, b"d" * 8, 2)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ([CLOCK, DONE], "written"),
        ([CLOCK, [b"dead"]], None),
        ([CLOCK, BUSY], None),
        ([BUSY, BUSY], None),
        ([driver.NoPermissionError("NOPERM"), DONE], "written"),
        ([DONE, CLOCK], "in doubt"),
        ([CLOCK, b"no reply to a write"], "in doubt"),
        ([driver.TimeoutError("late")], "in doubt"),
    ],
)
def test_a_write_over_a_connection_at_hand_was_done_refused_or_is_in_doubt(
    link: Link, server: Server, said: list[Any], status: str | None
) -> None:
    """A refusal is no doubt: nothing was written."""
    server.says = said
    connection = link.connections.take(1.0)
    if status == "in doubt":
        with pytest.raises(StoreError) as caught:
            link.over(connection, b"a write", ["ui"], 1.0)
        assert (caught.value.error_class, caught.value.sent) == (ErrorClass.UNREACHABLE, True)
    else:
        done = link.over(connection, b"a write", ["ui"], 1.0)
        assert (done and done.status) == status


def test_a_command_may_stand_before_each_other_one(link: Link, server: Server) -> None:
    """ASKING stands before each command on keys that are still on their way; a refusal of it is of that one slot."""
    asking = link.announcing(b"ASKING")
    server.says = [b"OK", b"PONG", b"OK", b"PONG"]
    assert asking.run([PING, PING], 1.0) == [b"PONG", b"PONG"]
    assert server.received[-1] == (b"ASKING" + PING.packed) * 2
    server.says = [driver.NoPermissionError("NOPERM"), b"PONG"]
    assert asking.run([PING], 1.0) == [b"PONG"]
    server.says = [b"no OK", b"PONG"]
    with pytest.raises(StoreError):
        asking.run([PING], 1.0)
