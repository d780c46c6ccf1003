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
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

from .categories import AUTH
from .cookies import SIGNED_IN
from .events import short
from .health import DATABASE, ONLY, PRIMARY
from .losses import Cause, Loss, Losses
from .records import apply_change
from .repository import SessionRepository
from .stores.base import AuthRow, CategoryChange, ErrorClass, Operation, Position, RowState, SharedCopy, StoreError
from .stores.journal import PendingCarry, PendingRevocation, PendingWrite
from .stores.journal_entries import Basis, Claim, PendingPush, PendingUserRevocation, Settlement
from .stores.redis import new_write_id
from .stores.redis_records import ABSENT, SINCE, TIME, Merge, Merged, MergeStep, Outcome

log = logging.getLogger(__name__)


class _Everything:
    """All shards, however many there are."""

    def __contains__(self, shard: object) -> bool:
        return True


EVERYWHERE: Container[str] = _Everything()
"""Every shard that there is."""

_NO_OUTAGE = frozenset({ErrorClass.DATA, ErrorClass.TOPOLOGY})
"""Classes of errors that say something of an entry, or of a slot that is being moved, and nothing of a store."""


class _Entry(Protocol):
    """An entry of the journal."""

    @property
    def seq(self) -> int:
        """Its number; they only grow."""


E = TypeVar("E", bound=_Entry)

INCIDENT_MARGIN_MS = 60_000
"""Rows that changed up to a minute before an incident was noticed are brought to Redis again: no replica lags behind
for longer, and no clock is off by more."""

_TIMEOUT = 2.0
"""Seconds per call. Nobody waits for this thread, so it may be more patient than a request."""

_PATIENCE = 10.0
"""Seconds for a batch of rows."""

_LONG_AGO = 1
"""Microseconds since 1970. What was there under a former id was acknowledged before all that was written since."""

_BATCH = 500

_AT_ONCE = 10
"""Batches of one user's rows, and of changed rows, until other things have their turn again."""

_HOLD_MS = 6_000
"""How long a worker that was killed while it brought changed rows home keeps the others of its host waiting."""

_PIPELINE = 200
"""Rows per round trip."""


