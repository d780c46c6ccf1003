"""A database that went back to an earlier state is told the revocations again that it had confirmed.

It may have: a failover to a server that lagged, a restored backup. Whether it did is asked when it comes back from an
outage, when a request has found a row that lacks a version, and once for each revocation before its tombstones expire:
they are what keeps the session dead until then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..policy.leases import INCIDENT_MARGIN_MS
from ..stores.backend import Backend
from . import calls

_LAST_LOOKS = 30.0
"""Seconds between two looks for revocations whose tombstones expire soon."""


class LostCommits:
    """Looks whether the database has the revocations that were delivered to it.

    :param now_ms: milliseconds since 1970; ages of revocations only.
    :param clock: monotonic seconds.
    """

    def __init__(self, backend: Backend, now_ms: Callable[[], int], clock: Callable[[], float]) -> None:
        self._backend = backend
        self._queue = backend.journal.revocations
        self._now_ms = now_ms
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin without a suspicion, as after a fork."""
        self._reached: str | None = None
        self._next_look = 0.0
        self._known = self._backend.reports.lost_commits

    def suspect(self) -> None:
        """The database may have gone back: look at all that it has confirmed."""
        self._reached = ""

    def run(self, end: float) -> bool:
        """Look at what is to be looked at now.

        :param end: by the clock; after this nothing more is begun.
        :return: whether that was all.
        :raises StoreError: the database does not answer, or the journal cannot be used. It is wanted still.
        """
        if self._known != self._backend.reports.lost_commits:
            self._known = self._backend.reports.lost_commits
            self.suspect()
        while self._reached is not None:
            page = self._queue.delivered(calls.PIPELINE, after=self._reached)
            self._tell_lost(page)
            self._reached = page[-1] if len(page) == calls.PIPELINE else None
            if self._clock() >= end:
                return self._reached is None
        if self._clock() >= self._next_look:
            self._look_for_the_last_time()
        return True

    def _look_for_the_last_time(self) -> None:
        """At revocations whose tombstones expire soon; those that the database has are forgotten."""
        lasts_ms = self._backend.settings.lease_terms.tombstone_ms - INCIDENT_MARGIN_MS
        page = self._queue.delivered(calls.PIPELINE, before_ms=self._now_ms() - lasts_ms)
        if page:
            self._tell_lost(page)
            self._queue.forget_delivered(page)
        if len(page) < calls.PIPELINE:
            self._next_look = self._clock() + _LAST_LOOKS

    def _tell_lost(self, digests: Sequence[str]) -> None:
        """Have the database told again which of these sessions are dead, where it says that they live."""
        if not digests:
            return
        rows = self._backend.database.load_many(digests, calls.TIMEOUT).rows
        if lost := [digest for digest, row in rows.items() if row.lives_on(INCIDENT_MARGIN_MS)]:
            told = self._queue.tell_again(lost)
            self._backend.reports.database_went_back(told)
            self._known = self._backend.reports.lost_commits
