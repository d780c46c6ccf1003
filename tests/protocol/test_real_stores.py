"""The simulated stores answer and keep the same as real ones: Valkey, SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest
from redis.connection import BlockingConnectionPool

from devservers.servers import Postgres, Valkey
from flask_langpont_session.policy.categories import AUTH
from flask_langpont_session.stores.codec.plain import PLAIN
from flask_langpont_session.stores.redis.link import Link
from flask_langpont_session.stores.redis.server_identity import ServerIdentity
from flask_langpont_session.stores.sql.database import Database
from flask_langpont_session.stores.sql.engines import make_engine
from tests.integration.mariadb import MariaDB
from tests.support.codecs import sealing

from .pairs import WAIT, DatabasePair, Pair, RedisPair

SEQUENCES, LENGTH = int(os.environ.get("LANGPONT_SEQUENCES", "45")), 40


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey"), appendonly=False) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "sqlite, encrypted"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder = tmp_path_factory.mktemp("database")
    if request.param.startswith("sqlite"):
        yield from made(f"sqlite:///{folder / 'sessions.sqlite3'}", encrypted=request.param != "sqlite")
    else:
        with (MariaDB if request.param == "mariadb" else Postgres)(folder) as server:
            yield from made(server.url)


def made(url: str, *, encrypted: bool = False) -> Iterator[Database]:
    database = Database(make_engine(url, WAIT), timeout=WAIT, codec=sealing(AUTH) if encrypted else PLAIN)
    database.upkeep.create_tables()
    yield database
    database.close()


def compare(pair: Pair, counts: Counter[str]) -> None:
    """Compare a pair of stores over one random sequence of operations."""
    counts.update(pair.step() for _ in range(LENGTH))
    pair.check_state()


def test_the_simulated_server_does_what_a_real_one_does(valkey: Valkey) -> None:
    """Equal answers, equal messages of what has changed, and equal hashes, whatever is asked over whichever
    connection."""
    counts: Counter[str] = Counter()
    link = Link("primary", BlockingConnectionPool.from_url(valkey.url, protocol=3), server_identity=ServerIdentity())
    with valkey.client(text=False) as client:
        for seed in range(SEQUENCES):
            with closing(RedisPair(seed, link, client)) as pair:
                compare(pair, counts)
    assert counts.keys() == pair.operations.keys()


def test_the_simulated_database_does_what_the_statements_do(database: Database) -> None:
    """Equal answers and equal rows, whatever is asked in whatever order."""
    counts: Counter[str] = Counter()
    for seed in range(SEQUENCES):
        compare(pair := DatabasePair(seed, database), counts)
    assert counts.keys() == pair.operations.keys()
