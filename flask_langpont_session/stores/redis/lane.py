"""One connection over which the server says what has changed of what was read over it.

The server puts such a message behind the reply to which it belongs, and in front of all later ones. So what was read
over this connection, and not named in a message since, is what the server had when its last message left. There is no
thread that listens: each look at what is kept first hears what has arrived, which costs a microsecond.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from redis import exceptions as driver

from ...policy.copies import CategoryCopy
from ..memory.memory import Entry, Memory
from .server_identity import Server
from .wire import Wire, pack

_TRACK = pack(("CLIENT", "TRACKING", "ON", "NOLOOP"))
"""The command that turns tracking on; NOLOOP: a connection is not told of its own writes."""

_SERVER = Server()
"""The description of a server that did not introduce itself."""

_BYTES = frozenset({bytes})

_LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT


class ChangeIds(Protocol):
    """See :class:`~flask_langpont_session.stores.host.register.Register`."""

    def of(self, digest: str) -> bytes | None: ...

    def are_usable(self) -> bool: ...

    def change(self, digest: str, before: bytes | None = None) -> bytes | None: ...


class Unsuitable(Exception):
    """No server or connection of this kind can say what has changed. The text says why, and what to do."""


@dataclass(slots=True, eq=False)
class Copy:
    """The answer about a session. Threads share it. A write over the connection that vouches for it replaces the
    records, then the change id: a thread that finds the one that counts finds the records of it, or later ones.

    :param lives_ms: what was asked for.
    :param kind: of the session.
    :param now_ms: the server's clock when it was asked for.
    :param records: the categories, own writes since then included.
    :param asked_at: monotonic seconds.
    :param answered_at: likewise.
    :param until: from then on it is to be asked for again, monotonic seconds.
    :param change_id: of the session's latest change on this host, before it was asked for.
    :param server: that answered.
    :param lane: over which it was read.
    :param over: what vouches for it, see :class:`Lane`; None: nothing does any more.
    """

    lives_ms: Mapping[str, int]
    kind: str
    now_ms: int
    records: Mapping[str, CategoryCopy]
    asked_at: float
    answered_at: float
    until: float
    change_id: bytes
    server: Server
    lane: Lane
    over: object


class Lane:
    """A connection that reports changes, and what was read over it. Any thread may look; one at a time asks.

    :param memory: of this worker.
    :param is_usable: says of its connection whether that leads to the server that is to be asked.
    :ivar asked_at: when the last question was asked that was answered, monotonic seconds.
    :ivar over: names the connection since it was opened, or since the server last spoke of all that it has; it vouches
        for the copies that have the same.
    """

    def __init__(self, memory: Memory, is_usable: Callable[[Any], bool] = lambda connection: True) -> None:
        self._is_usable = is_usable
        self.asked_at = -math.inf
        self.over = object()
        self.memory = memory
        self._free: list[Any] = []
        self._peek: _Peek | None = None
        self._is_over = False
        # What was named while a question was under way; None: perhaps all of it.
        self._named: set[str] | None = set()

    @property
    def is_open(self) -> bool:
        """Return whether there is a connection."""
        return self._peek is not None

    def open(self, connection: Any) -> None:
        """Use a connection that is connected.

        :raises Unsuitable: it cannot be used for this.
        :raises Exception: whatever redis-py raises where a connection fails; or it leads to a replica.
        """
        wire = getattr(connection, "_sock", None)
        if not isinstance(wire, Wire):
            raise Unsuitable("the connection is none of this package's own")
        if int(getattr(connection, "protocol", 2) or 2) < 3:
            raise Unsuitable("the connection does not speak RESP3: leave out protocol=2")
        if not getattr(connection, "langpont_server", _SERVER).is_primary:
            raise driver.ReadOnlyError("a replica hears of changes later than others do")
        [reply] = connection.exchange(_TRACK, 1)
        if not wire.hears:
            raise Unsuitable("hiredis 3.2 or later is not installed (extra: speed), or the client has another parser")
        if reply != b"OK":
            raise Unsuitable(f"the server refuses CLIENT TRACKING ({reply}): give its user the right to it")
        wire.on_push = self.on_message
        self._forget()
        peek = _Peek(fileno=os.dup(wire.fileno()))
        peek.settimeout(0)  # else it waits at each look: for socket.setdefaulttimeout(), or under gevent for ever
        self._peek = peek
        self._free.append(connection)

    def is_up_to_date(self) -> bool:
        """Return whether all that has arrived of changes is known. Not while a question is under way: its thread may
        have taken a message that it has not read yet."""
        peek = self._peek
        if peek is None:
            return False
        try:
            peek.recv(1, _LOOK)
        except BlockingIOError:
            return bool(self._free)  # to be asked after the look
        except OSError:
            return False
        connection = self.take()
        if connection is not None:
            self.give_back(connection)
        return self.is_open and connection is not None

    def find(self, digest: str, lives_ms: Mapping[str, int], kind: str) -> Copy | None:
        """Return what is kept of a session. It counts only if it is vouched for still after :meth:`is_up_to_date`."""
        entry, over = self.memory.opened(digest), self.over
        for copy in entry.near if entry is not None else ():
            if copy.over is over and copy.kind == kind and (copy.lives_ms is lives_ms or copy.lives_ms == lives_ms):
                return copy
        return None

    def take(self) -> Any:
        """Return the connection, over which all that has arrived was read, for one call at a time; None: it is in use,
        or there is none. To be given back, or closed."""
        try:
            connection = self._free.pop()
        except IndexError:
            return None
        wire = connection._sock
        # Closed, or what lies there would answer the next question; or the next connection leads to the right server.
        if not ((wire.is_quiet() or wire.hear()) and self._is_usable(connection)):
            self.close(connection)
            return None
        self._named = set()
        return connection

    def keep(self, digest: str, copy: Copy) -> None:
        """Keep what was just read, unless it was named since it was asked for. Before the connection is given back."""
        if self._named is not None and digest not in self._named:
            others = [other for other in self.copies(self.memory.entry(digest)) if other.lives_ms != copy.lives_ms]
            self.memory.put_near(digest, (copy, *others))

    def copies(self, entry: Entry | None) -> tuple[Copy, ...]:
        """Return what this connection vouches for of a session. Those of one session are all of one connection."""
        near = () if entry is None else entry.near
        return near if near and near[0].over is self.over else ()

    def drop(self, digest: str) -> None:
        """Vouch for nothing of a session. Before the connection is given back."""
        if (entry := self.memory.entry(digest)) is not None:
            entry.put_near(())

    def give_back(self, connection: Any) -> None:
        """Let others use the connection, all of whose replies were read."""
        if self._is_over:
            self.close(connection)
            return
        self._free.append(connection)
        if self._is_over:  # meanwhile, and its connection was not there to be closed
            self.end()

    def close(self, connection: Any) -> None:
        """Close a connection that is not good any more: nothing is known of changes, so that nothing is kept."""
        self._forget()
        peek, self._peek = self._peek, None
        connection.disconnect()
        if peek is not None:
            peek.close()

    def end(self) -> None:
        """Have the lane not be used any more. What is under way ends as it would."""
        self._is_over = True
        if (connection := self.take()) is not None:
            self.close(connection)

    def _forget(self) -> None:
        self._named = None
        self.asked_at = -math.inf
        self.over = object()

    def on_message(self, message: list[Any]) -> None:
        """Take in the server's message: names of keys that changed. After any other nothing is vouched for."""
        keys = message[1] if len(message) == 2 and message[0] == b"invalidate" else None
        if type(keys) is not list or not _BYTES.issuperset(map(type, keys)):  # all of them
            self._named = None
            self.over = object()
            return
        for key in keys:
            digest = _digest_of(key)
            if self._named is not None:
                self._named.add(digest)
            self.drop(digest)


class _Peek(socket.socket):
    """A second way to look at a connection: whatever thread reads it, this needs no turn. It ends with its lane, where
    an application is dropped, without a warning."""

    def __del__(self) -> None:
        self.close()


def _digest_of(key: bytes) -> str:
    """Return the digest in a key as :meth:`.Commands.key` makes it; of another key, a text that names no session."""
    begin, end = key.find(b"{"), key.rfind(b"}")
    return str(key[begin + 1 : end], "ascii", "replace")
