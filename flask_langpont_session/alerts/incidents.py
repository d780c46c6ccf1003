"""The incidents of a host, and the messages about them. Pure: no I/O, the time is an argument.

An incident is *pending* while its condition holds but not yet for long enough, then it *fires* (one message), and is
*resolved* (one message) when no worker of the host saw the condition for long enough. One worker has the :class:`Host`:
it moves the incidents on, and sends their messages. The queue is part of the host's state, so that a message survives
the worker that was about to send it.

Only the latest message of each key waits in the queue: a recovery takes the place of an alarm that SNS has not taken by
then. So nothing has to be dropped, however long SNS is away, and no operator is woken for an incident that is over.

A worker that sees a condition says so again at every step. A worker that is killed just stops saying it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from .table import ALERTS, Alert, Severity

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
    """Limits of patience and of messages. Seconds.

    :param repeat: an incident that goes on is told again after this.
    :param pace: the times of the alert table are multiplied by it; for tests.
    :param gap: a pending incident that was not seen for so long is forgotten.
    :param token_every: one message per key each … on average;
    :param burst: so many of them at once.
    :param host_token_every: the same for all keys of the host together.
    :param host_burst: likewise.
    :param flap_window: an incident that fired before within this time must be gone for longer to be over: the time
        doubles each time, up to …
    :param longest_heal: this.
    :param retry: a message that SNS did not take is tried again after this, then after twice as long each time, up
        to …
    :param longest_retry: this. An alarm is tried for as long as it burns, …
    :param keep: a recovery for so long.
    :param lease: a worker that took a message out of the queue and did not report within this time is believed dead.
    :param alone_after: a message of which no store says whether another host has told it is sent after this, as that of
        this host alone.
    """

    repeat: float = 14_400
    pace: float = 1
    gap: float = 5
    token_every: float = 900
    burst: int = 3
    host_token_every: float = 60
    host_burst: int = 20
    flap_window: float = 3600
    longest_heal: float = 900
    retry: float = 30
    longest_retry: float = 300
    keep: float = 86_400
    lease: float = 60
    alone_after: float = 5


_FOREIGN = 86_400
"""Seconds after which an alert of another release is dropped."""


class Bucket(msgspec.Struct):
    """A token bucket. One that was never used is full."""

    used: float = 0.0
    at: float = 0.0

    def refill(self, now: float, every: float) -> None:
        """Let the time that passed fill it."""
        self.used = max(0.0, self.used - max(0.0, now - self.at) / every)
        self.at = now


class Past(msgspec.Struct):
    """The history of a key beyond one incident."""

    bucket: Bucket = msgspec.field(default_factory=Bucket)
    firings: list[float] = []
    suppressed: int = 0


class Incident(msgspec.Struct):
    """One condition that holds, or held until lately.

    :param since: when it was seen first.
    :param seen: when it was seen last, by whichever worker.
    :param heals_after: seconds unseen after which it is over; known once it fired.
    :param fired_at: None while it is pending.
    :param told_at: when a message was queued last; None: none was.
    :param suppressed: the limits held its message back, and that was counted.
    :param alone: this host has told it without knowing of the others: it is called off by this host, as its own.
    :param tried: an attempt was made to send a message of it, so that there is something to call off.
    """

    since: float
    seen: float
    heals_after: float = 0.0
    fired_at: float | None = None
    told_at: float | None = None
    suppressed: bool = False
    alone: bool = False
    tried: bool = False
    details: dict[str, str | int | float] = {}


class Notice(msgspec.Struct):
    """A message to be sent.

    :param serial: its number on this host.
    :param since: when the incident began, `at`: when this was to be told, `seen`: when its condition was seen last.
    :param suppressed: earlier incidents of this key that the limits held back, and that no message told of yet.
    :param firings: how often this key fired in the flap window.
    :param repeated: told again because it goes on.
    :param attempts: how often SNS did not take it.
    :param not_before: when it may be tried.
    :param taken_until: until when the worker that took it has time.
    :param alone: and `tried`: see :class:`Incident`.
    """

    serial: int
    key: str
    state: AlertState
    since: float
    at: float
    seen: float
    suppressed: int
    firings: int
    repeated: bool = False
    details: dict[str, str | int | float] = {}
    attempts: int = 0
    not_before: float = 0.0
    taken_until: float = 0.0
    alone: bool = False
    tried: bool = False


class Host(msgspec.Struct):
    """The knowledge of a host's workers about their incidents, and the queue of messages.

    :param name: by which other hosts know this one; drawn once.
    """

    name: str = msgspec.field(default_factory=lambda: secrets.token_hex(6))
    incidents: dict[str, Incident] = {}
    past: dict[str, Past] = {}
    bucket: Bucket = msgspec.field(default_factory=Bucket)
    queue: list[Notice] = []
    serial: int = 0

    @property
    def is_idle(self) -> bool:
        """Return whether no incident burns and no message waits."""
        return not self.incidents and not self.queue


decode_host = msgspec.json.Decoder(Host).decode
"""Bytes → :class:`Host`. Made at import: the first time that msgspec looks at a type, a second thread at the same type
can end the process. Raises :class:`msgspec.MsgspecError`."""


_BY_NAME = {alert.name: alert for alert in ALERTS}


def is_known(key: str) -> bool:
    """Return whether this release has the alert. While a deployment is under way the host's other workers may know more
    alerts; those are left to them."""
    return key.partition("/")[0] in _BY_NAME


def _known(keys: Iterable[str]) -> list[str]:
    return [key for key in keys if is_known(key)]


def alert_of(key: str) -> Alert:
    """Return the row of the table that a key belongs to."""
    return _BY_NAME[key.partition("/")[0]]


def step(host: Host, sightings: Sightings, now: float, terms: Terms, watched: float) -> int:
    """Move every incident on; `host` is changed in place.

    :param now: seconds since 1970: the workers of a host share no other clock that outlives a process.
    :param watched: seconds for which the worker that asks has been looking. It cannot know that something is over
        which it has not watched for long enough itself.
    :return: how many messages the limits held back.
    """
    _tidy(host, now)
    for key, details in sightings.items():
        _see(host, key, details, now, terms)
    held_back = 0
    for key in sorted(_known(host.incidents), key=lambda key: -alert_of(key).severity.rank):
        held_back += _advance(host, key, now, terms, watched)
    return held_back


def _tidy(host: Host, now: float) -> None:
    """Forget what is not known any more; and a clock that was set back must not leave an incident burning until it has
    caught up."""
    host.incidents = {key: i for key, i in host.incidents.items() if is_known(key) or now - i.seen < _FOREIGN}
    host.queue = [notice for notice in host.queue if is_known(notice.key) or now - notice.at < _FOREIGN]
    for incident in host.incidents.values():
        incident.since, incident.seen = min(incident.since, now), min(incident.seen, now)
        incident.told_at = None if incident.told_at is None else min(incident.told_at, now)


def _see(host: Host, key: str, details: Details, now: float, terms: Terms) -> None:
    incident = host.incidents.get(key)
    if incident is None:
        incident = host.incidents[key] = Incident(since=now, seen=now)
    incident.seen = now
    incident.details = dict(details)


def _advance(host: Host, key: str, now: float, terms: Terms, watched: float) -> bool:
    """Move one incident on.

    :return: whether the limits held its message back, just now.
    """
    incident = host.incidents[key]
    if incident.fired_at is None and not _is_due(host, key, now, terms):
        return False
    if incident.fired_at is None:
        _fire(incident, host.past.setdefault(key, Past()), alert_of(key), now, terms)
    if min(now - incident.seen, watched) >= incident.heals_after:
        del host.incidents[key]
        if incident.told_at is not None:
            _tell(host, key, incident, AlertState.RESOLVED, now)
        return False
    burns = now - incident.seen <= terms.gap or alert_of(key).happens_once
    if not burns or _is_inhibited(host, key):
        return False
    if incident.told_at is not None:
        if now - incident.told_at >= terms.repeat:
            _tell(host, key, incident, AlertState.FIRING, now, repeated=True)
        return False
    if _take_room(host, key, now, terms):
        _tell(host, key, incident, AlertState.FIRING, now)
        return False
    return _hold_back(incident, host.past[key])


def _is_due(host: Host, key: str, now: float, terms: Terms) -> bool:
    """Return whether a pending incident fires. One that is not seen any more is forgotten."""
    alert, incident = alert_of(key), host.incidents[key]
    if now - incident.seen > terms.gap and not alert.happens_once:
        del host.incidents[key]
        return False
    return incident.seen - incident.since >= alert.fires_after * terms.pace and not _is_inhibited(host, key)


def _fire(incident: Incident, past: Past, alert: Alert, now: float, terms: Terms) -> None:
    past.firings = [*(at for at in past.firings if 0 <= now - at < terms.flap_window), now][-10:]
    incident.fired_at = now
    longest = max(alert.heals_after, terms.longest_heal)
    incident.heals_after = min(longest, alert.heals_after * 2 ** (len(past.firings) - 1)) * terms.pace


def _is_inhibited(host: Host, key: str) -> bool:
    """Return whether something worse burns, or is about to, that says it all.

    Both are states: a single event explains nothing that goes on, and is not held back itself, for when the emergency
    is over it would not be seen any more.
    """
    alert = alert_of(key)
    return not alert.happens_once and any(
        other.severity.rank > alert.severity.rank
        and not other.happens_once
        and (other.severity is Severity.EMERGENCY or (other.family and other.family == alert.family))
        for other in map(alert_of, _known(host.incidents))
    )


def _take_room(host: Host, key: str, now: float, terms: Terms) -> bool:
    """Take the room that the limits leave for a message. Return whether there is any; trouble that got worse needs
    none."""
    alert, past = alert_of(key), host.past[key]
    if alert.family and any(
        host.incidents[other].told_at is not None
        and alert_of(other).family == alert.family
        and alert_of(other).severity.rank < alert.severity.rank
        for other in _known(host.incidents)
    ):
        return True
    past.bucket.refill(now, terms.token_every)
    host.bucket.refill(now, terms.host_token_every)
    if past.bucket.used + 1 > terms.burst or host.bucket.used + 1 > terms.host_burst:
        return False
    past.bucket.used += 1
    host.bucket.used += 1
    return True


def _hold_back(incident: Incident, past: Past) -> bool:
    if incident.suppressed:
        return False
    incident.suppressed = True
    past.suppressed += 1
    return True


def _tell(host: Host, key: str, incident: Incident, state: AlertState, now: float, *, repeated: bool = False) -> None:
    """Queue a message, in place of the one of its key that is not being sent."""
    past = host.past[key]
    replaced = [notice for notice in host.queue if notice.key == key and notice.taken_until <= now]
    for notice in replaced:
        host.queue.remove(notice)
    suppressed = past.suppressed - incident.suppressed + sum(notice.suppressed for notice in replaced)
    past.suppressed = 0
    incident.told_at, incident.suppressed = now, False
    host.serial += 1
    host.queue.append(
        Notice(
            serial=host.serial,
            key=key,
            state=state,
            since=incident.since,
            at=now,
            seen=incident.seen,
            suppressed=suppressed,
            firings=len(past.firings),
            repeated=repeated,
            details=incident.details,
            alone=incident.alone or alert_of(key).is_of_one_host,
            tried=incident.tried,
        )
    )


def take(host: Host, now: float, terms: Terms) -> Notice | None:
    """Return the message that the caller shall try to send now; no other worker gets it for the length of a lease.

    A key's messages go one after the other: a recovery must not overtake an alarm that is on its way.
    """
    for notice in _first_of_each_key(host.queue):
        others = now < notice.taken_until <= now + terms.lease
        waits = now < notice.not_before <= now + terms.longest_retry
        if not others and not waits:
            notice.taken_until = now + terms.lease
            return notice
    return None


def _first_of_each_key(queue: Iterable[Notice]) -> Iterator[Notice]:
    seen: set[str] = set()
    for notice in queue:
        if notice.key not in seen and is_known(notice.key):
            seen.add(notice.key)
            yield notice


def note_outcome(host: Host, serial: int, now: float, terms: Terms, *, sent: bool) -> bool:
    """Note what became of a message that was taken.

    :return: whether it is lost: not sent, and neither to be tried again nor replaced.
    """
    notice = next((notice for notice in host.queue if notice.serial == serial), None)
    if notice is None:
        return False
    if notice.state is AlertState.FIRING:
        for thing in _all_of(host, notice.key):
            thing.tried = True
    replaced = any(other.key == notice.key and other.serial > serial for other in host.queue)
    too_old = notice.state is AlertState.RESOLVED and now - notice.at >= terms.keep
    if sent or replaced or too_old:
        host.queue.remove(notice)
        return not sent and not replaced
    # The exponent ends before the numbers do.
    notice.not_before = now + min(terms.retry * 2 ** min(notice.attempts, 20), terms.longest_retry)
    notice.attempts, notice.taken_until = notice.attempts + 1, 0.0
    return False


def note_alone(host: Host, key: str) -> None:
    """Note that a message is told as that of this host alone, and so are those that follow."""
    for thing in _all_of(host, key):
        thing.alone = True


def _all_of(host: Host, key: str) -> Iterator[Incident | Notice]:
    if key in host.incidents:
        yield host.incidents[key]
    yield from (notice for notice in host.queue if notice.key == key)


def dismiss(host: Host, serial: int) -> None:
    """Drop a message that was taken and is not to be sent at all."""
    host.queue = [notice for notice in host.queue if notice.serial != serial]


def postpone(host: Host, serial: int, until: float) -> None:
    """Put back a message that was taken and is not to be sent yet. It is looked at again, unless it is replaced
    before."""
    for notice in host.queue:
        if notice.serial == serial:
            notice.not_before, notice.taken_until = until, 0.0


def burning(host: Host) -> list[str]:
    """Return the incidents of all hosts together that were told, here or elsewhere, and are not over on this host."""
    return [
        key
        for key in _known(host.incidents)
        if host.incidents[key].told_at and not host.incidents[key].alone and not alert_of(key).is_of_one_host
    ]


def join(host: Host, own: Host) -> None:
    """Merge what a worker has seen alone, while it could not share it. What the host knows of a key holds.

    :param host: changed in place.
    """
    told = {*host.incidents, *(notice.key for notice in host.queue)}
    for key in own.incidents.keys() - told:
        host.incidents[key] = own.incidents[key]
    for key, past in own.past.items():
        host.past.setdefault(key, past)
    for notice in own.queue:
        if notice.key not in told:
            host.serial += 1
            host.queue.append(msgspec.structs.replace(notice, serial=host.serial))
