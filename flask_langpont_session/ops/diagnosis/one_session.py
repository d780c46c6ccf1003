"""The facts about one session, wherever they are: for operators. No value of the session is in them, and no session
id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from ...policy.categories import AUTH
from ...policy.devices import DescribedRow
from ...policy.errors import ErrorClass, StoreError
from ...policy.health import PRIMARY, REPLICA
from ...policy.ids import is_digest
from ...policy.leases import EXTEND_AFTER, Life, life_of
from ...policy.rows import RowState
from ...stores.backend import Backend, SessionStore
from ...stores.host.journal import Journal, Waiting
from ...stores.host.opening import path_of
from ...stores.redis.auth_meta import AuthMeta, said
from ...stores.redis.commands import Commands
from .findings import Unknown
from .read_redis import PATIENCE, by_name

T = TypeVar("T")


class Ambiguous(LookupError):
    """Several digests have this beginning, or it cannot be known whether they do."""


_CANNOT_BE_READ = (
    "what is there cannot be read: it is damaged, or encrypted by a key that is not in this host's ENCRYPTION_KEYS"
)


class SessionState(StrEnum):
    """The state of a session, by all that is known of it."""

    VALID = "valid"
    VISITOR = "visitor"  # not signed in: there is no row, and nothing that could be withdrawn
    DEAD = "dead"
    IDLE_EXPIRED = "idle_expired"
    EXPIRED = "expired"
    UNCONFIRMED = "unconfirmed"  # Redis has it, and what the database has is not known
    UNKNOWN = "unknown"  # not found, and not all stores answer
    NOT_FOUND = "not_found"


Stored = Mapping[str, float | None]
"""The record of one category in Redis: how many ``keys`` of the session, the ``bytes`` of their names and values, and
``ttl_seconds``, for which it is kept yet, unless it is used; None: for ever, which nothing of this package is."""


@dataclass(frozen=True, slots=True)
class InRedis:
    """The records of a session in Redis.

    :param server: the role of the server that was asked: ``primary``, or the replica if that does not answer.
    :param auth: the record of a signed-in session, or its tombstone; None: there is none.
    :param categories: those that are there.
    :param shadow: those of the anonymous shadow of a session that has ended.
    """

    server: str
    auth: AuthMeta | None
    categories: Mapping[str, Stored]
    shadow: Mapping[str, Stored]

    @property
    def has_tombstone(self) -> bool:
        """Return whether Redis knows that the session has ended."""
        return self.auth is not None and not self.auth.is_live


@dataclass(frozen=True, slots=True)
class OneSession:
    """The facts about a session. A fact that is not known says why.

    :param described: its row; None: it has none.
    :param journal: kind → what there is of it on this host; None: there is no file: nothing waits, or JOURNAL is None
        and each worker remembers for itself.
    :param lives: what sessions of this application live for.
    """

    digest: str
    described: DescribedRow | Unknown | None
    redis: InRedis | Unknown
    journal: Mapping[str, Waiting] | Unknown | None
    lives: tuple[Life, ...] = field(default=(), repr=False)

    @property
    def state(self) -> SessionState:
        """Return the state of the session. Any store that says it has ended is right: nothing brings a session back."""
        if self._is_ended_here or (isinstance(self.redis, InRedis) and self.redis.has_tombstone):
            return SessionState.DEAD
        if isinstance(self.described, DescribedRow):
            return self._state_by_row(self.described)
        if isinstance(self.redis, Unknown) or isinstance(self.described, Unknown):
            is_there = isinstance(self.redis, InRedis) and self.redis.auth is not None
            return SessionState.UNCONFIRMED if is_there else SessionState.UNKNOWN
        has_any = self.redis.categories or self._waits_here
        return SessionState.VISITOR if has_any and not self.redis.auth else SessionState.NOT_FOUND

    @property
    def idle_expires_at(self) -> int:
        """Return the latest idle expiry that is known, milliseconds since 1970; 0: unknown. Redis may know of a later
        use than the row."""
        in_row = self.described.row.idle_expires_at if isinstance(self.described, DescribedRow) else 0
        in_redis = self.redis.auth.idle_expires_at if isinstance(self.redis, InRedis) and self.redis.auth else 0
        return max(in_row, in_redis)

    @property
    def last_seen(self) -> tuple[int, int | None] | None:
        """Return when the session was used, milliseconds since 1970, and by how much it may have been later; None: not
        known.

        Its idle expiry is moved when a quarter of the idle time has passed. Where the idle time is as long as the life
        in all, the expiry is never moved, and only the last change is known.
        """
        if not isinstance(self.described, DescribedRow):
            return None
        row, updated_at = self.described.row, self.described.updated_at
        life = life_of(row, self.described.seen_at, self.lives)
        if life is None or self.idle_expires_at >= row.absolute_expires_at:
            return max(row.created_at, min(updated_at, row.absolute_expires_at)), None
        idle_ms = life.of(row.payload).idle_ms
        return max(self.idle_expires_at - idle_ms, row.created_at), int(idle_ms * EXTEND_AFTER)

    @property
    def _is_ended_here(self) -> bool:
        waits = self.journal if isinstance(self.journal, Mapping) else {}
        return any(waits[kind].entries for kind in ("revocations", "user_revocations") if kind in waits)

    @property
    def _waits_here(self) -> bool:
        return isinstance(self.journal, Mapping) and any(waiting.entries for waiting in self.journal.values())

    def _state_by_row(self, described: DescribedRow) -> SessionState:
        row = described.row
        if row.state is RowState.IDLE_EXPIRED and self.idle_expires_at > row.read_at:
            return SessionState.VALID
        return SessionState(row.state)


def find(backend: Backend, beginning: str) -> str | None:
    """Return the one digest with this beginning, in the database and in this host's journal; None: there is none.
    Visitors' sessions are found by the whole digest only: Redis would have to walk through all keys.

    :raises Ambiguous: there are several, or the database does not answer.
    """
    if is_digest(beginning):
        return beginning
    journal = journal_there(backend)
    try:
        found = {*backend.database.find(beginning, PATIENCE), *(journal.find(beginning) if journal else ())}
    except StoreError as error:
        raise Ambiguous(f"only a whole digest can be looked for now: {error}") from None
    if len(found) > 1:
        raise Ambiguous(f"several digests begin with {beginning!r}: give more of it")
    return next(iter(found), None)


def read_session(backend: Backend, digest: str, lives: Iterable[Life]) -> OneSession:
    """Ask every store for one session. No store is changed, and no file is made.

    :param lives: what sessions of this application live for.
    """
    described = _known(backend.database.describe, digest, PATIENCE)
    row = described.row if isinstance(described, DescribedRow) else None
    journal = journal_there(backend)
    waits = _known(journal.of_session, digest, row) if journal else None
    return OneSession(digest, described, _in_redis(backend, digest), waits, tuple(lives))


def _known(ask: Callable[..., T], *arguments: Any) -> T | Unknown:
    try:
        return ask(*arguments)
    except StoreError as error:
        return Unknown(_CANNOT_BE_READ if error.error_class is ErrorClass.DATA else str(error))


def journal_there(backend: Backend) -> Journal | None:
    """Return the journal of this host; None: there is none that could be read. A missing one is not made: it would be
    this user's."""
    path = backend.journal.file.path
    return backend.journal if path is not None and path_of(path).exists() else None


