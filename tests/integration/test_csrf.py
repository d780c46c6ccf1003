"""Flask-WTF's forms over a token that is derived from the session id: nothing stored, and no level without forms."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, render_template_string, request, session
from flask_login import login_user
from flask_wtf import CSRFProtect, FlaskForm
from wtforms import StringField

from devservers.servers import Valkey

from .behind import sign_in
from .conftest import MakeApp, cookie_of
from .counting import evals
from .forms_site import (
    User,
    at_level,
    browser,
    config_for,
    records,
    with_login_manager,
)

PAGE = "<form method=post>{{ form.csrf_token }}{{ form.input_text }}</form>"


class Form(FlaskForm):  # type: ignore[misc]  # Flask-WTF has no types
    input_text = StringField()


# A busy machine is not a database fault.


def with_forms(app: Flask) -> Flask:
    """CSRFProtect over everything but the pages that tests drive without a form, and pages with a form."""
    protect = CSRFProtect(app)
    for name in ("set_keys", "pop_key", "login", "logout"):
        protect.exempt(app.view_functions[name])

    @app.get("/form")
    def show() -> str:
        return render_template_string(PAGE, form=Form())

    @app.post("/form")
    def take() -> str:
        form = Form()
        assert form.validate_on_submit()  # as CSRFProtect found already: both look at the same token
        if form.input_text.data:
            session["input_text"] = form.input_text.data
        return f"valid at {session.level}"  # type: ignore[attr-defined]

    @app.post("/sign-in/<how>")
    def sign_in(how: str) -> str:
        early = render_template_string(PAGE, form=Form()) if "early" in request.args else ""
        if how == "flask-login":
            login_user(User("7"))
        else:
            session["_user_id"] = "7"
        return render_template_string(PAGE, form=Form()) + f"<!-- {early} -->"

    return app


MakeFormApp = Callable[..., Flask]


@pytest.fixture
def make_form_app(make_app: MakeApp) -> MakeFormApp:
    return lambda **config: with_forms(with_login_manager(make_app(**config)))


@pytest.fixture
def app(make_form_app: MakeFormApp) -> Flask:
    return make_form_app()


def token_in(response: Any) -> str:
    """The token of the first form of a page."""
    assert response.status_code == 200
    found = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', response.text)
    assert found
    return found[1]


def form_of(client: Any) -> str:
    """Open the page with the form."""
    return token_in(client.get("/form"))


def post(client: Any, token: str, **fields: str) -> Any:
    return client.post("/form", data={"csrf_token": token, **fields})


# -- visitors ----------------------------------------------------------------------------------------------------------


def test_a_new_visitor_gets_a_working_form_and_no_record(app: Flask, primary: Valkey) -> None:
    """One cookie, a form that is valid when it is posted, and nothing in Redis or SQL; no store is even asked."""
    client = browser(app)
    before = evals(primary)
    page = client.get("/form")
    assert cookie_of(page)
    answer = post(client, token_in(page))
    assert answer.text == "valid at 0"
    assert cookie_of(answer) is None
    assert evals(primary) == before
    assert records(app, primary) == ([], 0)


@pytest.mark.parametrize("cookie", [None, "", "forged", f"{'A' * 43}.us.aaaaaaaa.AAAAAA.{'A' * 43}"])
def test_a_post_without_a_good_cookie_is_refused_and_gets_none(app: Flask, primary: Valkey, cookie: str | None) -> None:
    """400 without Set-Cookie and without a look at any store: a blind post leaves no trace."""
    token = form_of(browser(app))
    stranger = app.test_client(use_cookies=False)
    before = evals(primary)
    headers = {} if cookie is None else {"HTTP_COOKIE": f"session={cookie}"}
    response = stranger.post("/form", data={"csrf_token": token}, environ_overrides=headers)
    assert response.status_code == 400
    assert not response.headers.getlist("Set-Cookie")
    assert evals(primary) == before
    assert records(app, primary) == ([], 0)


def test_the_token_of_one_session_is_worth_nothing_in_another(app: Flask) -> None:
    """Visitor or user: a form of session A posted in B is refused, either way round."""
    browsers = [browser(app), browser(app), sign_in(app, "7"), sign_in(app, "7")]
    tokens = [form_of(client) for client in browsers]
    for mine, client in enumerate(browsers):
        for whose, token in enumerate(tokens):
            assert post(client, token).status_code == (200 if whose == mine else 400)


# -- sign-in and sign-out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["session", "flask-login"])
def test_a_form_in_the_login_s_own_response_is_valid(app: Flask, how: str) -> None:
    """The new id exists from the moment the user key is set, also when a form had been rendered before that."""
    for query, before in itertools.product(("", "?early=1"), ("visitor", "user")):
        client = browser(app) if before == "visitor" else sign_in(app, "3")
        page = client.post(f"/sign-in/{how}{query}", data={"csrf_token": form_of(client)})
        assert cookie_of(page)
        assert client.get("/who").json["user"] == "7"
        assert post(client, token_in(page)).text == "valid at 0"
        if query:
            early = page.text.split("<!--")[1]
            assert post(client, re.findall(r'value="([^"]{20,})"', early)[0]).status_code == 400


def test_a_form_from_before_the_login_is_invalid_after_it(app: Flask) -> None:
    """Fixation: what was rendered for the visitor says nothing about the user; the user's own form is valid."""
    client = browser(app)
    old = form_of(client)
    client.post("/sign-in/session", data={"csrf_token": old})
    refused = post(client, old)
    assert refused.status_code == 400
    assert cookie_of(refused) is None
    assert client.get("/who").json["user"] == "7"
    assert post(client, form_of(client)).status_code == 200


