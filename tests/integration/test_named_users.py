"""A user key whose value is a dict, as OAuth libraries store it: which user it is, and what changes that."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from flask_langpont_session.testing import switched_off

from .behind import browser, digest, row
from .conftest import MakeApp, cookie_of, in_production, parts

ALICE = {"sub": "248289761001", "name": "Alice"}
TOKEN = {"access_token": "a", "refresh_token": "r", "expires_at": 4_000_000_000, "userinfo": ALICE}
REFRESHED = {"access_token": "b", "refresh_token": "r", "expires_at": 4_000_000_000}


@pytest.fixture
def make_app(make_app: MakeApp) -> MakeApp:
    return in_production(make_app)


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


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
