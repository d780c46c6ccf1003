"""Redis is told of every row that changed while it may have been away, or may have lost or restored data."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from ..policy.categories import AUTH
from ..policy.health import ONLY, PRIMARY
from ..policy.leases import INCIDENT_MARGIN_MS
from ..policy.values import Position, RowState, StoreError
from ..stores.backend import Backend
from ..stores.host.entries import Claim, ResyncRound
from . import calls
from .pushes import life_of

_HOLD_MS = 6_000
"""How long a worker that was killed while it pushed changed rows keeps the others of its host waiting."""


class Resync:
    """The incidents that this worker noticed, and the rounds in which changed rows are pushed.

    :param now_ms: milliseconds since 1970; `clock`: monotonic seconds.
    """

    def __init__(self, backend: Backend, now_ms: Callable[[], int], clock: Callable[[], float]) -> None:
        self._backend = backend
        self._board = backend.board
        self._now_ms = now_ms
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin without incidents, as after a fork."""
        self._lock = threading.Lock()
        self._incidents: dict[str, float] = {}
        self._is_running = False
        self._round: ResyncRound | None = None
        self._reached: Position | None = None

    def incident_since(self, moment: float, shards: Collection[str]) -> None:
        """What changed since a moment (monotonic seconds) may not be known to these shards of Redis."""
        with self._lock:
            for shard in shards:
                self._incidents[shard] = min(moment, self._incidents.get(shard, moment))

    @property
    def has_incidents(self) -> bool:
        """Whether anything is still to be pushed to Redis because of an incident."""
        return bool(self._incidents) or self._is_running

    def run(self, shards: Collection[str]) -> bool:
        """Push what changed since the last incident to those of these shards where there was one.

        :param shards: those of Redis that answer.
        :return: whether that is done; else it is wanted still.
        :raises StoreError: Redis or the database does not answer. It is wanted still.
        """
        with self._lock:
            since = {shard: at for shard, at in sorted(self._incidents.items()) if shard in shards}
            self._is_running = bool(since)
            for shard in since:
                del self._incidents[shard]  # one that is noticed from here on is another one
        if not since:
            return True
        ms_ago, is_done = int((self._clock() - min(since.values())) * 1000), False
        try:
            is_done = self.push_changes(ms_ago, tuple(since))
        finally:
            for shard, moment in () if is_done else since.items():
                self.incident_since(moment, [shard])
            self._is_running = False
        return is_done

    def push_changes(self, ms_ago: int, shards: Sequence[str] = (ONLY,)) -> bool:
        """Push every row that changed in the last milliseconds to Redis, which may have lost or restored data.

        One worker per host does it; for the others it is done when that one is. No tombstone for a row that is only
        idle: Redis may know of a later use.

        :param shards: those of Redis to which it happened.
        :return: whether it is done; False: another worker is at it, or there is more. Call it again, with the same
            moment: it goes on where it was.
        :raises StoreError: one of the two does not answer. Call it again, as before.
        """
        now_ms = self._now_ms()
        endpoints = [self._backend.endpoint(f"{PRIMARY}{shard}") for shard in shards]
        server = " ".join(
            f"{server_identity.identity} {server_identity.canary.canary_id if server_identity.canary else ''}"
            for server_identity in (endpoint.server_identity for endpoint in endpoints)
        )
        wanted = ResyncRound(server, since_ms=now_ms - ms_ago, began_ms=now_ms - ms_ago)
        claim = self._claim(wanted)
        if claim is not Claim.MINE:
            return claim is Claim.DONE
        if self._round is None or not self._round.covers(wanted):
            self._round = replace(wanted, since_ms=wanted.since_ms - INCIDENT_MARGIN_MS, began_ms=now_ms)
            self._reached = None
        try:
            is_done = self._push_some(wanted, ms_ago + INCIDENT_MARGIN_MS, shards)
        except StoreError:
            self._end_round(None)
            raise
        if is_done:
            self._end_round(self._round)
            self._round = None
        return is_done

    def _end_round(self, done: ResyncRound | None) -> None:
        with suppress(StoreError):  # the claim lapses by itself
            self._board.end_resync(self._name, done)

    @property
    def _name(self) -> str:
        """Of this worker, after a fork too."""
        return f"{os.getpid()} {id(self)}"

    def _claim(self, wanted: ResyncRound) -> Claim:
        try:
            return self._board.claim_resync(self._name, wanted, _HOLD_MS)
        except StoreError:  # without a journal every worker does it, which costs more and does no harm
            return Claim.MINE

    def _push_some(self, wanted: ResyncRound, ms_ago: int, shards: Sequence[str]) -> bool:
        """As many of the rows as are done at once, from where it was. Whether those were all."""
        locate, database = self._backend.health.locate, self._backend.database
        endpoints = [self._backend.endpoint(f"{PRIMARY}{shard}") for shard in shards]
        for _ in range(calls.AT_ONCE):
            # Each has its own clock; by the one that is behind, nothing counts as younger than it is.
            stamp_ms = min(endpoint.time_ms(timeout=calls.TIMEOUT) for endpoint in endpoints)
            changed, reached = database.changed_since(ms_ago, self._reached, calls.PIPELINE)
            rows = [row for row in changed if locate(row.digest) in shards]
            dead = [(row.digest, row.version) for row in rows if row.state in (RowState.DEAD, RowState.EXPIRED)]
            for digest, _ in dead:
                self._backend.memory.kill(digest)
            live = [(row, life_of(row)) for row in rows if row.state is RowState.VALID]
            # Their data stays until it runs out, or the host that ended them removes it: the journal of another host
            # may still have to bring it to the id that took the place of this one. Behind a tombstone nothing reads it.
            self._backend.primary.push_many(live, dead, (AUTH,), stamp_ms=stamp_ms, timeout=calls.TIMEOUT)
            if reached is None:
                return True
            self._reached = reached
            self._claim(wanted)  # again, which prolongs it
        return False
