"""The calls that a request makes to a store: the name of each for the recorder, the store it asks, whether it reads or
writes, and how long a request waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..config.settings import Settings
from ..policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE


class Operation(NamedTuple):
    """One kind of call.

    :param name: for the recorder.
    :param store: the role of the store.
    :param way: ``read`` or ``write``.
    :param timeout: seconds that a request waits for it, if it has so many left.
    """

    name: str
    store: str
    way: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Operations:
    """All calls of requests. Two that do the same for a user have the same name."""

    load: Operation
    load_replica: Operation
    look_for_loss: Operation
    quarantine: Operation
    save: Operation
    push: Operation
    extend_idle: Operation
    write_tombstone: Operation
    verify: Operation
    list: Operation
    save_row: Operation
    sign_in: Operation
    repair: Operation
    revoke: Operation
    displaced: Operation

    @classmethod
    def of(cls, settings: Settings) -> Operations:
        """Return the calls with the time-outs of an application."""
        timeouts = {PRIMARY: settings.redis_timeout, REPLICA: settings.redis_timeout}
        timeouts[DATABASE] = settings.database_timeout
        return cls(**{each: Operation(*row, timeouts[row[1]]) for each, row in _OPERATIONS.items()})

    def loading(self, source: str) -> Operation:
        """Return the call that reads a session from one of the Redis servers."""
        return self.load if source == PRIMARY else self.load_replica


_OPERATIONS = {
    "load": ("load", PRIMARY, READ),
    "load_replica": ("load", REPLICA, READ),
    "look_for_loss": ("load", PRIMARY, WRITE),
    "quarantine": ("quarantine", PRIMARY, WRITE),
    "save": ("save", PRIMARY, WRITE),
    "push": ("push", PRIMARY, WRITE),
    "extend_idle": ("extend_idle", PRIMARY, WRITE),
    "write_tombstone": ("write_tombstone", PRIMARY, WRITE),
    "verify": ("verify", DATABASE, READ),
    "list": ("list", DATABASE, READ),
    "save_row": ("save", DATABASE, WRITE),
    "sign_in": ("sign_in", DATABASE, WRITE),
    "repair": ("repair", DATABASE, WRITE),
    "revoke": ("revoke", DATABASE, WRITE),
    "displaced": ("verify", DATABASE, WRITE),
}
