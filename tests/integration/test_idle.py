"""Idle time: use extends it, in the database, and in Redis while that is down; and it ends no session that is in use.

Time passes by moving what the stores hold back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.events import DataLost
from flask_langpont_session.testing import captured_events, switched_off

from .behind import (
    age_entry,
    age_row,
    elsewhere,
    emptied,
    entry,
    now_ms,
    outcomes,
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


def lose_the_canary(app: Flask, server: Valkey) -> None:
    """An incident that a worker notices, and takes for a loss of anything: what changed lately goes to Redis again."""
    with server.client() as redis:
        assert redis.delete("session:canary") == 1
    monitor = parts(app).monitor
    with captured_events(app) as events:
        monitor.suspect("primary")
        monitor.tick()
    assert DataLost("primary") in events


def is_about(found: int, expected: int) -> bool:
    return expected - NOW <= found <= expected + NOW


# -- with everything healthy -------------------------------------------------------------------------------------------


def test_the_read_that_verifies_moves_the_expiry(app: Flask, primary: Valkey) -> None:
    """The expiry moves in the database and in Redis; the version stays, for nothing has changed."""
    client = sign_in(app)
    pass_time(app, primary, client.digest, QUARTER + 1)
    assert client.get("/who").json["user"] == "7"
    assert all(is_about(found, IDLE) for found in left(app, primary, client))
    assert row(app, client.digest)["version"] == 1
    with primary.client() as redis:
        assert is_about(redis.pttl(f"session:auth:{{{client.digest}}}"), IDLE)


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


def test_s4_a_session_that_redis_does_not_know_ends_by_the_database_alone(app: Flask, primary: Valkey) -> None:
    """S4: Redis answers, and has nothing of a later use."""
    client = sign_in(app)
    age_row(app, client.digest, IDLE + 1)
    with primary.client() as redis:
        redis.flushall()
    assert client.get("/who").json["user"] is None
    assert not row(app, client.digest)["live"]


def test_s4_without_an_answer_of_redis_no_session_is_ended(app: Flask, primary: Valkey) -> None:
    """S4, I9: it may know of a later use. The visitor is anonymous for now, and the session goes on afterwards."""
    client = sign_in(app)
    age_row(app, client.digest, IDLE + 1)
    age_entry(primary, client.digest, QUARTER // 2, "@at")  # no lease
    redis_store(app).server_identity.trust_since_ms -= QUARTER
    parts(app).backend.memory.forget(client.digest)
    primary.kill()
    for _ in range(4):
        response = client.get("/who")
        assert (response.status_code, response.json["user"]) == (200, None)
        assert cookie_of(response) is None
    assert "unreachable" in outcomes(app, "primary")
    assert row(app, client.digest)["live"]
    primary.start()
    for _ in range(3):
        parts(app).monitor.probes.of("primary").next_at = 0.0
        parts(app).monitor.tick()
    assert not parts(app).health.open_stores()
    assert entry(primary, client.digest)["@live"] == "1"
    assert client.get("/who").json["user"] == "7"
    assert all(is_about(found, IDLE) for found in left(app, primary, client))


def test_s4_the_recovery_ends_no_session_for_being_idle(hosts: Hosts, primary: Valkey) -> None:
    """S4: after an incident it brings what changed lately to Redis; of a row that is only idle Redis may know more."""
    client, gone = sign_in(hosts.here), sign_in(hosts.here)
    for name in (client.digest, gone.digest):
        age_row(hosts.here, name, IDLE + 1, "idle_expires_at")
    database = elsewhere(hosts.here)
    database.kill(gone.digest)
    database.close()
    for app in hosts:
        lose_the_canary(app, primary)
    assert entry(primary, gone.digest)["@live"] == "0"  # it was at work
    assert entry(primary, client.digest)["@live"] == "1"
    assert row(hosts.here, client.digest)["live"]
    assert who(hosts.there, client) == "7"


# -- a use that only Redis knows of ------------------------------------------------------------------------------------


@pytest.mark.parametrize("passed", [IDLE // 2, IDLE + 1], ids=["the row would do", "the row has run out"])
def test_s1_the_later_expiry_counts_and_is_written_to_the_row(hosts: Hosts, primary: Valkey, passed: int) -> None:
    """S1: a host that was cut off from the database noted the use in Redis: any other one makes it good."""
    client = sign_in(hosts.here)
    age_row(hosts.here, client.digest, passed)
    age_entry(primary, client.digest, QUARTER // 2, "@i", "@at")
    redis_store(hosts.there).server_identity.trust_since_ms -= QUARTER
    assert who(hosts.there, client) == "7"
    assert all(is_about(found, IDLE - QUARTER // 2) for found in left(hosts.here, primary, client))
    assert row(hosts.here, client.digest)["live"]


@pytest.mark.parametrize("version", ["the same", "a higher one"])
def test_s3_a_push_keeps_the_later_expiry(hosts: Hosts, primary: Valkey, version: str) -> None:
    """S3: the worker that pushes a row to Redis need not know of the use; nor need it be the same version."""
    client = sign_in(hosts.here)
    if version == "a higher one":
        database = elsewhere(hosts.here)
        assert database.update(client.digest, seen=1, payload={"_user_id": b'"7"'}, user_id="7", idle_ms=IDLE)
        database.close()
    age_row(hosts.here, client.digest, IDLE // 2, "idle_expires_at")
    before = entry(primary, client.digest)
    lose_the_canary(hosts.there, primary)
    after = entry(primary, client.digest)
    assert int(after["@at"]) > int(before["@at"])  # it was pushed
    assert after["@v"] == ("1" if version == "the same" else "2")
    assert after["@i"] == before["@i"]
    with primary.client() as redis:
        assert is_about(redis.pttl(f"session:auth:{{{client.digest}}}"), IDLE)
    age_row(hosts.here, client.digest, IDLE // 2 + QUARTER, "idle_expires_at")
    age_entry(primary, client.digest, QUARTER // 2, "@at")
    redis_store(hosts.there).server_identity.trust_since_ms -= QUARTER
    assert who(hosts.there, client) == "7"


def test_a_session_that_is_not_permanent_any_more_lives_shorter(app: Flask, primary: Valkey) -> None:
    """S3 has this exception: the life was changed on purpose, and Redis must not remember the longer one."""

    @app.post("/permanent/<int:flag>")
    def permanent(flag: int) -> str:
        session.permanent = bool(flag)
        return ""

    client = sign_in(app)
    client.post("/permanent/1")
    assert min(left(app, primary, client)) > 10 * IDLE
    client.post("/permanent/0")
    assert all(is_about(found, IDLE) for found in left(app, primary, client))
    assert client.get("/who").json["user"] == "7"


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


def test_s1_whose_row_ran_out_in_the_outage_stays_signed_in(pg_app: Flask, postgres: Postgres, primary: Valkey) -> None:
    """S1, S4: in use all the time, confirmed within the hour, and expired by the row alone."""
    app = pg_app
    client, idler = sign_in(app), sign_in(app)
    for name in (client.digest, idler.digest):
        pass_time(app, primary, name, QUARTER + 1)
        redis_store(app).server_identity.trust_since_ms += QUARTER + 1
    redis_store(app).server_identity.trust_since_ms -= QUARTER + 1
    postgres.kill()
    assert client.get("/who").json["user"] == "7"
    noted = int(entry(primary, client.digest)["@i"])
    age_entry(primary, idler.digest, IDLE, "@i")
    parts(app).backend.memory.forget(idler.digest)  # for which no time has passed
    assert idler.get("/who").json["user"] is None  # no store can say, and no session is ended
    assert entry(primary, idler.digest)["@live"] == "1"
    with parts(app).monitor.paused():
        postgres.start()
        for name in (client.digest, idler.digest):
            age_row(app, name, IDLE, "idle_expires_at")
    wait_until_home(app)
    assert client.get("/who").json["user"] == "7"
    assert row(app, client.digest)["idle_expires_at"] == noted
    assert idler.get("/who").json["user"] is None
    assert not row(app, idler.digest)["live"]
    assert entry(primary, idler.digest)["@live"] == "0"


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


def test_a_use_is_not_noted_for_a_session_that_has_run_out(app: Flask, primary: Valkey) -> None:
    """I7: the database is down: a user who was idle for too long is anonymous, and no read changes that."""
    client = sign_in(app)
    pass_time(app, primary, client.digest, IDLE + 1)
    expired = entry(primary, client.digest)["@i"]
    with switched_off(app, "database"):
        parts(app).backend.memory.forget(client.digest)
        assert client.get("/who").json["user"] is None
        assert entry(primary, client.digest)["@i"] == expired
        assert waiting(app) == 0
    assert client.get("/who").json["user"] is None
    assert not row(app, client.digest)["live"]


def test_s1_a_user_who_is_active_while_the_database_is_read_only_stays(
    make_app: MakeApp, postgres: Postgres, primary: Valkey
) -> None:
    """S1, I6: it answers reads and notes nothing: the use is kept in Redis, and is in the row afterwards."""
    app = make_app(**QUICK, DATABASE_URL=emptied(postgres))
    client = sign_in(app)
    with parts(app).monitor.paused():
        for _ in range(6):  # a quarter of the idle time and more each
            pass_time(app, primary, client.digest, QUARTER + NOW)
            with read_only(postgres):
                assert who(app, client) == "7"
        assert row(app, client.digest)["idle_expires_at"] < now_ms(primary)
        assert waiting(app) == 1
    wait_until_home(app)
    assert row(app, client.digest)["idle_expires_at"] > now_ms(primary)
    assert who(app, client) == "7"


@contextmanager
def read_only(postgres: Postgres) -> Iterator[None]:
    """The database takes no writes, as a standby that is not promoted yet."""
    with psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True) as connection:
        try:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
            wait_until(lambda: connection.execute("SHOW transaction_read_only").fetchone() == ("on",), "read-only")
            yield
        finally:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("change", ["auth", "id"])
def test_s4_a_change_of_a_session_that_is_idle_only_in_the_row_does_not_end_it(
    app: Flask, primary: Valkey, change: str
) -> None:
    """S4: the lease knows of a later use; the row is brought up to it and changed."""

    @app.post("/regenerate")
    def regenerate() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return str(session["_user_id"])

    client = sign_in(app)
    age_row(app, client.digest, IDLE + NOW, "idle_expires_at")
    response = client.post("/set", json={"daily_limit": 5}) if change == "auth" else client.post("/regenerate")
    assert response.status_code == 200
    assert client.get("/who").json["user"] == "7"
    if change == "auth":
        assert row(app, client.digest)["idle_expires_at"] > now_ms(primary)
        assert entry(primary, client.digest)["@live"] == "1"
