"""Host names and the addresses behind them: no request ever resolves one.

A resolver may take seconds and knows no time-out, so it is asked in a thread of its own. Connections use its last
answer, also while it answers no more; a request that comes before the first answer waits for it as long as it may wait
at all. An answer has no age here: names are looked up again now and then, and at once when an address turned out to be
no good.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ...support.chance import CHANCE
from ...support.forks import renew_in_children
from ...support.logs import fields
from ...support.threads import start_daemon

log = logging.getLogger(__name__)

REST = 5.0
"""Seconds between two look-ups of a name while all is well."""

PAUSE = 0.5
"""Seconds between two look-ups of a name whose server does not answer. Of one whose server answered, but was not the
one that is wanted, it is twice as much, and doubles with each look-up until it is REST: after a failover a resolver may
repeat for a while what was true before.
"""

FORGOTTEN = 3600.0
"""Seconds for which a name that leads nowhere is kept without being asked for: servers come and go under new names."""

_FRESH = 0.05
"""Seconds that a new connection waits for the answer that may replace a doubtful one."""


class SocketAddress(NamedTuple):
    """An address to connect to, as ``getaddrinfo`` gives it."""

    family: int
    place: Any


class _Name:
    """A host name and port, with their addresses."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.addresses: tuple[SocketAddress, ...] = ()
        self.problem: OSError | None = None
        self.doubtful = False
        self.asked_at = 0.0
        self.looked_at = -math.inf
        self.rest = REST
        self.answered: threading.Event | None = None  # there while it is being looked up


class DnsCache:
    """The names that one store's connections go to.

    :param on_change: called, in a thread of the resolver, when a name leads to other addresses than before.
    :param clock: monotonic seconds.
    """

    def __init__(
        self, on_change: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.on_change = on_change
        self._clock = clock
        self._names: dict[tuple[str, int], _Name] = {}
        self._begin()
        renew_in_children(self, DnsCache._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        for name in self._names.values():  # a look-up that was under way at a fork is not under way in the child
            name.answered = None
            name.looked_at = -math.inf

    def addresses(self, host: str, port: int, until: float) -> tuple[SocketAddress, ...]:
        """Return the addresses of a name, the one to be tried first as the first.

        :param until: monotonic seconds. Until then the first answer is waited for.
        :raises TimeoutError: there was no answer in time.
        :raises OSError: the name leads nowhere.
        """
        literal = _literal(host, port)
        if literal is not None:
            return (literal,)
        name = self._name(host, port)
        name.asked_at = self._clock()
        if not name.addresses:
            self._wait_for(name, until)
        elif name.doubtful and name.answered is not None:
            name.answered.wait(max(0.0, min(_FRESH, until - self._clock())))
        return name.addresses

    def doubt(self, host: str, port: int, address: SocketAddress) -> None:
        """Note that an address leads to a wrong server: another is tried first, and the name looked up."""
        name = self._names.get((host, port))
        if name is None:
            return
        with self._lock:
            if name.addresses and name.addresses[0] == address:
                name.addresses = (*name.addresses[1:], address)
            name.doubtful, name.rest = True, PAUSE
        if self._clock() >= name.looked_at + PAUSE:
            self._look_up(name)

    def look(self, lost: bool) -> None:
        """Look up again the names whose time has come. Returns at once; for the monitor, every round.

        :param lost: the store does not answer: it may be somewhere else by now.
        """
        now = self._clock()
        for key, name in self._names.copy().items():
            if name.problem is not None and now >= name.asked_at + FORGOTTEN:
                self._names.pop(key, None)
            elif now >= name.looked_at + (PAUSE if lost else name.rest):
                self._look_up(name)

    def _name(self, host: str, port: int) -> _Name:
        name = self._names.get((host, port))
        if name is None:
            with self._lock:
                name = self._names.setdefault((host, port), _Name(host, port))
        return name

    def _wait_for(self, name: _Name, until: float) -> None:
        if name.problem is None or self._clock() >= name.looked_at + PAUSE:
            self._look_up(name)
        answered = name.answered
        if answered is not None and not answered.wait(max(0.0, until - self._clock())):
            raise TimeoutError("the name was not resolved in time")
        if not name.addresses:
            raise name.problem or OSError("the name has no address")

    def _look_up(self, name: _Name) -> None:
        with self._lock:
            if name.answered is not None:
                return
            answered = name.answered = threading.Event()
            # Not in step with all other workers.
            name.looked_at, name.rest = self._clock(), min(REST, 2 * name.rest) * CHANCE.uniform(0.8, 1)
        if start_daemon("langpont-session-names", self._resolve, name, answered) is None:
            name.answered = None

    def _resolve(self, name: _Name, answered: threading.Event) -> None:
        before = name.addresses
        try:
            found = socket.getaddrinfo(name.host, name.port, 0, socket.SOCK_STREAM)
        except Exception as error:  # whatever it is: without an end of this the name would never be looked up again
            problem = error if isinstance(error, OSError) else OSError("not a host name")
            if name.problem is None:
                cause, has_address = type(error).__name__, bool(before)
                log.warning(
                    "the name of a session store cannot be resolved (%s)%s",
                    *(cause, _KEPT[has_address]),
                    extra=fields("name_not_resolved", cause=cause, has_address=has_address),
                )
            name.problem = problem
        else:
            self._take_over(name, tuple(dict.fromkeys(SocketAddress(each[0], each[4]) for each in found)))
        name.answered = None
        answered.set()
        if before and set(before) != set(name.addresses):
            log.info("the name of a session store leads to other addresses now", extra=fields("addresses_changed"))
            self.on_change()

    def _take_over(self, name: _Name, found: tuple[SocketAddress, ...]) -> None:
        with self._lock:
            # The order of an answer means nothing: what was good, or no good, before keeps its place.
            kept = [address for address in name.addresses if address in found]
            new = [address for address in found if address not in kept]
            name.addresses = tuple(new + kept if name.doubtful else kept + new)
            name.problem, name.doubtful = None, False


_KEPT = {False: "", True: "; its last address is used"}


def _literal(host: str, port: int) -> SocketAddress | None:
    """Return the address that is written where a name might stand; None: it is a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return SocketAddress(family, (host, port) if family == socket.AF_INET else (host, port, 0, 0))
    return None
