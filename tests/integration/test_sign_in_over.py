"""Signing in over a session of a user: what is taken along depends on whose it is."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, jsonify, request, session

from flask_langpont_session.exceptions import GrantRefused
from flask_langpont_session.testing import switched_off

from .behind import age_row, browser, digest, row
from .conftest import MakeApp, cookie_of, parts
from .forms_site import with_login_manager

TEXTS = {"input_text": "private", "source_lang": "jp", "usage_count": 3}
LOOKS = {"lang": "jp", "theme": "dark"}
USERS = ("_user_id", "user_id", "username")


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = with_login_manager(make_app(HEALTH_INTERVAL=3600))

    @app.post("/sign-in")
    def sign_in() -> Any:
        for key, value in request.get_json():  # one after the other
            session[key] = value
        return jsonify(dict(session))

    @app.post("/flask-login/<user>")
    def flask_login(user: str) -> Any:
        from flask_login import login_user

        from .forms_site import User

        login_user(User(user))
        return jsonify(dict(session))

    @app.post("/new-id-and/<user>")
    def new_id_and(user: str) -> Any:
        session.regenerate()  # type: ignore[attr-defined]
        session["_user_id"] = user
        return jsonify(dict(session))

    return app


def signed_in(app: Flask, **keys: Any) -> Any:
    """A browser of a user with texts and looks."""
    client: Any = app.test_client()
    response = client.post("/sign-in", json=list(keys.items()))
    assert response.status_code == 200
    client.cookie = cookie_of(response)
    client.post("/set", json={**TEXTS, **LOOKS})
    assert client.get("/all").json == {**keys, **TEXTS, **LOOKS}
    return client


def sign_in_over(client: Any, *keys: tuple[str, Any]) -> Any:
    """Sign in in that browser; what it shows afterwards, in the same request and in the next one."""
    response = client.post("/sign-in", json=keys)
    assert response.status_code == 200
    shown = client.get("/all").json
    assert response.json == shown
    assert cookie_of(response)
    return shown


A = {"_user_id": "7", "user_id": 7, "username": "alice", "user_role": "admin"}


ANOTHER_S: list[list[tuple[str, Any]]] = [
    [("_user_id", "8")],
    [("user_id", 8), ("username", "bob"), ("_user_id", "8")],
    [("username", "bob"), ("user_id", 8)],
    [("username", "alice"), ("user_id", 8)],  # the first one could be the same user
    [("user_id", 7), ("_user_id", "8"), ("username", "bob")],
]


def test_d15_another_user_gets_nothing_but_the_looks(app: Flask) -> None:
    """Another user gets no data, as soon as one of several user keys names another user, whatever their order. No
    role either."""
    for keys in ANOTHER_S:
        client = signed_in(app, **A)
        assert sign_in_over(client, *keys) == {**dict(keys), **LOOKS}
        assert browser(app, client.cookie).get("/all").json == {}
        assert not row(app, digest(client.cookie))["live"]


THE_SAME_S: list[list[tuple[str, Any]]] = [
    [("_user_id", "7")],
    [("username", "alice"), ("user_id", 7), ("_user_id", "7")],
    [("user_id", "7")],
]


def test_the_same_user_keeps_what_a_sign_in_keeps(app: Flask) -> None:
    """Texts and looks, and no role: the sign-in gives that anew, or does not."""
    for keys in THE_SAME_S:
        client = signed_in(app, **A)
        assert sign_in_over(client, *keys) == {**dict(keys), **TEXTS, **LOOKS}


def test_d15_what_nothing_says_to_be_the_same_user_is_another(app: Flask) -> None:
    """The session knew its user by another key: that a name is new says nothing about whose the texts are."""
    client = signed_in(app, _user_id="7")
    assert sign_in_over(client, ("username", "alice"), ("_user_id", "7")) == {
        "username": "alice", "_user_id": "7", **LOOKS,
    }  # fmt: skip


def test_d15_what_is_set_between_two_user_keys_is_the_new_user_s(app: Flask) -> None:
    """Only what the other user left is taken out again."""
    client = signed_in(app, _user_id="7", username="alice")
    keys = [("username", "alice"), ("input_text", "mine"), ("target_lang", "en"), ("_user_id", "8")]
    assert sign_in_over(client, *keys) == {**dict(keys), **LOOKS}


def test_d15_what_is_set_before_over_another_session_is_that_one_s(app: Flask) -> None:
    """Auth that a request says over a user's session, before it names the user, belongs to that session."""
    client = signed_in(app, _user_id="7")
    assert sign_in_over(client, ("target_lang", "en"), ("_user_id", "8")) == {"_user_id": "8", **LOOKS}


def test_d15_after_a_change_of_id_in_the_same_request(app: Flask) -> None:
    """regenerate() takes everything along; a sign-in after it does not."""
    client = signed_in(app, _user_id="7", user_role="admin")
    assert client.post("/new-id-and/8").json == client.get("/all").json == {"_user_id": "8", **LOOKS}
    client = signed_in(app, _user_id="7", user_role="admin")
    assert client.post("/new-id-and/7").json == client.get("/all").json == {"_user_id": "7", **TEXTS, **LOOKS}


