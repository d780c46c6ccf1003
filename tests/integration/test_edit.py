"""``edit``, ``all_sessions`` and ``count_sessions``: sessions where no request of them is."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import pytest
from flask import Flask

from devservers.servers import Valkey
from flask_langpont_session import (
    LangPontSession,
    LangPontSessionError,
    OutsideRequest,
    Session,
    SessionNotFound,
    session,
)
from flask_langpont_session.testing import switched_off

from .behind import (
    age_row,
    browser,
    digest,
    key,
    pass_time,
    resting,
    row,
    sign_in,
    stored,
    wait_until_home,
    wait_until_lost,
)
from .conftest import ENCRYPTED, MakeApp, cookie_of, on_sqlite
from .shop import run


def operator(app: Flask) -> LangPontSession:
    return cast(LangPontSession, app.session_interface)


@pytest.mark.parametrize("sealed", [[], ["auth", "ui"]], ids=["plain", "encrypted"])
def test_a_job_changes_what_the_next_request_shows(make_app: MakeApp, sealed: list[str]) -> None:
    """Assignments, removals, additions and changes inside of a value; the user stays signed in, by the same cookie."""
    app = make_app(**({**ENCRYPTED, "ENCRYPTED_CATEGORIES": sealed} if sealed else {}))
    client = sign_in(app, cart={"tea": 1}, usage_count=2, lang="ja", theme="dark")
    with operator(app).edit(client.digest, app) as session:
        assert (session["_user_id"], session["cart"], session["lang"]) == ("7", {"tea": 1}, "ja")
        session["cart"]["tea"] = 3
        session["report"] = "ready"
        session.increment("usage_count", 5)
        del session["theme"]
    shown = {name: client.get(f"/get/{name}").json["value"] for name in ("cart", "report", "usage_count", "theme")}
    assert shown == {"cart": {"tea": 3}, "report": "ready", "usage_count": 7, "theme": None}
    assert client.get("/who").json["user"] == "7"
    assert client.get_cookie("session").value == client.cookie


def test_a_visitors_session_is_found_and_lives_as_long_as_before(make_app: MakeApp, primary: Valkey) -> None:
    """The cookie alone says that a visitor's session is permanent; its records tell."""
    app = make_app(PERMANENT_SESSION_LIFETIME=timedelta(days=90))
    for data, days in (({}, 1), ({"_permanent": True}, 90)):
        client: Any = app.test_client()
        name = digest(cookie_of(client.post("/set", json={"cart": ["tea"], **data})))
        with operator(app).edit(name, app) as session:
            assert session["cart"] == ["tea"]
            session["cart"] = ["tea", "cup"]
        assert client.get("/get/cart").json["value"] == ["tea", "cup"]
        with primary.client() as server:
            assert server.pttl(key(name, "data")) > timedelta(days=days).total_seconds() * 1000 * 0.99


def test_a_session_is_found_after_it_was_given_another_id(make_app: MakeApp) -> None:
    app = make_app()

    @app.post("/confirm")
    def confirm() -> str:
        session.confirm()
        return ""

    client = sign_in(app)
    assert cookie_of(client.post("/confirm")) != client.cookie
    with operator(app).edit(client.digest, app) as edited:
        assert edited.digest != client.digest
        edited["report"] = "ready"
    assert client.get("/get/report").json["value"] == "ready"


def test_looking_at_a_session_is_no_use_of_it(make_app: MakeApp, primary: Valkey) -> None:
    """A job over all sessions would keep every one of them alive for ever."""
    app = make_app(VERIFY_INTERVAL=0)
    client = sign_in(app, lang="ja")
    pass_time(app, primary, client.digest, 1_800_000)
    before = row(app, client.digest)["idle_expires_at"]
    with operator(app).edit(client.digest, app) as session:
        assert session["lang"] == "ja"
        session["report"] = "ready"
    assert row(app, client.digest)["idle_expires_at"] == before
    client.get("/who")
    assert row(app, client.digest)["idle_expires_at"] > before


NEEDS_ITS_BROWSER: dict[str, Callable[[Session], object]] = {
    "sign in": lambda session: session.__setitem__("_user_id", "8"),
    "a right": lambda session: session.__setitem__("user_role", "admin"),
    "a right inside of a value": lambda session: session["identity.groups"].append("admins"),
    "removing a right": lambda session: session.__delitem__("user_role"),
    "removing the user": lambda session: session.pop("_user_id"),
    "sign out": lambda session: session.sign_out(),
    "clear": lambda session: session.clear(),
    "another id": lambda session: session.regenerate(),
    "confirm": lambda session: session.confirm(),
    "permanent": lambda session: setattr(session, "permanent", True),
    "csrf": lambda session: session["csrf_token"],
}


