"""After an outage: what this host's journal holds goes home, revocations first, then pushes, then data; and Redis is
told of every row that changed while it may have been away.

Everything here is idempotent (absolute values, versions, compare-and-set, additions with ids that Redis remembers), so
it may be repeated after any failure.

Of a Redis of several shards some may answer and others not: what is for those waits, and nothing else does.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from ..events import short
from ..metrics.losses import Cause, Loss
from ..policy.categories import AUTH
from ..policy.health import DATABASE, ONLY, PRIMARY
from ..policy.ids import ANONYMOUS, SIGNED_IN
from ..policy.records import apply_change
from ..policy.values import (
    AuthRow,
    Basis,
    CategoryChange,
    CategoryCopy,
    ErrorClass,
    Found,
    Operation,
    Position,
    RowState,
    SharedCopy,
    StoreError,
)
from ..stores.backend import Backend
from ..stores.host.entries import (
    WIPED_FIELD,
    Claim,
    PendingPush,
    PendingUserRevocation,
    Settlement,
)
from ..stores.host.journal import PendingCarry, PendingRevocation, PendingWrite
from ..stores.redis.records import ABSENT, SINCE, TIME, Answer, Merge, Merged, MergeStep, Outcome
from ..stores.redis.store import new_write_id

log = logging.getLogger(__name__)


class _Everything:
    """All shards, however many there are."""

    def __contains__(self, shard: object) -> bool:
        return True


EVERYWHERE: Container[str] = _Everything()
"""Every shard that there is."""

_OF_ONE_SESSION = frozenset({ErrorClass.DATA, ErrorClass.LOCAL})
"""Classes with which a server refuses one session's changes, and will again: the others must not wait for them."""

_NO_OUTAGE = frozenset({ErrorClass.DATA, ErrorClass.TOPOLOGY})
"""Classes of errors that say something of an entry, or of a slot that is being moved, and nothing of a store."""


class _Entry(Protocol):
    """An entry of the journal."""

    @property
    def seq(self) -> int:
        """Its number; they only grow."""


E = TypeVar("E", bound=_Entry)

_Sent = tuple[Sequence[PendingWrite], Merged | StoreError]

INCIDENT_MARGIN_MS = 60_000
"""Rows that changed up to a minute before an incident was noticed are brought to Redis again: no replica lags behind
for longer, and no clock is off by more."""

_TIMEOUT = 2.0
"""Seconds per call. Nobody waits for this thread, so it may be more patient than a request."""

_PATIENCE = 10.0
"""Seconds for a batch of rows."""

_BATCH = 500

_AT_ONCE = 10
"""Batches of one user's rows, and of changed rows, until other things have their turn again."""

_HOLD_MS = 6_000
"""How long a worker that was killed while it brought changed rows home keeps the others of its host waiting."""

_PIPELINE = 200
"""Rows per round trip."""

_LONG_AGO = 1
"""Microseconds since 1970. What was there under a former id was acknowledged before all that was written since."""


class Progress(NamedTuple):
    """What one run did.

    :param moved: whether anything was brought home.
    :param is_through: whether all that waits was looked at; else it goes on there at the next run.
    :param left: why an entry could not be brought home, though the stores took others; None: all is well.
    """

    moved: bool
    is_through: bool
    left: StoreError | None = None


class _Step(NamedTuple):
    """Entries that are brought home together.

    :param is_ordered: what comes after them must not be brought home before them.
    """

    bring_home: Callable[[Sequence[Any]], bool]
    entries: Sequence[Any]
    is_ordered: bool = False


