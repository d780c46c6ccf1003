"""Features that can be used in this request: by the level, and by what could be read of this session."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, jsonify, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.testing import switched_off

from .behind import wait_for_level, wait_until_home
from .conftest import MakeApp, parts

FEATURES = ("translation_state", "usage_tracking", "language_preference", "analysis_cache")
ALL = dict.fromkeys(FEATURES, True)


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return with_views(make_app())


def with_views(app: Flask) -> Flask:
    @app.get("/available")
    def available() -> Any:
        return jsonify({name: session.available(name) for name in FEATURES})  # type: ignore[attr-defined]

    @app.post("/append")
    def append() -> str:
        session["input_text"] = [*session.get("input_text", []), "new"]
        return ""

    @app.post("/blind")
    def blind() -> str:
        session["source_lang"] = "ja"
        return ""

    @app.post("/clear")
    def clear() -> str:
        session.clear()
        session["source_lang"] = "ja"
        return ""

    return app


@pytest.fixture
def browser(app: Flask) -> Any:
    client: Any = app.test_client()
    client.post("/set", json={"input_text": ["old"], "lang": "ja"})
    assert client.get("/available").json == ALL
    return client


def lose(app: Flask, browser: Any, primary: Valkey, *, copies: bool) -> None:
    """Redis goes away; perhaps this worker has no copies either."""
    primary.kill()
    browser.get("/all")
    wait_for_level(app, 2)
    if not copies:
        forget_copies(app)


def forget_copies(app: Flask) -> None:
    """Drop all copies, as if the worker had just started on a host that knows nothing. This worker shares its copies
    when it notices the outage, and announces the outage after that."""
    wait_until(lambda: bool(parts(app).backend.board.outages()), "copies that are shared")
    parts(app).backend.memory.clear()
    parts(app).backend.board.clear_copies()


def test_with_a_copy_a_feature_is_available(app: Flask, browser: Any, primary: Valkey) -> None:
    """Features with a copy are available, and so are those for which the table has a default, which says nothing of
    data."""
    lose(app, browser, primary, copies=True)
    assert browser.get("/available").json == ALL
    assert browser.get("/all").json["input_text"] == ["old"]


def test_without_a_copy_it_is_not(app: Flask, browser: Any, primary: Valkey) -> None:
    """I19: its data is unknown for this session. For a new one it is not: it has none."""
    lose(app, browser, primary, copies=False)
    unknown = {**ALL, "translation_state": False, "usage_tracking": False}
    assert browser.get("/available").json == unknown
    assert browser.post("/blind").status_code == 200
    assert browser.get("/available").json == unknown
    other = app.test_client()
    other.post("/blind")
    assert other.get("/available").json == ALL


def test_what_is_made_of_the_unknown_replaces_nothing(app: Flask, browser: Any, primary: Valkey) -> None:
    """I16: the list that was there is there afterwards, and the one that was made without it is counted."""
    lose(app, browser, primary, copies=False)
    browser.post("/append")
    browser.post("/blind")
    assert browser.get("/all").json["input_text"] == ["new"]
    primary.start()
    wait_until_home(app)
    assert browser.get("/all").json["input_text"] == ["old"]
    assert browser.get("/all").json["source_lang"] == "ja"
    assert browser.get("/available").json == ALL
    assert parts(app).recorder.losses() == {("merge_conflicts", "made without reading", "translation"): 1}


def test_what_is_made_of_what_a_replica_says_is_kept(make_app: MakeApp, primary: Valkey, replica: Valkey) -> None:
    """I17, I19: first nothing can be read, and a list is made without the stored one. Then a replica has that: what is
    made from it is shown and merged, and the first list is counted."""
    app = with_views(make_app(REPLICA_URL=replica.url))
    browser: Any = app.test_client()
    browser.post("/set", json={"input_text": ["old"]})
    with primary.client() as redis:
        redis.wait(1, 2000)
    with switched_off(app, "primary"):
        with switched_off(app, "replica"):
            forget_copies(app)
            browser.post("/append")
            assert browser.get("/all").json["input_text"] == ["new"]
        assert browser.get("/all").json["input_text"] == ["old"]
        assert browser.get("/available").json == ALL
        browser.post("/append")
        assert browser.get("/all").json["input_text"] == ["old", "new"]
    assert browser.get("/all").json["input_text"] == ["old", "new"]
    assert parts(app).recorder.losses() == {("merge_conflicts", "made without reading", "translation"): 1}


def test_after_a_clear_everything_is_known_again(app: Flask, browser: Any, primary: Valkey) -> None:
    """Nothing of before is left, in whatever store."""
    lose(app, browser, primary, copies=False)
    browser.post("/clear")
    assert browser.get("/available").json == ALL
    browser.post("/append")
    assert browser.get("/all").json["input_text"] == ["new"]
    primary.start()
    wait_until_home(app)
    shown = browser.get("/all").json
    assert (shown["input_text"], shown["source_lang"], "lang" in shown) == (["new"], "ja", False)
    assert parts(app).recorder.losses() == {}
