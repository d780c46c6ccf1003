"""Sentinel URLs, and which one a new connection asks: the next, when a sentinel is down, knows nothing or misled us."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from redis import connection as plain
from redis import exceptions as driver

from flask_langpont_session.policy.errors import ErrorClass
from flask_langpont_session.stores.redis.connections import UNASKED, connect
from flask_langpont_session.stores.redis.dns import DnsCache
from flask_langpont_session.stores.redis.errors import classify
from flask_langpont_session.stores.redis.routed import RoutedConnection
from flask_langpont_session.stores.redis.sentinel import (
    UNCONFIRMED,
    Named,
    Sentinel,
    SentinelResolver,
    route_to,
)
from flask_langpont_session.stores.redis.slots import Address
from flask_langpont_session.stores.redis.url import read_sentinel
from tests.faults.strange_server import StrangeServer
from tests.support.clock import Clock

NAMES, LATER = DnsCache(), math.inf


class Told(Sentinel):
    """A sentinel that says what it was told to, or fails.

    :ivar epoch: of the failover that it knows of.
    """

    def __init__(self, primary: Any = None, replicas: Any = (), epoch: int | None = 0) -> None:
        self.primary = primary
        self.replicas = replicas
        self.epoch = epoch
        self.asked = 0
        self.until = 0.0
        self.takes: Callable[[], object] = lambda: None

    def primary_of(self, service: str, names: DnsCache, until: float) -> Any:
        self.until = until
        self.takes()
        said = self._say(self.primary)
        return said and Named(said, self.epoch)

    def replicas_of(self, service: str, names: DnsCache, until: float) -> Any:
        return self._say(self.replicas)

    def _say(self, word: Any) -> Any:
        self.asked += 1
        if isinstance(word, Exception):
            raise word
        return word


def directory(*sentinels: Told, is_master: bool = True) -> SentinelResolver:
    return SentinelResolver(sentinels, "service", is_master=is_master)


def replicas_of(asked: SentinelResolver) -> Iterator[Address]:
    """Return the replicas that a new connection tries."""
    connection: Any = SimpleNamespace(names=NAMES, deadline=SimpleNamespace(at=LATER))
    return iter(asked.places(connection))


def connection_of(asked: SentinelResolver) -> Any:
    introduce: Any = lambda connection: connection.on_connect()  # noqa: E731
    connection: Any = RoutedConnection(route=asked, redis_connect_func=introduce, protocol=3, **UNASKED)
    connection.names = NAMES
    return connection


A, B, C = Address("10.0.0.1", 6379), Address("10.0.0.2", 6379), Address("10.0.0.3", 6379)


def test_the_first_sentinel_that_knows_is_believed_and_asked_first_from_then_on() -> None:
    """One that is down costs its time-out once, not at every connection."""
    down, ignorant, good = Told(driver.TimeoutError()), Told(None), Told(A)
    asked = directory(down, ignorant, good)
    assert [asked.primary(NAMES, LATER) for _ in range(3)] == [A, A, A]
    assert [down.asked, ignorant.asked, good.asked] == [1, 1, 3]


@pytest.mark.parametrize(("until", "ends"), [(math.inf, [1000.1, 1000.4]), (1000.35, [1000.1, 1000.35])])
def test_each_sentinel_has_its_time_and_all_have_that_of_the_connection(
    clock: Clock, until: float, ends: list[float]
) -> None:
    """One that took its own, and was late, leaves the next one as much, if there is so much left."""
    down, good = Told(driver.TimeoutError()), Told(A)

    def pass_late() -> None:
        clock.now += 0.3

    down.takes = pass_late
    asked = SentinelResolver([down, good], "service", is_master=True, patience=0.1, clock=clock)
    assert asked.primary(NAMES, until) == A
    assert [down.until, good.until] == pytest.approx(ends)


@pytest.mark.parametrize(
    "reply",
    [b"*3\r\n+a\r\n+1\r\n+2\r\n", b"*2\r\n+a\r\n+b\r\n", b":7\r\n", b"*1\r\n*1\r\n+ip\r\n", b"+\xff\r\n"],
)
def test_a_server_that_answers_unlike_a_sentinel_is_none(reply: bytes) -> None:
    """Then the next one is asked."""
    with StrangeServer(lambda command: reply if command == "SENTINEL" else None) as server:
        options = {"host": "127.0.0.1", "port": server.port, "decode_responses": True, "protocol": 2}
        strange, good = Sentinel(plain.Connection, options), Told(A, replicas=[B])
        assert SentinelResolver([strange, good], "service", is_master=True, patience=LATER).primary(NAMES, LATER) == A
        asked = SentinelResolver([strange, good], "service", is_master=False, patience=LATER)
        assert next(replicas_of(asked)) == B


def test_after_a_doubt_another_sentinel_is_asked_first() -> None:
    """One that is cut off from the others would name a lost server for ever."""
    stale, good = Told(A), Told(B)
    asked = directory(stale, good)
    assert asked.primary(NAMES, LATER) == A
    asked.doubt()
    assert [asked.primary(NAMES, LATER) for _ in range(2)] == [B, B]


AT_ONCE, MUCH_LATER = 0.0, UNCONFIRMED


@pytest.mark.parametrize(
    ("first", "then", "after", "is_doubtful", "used", "switches"),
    [
        ((A, 1), (B, 2), AT_ONCE, False, B, 1),  # a failover
        ((B, 2), (A, 1), AT_ONCE, False, B, 0),  # a sentinel that is cut off from the others
        ((B, 2), (A, 1), AT_ONCE, True, B, 0),  # and the primary does not answer
        ((B, 2), (A, 1), MUCH_LATER, False, A, 1),  # sentinels that were set up anew
        ((A, 1), (A, 2), AT_ONCE, False, A, 0),  # back to the same one
        ((A, 1), (B, 1), AT_ONCE, False, A, 0),  # another name of it
        ((A, 1), (B, 1), AT_ONCE, True, B, 1),  # which is of no use
        ((A, 1), (B, None), AT_ONCE, False, B, 0),  # a right is missing
        ((A, None), (B, None), AT_ONCE, True, B, 0),
    ],
)
def test_the_word_about_the_latest_failover_counts(
    clock: Clock, first: Any, then: Any, after: float, is_doubtful: bool, used: Address, switches: int
) -> None:
    """A sentinel that is behind does not lead a connection back, whichever says what."""
    one = Told(first[0], epoch=first[1])
    asked = SentinelResolver([one], "service", is_master=True, clock=clock)
    assert asked.primary(NAMES, LATER) == first[0]
    if is_doubtful:
        asked.doubt()
    clock.now += after
    one.primary, one.epoch = then
    assert asked.primary(NAMES, LATER) == used
    assert asked.switches == switches


def test_what_is_confirmed_stays_known(clock: Clock) -> None:
    """As long as one sentinel says it, none that is behind is believed."""
    good, behind = Told(B, epoch=2), Told(A, epoch=1)
    asked = SentinelResolver([good, behind], "service", is_master=True, clock=clock)
    for number in range(2 * 3):
        asked.ask(number, NAMES)
        clock.now += UNCONFIRMED / 2 - 1
    asked.doubt()
    assert asked.primary(NAMES, LATER) == B
    assert asked.switches == 0


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        ([b"*2\r\n$8\r\n10.0.0.2\r\n$4\r\n6379\r\n", b"*2\r\n$12\r\nconfig-epoch\r\n$1\r\n7\r\n"], Named(B, 7)),
        ([b"*2\r\n$8\r\n10.0.0.2\r\n$4\r\n6379\r\n", b"-NOPERM this user has no permissions\r\n"], Named(B, None)),
        ([b"*-1\r\n", b"-ERR No such master with that name\r\n"], None),
    ],
)
def test_a_sentinel_is_asked_for_the_place_and_the_number_of_the_failover(answers: list[bytes], named: Any) -> None:
    """Both questions are asked in one go; what the sentinel's user may not ask is not known."""
    left = iter(answers)
    with StrangeServer(lambda command: next(left) if command == "SENTINEL" else None) as server:
        options = {"host": "127.0.0.1", "port": server.port, "decode_responses": True, "protocol": 2}
        assert Sentinel(plain.Connection, options).primary_of("service", NAMES, LATER) == named


