"""``session.flush()``: saved in the middle of a view, which then knows where the data is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask, jsonify, request

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session import GrantRefused, Kept, session
from flask_langpont_session.metrics.recorder import NotKept

from .behind import emptied, stored, wait_for_level
from .conftest import MakeApp, cookie_of, parts
from .small_disk import Disk

HIGH, MEDIUM = {"input_text": "paid"}, {"theme": "dark"}


def with_views(app: Flask) -> Flask:
    """The form of a payment: what is posted is saved before the view goes on."""

    @app.post("/pay")
    def pay() -> Any:
        session.update(request.get_json())
        place = session.flush()
        return jsonify(place=place, kept=session.kept)

    @app.post("/do")
    def do() -> Any:
        return jsonify(app.extensions["view"]())

    return app


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return with_views(make_app())


@pytest.fixture(params=["visitor", "user"])
def client(app: Flask, request: pytest.FixtureRequest) -> Any:
    """A browser with data that this worker has seen; of a visitor, and of a signed-in user."""
    client: Any = app.test_client()
    client.cookie = cookie_of(client.post("/set", json={"lang": "jp", "input_text": "before"}))
    if request.param == "user":
        client.cookie = cookie_of(client.post("/login/7"))
    client.get("/all")
    return client


def view(app: Flask, work: Callable[[], Any]) -> None:
    """Set the work that a POST to ``/do`` does."""
    app.extensions["view"] = work


def losses(app: Flask) -> dict[NotKept, int]:
    return dict(parts(app).recorder.losses())


# -- where it is -------------------------------------------------------------------------------------------------------


def test_at_level_0_it_is_in_redis_while_the_view_goes_on(app: Flask, client: Any, primary: Valkey) -> None:
    """The data is in Redis while the view goes on: another request would find it at once."""
    found: dict[str, Any] = {}

    def pay() -> str:
        session["input_text"] = "paid"
        session["theme"] = "dark"
        place = session.flush()
        found.update(stored(primary, "translation", client.cookie) | stored(primary, "ui", client.cookie))
        assert place is Kept.REDIS
        assert session.kept == {"translation": "redis", "ui": "redis"}
        return str(place)

    view(app, pay)
    assert client.post("/do").json == "redis"
    assert found == {"input_text": '"paid"', "theme": '"dark"', "lang": '"jp"'}


def test_a_full_journal_is_nowhere(app: Flask, client: Any, primary: Valkey) -> None:
    """I19: it is counted once, not again at the end of the request; with room again the next one is kept."""
    disk = Disk(app)
    primary.kill()
    client.get("/all")
    wait_for_level(app, 2)
    with parts(app).monitor.paused():  # which would make room: the database takes what the disk is filled with
        disk.fill()
        assert client.post("/pay", json=HIGH).json == {"place": "nowhere", "kept": {"translation": "nowhere"}}
    assert losses(app) == {("writes_lost", "journal full", "translation"): 1}
    disk.make_room()
    assert client.post("/pay", json=HIGH).json["place"] == "journal"


# -- ids and cookies ---------------------------------------------------------------------------------------------------


def test_signing_in_after_a_flush_takes_the_data_along(app: Flask) -> None:
    """The data of an id that was made and stored in this very request."""

    def pay() -> Any:
        session["input_text"] = "paid"
        session.flush()
        session["_user_id"] = "7"
        return session["input_text"]

    view(app, pay)
    client: Any = app.test_client()
    assert client.post("/do").json == "paid"
    assert client.get("/all").json == {"_user_id": "7", "input_text": "paid"}


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_postgres(make_app: MakeApp, postgres: Postgres) -> Iterator[Flask]:
    yield with_views(make_app(DATABASE_URL=emptied(postgres)))
    postgres.start()


@pytest.mark.parametrize("what", ["_user_id", "user_role"])
def test_a_refused_grant_is_refused_in_the_view(on_postgres: Flask, postgres: Postgres, what: str) -> None:
    """The view says what it likes; nothing of it is tried again, and the session is what it was."""
    app, stack = on_postgres, ExitStack()

    def grant() -> Any:
        session[what] = "8"
        try:
            session.flush()
        except GrantRefused:
            refused = [session.get("_user_id"), session.get("user_role")]
            stack.close()
            postgres.start()
            wait_until(lambda: parts(app).health.is_whole("database"), "the database")
            return refused
        return "granted"

    view(app, grant)
    client: Any = app.test_client()
    client.post("/login/7")
    client.get("/all")
    stack.enter_context(parts(app).monitor.paused())  # it is the save that finds out
    postgres.kill()
    response = client.post("/do")
    assert (response.status_code, response.json) == (200, ["7", "user"])
    assert cookie_of(response) is None
    found = client.get("/all").json
    assert (found["_user_id"], found["user_role"]) == ("7", "user")
