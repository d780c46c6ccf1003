"""Keys that were stored while the table was another: they follow the rules of their feature wherever they lie, and move
when they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask, session

from devservers.servers import Valkey
from flask_langpont_session.testing import switched_off

from .behind import browser, digest, row, sign_in, stored
from .conftest import MakeApp, cookie_of, parts
from .counting import evals

BEFORE: dict[str, Any] = {"FEATURES": {"all_others": {"keys": ["*"], "category": "ui"}}}
"""The table of before: keys that no feature names are in ui."""

CART, MORE = '["tea"]', '["tea","milk"]'


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
def test_it_moves_when_it_is_written_in_one_script(old: Flask, app: Flask, primary: Valkey, page: str) -> None:
    client = begun(old, app, page)
    client.get("/all")
    before = evals(primary)
    assert client.post("/add/milk").status_code == 200
    assert evals(primary) <= before + 2  # the look and the change
    assert stored(primary, "ui", client.cookie) == {"theme": '"dark"'}
    assert stored(primary, "data", client.cookie) == {"cart": MORE}
    assert cart(client) == ["tea", "milk"]


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
