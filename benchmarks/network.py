"""A network that takes its time: a TCP proxy before a server, which hands on later what either side sends.

It is a process of its own (``python -m benchmarks.network PORT TARGET SECONDS``), so that it waits for no Python of the
measured program. It delays and does not block: what is sent meanwhile is on its way, too, and arrives in order.
"""

from __future__ import annotations

import ctypes
import select
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import redis

from devservers.processes import spawn
from devservers.server import Server
from devservers.web import PROJECT

_CHUNK = 65_536
_SET_TIMER_SLACK = 29


class Network(Server):
    """The way to a server on 127.0.0.1.

    :param target: the server's port.
    :param seconds: how long each direction takes.
    """

    def __init__(self, folder: Path, target: int, seconds: float) -> None:
        super().__init__(folder)
        self._target, self._seconds = target, seconds

    def instead_of(self, url: str) -> str:
        """Return a server's URL with this way's port."""
        return urlsplit(url)._replace(netloc=f"127.0.0.1:{self.port}").geturl()

    def round_trip(self) -> float:
        """Return the seconds that a PING takes there and back, the median of some. :raises AssertionError: less than it
        should."""
        took = []
        with redis.Redis(port=self.port) as client:
            for _ in range(50):
                began = time.perf_counter()
                client.ping()
                took.append(time.perf_counter() - began)
        assert min(took) >= 2 * self._seconds, "nothing was delayed"
        return median(took)

    def _launch(self) -> subprocess.Popen[bytes]:
        arguments = map(str, (self.port, self._target, self._seconds))
        return spawn([sys.executable, "-m", __name__, *arguments], log=self.log, cwd=PROJECT)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class _Proxy:
    """The program itself: one thread, one queue of what is on its way."""

    def __init__(self, port: int, target: int, seconds: float) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._target, self._seconds = target, seconds
        self._peers: dict[socket.socket, socket.socket] = {}
        self._under_way: deque[tuple[float, socket.socket, bytes]] = deque()

    def run(self) -> None:
        """Run for ever."""
        while True:
            # Not epoll or poll: they wait for whole milliseconds.
            for ready in select.select([self._listener, *self._peers], [], [], self._until_next())[0]:
                if ready is self._listener:
                    self._accept()
                elif ready in self._peers:
                    self._take(ready)
            self._deliver()

    def _until_next(self) -> float | None:
        return max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other

    def _take(self, sender: socket.socket) -> None:
        data = b""
        with suppress(OSError):  # a reset is an end
            data = sender.recv(_CHUNK)
        self._under_way.append((time.monotonic() + self._seconds, self._peers[sender], data))
        if not data:
            del self._peers[sender]

    def _deliver(self) -> None:
        while self._under_way and self._under_way[0][0] <= time.monotonic():
            _, receiver, data = self._under_way.popleft()
            try:
                if data:
                    receiver.sendall(data)
                else:
                    receiver.shutdown(socket.SHUT_RDWR)  # the other half ends by itself, as the end of it is read
            except OSError:
                self._peers.pop(receiver, None)


def main() -> None:
    """Be the network."""
    port, target, seconds = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_TIMER_SLACK, 1, 0, 0, 0)  # a thread otherwise wakes up to 50 µs late
    _Proxy(int(port), int(target), float(seconds)).run()


if __name__ == "__main__":
    main()
