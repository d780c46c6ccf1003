"""Very many rows of one user, or very many that changed: what requests, breakers and Redis see of that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from flask import Flask, jsonify, session

from devservers.servers import Postgres, Valkey
from flask_langpont_session import LangPontSession, Revoked
from tests.support.auth_records import unpacked

from .behind import emptied, resting, sign_in, waiting, who
from .conftest import MakeApp, parts

ROWS = 20_000

REALISTIC = {"DATABASE_TIMEOUT": 0.25, "REQUEST_BUDGET": 0.5}
"""Seconds; a little more than the defaults, because a busy machine is no outage."""

_FILL = sa.text(
    """INSERT INTO langpont_sessions (digest, user_id, version, live, payload, user_epoch, created_at, updated_at,
        idle_expires_at, absolute_expires_at)
    SELECT lpad(n::text, 43, '0'), '7', 1, TRUE, '{}', 0, now - 60000, now - :ms_ago, now + 3600000, now + 3600000
    FROM generate_series(1, :rows) AS n, (SELECT CAST(EXTRACT(EPOCH FROM now()) * 1000 AS BIGINT) AS now) AS clock"""
)
_ALIVE = sa.text("SELECT digest FROM langpont_sessions WHERE live")
_VALID = sa.text(
    """SELECT digest FROM langpont_sessions LEFT JOIN langpont_users USING (user_id)
    WHERE live AND user_epoch = coalesce(epoch, 0)"""
)


class Site:
    """Two workers of one host, which share a journal, and one of another, on a table with many rows of user 7."""

    def __init__(self, make_app: MakeApp, tmp_path: Path, postgres: Postgres) -> None:
        config = {**REALISTIC, "DATABASE_URL": emptied(postgres)}
        self.worker, self.sibling = make_app(**config), make_app(**config)
        self.elsewhere = make_app(**config, JOURNAL=str(tmp_path / "other host.sqlite3"))
        for app in self.all:
            add_fresh(app)
        self.engine = sa.create_engine(postgres.url, poolclass=sa.NullPool)

    @property
    def all(self) -> tuple[Flask, Flask, Flask]:
        return self.worker, self.sibling, self.elsewhere

    def fill(self, rows: int, ms_ago: int = 3_600_000) -> None:
        with self.engine.begin() as connection:
            connection.execute(_FILL, {"rows": rows, "ms_ago": ms_ago})
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE langpont_sessions"))

    def alive(self) -> list[str]:
        """Digests of the rows that are not ended one by one, whatever the user's epoch."""
        with self.engine.connect() as connection:
            return sorted(connection.execute(_ALIVE).scalars())

    def valid(self) -> list[str]:
        """Digests of the rows that are taken for valid by a request that asks the database."""
        with self.engine.connect() as connection:
            return sorted(connection.execute(_VALID).scalars())

    def revoke_user(self) -> Revoked:
        """User 7, by a worker whose connections work."""
        operator = cast(LangPontSession, self.worker.session_interface)
        return operator.revoke_user("7", self.worker)

    def replay_all(self) -> int:
        """Let one worker's monitor replay everything, and return in how many rounds; no breaker may open in any of
        them."""
        rounds = 0
        while waiting(self.worker):
            parts(self.worker).monitor.tick()
            assert not parts(self.worker).health.open_stores()
            rounds += 1
        return rounds


def add_fresh(app: Flask) -> None:
    @app.get("/fresh")
    def fresh() -> Any:
        session.fresh("auth")  # type: ignore[attr-defined]
        return jsonify(user=session.get("_user_id"))


def tombstones(primary: Valkey, *, live: str = "0") -> int:
    """Return how many auth records in Redis are dead (or alive)."""
    with primary.client() as client:
        keys = list(client.scan_iter(match="session:auth:*", count=5000))
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(key, "@m")
        return sum(unpacked({"@m": meta or ""}).get("@live") == live for meta in pipeline.execute())


@pytest.fixture
def site(make_app: MakeApp, tmp_path: Path, postgres: Postgres, primary: Valkey) -> Iterator[Site]:
    site = Site(make_app, tmp_path, postgres)
    yield site
    postgres.start()
    primary.thaw()
    primary.start()


# -- a user with very many sessions is logged out everywhere -----------------------------------------------------------


def test_i1_a_user_with_very_many_sessions_is_logged_out_at_once(site: Site, primary: Valkey) -> None:
    """I1, I12: for every worker that asks the database it holds when the call returns; no breaker opens; the tombstones
    follow; a user who signs in from then on stays."""
    site.fill(ROWS)
    clients = [sign_in(app) for app in site.all]
    other = sign_in(site.worker, "8")
    with resting(*site.all):
        done = site.revoke_user()
        assert done.durable
        assert done.sessions in (ROWS + len(clients), 0)  # 0: this machine was too slow to count them
        assert not parts(site.worker).health.open_stores()
        for client in clients:
            assert [who(app, client) for app in (site.worker, site.sibling)] == [None] * 2
            assert who(site.elsewhere, client, "/fresh") is None
        later = sign_in(site.elsewhere)
        assert site.valid() == sorted([later.digest, other.digest])
        assert waiting(site.worker) == 1
        assert site.replay_all() > 1  # others had their turns between
    assert site.alive() == sorted([later.digest, other.digest])
    assert tombstones(primary) == ROWS + len(clients)
    assert [who(app, later) for app in site.all] == ["7"] * 3
    assert [who(app, other) for app in site.all] == ["8"] * 3
