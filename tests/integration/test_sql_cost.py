"""The cost of auth for the database, counted at its driver: the figures that docs/benchmarks.md promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy
from flask import Flask

from devservers.servers import Valkey
from tests.support.auth_records import move_back

from .conftest import MakeApp, on_sqlite, parts, redis_store
from .counting import counted, wait_for_monitors

VERIFY, IDLE = 60_000, 3_600_000


@pytest.fixture
def app(make_app: MakeApp, database_url: str) -> Flask:
    """Return an application on each engine in turn, with patience: a busy machine is no outage."""
    return make_app(DATABASE_URL=database_url, DATABASE_TIMEOUT=3.0, REDIS_TIMEOUT=3.0, REQUEST_BUDGET=4.0)


def age(app: Flask, primary: Valkey, ms: int) -> None:
    """Time passes: every stored moment moves back."""
    wait_for_monitors()
    engine = parts(app).backend.database.engine
    columns = ("created_at", "updated_at", "idle_expires_at", "absolute_expires_at")
    moved = ", ".join(f"{name} = {name} - {ms}" for name in columns)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"UPDATE langpont_sessions SET {moved}"))
    with primary.client() as client:
        for key in client.scan_iter("session:auth:*"):
            move_back(client, key, ms, "@at", "@i", "@x")
    server_identity = redis_store(app).server_identity
    server_identity.trust_since_ms -= ms


@on_sqlite
def test_one_read_per_session_and_interval(app: Flask, primary: Valkey) -> None:
    """One read is all, however many requests there are; the next interval costs the next read."""
    client: Any = app.test_client()
    client.post("/login/7")
    client.get("/who")
    for _ in range(3):
        age(app, primary, VERIFY + 1)
        with counted(app) as sent:
            for _ in range(20):
                assert client.get("/who").json["user"] == "7"
        assert sent == ["SELECT"]


@on_sqlite
def test_one_write_per_quarter_of_the_idle_time(app: Flask, primary: Valkey) -> None:
    """The only write of a user who only reads; five quarters later they are still signed in."""
    client: Any = app.test_client()
    client.post("/login/7")
    client.get("/who")
    for _ in range(5):
        age(app, primary, IDLE // 4 + 1)
        with counted(app) as sent:
            for _ in range(20):
                assert client.get("/who").json["user"] == "7"
        assert sent.count("UPDATE") == 1
        assert sent.count("SELECT") == 2  # the second one takes the row's lock
        assert set(sent) == {"SELECT", "UPDATE"}


def test_a_change_of_auth_is_one_read_and_one_transaction(app: Flask) -> None:
    """Nothing that lasts is made of what Redis tells. A write of other data costs neither, nor does a visitor."""
    client: Any = app.test_client()
    client.post("/login/7")
    client.get("/who")
    with counted(app) as sent:
        client.post("/set", json={"user_role": "editor"})
        asked = ["SELECT"] if parts(app).backend.database.engine.dialect.name == "mysql" else []
        assert sent == ["SELECT", "UPDATE", *asked]  # which says what the row is then, but for MariaDB's
        sent.clear()
        client.post("/set", json={"lang": "jp", "input_text": "x"})
        visitor: Any = app.test_client()
        visitor.post("/set", json={"lang": "jp"})
        visitor.get("/all")
        assert sent == []


@on_sqlite
def test_requests_whose_lease_has_run_out_ask_once_each_and_the_next_one_asks_nothing(
    app: Flask, primary: Valkey
) -> None:
    """However many come at the same time: each of them has the user, and one lease for all is there afterwards."""
    client: Any = app.test_client()
    client.post("/login/7")
    cookie = client.get_cookie("session").value
    age(app, primary, VERIFY + 1)

    def ask(_: int) -> Any:
        browser: Any = app.test_client()
        browser.set_cookie("session", cookie)
        return browser.get("/who").json["user"]

    with counted(app) as sent, ThreadPoolExecutor(30) as pool:
        assert list(pool.map(ask, range(30))) == ["7"] * 30
    assert sent
    assert sent.count("SELECT") == len(sent) <= 30
    with counted(app) as sent:
        assert ask(0) == "7"
    assert sent == []


@on_sqlite
def test_a_dead_session_is_asked_about_once(app: Flask, make_app: MakeApp, database_url: str, primary: Valkey) -> None:
    """A negative answer is remembered: an old cookie that comes back a thousand times is one question."""
    client: Any = app.test_client()
    client.post("/login/7")
    cookie = client.get_cookie("session").value
    client.post("/logout")
    other = make_app(DATABASE_URL=database_url)  # a worker that did not see the sign-out
    with counted(other) as sent, parts(app).monitor.paused(), primary.client() as redis:
        redis.flushall()
        for _ in range(20):
            browser: Any = other.test_client()
            browser.set_cookie("session", cookie)
            assert browser.get("/who").json["user"] is None
    assert sent == ["SELECT"]
