"""Errors of the stores, by class.

A store translates its driver's errors into :class:`StoreError` where they happen; the rest of the package knows
error *classes* and nothing of any driver. ``None`` always means "there is no such record"; "the store did not
answer" is always an exception. Those are two different answers everywhere.
"""

from __future__ import annotations

from enum import StrEnum

from ..support.errors import LangPontSessionError

PRIMARY, REPLICA, DATABASE = "primary", "replica", "database"
"""The roles of the stores."""


class ErrorClass(StrEnum):
    """The kind of a failure. The kinds in :data:`~.health.HEALTH_CLASSES` say something of the health of a store."""

    UNREACHABLE = "U"
    BUSY = "B"
    WRITE_REFUSED = "W"
    IDENTITY_REFUSED = "A"
    NO_TABLES = "N"
    TOPOLOGY = "T"
    DATA = "D"
    LOCAL = "L"


HEALTH_CLASSES = frozenset(ErrorClass) - {ErrorClass.TOPOLOGY, ErrorClass.DATA, ErrorClass.LOCAL}
"""The classes that feed a breaker. One user's data (D), our own limits (L) and resharding (T) never do."""


def words_of(error_class: ErrorClass) -> str:
    """Return an error class as it may stand in a sentence."""
    return error_class.name.lower().replace("_", " ")


def role_of(store: str) -> str:
    """Return the role of a store: ``primary``, ``replica`` or ``database``."""
    return store.partition(":")[0]


def shard_of(store: str) -> str:
    """Return the shard that a store belongs to."""
    return store[len(role_of(store)) :]


class StoreError(LangPontSessionError):
    """A store could not do what it was asked.

    :param store: ``primary``, ``replica``, ``database`` or ``journal``; of several shards ``primary:1`` …
    :param error_class: what kind of failure.
    :param cause: name of the driver's exception class; its text may quote keys and values, so it is not kept.
    :param timed_out: it did not answer in time.
    :param sent: the outcome is unknown: a write may have happened all the same. None: if it timed out.
    :ivar may_be_one_row: it waited for a lock that may be one user's: others need not have noticed.
    """

    may_be_one_row = False

    def __init__(
        self, store: str, error_class: ErrorClass, cause: str, *, timed_out: bool = False, sent: bool | None = None
    ) -> None:
        self.store = store
        self.error_class = error_class
        self.cause = cause
        self.timed_out = timed_out
        self.sent = timed_out if sent is None else sent
        super().__init__(f"{store}: {self.why}")

    @property
    def why(self) -> str:
        """Return what happened, for people."""
        return f"{words_of(self.error_class)} ({self.cause})"

    @property
    def log_data(self) -> dict[str, str]:
        """Return the error's data for ``extra=`` of a line of the log."""
        return {"store": self.store, "cause": self.error_class.name.lower(), "detail": self.cause}

    @property
    def concerns_health(self) -> bool:
        """Return whether the error counts for a circuit breaker."""
        return self.error_class in HEALTH_CLASSES