class Reconciler:
    """Replays the journal, many sessions at a time.

    :param now_ms: wall clock in milliseconds; ages of journal entries only.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        backend: Backend,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._journal = backend.journal
        self._redis = backend.primary
        self._database = backend.database
        self._locate = backend.health.locate
        self._now_ms = now_ms
        self._clock = clock
        self._limits = backend.limits
        self._losses = backend.reports.losses
        # What waits for longer than copies are shown is dropped: its user has long seen something else.
        self._oldest_ms = backend.settings.local_cache_ttl * 1000
        self._as_of_ms = now_ms()
        self.is_home = True  # nothing has waited since a store came back
        self.copies_are_needed: Callable[[], bool] = lambda: True  # by workers of this host that are in an outage
        self._round: Settlement | None = None
        self._reached: Position | None = None
        self._after = 0  # the number of the change that was looked at last; 0: none of this pass

    def recovered(self) -> None:
        """A store is back: how long something has waited is counted until now, however long it takes to merge it, and
        whatever fails meanwhile."""
        if self.is_home:
            self._as_of_ms, self.is_home = self._now_ms(), False

    def run(
        self,
        *,
        redis: bool,
        database: bool,
        shards: Container[str] = EVERYWHERE,
        data: bool = True,
        seconds: float = _PATIENCE,
    ) -> Progress:
        """Bring home what the answering stores can take of what waits: revocations before data, the oldest first.

        :param redis: the primary answers; `database`: the database answers.
        :param shards: those of the primary that answer.
        :param data: changes of sessions too.
        :param seconds: after these nothing more is begun.
        :raises StoreError: a store that was said to answer did not. Nothing is lost, run again.
        """
        end, moved = self._clock() + seconds, False
        while True:
            done = self._run_once(redis, database, shards, data, end)
            moved = moved or done.moved
            if not (done.moved and done.is_through) or self._clock() >= end:
                return done._replace(moved=moved)

    def _run_once(self, redis: bool, database: bool, shards: Container[str], data: bool, end: float) -> Progress:
        """Once through all that waits."""
        moved, left = False, None
        for step in self._steps(redis, database, shards, data):
            try:
                moved = step.bring_home(step.entries) or moved
            except StoreError as error:
                if error.store == "journal" or step.is_ordered:
                    self._after = 0
                    raise
                moved_some, left = self._one_by_one(step, error, left)
                moved = moved or moved_some
            if self._clock() >= end:
                return Progress(moved, False, left)
        return Progress(moved, True, left)

    def _one_by_one(self, step: _Step, error: StoreError, left: StoreError | None) -> tuple[bool, StoreError | None]:
        """Bring entries home one by one that could not be brought home together.

        :param left: why an entry was left before.
        :return: whether any came home, and why one was left.
        """
        moved = False
        for entry in step.entries:
            failed: StoreError | None = error
            if len(step.entries) > 1:
                try:
                    moved, failed = step.bring_home([entry]) or moved, None
                except StoreError as again:
                    failed = again
            if failed is not None:
                left = _worse(left, failed)
        return moved, left

    def _steps(self, redis: bool, database: bool, shards: Container[str], data: bool) -> Iterator[_Step]:
        """What is to be done, a batch at a time."""
        if redis and data:
            for carries in _pages(self._journal.pending_carries):
                reached = [c for c in carries if self._locate(c.origin) in shards and self._locate(c.digest) in shards]
                yield from (_Step(partial(self._carry, database=database), some) for some in _unchained(reached))
        if database:
            for user in self._journal.pending_user_revocations(_BATCH, redis=redis):
                yield _Step(partial(self._revoke_user, redis=redis, shards=shards), [user])
        for revocations in _pages(partial(self._journal.pending_revocations, database=database, redis=redis)):
            revoke = partial(
                self._revoke, redis=redis, database=database, shards=shards, being_carried=self._being_carried()
            )
            yield _Step(revoke, revocations)
        if redis and database:
            for pushes in _pages(self._journal.pending_pushes):
                yield _Step(self._settle_pushes, [push for push in pushes if self._locate(push.digest) in shards])
        if redis and data:
            yield from self._changes(database, shards)

    def _being_carried(self) -> Container[str]:
        """The former ids whose data must stay until it was brought to the present ones, and those: what waits for them
        comes behind it.

        To be asked for after that was read: a carry is kept before what follows from it.
        """
        waiting = [carry for carries in _pages(self._journal.pending_carries) for carry in carries]
        return {digest for carry in waiting for digest in (carry.origin, carry.digest)}

    def _changes(self, database: bool, shards: Container[str]) -> Iterator[_Step]:
        """The changes that wait, from where the last run was interrupted."""
        while waiting := self._journal.pending_writes(_BATCH, after=self._after):
            being_carried = self._being_carried()
            reached = [
                entry
                for entry in waiting
                if self._locate(entry.digest) in shards
                and (database or not _is_for_database(entry))
                and entry.digest not in being_carried
            ]
            self._after = waiting[-1].seq
            if reached:
                yield _Step(partial(self._merge_some, database=database), reached, is_ordered=True)
            if len(waiting) < _BATCH:
                break
        self.is_home = self.is_home or not (waiting or self._after)
        self._after = 0

    def _revoke_user(self, entries: Sequence[PendingUserRevocation], redis: bool, shards: Container[str]) -> bool:
        """Log a user out of what began before that moment; who signed in since then stays."""
        [entry] = entries
        if redis:
            return self._revoke_user_everywhere(entry, shards)
        reached = ""
        while digests := self._kill_some(entry, reached):
            reached = digests[-1]
        self._journal.advance_user_revocation(replace(entry, in_database=True))
        return True

    def _revoke_user_everywhere(self, entry: PendingUserRevocation, shards: Container[str]) -> bool:
        """As many of the rows as are done at once; whoever goes on begins there. Whether those were all."""
        for _ in range(_AT_ONCE):
            digests = self._kill_some(entry, entry.reached)
            if not digests:
                self._journal.forget_user_revocation(entry)
                return True
            lost = [digest for digest in digests if self._locate(digest) not in shards]
            if lost:
                self._journal.revoke(*lost, in_database=True)
            self._write_tombstones([(digest, 1) for digest in digests], shards)
            entry = replace(entry, reached=digests[-1])
            self._journal.advance_user_revocation(entry)
        return False

    def _kill_some(self, entry: PendingUserRevocation, after: str) -> list[str]:
        digests = self._database.kill_user_until(
            entry.user_id, entry.until_ms, _PATIENCE, epoch=entry.epoch, after=after, limit=_BATCH
        )
        for digest in digests:
            self._backend.local.kill(digest)
            self._backend.row_changed(digest)
            self._backend.reports.no_longer_in_use(digest)
        return digests

    def _write_tombstones(self, dead: Sequence[tuple[str, int]], shards: Container[str]) -> None:
        reached = [(digest, version) for digest, version in dead if self._locate(digest) in shards]
        for begin in range(0, len(reached), _PIPELINE):
            part = reached[begin : begin + _PIPELINE]
            self._redis.push_many([], part, self._categories, stamp_ms=0, timeout=_TIMEOUT)

    def _revoke(
        self,
        entries: Sequence[PendingRevocation],
        redis: bool,
        database: bool,
        shards: Container[str],
        being_carried: Container[str],
    ) -> bool:
        for entry in entries:
            self._backend.local.kill(entry.digest)
            self._backend.reports.no_longer_in_use(entry.digest)
        to_database = [entry.digest for entry in entries if database and not entry.in_database]
        versions = {entry.digest: int(entry.in_database) for entry in entries}
        if to_database:
            dead = self._database.revoke_many(to_database, timeout=_TIMEOUT)
            versions.update(dict.fromkeys(to_database, 0) | dead)
            later = dead.keys() - set(to_database)  # the session had been given another id
            for digest in later:
                self._backend.row_changed(digest)
            if later:
                self._journal.revoke(*sorted(later), in_database=True)
            self._journal.settle_revocation(*to_database, in_database=True)
        lacking = [
            entry.digest for entry in entries if redis and not entry.in_redis and entry.digest not in being_carried
        ]
        to_redis = [digest for digest in lacking if self._locate(digest) in shards]
        if to_redis:
            tombstones = [(digest, versions[digest]) for digest in to_redis]
            self._redis.push_many([], tombstones, self._categories, stamp_ms=0, timeout=_TIMEOUT)
            self._journal.settle_revocation(*to_redis, in_redis=True)
        return bool(to_database or to_redis)

    def _settle_pushes(self, entries: Sequence[PendingPush]) -> bool:
        self.push([entry.digest for entry in entries])
        self._journal.forget_push(*entries)
        return bool(entries)

    def _push(self, digest: str) -> AuthRow | None:
        """Bring one session's auth record in Redis up to what the database says. Returns the row if it is valid."""
        pushed = self.push([digest])
        if digest in pushed.damaged:
            raise StoreError(DATABASE, ErrorClass.DATA, "UnreadablePayload")
        return pushed.rows.get(digest)

    def push(self, digests: Sequence[str]) -> Found:
        """Bring the auth records of sessions in Redis up to what the database says.

        :return: the rows that are valid, and whose rows cannot be read.
        :raises StoreError: one of the two does not answer.
        """
        answers = dict(zip(digests, self._redis.auths(digests, timeout=_TIMEOUT), strict=True)) if digests else {}
        dead_there = {digest for digest, answer in answers.items() if answer.auth and answer.auth.row is None}
        for digest in dead_there:
            self._database.kill(digest, timeout=_TIMEOUT)
            self._backend.row_changed(digest)
        asked = [digest for digest in answers if digest not in dead_there]
        if not asked:
            return Found({}, frozenset())
        found = self._database.load_many(asked, timeout=_TIMEOUT)
        for digest in found.damaged:  # one row that cannot be read must not keep a whole host from its stores
            log.error("the session %s… cannot be pushed to Redis: its row is damaged", short(digest))
        rows = {digest: self._used_later(row, answers[digest]) for digest, row in found.rows.items()}
        live = {digest: row for digest, row in rows.items() if row.state is RowState.VALID}
        # Nobody is ended here for being idle: another host may know of a later use.
        over = {digest: row.version for digest, row in rows.items() if row.state in (RowState.DEAD, RowState.EXPIRED)}
        over |= {digest: 0 for digest in asked if digest not in rows and digest not in found.damaged}
        self._redis.push_many(
            [(row, _life_of(row)) for row in live.values()],
            list(over.items()),
            (AUTH,),  # see Verifier.write_tombstone
            stamp_ms=min(answers[digest].now_ms for digest in asked),
            timeout=_TIMEOUT,
        )
        return Found(live, found.damaged)

    def _used_later(self, row: AuthRow, answer: Answer) -> AuthRow:
        """The row, with the use that only Redis knows of noted in the database."""
        seen = answer.auth.row.idle_expires_at if answer.auth and answer.auth.row else 0
        if seen <= max(answer.now_ms, row.idle_expires_at) or row.state not in (RowState.VALID, RowState.IDLE_EXPIRED):
            return row
        return self._database.load(row.digest, idle_ms=0, idle_seen=seen, timeout=_TIMEOUT) or row

    @property
    def _categories(self) -> tuple[str, ...]:
        return tuple(self._backend.table.categories)

    def settle_changes(self, ms_ago: int, shards: Sequence[str] = (ONLY,)) -> bool:
        """Bring every row that changed in the last milliseconds to Redis, which may have lost or restored data.

        One worker per host does it; for the others it is done when that one is. No tombstone for a row that is only
        idle: Redis may know of a later use.

        :param shards: those of Redis to which it happened.
        :return: whether it is done; False: another worker is at it, or there is more. Call it again, with the same
            moment: it goes on where it was.
        :raises StoreError: one of the two does not answer. Call it again, as before.
        """
        now_ms = self._now_ms()
        stores = [self._backend.store(f"{PRIMARY}{shard}") for shard in shards]
        server = " ".join(
            f"{server_identity.identity} {server_identity.canary.generation if server_identity.canary else ''}"
            for server_identity in (store.server_identity for store in stores)
        )
        wanted = Settlement(server, since_ms=now_ms - ms_ago, began_ms=now_ms - ms_ago)
        claim = self._claim(wanted)
        if claim is not Claim.MINE:
            return claim is Claim.DONE
        if self._round is None or not self._round.covers(wanted):
            self._round = replace(wanted, since_ms=wanted.since_ms - INCIDENT_MARGIN_MS, began_ms=now_ms)
            self._reached = None
        try:
            is_done = self._settle_rows(wanted, ms_ago + INCIDENT_MARGIN_MS, shards)
        except StoreError:
            self._end_settlement(None)
            raise
        if is_done:
            self._end_settlement(self._round)
            self._round = None
        return is_done

    def _end_settlement(self, done: Settlement | None) -> None:
        with suppress(StoreError):  # the claim lapses by itself
            self._journal.end_settlement(self._name, done)

    @property
    def _name(self) -> str:
        """Of this worker, after a fork too."""
        return f"{os.getpid()} {id(self)}"

    def _claim(self, wanted: Settlement) -> Claim:
        try:
            return self._journal.claim_settlement(self._name, wanted, _HOLD_MS)
        except StoreError:  # without a journal every worker does it, which costs more and harms nobody
            return Claim.MINE

    def _settle_rows(self, wanted: Settlement, ms_ago: int, shards: Sequence[str]) -> bool:
        """As many of the rows as are done at once, from where it was. Whether those were all."""
        stores = [self._backend.store(f"{PRIMARY}{shard}") for shard in shards]
        for _ in range(_AT_ONCE):
            # Each has its own clock; by the one that is behind, nothing counts as younger than it is.
            stamp_ms = min(store.time_ms(timeout=_TIMEOUT) for store in stores)
            changed, reached = self._database.changed_since(ms_ago, self._reached, _PIPELINE)
            rows = [row for row in changed if self._locate(row.digest) in shards]
            dead = [(row.digest, row.version) for row in rows if row.state in (RowState.DEAD, RowState.EXPIRED)]
            for digest, _ in dead:
                self._backend.local.kill(digest)
            live = [(row, _life_of(row)) for row in rows if row.state is RowState.VALID]
            # Their data stays until it runs out, or the host that ended them removes it: the journal of another host
            # may still have to bring it to the id that took the place of this one. Behind a tombstone nothing reads it.
            self._redis.push_many(live, dead, (AUTH,), stamp_ms=stamp_ms, timeout=_TIMEOUT)
            if reached is None:
                return True
            self._reached = reached
            self._claim(wanted)  # again, which prolongs it
        return False

    def renew_tombstones(self, shards: Container[str] = EVERYWHERE) -> bool:
        """Write the tombstones again that the database has not heard of: until it has, Redis must not forget them.

        :param shards: those of Redis that answer.
        :raises StoreError: Redis does not answer.
        """
        renewed = 0
        while waiting := self._journal.pending_revocations(_PIPELINE, database=True, redis=False, after=renewed):
            self._write_tombstones([(entry.digest, 0) for entry in waiting], shards)
            renewed = waiting[-1].seq
        return True

    def _carry(self, entries: Sequence[PendingCarry], database: bool) -> bool:
        """Bring what sessions had under former ids to the present ones, where nothing is there. Whether any is done."""
        wanted = [(entry.origin, name) for entry in entries for name in entry.categories]
        copies = dict(zip(wanted, self._redis.copies(wanted, timeout=_TIMEOUT), strict=True))
        merges = {entry: self._brought(entry, copies) for entry in entries}
        statuses = self._carried(merges)
        gone = [entry for entry in entries if "gone" in statuses[entry]]
        if gone and database:
            known = self.push([entry.digest for entry in gone])
            statuses |= {entry: {"dead"} for entry in gone if entry.digest not in known.rows}
            statuses |= self._carried({entry: merges[entry] for entry in gone if entry.digest in known.rows})
        for entry in entries:
            if "dead" in statuses[entry]:
                for name in entry.categories:
                    self._losses.note(Loss.MERGE_DROPPED, Cause.SESSION_OVER, name)
        done = [entry for entry in entries if not statuses[entry] & {"gone", "late"}]
        self._wipe([entry for entry in done if entry.left_us])
        self._journal.forget_carries(done)
        being_carried = self._being_carried()  # of these less is there than will be
        whole = [entry for entry in done if entry.digest not in being_carried]
        brought = {(entry.digest, name): entry.kind for entry in whole for name in entry.categories}
        self._journal.publish_copies(self._copies(brought))
        return bool(done)

    def _brought(self, entry: PendingCarry, copies: Mapping[tuple[str, str], CategoryCopy]) -> list[Merge]:
        """What lies under a former id; where Redis has lost that, what this host knew of it.

        :param copies: the digest of the former id and a category → what Redis has there.
        """
        left = {name: copies[entry.origin, name] for name in entry.categories}
        if not all(copy.meta for copy in left.values()):
            known = self._journal.overlay(entry.digest).copies
            left = {name: copy if copy.meta else known.get(name, copy) for name, copy in left.items()}
        return [
            self._merge_of(entry.digest, name, entry.kind, steps, _guard(entry))
            for name, copy in left.items()
            if (steps := _brought(copy))
        ]

    def _wipe(self, entries: Sequence[PendingCarry]) -> None:
        """Former ids that were given up have nothing any more.

        :raises StoreError: they may have it still. To be done again, with all that was carried.
        """
        places = [(entry, name) for entry in entries for name in entry.categories]
        wipes = [
            self._merge_of(entry.origin, name, ANONYMOUS, [_wipe_at(entry.left_us)], "free") for entry, name in places
        ]
        replies = self._merge_all(wipes)
        for (entry, name), reply in zip(places, replies, strict=True):
            if reply.status != "merged":
                raise StoreError(PRIMARY, ErrorClass.LOCAL, "LateCommand")
            self._backend.note_wipe(entry.origin, name, reply.version)

    def _merge_all(self, merges: Sequence[Merge]) -> list[Merged]:
        """:raises StoreError: one of them failed."""
        replies = self._redis.merge_all(merges, limits=self._limits, timeout=_TIMEOUT, write_id=new_write_id())
        done = []
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
            done.append(reply)
        return done

    def _carried(self, merges: Mapping[PendingCarry, Sequence[Merge]]) -> dict[PendingCarry, set[str]]:
        """How the merges of each ended.

        :raises StoreError: one of them failed.
        """
        replies = iter(self._merge_all([merge for some in merges.values() for merge in some]))
        return {entry: {next(replies).status for _ in some} for entry, some in merges.items()}

    def _merge_of(
        self, digest: str, category: str, kind: str, steps: Sequence[MergeStep], guard: str, shadow: bool = False
    ) -> Merge:
        life_ms = self._backend.life_of(category, kind, self._backend.settings.life)
        return Merge(digest, category, steps, guard, life_ms, shadow)

    def _merge_some(self, entries: Sequence[PendingWrite], database: bool) -> bool:
        """Bring a batch of changes home, in the order in which they were made. Whether any of them is settled."""
        fresh = [entry for entry in entries if not self._is_too_old(entry)]
        settled = set(entries) - set(fresh)
        self._drop(settled, Cause.TOO_OLD)
        of_auth = [entry for entry in fresh if _is_for_database(entry)]
        groups = _by_category([entry for entry in fresh if not _is_for_database(entry)])
        for begin in range(0, len(groups), _PIPELINE):
            settled |= self._merge_groups(groups[begin : begin + _PIPELINE], database)
        for group in _by_category(of_auth) if database else ():
            settled |= self._merge_auth(group)
        return bool(settled)

    def _is_too_old(self, entry: PendingWrite) -> bool:
        """Its user has long seen something else. A wipe holds however late it is: what was written since stays."""
        return entry.operation is not Operation.WIPE and self._as_of_ms - entry.at_ms > self._oldest_ms

    def _merge_groups(self, groups: Sequence[Sequence[PendingWrite]], database: bool) -> set[PendingWrite]:
        """Merge what waits for some categories. What is settled, one way or the other."""
        sent = self._send(groups)
        gone = [group for group, reply in sent if _is_gone(reply)]
        if gone and database:  # Redis lost sessions that SQL may still know
            sent = [one for one in sent if not _is_gone(one[1])] + self._send_again(gone)
        settled: list[PendingWrite] = []
        failed: StoreError | None = None
        for group, reply in sent:
            if isinstance(reply, StoreError):
                if reply.error_class not in _OF_ONE_SESSION:
                    failed = reply
                    continue
                self._drop(group, Cause.REFUSED)
            elif _is_gone(reply):
                continue  # whether the session lives is not known
            elif reply.status == "late":
                failed = failed or StoreError(PRIMARY, ErrorClass.LOCAL, "LateCommand")
                continue
            elif reply.status == "dead":
                self._drop(group, Cause.SESSION_OVER)
            else:
                self._count(group, reply.outcomes)
            settled += group
        merged = {(entry.digest, entry.category): entry.kind for entry in settled if not entry.shadow}
        for group, reply in sent:
            if isinstance(reply, Merged) and reply.version and group[0].operation is Operation.WIPE:
                self._backend.note_wipe(group[0].digest, group[0].category, reply.version)
        self._losses.outdated(self._journal.forget_writes(settled, self._copies(merged)))
        if failed is not None:  # what comes after it must not be merged before it
            raise failed
        return set(settled)

    def _send(self, groups: Sequence[Sequence[PendingWrite]]) -> list[_Sent]:
        """Send what waits for some categories, all in one round trip. What was sent of each, and what became of it.

        From before it is sent each entry is marked with the id of its write: should the answer be lost, the next try
        knows by it what Redis has, and adds nothing twice. What was written again meanwhile is left for the next try.
        """
        write_id, now = new_write_id(), time.monotonic()
        digests = {group[0].digest for group in groups}
        moments_ms = {digest: self._redis.estimated_ms(digest, now) for digest in digests}
        ids = {entry: used for group in groups if (used := _used_id(group) or write_id) for entry in group}
        sent = _by_category(self._journal.mark_sent(ids, moments_ms))
        merges = [self._merge_for(group, ids[group[0]]) for group in sent]
        replies = self._redis.merge_all(merges, limits=self._limits, timeout=_TIMEOUT, write_id=write_id)
        return list(zip(sent, replies, strict=True))

    def _merge_for(self, group: Sequence[PendingWrite], write_id: str) -> Merge:
        first = group[0]
        steps = [_step(entry) for entry in group]
        merge = self._merge_of(first.digest, first.category, first.kind, steps, _guard(first), first.shadow)
        return merge._replace(write_id=write_id)

    def _send_again(self, groups: Sequence[Sequence[PendingWrite]]) -> list[_Sent]:
        """Changes of sessions that Redis does not know: as the database says."""
        known = self.push(sorted({group[0].digest for group in groups}))
        damaged = StoreError(DATABASE, ErrorClass.DATA, "UnreadablePayload")
        sent = self._send([group for group in groups if group[0].digest in known.rows])
        for group in groups:
            if group[0].digest in known.damaged:
                sent.append((group, damaged))
            elif group[0].digest not in known.rows:
                sent.append((group, Merged("dead")))
        return sent

    def _count(self, group: Sequence[PendingWrite], outcomes: Sequence[Outcome]) -> None:
        self._backend.recorder.count("merged_fields", sum(outcome is Outcome.APPLIED for outcome in outcomes))
        for entry, outcome in zip(group, outcomes, strict=True):
            if outcome is Outcome.CONFLICT:
                self._losses.note(Loss.MERGE_CONFLICTS, Cause.of_conflict(entry.basis), entry.category)
            elif outcome is not Outcome.APPLIED:
                self._losses.note(Loss.MERGE_DROPPED, Cause[outcome.name], entry.category)

    def _copies(self, merged: Mapping[tuple[str, str], str]) -> list[SharedCopy]:
        """Categories as they are now, for this worker and for those of this host that cannot reach Redis, or do not use
        it yet: what was merged is laid over reads no more, and to them it would look undone.

        :param merged: digest and category → kind of the session.
        """
        local, are_needed = self._backend.local, self.copies_are_needed()
        wanted = [place for place in merged if are_needed or local.category(*place) is not None]
        asked_at = self._clock()
        try:
            copies = self._redis.copies(wanted, timeout=_TIMEOUT) if wanted else []
        except StoreError:  # it is merged all the same, and no entry may say that it waits
            for digest, category in wanted:
                local.forget_category(digest, category)
            return []
        shared = []
        for (digest, category), copy in zip(wanted, copies, strict=True):
            kind = merged[digest, category]
            local.put_category(digest, category, copy, kind=kind, began=copy.version, as_of=asked_at)
            shared.append(SharedCopy(digest, category, copy, kind=kind))
        return shared if are_needed else []

    def _merge_auth(self, group: Sequence[PendingWrite]) -> set[PendingWrite]:
        """Ordinary auth keys, written while the database was down; rights never wait here. All of them are settled."""
        try:
            row = self._push(group[0].digest)
        except StoreError as error:
            if error.error_class is not ErrorClass.DATA:
                raise
            return self._drop(group, Cause.DAMAGED_ROW)
        while row is not None:
            change = CategoryChange(life_ms=0)
            in_row = [entry for entry in group if not self._is_right(entry.field) and _may_apply(entry, row)]
            for entry in in_row:
                change.put(entry.field, entry.value)
            if not change or self._update(row, change):
                applied = len(in_row)
                self._backend.recorder.count("merged_fields", applied)
                self._losses.note(Loss.MERGE_CONFLICTS, Cause.WRITTEN_SINCE, AUTH, len(group) - applied)
                self._journal.forget_writes(group, in_row=in_row)
                return set(group)
            row = self._push(row.digest)  # another one was faster: again, with what is there now
        return self._drop(group, Cause.SESSION_OVER)

    def _is_right(self, key: str) -> bool:
        """Users and rights never wait here: where one does, it was not put there by this package."""
        settings = self._backend.settings
        return key in settings.user_key_patterns or key in settings.privilege_key_patterns

    def _update(self, row: AuthRow, change: CategoryChange) -> bool:
        updated = self._database.update(
            row.digest,
            seen=row.version,
            payload=apply_change(row.payload, change),
            user_id=row.user_id,
            idle_ms=row.idle_expires_at - row.read_at,
            timeout=_TIMEOUT,
        )
        if updated is not None:
            self._backend.row_changed(row.digest)
            self._push(row.digest)
        return updated is not None

    def _drop(self, entries: Collection[PendingWrite], why: Cause) -> set[PendingWrite]:
        for entry in entries:
            self._losses.note(Loss.MERGE_DROPPED, why, entry.category)
        if entries:
            log.warning("%d changes of sessions that were kept during an outage are dropped: %s", len(entries), why)
            self._journal.forget_writes(entries)
        return set(entries)


