"""The end of connections to a primary that is none any more, as soon as a sentinel tells of another one.

A primary that the sentinels replace while it is well, or while only they do not reach it, goes on taking writes for
seconds, which are gone when it is made a replica. So each worker listens to all sentinels, and asks one of them once in
a second, in a thread of its own: no request waits for that.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable

from redis import exceptions as driver

from ...support.forks import renew_in_children
from ...support.logs import Failing, fields
from ...support.threads import start_daemon
from .link import Link
from .sentinel import Listening, SentinelResolver

log = logging.getLogger(__name__)

THREAD = "langpont-session-sentinels"

ASK = 1.0
"""Seconds between two questions while none of them has anything to tell; also until one is tried again."""

REFUSED = 60.0
"""Seconds until one that refuses us is tried again: a person has to give its user the right to that."""


class SentinelWatch:
    """Watches the sentinels of one service. A forked child has a thread and connections of its own.

    :param link: to the primary.
    :param resolver: that of its connections.
    :param on_switch: called without arguments after its connections were ended; must not raise or block.
    :param clock: monotonic seconds.
    :ivar resolver: as it was given.
    """

    _bell: tuple[socket.socket, ...] = ()
    """A pair; the first one is closed to wake the thread, which waits for the second one as well."""

    def __init__(
        self,
        link: Link,
        resolver: SentinelResolver,
        on_switch: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self.resolver = resolver
        self._on_switch = on_switch
        self._clock = clock
        self._failing = Failing()
        self._begin()
        renew_in_children(self, SentinelWatch._begin)

    def _begin(self) -> None:
        for end in self._bell:  # a parent's
            end.close()
        self._bell = socket.socketpair()
        self._thread: threading.Thread | None = None
        self._listening: dict[int, Listening] = {}
        self._tried_next: dict[int, float] = {}
        self._asked_next = 0.0
        self._turn = 0
        self._seen = self.resolver.switches

    def ensure_started(self) -> None:
        """Start the thread in this process unless it runs, or was ended. For the monitor, every round."""
        if self._thread is None and not self._is_ending:
            self._thread = start_daemon(THREAD, self._run)

    @property
    def _is_ending(self) -> bool:
        return self._bell[0].fileno() < 0

    def close(self) -> None:
        """End the thread, and wait for it."""
        self._bell[0].close()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._bell[1].close()

    def _run(self) -> None:
        while not self._is_ending:
            try:
                self.look(ASK)
                self._failing.ends()
            except Exception:
                # The thread must outlive any surprise: without it a failover would be noticed late.
                if self._failing.begins():
                    log.exception(
                        "the watch over the sentinels met an error it does not know; it goes on",
                        extra=fields("sentinel_watch_failed"),
                    )
                self._rest(ASK)  # what failed at once would fail again at once
        for one in self._listening.values():
            one.close()

    def _rest(self, seconds: float) -> None:
        """Wait, but not for longer than until the thread is to end."""
        poll = select.poll()
        poll.register(self._bell[1], select.POLLIN)
        poll.poll(seconds * 1000)

    def look(self, seconds: float) -> None:
        """Make one round: hear what the sentinels tell, ask them, and end the connections if there is another primary.

        :param seconds: to wait for something that they tell.
        """
        is_news = self._listen_again()
        if is_news or self._was_told(seconds):
            for number in range(len(self.resolver.sentinels)):
                self.resolver.ask(number, self._link.names)
        elif self._clock() >= self._asked_next:
            self.resolver.ask(self._turn, self._link.names)
            self._turn, self._asked_next = self._turn + 1, self._clock() + ASK
        self._follow()

    def _listen_again(self) -> bool:
        """Listen to sentinels that are not listened to. Return whether there was one: it may have told something."""
        is_new = False
        for number in range(len(self.resolver.sentinels)):
            if number in self._listening or self._clock() < self._tried_next.get(number, 0.0):
                continue
            rest = ASK
            try:
                self._listening[number] = self.resolver.listen(number, self._link.names)
                is_new = True
            except driver.RedisError as error:
                if isinstance(error, driver.ResponseError | driver.AuthenticationError):
                    rest = REFUSED
            self._tried_next[number] = self._clock() + rest
        return is_new

    def _was_told(self, seconds: float) -> bool:
        """Wait, and return whether any sentinel has told something, or its connection has ended."""
        poll, numbers = select.poll(), dict[int, int]()
        poll.register(self._bell[1], select.POLLIN)
        for number, one in self._listening.items():
            numbers[one.fileno()] = number
            poll.register(one.fileno(), select.POLLIN)
        ready = [numbers[fileno] for fileno, _ in poll.poll(seconds * 1000) if fileno in numbers]
        for number in ready:
            try:
                self._listening[number].take_in()
            except driver.RedisError:
                self._listening.pop(number).close()
        return bool(ready)

    def _follow(self) -> None:
        if self._seen == self.resolver.switches:
            return
        self._seen = self.resolver.switches
        self._link.forget_connections()
        log.warning(
            "the sentinels name another server as the %s; the connections to the one before are ended",
            self._link.name,
            extra=fields("primary_switched", store=self._link.name),
        )
        self._on_switch()


def watch_over(link: Link, on_switch: Callable[[], None]) -> SentinelWatch | None:
    """Return the watch for a link; None: its server is not found by sentinels, or it is a replica."""
    resolver = link.connections.source.connection_kwargs.get("route")
    if not isinstance(resolver, SentinelResolver) or not resolver.is_master:
        return None
    return SentinelWatch(link, resolver, on_switch)
