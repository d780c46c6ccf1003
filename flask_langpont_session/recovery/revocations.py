"""Revocations that not all stores know of yet: of single sessions, and of all sessions of a user."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from ..policy.categories import AUTH
from ..policy.health import ONLY
from ..policy.values import StoreError
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
        # Those whose tombstone Redis has, while their data is still to be carried.
        self._behind_tombstone: set[str] = set()

    def revoke_user(
        self,
        entries: Sequence[PendingUserRevocation],
        redis: bool,
        shards: Container[str],
        being_carried: Container[str],
    ) -> bool:
        """Log a user out of what began before that moment; later sign-ins stay. Whether all of it is done.

        :param being_carried: as :meth:`revoke` has it.
        """
        [entry] = entries
        if redis:
            return self._revoke_user_everywhere(entry, shards, being_carried)
        reached = ""
        while digests := self._kill_some(entry, reached):
            reached = digests[-1]
        self._queue.advance_user(replace(entry, in_database=True))
        return True

    def _revoke_user_everywhere(
        self, entry: PendingUserRevocation, shards: Container[str], being_carried: Container[str]
    ) -> bool:
        """As many of the rows as are done at once; the next call begins there. Whether those were all."""
        for _ in range(calls.AT_ONCE):
            digests = self._kill_some(entry, entry.reached)
            if not digests:
                self._queue.forget_user(entry)
                return True
            later = [digest for digest in digests if self._locate(digest) not in shards or digest in being_carried]
            if later:
                self._note(later)
            self._write_tombstones([(digest, 1) for digest in digests], shards, being_carried)
            self._queue.note_delivered(*(digest for digest in digests if digest not in later))
            entry = replace(entry, reached=digests[-1])
            self._queue.advance_user(entry)
        return False

    def _kill_some(self, entry: PendingUserRevocation, after: str) -> list[str]:
        digests = self._database.kill_user_until(
            entry.user_id, entry.until_ms, calls.PATIENCE, epoch=entry.epoch, after=after, limit=calls.BATCH
        )
        for digest in digests:
            self._backend.memory.kill(digest)
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

        :param being_carried: digests whose data must stay for now, see :meth:`.Carries.waiting`: Redis gets their
            tombstone, and the entry waits until it can take the data away.
        """
        for entry in entries:
            self._backend.memory.kill(entry.digest)
            self._backend.reports.no_longer_in_use(entry.digest)
        to_database = [entry.digest for entry in entries if database and not entry.in_database]
        versions = {entry.digest: int(entry.in_database) for entry in entries}
        if to_database:
            versions |= self._revoke_in_database(to_database)
        lacking = [entry for entry in entries if redis and not entry.in_redis and self._locate(entry.digest) in shards]
        to_redis = [
            (entry.digest, versions[entry.digest])
            for entry in lacking
            if not (entry.digest in being_carried and entry.digest in self._behind_tombstone)
        ]
        whole = [digest for digest, _ in to_redis if digest not in being_carried]
        self._write_tombstones(to_redis, shards, being_carried)
        self._behind_tombstone.update(entry.digest for entry in lacking if entry.digest in being_carried)
        self._behind_tombstone.difference_update(whole)
        if whole:
            self._queue.mark_done(*whole, in_redis=True)
        return bool(to_database or to_redis)

    def _revoke_in_database(self, digests: Sequence[str]) -> dict[str, int]:
        """The version of each dead row; 0: there is none."""
        ended = self._database.revoke_many(digests, timeout=calls.TIMEOUT)
        dead = {each.digest: each.version for each in ended}
        later = dead.keys() - set(digests)  # the session had been given another id
        for digest in later:
            self._backend.row_changed(digest)
        if later:
            self._note(sorted(later))
        self._queue.mark_done(*digests, in_database=True)
        return dict.fromkeys(digests, 0) | dead

    def _note(self, digests: Sequence[str]) -> None:
        """The database has these, and Redis has not."""
        try:
            self._queue.note(*digests, in_database=True)
        except StoreError as error:
            if error.timed_out or error.sent:
                raise
            # else the queue has them in this process' memory

    def tell_held(self, redis: bool, database: bool, shards: Container[str], being_carried: Container[str]) -> None:
        """Tell the stores of what only this process knows, because the journal does not take it."""
        revocations, users = self._queue.held()
        for user in users if database else ():
            self.revoke_user([user], redis, shards, being_carried)
        for begin in range(0, len(revocations), calls.PIPELINE):
            self.revoke(revocations[begin : begin + calls.PIPELINE], redis, database, shards, being_carried)

    def renew_tombstones(self, shards: Container[str] = (ONLY,)) -> bool:
        """Write those tombstones again that the database does not know of: until it does, Redis must not forget them.

        :param shards: those of Redis that answer.
        :raises StoreError: Redis does not answer.
        """
        renewed = 0
        while waiting := self._queue.pending(calls.PIPELINE, database=True, redis=False, after=renewed):
            # What they had is taken away once, by revoke(), when nothing of it is to be carried any more.
            self._send_tombstones([(e.digest, 0) for e in waiting if self._locate(e.digest) in shards], (AUTH,))
            renewed = waiting[-1].seq
        return True

    def _write_tombstones(
        self, dead: Sequence[tuple[str, int]], shards: Container[str], being_carried: Container[str]
    ) -> None:
        """On the shards that answer: of auth, and where nothing is to be carried any more, in the place of all data.

        :param dead: digest, version.
        """
        reached = [(digest, version) for digest, version in dead if self._locate(digest) in shards]
        self._send_tombstones([one for one in reached if one[0] in being_carried], (AUTH,))
        names = tuple(self._backend.table.categories)
        self._send_tombstones([one for one in reached if one[0] not in being_carried], names)

    def _send_tombstones(self, dead: Sequence[tuple[str, int]], names: Sequence[str]) -> None:
        """A round trip at a time."""
        for begin in range(0, len(dead), calls.PIPELINE):
            some = dead[begin : begin + calls.PIPELINE]
            self._backend.primary.push_many([], some, names, stamp_ms=0, timeout=calls.TIMEOUT)
