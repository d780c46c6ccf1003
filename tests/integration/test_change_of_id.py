"""``session.regenerate()`` takes along what the session has now, whatever this request has read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask, session

from flask_langpont_session.stores.redis.records import Written

from .conftest import MakeApp, parts


def with_change_of_id(app: Flask) -> Flask:
    """A page that changes the id, and a key of its own with it."""

    @app.post("/regenerate")
    def regenerate() -> str:
        session["daily_limit"] = 7
        session.regenerate()  # type: ignore[attr-defined]
        return str(session["user_role"])

    return app


def test_i4_a_right_that_was_withdrawn_meanwhile_does_not_come_back(make_app: MakeApp, tmp_path: Path) -> None:
    """I4: the request believes an older lease; the new row has the present rights, and the request's own change."""
    one, other = with_change_of_id(make_app()), make_app(JOURNAL=str(tmp_path / "other host.sqlite3"))
    browser, elsewhere = one.test_client(), other.test_client()
    browser.post("/login/7?role=admin")
    cookie = browser.get_cookie("session")
    assert cookie is not None
    elsewhere.set_cookie("session", cookie.value)
    assert browser.get("/get/user_role").json == {"value": "admin", "present": True}
    primary: Any = parts(other).backend.primary
    with parts(one).monitor.paused(), parts(other).monitor.paused():
        primary.write, write = lambda *_, **__: Written("late"), primary.write  # Redis does not hear of it
        assert elsewhere.post("/set", json={"user_role": "user"}).status_code == 200
        primary.write = write
        assert browser.post("/regenerate").text == "admin"
    assert browser.get_cookie("session") != cookie
    for key, value in (("user_role", "user"), ("daily_limit", 7), ("_user_id", "7")):
        assert browser.get(f"/get/{key}").json == {"value": value, "present": True}
