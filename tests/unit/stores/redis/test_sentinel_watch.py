"""The watch over the sentinels: what it hears, whom it asks, and what follows from another primary."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from typing import cast

import pytest
from redis import exceptions as driver

from devservers.processes import wait_until
from flask_langpont_session.stores.redis import sentinel_watch as module
from flask_langpont_session.stores.redis.dns import DnsCache
from flask_langpont_session.stores.redis.link import Link
from flask_langpont_session.stores.redis.sentinel import Listening, Named, Sentinel, SentinelResolver
from flask_langpont_session.stores.redis.sentinel_watch import ASK, REFUSED, THREAD, SentinelWatch
from flask_langpont_session.stores.redis.slots import Address
from tests.support.children import in_child
from tests.support.clock import Clock

A, B = Address("10.0.0.1", 6379), Address("10.0.0.2", 6379)


class Line(Listening):
    """A connection to a sentinel, and its other end."""

    def __init__(self) -> None:
        self._here, self.there = socket.socketpair()
        self._here.setblocking(False)
        self.is_closed = False

    def fileno(self) -> int:
        return self._here.fileno()

    def take_in(self) -> None:
        if not self._here.recv(100):
            raise driver.ConnectionError("closed")

    def close(self) -> None:
        self.is_closed = True
        self._here.close()
        self.there.close()


class Told(Sentinel):
    """A sentinel that knows what it is told.

    :ivar lines: the connections over which it tells of new primaries.
    """

    def __init__(self) -> None:
        self.named = Named(A, 1)
        self.asked = 0
        self.tried = 0
        self.trouble: Exception | None = None
        self.lines: list[Line] = []

    def primary_of(self, service: str, names: DnsCache, until: float) -> Named | None:
        self.asked += 1
        if self.trouble:
            raise self.trouble
        return self.named

    def listen(self, names: DnsCache, until: float) -> Line:
        self.tried += 1
        if self.trouble:
            raise self.trouble
        self.lines.append(Line())
        return self.lines[-1]


class Way:
    """The parts of a link that the watch needs."""

    name = "primary"

    def __init__(self) -> None:
        self.names = DnsCache()
        self.forgotten = 0

    def forget_connections(self) -> None:
        self.forgotten += 1


class Watched:
    """Three sentinels and the watch over them, which is driven by hand."""

    def __init__(self, clock: Clock) -> None:
        self.sentinels = [Told(), Told(), Told()]
        self.way, self.noticed, self.clock = Way(), 0, clock
        resolver = SentinelResolver(self.sentinels, "service", is_master=True, clock=clock)
        self.watch = SentinelWatch(cast(Link, self.way), resolver, self._notice, clock)

    def _notice(self) -> None:
        self.noticed += 1

    def look(self) -> list[int]:
        """Take one turn of the watch, and return how often each sentinel was asked in it."""
        before = [one.asked for one in self.sentinels]
        self.watch.look(0)
        return [one.asked - number for one, number in zip(self.sentinels, before, strict=True)]


@pytest.fixture
def watched(clock: Clock) -> Iterator[Watched]:
    watched = Watched(clock)
    yield watched
    watched.watch.close()
    for one in watched.sentinels:
        for line in one.lines:
            line.close()


def test_all_are_listened_to_and_asked_at_the_beginning(watched: Watched) -> None:
    """All sentinels are asked once, because nothing is known of what they said before. Then one is asked each
    second, in turn."""
    assert watched.look() == [1, 1, 1]
    assert [len(one.lines) for one in watched.sentinels] == [1, 1, 1]
    asked = []
    for _ in range(4):
        asked.append(watched.look())
        assert watched.look() == [0, 0, 0]
        watched.clock.now += ASK
    assert asked == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert watched.way.forgotten == 0


@pytest.mark.parametrize("how", ["told", "asked"])
def test_another_primary_ends_the_connections_to_the_one_before(
    watched: Watched, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The connections end once, and the monitor is told; a sentinel that is behind leads nothing back."""
    caplog.set_level(logging.INFO)
    watched.look()
    watched.look()
    watched.sentinels[1].named = Named(B, 2)
    if how == "told":
        watched.sentinels[2].lines[0].there.send(b"anything")  # this one has told and is asked; so are the others
        assert watched.look() == [1, 1, 1]
    else:
        watched.clock.now += ASK
        assert watched.look() == [0, 1, 0]
    assert (watched.way.forgotten, watched.noticed) == (1, 1)
    for _ in range(4):
        watched.clock.now += ASK
        watched.look()
    assert (watched.way.forgotten, watched.noticed) == (1, 1)
    [said] = [record for record in caplog.records if vars(record)["langpont_event"] == "primary_switched"]
    assert (said.levelno, vars(said)["langpont_store"]) == (logging.WARNING, "primary")