def _in_redis(backend: Backend, digest: str) -> InRedis | Unknown:
    problem = Unknown("there is no Redis")
    for role in (PRIMARY, REPLICA):
        if role in backend.redis:
            found = _known(_ask_redis, backend, backend.redis[role], digest)
            if isinstance(found, InRedis):
                return found
            problem = found if role == PRIMARY else problem
    return problem


def _ask_redis(backend: Backend, store: SessionStore, digest: str) -> InRedis:
    store.find_shards(PATIENCE)
    names = (AUTH, *(name for name in backend.table.categories if name != AUTH))
    key_of = Commands(store.prefix).key
    keys = [key_of(name, digest, shadow) for shadow in (False, True) for name in names]
    commands = [command for key in keys for command in (("HGETALL", key), ("PTTL", key))]
    with ExitStack() as meanwhile:
        # What this host knows of the servers is the workers' business, and a file that is made would be this user's.
        for part in store.endpoints.values():
            meanwhile.enter_context(part.server_identity.alone())
        replies = store.run_commands(commands, timeout=PATIENCE)
    records = [(by_name(fields), left) for fields, left in zip(replies[::2], replies[1::2], strict=True)]
    auth = said(digest, records[0][0].get(b"@m", b""))
    mine, shadow = (
        {name: _stored(*record) for name, record in zip(names, part, strict=True) if record[0]}
        for part in (records[: len(names)], records[len(names) :])
    )
    return InRedis(store.name, auth, mine, shadow)


def _stored(fields: Mapping[bytes, bytes], left_ms: int) -> Stored:
    sizes = [len(name) + len(value) for name, value in fields.items() if not name.startswith(b"@")]
    return {"keys": len(sizes), "bytes": sum(sizes), "ttl_seconds": left_ms / 1000 if left_ms >= 0 else None}