def _used_id(group: Sequence[PendingWrite]) -> str:
    """The id under which entries of a category were sent before; empty: they were not. Under the same one again: else
    what fails for long would be followed by more and more ids."""
    return next((entry.doubts.split()[-1] for entry in group if entry.doubts), "")


def _is_gone(reply: Merged | StoreError) -> bool:
    return isinstance(reply, Merged) and reply.status == "gone"


def _is_for_database(entry: PendingWrite) -> bool:
    """Auth of a user is what the database says."""
    return entry.category == AUTH and entry.kind == SIGNED_IN and not entry.shadow


def _by_category(entries: Iterable[PendingWrite]) -> list[list[PendingWrite]]:
    """Entries by the category of one session that they are for, each in their order."""
    groups: dict[tuple[str, bool, str], list[PendingWrite]] = {}
    for entry in entries:
        groups.setdefault((entry.digest, entry.shadow, entry.category), []).append(entry)
    return list(groups.values())


def _worse(left: StoreError | None, failed: StoreError) -> StoreError:
    """Why entries were left. One of them must not keep all others, or a whole host, from the stores.

    :raises StoreError: two say that no store answers, unless it is about their data.
    """
    known = left is not None and left.error_class not in _NO_OUTAGE
    if failed.store == "journal" or (known and failed.error_class not in _NO_OUTAGE):
        raise failed
    return left if left is not None and known else failed


