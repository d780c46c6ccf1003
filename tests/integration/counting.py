"""Commands that requests cost, by the servers' own statistics. Commands of the monitors must not be counted with
them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from flask import Flask

from devservers.servers import Valkey
from flask_langpont_session.extension import EXTENSION, applications
from flask_langpont_session.recovery.monitor import Monitor

from .conftest import parts


def evals(server: Valkey) -> int:
    """Scripts the server was sent so far: the only commands that requests use."""
    wait_for_monitors()
    with server.client() as client:
        stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


def writes(server: Valkey) -> int:
    """Return how often the server has written fields so far, as every write of a request does."""
    wait_for_monitors()
    with server.client() as client:
        return int(client.info("commandstats").get("cmdstat_hset", {}).get("calls", 0))


def is_at_rest(monitor: Monitor) -> bool:
    """Return whether a monitor has looked, and given Redis what it may lack."""
    replay = monitor.recovery
    is_under_way = replay.has_incidents or replay.gives_back or replay.steps.giving_back._backend.lacks
    return monitor.has_looked and not is_under_way


def wait_for_monitors() -> None:
    """Wait until the monitors have looked for the first time and given to Redis what it may lack; their next look is
    HEALTH_INTERVAL away."""
    deadline = time.monotonic() + 60
    for app in list(applications):
        monitor = app.extensions[EXTENSION].monitor
        if not monitor.is_stopping:
            monitor.ensure_started()
            while not is_at_rest(monitor):
                assert time.monotonic() < deadline, "the monitor does not come to rest"
                time.sleep(0.005)


@contextmanager
def counted(app: Flask) -> Iterator[list[str]]:
    """The statements that requests send meanwhile: their first words. The monitor is quiet."""
    engine = parts(app).backend.database.engine
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        word = statement.split(None, 1)[0].upper()
        if word != "BEGIN":  # SQLite's is a statement, the others' is not
            sent.append(word)

    wait_for_monitors()
    with parts(app).monitor.paused():
        sqlalchemy.event.listen(engine, "before_cursor_execute", note)
        try:
            yield sent
        finally:
            sqlalchemy.event.remove(engine, "before_cursor_execute", note)
