"""The application that blocks of the docs are parts of."""

from __future__ import annotations

SHOP = """
from flask import Flask, session
from flask_langpont_session import LangPontSession

def create_app(config):
    app = Flask("shop")
    app.config.update(config)
    LangPontSession(app)
    app.get("/profile")(lambda: str(session.get("_user_id")))
    return app

app = create_app({"TESTING": True, "SECRET_KEY": "a key for tests"})
"""
"""The application that the pages on tests and on the move test."""
