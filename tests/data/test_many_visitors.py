"""D20, I30: an outage shows, and a refill gives back, what a worker holds of all of its visitors."""

from __future__ import annotations

from collections.abc import Sequence

from devservers.processes import wait_until
from tests.support.site.hosts import Stage, Worker

from .conftest import HostMaker
from .support import at_level, home

VISITORS = 400
ONE, TWO = {"entry": "1"}, {"entry": "2"}


def lists(worker: Worker, cookies: Sequence[str | None], form: dict[str, str] | None = None) -> list[list[int]]:
    """Return the list that each visitor is shown, after one more entry if there is a form."""
    path = "/look" if form is None else "/append"
    return [shown["list"] for _, shown, _ in worker.many(cookies, path, form)]


def test_d20_the_lists_of_all_visitors_outlive_an_outage_and_an_emptied_redis(stage: Stage, host: HostMaker) -> None:
    """Each has one category with data and others without; all settings that bound the memory have their defaults."""
    with host(workers=1) as a:
        [worker] = a.workers
        cookies = [cookie for _, _, cookie in worker.many([None] * VISITORS, "/append", ONE)]
        assert lists(worker, cookies) == [[1]] * VISITORS
        stage.redis.kill()
        try:
            at_level(2, worker)
            assert lists(worker, cookies, TWO) == [[1, 2]] * VISITORS
        finally:
            stage.redis.start()
        home(worker)
        assert lists(worker, cookies) == [[1, 2]] * VISITORS
        with stage.redis.client() as client:
            client.flushall()
        wait_until(lambda: lists(worker, cookies) == [[1, 2]] * VISITORS, "all lists", pause=0.5)
