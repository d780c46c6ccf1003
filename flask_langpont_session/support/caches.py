"""A bounded map of values that are kept so that they need not be made again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A map whose values have sizes. A race of two threads loses at most an entry, or keeps one that was taken out.

    Of two generations the older one goes when the younger one has half of the room: all that is asked for meanwhile
    moves to the younger one. That needs no order of entries, which a lock would have to protect.

    :param most: the sum of the sizes that are kept, but for one of them.
    :param largest: a value of a greater size is not kept.
    :param on_drop: called with the values that have to go because there are too many.
    """

    def __init__(
        self, most: int, largest: float = math.inf, on_drop: Callable[[Iterable[V]], None] | None = None
    ) -> None:
        self._most = most
        self._largest = largest
        self._on_drop = on_drop
        self.clear()

    def clear(self) -> None:
        """Forget all of it."""
        self._young: dict[K, tuple[int, V]] = {}
        self._old: dict[K, tuple[int, V]] = {}
        self._sum = 0

    def get(self, key: K) -> V | None:
        """Return the value under a key; None: there is none."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
            self.put(key, found[1], found[0])
        return found[1]

    def __len__(self) -> int:
        return len({**self._old, **self._young})

    def items(self) -> list[tuple[K, V]]:
        """Return all that is kept. That does not count as asking for it."""
        return [(key, value) for key, (_, value) in {**self._old, **self._young}.items()]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value in the place of what was there."""
        if size > self._largest:
            self.pop(key)
            return
        before = self._young.get(key)
        self._sum += size - (before[0] if before else 0)
        self._young[key] = size, value
        if self._sum > self._most // 2:
            gone, self._old, self._young, self._sum = self._old, self._young, {}, 0
            if self._on_drop is not None:
                self._on_drop(value for key, (_, value) in gone.items() if key not in self._old)

    def pop(self, key: K) -> V | None:
        """Take a value out."""
        older = self._old.pop(key, None)
        found = self._young.pop(key, None)
        if found is not None:
            self._sum -= found[0]
        found = found or older
        return None if found is None else found[1]
