"""Flask-Login over the session: what it stores, what it costs, and what it may do in an outage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import flask_login.login_manager
import pytest
import sqlalchemy
from flask import Flask, jsonify, request, session
from flask_login import (
    LoginManager,
    confirm_login,
    current_user,
    fresh_login_required,
    login_fresh,
    login_required,
    login_user,
    logout_user,
)
from flask_wtf import CSRFProtect

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.testing import switched_off

from .behind import digest, row_of, stored
from .conftest import MakeApp, cookie_of, parts
from .counting import evals
from .forms_site import User, browser

# Flask-Login 0.6 makes the remember cookie's date with utcnow(), which newer Pythons warn of.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

REMEMBER = "remember_token"


def with_login(app: Flask) -> Flask:
    """Flask-Login and Flask-WTF as applications install them, and the pages of a sign-in."""
    manager = LoginManager(app)
    manager.user_loader(User)
    protect = CSRFProtect(app)
    for name in ("set_keys", "pop_key", "login", "logout"):
        protect.exempt(app.view_functions[name])

    @app.post("/in/<user>")
    @protect.exempt  # type: ignore[untyped-decorator]
    def sign_in(user: str) -> str:
        login_user(User(user), remember="remember" in request.args)
        return f"hello {current_user.get_id()}"

    @app.post("/out")
    @protect.exempt  # type: ignore[untyped-decorator]
    @login_required  # type: ignore[untyped-decorator]
    def sign_out() -> str:
        logout_user()
        return "bye"

    @app.post("/confirm")
    @protect.exempt  # type: ignore[untyped-decorator]
    @login_required  # type: ignore[untyped-decorator]
    def confirm() -> str:
        confirm_login()
        return "fresh again"

    @app.get("/fresh-only")
    @fresh_login_required  # type: ignore[untyped-decorator]
    def fresh_only() -> str:
        return "secret"

    @app.get("/me")
    def me() -> Any:
        level = session.level  # type: ignore[attr-defined]
        return jsonify(user=current_user.get_id(), fresh=login_fresh(), level=level)

    return app


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Any) -> Flask:
    app = with_login(make_app())
    app.static_folder = str(tmp_path)
    (tmp_path / "style.css").write_text("p {}")
    return app


def signed_in(app: Flask, user: str = "7", *, remember: bool = False) -> Any:
    """A browser that signed in and has been seen once since."""
    client = browser(app)
    response = client.post(f"/in/{user}{'?remember=1' if remember else ''}")
    assert response.status_code == 200
    client.cookie = cookie_of(response)
    assert client.get("/me").json == {"user": user, "fresh": True, "level": 0}
    return client


def who(client: Any, **options: Any) -> str | None:
    response = client.get("/me", **options)
    assert response.status_code == 200
    user: str | None = response.json["user"]
    return user


def row_count(app: Flask, condition: str) -> int:
    with parts(app).backend.database.engine.connect() as connection:
        statement = sqlalchemy.text(f"SELECT count(*) FROM langpont_sessions WHERE {condition}")
        found: int = connection.execute(statement).scalar_one()
    return found


# -- sign-in and sign-out ----------------------------------------------------------------------------------------------


def test_a_login_gives_a_new_id_and_one_row(app: Flask) -> None:
    """The visitor's id does not become the user's, and the visitor's data comes along."""
    client = browser(app)
    before = cookie_of(client.post("/set", json={"lang": "jp"}))
    after = cookie_of(client.post("/in/7"))
    assert after
    assert digest(after) != digest(before)
    assert who(client) == "7"
    assert client.get("/get/lang").json["value"] == "jp"
    assert who(browser(app, before)) is None
    row = row_of(app, after)
    assert (row.user_id, row.live, set(row.payload)) == ("7", True, {"_user_id", "_fresh", "_id"})


def test_a_fresh_login_is_asked_for_and_confirmed(app: Flask) -> None:
    """``confirm_login`` changes a right of the same session: the id stays, the row changes."""
    client = signed_in(app, remember=True)
    assert client.get("/fresh-only").text == "secret"
    client.delete_cookie("session")
    assert client.get("/me").json == {"user": "7", "fresh": False, "level": 0}
    assert client.get("/fresh-only").status_code == 401
    assert cookie_of(client.post("/confirm")) is None
    assert client.get("/fresh-only").text == "secret"


# -- the remember cookie -----------------------------------------------------------------------------------------------


