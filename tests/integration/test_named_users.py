"""A user key whose value is a dict, as OAuth libraries store it: which user it is, and what changes that."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, jsonify, request, session

from flask_langpont_session import UnsupportedValue
from flask_langpont_session.events import ValueRejected
from flask_langpont_session.testing import captured_events, switched_off

from .behind import browser, digest, row
from .conftest import MakeApp, cookie_of, in_production, parts

ALICE = {"sub": "248289761001", "name": "Alice"}
BOB = {"sub": "90125", "name": "Bob"}
TOKEN = {"access_token": "a", "refresh_token": "r", "expires_at": 4_000_000_000, "userinfo": ALICE}
REFRESHED = {"access_token": "b", "refresh_token": "r", "expires_at": 4_000_000_000}


@pytest.fixture
def make_app(make_app: MakeApp) -> MakeApp:
    return in_production(make_app)


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = make_app()

    @app.post("/inside/<key>")
    def inside(key: str) -> Any:
        """Changes the dict; with ``?again``, assigns it again, as applications do that know Flask's session."""
        value = session[key]
        value.update(request.get_json())
        if "again" in request.args:
            session[key] = value
        return jsonify(value)

    @app.post("/new-id")
    def new_id() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return "regenerated"

    @app.post("/make-inside")
    def make_inside() -> str:
        session.setdefault("user", {}).update(request.get_json())
        return "made"

    @app.post("/one-after-the-other/<key>")
    def one_after_the_other(key: str) -> str:
        for value in request.get_json():
            session[key] = value
        return "assigned"

    @app.post("/assign-and-change")
    def assign_and_change() -> str:
        session["user"] = value = dict(ALICE)
        value.update(request.get_json())
        return "changed"

    return app


def signed_in(app: Flask, **keys: Any) -> Any:
    """A browser with a session of its own."""
    client: Any = app.test_client()
    response = client.post("/set", json=keys)
    assert response.status_code == 200
    client.cookie = cookie_of(response)
    client.digest = digest(client.cookie)
    assert client.get("/all").json == keys
    return client


def new_cookie(client: Any, response: Any) -> str | None:
    assert response.status_code == 200
    return cookie_of(response)


SIGN_INS: list[tuple[str, Any, str | None]] = [
    ("user", ALICE, "248289761001"),
    ("user", {"id": 7, "name": "Alice"}, "7"),
    ("user", "alice", "alice"),
    ("user", {"name": "Alice"}, None),
    ("user", ["alice", "admin"], None),
    ("oidc_auth_token", TOKEN, "248289761001"),
    ("oidc_auth_token", REFRESHED, None),
    ("_user_id", {"id": "7"}, "7"),
]


def test_it_signs_in_with_a_row_of_its_user(app: Flask) -> None:
    """The row has the user's id, so that the user can be found and logged out everywhere; no row, no user."""
    for key, value, user in SIGN_INS:
        client = signed_in(app, **{key: value})
        assert row(app, client.digest)["user_id"] == user
        interface: Any = app.session_interface
        with app.app_context():
            assert [info.digest for info in interface.sessions(user or "")] == ([client.digest] if user else [])
            interface.revoke_user(user) if user else interface.revoke(client.digest)
        assert client.get("/all").json == {}


def test_assigning_no_user_is_a_sign_out(app: Flask) -> None:
    """Assigning no user signs the user out, as removing the key does."""
    no_users: list[Any] = [None, "", {}, [], False]
    for no_user in no_users:
        client = signed_in(app, user=ALICE)
        assert client.post("/set", json={"user": no_user}).status_code == 200
        assert client.get("/all").json == {}
        assert not row(app, client.digest)["live"]
        visitor: Any = app.test_client()
        with captured_events(app) as seen:
            assert new_cookie(visitor, visitor.post("/set", json={"user": no_user})) is None
        assert seen == []


