"""The alert conditions that hold in this process at the moment. No I/O.

States (a store is lost, a level) are looked up anew at each step, in the package's own health: an event that overtakes
another could leave an alert burning. Only what has no state is taken from events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from ... import events
from ...policy.causes import OTHER_CLOCK, Cause, cause_of
from ...policy.errors import ErrorClass, role_of, shard_of
from ...policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE, Health
from ...support.forks import renew_in_children
from . import table
from .incidents import CURE, Details, Sightings

_UNREACHABLE = {
    PRIMARY: table.REDIS_CONNECTION_FAILED,
    REPLICA: table.REPLICA_CONNECTION_FAILED,
    DATABASE: table.DATABASE_CONNECTION_FAILED,
}
_LEVELS = ((1, table.LEVEL_REPLICA), (2, table.LEVEL_FALLBACK), (4, table.LEVEL_MINIMAL))

_EVENTS = (
    (events.data_lost, events.DataLost, table.DATA_LOST, "store"),
    (events.database_went_back, events.DatabaseWentBack, table.DATABASE_WENT_BACK, "commits"),
    (events.server_changed, events.ServerChanged, table.SERVER_CHANGED, "store"),
    (events.journal_failed, events.JournalFailed, table.JOURNAL_FAILED, "cause"),
    (events.changes_given_up, events.ChangesGivenUp, table.CHANGES_GIVEN_UP, "cause"),
)
_HAPPENED: Mapping[type, tuple[table.Alert, str]] = {kind: (alert, detail) for _, kind, alert, detail in _EVENTS}
"""Event → its alert, and the detail that is told."""

WITHOUT_STATE = tuple(signal for signal, *_ in _EVENTS)
"""Signals of what is over when it is noticed; nothing but the event itself tells of it."""


Remarks = Callable[[float], Iterable[tuple[str, Cause]]]


class Conditions:
    """The conditions of one process.

    :param remarks: says what is to be known of stores that do their work, see :meth:`.Backend.remarks`.
    """

    def __init__(self, health: Health, remarks: Remarks = lambda now: ()) -> None:
        self._health = health
        self._remarks = remarks
        self._reset()
        renew_in_children(self, Conditions._reset)

    def _reset(self) -> None:
        """Begin anew in a forked child: what happened in the parent is the parent's to tell."""
        self._lock = threading.Lock()
        self._happened: dict[str, Details] = {}

    def happened(self, event: object) -> None:
        """Keep an event for the next look. Called in requests: a dictionary entry, nothing else."""
        if type(event) not in _HAPPENED or (isinstance(event, events.ChangesGivenUp) and not event.of_user):
            return
        alert, detail = _HAPPENED[type(event)]
        key = f"{alert.name}/{event.store}" if isinstance(event, events.ServerChanged) else alert.name
        with self._lock:
            self._happened[key] = {detail: getattr(event, detail)}

    def look(self) -> Sightings:
        """Return the conditions that hold now, and the events since the last look."""
        with self._lock:
            happened, self._happened = self._happened, {}
        clocks = [store for store, remark in self._remarks(time.time()) if remark is OTHER_CLOCK]
        happened |= {_of(table.CLOCK.name, store): {"store": store} for store in clocks}
        return {**dict(self._stores()), **dict(self._levels()), **happened}

    def _stores(self) -> Iterator[tuple[str, Details]]:
        lost = self._health.open_stores()
        for store in sorted({store for store, _ in lost}):
            causes = {way: self._health.breakers[store, way].cause for name, way in lost if name == store}
            error = self._health.error(store)
            details = {"store": store}
            if error is not None:
                cause = cause_of(error)
                details |= {"cause": cause.word, CURE: cause.does}
            if ErrorClass.IDENTITY_REFUSED.name in causes.values():
                yield f"{table.AUTH_FAILED.name}/{store}", details
            elif READ in causes or role_of(store) != PRIMARY:
                yield _of(_UNREACHABLE[role_of(store)].name, store), details
            elif WRITE in causes:
                yield _of(table.REDIS_WRITES_REFUSED.name, store), details

    def _levels(self) -> Iterator[tuple[str, Details]]:
        level = self._health.level
        for least, alert in _LEVELS:
            if level >= least:
                yield alert.name, {"level": level}


def _of(alert: str, store: str) -> str:
    """Return the alert's key for a store: each shard has an alert of its own."""
    return f"{alert}/{store}" if shard_of(store) else alert
