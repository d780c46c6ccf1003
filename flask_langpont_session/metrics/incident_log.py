"""The log's lines about an outage: one where a store is lost, one where it is used again, one when all that waited for
it has been merged.

The data of each stands in ``extra=`` as well, under names that begin with ``langpont_``, for logs in JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from ..policy.causes import cause_of
from ..policy.errors import DATABASE, StoreError
from ..policy.levels import LEVELS
from ..support.logs import fields
from .losses import Loss
from .recorder import Recorder, count_level

log = logging.getLogger(__name__)

_COUNTED: Mapping[str, str] = {
    "merged_fields": "changes merged",
    Loss.MERGE_CONFLICTS: "changes in conflict",
    Loss.MERGE_DROPPED: "changes dropped",
    Loss.WRITES_LOST: "changes lost",
    Loss.REQUEST_ONLY_WRITES: "changes kept for their request only",
    "grants_refused": "sign-ins or changes of rights refused",
}
"""Counter → what it counts."""

_WITHOUT_DATABASE = "No user can sign in, and no right changes (503)"


class IncidentLog:
    """Writes the lines of one process.

    :param recorder: whose counters say what this process has merged, lost and refused.
    :param address: of a store, for people; without a password.
    :param what_users_get: at a level, in a sentence.
    """

    def __init__(self, recorder: Recorder, address: Callable[[str], str], what_users_get: Callable[[int], str]) -> None:
        self._recorder = recorder
        self._address = address
        self._what_users_get = what_users_get
        self._before: Mapping[str, int] | None = None

    def lost(self, error: StoreError, ways: Sequence[str], level: int, lost: Collection[str]) -> None:
        """Log that requests do not use a store any more.

        :param ways: directions.
        :param level: of this process now.
        :param lost: all stores that requests do not use now.
        """
        if self._before is None:
            self._before = self._counters()
        address = self._address(error.store)
        log.warning(
            "session store %s (%s) is lost for %s: %s; %s. %s",
            *(error.store, address, _in_words(ways), error.why, cause_of(error).told, self._users(level, lost)),
            extra=fields("store_lost", **error.log_data, address=address, ways=sorted(ways), level=level),
        )

    def cause_changed(self, error: StoreError) -> None:
        """Log that a store which is lost cannot be used for another reason than before."""
        log.warning(
            "session store %s is still lost, for another reason: %s; %s",
            *(error.store, error.why, cause_of(error).told),
            extra=fields("store_cause_changed", **error.log_data),
        )

    def back(self, store: str, ways: Sequence[str], seconds: float, level: int) -> None:
        """Log that requests use a store again.

        :param seconds: for how long they did not.
        """
        counted, address = self._since_the_loss(), self._address(store)
        log.warning(
            "session store %s (%s) is used for %s again, after %.1f s. Level %d %s. Meanwhile, in this process: %s",
            *(store, address, _in_words(ways), seconds, level, LEVELS[level], _said(counted)),
            extra=fields(
                "store_back",
                store=store,
                address=address,
                ways=sorted(ways),
                seconds=round(seconds, 3),
                level=level,
                **counted,
            ),
        )

    def level_changed(self, old: int, new: int, lost: Collection[str]) -> None:
        """Count a new level; log only the one from 2 to 3, which is a matter of time. Any other change comes with a
        store that is lost or used again, and the line about that store says the level.

        :param lost: all stores that requests do not use now.
        """
        count_level(self._recorder, new)
        if (old, new) == (2, 3):
            log.warning(
                "no Redis has answered for LOCAL_CACHE_TTL. %s",
                self._users(new, lost),
                extra=fields("level", level=new),
            )

    def nothing_waits(self, lost: Collection[str]) -> None:
        """Log that all that waited in the host's journal has been merged: once, after the last store is back.

        :param lost: all stores that requests do not use now.
        """
        if self._before is None or lost:
            return
        counted, self._before = self._since_the_loss(), None
        log.info(
            "nothing waits in the journal any more. Since the outage began, in this process: %s",
            _said(counted),
            extra=fields("merged", **counted),
        )

    def _users(self, level: int, lost: Collection[str]) -> str:
        data = f"evel {level} {LEVELS[level]}: {self._what_users_get(level)}"
        return f"{_WITHOUT_DATABASE}; their data: l{data}" if DATABASE in lost else f"L{data}"

    def _counters(self) -> dict[str, int]:
        counters = self._recorder.counters()
        return {str(name): counters.get(name, 0) for name in _COUNTED}

    def _since_the_loss(self) -> Mapping[str, int]:
        before = self._before or {}
        return {name: count - before.get(name, 0) for name, count in self._counters().items()}


def _in_words(ways: Sequence[str]) -> str:
    return " and ".join(f"{way}s" for way in sorted(ways))


def _said(counted: Mapping[str, int]) -> str:
    said = [f"{words}: {counted[name]}" for name, words in _COUNTED.items() if counted[name]]
    return ", ".join(said) or "nothing merged, lost or refused"
