"""The common language of the stores: records as values, and errors by class.

A store translates its driver's errors into :class:`StoreError` where they happen; the rest of the package knows
error *classes* and nothing of any driver. ``None`` always means "there is no such record"; "the store did not
answer" is always an exception. Those are two different answers everywhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple, Self

from ..support.errors import LangPontSessionError

Fields = Mapping[str, bytes]
"""Session key → encoded value (UTF-8 JSON as the serializer writes it)."""


class Wait(float):
    """Seconds that a call may wait for its answer.

    :param whole: seconds for everything, a connection that has to be made first included.
    """

    __slots__ = ("whole",)

    whole: float

    def __new__(cls, seconds: float, whole: float) -> Self:
        """Both in seconds."""
        wait = super().__new__(cls, seconds)
        wait.whole = whole
        return wait


class ErrorClass(StrEnum):
    """The kind of a failure. The kinds in :data:`~.health.HEALTH_CLASSES` say something of the health of a store."""

    UNREACHABLE = "U"
    BUSY = "B"
    WRITE_REFUSED = "W"
    IDENTITY_REFUSED = "A"
    NO_TABLES = "N"
    TOPOLOGY = "T"
    DATA = "D"
    LOCAL = "L"


HEALTH_CLASSES = frozenset(ErrorClass) - {ErrorClass.TOPOLOGY, ErrorClass.DATA, ErrorClass.LOCAL}
"""The classes that feed a breaker. One user's data (D), our own limits (L) and resharding (T) never do."""


def words_of(error_class: ErrorClass) -> str:
    """Return an error class as it may stand in a sentence."""
    return error_class.name.lower().replace("_", " ")


def role_of(store: str) -> str:
    """Return the role of a store: ``primary``, ``replica`` or ``database``."""
    return store.partition(":")[0]


def shard_of(store: str) -> str:
    """Return the shard that a store belongs to."""
    return store[len(role_of(store)) :]


class StoreError(LangPontSessionError):
    """A store could not do what it was asked.

    :param store: ``primary``, ``replica``, ``database`` or ``journal``; of several shards ``primary:1`` …
    :param error_class: what kind of failure.
    :param cause: name of the driver's exception class; its text may quote keys and values, so it is not kept.
    :param timed_out: it did not answer in time.
    :param sent: the outcome is unknown: a write may have happened all the same. None: if it timed out.
    :ivar may_be_one_row: it waited for a lock that may be one user's: others need not have noticed.
    """

    may_be_one_row = False

    def __init__(
        self, store: str, error_class: ErrorClass, cause: str, *, timed_out: bool = False, sent: bool | None = None
    ) -> None:
        self.store = store
        self.error_class = error_class
        self.cause = cause
        self.timed_out = timed_out
        self.sent = timed_out if sent is None else sent
        super().__init__(f"{store}: {self.why}")

    @property
    def why(self) -> str:
        """Return what happened, for people."""
        return f"{words_of(self.error_class)} ({self.cause})"

    @property
    def log_data(self) -> dict[str, str]:
        """Return the error's data for ``extra=`` of a line of the log."""
        return {"store": self.store, "cause": self.error_class.name.lower(), "detail": self.cause}

    @property
    def concerns_health(self) -> bool:
        """Return whether the error counts for a circuit breaker."""
        return self.error_class in HEALTH_CLASSES


class RowState(StrEnum):
    """The state of a session of kind u in the database."""

    VALID = "valid"
    DEAD = "dead"
    IDLE_EXPIRED = "idle_expired"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class AuthRow:
    """One session of kind u as the database has it. All times are milliseconds since 1970 by the database's clock.

    :param digest: SHA-256 of the session id; the primary key.
    :param user_id: the user the session belongs to, as text; None for a session that has rights but no user.
    :param version: counts the changes of this row, from 1.
    :param live: False for ever once the session was revoked.
    :param payload: the auth category's session keys and their encoded values.
    :param user_epoch: the user's epoch when the session began.
    :param created_at: when the session began.
    :param idle_expires_at: when the session ends unless it is used.
    :param absolute_expires_at: when the session ends in any case.
    :param read_at: when the database read this row.
    """

    digest: str
    user_id: str | None
    version: int
    live: bool
    payload: Fields
    user_epoch: int
    created_at: int
    idle_expires_at: int
    absolute_expires_at: int
    read_at: int

    def read_as(self, payload: Fields, read_at: int) -> AuthRow:
        """Return the same row, read at another moment. Takes half as long as :func:`dataclasses.replace`, and nearly
        all reads of a store make one."""
        return AuthRow(
            self.digest,
            self.user_id,
            self.version,
            self.live,
            payload,
            self.user_epoch,
            self.created_at,
            self.idle_expires_at,
            self.absolute_expires_at,
            read_at,
        )

    @property
    def state(self) -> RowState:
        """Return the row's state. Dead counts before expired: a dead session stays dead whatever its times say."""
        if not self.live:
            return RowState.DEAD
        if self.read_at >= self.absolute_expires_at:
            return RowState.EXPIRED
        if self.read_at >= self.idle_expires_at:
            return RowState.IDLE_EXPIRED
        return RowState.VALID

    def lives_on(self, margin_ms: int) -> bool:
        """Return whether a session that was ended lives nevertheless: it may be idle, but its absolute expiry is
        further away than two clocks differ."""
        return self.state in (RowState.VALID, RowState.IDLE_EXPIRED) and (
            self.read_at + margin_ms < self.absolute_expires_at
        )


