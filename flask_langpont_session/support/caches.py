"""Values that are kept so that they need not be made again: attributes of objects, and a bounded map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class lazy(Generic[T]):
    """An attribute of each object of a class. What was made lies beside the others, so that the next access costs
    nothing more; for objects of one thread.

    :param make: called with the object.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, owner: Any, kind: type) -> T:
        made = owner.__dict__[self._name] = self._make(owner)
        return made


K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A map whose values have sizes. A race of two threads loses at most an entry, or keeps one that was taken out.

    Of two generations the older one goes when the younger one has half of the room: all that is asked for meanwhile
    moves to the younger one. That needs no order of entries, which a lock would have to protect.

    :param most: the sum of the sizes that are kept, but for one of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.clear()

    def clear(self) -> None:
        """Forget all of it."""
        self._young: dict[K, tuple[int, V]] = {}
        self._old: dict[K, tuple[int, V]] = {}
        self._sum = 0

    def get(self, key: K) -> V | None:
        """What is kept under a key; None: nothing."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
            self.put(key, found[1], found[0])
        return found[1]

    def look(self, key: K) -> V | None:
        """The same, which does not count as asking for it: what is taken out meanwhile cannot come back by it."""
        found = self._young.get(key) or self._old.get(key)
        return None if found is None else found[1]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value in the place of what was there."""
        before = self._young.get(key)
        self._sum += size - (before[0] if before else 0)
        self._young[key] = size, value
        if self._sum > self._most // 2:
            self._old, self._young, self._sum = self._young, {}, 0

    def pop(self, key: K) -> V | None:
        """Take a value out."""
        older = self._old.pop(key, None)
        found = self._young.pop(key, None)
        if found is not None:
            self._sum -= found[0]
        found = found or older
        return None if found is None else found[1]
