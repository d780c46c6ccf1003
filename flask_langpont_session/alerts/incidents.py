"""The incidents of a host, and the messages about them. Pure: no I/O, the time is an argument.

An incident is *pending* while its condition holds but not yet for long enough, then it *fires* (one message), and is
*resolved* (one message) when no worker of the host has seen the condition for :attr:`Terms.calm`. One worker has the
:class:`Host`: it moves the incidents on, and sends their messages. An incident carries the one message that waits: a
recovery takes the place of an alarm that SNS has not taken by then, and survives the worker that was about to send it.
So nothing has to be dropped, however long SNS is away, and no operator is woken for an incident that is over.

A worker that sees a condition says so again at every step. A worker that is killed just stops saying it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import msgspec

from .table import ALERTS, CALM, TEST, Alert, Severity

Details = Mapping[str, str | int | float]
"""What is worth knowing besides the table: names and numbers."""

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
    :param retry: a message that SNS did not take is tried again after this, then after twice as long each time, up
        to …
    :param longest_retry: this. An alarm is tried for as long as it burns, …
    :param keep: a recovery for so long.
    :param lease: a worker that took a message and did not report within this time is believed dead.
    :param alone_after: a message of which no store says whether another host has told it is sent after this, as that of
        this host alone.
    """

    pace: float = 1
    calm: float = CALM
    gap: float = 5
    retry: float = 30
    longest_retry: float = 300
    keep: float = 86_400
    lease: float = 60
    alone_after: float = 5


_FOREIGN = 86_400
"""Seconds after which an alert of another release is dropped."""


class Incident(msgspec.Struct):
    """One condition that holds, or held until lately.

    :param since: when it was seen first.
    :param seen: when it was seen last, by whichever worker.
    :param told_at: when it last had something to tell; None: it is pending.
    :param waiting: the message that SNS has not taken yet.
    :param tried: an attempt was made to send an alarm of it, so that there is something to call off.
    :param alone: this host has told it without knowing of the others: it is called off by this host, as its own.
    :param answered: a store has said whether another host has told it.
    :param attempts: how often SNS did not take what waits.
    :param not_before: when that may be tried.
    :param taken_until: until when the worker that took it has time.
    """

    since: float
    seen: float
    details: dict[str, str | int | float] = {}
    told_at: float | None = None
    waiting: AlertState | None = None
    tried: bool = False
    alone: bool = False
    answered: bool = False
    attempts: int = 0
    not_before: float = 0.0
    taken_until: float = 0.0

    @property
    def burns(self) -> bool:
        """Return whether it fired and is not over."""
        return self.told_at is not None and self.waiting is not AlertState.RESOLVED

    def tell(self, state: AlertState, now: float) -> None:
        """Have a message wait, in place of the one that does."""
        self.told_at, self.waiting, self.attempts, self.not_before = now, state, 0, 0.0


class Notice(NamedTuple):
    """A message to be sent, and the incident as it was when the message was taken."""

    key: str
    state: AlertState
    incident: Incident

    @property
    def is_alone(self) -> bool:
        """Return whether it is a matter of this host."""
        return self.incident.alone or alert_of(self.key).is_of_one_host


class Host(msgspec.Struct):
    """The knowledge of a host's workers about their incidents.

    :param name: by which other hosts know this one; drawn once.
    """

    name: str = msgspec.field(default_factory=lambda: secrets.token_hex(6))
    incidents: dict[str, Incident] = {}


decode_host = msgspec.json.Decoder(Host).decode
"""Bytes → :class:`Host`. Made at import: the first time that msgspec looks at a type, a second thread at the same type
can end the process. Raises :class:`msgspec.MsgspecError`."""


_BY_NAME = {alert.name: alert for alert in (*ALERTS, TEST)}


def is_known(key: str) -> bool:
    """Return whether this release has the alert. While a deployment is under way the host's other workers may know more
    alerts; those are left to them."""
    return key.partition("/")[0] in _BY_NAME


def _known(keys: Iterable[str]) -> list[str]:
    return [key for key in keys if is_known(key)]


def alert_of(key: str) -> Alert:
    """Return the row of the table that a key belongs to."""
    return _BY_NAME[key.partition("/")[0]]


def step(host: Host, sightings: Sightings, now: float, terms: Terms, watched: float) -> None:
    """Move every incident on; `host` is changed in place.

    :param now: seconds since 1970: the workers of a host share no other clock that outlives a process.
    :param watched: seconds for which the worker that asks has been looking. It cannot know that something is over
        which it has not watched for long enough itself.
    """
    _tidy(host, now)
    for key, details in sightings.items():
        _see(host, key, details, now)
    for key in sorted(_known(host.incidents), key=lambda key: -alert_of(key).severity.rank):
        _advance(host, key, now, terms, watched)


