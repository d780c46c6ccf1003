"""A simulated database: sessions and users, one call at a time, and everything that ever was in it.

:class:`SimDatabase` has the methods of :class:`~flask_langpont_session.stores.sql.database.Database`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from flask_langpont_session.policy.changes import Fields
from flask_langpont_session.policy.devices import NO_DEVICE, Device
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.rows import (
    AuthRow,
    ChangedRows,
    Created,
    EndedSession,
    Found,
    Limit,
    Position,
    RowState,
)
from flask_langpont_session.stores.sql.calls import GRACE
from flask_langpont_session.stores.sql.engines import PATIENT_SECONDS

from .clock import Clock
from .tasks import Path, Tasks

T = TypeVar("T")

NAME = "database"
SERVER = "D"


class Watcher(Protocol):
    """The observer of a simulated database."""

    def row_changes(self, before: AuthRow | None, after: AuthRow) -> None:
        """A row is written; `live` of both is that of the row alone, whatever the user's epoch."""

    def row_goes_on(self, old: AuthRow, new: AuthRow) -> None:
        """A session is given another digest."""

    def row_ends(self, row: AuthRow, reason: str) -> None:
        """A live row is killed, or its user's epoch passes it."""

    def row_ends_by_idleness(self, row: AuthRow, idle_seen: int) -> None:
        """A row is killed because it was not used."""


