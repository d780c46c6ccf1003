"""A worker's first look at its stores, at the worst moment for a test that changes what they hold.

That look gives Redis what Redis may lack, as fresh as this moment, and on a busy machine it comes late. With
``LANGPONT_FIRST_LOOK=1`` it comes right after each change that a test makes in Redis by hand, until nothing is left to
be given. A test that fails then has to wait for it before its change: ``wait_for_monitors`` in ``counting.py``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flask import Flask

from devservers.processes import LONG
from devservers.valkey import after_changes
from flask_langpont_session.extension import state_of
from flask_langpont_session.recovery.monitor import Monitor

IS_WANTED = bool(os.environ.get("LANGPONT_FIRST_LOOK"))

PATIENCE = 0.3
"""Seconds for a look; where the monitor is paused there is none before that ends."""


def is_at_rest(monitor: Monitor) -> bool:
    """Return whether a monitor has looked, and given Redis what it may lack."""
    replay = monitor.recovery
    is_under_way = replay.has_incidents or replay.gives_back or replay.steps.giving_back._backend.lacks
    return monitor.has_looked and not is_under_way


@contextmanager
def looking_after_changes(apps: Sequence[Flask]) -> Iterator[None]:
    """Let the monitors of these applications look after changes meanwhile, if that is wanted."""
    if not IS_WANTED:
        yield
        return

    looks: list[threading.Thread] = []

    def look() -> None:
        for app in apps:
            monitor = state_of(app).monitor
            if not is_at_rest(monitor):
                looks.append(threading.Thread(target=monitor.tick, daemon=True))
                looks[-1].start()
                looks[-1].join(PATIENCE)

    after_changes.append(look)
    try:
        yield
    finally:
        after_changes.remove(look)
        for thread in looks:  # the next test has the same servers
            thread.join(LONG)
