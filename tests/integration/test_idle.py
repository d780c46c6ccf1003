"""Idle time: use extends it, in the database, and in Redis while that is down; and it ends no session that is in use.

Time passes by moving what the stores hold back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask

from devservers.servers import Postgres, Valkey

from .behind import (
    age_entry,
    age_row,
    emptied,
    entry,
    now_ms,
    pass_time,
    questions,
    row,
    sign_in,
    wait_until_home,
    wait_until_lost,
    waiting,
    who,
)
from .conftest import MakeApp, cookie_of, parts, redis_store

IDLE = 3_600_000
QUARTER = IDLE // 4
NOW = 30_000
"""Milliseconds: what counts as "just now" on a busy machine; far less than what these tests move."""

QUICK = {"HEALTH_INTERVAL": 0.05}


class Hosts(NamedTuple):
    """One worker on each of two hosts. Their monitors rest."""

    here: Flask
    there: Flask


@pytest.fixture
def hosts(make_app: MakeApp, tmp_path: Path) -> Iterator[Hosts]:
    hosts = Hosts(make_app(**QUICK), make_app(**QUICK, JOURNAL=str(tmp_path / "other host.sqlite3")))
    with ExitStack() as stack:
        for app in hosts:
            parts(app).monitor.tick()
            stack.enter_context(parts(app).monitor.paused())
        yield hosts


@pytest.fixture
def app(hosts: Hosts) -> Flask:
    return hosts.here


def left(app: Flask, server: Valkey, client: Any) -> tuple[int, int]:
    """Return how long a session lives unless it is used, by the database and by Redis; milliseconds."""
    now = now_ms(server)
    return row(app, client.digest)["idle_expires_at"] - now, int(entry(server, client.digest).get("@i", 0)) - now


def is_about(found: int, expected: int) -> bool:
    return expected - NOW <= found <= expected + NOW


# -- sessions that were not used ---------------------------------------------------------------------------------------


def test_s4_a_session_that_was_idle_for_too_long_is_ended_for_ever(hosts: Hosts, primary: Valkey) -> None:
    """S4: for both stores the time has passed. The row dies in the same statement, so that nothing can revive it."""
    client = sign_in(hosts.here)
    pass_time(hosts.here, primary, client.digest, IDLE + 1)
    assert who(hosts.there, client) is None
    found = row(hosts.here, client.digest)
    assert (found["live"], found["version"]) == (0, 2)
    assert entry(primary, client.digest)["@live"] == "0"
    age_row(hosts.here, client.digest, -IDLE)
    assert [who(app, client) for app in hosts] == [None, None]


# -- the database is down ----------------------------------------------------------------------------------------------


@pytest.fixture
def pg_app(make_app: MakeApp, postgres: Postgres) -> Iterator[Flask]:
    """Yield an application on a database that can be killed."""
    yield make_app(**QUICK, DATABASE_URL=emptied(postgres))
    postgres.start()


def test_s1_a_use_without_the_database_is_noted_in_redis_and_made_good(
    pg_app: Flask, postgres: Postgres, primary: Valkey
) -> None:
    """S1: the session outlives its idle time in the row, for as long as it is used; the row gets it afterwards."""
    app = pg_app
    client = sign_in(app)
    stored = row(app, client.digest)["idle_expires_at"]
    pass_time(app, primary, client.digest, QUARTER + 1)
    postgres.kill()
    assert client.get("/who").json["user"] == "7"
    wait_until_lost(app, "database")
    noted = int(entry(primary, client.digest)["@i"])
    assert is_about(noted - now_ms(primary), IDLE)
    assert client.get("/who").json["user"] == "7"
    assert int(entry(primary, client.digest)["@i"]) == noted  # one write per quarter here too
    assert waiting(app) == 1
    with primary.client() as redis:
        assert is_about(redis.pttl(f"session:auth:{{{client.digest}}}"), IDLE)
    postgres.start()
    wait_until_home(app)
    found = row(app, client.digest)
    assert (found["idle_expires_at"], found["version"]) == (noted, 1)
    assert noted > stored - QUARTER
    assert client.get("/who").json["user"] == "7"


def test_i3_a_use_is_no_confirmation(pg_app: Flask, postgres: Postgres, primary: Valkey) -> None:
    """I3: reading all the time moves the idle expiry, not the stamp: after an hour without the database it is over."""
    app = pg_app
    client = sign_in(app)
    postgres.kill()
    for minutes, expected in ((20, "7"), (20, "7"), (19, "7"), (2, None)):
        age_entry(primary, client.digest, minutes * 60_000)
        redis_store(app).server_identity.trust_since_ms -= minutes * 60_000
        parts(app).backend.memory.forget(client.digest)
        response = client.get("/who")
        assert response.json["user"] == expected
        assert cookie_of(response) is None
    wait_until_lost(app, "database")
    assert entry(primary, client.digest)["@live"] == "1"
    postgres.start()
    wait_until_home(app)
    assert client.get("/who").json["user"] == "7"


def test_s2_a_young_lease_does_not_keep_the_expiry_from_moving(hosts: Hosts, primary: Valkey) -> None:
    """S2: another host confirms the session all the time, and never moves its expiry: the next one here does."""
    client = sign_in(hosts.here)
    assert who(hosts.there, client) == "7"
    for ms, is_asked in ((QUARTER - NOW, False), (NOW + 1, True)):
        age_row(hosts.here, client.digest, ms)
        age_entry(primary, client.digest, ms, "@i", "@x", "@c")  # all but the stamp, which is of a moment ago
        asked = questions(hosts.there)
        assert who(hosts.there, client) == "7"
        assert (questions(hosts.there) > asked) is is_asked
    assert all(is_about(found, IDLE) for found in left(hosts.here, primary, client))
