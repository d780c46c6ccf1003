"""The incidents of this host: one worker has them in memory, the others leave for it what they see.

The worker that has them keeps a copy beside the journal for the one that follows when it dies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from ...support.forks import renew_in_children
from ...support.host import HostWork
from ...support.logs import fields
from . import incidents
from .incidents import Details, Host, Notice, Sightings, Terms

log = logging.getLogger(__name__)


class _Seen(msgspec.Struct):
    """A message to the worker that has the incidents.

    :param host: the incidents of a worker that had some of its own until now.
    """

    sightings: dict[str, dict[str, str | int | float]]
    host: Host | None = None


_decode_seen = msgspec.json.Decoder(_Seen).decode


class HostIncidents:
    """Moves the host's incidents on, and its messages out of the queue. For one thread.

    :param clock: seconds since 1970; the workers share no other clock that outlives a process.
    """

    def __init__(self, work: HostWork, terms: Terms, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.work = work
        self.terms = terms
        self._begin()
        renew_in_children(self, HostIncidents._begin)

    def _begin(self) -> None:
        """Begin anew in a forked child, or where another worker has the incidents."""
        self._host = Host()
        self._kept = b""
        self._was_shared = False
        self._leads_since: float | None = None

    def look(self, sightings: Sightings, *, last: bool = False) -> None:
        """Report what this worker sees now.

        :param last: the process ends.
        """
        if not self.work.lead() and self._hands_over(sightings):
            if not last or not sightings or not self.work.succeeds():
                return
            sightings = {}
        now = self.clock()
        self._take_over(now)
        # A clock that is set back must not leave an incident burning until it has caught up.
        since = self._leads_since = now if self._leads_since is None else min(self._leads_since, now)
        incidents.step(self._host, {**self._others(), **sightings}, now, self.terms, now - since)
        self._keep()

    def _hands_over(self, sightings: Sightings) -> bool:
        """Hand sightings, and own incidents, to the worker that leads. Return False where this one has to go on by
        itself."""
        own = self._host if self._host.incidents else None
        message = _Seen({key: dict(details) for key, details in sightings.items()}, own)
        if (sightings or own) and not self.work.leave(msgspec.json.encode(message)):
            return False
        self._begin()
        return True

    def _take_over(self, now: float) -> None:
        """Take the incidents over from the worker that had them, from the copy that it has kept."""
        if self.work.is_shared and not self._was_shared:
            self._leads_since = now
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

    def _keep(self) -> None:
        # Nothing is kept of a host that never had an incident.
        if self.work.is_shared and (self._kept or self._host.incidents):
            now = msgspec.json.encode(self._host)
            if now != self._kept:
                self.work.keep(now)
                self._kept = now

    def take(self) -> Notice | None:
        """Return the message to be sent now; None: there is none."""
        return incidents.take(self._host, self.clock(), self.terms)

    def sent(self, notice: Notice) -> None:
        """Note that SNS took a message."""
        incidents.note_sent(self._host, notice)
        self._keep()

    def failed(self, notice: Notice) -> bool:
        """Note that a message could not be sent. Return whether it is given up."""
        is_given_up = incidents.give_up(self._host, notice, self.clock(), self.terms)
        self._keep()
        return is_given_up


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
