"""A server that takes no writes: what it refuses, and what not."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions as driver

from flask_langpont_session.drill.faults import Fault, Faults, commands_in
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.stores.redis.commands import READ, Commands, plain
from flask_langpont_session.stores.redis.wire import pack

GET = plain("GET", "key", fits=lambda reply: True).packed
SET = plain("SET", "key", "a\r\nvalue", fits=lambda reply: True).packed


def test_commands_are_told_apart() -> None:
    """Commands are told apart whatever bytes are in them."""
    parts: list[tuple[Any, ...]] = [("SET", "key", "a\r\n$1\r\nvalue"), ("GET", ""), ("TIME",)]
    found = commands_in(b"".join(pack(part) for part in parts))
    assert found == [[str(part).encode() for part in command] for command in parts]


def exchanged(fault: Fault | None, *packed: bytes) -> tuple[list[Any], list[bytes]]:
    """The replies, and what the server was asked: it answers each command with the command's name."""
    asked: list[bytes] = []

    def exchange(data: bytes, count: int) -> list[Any]:
        commands = commands_in(data)
        assert len(commands) == count
        asked.extend(command[0] for command in commands)
        return [command[0] for command in commands]

    faults = Faults(backend=None, slow=0.0)  # type: ignore[arg-type]
    if fault:
        faults.begin(fault)
    return faults.on_exchange(exchange, b"".join(packed), len(packed), lambda: 1.0), asked


def test_writes_are_refused_between_reads() -> None:
    """Each reply stands in the place of its question; the server is not asked to write."""
    read = Commands("session").read(RecordRef("d" * 43, "a"), {"ui": 0}).packed
    replies, asked = exchanged(Fault.READONLY, SET, GET, SET, read)
    assert asked == [b"GET", b"EVALSHA"]
    assert [type(reply) for reply in replies] == [driver.ReadOnlyError, bytes, driver.ReadOnlyError, bytes]
    replies, asked = exchanged(Fault.READONLY, SET, READ.spelled_out(["key"], [0]))
    assert (asked, isinstance(replies[0], driver.ReadOnlyError)) == ([b"EVAL"], True)


@pytest.mark.parametrize("fault", [Fault.SLOW, Fault.DATABASE_DOWN, None])
def test_other_faults_let_everything_through(fault: Fault | None) -> None:
    assert exchanged(fault, SET, GET) == ([b"SET", b"GET"], [b"SET", b"GET"])


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault.PRIMARY_DOWN, driver.ConnectionError), (Fault.HANG, driver.TimeoutError)]
)
def test_a_server_that_does_not_answer_is_not_asked(fault: Fault, error: type[Exception]) -> None:
    asked: list[bytes] = []
    faults = Faults(backend=None, slow=0.0)  # type: ignore[arg-type]
    faults.begin(fault)
    with pytest.raises(error):
        faults.on_exchange(lambda data, count: asked.append(data) or [], SET, 1, lambda: 0.0)  # type: ignore[func-returns-value]
    assert asked == []
