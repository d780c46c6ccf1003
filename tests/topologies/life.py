"""A program of two workers, forked from one that has used its application, that live through an outage of a cluster.

``python -m tests.topologies.life CLUSTER_URL FOLDER``. Each worker says ``ready`` when a user is
signed in on each shard, ``degraded`` when it serves some of them without their primary, and ``home`` when all is as it
was; and stops with another word than these.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask

from flask_langpont_session import LangPontSession
from flask_langpont_session.extension import state_of
from tests.integration.behind import digest, is_home
from tests.integration.conftest import add_views
from tests.support.patience import wait_for_the_journal
from tests.topologies.conftest import PATIENT

VISITORS = 8


def application(url: str, folder: str) -> Flask:
    wait_for_the_journal()  # all visitors write at once
    app = Flask("app", instance_path=folder)
    app.config.update(SECRET_KEY="test key of the test suite, 32+ bytes", TESTING=True)
    files = {
        "DATABASE_URL": f"sqlite:///{folder}/langpont_session.sqlite3",
        "JOURNAL": f"{folder}/langpont_session_journal.sqlite3",
    }
    settings = {"REDIS_URL": url, **files, **PATIENT}
    app.config.update({f"LANGPONT_SESSION_{key}": value for key, value in settings.items()})
    LangPontSession(app)
    state_of(app).backend.database.upkeep.create_tables()
    add_views(app)
    return app


def live(app: Flask, name: str) -> None:
    """Play one worker, with visitors who do everything at the same time."""
    health = state_of(app).health
    visitors: dict[str, Any] = {f"{name}{number}": app.test_client() for number in range(VISITORS)}

    def each(visit: Callable[[str, Any], bool]) -> list[bool]:
        with ThreadPoolExecutor(VISITORS) as threads:
            return list(threads.map(visit, visitors, visitors.values()))

    def all_of_them(visit: Callable[[str, Any], bool]) -> bool:
        return all(each(visit))

    def sign_in(user: str, browser: Any) -> bool:
        return bool(browser.post(f"/login/{user}").status_code == 200)

    def shards() -> set[str]:
        return {health.locate(digest(browser.get_cookie("session").value)) for browser in visitors.values()}

    def until(level: int) -> Callable[[str, Any], bool]:
        def visit(user: str, browser: Any) -> bool:
            answer = browser.get("/who").json
            if answer["user"] != user:
                say(name, f"lost {answer}")
            return bool(answer["level"] == level)

        return visit

    all_of_them(sign_in)
    while len(shards()) < len(health.shards):
        user = f"{name}{len(visitors)}"
        visitors[user] = app.test_client()
        sign_in(user, visitors[user])
    wait(lambda: all_of_them(until(0)))
    say(name, "ready")
    wait(lambda: any(each(until(1))))
    all_of_them(lambda user, browser: bool(browser.post("/set", json={"input_text": user}).status_code == 200))
    say(name, "degraded")
    wait(lambda: all_of_them(until(0)))
    wait(lambda: all_of_them(lambda user, browser: bool(browser.get("/get/input_text").json["value"] == user)))
    wait(lambda: is_home(app))
    say(name, "home")


def wait(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for as long as the test that started this program waits."""
    while not condition():
        time.sleep(0.02)


def say(name: str, word: str) -> None:
    os.write(1, f"{name} {word}\n".encode())


def main(url: str, folder: str) -> None:
    """Run two workers, forked after the application had been used."""
    app = application(url, folder)
    app.test_client().post("/login/before")
    # What another thread just uses at a fork stays open in the child, where nothing uses it: that hides what is shared.
    with state_of(app).monitor.paused():
        children = [born(app, name) for name in ("first", "second")]
    for child in children:
        os.waitpid(child, 0)


def born(app: Flask, name: str) -> int:
    """Fork a worker. Returns its process id, to the parent only."""
    child = os.fork()
    if not child:
        try:
            live(app, name)
        finally:
            os._exit(0)
    return child


if __name__ == "__main__":
    main(*sys.argv[1:])
