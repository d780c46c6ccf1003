"""I8: what is written into a store past the package makes no user and gives no right. Real servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flask import Flask

from example_app.servers import Valkey
from flask_langpont_session.stores.base import CategoryCopy, SharedCopy
from flask_langpont_session.testing import switched_off

from .behind import age_entry, browser, digest, elsewhere, entry, key, questions, sign_in
from .conftest import MakeApp, cookie_of, parts

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
        redis.hset(key(client.digest) + (":anon" if shadow else ""), mapping=FORGED)


def in_this_worker(app: Flask, server: Valkey, client: Any, shadow: bool) -> None:
    copy = CategoryCopy(10**15, {name: value.encode() for name, value in (FORGED | ORDINARY).items()})
    parts(app).repository.local.put_category(client.digest, "auth", copy)


def in_this_host(app: Flask, server: Valkey, client: Any, shadow: bool) -> None:
    copy = CategoryCopy(10**15, {name: value.encode() for name, value in (FORGED | ORDINARY).items()})
    parts(app).repository.journal.publish_copies([SharedCopy(client.digest, "auth", copy)])


def in_the_journal(app: Flask, server: Valkey, client: Any, shadow: bool) -> None:
    keep(app, client.digest, {name: value.encode() for name, value in FORGED.items()}, kind="a", shadow=shadow)


def keep(app: Flask, name: str, changes: Mapping[str, bytes], *, kind: str, shadow: bool = False) -> None:
    parts(app).repository.journal.write(
        name, kind=kind, shadow=shadow, category="auth", changes=changes, base={}, base_version=None
    )


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


def test_i8_the_journal_gives_a_user_no_right(app: Flask) -> None:
    """D13: a right never waits in a journal; what claims to be one there is not laid over what the database said."""
    client = sign_in(app)
    with parts(app).monitor.paused():
        keep(app, client.digest, {"user_role": b'"admin"', "_user_id": b'"1"', "daily_limit": b"4"}, kind="u")
        shown = client.get("/all").json
    assert shown == {"_user_id": "7", "_fresh": True, "user_role": "user", "daily_limit": 4}


def test_i3_a_stamp_of_the_future_is_no_lease(app: Flask, primary: Valkey) -> None:
    """D13: confirmed in a year, says Redis: the database is asked, sees a sign-out elsewhere, and mends the stamp."""
    client = sign_in(app)
    age_entry(primary, client.digest, -365 * 24 * HOUR, "@at")
    before = questions(app)
    assert client.get("/who").json["user"] == "7"
    assert questions(app) == before + 1
    assert client.get("/who").json["user"] == "7"
    assert questions(app) == before + 1
    age_entry(primary, client.digest, -365 * 24 * HOUR, "@at")
    database = elsewhere(app)
    database.kill(client.digest)
    database.close()
    assert client.get("/who").json["user"] is None
    assert entry(primary, client.digest)["@live"] == "0"


def test_i3_with_the_database_down_a_stamp_of_the_future_is_no_confirmation(app: Flask, primary: Valkey) -> None:
    """D13: a worker that has not seen the session itself goes by what Redis says, and that is not said yet."""
    client = sign_in(app)
    age_entry(primary, client.digest, -2 * HOUR, "@at")
    parts(app).repository.local.forget(client.digest)
    with parts(app).monitor.paused(), switched_off(app, "database"):
        response = client.get("/who")
        assert response.json["user"] is None
        assert cookie_of(response) is None
    assert client.get("/who").json["user"] == "7"
