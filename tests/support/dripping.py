"""An HTTP server that says nothing wrong, a byte at a time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import parse_headers

PAUSE = 0.02
"""Seconds between two bytes."""


def _read_request(connection: socket.socket) -> None:
    """All of it: what is left unread when a connection is closed resets it."""
    with connection.makefile("rb") as stream:
        stream.readline()
        stream.read(int(parse_headers(stream).get("Content-Length", 0)))


@contextmanager
def dripping(at_once: bytes, slowly: bytes) -> Iterator[str]:
    """The address of a server that has one answer to everything.

    :param at_once: how it begins.
    :param slowly: the rest, a byte at a time.
    """
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the client has hung up
            _read_request(connection)
            connection.sendall(at_once)
            for byte in slowly:
                if over.wait(PAUSE):
                    return
                connection.sendall(bytes([byte]))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=answer, args=(connection,))
            threads.append(thread)
            thread.start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threads = [threading.Thread(target=serve)]
        threads[0].start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
