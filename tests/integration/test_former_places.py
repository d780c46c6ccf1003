"""Keys that were stored while the table was another: they follow the rules of their feature wherever they lie, and move
when they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask, session

from devservers.servers import Valkey
from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.stores.host.journal import PendingWrite
from flask_langpont_session.testing import switched_off

from .behind import browser, digest, entry, key, row, sign_in, stored
from .conftest import MakeApp, cookie_of, parts
from .counting import evals

BEFORE: dict[str, Any] = {"FEATURES": {"all_others": {"keys": ["*"], "category": "ui"}}}
"""The table of before: keys that no feature names are in ui."""

CART, MORE = '["tea"]', '["tea","milk"]'
DAY, HOUR, MONTH = 86_400_000, 3_600_000, 31 * 86_400_000


def with_views(app: Flask) -> Flask:
    @app.post("/add/<item>")
    def add(item: str) -> str:
        session["cart"].append(item)
        return "added"

    @app.post("/count")
    def count() -> str:
        return str(session.increment("visits"))  # type: ignore[attr-defined]

    @app.post("/clear")
    def clear() -> str:
        session.clear()
        return "cleared"

    @app.post("/regenerate")
    def regenerate() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return "regenerated"

    @app.post("/stay/<user>")
    def stay(user: str) -> str:
        session["_user_id"] = user
        session.permanent = True
        return "until next month"

    return app


@pytest.fixture
def old(make_app: MakeApp) -> Flask:
    """A worker with the table of before."""
    return with_views(make_app(**BEFORE))


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return with_views(make_app())


def cart(client: Any) -> Any:
    return client.get("/get/cart").json["value"]


def begun(old: Flask, app: Flask, page: str = "/login/7", **data: Any) -> Any:
    """A browser whose session has data from before; from here on it meets the worker with the present table."""
    client: Any = old.test_client()
    cookie = cookie_of(client.open(page, method="GET" if page == "/untouched" else "POST"))
    cookie = cookie_of(client.post("/set", json={"cart": ["tea"], "theme": "dark", **data})) or cookie
    client = browser(app, cookie or "")
    client.cookie, client.digest = cookie, digest(cookie)
    return client


VISITOR, USER = "/untouched", "/login/7"


# -- shown, moved, removed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [VISITOR, USER])
def test_it_is_shown_as_what_it_is_now(old: Flask, app: Flask, primary: Valkey, page: str) -> None:
    """The key is shown as what it is by the table, and stays where it is as long as it is only read."""
    client = begun(old, app, page)
    assert cart(client) == ["tea"]
    assert client.get("/all").json.items() >= {"cart": ["tea"], "theme": "dark"}.items()
    assert stored(primary, "ui", client.cookie) == {"cart": CART, "theme": '"dark"'}
    assert stored(primary, "data", client.cookie) == {}


@pytest.mark.parametrize("page", [VISITOR, USER])
def test_it_moves_when_it_is_written_in_one_script(old: Flask, app: Flask, primary: Valkey, page: str) -> None:
    client = begun(old, app, page)
    client.get("/all")
    before = evals(primary)
    assert client.post("/add/milk").status_code == 200
    assert evals(primary) <= before + 2  # the look and the change
    assert stored(primary, "ui", client.cookie) == {"theme": '"dark"'}
    assert stored(primary, "data", client.cookie) == {"cart": MORE}
    assert cart(client) == ["tea", "milk"]


def test_what_is_written_without_a_look_is_later(old: Flask, app: Flask, primary: Valkey) -> None:
    """It could not be known that there was anything; what is older goes with the next change that has looked."""
    client = begun(old, app)
    assert client.post("/set", json={"cart": ["rice"]}).status_code == 200
    assert stored(primary, "ui", client.cookie)["cart"] == CART
    assert cart(client) == ["rice"]
    with app.test_request_context(headers={"Cookie": f"session={client.cookie}"}):
        assert session["theme"] == "dark"
        session["lang"] = "ja"
        session.flush()  # type: ignore[attr-defined]
    assert stored(primary, "ui", client.cookie) == {"theme": '"dark"', "lang": '"ja"'}
    assert cart(client) == ["rice"]


def test_what_a_worker_with_the_other_table_writes_later_counts(old: Flask, app: Flask, primary: Valkey) -> None:
    """Both places have it: the later written one is shown, whichever it is, and the next write leaves one."""
    client = begun(old, app)
    client.post("/add/milk")
    other = browser(old, client.cookie)
    assert other.post("/set", json={"cart": ["of the other"]}).status_code == 200
    assert stored(primary, "data", client.cookie) == {"cart": MORE}
    assert cart(client) == ["of the other"]
    client.post("/set", json={"cart": ["again here"]})
    assert cart(client) == ["again here"]


def test_workers_whose_tables_know_both_categories_lose_nothing(old: Flask, app: Flask) -> None:
    """The order of an upgrade: one adds, then the other, in turn. Each sees what the other one did."""
    client = begun(old, app, other=1)
    other, added = browser(old, client.cookie), ["tea"]
    for number in range(6):
        assert (client, other)[number % 2].post(f"/add/{number}").status_code == 200
        added.append(str(number))
        assert cart(client) == cart(other) == added


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("page", [VISITOR, USER])
def test_a_deletion_takes_both(old: Flask, app: Flask, primary: Valkey, page: str, both: bool) -> None:
    client = begun(old, app, page)
    if both:
        client.post("/set", json={"cart": ["rice"]})
    assert client.post("/pop/cart").json["value"] == (["rice"] if both else ["tea"])
    assert stored(primary, "ui", client.cookie) == {"theme": '"dark"'}
    assert stored(primary, "data", client.cookie) == {}
    assert cart(client) is None


def test_a_wipe_takes_both(old: Flask, app: Flask, primary: Valkey) -> None:
    client = begun(old, app, VISITOR)
    client.post("/set", json={"cart": ["rice"]})
    client.post("/clear")
    assert client.get("/all").json == {}
    assert stored(primary, "ui", client.cookie) == stored(primary, "data", client.cookie) == {}


def test_a_number_is_added_to_where_it_is(old: Flask, app: Flask, primary: Valkey) -> None:
    """The addition goes where the number is, so that none is lost, whichever worker makes it; the number moves when
    it is assigned."""
    client = begun(old, app, visits=40)
    assert (client.post("/count").text, browser(old, client.cookie).post("/count").text) == ("41", "42")
    assert stored(primary, "ui", client.cookie)["visits"] == "42"
    client.get("/all")
    with app.test_request_context(headers={"Cookie": f"session={client.cookie}"}):
        session["visits"] += 1
        session.flush()  # type: ignore[attr-defined]
    assert client.post("/count").text == "44"
    assert "visits" not in stored(primary, "ui", client.cookie)
    assert stored(primary, "data", client.cookie)["visits"] == "44"


# -- the rules of the feature ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [VISITOR, USER])
def test_it_is_carried_as_its_feature(old: Flask, app: Flask, primary: Valkey, page: str) -> None:
    """The key is carried from a visitor to the user, and to another id of the same session; then it is where it
    belongs."""
    client = begun(old, app, page)
    cookie = cookie_of(client.post("/login/7" if page == VISITOR else "/regenerate"))
    assert cart(client) == ["tea"]
    assert stored(primary, "data", cookie) == {"cart": CART}
    assert stored(primary, "ui", cookie) == {"theme": '"dark"'}


@pytest.mark.parametrize("leave", ["/logout", "/login/8"])
@pytest.mark.parametrize("in_outage", [False, True])
def test_it_is_gone_with_its_user(old: Flask, app: Flask, leave: str, in_outage: bool) -> None:
    """The key goes with its user, although it lies in a category that stays with the browser; in an outage neither
    the key nor what waits of it is carried."""
    client = begun(old, app)
    client.get("/all")
    if in_outage:
        parts(old).close()  # it would bring along what its own table says
        with switched_off(app, "primary"):
            waits = PendingWrite(
                digest=client.digest, kind="u", category="ui", operation=Operation.SET, field="cart", value=b'["waits"]'
            )
            parts(app).backend.journal.put([waits])
            assert cart(client) == ["waits"]
            client.post(leave)
            assert cart(client) is None
    else:
        client.post(leave)
    assert cart(client) is None
    assert client.get("/get/theme").json["value"] == "dark"


@pytest.mark.parametrize(("page", "life"), [("/stay/7", MONTH), (USER, HOUR)])
def test_it_lives_as_long_as_the_session(old: Flask, app: Flask, primary: Valkey, page: str, life: int) -> None:
    """The key lives as long from the first look of a worker on, and after a change of something else in that
    category."""
    client = begun(old, app, page)

    def left() -> int:
        with primary.client() as redis:
            return int(redis.pttl(key(client.digest, "ui")))

    assert left() <= DAY
    client.get("/all")
    assert life - 60_000 < left() <= life
    with app.test_request_context(headers={"Cookie": f"session={client.cookie}"}):
        session["theme"] = session["theme"] + "er"
        session.flush()  # type: ignore[attr-defined]
    assert life - 60_000 < left() <= life


def test_users_and_rights_are_taken_from_nowhere_else(app: Flask, primary: Valkey) -> None:
    """I8: whatever lies in a category of data, also where all of a session is listed."""
    client: Any = app.test_client()
    cookie = cookie_of(client.post("/set", json={"theme": "dark"}))
    with primary.client() as redis:
        redis.hset(key(digest(cookie), "ui"), mapping={"_user_id": '"7"', "user_role": '"admin"', "daily_limit": "9"})
    with app.test_request_context(headers={"Cookie": f"session={cookie}"}):
        assert dict(session) == {"theme": "dark"}
        assert [session.get(name) for name in ("_user_id", "user_role", "daily_limit")] == [None] * 3


def test_a_key_that_was_a_right_is_data_of_the_row_until_it_is_written(make_app: MakeApp, primary: Valkey) -> None:
    """`identity_card` was one of a user. Then Redis has it, and the row does not."""
    old = make_app(PRIVILEGE_KEYS=["identity*", "_fresh", "user_role"], FEATURES={})
    client = sign_in(old, identity_card="blue")
    assert "identity_card" in json.loads(row(old, client.digest)["payload"])
    app = make_app()
    there = browser(app, client.cookie)
    assert there.get("/get/identity_card").json["value"] == "blue"
    assert there.post("/set", json={"identity_card": "green"}).status_code == 200
    assert there.get("/get/identity_card").json["value"] == "green"
    with app.test_request_context(headers={"Cookie": f"session={client.cookie}"}):
        assert session["identity_card"] == "green"
        session["identity_card"] = "red"
        session.flush()  # type: ignore[attr-defined]
    assert "identity_card" not in json.loads(row(app, client.digest)["payload"])
    assert stored(primary, "data", client.cookie) == {"identity_card": '"red"'}


# -- in an outage ------------------------------------------------------------------------------------------------------


def test_in_an_outage_it_is_shown_kept_and_moved(old: Flask, app: Flask, primary: Valkey) -> None:
    """The copy shows the key; changes of it wait, and come to its own category."""
    client = begun(old, app)
    assert cart(client) == ["tea"]
    with switched_off(app, "primary"):
        assert cart(client) == ["tea"]
        assert client.post("/add/milk").status_code == 200
        assert cart(client) == ["tea", "milk"]
    assert stored(primary, "data", client.cookie) == {"cart": MORE}
    assert stored(primary, "ui", client.cookie) == {"theme": '"dark"'}
    assert cart(client) == ["tea", "milk"]


def test_what_waits_since_before_is_shown_and_moves_when_it_is_written(old: Flask, app: Flask, primary: Valkey) -> None:
    """The journal of the host has it under the category of before."""
    client = begun(old, app)
    browser(old, client.cookie).get("/all")
    client.get("/all")
    with switched_off(old, "primary"), switched_off(app, "primary"):
        browser(old, client.cookie).post("/add/milk")
        assert cart(client) == ["tea", "milk"]
        client.post("/add/rice")
        assert cart(client) == cart(browser(old, client.cookie)) == ["tea", "milk", "rice"]
    assert cart(client) == ["tea", "milk", "rice"]
    assert stored(primary, "data", client.cookie) == {"cart": '["tea","milk","rice"]'}
    assert "cart" not in stored(primary, "ui", client.cookie)


def test_in_an_outage_a_deletion_takes_both(old: Flask, app: Flask, primary: Valkey) -> None:
    client = begun(old, app)
    client.get("/all")
    with switched_off(app, "primary"):
        client.post("/pop/cart")
        assert cart(client) is None
    assert cart(client) is None
    assert "cart" not in entry(primary, client.digest, "ui")


# -- encryption --------------------------------------------------------------------------------------------------------


def test_it_is_sealed_anew(make_app: MakeApp, primary: Valkey) -> None:
    """The seal names category and key: what was moved as it is could not be opened there."""
    keys: dict[str, Any] = {"ENCRYPTION_KEYS": [bytes(range(200, 232)).hex()]}
    app = with_views(make_app(**keys))
    client = begun(with_views(make_app(**BEFORE, **keys)), app)
    assert cart(client) == ["tea"]
    client.post("/add/milk")
    there = browser(with_views(make_app(**keys)), client.cookie)
    assert cart(there) == ["tea", "milk"]
    assert "tea" not in str(stored(primary, "data", client.cookie))
    assert "cart" not in stored(primary, "ui", client.cookie)
    assert parts(app).recorder.counters().get("unreadable_values", 0) == 0