@pytest.mark.parametrize(
    ("answers", "error_class"),
    [
        ((driver.ConnectionError(), driver.TimeoutError()), ErrorClass.UNREACHABLE),
        ((None, None), ErrorClass.UNREACHABLE),
        ((None, driver.AuthenticationError()), ErrorClass.IDENTITY_REFUSED),
        ((driver.NoPermissionError(), None), ErrorClass.IDENTITY_REFUSED),
    ],
)
def test_when_no_sentinel_knows_the_error_says_why(answers: tuple[Any, ...], error_class: ErrorClass) -> None:
    """The store is lost, and each sentinel was asked once: nothing is tried again within a request."""
    sentinels = [Told(answer) for answer in answers]
    with pytest.raises(driver.RedisError) as caught:
        directory(*sentinels).primary(NAMES, LATER)
    assert classify(caught.value) is error_class
    assert [one.asked for one in sentinels] == [1, 1]


def test_a_worker_keeps_to_one_replica() -> None:
    """The server identity must be that of one server."""
    one = Told(replicas=[A, B])
    asked = directory(one, is_master=False)
    first = next(replicas_of(asked))
    assert [next(replicas_of(asked)) for _ in range(3)] == [first] * 3
    rest = replicas_of(asked)
    assert {next(rest), next(rest)} == {A, B}
    one.replicas = []  # the primary is never taken for one
    for replicas in (rest, replicas_of(asked)):
        with pytest.raises(driver.ConnectionError):
            next(replicas)


