"""Changes that wait for a former id of a session follow it to the present one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..metrics.losses import Cause, Loss
from ..policy.leases import CLOCK_TOLERANCE_MS
from ..policy.values import ErrorClass, Operation, Renamed, StoreError
from ..stores.backend import Backend
from ..stores.host.journal import Carry, PendingWrite
from ..stores.host.opening import is_full
from . import calls


class NewIds:
    """Ids that sessions were given meanwhile, by this host or another one."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._journal = backend.journal

    def moving(self, dead: Sequence[str], database: bool) -> Mapping[str, Renamed]:
        """Return those of some ids that are dead whose data goes to another one, or may be about to.

        :param database: it answers; else nothing is known of any.
        :raises StoreError: it does not.
        """
        if not dead or not database:
            return dict.fromkeys(dead, _NOT_KNOWN)
        return self._backend.database.renamed(sorted(set(dead)), timeout=calls.TIMEOUT)

    def follow(self, former: str, kind: str, categories: Sequence[str], present: Renamed) -> None:
        """Have data of a former id wait for the present one, with what was acknowledged while the id was in use.

        What lies under the former id goes first, if nothing has brought it yet: what waits was made from it.
        """
        if _may_be_noted(present):
            return  # the request that gave the id may be about to say so to this journal

        def stays(entry: PendingWrite) -> bool:
            return not goes_along(entry, present)

        carry = Carry(former, present.digest, kind, categories)
        try:
            left_out = self._journal.carry(carry, stays=stays, follows=True)
        except StoreError as error:
            if error.error_class is not ErrorClass.LOCAL and not is_full(error):
                raise
            return  # it waits until the journal has room; what else waits does not wait for it
        for lost in left_out:
            self._backend.reports.losses.note(Loss.MERGE_CONFLICTS, Cause.MADE_WITHOUT_READING, lost.category)


def goes_along(entry: PendingWrite, present: Renamed) -> bool:
    """Return whether a change was acknowledged before its session was given another id. What is written later, with an
    id that is over, never reaches the session: that id may be in other hands, which is why there is another one."""
    is_late = entry.acknowledged > (present.at_ms + CLOCK_TOLERANCE_MS) * 1000
    return _may_be_noted(present) or not (is_late or entry.operation is Operation.WIPE)


def may_be_taken_along(entry: PendingWrite, present: Renamed) -> bool:
    """Return whether an addition may be part of what its session took along to another id: it was sent before that, and
    the answer was lost. The present record does not remember the additions to the former one."""
    was_sent_before = entry.is_sent and entry.moment <= (present.at_ms + CLOCK_TOLERANCE_MS) * 1000
    return was_sent_before and not _may_be_noted(present)


def _may_be_noted(present: Renamed) -> bool:
    """Return whether the request that gave the id may still be about to note in this journal where the data goes. If
    the id was given later than now, the database's clock was set back."""
    return 0 <= present.age_ms < calls.NOTED_WITHIN_MS


_NOT_KNOWN = Renamed("", 0, 0)
