"""Signing in over a session of a user: what is taken along depends on whose it is."""

from __future__ import annotations

from typing import Any

from flask_login import login_user

from flask_langpont_session.exceptions import GrantRefused
from flask_langpont_session.testing import switched_off

from .behind import browser, digest, row
from .conftest import MakeApp, cookie_of
from .forms_site import User, with_login_manager

TEXTS = {"input_text": "private", "source_lang": "jp", "usage_count": 3}
LOOKS = {"lang": "jp", "theme": "dark"}


def test_d15_another_user_gets_nothing_but_the_looks(make_app: MakeApp) -> None:
    """``login_user()`` over a session of the same user, or of another one. A sign-in that is refused takes nothing
    from the session."""
    app = with_login_manager(make_app())

    @app.post("/flask-login/<user>")
    def flask_login(user: str) -> Any:
        login_user(User(user))
        return ""

    for user, is_same in [("7", True), ("8", False)]:
        client: Any = app.test_client()
        cookie = cookie_of(client.post("/flask-login/7")) or ""
        client.post("/set", json={**TEXTS, **LOOKS, "user_role": "admin"})
        before = client.get("/all").json
        with switched_off(app, "database"):
            assert client.post(f"/flask-login/{user}").status_code == GrantRefused.code
        assert client.get("/all").json == before
        assert client.post(f"/flask-login/{user}").status_code == 200
        shown = client.get("/all").json
        assert shown.pop("_user_id") == user
        assert {key: shown[key] for key in shown.keys() - {"_id", "_fresh"}} == LOOKS | (TEXTS if is_same else {})
        assert browser(app, cookie).get("/all").json == {}
        assert not row(app, digest(cookie))["live"]
