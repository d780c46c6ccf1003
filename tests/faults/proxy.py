"""A TCP proxy that fails on purpose: between the package and a real server, on a free port of 127.0.0.1.

It knows nothing of protocols. A *reply* is what the server sends after the client has asked something: clients of
Redis and PostgreSQL speak first and wait for the answer. MariaDB greets: to it, a client that connects has asked
something. Each fault counts how often it bit, so that a test can assert that what it is about has happened.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

_CHUNK = 65_536
_CALL_TIMEOUT = 10.0
_LINGER_ZERO = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """One way to fail. Connections that exist are affected as new ones are."""

    name: str
    seconds: float | None = None
    count: int = 0
    data: bytes = b""


PASS = Fault("pass")

REFUSE = Fault("refuse")
"""Nothing listens: connections are refused, those that exist are closed, as when the server's process has died."""

HANG = Fault("hang")
"""Connections are accepted, what is sent is lost, nothing is answered, not even the server's end is told. Healed,
connections that lost something are reset: no TCP connection goes on after a gap."""

RESET = Fault("reset")
"""Each question is answered by a reset (RST); the server never sees the request."""

SWALLOW_REPLY = Fault("swallow_reply")
"""The server does what it was asked, its reply is lost, the connection stays open."""

STALL_REPLY = Fault("stall_reply")
"""The server does what it was asked, its reply arrives when the fault is over."""


def delay(seconds: float) -> Fault:
    """Replies come late, or when the fault is over if that is sooner."""
    return Fault("delay", seconds=seconds)


def hold_request(seconds: float) -> Fault:
    """Return the fault that delays requests to the server until the seconds or the fault are over: perhaps beyond
    the patience of the client. Replies are not delayed."""
    return Fault("hold_request", seconds=seconds)


def cut_after(count: int) -> Fault:
    """The connection is closed when ``count`` bytes of a reply have gone through. Shorter replies are not cut."""
    return Fault("cut_after", count=count)


def garbage(data: bytes) -> Fault:
    """``data`` in the place of each reply."""
    return Fault("garbage", data=data)


def flip(at: int = 0) -> Fault:
    """The lowest bit of a reply's byte ``at`` is turned over (counted round and round in a shorter reply)."""
    return Fault("flip", count=at)


@dataclass
class Counters:
    """Connections and bytes that went through. Refused connections are not among `accepted`: the kernel refuses
    them, and the proxy does not see them."""

    accepted: int = 0
    bytes_to_server: int = 0
    bytes_to_client: int = 0


