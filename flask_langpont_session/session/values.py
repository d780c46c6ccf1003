"""Values that show a session: one category as a mapping, the report about a feature, and an entry in the list of
sessions."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..policy.categories import CategoryTable
from ..policy.devices import DescribedRow


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """The behaviour, source and availability of one feature in this request.

    :param feature: its name; `category`: the name of the category that has its keys.
    :param priority: how little an outage may take away from it: ``critical``, ``high``, ``medium`` or ``low``.
    :param behaviour: what the decision table says that it gets at this level, for example ``local_cache_fallback``;
        docs/configuration.md says what each means.
    :param source: where its data came from: ``primary``, ``replica``, ``database``, ``local``, ``journal``,
        ``default``, ``request`` (derived from the cookie) or ``none``.
    :param available: False when the table disables the feature at this level.
    """

    feature: str
    category: str
    priority: str
    behaviour: str
    source: str
    available: bool


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session in which a user is signed in. Times by the database's clock, with a zone.

    :param digest: its name, for :meth:`LangPontSession.revoke`; it cannot be used as a session id.
    :param user_id: the user, as text.
    :param idle_expires_at: when it ends unless it is used; moved in steps of a quarter of the idle time.
    :param absolute_expires_at: when it ends in any case.
    :param last_seen_at: when it was in use, as exact as a quarter of IDLE_TIMEOUT. Of a permanent session only where
        DEVICE_LABELS or DEVICE_NETWORKS is set; else when the user signed in, or what the database has of it changed.
    :param label: what its user knows it by; None: it has no label.
    :param network: from where its user signed in, as ``203.0.113.0/24``; None: that is not stored.
    :param is_mine: whether it is the session of the request that asks.
    """

    digest: str
    user_id: str | None
    created_at: datetime
    idle_expires_at: datetime
    absolute_expires_at: datetime
    last_seen_at: datetime
    label: str | None
    network: str | None
    is_mine: bool

    @classmethod
    def of(cls, found: DescribedRow) -> SessionInfo:
        """Return the entry for a row."""
        row = found.row
        times = (row.created_at, row.idle_expires_at, row.absolute_expires_at, found.seen_at or row.created_at)
        began, idle, absolute, seen = (datetime.fromtimestamp(ms / 1000, UTC) for ms in times)
        return cls(row.digest, row.user_id, began, idle, absolute, seen, *found.device, found.is_mine)


class CategoryView(MutableMapping[str, Any]):
    """One category of a session. Keys of other categories are not in it and cannot be set through it.

    :param session: the whole session.
    :param name: the category.
    """

    def __init__(self, session: MutableMapping[str, Any], table: CategoryTable, name: str) -> None:
        self._session = session
        self._table = table
        self._name = name

    def _own(self, key: str) -> str:
        owner = self._table.feature_of(key).category
        if owner != self._name:
            raise KeyError(f"{key!r} belongs to category {owner!r}, not to {self._name!r}")
        return key

    def __getitem__(self, key: str) -> Any:
        return self._session[self._own(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        self._session[self._own(key)] = value

    def __delitem__(self, key: str) -> None:
        del self._session[self._own(key)]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._session if self._table.feature_of(key).category == self._name)

    def __len__(self) -> int:
        return sum(1 for _ in self)