class JustEnded(AuthRow):
    """A row that its reader has found to be idle for too long, and has ended: nothing else did so before."""

    __slots__ = ()

    @classmethod
    def of(cls, row: AuthRow) -> Self:
        """Return the row after its end."""
        known = {field.name: getattr(row, field.name) for field in fields(row)}
        return cls(**{**known, "live": False, "version": row.version + 1})


class Limit(NamedTuple):
    """The most sessions that a user may have at a time.

    :param most: sessions, at least 1.
    :param ends_oldest: those that are too many end, the oldest first; else a sign-in is refused.
    """

    most: int
    ends_oldest: bool


class Ended(NamedTuple):
    """A session that the database has ended, or found to be over.

    :param version: of its row, from then on.
    :param lived: it was valid until then.
    """

    digest: str
    version: int
    lived: bool


class Created(NamedTuple):
    """A session that began.

    :param ended: the sessions that ended in the same transaction.
    """

    row: AuthRow
    ended: Sequence[Ended] = ()


Position = tuple[int, str]
"""How far a reader is that goes through rows in the order of their last change: its time, and the digest."""


class ChangedRows(NamedTuple):
    """A part of the rows that changed.

    :param reached: where the next part begins; None: these are the last.
    """

    rows: list[AuthRow]
    reached: Position | None


class Found(NamedTuple):
    """The rows that the database has of many sessions.

    :param rows: digest → row, of those that have one.
    :param damaged: digests of those that have one which cannot be read: nothing follows from it.
    """

    rows: Mapping[str, AuthRow]
    damaged: Set[str]


class CategoryCopy(NamedTuple):
    """The data of one category as of one version.

    :param version: microseconds by the Redis clock: when it was written last, or, of one that was not there, when that
        was seen. It grows for ever; 0: not known.
    :param meta: what the record says of itself, see ``record.lua``; where that is asked for.
    :param additions: the ids of the latest additions that are part of it, 20 bytes each: 7 of the id, then its time.
        What waits in the journal under one of them is not added to the copy again.
    :param given_back: of what Redis was given back after a loss: the version of the copy that it was given last, which
        is all that it knows of the time before. 0: it was given none.
    """

    version: int
    fields: Fields
    meta: bytes = b""
    additions: bytes = b""
    given_back: int = 0


class RecordRef(NamedTuple):
    """The name of a session's data: of the session itself, or of its shadow.

    :param digest: of the session.
    :param kind: of the session; ``a`` of a shadow.
    :param shadow: the anonymous shadow of a session that is dead is meant.
    """

    digest: str
    kind: str
    shadow: bool = False


class SharedCopy(NamedTuple):
    """A worker's copy of a category, to be shared with the other workers of its host.

    :ivar age: seconds for which it has known this version, or one as new.
    :ivar kind: of the session: ``a`` anonymous, ``u`` signed in. Empty: that is not known, or nothing was there. Then
        there is nothing that could be given back to Redis.
    :ivar began: if the category began from nothing, as of when at the latest, as a version; 0: it did not.
    """

    digest: str
    category: str
    copy: CategoryCopy
    age: float = 0.0
    kind: str = ""
    began: int = 0


