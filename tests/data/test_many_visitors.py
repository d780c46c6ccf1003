"""D20, I30: an outage shows, and a refill gives back, what a worker holds of all of its visitors."""

from __future__ import annotations

from collections.abc import Sequence

from devservers.processes import wait_until
from tests.support.site.hosts import Stage, Worker

from .conftest import HostMaker
from .support import at_level, home

VISITORS = 400
ONE, TWO = {"entry": "1"}, {"entry": "2"}


def lists(worker: Worker, cookies: Sequence[str | None]) -> list[list[int]]:
    """Return the list that each visitor is shown."""
    return [shown["list"] for _, shown, _ in worker.many(cookies, "/look")]


def appended(worker: Worker, cookies: Sequence[str | None]) -> list[str | None]:
    """Have each visitor append an entry in an outage. Return the cookies of those whose list was called available: a
    journal that is busy may not say in time what it has. Each of them is shown the whole list."""
    answers = list(zip(cookies, worker.many(cookies, "/append", TWO), strict=True))
    known = [(cookie, shown["list"]) for cookie, (_, shown, _) in answers if shown["available"]]
    assert [entries for _, entries in known] == [[1, 2]] * len(known)
    assert len(known) > VISITORS / 2
    return [cookie for cookie, _ in known]


def test_d20_the_lists_of_all_visitors_outlive_an_outage_and_an_emptied_redis(stage: Stage, host: HostMaker) -> None:
    """Each has one category with data and others without; all settings that bound the memory have their defaults."""
    with host(workers=1) as a:
        [worker] = a.workers
        cookies = [cookie for _, _, cookie in worker.many([None] * VISITORS, "/append", ONE)]
        assert lists(worker, cookies) == [[1]] * VISITORS
        stage.redis.kill()
        try:
            at_level(2, worker)
            cookies = appended(worker, cookies)
        finally:
            stage.redis.start()
        home(worker)
        expected = [[1, 2]] * len(cookies)
        assert lists(worker, cookies) == expected
        with stage.redis.client() as client:
            client.flushall()
        wait_until(lambda: lists(worker, cookies) == expected, "all lists", pause=0.5)