def test_signing_out_works_with_the_database_down(app: Flask) -> None:
    """``session.pop("user")``, and flask-oidc's ``session.pop("oidc_auth_token")``."""
    for keys in ({"user": ALICE}, {"oidc_auth_token": TOKEN, "oidc_auth_profile": ALICE}):
        client = signed_in(app, **keys)
        with switched_off(app, "database"):
            assert client.post(f"/pop/{next(iter(keys))}").status_code == 200
            assert client.get("/all").json == {}
            assert browser(app, client.cookie).get("/all").json == {}


@pytest.mark.parametrize("no_user", [None, {}])
def test_saying_that_there_is_no_user_ends_no_session_that_cannot_be_verified(app: Flask, no_user: Any) -> None:
    """Applications may do so for each visitor without a user: in an outage of both stores that may be any user."""
    client = signed_in(app, user=ALICE)
    with switched_off(app, "primary"), switched_off(app, "database"):
        stranger = browser(app, client.cookie)  # of a session that this worker has to forget first
        parts(app).backend.memory.clear()
        assert stranger.get("/get/user").json["value"] is None
        assert stranger.post("/set", json={"user": no_user}).status_code == 200
    assert client.get("/get/user").json["value"] == ALICE


def test_a_user_is_not_made_inside_of_a_value(app: Flask) -> None:
    """``session.setdefault("user", {})`` says that there is none; what is put into it afterwards is no sign-in."""
    client = signed_in(app, _user_id="7")
    with captured_events(app) as seen:
        assert client.post("/make-inside", json=ALICE).status_code == 200
    assert [event.key for event in seen if isinstance(event, ValueRejected)] == ["user"]
    assert client.get("/all").json == {"_user_id": "7"}
    assert row(app, client.digest)["live"]


@pytest.mark.parametrize("again", ["", "?again"])
def test_what_changes_inside_of_it_is_a_change_of_rights(app: Flask, again: str) -> None:
    """The session keeps its id and its other data; without the database it is refused, as a role would be."""
    client = signed_in(app, user=ALICE, user_role="editor", daily_limit=5)
    with switched_off(app, "database"):
        assert client.post(f"/inside/user{again}", json={"name": "Eve"}).status_code == 503
    assert client.get("/get/user").json["value"] == ALICE
    response = client.post(f"/inside/user{again}", json={"name": "Alice B."})
    assert new_cookie(client, response) is None
    changed = {"user": {**ALICE, "name": "Alice B."}, "user_role": "editor", "daily_limit": 5}
    assert client.get("/all").json == browser(app, client.cookie).get("/all").json == changed
    assert row(app, client.digest)["user_id"] == "248289761001"


def test_no_session_gets_another_user_without_a_new_id(app: Flask) -> None:
    """Inside of the value it is not stored, and reported; assigned, it is a sign-in."""
    client = signed_in(app, user=ALICE, user_role="editor")
    with captured_events(app) as seen:
        assert new_cookie(client, client.post("/inside/user", json=BOB)) is None
    assert [(event.category, event.key) for event in seen if isinstance(event, ValueRejected)] == [("auth", "user")]
    assert client.get("/all").json == {"user": ALICE, "user_role": "editor"}
    assert row(app, client.digest)["user_id"] == "248289761001"
    cookie = new_cookie(client, client.post("/inside/user?again", json=BOB))
    assert client.get("/all").json == {"user": BOB}
    assert row(app, digest(cookie))["user_id"] == "90125"
    assert not row(app, client.digest)["live"]


def test_what_is_assigned_is_the_user_who_signs_in(app: Flask) -> None:
    """The user is the one that was assigned, not what the dict is changed to afterwards; other facts about the user
    count as they are at the end."""
    client: Any = app.test_client()
    cookie = new_cookie(client, client.post("/assign-and-change", json=BOB))
    assert client.get("/get/user").json["value"] == ALICE
    assert row(app, digest(cookie))["user_id"] == "248289761001"
    client.post("/assign-and-change", json={"name": "Alice B."})
    assert client.get("/get/user").json["value"] == {**ALICE, "name": "Alice B."}


