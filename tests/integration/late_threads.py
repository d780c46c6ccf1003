"""Random delays of the work that a worker does beside its requests, as on a busy machine.

With ``LANGPONT_LATE=1`` each round of the monitor, the shares of an outage, the pushes and the rounds of the replay
begin late, and each write of the journal takes longer. A test that fails then counts on something that happens beside
requests without waiting for it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from flask_langpont_session.recovery.monitor import Monitor
from flask_langpont_session.recovery.outages import Outages
from flask_langpont_session.recovery.recovery import Recovery
from flask_langpont_session.recovery.rows import Resync
from flask_langpont_session.stores.host.board import Board
from flask_langpont_session.stores.host.file import JournalFile

IS_WANTED = bool(os.environ.get("LANGPONT_LATE"))

MOST = {
    (Monitor, "tick"): 0.1,
    (Outages, "share"): 0.1,
    (Resync, "push_changes"): 0.2,
    (Recovery, "run_once"): 0.2,
    (JournalFile, "transaction"): 0.02,
}
"""Method → by how many seconds it is late at most."""


def _pause(most: float) -> None:
    """Be late, every other time: if all were late, they would be in their usual order again."""
    if random.random() < 0.5:
        # No wait for something: the delay itself is what is tried. Another one each time, to meet other orders.
        time.sleep(random.uniform(0, most))


def _late(method: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    @wraps(method)
    def late(*arguments: Any, **options: Any) -> Any:
        _pause(seconds)
        return method(*arguments, **options)

    return late


def _publishes_late(self: Board, copies: Iterable[Any], **options: Any) -> Any:
    """Publish copies late. They are read before the wait: what happens meanwhile is not part of them."""
    chosen = list(copies)
    _pause(0.1)
    return _publish(self, chosen, **options)


_publish = Board.publish_copies


@contextmanager
def late_threads() -> Iterator[None]:
    """Let the threads beside the requests be late meanwhile, if that is wanted."""
    if not IS_WANTED:
        yield
        return
    changed = [patch.object(owner, name, _late(getattr(owner, name), most)) for (owner, name), most in MOST.items()]
    changed.append(patch.object(Board, "publish_copies", _publishes_late))
    for change in changed:
        change.start()
    try:
        yield
    finally:
        for change in changed:
            change.stop()
