"""The stores of one application, for all that works with them: requests, the recovery, the command line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from ..policy.categories import AUTH, MAX_FIELDS
from ..policy.causes import EMPTIED, OTHER_CLOCK, PROMOTED, Cause
from ..policy.copies import RecordRef
from ..policy.errors import ErrorClass, StoreError, role_of, shard_of
from ..policy.health import PRIMARY, REPLICA, Health
from ..policy.ids import SIGNED_IN
from ..policy.leases import CLOCK_TOLERANCE_MS, Life
from ..policy.loaded import Former
from .host.commit_counter import CommitCounter
from .host.group_commit import is_busy
from .redis.records import Lack, Limits

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..metrics.recorder import Recorder
    from ..metrics.reports import Reports
    from ..policy.categories import CategoryTable
    from .host.board import Board
    from .host.journal import Journal
    from .host.register import Register
    from .memory.memory import LocalAuth, Memory
    from .redis.cluster import ClusterStore
    from .redis.endpoint import Endpoint
    from .redis.server_identity import Canary
    from .redis.store import RedisStore
    from .sql.database import Database


SessionStore: TypeAlias = "RedisStore | ClusterStore"
"""All sessions, in one role: in a single server, or in a cluster."""

_EMPTY_AFTER_ALL = 60
"""Seconds for which a record without fields is kept after the last copy of what it had has gone, and the last change
that waited for Redis: what waited until then is merged by now, and no answer that was on its way is kept as a copy."""


REMEMBERED = 3600.0
"""Seconds for which it is told that a Redis lost data."""


class Backend:
    """The stores of an application's sessions.

    :param redis: ``primary`` and perhaps ``replica`` → store.
    :ivar clock: monotonic seconds.
    :ivar lacks: of which shards Redis may have less than this host, each with the kind of those sessions.
    """

    def __init__(
        self,
        settings: Settings,
        reports: Reports,
        *,
        redis: Mapping[str, SessionStore],
        database: Database,
        memory: Memory,
        journal: Journal,
        health: Health,
    ) -> None:
        self.settings = settings
        self.reports = reports
        self.redis = redis
        self.primary = self.redis[PRIMARY]
        self.database = database
        self.memory = memory
        self.journal = journal
        self.health = health
        self.clock = health.clock
        self.lacks: dict[tuple[str, str], Lack] = {}
        self._visitor_ms = settings.visitor_seconds * 1000
        empty_ms = (settings.local_cache_ttl + _EMPTY_AFTER_ALL) * 1000
        self.limits = Limits(MAX_FIELDS, settings.max_category_bytes, empty_ms)

    @property
    def board(self) -> Board:
        """Return the board on which the workers of this host tell each other something."""
        return self.journal.board

    @property
    def register(self) -> Register:
        """Return what the workers of this host know together of what was changed last."""
        return self.journal.board.register

    @property
    def table(self) -> CategoryTable:
        """Return the routing of keys: which key belongs to which feature and category."""
        return self.settings.table

    @property
    def recorder(self) -> Recorder:
        """Return the recorder, which counts and measures."""
        return self.reports.recorder

    def now_ms(self) -> int:
        """Return what time it is for all workers of the host, milliseconds since 1970: what never jumps."""
        return int(self.journal.clock() * 1000)

    def find_stores(self, timeout: float) -> list[str]:
        """Return the names of all servers of Redis; of a cluster that is found those of its shards, each with a primary
        and a replica.

        :param timeout: seconds for each node that is asked.
        """
        with suppress(StoreError):
            self.primary.find_shards(timeout)
        replicas = self.redis[REPLICA].endpoints if REPLICA in self.redis else ()
        return [*(self.primary.endpoints or [PRIMARY]), *replicas]

    def endpoint(self, name: str) -> Endpoint:
        """Return the Redis behind a name as health has it: a server, or that of one shard of a cluster.

        :raises StoreError: that shard is not known, or not any more.
        """
        endpoint = self.redis[role_of(name)].endpoints.get(name)
        if endpoint is None:
            raise StoreError(name, ErrorClass.TOPOLOGY, "NoSuchShard")
        return endpoint

    def find(self, name: str, timeout: float) -> Endpoint:
        """Return the Redis behind a name as health has it; where no shard of a cluster is known, find them before.

        :param timeout: seconds for each node that is asked.
        :raises StoreError: no node answers, or that shard is not there.
        """
        if role_of(name) == PRIMARY:
            self.primary.find_shards(timeout)
        return self.endpoint(name)

    def _ttl(self, category: str) -> int | None:
        """Return a category's TTL. A category of another release, unknown here, lives as long as the session."""
        known = self.table.categories.get(category)
        return known.ttl if known else None

    def look_for_loss(self, store: str, timeout: float) -> Canary:
        """Look whether a primary has lost data behind its connections, which its server identity is told.

        :param store: by its name.
        :param timeout: seconds that it is waited for.
        :raises StoreError: it does not answer, or takes no writes.
        """
        endpoint = self.endpoint(store)
        known = endpoint.server_identity
        canary = endpoint.look_at_canary(known.expected_canary, timeout=timeout)
        if known.was_set:  # this look may have told it
            canary = endpoint.look_at_canary(known.expected_canary, timeout=timeout)
        if known.saw(canary):
            self.reports.data_lost(store)
        return canary

    def promotion_of(self, store: str) -> StoreError | None:
        """Return what is wrong with a replica that has introduced itself as a primary beside its own one; None: it has
        not. After a failover it is that primary itself, and a service may have one server for both. A shard may be gone
        at any time, which is wrong, too.
        """
        try:
            replica, primary = (self.endpoint(f"{role}{shard_of(store)}") for role in (REPLICA, PRIMARY))
        except StoreError as error:
            return error
        its, theirs = replica.server_identity.server, primary.server_identity.server
        if not (its.run_id and theirs.run_id and its.is_primary and theirs.is_primary) or its.run_id == theirs.run_id:
            return None
        return StoreError(store, ErrorClass.UNREACHABLE, PROMOTED)

    def remarks(self, now: float, lost_at: Mapping[str, float] | None = None) -> Iterator[tuple[str, Cause]]:
        """Yield what is to be known of a primary though it does its work, by its name, as far as that is known without
        asking.

        :param now: seconds since 1970, by the clock of this host.
        :param lost_at: when each was found to have lost data; None: as this worker has found it.
        """
        lost_at = self.reports.data_lost_at if lost_at is None else lost_at
        for name, endpoint in self.primary.endpoints.items():
            if now - lost_at.get(name, -math.inf) < REMEMBERED:
                yield name, EMPTIED
            known = endpoint.server_identity
            at = known.clock()
            least, most = known.estimated_ms(at), known.estimated_ms(at, latest=True)
            if least and not least - CLOCK_TOLERANCE_MS <= now * 1000 <= most + CLOCK_TOLERANCE_MS:
                yield name, OTHER_CLOCK

    def lack_of(self, ref: RecordRef) -> Lack | None:
        """Return since when Redis may have less of a session than this host; None: it may not. Of shadows nothing is
        kept beside it."""
        if not self.lacks or ref.shadow:
            return None
        return self.lacks.get((self.health.locate(ref.digest), ref.kind))

    def life_of(self, category: str, kind: str, life: Life) -> int:
        """Return the milliseconds a category's data may lie unused: its own TTL, cut to the session's life. A visitor's
        session has no end of its own unless it is permanent: its data lives as long as that with the longest TTL."""
        ttl = self._ttl(category)
        whole = life.idle_ms if kind == SIGNED_IN or life.is_permanent else self._visitor_ms
        return whole if ttl is None else min(ttl * 1000, whole)

    def lives_of_former(self, former: Mapping[str, Former], kind: str, life: Life) -> Mapping[str, int]:
        """Return category → how long its record has to live for keys in it that belong to a longer-lived one.

        :param former: see :attr:`.Loaded.former`.
        """
        lives: dict[str, int] = {}
        for key, at in former.items():
            own = self.life_of(self.table.feature_of(key).category, kind, life)
            if at.counts and at.category != AUTH and own > self.life_of(at.category, kind, life):
                lives[at.category] = max(own, lives.get(at.category, 0))
        return lives

    def life_of_kept(self, category: str, kind: str) -> int:
        """Return :meth:`life_of` data that this host has kept of a session without knowing how long that lives; 0: as
        long as its record in Redis, see :class:`.Merge`."""
        lives_with_session = kind == SIGNED_IN and self._ttl(category) is None
        return 0 if lives_with_session else self.life_of(category, kind, self.settings.life)

    @property
    def near_connections(self) -> int:
        """Return how many connections this process' near cache has, to servers that it uses."""
        lost, parts = self.health.lost_stores, self.primary.endpoints.items()
        return sum(part.near.connections for name, part in parts if part.near and name not in lost)

    def is_over(self, digest: str) -> None:
        """Have this worker know for ever that a session is dead, and the others ask for its row anew."""
        self.memory.kill(digest)
        self.row_changed(digest)
        self.reports.no_longer_in_use(digest)

    # -- which rows this host has changed ------------------------------------------------------------------------------

    def row_changing(self, digest: str) -> int | None:
        """Note that this worker is about to try a compare-and-set of a session's row.

        :return: the number of this try; None: there is no place for it, and what it makes is asked for again.
        """
        try:
            return self.journal.file.numbers(CommitCounter.row_changing, digest)
        except StoreError as error:
            journal_did_not_say(self.reports, error)
            return None

    def row_changed(self, digest: str, number: int | None = None) -> None:
        """Have no worker of this host believe what it was told of this session's row before.

        :param number: of the try that succeeded, if it was a compare-and-set.
        """
        try:
            self.journal.file.numbers(CommitCounter.row_changed, digest, self.clock(), number)
        except StoreError as error:
            self.reports.journal_failed(error)

    def is_up_to_date(self, held: LocalAuth) -> bool:
        """Return whether no worker of this host has changed a session's row since this copy of it was confirmed, or
        made by this worker. False also where that is not known."""
        since, now = held.confirmed_at, self.clock()
        try:
            return self.journal.file.numbers(CommitCounter.is_last_row, held.row.digest, since, now, held.change)
        except StoreError as error:
            journal_did_not_say(self.reports, error)
            return False


def journal_did_not_say(reports: Reports, error: StoreError) -> None:
    """Report that a question to the journal failed. Nothing was to be kept: that it was busy is no alert."""
    if is_busy(error):
        reports.journal_busy(error)
    else:
        reports.journal_failed(error)
