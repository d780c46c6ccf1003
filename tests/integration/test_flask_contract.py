"""The session as Flask and its extensions use it: Flask's own contract, and what goes beyond it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import (
    Flask,
    Response,
    copy_current_request_context,
    flash,
    get_flashed_messages,
    jsonify,
    redirect,
    request,
    session,
    stream_with_context,
)
from markupsafe import Markup

from devservers.servers import Valkey
from flask_langpont_session import LangPontSession

from .behind import digest, row_of, sign_in, stored
from .conftest import MakeApp, close, cookie_of, parts
from .forms_site import browser, records


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> Any:
    return browser(app)


def ours() -> Any:
    """The session with what it has beyond Flask's."""
    return session


# -- session_transaction -----------------------------------------------------------------------------------------------


def test_a_transaction_starts_a_session(client: Any) -> None:
    """Data that a test puts into the session is there in the next request, and the other way round."""
    with client.session_transaction() as transaction:
        assert transaction.new
        transaction["lang"] = "jp"
    assert client.get("/all").json == {"lang": "jp"}
    client.post("/set", json={"theme": "dark"})
    with client.session_transaction() as transaction:
        assert not transaction.new
        assert dict(transaction) == {"lang": "jp", "theme": "dark"}
        del transaction["lang"]
    assert client.get("/all").json == {"theme": "dark"}


def test_a_transaction_that_only_looks_stores_nothing(app: Flask, primary: Valkey) -> None:
    """No cookie and no record for a session that stays empty."""
    client = browser(app)
    with client.session_transaction() as transaction:
        assert "lang" not in transaction
    assert client.get_cookie("session") is None
    assert records(app, primary) == ([], 0)


def test_a_transaction_signs_in_and_out(app: Flask) -> None:
    """The way most test suites sign their clients in works, with a row in SQL and a new id."""
    client = browser(app)
    client.post("/set", json={"lang": "jp"})
    with client.session_transaction() as transaction:
        transaction["_user_id"] = "7"
        transaction["_fresh"] = True
    cookie = client.get_cookie("session").value
    assert client.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}
    assert row_of(app, cookie).user_id == "7"
    with client.session_transaction() as transaction:
        assert transaction["_user_id"] == "7"
        transaction.pop("_user_id")
    assert client.get("/who").json == {"user": None, "level": 0, "lang": "jp"}
    assert client.get_cookie("session").value != cookie


def test_the_session_can_be_looked_at_after_a_request(client: Any) -> None:
    """``with client:`` keeps the context: a test may read what the view left."""
    with client:
        client.post("/set", json={"lang": "jp", "cart": [1]})
        assert session["lang"] == "jp"
        assert session["cart"] == [1]


# -- beyond the request ------------------------------------------------------------------------------------------------


def test_a_copied_context_reads_after_the_response(app: Flask) -> None:
    """A thread that outlives its request still sees the session it was started in, also what was never read before."""
    go, seen = threading.Event(), []

    @app.post("/start")
    def start() -> str:
        session["input_text"] = "set in the view"

        @copy_current_request_context
        def work() -> None:
            assert go.wait(10)
            seen.append((session["input_text"], session.get("lang"), session.get("nothing")))

        thread = threading.Thread(target=work)
        threads.append(thread)
        thread.start()
        return "started"

    threads: list[threading.Thread] = []
    client = browser(app)
    client.post("/set", json={"lang": "jp"})
    assert client.post("/start").text == "started"
    go.set()
    threads[0].join(10)
    assert seen == [("set in the view", "jp", None)]


