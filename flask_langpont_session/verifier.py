"""May this session's auth be believed? A lease, else the database, else what an outage allows (docs/guarantees.md).

Only the primary's entries are leases on what the database said. A replica never decides auth, and neither does a
primary that has become one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from blinker import Signal

from . import events
from .categories import AUTH
from .config import Settings
from .cookies import SessionId
from .exceptions import UnreadableValue
from .health import DATABASE, PRIMARY, READ, WRITE
from .leases import DEGRADED_VERIFY_MS, is_leased, survives_database_outage, survives_everything_down
from .metrics import Recorder
from .records import Life, Loaded, Verdict
from .serializer import decode, encode
from .stores.base import AuthRow, ErrorClass, RowState, StoreError
from .stores.database import Database
from .stores.local import LocalCopies
from .stores.redis import AuthEntry, RedisStore
from .walk import Walk


class Verifier:
    """Decides about one session at a time; remembers what it believed in the local copies."""

    def __init__(
        self,
        settings: Settings,
        *,
        primary: RedisStore,
        database: Database,
        local: LocalCopies,
        recorder: Recorder,
        emit: Callable[[Signal, object], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._primary = primary
        self._database = database
        self._local = local
        self._recorder = recorder
        self._emit = emit
        self._clock = clock
        self._privileged = {encode("role", role) for role in settings.privileged_roles}

    def judge(
        self, sid: SessionId, walk: Walk, life: Life, entry: AuthEntry | None, now_ms: int, *, by_primary: bool
    ) -> Loaded:
        """What is known of a session of kind u.

        :param entry: what Redis said of it; None: nothing, or no Redis answered.
        :param now_ms: the Redis clock before that; 0: no Redis answered.
        :param by_primary: the primary said it, and it is one.
        """
        if entry and entry.row is None:
            return Loaded.judged(Verdict.DEAD, now_ms)
        lease = entry if by_primary and walk.primary_is_healthy else None
        if lease and self._is_leased(lease, now_ms):
            return self._believe(lease, now_ms)
        if walk.can(DATABASE, READ):
            held = self._local.auth(sid.digest)
            if not walk.primary_is_healthy and held and self._age_ms(held.confirmed_at) <= DEGRADED_VERIFY_MS:
                return Loaded.judged(Verdict.VALID, now_ms, held.row, "local")
            try:
                return self.ask_database(sid.digest, walk, life, now_ms if by_primary else 0)
            except StoreError as error:
                # Told to health by the walk. A database that is only busy excuses less than one that is down.
                return self._without_database(sid, lease, now_ms, busy=error.error_class is ErrorClass.LOCAL)
        return self._without_database(sid, lease, now_ms, busy=False)

    def ask_database(self, digest: str, walk: Walk, life: Life, stamp_ms: int) -> Loaded:
        """The arbiter's word; Redis is brought up to it when `stamp_ms` (the Redis clock before this) is known.

        :raises StoreError: the database did not answer.
        """
        began = self._clock()
        row = walk.ask(
            DATABASE,
            READ,
            "verify",
            self._settings.database_timeout,
            lambda timeout: self._database.load(digest, idle_ms=life.idle_ms, timeout=timeout),
        )
        if row is None or row.state is not RowState.VALID:
            self.bury(digest, row.version if row else 0, walk)
            return Loaded.judged(Verdict.DEAD, stamp_ms)
        self._local.put_auth(row, began)
        if stamp_ms and self._push(row, walk, life, stamp_ms) == "dead":
            return Loaded.judged(Verdict.DEAD, stamp_ms)
        return Loaded.judged(Verdict.VALID, stamp_ms, row, DATABASE)

    def bury(self, digest: str, version: int, walk: Walk) -> bool:
        """Put the tombstone into Redis. Whether it is there."""
        names = tuple(self._settings.table.categories)

        def bury(timeout: float) -> bool:
            self._primary.bury(digest, version, names, timeout=timeout)
            return True

        return bool(walk.attempt(PRIMARY, WRITE, "bury", self._settings.redis_timeout, bury))

    def _push(self, row: AuthRow, walk: Walk, life: Life, stamp_ms: int) -> str | None:
        return walk.attempt(
            PRIMARY,
            WRITE,
            "push",
            self._settings.redis_timeout,
            lambda timeout: self._primary.push(row, stamp_ms, life.left_of(row), timeout=timeout),
        )

    def _is_leased(self, entry: AuthEntry, now_ms: int) -> bool:
        return self._is_usable(entry.row) and is_leased(
            confirmed_ms=entry.confirmed_ms,
            now_ms=now_ms,
            trust_since_ms=self._primary.fence.trust_since_ms,
            terms=self._settings.lease_terms,
        )

    def _believe(self, entry: AuthEntry, now_ms: int) -> Loaded:
        assert entry.row is not None
        self._local.put_auth(entry.row, self._clock() - (now_ms - entry.confirmed_ms) / 1000)
        return Loaded.judged(Verdict.VALID, now_ms, entry.row, PRIMARY)

    def _without_database(self, sid: SessionId, lease: AuthEntry | None, now_ms: int, *, busy: bool) -> Loaded:
        if lease and self._survives(lease, now_ms, only_grace=busy):
            return self._believe(lease, now_ms)
        held = self._local.auth(sid.digest)
        if held and survives_everything_down(
            age_ms=self._age_ms(held.confirmed_at),
            privileged=self.is_privileged(held.row),
            terms=self._settings.lease_terms,
        ):
            return Loaded.judged(Verdict.VALID, now_ms, held.row, "local")
        return Loaded.judged(Verdict.UNVERIFIABLE, now_ms)

    def _survives(self, entry: AuthEntry, now_ms: int, *, only_grace: bool) -> bool:
        row = entry.row
        return (
            row is not None
            and self._is_usable(row)
            and survives_database_outage(
                confirmed_ms=entry.confirmed_ms,
                now_ms=now_ms,
                trust_since_ms=self._primary.fence.trust_since_ms,
                privileged=only_grace or self.is_privileged(row),
                terms=self._settings.lease_terms,
            )
        )

    def _is_usable(self, row: AuthRow | None) -> bool:
        """Not expired, and every value readable: damaged auth data is not shown in part, the database has the whole."""
        if row is None or row.state is not RowState.VALID:
            return False
        try:
            for value in row.payload.values():
                decode(value)
        except UnreadableValue:
            self._recorder.count("records_set_aside")
            self._emit(events.record_set_aside, events.RecordSetAside(PRIMARY, AUTH))
            return False
        return True

    def is_privileged(self, row: AuthRow) -> bool:
        """Whether a privilege key has one of PRIVILEGED_ROLES as its value."""
        patterns = self._settings.privilege_key_patterns
        return any(value in self._privileged and key in patterns for key, value in row.payload.items())

    def _age_ms(self, confirmed_at: float) -> float:
        return (self._clock() - confirmed_at) * 1000
