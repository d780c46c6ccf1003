"""The incidents of a host: one worker has them in memory, the others leave for it what they see.

An incident is *pending* while its condition holds but not yet for long enough, then it *fires* (one message), and is
*resolved* (one message) when no worker of the host has seen the condition for :attr:`Terms.calm`. Other hosts have
incidents of their own: repetition, schedules and grouping are the receivers' work. An incident carries the one message
that waits: a recovery takes the place of an alarm that SNS has not taken by then, and survives the worker that was
about to send it, in a copy beside the journal for the worker that follows. So nothing has to be dropped, however long
SNS is away, and no operator is woken for an incident that is over.

A worker that sees a condition says so again at every step. A worker that is killed just stops saying it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import msgspec

from ...support.forks import renew_in_children
from ...support.host import HostWork
from ...support.logs import fields
from .table import ALERTS, CALM, TEST, Alert, Severity

log = logging.getLogger(__name__)

Details = Mapping[str, str | int | float]
"""Names and numbers of an incident that the table of alerts does not have."""

CURE = "cure"
"""The detail that says what helps against the cause; a message says it in place of the alert's own advice."""

Sightings = Mapping[str, Details]
"""Conditions that hold now: key → details. A key is an alert's name, or ``name/scope``."""


class AlertState(StrEnum):
    """The state of an alert, as its message tells it."""

    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Terms:
    """Limits of patience. Seconds.

    :param pace: the waits of the alert table are multiplied by it; for tests.
    :param calm: an incident that was not seen for so long is over. A store that comes and goes is one incident.
    :param gap: a pending incident that was not seen for so long is forgotten, and one that fired holds nothing back.
    :param retry: a message that SNS did not take is tried again after this.
    """

    pace: float = 1
    calm: float = CALM
    gap: float = 5
    retry: float = 30


class Incident(msgspec.Struct):
    """One condition that holds, or held until lately.

    :param since: when it was seen first.
    :param seen: when it was seen last, by whichever worker.
    :param told_at: when it last had something to tell; None: it is pending.
    :param waiting: the message that SNS has not taken yet.
    :param tried: an attempt was made to send an alarm of it, so that there is something to call off.
    :param not_before: when it may be tried to send what waits.
    """

    since: float
    seen: float
    details: dict[str, str | int | float] = {}
    told_at: float | None = None
    waiting: AlertState | None = None
    tried: bool = False
    not_before: float = 0.0

    def see(self, details: Details, now: float) -> None:
        """Note that the condition holds."""
        if self.waiting is AlertState.RESOLVED:
            # It goes on after all, and receivers have not answered that it was over.
            self.tell(AlertState.FIRING, now)
            self.waiting = None if self.tried else AlertState.FIRING
        self.seen, self.details = now, dict(details)

    def tell(self, state: AlertState, now: float) -> None:
        """Have a message wait, in place of the one that does."""
        self.told_at, self.waiting, self.not_before = now, state, 0.0

    def is_told_by(self, now: float) -> None:
        """Let nothing be of the future: a clock that was set back must not leave an incident burning until it has
        caught up."""
        self.since, self.seen = min(self.since, now), min(self.seen, now)
        self.told_at = None if self.told_at is None else min(self.told_at, now)


class Notice(NamedTuple):
    """A message to be sent, and the incident as it was when the message was taken."""

    key: str
    state: AlertState
    incident: Incident


_BY_NAME = {alert.name: alert for alert in (*ALERTS, TEST)}


def is_known(key: str) -> bool:
    """Return whether this release has the alert. While a deployment is under way other workers may see more."""
    return key.partition("/")[0] in _BY_NAME


def alert_of(key: str) -> Alert:
    """Return the row of the table that a key belongs to."""
    return _BY_NAME[key.partition("/")[0]]


