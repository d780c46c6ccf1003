"""I8: what is written into a store past the package makes no user and gives no right. Real servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flask import Flask, session

from devservers.servers import Valkey
from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.stores.host.journal import PendingWrite
from tests.support.auth_records import packed, say, unpacked

from .behind import age_entry, browser, digest, key, now_ms, row, sign_in
from .conftest import MakeApp, cookie_of, parts, redis_store

FORGED = {
    "_user_id": '"1"', "user_id": "1", "username": '"root"', "user_role": '"admin"', "logged_in": "true",
    "identity.id": "1", "_fresh": "true",
}  # fmt: skip


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(HEALTH_INTERVAL=3600)


def visitor(app: Flask) -> Any:
    client: Any = app.test_client()
    client.cookie = cookie_of(client.post("/set", json=ORDINARY_VALUES))
    client.digest = digest(client.cookie)
    return client


ORDINARY_VALUES = {"daily_limit": 4}


def ended(app: Flask) -> Any:
    """A browser whose session is over: it works with the shadow of its id."""
    client = sign_in(app)
    assert browser(app, client.cookie).post("/logout").status_code == 200
    client.post("/set", json=ORDINARY_VALUES)
    return client


def in_redis(app: Flask, server: Valkey, client: Any, shadow: bool) -> None:
    with server.client() as redis:
        name = key(client.digest) + (":anon" if shadow else "")
        meta = f"{client.digest[:8]}{time.time_ns() // 1000:016}{'0' * 40}"
        described = {} if redis.exists(name) else {"@m": meta}
        redis.hset(name, mapping=FORGED | described)


def in_the_journal(app: Flask, server: Valkey, client: Any, shadow: bool) -> None:
    keep(app, client.digest, {name: value.encode() for name, value in FORGED.items()}, kind="a", shadow=shadow)


def keep(app: Flask, name: str, changes: Mapping[str, bytes], *, kind: str, **columns: Any) -> None:
    entries = [
        PendingWrite(
            digest=name, kind=kind, category="auth", operation=Operation.SET, field=key, value=value, **columns
        )
        for key, value in changes.items()
    ]
    parts(app).backend.journal.put(entries)


Forge = Callable[[Flask, Valkey, Any, bool], None]


@pytest.mark.parametrize("who", [visitor, ended])
@pytest.mark.parametrize("forge", [in_redis, in_the_journal])
@pytest.mark.parametrize("by_one", [True, False])
def test_i8_no_record_makes_a_user_of_a_visitor(
    app: Flask, primary: Valkey, who: Callable[[Flask], Any], forge: Forge, by_one: bool
) -> None:
    """D13: neither of a visitor nor of the shadow of a session that ended; ordinary data is shown as ever."""
    client = who(app)
    with parts(app).monitor.paused():
        forge(app, primary, client, who is ended)
        if by_one:
            for name in FORGED:
                assert client.get(f"/get/{name}").json == {"value": None, "present": False}
        assert client.get("/all").json == ORDINARY_VALUES
        response = client.post("/set", json={"lang": "jp"})
        assert "Cache-Control" not in response.headers
        assert client.get("/all").json == {**ORDINARY_VALUES, "lang": "jp"}


def test_what_write_access_to_redis_can_do_and_what_it_cannot(
    make_app: MakeApp, primary: Valkey, tmp_path: Any
) -> None:
    """With the cookie of an ended session, write access shows a user on a worker that did not see it end; not on one
    that did, never to a fresh read, and no longer than a lease. See docs/guarantees.md."""
    here, there = (make_app(HEALTH_INTERVAL=3600, JOURNAL=str(tmp_path / name)) for name in ("a", "b"))

    @there.get("/fresh")
    def fresh() -> Any:
        return {"fresh": session.fresh("auth"), "user": session.get("_user_id")}  # type: ignore[attr-defined]

    client, other = sign_in(here), sign_in(here)
    with primary.client() as redis, parts(here).monitor.paused(), parts(there).monitor.paused():
        record = redis.hgetall(key(client.digest))
        assert browser(there, client.cookie).get("/who").json["user"] == "7"
        client.post("/logout")
        redis_store(there).server_identity.trust_since_ms -= 60_000

        def forge() -> None:
            redis.delete(key(client.digest))
            meta = packed({**unpacked(record), "@v": 99, "@at": now_ms(primary)})
            redis.hset(key(client.digest), mapping={**record, "@m": meta, "_user_id": '"1"', "user_role": '"admin"'})

        forge()
        assert browser(here, client.cookie).get("/who").json["user"] is None
        assert browser(there, client.cookie).get("/who").json["user"] == "1"
        age_entry(primary, client.digest, 61_000, "@at")
        assert browser(there, client.cookie).get("/who").json["user"] is None
        forge()
        assert browser(there, client.cookie).get("/who").json["user"] is None  # it has seen that by now
        assert browser(there, other.cookie).get("/who").json["user"] == "7"
        redis.hset(key(other.digest), mapping={"_user_id": '"1"', "user_role": '"admin"'})
        say(redis, key(other.digest), {"@at": now_ms(primary)})
        assert browser(there, other.cookie).get("/who").json["user"] == "1"
        assert browser(there, other.cookie).get("/fresh").json == {"fresh": True, "user": "7"}
        say(redis, key(other.digest), {"@live": "0"})
        assert browser(there, other.cookie).get("/who").json["user"] is None
        assert not row(here, other.digest)["live"]