def _guard(entry: PendingWrite | PendingCarry) -> str:
    """On which condition Redis takes it, see ``record.lua``."""
    is_shadow = isinstance(entry, PendingWrite) and entry.shadow
    return "alive" if entry.kind == SIGNED_IN and not is_shadow else "free"


def _wipe_at(moment_us: int) -> MergeStep:
    return MergeStep(Operation.WIPE, WIPED_FIELD, b"", TIME, moment_us, acknowledged=moment_us)


def _brought(copy: CategoryCopy) -> list[MergeStep]:
    """What was there under a former id, where nothing is under the present one."""
    fields = [MergeStep(Operation.SET, *field, ABSENT, acknowledged=_LONG_AGO) for field in copy.fields.items()]
    return [MergeStep(Operation.RECORD, value=copy.meta), *fields] if copy.meta else fields


def _step(entry: PendingWrite) -> MergeStep:
    if entry.operation is Operation.ADD:
        moment = max(entry.moment, 1) if entry.is_sent else 0  # what was never sent cannot be in doubt
        return MergeStep(Operation.ADD, entry.field, entry.delta, entry.token, moment, acknowledged=entry.acknowledged)
    return MergeStep(
        entry.operation,
        entry.field,
        entry.value or b"",
        _MODES[entry.basis],
        entry.moment,
        entry.base,
        entry.doubts,
        entry.acknowledged,
    )


