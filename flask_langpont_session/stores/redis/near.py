"""The near cache: what this worker has read of sessions, as long as the server says that nothing of it has changed.

A hit asks no server. It is as good as an answer of the server from a moment ago: the time by which it may be late is
that which a message of the server takes, at most :data:`SILENCE`. See docs/guarantees.md.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import exceptions as driver

from ...policy.copies import RecordRef
from ...support.forks import renew_in_children
from ...support.lag import PROCESS
from ...support.logs import fields
from ..memory.memory import Memory
from .connections import RESTRAINT
from .lane import ChangeIds, Copy, Lane, Unsuitable
from .link import Link
from .records import Answer
from .server_identity import NEVER_MS, Server

log = logging.getLogger(__name__)

SILENCE = 1.0
"""Seconds since a question was asked that was answered: for so long nothing but a message can have got lost."""

MOST_LANES = 8
"""Connections to one server. Each session always has the same one, and there are more where several threads want one at
a time."""

_CROWDED = 8
"""The number of times that a lane was found in use before there are twice as many."""

REFUSED = 60.0
"""Seconds for which no connection more is opened to a server that does not say what has changed: an operator may give
its user the right to it, or another server may answer."""

_SHARE_OF_LIFE = 0.1
"""The share of a local copy's life after which it is asked for again, which also renews it."""


class Hit(NamedTuple):
    """An answer of the near cache: what is known of a session without a question.

    :param at: now, monotonic seconds.
    :param trust_since_ms: since when that server's stamps count for this worker, as of now.
    """

    copy: Copy
    at: float
    trust_since_ms: int

    @property
    def now_ms(self) -> int:
        """Return the server's clock by now, at the earliest."""
        return self.copy.now_ms + int((self.at - self.copy.answered_at) * 1000)

    @property
    def latest_ms(self) -> int:
        """Return the server's clock by now, at the latest. Between the two lies as much time as the answer took."""
        return self.copy.now_ms + int((self.at - self.copy.asked_at) * 1000) + 1


