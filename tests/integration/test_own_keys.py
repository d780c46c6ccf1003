"""Keys of an application's own: safe by default, said aloud while it is developed, and changed in one line."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session import Kept, UnsupportedValue
from flask_langpont_session.ops.cli.commands import langpont
from flask_langpont_session.testing import switched_off

from .behind import browser, row, sign_in
from .conftest import MakeApp, cookie_of, parts

CART = '{"cart": {"keys": ["cart"], "category": "data", "priority": "high"}}'


def debugged(app: Flask, debug: bool = True) -> Flask:
    app.debug = debug  # as app.run(debug=True) does, after init_app
    return app


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "no feature names" in record.msg]


def explained(app: Flask, key: str) -> list[str]:
    result = app.test_cli_runner().invoke(langpont, ["explain", key])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 100
    lines: list[str] = re.sub(r"\n +", " ", result.output).splitlines()
    return lines


# -- safe by default ---------------------------------------------------------------------------------------------------


def test_a_cart_survives_an_outage(make_app: MakeApp) -> None:
    """Keys that no feature names are shown, kept and merged; the look of the pages is not."""
    app = make_app()
    client: Any = app.test_client()
    client.post("/set", json={"cart": ["tea"], "theme": "dark"})
    client.get("/all")
    with switched_off(app, "primary"):
        assert client.get("/all").json == {"cart": ["tea"]}
        client.post("/set", json={"cart": ["tea", "milk"]})
        assert client.get("/get/cart").json["value"] == ["tea", "milk"]
        with app.test_request_context("/"):
            session["cart"] = ["of another visitor"]
            assert session.flush() is Kept.JOURNAL  # type: ignore[attr-defined]


def levels(app: Flask, key: str) -> list[str]:
    """Return the lines about a key that say what it gets at each level."""
    return [line for line in explained(app, key) if line.startswith("level")]


# -- said aloud --------------------------------------------------------------------------------------------------------


def test_in_debug_the_first_use_is_a_warning_with_what_happens_and_the_line_that_changes_it(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Once per key; keys that the table names are not mentioned."""
    app = debugged(make_app())
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            app.test_client().post("/set", json={"cart": [1], "lang": "jp", "_user_id": "7"})
    assert said(caplog) == [
        "no feature names session key 'cart'. It is kept in category 'data' (session's life) with priority 'high', at "
        "levels 0, 1, 2; what is written at levels 3, 4 is gone with its request. To name it, and to change that: "
        f"app.config['LANGPONT_SESSION_FEATURES'] = {CART}"
    ]
    assert {record.levelno for record in caplog.records if record.getMessage() in said(caplog)} == {logging.WARNING}


def test_what_explain_offers_changes_what_the_key_gets(make_app: MakeApp) -> None:
    """Both lines, as they stand there: another priority, and the database for signed-in users."""
    app = make_app()
    for key in ("cart", "日本語", "it's", "theme", "next"):
        *_, priority, durable = explained(app, key)
        for line, setting in ((priority, "FEATURES"), (durable, "DURABLE_KEYS")):
            label, value = line.split(f": LANGPONT_SESSION_{setting} = ")
            assert label in ("to change it", "to have the database keep it for signed-in users")
            changed = make_app(**{setting: json.loads(value)})
            assert levels(changed, key) != levels(app, key)


