"""The cost of an outage: each change of a session that was acknowledged, or asked for, and is not kept.

Counted by cause and category, and sent as an event: it answers the question "where is my data?".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from blinker import Signal

from .. import events
from ..policy.changes import Basis
from ..policy.copies import CategoryCopy
from ..policy.errors import ErrorClass, StoreError
from .recorder import Recorder


class Loss(StrEnum):
    """The fate of a change that is not kept."""

    WRITES_LOST = "writes_lost"  # it should have been kept and could not be: the journal refused it, or Redis lost it
    MERGE_CONFLICTS = "merge_conflicts"  # it was kept, and what another one wrote since stays in its place
    MERGE_DROPPED = "merge_dropped"  # it was kept, and could not be merged: the session is over, a limit, its age
    REQUEST_ONLY_WRITES = "request_only_writes"  # the table lets it last for the request only


class Cause(StrEnum):
    """The cause of a loss. A closed set: a metric of each is paid for. docs/how-to/data-is-gone.md says what can still
    be done."""

    JOURNAL_FULL = "journal full"  # a limit of the journal is reached, or its disk takes no more
    JOURNAL_FAILED = "journal failed"  # the journal cannot be used: its file, its rights, a lock that is held too long
    LOST_BY_REDIS = "lost by redis"  # Redis had it and lost it, and no worker of the host that lives has it
    WRITTEN_SINCE = "written since"  # the field has a newer value, which this one was not made from
    MADE_WITHOUT_READING = "made without reading"  # its old value could not be read, and the field has one
    TOO_OLD = "too old"  # it waited for longer than LOCAL_CACHE_TTL before the stores were back
    SESSION_OVER = "session over"  # the session has ended meanwhile
    REFUSED = "refused"  # Redis refused it, and would again
    GIVEN_UP = "given up"  # bringing it to a store fails in a way that the package does not know, and would again
    DAMAGED_ENTRY = "damaged entry"  # what the journal has of it cannot be read, or decrypted
    DAMAGED_ROW = "damaged row"  # the row of the session in the database cannot be read
    LARGE = "large"  # with it the category would be over MAX_CATEGORY_BYTES or 256 keys
    IN_DOUBT = "in doubt"  # an addition that may have been made before; it is not made twice
    NO_NUMBER = "no number"  # what was to be added to is no whole number, or the sum is too large to be one
    LEVEL_1 = "level 1"  # the table keeps this feature for the request only at this level
    LEVEL_2 = "level 2"
    LEVEL_3 = "level 3"
    LEVEL_4 = "level 4"

    @classmethod
    def at_level(cls, level: int) -> Cause:
        """Return the cause that is the table, at a degradation level."""
        return cls(f"level {level}")

    @classmethod
    def of_conflict(cls, basis: Basis) -> Cause:
        """Return the cause why a value that waited gave way to another one."""
        return cls.MADE_WITHOUT_READING if basis is Basis.UNSEEN else cls.WRITTEN_SINCE

    @classmethod
    def of(cls, error: StoreError) -> Cause:
        """Return the cause why the journal did not keep a change."""
        if error.error_class is ErrorClass.DATA:
            return cls.NO_NUMBER
        is_full = error.error_class in (ErrorClass.WRITE_REFUSED, ErrorClass.LOCAL)
        return cls.JOURNAL_FULL if is_full else cls.JOURNAL_FAILED


CAUSES: Mapping[Loss, tuple[Cause, ...]] = {
    Loss.WRITES_LOST: (Cause.JOURNAL_FULL, Cause.JOURNAL_FAILED, Cause.NO_NUMBER, Cause.LOST_BY_REDIS),
    Loss.MERGE_CONFLICTS: (Cause.WRITTEN_SINCE, Cause.MADE_WITHOUT_READING),
    Loss.MERGE_DROPPED: (
        Cause.TOO_OLD,
        Cause.SESSION_OVER,
        Cause.REFUSED,
        Cause.GIVEN_UP,
        Cause.DAMAGED_ENTRY,
        Cause.DAMAGED_ROW,
        Cause.LARGE,
        Cause.IN_DOUBT,
        Cause.NO_NUMBER,
    ),
    Loss.REQUEST_ONLY_WRITES: (Cause.LEVEL_1, Cause.LEVEL_2, Cause.LEVEL_3, Cause.LEVEL_4),
}
"""The causes that each kind of loss may have."""


class Losses:
    """Tells the recorder and the listeners of the event.

    :param emit: called with a signal and an event; must not raise.
    """

    def __init__(self, recorder: Recorder, emit: Callable[[Signal, object], None]) -> None:
        self._recorder = recorder
        self._emit = emit

    def outdated(self, found: Mapping[tuple[str, str, Basis], int]) -> None:
        """Note that values which waited in the journal gave way to what the host knows now.

        :param found: their session and category, and what they were made from → how many.
        """
        for (digest, category, basis), count in found.items():
            self.note(Loss.MERGE_CONFLICTS, Cause.of_conflict(basis), category, count, digest=digest)

    def lost_by_redis(self, digest: str, category: str, there: CategoryCopy, seen: int, given: int = 0) -> None:
        """Count a category of which Redis has less than the host has seen, and no worker has given back more.

        :param digest: of its session.
        :param there: what Redis has.
        :param seen: the latest version that the host knows of.
        :param given: the version that this worker has given back; 0: none.
        """
        if there.version < seen or (given and there.given_back == given):
            self.note(Loss.WRITES_LOST, Cause.LOST_BY_REDIS, category, digest=digest)

    def note(self, loss: Loss, cause: Cause, category: str, count: int = 1, *, digest: str = "") -> None:
        """Note that some changes of a category were not kept.

        :param cause: one of :data:`CAUSES` of that loss.
        :param digest: of their session, if the event is to name it.
        """
        if count:
            self._recorder.count_loss(loss, cause, category, count)
            self._emit(events.writes_not_kept, events.WritesNotKept(loss, cause, category, count, events.short(digest)))