def _tidy(host: Host, now: float) -> None:
    """Forget what is not known any more; and a clock that was set back must not leave an incident burning until it has
    caught up."""
    host.incidents = {key: i for key, i in host.incidents.items() if is_known(key) or now - i.seen < _FOREIGN}
    for incident in host.incidents.values():
        incident.since, incident.seen = min(incident.since, now), min(incident.seen, now)
        incident.told_at = None if incident.told_at is None else min(incident.told_at, now)


def _see(host: Host, key: str, details: Details, now: float) -> None:
    incident = host.incidents.setdefault(key, Incident(since=now, seen=now))
    if incident.waiting is AlertState.RESOLVED:
        if incident.taken_until > now:
            return  # its recovery is on its way; if that arrives, the next look finds another incident
        # It goes on after all, and receivers have not answered that it was over.
        incident.tell(AlertState.FIRING, now)
        incident.waiting = None if incident.tried else AlertState.FIRING
    incident.seen = now
    incident.details = dict(details)


def _advance(host: Host, key: str, now: float, terms: Terms, watched: float) -> None:
    alert, incident = alert_of(key), host.incidents[key]
    unseen = now - incident.seen
    if incident.told_at is None:
        if unseen > terms.gap and not alert.happens_once:
            del host.incidents[key]
            return
        has_lasted = incident.seen - incident.since >= alert.fires_after * terms.pace
        if has_lasted and not _is_inhibited(host, key, now, terms):
            incident.tell(AlertState.FIRING, now)
    elif incident.burns and min(unseen, watched) >= terms.calm:
        incident.tell(AlertState.RESOLVED, now)


def _is_inhibited(host: Host, key: str, now: float, terms: Terms) -> bool:
    """Return whether something worse burns, or is about to, that says it all.

    Both are states: a single event explains nothing that goes on, and is not held back itself, for when the emergency
    is over it would not be seen any more.
    """
    alert = alert_of(key)
    lately = [other for other, incident in host.incidents.items() if now - incident.seen <= terms.gap]
    return not alert.happens_once and any(
        other.severity.rank > alert.severity.rank
        and not other.happens_once
        and (other.severity is Severity.EMERGENCY or (other.family and other.family == alert.family))
        for other in map(alert_of, _known(lately))
    )


def take(host: Host, now: float, terms: Terms) -> Notice | None:
    """Return the message that the caller shall try to send now; no other worker gets it for the length of a lease.

    An incident's messages go one after the other: a recovery must not overtake an alarm that is on its way.
    """
    for key in _known(host.incidents):
        incident = host.incidents[key]
        others = now < incident.taken_until <= now + terms.lease
        waits = now < incident.not_before <= now + terms.longest_retry
        if incident.waiting is not None and not others and not waits:
            incident.taken_until = now + terms.lease
            return Notice(key, incident.waiting, msgspec.structs.replace(incident))
    return None


def note_outcome(host: Host, notice: Notice, now: float, terms: Terms, *, sent: bool) -> bool:
    """Note what became of a message that was taken.

    :return: whether it is lost: not sent, and neither to be tried again nor replaced.
    """
    incident = host.incidents.get(notice.key)
    if incident is None:
        return False
    incident.taken_until = 0.0
    incident.tried |= notice.state is AlertState.FIRING
    if incident.waiting is not notice.state:
        return False  # it was replaced meanwhile
    is_last = notice.state is AlertState.RESOLVED
    if sent or (is_last and now - (incident.told_at or now) >= terms.keep):
        incident.waiting = None
        if is_last:
            del host.incidents[notice.key]
        return not sent
    # The exponent ends before the numbers do.
    incident.not_before = now + min(terms.retry * 2 ** min(incident.attempts, 20), terms.longest_retry)
    incident.attempts += 1
    return False


def is_shared(key: str, incident: Incident) -> bool:
    """Return whether an incident burns that is one of all hosts together."""
    return is_known(key) and incident.burns and not incident.alone and not alert_of(key).is_of_one_host


def postpone(host: Host, key: str, until: float) -> None:
    """Put back a message that was taken and is not to be sent yet. It is looked at again, unless it is replaced
    before."""
    if incident := host.incidents.get(key):
        incident.not_before, incident.taken_until = until, 0.0


def join(host: Host, own: Host) -> None:
    """Merge what a worker has seen alone, while it could not share it. What the host knows of a key holds.

    :param host: changed in place.
    """
    for key in own.incidents.keys() - host.incidents.keys():
        host.incidents[key] = own.incidents[key]
