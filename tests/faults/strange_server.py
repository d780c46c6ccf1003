"""A server that greets as Redis does and answers what it is told to: for replies that no real one gives."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from typing import Any, Self

Answer = Callable[[str], bytes | None]
"""Command → reply. None: the usual one."""


def resp(value: Any) -> bytes:
    """A reply as RESP spells it."""
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list):
        return b"*%d\r\n%b" % (len(value), b"".join(map(resp, value)))
    return b"_\r\n"


GREETING = {
    "HELLO": b"%2\r\n$5\r\nproto\r\n:3\r\n$4\r\nrole\r\n$6\r\nmaster\r\n",
    "INFO": resp(b"run_id:0123abcd\r\nrole:master\r\n"),
    "TIME": resp([b"1700000000", b"0"]),
}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    answer: Answer
    asked: list[str]
    accepted = 0
    closes = False


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.server.accepted += 1
        try:
            while command := self._command():
                self.server.asked.append(command)
                reply = self.server.answer(command)
                self.wfile.write(GREETING.get(command, b"+OK\r\n") if reply is None else reply)
                if reply is not None and self.server.closes:
                    return
        except OSError:
            return

    def _command(self) -> str:
        head = self.rfile.readline()
        if not head.startswith(b"*"):
            return ""
        parts = []
        for _ in range(int(head[1:])):
            size = int(self.rfile.readline()[1:])
            parts.append(self.rfile.read(size + 2)[:-2])
        return parts[0].decode() if parts else ""


class StrangeServer:
    """A context manager; listens on a free port of 127.0.0.1.

    :param answer: may be exchanged at any time.
    """

    def __init__(self, answer: Answer = lambda command: None) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.answer = answer
        self._server.asked = []
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def say(self, answer: Answer, *, and_close: bool = False) -> None:
        """Answer so from here on.

        :param and_close: the connection is closed after a reply that is not the usual one.
        """
        self._server.answer, self._server.closes = answer, and_close

    @property
    def asked(self) -> list[str]:
        """The commands that arrived."""
        return self._server.asked

    @property
    def accepted(self) -> int:
        """Connections so far."""
        return self._server.accepted

    def url(self, scheme: str = "redis") -> str:
        """Return the server's address."""
        return f"{scheme}://127.0.0.1:{self.port}/0"
