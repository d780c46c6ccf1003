"""Recordings for which several processes are needed: real workers, in real time.

One worker of a host publishes for all of them. A host is a journal: workers that have one of their own each are hosts
with one worker each, whose intervals end at different times.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from flask import Flask, session

from devservers.constants import extended
from devservers.processes import wait_until
from devservers.servers import Valkey
from devservers.web import WebServer
from flask_langpont_session.extension import state_of
from tests.faults.proxy import REFUSE, FaultProxy
from tests.infra.cloudwatch_endpoint import Endpoint
from tests.infra.published import Publication, Recording
from tests.infra.template import REGION
from tests.support.alerts_endpoint import environment_of

_WARM = 75
"""Seconds after which each worker has published once; it does so for the first time within a minute."""

_BUSY = 660
"""Seconds that a view computes: longer than the alarms on latency look back over."""


def create_app() -> Flask:
    """The site; its settings come from the environment."""
    return _create_in(os.environ["FOLDER"])


def create_hosts() -> Callable[..., Iterable[bytes]]:
    """The site, made by each worker for itself when it is asked first, with a folder of its own."""

    @cache
    def made() -> Flask:
        return _create_in(f"{os.environ['FOLDER']}/{os.getpid()}")

    only_one = threading.Lock()

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        with only_one:
            app = made()
        return app(environ, start_response)

    return answer


def _create_in(folder: str) -> Flask:
    app = Flask("shop", instance_path=folder)
    app.config.from_prefixed_env()
    extended(app)
    state_of(app).backend.database.upkeep.create_tables()

    @app.post("/write")
    def write() -> str:
        session["lang"] = "jp"
        return "kept"

    @app.post("/busy")
    def busy() -> str:
        end = time.monotonic() + _BUSY
        while time.monotonic() < end:
            sum(range(1000))
        return "done"

    return app


@dataclass
class Stage:
    """The servers and processes of a recording."""

    before_redis: FaultProxy
    site: WebServer
    endpoint: Endpoint
    began: float = field(default_factory=time.monotonic)

    def visit(self, seconds: float, pause: float = 2.0) -> None:
        """Let a user come to each worker again and again, at most once in so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for door in self.site.doors().values():
                with suppress(OSError):
                    ask(f"{door}/write", 5)
            time.sleep(min(pause, max(0.0, end - time.monotonic())))  # a user's pace; so long is recorded

    def begin(self) -> None:
        """Begin to record: all workers are there."""
        self.began = time.monotonic()


def ask(url: str, seconds: float) -> None:
    """A user's request."""
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=seconds).close()


def _a_second(stage: Stage) -> None:
    stage.visit(140)
    with stage.before_redis.failing(REFUSE):
        stage.visit(1, pause=0.0)
    stage.visit(160)


def _deployment(stage: Stage) -> None:
    stage.visit(90)
    stage.site.stop()
    time.sleep(20)  # of the time that is recorded, and not a wait for anything
    stage.site.start()
    stage.visit(190)


def _busy_worker(stage: Stage) -> None:
    one = next(iter(stage.site.doors().values()))
    computing = threading.Thread(target=ask, args=(f"{one}/busy", _BUSY + 60))
    computing.start()
    stage.visit(_BUSY)
    computing.join()


class Kind(NamedTuple):
    """One kind.

    :param workers: processes.
    :param happens: what happens, in real time.
    :param create: makes the site.
    """

    title: str
    workers: int
    happens: Callable[[Stage], None]
    create: Callable[[], Any] = create_app


KINDS: Mapping[str, Kind] = {
    "a second of many": Kind(
        "Redis is away for a second, and 24 hosts publish at different times", 24, _a_second, create_hosts
    ),
    "deployment": Kind("all four workers of a host are stopped and started again", 4, _deployment),
    "busy worker": Kind("a view of one of a host's two workers computes for eleven minutes", 2, _busy_worker),
}


def play(kind: str, folder: Path) -> Recording:
    """Record one kind."""
    title, workers, happens, create = KINDS[kind]
    with ExitStack() as ends:
        endpoint = ends.enter_context(Endpoint())
        redis = ends.enter_context(Valkey(folder / "redis"))
        before_redis = ends.enter_context(FaultProxy("127.0.0.1", redis.port))
        settings = {
            "REDIS_URL": before_redis.instead_of(redis.url),
            "DATABASE_URL": f"sqlite:///{folder / 'sessions.sqlite3'}",
            "METRICS": '["cloudwatch"]',
            "ENVIRONMENT": "production",
        }
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FLASK_"))},
            **environment_of(endpoint.url),
            **{f"FLASK_LANGPONT_SESSION_{name}": value for name, value in settings.items()},
            "AWS_DEFAULT_REGION": REGION,
            "FLASK_SECRET_KEY": "test key of the test suite, 32+ bytes",
            "FOLDER": str(folder),
        }
        site = WebServer(
            folder / "site",
            workers=workers,
            threads=2,
            preload=True,
            env=environment,
            application=f"tests.infra.record_workers:{create.__name__}()",
        )
        site.stop_signal = signal.SIGTERM  # what is left is published
        stage = Stage(before_redis, ends.enter_context(site), endpoint)
        wait_until(lambda: len(site.doors()) == workers, "all workers", 300)
        stage.visit(_WARM)
        stage.begin()
        happens(stage)
        lasted = time.monotonic() - stage.began
        received = [one for one in endpoint.received if 0 <= one.at - stage.began < lasted]
    publications = [Publication(round(one.at - stage.began, 1), one.data) for one in received]
    return Recording(title, f"python -m tests.infra.record '{kind}'", math.floor(lasted / 60), publications)
