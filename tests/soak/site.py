"""The servers of a soak, the proxies before them, and what breaks them by plan and can prove it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from devservers.processes import LONG, wait_until
from devservers.servers import Postgres, Server, Valkey
from devservers.web import WebServer
from flask_langpont_session.stores.sql.tables import METADATA
from tests.faults.proxy import FaultProxy
from tests.stories.site import health, journal_of

from .schedule import DATABASE, FLUSH, FREEZE, PRIMARY, REPLICA, RESTART_EMPTY, SILENT, Episode

WORKERS, THREADS = 4, 4

VERIFY_INTERVAL = 1
"""Seconds. As short as it may be, so that the database is asked often enough to be missed."""

RECOVERY = LONG
"""Seconds from the end of all faults within which all has to be well: the goal is two, on a machine of one's own."""

_MARK = "soak:mark"
"""A key of the soak's own: whether it is still there tells what a restart has brought back."""


@dataclass
class Site:
    """All of it.

    :param servers: by the names of the schedule; likewise `proxies`.
    """

    servers: dict[str, Server]
    proxies: dict[str, FaultProxy]
    web: WebServer
    #: (store, fault) → how often it was seen to bite.
    bites: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: From when to when nothing reached the database, in seconds of the monotonic clock.
    silences: list[tuple[float, float]] = field(default_factory=list)
    #: When a worker was killed.
    deaths: list[float] = field(default_factory=list)
    #: Every fault as it happened, to explain a finding: from, to, what.
    diary: list[tuple[float, float, str]] = field(default_factory=list)

    @property
    def primary(self) -> Valkey:
        server = self.servers[PRIMARY]
        assert isinstance(server, Valkey)
        return server

    @property
    def database(self) -> Postgres:
        server = self.servers[DATABASE]
        assert isinstance(server, Postgres)
        return server

    # -- breaking it -------------------------------------------------------------------------------------------------

    def play(self, plan: dict[str, Sequence[Episode]], deaths: Sequence[float]) -> None:
        """Let every fault happen in its time; return when all are over. :raises AssertionError: one did not bite."""
        began = time.monotonic()
        with ThreadPoolExecutor(len(plan) + 1) as pool:
            lanes = [pool.submit(self._play, began, episodes) for episodes in plan.values()]
            lanes.append(pool.submit(self._kill_workers, began, deaths))
            for lane in lanes:
                lane.result()

    def _play(self, began: float, episodes: Sequence[Episode]) -> None:
        for episode in episodes:
            time.sleep(max(0.0, began + episode.at - time.monotonic()))
            start = time.monotonic()
            with self._failing(episode):
                in_force = time.monotonic()
                time.sleep(episode.seconds)
                self._wait_for_a_bite(episode)
                before_heal = time.monotonic()
            if episode.store == DATABASE and episode.fault in SILENT:
                self.silences.append((in_force, before_heal))
            self.diary.append((start, time.monotonic(), f"{episode.store} {episode.fault}"))

    @contextmanager
    def _failing(self, episode: Episode) -> Iterator[None]:
        if episode.network is not None:
            with self.proxies[episode.store].failing(episode.network):
                yield
        elif episode.fault == FREEZE:
            with self._frozen(self.servers[episode.store]):
                yield
        elif episode.fault == FLUSH:
            with self.primary.client() as redis:
                redis.flushall()
            yield
        else:
            with self._killed(episode):
                yield

    @staticmethod
    @contextmanager
    def _frozen(server: Server) -> Iterator[None]:
        server.freeze()
        try:
            process = psutil.Process(server.pid)
            wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "a stopped process")
            yield
        finally:
            server.thaw()

    @contextmanager
    def _killed(self, episode: Episode) -> Iterator[None]:
        server, before = self.servers[episode.store], self.servers[episode.store].pid
        empty = episode.fault == RESTART_EMPTY
        if server is self.primary:
            with self.primary.client() as redis:
                redis.set(_MARK, "here")
        server.kill()
        assert not server.running
        if empty:
            shutil.rmtree(server.folder / "appendonlydir")
        yield
        server.start()
        assert server.pid != before
        if server is self.primary:
            with self.primary.client() as redis:
                assert redis.exists(_MARK) == (not empty), "it came back with other data than it should"

    def _wait_for_a_bite(self, episode: Episode) -> None:
        key = episode.store, episode.fault
        if episode.network is None:
            self.bites[key] += 1  # its own assertions say so
            return
        hits = self.proxies[episode.store].hits
        already = self.bites[key]
        wait_until(lambda: hits[episode.fault] > already, f"{key} to meet a request", pause=0.02)
        self.bites[key] = hits[episode.fault]

    def _kill_workers(self, began: float, deaths: Sequence[float]) -> None:
        for at in deaths:
            time.sleep(max(0.0, began + at - time.monotonic()))
            wait_until(lambda: len(self.web.doors()) == WORKERS, "all workers")
            victim = sorted(self.web.doors())[len(self.deaths) % WORKERS]
            self.deaths.append(time.monotonic())
            os.kill(victim, signal.SIGKILL)
            self.diary.append((self.deaths[-1], self.deaths[-1], f"worker {victim} killed"))

    # -- afterwards --------------------------------------------------------------------------------------------------

    def heal(self) -> float:
        """Start everything, and return the seconds until every worker is well and nothing waits in the journal."""
        for proxy in self.proxies.values():
            proxy.heal()
        for server in self.servers.values():
            server.start()
        began = time.monotonic()
        try:
            wait_until(self._is_well, "workers that are well, and an empty journal", RECOVERY, pause=0.05)
        except TimeoutError as error:
            stores = [report["stores"] for report in self._reports()]
            raise AssertionError(f"I6: {error}: {stores}, waiting: {self.waiting()}") from None
        return time.monotonic() - began

    def _is_well(self) -> bool:
        reports = self._reports()
        if len(reports) != WORKERS or not all(r["status"] == "ok" and r["logins"] for r in reports):
            return False
        return not any(self.waiting().values())

    def _reports(self) -> list[Mapping[str, Any]]:
        return [health(url) for url in self.web.doors().values()]

    def waiting(self) -> dict[str, int]:
        """Return the number of journal entries that wait for a store, by kind."""
        with journal_of(self.web) as journal:
            kinds = journal.summary().kinds
        return {kind: waiting.entries for kind, waiting in kinds.items() if kind != "copies"}

    def rows(self) -> dict[str, bool]:
        """Digest → whether the database calls the session alive."""
        engine = sa.create_engine(self.database.url)
        valid = sa.text(
            "SELECT s.digest, s.live AND s.user_epoch = COALESCE(u.epoch, 0) "
            "FROM langpont_sessions s LEFT JOIN langpont_users u ON u.user_id = s.user_id"
        )
        try:
            with engine.connect() as connection:
                return {digest: bool(alive) for digest, alive in connection.execute(valid)}
        finally:
            engine.dispose()

    def log(self) -> str:
        """All that the workers wrote."""
        return self.web.log.read_text(errors="replace")


