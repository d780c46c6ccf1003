"""A server that answers what a test says, over connections that need no network, at a time that is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis import exceptions as driver

from flask_langpont_session.support.lag import Deadline, Lag


class ToldLag(Lag):
    """The lag of a process that is never late, by a clock that a test sets: nothing measures it."""

    def attend(self, now: float, until: float = 0.0) -> float:
        return 0.0


class Server:
    """The server to which all connections of a test lead.

    :ivar says: what it answers, one reply after the other; an exception that is no answer is raised.
    :ivar received: what it was sent, one packet after the other.
    :ivar made: how many connections there were.
    :ivar deadlines: until when each answer was waited for, monotonic seconds; `connected_until`: each new connection.
    :ivar refuses: raised in place of a new connection.
    :ivar before_answer: called before each answer.
    """

    def __init__(self) -> None:
        self.says: list[Any] = []
        self.received: list[bytes] = []
        self.made = 0
        self.deadlines: list[float] = []
        self.connected_until: list[float] = []
        self.refuses: Exception | None = None
        self.before_answer: Callable[[], None] = lambda: None


class Connection:
    """One that needs no network."""

    redis_connect_func = None
    _sock = object()

    def __init__(self, *, server: Server) -> None:
        self.server = server
        self.deadline = Deadline(0.0)
        server.made += 1

    def connect(self) -> None:
        self.server.connected_until.append(self.deadline.at)
        if self.server.refuses is not None:
            raise self.server.refuses

    def disconnect(self) -> None:
        pass

    def is_quiet(self) -> bool:
        return True

    leads_there = is_quiet

    def exchange(self, data: bytes, count: int) -> list[Any]:
        self.server.received.append(data)
        self.server.deadlines.append(self.deadline.at)
        self.server.before_answer()
        replies = [self.server.says.pop(0) for _ in range(count)]
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, driver.ResponseError):
                raise reply
        return replies


class Pool:
    """A pool of such connections.

    :param most: connections at a time.
    :ivar timeout: seconds that are waited for one that is free.
    """

    connection_class: Callable[..., Any] = Connection

    def __init__(self, server: Server, most: int = 1) -> None:
        self.connection_kwargs = {"server": server}
        self.max_connections = most
        self.timeout = 30.0