def test_outside_of_debug_it_is_no_warning_and_there_is_a_bound(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that makes up keys fills neither memory nor logs."""
    app = make_app()
    with caplog.at_level(logging.INFO), app.test_request_context("/"):
        for number in range(300):
            session[f"made-up-{number}"] = number
            del session[f"made-up-{number}"]
    assert len(said(caplog)) == 256
    assert {record.levelno for record in caplog.records if "no feature names" in record.msg} == {logging.INFO}


def events_of(caplog: pytest.LogCaptureFixture, *names: str) -> list[tuple[str, object]]:
    """Return the events of the log that have one of these names, with the key or the settings that each is about."""
    found = [vars(record) for record in caplog.records if vars(record).get("langpont_event") in names]
    return [(one["langpont_event"], one.get("langpont_key", one.get("langpont_settings"))) for one in found]


def test_what_a_name_or_a_value_makes_of_a_key_is_told_once(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that is a right by its name, in debug, where it is seen; a sign-in of a user whom no list finds, in
    production too."""
    shopper = {"keys": ["shopper"], "category": "auth", "priority": "critical"}
    app = debugged(make_app(PRESET="application", FEATURES={"shopper": shopper}, USER_KEYS=["shopper"]))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            client: Any = app.test_client()
            client.post("/set", json={"shopper": {"name": "Alice"}, "cart": 1})
            client.post("/set", json={"role": "editor"})
            client.post("/set", json={"shopper": {"id": 7}})
    told = [("user_nameless", "shopper"), ("key_is_right", "role")]
    assert events_of(caplog, "user_nameless", "key_is_right") == told
    for is_in_debug, own in ((False, {}), (True, {"PRIVILEGE_KEYS": ["role"]})):
        app = debugged(make_app(PRESET="application", **own), is_in_debug)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            app.test_client().post("/set", json={"role": "editor"})
        assert events_of(caplog, "key_is_right") == []


def test_settings_that_do_nothing_are_told_of(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """Settings that come too late, be they new, changed or misspelt, and Flask-Session's. Not other libraries'."""
    app = make_app()
    app.config.update(LANGPONT_SESSION_IDLE_TIMEOUT=60, LANGPONT_SESSION_RELPICA_URL="x", OTHER=1, SESSION_TYPE="redis")
    with caplog.at_level(logging.INFO):
        app.test_client().get("/all")
        wait_until(lambda: parts(app).monitor.has_looked, "a first look")
        parts(app).monitor.tick()
    names = ["LANGPONT_SESSION_IDLE_TIMEOUT", "LANGPONT_SESSION_RELPICA_URL"]
    assert events_of(caplog, "settings_late") == [("settings_late", names)]
    assert len(events_of(caplog, "settings_of_flask_session")) == 1


def test_without_a_catch_all_the_error_says_where_to_name_it(make_app: MakeApp) -> None:
    """The view that forgot it is told."""
    app = make_app(
        CATEGORIES={"auth": {}, "ui": {"features": {"look": ["theme"]}}}, FEATURES={"look": {"priority": "low"}}
    )
    with app.test_request_context("/"), pytest.raises(UnsupportedValue, match="LANGPONT_SESSION_FEATURES"):
        session["cart"] = 1
    assert explained(app, "cart") == [
        "cart: no feature claims it, so assigning it is an error; name it in LANGPONT_SESSION_FEATURES"
    ]


# -- flask langpont explain KEY ----------------------------------------------------------------------------------------


def test_explain_a_key(make_app: MakeApp) -> None:
    """The command says where the key is, what it gets at each level, and which line changes it."""
    read = "local_cache_fallback: what Redis has; what is written waits in this host's journal and is merged"
    copy = "local_cache_fallback: this host's copy; what is written waits in its journal and is merged"
    none = "disable_feature: what DEFAULTS says, and available() is False; what is written is gone with the request"
    assert explained(make_app(), "cart") == [
        "category  data, session's life",
        "feature   other",
        "priority  high",
        "meaning   data, in Redis alone; no feature names it",
        "lives     as long as its session: a user's 1 h unused, a visitor's 24 h, a permanent one as its cookie",
        "goes to   the user as whom a visitor signs in; never another user",
        "level 0 normal                primary: Redis",
        f"level 1 replica               {read}",
        f"level 2 local_cache           {copy}",
        f"level 3 database              {none}",
        f"level 4 minimal               {none}",
        f"to change it: LANGPONT_SESSION_FEATURES = {CART.replace('high', 'medium')}",
        'to have the database keep it for signed-in users: LANGPONT_SESSION_DURABLE_KEYS = ["cart"]',
    ]


# -- durable keys ------------------------------------------------------------------------------------------------------


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = make_app(DURABLE_KEYS=["cart", "order_*"])

    @app.post("/add/<article>")
    def add(article: str) -> str:
        session.setdefault("cart", []).append(article)
        return "added"

    return app


def test_durable_keys_of_a_user_are_in_the_database(app: Flask, primary: Valkey) -> None:
    """Redis may lose all: they are there, also what was changed inside of them."""
    client = sign_in(app, cart=["tea"], order_7="paid", theme="dark")
    assert client.post("/add/milk").status_code == 200
    assert {"cart", "order_7"} <= json.loads(row(app, client.digest)["payload"]).keys()
    with primary.client() as redis:
        redis.flushall()
    assert browser(app, client.cookie).get("/get/cart").json["value"] == ["tea", "milk"]
    with switched_off(app, "primary"):
        assert client.post("/add/bread").status_code == 200
        shown = client.get("/all").json
        assert (shown["cart"], shown["order_7"]) == (["tea", "milk", "bread"], "paid")


def test_the_cart_of_a_visitor_is_the_cart_of_the_user_who_signs_in(app: Flask) -> None:
    """Now the database has it."""
    client: Any = app.test_client()
    client.post("/add/tea")
    assert client.get("/all").json == {"cart": ["tea"]}
    cookie = str(cookie_of(client.post("/set", json={"_user_id": "7"})))
    assert client.get("/all").json == {"_user_id": "7", "cart": ["tea"]}
    assert browser(app, cookie).get("/get/cart").json["value"] == ["tea"]
    assert "goes to   the user as whom a visitor signs in; never another user" in explained(app, "cart")
