"""Pushes: auth records in Redis are brought up to what the database says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import compress
from typing import TypeAlias, TypeVar

from ..events import short
from ..policy.categories import AUTH
from ..policy.errors import ErrorClass, StoreError
from ..policy.health import DATABASE, ONLY, PRIMARY
from ..policy.leases import INCIDENT_MARGIN_MS
from ..policy.rows import AuthRow, Found, RowState
from ..stores.backend import Backend
from ..stores.host.board import ResyncRound
from ..stores.host.entries import PendingPush
from ..stores.redis.records import Answer, Merged
from ..support.logs import fields
from . import steps
from .steps import Reach, Step

log = logging.getLogger(__name__)

_PATIENCE = 6.0
"""Seconds for which a worker waits for another one of its host that does it, and may hang."""

_NOTED_WITHIN_MS = 30_000
"""Milliseconds after a change of id for which what waits for the former one stays. The request tells the database
first, which ends the former id, and then the journal where the data goes: it may be between the two. gunicorn ends a
worker that is held up for longer (its ``timeout``)."""


U = TypeVar("U")
Sent: TypeAlias = "list[tuple[U, Merged | StoreError]]"
"""The answer of Redis about each thing that was sent."""


class Pushes(Step):
    """Pushes rows of which the journal says that Redis lacks them, and those that other steps meet."""

    def pending(self, reach: Reach) -> Iterator[Sequence[PendingPush]]:
        for page in steps.pages(self._journal.pending_pushes) if reach.redis and reach.database else ():
            yield [push for push in page if reach.has(push.digest)]

    def send(self, entries: Sequence[PendingPush], reach: Reach) -> bool:
        self.push([entry.digest for entry in entries])
        self._journal.forget_push(*entries)
        return bool(entries)

    def push_one(self, digest: str) -> AuthRow | None:
        """Bring one session's auth record in Redis up to what the database says, and return the row if it is valid.

        :raises StoreError: one of the two does not answer, or the row cannot be read.
        """
        pushed = self.push([digest])
        if digest in pushed.damaged:
            raise StoreError(DATABASE, ErrorClass.DATA, "UnreadablePayload")
        return pushed.rows.get(digest)

    def push(self, digests: Sequence[str]) -> Found:
        """Bring the auth records of sessions in Redis up to what the database says.

        :return: the rows that are valid, and whose rows cannot be read.
        :raises StoreError: one of the two does not answer.
        """
        answers = dict(zip(digests, self._redis.auths(digests, timeout=steps.TIMEOUT), strict=True)) if digests else {}
        dead_there = {digest for digest, answer in answers.items() if answer.auth and answer.auth.row is None}
        for digest in dead_there:
            self._database.kill(digest, timeout=steps.TIMEOUT)
            self._backend.row_changed(digest)
        asked = [digest for digest in answers if digest not in dead_there]
        if not asked:
            return Found({}, frozenset())
        found = self._database.load_many(asked, timeout=steps.TIMEOUT)
        for digest in found.damaged:  # one row that cannot be read must not keep a whole host from its stores
            log.error(
                "the session %s… cannot be pushed to Redis: its row is damaged",
                short(digest),
                extra=fields("row_damaged", session=short(digest)),
            )
        rows = {digest: self._used_later(row, answers[digest]) for digest, row in found.rows.items()}
        rowless = [(digest, 0) for digest in asked if digest not in rows and digest not in found.damaged]
        stamp_ms = min(answers[digest].now_ms for digest in asked)
        tell_redis(self._backend, list(rows.values()), rowless, stamp_ms)
        return Found({digest: row for digest, row in rows.items() if row.state is RowState.VALID}, found.damaged)

    def send_with_rows(
        self, send: Callable[[Sequence[U]], Sent[U]], units: Sequence[U], digest_of: Callable[[U], str], reach: Reach
    ) -> Sent[U]:
        """Send what is for some sessions. Where Redis has lost a session, push its row and send again.

        :param send: returns how Redis has answered to each.
        :param digest_of: says which session each is for.
        :return: with ``gone`` of those sessions of which it is not known whether they live, or whether their data is
            about to go to another id, and an error of those whose rows cannot be read.
        """
        sent = send(units)
        if reach.database:
            gone, sent = split(sent, "gone")
            found = self.push(sorted({digest_of(unit) for unit in gone}))
            known = [unit for unit in gone if digest_of(unit) in found.rows]
            sent += send(known) if known else []
            damaged = StoreError(DATABASE, ErrorClass.DATA, "UnreadablePayload")
            for unit in gone:
                if digest_of(unit) not in found.rows:
                    sent.append((unit, damaged if digest_of(unit) in found.damaged else Merged("dead")))
        dead, others = split(sent, "dead")
        moving = self._moving({digest_of(unit) for unit in dead}, reach)
        return [(unit, Merged("gone" if digest_of(unit) in moving else "dead")) for unit in dead] + others

    def _moving(self, dead: Set[str], reach: Reach) -> Set[str]:
        """Return those of some dead ids whose data may be about to go to another one; only the database knows."""
        if not dead or not reach.database:
            return dead
        return self._database.renamed(sorted(dead), _NOTED_WITHIN_MS, timeout=steps.TIMEOUT)

    def _used_later(self, row: AuthRow, answer: Answer) -> AuthRow:
        """Return the row, with the use that only Redis knows of noted in the database."""
        seen = answer.auth.row.idle_expires_at if answer.auth and answer.auth.row else 0
        if seen <= max(answer.now_ms, row.idle_expires_at) or row.state not in (RowState.VALID, RowState.IDLE_EXPIRED):
            return row
        return self._database.load(row.digest, idle_seen=seen, timeout=steps.TIMEOUT) or row


class Resync(Step):
    """Tells Redis of every row that changed while it may have been away, or may have lost or restored data.

    The workers of a host do it together, one at a time: each goes on where another one was.

    :param now_ms: milliseconds since 1970; `clock`: monotonic seconds.
    """

    is_ordered = True

    def __init__(self, backend: Backend, now_ms: Callable[[], int], clock: Callable[[], float]) -> None:
        super().__init__(backend)
        self._board = backend.board
        self._now_ms = now_ms
        self._clock = clock
        self._lock = threading.Lock()
        self._incidents: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._round = ResyncRound("", 0, 0)
        self._waits_since: float | None = None

    def incident_since(self, moment: float, shards: Collection[str]) -> None:
        """Note that what changed since a moment (monotonic seconds) may not be known to these shards of Redis."""
        with self._lock:
            for shard in shards:
                self._incidents[shard] = min(moment, self._incidents.get(shard, moment))

    @property
    def has_incidents(self) -> bool:
        """Return whether anything is still to be pushed to Redis because of an incident."""
        return bool(self._incidents or self._begun)

    @property
    def is_unfinished(self) -> bool:
        """Return whether something that was begun is not done: another worker is at it, or it failed."""
        return bool(self._begun)

    def pending(self, reach: Reach) -> Iterator[Sequence[dict[str, float]]]:
        """Yield the shards that answer and have met an incident, each with its moment."""
        unfinished, self._begun = self._begun, {}
        for shard, moment in unfinished.items():
            self.incident_since(moment, [shard])
        with self._lock:
            since = {shard: at for shard, at in sorted(self._incidents.items()) if shard in reach.shards}
            self._begun = since if reach.database else {}
            for shard in self._begun:
                del self._incidents[shard]  # one that is noticed from here on is another one
        if self._begun:
            yield [self._begun]

    def send(self, entries: Sequence[dict[str, float]], reach: Reach) -> bool:
        """Push what changed since the first of these moments, or some of it. Return whether that is all."""
        [since] = entries
        is_done = self.push_changes(int((self._clock() - min(since.values())) * 1000), tuple(since))
        if is_done:
            self._begun = {}
        return is_done

    def push_changes(self, ms_ago: int, shards: Sequence[str] = (ONLY,)) -> bool:
        """Push every row that changed in the last milliseconds to Redis, which may have lost or restored data.

        No tombstone for a row that is only idle: Redis may know of a later use.

        :param shards: those of Redis to which it happened.
        :return: whether it is done; False: another worker is at it, or there is more. Call it again, with the same
            moment: it goes on where it was.
        :raises StoreError: one of the two does not answer. Call it again, as before.
        """
        now_ms = self._now_ms()
        known = [self._backend.endpoint(f"{PRIMARY}{shard}").server_identity for shard in shards]
        server = " ".join(f"{one.identity} {one.canary.canary_id if one.canary else ''}" for one in known)
        wanted = ResyncRound(server, since_ms=now_ms - ms_ago, began_ms=now_ms - ms_ago)
        with ExitStack() as ends:
            return self._is_mine(ends) and self._go_on(wanted, shards)

    def _is_mine(self, ends: ExitStack) -> bool:
        """Return whether this worker is to do it until the end: no other one is at it, or that one hangs. Without a
        journal every worker does it, which costs more and does no harm."""
        is_alone = True
        with suppress(StoreError):
            is_alone = ends.enter_context(self._journal.alone())
        self._waits_since = None if is_alone else self._waits_since or self._clock()
        return self._waits_since is None or self._clock() >= self._waits_since + _PATIENCE

    def _go_on(self, wanted: ResyncRound, shards: Sequence[str]) -> bool:
        with suppress(StoreError):
            if (latest := self._board.resync_round()).covers(wanted):
                self._round = latest
        if not self._round.covers(wanted):
            self._round = replace(wanted, since_ms=wanted.since_ms - INCIDENT_MARGIN_MS, began_ms=self._now_ms())
        if not self._round.is_done:
            self._push_some(shards)
            with suppress(StoreError):  # the other workers do it, too
                self._board.note_resync(self._round)
        return self._round.is_done

    def _push_some(self, shards: Sequence[str]) -> None:
        """Push as many of the rows as are done at once, from where the round is."""
        locate, ms_ago = self._backend.health.locate, self._now_ms() - self._round.since_ms
        endpoints = [self._backend.endpoint(f"{PRIMARY}{shard}") for shard in shards]
        for _ in range(steps.AT_ONCE):
            # Each has its own clock; by the one that is behind, nothing counts as younger than it is.
            stamp_ms = min(endpoint.time_ms(timeout=steps.TIMEOUT) for endpoint in endpoints)
            changed, reached = self._database.changed_since(ms_ago, self._round.reached, steps.PIPELINE)
            # Their data stays until it runs out, or the host that ended them removes it: the journal of another host
            # may still have to bring it to the id that took the place of this one. Behind a tombstone nothing reads it.
            tell_redis(self._backend, [row for row in changed if locate(row.digest) in shards], [], stamp_ms)
            self._round = replace(self._round, reached=reached, is_done=reached is None)
            if self._round.is_done:
                return


def split(sent: Sent[U], status: str) -> tuple[list[U], Sent[U]]:
    """Return what Redis has answered with this status, and the others with their replies."""
    found = [isinstance(reply, Merged) and reply.status == status for _, reply in sent]
    return [unit for unit, _ in compress(sent, found)], [
        one for one, is_so in zip(sent, found, strict=True) if not is_so
    ]


def tell_redis(backend: Backend, rows: Sequence[AuthRow], rowless: Sequence[tuple[str, int]], stamp_ms: int) -> None:
    """Push valid rows to Redis, and write tombstones for those that are over. Nothing ends a session for being idle:
    another host may know of a later use.

    :param rowless: digests of sessions without a row, and the version 0.
    :param stamp_ms: when the database was asked, by the clock of Redis.
    """
    over = [(row.digest, row.version) for row in rows if row.state in (RowState.DEAD, RowState.EXPIRED)]
    for digest, _ in over:
        backend.memory.kill(digest)
    live = [
        (row, min(row.idle_expires_at, row.absolute_expires_at) - row.read_at)
        for row in rows
        if row.state is RowState.VALID
    ]
    # Of auth alone: what else a session has is taken away where nothing of it is to be carried any more.
    backend.primary.push_many([*live, *over, *rowless], (AUTH,), stamp_ms=stamp_ms, timeout=steps.TIMEOUT)
