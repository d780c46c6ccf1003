"""An application that runs with either release: gunicorn loads it, with the package from the folder in PYTHONPATH."""

from __future__ import annotations

import os
from importlib.util import find_spec

from flask import Flask, request, session
from flask.typing import ResponseReturnValue

from flask_langpont_session import LangPontSession


def create_app() -> Flask:
    """Configured by the environment."""
    app = Flask(__name__)
    app.config.from_prefixed_env()
    langpont = LangPontSession(app)
    langpont.create_tables(app)

    @app.get("/me")
    def me() -> ResponseReturnValue:
        """Return the session as this worker shows it, and whether it is of the former release."""
        return {
            "pid": os.getpid(),
            "former": find_spec("flask_langpont_session.stores.host.register") is None,
            "level": session.level,  # type: ignore[attr-defined]
            "user": session.get("user_id"),
            "available": session.available("translation_state"),  # type: ignore[attr-defined]
            "numbers": session.get("input_text", []),
            "count": session.get("usage_count", 0),
        }

    @app.post("/sign-in")
    def sign_in() -> ResponseReturnValue:
        session["user_id"] = request.form["user"]
        return me()

    @app.post("/sign-out")
    def sign_out() -> ResponseReturnValue:
        session.clear()
        return me()

    @app.post("/append")
    def append() -> ResponseReturnValue:
        """A number to a list that a feature of high priority has, and one more to a counter. Not while it is unknown
        what the list has: a list that is made then may lose against it, as the documentation says."""
        if not session.available("translation_state"):  # type: ignore[attr-defined]
            return {"saved": None}
        session["input_text"] = [*session.get("input_text", []), int(request.form["number"])]
        session.increment("usage_count")  # type: ignore[attr-defined]
        return {"saved": session.flush().value}  # type: ignore[attr-defined]

    return app
