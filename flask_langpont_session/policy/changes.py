"""Changes of a category: what a request has set, deleted and added, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum

Fields = Mapping[str, bytes]
"""Session key → encoded value (UTF-8 JSON as the serializer writes it)."""


NO_FIELDS: Fields = {}


class Operation(StrEnum):
    """The kind of a change to one field, or to all fields of a category."""

    SET = "set"
    DELETE = "del"
    ADD = "add"
    WIPE = "wipe"
    RECORD = "record"


class Basis(StrEnum):
    """The knowledge from which a value that waits was made."""

    BLIND = "blind"  # nothing: the key was not read. The last write wins, by its time
    SEEN = "seen"  # the value that was there at a known version. It wins unless the field was written since
    UNSEEN = "unseen"  # the key could not be read: it is put only where there is none


@dataclass(slots=True)
class CategoryChange:
    """Changes of one category. Values are encoded.

    :param life_ms: the life its record gets.
    :param wipe: begin from nothing.
    :param seen: those of the changed keys that this request has read before: what is stored was made from it.
    :param unseen: those that it wanted to read and could not: what is stored must not replace what is there.
    :param since: the version that this request has read: a server that has less has lost it. 0: it has read none.
    """

    life_ms: int = 0
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


def apply_change(fields: Fields, change: CategoryChange) -> dict[str, bytes]:
    """Return the fields after a change."""
    after = dict(change.sets) if change.wipe else {**fields, **change.sets}
    if change.deletes or change.increments:
        apply_writes(after, dict.fromkeys(change.deletes), change.increments)
    return after


def difference(before: Fields, after: Fields) -> CategoryChange:
    """Return the change that turns the first fields into the second."""
    sets = {key: value for key, value in after.items() if before.get(key) != value}
    return CategoryChange(sets=sets, deletes=before.keys() - after.keys())


def apply_writes(fields: dict[str, bytes], writes: Mapping[str, bytes | None], deltas: Mapping[str, int]) -> None:
    """Put values (None: remove) and additions over `fields`, in place."""
    for key, value in writes.items():
        if value is None:
            fields.pop(key, None)
        else:
            fields[key] = value
    for key, by in deltas.items():
        now = fields.get(key, b"0")
        if now.lstrip(b"-").isdigit():
            fields[key] = b"%d" % (int(now) + by)
