"""D6–D9, I22, I23, I24: the journal keeps no store waiting, no stranger crowds out a user, no wait is too long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from devservers.processes import wait_until
from flask_langpont_session.policy.presets import DEFAULT_CATEGORIES
from flask_langpont_session.stores.host.limits import BYTES_OF_AN_ENTRY
from tests.faults.proxy import REFUSE
from tests.support.site.browser import Browser
from tests.support.site.hosts import Stage, Worker

from .conftest import HostMaker
from .support import cut, held, look, reported, send, session_of

ENTRIES = 2000
"""Of the journal that is replayed."""

AGAIN = 4.0
"""Seconds within which a store that is back is in use: 2 on a machine of one's own."""


def test_d6_the_database_is_in_use_again_while_a_long_journal_is_replayed(host: HostMaker) -> None:
    """It was away for one second; a user who signs in then need not wait until all that Redis lacks has been merged."""
    with host(workers=1) as a:
        [worker] = a.workers
        with cut(worker):
            answers = worker.many([None] * ENTRIES, "/set", {"input_text": "during"})
            assert {status for status, _, _ in answers} == {200}
            assert worker.waiting >= ENTRIES
            worker.redis.heal()
            with worker.database.failing(REFUSE):
                refused = time.monotonic()
                wait_until(lambda: Browser(worker.url).send("/sign-in", user="7").status == 503, "a refusal")
                time.sleep(max(0.0, refused + 1.0 - time.monotonic()))
            back = time.monotonic()
            wait_until(lambda: Browser(worker.url).send("/sign-in", user="7").ok, "a sign-in", pause=0.02)
            took, left = time.monotonic() - back, worker.waiting
            wait_until(lambda: worker.level == 0, "level 0")
            worker.redis.impose(REFUSE)  # as the outage is left, by its manager
            wait_until(lambda: worker.level == 2, "level 2")
        assert left > 0 or took < AGAIN, f"a sign-in after {took:.1f} s, when the whole journal was replayed"
        cookies = [cookie for _, _, cookie in answers]
        assert {shown["text"] for _, shown, _ in worker.many(cookies[::10], "/look")} == {"during"}


def test_d7_strangers_cannot_crowd_out_users(host: HostMaker) -> None:
    """Their posts fill the journal; what a user writes is kept all the same, and shown by the sibling worker."""
    categories: dict[str, Any] = {name: dict(spec) for name, spec in DEFAULT_CATEGORIES.items()}
    features = dict(categories["translation"]["features"])
    features["translation_state"] = [*features["translation_state"], "note*"]
    categories["translation"]["features"] = features
    with host(workers=2, CATEGORIES=categories, JOURNAL_MAX_BYTES=10_000 * BYTES_OF_AN_ENTRY) as a:
        here, sibling = a.workers
        browser = session_of("user", here)
        look(browser, sibling, 0)
        with still_cut(*a.workers):
            notes = {f"note{number}": "x" for number in range(150)}
            answers = here.many([None] * 70, "/set", notes) + here.many([None] * 200, "/set", {"note": "x"})
            assert {status for status, _, _ in answers} == {200}
            assert reported(here) > 0, "there was room for all of it"
            send(browser, here, "/append", 2, entry="6")
            send(browser, here, "/set", 2, input_text="during")
            for worker in a.workers:
                shown = look(browser, worker, 2)
                assert (shown["list"], shown["text"]) == ([1, 2, 3, 4, 5, 6], "during")


@contextmanager
def still_cut(*workers: Worker) -> Iterator[None]:
    """No test waits until all of a large journal is merged: the workers are ended while Redis is still away."""
    for worker in workers:
        worker.redis.impose(REFUSE)
    wait_until(lambda: all(worker.level == 2 for worker in workers), "level 2")
    yield
    for worker in workers:
        assert worker.redis.hits["refuse"]
        worker.kill()


def test_d8_writers_that_wait_for_a_slow_disk_lose_nothing(stage: Stage) -> None:
    """64 requests at once write to the journal through four workers, and keeping takes 6 ms each time."""
    with stage.host("a", 4, fsync_ms=6, HEALTH_INTERVAL=0.2) as a:  # the budget is the default
        with cut(*a.workers), ThreadPoolExecutor(len(a.workers)) as pool:
            asked = [
                pool.submit(worker.many, [None] * 60, "/set", {"input_text": "during"}, threads=16)
                for worker in a.workers
            ]
            answers = [answer for one in asked for answer in one.result()]
        assert {status for status, _, _ in answers} == {200}
        cookies = [cookie for _, _, cookie in answers if cookie]
        kept = sum(shown["text"] == "during" for _, shown, _ in a.workers[0].many(cookies, "/look"))
        lost = len(answers) - kept
        said = sum(worker.counters().get("writes_lost", 0) for worker in a.workers)
        assert lost <= said, f"{lost} of {len(answers)} acknowledged writes are lost, {said} reported"
        assert lost <= len(answers) / 20  # on a machine that does nothing else: none


def test_d9_a_journal_that_another_process_holds_is_waited_for_within_the_budget(stage: Stage) -> None:
    """A request waits 0.3 s for all stores together. On a busy machine it waits for a processor, too: the first that is
    answered in time shows it."""
    with stage.host("a", 1, HEALTH_INTERVAL=0.2) as a:
        [worker] = a.workers
        visitor = session_of("visitor", worker)
        users = [session_of("user", worker, user=str(number)) for number in range(12)]
        with cut(worker), held(worker.journal):
            one_in_time((visitor.send("/set", input_text=f"held {number}").seconds for number in range(12)), 0.47)
            one_in_time((user.send("/sign-out").seconds for user in users), 0.75)


def one_in_time(took: Iterable[float], most: float) -> None:
    """Requests are sent until one took no more than so many seconds."""
    seen: list[float] = []
    for seconds in took:
        seen.append(seconds)
        if seconds < most:
            return
    pytest.fail(f"none took less than {most} s: {seen}")


def test_i19_what_a_held_journal_could_not_keep_is_counted(stage: Stage) -> None:
    """The request was answered all the same."""
    with stage.host("a", 1, HEALTH_INTERVAL=0.2) as a:
        [worker] = a.workers
        visitor = session_of("visitor", worker)
        with cut(worker):
            with held(worker.journal):
                send(visitor, worker, "/set", input_text="held")
            shown = look(visitor, worker)["text"]
        assert shown == "held" or reported(worker) >= 1
