"""Keys that were stored while the table was another: they follow the rules of their feature wherever they lie, and move
when they are written."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, session

from devservers.servers import Valkey
from flask_langpont_session.testing import switched_off

from .behind import browser, digest, stored
from .conftest import MakeApp, cookie_of, parts
from .counting import evals, wait_for_monitors

BEFORE: dict[str, Any] = {"FEATURES": {"all_others": {"keys": ["*"], "category": "ui"}}}
"""The table of before: keys that no feature names are in ui."""

CART, MORE = '["tea"]', '["tea","milk"]'


def with_views(app: Flask) -> Flask:
    @app.post("/add/<item>")
    def add(item: str) -> str:
        session["cart"].append(item)
        return "added"

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
    wait_for_monitors()
    with parts(old).monitor.paused(), parts(app).monitor.paused():
        before = evals(primary)
        assert client.post("/add/milk").status_code == 200
        assert evals(primary) <= before + 2  # the look and the change
    assert stored(primary, "ui", client.cookie) == {"theme": '"dark"'}
    assert stored(primary, "data", client.cookie) == {"cart": MORE}
    assert cart(client) == ["tea", "milk"]


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
