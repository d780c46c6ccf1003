"""``session.fresh`` and ``@requires_fresh``: the arbiter's word within a request, and what does not pass without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, jsonify, request

from devservers.servers import Postgres
from flask_langpont_session import requires_fresh, session
from tests.faults.proxy import HANG, FaultProxy

from .behind import (
    elsewhere,
    emptied,
    row,
    sign_in,
    wait_until_home,
    wait_until_lost,
)
from .conftest import MakeApp, cookie_of, parts


@pytest.fixture
def app(make_app: MakeApp) -> Iterator[Flask]:
    """An application on SQLite whose monitor rests, with the views of this module."""
    app = with_views(make_app())
    with parts(app).monitor.paused():
        yield app


def with_views(app: Flask) -> Flask:

    @app.get("/fresh")
    def ask() -> Any:
        before = {"user": session.get("_user_id"), "role": session.get("user_role")}
        is_fresh = session.fresh(*request.args.getlist("category"))
        now = {"user": session.get("_user_id"), "role": session.get("user_role")}
        return jsonify(before=before, fresh=is_fresh, now=now, unverified=session.unverified)

    @app.post("/pay")
    @requires_fresh
    def pay() -> str:
        """Pay."""
        return f"paid by {session['_user_id']} as {session['user_role']}"

    @app.post("/admin/<int:number>")
    @requires_fresh(otherwise=lambda: ("sign in first", 403))
    def admin(number: int) -> str:
        return f"done {number}"

    return app


def fresh(client: Any, category: str = "auth") -> dict[str, Any]:
    """Return what a view saw that called ``fresh()``. Asking never sends a cookie."""
    response = client.get("/fresh", query_string={"category": category})
    assert response.status_code == 200
    assert cookie_of(response) is None
    answer: dict[str, Any] = response.json
    return answer


def killed_elsewhere(app: Flask, name: str | None) -> None:
    """End a session as another host, without telling Redis."""
    assert name
    database = elsewhere(app)
    assert database.kill(name)
    database.close()


# -- auth --------------------------------------------------------------------------------------------------------------


def test_i2_a_revocation_elsewhere_is_seen_at_once(app: Flask) -> None:
    """I2, I4: a lease would have carried the session on; once seen dead it stays dead on this worker."""
    client = sign_in(app)
    killed_elsewhere(app, client.digest)
    assert client.get("/who").json["user"] == "7"  # the lease
    answer = fresh(client)
    assert (answer["before"]["user"], answer["fresh"], answer["now"]["user"]) == ("7", False, None)
    assert answer["unverified"] is False
    assert client.get("/who").json["user"] is None


# -- auth, and the database does not answer ----------------------------------------------------------------------------


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[FaultProxy]:
    """Yield a proxy between the application and an empty PostgreSQL. Name this fixture first, so that the proxy
    outlives the application."""
    emptied(postgres)
    assert postgres.port
    with FaultProxy("127.0.0.1", postgres.port) as proxy:
        yield proxy
    postgres.start()


def test_i2_without_the_database_nothing_is_fresh(proxy: FaultProxy, postgres: Postgres, make_app: MakeApp) -> None:
    """I2, I9: no user is signed in for the rest of that request; the session and its cookie are none the worse."""
    url = proxy.instead_of(postgres.url)
    app = with_views(make_app(DATABASE_URL=url, DATABASE_TIMEOUT=1.0, REDIS_TIMEOUT=3.0, REQUEST_BUDGET=4.0))
    client = sign_in(app, lang="jp")
    with proxy.failing(HANG):
        for _ in range(2):  # while it is found out, and when it is known
            answer = fresh(client)
            assert (answer["before"]["user"], answer["fresh"], answer["now"]["user"]) == ("7", False, None)
            assert answer["unverified"] is True
            assert client.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}
            wait_until_lost(app, "database")
        assert proxy.hits["hang"] > 0
    wait_until_home(app)
    assert fresh(client)["fresh"] is True
    assert row(app, client.digest)["live"]


# -- @requires_fresh ---------------------------------------------------------------------------------------------------


def test_a_guarded_view_does_not_run_for_a_session_that_has_ended(app: Flask) -> None:
    """401, or what the application would rather say, although a lease says that it lives."""
    for path, status, text in (("/pay", 401, None), ("/admin/3", 403, "sign in first")):
        client = sign_in(app)
        killed_elsewhere(app, client.digest)
        assert client.get("/who").json["user"] == "7"
        response = client.post(path)
        assert response.status_code == status
        assert text is None or response.text == text
        assert cookie_of(response) is None
