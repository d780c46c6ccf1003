"""Hosts of worker processes: each worker with a way to Redis and one to the database that can be cut for it alone."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from devservers.forks import Fork
from devservers.processes import spawn, wait_until
from devservers.server import Process, Server, answers_http
from devservers.servers import Postgres, Valkey
from devservers.web import PROJECT
from flask_langpont_session.stores.sql.tables import METADATA
from tests.faults.proxy import FaultProxy
from tests.support.slow_disk import slow_disk

from . import application
from .browser import Browser

LONG = 60.0
"""Seconds until something that has to happen counts as not happening: the machine may be busy."""


class Worker(Server):
    """One process of a host.

    :param stage: its stores.
    :param journal: of its host.
    :param settings: of the package, without the prefix.
    :param fsync_ms: how long its disk takes to keep something; 0: as long as it takes.
    :param direct: it goes round the proxies, which take time of their own on a busy machine.
    :param extra: environment variables.
    """

    patience = LONG

    def __init__(
        self,
        stage: Stage,
        folder: Path,
        journal: Path,
        settings: Mapping[str, Any],
        *,
        fsync_ms: float = 0.0,
        direct: bool = False,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.name = folder.name
        self.journal = journal
        self._stage = stage
        #: Of the package, at the next start.
        self.settings = dict(settings)
        #: Environment variables, at the next start.
        self.extra = dict(extra or {})
        self._fsync_ms = fsync_ms
        self._direct = direct
        self._lives = 0
        self._proxies = ExitStack()
        self.redis = self._proxies.enter_context(FaultProxy("127.0.0.1", stage.redis.port))
        #: The way to the replica; None: there is none.
        self.replica: FaultProxy | None = None
        if stage.replica is not None:
            self.replica = self._proxies.enter_context(FaultProxy("127.0.0.1", stage.replica.port))
        self.database = self._proxies.enter_context(FaultProxy("127.0.0.1", stage.database.port))

    @property
    def ways_to_redis(self) -> Sequence[FaultProxy]:
        """Return the proxies to the primary, and to the replica if there is one."""
        return [self.redis] if self.replica is None else [self.redis, self.replica]

    @property
    def url(self) -> str:
        """Return the address for browsers."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """End the process and its proxies."""
        self.thaw()
        self.kill()
        for proxy in (*self.ways_to_redis, self.database):
            wait_until(lambda proxy=proxy: not proxy.connections, "closed connections", LONG)  # type: ignore[misc]
            proxy.heal()
        self._proxies.close()

    def state(self) -> Any:
        """Return the worker's own report, see :func:`tests.support.site.application.state`."""
        answer = Browser(self.url).get("/state")
        assert answer.ok, answer.body
        return answer.json

    @property
    def level(self) -> int:
        """Return the level at which the worker says that it is."""
        return int(self.state()["status"]["level"])

    @property
    def waiting(self) -> int:
        """Return the entries in its host's journal; -1: the journal does not answer."""
        return int(self.state()["waiting"])

    def many(
        self, cookies: Sequence[str | None], path: str, form: Mapping[str, str] | None = None, threads: int = 8
    ) -> list[tuple[int, Any, str | None]]:
        """Make many requests inside this worker. Return status, body and cookie of each, see the page of this name."""
        asked = {"cookies": list(cookies), "threads": threads, "path": path, "form": form}
        answers = Browser(self.url, patience=2 * LONG).send_json("/many", asked)
        assert answers.status == 200, answers.body
        return [(status, answer, cookie) for status, answer, cookie in answers.json]

    def counters(self) -> dict[str, int]:
        """Return the counts of this worker's processes, those that were killed included."""
        summed: dict[str, int] = {}
        for path in self.folder.glob("counters-*.json"):
            for name, number in json.loads(path.read_text()).items():
                summed[name] = summed.get(name, 0) + number
        return summed

    def is_well(self) -> bool:
        """Return whether the worker is at level 0, can sign in, has nothing to give back to Redis, and nothing waits in
        its host's journal."""
        state = self.state()
        status, waits = state["status"], state["waiting"] or state["gives_back"]
        return bool(status["status"] == "ok" and status["logins"] and not waits)

    def _launch(self) -> Process:
        self._lives += 1
        env = self.environment()
        if self._fsync_ms:  # a library that is loaded when a program starts
            env |= slow_disk(self.folder, self._fsync_ms) or {}
            return spawn([sys.executable, "-m", application.__name__], log=self.log, cwd=PROJECT, env=env)
        return Fork(application.__name__, log=self.log, env=env)

    def environment(self) -> dict[str, str]:
        """Return the environment of this worker at its next start."""
        stage = self._stage
        redis, database = stage.redis.url, stage.database.url
        settings = {
            "REDIS_URL": redis if self._direct else self.redis.instead_of(redis),
            "DATABASE_URL": database if self._direct else self.database.instead_of(database),
            "JOURNAL": str(self.journal),
            **self.settings,
        }
        if self.replica is not None:
            settings["REPLICA_URL"] = self.replica.instead_of(redis)
        config = {"SECRET_KEY": stage.secret} | {f"LANGPONT_SESSION_{name}": v for name, v in settings.items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "AWS_"))}
        own = {
            application.CONFIG: json.dumps(config),
            application.COUNTERS: str(self.folder / f"counters-{self._lives}.json"),
            application.PORT: str(self.port),
        }
        return inherited | own | self.extra

    def _answers(self) -> bool:
        return answers_http(self.port, "/healthz/live")


