"""The connections of one store: how many there are, how long one is waited for, and which are kept. Time is told."""

from __future__ import annotations

import threading
from typing import Any
from unittest.mock import patch

import pytest
from redis import exceptions as driver

from flask_langpont_session.stores.redis.connections import RESTRAINT, Pool
from flask_langpont_session.stores.redis.dns import DnsCache
from tests.support.clock import Clock

from . import told_server
from .told_server import Server, ToldLag

FULL = driver.ConnectionError("max number of clients reached")
LATER = 2000.0


class Condition(threading.Condition):
    """A wait for it lets the time pass that it takes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.now += timeout or 0.0
        return False


class Place:
    """A pool of two connections to a server.

    :ivar waited: the seconds until there was one, each time none lay ready.
    """

    def __init__(self, clock: Clock) -> None:
        self.server = Server()
        self.waited: list[float] = []
        source: Any = told_server.Pool(self.server, most=2)
        names, lag, condition = DnsCache(), ToldLag(clock), Condition(clock)
        with patch.object(threading, "Condition", lambda: condition):
            self.pool = Pool(source, names, waited=self.waited.append, lag=lag)


@pytest.fixture
def place(clock: Clock) -> Place:
    return Place(clock)


def test_one_that_lies_ready_is_used_again(place: Place) -> None:
    first = place.pool.take(LATER)
    place.pool.put_back(first)
    assert place.pool.take(LATER) is first
    assert (place.server.made, place.pool.in_use, place.waited) == (1, 1, [0.0])


def test_there_are_no_more_than_may_be(place: Place) -> None:
    """One that does not become free while there is time for it is an error, and costs no place."""
    pool = place.pool
    taken = [pool.take(LATER) for _ in range(2)]
    with pytest.raises(driver.MaxConnectionsError):
        pool.take(1000.5)
    assert place.waited[-1] == 0.5
    assert (pool.in_use, place.server.made) == (2, 2)
    pool.put_back(taken.pop())
    assert pool.take(LATER)
    assert pool.take_most_in_use() == 2


def test_one_is_not_waited_for_longer_than_the_pool_says(place: Place) -> None:
    """The pool's limit holds however much time a request has."""
    for _ in range(2):
        place.pool.take(LATER)
    with pytest.raises(driver.MaxConnectionsError):
        place.pool.take(LATER)
    assert place.waited[-1] == place.pool.patience == 30.0


def test_what_it_took_to_connect_is_said(place: Place, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to connect is said also where connecting was in vain."""

    def connect(connection: Any) -> None:
        clock.now += 0.25
        raise driver.TimeoutError

    monkeypatch.setattr(told_server.Connection, "connect", connect)
    with pytest.raises(driver.TimeoutError):
        place.pool.take(LATER)
    assert (place.waited, place.pool.in_use) == ([0.25], 0)


def test_a_new_one_is_waited_for_until_the_end_that_was_given(place: Place) -> None:
    place.pool.take(1000.2)
    assert place.server.connected_until == [pytest.approx(1000.2)]


@pytest.mark.parametrize(("later", "may_be_made"), [(RESTRAINT - 0.1, False), (RESTRAINT, True)])
def test_a_server_with_as_many_clients_as_it_takes_is_not_asked_for_more_for_a_while(
    place: Place, clock: Clock, later: float, may_be_made: bool
) -> None:
    """Each try would take it a connection that others could have had."""
    pool, server = place.pool, place.server
    pool.take(LATER)
    server.refuses = FULL
    with pytest.raises(driver.ConnectionError, match="max number"):
        pool.take(LATER)
    server.refuses, server.made = None, 0
    clock.now += later
    if may_be_made:
        assert pool.take(clock.now)
    else:
        with pytest.raises(driver.MaxConnectionsError):
            pool.take(clock.now + 0.05)
    assert server.made == may_be_made


def test_another_server_may_take_as_many_as_ever(place: Place, clock: Clock) -> None:
    """A connection that was in use is not kept after the change of servers."""
    pool, server = place.pool, place.server
    first = pool.take(LATER)
    server.refuses = FULL
    with pytest.raises(driver.ConnectionError, match="max number"):
        pool.take(LATER)
    server.refuses = None
    pool.forget()
    assert pool.take(clock.now)  # at once
    pool.put_back(first)
    assert pool.idle == []
