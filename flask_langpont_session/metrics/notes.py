"""Notes of the sessions in use, which requests leave for the count of active sessions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice

from ..support.forks import renew_in_children

MOST_NOTES = 20_000
"""Sessions in use, and as many that have ended, of which one worker holds notes until they are brought."""


class Notes:
    """The notes of one worker's requests. Nothing here waits for anything.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begin()
        renew_in_children(self, Notes._begin)

    def _begin(self) -> None:
        """Begin anew in a forked child: its parent brings the parent's notes."""
        self._lock = threading.Lock()
        self._served: dict[str, float] = {}
        self._ended: set[str] = set()

    def served(self, digest: str, life_ms: int) -> None:
        """Note that a session was used, and ends unless it is used again within `life_ms` milliseconds. Called not at
        every use, but when Redis has prolonged an anonymous session's life, or the database was asked about a signed-in
        one. When there are too many notes, this one is left for the next time."""
        with self._lock:
            if len(self._served) < MOST_NOTES:
                self._served[digest] = self._clock() + life_ms / 1000

    def ended(self, digest: str) -> None:
        """Note that a session is over."""
        with self._lock:
            self._served.pop(digest, None)
            if len(self._ended) < MOST_NOTES:
                self._ended.add(digest)

    def take(self) -> tuple[dict[str, float], set[str]]:
        """Return all notes, and forget them: digest → the moment at which that session's life ends, and the digests of
        sessions that are over."""
        with self._lock:
            served, self._served = self._served, {}
            ended, self._ended = self._ended, set()
        return served, ended

    def keep(self, served: dict[str, float], ended: set[str]) -> None:
        """Take back what could not be brought, as much as may be held. Part of it may be brought a second time."""
        with self._lock:
            served.update(self._served)
            ended |= self._ended
            kept = ((digest, ends) for digest, ends in served.items() if digest not in ended)
            self._served = dict(islice(kept, MOST_NOTES))
            self._ended = set(islice(ended, MOST_NOTES))
