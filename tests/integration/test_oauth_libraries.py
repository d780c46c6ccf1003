"""Flask-Dance, flask-oidc and Authlib as they are, with a provider on this machine: signed in, seen, signed out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from flask import Flask, jsonify, redirect, session

from flask_langpont_session.testing import switched_off

from .behind import browser, digest, row
from .conftest import MakeApp, cookie_of
from .forms_site import User, with_login_manager

LIBRARIES = ("authlib", "flask_dance", "flask_oidc")
missing = [name for name in LIBRARIES if find_spec(name) is None]
if missing and not os.environ.get("CI"):
    pytest.skip(f"not installed: {', '.join(missing)}; pip install --group test", allow_module_level=True)

from authlib.integrations.flask_client import OAuth  # noqa: E402
from flask_dance.consumer import OAuth2ConsumerBlueprint  # noqa: E402
from flask_oidc import OpenIDConnect  # noqa: E402

from .oauth_provider import CLIENT, Provider, provider  # noqa: E402

ALICE = {"sub": "248289761001", "name": "Alice", "email": "alice@example.org", "email_verified": True}
BOB = {"sub": "90125", "name": "Bob", "email": "bob@example.org", "email_verified": True}


@pytest.fixture
def idp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    with provider() as running:
        running.claims = ALICE
        yield running


def signed_in(idp: Provider, app: Flask, path: str) -> Any:
    """A browser that has been to the provider and back."""
    client: Any = app.test_client()
    response = idp.signs_in(client, path)
    assert response.status_code == 302, response.text
    client.cookie = cookie_of(response)
    client.digest = digest(client.cookie)
    return client


def live(app: Flask, client: Any) -> bool:
    return bool(row(app, client.digest)["live"])


# -- Authlib -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def authlib(make_app: MakeApp, idp: Provider) -> Flask:
    """Return an application as in Authlib's documentation (Flask OpenID Connect client)."""
    app = make_app()
    oauth = OAuth(app)
    oauth.register(
        name="idp",
        server_metadata_url=f"{idp.url}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid email"},
        **CLIENT,
    )

    @app.get("/sign-in")
    def sign_in() -> Any:
        return oauth.idp.authorize_redirect("http://localhost/auth")

    @app.get("/auth")
    def auth() -> Any:
        token = oauth.idp.authorize_access_token()
        session["user"] = token["userinfo"]
        return redirect("/")

    @app.get("/sign-out")
    def sign_out() -> Any:
        session.pop("user", None)
        return redirect("/")

    return app


def name_of(app: Flask, client: Any) -> str | None:
    user = browser(app, client.cookie).get("/get/user").json["value"]
    return user and str(user["name"])


def test_authlib(authlib: Flask, idp: Provider) -> None:
    """The user of the row is the provider's ``sub``; it holds without Redis, and the sign-out without the database."""
    client = signed_in(idp, authlib, "/sign-in")
    assert client.get("/get/user").json["value"].items() >= ALICE.items()
    assert client.get("/all").json.keys() == {"user"}, "nothing is left of the way there"
    assert row(authlib, client.digest)["user_id"] == ALICE["sub"]
    with switched_off(authlib, "primary"):
        assert name_of(authlib, client) == "Alice"
    with switched_off(authlib, "database"):
        assert client.get("/sign-out").status_code == 302
        assert name_of(authlib, client) is None


def test_authlib_over_a_session_of_another_user(authlib: Flask, idp: Provider) -> None:
    """A new id, and nothing of the one before but the looks."""
    client = signed_in(idp, authlib, "/sign-in")
    client.post("/set", json={"input_text": "private", "lang": "jp"})
    idp.claims = BOB
    assert idp.signs_in(client, "/sign-in").status_code == 302
    shown = client.get("/all").json
    assert (shown["user"]["name"], shown.keys()) == ("Bob", {"user", "lang"})
    assert not live(authlib, client)


# -- flask-oidc --------------------------------------------------------------------------------------------------------


@pytest.fixture
def oidc(make_app: MakeApp, idp: Provider) -> Flask:
    """Return an application as in flask-oidc's documentation."""
    app = make_app()
    app.config.update(
        OIDC_CLIENT_SECRETS={"web": {**CLIENT, "issuer": idp.url}},
        OIDC_INTROSPECTION_AUTH_METHOD="client_secret_post",
    )
    extension = OpenIDConnect(app)

    @app.get("/")
    def home() -> Any:
        return jsonify(extension.user_loggedin, (session.get("oidc_auth_profile") or {}).get("name"))

    @app.post("/use-up")
    def use_up() -> str:
        session["oidc_auth_token"]["expires_at"] = 1
        return "used up"

    app.add_url_rule("/private", view_func=extension.require_login(private))
    return app