def test_a_replica_that_answers_nonsense_is_not_tried_first_again() -> None:
    """It takes connections: that it is none shows only afterwards."""
    with StrangeServer(lambda command: b"nonsense\r\n") as server:
        asked = directory(Told(replicas=[A, ("127.0.0.1", server.port)]), is_master=False)
        if next(replicas_of(asked)) == A:
            asked.doubt()
        with pytest.raises(driver.RedisError):
            connect(connection_of(asked), LATER)
    assert next(replicas_of(asked)) == A


def test_a_connection_that_was_being_made_when_another_primary_was_named_leads_to_that_one(clock: Clock) -> None:
    """It was not there to be ended with the others."""
    with StrangeServer() as old, StrangeServer() as new:
        places = [Address("127.0.0.1", server.port) for server in (old, new)]
        one = Told(places[0], epoch=1)
        asked = SentinelResolver([one], "service", is_master=True, clock=clock)

        def answer(command: str) -> None:
            if command == "HELLO":  # from now on
                one.primary, one.epoch = places[1], 2
                asked.ask(0, NAMES)

        old.say(answer)
        connection = connection_of(asked)
        connect(connection, LATER)
        assert (connection.host, connection.port) == places[1]
        connection.disconnect()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_all_sentinels_together_have_the_time_of_one_connection(scheme: str) -> None:
    """TLS is for all or none; the password of the servers is for those alone."""
    url = read_sentinel(f"{scheme}+sentinel://:pw@h1,h2,h3/service?db=2&ssl_keyfile=key")
    route = route_to(url, is_master=True, patience=0.3)
    assert route.tls() is (scheme == "rediss")
    for sentinel in route.sentinels:
        options = sentinel.options
        assert options["socket_timeout"] == options["socket_connect_timeout"] == pytest.approx(0.1)
        assert options["retry"].get_retries() == 0
        assert "password" not in options
        given = {name: value for name, value in options.items() if name.startswith("ssl_")}
        assert given == ({"ssl_keyfile": "key"} if route.tls() else {})
