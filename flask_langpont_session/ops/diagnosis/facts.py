"""The facts about an application, its stores and its host. Secrets are among them, which no check may quote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...config.settings import Settings
from ...policy.errors import StoreError
from ...policy.health import DATABASE
from ...stores.hosts import HostWord
from .findings import Unknown


class Clock(NamedTuple):
    """The difference between a clock and that of this host.

    :param ahead: seconds.
    :param within: seconds by which that may be wrong: half of the time that the answer took.
    """

    ahead: float
    within: float


class Transport(NamedTuple):
    """One connection.

    :param is_local: the other end is on this host.
    :param checks_certificate: the certificate has to be signed by an authority that is trusted.
    :param checks_name: it has to name the host.
    :param has_credentials: a password or a token is sent over it.
    :param ends_at: when the server's certificate expires, seconds since 1970; None: it is not checked, or not shown.
    """

    is_local: bool
    is_encrypted: bool
    checks_certificate: bool | Unknown
    checks_name: bool | Unknown
    has_credentials: bool
    ends_at: float | None = None


# -- Redis -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server of Redis or Valkey.

    :param name: of the store.
    :param took: seconds of the quickest answer.
    :param connecting: seconds until a new connection could be used.
    :param info: of INFO: name → value.
    :param user: that this application is there.
    :param missing: rights that the user lacks.
    :param near: why there is no near cache; empty: there is one; None: the settings say that there is to be none.
    """

    name: str
    took: float
    connecting: float
    clock: Clock
    transport: Transport | Unknown
    info: Mapping[str, str] | Unknown
    user: str | Unknown
    missing: tuple[str, ...]
    near: str | None


# -- the database ------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column as the database has it.

    :param is_wide: a number of eight bytes; None: it is no number, or the database has one kind only.
    :param length: of text, at most; None: it has no limit.
    :param collation: by which text is compared, if that is not the same for all.
    """

    is_wide: bool | None = None
    length: int | None = None
    collation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Database:
    """The database.

    :param place: which one, for people.
    :param backend: SQLAlchemy's name of its kind.
    :param tables: table → column → what it is; those of this package that are there.
    :param indexes: the columns of each index, by table.
    :param refusal: why it takes no writes now; None: it takes them, or lacks a table.
    :param missing: rights that its user lacks, in words.
    :param file: of SQLite.
    """

    place: str
    backend: str
    took: float
    clock: Clock
    transport: Transport | Unknown
    tables: Mapping[str, Mapping[str, Column]]
    indexes: Mapping[str, frozenset[tuple[str, ...]]]
    refusal: StoreError | None
    missing: tuple[str, ...] | Unknown
    file: File | None = None


# -- the host ----------------------------------------------------------------------------------------------------------


_LEAST_FREE = 67_108_864
"""Bytes."""

MAKE_ROOM = "make room; without it what waits is lost"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file, or the place where it is to be.

    :param is_there: False: what follows is of the folder that it would be made in.
    :param owner: user id.
    :param mode: as ``chmod`` takes it.
    :param folder_owner: user id.
    :param size: bytes, with those beside it that belong to it.
    :param free: bytes that its file system has left.
    :param file_system: its kind, as ``mount`` names it.
    """

    path: str
    is_absolute: bool
    is_there: bool
    owner: int
    mode: int
    folder_owner: int
    folder_mode: int
    size: int
    free: int
    file_system: str | Unknown

    @property
    def lack(self) -> str | None:
        """Return how little room there is for what waits; None: there is enough."""
        return f"{self.free // 1_048_576} MB are free" if self.free < _LEAST_FREE else None


@dataclass(frozen=True, kw_only=True)
class Host:
    """This host.

    :param user: id of the user that this process has.
    :param journal: the file that is in use; None: kept in memory.
    :param forgotten: of each worker that has said so, how many sessions in use had no room in its memory.
    :param unread: files of the journal that this release cannot use, and why.
    :param workers: of each process of this host that has the journal open, but for this one, the user id.
    """

    user: int
    journal: File | None
    unread: tuple[tuple[str, str], ...] = ()
    forgotten: tuple[int, ...] = ()
    workers: tuple[int, ...] | Unknown


SERVERS = "servers"
"""Facts that are asked for only where a check needs them, and so are those of the database."""

_NOT_ASKED = Unknown("it was not asked")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All facts.

    :param settings: of this package.
    :param config: Flask's, with the key by which the application signs.
    :param at: when they were read, seconds since 1970.
    :param servers: store → server, or why it does not answer.
    :param homeless: slots of a cluster that no shard has.
    :param lost_commits: sessions whose end this host has told the database, and that live there.
    :param unclaimed: session keys that no feature names, of users' sessions that changed today.
    :param absent: users' sessions that changed today and are in the database, but not in this Redis.
    :param hosts: the configurations that workers have told lately, by host.
    """

    settings: Settings = field(repr=False)
    config: Mapping[str, Any] = field(repr=False)
    at: float
    host: Host
    servers: Mapping[str, Server | Unknown] = field(default_factory=dict)
    homeless: int = 0
    database: Database | Unknown = _NOT_ASKED
    lost_commits: int | Unknown = _NOT_ASKED
    unclaimed: frozenset[str] | Unknown = _NOT_ASKED
    absent: int | Unknown = 0
    hosts: Sequence[HostWord] | Unknown = _NOT_ASKED

    @property
    def stores(self) -> Mapping[str, Server | Database | Unknown]:
        """Return all stores by name."""
        return {**self.servers, DATABASE: self.database}

    @property
    def answering(self) -> Mapping[str, Server | Database]:
        """Return the stores that answer."""
        return {name: store for name, store in self.stores.items() if not isinstance(store, Unknown)}