def test_a_change_after_the_save_is_not_stored_and_says_so(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """The response is gone: the change is warned of by key, is visible to its thread, and reaches no store."""
    go, seen = threading.Event(), []
    threads: list[threading.Thread] = []

    @app.post("/start")
    def start() -> str:
        @copy_current_request_context
        def work() -> None:
            assert go.wait(10)
            session["late_key"] = "late value"
            seen.append(session["late_key"])

        session["theme"] = "dark"
        threads.append(threading.Thread(target=work))
        threads[0].start()
        return ""

    client = browser(app)
    client.post("/start")
    with caplog.at_level(logging.WARNING):
        go.set()
        threads[0].join(10)
    assert seen == ["late value"]
    assert client.get("/all").json == {"theme": "dark"}
    assert "late_key" in caplog.text
    assert "late value" not in caplog.text


@pytest.mark.parametrize("change", ["sign_out", "clear", "regenerate"])
def test_a_session_that_is_given_up_after_the_response_says_so_too(
    app: Flask, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    """Nothing saves it any more: the user stays signed in. With flush() it is over, though the browser is not told."""

    @app.get("/stream")
    def stream() -> Response:
        def body() -> Iterator[str]:
            yield "a"
            getattr(session, change)()
            if request.args:
                session.flush()  # type: ignore[attr-defined]

        return Response(stream_with_context(body()))

    client = browser(app)
    client.post("/login/7")
    with caplog.at_level(logging.WARNING):
        assert client.get("/stream").text == "a"
    assert client.get("/who").json["user"] == "7"
    assert "session was changed after the response had been sent" in caplog.text
    assert client.get("/stream?flush=1").text == "a"
    assert client.get("/who").json["user"] is None


def test_a_streaming_response_reads_while_it_is_sent(app: Flask) -> None:
    """stream_with_context: nothing was touched in the view, everything is readable in the stream."""

    @app.get("/stream")
    def stream() -> Response:
        def body() -> Iterator[str]:
            yield session["lang"]
            yield session.get("input_text", "-")
            yield str(session["cart"])

        return Response(stream_with_context(body()))

    client = browser(app)
    client.post("/set", json={"lang": "jp", "cart": [1, 2]})
    assert client.get("/stream").text == "jp-[1, 2]"


# -- a save that runs twice, or not at all -----------------------------------------------------------------------------


def test_an_after_request_that_raises_saves_once_and_keeps_the_changes(app: Flask) -> None:
    """The error page is a response too: the session is saved with it, increments are not counted twice."""
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/count")
    def count() -> str:
        ours().increment("usage_count")
        session["lang"] = "jp"
        return ""

    @app.after_request
    def fail(response: Response) -> Response:
        if request.path == "/count" and response.status_code == 200:
            raise RuntimeError("after_request")
        return response

    client = browser(app)
    failed = client.get("/count")
    assert failed.status_code == 500
    assert cookie_of(failed)
    assert client.get("/all").json == {"usage_count": 1, "lang": "jp"}


@pytest.mark.parametrize("sign_in", [False, True])
def test_a_save_may_run_twice(app: Flask, sign_in: bool) -> None:
    """The second run repeats nothing and stores what was changed in between, under the id of the first."""
    interface = app.session_interface
    with app.test_request_context():
        session["usage_count"] = 1
        if sign_in:
            session["_user_id"] = "7"
        first, second, third = app.response_class(), app.response_class(), app.response_class()
        raw: Any = session._get_current_object()  # type: ignore[attr-defined]
        interface.save_session(app, raw, first)
        interface.save_session(app, raw, second)
        ours().increment("usage_count")
        session["theme"] = "dark"
        interface.save_session(app, raw, third)
    cookies = [cookie_of(response) for response in (first, second, third)]
    assert cookies[0]
    assert {digest(cookie) for cookie in cookies if cookie} == {digest(cookies[0])}
    expected: dict[str, Any] = {"usage_count": 2, "theme": "dark"} | ({"_user_id": "7"} if sign_in else {})
    assert browser(app, cookies[0]).get("/all").json == expected


def test_without_a_secret_key_flask_explains_it(app: Flask) -> None:
    """No key, no session: Flask's own error where a view writes, a page where none does."""
    app.secret_key = None
    client = browser(app)
    assert client.get("/untouched").text == "untouched"
    assert client.get("/get/lang").json == {"value": None, "present": False}
    with pytest.raises(RuntimeError, match=r"The session is unavailable because no secret key was set\."):
        client.post("/set", json={"lang": "jp"})


def test_the_secret_key_may_be_an_attribute_of_a_class(primary: Valkey, tmp_path: Path) -> None:
    """The key is found as in the tests of Flask-WTF: Flask's own sessions ask for `app.secret_key`, not for the
    configuration."""

    class Shop(Flask):
        testing = True
        secret_key = "a key of the class, of 32 characters"

    app = Shop("shop", instance_path=str(tmp_path))
    app.config["LANGPONT_SESSION_REDIS_URL"] = primary.url
    LangPontSession(app)
    app.add_url_rule("/count", view_func=lambda: str(ours().increment("usage_count")), endpoint="count")
    client = app.test_client()
    assert [client.get("/count").text for _ in range(2)] == ["1", "2"]
    close(app)


# -- new, modified, accessed, Vary -------------------------------------------------------------------------------------


def test_modified_means_what_it_means_in_flask(app: Flask) -> None:
    """Reading is no modification, whatever the way; setting and removing is; a change inside a value is not seen."""
    client = browser(app)
    client.post("/set", json={"lang": "jp", "cart": [1]})
    with app.test_request_context(headers={"Cookie": f"session={client.get_cookie('session').value}"}):
        assert not session.modified
        assert session["lang"] == "jp"
        assert session.get("nothing") is None
        assert "theme" not in session
        assert len(session) == 2
        assert list(reversed(session)) == list(session)[::-1]  # type: ignore[call-overload]
        assert session.pop("nothing", None) is None
        assert session.pop("nothing", "default") == "default"
        with pytest.raises(KeyError):
            session.pop("nothing")
        with pytest.raises(KeyError):
            del session["nothing"]
        assert session.setdefault("lang", "en") == "jp"
        session["cart"].append(2)
        assert not session.modified
    for change in (
        lambda: session.update(theme="dark"),
        lambda: session.setdefault("theme", "dark"),
        lambda: session.pop("lang"),
        lambda: session.clear(),
        lambda: session.popitem(),
        lambda: session.__setitem__("lang", "jp"),
        lambda: setattr(session, "permanent", True),
        lambda: ours().increment("usage_count"),
    ):
        with app.test_request_context(headers={"Cookie": f"session={client.get_cookie('session').value}"}):
            change()
            assert session.modified


# -- ids and dates -----------------------------------------------------------------------------------------------------


def test_dates_of_a_session_are_kept_by_the_package(app: Flask, primary: Valkey) -> None:
    """``session_created`` and ``last_activity`` are the row's; an assignment or removal is ignored, not an error."""
    began = datetime.now(UTC)
    client = sign_in(app)
    with client.session_transaction() as transaction:
        for key in ("session_created", "last_activity"):
            assert isinstance(transaction[key], datetime)
            assert abs(transaction[key] - began) < timedelta(seconds=10)
            before = transaction[key]
            transaction[key] = "1970-01-01"
            assert transaction[key] == before
            del transaction[key]
            assert transaction[key] == before
            assert transaction.pop(key) == before
        assert "session_created" not in dict(transaction)
    assert set(stored(primary, "auth", client.cookie)) == {"_user_id", "_fresh", "user_role"}
    visitor = browser(app)
    visitor.post("/set", json={"lang": "jp", "session_created": "x", "last_activity": "y"})
    assert visitor.get("/all").json == {"lang": "jp"}


# -- flash -------------------------------------------------------------------------------------------------------------


def test_flashes_survive_a_redirect_with_their_types(app: Flask, primary: Valkey) -> None:
    """Text stays text, Markup stays Markup (and is not escaped again), once shown they are gone."""

    @app.post("/save")
    def save() -> Any:
        flash("<i>plain</i>", "info")
        flash(Markup("<b>safe</b>"), "done")
        return redirect("/show")

    @app.get("/show")
    def show() -> Any:
        found: Any = get_flashed_messages(with_categories=True)
        return jsonify([[category, message, isinstance(message, Markup)] for category, message in found])

    client = browser(app)
    response = client.post("/save", follow_redirects=True)
    assert response.json == [["info", "<i>plain</i>", False], ["done", "<b>safe</b>", True]]
    assert client.get("/show").json == []
    assert stored(primary, "ui", client.get_cookie("session").value) == {}


# -- where there is no page --------------------------------------------------------------------------------------------


def test_one_interface_serves_several_applications(make_app: MakeApp, tmp_path: Any) -> None:
    """Each has its own parts, prefix, secret and cookie name; a view of one that calls the other mixes nothing up."""
    one = make_app(SESSION_COOKIE_NAME="one")
    two = make_app(SESSION_COOKIE_NAME="two", KEY_PREFIX="other", SECRET_KEY="another key of the suite, 32+ bytes")
    assert parts(one).repository is not parts(two).repository

    @one.get("/nested")
    def nested() -> Any:
        session["lang"] = "one"
        inner = browser(two)
        inner.post("/set", json={"lang": "two"})
        return jsonify([session["lang"], inner.get("/all").json])

    client = browser(one)
    response = client.get("/nested")
    assert response.json == ["one", {"lang": "two"}]
    assert cookie_of(response, "one")
    assert cookie_of(response, "two") is None
    assert client.get("/all").json == {"lang": "one"}


def test_the_extension_is_set_up_once_per_application(app: Flask) -> None:
    """A second set-up is a mistake that is named; the interface of the first stays."""
    interface = app.session_interface
    with pytest.raises(RuntimeError, match=r"already set up .* app\.session_interface"):
        LangPontSession(app)
    assert app.session_interface is interface