class Tables:
    """The rows, and what was true when.

    :ivar ended: (digest, version) → when that state ceased to be the valid one, true time in ms.
    :ivar payloads: (digest, version) → what the row had.
    :ivar revived: digests of sessions that had ended, which a database that went back has forgotten. They are told it
        again, but not at once.
    :ivar displaced: digest → the digests of the sessions that ended for its sign-in.
    """

    def __init__(self, clock: Clock, watcher: Watcher) -> None:
        self.clock = clock
        self.watcher = watcher
        self.rows: dict[str, AuthRow] = {}
        self.epochs: dict[str, int] = {}
        self.updated_at: dict[str, int] = {}
        self.ended: dict[tuple[str, int], int] = {}
        self.payloads: dict[tuple[str, int], Fields] = {}
        self.successors: dict[str, str] = {}
        self.displaced: dict[str, list[str]] = {}
        self.set_by_ms = 0
        self.revived = set[str]()
        self.has_gone_back = False
        self._remembered: dict[str, Any] | None = None

    def remember(self) -> None:
        """Keep what there is now, as a standby does that will lag from here on."""
        names = ("rows", "epochs", "updated_at", "ended", "successors", "displaced")
        self._remembered = {name: dict(getattr(self, name)) for name in names}

    def go_back(self) -> None:
        """Make the standby the database: all that was committed since :meth:`remember` is lost."""
        if self._remembered is not None:
            ended = set(filter(self.is_ended, self.rows))
            vars(self).update({name: dict(kept) for name, kept in self._remembered.items()})
            self.revived |= {digest for digest in ended if not self.is_ended(digest)}
            self.has_gone_back = True

    @property
    def now_ms(self) -> int:
        """The database's clock, the one that expiry goes by."""
        return self.clock.now_ms + self.set_by_ms

    def row(self, digest: str) -> AuthRow | None:
        """The row as the database says it: of an earlier epoch is as dead as revoked."""
        stored = self.rows.get(digest)
        if stored is None:
            return None
        live = stored.live and stored.user_epoch == self.epoch(stored.user_id)
        return replace(stored, live=live, read_at=self.now_ms)

    def epoch(self, user_id: str | None) -> int:
        """A user's epoch."""
        return self.epochs.get(user_id, 0) if user_id is not None else 0

    def put(self, row: AuthRow, *, is_change: bool = True) -> None:
        """Write a row. `is_change`: for the list of what changed lately."""
        before = self.rows.get(row.digest)
        self.watcher.row_changes(before, row)
        if before is not None and (before.version, before.live) != (row.version, row.live):
            self.ended.setdefault((row.digest, before.version), self.clock.now_ms)
        if not row.live:
            self.ended.setdefault((row.digest, row.version), self.clock.now_ms)
        self.rows[row.digest] = row
        self.payloads[row.digest, row.version] = row.payload
        if is_change:
            self.updated_at[row.digest] = self.now_ms

    def end(self, digest: str, reason: str = "killed") -> list[EndedSession]:
        """End a row for ever, if there is one."""
        row = self.row(digest)
        if row is None:
            return []
        lived, successor = row.state is RowState.VALID, self.successors.get(digest)
        return [EndedSession(digest, self.kill(digest, reason) or 0, lived, successor)]

    def kill(self, digest: str, reason: str = "killed") -> int | None:
        """The same. Returns its version."""
        row = self.rows.get(digest)
        if row is None:
            return None
        if row.live:
            self._end(row, reason)
            row = replace(row, live=False, version=row.version + 1)
            self.put(row)
        return row.version

    def end_by_idleness(self, digest: str, idle_seen: int) -> None:
        """End a row that was not used."""
        self.watcher.row_ends_by_idleness(self.rows[digest], idle_seen)
        self.kill(digest, "idle")

    def _end(self, row: AuthRow, reason: str) -> None:
        if row.user_epoch == self.epoch(row.user_id) and self.now_ms < row.absolute_expires_at:
            self.watcher.row_ends(row, reason)

    def of_user(self, user_id: str) -> list[str]:
        """The digests of all rows of a user."""
        return [digest for digest, row in self.rows.items() if row.user_id == user_id]

    def insert(
        self, digest: str, user_id: str | None, payload: Fields, idle_ms: int, absolute_ms: int, kill: str | None
    ) -> Created:
        """A new row, or that which is there already if it is the same."""
        found = self.row(digest)
        if found is not None:
            if (found.version, found.user_id, found.payload) == (1, user_id, payload):
                return Created(found)
            raise StoreError(NAME, ErrorClass.DATA, "AnotherRow")
        ended = [] if kill is None else self.end(kill)
        now = self.now_ms
        idle_at = now + min(idle_ms, absolute_ms)
        epoch = self.epoch(user_id)
        row = AuthRow(digest, user_id, 1, True, dict(payload), epoch, now, idle_at, now + absolute_ms, now)
        self.put(row)
        return Created(row, ended)

    def valid_of(self, user_id: str | None) -> list[AuthRow]:
        """The sessions in which a user is signed in, oldest first."""
        rows = [row for digest in self.of_user(user_id or "") if (row := self.row(digest)) is not None]
        return sorted(
            (row for row in rows if row.state is RowState.VALID), key=lambda row: (row.created_at, row.digest)
        )

    def raise_epoch(self, user_id: str) -> int:
        """End all rows of a user, which stay as they are. Returns the new epoch."""
        rows = [self.rows[digest] for digest in self.of_user(user_id)]
        for row in rows:
            if row.live:
                self._end(row, "epoch")
        self.epochs[user_id] = self.epoch(user_id) + 1
        for row in rows:
            self.ended.setdefault((row.digest, row.version), self.clock.now_ms)
        return self.epochs[user_id]

    def ids_of(self, digest: str) -> list[str]:
        """The digest of a session and those under which it went on."""
        ids = [digest]
        while (following := self.successors.get(ids[-1])) is not None:
            ids.append(following)
        return ids

    def go_on_as(self, digests: list[str]) -> list[str]:
        """The digests that some sessions were given next."""
        return sorted(self.successors[digest] for digest in digests if digest in self.successors)

    def is_ended(self, digest: str) -> bool:
        """Return whether a session is dead for ever: revoked, or past its absolute lifetime."""
        row = self.rows.get(digest)
        if row is None or not row.live or self.now_ms >= row.absolute_expires_at:
            return True
        return row.user_epoch != self.epoch(row.user_id)

    def ended_at(self, digest: str, version: int) -> int | None:
        """Return the time at which this version of a session's row was replaced or ended; None: it is valid."""
        return self.ended.get((digest, version))


class Network(Protocol):
    """The network between one worker and the database."""

    def path_to(self, server: str) -> Path:
        """Return the state of the path between the worker and a server."""

    def database_is_busy(self) -> bool:
        """Return whether this call finds all slots taken."""


class SimCalls:
    """The calls of the database as the monitor sees them: none is overdue, because a call that is given up here is
    over."""

    requests = SimpleNamespace(busy=0)

    def end_overdue(self, grace: float = GRACE) -> None:
        """See the package."""


