"""The workers of a host tell each other of an outage, by the board, and share their copies. Each shard of a Redis that
has several is lost for itself."""

from __future__ import annotations

from collections.abc import Callable

from ..policy.copies import SharedCopy
from ..policy.errors import StoreError
from ..policy.health import PRIMARY
from ..stores.backend import Backend
from ..stores.host.board import PORTION
from ..stores.host.group_commit import is_busy
from ..stores.host.journal import Waiting
from .steps import ask_journal

NOTHING_WAITS = Waiting(0, None)

ANNOUNCEMENTS = 2.0
"""Seconds between two announcements of a worker that an outage lasts."""

_SHARING = 0.2
"""Seconds of each round for the copies of many sessions: the stores are looked at meanwhile."""

_LOOK_AT_JOURNAL = 1.0
"""Seconds between two looks at how much waits there."""


class Outages:
    """Announces outages to the other workers of the host, and shares this worker's copies with them.

    :param clock: monotonic seconds.
    :ivar waiting: what waits in the host's journal, as of a second ago; None: it cannot be read.
    """

    def __init__(self, backend: Backend, *, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._journal = backend.journal
        self._board = backend.board
        self._clock = clock
        self._silent: frozenset[str] = frozenset()
        self._is_first = True
        self._to_share: list[SharedCopy] = []
        self._next_announcement = 0.0  # 0: none stands, as far as is known here
        self._next_look = 0.0
        self.waiting: Waiting | None = NOTHING_WAITS

    def share(self) -> None:
        """Share this worker's copies, once, when no Redis of a shard answers; announce that for as long as it lasts."""
        health = self._backend.health
        silent = frozenset(shard for shard in health.shards if health.snapshot(shard).reader is None)
        if begun := silent - self._silent:
            self._next_announcement = 0.0
            live = self._backend.memory.live_categories()
            self._to_share += (copy for copy in live if health.locate(copy.digest) in begun)
        self._to_share = [copy for copy in self._to_share if health.locate(copy.digest) in silent]
        self._share_copies()
        # What Redis has lost the other workers are to notice, too.
        is_to_be_announced = bool(silent or self._backend.lacks)
        if is_to_be_announced and self._clock() >= self._next_announcement:
            # As long as it lasts: a worker that has recovered takes it back for all of them.
            self._next_announcement = self._clock() + ANNOUNCEMENTS
            ask_journal(lambda: self._board.announce_outage(PRIMARY), "monitor")
        elif self._is_first and ask_journal(self._board.outages, "monitor") != {}:  # by a worker that died in it
            self._next_announcement = self._clock()
        if self._next_announcement and not is_to_be_announced:
            is_taken_back = ask_journal(lambda: self._board.outage_over(PRIMARY), "monitor") is not None
            # Else again in the next round: no other worker need take it back.
            self._next_announcement = 0.0 if is_taken_back else self._next_announcement
        self._silent, self._is_first = silent, False

    def _share_copies(self) -> None:
        """Share as many copies as there is time for. All workers of a host begin at the same moment: one that waits too
        long for its turn goes on in the next round."""
        end = self._clock() + _SHARING
        while self._to_share:
            try:
                self._backend.reports.shared(*self._board.publish_copies(self._to_share[:PORTION]))
            except StoreError as error:
                if not is_busy(error):
                    self._to_share = []
                    self._backend.reports.journal_failed(error)
                return
            self._to_share = self._to_share[PORTION:]
            if self._clock() >= end:
                return

    def siblings_are_in_trouble(self) -> bool:
        """Return whether an outage is announced, and the journal was changed by another worker since the last call."""
        if not ask_journal(self._journal.changed, "monitor") or ask_journal(self._journal.is_empty, "monitor"):
            return False
        return bool(ask_journal(self._board.outages, "monitor"))

    def note_waiting(self) -> None:
        """Note what waits in the journal, so that a health page can say it without asking the file."""
        is_empty = ask_journal(self._journal.is_empty, "monitor")
        if is_empty is not False:
            self.waiting, self._next_look = NOTHING_WAITS if is_empty else None, 0.0
        elif self._clock() >= self._next_look:
            self._next_look = self._clock() + _LOOK_AT_JOURNAL
            self.waiting = ask_journal(self._journal.waiting, "monitor")