@contextmanager
def soaking(folder: Path) -> Iterator[Site]:
    """Yield the site of a soak, with everything running and every worker well."""
    primary = Valkey(folder / "primary")
    servers: dict[str, Server] = {
        PRIMARY: primary,
        REPLICA: Valkey(folder / "replica", replica_of=primary),
        DATABASE: Postgres(folder / "database"),
    }
    with ExitStack() as ends:
        for server in servers.values():
            ends.enter_context(server)
        proxies = {name: ends.enter_context(FaultProxy("127.0.0.1", server.port)) for name, server in servers.items()}
        web = WebServer(
            folder / "web",
            workers=WORKERS,
            threads=THREADS,
            preload=True,
            env=_environment(folder, servers, proxies),
            application="tests.soak.application:create_app()",
        )
        site = Site(servers, proxies, web)
        engine = sa.create_engine(site.database.url)
        METADATA.create_all(engine)
        engine.dispose()
        ends.callback(_let_close, proxies)
        ends.callback(web.kill)
        web.start()
        site.heal()
        yield site


def _let_close(proxies: Mapping[str, FaultProxy]) -> None:
    """The proxies are told that the workers are gone, and have closed their ends, before they end themselves."""
    wait_until(lambda: not any(proxy.connections for proxy in proxies.values()), "closed connections")
    for proxy in proxies.values():
        proxy.heal()  # one more round of its loop, in which what was closed is let go


def _environment(folder: Path, servers: dict[str, Server], proxies: dict[str, FaultProxy]) -> dict[str, str]:
    urls = {}
    for name, key in ((PRIMARY, "REDIS_URL"), (REPLICA, "REPLICA_URL"), (DATABASE, "DATABASE_URL")):
        server = servers[name]
        assert isinstance(server, Valkey | Postgres)
        urls[f"LANGPONT_SESSION_{key}"] = proxies[name].instead_of(server.url)
    settings: dict[str, object] = {
        "SECRET_KEY": secrets.token_urlsafe(32),
        **urls,
        "LANGPONT_SESSION_JOURNAL": str(folder / "web" / "journal.sqlite3"),
        "LANGPONT_SESSION_HEALTH_INTERVAL": 1,  # idle stores are looked at often enough to be missed
        "LANGPONT_SESSION_VERIFY_INTERVAL": VERIFY_INTERVAL,
        "LANGPONT_SESSION_GRACE": 3,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "AWS_"))}
    return inherited | {f"FLASK_{name}": json.dumps(value) for name, value in settings.items()}
