"""The facts on the status page, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .history import LevelChange, Slice


class Process(NamedTuple):
    """The process that serves the page.

    :param host: its name.
    :param began: since when it remembers what happened, seconds since 1970.
    :param has_looked: whether it has looked at every store once.
    :param lag: seconds for which it was late of late.
    :param near_connections: of its near cache.
    """

    pid: int
    host: str
    began: float
    has_looked: bool
    lag: float
    near_connections: int


class Store(NamedTuple):
    """One store.

    :param name: ``primary``, ``replica`` or ``database``; of several shards ``primary:1`` …
    :param writes: None: it is only read.
    :param cause: why it is not used, in one direction at least; None: it is, in both.
    :param since: since when it is not, seconds since 1970.
    """

    name: str
    reads: bool
    writes: bool | None
    cause: str | None
    since: float | None
    cure: str = ""
    link: str = ""


class FeatureNow(NamedTuple):
    """The behaviour of one feature at the present level.

    :param gets: in plain words.
    """

    name: str
    category: str
    priority: str
    behaviour: str
    gets: str


class Shards(NamedTuple):
    """The shards of Redis. `lost_share`: the share (0–1) of all sessions that lies on those that are lost."""

    lost: int
    total: int
    lost_share: float


class Journal(NamedTuple):
    """The journal of this host.

    :param waiting: how many changes wait; None: it cannot be read.
    :param oldest: seconds that the oldest of them has waited; None: none does, or none bears a time.
    """

    waiting: int | None
    oldest: float | None


class Facts(NamedTuple):
    """All facts on the page.

    :param now: seconds since 1970.
    :param level: of the process now; of several shards, of the worst.
    :param since: when that began, seconds since 1970.
    :param means: what the level means, in a sentence.
    :param logins: whether users can sign in.
    :param budget: seconds that one request may wait for all stores together.
    :param span: seconds that the charts show, until now.
    :param slices: of that time, as far as this process remembers it, oldest first.
    :param changes: of the level, oldest first; the first one may be older.
    """

    now: float
    process: Process
    level: int
    level_name: str
    since: float
    means: str
    logins: bool
    features: Sequence[FeatureNow]
    stores: Sequence[Store]
    shards: Shards
    journal: Journal
    budget: float
    span: float
    slices: Sequence[Slice]
    changes: Sequence[LevelChange]
