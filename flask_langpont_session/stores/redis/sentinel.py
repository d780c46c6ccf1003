"""Redis Sentinel: every new connection asks the sentinels where its server is now.

A sentinel may be down, or cut off from the others and repeat what was true before a failover. So the next sentinel is
asked when one does not answer, and also when the server it named could not be used; and a server that says itself
that it is a replica is never used as the primary, whichever sentinel named it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from redis import connection as plain
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool
from redis.retry import Retry
from redis.sentinel import (
    MasterNotFoundError,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
    SlaveNotFoundError,
)

from ...support.chance import CHANCE
from .connections import UNASKED, Bounded, Resolving, bounded, connect
from .dns import DnsCache
from .slots import Address
from .url import SentinelUrl

T = TypeVar("T")


class Sentinel(Protocol):
    """One that may be asked. Both questions raise what redis-py raises, at the latest at `until` (monotonic s)."""

    def primary_of(self, service: str, names: DnsCache, until: float) -> Address | None:
        """Where the primary is; None: it does not know."""

    def replicas_of(self, service: str, names: DnsCache, until: float) -> list[Address]:
        """Where the replicas are that it can reach."""


class RealSentinel:
    """One of the sentinels that a URL names. Each question has a connection of its own: there are few of them.

    :param kind: the class of the connection.
    :param options: of the connection, as redis-py takes them.
    """

    def __init__(self, kind: type, options: Mapping[str, Any]) -> None:
        self.options = options
        self._kind = bounded(kind)

    def primary_of(self, service: str, names: DnsCache, until: float) -> Address | None:
        """Where the primary is; None: it does not know."""
        return self._ask(names, until, _place_or_none, "GET-MASTER-ADDR-BY-NAME", service)

    def replicas_of(self, service: str, names: DnsCache, until: float) -> list[Address]:
        """Where the replicas are that it can reach, always in the same order."""
        return self._ask(names, until, _places, "REPLICAS", service)

    def _ask(self, names: DnsCache, until: float, understand: Callable[[Any], T], *question: str) -> T:
        connection = self._kind(**self.options)
        connection.names = names
        try:
            connect(connection, until)
            connection.send_command("SENTINEL", *question)
            return understand(connection.read_response())
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise driver.InvalidResponse("a sentinel answers what none can") from error
        finally:
            connection.disconnect()


def _place(host: str, port: str) -> Address:
    return Address(host, int(port))


def _place_or_none(reply: Any) -> Address | None:
    return _place(*reply) if reply else None


def _places(reply: Any) -> list[Address]:
    states = [dict(zip(one[::2], one[1::2], strict=True)) for one in reply]
    lost = {"s_down", "o_down", "disconnected"}
    return sorted(_place(one["ip"], one["port"]) for one in states if not lost & set(one["flags"].split(",")))


class SentinelResolver:
    """Where the servers of one service are. What the connections of this module ask.

    :param is_master: whether the primary is wanted, or a replica.
    :param patience: seconds that one sentinel may take.
    :param clock: monotonic seconds.
    """

    check_connection = False

    def __init__(
        self,
        sentinels: Sequence[Sentinel],
        service: str,
        *,
        is_master: bool,
        patience: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service_name = service
        self.is_master = is_master
        self.sentinels = tuple(sentinels)
        self._patience = patience
        self._clock = clock
        self._first = 0
        # Every worker keeps to one replica, so that the identity is that of one server; the workers spread over them.
        self._choice = CHANCE.randrange(1 << 16)

    def primary(self, names: DnsCache, until: float) -> Address:
        """Where the present primary is, as the first sentinel that knows one says."""
        found = self._ask(lambda one, end: one.primary_of(self.service_name, names, end), until)
        if found is None:
            raise MasterNotFoundError("no sentinel names a primary")
        return found

    def replicas(self, names: DnsCache, until: float) -> Iterator[Address]:
        """The replicas to try, one after the other; never the primary in their place."""
        found = self._ask(lambda one, end: one.replicas_of(self.service_name, names, end), until) or []
        start = self._choice % max(1, len(found))
        yield from found[start:] + found[:start]
        raise SlaveNotFoundError("no sentinel names a replica that answers")

    def doubt(self) -> None:
        """The server that was named could not be used: another sentinel is asked first next time, and another replica
        tried."""
        self._first += 1
        self._choice += 1

    def _ask(self, question: Callable[[Sentinel, float], T | None], until: float) -> T | None:
        trouble: driver.RedisError | None = None
        first = self._first
        for turn in range(len(self.sentinels)):
            number = (first + turn) % len(self.sentinels)
            try:
                answer = question(self.sentinels[number], min(until, self._clock() + self._patience))
            except driver.RedisError as error:  # it is down, or refuses us
                trouble = error
                continue
            if answer:
                self._first = number
                return answer
        if trouble is not None:
            raise trouble from trouble.__context__  # it says what TLS refused, and is lost by another error at hand
        return None


class _Managed(Bounded):
    """What redis-py's classes lack: a deadline for the questions too, a look at the role, and the doubt."""

    connection_pool: SentinelResolver
    names: DnsCache

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except driver.RedisError:  # nonsense is not even a ConnectionError
            self.connection_pool.doubt()
            raise

    def _connect_retry(self) -> None:
        if self._sock:  # type: ignore[attr-defined]
            return
        directory, until = self.connection_pool, self.deadline.at
        if directory.is_master:
            return self.connect_to(directory.primary(self.names, until))  # type: ignore[attr-defined,no-any-return]
        for place in directory.replicas(self.names, until):
            try:
                return self.connect_to(place)  # type: ignore[attr-defined,no-any-return]
            except (driver.ConnectionError, driver.TimeoutError):
                continue

    def on_connect(self) -> None:
        super().on_connect()  # type: ignore[misc]
        # The greeting of the server tells its role: no round trip more, and no other connection is looked at.
        greeting: Mapping[Any, Any] = self.handshake_metadata or {}  # type: ignore[attr-defined]
        role = greeting.get(b"role") or greeting.get("role") or b"master"
        if self.connection_pool.is_master and role not in (b"master", "master"):
            raise driver.ConnectionError("the server that was the primary is a replica now")

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        # redis-py's makes another error of READONLY here, one that says nothing of what was refused.
        return plain.AbstractConnection.read_response(self, *arguments, **options)  # type: ignore[arg-type]


