"""Rights that are changed inside of their values: a grant, as one that is assigned."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, session

from flask_langpont_session.testing import switched_off

from .behind import browser, digest, row, sign_in, wait_until_home
from .conftest import MakeApp, cookie_of


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = make_app()

    @app.post("/need/<right>")
    def need(right: str) -> Any:
        session.setdefault("identity.provides", []).append(right)
        return session["identity.provides"]

    @app.post("/principal")
    def principal() -> str:
        session["identity.id"], session["identity.auth_type"] = "alice", None
        return "signed in"

    return app


def needs(app: Flask, client: Any) -> Any:
    return client.get("/get/identity.provides").json["value"]


def test_i3_a_right_that_grows_in_place_needs_the_database(app: Flask) -> None:
    """I3: with the database down it is a 503, as by assignment, and no worker shows it."""
    client = sign_in(app)
    assert client.post("/need/editor").json == ["editor"]
    with switched_off(app, "database"):
        response = client.post("/need/admin")
        assert (response.status_code, "Retry-After" in response.headers) == (503, True)
        assert needs(app, client) == ["editor"]
    assert needs(app, client) == ["editor"]
    assert "admin" not in str(row(app, client.digest)["payload"])
    assert client.post("/need/admin").json == ["editor", "admin"]
    assert needs(app, client) == ["editor", "admin"]
    assert "admin" in str(row(app, client.digest)["payload"])


@pytest.mark.parametrize("key", ["logged_in", "github_oauth_token"])
@pytest.mark.parametrize("store", ["primary", "database"])
def test_without_a_user_removing_the_last_right_is_a_sign_out(app: Flask, key: str, store: str) -> None:
    """It works at every level, and holds; what is the browser's lives on as after any sign-out."""
    client: Any = app.test_client()
    client.cookie = cookie_of(client.post("/set", json={key: True, "daily_limit": 5, "lang": "ja", "cart": ["tea"]}))
    client.get("/all")
    with switched_off(app, store):
        assert client.post(f"/pop/{key}").status_code == 200
        assert client.get("/get/daily_limit").json["value"] is None
        assert browser(app, client.cookie).get("/all").json == {}
    wait_until_home(app)
    assert not row(app, digest(client.cookie))["live"]
    assert client.get("/all").json == {"lang": "ja"}


def test_one_right_of_several_is_a_change_that_needs_the_database(app: Flask) -> None:
    """The others stay."""
    client: Any = app.test_client()
    client.post("/set", json={"logged_in": True, "early_access": True})
    client.post("/set", json={"authenticated": False})
    with switched_off(app, "database"):
        assert client.post("/pop/early_access").status_code == 503
    assert client.post("/pop/early_access").status_code == 200
    assert client.get("/all").json == {"logged_in": True, "authenticated": False}
    with switched_off(app, "database"):  # a right that is not given is none
        assert client.post("/pop/logged_in").status_code == 200
    assert client.get("/all").json == {}
