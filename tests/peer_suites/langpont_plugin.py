"""A pytest plugin for other packages' test suites: every application gets this package's session interface.

Where Valkey is, and how cookies are sent, stands in the environment, as the runner set it. Every application has keys
and a database of its own.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import flask
import pytest
from werkzeug.http import parse_cookie

from flask_langpont_session import LangPontSession
from flask_langpont_session.testing import app_config

applications: list[weakref.ref[flask.Flask]] = []
"""The suite's, the newest last. They are not kept: Flask tests that they are gone when they are dropped."""


def pytest_configure(config: pytest.Config) -> None:
    original = flask.Flask.__init__
    redis_url, cookie_resend = os.environ["SUITE_REDIS_URL"], os.environ["SUITE_COOKIE_RESEND"]

    def with_sessions(self: flask.Flask, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self).session_interface is not flask.Flask.session_interface:
            return  # the test brings an interface of its own
        before = {name: self.config[name] for name in ("TESTING", "SECRET_KEY")}
        self.config.update(
            app_config(redis_url),
            LANGPONT_SESSION_COOKIE_RESEND=cookie_resend,
            LANGPONT_SESSION_HEALTH_URL_PREFIX=None,
        )
        LangPontSession(self)
        applications.append(weakref.ref(self))
        self.config.update(before)  # the suite says itself whether it tests

    flask.Flask.__init__ = with_sessions  # type: ignore[method-assign]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Flask-Security's tests read sessions out of Flask's cookies: here they get them from where they are."""
    utils = sys.modules.get("tests.test_utils")
    if hasattr(utils, "get_existing_session"):
        utils.get_existing_session = session_of_client  # type: ignore[union-attr]
        utils.get_session = session_of_response  # type: ignore[union-attr]


def session_of_client(client: Any) -> dict[str, Any] | None:
    """Return the session of a test client's cookie; None: the client has no cookie."""
    cookie = client.get_cookie("session")
    return _stored(lambda: client.application, cookie.value) if cookie else None


def session_of_response(response: Any) -> dict[str, Any] | None:
    """Return the session of a response's cookie, or of the request's if it has none; None: there is no cookie."""
    cookies = [parse_cookie(line).get("session") for line in response.headers.getlist("Set-Cookie")]
    cookie = next(filter(None, cookies), response.request.cookies.get("session"))
    return _stored(applications[-1], cookie) if cookie else None


def _stored(find: Callable[[], flask.Flask | None], cookie: str) -> dict[str, Any]:
    app = find()
    assert app is not None
    with app.test_request_context(headers={"Cookie": f"session={cookie}"}) as context:
        return dict(app.session_interface.open_session(app, context.request) or {})
