"""Sessions as records: load, save, revoke; knows no Flask.

The database is the only arbiter of auth; Redis and local copies are leases on what it said; dead is for ever.
Writes of auth go database → Redis → local. What Redis missed waits in this host's journal, which every read overlays
until the recovery has merged it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..events import EndedBy
from ..exceptions import GrantRefused
from ..policy.categories import Feature
from ..policy.ids import SessionId
from ..policy.levels import Behaviour
from ..policy.records import (
    Life,
    Loaded,
    Note,
    Plan,
    Revoked,
    Saved,
)
from ..policy.values import (
    AuthRow,
)
from ..stores.backend import Backend
from ..support.single_flight import SingleFlight
from .category_writes import CategoryWrites
from .fallback import Fallback
from .journal_writer import JournalWriter
from .operations import Operations
from .parts import Parts
from .plain_changes import PlainChanges
from .reads import Reads
from .revocations import Devices, Revocations
from .row_writes import RowWrites
from .saves import Saves
from .scope import RequestScope
from .verifier import Confirmed, Verifier

_MINT_TRIES = 8
"""Ids that are thrown away for a shard that answers: of two that is one in 256 requests that does not get one."""


class SessionRepository:
    """The records of all sessions of one application: what a request asks for, by what answers it.

    :param now_ms: milliseconds since 1970.
    :param single_flight: has requests that ask the database about the same session at the same time share one answer.
    :param make_refusal: makes the answer to a grant that the database does not decide about.
    :ivar devices: the sessions of one user, as that user is shown them.
    :ivar line: knows sessions that need no question; `plain_changes`: stores what needs no more than one exchange.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        single_flight: SingleFlight[Confirmed] | None = None,
        make_refusal: Callable[[], GrantRefused] = GrantRefused,
    ) -> None:
        self.settings = backend.settings
        self.table = backend.table
        self.recorder = backend.recorder
        self._backend = backend
        self._fallback = Fallback(backend.settings, backend.memory, backend.register)
        journal_writer = JournalWriter(backend.journal, self._fallback, backend.reports, clock=backend.clock)
        operations = Operations.of(backend.settings)
        verifier = Verifier(backend, journal_writer, operations, single_flight=single_flight)
        parts = Parts(backend, self._fallback, journal_writer, verifier, now_ms, operations)
        self._reads = Reads(parts)
        self.line = self._reads.line
        self.plain_changes = PlainChanges(parts)
        self._rows = RowWrites(parts, make_refusal)
        self._revocations = Revocations(parts)
        self.devices = Devices(parts, self._revocations)
        self._saves = Saves(parts, self._rows, CategoryWrites(parts), self._revocations)

    def begin(self, budget: float | None = None, digest: str | None = None) -> RequestScope:
        """Begin one request over the stores.

        :param budget: seconds it may wait for stores in all; None: REQUEST_BUDGET.
        :param digest: of the session that it is about; None: of one that is yet to begin, see :meth:`placed`.
        """
        shard = self._backend.health.best_shard if digest is None else self._backend.health.locate(digest)
        return RequestScope(
            self._backend.health,
            self.recorder,
            self.settings.request_budget if budget is None else budget,
            self._backend.clock,
            shard,
        )

    def placed(self, mint: Callable[[], SessionId]) -> SessionId:
        """A new session id that lies on a shard that is well, if there is one: no session has to begin in an outage."""
        lost = self._backend.health.lost_shards
        sid = mint()
        if lost and len(lost) < len(self._backend.health.shards):
            for _ in range(_MINT_TRIES):
                if self._backend.health.locate(sid.digest) not in lost:
                    break
                sid = mint()
        return sid

    def behaviour(self, feature: Feature, kind: str, level: int) -> Behaviour:
        """What a feature of a session of some kind gets at a level."""
        return self._fallback.behaviour(feature, kind, level)

    def load(
        self, sid: SessionId, scope: RequestScope, life: Life, *, fresh: bool = False, on_line: bool = True
    ) -> Loaded:
        """Return everything that a session's first touch needs. Never raises StoreError.

        :param fresh: see :meth:`.Reads.load`.
        :param on_line: it may be known without a question.
        """
        if on_line and not fresh and (seen := self.line.read(sid, life, scope.to(sid.digest).view)):
            return seen.loaded
        return self._reads.load(sid, scope, life, fresh=fresh)

    def load_more(
        self, sid: SessionId, scope: RequestScope, life: Life, loaded: Loaded, category: str, *, fresh: bool = False
    ) -> None:
        """See :meth:`.Reads.load_more`."""
        self._reads.load_more(sid, scope, life, loaded, category, fresh=fresh)

    def save(self, plan: Plan, scope: RequestScope) -> Saved:
        """See :meth:`.Saves.save`."""
        return self._saves.save(plan, scope)

    def adopt(self, plan: Plan, note: Note, scope: RequestScope) -> Saved:
        """See :meth:`.Saves.adopt`."""
        return self._saves.adopt(plan, note, scope)

    def never_adopt(self, note: Note, scope: RequestScope) -> None:
        """See :meth:`.RowWrites.never_adopt`."""
        self._rows.never_adopt(note, scope)

    def refused(self) -> GrantRefused:
        """The answer to a grant that the database does not decide about, counted."""
        return self._rows.refused()

    def reject(self, category: str, key: str | None, reason: str) -> None:
        """See :meth:`.Reports.rejected`."""
        self._backend.reports.rejected(category, key, reason)

    def take_displaced(self, digest: str, scope: RequestScope) -> bool:
        """See :meth:`.RowWrites.take_displaced`."""
        return self._rows.take_displaced(digest, scope)

    def was_displaced(self, digest: str, scope: RequestScope) -> bool | None:
        """See :meth:`.RowWrites.was_displaced`."""
        return self._rows.was_displaced(digest, scope)

    def revoke(self, digest: str, scope: RequestScope, cause: EndedBy = EndedBy.APPLICATION) -> bool:
        """See :meth:`.Revocations.revoke`."""
        return self._revocations.revoke(digest, scope, cause)

    def revoke_user(self, user_id: str, scope: RequestScope, cause: EndedBy = EndedBy.APPLICATION) -> Revoked:
        """See :meth:`.Revocations.revoke_user`."""
        return self._revocations.revoke_user(user_id, scope, cause)

    def sessions_of(self, user_id: str, scope: RequestScope) -> list[AuthRow]:
        """See :meth:`.Revocations.sessions_of`."""
        return self._revocations.sessions_of(user_id, scope)