class Reconciler:
    """Replays the journal.

    :param now_ms: wall clock in milliseconds; ages of journal entries only.
    """

    def __init__(
        self, repository: SessionRepository, now_ms: Callable[[], int] = lambda: int(time.time() * 1000)
    ) -> None:
        self._repository = repository
        self._journal = repository.journal
        self._redis = repository.primary
        self._database = repository.database
        self._locate = repository.health.locate
        self._now_ms = now_ms
        self._limits = repository.limits
        self._losses = Losses(repository.recorder, repository.emit)
        # What waits for longer than copies are shown is dropped: its user has long seen something else.
        self._oldest_ms = repository.settings.local_cache_ttl * 1000
        self._as_of_ms = now_ms()
        self.copies_are_needed: Callable[[], bool] = lambda: True  # by workers of this host that are in an outage
        self._round: Settlement | None = None
        self._reached: Position | None = None

    def recovered(self) -> None:
        """A store is back: how long something has waited is counted until now, however long it takes to merge it."""
        self._as_of_ms = self._now_ms()

    def run(self, *, redis: bool, database: bool, shards: Container[str] = EVERYWHERE) -> StoreError | None:
        """Bring home what the answering stores can take of what waits.

        :param redis: the primary answers; `database`: the database answers.
        :param shards: those of the primary that answer.
        :return: why an entry could not be brought home, though the stores took others; None: all is well. Nothing is
            lost, run again.
        :raises StoreError: a store that was said to answer did not. Nothing is lost, run again.
        """
        waiting, failed = self._journal.counts(), None
        # As many rounds as that takes, and one for what comes meanwhile: siblings that write on must not keep this
        # worker at it for ever.
        for _ in range(2 + (waiting["writes"] + waiting["user_revocations"]) // _BATCH):
            moved, failed = self._run_once(redis, database, shards)
            if not moved:
                break
        return failed

    def _run_once(self, redis: bool, database: bool, shards: Container[str]) -> tuple[bool, StoreError | None]:
        """One round. Whether it brought anything home, and why an entry was left."""
        moved, left = False, None
        for bring_home in self._steps(redis, database, shards):
            try:
                moved = bring_home() or moved
            except StoreError as error:
                # One entry must not keep all others, or a whole host, from the stores; two say that no store answers,
                # unless it is about their data.
                known = left is not None and left.error_class not in _NO_OUTAGE
                if error.store == "journal" or (known and error.error_class not in _NO_OUTAGE):
                    raise
                left = left if known else error
        return moved, left

    def _steps(self, redis: bool, database: bool, shards: Container[str]) -> Iterator[Callable[[], bool]]:
        """What is to be done for each entry. Each says whether anything came home by it."""
        if redis:
            # Before the former id is buried, with what it has.
            for carry in _pages(self._journal.pending_carries):
                if self._locate(carry.origin) in shards and self._locate(carry.digest) in shards:
                    yield partial(self._carry, carry, database)
        if database:
            for user in self._journal.pending_user_revocations(_BATCH, redis=redis):
                yield partial(self._revoke_user, user, redis, shards)
        revocations = partial(self._journal.pending_revocations, database=database, redis=redis)
        for entry in _pages(revocations):
            yield partial(self._revoke, entry, redis and self._locate(entry.digest) in shards, database)
        if redis and database:
            for push in _pages(self._journal.pending_pushes):
                if self._locate(push.digest) in shards:
                    yield partial(self._settle_push, push)
        if redis:
            waiting = (
                entry
                for entry in _pages(self._journal.pending_writes)
                if self._locate(entry.digest) in shards and (database or not _is_for_database(entry))
            )
            if entries := list(islice(waiting, _BATCH)):
                yield partial(self._merge_some, entries, database)

    def _revoke_user(self, entry: PendingUserRevocation, redis: bool, shards: Container[str]) -> bool:
        """Log a user out of what began before that moment; who signed in since then stays."""
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
            self._bury_all([(digest, 1) for digest in digests], shards)
            entry = replace(entry, reached=digests[-1])
            self._journal.advance_user_revocation(entry)
        return False

    def _kill_some(self, entry: PendingUserRevocation, after: str) -> list[str]:
        digests = self._database.kill_user_until(
            entry.user_id, entry.until_ms, _PATIENCE, epoch=entry.epoch, after=after, limit=_BATCH
        )
        for digest in digests:
            self._repository.local.kill(digest)
            self._repository.row_changed(digest)
            self._repository.no_longer_in_use(digest)
        return digests

    def _bury_all(self, dead: Sequence[tuple[str, int]], shards: Container[str]) -> None:
        reached = [(digest, version) for digest, version in dead if self._locate(digest) in shards]
        for begin in range(0, len(reached), _PIPELINE):
            part = reached[begin : begin + _PIPELINE]
            self._redis.settle([], part, self._categories, stamp_ms=0, timeout=_TIMEOUT)

    def _revoke(self, entry: PendingRevocation, redis: bool, database: bool) -> bool:
        version = int(entry.in_database)
        to_database, to_redis = database and not entry.in_database, redis and not entry.in_redis
        self._repository.local.kill(entry.digest)
        self._repository.no_longer_in_use(entry.digest)
        if to_database:
            dead = dict(self._database.revoke(entry.digest, timeout=_TIMEOUT))
            version = dead.pop(entry.digest, 0)
            for later in dead:  # the session had been given another id
                self._repository.row_changed(later)
                self._journal.revoke(later, in_database=True)
            self._journal.settle_revocation(entry.digest, in_database=True)
        if to_redis:
            self._redis.bury(entry.digest, version, self._categories, timeout=_TIMEOUT)
            self._journal.settle_revocation(entry.digest, in_redis=True)
        return to_database or to_redis

    def _settle_push(self, entry: PendingPush) -> bool:
        try:
            self._push(entry.digest)
        except StoreError as error:
            if error.error_class is not ErrorClass.DATA:
                raise
            # One row that cannot be read must not keep a whole host from its stores.
            log.error("the session %s… cannot be pushed to Redis: %s", short(entry.digest), error)
        self._journal.forget_push(entry)
        return True

    def _push(self, digest: str) -> AuthRow | None:
        """Bring one session's auth record in Redis up to what the database says. Returns the row if it is valid."""
        answer = self._redis.read(digest, {AUTH: 0}, kind=SIGNED_IN, timeout=_TIMEOUT)
        if answer.auth and answer.auth.row is None:
            self._database.kill(digest, timeout=_TIMEOUT)
            self._repository.row_changed(digest)
            return None
        idle_seen = answer.auth.row.idle_expires_at if answer.auth and answer.auth.row else 0
        # Nobody is ended here for being idle: another host may know of a later use.
        known = idle_seen if idle_seen > answer.now_ms else None
        row = self._database.load(digest, idle_ms=0, idle_seen=known, timeout=_TIMEOUT)
        if row is not None and row.state is RowState.IDLE_EXPIRED:
            return None
        if row is not None and row.state is RowState.VALID:
            pushed = self._redis.push(row, answer.now_ms, _life_of(row), timeout=_TIMEOUT)
            return row if pushed != "dead" else None
        self._redis.bury(digest, row.version if row else 0, self._categories, timeout=_TIMEOUT)
        return None

    @property
    def _categories(self) -> tuple[str, ...]:
        return tuple(self._repository.table.categories)

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
        stores = [self._repository.store(f"{PRIMARY}{shard}") for shard in shards]
        server = " ".join(
            f"{fence.identity} {fence.canary.generation if fence.canary else ''}"
            for fence in (store.fence for store in stores)
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
        stores = [self._repository.store(f"{PRIMARY}{shard}") for shard in shards]
        for _ in range(_AT_ONCE):
            # Each has its own clock; by the one that is behind, nothing counts as younger than it is.
            stamp_ms = min(store.time_ms(timeout=_TIMEOUT) for store in stores)
            changed, reached = self._database.changed_since(ms_ago, self._reached, _PIPELINE)
            rows = [row for row in changed if self._locate(row.digest) in shards]
            dead = [(row.digest, row.version) for row in rows if row.state in (RowState.DEAD, RowState.EXPIRED)]
            for digest, _ in dead:
                self._repository.local.kill(digest)
            live = [(row, _life_of(row)) for row in rows if row.state is RowState.VALID]
            self._redis.settle(live, dead, self._categories, stamp_ms=stamp_ms, timeout=_TIMEOUT)
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
            self._bury_all([(entry.digest, 0) for entry in waiting], shards)
            renewed = waiting[-1].seq
        return True

    def _carry(self, entry: PendingCarry, database: bool) -> bool:
        """Bring what a session had under a former id to the present one, where nothing is there. Whether it is done."""
        found = self._redis.read(entry.origin, dict.fromkeys(entry.categories, 0), timeout=_TIMEOUT)
        guard = "alive" if entry.kind == SIGNED_IN else "free"
        merges = [
            self._merge_of(entry.digest, name, entry.kind, [_where_absent(*item) for item in fields.items()], guard)
            for name, (_, fields) in found.categories.items()
            if fields
        ]
        statuses = self._merge_all(merges)
        if "gone" in statuses:
            if not database:
                return False
            statuses = self._merge_all(merges) if self._push(entry.digest) else {"dead"}
        if "dead" in statuses:
            for name in entry.categories:
                self._losses.note(Loss.MERGE_DROPPED, Cause.SESSION_OVER, name)
        if statuses & {"gone", "late"}:
            return False
        self._journal.forget_carries([entry])
        return True

    def _merge_all(self, merges: Sequence[Merge]) -> set[str]:
        """How the merges ended.

        :raises StoreError: one of them failed.
        """
        statuses = set()
        for merged in self._redis.merge_all(merges, limits=self._limits, timeout=_TIMEOUT, write_id=new_write_id()):
            if isinstance(merged, StoreError):
                raise merged
            statuses.add(merged.status)
        return statuses

    def _merge_of(
        self, digest: str, category: str, kind: str, steps: Sequence[MergeStep], guard: str, shadow: bool = False
    ) -> Merge:
        life_ms = self._repository.life_of(category, kind, self._repository.settings.life)
        return Merge(digest, category, steps, guard, life_ms, shadow)

    def _merge_some(self, entries: Sequence[PendingWrite], database: bool) -> bool:
        """Bring a batch of changes home, in the order in which they were made. Whether any of them is settled."""
        fresh = [entry for entry in entries if self._as_of_ms - entry.at_ms <= self._oldest_ms]
        settled = set(entries) - set(fresh)
        self._drop(settled, Cause.TOO_OLD)
        of_auth = [entry for entry in fresh if _is_for_database(entry)]
        groups = _by_category([entry for entry in fresh if not _is_for_database(entry)])
        for begin in range(0, len(groups), _PIPELINE):
            settled |= self._merge_groups(groups[begin : begin + _PIPELINE], database)
        for group in _by_category(of_auth) if database else ():
            settled |= self._merge_auth(group)
        return bool(settled)

    def _merge_groups(self, groups: Sequence[Sequence[PendingWrite]], database: bool) -> set[PendingWrite]:
        """Merge what waits for some categories. What is settled, one way or the other."""
        settled: list[PendingWrite] = []
        failed: StoreError | None = None
        for group, reply in self._send(groups):
            if database and isinstance(reply, Merged) and reply.status == "gone":
                reply = self._merge_again(group)  # Redis lost a session that SQL may still know
            if isinstance(reply, StoreError):
                if reply.error_class is not ErrorClass.DATA:
                    failed = reply
                    continue
                self._drop(group, Cause.REFUSED)
            elif reply.status in ("gone", "late"):
                continue  # whether the session lives is not known; or it is merged the next time
            elif reply.status == "dead":
                self._drop(group, Cause.SESSION_OVER)
            else:
                self._count(group, reply.outcomes)
            settled += group
        for category, lost in self._journal.forget_writes(settled, self._copies(settled)).items():
            self._losses.note(Loss.MERGE_CONFLICTS, Cause.WRITTEN_SINCE, category, lost)
        if failed is not None:
            raise failed
        return set(settled)

    def _send(
        self, groups: Sequence[Sequence[PendingWrite]]
    ) -> list[tuple[Sequence[PendingWrite], Merged | StoreError]]:
        """Send what waits for some categories, all in one round trip. What was sent of each, and what became of it.

        From before it is sent each entry is marked with the id of this write: should the answer be lost, the next try
        knows by it what Redis has, and adds nothing twice. What was written again meanwhile is left for the next try.
        """
        write_id, now = new_write_id(), time.monotonic()
        digests = {group[0].digest for group in groups}
        moments_ms = {digest: self._redis.estimated_ms(digest, now) for digest in digests}
        marked = self._journal.mark_sent([entry for group in groups for entry in group], write_id, moments_ms)
        sent = _by_category(marked)
        merges = [self._merge_for(group) for group in sent]
        replies = self._redis.merge_all(merges, limits=self._limits, timeout=_TIMEOUT, write_id=write_id)
        return list(zip(sent, replies, strict=True))

    def _merge_for(self, group: Sequence[PendingWrite]) -> Merge:
        first = group[0]
        guard = "alive" if first.kind == SIGNED_IN and not first.shadow else "free"
        steps = [_step(entry) for entry in group]
        return self._merge_of(first.digest, first.category, first.kind, steps, guard, first.shadow)

    def _merge_again(self, group: Sequence[PendingWrite]) -> Merged | StoreError:
        """Of a session that Redis does not know: as the database says."""
        try:
            row = self._push(group[0].digest)
        except StoreError as error:
            return error
        if row is None:
            return Merged("dead")
        again = self._send([group])
        return again[0][1] if again and len(again[0][0]) == len(group) else Merged("late")

    def _count(self, group: Sequence[PendingWrite], outcomes: Sequence[Outcome]) -> None:
        self._repository.recorder.count("merged_fields", sum(outcome is Outcome.APPLIED for outcome in outcomes))
        for entry, outcome in zip(group, outcomes, strict=True):
            if outcome is Outcome.CONFLICT:
                self._losses.note(Loss.MERGE_CONFLICTS, Cause.WRITTEN_SINCE, entry.category)
            elif outcome is not Outcome.APPLIED:
                self._losses.note(Loss.MERGE_DROPPED, Cause[outcome.name], entry.category)

    def _copies(self, settled: Sequence[PendingWrite]) -> list[SharedCopy]:
        """The categories as they are now, for this worker and for those of this host that cannot reach Redis, or do
        not use it yet: what was merged is laid over reads no more, and to them it would look undone."""
        local, are_needed = self._repository.local, self.copies_are_needed()
        merged = {(entry.digest, entry.category) for entry in settled if not entry.shadow}
        wanted = [place for place in merged if are_needed or local.category(*place) is not None]
        try:
            copies = self._redis.copies(wanted, timeout=_TIMEOUT) if wanted else []
        except StoreError:  # it is merged all the same, and no entry may say that it waits
            for digest, category in wanted:
                local.forget_category(digest, category)
            return []
        shared = []
        for (digest, category), copy in zip(wanted, copies, strict=True):
            local.put_category(digest, category, copy, is_truth=True)
            shared.append(SharedCopy(digest, category, copy))
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
            for entry in group:
                if not self._is_right(entry.field) and _may_apply(entry, row):
                    change.put(entry.field, entry.value)
            if not change or self._update(row, change):
                applied = len(change.writes)
                self._repository.recorder.count("merged_fields", applied)
                self._losses.note(Loss.MERGE_CONFLICTS, Cause.WRITTEN_SINCE, AUTH, len(group) - applied)
                self._journal.forget_writes(group)
                return set(group)
            row = self._push(row.digest)  # another one was faster: again, with what is there now
        return self._drop(group, Cause.SESSION_OVER)

    def _is_right(self, key: str) -> bool:
        """Users and rights never wait here: where one does, it was not put there by this package."""
        settings = self._repository.settings
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
            self._repository.row_changed(row.digest)
            self._push(row.digest)
        return updated is not None

    def _drop(self, entries: Collection[PendingWrite], why: Cause) -> set[PendingWrite]:
        for entry in entries:
            self._losses.note(Loss.MERGE_DROPPED, why, entry.category)
        if entries:
            log.warning("%d changes of sessions that were kept during an outage are dropped: %s", len(entries), why)
            self._journal.forget_writes(entries)
        return set(entries)


def _is_for_database(entry: PendingWrite) -> bool:
    """Auth of a user is what the database says."""
    return entry.category == AUTH and entry.kind == SIGNED_IN and not entry.shadow


def _by_category(entries: Iterable[PendingWrite]) -> list[list[PendingWrite]]:
    """Entries by the category of one session that they are for, each in their order."""
    groups: dict[tuple[str, bool, str], list[PendingWrite]] = {}
    for entry in entries:
        groups.setdefault((entry.digest, entry.shadow, entry.category), []).append(entry)
    return list(groups.values())


def _where_absent(key: str, value: bytes) -> MergeStep:
    return MergeStep(Operation.SET, key, value, ABSENT, acknowledged=_LONG_AGO)


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


def _pages(pending: Callable[..., list[E]]) -> Iterator[E]:
    """Everything that waits, a batch at a time: what is for a lost shard must not stand before all else."""
    after = 0
    while page := pending(_BATCH, after=after):
        yield from page
        if len(page) < _BATCH:
            return
        after = page[-1].seq


def answering(repository: SessionRepository) -> tuple[bool, bool]:
    """Which of (primary, database) requests use at the moment, both directions. Of several shards one is enough."""
    return bool(answering_shards(repository)), repository.health.is_whole(DATABASE)


def answering_shards(repository: SessionRepository) -> frozenset[str]:
    """The shards of the primary that requests use at the moment, in both directions."""
    health = repository.health
    return frozenset(health.shards) - set(health.lost_shards)