@dataclass
class Host:
    """Workers that share a journal."""

    name: str
    workers: list[Worker]

    def browser(self, number: int = 0) -> Browser:
        """Return a browser without cookies at one of the workers."""
        return Browser(self.workers[number].url)


@dataclass
class Stage:
    """The stores, and the hosts on them."""

    folder: Path
    redis: Valkey
    database: Postgres
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    #: Of Redis; after a failover the two have changed their places.
    replica: Valkey | None = None

    @contextmanager
    def host(
        self,
        name: str,
        workers: int = 2,
        *,
        each: Sequence[Mapping[str, Any]] = (),
        fsync_ms: float = 0.0,
        direct: bool = False,
        extra: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Iterator[Host]:
        """Start a host, and return it when its workers are all well. More parameters: see :class:`Worker`.

        :param each: what is different at a worker, in their order.
        :param settings: of the package, without the prefix.
        """
        with ExitStack() as ends:
            made = []
            for number in range(workers):
                own = dict(settings) | dict(each[number] if number < len(each) else {})
                folder = self.folder / f"{name}{number + 1}"
                journal = self.folder / f"{name}.sqlite3"
                worker = Worker(self, folder, journal, own, fsync_ms=fsync_ms, direct=direct, extra=extra)
                ends.callback(worker.close)
                made.append(worker)
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(Worker.start, made))
            wait_until(lambda: all(worker.is_well() for worker in made), "workers that are well", LONG, pause=0.02)
            yield Host(name, made)

    def empty(self) -> None:
        """Start all stores, and empty them."""
        self.redis.start()
        with self.redis.client() as client:
            client.flushall()
        engine = sa.create_engine(self.database.url)
        try:
            METADATA.drop_all(engine)
            METADATA.create_all(engine)
        finally:
            engine.dispose()

    def cut_replication(self) -> None:
        """Keep what the primary is told from here on from its replica."""
        if self.replica is not None:
            self._follow(self.replica, "127.0.0.1", "1")

    def fail_over(self, workers: Sequence[Worker]) -> None:
        """End the primary, put its replica in its place, and lead workers there. The former primary follows it, with
        the new one's data."""
        assert self.replica is not None
        old, new = self.redis, self.replica
        old.kill()
        self._follow(new, "NO", "ONE")
        self.redis, self.replica = new, old
        old.replica_of, new.replica_of = new, None
        for worker in workers:
            for proxy, server in ((worker.redis, new), (worker.replica, old)):
                if proxy is not None:
                    proxy.lead_to(server.port)
                    proxy.drop_connections()
        old.start()

    @staticmethod
    def _follow(server: Valkey, *whom: str) -> None:
        with server.client() as client:
            client.execute_command("REPLICAOF", *whom)


@contextmanager
def staged(folder: Path, *, replica: bool = False) -> Iterator[Stage]:
    """Start the stores, empty.

    :param replica: Redis has one.
    """
    with ExitStack() as ends:
        redis, database = (
            ends.enter_context(Valkey(folder / "redis")),
            ends.enter_context(Postgres(folder / "database")),
        )
        follower = ends.enter_context(Valkey(folder / "replica", replica_of=redis)) if replica else None
        stage = Stage(folder, redis, database, replica=follower)
        stage.empty()
        yield stage