AGAIN: list[tuple[Any, Any, bool]] = [
    (ALICE, {**ALICE, "name": "Alice B."}, True),
    (ALICE, BOB, False),
    ("alice", "alice", True),
    ("alice", "bob", False),
    (ALICE, {"name": "Alice"}, False),
    ({"name": "Alice"}, {"name": "Alice"}, False),  # nothing says that it is the same one
    (["alice"], ["alice"], False),
]


def test_signing_in_again(app: Flask) -> None:
    """A new id in any case; of the same user what a sign-in keeps, of another one what a sign-out keeps."""
    for before, after, is_same in AGAIN:
        client = signed_in(app, user=before, input_text="private", lang="jp", user_role="editor")
        cookie = new_cookie(client, client.post("/set", json={"user": after}))
        assert cookie
        assert not row(app, client.digest)["live"]
        kept = {"input_text": "private", "lang": "jp"} if is_same else {"lang": "jp"}
        assert client.get("/all").json == {"user": after, **kept}


def test_a_refreshed_token_is_no_sign_in(app: Flask) -> None:
    """It names no user: the session, its id and the row's user stay. It is a change of rights."""
    client = signed_in(app, oidc_auth_token=TOKEN, oidc_auth_profile=ALICE)
    assert new_cookie(client, client.post("/set", json={"oidc_auth_token": REFRESHED})) is None
    assert client.get("/all").json == {"oidc_auth_token": REFRESHED, "oidc_auth_profile": ALICE}
    assert row(app, client.digest)["user_id"] == "248289761001"
    with switched_off(app, "database"):
        assert client.post("/set", json={"oidc_auth_token": {"access_token": "c"}}).status_code == 503
    assert new_cookie(client, client.post("/new-id"))
    assert client.get("/all").json == {"oidc_auth_token": REFRESHED, "oidc_auth_profile": ALICE}
    assert new_cookie(client, client.post("/set", json={"oidc_auth_token": {**TOKEN, "userinfo": BOB}}))
    assert "oidc_auth_profile" not in client.get("/all").json


REPLACED: list[tuple[str, list[Any], str | None]] = [
    ("oidc_auth_token", [TOKEN, REFRESHED], "248289761001"),
    ("oidc_auth_token", [TOKEN, REFRESHED, {"access_token": "c"}], "248289761001"),
    ("oidc_auth_token", [TOKEN, {**TOKEN, "userinfo": BOB}, REFRESHED], "90125"),
    ("oidc_auth_token", [TOKEN, None, REFRESHED], None),
    ("user", [ALICE, {"name": "Bob"}], None),  # nothing says that it is the same one
]


def test_the_user_of_a_sign_in_whose_value_is_replaced_at_once(app: Flask) -> None:
    """A token that the request of the sign-in refreshes takes the user from the row no more than a later one does."""
    for key, values, user in REPLACED:
        client: Any = app.test_client()
        cookie = new_cookie(client, client.post(f"/one-after-the-other/{key}", json=values))
        assert client.get("/all").json == {key: values[-1]}
        assert row(app, digest(cookie))["user_id"] == user


def test_a_token_is_taken_along_when_its_session_gets_a_user(app: Flask) -> None:
    """The token is carried when the user follows in a later request, as with Flask-Dance and Flask-Login. No other
    right is."""
    token = {"access_token": "gho_x", "scope": ["user"]}
    client = signed_in(app, github_oauth_token=token, early_access=True, input_text="typed", daily_limit=5)
    cookie = new_cookie(client, client.post("/set", json={"_user_id": "7", "username": "alice"}))
    expected = {"_user_id": "7", "username": "alice", "github_oauth_token": token, "input_text": "typed"}
    assert client.get("/all").json == browser(app, str(cookie)).get("/all").json | {"input_text": "typed"} == expected
    assert row(app, digest(cookie))["user_id"] == "7"
    assert not row(app, client.digest)["live"]
    client.post("/set", json={"_user_id": "8"})
    assert client.get("/all").json == {"_user_id": "8"}


