"""Keys that no feature names are their user's: they live as long as the session, and go where the user goes."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.testing import switched_off

from .behind import digest, key, stored
from .conftest import MakeApp, cookie_of
from .counting import wait_for_monitors

CART = ["tea", "milk"]
DAY, HOUR, MONTH = 86_400_000, 3_600_000, 31 * 86_400_000


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return with_pages(make_app())


def with_pages(app: Flask) -> Flask:
    @app.post("/stay/<user>")
    def stay(user: str) -> str:
        session["_user_id"] = user
        session.permanent = True
        return "until next month"

    @app.post("/remember")
    def remember() -> str:
        session["cart"] = CART
        session.permanent = True
        return "remembered"

    return app


def life_ms(server: Valkey, cookie: str | None, category: str = "data") -> int:
    with server.client() as redis:
        return int(redis.pttl(key(digest(cookie), category)))


def shown(client: Any) -> Any:
    return client.get("/get/cart").json["value"]


# -- how long ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "life"), [("/login/7", HOUR), ("/stay/7", MONTH), ("/untouched", DAY), ("/remember", MONTH)]
)
def test_own_keys_live_as_long_as_the_session(app: Flask, primary: Valkey, page: str, life: int) -> None:
    """A user's while the user is signed in; a visitor's for a day, or as long as the permanent cookie."""
    client: Any = app.test_client()
    cookie = cookie_of(client.open(page, method="GET" if page == "/untouched" else "POST"))
    cookie = cookie_of(client.post("/set", json={"cart": CART, "theme": "dark"})) or cookie
    assert life - 60_000 < life_ms(primary, cookie) <= life
    assert life_ms(primary, cookie, "ui") <= min(DAY, life)


def test_a_visitor_lives_a_day_beside_a_permanent_one_that_may_be_idle_for_as_long(
    make_app: MakeApp, primary: Valkey
) -> None:
    """A read extends each by what it is."""
    app = with_pages(make_app(IDLE_TIMEOUT=HOUR // 1000, PERMANENT_SESSION_LIFETIME=HOUR // 1000))
    for path, life in (("/remember", HOUR), ("/set", DAY)):
        client: Any = app.test_client()
        cookie = cookie_of(client.post(path, json={"cart": CART}))
        with primary.client() as redis:
            redis.pexpire(key(digest(cookie), "data"), life // 3)
        assert shown(client) == CART
        assert life - 60_000 < life_ms(primary, cookie) <= life


@pytest.mark.parametrize(("page", "life"), [("/stay/7", MONTH), ("/remember", MONTH)])
def test_a_cart_outlives_the_look_of_the_pages(app: Flask, primary: Valkey, page: str, life: int) -> None:
    """A day without a request: what had the life of `ui` is gone, the cart is there, and lives on from here."""
    client: Any = app.test_client()
    cookie = cookie_of(client.post(page))
    client.post("/set", json={"cart": CART, "theme": "dark"})
    wait_for_monitors()
    with primary.client() as redis:
        redis.delete(key(digest(cookie), "ui"))
        redis.pexpire(key(digest(cookie), "data"), life - DAY - life // 4)
    assert client.get("/all").json["cart"] == CART
    wait_until(lambda: "theme" not in client.get("/all").json, "the invalidation")
    assert life - 60_000 < life_ms(primary, cookie) <= life


@pytest.mark.parametrize(("page", "life"), [("/stay/7", MONTH)])
@pytest.mark.parametrize(("is_written", "is_emptied"), [(True, False), (True, True), (False, True)])
def test_what_waited_or_was_given_back_lives_as_long_as_its_session(
    app: Flask, primary: Valkey, page: str, life: int, is_written: bool, is_emptied: bool
) -> None:
    """The host that kept a copy of it does not know how long that is: Redis does."""
    client: Any = app.test_client()
    cookie = cookie_of(client.post(page))
    client.post("/set", json={"cart": ["tea"]})
    assert shown(client) == ["tea"]
    with switched_off(app, "primary"):
        if is_written:
            client.post("/set", json={"cart": CART})
        if is_emptied:
            with primary.client() as redis:
                redis.flushall()
    expected = {"cart": '["tea","milk"]' if is_written else '["tea"]'}
    if is_emptied:
        assert client.get("/who").json["user"] == "7"  # the database has it
    wait_until(lambda: stored(primary, "data", cookie) == expected, "the cart")
    assert life - 60_000 < life_ms(primary, cookie) <= life
