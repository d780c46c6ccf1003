"""One recorder per application: requests, saves and every question to a store, with source and outcome."""

from __future__ import annotations

import pytest
from flask import Flask, abort, session

from devservers.servers import Valkey
from flask_langpont_session import events
from flask_langpont_session.metrics.recorder import Measure
from flask_langpont_session.testing import captured_events, switched_off

from .behind import digest, sign_in, wait_for_level
from .conftest import MakeApp, parts
from .forms_site import browser


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


def recorded(app: Flask) -> dict[tuple[str, str, str], int]:
    """(operation, source, outcome) → how often."""
    found: dict[tuple[str, str, str], int] = {}
    for o, series in parts(app).recorder.series().items():
        key = (o.name, o.source, o.outcome)
        found[key] = found.get(key, 0) + series.count
    return found


class Since:
    """The operations that were recorded since this object was made."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._before = recorded(app)

    def __call__(self) -> dict[tuple[str, str, str], int]:
        changed = {key: count - self._before.get(key, 0) for key, count in recorded(self._app).items()}
        return {key: count for key, count in changed.items() if count}


REQUEST = ("request", "none", "ok")
SAVE = ("request_save", "none", "ok")


# -- healthy -----------------------------------------------------------------------------------------------------------


def test_requests_saves_and_questions_go_to_one_recorder(make_app: MakeApp) -> None:
    """Each request once; a save when there was something to save; each round trip with the store that answered."""
    app = make_app(NEAR_CACHE=())  # whose monitor decides from when on it has an answer
    client = sign_in(app)
    client.get("/who")
    for method, url, json, expected in (
        ("get", "/untouched", None, {REQUEST: 1}),
        ("get", "/none", None, {REQUEST: 1}),
        ("get", "/who", None, {REQUEST: 1, ("load", "primary", "ok"): 1}),
        ("post", "/set", {"theme": "dark"}, {REQUEST: 1, SAVE: 1, ("save", "primary", "ok"): 1}),
        ("post", "/pop/theme", None,
         {REQUEST: 1, SAVE: 1, ("load", "primary", "ok"): 1, ("save", "primary", "ok"): 1}),
        ("post", "/login/8", None,
         {REQUEST: 1, SAVE: 1, ("load", "primary", "ok"): 1, ("sign_in", "database", "ok"): 1,
          ("write_tombstone", "primary", "ok"): 1, ("save", "primary", "ok"): 1}),
        ("post", "/logout", None,
         {REQUEST: 1, SAVE: 1, ("revoke", "database", "ok"): 1, ("write_tombstone", "primary", "ok"): 1}),
    ):  # fmt: skip
        since = Since(app)
        getattr(client, method)(url, json=json)
        found = since()
        for verifying in (("verify", "database", "ok"), ("push", "primary", "ok")):
            found.pop(verifying, None)  # the first sight of a session by this connection
        if url == "/logout":
            found.pop(("load", "primary", "ok"))
        assert found == expected, url


def test_an_error_of_a_view_is_a_request_too(app: Flask) -> None:
    """An exception counts as ``error``; an HTTP error that the view chose is an answer like any other."""
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/broken")
    def broken() -> str:
        session["lang"] = "jp"
        raise RuntimeError("broken")

    @app.get("/forbidden")
    def forbidden() -> str:
        abort(403)

    client = browser(app)
    since = Since(app)
    assert client.get("/broken").status_code == 500
    assert since() == {("request", "none", "error"): 1, SAVE: 1, ("save", "primary", "ok"): 1}
    since = Since(app)
    assert client.get("/forbidden").status_code == 403
    assert since() == {REQUEST: 1}


def test_payloads_are_measured_by_category(app: Flask) -> None:
    """Names and encoded values of what a save changes, where it was written; deleting is no payload."""
    client = browser(app)
    client.post("/set", json={"theme": "dark", "lang": "jp", "input_text": "x"})
    client.post("/pop/theme")
    amounts = parts(app).recorder.amounts()
    assert amounts[Measure("payload", "ui")] == {len('theme"dark"lang"jp"'): 1}
    assert amounts[Measure("payload", "translation")] == {len('input_text"x"'): 1}


# -- outages -----------------------------------------------------------------------------------------------------------


def test_an_outage_shows_in_source_and_outcome(app: Flask, primary: Valkey) -> None:
    """The request that meets it counts the primary with its error class, then the store that answered instead; later
    requests do not ask it."""
    client = sign_in(app)
    client.post("/set", json={"input_text": "x"})
    with parts(app).monitor.paused():  # it could notice first
        primary.kill()
        since = Since(app)
        assert client.get("/who").json["user"] == "7"
        assert since()[("load", "primary", "unreachable")] >= 1
    wait_for_level(app, 2)
    since = Since(app)
    for _ in range(3):
        assert client.get("/who").json == {"user": "7", "level": 2, "lang": None}
        client.post("/set", json={"input_text": "y"})
    found = since()
    assert {source for _, source, _ in found} <= {"none", "database"}
    assert (found[REQUEST], found[SAVE]) == (6, 3)
    primary.start()
    wait_for_level(app, 0)
    since = Since(app)
    client.get("/who")
    assert since()[("load", "primary", "ok")] == 1


def test_a_refused_grant_sends_its_event_wherever_it_was_refused(app: Flask) -> None:
    """A listener gets every 503 of ours, not only of the first one that met the outage."""
    client = browser(app)
    with captured_events(app) as seen, switched_off(app, "database"):
        assert client.post("/login/7").status_code == 503
    assert [event for event in seen if isinstance(event, events.GrantWasRefused)] == [events.GrantWasRefused()]


def test_a_logout_without_the_database_is_not_durable_yet(app: Flask) -> None:
    """The save's outcome says that the journal has what the database must still hear."""
    client = sign_in(app)
    with switched_off(app, "database"):
        since = Since(app)
        with captured_events(app) as seen:
            assert client.post("/logout").status_code == 200
        assert since()[("request_save", "none", "not_durable")] == 1
    assert events.SessionRevoked(digest(client.cookie)[:8], False) in seen
