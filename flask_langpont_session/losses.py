"""What an outage cost: each change of a session that was acknowledged, or asked for, and is not kept.

Counted by cause and category, and sent as an event: an operator who is asked "where is my data?" finds it here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from blinker import Signal

from . import events
from .metrics import Recorder


class Loss(StrEnum):
    """What became of a change."""

    WRITES_LOST = "writes_lost"  # it should have been kept and could not be: the journal refused it
    MERGE_CONFLICTS = "merge_conflicts"  # it was kept, and what another one wrote since stays in its place
    MERGE_DROPPED = "merge_dropped"  # it was kept, and could not be merged: the session is over, a limit, its age
    REQUEST_ONLY_WRITES = "request_only_writes"  # the table lets it last for the request only


class Losses:
    """Tells the recorder and whoever listens.

    :param emit: called with a signal and an event; must not raise.
    """

    def __init__(self, recorder: Recorder, emit: Callable[[Signal, object], None]) -> None:
        self._recorder = recorder
        self._emit = emit

    def note(self, loss: Loss, cause: str, category: str, count: int = 1) -> None:
        """Some changes of a category were not kept.

        :param cause: one of a few words, for example ``written since``; never a key or a value.
        """
        if count:
            self._recorder.count_loss(loss, cause, category, count)
            self._emit(events.writes_not_kept, events.WritesNotKept(loss, cause, category, count))