class SimDatabase:
    """The database as one worker sees it."""

    def __init__(
        self,
        tables: Tables,
        network: Network,
        tasks: Tasks,
        timeout: float = 0.25,
    ) -> None:
        self.tables = tables
        self.timeout = timeout
        self._network = network
        self._tasks = tasks
        self.calls = SimCalls()

    def _ask(self, timeout: float | None, effect: Callable[[], T]) -> T:
        """A caller with more time than a request has slots of its own."""
        allowed = self.timeout if timeout is None else timeout
        if allowed <= self.timeout and self._network.database_is_busy():
            raise self._tasks.refuse(NAME, ErrorClass.LOCAL, "NoFreeSlot")
        return self._tasks.ask(NAME, lambda: self._network.path_to(SERVER), allowed, effect)

    # -- the methods of Database ---------------------------------------------------------------------------------------

    def load(
        self, digest: str, *, life: Life | None = None, idle_seen: int | None = None, timeout: float | None = None
    ) -> AuthRow | None:
        """See the package."""
        return self._ask(timeout, lambda: self._load(digest, life, idle_seen))

    def _load(self, digest: str, life: Life | None, idle_seen: int | None) -> AuthRow | None:
        row = self.tables.row(digest)
        if row is None or row.state not in (RowState.VALID, RowState.IDLE_EXPIRED):
            return row
        stored = self.tables.rows[digest]
        later = max(row.idle_expires_at, min(idle_seen or 0, row.absolute_expires_at))
        row = replace(row, idle_expires_at=later)
        if row.state is RowState.VALID:
            expires_at = row.idle_expires_at if life is None else life.expiry_of_use(row)
            if expires_at > stored.idle_expires_at:
                self.tables.put(replace(stored, idle_expires_at=expires_at), is_change=False)
            return replace(row, idle_expires_at=expires_at)
        if idle_seen is not None:
            self.tables.end_by_idleness(digest, idle_seen)
            return row.ended_as_idle()
        return row

    def create(
        self,
        digest: str,
        *,
        user_id: str | None,
        payload: Fields,
        idle_ms: int,
        absolute_ms: int,
        kill: str | None = None,
        limit: Limit | None = None,
        device: Device = NO_DEVICE,
        timeout: float | None = None,
    ) -> Created | None:
        """See the package."""
        tables = self.tables

        def effect() -> Created | None:
            if limit is None or tables.row(digest) is not None:
                return tables.insert(digest, user_id, payload, idle_ms, absolute_ms, kill)
            others = [row for row in tables.valid_of(user_id) if row.digest != kill]
            excess = others[: max(0, len(others) + 1 - limit.most)]
            if excess and not limit.ends_oldest:
                return None
            ended = [each for row in excess for each in tables.end(row.digest, "limit")]
            tables.displaced[digest] = [each.digest for each in ended]
            created = tables.insert(digest, user_id, payload, idle_ms, absolute_ms, kill)
            return created._replace(ended=[*created.ended, *ended])

        return self._ask(timeout, effect)

    def update(
        self,
        digest: str,
        *,
        seen: int,
        payload: Fields,
        user_id: str | None,
        idle_ms: int,
        absolute_ms: int | None = None,
        timeout: float | None = None,
    ) -> AuthRow | None:
        """See the package."""

        def effect() -> AuthRow | None:
            row = self.tables.row(digest)
            if row is None or row.state is not RowState.VALID or row.version != seen:
                return None
            ends_at = row.absolute_expires_at if absolute_ms is None else row.created_at + absolute_ms
            row = replace(
                row,
                user_id=user_id,
                version=seen + 1,
                payload=dict(payload),
                user_epoch=self.tables.epoch(user_id),
                idle_expires_at=min(self.tables.now_ms + idle_ms, ends_at),
                absolute_expires_at=ends_at,
            )
            self.tables.put(row)
            return row

        return self._ask(timeout, effect)

    def raise_version(
        self, digest: str, *, seen: int, version: int, payload: Fields, timeout: float | None = None
    ) -> bool:
        """See the package."""

        def effect() -> bool:
            row = self.tables.row(digest)
            is_there = row is not None and row.live and row.version == seen
            if is_there:
                self.tables.put(replace(self.tables.rows[digest], version=version, payload=dict(payload)))
            return is_there

        return self._ask(timeout, effect)

    def regenerate(
        self,
        digest: str,
        *,
        successor: str,
        seen: int,
        payload: Fields,
        idle_ms: int,
        absolute_ms: int | None = None,
        timeout: float | None = None,
    ) -> AuthRow | None:
        """See the package."""

        def effect() -> AuthRow | None:
            old = self.tables.row(digest)
            if old is not None and old.state is RowState.VALID and old.version == seen:
                self.tables.kill(digest)
                self.tables.successors[digest] = successor
                ends_at = old.absolute_expires_at if absolute_ms is None else old.created_at + absolute_ms
                idle_at = min(self.tables.now_ms + idle_ms, ends_at)
                new = replace(old, digest=successor, version=1, payload=dict(payload), idle_expires_at=idle_at)
                self.tables.put(replace(new, absolute_expires_at=ends_at))
                self.tables.watcher.row_goes_on(old, new)
            return self.tables.row(successor)

        return self._ask(timeout, effect)

    def _ids_of(self, digest: str) -> list[str]:
        """Return the digests under which a session ends."""
        return self.tables.ids_of(digest)

    def revoke_many(
        self, digests: Sequence[str], timeout: float | None = None, *, by_device: bool = False
    ) -> list[EndedSession]:
        """See the package."""

        def effect() -> list[EndedSession]:
            ended = dict.fromkeys(following for digest in sorted(digests) for following in self._ids_of(digest))
            return [each for digest in ended for each in self.tables.end(digest)]

        return self._ask(timeout, effect)

    def kill(self, digest: str, timeout: float | None = None) -> int | None:
        """See the package."""
        return self._ask(timeout, lambda: self.tables.kill(digest))

    def kill_user(self, user_id: str, timeout: float | None = None) -> int:
        """See the package."""
        return self._ask(timeout, lambda: self.tables.raise_epoch(user_id))

    def kill_user_until(
        self,
        user_id: str,
        until_ms: int,
        timeout: float | None = None,
        *,
        epoch: int = 0,
        after: str = "",
        limit: int = 500,
    ) -> list[str]:
        """See the package."""

        def is_over(row: AuthRow) -> bool:
            return row.created_at <= until_ms or row.user_epoch < epoch

        def effect() -> list[str]:
            if not (epoch or after):
                self.tables.epochs.setdefault(user_id, 0)
            rows = self.tables.rows
            over = [digest for digest in self.tables.of_user(user_id) if is_over(rows[digest]) and digest > after]
            dead: list[str] = []
            part = sorted(over)[:limit]
            while part:
                for digest in part:
                    self.tables.kill(digest)
                dead = [*part, *dead]
                part = [digest for digest in self.tables.go_on_as(part) if digest not in dead]
            return dead

        return self._ask(timeout, effect)

    def ended_with(self, user_id: str, epoch: int, timeout: float | None = None) -> list[str]:
        """See the package."""

        def effect() -> list[str]:
            rows = [self.tables.rows[digest] for digest in sorted(self.tables.of_user(user_id))]
            now_ms = self.tables.now_ms
            return [
                row.digest
                for row in rows
                if row.live
                and row.user_epoch == epoch - 1
                and min(row.idle_expires_at, row.absolute_expires_at) > now_ms
            ]

        ended: list[str] = self._ask(timeout, effect)
        return ended

    def sessions_of(self, user_id: str, timeout: float | None = None) -> list[AuthRow]:
        """See the package."""
        return self._ask(timeout, lambda: self._rows(self.tables.of_user(user_id)))

    def load_many(self, digests: Sequence[str], timeout: float) -> Found:
        """See the package."""
        return self._ask(timeout, lambda: Found({row.digest: row for row in self._rows(list(digests))}, frozenset()))

    def renamed(self, digests: Sequence[str], ms: int, timeout: float) -> set[str]:
        """See the package."""

        def effect() -> set[str]:
            since = self.tables.now_ms - ms
            has_moved = [digest for digest in digests if self.tables.go_on_as([digest])]
            return {digest for digest in has_moved if self.tables.updated_at.get(digest, 0) > since}

        return self._ask(timeout, effect)

    def changed_since(self, ms_ago: int, after: Position | None = None, limit: int = 200) -> ChangedRows:
        """See the package."""

        def effect() -> ChangedRows:
            begin = (self.tables.now_ms - ms_ago, "") if after is None else after
            changed = sorted((at, digest) for digest, at in self.tables.updated_at.items() if (at, digest) > begin)
            part = changed[:limit]
            return ChangedRows(self._rows([digest for _, digest in part]), part[-1] if len(part) == limit else None)

        return self._ask(PATIENT_SECONDS, effect)

    def _rows(self, digests: list[str]) -> list[AuthRow]:
        return [row for digest in digests if (row := self.tables.row(digest)) is not None]

    def probe(self, timeout: float) -> None:
        """See the package."""
        self._tasks.ask(NAME, lambda: self._network.path_to(SERVER), timeout, lambda: None)

    def probe_read(self, timeout: float) -> None:
        """See the package."""
        self.probe(timeout)
