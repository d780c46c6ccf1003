"""I21: a process that computes makes no outage of it, and still notices one (D2)."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask

from devservers.processes import LONG, wait_until
from devservers.servers import Valkey
from flask_langpont_session.policy.health import PRIMARY, READ

from .conftest import MakeApp, parts

pytestmark = pytest.mark.real_time("how soon a process that computes notices what it waits for")

DEFAULTS = {"REDIS_TIMEOUT": 0.2, "DATABASE_TIMEOUT": 0.25, "REQUEST_BUDGET": 0.3}
COMPUTING, USERS = 4, 4


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Let so many threads of this process compute all the time, in pure Python."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1000))

    started = [threading.Thread(target=compute) for _ in range(threads)]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in started:
            thread.join(LONG)


class Users:
    """Signed-in users who read and write all the time, each from a browser of its own.

    :ivar seen: (whether the user was known, level) → answers.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._over = threading.Event()
        self._browsers = {str(number): app.test_client() for number in range(USERS)}
        self.seen: Counter[tuple[bool, int]] = Counter()
        for user in self._browsers:
            # With these waits a busy machine may refuse a sign-in, which no test here is about.
            wait_until(functools.partial(self._sign_in, user), f"user {user} is signed in")

    def _sign_in(self, user: str) -> bool:
        return self._browsers[user].post(f"/login/{user}").status_code == 200

    def _surf(self, user: str, browser: Any) -> None:
        while not self._over.is_set():
            browser.post("/set", json={"lang": "jp"})
            answer = browser.get("/who").json
            self.seen[answer["user"] == user, answer["level"]] += 1
            time.sleep(0.01)

    def have_surfed(self, answers: int) -> None:
        """Wait for so many answers."""
        wait_until(lambda: self.seen.total() >= answers, f"{answers} answers")

    @property
    def strangers(self) -> dict[int, int]:
        """Level → answers to a user as to a stranger."""
        return {level: number for (known, level), number in self.seen.items() if number and not known}

    @contextmanager
    def surfing(self) -> Iterator[None]:
        """Let the visitors come all the time meanwhile."""
        threads = [threading.Thread(target=self._surf, args=each) for each in self._browsers.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(LONG)


def lost_at(app: Flask, store: str) -> float:
    """Return the time at which reads of a store were given up, in monotonic seconds."""
    return parts(app).health.breakers[store, READ].opened_at or 0.0


@pytest.fixture
def make_busy(make_app: MakeApp) -> Callable[..., Flask]:
    """Applications with the waits that are the defaults."""
    return lambda **config: make_app(**{**DEFAULTS, **config})


def test_a_redis_that_hangs_is_noticed_by_a_late_process(
    make_busy: Callable[..., Flask], primary: Valkey, record_property: Callable[[str, object], None]
) -> None:
    """The hanging Redis is noticed, and no user becomes a visitor for it."""
    app = make_busy()
    users = Users(app)
    with computing(COMPUTING), users.surfing():
        users.have_surfed(2 * USERS)
        # Whether a busy process takes it for lost is another test's question; a busy machine may let it wait.
        wait_until(lambda: (PRIMARY, READ) not in parts(app).health.open_stores(), "Redis is used")
        began = time.monotonic()
        os.kill(primary.pid or 0, signal.SIGSTOP)  # at once; what follows takes a busy process a while
        primary.freeze()
        try:
            wait_until(lambda: (PRIMARY, READ) in parts(app).health.open_stores(), "the loss")
            took = max(0.0, lost_at(app, PRIMARY) - began)
            wait_until(lambda: users.seen[True, 2] > USERS, "answers at level 2")
        finally:
            primary.thaw()
    record_property("noticed after, seconds", took)
    assert took < LONG
    assert not users.strangers