class Host(msgspec.Struct):
    """The incidents of a host's workers together, by key."""

    incidents: dict[str, Incident] = {}

    def step(self, sightings: Sightings, now: float, terms: Terms, watched: float) -> None:
        """Move every incident on.

        :param now: seconds since 1970: the workers of a host share no other clock that outlives a process.
        :param watched: seconds for which the worker that asks has been looking. It cannot know that something is over
            which it has not watched for long enough itself.
        """
        for incident in self.incidents.values():
            incident.is_told_by(now)
        for key in filter(is_known, sightings):
            self.incidents.setdefault(key, Incident(since=now, seen=now)).see(sightings[key], now)
        for key in sorted(self.incidents, key=lambda key: -alert_of(key).severity.rank):
            self._advance(key, now, terms, watched)

    def _advance(self, key: str, now: float, terms: Terms, watched: float) -> None:
        alert, incident = alert_of(key), self.incidents[key]
        unseen = now - incident.seen
        if incident.told_at is None:
            if unseen > terms.gap and not alert.happens_once:
                del self.incidents[key]
                return
            has_lasted = incident.seen - incident.since >= alert.fires_after * terms.pace
            if has_lasted and not self._is_inhibited(alert, now, terms):
                incident.tell(AlertState.FIRING, now)
        elif incident.waiting is not AlertState.RESOLVED and min(unseen, watched) >= terms.calm:
            incident.tell(AlertState.RESOLVED, now)

    def _is_inhibited(self, alert: Alert, now: float, terms: Terms) -> bool:
        """Return whether something worse burns, or is about to, that says it all.

        Both are states: a single event explains nothing that goes on, and is not held back itself, for when the
        emergency is over it would not be seen any more.
        """
        lately = (alert_of(key) for key, incident in self.incidents.items() if now - incident.seen <= terms.gap)
        return not alert.happens_once and any(
            other.severity.rank > alert.severity.rank
            and not other.happens_once
            and (other.severity is Severity.EMERGENCY or (other.family and other.family == alert.family))
            for other in lately
        )

    def take(self, now: float, terms: Terms) -> Notice | None:
        """Return the message that the caller shall try to send now: until :meth:`sent` says otherwise, that has failed,
        and is tried again after a pause."""
        for key, incident in self.incidents.items():
            if incident.waiting is not None and not now < incident.not_before <= now + terms.retry:
                incident.tried |= incident.waiting is AlertState.FIRING
                incident.not_before = now + terms.retry
                return Notice(key, incident.waiting, msgspec.structs.replace(incident))
        return None

    def sent(self, notice: Notice) -> None:
        """Note that SNS took a message: a recovery is the end of its incident."""
        if notice.state is AlertState.RESOLVED:
            del self.incidents[notice.key]
        else:
            self.incidents[notice.key].waiting = None

    def join(self, own: Host) -> None:
        """Merge what a worker has seen alone, while it could not share it. What the host knows of a key holds."""
        self.incidents = {key: one for key, one in own.incidents.items() if is_known(key)} | self.incidents


class _Seen(msgspec.Struct):
    """A message to the worker that has the incidents.

    :param host: the incidents of a worker that had some of its own until now.
    """

    sightings: dict[str, dict[str, str | int | float]]
    host: Host | None = None


decode_host = msgspec.json.Decoder(Host).decode
"""Bytes → :class:`Host`. Made at import: the first time that msgspec looks at a type, a second thread at the same type
can end the process. Raises :class:`msgspec.MsgspecError`."""
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
        since = self._leads_since = now if self._leads_since is None else min(self._leads_since, now)
        self._host.step({**self._others(), **sightings}, now, self.terms, now - since)
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
            before, own = Host(), self._host
            before.join(_read(self._kept))
            before.join(own)
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
                self._host.join(seen.host)
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
        return self._host.take(self.clock(), self.terms)

    def note(self, notice: Notice, *, was_sent: bool) -> None:
        """Note whether SNS took a message."""
        if was_sent:
            self._host.sent(notice)
        self._keep()


def _read(kept: bytes) -> Host:
    if not kept:
        return Host()
    try:
        return decode_host(kept)
    except msgspec.MsgspecError:
        # Another release wrote it. What is active is seen again soon.
        log.warning(
            "the incidents that this host has noted cannot be read, and are begun anew",
            extra=fields("incidents_unreadable"),
        )
        return Host()
