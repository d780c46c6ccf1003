"""No cache keeps an answer that sets or deletes the session cookie, nor the refusal of a sign-in; and one that is made
while it is sent belongs to one cookie."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import (
    Flask,
    Response,
    jsonify,
    render_template_string,
    send_from_directory,
    session,
    stream_with_context,
)

from flask_langpont_session.exceptions import GrantRefused
from flask_langpont_session.testing import switched_off

from .conftest import MakeApp, cookie_of
from .cookie_headers import set_cookies

LIFE = 1000


def with_pages(app: Flask) -> Flask:
    @app.post("/do/<what>")
    def do(what: str) -> Any:
        if what == "regenerate":
            session.regenerate()  # type: ignore[attr-defined]
        elif what == "clear":
            session.clear()
        elif what == "permanent":
            session.permanent = True
        elif what == "token":
            return render_template_string("{{ session['csrf_token'] }}")
        elif what == "own":
            session.regenerate()  # type: ignore[attr-defined]
            return "", {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
        elif what == "grow":
            session.setdefault("identity.provides", []).append("editor")
        return jsonify(session.get("lang"))

    return app


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return with_pages(make_app(PERMANENT_SESSION_LIFETIME=LIFE))


def user(app: Flask, **data: Any) -> Any:
    client: Any = app.test_client()
    client.post("/login/7")
    client.post("/set", json=data)
    return client


def visitor(app: Flask, **data: Any) -> Any:
    client: Any = app.test_client()
    if data:
        client.post("/set", json=data)
    return client


def assert_not_cached(response: Any) -> None:
    assert "cookie" in response.vary
    assert response.headers["Cache-Control"] == "no-store"


ANSWERS: list[tuple[Any, dict[str, Any], str, bool]] = [
    (visitor, {}, "/set", False),
    (visitor, {}, "/do/token", False),
    (visitor, {}, "/login/7", False),
    (visitor, {"lang": "jp"}, "/do/permanent", False),
    (visitor, {"lang": "jp"}, "/do/regenerate", False),
    (user, {}, "/login/8", False),
    (user, {}, "/do/regenerate", False),
    (user, {}, "/do/permanent", False),
    (user, {}, "/logout", True),
    (user, {"lang": "jp"}, "/logout", False),
    (user, {"lang": "jp"}, "/do/clear", True),
]
"""Browser, what it has, what it asks for, and whether its cookie is deleted."""


def test_an_answer_with_a_cookie_is_kept_by_no_cache(app: Flask) -> None:
    """Set or deleted, of a visitor or a user: ``Vary: Cookie`` and ``no-store``."""
    for who, data, url, deletes in ANSWERS:
        response = who(app, **data).post(url, json={"theme": "dark"})
        assert (response.status_code, len(set_cookies(response))) == (200, 1), (who, url)
        assert (cookie_of(response) == "") is deletes, (who, url)
        assert_not_cached(response)


def test_a_cookie_that_is_renewed_is_kept_by_no_cache(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor's permanent one, after a tenth of its life; the pages in between may be cached."""
    client = visitor(app, lang="jp")
    client.post("/do/permanent")
    assert "Cache-Control" not in client.get("/all").headers
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LIFE / 5)
    response = client.get("/all")
    assert cookie_of(response)
    assert_not_cached(response)


def test_as_flask_does_it(make_app: MakeApp) -> None:
    """COOKIE_RESEND = "flask": a permanent cookie goes with pages that do not look at the session, and an emptied
    session takes it away."""
    app = with_pages(make_app(COOKIE_RESEND="flask"))
    client = visitor(app, lang="jp")
    client.post("/do/permanent")
    response = client.get("/untouched")
    assert cookie_of(response)
    assert_not_cached(response)
    response = client.post("/do/clear")
    assert cookie_of(response) == ""
    assert_not_cached(response)


def test_a_view_that_knows_better_is_left_alone(app: Flask) -> None:
    """Its own Cache-Control stays, and Cookie is added to what it says in Vary."""
    response = user(app).post("/do/own")
    assert cookie_of(response)
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert response.vary.as_set() == {"accept-encoding", "cookie"}


@pytest.mark.parametrize("handled", [False, True])
def test_a_refusal_is_kept_by_no_cache(make_app: MakeApp, handled: bool) -> None:
    """503 where a right is set, and where it turns out at the save; no cookie goes with either. At the save that holds
    for the application's own page, too, whatever it says."""
    app = with_pages(make_app())
    if handled:
        app.register_error_handler(GrantRefused, lambda error: ("later", 503, {"Cache-Control": "public"}))
    known, stranger = user(app), visitor(app)
    assert known.post("/do/grow").status_code == 200
    with switched_off(app, "database"):
        at_save = known.post("/do/grow")
        for response in (at_save, stranger.post("/login/8"), known.post("/login/8")):
            assert (response.status_code, set_cookies(response)) == (503, [])
            assert response.text == "later" if handled else "Signing in" in response.text
            assert "cookie" in response.vary
            if response is at_save or not handled:
                assert_not_cached(response)
        assert handled or at_save.headers["Retry-After"]


# -- answers that are made while they are sent -------------------------------------------------------------------------


def with_streams(app: Flask, folder: Path) -> Flask:
    def body() -> Iterator[str]:
        yield f"{session.get('_user_id')} {session.get('lang')}"

    @app.get("/stream")
    def stream() -> Response:
        return Response(stream_with_context(later(body())))

    @app.get("/own-stream")
    def own_stream() -> Response:
        return Response(stream_with_context(later(body())), headers={"Cache-Control": "private", "Vary": "Accept"})

    @app.get("/file")
    def file() -> Response:
        return send_from_directory(folder, "a.css")

    return app


def later(pieces: Iterator[str]) -> Iterator[str]:
    """Yield nothing first: a stream runs up to its first piece before its headers are sent."""
    yield ""
    yield from pieces


@pytest.mark.parametrize(
    ("kind", "text", "cached"), [("u", "7 jp", "no-store"), ("a", "None jp", None), ("none", "None None", None)]
)
def test_d34_a_stream_that_looks_at_the_session_late_varies_by_cookie(
    make_app: MakeApp, tmp_path: Path, kind: str, text: str, cached: str | None
) -> None:
    """Nothing has looked at it when the headers are sent. Of a user it may show what is the user's alone."""
    app = with_streams(make_app(), tmp_path)
    client: Any = {"u": user, "a": visitor}[kind](app, lang="jp") if kind != "none" else visitor(app)
    response = client.get("/stream")
    assert (response.text, response.headers.get("Vary"), response.headers.get("Cache-Control")) == (
        text, "Cookie", cached,
    )  # fmt: skip
    assert set_cookies(response) == []
    own = client.get("/own-stream")
    assert (own.headers["Cache-Control"], own.vary.to_header()) == ("private", "Accept, Cookie")


def test_d34_a_file_is_no_stream_that_looks_at_the_session(make_app: MakeApp, tmp_path: Path) -> None:
    """Caches may give a file, or an answer that is whole, to each browser."""
    (tmp_path / "a.css").write_text("p {}")
    client = user(with_streams(make_app(), tmp_path))
    for url in ("/file", "/untouched"):
        with client.get(url) as response:
            assert (response.status_code, "Vary" in response.headers) == (200, False)
