"""The servers of the stories: one set of stores, and hosts with four workers each."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from devservers.processes import LONG, wait_until
from devservers.servers import Valkey
from devservers.web import WebServer
from flask_langpont_session.stores.host.journal import Journal, journal_at
from lab.servers import Lab
from tests.faults.proxy import FaultProxy
from tests.support.auth_records import says
from tests.support.gates import Gate
from tests.support.site.browser import Answer

from .visitor import Visitor

APPLICATION = "tests.stories.application:create_app()"
WORKERS = 4
"""Of each host."""


@dataclass
class Site:
    """All of it.

    :param lab: the stores, and the host whose application was loaded before its workers were forked.
    :param lazy: the host whose workers each load the application; it reaches the primary through `proxy`, and knows
        of no replica.
    """

    lab: Lab
    lazy: WebServer
    proxy: FaultProxy
    gates: Path
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    @property
    def preloaded(self) -> WebServer:
        return self.lab.web

    def doors(self) -> dict[int, str]:
        """The workers of both hosts."""
        return self.preloaded.doors() | self.lazy.doors()

    def heal(self) -> None:
        """Start every server, and wait until every worker knows it."""
        self.proxy.heal()
        for server in self.lab.servers.values():
            server.start()
        for host in (self.preloaded, self.lazy):
            wait_until_well(host)

    def forget_sessions(self) -> None:
        """An empty table. What Redis still has of its sessions is of no use."""
        self.query("DELETE FROM langpont_sessions RETURNING 1")

    def visitor(self, user: str = "hanako", role: str = "user") -> Visitor:
        """A user who has just signed in, and whom every worker has seen."""
        visitor = Visitor(self.preloaded.url)
        signed_in(visitor, user, role)
        for url in self.doors().values():
            assert visitor.at(url).me()["user"] == user
        return visitor

    # -- held requests ---------------------------------------------------------------------------------------------

    @contextmanager
    def held(self, visitor: Visitor) -> Iterator[Held]:
        """A request that has read its session and waits, while this is open, to write to it."""
        gate = Gate(self.gates, f"gate-{next(self._numbers)}")
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(visitor.twin().send, f"/held/{gate.name}")
            opened = threading.Event()

            def let_go() -> None:
                gate.open()
                opened.set()

            try:
                wait_until(lambda: gate.is_reached or answer.done(), "the held request")
                yield Held(answer, let_go)
            finally:
                let_go()

    # -- looking into the stores -----------------------------------------------------------------------------------

    def row(self, digest: str) -> dict[str, Any]:
        """The SQL row of a session, its payload decoded."""
        [row] = self.query("SELECT * FROM langpont_sessions WHERE digest = %s", digest)
        return row | {"payload": json.loads(row["payload"])}

    def query(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Ask the database."""
        address = self.lab.database.url.replace("+psycopg", "")
        with psycopg.connect(address, connect_timeout=5, row_factory=dict_row) as connection:
            return connection.execute(statement, values).fetchall()

    def records(self, digest: str) -> dict[str, dict[str, str]]:
        """Key → hash, of all that the primary has of a session."""
        with self.lab.primary.client() as redis:
            keys = [key for key in redis.scan_iter(match="session:*", count=1000) if digest in key]
            return {key: says(redis, key) for key in keys}

    def auth_record(self, digest: str) -> dict[str, str]:
        """Return the record that the primary has under the session's auth key."""
        return self.records(digest).get(f"session:auth:{{{digest}}}", {})

    @staticmethod
    def revocations(host: WebServer) -> set[str]:
        """Digests of the sessions whose end waits in a host's journal."""
        with journal_of(host) as journal:
            return {entry.digest for entry in journal.revocations.pending()}

    @staticmethod
    def pushes(host: WebServer) -> set[str]:
        """Digests of the sessions about which a host still has something to tell Redis."""
        with journal_of(host) as journal:
            return {entry.digest for entry in journal.pending_pushes()}


@contextmanager
def journal_of(host: WebServer) -> Iterator[Journal]:
    """Yield the journal of a host's workers."""
    journal = journal_at(host.folder / "journal.sqlite3")
    journal.open()
    try:
        yield journal
    finally:
        journal.close()


@dataclass(frozen=True)
class Held:
    """A request that waits."""

    future: Future[Answer]
    let_go: Any

    def answer(self) -> Answer:
        """Let it go on, and what it answers then."""
        assert not self.future.done(), f"it did not wait: {self.future.result()}"
        self.let_go()
        return self.future.result(LONG)


def signed_in(visitor: Visitor, user: str = "hanako", role: str = "user") -> None:
    """Sign in, from nothing."""
    visitor.cookies.clear()
    answer = visitor.send("/sign-in", user=user, role=role)
    assert answer.status == 200 and answer.json["user"] == user, answer.body


def health(url: str) -> Mapping[str, Any]:
    """Return the answer of ``/healthz`` behind one door."""
    answer = Visitor(url).get("/healthz")
    assert answer.status == 200, answer.body
    found: Mapping[str, Any] = answer.json
    return found


def wait_until_well(host: WebServer, workers: int = WORKERS) -> None:
    """Wait until every worker of a host is there and well."""

    def are_well() -> bool:
        reports = [health(url) for url in host.doors().values()]
        return len(reports) == workers and all(r["status"] == "ok" and r["logins"] for r in reports)

    wait_until(are_well, f"{workers} workers that are well", pause=0.02)


@contextmanager
def running(host: WebServer, workers: int = WORKERS) -> Iterator[WebServer]:
    """A host whose workers are all well; no test waits for their orderly end."""
    try:
        host.start()
        wait_until_well(host, workers)
        yield host
    finally:
        host.kill()


@contextmanager
def restarted_from(primary: Valkey, folder: Path) -> Iterator[Valkey]:
    """A server that has read a copy of a dead primary's files: what that one will say when it comes back."""
    assert not primary.running
    shutil.copytree(primary.folder / "appendonlydir", folder / "appendonlydir")
    with Valkey(folder) as server:
        yield server
