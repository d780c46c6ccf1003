"""The scenarios with their targets, the session's data and the pages. The same for everyone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Barrier
from typing import Any

from flask import Flask, request, session

Data = Mapping[str, Any]

VALUE = "benchmarks.value"
"""Where in the WSGI environ a request carries the value its page works with: no parsing that would be timed too."""

AUTH: Data = {
    "logged_in": True,
    "user_id": 1207,
    "username": "hanako",
    "user_role": "user",
    "account_type": "premium",
    "daily_limit": 1000,
    "early_access": False,
    "_fresh": True,
}


def _history(entries: int) -> list[dict[str, str]]:
    texts = (
        "駅まで歩いて行きます。",
        "I am walking to the station.",
        "打ち合わせは三時からです。",
        "The meeting starts at three.",
    )
    return [{"from": texts[i * 2 % 4], "to": texts[(i * 2 + 1) % 4], "engine": "gemini"} for i in range(entries)]


def _translation(entries: int) -> Data:
    return {
        "source_lang": "ja",
        "target_lang": "en",
        "language_pair": "ja-en",
        "input_text": "明日の会議の資料を、今日中に送っていただけますか。",
        "context_info": "A mail to a colleague, polite but not stiff.",
        "translation_engine": "gemini",
        "usage_count": 42,
        "translation_context": _history(entries),
    }


UI: Data = {"lang": "jp", "theme": "theme-000"}

SIZES: Mapping[str, Mapping[str, Data]] = {
    "1 KB": {"auth": AUTH, "translation": _translation(5), "ui": UI},
    "50 KB": {"auth": AUTH, "translation": _translation(500), "ui": UI},
}
"""Size of a session → category → its data."""


def data_of(size: str, *categories: str) -> dict[str, Any]:
    """Return the data of a session, flat as an application sees it."""
    return {key: value for name in categories or SIZES[size] for key, value in SIZES[size][name].items()}


def bytes_of(size: str, category: str) -> int:
    """Return the bytes of one category as compact JSON."""
    return len(json.dumps(SIZES[size][category], ensure_ascii=False, separators=(",", ":")).encode())


@dataclass(frozen=True)
class Targets:
    """The targets for a whole request of this package, as a share of Flask-Session's with its defaults.

    :param near: with the near cache; `asking`: without it; `delayed`: with it and with 0.25 ms of network each way.
    """

    near: float | None = None
    asking: float | None = None
    delayed: float | None = None


@dataclass(frozen=True)
class Scenario:
    """One kind of request.

    :param path: the page asked for.
    :param size: the session it finds, a key of :data:`SIZES`.
    :param database: the SQL engine behind the sessions that have one.
    :param visitor: every request comes with a fresh anonymous session instead of one signed-in session for all.
    """

    name: str
    title: str
    path: str
    size: str = "1 KB"
    targets: Targets = Targets()
    database: str = "sqlite"
    visitor: bool = False


SCENARIOS = (
    Scenario("untouched", "session untouched", "/untouched", targets=Targets(0.11, 0.11)),
    Scenario("read-one", "read one auth key", "/read-one", targets=Targets(0.14, 0.50, 0.03)),
    Scenario("read-all", "read all", "/read-all", targets=Targets(0.18, 0.70)),
    Scenario(
        "change-one",
        "change one ui key, unread",
        "/change-one",
        targets=Targets(0.55, 0.60, 0.55),
    ),
    Scenario(
        "read-change",
        "read one auth key, change one ui key",
        "/read-change",
        targets=Targets(0.62, 1.20, 0.48),
    ),
    Scenario("page", "page that reads four keys of all categories", "/page"),
    Scenario(
        "read-one-50k",
        "50 KB: read one auth key",
        "/read-one",
        "50 KB",
        targets=Targets(0.10, 0.42, 0.03),
    ),
    Scenario(
        "change-one-50k",
        "50 KB: change one ui key, unread",
        "/change-one",
        "50 KB",
        targets=Targets(0.42, 0.42),
    ),
    Scenario("sign-in-sqlite", "sign-in, SQLite", "/sign-in", targets=Targets(2.5), visitor=True),
    Scenario(
        "sign-in-postgresql",
        "sign-in, PostgreSQL",
        "/sign-in",
        targets=Targets(2.5),
        database="postgresql",
        visitor=True,
    ),
)


class Meeting:
    """The barrier at which concurrent requests wait for each other between reading and writing."""

    def __init__(self) -> None:
        self.barrier = Barrier(1)


def add_pages(app: Flask, regenerate: Callable[[], None], meeting: Meeting) -> None:
    """Add the pages of the scenarios.

    :param regenerate: gives the session a new id at sign-in, as far as the contestant needs to be told.
    """

    @app.get("/untouched")
    def untouched() -> str:
        return "untouched"

    @app.get("/read-one")
    def read_one() -> str:
        return str(session["username"])

    @app.get("/read-all")
    def read_all() -> str:
        everything = dict(session)
        everything.pop("_permanent", None)  # Flask keeps this flag among the data, others elsewhere
        return json.dumps(everything, sort_keys=True)

    @app.get("/change-one")
    def change_one() -> str:
        theme: str = request.environ[VALUE]
        session["theme"] = theme
        return theme

    @app.get("/read-change")
    def read_change() -> str:
        name, theme = session["username"], request.environ[VALUE]
        session["theme"] = theme
        return f"{name} {theme}"

    @app.get("/page")
    def page() -> str:
        return f"{session['username']} {session['input_text']} {session['lang']} {session['theme']}"

    @app.get("/sign-in")
    def sign_in() -> str:
        session.update(AUTH)
        regenerate()
        return f"welcome {session['username']}"

    @app.get("/fill")
    def fill() -> str:
        session.update(request.environ[VALUE])
        return "filled"

    @app.get("/mark")
    def mark() -> str:
        session.get("theme")
        meeting.barrier.wait(10)
        key: str = request.environ[VALUE]
        session[key] = True
        return key