class NearCache:
    """The near cache of one server's sessions. Usable from any thread; a forked child begins with nothing.

    :param link: to the server.
    :param change_ids: of what workers of this host have changed.
    :param memory: of this worker.
    :param copies_ttl: seconds for which the worker's local copies are kept.
    :param keeps_absence: whether it counts that nothing of a session is there. A shard that gives slots away tells what
        becomes of the keys in them, and nothing of those that it does not have.
    :param clock: monotonic seconds.
    :ivar off: why there is none; empty: nothing speaks against it.
    :ivar lanes: the connections, and what was read over each.
    :ivar number: of lanes that there are to be.
    """

    def __init__(
        self,
        link: Link,
        change_ids: ChangeIds,
        memory: Memory,
        *,
        copies_ttl: float,
        keeps_absence: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self.change_ids = change_ids
        self._memory = memory
        self._longest = copies_ttl * _SHARE_OF_LIFE
        self._keeps_absence = keeps_absence
        self._clock = clock
        self.off = ""
        link.on_forget = self.forget
        self._begin()
        renew_in_children(self, NearCache._begin)

    def _begin(self) -> None:
        self.lanes: tuple[Lane, ...] = ()
        self.number = 1
        self._crowded = 0
        self._is_wanted = False
        self._rests_until = -math.inf

    @property
    def connections(self) -> int:
        """Return how many connections there are beside the pool."""
        return sum(lane.is_open for lane in self.lanes)

    def find(self, ref: RecordRef, lives_ms: Mapping[str, int]) -> Hit | None:
        """Return what is known of a session; None: the server has to be asked."""
        digest = ref.digest
        lane = self.lane_of(digest)
        if lane is None or ref.shadow:
            return None
        copy = lane.find(digest, lives_ms, ref.kind)
        return None if copy is None else self.vouches_for(copy, digest)

    def vouches_for(self, copy: Copy, digest: str) -> Hit | None:
        """Return a copy as what is known of its session by now; None: the server has to be asked."""
        lane, now = copy.lane, self._clock()
        if (
            now - lane.asked_at > SILENCE
            or not lane.is_up_to_date()
            or copy.over is not lane.over  # to be asked after the look
            or now >= copy.until
            or self.change_ids.of(digest) != copy.change_id
        ):
            return None
        trusted = self._link.server_identity.trust_since(copy.server)
        return None if trusted == NEVER_MS else Hit(copy, now, trusted)  # never: it is not the primary any more

    def reading(self, ref: RecordRef, lives_ms: Mapping[str, int]) -> Reading | None:
        """Return a question whose answer may be kept; None: it may not. To be called before the server is asked."""
        lane = None if ref.shadow else self.lane_of(ref.digest)
        change_id = self.change_ids.of(ref.digest) if lane else None
        if lane is None or change_id is None:
            return None
        connection = lane.take()
        if connection is None:
            self._crowded += lane.is_open
            return None
        return Reading(ref, lives_ms, lane, connection, change_id, self._clock())

    def keep(self, reading: Reading, answer: Answer, server: Server) -> None:
        """Keep what was read over a lane, if it may be."""
        asked_at = reading.asked_at
        reading.lane.asked_at = asked_at
        life = self._longest if answer.due_ms < 0 else min(self._longest, answer.due_ms / 1000)
        is_there = self._keeps_absence or any(record.version for record in answer.records.values())
        is_sound = answer.is_primary and not answer.damaged and is_there
        if is_sound and life > 0:
            copy = Copy(
                reading.lives_ms,
                reading.ref.kind,
                answer.now_ms,
                answer.records,
                asked_at,
                self._clock(),
                asked_at + life,
                reading.change_id,
                server,
                reading.lane,
                reading.lane.over,
            )
            reading.lane.keep(reading.ref.digest, copy)

    def attend(self) -> None:
        """Make the connections that are missing, and read what has arrived over the others. Not in requests."""
        if not self._is_wanted:
            return
        if self._crowded >= _CROWDED and self.number < MOST_LANES:
            self.number, self._crowded = self.number * 2, 0
        if len(self.lanes) != self.number:
            self.forget()
            self._is_wanted = True
            self.lanes = tuple(Lane(self._memory, self._link.is_usable) for _ in range(self.number))
        for lane in self.lanes:
            if lane.is_open:
                lane.is_up_to_date()
            elif self._clock() >= self._rests_until:
                self._open(lane)
            if lane not in self.lanes:  # another server answers meanwhile
                lane.end()

    def why_not(self) -> str:
        """Return why nothing is kept, found out over a connection of its own; empty: nothing speaks against it."""
        if not self.change_ids.are_usable():
            return "the file whose name ends in -register, beside the journal, cannot be used"
        lane = Lane(self._memory)
        self._open(lane)
        is_open = lane.is_open
        lane.end()
        return self.off or ("" if is_open else "no connection can be made for it")

    def forget(self) -> None:
        """Begin anew: another server answers now."""
        lanes, self.lanes, self._is_wanted = self.lanes, (), False
        self._rests_until = -math.inf
        for lane in lanes:
            lane.end()

    def lane_of(self, digest: str) -> Lane | None:
        """Return the lane of a session; None: there is none yet."""
        lanes = self.lanes
        if lanes:
            return lanes[hash(digest) % len(lanes)]
        self._is_wanted = True
        return None

    def _open(self, lane: Lane) -> None:
        connection, rest = None, RESTRAINT
        try:
            connection = self._link.beside(PROCESS.with_overtime(self._link.connect_timeout))
            lane.open(connection)
        except Unsuitable as why:
            if str(why) != self.off:
                log.info(
                    "session store %s: no near cache, each read asks the server: %s",
                    *(self._link.name, why),
                    extra=fields("near_cache_off", store=self._link.name, cause=str(why)),
                )
            self.off, rest = str(why), REFUSED
        except Exception:  # what is wrong is said where a request or a probe meets it
            pass
        else:
            self.off = ""
            return
        # One that does not answer holds the caller up once, and the other stores with it.
        self._rests_until = self._clock() + rest
        if connection is not None:
            connection.disconnect()


@dataclass(slots=True, eq=False)
class Reading:
    """One question over a lane, whose answer may be kept: for :class:`.Link` the source of its connection.

    :param connection: that of the lane, until the end of the question; None: it was not good, and is closed.
    :param change_id: of the session's latest change on this host before that.
    :param asked_at: monotonic seconds.
    """

    ref: RecordRef
    lives_ms: Mapping[str, int]
    lane: Lane
    connection: Any
    change_id: bytes
    asked_at: float

    def take(self, until: float) -> Any:
        """Return the connection."""
        if self.connection is None:
            raise driver.ConnectionError("the connection was closed")
        return self.connection

    def put_back(self, connection: Any) -> None:
        """Do nothing: the question may have a second part."""

    def drop(self, connection: Any) -> None:
        """Close the connection: it is not good any more."""
        self.connection = None
        self.lane.close(connection)

    def end(self) -> None:
        """Let others use the connection, whatever came of the question."""
        if self.connection is not None:
            self.lane.give_back(self.connection)
