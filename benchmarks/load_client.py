"""Loads a site where wrk is not installed, by connections that ask one question after the other."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from .load import COOKIES


class Load(ABC):
    """The answers to requests of signed-in users. A kind of load says what is asked, and what is counted."""

    def __init__(self, port: int, cookies: list[str], seconds: float) -> None:
        self._port, self._cookies, self._until = port, cookies, time.monotonic() + seconds
        self._number = 0
        self.found: Counter[str] = Counter()
        self.took: list[float] = []

    @abstractmethod
    def path(self, number: int) -> str:
        """Return the path of the request of that number."""

    @abstractmethod
    def count(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Note an answer."""

    async def connection(self) -> None:
        """Ask until the time is over."""
        reader = writer = None
        while time.monotonic() < self._until:
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                if not await self._ask(reader, writer):
                    writer.close()
                    reader = writer = None
            except (OSError, asyncio.IncompleteReadError):
                self.found["lost"] += 1
                reader = writer = None

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send one request. Return whether the connection stays open."""
        self._number += 1
        cookie, began = random.choice(self._cookies), time.monotonic()
        question = f"GET {self.path(self._number)} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
        writer.write(question.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.took.append(time.monotonic() - began)
        self.count(int(head[0].split()[1]), headers, body)
        return headers.get("connection") != "close"

    async def run(self, connections: int) -> dict[str, float]:
        """Load the site. Return the counts, and the percentiles in milliseconds."""
        began = time.monotonic()
        await asyncio.gather(*(self.connection() for _ in range(connections)))
        ordered = sorted(self.took) or [0.0]
        p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
        return {**self.found, "seconds": time.monotonic() - began, "p50": p50, "p99": p99}


def main(kind: type[Load]) -> None:
    """Load as the command line says, and print what was seen."""
    port, connections, seconds = sys.argv[1:]
    cookies = Path(os.environ[COOKIES]).read_text(encoding="ascii").split("\n")
    load = kind(int(port), cookies, float(seconds))
    print("FOUND", json.dumps(asyncio.run(load.run(int(connections)))))
