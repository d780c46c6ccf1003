"""Servers of the fault matrix: started once, reset for each row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devservers.servers import Postgres
from flask_langpont_session.stores.host import file as journal_file
from tests.integration.behind import emptied
from tests.support import patience

from .matrix import Row
from .matrix_servers import Pair
from .matrix_site import Site, proxies

pytest.register_assert_rewrite("tests.faults.matrix_proof")


@pytest.fixture(autouse=True)
def a_slow_disk_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no call give up because other work on this machine makes the disk slow."""
    monkeypatch.setattr(journal_file, "BUSY_SECONDS", patience.JOURNAL)


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Pair]]:
    """A primary and a replica of an engine; started when first asked for."""
    pairs: dict[str, Pair] = {}
    with ExitStack() as stack:

        def get(engine: str) -> Pair:
            if engine not in pairs:
                pairs[engine] = stack.enter_context(Pair.running(engine, tmp_path_factory.mktemp(engine)))
            pairs[engine].reset()
            return pairs[engine]

        yield get


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Postgres]]:
    """An empty PostgreSQL; started when first asked for."""
    servers: list[Postgres] = []
    with ExitStack() as stack:

        def get() -> Postgres:
            if not servers:
                servers.append(stack.enter_context(Postgres(tmp_path_factory.mktemp("matrix-postgres"))))
            emptied(servers[0])
            return servers[0]

        yield get


@pytest.fixture
def site(
    row: Row,
    engine: str,
    database: str,
    pair_of: Callable[[str], Pair],
    database_server: Callable[[], Postgres],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Site]:
    """Yield the site of a row: all stores are well, a worker serves, and the package's log is captured."""
    caplog.set_level(logging.DEBUG, "flask_langpont_session")
    pair, postgres = pair_of(engine), database_server() if database == "postgresql" else None
    with proxies(pair, postgres) as before_servers:
        site = Site(pair, before_servers, tmp_path, row.config, postgres)
        with row.before(site):
            site.start()
            site.create_tables()
            yield site
            site.stop()
