"""Revocations that not all stores know of yet, of single sessions and of all sessions of a user, and those that a
database has lost which went back to an earlier state."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from ..policy.categories import AUTH
from ..policy.copies import SharedCopy
from ..policy.errors import StoreError
from ..policy.leases import INCIDENT_MARGIN_MS
from ..stores.backend import Backend
from ..stores.host.entries import PendingRevocation, PendingUserRevocation
from ..stores.host.revocation_queue import RevocationQueue
from . import steps
from .steps import Pages, Reach, Step

_LAST_LOOKS = 30.0
"""Seconds between two looks for revocations whose tombstones expire soon."""


class MissedRevocations(Step):
    """Tells the stores of dead sessions: the database first, for other hosts ask that one.

    Of a session whose data is still to be carried Redis gets the tombstone, and the entry waits until it can take the
    data away.

    :param queue: where they wait: the journal, or what this process holds that the journal did not take.
    """

    def __init__(self, backend: Backend, queue: RevocationQueue) -> None:
        super().__init__(backend)
        self._queue = queue
        # Those whose tombstone Redis has, while their data is still to be carried.
        self._behind_tombstone: set[str] = set()

    def pending(self, reach: Reach) -> Iterable[Sequence[PendingRevocation]]:
        return steps.pages(partial(self._queue.pending, database=reach.database, redis=reach.redis))

    def send(self, entries: Sequence[PendingRevocation], reach: Reach) -> bool:
        """Tell the stores that answer, and return whether any was told."""
        being_carried = self.being_carried()
        going_on = [entry.digest for entry in entries if entry.digest in being_carried]
        steps.take_along(self._backend, [copy for digest in going_on for copy in self._copies_of(digest)])
        for entry in entries:
            self._backend.memory.kill(entry.digest)
            self._backend.reports.no_longer_in_use(entry.digest)
        to_database = [entry.digest for entry in entries if reach.database and not entry.in_database]
        versions = {entry.digest: int(entry.in_database) for entry in entries}
        if to_database:
            versions |= self._revoke_in_database(to_database)
        lacking = [entry.digest for entry in entries if not entry.in_redis and reach.has(entry.digest)]
        to_redis = [
            (digest, versions[digest])
            for digest in lacking
            if not (digest in being_carried and digest in self._behind_tombstone)
        ]
        self.write_tombstones(to_redis, being_carried)
        self._behind_tombstone.update(digest for digest in lacking if digest in being_carried)
        if whole := [digest for digest, _ in to_redis if digest not in being_carried]:
            self._behind_tombstone.difference_update(whole)
            self._queue.mark_done(*whole, in_redis=True)
        return bool(to_database or to_redis)

    def _copies_of(self, digest: str) -> list[SharedCopy]:
        """Return what this worker has of a session."""
        entry, now = self._backend.memory.entry(digest), self._backend.clock()
        found = entry.copies() if entry else []
        return [SharedCopy(digest, name, record, now - held.kept_at, held.kind) for name, record, held in found]

    def _revoke_in_database(self, digests: Sequence[str]) -> dict[str, int]:
        """Revoke sessions in the database, and return the version of each dead row; 0: there is none."""
        ended = self._database.revoke_many(digests, timeout=steps.TIMEOUT)
        dead = {each.digest: each.version for each in ended}
        later = dead.keys() - set(digests)  # the session had been given another id
        for digest in later:
            self._backend.row_changed(digest)
        if later:
            self.note(sorted(later))
        self._queue.mark_done(*digests, in_database=True)
        return dict.fromkeys(digests, 0) | dead

    def being_carried(self) -> Container[str]:
        """Return the digests whose data must stay for now, as far as the journal can be read."""
        if self._queue is self._journal.revocations:
            return steps.being_carried(self._backend)
        return steps.ask_journal(partial(steps.being_carried, self._backend), "replay") or ()

    def note(self, digests: Sequence[str]) -> None:
        """Note in the journal that the database has these revocations, and Redis has not."""
        with suppress(StoreError):  # then the queue has them in this process' memory
            self._queue.note(*digests, in_database=True)

    def write_tombstones(self, dead: Sequence[tuple[str, int]], being_carried: Container[str]) -> None:
        """Write tombstones of auth, and where nothing is to be carried any more, in the place of all data.

        :param dead: digest, version.
        """
        everything = tuple(self._backend.table.categories)
        for is_carried, names in ((True, (AUTH,)), (False, everything)):
            _write_tombstones(self._backend, [one for one in dead if (one[0] in being_carried) is is_carried], names)


class MissedUserRevocations(Step):
    """Ends all sessions of users that began before a moment, or in an earlier epoch; later sign-ins stay.

    :param queue: as :class:`MissedRevocations` has it.
    :param revocations: of single sessions.
    """

    def __init__(self, backend: Backend, queue: RevocationQueue, revocations: MissedRevocations) -> None:
        super().__init__(backend)
        self._queue = queue
        self._revocations = revocations
        # By number of the entry: up to which digest the database has what follows, while no Redis answers.
        self._in_database: dict[int, str] = {}

    def pending(self, reach: Reach) -> Iterator[Sequence[PendingUserRevocation]]:
        for user in self._queue.pending_users(steps.BATCH, redis=reach.redis) if reach.database else ():
            yield [user]

    def send(self, entries: Sequence[PendingUserRevocation], reach: Reach) -> bool:
        """End as many sessions as are done at once; the next call begins behind them. Return whether those were all.
        What is for a shard that does not answer, or is to be carried, waits for itself."""
        [entry] = entries
        reached = entry.reached if reach.redis else self._in_database.get(entry.seq, "")
        for _ in range(steps.AT_ONCE):
            digests = self._database.kill_user_until(
                entry.user_id, entry.until_ms, steps.PATIENCE, epoch=entry.epoch, after=reached, limit=steps.BATCH
            )
            if not digests and reach.redis:
                self._queue.forget_user(entry)
            elif not digests:
                self._queue.advance_user(replace(entry, in_database=True))
                self._in_database.pop(entry.seq, None)
            if not digests:
                return True
            for digest in digests:
                self._backend.is_over(digest)
            reached = digests[-1]
            if reach.redis:
                self._tell_redis(digests, reach)
                self._queue.advance_user(replace(entry, reached=reached))
            else:
                self._in_database[entry.seq] = reached
        return False

    def _tell_redis(self, digests: Sequence[str], reach: Reach) -> None:
        being_carried = self._revocations.being_carried()
        reached = [digest for digest in digests if reach.has(digest)]
        if later := [digest for digest in digests if digest not in reached or digest in being_carried]:
            self._revocations.note(later)
        self._revocations.write_tombstones([(digest, 1) for digest in reached], being_carried)
        self._journal.revocations.note_delivered(*(digest for digest in digests if digest not in later))


class Renewal(Step):
    """Writes those tombstones again that the database does not know of: until it does, Redis must not forget them.

    :param clock: monotonic seconds.
    """

    def __init__(self, backend: Backend, clock: Callable[[], float]) -> None:
        super().__init__(backend)
        self._clock = clock
        self._next = 0.0
        self._pages = Pages(partial(self._journal.revocations.pending, database=True, redis=False))

    def begin(self) -> None:
        """Have all of these tombstones written once more. Usable from any thread."""
        self._next = 0.0

    def pending(self, reach: Reach) -> Iterable[Sequence[PendingRevocation]]:
        """Return revocations not renewed since :meth:`begin`, or for long: more of them than may fit into a slice."""
        if reach.redis and self._clock() >= self._next:
            self._next = self._clock() + self._backend.settings.lease_terms.renewal_ms / 1000
            self._pages.begin()
        return self._pages if reach.redis else ()

    def send(self, entries: Sequence[PendingRevocation], reach: Reach) -> bool:
        """Write tombstones, which is never done. :class:`MissedRevocations` takes the data away, once."""
        _write_tombstones(self._backend, [(e.digest, 0) for e in entries if reach.has(e.digest)], (AUTH,))
        return False


class DeliveredRevocations(Step):
    """Asks the database again about revocations that it has confirmed, and tells it those that it has lost.

    About all of them when it may have gone back, by a failover to a server that lagged or a restored backup: that is,
    when it comes back from an outage, or a request has found a row that lacks a version. About each once before its
    tombstones expire, which keep the session dead until then; what the database has then is forgotten.

    :param now_ms: milliseconds since 1970; ages of revocations only.
    :param clock: monotonic seconds.
    """

    is_ordered = True

    def __init__(self, backend: Backend, now_ms: Callable[[], int], clock: Callable[[], float]) -> None:
        super().__init__(backend)
        self._queue = self._journal.revocations
        self._lasts_ms = backend.settings.lease_terms.tombstone_ms - INCIDENT_MARGIN_MS
        self._now_ms = now_ms
        self._clock = clock
        self._pages = Pages(self._queue.delivered, str, "")
        self._known = self._backend.reports.lost_commits
        self._next_look = 0.0

    def suspect(self) -> None:
        """Look at all that the database has confirmed: it may have gone back."""
        self._pages.begin()

    @property
    def is_last_look_due(self) -> bool:
        """Return whether it is time to look for revocations whose tombstones expire soon."""
        return self._clock() >= self._next_look

    def pending(self, reach: Reach) -> Iterator[Sequence[str]]:
        """Yield the digests that are to be looked at, while the database answers."""
        if self._known != self._backend.reports.lost_commits:
            self._known = self._backend.reports.lost_commits
            self.suspect()
        if reach.database:
            yield from self._pages
        while reach.database and self.is_last_look_due:
            old = self._queue.delivered(steps.PIPELINE, before_ms=self._now_ms() - self._lasts_ms)
            if len(old) < steps.PIPELINE:
                self._next_look = self._clock() + _LAST_LOOKS
            if old:
                yield old

    def send(self, entries: Sequence[str], reach: Reach) -> bool:
        """Have the database told again which of these sessions are dead, where it says that they live, and return
        False. What fails is begun anew."""
        try:
            rows = self._database.load_many(entries, steps.TIMEOUT).rows
            if lost := [digest for digest, row in rows.items() if row.lives_on(INCIDENT_MARGIN_MS)]:
                self._backend.reports.database_went_back(self._queue.tell_again(lost))
                self._known = self._backend.reports.lost_commits
        except StoreError:
            self.suspect()
            raise
        self._queue.forget_delivered(entries, before_ms=self._now_ms() - self._lasts_ms)
        return False


def _write_tombstones(backend: Backend, dead: Sequence[tuple[str, int]], names: Sequence[str]) -> None:
    """Write tombstones, a round trip at a time.

    :param dead: digest, version.
    :param names: the categories in whose place they are.
    """
    for some in steps.parts(dead):
        backend.primary.push_many(some, names, stamp_ms=0, timeout=steps.TIMEOUT)
