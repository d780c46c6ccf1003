"""Names and addresses: which thread asks the resolver, how long others wait for it, and what is kept of its answers."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from devservers.processes import LONG, wait_until
from flask_langpont_session.stores.redis import dns as module
from flask_langpont_session.stores.redis.dns import DnsCache, SocketAddress
from tests.support.clock import Clock


class Resolver:
    """A stand-in for ``socket.getaddrinfo``.

    :ivar answers: host → addresses, or the error it is answered with.
    :ivar askers: the names of the threads that asked.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[str] | OSError] = {}
        self.askers: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, host: str, port: int, family: int = 0, kind: int = 0) -> list[Any]:
        self.askers.append(threading.current_thread().name)
        self.gate.wait(LONG)
        found = self.answers[host]
        if isinstance(found, OSError):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    return resolver


def at(*hosts: str) -> tuple[SocketAddress, ...]:
    return tuple(SocketAddress(socket.AF_INET, (host, 6379)) for host in hosts)


def ask(names: DnsCache, seconds: float = LONG) -> tuple[SocketAddress, ...]:
    return names.addresses("redis.test", 6379, 1000.0 + seconds)


def nothing_is_looked_up() -> bool:
    """Return whether no name is being looked up."""
    return "langpont-session-names" not in {thread.name for thread in threading.enumerate()}


def test_the_first_one_waits_for_the_answer_and_the_others_have_it(resolver: Resolver, clock: Clock) -> None:
    """No request asks the resolver in its own thread."""
    resolver.answers["redis.test"] = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
    names = DnsCache(clock=clock)
    for _ in range(3):
        assert ask(names) == at("10.0.0.1", "10.0.0.2")
    assert resolver.askers == ["langpont-session-names"]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.1.2.3", SocketAddress(socket.AF_INET, ("10.1.2.3", 6379))),
        ("::1", SocketAddress(socket.AF_INET6, ("::1", 6379, 0, 0))),
    ],
)
def test_an_address_is_no_name(resolver: Resolver, host: str, address: SocketAddress) -> None:
    """The resolver is not asked at all."""
    assert DnsCache().addresses(host, 6379, 0.0) == (address,)
    assert resolver.askers == []


def test_a_request_that_may_not_wait_any_longer_does_not(resolver: Resolver) -> None:
    """A resolver that hangs costs the time that is there; its answer is good for those that come later."""
    resolver.answers["redis.test"] = ["10.0.0.1"]
    resolver.gate.clear()
    names = DnsCache()
    with pytest.raises(TimeoutError):
        names.addresses("redis.test", 6379, 0.0)
    resolver.gate.set()
    wait_until(nothing_is_looked_up, "the answer")
    assert names.addresses("redis.test", 6379, 0.0) == at("10.0.0.1")
    assert len(resolver.askers) == 1


def test_a_name_that_leads_nowhere_is_an_error_and_is_asked_for_again_later(resolver: Resolver, clock: Clock) -> None:
    """Not every request that comes along asks for such a name again."""
    resolver.answers["redis.test"] = socket.gaierror(-2, "Name or service not known")
    names = DnsCache(clock=clock)
    for _ in range(3):
        with pytest.raises(OSError, match="not known"):
            ask(names)
    assert len(resolver.askers) == 1
    clock.now += module.PAUSE
    resolver.answers["redis.test"] = ["10.0.0.1"]
    assert ask(names) == at("10.0.0.1")