def test_the_remember_cookie_signs_in_when_the_session_cookie_is_lost(app: Flask) -> None:
    """A new session of kind u with a row of its own, not a fresh one; the next request does not sign in again."""
    client = signed_in(app, remember=True)
    assert client.get_cookie(REMEMBER) is not None
    client.delete_cookie("session")
    response = client.get("/me")
    assert response.json == {"user": "7", "fresh": False, "level": 0}
    cookie = cookie_of(response)
    assert cookie
    assert digest(cookie) != digest(client.cookie)
    assert row_of(app, cookie).payload["_fresh"] == b"false"
    again = client.get("/me")
    assert again.json["user"] == "7"
    assert cookie_of(again) is None
    assert row_count(app, "live") == 2  # the lost one lives until it runs out: no store was told that it ended


def test_the_remember_cookie_signs_in_from_a_dead_session(app: Flask) -> None:
    """C1: a browser whose session was ended elsewhere may sign in anew, by the token it was given for that."""
    client = signed_in(app, remember=True)
    assert browser(app, client.cookie).post("/out").status_code == 200
    response = client.get("/me")
    assert response.json["user"] == "7"
    assert digest(cookie_of(response)) != digest(client.cookie)
    assert who(browser(app, client.cookie)) is None


SIGN_OUTS: dict[str, Callable[[], object]] = {
    "clear()": lambda: session.clear(),
    "sign_out()": lambda: session.sign_out(),  # type: ignore[attr-defined]
    "a popped user key": lambda: session.pop("_user_id"),
}
"""Without ``logout_user()``."""


def with_own_sign_outs(app: Flask) -> Flask:
    @app.get("/leave/<how>")
    def leave(how: str) -> str:
        SIGN_OUTS[how]()
        if "next" in request.args:
            login_user(User(request.args["next"]), remember="remember" in request.args)
        return "bye"

    return app


@pytest.mark.parametrize("lost", [(), ("database",), ("primary",)], ids=["well", "no database", "no Redis"])
@pytest.mark.parametrize("how", SIGN_OUTS)
def test_i35_no_sign_out_is_undone_by_the_remember_cookie(app: Flask, how: str, lost: tuple[str, ...]) -> None:
    """Both cookies go however the view signs the user out, and whatever is down."""
    client = signed_in(with_own_sign_outs(app), remember=True)
    with ExitStack() as stack:
        for store in lost:
            stack.enter_context(switched_off(app, store))
        response = client.get(f"/leave/{how}")
        assert (response.status_code, cookie_of(response, REMEMBER)) == (200, "")
        assert who(client) is None
    assert who(client) is None


def test_i35_a_user_who_is_only_remembered_can_sign_out(app: Flask) -> None:
    """The session cookie is lost, so that the request signs in by the remember cookie, and out again; or the session
    has ended meanwhile; or the page asks for no user at all."""
    with_own_sign_outs(app)

    @app.get("/me-and-out")
    def me_and_out() -> str:
        assert current_user.get_id() == "7"
        session.clear()
        return ""

    for page in ("/me-and-out", "/leave/sign_out()"):
        client = signed_in(app, remember=True)
        client.delete_cookie("session")
        assert cookie_of(client.get(page), REMEMBER) == ""
        assert who(client) is None
    client = signed_in(app, remember=True)
    assert browser(app, client.cookie).post("/out").status_code == 200
    assert cookie_of(client.get("/leave/clear()"), REMEMBER) == ""
    assert who(client) is None


@pytest.mark.parametrize("remember", ["", "&remember=1"])
def test_i35_who_signs_in_next_keeps_an_own_remember_cookie_only(app: Flask, remember: str) -> None:
    """The request signs the user before out, and keeps the remember cookie of the new user only."""
    client = signed_in(with_own_sign_outs(app), remember=True)
    before = client.get_cookie(REMEMBER).value
    assert client.get(f"/leave/clear()?next=8{remember}").status_code == 200
    found = client.get_cookie(REMEMBER)
    assert (found is not None and found.value != before) is bool(remember)
    client.delete_cookie("session")
    assert who(client) == ("8" if remember else None)


def test_remember_is_never_stored(app: Flask, primary: Valkey) -> None:
    """``_remember`` and ``_remember_seconds`` live for one request: not in Redis, not in SQL."""

    @app.post("/remember/<user>")
    def remember(user: str) -> str:
        session["_remember_seconds"] = 60.0
        login_user(User(user), remember=True)
        assert session["_remember"] == "set"
        assert session.get("_remember_seconds") == 60.0
        return ""

    app.config["WTF_CSRF_ENABLED"] = False
    client = browser(app)
    response = client.post("/remember/7")
    token = client.get_cookie(REMEMBER)
    assert token is not None
    assert token.expires is not None
    assert set(stored(primary, "auth", cookie_of(response))) == {"_user_id", "_fresh", "_id"}
    assert stored(primary, "ui", cookie_of(response)) == {}
    assert row_count(app, "payload LIKE '%remember%'") == 0
    assert not [key for key in client.get("/all").json if "remember" in key]


# -- session protection ------------------------------------------------------------------------------------------------

