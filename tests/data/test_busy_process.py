"""D2, I21: a worker that computes takes no healthy store for lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.support.site.browser import Browser
from tests.support.site.hosts import Stage

CLIENTS = 16
SECONDS = 4.0


def test_d2_a_worker_that_computes_makes_no_outage(stage: Stage) -> None:
    """16 clients at once, half of whose requests take 50 ms of the processor, every setting at its default."""
    with stage.host("a", 1, direct=True) as a:
        over = threading.Event()

        def visit(number: int) -> tuple[set[int], set[str | None], list[int], list[int]]:
            browser, user = Browser(a.workers[0].url), f"user {number}"
            levels, users, entries = set[int](), set[str | None](), list[int]()
            assert browser.send("/sign-in", user=user).ok
            entry = 0
            while not over.is_set():
                entry += 1
                for answer in (browser.send("/compute", seconds="0.05"), browser.send("/append", entry=str(entry))):
                    assert answer.ok, answer.status
                    levels.add(answer.json["level"])
                    users.add(None if answer.json["user"] == user else answer.json["user"] or "a stranger")
                entries.append(entry)
            return levels, users, entries, browser.get("/look").json["list"]

        with ThreadPoolExecutor(CLIENTS) as pool:
            visits = [pool.submit(visit, number) for number in range(CLIENTS)]
            time.sleep(SECONDS)
            over.set()
            seen = [each.result() for each in visits]
        assert set().union(*(levels for levels, _, _, _ in seen)) == {0}
        assert set().union(*(users for _, users, _, _ in seen)) == {None}
        assert [entries for _, _, entries, _ in seen] == [shown for _, _, _, shown in seen]
