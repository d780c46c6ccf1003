"""I6, I25: a Redis that lost its data gets back what the hosts hold of the sessions in use."""

from __future__ import annotations

import shutil

import pytest

from devservers.processes import wait_until
from tests.support.site.hosts import Stage

from .conftest import HostMaker
from .support import COUNTED, FIVE, KINDS, at_level, home, look, send, session_of, whole


@pytest.mark.parametrize("kind", KINDS)
def test_i25_redis_was_killed_and_comes_back_empty(stage: Stage, host: HostMaker, kind: str) -> None:
    """Data that users saw in the outage, from copies and the journal, is there after it."""
    with host(workers=2) as a:
        here, sibling = a.workers
        browser = session_of(kind, here)
        look(browser, sibling, 0)
        stage.redis.kill()
        try:
            at_level(2, *a.workers)
            assert send(browser, here, "/append", 2, entry="6")["list"] == [*FIVE, 6]
            assert look(browser, sibling, 2)["text"] == "before"
            shutil.rmtree(stage.redis.folder / "appendonlydir")
        finally:
            stage.redis.start()
        home(*a.workers)
        for worker in a.workers:
            wait_until(
                lambda worker=worker: whole(look(browser, worker)) == ([*FIVE, 6], COUNTED, "before"),  # type: ignore[misc]
                "what was acknowledged before the outage and in it",
            )


@pytest.mark.parametrize(("reading", "kind"), [*zip((False, True), KINDS, strict=True)])
def test_i25_redis_is_flushed_at_level_0(stage: Stage, host: HostMaker, kind: str, reading: bool) -> None:
    """The data is back as soon as the loss is noticed, without an outage; also if a worker has seen before that
    nothing is there."""
    with host(workers=2) as a:
        here, sibling = a.workers
        browser = session_of(kind, here)
        look(browser, sibling, 0)
        with stage.redis.client() as client, client.pipeline() as together:  # a worker may give something back at once
            together.flushall()
            together.keys("session:translation:*")
            assert together.execute() == [True, []]
        if reading:
            look(browser, here)
        wait_until(lambda: all(worker.counters().get("DataLost") for worker in a.workers), "both noticed")
        for worker in a.workers:
            wait_until(
                lambda worker=worker: whole(look(browser, worker)) == (FIVE, COUNTED, "before"),  # type: ignore[misc]
                "what was acknowledged before",
            )
        send(browser, sibling, "/append", 0, entry="6")
        assert look(browser, here, 0)["list"] == [*FIVE, 6]