@pytest.mark.parametrize("keys", [[("_user_id", "8")], [("username", "alice"), ("_user_id", "8")]])
@pytest.mark.parametrize("remember", [None, True, False])
def test_d15_being_remembered_is_not_taken_along(
    app: Flask, keys: list[tuple[str, Any]], remember: bool | None
) -> None:
    """A permanent session is the choice of its own user; the new one is remembered only if that is said anew."""
    client: Any = app.test_client()
    client.post("/sign-in", json=[("_permanent", True), ("_user_id", "7"), ("username", "alice")])
    said = [] if remember is None else [("_permanent", remember)]
    for order in ([*said, *keys], [*keys, *said]):
        response = client.post("/sign-in", json=order)
        assert ("Expires=" in response.headers["Set-Cookie"]) is bool(remember)
        found = row(app, digest(cookie_of(response)))
        hours = (found["absolute_expires_at"] - found["created_at"]) / 3_600_000
        assert hours == (31 * 24 if remember else 12)
        client.post("/sign-in", json=[("_permanent", True), ("_user_id", "7"), ("username", "alice")])
    assert "Expires=" in client.post("/sign-in", json=[("_user_id", "7")]).headers["Set-Cookie"]


def test_d15_a_value_that_was_changed_in_place_is_still_the_other_user_s(app: Flask) -> None:
    """A list is the same list, whatever was put into it."""

    @app.post("/add")
    def add() -> Any:
        session["username"] = "alice"
        session["context_info"].append("more")
        session["_user_id"] = "8"
        return jsonify(dict(session))

    client = signed_in(app, _user_id="7", username="alice")
    client.post("/set", json={"context_info": ["private"]})
    assert client.post("/add").json == client.get("/all").json == {"username": "alice", "_user_id": "8", **LOOKS}


def test_d15_by_flask_login(app: Flask) -> None:
    """``login_user()`` over a session of the same user, or of another one."""
    for user, texts in [("7", True), ("8", False)]:
        client: Any = app.test_client()
        client.post("/flask-login/7")
        client.post("/set", json={**TEXTS, **LOOKS})
        client.post("/flask-login/" + user)
        shown = client.get("/all").json
        assert shown.pop("_user_id") == user
        assert {key: shown[key] for key in shown.keys() - {"_id", "_fresh"}} == ({**TEXTS, **LOOKS} if texts else LOOKS)


def test_rights_without_a_user_are_no_other_user_s_session(app: Flask) -> None:
    """A session that was never any user's is as a visitor's: a user who signs in takes along what was typed there."""
    client = signed_in(app, early_access=True)
    assert sign_in_over(client, ("_user_id", "7")) == {"_user_id": "7", **TEXTS, **LOOKS}


def test_a_visitor_takes_along_what_was_typed(app: Flask) -> None:
    """No other user's: as ever."""
    client: Any = app.test_client()
    client.post("/set", json={**TEXTS, **LOOKS})
    assert sign_in_over(client, ("username", "bob"), ("user_id", 8)) == {
        "username": "bob", "user_id": 8, **TEXTS, **LOOKS,
    }  # fmt: skip


def test_d15_over_a_session_that_cannot_be_verified(app: Flask) -> None:
    """Nothing says whose it is: its texts stay behind. The row has run out, and Redis, which may know better, is away:
    the session cannot be verified although the database answers and takes the sign-in."""
    client = signed_in(app, _user_id="7", user_role="admin")
    with parts(app).monitor.paused(), switched_off(app, "primary"):
        age_row(app, digest(client.cookie), 30 * 24 * 3_600_000, "idle_expires_at")
        assert client.get("/who").json["user"] is None
        assert client.get("/get/input_text").json["value"] == "private"
        response = client.post("/sign-in", json=[("_user_id", "8")])
        assert response.status_code == 200
        assert "input_text" not in response.json
        assert response.json["_user_id"] == "8"
        assert client.get("/get/input_text").json["value"] is None
    assert client.get("/get/input_text").json["value"] is None
    assert client.get("/who").json["user"] == "8"


def test_a_refused_sign_in_takes_nothing_from_the_session(app: Flask) -> None:
    """503, and the other user's session is as it was."""
    client = signed_in(app, **A)
    with switched_off(app, "database"):
        assert client.post("/sign-in", json=[("_user_id", "8")]).status_code == GrantRefused.code
    assert client.get("/all").json == {**A, **TEXTS, **LOOKS}


@pytest.mark.parametrize("key", ["_user_id", "user_role"])
def test_while_the_database_is_known_to_be_down_a_sign_in_is_refused_where_it_is_said(app: Flask, key: str) -> None:
    """The view goes no further, or says what it likes; a session that was there is as it was."""

    @app.post("/try-to-sign-in")
    def try_to_sign_in() -> Any:
        try:
            session[key] = "8"
        except GrantRefused:
            return jsonify(dict(session))
        return "granted"

    client, stranger = signed_in(app, **A), app.test_client()
    with switched_off(app, "database"):
        assert stranger.post("/try-to-sign-in").json == {}
        assert client.post("/try-to-sign-in").json == {**A, **TEXTS, **LOOKS}
    assert client.get("/all").json == {**A, **TEXTS, **LOOKS}
