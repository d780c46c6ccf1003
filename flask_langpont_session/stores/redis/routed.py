"""Connections that find their server when they connect: in a cluster and behind sentinels it may be another one the
next time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from redis import exceptions as driver
from redis.connection import BlockingConnectionPool, SSLConnection

from ...support.chance import CHANCE
from .connections import Bounded, Resolving
from .slots import Address


class Route:
    """The way to a server, which may be another one at the next connection.

    :param servers: says which are at its end by now.
    :param tls: says whether they speak TLS.
    :ivar switches: how often another server was named than the one that was known.
    """

    switches = 0

    def __init__(self, servers: Callable[[], Sequence[Address]], tls: Callable[[], bool]) -> None:
        self._servers = servers
        self.tls = tls
        # Every worker keeps to one replica, so that the identity is that of one server; the workers spread over them.
        self._choice = CHANCE.randrange(1 << 16)

    def places(self, connection: RoutedConnection) -> Iterable[Address]:
        """Return the addresses that a connection is to try, one after the other.

        :raises ConnectionError: there is none.
        """
        servers = self._servers()
        if not servers:
            raise driver.ConnectionError("the cluster has no such server any more")
        return self._turned(servers)

    def _turned(self, servers: Sequence[Address]) -> Sequence[Address]:
        start = self._choice % len(servers)
        return [*servers[start:], *servers[:start]]

    def greeted(self, connection: RoutedConnection) -> None:
        """Look at a server that has answered the greeting, before the connection is used.

        :raises ConnectionError: it is not the one that is wanted.
        """

    def leads_to(self, host: str, port: int) -> bool:
        """Return whether that server is still at an end of this way."""
        return (host, port) in self._servers()

    def doubt(self) -> None:
        """Have the next connection try another server first, if there is one: the last one could not be used."""
        self._choice += 1


class RoutedConnection(Bounded, SSLConnection, Resolving):
    """A connection that finds its server when it connects, with TLS or without.

    :ivar switches: those of its route before it asked that for the server.
    """

    def __init__(self, *, route: Route, **options: Any) -> None:
        self._route = route
        self.switches = route.switches
        super().__init__(**options)

    def leads_there(self) -> bool:
        """Return whether the server of this connection is still one that it is to find. One that handed over to another
        primary lives on, and redirects all that is asked over its connections."""
        return self._route.leads_to(self.host, self.port)

    def connect(self) -> None:
        trouble: Exception | None = None
        try:
            self.switches = self._route.switches
            for self.host, self.port in self._route.places(self):  # noqa: B020
                try:
                    return super().connect()
                except (driver.ConnectionError, driver.TimeoutError) as error:
                    trouble, self.switches = error, self._route.switches
            raise trouble or driver.ConnectionError("no server is known")
        except driver.RedisError:  # nonsense is not even a ConnectionError
            self._route.doubt()
            raise

    def _wrap_socket_with_ssl(self, connected: Any) -> Any:
        # The host is what the certificate must name.
        return super()._wrap_socket_with_ssl(connected) if self._route.tls() else connected

    def on_connect(self) -> None:
        super().on_connect()  # type: ignore[no-untyped-call]
        self._route.greeted(self)


def make_pool(
    route: Route, *, waits: Mapping[str, Any], options: Mapping[str, Any], **pool_options: Any
) -> BlockingConnectionPool:
    """Return a pool whose every new connection goes where its route leads by then.

    :param waits: time-outs, retries and what introduces a connection.
    :param options: credentials, and what TLS needs.
    :param pool_options: of the pool itself.
    """
    return BlockingConnectionPool(  # type: ignore[no-untyped-call]
        connection_class=RoutedConnection, route=route, protocol=3, **waits, **options, **pool_options
    )
