"""Stores that fail: what users get, what is kept, and what comes back. Real servers, real signals."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.testing import switched_off
from tests.faults.proxy import HANG, FaultProxy

from .behind import digest, wait_for_level, wait_until_home
from .conftest import SHORT_WAITS, MakeApp, close, cookie_of, parts, redis_store
from .counting import wait_for_monitors


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


# -- what is easily got wrong ------------------------------------------------------------------------------------------


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


def test_an_outage_has_two_warnings_however_many_requests_it_meets(
    make_app: MakeApp, primary: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is lost, and is used again; an info says when nothing waits any more. On a busy machine there may be
    another line on the way, as of another cause: a server that listens and is still loading."""
    app = make_app(HEALTH_INTERVAL=0.2)
    users, said = [signed_in(app) for _ in range(12)], "nothing waits in the journal any more"
    with caplog.at_level("INFO", "flask_langpont_session"):
        primary.stop()
        try:
            for number in range(60):
                client = users[number % len(users)]
                assert client.post("/set", json={"input_text": str(number)}).status_code == 200
                assert client.get("/all").json["_user_id"] == "7"
            wait_for_level(app, 2)
        finally:
            primary.start()
        wait_until(lambda: said in caplog.text, "that all is merged")
    assert [client.get("/all").json["input_text"] for client in users] == list(map(str, range(48, 60)))
    lost, *others, again = [
        record.__dict__["langpont_event"] for record in caplog.records if record.levelname != "INFO"
    ]
    assert (lost, again) == ("store_lost", "store_back")
    assert len(others) == len({*others} - {lost, again}), others  # each of them once
    assert "changes merged: 12" in caplog.text


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


@pytest.mark.real_time("what hangs is given up within a bound")
def test_a_ready_client_waits_no_longer_than_our_own(make_app: MakeApp, primary: Valkey) -> None:
    """Its own options (ten retries, five seconds each) would make every request of an outage wait for a minute."""
    app = make_app(REDIS_URL=Redis(port=primary.port), **SHORT_WAITS)
    client: Any = app.test_client()
    client.post("/login/7")
    primary.freeze()
    began = time.monotonic()
    assert client.get("/who").json["user"] == "7"
    assert time.monotonic() - began < 5
    wait_for_level(app, 2)
    primary.thaw()
    wait_for_level(app, 0)


def is_leased(app: Flask, client: Any) -> bool:
    """Return whether a read of this client asks no SQL."""

    def verified() -> int:
        return sum(s.count for o, s in parts(app).recorder.series().items() if o.name == "verify")

    before = verified()
    assert client.get("/who").json["user"] == "7"
    return verified() == before


def test_the_server_of_a_ready_client_is_identified_like_that_of_our_own(make_app: MakeApp, primary: Valkey) -> None:
    """A server that comes back from old data is verified against the database, whatever made the client."""
    app = make_app(REDIS_URL=Redis(port=primary.port))
    client: Any = app.test_client()
    client.cookie = cookie_of(client.post("/login/7"))
    wait_until(lambda: is_leased(app, client), "a lease")
    with parts(app).monitor.paused():  # a first look that is late would bring it to Redis
        assert parts(app).backend.database.kill(digest(client.cookie))
        assert client.get("/who").json["user"] == "7"  # a lease: at most VERIFY_INTERVAL
    primary.kill()
    primary.start()
    wait_until(lambda: client.get("/who").json["user"] is None, "verified after the reconnect")
