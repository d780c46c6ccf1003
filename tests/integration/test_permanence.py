"""Permanent sessions: how long they live (I35), and that a cookie says permanent when the row does (D14). Real servers,
real signals; time passes by moving what the stores hold back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from flask import Flask, flash, jsonify, request, session

from devservers.servers import Postgres, Valkey
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import FAILURES
from flask_langpont_session.testing import switched_off

from .behind import age_row, browser, emptied, pass_time, resting, row, sign_in, wait_until_home, wait_until_lost
from .conftest import MakeApp, cookie_of, parts
from .cookie_headers import set_cookies

HOURS = 3_600_000
DAYS = 24 * HOURS


@pytest.fixture(autouse=True)
def the_database_runs_again(postgres: Postgres) -> Iterator[None]:
    yield
    postgres.start()


def with_permanence(app: Flask) -> Flask:
    @app.post("/permanent/<int:flag>")
    def permanent(flag: int) -> Any:
        session.permanent = bool(flag)
        session.update(request.get_json(silent=True) or {})
        return jsonify(session.permanent)

    return app


def days(app: Flask, client: Any) -> float:
    """The life of the row in all."""
    found = row(app, client.digest)
    return float((found["absolute_expires_at"] - found["created_at"]) / DAYS)


@pytest.mark.parametrize(("resend", "flag"), [("due", 1), ("flask", 0)])
def test_d14_what_the_row_does_not_say_the_cookie_does_not_say(
    make_app: MakeApp, postgres: Postgres, resend: str, flag: int
) -> None:
    """The database is down: the request is answered and its data is kept, and the cookie stays what it is; the next
    request that asks for it once the database is back has both."""
    app = with_permanence(make_app(DATABASE_URL=emptied(postgres), COOKIE_RESEND=resend, HEALTH_INTERVAL=0.05))
    client = sign_in(app)
    if not flag:
        client.post("/permanent/1")
    assert days(app, client) == (0.5 if flag else 31)
    postgres.kill()
    wait_until_lost(app, "database")
    response = client.post(f"/permanent/{flag}", json={"lang": "jp", "input_text": "typed", "daily_limit": 4})
    assert (response.status_code, response.json) == (200, bool(flag))
    assert ["Expires=" in header for header in set_cookies(response)] == ([] if resend == "due" else [not flag])
    expected = {"_user_id": "7", "_fresh": True, "user_role": "user"}
    expected |= {"lang": "jp", "input_text": "typed", "daily_limit": 4}
    assert client.get("/all").json == expected
    postgres.start()
    wait_until_home(app)
    assert days(app, client) == (0.5 if flag else 31)
    response = client.post(f"/permanent/{flag}")
    assert ["Expires=" in header for header in set_cookies(response)] == [bool(flag)]
    assert days(app, client) == (31 if flag else 0.5)
    assert client.get("/all").json == expected


def test_d14_a_database_that_takes_no_writes(make_app: MakeApp) -> None:
    """Reads go on, so nothing else tells; every request tries again."""
    app = with_permanence(make_app())
    client = sign_in(app)
    state = parts(app)
    with state.monitor.paused():
        for _ in range(FAILURES):
            state.health.failed(StoreError("database", ErrorClass.WRITE_REFUSED, "ReadOnly"), "write")
        assert state.health.open_stores() == {("database", "write")}
        for _ in range(2):
            response = client.post("/permanent/1", json={"lang": "jp"})
            assert (response.status_code, cookie_of(response)) == (200, None)
        assert days(app, client) == 0.5
        state.monitor.probes.recover("database", ("write",))
    response = client.post("/permanent/1")
    assert cookie_of(response)
    assert days(app, client) == 31


def test_a_visitor_s_cookie_needs_no_database(make_app: MakeApp) -> None:
    """There is no row that it could differ from."""
    app = with_permanence(make_app())
    client: Any = app.test_client()
    client.post("/set", json={"lang": "jp"})
    with switched_off(app, "database"):
        assert "Expires=" in set_cookies(client.post("/permanent/1"))[0]


# -- how long they live ------------------------------------------------------------------------------------------------


def ends(response: Any) -> list[datetime]:
    """The dates of the cookies that a response sets."""
    dates = [re.search("Expires=([^;]+)", header) for header in set_cookies(response)]
    return [parsedate_to_datetime(found[1]) for found in dates if found]


def hours(app: Flask, name: str) -> tuple[float, float]:
    """Return how long a session may be idle, and how long it lives in all, by its row as it was written last; hours."""
    found = row(app, name)
    idle, whole = found["idle_expires_at"] - found["updated_at"], found["absolute_expires_at"] - found["created_at"]
    return float(idle / HOURS), float(whole / HOURS)


def test_i35_an_active_user_stays_signed_in_and_a_silent_one_is_out(make_app: MakeApp, primary: Valkey) -> None:
    """D29: each hour a request, with PERMANENT_SESSION_LIFETIME at eight hours, until the whole life is used up."""
    app = with_permanence(make_app(PERMANENT_SESSION_LIFETIME=8 * 3600, ABSOLUTE_TIMEOUT=24 * 3600))
    active, silent = sign_in(app), sign_in(app, "8")
    for client in (active, silent):
        client.post("/permanent/1")
    assert hours(app, active.digest) == (8, 24)
    with resting(app):
        for _ in range(23):
            pass_time(app, primary, active.digest, HOURS)
            assert active.get("/who").json["user"] == "7"
        pass_time(app, primary, active.digest, HOURS)
        assert active.get("/who").json["user"] is None
        pass_time(app, primary, silent.digest, 8 * HOURS)
        assert silent.get("/who").json["user"] is None


@pytest.mark.parametrize(
    ("settings", "idle", "whole"),
    [
        ({"PERMANENT_SESSION_LIFETIME": 1200}, 1 / 3, 12),
        ({"PERMANENT_SESSION_LIFETIME": 1200, "ABSOLUTE_TIMEOUT": 36_000}, 1 / 3, 10),
        ({}, 31 * 24, 31 * 24),
        ({"PRIVILEGED_IDLE_TIMEOUT": 900, "PERMANENT_SESSION_LIFETIME": 1200}, 1 / 4, 12),
        ({"PRIVILEGED_ABSOLUTE_TIMEOUT": 7200}, 2, 2),
        ({"PRIVILEGED_IDLE_TIMEOUT": 1800, "PRIVILEGED_ABSOLUTE_TIMEOUT": 7200}, 1 / 2, 2),
    ],
)
def test_i35_what_a_permanent_session_lives_for(
    make_app: MakeApp, settings: dict[str, Any], idle: float, whole: float
) -> None:
    """In all for the longer of PERMANENT_SESSION_LIFETIME and ABSOLUTE_TIMEOUT; less by what an administrator may. Its
    cookie ends with it, and is not sent again."""
    app = with_permanence(make_app(**settings))
    client: Any = app.test_client()

    @app.before_request
    def always() -> None:
        session.permanent = True

    response = client.post("/login/7?role=admin")
    [found] = parts(app).backend.database.sessions_of("7")
    assert hours(app, found.digest) == pytest.approx((idle, whole))
    assert [int(end.timestamp()) for end in ends(response)] == [found.absolute_expires_at // 1000]
    assert set_cookies(client.post("/set", json={"theme": "dark"})) == []


@pytest.mark.parametrize("resend", ["due", "flask"])
def test_i35_the_cookie_under_another_id_ends_with_the_row(make_app: MakeApp, primary: Valkey, resend: str) -> None:
    """The session is as old as it was. Where it is sent with each answer, it is always that date."""
    app = with_permanence(make_app(COOKIE_RESEND=resend, PERMANENT_SESSION_LIFETIME=3600))

    @app.post("/regenerate")
    def regenerate() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return session.digest or ""  # type: ignore[attr-defined]

    client = sign_in(app)
    client.post("/permanent/1")
    with resting(app):
        pass_time(app, primary, client.digest, HOURS // 2)
        response = client.post("/regenerate")
        expected = row(app, response.text)["absolute_expires_at"] // 1000
        assert [int(end.timestamp()) for end in ends(response)] == [expected]
        assert expected < datetime.now(UTC).timestamp() + 11.6 * 3600
        for again in (client.get("/who"), client.post("/set", json={"theme": "dark"})):
            assert [int(end.timestamp()) for end in ends(again)] == [expected] * (resend == "flask")


def test_i35_a_session_of_before_lives_as_long_as_it_was_to(make_app: MakeApp, primary: Valkey) -> None:
    """Its row says so: PERMANENT_SESSION_LIFETIME since the sign-in, whatever is done with it."""
    app = with_permanence(make_app(PERMANENT_SESSION_LIFETIME=8 * 3600))
    client = sign_in(app)
    client.post("/permanent/1")
    age_row(app, client.digest, 4 * HOURS, "absolute_expires_at")
    with primary.client() as redis, resting(app):
        redis.flushall()
        for _ in range(7):
            pass_time(app, primary, client.digest, HOURS)
            assert client.post("/set", json={"daily_limit": 4}).status_code == 200
            assert client.get("/who").json["user"] == "7"
        assert hours(app, client.digest)[1] == 8
        pass_time(app, primary, client.digest, HOURS)
        assert client.get("/who").json["user"] is None


# -- whose permanence it is --------------------------------------------------------------------------------------------

LEAVES: dict[str, Callable[[], object]] = {
    "clear()": lambda: session.clear(),
    "sign_out()": lambda: session.sign_out(),  # type: ignore[attr-defined]
    "a popped user key": lambda: session.pop("_user_id"),
    "del": lambda: session.__delitem__("_user_id"),
}


@pytest.mark.parametrize("leave", LEAVES)
def test_i35_what_a_user_leaves_behind_is_not_permanent(make_app: MakeApp, leave: str) -> None:
    """D30: the view says good-bye, which makes a visitor's session. Who signs in next is not remembered for it."""
    app = with_permanence(make_app())

    @app.post("/out")
    def out() -> str:
        LEAVES[leave]()
        flash("Good bye")
        return str(session.permanent)

    client = sign_in(app)
    client.post("/permanent/1")
    response = client.post("/out")
    assert (response.text, ends(response), len(set_cookies(response))) == ("False", [], 1)
    response = client.post("/login/8")
    assert ends(response) == []
    [found] = parts(app).backend.database.sessions_of("8")
    assert hours(app, found.digest) == (1, 12)


@pytest.mark.parametrize("is_user", [True, False])
def test_i35_what_is_set_after_a_clear_holds(make_app: MakeApp, is_user: bool) -> None:
    """It was said of the next session. Before it, it was said of the last one; a visitor's is forgotten likewise."""
    app = with_permanence(make_app())

    @app.post("/again/<int:before>/<int:after>")
    def again(before: int, after: int) -> str:
        if before:
            session.permanent = True
        session.clear()
        if after:
            session.permanent = True
        session["lang"] = "jp"
        return str(session.permanent)

    for before, after in ((0, 0), (0, 1), (1, 0), (1, 1)):
        client = sign_in(app) if is_user else browser(app, "")
        client.post("/set", json={"lang": "fr"})
        client.post("/permanent/1")
        response = client.post(f"/again/{before}/{after}")
        assert (response.text, len(ends(response))) == (str(bool(after)), after if is_user else 0)
        assert client.post("/permanent/0").status_code == 200
        assert client.get("/get/lang").json["value"] == "jp"
