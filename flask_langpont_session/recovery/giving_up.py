"""Gives up entries that the recovery cannot handle, and could not the next time either, so that all else goes on."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence

from .. import events
from ..metrics.losses import Cause, Loss
from ..policy.ids import SIGNED_IN
from ..stores.backend import Backend
from ..support.logs import fields

log = logging.getLogger(__name__)


def give_up(backend: Backend, digest: str, kind: str, categories: Sequence[str], error: Exception) -> None:
    """Count, log and report that changes of a session leave the journal without having reached a store.

    :param kind: of the session; that of a user raises an alert.
    :param categories: the category of each change.
    :param error: what a store, or the package itself, met with them.
    """
    session, number = events.short(digest), len(categories)
    for category in categories:
        backend.reports.losses.note(Loss.MERGE_DROPPED, Cause.GIVEN_UP, category)
    log.error(
        "%d changes of the session %s… are given up: bringing them to a store failed with %s in %s",
        *(number, session, type(error).__name__, place_of(error)),
        extra=fields(
            "changes_given_up",
            number=number,
            session=session,
            cause=type(error).__name__,
            place=place_of(error),
        ),
    )
    told = events.ChangesGivenUp(session, number, type(error).__name__, of_user=kind == SIGNED_IN)
    backend.reports.emit(events.changes_given_up, told)


def place_of(error: Exception) -> str:
    """Return where an error was raised, as ``file:line``. The text of one that is not known may quote a value."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
