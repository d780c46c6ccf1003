"""Connections that cannot hang a request: every wait of one ends at one moment, making it included.

redis-py's classes do the talking. What stands under them here is a socket that knows its deadline, connecting without
a resolver, and a pool of our own: redis-py's connects inside, where its time cannot be limited, and its
books cost more than a script.
"""

from __future__ import annotations

import inspect
import math
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from redis import connection as driver_connection
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, ConnectionPool
from redis.retry import Retry

from ...support.lag import PROCESS, Deadline, Lag
from .dns import DnsCache, SocketAddress
from .errors import is_full
from .wire import FOR_EVER, IS_FAST, SOON, Wire

RESTRAINT = 5.0
"""Seconds for which no connection more is opened to a server that had as many clients as it takes."""

try:
    from redis.maint_notifications import MaintNotificationsConfig
except ImportError:  # before redis-py 7.0
    NO_NOTICES: dict[str, Any] = {}
else:
    NO_NOTICES = {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}
"""Options of a connection that does not ask for notices of maintenance, which redis-py does by default: one question
more, a look-up of the name, and longer waits."""

_TAKES_INFO = "driver_info" in inspect.signature(AbstractConnection).parameters
_NAMES = ("driver_info",) if _TAKES_INFO else ("lib_name", "lib_version")  # before redis-py 7.2

UNASKED: dict[str, Any] = {**NO_NOTICES, **dict.fromkeys(_NAMES)}
"""Options of a connection that asks for no notices, and does not tell the driver's name."""

_PUSHED = ("maint_notifications_pool_handler", "oss_cluster_maint_notifications_handler")


class Asking:
    """Stands before a connection class that connects in a way of its own (fakeredis'). It asks and listens as redis-py
    does, and nothing is known of when its waits end."""

    def __init__(self, **options: Any) -> None:
        self.deadline = Deadline(math.inf, attends=False)
        super().__init__(**options)

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """Send packed commands and read their replies, errors of the server among them."""
        self.send_packed_command([data], check_health=False)  # type: ignore[attr-defined]
        return [self._read_reply() for _ in range(count)]

    def is_quiet(self) -> bool:
        """Return whether the connection is open, and nothing came that was not asked for."""
        return self._sock is not None and not self.can_read()  # type: ignore[attr-defined]

    def leads_there(self) -> bool:
        """Return whether the server of the connection is still one that it is to find."""
        return True

    def _read_reply(self) -> Any:
        # An error reply is returned: the replies behind it must be read before anything is raised.
        try:
            return self.read_response(disable_decoding=True, disconnect_on_error=False)  # type: ignore[attr-defined]
        except (driver.ResponseError, driver.BusyLoadingError) as error:
            return error


class Bounded(Asking):
    """Stands before a connection class of redis-py: it connects, greets, asks and listens until its deadline."""

    def _connect(self) -> Any:
        return Wire(super()._connect(), self.deadline)  # type: ignore[misc]

    def _wrap_socket_with_ssl(self, connected: Any) -> Any:
        try:
            return super()._wrap_socket_with_ssl(connected)  # type: ignore[misc]
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            # Else it looks like a server's socket that is not there.
            raise ssl.SSLError(error.errno, "a file of the TLS settings cannot be read") from error

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        parser = self._parser  # type: ignore[attr-defined]
        if IS_FAST and hasattr(parser, "_reader"):  # none of redis-py's parsers in Python
            self.exchange = partial(self._sock.exchange, to_error=parser.parse_error)  # type: ignore[attr-defined,method-assign]

    def is_quiet(self) -> bool:
        return self._sock is not None and self._sock.is_quiet()  # type: ignore[attr-defined]


