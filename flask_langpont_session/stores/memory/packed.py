"""Mappings in little room: in one piece of bytes, from which their values are made when they are asked for."""

from __future__ import annotations

import marshal
from collections.abc import Callable, Collection, ItemsView, Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from ...policy.changes import Fields
from ...policy.copies import CategoryCopy
from ...policy.rows import AuthEntry, AuthRow

T = TypeVar("T")


class Packed(Mapping[str, T]):
    """A mapping that takes about as many bytes as what it says. Each look into it makes all of its values anew.

    :param data: name → parts of a value, as :func:`marshal.dumps` writes them.
    :param make: called with these parts, returns the value; None: the name has none.
    :param names: that it has; None: all.
    """

    __slots__ = ("_make", "_names", "data")

    def __init__(self, data: bytes, make: Callable[..., T | None], names: Collection[str] | None = None) -> None:
        self.data = data
        self._make = make
        self._names = names

    def opened(self) -> dict[str, T]:
        """Return the same as a dict."""
        found = marshal.loads(self.data)
        made = {name: self._make(*found[name]) for name in (found if self._names is None else self._names)}
        return {name: value for name, value in made.items() if value is not None}

    def __getitem__(self, name: str) -> T:
        return self.opened()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.opened())

    def __len__(self) -> int:
        return len(self.opened())

    def items(self) -> ItemsView[str, T]:
        """Return names and values, all of which are made once."""
        return self.opened().items()


_ROW = tuple(column.name for column in fields(AuthRow) if column.name not in ("payload", "was_idle"))


def columns_of(row: AuthRow) -> tuple[Any, ...]:
    """Return the columns of a row, but for its payload."""
    return tuple(getattr(row, column) for column in _ROW)


def row_of(columns: tuple[Any, ...], payload: Fields) -> AuthRow:
    """Return the row that has these columns, see :func:`columns_of`."""
    return AuthRow(payload=payload, **dict(zip(_ROW, columns, strict=True)))


def parts_of(record: CategoryCopy) -> tuple[Any, ...]:
    """Return the parts of a record, see :func:`record_of`."""
    version, content, *rest, auth = record
    return auth and (auth.row and columns_of(auth.row), *auth[1:]), version, dict(content), *rest


def record_of(auth: tuple[Any, ...] | None, version: int, content: Fields, *rest: Any) -> CategoryCopy:
    """Return the record that has these parts. What a row has beside its columns is the content of its record."""
    entry = None
    if auth is not None:
        columns, *said = auth
        entry = AuthEntry(columns and row_of(columns, content), *said)
    return CategoryCopy._make((version, content, *rest, entry))
