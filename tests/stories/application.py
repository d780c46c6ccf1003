"""The example application with a few more pages: sign-in without a password, held requests, a look at many sessions.

``tests.stories.application:create_app()`` is what gunicorn loads in the stories. Nothing here asks for a CSRF token.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from flask import Blueprint, Flask, current_app, request, session
from flask.typing import ResponseReturnValue
from flask_login import login_user, logout_user

from example_app.app import csrf
from example_app.session import live
from example_app.users import User
from lab.app import create_app as create_lab
from tests.support.gates import Gate

pages = Blueprint("stories", __name__)

CALLERS = 2
"""Threads of one worker that look at sessions by the thousand: with four workers enough to keep two cores busy."""


def create_app() -> Flask:
    """Return the application. ``FLASK_GATES`` is the folder through which held requests are let go."""
    csrf.exempt(pages)
    app = create_lab({"LANGPONT_SESSION_MAX_SESSIONS_PER_USER": None})
    app.register_blueprint(pages)
    return app


@pages.get("/me")
def me() -> ResponseReturnValue:
    """Return the visitor's session as this worker shows it."""
    session = live()
    return {
        "pid": os.getpid(),
        "level": session.level,
        "user": session.get("_user_id"),
        "role": session.get("user_role"),
        "unverified": session.unverified,
    }


@pages.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Sign in as ``user`` with ``role``."""
    user, role = request.form["user"], request.form["role"]
    login_user(User(user, user, role, ""))
    session["user_role"] = role
    return me()


@pages.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """Sign out as Flask-Login does."""
    logout_user()
    return me()


@pages.post("/role")
def role() -> ResponseReturnValue:
    """Change the role of this session."""
    session["user_role"] = request.form["role"]
    return me()


# -- held requests -----------------------------------------------------------------------------------------------------


@pages.post("/held/<gate>")
def held(gate: str) -> ResponseReturnValue:
    """Read the session, wait until the gate opens, then write to it: a request that is overtaken."""
    before = me()
    Gate(Path(current_app.config["GATES"]), gate).wait()
    session["theme"] = "dark"
    return {"before": before}


# -- by the thousand ---------------------------------------------------------------------------------------------------


@pages.post("/many")
def many() -> ResponseReturnValue:
    """User and role of the sessions ``{"cookies": [...]}``, in the same order; None: no user's."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(partial(_user_and_role, app), request.get_json()["cookies"]))


def _user_and_role(app: Flask, cookie: str) -> tuple[str | None, str | None]:
    while True:
        with app.test_request_context(headers={"Cookie": cookie}):
            found = session.get("_user_id"), session.get("user_role")
            in_doubt = live().unverified
            app.process_response(app.response_class())
        if not in_doubt:  # on a busy machine the database may answer too late; then nothing is known yet
            return found
