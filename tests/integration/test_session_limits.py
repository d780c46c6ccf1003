"""``MAX_SESSIONS_PER_USER``: a user may have so many sessions at a time, whatever is down."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, jsonify, session

from devservers.servers import Valkey
from flask_langpont_session import SessionLimitReached
from flask_langpont_session.events import EndedBy, SessionRevoked
from flask_langpont_session.testing import captured_events, switched_off

from .behind import browser, entry, sign_in, wait_for_level, who
from .conftest import MakeApp, cookie_of, parts


def why(app: Flask) -> Flask:
    """Add a page that says whether the browser's session was displaced."""

    @app.get("/why")
    def page() -> Any:
        return jsonify(displaced=session.was_displaced())  # type: ignore[attr-defined]

    return app


def displaced(app: Flask, client: Any) -> bool:
    return bool(browser(app, client.cookie).get("/why").json["displaced"])


def test_a_sign_in_ends_the_oldest_session_everywhere_at_once(make_app: MakeApp, primary: Valkey) -> None:
    """The oldest session ends on this worker, on another one, in Redis and in the database; an event tells it, and
    the browser once."""
    app, sibling = why(make_app(MAX_SESSIONS_PER_USER=2)), why(make_app(MAX_SESSIONS_PER_USER=2))
    first, second, stranger = sign_in(app), sign_in(app), sign_in(app, "8")
    assert [who(worker, first) for worker in (app, sibling)] == ["7", "7"]
    with captured_events(app) as seen:
        third = sign_in(app)
    assert [event for event in seen if isinstance(event, SessionRevoked)] == [
        SessionRevoked(first.digest[:8], durable=True, cause=EndedBy.LIMIT)
    ]
    for worker in (app, sibling):
        assert [who(worker, client) for client in (first, second, third, stranger)] == [None, "7", "7", "8"]
    assert entry(primary, first.digest)["@live"] == "0"
    assert [displaced(sibling, client) for client in (first, second, first)] == [True, False, False]


def test_a_sign_in_may_be_refused_instead(make_app: MakeApp) -> None:
    """The browser keeps what it has."""
    app = make_app(MAX_SESSIONS_PER_USER=1, ON_LIMIT="refuse")
    first = sign_in(app)
    visitor = app.test_client()
    visitor.post("/set", json={"lang": "jp"})
    refused = visitor.post("/login/7")
    assert (refused.status_code, refused.headers["Cache-Control"]) == (403, "no-store")
    assert "as many devices" in refused.text
    assert cookie_of(refused) is None
    assert visitor.get("/who").json == {"user": None, "level": 0, "lang": "jp"}
    assert who(app, first) == "7"

    first.post("/logout")
    assert visitor.post("/login/7").status_code == 200


def test_the_application_has_a_page_of_its_own_for_that(make_app: MakeApp) -> None:
    app = make_app(MAX_SESSIONS_PER_USER=1, ON_LIMIT="refuse")

    @app.errorhandler(SessionLimitReached)
    def own_page(_: SessionLimitReached) -> tuple[str, int]:
        return "end one of your devices first", 409

    sign_in(app)
    own = app.test_client().post("/login/7")
    assert (own.status_code, own.text) == (409, "end one of your devices first")


def test_the_application_says_how_many_each_user_may_have(make_app: MakeApp) -> None:
    asked: list[str] = []

    def most(user: str) -> int | None:
        asked.append(user)
        return {"7": 1}.get(user)

    app = make_app(MAX_SESSIONS_PER_USER=most)
    first, second = sign_in(app), sign_in(app)
    others = [sign_in(app, "8") for _ in range(3)]
    assert [who(app, client) for client in (first, second, *others)] == [None, "7", "8", "8", "8"]
    assert asked == ["7", "7", "8", "8", "8"]


@pytest.mark.parametrize("answer", [0, -1, True, 1.5, "2", ZeroDivisionError()])
def test_an_application_that_does_not_say_signs_no_user_in(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    """There is no way past a limit: what is not known is not taken for none."""

    def most(user: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    app = make_app(MAX_SESSIONS_PER_USER=most)
    assert app.test_client().post("/login/7").status_code == 503
    assert "LANGPONT_SESSION_MAX_SESSIONS_PER_USER" in caplog.text
    assert parts(app).backend.database.sessions_of("7") == []


def test_the_limit_holds_while_redis_is_away(make_app: MakeApp, primary: Valkey) -> None:
    """The database decides. Redis hears of what ended when it is back."""
    app = make_app(MAX_SESSIONS_PER_USER=1)
    first = sign_in(app)
    with switched_off(app, "primary"):
        first.get("/who")
        wait_for_level(app, 2)
        second = sign_in(app)
        assert who(app, first) is None
        with switched_off(app, "database"):
            assert app.test_client().post("/login/7").status_code == 503
    parts(app).monitor.tick()
    assert [who(app, client) for client in (first, second)] == [None, "7"]
    assert entry(primary, first.digest)["@live"] == "0"
