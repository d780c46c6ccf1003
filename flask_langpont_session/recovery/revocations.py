"""Revocations that not all stores know of yet: of single sessions, and of all sessions of a user."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from ..policy.health import ONLY
from ..stores.backend import Backend
from ..stores.host.entries import PendingUserRevocation
from ..stores.host.journal import PendingRevocation
from . import calls


class MissedRevocations:
    """Tells the stores of them: the database first, for it is what other hosts ask."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._queue = backend.journal.revocations
        self._database = backend.database
        self._locate = backend.health.locate

    def revoke_user(self, entries: Sequence[PendingUserRevocation], redis: bool, shards: Container[str]) -> bool:
        """Log a user out of what began before that moment; later sign-ins stay. Whether all of it is done."""
        [entry] = entries
        if redis:
            return self._revoke_user_everywhere(entry, shards)
        reached = ""
        while digests := self._kill_some(entry, reached):
            reached = digests[-1]
        self._queue.advance_user(replace(entry, in_database=True))
        return True

    def _revoke_user_everywhere(self, entry: PendingUserRevocation, shards: Container[str]) -> bool:
        """As many of the rows as are done at once; the next call begins there. Whether those were all."""
        for _ in range(calls.AT_ONCE):
            digests = self._kill_some(entry, entry.reached)
            if not digests:
                self._queue.forget_user(entry)
                return True
            lost = [digest for digest in digests if self._locate(digest) not in shards]
            if lost:
                self._queue.note(*lost, in_database=True)
            self._write_tombstones([(digest, 1) for digest in digests], shards)
            entry = replace(entry, reached=digests[-1])
            self._queue.advance_user(entry)
        return False

    def _kill_some(self, entry: PendingUserRevocation, after: str) -> list[str]:
        digests = self._database.kill_user_until(
            entry.user_id, entry.until_ms, calls.PATIENCE, epoch=entry.epoch, after=after, limit=calls.BATCH
        )
        for digest in digests:
            self._backend.local.kill(digest)
            self._backend.row_changed(digest)
            self._backend.reports.no_longer_in_use(digest)
        return digests

    def revoke(
        self,
        entries: Sequence[PendingRevocation],
        redis: bool,
        database: bool,
        shards: Container[str],
        being_carried: Container[str],
    ) -> bool:
        """Tell the stores that answer of dead sessions. Whether any was told.

        :param being_carried: digests whose data must stay for now, see :meth:`.Carries.waiting`.
        """
        for entry in entries:
            self._backend.local.kill(entry.digest)
            self._backend.reports.no_longer_in_use(entry.digest)
        to_database = [entry.digest for entry in entries if database and not entry.in_database]
        versions = {entry.digest: int(entry.in_database) for entry in entries}
        if to_database:
            versions |= self._revoke_in_database(to_database)
        lacking = [
            entry.digest for entry in entries if redis and not entry.in_redis and entry.digest not in being_carried
        ]
        to_redis = [digest for digest in lacking if self._locate(digest) in shards]
        if to_redis:
            self._send_tombstones([(digest, versions[digest]) for digest in to_redis])
            self._queue.mark_done(*to_redis, in_redis=True)
        return bool(to_database or to_redis)

    def _revoke_in_database(self, digests: Sequence[str]) -> dict[str, int]:
        """The version of each dead row; 0: there is none."""
        dead = self._database.revoke_many(digests, timeout=calls.TIMEOUT)
        later = dead.keys() - set(digests)  # the session had been given another id
        for digest in later:
            self._backend.row_changed(digest)
        if later:
            self._queue.note(*sorted(later), in_database=True)
        self._queue.mark_done(*digests, in_database=True)
        return dict.fromkeys(digests, 0) | dead

    def renew_tombstones(self, shards: Container[str] = (ONLY,)) -> bool:
        """Write those tombstones again that the database does not know of: until it does, Redis must not forget them.

        :param shards: those of Redis that answer.
        :raises StoreError: Redis does not answer.
        """
        renewed = 0
        while waiting := self._queue.pending(calls.PIPELINE, database=True, redis=False, after=renewed):
            self._write_tombstones([(entry.digest, 0) for entry in waiting], shards)
            renewed = waiting[-1].seq
        return True

    def _write_tombstones(self, dead: Sequence[tuple[str, int]], shards: Container[str]) -> None:
        """On the shards that answer, a round trip at a time. `dead`: digest, version."""
        reached = [(digest, version) for digest, version in dead if self._locate(digest) in shards]
        for begin in range(0, len(reached), calls.PIPELINE):
            self._send_tombstones(reached[begin : begin + calls.PIPELINE])

    def _send_tombstones(self, dead: Sequence[tuple[str, int]]) -> None:
        names = tuple(self._backend.table.categories)
        self._backend.primary.push_many([], dead, names, stamp_ms=0, timeout=calls.TIMEOUT)