def test_where_flask_login_alone_names_the_user(make_app: MakeApp) -> None:
    """The user is named in a later request, as the docs advise for flask-oidc beside Flask-Login."""
    app = make_app(USER_KEYS=["_user_id"])
    keys = {"oidc_auth_token": TOKEN, "oidc_auth_profile": ALICE}
    client = signed_in(app, **keys)
    assert row(app, client.digest)["user_id"] is None
    cookie = new_cookie(client, client.post("/set", json={"_user_id": "7"}))
    assert client.get("/all").json == {**keys, "_user_id": "7"}
    assert row(app, digest(cookie))["user_id"] == "7"


def test_where_the_key_is_no_identity(make_app: MakeApp) -> None:
    """It is taken out in two lines, as the docs say."""
    app = make_app(USER_KEYS=["_user_id"], FEATURES={"profile": {"keys": ["user"], "category": "ui"}})
    visitor: Any = app.test_client()
    with switched_off(app, "database"):  # which has no word in it
        assert visitor.post("/set", json={"user": ALICE}).status_code == 200
    assert visitor.get("/get/user").json["value"] == ALICE


def test_a_token_that_was_withdrawn_elsewhere_is_not_taken_along(app: Flask, make_app: MakeApp) -> None:
    """A token that this worker believes only for the rest of a lease is not given to another user for good."""
    elsewhere = make_app(JOURNAL=None)
    client = signed_in(app, github_oauth_token={"access_token": "x"}, logged_in=True)
    with switched_off(elsewhere, "primary"):
        assert browser(elsewhere, client.cookie).post("/pop/github_oauth_token").status_code == 200
    assert parts(app).health.level == 0
    client.post("/set", json={"_user_id": "7"})
    assert client.get("/all").json == {"_user_id": "7"}


def test_only_redis_makes_no_user_of_a_dict(app: Flask) -> None:
    """With the database down a dict signs no user in."""
    client: Any = app.test_client()
    with switched_off(app, "database"):
        assert client.post("/set", json={"user": ALICE}).status_code == 503
        assert client.post("/set", json={"github_oauth_token": {"access_token": "x"}}).status_code == 503
    assert client.get("/all").json == {}


def test_an_id_that_no_column_holds_is_refused(app: Flask) -> None:
    """The assignment raises the error."""
    for value in (
        "x" * 256,
        "a\0b",
        "half \ud83d",
        {"sub": "x" * 256},
        {"userinfo": {"sub": "a\0b"}},
        {"id": "\udfff"},
    ):
        with (
            app.test_request_context("/"),
            pytest.raises(UnsupportedValue, match="a user id has at most 255 characters"),
        ):
            session["user"] = value


PYOIDC = {"last_authenticated": 1, "last_session_refresh": 1, "access_token": "a", "id_token": ALICE, "userinfo": ALICE}
"""The keys that Flask-pyoidc assigns, in its order."""


def test_flask_pyoidc_signs_in_refreshes_and_names_its_user(app: Flask) -> None:
    """Its sign-in is a right; the application names the user in a later request, by an id of its own, and pyoidc still
    takes the session for signed in. Its sign-out ends the session."""
    client = signed_in(app, current_provider="main", **PYOIDC)
    assert row(app, client.digest)["user_id"] is None
    refreshed = {**PYOIDC, "last_session_refresh": 2, "access_token": "b"}
    assert new_cookie(client, client.post("/set", json=refreshed)) is None
    cookie = new_cookie(client, client.post("/set", json={"user_id": ALICE["sub"]}))
    assert client.get("/all").json == {"current_provider": "main", **refreshed, "user_id": ALICE["sub"]}
    assert row(app, digest(cookie))["user_id"] == ALICE["sub"]
    for key in ("access_token", "id_token", "last_authenticated"):
        client.post(f"/pop/{key}")
    assert client.get("/all").json["user_id"] == ALICE["sub"]
    client.post("/pop/user_id")
    assert client.get("/all").json == {}


def test_a_visitors_tokens_are_not_carried_to_a_user(app: Flask) -> None:
    client: Any = app.test_client()
    client.post("/set", json={"access_token": "of the visitor", "cart": [1]})
    client.post("/set", json={"user_id": "7"})
    assert client.get("/all").json == {"user_id": "7", "cart": [1]}
