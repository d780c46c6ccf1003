"""The servers of the lab, around the example application.

A Valkey primary and its replica, PostgreSQL, AWS as moto plays it, and the application under gunicorn, all on 127.0.0.1
and in one temporary folder. Whatever ends this process, none of them outlives it.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from devservers.aws import Aws
from devservers.janitor import MARK
from devservers.processes import spawn
from devservers.servers import Postgres, Server, ServerError, Valkey
from devservers.web import PROJECT, WebServer
from lab.control import ControlServer

APPLICATION = "lab.app:create_app()"
"""Where gunicorn finds what runs in it."""

_SMALL_HASHES = ("--hash-max-listpack-value", "1024")
"""A session of the usual size in the form that takes less memory, as `flask langpont doctor` has it."""


class Lab:
    """All servers. A context manager: everything runs on entry, nothing is left after exit.

    :param port: of the application; any free one by default.
    :param workers: processes of the application; `threads` of each.
    :param preload: load the application before forking the workers.
    :param settings: further configuration of the application, without the prefix ``FLASK_``.
    :param application: where gunicorn finds the application.
    :param aws: with metrics and alerts, and moto's server that takes them.
    :param tell: is called with a line about each server as soon as that has started.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        workers: int = 2,
        threads: int = 8,
        preload: bool = False,
        settings: Mapping[str, object] | None = None,
        application: str = APPLICATION,
        aws: bool = False,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._tell = tell
        self.folder = Path(tempfile.mkdtemp(prefix="langpont-lab-"))  # mode 0700
        self.primary = Valkey(self.folder / "primary", extra=_SMALL_HASHES)
        self.replica = Valkey(self.folder / "replica", replica_of=self.primary, extra=_SMALL_HASHES)
        self.database = Postgres(self.folder / "database")
        self.aws = Aws(self.folder / "aws") if aws else None
        self._application = application
        #: Of the application, on every host; without the prefix ``FLASK_``.
        self.configuration = self._own_configuration() | dict(settings or {})
        self._hosts: list[WebServer] = []
        self.web = self.host("web", port=port, workers=workers, threads=threads, preload=preload)
        self._acting = threading.Lock()
        self.aged = False  # whether the workers take their local copies for too old
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """Return the address of the application."""
        return self.web.url

    @property
    def servers(self) -> dict[str, Valkey | Postgres]:
        """Return the servers that may be switched, by their names on the page."""
        return {"primary": self.primary, "replica": self.replica, "database": self.database}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._running.close()

    def host(
        self,
        name: str,
        *,
        port: int | None = None,
        workers: int = 2,
        threads: int = 8,
        preload: bool = False,
        settings: Mapping[str, object] | None = None,
    ) -> WebServer:
        """Return the application as if on a host of its own: with its own journal, on the same stores.

        `web` is one; further ones are started by the caller and stopped by the lab.
        """
        folder = self.folder / name
        variables = self.environment(self.configuration | self._own(name) | dict(settings or {}))
        if self.aws is not None:
            variables["PROMETHEUS_MULTIPROC_DIR"] = str(_made(folder / "prometheus"))
        web = WebServer(
            folder,
            port=port,
            workers=workers,
            threads=threads,
            preload=preload,
            env=variables,
            application=self._application,
        )
        self._hosts.append(web)
        return web

    def doctor(self) -> Mapping[str, Any]:
        """Return the report of ``flask langpont doctor`` about the application, on the host of `web`.

        :raises ServerError: it says nothing.
        """
        command = [sys.executable, "-m", "flask", "--app", "lab.app", "langpont", "doctor", "--json"]
        environment = self.environment(self.configuration | self._own("web"))
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
        if not done.stdout:
            raise ServerError(f"the doctor failed: {done.stderr[-2000:]}")
        said: Mapping[str, Any] = json.loads(done.stdout)
        return said

    def act(self, server: str, action: str) -> None:
        """Do one action of the page. A stop is a SIGKILL: the worst way to go is the one worth watching."""
        target = self.servers[server]
        actions = {"stop": target.kill, "start": target.start, "freeze": target.freeze, "thaw": target.thaw}
        with self._acting:
            if server != "database" and action in ("start", "thaw"):
                self.aged = False
            actions[action]()

    def age(self) -> None:
        """Have the workers take their local copies for too old, as half an hour after the loss of Redis."""
        self.aged = True

    def state(self) -> dict[str, str]:
        """Return ``running``, ``stopped`` or ``frozen``, by name."""
        return {
            name: "frozen" if server.frozen else "running" if server.running else "stopped"
            for name, server in self.servers.items()
        }

    def aws_received(self) -> Mapping[str, Any] | None:
        """Return what the application has sent to AWS; None without AWS."""
        return self.aws.received() if self.aws is not None else None

    def _start(self) -> None:
        self._running.callback(shutil.rmtree, self.folder, ignore_errors=True)  # if even the janitor cannot start
        self._running.callback(_end, _janitor(self.folder))
        beside: dict[str, Server] = {"Valkey, a replica": self.replica, "PostgreSQL": self.database}
        if self.aws:
            beside["AWS (moto)"] = self.aws
        for server in (self.primary, *beside.values()):
            self._running.callback(server.stop)
        self._running.callback(self._stop_hosts)
        self._begin("Valkey, the primary", self.primary)
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._begin, beside, beside.values()))
        self._create_tables()
        self._running.enter_context(_serving(ControlServer(self._socket, self)))
        self._begin("The application", self.web)

    def _begin(self, name: str, server: Server) -> None:
        server.start()
        self._tell(f"{name} runs on port {server.port}")

    def _stop_hosts(self) -> None:
        for web in self._hosts:
            web.stop()

    @property
    def _socket(self) -> Path:
        return self.folder / "control"

    def _own(self, name: str) -> dict[str, object]:
        """Return the settings that a host has for itself."""
        return {"LANGPONT_SESSION_JOURNAL": str(self.folder / name / "journal.sqlite3")}

    def _own_configuration(self) -> dict[str, object]:
        return {
            "SECRET_KEY": secrets.token_urlsafe(32),
            "LAB_SOCKET": str(self._socket),
            "LANGPONT_SESSION_REDIS_URL": self.primary.url,
            "LANGPONT_SESSION_REPLICA_URL": self.replica.url,
            "LANGPONT_SESSION_DATABASE_URL": self.database.url,
            "LANGPONT_SESSION_JOURNAL": str(self.folder / "journal.sqlite3"),
            **(self.aws.settings() if self.aws else {}),
        }

    def environment(self, configuration: Mapping[str, object]) -> dict[str, str]:
        """Return the application's environment: ours without what is meant for other applications, plus the
        configuration as JSON."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "AWS_"))}
        given = {f"FLASK_{name}": json.dumps(value) for name, value in configuration.items()}
        aws = self.aws.environment() if self.aws else {}
        return inherited | given | aws | {MARK: str(self.folder)}

    def _create_tables(self) -> None:
        log = self.folder / "init-db.log"
        command = [sys.executable, "-m", "flask", "--app", "lab.app", "langpont", "init-db"]
        if spawn(command, log=log, cwd=PROJECT, env=self.environment(self.configuration)).wait() != 0:
            raise ServerError(f"init-db failed: {log.read_text(errors='replace')[-2000:]}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _serving(control: ControlServer) -> Iterator[None]:
    threading.Thread(target=control.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    with control:
        try:
            yield
        finally:
            control.shutdown()


def _janitor(folder: Path) -> subprocess.Popen[bytes]:
    # In a session of its own, and without the death signal of the others: it has to outlive us.
    command = [sys.executable, "-m", "devservers.janitor", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, cwd=PROJECT, start_new_session=True)


def _end(janitor: subprocess.Popen[bytes]) -> None:
    janitor.communicate()  # closes its standard input and waits
