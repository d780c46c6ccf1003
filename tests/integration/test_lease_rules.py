"""Beliefs of a worker about auth, where a slip would show only under load or in an outage. Real servers."""

from __future__ import annotations

import pytest
from flask import Flask, session
from flask_login import logout_user

from flask_langpont_session.testing import switched_off

from .behind import browser, row, sign_in
from .conftest import MakeApp
from .forms_site import with_login_manager


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = with_login_manager(make_app(HEALTH_INTERVAL=3600))

    @app.post("/leave")
    def leave() -> str:
        logout_user()
        return ""

    @app.post("/new-id")
    def new_id() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return ""

    @app.post("/repr")
    def show() -> str:
        shown = [repr(session)]
        session["theme"] = "a secret look"
        shown += [repr(session), str(session), f"{session.category('ui')!r}"]  # type: ignore[attr-defined]
        dict(session)
        return "\n".join([*shown, repr(session)])

    return app


@pytest.mark.parametrize("stores", [("primary", "database")])
def test_i5_logout_user_ends_a_session_that_cannot_be_verified(app: Flask, stores: tuple[str, ...]) -> None:
    """Flask-Login sees none of its keys there and removes nothing; the session ends all the same."""
    client = sign_in(app)
    client.post("/set", json={"user_role": "admin"})  # who is never shown at level 4
    with switched_off(app, *stores):
        assert client.get("/who").json == {"user": None, "level": 4, "lang": None}
        assert client.post("/leave").status_code == 200
    assert browser(app, client.cookie).get("/who").json["user"] is None
    assert not row(app, client.digest)["live"]


def test_i5_logout_user_ends_a_session_that_has_another_id_by_now(app: Flask) -> None:
    """The late request shows no user; the session that goes on under the new id is over."""
    client = sign_in(app)
    late = browser(app, client.cookie)
    client.post("/new-id")
    assert client.get("/who").json["user"] == "7"
    assert late.post("/leave").status_code == 200
    assert client.get("/who").json["user"] is None