_MODES = {Basis.BLIND: TIME, Basis.SEEN: SINCE, Basis.UNSEEN: ABSENT}


def _may_apply(write: PendingWrite, row: AuthRow) -> bool:
    """A field is applied unless it was written since the host saw the row, as the merge script has it for Redis."""
    now = row.payload.get(write.field)
    return row.version == write.moment or now in (write.base, write.value)


def _life_of(row: AuthRow) -> int:
    """How long the record of a valid row may lie in Redis, milliseconds."""
    return min(row.idle_expires_at, row.absolute_expires_at) - row.read_at


def _pages(pending: Callable[..., list[E]]) -> Iterator[list[E]]:
    """Everything that waits, a batch at a time: what is for a lost shard must not stand before all else."""
    after = 0
    while page := pending(_PIPELINE, after=after):
        yield page
        if len(page) < _PIPELINE:
            return
        after = page[-1].seq


def _unchained(carries: Iterable[PendingCarry]) -> Iterator[list[PendingCarry]]:
    """Carries in their order, those that can be done together in one list: none is from where another one goes."""
    together: list[PendingCarry] = []
    for carry in carries:
        if any(carry.origin == before.digest for before in together):
            yield together
            together = []
        together.append(carry)
    if together:
        yield together


def answering(backend: Backend) -> tuple[bool, bool]:
    """Which of (primary, database) requests use at the moment, both directions. Of several shards one is enough."""
    return bool(answering_shards(backend)), backend.health.is_whole(DATABASE)


def answering_shards(backend: Backend) -> frozenset[str]:
    """The shards of the primary that requests use at the moment, in both directions."""
    health = backend.health
    return frozenset(health.shards) - set(health.lost_shards)