class Resolving(driver_connection.Connection):
    """Connects to the known addresses of a name, one after the other, and asks no resolver."""

    deadline: Deadline
    names: DnsCache
    address: SocketAddress | None = None

    def _connect(self) -> socket.socket:
        left = min(self.deadline.left(), self.socket_connect_timeout or math.inf)
        deadline = Deadline.after(left, attends=False)  # a part of the other one
        addresses = self.names.addresses(self.host, self.port, deadline.at)
        trouble: OSError = OSError("the name has no address")
        for number, address in enumerate(addresses):
            # None may use up the time of those behind it.
            left = deadline.left() / (len(addresses) - number)
            if left <= 0:
                raise TimeoutError("the time to connect is over")
            try:
                connected = self._connect_to(address, left)
            except OSError as error:
                trouble = error
                continue
            self.address = address
            left = max(SOON, deadline.left())
            connected.settimeout(None if left > FOR_EVER else left)  # for TLS
            return connected
        raise trouble

    def _connect_to(self, address: SocketAddress, seconds: float) -> socket.socket:
        made = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.socket_keepalive:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in self.socket_keepalive_options.items():
                    made.setsockopt(socket.IPPROTO_TCP, option, value)
            made.settimeout(None if seconds > FOR_EVER else seconds)
            made.connect(address.place)
        except BaseException:  # Ctrl-C, too: the caller has nothing that it could close
            made.close()
            raise
        return made


@cache
def bounded(kind: type) -> type:
    """Return a connection class as this package uses it."""
    if not issubclass(kind, AbstractConnection) or issubclass(kind, Asking):
        return kind
    if not kind._connect.__module__.startswith(("redis.", __name__.partition(".")[0])):
        return type(kind.__name__, (Asking, kind), {})
    if not issubclass(kind, driver_connection.Connection):
        return type(kind.__name__, (Bounded, kind), {})
    bases = (Bounded, Resolving) if kind is driver_connection.Connection else (Bounded, kind, Resolving)
    return type(kind.__name__, bases, {})


class _Room:
    """The numbers of open connections: how many there are, and how many there may be. These are fewer for a while,
    where the server had as many clients as it takes.

    :param limit: of open connections.
    :param clock: monotonic seconds.
    :ivar most_used: the most that were in use at a time.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.open = self.most_used = 0
        self._limit = limit
        self._clock = clock
        self.relax()

    def relax(self) -> None:
        """Allow as many as ever."""
        self._for_now, self._until = self._limit, 0.0

    def restrain(self, number: int) -> None:
        """Allow no more than so many, for a while."""
        self._for_now, self._until = max(1, number), self._clock() + RESTRAINT

    def allowed(self) -> int:
        """Return how many there may be at the moment."""
        return self._for_now if self._clock() < self._until else self._limit


class Pool:
    """The connections of one store.

    :param source: says where to connect to and how: any pool of redis-py, also of a ready client or of fakeredis. Its
        own connections are not used.
    :param names: what is known of names.
    :param usable: asked of each that lies ready whether it is still good.
    :param made: told each new one, connected.
    :param waited: told the seconds until a connection was there, each time none lay ready.
    :param lag: says what time it is, and how late this process is.
    :ivar address: of the server that was connected to last, for people; before, as it is configured.
    """

    def __init__(
        self,
        source: ConnectionPool,
        names: DnsCache,
        *,
        usable: Callable[[Any], bool] = lambda connection: True,
        made: Callable[[Any], None] = lambda connection: None,
        waited: Callable[[float], None] = lambda seconds: None,
        lag: Lag = PROCESS,
    ) -> None:
        self.source: Any = source
        self.names = names
        self.idle: list[Any] = []
        self._usable = usable
        self._made = made
        self._waited = waited
        self._lag = lag
        self.begin()

    def begin(self) -> None:
        """Begin without connections. In a forked child the parent's are left to the parent."""
        self.idle = []
        self._free = threading.Condition()
        self._waiting = 0
        self._room = _Room(self.source.max_connections, self._lag.clock)
        self._era = 0  # ends when all that is there is to be forgotten
        self.address = _place_of(self.source.connection_kwargs)

    @property
    def patience(self) -> float:
        """Return for how many seconds a connection is awaited to become free."""
        return getattr(self.source, "timeout", 0.05) or 0.0

    @property
    def in_use(self) -> int:
        """Return how many connections are in use at this moment."""
        return max(0, self._room.open - len(self.idle))

    def take_most_in_use(self) -> int:
        """Return the most connections that were in use at a time since the last call."""
        room = self._room
        most, room.most_used = room.most_used, self.in_use
        return max(most, room.most_used)

    def take(self, until: float) -> Any:
        """Return a connection that is ready.

        :param until: monotonic seconds; waiting for a free one and making one end then.
        :raises redis.exceptions.MaxConnectionsError: none became free in time.
        :raises Exception: whatever redis-py raises where none can be made.
        """
        while True:
            try:
                connection = self.idle.pop()
            except IndexError:
                break
            room = self._room
            used = room.open - len(self.idle)
            if used > room.most_used:
                room.most_used = used
            is_good = False
            try:
                is_good = connection.is_quiet() and self._usable(connection)
            except Exception:  # what came unasked may be anything
                pass
            finally:  # what ends this request ends no connection's place with it
                if not is_good:
                    self.drop(connection)
            if is_good:
                return connection
        return self._wait_or_make(until)  # where no other error is at hand, that would stand behind one from here

    def _wait_or_make(self, until: float) -> Any:
        clock = self._lag.clock
        began, deadline = clock(), Deadline(until, self._lag)
        try:
            waiting = Deadline(min(until, began + self.patience), self._lag)
            return self._wait_for_one(waiting) or self._connected(clock() + deadline.left())
        finally:
            self._waited(clock() - began)

    def _wait_for_one(self, deadline: Deadline) -> Any:
        """Return a connection that was given back just now; None: one may be made, and is counted already."""
        room = self._room
        with self._free:
            self._waiting += 1
            try:
                while True:
                    if self.idle:
                        return self.idle.pop()
                    if room.open < room.allowed():
                        room.open += 1
                        room.most_used = max(room.most_used, room.open)
                        return None
                    if (left := deadline.left()) <= 0:
                        raise driver.MaxConnectionsError("no connection became free in time")
                    self._free.wait(left)  # and look: one may have become free while this process was late
            finally:
                self._waiting -= 1

    def _connected(self, until: float) -> Any:
        connection, era = None, self._era
        try:
            connection = self.new()
            connect(connection, until)
            connection.era = era
            self.address = _place_of(vars(connection)) or self.address
            self._made(connection)
        except BaseException as error:  # whatever ended it: another one may be made in its place
            self.drop(connection)
            if isinstance(error, Exception) and is_full(error):
                self._room.restrain(self._room.open)
            raise
        return connection

    def new(self) -> Any:
        """Return a connection beside the pool, not connected yet."""
        kind = bounded(self.source.connection_class)
        options = dict(self.source.connection_kwargs)
        if issubclass(kind, Bounded):
            options |= NO_NOTICES
            for name in _PUSHED:
                options.pop(name, None)
        connection = kind(**options)
        connection.retry = Retry(NoBackoff(), 0)
        connection.names = self.names
        return connection

    def put_back(self, connection: Any) -> None:
        """Keep a connection for the next request, unless all were to be forgotten while it was in use. Every reply to
        what was asked over it has been read."""
        if connection.era != self._era:
            self.drop(connection)
            return
        self.idle.append(connection)
        if self._waiting:
            with self._free:
                self._free.notify()

    def drop(self, connection: Any) -> None:
        """Close a connection instead of keeping it."""
        try:
            if connection is not None:
                connection.disconnect()
        finally:
            with self._free:
                self._room.open -= 1
                self._free.notify()

    def forget(self) -> None:
        """Drop what lies ready, and what is in use as soon as it is given back, so that the next ones go to the server
        that answers now."""
        self._era += 1
        self._room.relax()
        while True:
            try:
                connection = self.idle.pop()
            except IndexError:
                return
            self.drop(connection)


def _place_of(options: Mapping[str, Any]) -> str:
    """Return host and port, or the path of a socket; empty: neither is known yet."""
    if options.get("host"):
        return f"{options['host']}:{options.get('port', 6379)}"
    return str(options.get("path") or "")


def connect(connection: Any, until: float, *, attends: bool = True) -> None:
    """Connect and greet.

    :param until: monotonic seconds.
    :param attends: see :class:`.Deadline`.
    """
    connection.deadline.renew(until, attends=attends)
    try:
        connection.connect()
    except Exception:
        doubt(connection)
        raise


def doubt(connection: Any) -> None:
    """Note that the server a connection led to is not the one that is wanted."""
    address = getattr(connection, "address", None)
    if address is not None:
        connection.names.doubt(connection.host, connection.port, address)
