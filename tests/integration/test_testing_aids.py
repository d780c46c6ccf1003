"""``flask_langpont_session.testing`` as an application's own tests use it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask

from devservers.processes import LONG
from devservers.servers import Valkey
from flask_langpont_session.events import (
    LevelChanged,
    SessionRevoked,
    StoreLost,
    StoreRecovered,
    ValueRejected,
)
from flask_langpont_session.policy.ids import digest_of
from flask_langpont_session.testing import captured_events, switched_off

from .conftest import MakeApp, cookie_of, parts


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def user(app: Flask) -> Any:
    """A browser signed in as user 7."""
    browser: Any = app.test_client()
    browser.post("/set", json={"lang": "jp", "input_text": "before"})
    browser.cookie = cookie_of(browser.post("/login/7"))
    assert browser.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}
    return browser


def test_the_level_stays_while_the_block_is_open(app: Flask, user: Any) -> None:
    """The monitor does not find the healthy server behind the test's back."""
    with switched_off(app, "primary"):
        looks = [threading.Thread(target=parts(app).monitor.watch, daemon=True) for _ in range(3)]
        for look in looks:
            look.start()
            assert user.get("/who").json["level"] == 2
        assert all(look.is_alive() for look in looks)  # they wait for the end of the block
    for look in looks:
        look.join(LONG)
    assert user.get("/who").json["level"] == 0


@pytest.mark.parametrize(
    ("stores", "level"),
    [
        (["primary"], 1),
        (["replica"], 0),
        (["database"], 0),
        (["primary", "replica"], 2),
        (["primary", "replica", "database"], 4),
    ],
)
def test_every_level_can_be_reached(make_app: MakeApp, replica: Valkey, stores: list[str], level: int) -> None:
    """Each level is reached by switching off what a real outage would take."""
    app = make_app(REPLICA_URL=replica.url)
    browser: Any = app.test_client()
    browser.post("/set", json={"lang": "jp"})
    with switched_off(app, *stores):
        assert browser.get("/who").json["level"] == level
        assert browser.get("/healthz").json["level"] == level
    assert browser.get("/who").json["level"] == 0


def test_what_was_written_inside_is_replayed_on_leaving(app: Flask, user: Any, primary: Valkey) -> None:
    """The journal is merged at the end of the block: a test can look at the result at once."""
    with switched_off(app, "primary"):
        user.post("/set", json={"input_text": "during", "lang": "en"})
        assert user.get("/get/input_text").json["value"] == "during"
    assert user.get("/all").json["input_text"] == "during"
    assert user.get("/all").json["lang"] == "jp"
    with primary.client() as redis:
        digest = digest_of(user.cookie.split(".")[0])
        assert redis.hget(f"session:translation:{{{digest}}}", "input_text") == '"during"'


@pytest.mark.parametrize("name", ["redis", "replica", "Primary", "journal", ""])
def test_a_misspelt_store_is_an_error(app: Flask, user: Any, name: str) -> None:
    """A test that sees no outage would pass for the wrong reason. Nothing is switched off."""
    with pytest.raises(KeyError), switched_off(app, "primary", name):
        raise AssertionError("the block must not run")
    assert user.get("/who").json["level"] == 0


def test_a_failing_test_leaves_the_stores_on(app: Flask, user: Any) -> None:
    """The error of the block goes through; the next test finds everything healthy."""
    with pytest.raises(ZeroDivisionError), switched_off(app, "primary", "database"):
        user.get("/who")
        _ = 1 / 0
    assert not parts(app).health.open_stores()
    assert user.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}


def test_blocks_can_be_nested(app: Flask, user: Any) -> None:
    """The inner one ends first, and gives back only what it took."""
    with switched_off(app, "primary"):
        with switched_off(app, "database"):
            assert user.get("/who").json["level"] == 4
        assert user.get("/who").json["level"] == 2
    assert user.get("/who").json["level"] == 0


# -- events ------------------------------------------------------------------------------------------------------------


def test_events_are_collected_in_order(app: Flask, user: Any) -> None:
    """Events of the lost store, of the level and of the recovery are collected in their order."""
    with captured_events(app) as seen, switched_off(app, "primary"):
        user.get("/who")
    found = [type(event).__name__ for event in seen]
    assert found.count("StoreLost") == found.count("StoreRecovered") == 2
    levels = [event for event in seen if isinstance(event, LevelChanged)]
    assert levels[0] == LevelChanged(0, 2)
    assert levels[-1].new == 0
    lost = {(event.store, event.direction, event.cause) for event in seen if isinstance(event, StoreLost)}
    assert lost == {("primary", "read", "unreachable"), ("primary", "write", "unreachable")}
    recovered = [event for event in seen if isinstance(event, StoreRecovered)]
    assert all(event.store == "primary" and event.seconds >= 0 for event in recovered)


def test_a_logout_is_an_event_without_an_id(app: Flask, user: Any) -> None:
    """Enough to find it in a log, nothing to use."""
    with captured_events(app) as seen:
        user.post("/logout")
    [event] = [event for event in seen if isinstance(event, SessionRevoked)]
    assert event.durable
    assert len(event.digest) == 8


def test_events_of_other_applications_are_not_collected(make_app: MakeApp, app: Flask, user: Any) -> None:
    """Nor are events from before and after the block."""
    other = make_app(KEY_PREFIX="other")
    app.testing = False  # where a value that is too large would be raised
    user.post("/set", json={"theme": "x" * 40_000})
    user.post("/set", json={"next": "x" * 40_000})
    with captured_events(other) as seen:
        user.post("/set", json={"next": "x" * 40_000})
    assert seen == []
    with captured_events(app) as seen:
        user.post("/set", json={"next": "x" * 40_000})
    assert seen == [ValueRejected("ui", "next", "category 'ui': large")]
    user.post("/set", json={"next": "x" * 40_000})
    assert len(seen) == 1
