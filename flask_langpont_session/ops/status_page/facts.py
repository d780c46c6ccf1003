"""The facts on the status page, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...policy.causes import Cause
from .history import LevelChange, Slice


class Store(NamedTuple):
    """One store.

    :param name: ``primary``, ``replica`` or ``database``; of several shards ``primary:1`` …
    :param writes: None: the store is only read.
    :param cause: why some direction is not used; None: both are used.
    :param remarks: what is to be known of it though it is used.
    :param since: since when a direction is not used, seconds since 1970.
    """

    name: str
    reads: bool
    writes: bool | None
    cause: Cause | None
    since: float | None
    remarks: Sequence[Cause] = ()


class FeatureNow(NamedTuple):
    """The behaviour of one feature at the present level.

    :param gets: in plain words.
    """

    name: str
    category: str
    priority: str
    behaviour: str
    gets: str


class Facts(NamedTuple):
    """All facts on the page.

    :param now: seconds since 1970.
    :param report: of this process, as ``/healthz`` gives it.
    :param since: when the present level began, seconds since 1970.
    :param means: what the level means, in a sentence.
    :param host: the host of the process.
    :param began: the beginning of the process' history, seconds since 1970.
    :param budget: seconds that one request may wait for all stores together.
    :param no_room: how little the disk of this host's journal has; None: enough.
    :param span: seconds that the charts show, until now.
    :param slices: the history within `span`, oldest first.
    :param changes: of the level, oldest first; the first may be older than `span`.
    :param repeats: whether the browser loads the page again by itself.
    """

    now: float
    report: Mapping[str, Any]
    since: float
    means: str
    features: Sequence[FeatureNow]
    stores: Sequence[Store]
    pid: int
    host: str
    began: float
    budget: float
    no_room: str | None
    span: float
    slices: Sequence[Slice]
    changes: Sequence[LevelChange]
    repeats: bool = False
