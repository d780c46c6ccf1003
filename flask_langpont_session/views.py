"""What a session shows of itself: one category as a mapping, and what each feature got."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from .categories import CategoryTable


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """What one feature gets in this request.

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
