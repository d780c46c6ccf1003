"""A connected socket whose waits end at a deadline, and whole exchanges over it.

redis-py's classes connect and greet. What follows goes over the socket directly: a request of a session is one packed
script and one reply, and the machinery of a client's commands costs more than the script itself.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections.abc import Callable
from itertools import repeat
from time import monotonic
from typing import Any

from redis import exceptions as driver

from ...support.lag import Deadline

try:
    import hiredis
except ImportError:  # the extra `speed` is not installed
    hiredis = None  # type: ignore[assignment]

FOR_EVER = 1e6
"""Seconds from which on a wait has no end; a socket takes no number that is much larger."""

SOON = 0.001
"""Seconds by which a wait may end late, or early and then be gone on with: that saves a system call for nearly every
question and reply."""

_NOT_YET = (TimeoutError, BlockingIOError, ssl.SSLWantReadError)
"""The errors by which a socket says that there is nothing to read, after a wait and at a look."""

_BUFFER = 65536
_MORE: Any = object()
_USUAL = frozenset({list, bytes})
_PUSH = tuple(filter(None, [getattr(hiredis, "PushNotification", None)]))

IS_FAST = hiredis is not None
"""True where whole exchanges are possible: hiredis is installed."""

HEARS = bool(_PUSH)
"""True where push messages can be told from replies: hiredis is new enough (3.2)."""


def pack(parts: tuple[Any, ...]) -> bytes:
    """Return a command as it goes over the wire.

    :param parts: text, bytes or numbers.
    """
    packed = [b"*%d\r\n" % len(parts)]
    for part in parts:
        raw = part if type(part) is bytes else str(part).encode()
        packed += (b"$%d\r\n" % len(raw), raw, b"\r\n")
    return b"".join(packed)


if hasattr(hiredis, "pack_command"):
    pack = hiredis.pack_command  # type: ignore[assignment]


class Wire:
    """A connected socket. Its waits end at the deadline, however the other side spreads its bytes over time.

    :ivar on_push: is handed each message that nothing was asked for, in the order in which they arrive; must not raise.
    """

    __slots__ = (
        "_armed", "_at_once", "_buffer", "_deadline", "_poll", "_reader", "_receive", "_send", "_socket", "fileno",
        "on_push", "pending",
    )  # fmt: skip

    def __init__(self, connected: Any, deadline: Deadline) -> None:
        self._socket = connected
        self._deadline = deadline
        self._armed = -1.0
        self._at_once = False
        self._reader: Any = None
        self._buffer = bytearray()
        self._poll: Any = None
        # Asked for at every request; an attribute is found in a fraction of the time that __getattr__ takes.
        self._send = _sender(connected)
        self._receive = connected.recv_into
        self.fileno = connected.fileno
        self.pending: Callable[[], int] = getattr(connected, "pending", int)  # none
        self.on_push: Callable[[list[Any]], None] = _of_no_interest

    def settimeout(self, seconds: float | None) -> None:
        """Heed only a look without waiting (0): how long to wait is said by the deadline."""
        self._at_once = seconds == 0

    def sendall(self, data: bytes) -> None:
        left = 0.0 if self._at_once else self._deadline.left()
        if left < 0:
            raise TimeoutError("the time for this is over")
        self._arm(left)
        self._send(data)

    def recv(self, *arguments: Any) -> bytes:
        received: bytes = self._take(self._socket.recv, *arguments)
        return received

    def recv_into(self, buffer: Any) -> int:
        count: int = self._take(self._receive, buffer)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    @property
    def hears(self) -> bool:
        """Return whether messages that nothing was asked for are handed over: an exchange was made here, and not by
        redis-py's parser in Python, which knows nothing of `on_push`."""
        return HEARS and self._reader is not None

    def is_quiet(self) -> bool:
        """Return whether there is nothing to read, and the other side has not closed. Only between exchanges."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.fileno(), select.POLLIN | select.POLLPRI)
        return not (self._poll.poll(0) or self.pending() or (self._reader is not None and self._reader.has_data()))

    def exchange(self, data: bytes, count: int, to_error: Callable[[str], Exception]) -> list[Any]:
        """Send commands and read their replies. Needs hiredis. Messages that nothing was asked for and came with them
        are handed over, too: no look at the socket would see them. After a reply too many the connection is ended.

        :param count: how many replies there will be.
        :param to_error: makes the driver's exception of an error reply, which stands among the replies.
        :raises redis.exceptions.ConnectionError: it is no connection any more; TimeoutError: the deadline has passed.
        """
        reader = self._reader
        if reader is None:
            reader = self._reader = hiredis.Reader(driver.InvalidResponse, to_error, notEnoughData=_MORE)
            self._buffer = bytearray(_BUFFER)
        try:
            if (left := self._deadline.at - monotonic()) <= 0 and (left := self._deadline.left()) < 0:
                raise TimeoutError
            if not -SOON < self._armed - left < SOON:
                self._arm(left)
            self._send(data)
            try:
                received = self._receive(self._buffer)  # what is asked here was not answered before
            except _NOT_YET:
                received = 0  # there may be more time than was thought
            if received:
                reader.feed(self._buffer, 0, received)
            else:
                self._feed(reader)
            *found, last = map(reader.gets, repeat(False, count + 1))
            if last is not _MORE or not _USUAL.issuperset(map(type, found)) or self.pending():
                return self._sorted(reader, [*found, last], count)
        except TimeoutError:
            raise driver.TimeoutError("no answer within the time for it") from None
        except OSError as error:
            raise driver.ConnectionError("the connection has failed") from error
        return found

    def _sorted(self, reader: Any, found: list[Any], count: int) -> list[Any]:
        """Return the replies among what was read and what is still to come."""
        replies: list[Any] = []
        while True:
            reply = found.pop(0) if found else reader.gets(False)
            if reply is _MORE:
                if found:
                    continue
                if len(replies) >= count and not self.pending():
                    break
                self._feed(reader)
            elif isinstance(reply, Exception) and not isinstance(reply, _ANSWERS):
                raise reply
            elif isinstance(reply, _PUSH):  # a message that nothing was asked for
                self.on_push(reply)
            else:
                replies.append(reply)
        if len(replies) > count:
            del replies[count:]
            self._socket.shutdown(socket.SHUT_RDWR)
        return replies

    def _feed(self, reader: Any) -> None:
        """Read what has arrived."""
        received = self._take(self._receive, self._buffer)
        if not received:
            raise driver.ConnectionError("the server has closed the connection")
        reader.feed(self._buffer, 0, received)

    def hear(self) -> bool:
        """Hand over the messages that nothing was asked for and that have arrived. Return whether the connection is
        good still. Not while an exchange is under way."""
        reader = self._reader
        if reader is None:
            return True
        try:
            while True:
                reply = reader.gets(False)
                if isinstance(reply, _PUSH):
                    self.on_push(reply)
                elif reply is not _MORE:
                    return False  # no question is open
                else:
                    self._arm(0.0)
                    received = self._receive(self._buffer)
                    if not received:
                        return False
                    reader.feed(self._buffer, 0, received)
        except _NOT_YET:
            return True
        except (OSError, driver.InvalidResponse):
            return False

    def _take(self, receive: Callable[..., Any], *arguments: Any) -> Any:
        """Return what has arrived, also after the deadline: it may have come while this process was late."""
        if self._at_once:
            self._arm(0.0)
            return receive(*arguments)
        left = max(0.0, self._deadline.at - monotonic())
        while True:
            self._arm(left)
            try:
                return receive(*arguments)
            except _NOT_YET:
                is_over, left = left == 0, max(0.0, self._deadline.left())
                if is_over and left == 0:
                    raise TimeoutError("the time for this is over") from None

    def _arm(self, left: float) -> None:
        if left == 0 or self._armed == 0 or abs(self._armed - left) >= SOON:
            self._armed = left
            self._socket.settimeout(None if left > FOR_EVER else left)


_ANSWERS = (driver.ResponseError, driver.BusyLoadingError)
"""Errors that a server answers to a command; behind them come the replies to the others."""


def _sender(connected: Any) -> Callable[[bytes], None]:
    """Return a function that sends all of some bytes. Over a plain socket it does not wait for room first, as a socket
    that has a time-out does: there is room nearly always."""
    if type(connected) is not socket.socket:  # by TLS, or none of the system's
        return connected.sendall  # type: ignore[no-any-return]
    fileno, send_rest = connected.fileno, connected.sendall

    def send(data: bytes) -> None:
        try:
            sent = os.write(fileno(), data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            send_rest(data[sent:])

    return send


def _of_no_interest(message: list[Any]) -> None:
    pass
