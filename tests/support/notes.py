"""Notes that all hosts see, in memory."""

from __future__ import annotations

from collections.abc import Callable

from flask_langpont_session.alerts.fleet import Store
from flask_langpont_session.policy.errors import ErrorClass, StoreError


class MemoryNotes:
    """One store.

    :ivar is_up: whether it answers; `knows`: whether that is known before it is asked.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.is_up = self.knows = True
        self._clock = clock
        self._held: dict[str, tuple[str, float]] = {}
        self._seen: dict[tuple[str, str], float] = {}

    @property
    def store(self) -> Store:
        """Return the store as alerts take it."""
        return Store(self, lambda: self.is_up or not self.knows)

    def _now(self) -> float:
        if not self.is_up:
            raise StoreError("database", ErrorClass.UNREACHABLE, "down")
        return self._clock()

    def take(self, name: str, holder: str, seconds: float) -> bool:
        now = self._now()
        there, ends = self._held.get(name, ("", 0.0))
        if ends > now and there != holder:
            return False
        self._held[name] = holder, now + seconds
        return True

    def is_held(self, name: str) -> bool:
        return self._now() < self._held.get(name, ("", 0.0))[1]

    def drop(self, name: str) -> None:
        self._now()
        self._held.pop(name, None)

    def mark(self, name: str, holder: str, seconds: float) -> None:
        self._seen[name, holder] = self._now() + seconds

    def unmark(self, name: str, holder: str) -> None:
        self._now()
        self._seen.pop((name, holder), None)

    def marks(self, name: str) -> set[str]:
        now = self._now()
        return {holder for (of, holder), ends in self._seen.items() if of == name and ends > now}
