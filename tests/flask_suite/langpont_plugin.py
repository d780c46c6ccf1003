"""A pytest plugin for Flask's own test-suite: every application gets this package's session interface.

Where the stores are stands in the environment, as the runner set it.
"""

from __future__ import annotations

import os
from typing import Any

import flask
import pytest

from flask_langpont_session import LangPontSession
from flask_langpont_session.extension import state_of


def pytest_configure(config: pytest.Config) -> None:
    original = flask.Flask.__init__

    def with_sessions(self: flask.Flask, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self).session_interface is not flask.Flask.session_interface:
            return  # the test brings an interface of its own
        self.config.update(
            SECRET_KEY="until the test sets its own",
            LANGPONT_SESSION_REDIS_URL=os.environ["SUITE_REDIS_URL"],
            LANGPONT_SESSION_DATABASE_URL=os.environ["SUITE_DATABASE_URL"],
            LANGPONT_SESSION_COOKIE_RESEND=os.environ["SUITE_COOKIE_RESEND"],
            LANGPONT_SESSION_JOURNAL=None,
            LANGPONT_SESSION_HEALTH_URL_PREFIX=None,
        )
        LangPontSession(self)
        self.secret_key = None
        state_of(self).repository.database.create_tables()

    flask.Flask.__init__ = with_sessions  # type: ignore[method-assign]
