"""A Redis and a database that answer as a test sets them to, and note what they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from flask_langpont_session.events import session_revoked
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.metrics.reports import Reports
from flask_langpont_session.policy.categories import AUTH
from flask_langpont_session.policy.changes import CategoryChange, Fields
from flask_langpont_session.policy.copies import CategoryCopy, Change, RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE, Health
from flask_langpont_session.policy.ids import SIGNED_IN, SessionId
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.loaded import Loaded
from flask_langpont_session.policy.plans import Plan
from flask_langpont_session.policy.rows import AuthEntry, AuthRow, Created, EndedSession, RowState
from flask_langpont_session.request.repository import SessionRepository
from flask_langpont_session.request.scope import FIRST_ANSWERS, RequestScope
from flask_langpont_session.stores.backend import Backend
from flask_langpont_session.stores.host.journal import journal_at
from flask_langpont_session.stores.memory.memory import Memory
from flask_langpont_session.stores.redis.lane import Copy
from flask_langpont_session.stores.redis.near import Hit
from flask_langpont_session.stores.redis.records import Answer, Written
from tests.support.clock import Clock

from .fakes import settings_in

LIFE = Life(1_800_000, 86_400_000)
NOW_MS = 1_000_000_000_000


def a_row(digest: str, *, user: str | None = "7", version: int = 1, **more: Any) -> AuthRow:
    """Return the row of a session whose time has not run out."""
    known = {"_user_id": b'"7"'} if user else {}
    times = (NOW_MS - 1000, NOW_MS + LIFE.idle_ms, NOW_MS + LIFE.absolute_ms)
    made = AuthRow(digest, user, version, True, known, 0, *times, NOW_MS)
    return replace(made, **more)


@dataclass
class FakeRedis:
    """One server.

    :ivar entries: digest → what its auth hash says; `data`: digest → category → fields.
    :ivar fails: raised by every call.
    :ivar writes: what the next writes say; ``written`` at last.
    :ivar hits: digest → what is known of it without a question.
    :ivar exactly: rows whose record is not to remember a longer life.
    """

    name: str
    told: list[tuple[Any, ...]] = field(default_factory=list)
    entries: dict[str, AuthEntry] = field(default_factory=dict)
    data: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    fails: StoreError | None = None
    fails_once: list[StoreError] = field(default_factory=list)
    writes: list[Written] = field(default_factory=list)
    trust_since_ms: int = 0
    is_primary: bool = True
    hits: dict[str, Hit] = field(default_factory=dict)
    exactly: list[str] = field(default_factory=list)
    homeless = 0
    connections = 0
    prefix = "session"

    @property
    def endpoints(self) -> Mapping[str, FakeRedis]:
        return {self.name: self}

    def has(self, row: AuthRow, *, age_ms: int = 0) -> None:
        """Give the server a row with a lease that was confirmed so long ago."""
        self.entries[row.digest] = AuthEntry(row, NOW_MS - age_ms)

    def home_of(self, digest: str) -> Any:
        return self

    @property
    def near(self) -> Any:
        return self

    def write_near(self, digest: str, *arguments: Any) -> None:
        return None

    def find(self, ref: RecordRef, lives_ms: Mapping[str, int]) -> Hit | None:
        return self.hits.get(ref.digest)

    def vouches_for(self, copy: Copy, digest: str) -> Hit | None:
        hit = self.hits.get(digest)
        return hit if hit and hit.copy is copy else None

    def _ask(self, *what: Any) -> None:
        if self.fails_once:
            raise self.fails_once.pop(0)
        if self.fails is not None:
            raise self.fails
        self.told.append(what)

    def read(self, ref: RecordRef, lives_ms: Mapping[str, int], *, timeout: float, anew: bool = False) -> Answer:
        digest, kind, shadow = ref
        self._ask("read", digest, "shadow" if shadow else kind)
        found = {} if shadow else self.data.get(digest, {})
        entry = self.entries.get(digest) if kind == SIGNED_IN else None
        records = {
            name: CategoryCopy(5 if name in found else 0, found.get(name, {}), auth=entry if name == AUTH else None)
            for name in lives_ms
        }
        damaged, self.damaged = tuple(self.damaged), []
        return Answer(NOW_MS, records, damaged, is_primary=self.is_primary, trust_since_ms=self.trust_since_ms)

    def write(self, ref: RecordRef, changes: Mapping[str, CategoryChange], *, guard: str, **options: Any) -> Written:
        push = options.get("push")
        self._ask("write", ref.digest, guard, sorted(changes), push[0].version if push else None)
        if options.get("push_exact"):
            self.exactly.append(ref.digest)
        if self.writes:
            return self.writes.pop(0)
        return Written("written", {name: Change(5, 6) for name in changes})

    def push(self, row: AuthRow, stamp_ms: int, life_ms: int, *, timeout: float) -> str:
        self._ask("push", row.digest, row.version)
        self.has(row)
        return "pushed"

    def push_many(self, what: Sequence[tuple[Any, int]], categories: Sequence[str], **options: Any) -> None:
        for of, number in what:
            if isinstance(of, str):
                self._ask("write_tombstone", of, number)
                self.entries[of] = AuthEntry(None, in_database=bool(number))
            else:
                self._ask("push", of.digest)

    def extend_idle(self, digest: str, idle_ms: int, *, timeout: float) -> int:
        self._ask("extend_idle", digest)
        return NOW_MS + idle_ms

    def quarantine(self, ref: RecordRef, category: str, *, timeout: float, **options: Any) -> None:
        self._ask("quarantine", ref.digest, category)

    def estimated_ms(self, digest: str, at: float, *, latest: bool = False) -> int:
        return NOW_MS


@dataclass
class FakeDatabase:
    """Rows, and what was asked.

    :ivar races: rows that another request writes just before the next changes.
    :ivar is_slow_with_rows: it answers too late where it has to go through the rows of a user.
    """

    rows: dict[str, AuthRow] = field(default_factory=dict)
    told: list[tuple[Any, ...]] = field(default_factory=list)
    fails: StoreError | None = None
    races: list[AuthRow] = field(default_factory=list)
    is_slow_with_rows: bool = False

    def _ask(self, *what: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.told.append(what)

    def load(
        self, digest: str, *, life: Life | None = None, idle_seen: int | None = None, timeout: float | None = None
    ) -> AuthRow | None:
        self._ask("load", digest)
        row = self.rows.get(digest)
        if row is None or idle_seen is None:
            return row
        row = replace(row, idle_expires_at=max(row.idle_expires_at, idle_seen))
        return row.ended_as_idle() if row.state is RowState.IDLE_EXPIRED else row

    def create(self, digest: str, *, kill: str | None = None, timeout: float | None = None, **of: Any) -> Created:
        self._ask("create", digest, kill)
        ended = self._end(kill) if kill else []
        self.rows[digest] = a_row(digest, user=of["user_id"], payload=of["payload"])
        return Created(self.rows[digest], ended)

    def update(self, digest: str, *, seen: int, timeout: float | None = None, **of: Any) -> AuthRow | None:
        self._ask("update", digest, seen)
        if self.races:
            self.rows[digest] = self.races.pop(0)
        if self.rows[digest].version != seen:
            return None
        row, idle_at = self.rows[digest], NOW_MS + of["idle_ms"]
        self.rows[digest] = replace(row, version=seen + 1, payload=of["payload"], idle_expires_at=idle_at)
        return self.rows[digest]

    def raise_version(
        self, digest: str, *, seen: int, version: int, payload: Fields, timeout: float | None = None
    ) -> bool:
        self._ask("raise_version", digest, seen)
        is_there = self.rows[digest].version == seen
        if is_there:
            self.rows[digest] = replace(self.rows[digest], version=version, payload=payload)
        return is_there

    def regenerate(self, digest: str, *, successor: str, seen: int, payload: Fields, **of: Any) -> AuthRow | None:
        self._ask("regenerate", digest, successor)
        if self.rows[digest].version != seen:
            return None
        self.rows[successor] = replace(self.rows[digest], digest=successor, version=1, payload=payload)
        self._end(digest)
        return self.rows[successor]

    def kill(self, digest: str, timeout: float | None = None) -> int | None:
        self._ask("kill", digest)
        self.rows.pop(digest, None)
        return 2

    def revoke_many(
        self, digests: Sequence[str], timeout: float | None = None, *, by_device: bool
    ) -> list[EndedSession]:
        self._ask("revoke_many", *digests)
        return [ended for digest in digests for ended in self._end(digest)]

    def _end(self, digest: str) -> list[EndedSession]:
        row = self.rows.get(digest)
        if row is None:
            return []
        self.rows[digest] = replace(row, live=False, version=row.version + row.live)
        return [EndedSession(digest, self.rows[digest].version, row.state is RowState.VALID)]

    def kill_user(self, user_id: str, timeout: float | None = None) -> int:
        self._ask("kill_user", user_id)
        return 1

    def ended_with(self, user_id: str, epoch: int, timeout: float | None = None) -> list[str]:
        self._ask("ended_with", user_id, epoch)
        self._go_through_rows()
        return [row.digest for row in self.sessions_of(user_id) if row.live]

    def kill_user_until(self, user_id: str, until_ms: int, timeout: float | None = None, **of: Any) -> list[str]:
        self._ask("kill_user_until", user_id, until_ms, of["epoch"])
        self._go_through_rows()
        dead = [row.digest for row in self.sessions_of(user_id)][: of["limit"]]
        for digest in dead:
            del self.rows[digest]
        return dead

    def _go_through_rows(self) -> None:
        if self.is_slow_with_rows:
            raise StoreError(DATABASE, ErrorClass.UNREACHABLE, "DeadlineExceeded", timed_out=True)

    def sessions_of(self, user_id: str, timeout: float | None = None) -> list[AuthRow]:
        self._ask("sessions_of", user_id)
        return [row for row in self.rows.values() if row.user_id == user_id]


LOST = {name: StoreError(name, ErrorClass.UNREACHABLE, "Test", sent=True) for name in (PRIMARY, REPLICA, DATABASE)}


class Stage:
    """A repository over such stores, at a time that is told."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.clock = Clock()
        self.redis, self.replica, self.database = FakeRedis(PRIMARY), FakeRedis(REPLICA), FakeDatabase()
        self.health = Health([PRIMARY, REPLICA, DATABASE], clock=self.clock)
        for _ in range(FIRST_ANSWERS):  # the process has been up for a while
            self.health.succeeded(DATABASE, READ)
        self.recorder, self.said = Recorder(), list[tuple[Any, object]]()
        self.memory = Memory(ttl=1800, clock=self.clock)
        self.journal = journal_at(None, clock=lambda: NOW_MS / 1000)
        self.backend = Backend(
            settings_in(folder, **config),
            Reports(self.recorder, lambda signal, event: self.said.append((signal, event)), clock=self.clock),
            redis=cast(Any, {PRIMARY: self.redis, REPLICA: self.replica}),
            database=cast(Any, self.database),
            memory=self.memory,
            journal=self.journal,
            health=self.health,
        )
        self.repository = SessionRepository(self.backend, now_ms=lambda: NOW_MS)

    def lose(self, *stores: str) -> None:
        """Make these stores fail, and let requests know it."""
        for name in stores:
            store: Any = {PRIMARY: self.redis, REPLICA: self.replica, DATABASE: self.database}[name]
            store.fails = LOST[name]
            for way in (READ, WRITE):
                for _ in range(3):
                    self.health.failed(LOST[name], way)

    def begin(self) -> RequestScope:
        """A request."""
        return self.repository.begin(5.0)

    def load(self, sid: SessionId, **options: Any) -> Loaded:
        """Load a session in a request of its own."""
        return self.repository.reads.load(sid, self.begin(), LIFE, **options)

    def plan(self, origin: SessionId | None, target: SessionId | None, **more: Any) -> Plan:
        """Return the plan of a save."""
        return Plan(origin, target, LIFE, more.pop("level", self.health.level), **more)

    def revocations(self) -> list[object]:
        """Events of sessions that ended."""
        return [event for signal, event in self.said if signal is session_revoked]


def changed(**sets: bytes) -> CategoryChange:
    """Return a change that sets these keys."""
    return CategoryChange(0, sets=dict(sets))
