"""Beliefs of a worker about auth, where a slip would show only under load or in an outage. Real servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask, session
from flask_login import logout_user

from flask_langpont_session.extension import CONTEXT, EXTENSION
from flask_langpont_session.request.repository import SessionRepository
from flask_langpont_session.testing import switched_off

from .behind import browser, digest, row, sign_in
from .conftest import MakeApp, cookie_of, parts
from .forms_site import with_login_manager


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = with_login_manager(make_app(HEALTH_INTERVAL=3600))

    @app.post("/leave")
    def leave() -> str:
        logout_user()
        return ""

    @app.post("/new-id")
    def new_id() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return ""

    @app.post("/repr")
    def show() -> str:
        shown = [repr(session)]
        session["theme"] = "a secret look"
        shown += [repr(session), str(session), f"{session.category('ui')!r}"]  # type: ignore[attr-defined]
        dict(session)
        return "\n".join([*shown, repr(session)])

    return app


class Clock:
    """Monotonic seconds that stand still until a store was asked."""

    def __init__(self) -> None:
        self.now = time.monotonic() + 100

    def __call__(self) -> float:
        return self.now

    def slow(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, which takes five seconds."""

        def called(*arguments: Any, **options: Any) -> Any:
            found = call(*arguments, **options)
            self.now += 5
            return found

        return called


def serve_by(app: Flask, repository: SessionRepository) -> SessionRepository:
    """The requests of the application go to it from now on."""
    app.extensions[EXTENSION] = replace(parts(app), repository=repository)
    app.extensions[CONTEXT] = replace(app.extensions[CONTEXT], repository=repository)
    return repository


@pytest.mark.parametrize("method", ["load", "create", "update"])
def test_i3_a_confirmation_is_as_old_as_the_question(app: Flask, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A revocation during the query must not hide behind a younger moment: it is taken before the database is asked."""
    client, clock = sign_in(app), Clock()
    state, began = parts(app), clock.now
    backend = state.backend
    monkeypatch.setattr(backend, "clock", clock)
    repository = serve_by(app, SessionRepository(backend))
    monkeypatch.setattr(backend.database, method, clock.slow(getattr(backend.database, method)))
    with parts(app).monitor.paused():
        if method == "load":
            repository.reads.load(_sid(app, client), repository.begin(60), parts(app).settings.life, fresh=True)
        elif method == "update":
            client.post("/set", json={"daily_limit": 4})
        else:
            client.digest = digest(cookie_of(client.post("/login/8")))
    held = backend.memory.auth(client.digest)
    assert held is not None
    assert clock.now > began
    assert held.confirmed_at == began


def _sid(app: Flask, client: Any) -> Any:
    with app.test_request_context(headers={"Cookie": f"session={client.cookie}"}):
        return session.work.origin  # type: ignore[attr-defined]


def test_i1_while_the_database_hears_of_a_sign_out_its_worker_shows_the_user_no_more(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is shown no more while the database takes its time, though the lease in Redis is good until then."""
    client = sign_in(app)
    database, shown = parts(app).backend.database, list[str | None]()
    revoke = database.revoke_many

    def slowly(*arguments: Any, **options: Any) -> Any:
        shown.append(browser(app, client.cookie).get("/who").json["user"])
        return revoke(*arguments, **options)

    assert client.get("/who").json["user"] == "7"
    monkeypatch.setattr(database, "revoke_many", slowly)
    assert client.post("/logout").status_code == 200
    assert shown == [None]
    assert not row(app, client.digest)["live"]


@pytest.mark.parametrize("stores", [("primary", "database")])
def test_i5_logout_user_ends_a_session_that_cannot_be_verified(app: Flask, stores: tuple[str, ...]) -> None:
    """Flask-Login sees none of its keys there and removes nothing; the session ends all the same."""
    client = sign_in(app)
    client.post("/set", json={"user_role": "admin"})  # who is never shown at level 4
    with switched_off(app, *stores):
        assert client.get("/who").json == {"user": None, "level": 4, "lang": None}
        assert client.post("/leave").status_code == 200
    assert browser(app, client.cookie).get("/who").json["user"] is None
    assert not row(app, client.digest)["live"]


def test_i5_logout_user_ends_a_session_that_has_another_id_by_now(app: Flask) -> None:
    """The late request shows no user; the session that goes on under the new id is over."""
    client = sign_in(app)
    late = browser(app, client.cookie)
    client.post("/new-id")
    assert client.get("/who").json["user"] == "7"
    assert late.post("/leave").status_code == 200
    assert client.get("/who").json["user"] is None


def test_logout_user_of_a_visitor_ends_nothing(app: Flask) -> None:
    """There is nothing to end, and the visitor's data stays."""
    client: Any = app.test_client()
    client.post("/set", json={"lang": "jp", "input_text": "typed"})
    assert client.post("/leave").headers.getlist("Set-Cookie") == []
    assert client.get("/all").json == {"lang": "jp", "input_text": "typed"}


def test_i14_a_repr_has_no_values(app: Flask) -> None:
    """The repr of a session that was read, changed or neither has no values: it ends up in logs and error pages."""
    client = sign_in(app, input_text="a secret text")
    shown = client.post("/repr").text
    assert "secret" not in shown
    assert client.digest not in shown
    assert shown.startswith("<Session not loaded, 0 keys set>\n<Session not loaded, 1 keys set>")
    assert shown.endswith("<Session valid, 1 keys set>")
