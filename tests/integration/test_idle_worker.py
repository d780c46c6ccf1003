"""A worker that serves nothing costs next to nothing."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from devservers.processes import wait_until
from devservers.servers import Valkey
from tests.support.children import in_child

from .conftest import MakeApp

MOST = 15.0
"""Wake-ups a second, of all threads together."""


def wake_ups() -> dict[str, int]:
    """Return how often each thread of this process has gone to sleep so far, but for this one."""
    found: dict[str, int] = {}
    for task in {*os.listdir("/proc/self/task")} - {str(threading.get_native_id())}:
        with suppress(FileNotFoundError):  # it has ended meanwhile
            lines = Path(f"/proc/self/task/{task}/status").read_text().splitlines()
            [found[task]] = [int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches")]
    return found


def sleeps() -> bool:
    """Return whether the threads of this process wake up rarely. It takes a second."""
    before, began = wake_ups(), time.monotonic()
    time.sleep(1.0)  # what happens in that time is what is measured; there is nothing to wait for
    number = sum(count - before.get(task, 0) for task, count in wake_ups().items())
    return 0 < number <= MOST * (time.monotonic() - began)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.real_time("how soon a worker rests after its first request")
def test_an_idle_worker_sleeps(make_app: MakeApp, primary: Valkey) -> None:
    """Its monitor looks at the journal five times a second, and nothing measures how late it is."""
    app = make_app()

    def serves_and_sleeps() -> bool:
        app.test_client().get("/who")
        wait_until(sleeps, "rest", 9.0)
        return True

    assert in_child(serves_and_sleeps)