def private() -> str:
    return "for users only"


def test_flask_oidc(oidc: Flask, idp: Provider) -> None:
    """Each sign-in was a 500: its token is a dict of a class of its own."""
    client = signed_in(idp, oidc, "/login")
    assert client.get("/").json == [True, "Alice"]
    assert client.get("/private").text == "for users only"
    assert row(oidc, client.digest)["user_id"] == ALICE["sub"]
    with switched_off(oidc, "primary"):
        assert browser(oidc, client.cookie).get("/").json == [True, "Alice"]
    with switched_off(oidc, "database"):
        assert client.get("/logout").status_code == 302
        assert client.get("/").json == browser(oidc, client.cookie).get("/").json == [False, None]


def test_flask_oidc_refreshes_its_token(oidc: Flask, idp: Provider) -> None:
    """The token is refreshed in the middle of a page; the session stays the same one."""
    client = signed_in(idp, oidc, "/login")
    client.post("/use-up")
    response = client.get("/")
    assert (response.json, cookie_of(response)) == ([True, "Alice"], None)
    refreshed = client.get("/get/oidc_auth_token").json["value"]
    assert refreshed["expires_at"] > 1
    assert "userinfo" not in refreshed
    assert (live(oidc, client), row(oidc, client.digest)["user_id"]) == (True, ALICE["sub"])


def test_flask_oidc_over_a_session_that_is_signed_in(oidc: Flask, idp: Provider) -> None:
    """Its token is what signs in, and its profile follows: both are those of the new user."""
    client = signed_in(idp, oidc, "/login")
    idp.claims = BOB
    assert idp.signs_in(client, "/login").status_code == 302
    assert client.get("/").json == [True, "Bob"]
    assert not live(oidc, client)


# -- Flask-Dance -------------------------------------------------------------------------------------------------------


@pytest.fixture
def dance(make_app: MakeApp, idp: Provider) -> Flask:
    """Return an application as in Flask-Dance's documentation; beside Flask-Login, which learns of the user in a
    later request."""
    app = with_login_manager(make_app())
    blueprint = OAuth2ConsumerBlueprint(
        "idp",
        __name__,
        scope=["openid", "email"],
        authorization_url=f"{idp.url}/authorize",
        token_url=f"{idp.url}/token",
        base_url=f"{idp.url}/",
        **CLIENT,
    )
    app.register_blueprint(blueprint, url_prefix="/login")

    @app.get("/")
    def home() -> Any:
        if not blueprint.session.authorized:
            return redirect("/login/idp")
        return jsonify(blueprint.session.get("userinfo").json()["name"])

    @app.post("/member")
    def member() -> str:
        from flask_login import login_user

        login_user(User(blueprint.session.get("userinfo").json()["sub"]))
        return "welcome"

    @app.post("/revoke")
    def revoke() -> str:
        del blueprint.token
        return "revoked"

    return app


def test_flask_dance(dance: Flask, idp: Provider) -> None:
    """Its token is a right: in the database, shown without Redis; without a user, removing it is a sign-out."""
    client = signed_in(idp, dance, "/login/idp")
    assert client.get("/").json == "Alice"
    assert client.get("/all").json.keys() == {"idp_oauth_token"}
    assert live(dance, client)
    with switched_off(dance, "primary"):
        assert browser(dance, client.cookie).get("/").json == "Alice"
    with switched_off(dance, "database"):
        assert client.post("/revoke").status_code == 200
        assert browser(dance, client.cookie).get("/").status_code == 302
    assert client.get("/").location == "/login/idp"


def test_flask_dance_beside_flask_login(dance: Flask, idp: Provider) -> None:
    """The token stays when the session gets its user, or the way to the provider would never end."""
    client = signed_in(idp, dance, "/login/idp")
    response = client.post("/member")
    assert client.get("/").json == "Alice"
    assert client.get("/get/_user_id").json["value"] == ALICE["sub"]
    assert row(dance, digest(cookie_of(response)))["user_id"] == ALICE["sub"]
    assert not live(dance, client)
    assert client.post("/revoke").status_code == 200
    assert client.get("/get/_user_id").json["value"] == ALICE["sub"], "a user who is signed in otherwise stays so"
