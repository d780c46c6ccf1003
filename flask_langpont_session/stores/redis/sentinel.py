"""Redis Sentinel: every new connection asks the sentinels where its server is now.

A sentinel may be down, or cut off from the others and repeat what was true before a failover. So the next sentinel is
asked when one does not answer, and also when the server it named could not be used; and a server that says itself
that it is a replica is never used as the primary, whichever sentinel named it. Of two sentinels that name different
ones the one counts that knows of the later failover: each failover has a number, its epoch. What ends the connections
there are after a failover is in :mod:`.sentinel_watch`.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from redis import connection as plain
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SlaveNotFoundError

from ...support.forks import renew_in_children
from .connections import UNASKED, bounded, connect
from .dns import DnsCache
from .routed import Route, RoutedConnection
from .slots import Address
from .url import HostsUrl

T = TypeVar("T")


UNCONFIRMED = 60.0
"""Seconds without a sentinel that confirms what is known, after which any other word counts: sentinels that were set up
anew begin to count their failovers at 0."""

CHANNELS = ("+switch-master", "+promoted-slave")
"""On which a sentinel tells of a new primary: all do on the first one, the one that sees to the failover on the second
one, before it has told the others."""


class Named(NamedTuple):
    """A primary, as a sentinel names it.

    :param epoch: the number of the failover that made it the primary; 0: none did; None: the sentinel does not say.
    :param confirmed_at: of the one to be used: when a sentinel said so last, monotonic seconds.
    :param is_doubtful: and whether it could not be used.
    """

    address: Address
    epoch: int | None
    confirmed_at: float = 0.0
    is_doubtful: bool = False


class Sentinel:
    """One of the sentinels that a URL names. Each question has a connection of its own: there are few of them. It
    raises what redis-py raises, at the latest at `until` (monotonic s).

    :param kind: the class of the connection.
    :param options: of the connection, as redis-py takes them.
    """

    def __init__(self, kind: type, options: Mapping[str, Any]) -> None:
        self.options = options
        self._kind = bounded(kind)

    def primary_of(self, service: str, names: DnsCache, until: float) -> Named | None:
        """Return the primary's address; None: this sentinel does not know it."""
        # While it sees to a failover only the first answer names the server that was promoted already.
        questions = ("GET-MASTER-ADDR-BY-NAME", service), ("MASTER", service)
        return self._ask(names, until, _named, *questions)

    def replicas_of(self, service: str, names: DnsCache, until: float) -> list[Address]:
        """Return the addresses of the replicas that this sentinel can reach, always in the same order."""
        return self._ask(names, until, _places, ("REPLICAS", service))

    def listen(self, names: DnsCache, until: float) -> Listening:
        """Have the sentinel tell of new primaries from now on, of all services that it knows."""
        connection = self._connection(names)
        try:
            connect(connection, until)
            connection.send_command("SUBSCRIBE", *CHANNELS)
            for _ in CHANNELS:
                connection.read_response()
            return Listening(connection)
        except BaseException:  # Ctrl-C, too: the caller has nothing that it could close
            connection.disconnect()
            raise

    def _connection(self, names: DnsCache) -> Any:
        connection = self._kind(**self.options)
        connection.names = names
        return connection

    def _ask(self, names: DnsCache, until: float, understand: Callable[..., T], *questions: tuple[str, ...]) -> T:
        connection = self._connection(names)
        try:
            connect(connection, until, attends=False)  # a request does already; the watch asks when all is idle, too
            packed = connection.pack_commands([("SENTINEL", *question) for question in questions])
            connection.send_packed_command(packed, check_health=False)
            return understand(*[_reply(connection, first=number == 0) for number in range(len(questions))])
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise driver.InvalidResponse("a sentinel answers what none can") from error
        finally:
            connection.disconnect()