def test_a_name_is_looked_up_now_and_then_and_more_often_while_its_server_is_lost(
    resolver: Resolver, clock: Clock
) -> None:
    """A failover turns the name to another server."""
    resolver.answers["redis.test"] = ["10.0.0.1"]
    changes: list[None] = []
    names = DnsCache(lambda: changes.append(None), clock=clock)
    ask(names)
    names.look(lost=True)
    assert len(resolver.askers) == 1
    clock.now += module.PAUSE
    names.look(lost=False)
    assert len(resolver.askers) == 1
    names.look(lost=True)
    wait_until(nothing_is_looked_up, "the second answer")
    assert (len(resolver.askers), changes) == (2, [])
    resolver.answers["redis.test"] = ["10.0.0.2"]
    clock.now += module.REST
    names.look(lost=False)
    wait_until(lambda: len(changes) == 1, "the change")
    assert ask(names, 0) == at("10.0.0.2")
    resolver.answers["redis.test"] = socket.gaierror(-2, "Name or service not known")
    clock.now += module.REST
    names.look(lost=False)
    wait_until(nothing_is_looked_up, "the failure")
    assert ask(names, 0) == at("10.0.0.2"), "DNS that is down takes no session store with it that is up"


def test_an_address_that_was_no_good_is_tried_last(resolver: Resolver, clock: Clock) -> None:
    """Each one gets its turn, whatever order the resolver has; and what is good is kept."""
    resolver.answers["redis.test"] = ["10.0.0.1", "10.0.0.2"]
    names = DnsCache(clock=clock)
    one, two = ask(names)
    clock.now += module.PAUSE
    names.doubt("redis.test", 6379, one)
    wait_until(nothing_is_looked_up, "the fresh answer")
    assert ask(names) == (two, one)
    resolver.answers["redis.test"] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    clock.now += module.REST
    names.look(lost=False)
    wait_until(nothing_is_looked_up, "the next answer")
    assert ask(names) == (two, one, *at("10.0.0.3"))


def test_a_doubt_that_the_answer_does_not_remove_is_looked_into_again(resolver: Resolver, clock: Clock) -> None:
    """After a failover a resolver repeats for a while what was true before. Less and less often: it may be true."""
    resolver.answers["redis.test"] = ["10.0.0.1"]
    names = DnsCache(clock=clock)
    [one] = ask(names)
    names.doubt("redis.test", 6379, one)
    assert len(resolver.askers) == 1
    looks = []
    for _ in range(120):
        clock.now += module.PAUSE
        names.look(lost=False)
        wait_until(nothing_is_looked_up, "an answer")
        looks.append(len(resolver.askers))
    assert looks[1] == 2
    assert looks[7] <= 5 <= looks[19]
    assert looks[-1] <= 5 + 120 * module.PAUSE / (0.8 * module.REST)


def test_a_name_of_a_server_that_is_gone_is_forgotten(resolver: Resolver, clock: Clock) -> None:
    """Otherwise, where servers come and go under new names, ever more would be looked up. A name that leads
    somewhere is kept: lasting connections seldom ask for it."""
    resolver.answers["redis.test"] = ["10.0.0.1"]
    names = DnsCache(clock=clock)
    [one] = ask(names)
    clock.now += 2 * module.FORGOTTEN
    names.look(lost=False)
    wait_until(nothing_is_looked_up, "an answer")
    assert len(resolver.askers) == 2
    resolver.answers["redis.test"] = socket.gaierror(-2, "Name or service not known")
    clock.now += module.REST
    names.look(lost=False)
    wait_until(nothing_is_looked_up, "the failure")
    names.look(lost=False)
    clock.now += module.REST
    names.doubt("redis.test", 6379, one)  # of what is not known
    names.look(lost=False)
    wait_until(nothing_is_looked_up, "an answer")
    assert len(resolver.askers) == 3


def test_a_resolver_that_breaks_is_asked_again(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """A resolver is asked again whatever it raised."""

    def broken(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(socket, "getaddrinfo", broken)
    names = DnsCache(clock=clock)
    with pytest.raises(OSError):
        ask(names)
    resolver = Resolver()
    resolver.answers["redis.test"] = ["10.0.0.1"]
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    clock.now += module.PAUSE
    assert ask(names) == at("10.0.0.1")


def test_what_is_no_name_at_all_is_an_error_of_the_same_kind() -> None:
    """Python's codec for host names refuses some before any resolver is asked."""
    with pytest.raises(OSError, match="not a host name"):
        DnsCache().addresses("a" * 70 + ".test", 6379, 1e9)
