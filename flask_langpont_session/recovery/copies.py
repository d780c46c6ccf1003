"""Copies of what was merged, for the workers of this host that do not read Redis yet: what leaves the journal is laid
over their reads no more, and to them it would look undone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..policy.described import Known, began_as_of
from ..policy.values import SharedCopy, StoreError
from ..stores.backend import Backend
from . import calls

ANNOUNCEMENTS = 2.0
"""Seconds between two announcements of a worker that an outage lasts."""

LINGER = 5.0
"""Seconds after a recovery during which a slower sibling worker may still read the published copies, and after a
worker's last announcement that it is in an outage: one of these may be missed."""


class MergedCopies:
    """Reads merged categories back from Redis.

    :param clock: monotonic seconds.
    """

    def __init__(self, backend: Backend, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin with nothing, as after a fork."""
        self._announced: Mapping[str, int] = {}
        self._announced_at = -math.inf
        self._recovered_at = self._clock()

    def recovered(self) -> None:
        """A store is in use again."""
        self._recovered_at = self._clock()

    def are_needed(self) -> bool:
        """Whether a worker of the host is, or may be, in an outage: one that has died announces nothing new."""
        announced = calls.ask_journal(self._backend.board.outages, "replay") or {}
        if announced and announced != self._announced:
            self._announced_at = self._clock()
        self._announced = announced
        return self._clock() - max(self._announced_at, self._recovered_at) < LINGER

    def refresh(self, merged: Mapping[tuple[str, str], str]) -> list[SharedCopy]:
        """Keep categories as they are now: if the server that has merged them is lost before its replica has them, no
        other worker may have them, and nothing else tells of what was wiped.

        :param merged: digest and category → kind of the session.
        :return: those to be published for the other workers of this host.
        """
        memory, wanted = self._backend.memory, list(merged)
        asked_at = self._clock()
        try:
            copies = self._backend.primary.copies(wanted, timeout=calls.TIMEOUT) if wanted else []
        except StoreError:  # it is merged all the same, and no entry may say that it waits
            for digest, category in wanted:
                memory.forget_category(digest, category)
            return []
        shared = []
        for (digest, category), copy in zip(wanted, copies, strict=True):
            kind = merged[digest, category]
            began = began_as_of(copy.meta) if copy.meta else copy.version  # what is not there may have been lost
            memory.put_category(digest, category, Known(copy.meta, copy, began=began), kind=kind, as_of=asked_at)
            shared.append(SharedCopy(digest, category, copy, kind=kind, began=began))
        return shared if self.are_needed() else []
