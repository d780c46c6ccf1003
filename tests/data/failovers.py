"""Users that append all the while, and others that sign in and out, while the sentinels make another server the
primary."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, Self

from tests.support.site.browser import Browser
from tests.support.site.hosts import Host, Worker

APPENDERS = 6
"""Users of each host that append."""

REMEMBERED = 8.0
"""Seconds for which an ended session is looked for at all workers of its host."""

PAUSE = 0.01
"""Seconds between two requests of one browser: servers and workers need the processor, too."""


class Span(NamedTuple):
    """The time from a question to its answer, monotonic seconds: on a busy machine it may be long."""

    asked: float
    answered: float


@dataclass
class Appender:
    """One user, at every worker of a host in turn.

    :ivar acknowledged: entry → its request. Only where the answer said that the list was known: a page that adds to
        what it was told is unknown makes a new list.
    """

    host: Host
    browser: Browser
    acknowledged: dict[int, Span] = field(default_factory=dict)
    levels: set[int] = field(default_factory=set)

    def append(self, entry: int) -> None:
        """Read the list, and write it with one entry more."""
        worker = self.host.workers[entry % len(self.host.workers)]
        answer = self.browser.at(worker.url).send("/append", entry=str(entry))
        if answer.ok and answer.json["available"]:
            self.levels.add(answer.json["level"])
            self.acknowledged[entry] = Span(answer.began, answer.ended)

    def shown(self, worker: Worker) -> dict[str, Any]:
        """Return the session as a worker shows it."""
        answer = self.browser.at(worker.url).get("/look")
        assert answer.ok, answer.body
        found: dict[str, Any] = answer.json
        return found

    def lost(self) -> list[Span]:
        """The requests of the entries that were acknowledged and are not in the list."""
        there = set(self.shown(self.host.workers[0])["list"])
        return sorted(at for entry, at in self.acknowledged.items() if entry not in there)


@dataclass
class Load:
    """A context manager: all act while it is open.

    :ivar ended: sessions that were ended.
    :ivar shown: the requests in which a worker of the host that had ended a session showed it.
    """

    hosts: Sequence[Host]
    appenders: list[Appender] = field(default_factory=list)
    ended: int = 0
    shown: list[Span] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _numbers: Any = field(default_factory=count)

    def __enter__(self) -> Self:
        for number, host in enumerate(self.hosts):
            for user in range(APPENDERS):
                browser = host.browser()
                assert browser.send("/sign-in", user=f"user-{number}-{user}").ok
                self.appenders.append(Appender(host, browser))
        self._pool = ThreadPoolExecutor(len(self.appenders) + len(self.hosts))
        self._acting: list[Future[None]] = [self._pool.submit(self._append, one) for one in self.appenders]
        self._acting += [self._pool.submit(self._come_and_go, host) for host in self.hosts]
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for acting in self._acting:
            acting.result()  # raises what went wrong in a thread

    @property
    def acknowledged(self) -> int:
        """Entries."""
        return sum(len(one.acknowledged) for one in self.appenders)

    def go_on(self, number: int) -> None:
        """Return when so many more entries of each have been acknowledged."""
        enough = [len(one.acknowledged) + number for one in self.appenders]
        while any(len(one.acknowledged) < least for one, least in zip(self.appenders, enough, strict=True)):
            for acting in self._acting:
                if acting.done():
                    acting.result()
            self._over.wait(PAUSE)

    def lost(self) -> list[Span]:
        """The requests of the entries that were acknowledged and are in no list."""
        return sorted(at for one in self.appenders for at in one.lost())

    def _append(self, one: Appender) -> None:
        for entry in count(1):
            if self._over.wait(PAUSE):
                return
            one.append(entry)

    def _come_and_go(self, host: Host) -> None:
        """Sign in and out; look at each ended session at every worker, again and again."""
        graves: deque[tuple[float, Browser]] = deque()
        for number in count():
            if self._over.is_set():
                return
            here = host.workers[number % len(host.workers)]
            browser = Browser(here.url)
            if browser.send("/sign-in", user=f"guest-{host.name}-{number % 50}").ok:
                old = browser.twin()
                if browser.send("/sign-out").ok:
                    graves.append((time.monotonic(), old))
                    self.ended += 1
            while graves and graves[0][0] < time.monotonic() - REMEMBERED:
                graves.popleft()
            for _ in range(min(4, len(graves))):
                graves.rotate(1)
                self._look_for(graves[0][1], host)

    def _look_for(self, ended: Browser, host: Host) -> None:
        for worker in host.workers:
            answer = ended.twin(worker.url).get("/look")
            if answer.ok and answer.json["user"]:
                self.shown.append(Span(answer.began, answer.ended))