@pytest.mark.parametrize("action", NEEDS_ITS_BROWSER.values(), ids=NEEDS_ITS_BROWSER)
def test_what_needs_the_browser_is_refused(make_app: MakeApp, action: Callable[[Session], object]) -> None:
    """No right, no user and no id changes, and of the other changes in the block nothing is stored."""
    app = make_app()
    client = sign_in(app)
    client.post("/set", json={"identity.groups": ["readers"]})
    cookie = client.get_cookie("session").value
    with (
        pytest.raises(OutsideRequest, match="outside its requests"),
        operator(app).edit(digest(cookie), app) as session,
    ):
        session["report"] = "ready"
        action(session)
    assert client.get("/who").json["user"] == "7"
    shown = [client.get(f"/get/{name}").json["value"] for name in ("identity.groups", "user_role", "report")]
    assert shown == [["readers"], "user", None]
    assert client.get_cookie("session").value == cookie


def test_a_visitor_gets_no_user_and_no_other_id(make_app: MakeApp) -> None:
    app = make_app()
    client: Any = app.test_client()
    name = digest(cookie_of(client.post("/set", json={"cart": 1})))
    for action in (NEEDS_ITS_BROWSER["sign in"], NEEDS_ITS_BROWSER["another id"]):
        with pytest.raises(OutsideRequest), operator(app).edit(name, app) as session:
            action(session)
    assert client.get("/get/cart").json["value"] == 1


def test_a_session_that_has_ended_or_ends_meanwhile_is_not_found(make_app: MakeApp, primary: Valkey) -> None:
    app = make_app()
    edit = partial(operator(app).edit, app=app)
    client = sign_in(app)
    with pytest.raises(SessionNotFound, match="has ended"), edit(client.digest) as session:
        session["report"] = "ready"
        operator(app).revoke(client.digest, app)
    assert "report" not in stored(primary, "data", client.cookie)
    for name in (client.digest, digest("never seen")):
        with pytest.raises(SessionNotFound), edit(name):
            pass
    with pytest.raises(ValueError, match="43 characters"):
        edit("7")


def test_nothing_is_stored_if_the_block_raises(make_app: MakeApp) -> None:
    app = make_app()
    client = sign_in(app)
    with pytest.raises(ZeroDivisionError), operator(app).edit(client.digest, app) as session:
        session["report"] = "ready"
        raise ZeroDivisionError
    assert client.get("/get/report").json["value"] is None


def test_an_outage_means_for_a_job_what_it_means_for_a_request(make_app: MakeApp, primary: Valkey) -> None:
    """Without Redis a user's session is changed in the journal; without the database nothing says which one it is."""
    app = make_app()
    client = sign_in(app, cart=["tea"])
    primary.kill()
    wait_until_lost(app, "primary")
    with operator(app).edit(client.digest, app) as session:
        assert session["cart"] == ["tea"]
        session["cart"] = ["cup"]
    assert session.kept["data"] == "journal"
    primary.start()
    wait_until_home(app)
    assert stored(primary, "data", client.cookie)["cart"] == '["cup"]'
    with switched_off(app, "database"), pytest.raises(LangPontSessionError), operator(app).edit(client.digest, app):
        pass


@on_sqlite
def test_all_sessions_come_in_parts(make_app: MakeApp, database_url: str) -> None:
    """Each valid session once, visitors' not; those that have ended are neither listed nor counted."""
    app = make_app(DATABASE_URL=database_url)
    names = sorted(sign_in(app, str(user)).digest for user in range(7))
    gone, idle, old, *others = names
    app.test_client().post("/set", json={"cart": 1})
    operator(app).revoke(gone, app)
    age_row(app, idle, 10_000_000, "idle_expires_at")
    age_row(app, old, 600_000, "seen_at")
    with resting(app):
        parts = [operator(app).all_sessions(app=app, limit=2)]
        while parts[-1]:
            parts.append(operator(app).all_sessions(app=app, limit=2, after=parts[-1][-1].digest))
    assert [one.digest for part in parts for one in part] == [old, *others]
    lately = datetime.now(UTC) - timedelta(minutes=5)
    assert [one.digest for one in operator(app).all_sessions(app=app, active_since=lately)] == others
    assert (operator(app).count_sessions(app=app), operator(app).count_sessions(app=app, active_since=lately)) == (5, 4)


def test_the_command_lists_all_sessions(make_app: MakeApp) -> None:
    app = make_app()
    names = sorted(sign_in(app, str(user)).digest for user in range(3))
    age_row(app, names[0], 600_000, "seen_at")
    for options, shown, told in (
        ((), names, "3 sessions of 3 in all"),
        (("--limit", "2"), names[:2], "2 sessions of 3 in all"),
        (("--after", names[0]), names[1:], "2 sessions of 3 in all"),
        (("--active-within", "5"), names[1:], "2 sessions of 2 in all"),
        (("7",), [], "0 sessions of user 7"),
    ):
        result = run(app, "sessions", "list", *options)
        assert re.findall(r"^[\w-]{43}(?=  )", result.stdout, re.M) == shown
        assert result.stderr.splitlines()[-1] == told
    assert browser(app, "").get("/who").json["user"] is None