class SentinelConnection(_Managed, SentinelManagedConnection, Resolving):
    """A connection to the primary or to a replica."""


class TLSConnection(_Managed, SentinelManagedSSLConnection, Resolving):
    """The same with TLS."""


def make_pool(
    url: SentinelUrl,
    *,
    is_master: bool,
    waits: Mapping[str, Any],
    options: Mapping[str, Any],
    tls_options: Mapping[str, Any],
    **pool_options: Any,
) -> BlockingConnectionPool:
    """A pool whose every new connection finds its server through the sentinels.

    :param waits: time-outs, retries and what introduces a connection, as for a server whose place is known.
    :param options: further ones of the connections to the servers; they win over the URL's.
    :param tls_options: of all connections, if the URL asks for TLS.
    :param pool_options: of the pool itself.
    """
    tls = {name: value for name, value in url.options.items() if name.startswith("ssl_")}
    tls.update(tls_options)
    # All sentinels together may take about as long as one connection may: a request waits for them.
    patience = waits["socket_connect_timeout"] / len(url.sentinels)
    sentinels = [
        RealSentinel(
            plain.SSLConnection if url.tls else plain.Connection,
            {
                "host": host,
                "port": port,
                "socket_timeout": patience,
                "socket_connect_timeout": patience,
                "retry": Retry(NoBackoff(), 0),
                "decode_responses": True,
                "protocol": 2,
                **UNASKED,
                **(tls if url.tls else {}),
                **{name.removeprefix("sentinel_"): value for name, value in url.sentinel_options.items()},
            },
        )
        for host, port in url.sentinels
    ]
    return BlockingConnectionPool(  # type: ignore[no-untyped-call]
        connection_class=TLSConnection if url.tls else SentinelConnection,
        connection_pool=SentinelResolver(sentinels, url.service, is_master=is_master, patience=patience),
        protocol=3,
        **waits,
        **{**url.options, **(tls if url.tls else {}), **options},
        **pool_options,
    )