# -- keys --------------------------------------------------------------------------------------------------------------

OLD, NEW = "test key of the test suite, 32+ bytes", "the next key of the suite, 32+ bytes"


@pytest.mark.parametrize("who", ["visitor", "user"])
def test_forms_survive_a_rotation_of_keys_while_the_old_key_is_a_fallback(app: Flask, who: str) -> None:
    """The token is derived from the key that verified the cookie. (Flask-WTF signs with a key of its own here.)"""
    app.config["WTF_CSRF_SECRET_KEY"] = "a key for Flask-WTF alone, 32+ bytes"
    client = browser(app) if who == "visitor" else sign_in(app)
    old = form_of(client)
    app.config.update(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=[OLD])
    answer = post(client, old)
    assert answer.status_code == 200
    assert cookie_of(answer) is None
    assert form_of(client)
    assert post(client, form_of(client)).status_code == 200
    assert client.get("/who").json["user"] == (None if who == "visitor" else "7")
    app.config.update(SECRET_KEY_FALLBACKS=[])
    refused = post(client, old)
    assert refused.status_code == 400
    assert cookie_of(refused) is None
    assert client.get("/who").json["user"] is None


# -- outages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [2, 4])
def test_a_form_works_for_a_visitor_at_every_level(make_form_app: MakeFormApp, primary: Valkey, level: int) -> None:
    """Rendered and posted in the outage: one cookie, valid, and no level without a contact form."""
    app = make_form_app(**config_for(level))
    known = browser(app)
    form_of(known)
    with at_level(app, level, primary):
        client = browser(app)
        page = client.get("/form")
        assert cookie_of(page)
        answer = post(client, token_in(page))
        assert answer.text == f"valid at {level}"
        assert cookie_of(answer) is None
        assert post(known, form_of(known)).text == f"valid at {level}"
        assert post(client, form_of(known)).status_code == 400


@pytest.mark.parametrize("level", [2, 4])
def test_a_form_works_for_a_user_at_every_level(make_form_app: MakeFormApp, primary: Valkey, level: int) -> None:
    """A user who is still signed in has valid forms, rendered before or in the outage; the cookie is not touched."""
    app = make_form_app(**config_for(level))
    client = sign_in(app)
    before = form_of(client)
    with at_level(app, level, primary):
        page = client.get("/form")
        assert client.get("/who").json["user"] == "7"
        assert cookie_of(page) is None
        for token in (before, token_in(page)):
            answer = post(client, token, input_text="x")
            assert answer.text == f"valid at {level}"
            assert cookie_of(answer) is None
    assert post(client, before).text == "valid at 0"
