"""Sessions as records: load, save, revoke; knows no Flask.

The database is the only arbiter of auth; Redis and local copies are leases on what it said; dead is for ever.
Writes of auth go database → Redis → local. What Redis missed waits in this host's journal, which every read overlays
until the recovery has merged it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..exceptions import GrantRefused
from ..policy.ids import SessionId
from ..stores.backend import Backend
from .fallback import Fallback
from .journal_writer import JournalWriter
from .plain_changes import PlainChanges
from .reads import Reads
from .revocations import Revocations, UserSessions
from .scope import RequestScope
from .writes import CategoryWrites, RowWrites, Saves

_MINT_TRIES = 8
"""Ids that are thrown away for a shard that answers: of two that is one in 256 requests that does not get one."""


class SessionRepository:
    """The records of all sessions of one application: what a request asks for, by what answers it.

    :param now_ms: milliseconds since 1970.
    :param make_refusal: makes the answer to a grant that the database does not decide about.
    :ivar fallback: says what a feature gets at a level.
    :ivar devices: the sessions of one user, as that user is shown them.
    :ivar line: knows sessions that need no question; `plain_changes`: stores what needs no more than one exchange.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        make_refusal: Callable[[str], GrantRefused] = lambda key: GrantRefused(),
    ) -> None:
        self.settings = backend.settings
        self.table = backend.table
        self.backend = backend
        self.recorder = backend.recorder
        self.fallback = Fallback(backend.settings, backend.memory, backend.register)
        self.journal_writer = JournalWriter(backend.journal, self.fallback, backend.reports)
        self.reads = Reads(self)
        self.line = self.reads.line
        self.plain_changes = PlainChanges(self)
        self.revocations = Revocations(self, now_ms)
        self.devices = UserSessions(self)
        self.saves = Saves(self, CategoryWrites(self, now_ms), RowWrites(self, make_refusal))

    def begin(self, budget: float | None = None, digest: str | None = None) -> RequestScope:
        """Begin one request over the stores.

        :param budget: seconds it may wait for stores in all; None: REQUEST_BUDGET.
        :param digest: of the session that it is about; None: of one that is yet to begin, see :meth:`placed`.
        """
        shard = self.backend.health.best_shard if digest is None else self.backend.health.locate(digest)
        return RequestScope(
            self.backend.health,
            self.recorder,
            self.settings.timeouts,
            self.settings.request_budget if budget is None else budget,
            self.backend.clock,
            shard,
        )

    def placed(self, mint: Callable[[], SessionId]) -> SessionId:
        """Return a new session id on a shard that is well, if there is one: no session has to begin in an outage."""
        lost = self.backend.health.lost_shards
        sid = mint()
        if lost and len(lost) < len(self.backend.health.shards):
            for _ in range(_MINT_TRIES):
                if self.backend.health.locate(sid.digest) not in lost:
                    break
                sid = mint()
        return sid
