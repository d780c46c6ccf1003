"""Aids for an application's own tests: stores that can be switched off, and the events that were sent.

>>> with switched_off(app, "primary"):          # doctest: +SKIP
...     assert client.get("/profile").status_code == 200
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from flask import Flask

from . import events
from .extension import State, state_of
from .health import READ, WRITE, Health
from .stores.base import ErrorClass, StoreError, role_of

_PATIENCE = 2.0
"""Seconds; a store that is really out of order is left to the monitor."""


@contextmanager
def switched_off(app: Flask, *stores: str) -> Iterator[None]:
    """Requests of `app` find these stores (``primary``, ``replica``, ``database``) down, as if they had timed out.

    Of a cluster, ``primary:2`` is the primary of one shard, and ``primary`` those of all that were found.

    The stores themselves are not touched. On leaving, the journal is replayed and requests use them again.

    :raises KeyError: the application has no such store.
    """
    state = state_of(app)
    with state.monitor.paused():
        names = [name for store in stores for name in _named(store, state.health)]
        for name in names:
            state.health.failed(StoreError(name, ErrorClass.UNREACHABLE, "SwitchedOff", timed_out=True), READ)
        try:
            state.monitor.share_outage()
            yield
        finally:
            deadline = time.monotonic() + _PATIENCE
            for name in names:
                state.monitor.recover(name, (READ, WRITE))
            while not _is_home(state) and time.monotonic() < deadline:
                time.sleep(0.01)  # another application on the same journal may be at it


def _is_home(state: State) -> bool:
    """Whether nothing waits any more, after another slice of the replay."""
    state.monitor.replay.run_once()
    return not state.repository.journal.waiting().entries


def _named(store: str, health: Health) -> list[str]:
    names = sorted({name for name, _ in health.breakers if store in (name, role_of(name))})
    if not names:  # a misspelt store is an error, not a test that sees no outage
        raise KeyError(store)
    return names


@contextmanager
def captured_events(app: Flask) -> Iterator[list[object]]:
    """Collect the events (values of :mod:`flask_langpont_session.events`) that are sent for `app`."""
    seen: list[object] = []

    def receive(sender: object, event: object) -> None:
        seen.append(event)

    with ExitStack() as stack:
        for signal in events.ALL:
            stack.enter_context(signal.connected_to(receive, sender=app))
        yield seen