class Listening:
    """A connection over which a sentinel has said that it will tell of new primaries.

    Whatever it says is a reason to ask: a text need not be understood, and cannot be misunderstood.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        connection._sock.settimeout(0)

    def fileno(self) -> int:
        """Return the number of its socket, for ``poll``."""
        return int(self._connection._sock.fileno())

    def take_in(self) -> None:
        """Read what has arrived, of whatever kind. Raises what redis-py raises if the connection has ended."""
        try:
            received = self._connection._sock.recv(_MUCH)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            raise driver.ConnectionError("the connection to a sentinel has failed") from error
        if not received:
            raise driver.ConnectionError("a sentinel has closed the connection")

    def close(self) -> None:
        """End it."""
        self._connection.disconnect()


_MUCH = 65536


def _reply(connection: Any, *, first: bool) -> Any:
    try:
        return connection.read_response()
    except driver.ResponseError:
        if first:
            raise
        return None  # it is not known there, or its user may not ask that


def _place(host: str, port: str) -> Address:
    return Address(host, int(port))


def _named(place: Any, state: Any) -> Named | None:
    if not place:
        return None
    told = dict(zip(state[::2], state[1::2], strict=True)) if state else {}
    return Named(_place(*place), int(told["config-epoch"]) if told else None)


def _places(reply: Any) -> list[Address]:
    states = [dict(zip(one[::2], one[1::2], strict=True)) for one in reply]
    lost = {"s_down", "o_down", "disconnected"}
    return sorted(_place(one["ip"], one["port"]) for one in states if not lost & set(one["flags"].split(",")))


class SentinelResolver(Route):
    """The way to the servers of one service, as sentinels know it. Usable from any thread.

    :param is_master: whether the primary is wanted, or a replica.
    :param patience: seconds that one sentinel may take.
    :param tls: whether the servers speak TLS.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        sentinels: Sequence[Sentinel],
        service: str,
        *,
        is_master: bool,
        patience: float = 0.1,
        tls: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(lambda: (), lambda: tls)
        self.service_name = service
        self.is_master = is_master
        self.sentinels = tuple(sentinels)
        self._patience = patience
        self._clock = clock
        self._first = 0
        self._known: Named | None = None
        self._begin()
        renew_in_children(self, SentinelResolver._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()

    def primary(self, names: DnsCache, until: float) -> Address:
        """Return the primary's address, from the first sentinel that knows one and is not behind what is known."""
        found = self._ask(lambda one, end: self._believed(one.primary_of(self.service_name, names, end)), until)
        if found is None:
            raise MasterNotFoundError("no sentinel names a primary")
        return found

    def ask(self, number: int, names: DnsCache) -> None:
        """Ask one sentinel, and believe what it says unless it is behind. It may not answer.

        :param number: any; that of the sentinels goes round.
        """
        try:
            sentinel = self.sentinels[number % len(self.sentinels)]
            self._believed(sentinel.primary_of(self.service_name, names, self._clock() + self._patience))
        except driver.RedisError:  # it is down, or refuses us: new connections will say so if all are
            pass

    def listen(self, number: int, names: DnsCache) -> Listening:
        """Have one sentinel tell of new primaries.

        :raises redis.exceptions.RedisError: it does not answer, or refuses us.
        """
        return self.sentinels[number].listen(names, self._clock() + self._patience)

    def _believed(self, named: Named | None) -> Address | None:
        """Return the primary to be used, by what is known and what a sentinel just said; None: it knows none."""
        if named is None or named.epoch is None:  # without a number it says something to a new connection only
            return named and named.address
        with self._lock:
            now, known = self._clock(), self._known
            if known is not None and (named.address, named.epoch) == (known.address, known.epoch):
                self._known = known._replace(confirmed_at=now)
            elif known is None or _outdoes(named, known, now):
                if known is not None and named.address != known.address:
                    self.switches += 1
                self._known = known = named._replace(confirmed_at=now)
            return known.address

    def places(self, connection: RoutedConnection) -> Iterator[Address]:
        """Return the places to try, one after the other; never the primary in a replica's place."""
        names, until = connection.names, connection.deadline.at
        if self.is_master:
            switches = self.switches
            yield self.primary(names, until)
            if switches != self.switches:
                yield self.primary(names, until)
        else:
            found = self._ask(lambda one, end: one.replicas_of(self.service_name, names, end), until)
            yield from self._turned(found) if found else ()
            raise SlaveNotFoundError("no sentinel names a replica that answers")

    def greeted(self, connection: RoutedConnection) -> None:
        """Refuse a server that is none of the primary's: before it is used, or anything is concluded from which server
        it is."""
        if not self.is_master:
            return
        if connection.switches != self.switches:  # all others to that one were ended
            raise driver.ConnectionError("the sentinels name another primary by now")
        # The greeting of the server tells its role: no round trip more, and no other connection is looked at.
        greeting: Mapping[Any, Any] = connection.handshake_metadata or {}
        role = greeting.get(b"role") or greeting.get("role") or b"master"
        if role not in (b"master", "master"):
            raise driver.ConnectionError("the server that was the primary is a replica now")

    def leads_to(self, host: str, port: int) -> bool:
        """Return True: what ends connections is in :mod:`.sentinel_watch`."""
        return True

    def doubt(self) -> None:
        """Note that the server that was named could not be used: another sentinel is asked first next time, and another
        replica tried."""
        super().doubt()
        self._first += 1
        with self._lock:
            if self._known is not None:
                self._known = self._known._replace(is_doubtful=True)

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


def _outdoes(named: Named, known: Named, now: float) -> bool:
    """Return whether a sentinel's word counts instead of what is known."""
    assert named.epoch is not None and known.epoch is not None
    if named.epoch > known.epoch or now >= known.confirmed_at + UNCONFIRMED:
        return True
    # A server may have several names: of the same failover another one counts only where the first is of no use.
    return named.epoch == known.epoch and known.is_doubtful


def route_to(url: HostsUrl, *, is_master: bool, patience: float) -> SentinelResolver:
    """Return the way to a server that the sentinels of a URL know.

    :param patience: seconds that all of them together may take. A request waits for them.
    """
    patience /= len(url.hosts)
    tls = {name: value for name, value in url.options.items() if name.startswith("ssl_")}
    sentinels = [
        Sentinel(
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
                **url.sentinel_options,
            },
        )
        for host, port in url.hosts
    ]
    return SentinelResolver(sentinels, url.service, is_master=is_master, patience=patience, tls=url.tls)
