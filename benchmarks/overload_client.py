"""What loads the site where wrk is not installed: connections that ask one question after the other."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter


class Load:
    """The answers to requests of signed-in users, a quarter of which compute."""

    def __init__(self, port: int, cookies: list[str], seconds: float) -> None:
        self._port, self._cookies, self._until = port, cookies, time.monotonic() + seconds
        self._number = 0
        self.found: Counter[str] = Counter()
        self.took: list[float] = []

    async def connection(self) -> None:
        """Ask until the time is over."""
        reader = writer = None
        while time.monotonic() < self._until:
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                await self._ask(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                self.found["lost"] += 1
                reader = writer = None

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._number += 1
        path = "compute" if self._number % 4 == 0 else "write" if self._number % 10 == 1 else "read"
        cookie, began = random.choice(self._cookies), time.monotonic()
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        await reader.readexactly(int(headers.get("content-length", 0)))
        self.took.append(time.monotonic() - began)
        self._count(int(head[0].split()[1]), headers)
        if headers.get("connection") == "close":
            writer.close()
            raise ConnectionResetError

    def _count(self, status: int, headers: dict[str, str]) -> None:
        if status != 200:
            self.found["failed" if status >= 500 else "errors"] += 1
            return
        self.found["strangers"] += headers["x-user"] == "-"
        self.found["level" + headers["x-level"]] += 1

    async def run(self, connections: int) -> dict[str, float]:
        """What was seen, and the percentiles in milliseconds."""
        await asyncio.gather(*(self.connection() for _ in range(connections)))
        ordered = sorted(self.took) or [0.0]
        p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
        return {**self.found, "p50": p50, "p99": p99}


if __name__ == "__main__":
    port, file, connections, seconds = sys.argv[1:]
    with open(file, encoding="ascii") as lines:
        load = Load(int(port), lines.read().split("\n"), float(seconds))
    print("FOUND", json.dumps(asyncio.run(load.run(int(connections)))))
