"""The application before the move and after it: the same views, on Flask's sessions, Flask-Session's and ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from textwrap import indent
from typing import Any

import flask_session
import pytest
import redis
from flask import Flask, flash, get_flashed_messages, jsonify, session
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_user,
    logout_user,
)
from flask_wtf.csrf import CSRFProtect, generate_csrf

from tests.docs.pages import ROOT, blocks_of

MOVING = ROOT / "docs" / "moving.md"

OLD, NEW = "session", "new-session"
"""The names of the cookies."""

KEY = "test key of the test suite, 32+ bytes"


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


def shop(app: Flask) -> Flask:
    """Views of an application that knows nothing of either kind of session."""
    LoginManager(app).user_loader(User)
    CSRFProtect(app)

    @app.get("/page")
    def page() -> Any:
        return jsonify(user=current_user.get_id(), cart=session.get("cart", []), token=generate_csrf())

    @app.get("/cart")
    def cart() -> Any:
        return jsonify(session.get("cart", []))

    @app.get("/flashes")
    def flashes() -> Any:
        return jsonify(get_flashed_messages(with_categories=True))

    @app.post("/add/<item>")
    def add(item: str) -> str:
        session["cart"] = [*session.get("cart", []), item]
        flash(f"added {item}")
        return "added"

    @app.post("/login/<name>")
    def login(name: str) -> str:
        login_user(User(name))
        return "in"

    @app.post("/remember/<name>")
    def remember(name: str) -> str:
        login_user(User(name), remember=True)
        return "in"

    @app.post("/logout")
    def logout() -> str:
        logout_user()
        return "out"

    @app.get("/untouched")
    def untouched() -> str:
        return "untouched"

    return app


def old_app(kind: str, url: str, **config: Any) -> Flask:
    """The application before the move.

    :param kind: ``flask-cookie``, or ``flask-session`` with what differs from its defaults behind it.
    :param url: of the Redis of Flask-Session.
    """
    app = Flask("old")
    app.config.update(SECRET_KEY=KEY, TESTING=True, **config)
    if kind != "flask-cookie":
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis.from_url(url), **of_kind(kind))
        if "signed" in kind:
            with pytest.warns(DeprecationWarning, match="use_signer"):
                flask_session.Session(app)
        else:
            flask_session.Session(app)
    return prepared(shop(app))


def prepared(app: Flask) -> Flask:
    """Add to an application the code of docs/moving.md for the time before the move, as it stands there, and return
    it."""
    [step] = [block.text for block in blocks_of(MOVING) if "user_logged_in" in block.text]
    factory: dict[str, Any] = {}
    exec(f"def prepare(app):\n{indent(step, '    ')}".replace("__Host-session", NEW), factory)
    factory["prepare"](app)
    return app


def of_kind(kind: str) -> dict[str, Any]:
    """Return the settings of Flask-Session for a kind."""
    signed = {"SESSION_USE_SIGNER": True, "SESSION_KEY_PREFIX": "old:"} if "signed" in kind else {}
    return signed | ({"SESSION_SERIALIZATION_FORMAT": "json"} if "json" in kind else {})


def settings_for(kind: str, url: str) -> dict[str, Any]:
    """Return the settings of the application after the move."""
    if kind == "flask-cookie":
        return {"ADOPT": ["flask-cookie"], "SESSION_COOKIE_NAME": NEW}
    config = {"ADOPT": [kind.partition(" ")[0]], "SESSION_COOKIE_NAME": NEW}
    return config | {"SESSION_REDIS": redis.Redis.from_url(url)} | of_kind(kind)


class Browser:
    """One browser, whichever worker answers it."""

    def __init__(self, **cookies: str) -> None:
        self.cookies = {name.replace("_", "-"): value for name, value in cookies.items()}
        self.token = ""

    def open(self, app: Flask, method: str, path: str) -> Any:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        headers |= {"X-CSRFToken": self.token}
        response = app.test_client(use_cookies=False).open(path, method=method, headers=headers)
        self.take(response)
        return response

    def take(self, response: Any) -> None:
        """The cookies of an answer."""
        for header in response.headers.getlist("Set-Cookie"):
            for name, morsel in SimpleCookie(header).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]

    def page(self, app: Flask) -> dict[str, Any]:
        """Return the content of the page; its form is kept for the next post."""
        response = self.open(app, "GET", "/page")
        assert response.status_code == 200
        self.token = response.json["token"]
        return {"user": response.json["user"], "cart": response.json["cart"]}

    def post(self, app: Flask, path: str) -> int:
        status: int = self.open(app, "POST", path).status_code
        return status

    def visit(self, app: Flask, *items: str, user: str | None = None) -> Browser:
        """Sign in and fill the cart."""
        self.page(app)
        if user is not None:
            assert self.post(app, f"/login/{user}") == 200
            self.page(app)
        for item in items:
            assert self.post(app, f"/add/{item}") == 200
        return self


MakeShop = Callable[..., Flask]


@contextmanager
def said(app: Flask, signal: Any) -> Iterator[list[Any]]:
    """The events of a signal meanwhile."""
    events: list[Any] = []

    def note(sender: Flask, event: Any) -> None:
        events.append(event)

    with signal.connected_to(note, app):
        yield events
