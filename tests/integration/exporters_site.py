"""A site whose figures are exported, under gunicorn: ``tests.integration.exporters_site:create_app()``.

Its settings come from the environment (``FLASK_LANGPONT_SESSION_…``), its folder from ``FOLDER``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from flask import Flask, session

from devservers.constants import extended
from devservers.processes import LONG, children, spawn, wait_until
from flask_langpont_session.extension import state_of
from flask_langpont_session.support import threads
from tests.support.patience import wait_for_the_journal

from .conftest import PATIENT
from .unix_socket import UnixConnection

ROOT = Path(__file__).parents[2]

CONFIGURATION = ROOT / "infra" / "gunicorn.conf.py"


def create_app() -> Flask:
    """The site."""
    wait_for_the_journal()
    app = Flask("app", instance_path=os.environ["FOLDER"])
    app.config.from_prefixed_env()
    extended(app)
    state_of(app).backend.database.upkeep.create_tables()
    if "QUIET" in os.environ:
        be_quiet(app)
        threads.EXIT_WAIT = 20.0  # less than the 30 s after which gunicorn kills a worker

    @app.post("/set")
    def set_language() -> str:
        session["lang"] = "jp"
        return str(os.getpid())

    return app


def be_quiet(app: Flask) -> None:
    """Have nothing published before the end, unless a test does it: an hour is longer than the longest interval."""
    exporting = state_of(app).exporting
    assert exporting is not None
    for thread in exporting.threads:
        thread._interval = 3600


class Gunicorn:
    """The site with two workers, behind a socket in a folder.

    :param preload: whether the application is loaded before the workers are forked.
    :param quiet: whether they publish at their end only.
    :param config: settings of the extension, without the prefix, as JSON.
    """

    def __init__(self, folder: Path, redis: str, *, preload: bool, quiet: bool, **config: str) -> None:
        self._socket = folder / "socket"
        self._shared = folder / "prometheus"
        options = ["--bind", f"unix:{self._socket}", "--workers", "2", "--worker-class", "sync", "--threads", "1"]
        options += ["--config", str(CONFIGURATION)]
        options += ["--worker-tmp-dir", str(folder), "--no-control-socket", *(["--preload"] if preload else [])]
        patience = {name: str(seconds) for name, seconds in PATIENT.items()}
        settings = {"REDIS_URL": redis, **patience, **config}
        self._process = spawn(
            [sys.executable, "-m", "gunicorn", *options, "tests.integration.exporters_site:create_app()"],
            log=folder / "log",
            cwd=folder,
            env={
                **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
                **{f"FLASK_LANGPONT_SESSION_{name}": value for name, value in settings.items()},
                "FLASK_SECRET_KEY": "test key of the test suite, 32+ bytes",
                **({"QUIET": "yes"} if quiet else {}),
                "FOLDER": str(folder),
                "PROMETHEUS_MULTIPROC_DIR": str(self._shared),
                "PYTHONPATH": str(ROOT),
            },
        )

    def ask(self, method: str, path: str) -> str | None:
        """Return the answer of a worker; None: no worker answers."""
        # Longer than a worker may take to load the application: a request that was given up would be served all the
        # same, and counted.
        connection = UnixConnection(str(self._socket), timeout=LONG)
        try:
            connection.request(method, path, headers={"Host": "localhost"})
            return connection.getresponse().read().decode()
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def visited(self) -> dict[str, int]:
        """Let visitors come until each worker has served one: process id → how many it has served."""
        served: dict[str, int] = {}

        def visit() -> bool:
            if pid := self.ask("POST", "/set"):
                served[pid] = served.get(pid, 0) + 1
            return len(served) == 2

        wait_until(lambda: len(self.workers) == 2, "both workers")
        wait_until(visit, "an answer of each worker")
        return served

    @property
    def workers(self) -> set[int]:
        """Return the process ids of the workers."""
        return set(children(self._process.pid))

    def files(self) -> set[str]:
        """Names of what prometheus_client keeps of each process."""
        return {path.name for path in self._shared.iterdir()}

    def figure(self, name: str) -> float | None:
        """A sample of the page; None: it is not there."""
        found = re.search(rf"^langpont_session_{re.escape(name)} (\S+)$", self.ask("GET", "/metrics") or "", re.M)
        return float(found[1]) if found else None

    def stop(self) -> None:
        """SIGTERM, as from systemd or a container's host; and wait for the end."""
        self._process.terminate()
        try:
            assert self._process.wait(LONG) == 0
        finally:
            self._process.kill()


@contextmanager
def running(folder: Path, redis: str, *, preload: bool, quiet: bool, **config: str) -> Iterator[Gunicorn]:
    """The site, while this is open."""
    site = Gunicorn(folder, redis, preload=preload, quiet=quiet, **config)
    try:
        yield site
    finally:
        site.stop()
