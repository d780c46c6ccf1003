"""The fault proxy itself: each fault does what it says, to a client that was there and to a new one, and is counted."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from devservers.processes import wait_until

from .proxy import (
    HANG,
    REFUSE,
    RESET,
    STALL_REPLY,
    SWALLOW_REPLY,
    Fault,
    FaultProxy,
    cut_after,
    delay,
    flip,
    garbage,
    hold_request,
)


class EchoServer(socketserver.ThreadingTCPServer):
    """Answers each line with the same line, and remembers what it was asked."""

    daemon_threads = True
    asked: list[bytes]


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, EchoServer)
        for line in self.rfile:
            self.server.asked.append(line)
            self.wfile.write(line)


@contextmanager
def serving(handler: type[socketserver.StreamRequestHandler]) -> Iterator[EchoServer]:
    with EchoServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(client: socket.socket, text: bytes) -> bytes:
    """Return what comes back at first; nothing is an end."""
    client.sendall(text + b"\n")
    return client.recv(100)


def ends(client: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        ask(client, b"lost")


def says(answer: bytes, *, and_ends: bool = False) -> Callable[[socket.socket], None]:
    def check(client: socket.socket) -> None:
        client.sendall(b"abc\n")
        with client.makefile("rb") as replies:
            assert replies.read(len(answer)) == answer
            assert not and_ends or replies.read() == b""

    return check


WHILE_IT_LASTS: list[tuple[Fault, Callable[[socket.socket], None]]] = [
    (RESET, ends),
    (delay(0.01), says(b"abc\n")),
    (cut_after(2), says(b"ab", and_ends=True)),
    (garbage(b"\xff"), says(b"\xff")),
    (flip(1), says(b"acc\n")),
]

AFTERWARDS: list[tuple[Fault, Callable[[socket.socket], None], bool]] = [
    (HANG, ends, False),
    (SWALLOW_REPLY, says(b"abc\n"), True),
    (STALL_REPLY, says(b"held\nabc\n"), True),
    (hold_request(60), says(b"held\nabc\n"), False),
]
"""What is not answered; how its client goes on when it is over; and whether the server was asked while it lasted."""


def test_each_fault_does_what_it_says() -> None:
    with serving(_Echo) as server, FaultProxy("127.0.0.1", int(server.server_address[1])) as proxy:

        def client() -> socket.socket:
            return socket.create_connection(("127.0.0.1", proxy.port), timeout=30)

        for fault, check in WHILE_IT_LASTS:
            with client() as one:
                assert ask(one, b"before") == b"before\n"
                with proxy.failing(fault), client() as new:
                    check(one)
                    check(new)
                    assert proxy.hits[fault.name] == 2, fault
        for fault, check, is_asked in AFTERWARDS:
            server.asked.clear()
            with client() as one:
                with proxy.failing(fault):
                    one.sendall(b"held\n")
                    wait_until(lambda fault=fault: proxy.hits[fault.name] == 1, fault.name)  # type: ignore[misc]
                    assert bool(server.asked) is is_asked, fault
                check(one)
        with client() as one:
            assert ask(one, b"before") == b"before\n"  # a connection that was not accepted yet would be reset
            with proxy.failing(REFUSE):
                with pytest.raises(ConnectionRefusedError):
                    client()
                assert one.recv(1) == b""
        with client() as one:
            assert ask(one, b"again") == b"again\n"
            proxy.drop_connections()
            assert one.recv(1) == b""