class _Link:
    """One client's connection and, once it has asked something, ours to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.server: asyncio.StreamWriter | None = None
        self.asked = False  # the next bytes from the server begin a reply
        self.passed = 0  # bytes of the present reply that the client was given
        self.lost = False  # something is missing in the middle
        self.serving = asyncio.current_task()
        self.replying: asyncio.Task[None] | None = None

    def close(self) -> None:
        for writer in filter(None, (self.writer, self.server)):
            writer.close()

    def reset(self) -> None:
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.writer.transport.abort()
        self.close()

    async def end(self) -> None:
        """Close at once, whatever was still to be sent, and wait for it."""
        writers = [writer for writer in (self.writer, self.server) if writer]
        for writer in writers:
            writer.transport.abort()
        if self.serving is not None:
            self.serving.cancel()
            await asyncio.gather(self.serving, return_exceptions=True)
        for writer in writers:
            with suppress(OSError):
                await writer.wait_closed()


class FaultProxy:
    """Stands before a server. A context manager; its methods may be called from any thread.

    :param target: the server's host, or the path of its Unix socket.
    :param target_port: its port; None with a Unix socket.
    :param greets: the server speaks first.
    """

    def __init__(self, target: str, target_port: int | None = None, *, greets: bool = False) -> None:
        self.counters = Counters()
        #: Fault's name → how often it bit. ``refuse``: connections closed, and one attempt of the proxy's own.
        self.hits: Counter[str] = Counter()
        self._target: tuple[str, int | None] = (target, target_port)
        self._greets = greets
        self._fault = PASS
        self._changed = asyncio.Event()  # set when the present fault gives way to another
        self._links: set[_Link] = set()
        self._listener: asyncio.Server | None = None

    def __enter__(self) -> Self:
        # Bound for as long as the proxy lives and never listening: while connections are refused no other process gets
        # the port.
        self._place = _bound_socket(0)
        self.port: int = self._place.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self.impose(PASS)
        return self

    def __exit__(self, *exc: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._place.close()

    def url(self, scheme: str) -> str:
        """The proxy's address as a URL without a path: ``redis://127.0.0.1:40123``."""
        return f"{scheme}://127.0.0.1:{self.port}"

    def instead_of(self, url: str) -> str:
        """A server's URL with the proxy's host and port in it; user, password and the rest stay."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()

    @property
    def connections(self) -> int:
        """Return the number of open connections."""
        return len(self._links)

    def impose(self, fault: Fault) -> None:
        """Fail in this way from now on. It is in force when this returns."""
        self._call(self._impose(fault))

    def heal(self) -> None:
        """Let everything through again."""
        self.impose(PASS)

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Fail in this way while this is open."""
        self.impose(fault)
        try:
            yield
        finally:
            self.heal()

    def lead_to(self, port: int) -> None:
        """New connections reach the server on this port of 127.0.0.1; what is connected stays with the one before."""
        self._target = ("127.0.0.1", port)

    def drop_connections(self) -> None:
        """Close all connections in an orderly way; new ones are accepted."""
        self._call(self._drop())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_TIMEOUT)

    # What follows runs in the proxy's own thread.

    async def _impose(self, fault: Fault) -> None:
        over, self._changed, self._fault = self._changed, asyncio.Event(), fault
        over.set()
        if fault == REFUSE:
            await self._refuse()
            return
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, sock=_bound_socket(self.port))
        if fault != HANG:
            for link in [link for link in self._links if link.lost]:
                link.reset()

    async def _refuse(self) -> None:
        await self._stop_listening()
        self.hits["refuse"] += len(self._links)
        await self._drop()
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            raise RuntimeError(f"port {self.port} belongs to the proxy, yet another process answers there")
        self.hits["refuse"] += 1

    async def _drop(self) -> None:
        await asyncio.gather(*(link.end() for link in list(self._links)))

    async def _end(self) -> None:
        await self._stop_listening()
        await self._drop()

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        for listening in listener.sockets:
            self._loop.remove_reader(listening)
        for _ in range(10):  # asyncio loses connections that it has accepted and not yet handed over when it is closed
            await asyncio.sleep(0)
        for listening in listener.sockets:
            # Another thread may be starting a process: until that has its own program, it has this socket, too.
            listening.shutdown(socket.SHUT_RDWR)
        listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(reader, writer)
        self._links.add(link)
        self.counters.accepted += 1
        # An end by any side, or by us, is the end of both halves.
        with suppress(OSError, asyncio.CancelledError):
            if self._greets:
                await self._greet(link)
            await self._requests(link)
        self._links.discard(link)
        if link.replying is not None:
            link.replying.cancel()  # it may be holding a reply back
        link.close()

    async def _greet(self, link: _Link) -> None:
        if self._fault == RESET:
            self.hits["reset"] += 1
            link.reset()
        else:
            await self._reach(link)

    async def _requests(self, link: _Link) -> None:
        while self._fault != REFUSE and (request := await link.reader.read(_CHUNK)):
            if self._fault == HANG:
                self.hits["hang"] += 1
                link.lost = True
            elif self._fault == RESET:
                self.hits["reset"] += 1
                link.reset()
            else:
                await self._ask(link, request)

    async def _ask(self, link: _Link, request: bytes) -> None:
        if self._fault.name == "hold_request":
            self.hits["hold_request"] += 1
            await _happens(self._changed, self._fault.seconds)
        server = link.server or await self._reach(link)
        link.asked = True
        self.counters.bytes_to_server += len(request)
        server.write(request)
        await server.drain()

    async def _reach(self, link: _Link) -> asyncio.StreamWriter:
        host, port = self._target
        reaching = asyncio.open_unix_connection(host) if port is None else asyncio.open_connection(host, port)
        replies, link.server = await reaching
        link.asked = True
        link.replying = asyncio.create_task(self._replies(link, replies))
        return link.server

    async def _replies(self, link: _Link, server: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while reply := await server.read(_CHUNK):
                await self._answer(link, reply)
        while self._fault in (HANG, STALL_REPLY):
            await self._changed.wait()
        link.close()

    async def _answer(self, link: _Link, reply: bytes) -> None:
        """Treat bytes from the server as the fault of this moment says."""
        fault, changed = self._fault, self._changed
        if link.asked:
            link.passed = 0
        match fault.name:
            case "delay" | "stall_reply":
                self.hits[fault.name] += 1
                if await _happens(changed, fault.seconds):
                    return await self._answer(link, reply)
            case "hang":
                self.hits["hang"] += 1
                link.lost, reply = True, b""
            case "swallow_reply":
                self.hits["swallow_reply"] += 1
                reply = b""
            case "garbage":
                self.hits["garbage"] += link.asked
                reply = fault.data if link.asked else b""
            case "flip" if link.asked:
                self.hits["flip"] += 1
                at = fault.count % len(reply)
                reply = reply[:at] + bytes([reply[at] ^ 1]) + reply[at + 1 :]
            case "cut_after":
                reply = reply[: max(0, fault.count - link.passed)]
        link.asked = False
        await self._give(link, reply)
        if fault.name == "cut_after" and link.passed >= fault.count:
            self.hits["cut_after"] += 1
            link.close()

    async def _give(self, link: _Link, reply: bytes) -> None:
        link.passed += len(reply)
        self.counters.bytes_to_client += len(reply)
        link.writer.write(reply)
        await link.writer.drain()


async def _happens(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound
