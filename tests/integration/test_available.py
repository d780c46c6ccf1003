"""Features that can be used in this request: by the level, and by what could be read of this session."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, jsonify, session

from devservers.processes import wait_until
from devservers.servers import Valkey

from .behind import wait_for_level
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
