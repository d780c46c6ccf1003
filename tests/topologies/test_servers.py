"""The server classes of docs/how-to/deploy.md: the first requests come all at once, and each of them is answered; and
an outage of Redis goes by as it does anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from devservers.processes import wait_until
from devservers.servers import Valkey
from devservers.web import WebServer
from tests.support.site.application import CONFIG
from tests.support.site.browser import Answer, Browser

AT_ONCE = 24
"""Requests; more than one worker has of anything that it makes one of."""

CLASSES = [("gevent", False), ("gevent", True), ("gthread", True)]
"""Class of workers (that of ``tests/integration/exporters_site.py`` is ``sync``), and whether the application is loaded
before they are forked. gevent exchanges locks of Python, so that it matters whether the package's were made before."""


@contextmanager
def served(folder: Path, redis: Valkey, worker_class: str, preload: bool) -> Iterator[WebServer]:
    """The application under gunicorn, with two workers."""
    settings = {
        "REDIS_URL": redis.url,
        "DATABASE_URL": f"sqlite:///{folder / 'database.sqlite3'}",
        "JOURNAL": str(folder / "journal.sqlite3"),
        "HEALTH_INTERVAL": 0.2,
        "REQUEST_BUDGET": 10,
        "REDIS_TIMEOUT": 2,
        "DATABASE_TIMEOUT": 5,
    }
    config = {f"LANGPONT_SESSION_{name}": value for name, value in settings.items()}
    config |= {"SECRET_KEY": "test key of the test suite, 32+ bytes", "DEBUG": True}
    server = WebServer(
        folder / "web",
        workers=2,
        preload=preload,
        env={CONFIG: json.dumps(config)},
        application="tests.topologies.served:create_app()",
        worker_class=worker_class,
    )
    with server:
        yield server


@pytest.mark.parametrize(("worker_class", "preload"), CLASSES)
def test_all_first_requests_are_answered(tmp_path: Path, worker_class: str, preload: bool) -> None:
    """Requests are answered also if every lock of the package was made before gevent had exchanged those of Python."""
    with Valkey(tmp_path / "redis") as redis, served(tmp_path, redis, worker_class, preload) as server:
        browsers = [Browser(server.url) for _ in range(AT_ONCE)]
        appended = all_at_once(browsers, "1")
        assert [answer.status for answer in appended] == [200] * AT_ONCE
        assert [answer.json["list"] for answer in all_at_once(browsers, "2")] == [[1, 2]] * AT_ONCE
        redis.kill()
        assert [answer.status for answer in all_at_once(browsers, "3")] == [200] * AT_ONCE
        assert {answer.json["level"] for answer in all_at_once(browsers, "4")} == {2}
        redis.start()
        wait_until(lambda: {answer.json["level"] for answer in all_at_once(browsers, "5")} == {0}, "level 0")


def all_at_once(browsers: list[Browser], entry: str) -> list[Answer]:
    """Each appends an entry."""
    with ThreadPoolExecutor(len(browsers)) as pool:
        return list(pool.map(lambda browser: browser.send("/append", entry=entry), browsers))
