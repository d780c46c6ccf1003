"""What a simulated Redis server tells of changes, and the connections over which it does: ``CLIENT TRACKING``.

The worker's end of such a connection is the package's own :class:`Wire` on a real pair of sockets, so that all that
hears, keeps and drops is the package's own code. Messages get into the sockets when the network lets them arrive.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from flask_langpont_session.stores.redis.wire import Wire, pack
from flask_langpont_session.support.lag import Deadline

from .tasks import Path

if TYPE_CHECKING:
    from .sim_redis import Connection

REPLY = b"+OK\r\n"
"""Stands for each reply: what it says goes beside the sockets."""

ALL = b">2\r\n$10\r\ninvalidate\r\n_\r\n"


def message_of(name: str) -> bytes:
    """That a key has changed."""
    return b">2\r\n$10\r\ninvalidate\r\n" + pack((name,))


class Tracking:
    """Which connections have read which keys of one server since the last change of each."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        """The connections for which the server notes it."""
        self._readers: dict[Hashable, list[Line]] = {}

    def reads(self, key: Hashable, client: object) -> None:
        """A client reads a key."""
        readers = self._readers.setdefault(key, [])
        if isinstance(client, Line) and client not in readers:
            readers.append(client)

    def changes(self, key: Hashable, name: str, client: object) -> None:
        """A key has changed: all that have read it are told, but for the client that changed it, and forgotten."""
        for line in self._readers.pop(key, ()):
            if line is not client:
                line.send(message_of(name))

    def replaces_all(self) -> None:
        """No key is what it was."""
        self._readers.clear()
        for line in self.lines:
            line.send(ALL)

    def ends(self) -> None:
        """The process has died."""
        self._readers.clear()
        self.lines.clear()


class Line:
    """A tracked connection of one worker, as far as the near cache looks at a connection of redis-py.

    :param path: how things stand between the worker and the server now.
    :ivar is_held: the network is slow to let messages arrive. They keep their order, and no reply overtakes them.
    """

    protocol = 3

    def __init__(self, connection: Connection, path: Callable[[], Path]) -> None:
        self.node = connection.node
        self.server = self.langpont_server = connection.server
        self.identity = connection.identity
        self._connection = connection
        self._path = path
        ours, self._far = socket.socketpair()
        self._sock = Wire(ours, Deadline(math.inf))
        self._on_the_way: list[bytes] = []
        self._is_over = False
        self.is_held = False
        self.node.tracking.lines.append(self)

    @property
    def is_open(self) -> bool:
        """Whether the server still has it."""
        return not self._is_over and self._connection.is_open

    # -- the server's end ------------------------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """The server says something."""
        if self.is_open:
            self._on_the_way.append(message)
            self.arrive()

    def hang_up(self) -> None:
        """The server ends the connection (``CLIENT KILL``, a time-out)."""
        self._is_over = True
        self.arrive()

    # -- the network -----------------------------------------------------------------------------------------------

    def arrive(self) -> None:
        """What can arrive does, but for a reply, and what is behind it: see :meth:`receive`. So does the end."""
        if self._far.fileno() < 0 or self.is_held or self._path() is Path.SILENT:
            return
        if REPLY not in self._on_the_way:
            self._pass(len(self._on_the_way))
        if not self.is_open or self._path() is Path.BROKEN:
            self._far.close()

    def receive(self) -> None:
        """The reply arrives, behind all that was sent before it; and together with it what came after, unless that is
        late."""
        self._pass(len(self._on_the_way) if not self.is_held else self._on_the_way.index(REPLY) + 1)
        self._sock.exchange(b"", 1, ResponseError)
        self.arrive()

    def _pass(self, count: int) -> None:
        arrives, self._on_the_way = self._on_the_way[:count], self._on_the_way[count:]
        self._far.sendall(b"".join(arrives))

    # -- the worker's end ------------------------------------------------------------------------------------------

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """Ask for what a server grants at once."""
        self._on_the_way += [REPLY] * count
        self._pass(len(self._on_the_way))
        replies: list[Any] = self._sock.exchange(data, count, ResponseError)
        self._far.recv(len(data))
        return replies

    def disconnect(self) -> None:
        """End it."""
        self._is_over = True
        if self in self.node.tracking.lines:
            self.node.tracking.lines.remove(self)
        self._sock.close()
        self._far.close()
