"""D14: a cookie says permanent when the row does. Real servers, real signals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, jsonify, request, session

from devservers.servers import Postgres
from flask_langpont_session.policy.values import ErrorClass, StoreError
from flask_langpont_session.testing import switched_off

from .behind import emptied, row, sign_in, wait_until_home, wait_until_lost
from .conftest import MakeApp, cookie_of, parts
from .cookie_headers import set_cookies

DAYS = 86_400_000


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


@pytest.mark.parametrize("resend", ["due", "flask"])
@pytest.mark.parametrize("flag", [1, 0])
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
        for _ in range(state.settings.failure_threshold):
            state.health.failed(StoreError("database", ErrorClass.WRITE_REFUSED, "ReadOnly"), "write")
        assert state.health.open_stores() == {("database", "write")}
        for _ in range(2):
            response = client.post("/permanent/1", json={"lang": "jp"})
            assert (response.status_code, cookie_of(response)) == (200, None)
        assert days(app, client) == 0.5
        state.monitor.recover("database", ("write",))
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
