"""flask_langpont_session with its defaults, on Redis and the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask

from example_app.session import live
from flask_langpont_session import LangPontSession

from .pages import DATABASE_URL, JOURNAL, REDIS_URL, SECRET_KEY, add_pages, from_environment

TOOK = "X-Took"
"""Header: seconds from the entry into the application until its response was complete."""


def create_app() -> Flask:
    """Return the application; every setting that is not an address has its default."""
    app = _configured()
    add_pages(app, regenerate=lambda: None)  # a sign-in has a new id by itself
    return app


def create_timed_app() -> Flask:
    """Return the same application; every answer says at which level it was made and how long that took."""
    app = _configured()
    add_pages(app, regenerate=lambda: None, level=lambda: live().level)
    app.wsgi_app = _Timed(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _configured() -> Flask:
    app = Flask(__name__)
    app.config["SECRET_KEY"] = SECRET_KEY
    app.config["LANGPONT_SESSION_REDIS_URL"] = from_environment(REDIS_URL)
    app.config["LANGPONT_SESSION_DATABASE_URL"] = from_environment(DATABASE_URL)
    app.config["LANGPONT_SESSION_JOURNAL"] = from_environment(JOURNAL)
    LangPontSession(app)
    return app


class _Timed:
    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        began = time.perf_counter()

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            # Flask has saved the session by now.
            return start_response(status, [*headers, (TOOK, f"{time.perf_counter() - began:.6f}")], *rest)

        return self._app(environ, start)
