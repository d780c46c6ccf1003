"""After an outage: what this host's journal holds goes home, revocations first, then pushes, then data.

Everything here is idempotent (absolute values, versions, compare-and-set), so several workers of a host may run it at
once and it may be repeated after any failure. The one exception, additions, is never repeated after a time-out: one
too few is possible, twice is not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import groupby

from .categories import AUTH
from .cookies import SIGNED_IN
from .events import short
from .health import DATABASE, PRIMARY, READ, WRITE
from .records import apply_change
from .repository import SessionRepository
from .stores.base import AuthRow, CategoryChange, ErrorClass, RowState, StoreError
from .stores.journal import PendingRevocation, PendingWrite
from .stores.journal_entries import PendingPush
from .stores.redis import Merged, MergeField

log = logging.getLogger(__name__)

OLDEST_WRITE_MS = 900_000
"""Data written longer ago than fifteen minutes is dropped: the user has long seen something else."""

_TIMEOUT = 2.0
"""Seconds per call. Nobody waits for this thread, so it may be more patient than a request."""

_BATCH = 500


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
        self._now_ms = now_ms

    def run(self, *, redis: bool, database: bool) -> None:
        """Bring home what the answering stores can take.

        :param redis: the primary answers; `database`: the database answers.
        :raises StoreError: a store that was said to answer did not; nothing is lost, run again.
        """
        while self._run_once(redis, database):  # until nothing more can be brought home
            pass

    def _run_once(self, redis: bool, database: bool) -> bool:
        """One round. Whether it brought anything home."""
        waiting = self._journal.pending_revocations(_BATCH, database=database, redis=redis)
        moved = [self._revoke(entry, redis, database) for entry in waiting]
        if redis and database:
            for push in self._journal.pending_pushes(_BATCH):
                self._settle_push(push)
                moved.append(True)
        if redis:
            moved += self._merge_all(database)
        return any(moved)

    def _revoke(self, entry: PendingRevocation, redis: bool, database: bool) -> bool:
        version = 0
        to_database, to_redis = database and not entry.in_database, redis and not entry.in_redis
        if to_database:
            version = self._database.kill(entry.digest, timeout=_TIMEOUT) or 0
            self._journal.settle_revocation(entry.digest, in_database=True)
        if to_redis:
            self._redis.bury(entry.digest, version, tuple(self._repository.table.categories), timeout=_TIMEOUT)
            self._journal.settle_revocation(entry.digest, in_redis=True)
        return to_database or to_redis

    def _settle_push(self, entry: PendingPush) -> None:
        try:
            self._push(entry.digest)
        except StoreError as error:
            if error.error_class is not ErrorClass.DATA:
                raise
            # One row that cannot be read must not keep a whole host from its stores.
            log.error("the session %s… cannot be pushed to Redis: %s", short(entry.digest), error)
        self._journal.forget_push(entry)

    def _push(self, digest: str) -> AuthRow | None:
        """Bring one session's auth record in Redis up to what the database says. Returns the row if it is valid."""
        stamp_ms = self._redis.time_ms(timeout=_TIMEOUT)
        row = self._database.load(digest, idle_ms=0, timeout=_TIMEOUT)
        if row is not None and row.state is RowState.VALID:
            life_ms = min(row.idle_expires_at, row.absolute_expires_at) - row.read_at
            return row if self._redis.push(row, stamp_ms, life_ms, timeout=_TIMEOUT) != "dead" else None
        version = row.version if row else 0
        self._redis.bury(digest, version, tuple(self._repository.table.categories), timeout=_TIMEOUT)
        return None

    def _merge_all(self, database: bool) -> list[bool]:
        entries = self._journal.pending_writes(_BATCH, signed_in=database)
        entries.sort(key=lambda e: (e.digest, e.shadow, e.category, e.seq))
        groups = groupby(entries, key=lambda e: (e.digest, e.shadow, e.category))
        return [self._merge_group(category, list(group), database) for (_, _, category), group in groups]

    def _merge_group(self, category: str, writes: list[PendingWrite], database: bool) -> bool:
        """Bring home what waits for one category of one session. Whether it was settled, one way or the other."""
        fresh = [write for write in writes if self._now_ms() - write.at_ms <= OLDEST_WRITE_MS]
        if not fresh:
            self._drop(writes, "too old")
        elif not self._needs_database(fresh[0]):
            self._merge(fresh, writes)
        elif database:
            self._merge_signed_in(category, fresh, writes)
        else:
            return False  # without the database nobody can say whether the session lives; its entries stay
        return True

    @staticmethod
    def _needs_database(write: PendingWrite) -> bool:
        return write.kind == SIGNED_IN and not write.shadow

    def _merge_signed_in(self, category: str, fresh: Sequence[PendingWrite], writes: Sequence[PendingWrite]) -> None:
        try:
            row = self._push(fresh[0].digest)
        except StoreError as error:
            if error.error_class is not ErrorClass.DATA:
                raise
            self._drop(writes, "its row in the database cannot be read")
            return
        if row is None:
            self._drop(writes, "session over")
        elif category == AUTH:
            self._merge_auth(row, fresh)
            self._journal.forget_writes(writes)
        else:
            self._merge(fresh, writes)

    def _merge_auth(self, row: AuthRow, writes: Sequence[PendingWrite]) -> None:
        """Ordinary auth keys, written while the database was down; rights never wait here."""
        change = CategoryChange(life_ms=0)
        for write in writes:
            if write.value is None:
                change.deletes.add(write.field)
            else:
                change.sets[write.field] = write.value
        self._database.update(
            row.digest,
            seen=row.version,
            payload=apply_change(row.payload, change),
            user_id=row.user_id,
            idle_ms=row.idle_expires_at - row.read_at,
            timeout=_TIMEOUT,
        )
        self._push(row.digest)

    def _merge(self, fresh: Sequence[PendingWrite], writes: Sequence[PendingWrite]) -> None:
        # An addition is taken out of the journal before it is sent: two workers that replay at the same time, or one
        # that is killed in between, must not add it twice.
        sent = [write for write in fresh if not write.is_delta or self._journal.claim(write)]
        try:
            merged = self._send(sent)
        except StoreError as error:
            if error.error_class is not ErrorClass.UNREACHABLE:  # the server refused, so nothing was added
                self._put_back([write for write in sent if write.is_delta])
            raise
        counted = {"merged_fields": merged.applied, "merge_conflicts": merged.conflicts}
        if merged.status != "merged":
            counted["merge_dropped"] = len(sent)
        for name, number in counted.items():
            self._repository.recorder.count(name, number)
        self._journal.settle_writes([write for write in writes if not write.is_delta], merged.version)

    def _send(self, writes: Sequence[PendingWrite]) -> Merged:
        if not writes:
            return Merged("merged")
        first = writes[0]
        guarded = self._needs_database(first)
        return self._redis.merge(
            first.digest,
            first.category,
            [_as_field(write) for write in writes],
            guard="alive" if guarded else "free",
            life_ms=self._repository.life_of(first.category, "u" if guarded else "a", self._repository.settings.life),
            timeout=_TIMEOUT,
            shadow=first.shadow,
        )

    def _put_back(self, additions: Sequence[PendingWrite]) -> None:
        for write in additions:
            self._journal.increment(
                write.digest,
                kind=write.kind,
                user_id=write.user_id,
                shadow=write.shadow,
                category=write.category,
                field=write.field,
                by=write.delta,
                base=write.base,
                base_version=write.base_version,
            )

    def _drop(self, writes: Sequence[PendingWrite], why: str) -> None:
        log.info("%d values written during the outage were dropped: %s", len(writes), why)
        self._repository.recorder.count("merge_dropped", len(writes))
        self._journal.forget_writes(writes)


def _as_field(write: PendingWrite) -> MergeField:
    operation = "add" if write.is_delta else "del" if write.value is None else "set"
    value = write.delta if write.is_delta else write.value or b""
    return MergeField(operation, write.field, value, write.base_version, write.base, write.at_ms)


def answering(repository: SessionRepository) -> tuple[bool, bool]:
    """Which of (primary, database) requests use at the moment, both directions."""
    shut = repository.health.open_stores()
    return (
        not shut & {(PRIMARY, READ), (PRIMARY, WRITE)},
        not shut & {(DATABASE, READ), (DATABASE, WRITE)},
    )
