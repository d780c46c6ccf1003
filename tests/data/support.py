"""Helpers for these tests: sessions with content, stores that are cut off from one worker only, and the return to
normal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devservers.processes import LONG, wait_until
from tests.faults.proxy import REFUSE
from tests.support.site.browser import Answer, Browser
from tests.support.site.findings import reports_of
from tests.support.site.hosts import Worker
from tests.support.site.verdict import WRITES

FIVE = [1, 2, 3, 4, 5]
COUNTED = 3

KINDS = ("visitor", "user")

MINIMAL = 4
"""The level at which no change is kept, but for a wipe."""

_CHANGES = frozenset({"/set", "/append", "/count"})
"""Pages of which that level keeps nothing."""


def send(browser: Browser, worker: Worker, path: str, level: int | None = None, **form: str) -> Any:
    """Post to a worker; what it answers. The request must have been at this level.

    In an outage of Redis a user's request asks the database. If that lets it wait in vain on a busy machine, the
    request comes to level 4, keeps nothing, and has to report that: then it is sent again.
    """
    answers: list[Answer] = []

    def is_answered() -> bool:
        before = reported(worker)
        answers.append(browser.at(worker.url).send(path, **form))
        if path not in _CHANGES or level in (None, MINIMAL) or _shown(answers[-1])["level"] != MINIMAL:
            return True
        assert reported(worker) > before, told(worker)
        return False

    wait_until(is_answered, f"an answer of {path} at level {level}", pause=0.2)
    return _shown(answers[-1], level)


def look(browser: Browser, worker: Worker, level: int | None = None) -> Any:
    """Return the session as a worker shows it, and check that the request was at this level."""
    return _shown(browser.at(worker.url).get("/look"), level)


def whole(shown: dict[str, object]) -> tuple[object, ...]:
    """Return the values of priority ``high``."""
    return shown["list"], shown["count"], shown["text"]


def _shown(answer: Answer, level: int | None = None) -> Any:
    assert answer.ok, (answer.status, answer.body)
    shown = answer.json
    assert level is None or shown["level"] == level, shown
    return shown


def session_of(kind: str, worker: Worker, *, user: str = "7") -> Browser:
    """A session with five entries, three additions, two texts and a theme, all of which Redis has: what a busy machine
    puts into the journal first has been merged."""
    browser = Browser(worker.url)
    if kind == "user":
        send(browser, worker, "/sign-in", user=user)
    for entry in FIVE:
        send(browser, worker, "/append", entry=str(entry))
    for _ in range(COUNTED):
        send(browser, worker, "/count")
    home(worker)

    def is_stored() -> bool:
        send(browser, worker, "/set", theme="dark", lang="ja", input_text="before")  # a theme waits in no journal
        shown = look(browser, worker)
        return bool(shown["level"] == 0 and shown["list"] == FIVE and shown["theme"] == "dark")

    wait_until(is_stored, "all of it at level 0", pause=0.02)
    return browser


@contextmanager
def cut(*workers: Worker, database: bool = False, level: int = 2) -> Iterator[None]:
    """Cut these workers, and no others, off from Redis (and the database), and wait until they know it.

    Everything is well again afterwards, and what waited in the journals has been merged.
    """
    proxies = [worker.redis for worker in workers] + [worker.database for worker in workers if database]
    before = [proxy.hits["refuse"] for proxy in proxies]
    for proxy in proxies:
        proxy.impose(REFUSE)
    try:
        at_level(level, *workers)
        yield
        assert all(proxy.hits["refuse"] > number for proxy, number in zip(proxies, before, strict=True))
        assert all(worker.level >= level for worker in workers)
    finally:
        for proxy in proxies:
            proxy.heal()
    home(*workers)


def at_level(level: int, *workers: Worker) -> None:
    """Wait until the workers know that they are at this level."""
    wait_until(lambda: all(worker.level == level for worker in workers), f"level {level}", pause=0.02)


def home(*workers: Worker) -> None:
    """Wait until the workers are at level 0 and their journals are empty."""
    wait_until(lambda: all(worker.is_well() for worker in workers), "all well, journals empty", pause=0.02)


@contextmanager
def held(journal: Path) -> Iterator[None]:
    """Hold the lock of the journal's file, as another process that does not let go of it."""
    connection = sqlite3.connect(journal, timeout=LONG, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def told(*workers: Worker) -> str:
    """Return what workers have reported as not kept, and the end of their logs: why a test has failed."""
    return "\n".join(f"{each.name}: {[*reports_of(each)]}\n{each.log.read_text()[-3000:]}" for each in workers)


def reported(*workers: Worker) -> int:
    """Return how many writes the workers have reported as lost."""
    return sum(worker.counters().get(name, 0) for worker in workers for name in WRITES)
