"""Step-up: when a user last entered a password, what may be done on the strength of that, and for how long a privileged
session lives.

Time passes by moving what the stores hold back.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask, jsonify

from devservers.servers import Postgres, Valkey
from flask_langpont_session import requires_fresh, session

from .behind import (
    age_entry,
    age_row,
    browser,
    digest,
    emptied,
    entry,
    pass_time,
    resting,
    row,
    sign_in,
    wait_until_home,
    wait_until_lost,
    who,
)
from .conftest import MakeApp, cookie_of
from .counting import wait_for_monitors

MINUTE = 60_000
NOW = 30_000
"""Milliseconds: what counts as "just now" on a busy machine; far less than what these tests move."""

LIMITS = {"PRIVILEGED_IDLE_TIMEOUT": 900, "PRIVILEGED_ABSOLUTE_TIMEOUT": 7200}


def with_views(app: Flask) -> Flask:

    @app.post("/confirm")
    def confirm() -> str:
        session.confirm()
        return "confirmed"

    @app.get("/when")
    def when() -> Any:
        at = session.authenticated_at
        return jsonify(at=at and at.isoformat(), keys=sorted(session), direct=session.get("_authenticated_at"))

    @app.post("/address")
    @requires_fresh(max_age=300, otherwise=lambda: ("sign in first", 403))
    def address() -> str:
        return "moved"

    @app.post("/promote/<role>")
    def promote(role: str) -> str:
        session["user_role"] = role
        return "so be it"

    return app


def age(client: Any) -> timedelta:
    """Return the time since the user of a browser has given proof."""
    at = client.get("/when").json["at"]
    assert at is not None
    return datetime.now(UTC) - datetime.fromisoformat(at)


def is_about(found: timedelta, minutes: int) -> bool:
    return abs(found - timedelta(minutes=minutes)) < timedelta(milliseconds=NOW)


def confirm(client: Any) -> str:
    """The user enters the password again. The digest that the browser has from then on."""
    response = client.post("/confirm")
    assert response.text == "confirmed"
    client.cookie = cookie_of(response)
    assert client.cookie
    client.digest = digest(client.cookie)
    found: str = client.digest
    return found


# -- the moment --------------------------------------------------------------------------------------------------------


def test_a_confirmation_makes_a_new_id_and_notes_the_moment(
    make_app: MakeApp, primary: Valkey, sqlite_url: str
) -> None:
    """I27: by the database's clock, and only by a confirmation; data goes along, and the old id is dead at once."""
    app = with_views(make_app(DATABASE_URL=sqlite_url))
    client = sign_in(app, lang="jp")
    with resting(app):
        assert is_about(age(client), 0)
        pass_time(app, primary, client.digest, 20 * MINUTE)
        assert is_about(age(client), 20)
        refused = client.post("/address")
        assert (refused.status_code, "enter your password" in refused.text) == (401, True)
        assert cookie_of(refused) is None
        old = browser(app, client.cookie)
        before = client.digest
        after = confirm(client)
        assert after != before
        assert is_about(age(client), 0)
        assert client.post("/address").text == "moved"
        assert client.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}
        assert old.get("/who").json["user"] is None
        assert old.post("/address").status_code == 403
        assert [row(app, name)["live"] for name in (before, after)] == [0, 1]
        assert row(app, after)["created_at"] == row(app, before)["created_at"]


# -- privileged sessions -----------------------------------------------------------------------------------------------


def lives(app: Flask, name: str) -> tuple[int, int]:
    """Return how long a session may be idle, and how long it lives in all, by its row; minutes."""
    found = row(app, name)
    return (
        round((found["idle_expires_at"] - found["updated_at"]) / MINUTE),
        round((found["absolute_expires_at"] - found["created_at"]) / MINUTE),
    )


def admin(app: Flask) -> Any:
    client: Any = app.test_client()
    client.cookie = cookie_of(client.post("/login/1?role=admin"))
    client.digest = digest(client.cookie)
    return client


def test_a_user_who_becomes_privileged_gets_another_id(make_app: MakeApp, primary: Valkey) -> None:
    """I28: a later idle expiry of the old one may be anywhere. Without limits it stays."""
    plain = with_views(make_app())
    client = sign_in(plain)
    assert cookie_of(client.post("/promote/admin")) is None
    app = with_views(make_app(**LIMITS))
    client = sign_in(app)
    cookie = cookie_of(client.post("/promote/admin"))
    assert cookie
    assert lives(app, digest(cookie)) == (15, 120)
    assert client.get("/who").json["user"] == "7"
    assert who(app, client) is None  # with the old cookie
    assert int(entry(primary, digest(cookie))["@i"]) - row(app, digest(cookie))["idle_expires_at"] == 0
    # It is one no more: its idle time is that of others again, its life in all stays short.
    assert cookie_of(client.post("/promote/user")) is None
    assert lives(app, digest(cookie)) == (60, 120)


def test_step_up_and_limits_while_real_servers_are_gone(make_app: MakeApp, primary: Valkey, postgres: Postgres) -> None:
    """I27, I28: first Redis, then PostgreSQL as well."""
    app = with_views(make_app(DATABASE_URL=emptied(postgres), HEALTH_INTERVAL=0.05, **LIMITS))
    user, busy, idle = sign_in(app), admin(app), admin(app)
    wait_for_monitors()
    age_row(app, user.digest, 6 * MINUTE)
    age_entry(primary, idle.digest, 15 * MINUTE + 1, "@i")
    try:
        primary.kill()
        wait_until_lost(app, "primary")
        assert user.post("/address").status_code == 401
        confirm(user)
        assert user.post("/address").text == "moved"
        age_row(app, idle.digest, 15 * MINUTE + 1)
        assert [who(app, client) for client in (user, busy, idle)] == ["7", "1", None]
        postgres.kill()
        wait_until_lost(app, "database")
        assert [user.post(page).status_code for page in ("/confirm", "/address")] == [503, 503]
        assert [who(app, client) for client in (user, busy, idle)] == ["7", None, None]
    finally:
        postgres.start()
        primary.start()
    wait_until_home(app)
    assert user.post("/address").text == "moved"
    assert [who(app, client) for client in (user, busy, idle)] == ["7", "1", None]
