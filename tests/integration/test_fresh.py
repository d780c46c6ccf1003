"""``session.fresh`` and ``@requires_fresh``: the arbiter's word within a request, and what does not pass without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, jsonify, request

from devservers.servers import Postgres, Valkey
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

"""A busy machine is no outage."""


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


class Outage:
    """A database that can be stopped or black-holed, and an application on it."""

    def __init__(self, app: Flask, how: str, postgres: Postgres, proxy: FaultProxy) -> None:
        self.app = app
        self._how = how
        self._postgres = postgres
        self._proxy = proxy

    def begin(self) -> None:
        if self._how == "stopped":
            self._postgres.kill()
        else:
            self._proxy.impose(HANG)

    def end(self) -> None:
        if self._how == "stopped":
            self._postgres.start()
        self._proxy.heal()

    def assert_happened(self) -> None:
        """The database was asked and did not answer."""
        wait_until_lost(self.app, "database")
        assert self._how == "stopped" or self._proxy.hits["hang"] > 0


@pytest.fixture(params=["stopped", "black hole"])
def outage(request: pytest.FixtureRequest, postgres: Postgres, proxy: FaultProxy, make_app: MakeApp) -> Outage:
    url = proxy.instead_of(postgres.url)
    # What is stopped refuses at once; only the silence has to be waited for.
    timeout = 3.0 if request.param == "stopped" else 1.0
    app = with_views(make_app(DATABASE_URL=url, DATABASE_TIMEOUT=timeout, REDIS_TIMEOUT=3.0, REQUEST_BUDGET=4.0))
    return Outage(app, request.param, postgres, proxy)


def test_i2_without_the_database_nothing_is_fresh(outage: Outage) -> None:
    """I2, I9: no user is signed in for the rest of that request; the session and its cookie are none the worse."""
    client = sign_in(outage.app, lang="jp")
    outage.begin()
    for _ in range(2):  # while it is found out, and when it is known
        answer = fresh(client)
        assert (answer["before"]["user"], answer["fresh"], answer["now"]["user"]) == ("7", False, None)
        assert answer["unverified"] is True
        assert client.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}
        outage.assert_happened()
    outage.end()
    wait_until_home(outage.app)
    assert fresh(client)["fresh"] is True
    assert row(outage.app, client.digest)["live"]


def test_without_the_database_the_data_of_other_categories_stays(outage: Outage) -> None:
    """Data that a request writes to a session that it cannot verify is stored as if it had not asked."""

    @outage.app.post("/write")
    def write() -> Any:
        session["cart"].append(1)
        session["lang"] = "jp"
        is_fresh = session.fresh()
        session["cart"].append(2)
        return jsonify(fresh=is_fresh, cart=session["cart"], lang=session["lang"])

    client = sign_in(outage.app, cart=[0])
    outage.begin()
    response = client.post("/write")
    assert response.json == {"fresh": False, "cart": [0, 1, 2], "lang": "jp"}
    assert cookie_of(response) is None
    outage.assert_happened()
    assert client.get("/get/cart").json["value"] == [0, 1, 2]
    assert client.get("/who").json["lang"] == "jp"
    outage.end()
    wait_until_home(outage.app)
    assert client.get("/get/cart").json["value"] == [0, 1, 2]


# -- other categories --------------------------------------------------------------------------------------------------


def test_without_the_primary_no_category_is_fresh(app: Flask, primary: Valkey) -> None:
    """The answer says so; what the table keeps in an outage (high) is shown, what the request changed stays."""

    @app.post("/outage")
    def outage() -> Any:
        session["source_lang"] = "en"
        assert session["input_text"] == "before"
        primary.kill()
        is_fresh = session.fresh("translation")
        return jsonify(fresh=is_fresh, text=session.get("input_text"), lang=session["source_lang"])

    client = sign_in(app, input_text="before", source_lang="ja")
    client.get("/all")
    assert client.post("/outage").json == {"fresh": False, "text": "before", "lang": "en"}
    found = client.get("/all").json
    assert (found["input_text"], found["source_lang"], found["_user_id"]) == ("before", "en", "7")


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


def test_with_everything_down_a_guarded_view_does_not_run(outage: Outage, primary: Valkey) -> None:
    """Level 4 shows the user for GRACE from this worker's copy, which is no word of the database."""
    client = sign_in(outage.app)
    outage.begin()
    primary.kill()
    client.get("/who")
    wait_until_lost(outage.app, "database")
    wait_until_lost(outage.app, "primary")
    assert client.get("/who").json == {"user": "7", "level": 4, "lang": None}
    assert client.post("/pay").status_code == 503
    outage.end()
    primary.start()
    wait_until_home(outage.app)
    assert client.post("/pay").status_code == 200
