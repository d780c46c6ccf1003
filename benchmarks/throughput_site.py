"""The site that ``python -m benchmarks.throughput`` loads: the pages of the other benchmarks over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flask_langpont_session.events import level_changed

from .contestants import Contestant, FlaskSession, Ours, OursWithoutNearCache, SignedCookie
from .scenarios import VALUE, data_of

SITE = "THROUGHPUT_SITE"
"""The environment variable with the contestant, Redis and the folder of what else is kept, as JSON."""

LEVEL_CHANGED = "a store was lost or found again"

KINDS: dict[str, type[Contestant]] = {
    kind.name: kind for kind in (Ours, OursWithoutNearCache, FlaskSession, SignedCookie)
}

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def create_app() -> Application:
    """Return a contestant's application whose pages take their value from the query, and ``/fill`` the session of 1
    KB."""
    name, redis_url, folder = json.loads(os.environ[SITE])
    contestant = _contestant(KINDS[name], redis_url, Path(folder))
    level_changed.connect(_say_so, sender=contestant.app)
    data = data_of("1 KB")

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[VALUE] = data if environ["PATH_INFO"] == "/fill" else environ["QUERY_STRING"]
        return contestant.app.wsgi_app(environ, start_response)

    return application


def _contestant(kind: type[Contestant], redis_url: str, folder: Path) -> Contestant:
    if issubclass(kind, Ours):
        return kind(redis_url, f"sqlite:///{folder / 'sessions.sqlite3'}", folder)
    return kind(redis_url)


def _say_so(app: object, *, event: object) -> None:
    print(LEVEL_CHANGED, flush=True)
