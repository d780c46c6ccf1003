"""What requests and connections notice of the stores, on its way to the monitor.

The monitor needs all stores, and some of what it needs tells it things: so this is made first, and the monitor last.
"""

from __future__ import annotations

from typing import Protocol

from ..policy.health import ONLY


class Watcher(Protocol):
    """What is told, in any thread. It must not raise or block."""

    def suspect(self, store: str) -> None:
        """A call to that store failed, or it lacks what it had."""

    def suspect_slowness(self, store: str) -> None:
        """Too many answers of that store came too late."""

    def note_incident(self, shard: str = ONLY) -> None:
        """Redis was exchanged for another server, or lost data."""


class Notices:
    """Passes on what it is told. Until the monitor listens there is nothing to pass on: it begins by looking at every
    store."""

    def __init__(self) -> None:
        self._watcher: Watcher | None = None

    def go_to(self, watcher: Watcher) -> None:
        """From here on."""
        self._watcher = watcher

    def suspect(self, store: str) -> None:
        """See :class:`Watcher`."""
        if self._watcher is not None:
            self._watcher.suspect(store)

    def suspect_slowness(self, store: str) -> None:
        """See :class:`Watcher`."""
        if self._watcher is not None:
            self._watcher.suspect_slowness(store)

    def note_incident(self, shard: str = ONLY) -> None:
        """See :class:`Watcher`."""
        if self._watcher is not None:
            self._watcher.note_incident(shard)
