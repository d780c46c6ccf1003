"""Counts the sessions in use: an index in Redis that the workers keep up beside the requests.

A request only notes, in this worker's memory, the session whose life a store has just confirmed or prolonged. That is
rarer than requests, and shared: a use that one worker has noted is none for the others. A thread brings the notes to a
few sorted sets, ``{prefix}:active:{<number>}`` (the braces around the number are literal: the hash tag that spreads
them over a cluster): member is the beginning of a digest, score the moment, by the Redis clock in ms, at which the
session is over unless it is used again. The number of scores in the future is the answer; nothing is ever scanned.

The worker that ends a session gives it a score beyond all times, and that stands for a while: another worker's note of
an earlier use, brought later, cannot bring it back, because scores only ever grow (``ZADD GT``).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Protocol

from ...metrics.notes import Notes
from ...metrics.recorder import Recorder
from ...policy.errors import StoreError
from ...support.forks import renew_in_children
from ...support.logs import Failing, fields

log = logging.getLogger(__name__)

BUCKETS = 16
"""Sorted sets. A session's is told by the first character of its digest, which has 64."""

MEMBER_LENGTH = 16
"""Characters of a digest that are kept: 96 bits tell sessions apart, and the index is half as big."""

DEAD = 2**52
"""Scores above are of sessions that have ended: a moment, as for others, plus this. Redis keeps scores as doubles,
which are exact up to 2**53."""

_TEND_MS = 7 * 86_400_000
"""The sets go away by themselves when no worker has looked after them for a week."""

TIMEOUT = 0.5
_MEMBERS_AT_A_TIME = 1000
_DIGITS = {
    character: number % BUCKETS
    for number, character in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
}


class Redis(Protocol):
    """The part of a store that the index uses."""

    @property
    def prefix(self) -> str:
        """Return the first part of every key."""

    def run_commands(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        """Run commands on keys of one cluster slot in one round trip."""


class ActiveSessions:
    """Brings the notes of one worker to the index, and knows the number of sessions in use.

    :param recorder: is told of the sessions that have run out, by the one worker that publishes.
    :param is_up: whether requests use that Redis at the moment.
    :param interval: seconds between two updates; one worker of all publishes in each.
    :param clock: monotonic seconds.
    :ivar number: the sessions in use when this worker last looked; None: it has not, or Redis could not tell.
    :ivar looks: how often it has looked.
    """

    def __init__(
        self,
        redis: Redis,
        recorder: Recorder,
        *,
        is_up: Callable[[], bool],
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.notes = Notes(clock)
        self._name = f"{redis.prefix}:active"
        self._redis = redis
        # A little less than the interval, so that the worker that published last time can do it again in time.
        self._lease_ms = max(1, int(interval * 900))
        self._linger_ms = int(interval * 2000) + 60_000
        self._recorder = recorder
        self._is_up = is_up
        self._clock = clock
        self._begin()
        renew_in_children(self, ActiveSessions._begin)

    def _begin(self) -> None:
        """Begin anew in a forked child, which has not looked yet."""
        self.number: int | None = None
        self.looks = 0
        self._to_publish: int | None = None
        self._failing = Failing()

    def take(self) -> int | None:
        """Return the number, once, if this worker is the one to publish it; None: it is another, or the number is not
        known."""
        number, self._to_publish = self._to_publish, None
        return number

    def update(self, *, may_lead: bool = True) -> None:
        """Bring the notes to Redis and count.

        :param may_lead: whether this process may be the one that publishes and clears up.
        """
        if not self._is_up():
            self._found(None)
            return
        served, ended = self.notes.take()
        try:
            number, leads = self._bring(served, ended, may_lead)
        except StoreError as error:
            self._found(None)
            self.notes.keep(served, ended)
            self._say(str(error))
            return
        self._found(number, leads)
        self._say(None)

    def _bring(self, served: dict[str, float], ended: set[str], may_lead: bool) -> tuple[int, bool]:
        """Bring notes to the index. Return how many sessions are in use, and whether this worker is to publish that
        number.

        :param served: digest → when the session's life ends.
        """
        now_ms, leads = self._look(may_lead)
        now, number = self._clock(), 0
        scores: list[dict[str, int]] = [{} for _ in range(BUCKETS)]
        for digest, ends in served.items():
            scores[_bucket(digest)][digest[:MEMBER_LENGTH]] = now_ms + int((ends - now) * 1000)
        for digest in ended:
            scores[_bucket(digest)][digest[:MEMBER_LENGTH]] = DEAD + now_ms + self._linger_ms
        for bucket, its_scores in enumerate(scores):
            number += self._tend(bucket, its_scores, now_ms, leads)
        return number, leads

    def _look(self, may_lead: bool) -> tuple[int, bool]:
        """Return the Redis clock in ms, and whether this worker is to publish and to clear up."""
        commands: list[tuple[Any, ...]] = [("TIME",)]
        if may_lead:
            commands.append(("SET", f"{self._name}:lease", secrets.token_hex(8), "NX", "PX", self._lease_ms))
        (seconds, micros), *lease = self._redis.run_commands(commands, timeout=TIMEOUT)
        return int(seconds) * 1000 + int(micros) // 1000, any(lease)

    def _tend(self, bucket: int, scores: dict[str, int], now_ms: int, leads: bool) -> int:
        """Bring scores to a bucket. Return how many of its sessions are in use. The leader takes out those that have
        run out, which it counts, and those that were ended."""
        key = f"{self._name}:{{{bucket}}}"
        commands = list(_additions(key, scores))
        if commands or leads:
            commands.append(("PEXPIRE", key, _TEND_MS))
        if leads:
            commands += [("ZREMRANGEBYSCORE", key, low, low + now_ms) for low in (0, DEAD)]
        commands.append(("ZCOUNT", key, f"({now_ms}", f"({DEAD}"))
        replies = self._redis.run_commands(commands, timeout=TIMEOUT)
        if leads:
            self._recorder.count("sessions_expired", replies[-3])
        return int(replies[-1])

    def _say(self, problem: str | None) -> None:
        """Log what is wrong when it changes; it is told nowhere else, because the requests do without the index."""
        if problem is None:
            if self._failing.ends():
                log.warning("sessions in use are counted again", extra=fields("sessions_counted"))
        elif self._failing.begins(problem):
            log.warning(
                "sessions in use cannot be counted: %s. Redis must be 6.2 or newer, and its user must be allowed SET, "
                "TIME, PEXPIRE, ZADD, ZCOUNT and ZREMRANGEBYSCORE on %s:*",
                *(problem, self._name),
                extra=fields("sessions_not_counted", cause=problem, index=self._name),
            )

    def _found(self, number: int | None, leads: bool = True) -> None:
        self.number = number
        self.looks += 1
        if leads:
            self._to_publish = number


def _bucket(digest: str) -> int:
    return _DIGITS.get(digest[:1], 0)


def _additions(key: str, scores: dict[str, int]) -> Iterable[tuple[Any, ...]]:
    remaining = iter(scores.items())
    while part := list(islice(remaining, _MEMBERS_AT_A_TIME)):
        yield ("ZADD", key, "GT", *(item for member, score in part for item in (score, member)))
