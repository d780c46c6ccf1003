"""The incidents of this host: one worker has them in memory, the others leave for it what they see.

The worker that has them keeps a copy beside the journal for the one that follows when it dies. Its two threads, which
look and send, share them here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from ..support.forks import renew_in_children
from ..support.host import HostWork
from ..support.logs import fields
from . import incidents
from .incidents import Details, Host, Incident, Notice, Sightings, Terms

log = logging.getLogger(__name__)


class _Seen(msgspec.Struct):
    """A message to the worker that has the incidents.

    :param host: the incidents of a worker that had some of its own until now.
    """

    sightings: dict[str, dict[str, str | int | float]]
    host: Host | None = None


_decode_seen = msgspec.json.Decoder(_Seen).decode


class HostIncidents:
    """Moves the host's incidents on, and its messages out of the queue.

    :param clock: seconds since 1970; the workers share no other clock that outlives a process.
    :ivar leads_since: since when this worker has had the incidents; None: it has none.
    """

    def __init__(self, work: HostWork, terms: Terms, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.work = work
        self.terms = terms
        self._begin()
        renew_in_children(self, HostIncidents._begin)

    def _begin(self) -> None:
        """Begin anew in a forked child: the parent's incidents stay the parent's."""
        self._lock = threading.Lock()
        self._host = Host()
        self._kept = b""
        self._was_shared = False
        self.leads_since: float | None = None

    @property
    def name(self) -> str:
        """Return the name by which other hosts know this one."""
        return self._host.name

    def look(self, sightings: Sightings, *, last: bool = False) -> None:
        """Report what this worker sees now.

        :param last: the process ends.
        """
        if not self.work.lead() and self._hands_over(sightings):
            if not last or not sightings or not self.work.succeeds():
                return
            sightings = {}
        now = self.clock()
        with self.changed():
            self._take_over(now)
            # A clock that is set back must not leave an incident burning until it has caught up.
            since = self.leads_since = now if self.leads_since is None else min(self.leads_since, now)
            seen = {**self._others(), **sightings}
            incidents.step(self._host, seen, now, self.terms, now - since)

    def _hands_over(self, sightings: Sightings) -> bool:
        """Hand sightings, and own incidents, to the worker that leads. Return False where this one has to go on by
        itself."""
        own = self._host if self._host.incidents else None
        message = _Seen({key: dict(details) for key, details in sightings.items()}, own)
        if (sightings or own) and not self.work.leave(msgspec.json.encode(message)):
            return False
        with self._lock:
            self._host, self._kept, self.leads_since, self._was_shared = Host(), b"", None, False
        return True

    def _take_over(self, now: float) -> None:
        """Take the incidents over from the worker that had them, from the copy that it has kept."""
        if self.work.is_shared and not self._was_shared:
            self.leads_since = now
            self._kept = self.work.kept()
            before = _read(self._kept)
            incidents.join(before, self._host)
            self._host = before
        self._was_shared = self.work.is_shared

    def _others(self) -> dict[str, Details]:
        found: dict[str, Details] = {}
        for message in self.work.collect():
            try:
                seen = _decode_seen(message)
            except msgspec.MsgspecError:  # another release has left it
                continue
            found.update(seen.sightings)
            if seen.host is not None:
                incidents.join(self._host, seen.host)
        return found

    def take(self) -> Notice | None:
        """Return the message to be sent now; None: there is none."""
        if not self._host.incidents:
            return None
        with self.changed():
            return incidents.take(self._host, self.clock(), self.terms)

    def shared(self) -> dict[str, Incident]:
        """Return the incidents of all hosts together that fired and are not over on this host."""
        with self._lock:
            own = self._host.incidents
            return {key: own[key] for key in own if incidents.is_shared(key, own[key])}

    @contextmanager
    def changed(self) -> Iterator[Host]:
        """Yield the incidents, to be changed while this is open, by one thread at a time."""
        with self._lock:
            yield self._host
            # Nothing is kept of a host that never had an incident.
            if self.work.is_shared and (self._kept or self._host.incidents):
                now = msgspec.json.encode(self._host)
                if now != self._kept:
                    self.work.keep(now)
                    self._kept = now


def _read(kept: bytes) -> Host:
    if not kept:
        return Host()
    try:
        return incidents.decode_host(kept)
    except msgspec.MsgspecError:
        # Another release wrote it. What is active is seen again soon.
        log.warning(
            "the incidents that this host has noted cannot be read, and are begun anew",
            extra=fields("incidents_unreadable"),
        )
        return Host()
