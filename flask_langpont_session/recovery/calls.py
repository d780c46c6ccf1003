"""How the recovery calls the stores: how much at once, how long it waits, and what it does without the journal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..policy.values import StoreError
from ..stores.host.entries import PendingCarry, PendingPush, PendingRevocation
from ..support.logs import fields

log = logging.getLogger(__name__)

TIMEOUT = 2.0
"""Seconds per call. No request waits for this thread, so it may be more patient than a request."""

PATIENCE = 10.0
"""Seconds for a batch of rows."""

BATCH = 500
"""Changes, or rows of one user, that are worked on together."""

PIPELINE = 200
"""Rows per round trip."""

NOTED_WITHIN_MS = 30_000
"""Milliseconds after a change of id for which what waits for the former one stays. The request tells the database
first, which ends the former id, and then the journal where the data goes: it may be between the two. gunicorn ends a
worker that is held up for longer (its ``timeout``)."""

AT_ONCE = 10
"""Batches of one user's rows, and of changed rows, until other things have their turn again."""


T = TypeVar("T")
E = TypeVar("E", PendingCarry, PendingPush, PendingRevocation)


def pages(pending: Callable[..., list[E]]) -> Iterator[list[E]]:
    """Everything that waits, a batch at a time: what is for a lost shard must not stand before all else."""
    after = 0
    while page := pending(PIPELINE, after=after):
        yield page
        if len(page) < PIPELINE:
            return
        after = page[-1].seq


def ask_journal(call: Callable[[], T], asking: str) -> T | None:
    """What the journal says; None: it cannot be used. The requests' alarm tells that, it is not the end of a thread.

    :param asking: names the thread for the log.
    """
    try:
        return call()
    except StoreError as error:
        log.warning(
            "the %s cannot use the journal: %s",
            *(asking, error),
            extra=fields("journal_not_answering", thread=asking, **error.log_data),
        )
        return None
