"""The changes that one request made in its session, key by key. Knows encodings and limits; no store, no policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..exceptions import SessionTooLarge, SessionValueError, UnreadableValue
from ..policy.categories import AUTH, MAX_FIELDS
from ..policy.changes import NO_FIELDS, CategoryChange, Fields
from ..policy.loaded import Former, Loaded
from ..policy.serializer import IMMUTABLE, decode, encode, is_same
from .context import SessionContext

Carried = Mapping[str, bytes]
"""Session key → encoded value."""


class Changes:
    """Values as the view sees them, and which of them are to be stored."""

    read_all = False
    _bytes = 0  # of what views have assigned, at most: a bound that only grows

    def __init__(self, context: SessionContext) -> None:
        self._repository = repository = context.repository
        self._table, self._most_bytes = repository.table, repository.settings.max_category_bytes
        self.values: dict[str, Any] = {}
        self.assigned: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.increments: dict[str, int] = {}
        self.saved: dict[str, bytes] = {}
        self.read: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.assigned or self.deleted or self.increments)

    @property
    def is_blank(self) -> bool:
        """Return whether nothing was read, changed or saved."""
        return not (self.values or self.assigned or self.deleted or self.saved)

    @property
    def may_have_changed(self) -> bool:
        """Return whether a value was changed, or could have been changed inside."""
        if self.assigned or self.deleted or self.increments:
            return True
        return not IMMUTABLE.issuperset(map(type, self.values.values()))

    def __contains__(self, key: str) -> bool:
        """Return whether this request gave the key a value."""
        return key in self.assigned or key in self.increments

    def encode_fitting(self, key: str, value: Any, category: str, loaded: Loaded | None) -> bytes:
        """Return the bytes of a value for which there is room in a category, before anything is sent: to a client, an
        oversized command looks like a dead server.

        :raises SessionValueError: it cannot be stored, or with it the category would be over a limit.
        """
        encoded = encode(key, value)
        # The bound tells nearly always that there is room; only else is it worth to count.
        size = self._bytes = self._bytes + len(key) * 4 + len(encoded)
        known = NO_FIELDS if loaded is None else loaded.of(category).shown
        if known:
            size += sum(map(len, known)) * 4 + sum(map(len, known.values()))
        if size > self._most_bytes or len(self.assigned) + len(known) >= MAX_FIELDS:
            self._count_size(key, encoded, category, known)
        return encoded

    def assign(self, key: str, value: Any, encoded: bytes) -> None:
        """Give the key a value, which is to be stored."""
        self.values[key] = value
        self.assigned[key] = encoded
        if self.deleted or self.increments:
            self.deleted.discard(key)
            self.increments.pop(key, None)

    def delete(self, key: str, *, stored: bool) -> None:
        """Remove the key, in the store as well if it is stored."""
        for changed in (self.values, self.assigned, self.increments, self.saved):
            changed.pop(key, None)
        if stored:
            self.deleted.add(key)

    def add(self, key: str, by: int, total: int) -> None:
        """Note that the server is to add `by`; the view sees `total`."""
        self.increments[key] = self.increments.get(key, 0) + by
        self.values[key] = total

    def restart(self, carried: Carried, goes_on: Collection[str] = ()) -> None:
        """Forget everything but what is carried over, all of which is to be stored.

        :param goes_on: categories of which nothing is forgotten.
        """
        if self.is_blank and not carried:
            return

        def stays(key: str) -> bool:
            return self._table.feature_of(key).category in goes_on

        self.values = {key: value for key, value in self.values.items() if key in carried or stays(key)}
        self.assigned = {key: value for key, value in self.assigned.items() if stays(key)} | dict(carried)
        self.increments = {key: by for key, by in self.increments.items() if stays(key)}
        self.saved = {key: value for key, value in self.saved.items() if stays(key)}
        self.deleted = set(filter(stays, self.deleted))
        self._bytes = sum(map(len, self.assigned)) * 4 + sum(map(len, self.assigned.values()))

    def forget_read(self, category: str | None, stored: Callable[[str], bytes | None]) -> None:
        """Forget the values read of a category (None: of all), whose stored fields are about to be read again; changes
        stay.

        :param stored: the value of a key as it was read.
        """
        for key, encoded in self._changed_inside(stored).items():
            self.assign(key, self.values[key], encoded)
            self._bytes += len(key) * 4 + len(encoded)
        for key in list(self.values):
            if key not in self and (category is None or self._table.feature_of(key).category == category):
                del self.values[key]
                self.saved.pop(key, None)

    def mark_saved(self, changes: Mapping[str, CategoryChange]) -> None:
        """Note that all changes are saved, as well as could be, so that none of them is stored again.

        :param changes: what :meth:`by_category` made of it.
        """
        self.saved.update(self.assigned)
        for change in changes.values():
            self.saved.update(change.sets)
        self.assigned, self.deleted, self.increments = {}, set(), {}

    def _count_size(self, key: str, encoded: bytes, category: str, stored: Fields) -> None:
        sizes = {name: len(value) for name, value in stored.items()}
        for name, value in self.assigned.items():
            if self._table.feature_of(name).category == category:
                sizes[name] = len(value)
        for gone in self.deleted:
            sizes.pop(gone, None)
        sizes[key] = len(encoded)
        size = sum(sizes.values()) + sum(len(name.encode()) for name in sizes)
        if size > self._most_bytes:
            raise SessionTooLarge(key, f"category {category!r} would have {size} bytes, {self._most_bytes} are allowed")
        if len(sizes) > MAX_FIELDS:
            raise SessionTooLarge(key, f"category {category!r} would have more than {MAX_FIELDS} fields")

    def by_category(
        self,
        stored: Callable[[str], bytes | None],
        is_unknown: Callable[[str], bool],
        former: Mapping[str, Former] | None = None,
    ) -> dict[str, CategoryChange]:
        """Return all changes to store, those inside of values included. A key is written to the category of its
        feature, and removed from where it was; an increment goes to the category that has the number.

        :param stored: the stored value of a key.
        :param is_unknown: whether a key's stored value could not be read.
        :param former: see :attr:`.Loaded.former`.
        """
        changes: defaultdict[str, CategoryChange] = defaultdict(CategoryChange)
        feature_of, inside = self._table.feature_of, self._changed_inside(stored)
        for key in self.deleted:
            changes[feature_of(key).category].deletes.add(key)
        for key, by in self.increments.items():
            at = former.get(key) if former else None
            changes[at.category if at and at.counts else feature_of(key).category].increments[key] = by
        for key, encoded in ({**self.assigned, **inside} if inside else self.assigned).items():
            changes[feature_of(key).category].sets[key] = encoded
        if former and changes:
            self._take_away(changes, former)
        if inside or self._bytes > self._most_bytes:
            for name, change in changes.items():
                self._drop_oversized(name, change)
        if self.read_all or self.read:
            for change in changes.values():
                written = change.sets.keys() | change.deletes
                read = written if self.read_all else written & self.read
                change.unseen = set(filter(is_unknown, read))
                change.seen = read - change.unseen
        return dict(changes)

    def _take_away(self, changes: dict[str, CategoryChange], former: Mapping[str, Former]) -> None:
        """Remove written keys from the category where they were, since they move to that of their feature. A value
        older than the one there goes with the next change: later, nothing would tell which of both is older."""
        for key, at in former.items():
            home = self._table.feature_of(key).category
            written = changes[home].writes if home in changes else ()
            if key in written or not (at.counts or AUTH in (home, at.category)):
                changes.setdefault(at.category, CategoryChange()).deletes.add(key)

    def _drop_oversized(self, category: str, change: CategoryChange) -> None:
        """Drop the largest values of a category that grew over the limit inside of its values since they were assigned,
        and report each. The server refuses a change that is too large only together with stored data."""
        size = sum(map(len, change.sets)) + sum(map(len, change.sets.values()))
        while size > self._most_bytes:
            key = max(change.sets, key=lambda key: len(change.sets[key]))
            self._repository.backend.reports.rejected(category, key, f"{size} bytes are too many")
            size -= len(key) + len(change.sets.pop(key))

    def _changed_inside(self, stored: Callable[[str], bytes | None]) -> dict[str, bytes]:
        """Return the values that were changed in place since they were read or assigned."""
        changed: dict[str, bytes] = {}
        if IMMUTABLE.issuperset(map(type, self.values.values())):
            return changed
        for key in [key for key, value in self.values.items() if type(value) not in IMMUTABLE]:
            encoded = self._encode_again(key, self.values[key], stored)
            if encoded is not None:
                changed[key] = encoded
        return changed

    def _encode_again(self, key: str, value: Any, stored: Callable[[str], bytes | None]) -> bytes | None:
        """Return the encoding of a value that may have changed; None: it has not, or it cannot be stored any more."""
        before = self.assigned.get(key) or self.saved.get(key) or stored(key)
        if before is not None and is_same(value, before):
            return None
        try:
            encoded = encode(key, value)
        except SessionValueError as error:
            if before is None or not _is_equal(decode(before), value):
                self._repository.backend.reports.rejected(self._table.feature_of(key).category, key, error.reason)
            return None
        if encoded == before or (
            before is not None and key not in self.assigned and encoded == self._ours(key, before)
        ):
            return None
        return encoded

    def _ours(self, key: str, stored: bytes) -> bytes | None:
        """Return our encoding of a stored value: another writer may format the same value differently."""
        try:
            return encode(key, decode(stored))
        except (SessionValueError, UnreadableValue):
            return None

    def carry(self, key: str, stored: bytes | None) -> bytes | None:
        """Return the encoding under which a key is taken along to another id; None: it cannot be stored.

        A value that cannot be stored any more is taken along as it was stored last.
        """
        if key not in self.values:
            return self.assigned.get(key, stored)
        try:
            return encode(key, self.values[key])
        except SessionValueError as error:
            self._repository.backend.reports.rejected(self._table.feature_of(key).category, key, error.reason)
            self.values.pop(key)
            return stored


def _is_equal(stored: Any, value: Any) -> bool:
    """Return whether a value equals the stored one. An application's object, or an array, may fail to compare:
    False."""
    try:
        return bool(stored == value)
    except Exception:  # of any class: the application's own code runs here. Taken for changed, it is looked at again
        return False
