"""Auth records in Redis are brought up to what the database says."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set

from ..events import short
from ..policy.categories import AUTH
from ..policy.health import DATABASE
from ..policy.values import AuthRow, ErrorClass, Found, RowState, StoreError
from ..stores.backend import Backend
from ..stores.host.entries import PendingPush
from ..stores.redis.records import Answer
from ..support.logs import fields
from . import calls

log = logging.getLogger(__name__)


class Pushes:
    """Rows of the database that Redis lacks."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._redis = backend.primary
        self._database = backend.database

    def push_pending(self, entries: Sequence[PendingPush]) -> bool:
        """Push what the journal says that Redis lacks. Whether there was any."""
        self.push([entry.digest for entry in entries])
        self._backend.journal.forget_push(*entries)
        return bool(entries)

    def push_one(self, digest: str) -> AuthRow | None:
        """Bring one session's auth record in Redis up to what the database says. Returns the row if it is valid.

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
        answers = dict(zip(digests, self._redis.auths(digests, timeout=calls.TIMEOUT), strict=True)) if digests else {}
        dead_there = {digest for digest, answer in answers.items() if answer.auth and answer.auth.row is None}
        for digest in dead_there:
            self._database.kill(digest, timeout=calls.TIMEOUT)
            self._backend.row_changed(digest)
        asked = [digest for digest in answers if digest not in dead_there]
        if not asked:
            return Found({}, frozenset())
        found = self._database.load_many(asked, timeout=calls.TIMEOUT)
        for digest in found.damaged:  # one row that cannot be read must not keep a whole host from its stores
            log.error(
                "the session %s… cannot be pushed to Redis: its row is damaged",
                short(digest),
                extra=fields("row_damaged", session=short(digest)),
            )
        rows = {digest: self._used_later(row, answers[digest]) for digest, row in found.rows.items()}
        live = {digest: row for digest, row in rows.items() if row.state is RowState.VALID}
        # No session is ended here for being idle: another host may know of a later use.
        over = {digest: row.version for digest, row in rows.items() if row.state in (RowState.DEAD, RowState.EXPIRED)}
        over |= {digest: 0 for digest in asked if digest not in rows and digest not in found.damaged}
        self._redis.push_many(
            [(row, life_of(row)) for row in live.values()],
            list(over.items()),
            (AUTH,),  # see Verifier.write_tombstone
            stamp_ms=min(answers[digest].now_ms for digest in asked),
            timeout=calls.TIMEOUT,
        )
        return Found(live, found.damaged)

    def moving(self, dead: Sequence[str], database: bool) -> Set[str]:
        """Return those of some dead ids whose data may be about to go to another one.

        :param database: it answers; else nothing is known of any.
        :raises StoreError: it does not.
        """
        if not dead or not database:
            return frozenset(dead)
        return self._database.renamed(sorted(set(dead)), calls.NOTED_WITHIN_MS, timeout=calls.TIMEOUT)

    def _used_later(self, row: AuthRow, answer: Answer) -> AuthRow:
        """The row, with the use that only Redis knows of noted in the database."""
        seen = answer.auth.row.idle_expires_at if answer.auth and answer.auth.row else 0
        if seen <= max(answer.now_ms, row.idle_expires_at) or row.state not in (RowState.VALID, RowState.IDLE_EXPIRED):
            return row
        return self._database.load(row.digest, idle_ms=0, idle_seen=seen, timeout=calls.TIMEOUT) or row


def life_of(row: AuthRow) -> int:
    """How long the record of a valid row may lie in Redis, milliseconds."""
    return min(row.idle_expires_at, row.absolute_expires_at) - row.read_at