OTHER_BROWSER = {"headers": {"User-Agent": "another browser"}}


def test_basic_protection_makes_a_moved_session_stale(app: Flask) -> None:
    """Another browser with the same cookie: still the user, not fresh any more, and no cookie."""
    client = signed_in(app)
    moved = client.get("/me", **OTHER_BROWSER)
    assert moved.json == {"user": "7", "fresh": False, "level": 0}
    assert cookie_of(moved) is None
    assert row_of(app, client.cookie).payload["_fresh"] == b"false"
    assert client.get("/fresh-only").status_code == 401


@pytest.mark.parametrize(
    "order", [("_user_id", "_fresh", "_id", "_remember", "next"), ("next", "_fresh", "_remember", "_id", "_user_id")]
)
def test_strong_protection_ends_a_moved_session(
    app: Flask, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    """Whatever the order in which Flask-Login removes its keys, the session is over, also where it came from."""
    monkeypatch.setattr(flask_login.login_manager, "SESSION_KEYS", order)
    app.config["SESSION_PROTECTION"] = "strong"
    client = signed_in(app, remember=True)
    thief = browser(app, client.cookie)
    response = thief.get("/me", **OTHER_BROWSER)
    assert response.json["user"] is None
    assert cookie_of(response) == ""
    assert not row_of(app, client.cookie).live
    assert who(browser(app, client.cookie)) is None


# -- what it costs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["user", "visitor", "nobody"])
def test_pages_that_do_not_use_the_session_cost_nothing(app: Flask, primary: Valkey, kind: str) -> None:
    """Flask-Login asks for ``_remember`` after each response, and that is never a reason to read."""
    client = signed_in(app, remember=True) if kind == "user" else browser(app)
    if kind == "visitor":
        client.post("/set", json={"lang": "jp"})
    before = evals(primary)
    verified = sum(s.count for o, s in parts(app).recorder.series().items() if o.source == "database")
    for url in ("/untouched", "/static/style.css", "/static/no.css", "/healthz", "/healthz/ready", "/no"):
        with client.get(url) as response:
            assert response.status_code == (404 if url in ("/no", "/static/no.css") else 200)
        assert evals(primary) == before, url
        assert not response.headers.getlist("Set-Cookie"), url
    assert verified == sum(s.count for o, s in parts(app).recorder.series().items() if o.source == "database")


# -- outages -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_postgres(make_app: MakeApp, postgres: Postgres) -> Iterator[Flask]:
    postgres.start()
    yield with_login(make_app(DATABASE_URL=postgres.url))
    postgres.start()


def test_a_login_without_the_database_is_refused_as_a_whole(on_postgres: Flask, postgres: Postgres) -> None:
    """503 with Retry-After, and neither session nor remember cookie: at the save, and later where the key is set."""
    client = browser(on_postgres)
    client.post("/set", json={"lang": "jp"})
    with parts(on_postgres).monitor.paused():  # it could notice first
        postgres.kill()
        first = client.post("/in/7?remember=1")
    wait_until(lambda: not parts(on_postgres).health.snapshot().can("database", "write"), "database known to be down")
    for response in (first, client.post("/in/7?remember=1")):
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert not response.headers.getlist("Set-Cookie")
        assert "7" not in response.text
    assert client.get("/me").json == {"user": None, "fresh": False, "level": 0}
    assert client.get("/get/lang").json["value"] == "jp"
    postgres.start()
    wait_until(lambda: client.post("/in/7?remember=1").status_code == 200, "sign-in works again")
    assert who(client) == "7"


@pytest.mark.parametrize("stores", [("database",), ("primary", "database")])
def test_a_remember_cookie_on_a_page_is_put_off_without_the_database(app: Flask, stores: tuple[str, ...]) -> None:
    """A sign-in that the request did not ask for is no reason to fail it: anonymous for now, the token stays."""
    client = signed_in(app, remember=True)
    client.delete_cookie("session")
    with switched_off(app, *stores):
        assert parts(app).health.level == (4 if "primary" in stores else 0)
        response = client.get("/me")
        assert response.status_code == 200
        assert response.json["user"] is None
        assert not response.headers.getlist("Set-Cookie")
    assert who(client) == "7"


def test_a_moved_session_without_the_database_is_refused_and_kept(app: Flask) -> None:
    """Basic protection sets ``_fresh``, a privilege key: 503 for the other browser, nothing lost for the first one."""
    client = signed_in(app)
    with switched_off(app, "database"):
        response = browser(app, client.cookie).get("/me", **OTHER_BROWSER)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert not response.headers.getlist("Set-Cookie")
        assert client.get("/me").json == {"user": "7", "fresh": True, "level": 0}
    assert client.get("/me").json == {"user": "7", "fresh": True, "level": 0}