class Basis(StrEnum):
    """The knowledge from which a value that waits was made."""

    BLIND = "blind"  # nothing: the key was not read. The last write wins, by its time
    SEEN = "seen"  # the value that was there at a known version. It wins unless the field was written since
    UNSEEN = "unseen"  # the key could not be read: it is put only where there is none


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The knowledge of this host's workers about the Redis server behind an endpoint.

    :param identity: what it says it is; new after every start of a server process.
    :param trust_since_ms: when it was last found to be another server, or to have lost data, milliseconds since 1970
        by its own clock. What was stamped before counts no more.
    :param canary_id: the id of the canary that was last seen there; empty: none yet.
    :param number: of that canary; it grows while the id is the same.
    """

    identity: str
    trust_since_ms: int
    canary_id: str
    number: int

    def outdates(self, known: ServerRecord | None) -> bool:
        """Return whether this is news to a worker that knows `known`.

        A worker that does not know of an incident yet must not hide it from workers that start now: trust is never
        dated back. (A failover to a server with a slow clock is not kept for a while; a worker that starts then learns
        by itself.)
        """
        if known is None or self.trust_since_ms != known.trust_since_ms:
            return known is None or self.trust_since_ms > known.trust_since_ms
        return self.number > known.number or not self.is_same_as(known)

    def is_same_as(self, known: ServerRecord | None) -> bool:
        """Return whether nothing has happened in between: only the canary's number may differ."""
        return known is not None and replace(known, number=self.number) == self


class Operation(StrEnum):
    """The kind of a change to one field, or to all fields of a category."""

    SET = "set"
    DELETE = "del"
    ADD = "add"
    WIPE = "wipe"
    RECORD = "record"


@dataclass(slots=True)
class CategoryChange:
    """Changes of one category. Values are encoded.

    :param life_ms: the life its record gets.
    :param wipe: begin from nothing.
    :param seen: those of the changed keys that this request has read before: what is stored was made from it.
    :param unseen: those that it wanted to read and could not: what is stored must not replace what is there.
    :param since: the version that this request has read: a server that has less has lost it. 0: it has read none.
    """

    life_ms: int
    sets: dict[str, bytes] = field(default_factory=dict)
    deletes: set[str] = field(default_factory=set)
    increments: dict[str, int] = field(default_factory=dict)
    wipe: bool = False
    seen: Set[str] = frozenset()
    unseen: Set[str] = frozenset()
    since: int = 0

    def __bool__(self) -> bool:
        return bool(self.sets or self.deletes or self.increments or self.wipe)

    def put(self, key: str, value: bytes | None) -> None:
        """Add a key; None: it is deleted."""
        if value is None:
            self.deletes.add(key)
        else:
            self.sets[key] = value

    @property
    def writes(self) -> dict[str, bytes | None]:
        """Return sets and deletions together; None: deleted."""
        return {**self.sets, **dict.fromkeys(self.deletes)}


LONGEST_LABEL = 100
"""Characters; the width of the column."""

_MOST_READ = 1000
"""Characters of a label that are looked at: what is in front of the rest."""

_JOINERS = "\u200c\u200d"
"""Of the invisible characters those that words (in Persian, for example) and emoji are written with."""

_PREFIXES = {4: 24, 6: 48}
"""How much of an address is kept: what a provider gives to many, or to one house."""


class Device(NamedTuple):
    """The data about a device that is stored beside its session.

    :param label: for its user to know it by; None: none.
    :param network: from where the user signed in; None: that is not stored.
    """

    label: str | None = None
    network: str | None = None


NO_DEVICE = Device()


class UserSession(NamedTuple):
    """A row, and what is only asked of the sessions of one user.

    :param seen_at: when it was in use, milliseconds since 1970 by the database's clock; None: not known.
    :param successor: the digest under which it goes on; None: under none.
    :param is_mine: it is the session that asks.
    """

    row: AuthRow
    device: Device = NO_DEVICE
    seen_at: int | None = None
    successor: str | None = None
    is_mine: bool = False


def clean_label(text: str) -> str | None:
    """Return a label as it is stored and shown: one line of at most :data:`LONGEST_LABEL` characters, without what
    controls a terminal or turns the text around. None: nothing is left."""
    visible = "".join(_visible(character) for character in text[:_MOST_READ])
    return " ".join(visible.split())[:LONGEST_LABEL].rstrip() or None


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace():
        return " "
    return "" if category[0] == "C" and character not in _JOINERS else character


def network_of(address: str | None) -> str | None:
    """Return the network of an IP address, with the rest of the address cut off.

    >>> network_of("203.0.113.77"), network_of("2001:db8:1:2::3")
    ('203.0.113.0/24', '2001:db8:1::/48')

    :return: None: that is no IP address, as of a request over a Unix socket.
    """
    try:
        known = ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(known, IPv6Address) and known.ipv4_mapped is not None:
        known = known.ipv4_mapped
    return str(ip_network((known, _PREFIXES[known.version]), strict=False))
