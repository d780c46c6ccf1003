"""The status page through its route: which requests may see it, and what it says with and without Redis."""

from __future__ import annotations

import html
import re
import time
from typing import Any

import pytest
from flask import Request, abort, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.recovery.outages import NOTHING_WAITS

from .behind import wait_for_level
from .conftest import MakeApp, parts
from .forms_site import browser

PAGES = ("/healthz/status", "/healthz/status.css")
LINK = re.compile(r'<a href="([^"]*)"')


def words(page: str) -> str:
    """The text of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_there_is_no_page_until_it_is_switched_on(make_app: MakeApp) -> None:
    client = browser(make_app())
    assert [client.get(page).status_code for page in PAGES] == [404, 404]


def fails(request: Request) -> bool:
    raise LookupError("no such user")


def refuses(request: Request) -> bool:
    abort(403)


@pytest.mark.parametrize(
    ("guard", "status", "logged"),
    [
        (lambda request: True, 200, ""),
        (lambda request: False, 404, ""),
        (lambda request: None, 404, "returned NoneType, not True or False"),
        (lambda request: "yes", 404, "returned str, not True or False"),
        (fails, 404, "STATUS_PAGE failed"),
        (refuses, 403, ""),
    ],
)
def test_only_true_opens_the_page(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, guard: Any, status: int, logged: str
) -> None:
    """Everything else refuses it, its stylesheet too; what was no answer is in the log."""
    client = browser(make_app(STATUS_PAGE=guard))
    assert [client.get(page).status_code for page in PAGES] == [status, status]
    lines = [record.getMessage() for record in caplog.records if record.name == "flask_langpont_session.status"]
    assert len(lines) == (2 if logged else 0)
    assert all(logged in line for line in lines)


def test_the_function_is_asked_about_each_request(make_app: MakeApp) -> None:
    """The function is asked by what the request has; it may look at a session as any view does."""
    app = make_app(STATUS_PAGE=lambda request: "key" in request.args or session.get("user_role") == "admin")
    client = browser(app)
    assert client.get("/healthz/status").status_code == 404
    assert client.get("/healthz/status?key=1").status_code == 200
    client.post("/login/7?role=admin")
    response = client.get("/healthz/status")
    assert response.status_code == 200
    assert "Cookie" in response.headers["Vary"]


def test_a_browser_repeats_the_page_only_if_told_to(make_app: MakeApp) -> None:
    """One link begins it, by a header, and another ends it; both keep the length of the charts, as that link keeps
    whether it is repeated."""
    client = browser(make_app(STATUS_PAGE=lambda request: True))

    def looked_at(query: str) -> tuple[str | None, list[str]]:
        response = client.get(f"/healthz/status{query}")
        return response.headers.get("Refresh"), [html.unescape(link) for link in LINK.findall(response.text)]

    plain = (None, ["?minutes=10", "?minutes=10&every=30", "?minutes=60"])
    repeated = ("30", ["?minutes=10&every=30", "?minutes=10", "?minutes=60&every=30"])
    assert looked_at("?minutes=10") == looked_at("?minutes=10&every=1") == plain
    assert looked_at("?minutes=10&every=30") == repeated


def test_the_charts_of_a_young_process_are_not_empty(make_app: MakeApp) -> None:
    """They show ten minutes, unless an hour is asked for, until there is more to show."""
    app = make_app(STATUS_PAGE=lambda request: True)
    client = browser(app)

    def shown(query: str = "") -> str:
        return str(re.findall(r'<h2 id="hour">(.*)</h2>', client.get(f"/healthz/status{query}").text)[0])

    assert (shown(), shown("?minutes=60")) == ("The last ten minutes", "The last hour")
    history = parts(app).history
    assert history is not None
    for age in (601, 3601):
        history.began = time.time() - age
        assert (shown(), shown("?minutes=10")) == ("The last hour", "The last ten minutes")


def test_what_the_page_says_with_and_without_redis(make_app: MakeApp, primary: Valkey) -> None:
    """Level, stores, features, answers and what waits, of the same process before an outage and in it."""
    app = make_app(STATUS_PAGE=lambda request: True, HEALTH_INTERVAL=0.2)
    client = browser(app)
    client.post("/set", json={"input_text": "typed text", "theme": "dark"})
    client.get("/all")
    wait_for_level(app, 0)
    response = client.get("/healthz/status")
    assert response.content_type == "text/html; charset=utf-8"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self';")
    style = client.get("/healthz/status.css")
    assert style.content_type == "text/css; charset=utf-8"
    text = words(response.text)
    for said in (
        "Level 0 normal",
        "primary used used –",
        "ui_settings ui medium Redis primary",
        "Nothing waits in the journal of this host.",
        "Level 0 (normal) all the time.",
    ):
        assert said in text.replace("_ ", "_"), said
    assert not re.search(r"Redis, the primary 0 ", text)

    primary.kill()
    client.get("/all")
    wait_for_level(app, 2)
    client.post("/set", json={"input_text": "typed text"})
    # The monitor counts at most once a second, and an announced outage alone made it count: nothing waited yet.
    wait_until(lambda: parts(app).monitor.outages.waiting not in (None, NOTHING_WAITS), "the monitor counts what waits")
    text = words(client.get("/healthz/status").text).replace("_ ", "_")
    for said in (
        "Level 2 local_cache",
        "primary lost lost refuses connections, for ",
        "database used used –",
        "Users can sign in.",
        "ui_settings ui medium what DEFAULTS says; what is written is gone with the request default_value",
        "1 change waits in the journal",
        "the worst was level 2 (local_cache).",
    ):
        assert said in text, said
    assert not re.search(r"this host's copies 0 ", text)
    for secret in ("typed text", "127.0.0.1", str(primary.port), client.get_cookie("session").value):
        assert secret not in text
