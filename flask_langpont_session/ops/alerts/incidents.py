"""The incidents of a host, and the messages about them. Pure: no I/O, the time is an argument.

An incident is *pending* while its condition holds but not yet for long enough, then it *fires* (one message), and is
*resolved* (one message) when no worker of the host has seen the condition for :attr:`Terms.calm`. One worker has the
:class:`Host`: it moves the incidents on, and sends their messages. Other hosts have incidents of their own: repetition,
schedules and grouping are the receivers' work. An incident carries the one message that waits: a
recovery takes the place of an alarm that SNS has not taken by then, and survives the worker that was about to send it.
So nothing has to be dropped, however long SNS is away, and no operator is woken for an incident that is over.

A worker that sees a condition says so again at every step. A worker that is killed just stops saying it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import msgspec

from .table import ALERTS, CALM, TEST, Alert, Severity

Details = Mapping[str, str | int | float]
"""Names and numbers of an incident that the table of alerts does not have."""

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
    """

    pace: float = 1
    calm: float = CALM
    gap: float = 5
    retry: float = 30
    longest_retry: float = 300
    keep: float = 86_400


_FOREIGN = 86_400
"""Seconds after which an alert of another release is dropped."""


class Incident(msgspec.Struct):
    """One condition that holds, or held until lately.

    :param since: when it was seen first.
    :param seen: when it was seen last, by whichever worker.
    :param told_at: when it last had something to tell; None: it is pending.
    :param waiting: the message that SNS has not taken yet.
    :param tried: an attempt was made to send an alarm of it, so that there is something to call off.
    :param attempts: how often it was tried to send what waits.
    :param not_before: when that may be tried again.
    """

    since: float
    seen: float
    details: dict[str, str | int | float] = {}
    told_at: float | None = None
    waiting: AlertState | None = None
    tried: bool = False
    attempts: int = 0
    not_before: float = 0.0

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


class Host(msgspec.Struct):
    """The incidents of a host's workers together, by key."""

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
    """Return the message that the caller shall try to send now, and count the attempt: until :func:`note_sent` says
    otherwise, it has failed, and is tried again after a pause."""
    for key in _known(host.incidents):
        incident = host.incidents[key]
        if incident.waiting is None or now < incident.not_before <= now + terms.longest_retry:
            continue
        incident.tried |= incident.waiting is AlertState.FIRING
        # The exponent ends before the numbers do.
        incident.not_before = now + min(terms.retry * 2 ** min(incident.attempts, 20), terms.longest_retry)
        incident.attempts += 1
        return Notice(key, incident.waiting, msgspec.structs.replace(incident))
    return None


def note_sent(host: Host, notice: Notice) -> None:
    """Note that SNS took a message: a recovery is the end of its incident."""
    if notice.state is AlertState.RESOLVED:
        del host.incidents[notice.key]
    else:
        host.incidents[notice.key].waiting = None


def give_up(host: Host, notice: Notice, now: float, terms: Terms) -> bool:
    """Forget an incident whose recovery could not be sent for too long. Return whether it is forgotten."""
    is_late = notice.state is AlertState.RESOLVED and now - (notice.incident.told_at or now) >= terms.keep
    if is_late:
        del host.incidents[notice.key]
    return is_late


def join(host: Host, own: Host) -> None:
    """Merge what a worker has seen alone, while it could not share it. What the host knows of a key holds.

    :param host: changed in place.
    """
    for key in own.incidents.keys() - host.incidents.keys():
        host.incidents[key] = own.incidents[key]
