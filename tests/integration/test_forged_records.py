"""I8: what is written into a store past the package makes no user and gives no right. Real servers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.policy.changes import Basis, Operation
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.stores.host.journal import PendingWrite
from flask_langpont_session.testing import switched_off
from tests.support.auth_records import packed, say, unpacked
from tests.support.known import known

from .behind import age_entry, browser, digest, key, now_ms, row, sign_in
from .conftest import MakeApp, cookie_of, parts, redis_store

FORGED = {
    "_user_id": '"1"', "user_id": "1", "username": '"root"', "user_role": '"admin"', "logged_in": "true",
    "identity.id": "1", "_fresh": "true",
}  # fmt: skip
ORDINARY = {"daily_limit": "4"}
HOUR = 3_600_000


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


def in_this_worker(app: Flask, server: Valkey, client: Any, shadow: bool) -> None:
    copy = CategoryCopy(10**16, {name: value.encode() for name, value in (FORGED | ORDINARY).items()})
    parts(app).backend.memory.put_category(client.digest, "auth", known(copy))


def in_this_host(app: Flask, server: Valkey, client: Any, shadow: bool) -> None:
    copy = CategoryCopy(10**16, {name: value.encode() for name, value in (FORGED | ORDINARY).items()})
    parts(app).backend.board.publish_copies([SharedCopy(client.digest, "auth", copy)])


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


@pytest.mark.parametrize("forge", [in_this_worker, in_this_host])
def test_i8_no_copy_makes_a_user_of_a_visitor_in_an_outage(app: Flask, primary: Valkey, forge: Forge) -> None:
    """D13: what a worker or a host kept is filtered as what a store answers is."""
    client = visitor(app)
    with parts(app).monitor.paused(), switched_off(app, "primary"):
        forge(app, primary, client, False)
        assert client.get("/all").json == ORDINARY_VALUES


@pytest.mark.parametrize("is_up_to_date", [True, False], ids=["made from the row as it is", "made from another row"])
def test_i8_the_journal_gives_a_user_no_right(app: Flask, is_up_to_date: bool) -> None:
    """D13: a right never waits in a journal. What claims to be one there is neither laid over what the database said,
    nor merged into the database; ordinary auth beside it is, if it was made from what is there."""
    client = sign_in(app)
    before = row(app, client.digest)
    moment = before["version"] if is_up_to_date else 0
    with parts(app).monitor.paused():
        forged = {"user_role": b'"admin"', "_user_id": b'"1"', "_fresh": b"false", "daily_limit": b"4"}
        keep(app, client.digest, forged, kind="u", basis=Basis.SEEN, moment=moment)
        assert client.get("/all").json == {"_user_id": "7", "_fresh": True, "user_role": "user", "daily_limit": 4}
    wait_until(parts(app).backend.journal.is_empty, "what waits is merged")
    after, merged = row(app, client.digest), parts(app).recorder.counters().get("merged_fields", 0)
    assert merged == 1
    assert after["user_id"] == before["user_id"] == "7"
    assert json.loads(after["payload"]) == json.loads(before["payload"]) | {"daily_limit": 4}
    assert client.get("/all").json == {"_user_id": "7", "_fresh": True, "user_role": "user", "daily_limit": 4}


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


@pytest.mark.parametrize("url", ["/set", "/new-id"])
def test_i3_what_redis_claims_of_a_session_does_not_reach_the_database(app: Flask, primary: Valkey, url: str) -> None:
    """A lease is believed for its time; a change is made of what the database has, and so is another id."""

    @app.post("/new-id")
    def new_id() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        session["daily_limit"] = 4
        return ""

    client = sign_in(app)
    redis_store(app).server_identity.trust_since_ms -= 60_000
    with primary.client() as redis:
        redis.hset(key(client.digest), mapping={"_user_id": '"1"', "user_role": '"admin"', "@u": "1"})
        redis.hdel(key(client.digest), "_fresh")
    cookie = cookie_of(client.post(url, json=ORDINARY_VALUES)) or client.cookie
    found = row(app, digest(cookie))
    assert (found["user_id"], found["live"]) == ("7", True)
    assert json.loads(found["payload"]) == {"_user_id": "7", "_fresh": True, "user_role": "user", "daily_limit": 4}
    assert client.get("/all").json == {"_user_id": "7", "_fresh": True, "user_role": "user", "daily_limit": 4}
