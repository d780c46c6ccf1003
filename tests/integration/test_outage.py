"""Stores that fail: what users get, what is kept, and what comes back. Real servers, real signals."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from redis import ConnectionPool, Redis

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.build import State
from flask_langpont_session.policy.changes import CategoryChange, Operation
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.stores.host.forms import path_of
from flask_langpont_session.stores.host.journal import PendingWrite
from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.link import Link
from flask_langpont_session.stores.redis.records import Limits
from flask_langpont_session.stores.redis.server_identity import ServerIdentity
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.testing import switched_off
from tests.faults.proxy import HANG, FaultProxy

from .behind import digest, row_of, stored, wait_for_level, wait_until_home
from .conftest import SHORT_WAITS, MakeApp, close, cookie_of, parts, redis_store
from .counting import wait_for_monitors


def with_increment(app: Flask) -> Flask:
    @app.post("/switch")
    def switch() -> str:
        session.clear()
        session["user_id"] = 8
        return ""

    @app.post("/count")
    def count() -> str:
        return str(session.increment("usage_count"))  # type: ignore[attr-defined]

    return app


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return with_increment(make_app())


@pytest.fixture
def user(app: Flask) -> Any:
    """A browser signed in as user 7, whose data this worker has seen. The first look at the stores is over, after which
    a worker gives them back what they lack."""
    client = signed_in(app)
    wait_for_monitors()
    return client


def signed_in(app: Flask) -> Any:
    client: Any = app.test_client()
    client.post("/set", json={"lang": "jp", "input_text": "before", "analysis_engine": "a"})
    response = client.post("/login/7")
    client.cookie = cookie_of(response)
    assert client.get("/all").json["_user_id"] == "7"
    return client


# -- the primary -------------------------------------------------------------------------------------------------------


def test_no_connection_from_before_an_outage_is_used_after_it(make_app: MakeApp, primary: Valkey) -> None:
    """One that lay idle meanwhile may be dead without a word of it: each would cost a request its time-out, and open
    the breaker again."""
    with FaultProxy("127.0.0.1", primary.port) as proxy:
        app = make_app(REDIS_URL=proxy.instead_of(primary.url), HEALTH_INTERVAL=3600)
        client, pool = signed_in(app), redis_store(app).link.connections
        wait_for_monitors()
        before = [pool.take(time.monotonic() + 5) for _ in range(3)]
        for connection in before:
            pool.put_back(connection)
        with proxy.failing(HANG):
            client.get("/all")
            wait_for_level(app, 2)
            assert proxy.hits["hang"]
            assert set(before) & set(pool.idle), "none lay idle"
        wait_until_home(app)
        assert not set(before) & set(pool.idle)
        close(app)


def test_what_was_written_in_the_outage_is_merged(app: Flask, user: Any, primary: Valkey) -> None:
    """High goes to the journal and home after it; medium and low last for the request only."""
    user.post("/count")
    primary.kill()
    user.get("/all")
    wait_for_level(app, 2)
    assert user.post("/set", json={"input_text": "during", "lang": "en", "analysis_result": "x"}).status_code == 200
    assert user.post("/count").text == "2"
    assert user.post("/count").text == "3"
    user.post("/pop/analysis_engine")
    found = user.get("/all").json
    assert (found["input_text"], found["usage_count"]) == ("during", 3)
    assert not {"lang", "analysis_result", "analysis_engine"} & set(found)
    primary.start()
    wait_until_home(app)
    assert stored(primary, "translation", user.cookie) == {"input_text": '"during"', "usage_count": "3"}
    assert stored(primary, "ui", user.cookie) == {"lang": '"jp"'}


def test_a_newer_value_is_not_undone_by_the_merge(app: Flask, user: Any, primary: Valkey) -> None:
    """Another host wrote the field after this one lost Redis: its value stays, and the conflict is counted."""
    primary.kill()
    user.post("/set", json={"input_text": "during", "source_lang": "ja"})
    state = parts(app)
    with state.monitor.paused():
        primary.start()
        changes = {"translation": CategoryChange(60_000, sets={"input_text": b'"newer"'})}
        link = Link("primary", ConnectionPool.from_url(primary.url), server_identity=ServerIdentity())
        elsewhere = RedisStore(Endpoint(link, prefix="session"))
        elsewhere.write(
            RecordRef(digest(user.cookie), "u"),
            changes,
            guard="free",
            limits=Limits(256, 65_536, 60_000),
            timeout=5,
            write_id="another",
        )
    wait_until_home(app)
    assert stored(primary, "translation", user.cookie)["input_text"] == '"newer"'
    assert stored(primary, "translation", user.cookie)["source_lang"] == '"ja"'
    assert state.recorder.counters()["merge_conflicts"] == 1


def is_leased(app: Flask, client: Any) -> bool:
    """Return whether a read of this client asks no SQL."""

    def verified() -> int:
        return sum(s.count for o, s in parts(app).recorder.series().items() if o.name == "verify")

    before = verified()
    assert client.get("/who").json["user"] == "7"
    return verified() == before


def test_sign_in_during_the_outage_works_and_is_pushed_later(app: Flask, primary: Valkey) -> None:
    """Grants need the arbiter, not Redis. High data is carried over through the journal."""
    client: Any = app.test_client()
    client.post("/set", json={"input_text": "mine", "lang": "jp"})
    client.get("/all")
    primary.kill()
    response = client.post("/login/8")
    assert response.status_code == 200
    assert client.get("/all").json == {
        "_user_id": "8", "_fresh": True, "user_role": "user", "input_text": "mine",
    }  # fmt: skip
    primary.start()
    wait_until_home(app)
    assert stored(primary, "auth", cookie_of(response))["_user_id"] == '"8"'
    assert stored(primary, "translation", cookie_of(response)) == {"input_text": '"mine"'}


def test_a_new_visitor_gets_a_cookie_only_for_what_is_kept(app: Flask, primary: Valkey) -> None:
    """I9: nothing durable stored, no Set-Cookie; high data in the journal is worth one."""
    primary.kill()
    app.test_client().post("/set", json={"lang": "jp"})
    wait_for_level(app, 2)
    client: Any = app.test_client()
    for _ in range(3):
        assert cookie_of(client.post("/set", json={"lang": "jp"})) is None
    cookie = cookie_of(client.post("/set", json={"input_text": "x"}))
    assert cookie
    assert client.get("/get/input_text").json["value"] == "x"
    primary.start()
    wait_until_home(app)
    assert stored(primary, "translation", cookie) == {"input_text": '"x"'}


def test_a_replica_answers_reads_but_never_decides_auth(make_app: MakeApp, primary: Valkey, replica: Valkey) -> None:
    """Level 1: ui and translation from the replica, auth from the database."""
    app = make_app(REPLICA_URL=replica.url)
    client: Any = app.test_client()
    client.post("/set", json={"lang": "jp", "input_text": "before"})
    cookie = cookie_of(client.post("/login/7"))
    client.get("/all")
    with primary.client() as redis:
        redis.wait(1, 2000)
    primary.kill()
    # The connections of a process that is killed end one after the other: that of the near cache may be the last.
    wait_until(lambda: client.get("/who").json == {"user": "7", "level": 1, "lang": "jp"}, "level 1")
    assert parts(app).backend.database.kill(digest(cookie))
    wait_until(lambda: client.get("/who").json["user"] is None, "revoked in the database, alive in the replica")
    primary.start()
    wait_for_level(app, 0)


# -- the database ------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_postgres(make_app: MakeApp, postgres: Postgres) -> Iterator[Flask]:
    postgres.start()
    app = with_increment(make_app(DATABASE_URL=postgres.url))
    yield app
    postgres.thaw()
    postgres.start()


@pytest.fixture
def pg_user(on_postgres: Flask) -> Any:
    client: Any = on_postgres.test_client()
    client.post("/set", json={"lang": "jp"})
    client.cookie = cookie_of(client.post("/login/7"))
    assert client.get("/all").json["_user_id"] == "7"
    return client


def test_an_ordinary_auth_write_without_the_database_is_kept(
    on_postgres: Flask, pg_user: Any, postgres: Postgres
) -> None:
    """daily_limit is no right: journalled and merged like high, never refused."""
    postgres.kill()
    assert pg_user.post("/set", json={"daily_limit": 5}).status_code == 200
    assert pg_user.get("/get/daily_limit").json["value"] == 5
    assert pg_user.post("/set", json={"user_role": "admin"}).status_code == 503
    postgres.start()
    wait_until_home(on_postgres)
    wait_until(lambda: row_of(on_postgres, pg_user.cookie).payload.get("daily_limit") == b"5", "merged into the row")
    assert row_of(on_postgres, pg_user.cookie).payload["user_role"] == b'"user"'
    assert pg_user.get("/get/daily_limit").json["value"] == 5


def test_with_everything_down_a_user_stays_for_grace_and_an_admin_does_not(
    on_postgres: Flask, pg_user: Any, postgres: Postgres, primary: Valkey
) -> None:
    """Level 4: a local copy that the database confirmed; never for privileged roles; the cookie is untouched."""
    admin: Any = on_postgres.test_client()
    admin.post("/login/1?role=admin")
    assert admin.get("/who").json["user"] == "1"
    postgres.kill()
    primary.kill()
    pg_user.get("/who")
    wait_for_level(on_postgres, 4)
    for client, expected in ((pg_user, "7"), (admin, None)):
        for _ in range(4):
            response = client.get("/who")
            assert response.status_code == 200
            assert response.json["user"] == expected
            assert cookie_of(response) is None
    assert pg_user.get("/who").json["level"] == 4
    assert on_postgres.test_client().post("/login/8").status_code == 503
    primary.start()
    postgres.start()
    wait_for_level(on_postgres, 0)
    assert admin.get("/who").json["user"] == "1"
    assert pg_user.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}


def test_a_logout_with_everything_down_holds(
    on_postgres: Flask, pg_user: Any, postgres: Postgres, primary: Valkey
) -> None:
    """Local tombstone, journal, another cookie, of a visitor; after the recovery the database and Redis know it, and
    what outlives a sign-out is there."""
    postgres.kill()
    primary.kill()
    pg_user.get("/who")
    wait_for_level(on_postgres, 4)
    response = pg_user.post("/logout")
    assert response.status_code == 200
    assert cookie_of(response) not in ("", pg_user.cookie)
    assert pg_user.get("/who").json == {"user": None, "level": 4, "lang": None}
    replay: Any = on_postgres.test_client()
    replay.set_cookie("session", pg_user.cookie)
    assert replay.get("/who").json["user"] is None
    primary.start()
    postgres.start()
    wait_for_level(on_postgres, 0)
    assert replay.get("/who").json["user"] is None
    wait_until(lambda: not row_of(on_postgres, pg_user.cookie).live, "durable")
    wait_until(lambda: pg_user.get("/who").json == {"user": None, "level": 0, "lang": "jp"}, "its language")


# -- start and recovery ------------------------------------------------------------------------------------------------


def test_a_second_worker_of_the_host_sees_what_the_first_wrote(
    make_app: MakeApp, app: Flask, user: Any, primary: Valkey
) -> None:
    """Workers share the journal: a page does not flicker between them, also for data only one of them had."""
    sibling = make_app(HEALTH_INTERVAL=3600)  # asks its stores for no other reason
    sibling.test_client().get("/untouched")  # starts its monitor, as any first request does
    primary.kill()
    user.post("/set", json={"source_lang": "ja"})
    wait_until(lambda: parts(app).backend.journal.counts()["copies"] > 0, "the first worker shared its copies")
    other: Any = sibling.test_client()
    other.set_cookie("session", user.cookie)
    wait_until(lambda: parts(sibling).health.level == 2, "the idle sibling noticed without a request")
    expected = user.get("/all").json
    assert expected["source_lang"] == "ja"
    for _ in range(5):
        assert other.get("/all").json == expected
        assert user.get("/all").json == expected


def test_what_a_killed_worker_journalled_comes_home_with_the_next(
    make_app: MakeApp, app: Flask, user: Any, primary: Valkey
) -> None:
    """The journal is a file: it outlives its writer."""
    primary.kill()
    user.post("/set", json={"input_text": "during"})
    close(app)
    successor = make_app()
    primary.start()
    successor.test_client().get("/who")
    wait_until(lambda: stored(primary, "translation", user.cookie).get("input_text") == '"during"', "merged")


# -- damaged data ------------------------------------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[Any, str], object]] = {
    "another type": lambda redis, key: redis.pipeline().delete(key).lpush(key, "x").execute(),  # no monitor in between
    "foreign description": lambda redis, key: redis.hset(key, "@m", "A" * 63),
    "no description": lambda redis, key: redis.hdel(key, "@m"),
    "half a description": lambda redis, key: redis.hset(key, "@m", redis.hget(key, "@m")[:40]),
    "stamp is text": lambda redis, key: redis.hset(key, "@m", redis.hget(key, "@m")[:8] + "a" * 56),
}
"""All that may be wrong with a record, of auth too: ``tests/faults/test_bad_input.py``."""


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_category_is_quarantined(app: Flask, user: Any, primary: Valkey, damage: str) -> None:
    """It reads as empty, the next write begins anew, the old record lies beside for an operator."""
    key = f"session:ui:{{{digest(user.cookie)}}}"
    with primary.client() as redis:
        DAMAGE[damage](redis, key)
        wait_until(lambda: user.get("/who").json["lang"] is None, "the news that it has changed")
        assert user.get("/who").json == {"user": "7", "level": 0, "lang": None}
        assert redis.exists(f"{key}:aside")
        assert 0 < redis.pttl(f"{key}:aside") <= 86_400_000
    user.post("/set", json={"lang": "en"})
    assert user.get("/who").json["lang"] == "en"
    assert parts(app).recorder.counters()["records_set_aside"] == 1


def test_a_damaged_value_reads_as_absent_and_heals(app: Flask, user: Any, primary: Valkey) -> None:
    """One value that cannot be read is no reason to fail a page or to lose its neighbours."""
    with primary.client() as redis:
        redis.hset(f"session:ui:{{{digest(user.cookie)}}}", "theme", b"\xff")
    wait_until(lambda: user.get("/get/theme").json["value"] is None, "the news that it has changed")
    assert user.get("/get/theme").json == {"value": None, "present": False}
    assert user.get("/who").json["lang"] == "jp"
    user.post("/set", json={"theme": "dark"})
    assert user.get("/get/theme").json["value"] == "dark"


def state_of_journal(state: State) -> dict[str, int]:
    return dict(state.backend.journal.counts())


def test_the_journal_is_private(app: Flask, tmp_path: Path) -> None:
    """It holds what users typed: mode 0600."""
    state_of_journal(parts(app))
    assert path_of(tmp_path / "journal.sqlite3").stat().st_mode & 0o777 == 0o600


# -- what is easily got wrong ------------------------------------------------------------------------------------------


def test_a_lost_record_and_a_silent_database_end_no_session(app: Flask, user: Any, primary: Valkey) -> None:
    """I9: Redis lost the session and the database does not answer: that does not say that it is dead."""
    with primary.client() as redis:
        redis.flushall()
    with switched_off(app, "database"):
        assert user.post("/set", json={"lang": "en"}).status_code == 200
    assert user.get("/who").json["user"] == "7"


@pytest.mark.parametrize("store", ["primary", "replica", "database"])
def test_the_log_says_when_a_store_is_used_again(
    make_app: MakeApp, replica: Valkey, caplog: pytest.LogCaptureFixture, store: str
) -> None:
    """One line for each that was lost, whether or not the level changed, with how long requests did without it."""
    app = make_app(REPLICA_URL=replica.url)
    with caplog.at_level("WARNING"), switched_off(app, store):
        for direction in ("read", "write"):
            breaker = parts(app).health.breakers[store, direction]
            assert breaker.opened_at is not None
            breaker.opened_at -= 7200  # two hours ago
    [said] = [record.getMessage() for record in caplog.records if "again, after" in record.msg]
    assert re.match(rf"session store {store} \(.+\) is used for reads and writes again, after 72\d\d\.\d s\. ", said)


def test_a_burst_of_sign_ins_is_served(on_postgres: Flask) -> None:
    """More sign-ins at once than calls to the database may be under way: they wait their turn, within the deadline."""
    statuses: list[int] = []

    def sign_in(number: int) -> None:
        client: Any = on_postgres.test_client()
        statuses.append(client.post(f"/login/{number}").status_code)

    threads = [threading.Thread(target=sign_in, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8


def test_a_logout_of_a_session_that_cannot_be_verified_holds(app: Flask, primary: Valkey) -> None:
    """An administrator at level 4 is shown as anonymous, and is signed out all the same."""
    admin: Any = app.test_client()
    cookie = cookie_of(admin.post("/login/1?role=admin")) or ""
    assert admin.get("/who").json["user"] == "1"
    with switched_off(app, "primary", "database"):
        assert admin.get("/who").json == {"user": None, "level": 4, "lang": None}
        assert admin.post("/logout").status_code == 200
    replay: Any = app.test_client()
    replay.set_cookie("session", cookie)
    assert replay.get("/who").json["user"] is None
    assert not row_of(app, cookie).live


def test_a_lost_replica_does_not_keep_the_journal_full(make_app: MakeApp, primary: Valkey, replica: Valkey) -> None:
    """Entries for the primary are merged as soon as the primary answers, whatever else is down."""
    app = make_app(REPLICA_URL=replica.url, HEALTH_INTERVAL=0.1)
    client: Any = app.test_client()
    client.post("/set", json={"lang": "jp"})
    replica.kill()
    wait_until(lambda: ("replica", "read") in parts(app).health.open_stores(), "the replica is lost")
    digest_ = digest(client.get_cookie("session").value)
    entry = PendingWrite(
        digest=digest_, kind="a", category="translation", operation=Operation.SET, field="input_text", value=b'"x"'
    )
    parts(app).backend.journal.put([entry])
    wait_until(lambda: parts(app).backend.journal.is_empty(), "the journal is empty")
    assert ("replica", "read") in parts(app).health.open_stores()
    replica.start()


def test_a_stored_key_that_no_feature_claims_is_no_error(make_app: MakeApp, primary: Valkey) -> None:
    """The table was changed and has no catch-all: old keys are not there any more, at any level."""
    client: Any = make_app().test_client()
    client.post("/set", json={"theme": "dark", "input_text": "x", "lang": "jp"})
    narrow = {
        "auth": {"features": {"authentication": ["_user_id", "user_id", "username", "user_role", "_fresh"]}},
        "translation": {"ttl": 1800, "features": {"translation_state": ["source_lang"]}},
        "ui": {"ttl": 1800, "features": {"language_preference": ["lang"]}},
    }
    app = make_app(CATEGORIES=narrow)
    other: Any = app.test_client()
    other.set_cookie("session", client.get_cookie("session").value)
    assert other.get("/all").json == {"lang": "jp"}
    with switched_off(app, "primary"):
        assert other.get("/all").status_code == 200
    assert other.post("/login/7").status_code == 200
    assert other.post("/logout").status_code == 200


def test_a_switch_of_user_that_is_refused_still_signs_the_first_one_out(
    on_postgres: Flask, pg_user: Any, postgres: Postgres
) -> None:
    """clear() came first, and a revocation needs one surviving store only."""

    postgres.kill()
    assert pg_user.post("/switch").status_code == 503
    replay: Any = on_postgres.test_client()
    replay.set_cookie("session", pg_user.cookie)
    assert replay.get("/who").json["user"] is None


@pytest.mark.real_time("what hangs is given up within a bound")
def test_a_ready_client_waits_no_longer_than_our_own(make_app: MakeApp, primary: Valkey) -> None:
    """Its own options (ten retries, five seconds each) would make every request of an outage wait for a minute."""
    app = make_app(REDIS_URL=..., REDIS_CLIENT=Redis(port=primary.port), **SHORT_WAITS)
    client: Any = app.test_client()
    client.post("/login/7")
    primary.freeze()
    began = time.monotonic()
    assert client.get("/who").json["user"] == "7"
    assert time.monotonic() - began < 5
    wait_for_level(app, 2)
    primary.thaw()
    wait_for_level(app, 0)


def test_the_server_of_a_ready_client_is_identified_like_that_of_our_own(make_app: MakeApp, primary: Valkey) -> None:
    """A server that comes back from old data is verified against the database, whatever made the client."""
    app = make_app(REDIS_URL=..., REDIS_CLIENT=Redis(port=primary.port))
    client: Any = app.test_client()
    client.cookie = cookie_of(client.post("/login/7"))
    wait_until(lambda: is_leased(app, client), "a lease")
    with parts(app).monitor.paused():  # a first look that is late would bring it to Redis
        assert parts(app).backend.database.kill(digest(client.cookie))
        assert client.get("/who").json["user"] == "7"  # a lease: at most VERIFY_INTERVAL
    primary.kill()
    primary.start()
    wait_until(lambda: client.get("/who").json["user"] is None, "verified after the reconnect")