def test_a_connection_that_led_elsewhere_before_the_first_look_is_ended(watched: Watched) -> None:
    """It had asked the one sentinel that was behind."""
    behind, *others = watched.sentinels
    for one in others:
        one.named = Named(B, 2)
    resolver = watched.watch.resolver
    assert resolver.primary(watched.way.names, 1e9) == A
    watched.look()
    assert watched.way.forgotten == 1
    assert behind.named == Named(A, 1)


@pytest.mark.parametrize(
    ("trouble", "rest"),
    [
        (driver.ConnectionError(), ASK),
        (driver.TimeoutError(), ASK),
        (driver.NoPermissionError(), REFUSED),
        (driver.AuthenticationError(), REFUSED),
    ],
)
def test_one_that_cannot_be_listened_to_is_tried_again(watched: Watched, trouble: Exception, rest: float) -> None:
    """Soon, if it may be back soon. The others are listened to meanwhile."""
    lost = watched.sentinels[0]
    lost.trouble = trouble
    watched.look()
    watched.clock.now += rest - 0.1
    watched.look()
    assert lost.tried == 1
    lost.trouble = None
    watched.clock.now += 0.2
    assert watched.look() == [1, 1, 1]
    assert [len(one.lines) for one in watched.sentinels] == [1, 1, 1]


def test_the_end_of_a_connection_is_a_reason_to_ask(watched: Watched) -> None:
    """A message may have been lost with the connection; a new one takes its place."""
    watched.look()
    watched.clock.now += ASK
    [line] = watched.sentinels[1].lines
    line.there.close()
    assert watched.look() == [1, 1, 1]
    assert line.is_closed
    assert watched.look() == [1, 1, 1]
    assert len(watched.sentinels[1].lines) == 2


def test_the_thread_outlives_a_surprise_and_ends_when_it_is_told_to(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so once, and lets go of the connections at the end. After that it does not begin again."""
    strange = watched.sentinels[2]
    strange.trouble = ValueError("strange")
    watched.watch.ensure_started()
    wait_until(lambda: strange.tried > 1, "a second attempt")
    strange.trouble = None
    wait_until(lambda: bool(strange.lines), "a connection")
    watched.watch.close()
    assert all(line.is_closed for one in watched.sentinels for line in one.lines)
    assert [vars(record)["langpont_event"] for record in caplog.records] == ["sentinel_watch_failed"]
    watched.watch.ensure_started()
    assert leftover(THREAD) == []


def test_the_end_does_not_wait_for_the_next_question(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK", 3600.0)
    watched.watch.ensure_started()
    wait_until(lambda: [one.asked for one in watched.sentinels] == [1, 1, 1], "the first questions")
    watched.watch.close()
    assert leftover(THREAD) == []


def test_a_forked_child_listens_for_itself(watched: Watched) -> None:
    """The parent goes on using its own connections."""
    watched.look()

    def listens() -> bool:
        watched.watch.look(0)
        return [len(one.lines) for one in watched.sentinels] == [2, 2, 2] and watched.way.forgotten == 0

    assert in_child(listens)
    assert watched.look() == [1, 0, 0]


def leftover(name: str) -> list[threading.Thread]:
    """Threads of this name that live."""
    return [thread for thread in threading.enumerate() if thread.name == name]
