"""Values that a session cannot hold: the view gets an error, the old data stays, and no store is blamed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, jsonify, session
from werkzeug.test import TestResponse

from devservers.servers import Valkey
from flask_langpont_session import SessionTooLarge, SessionValueError, UnsupportedValue
from flask_langpont_session.events import ValueRejected
from flask_langpont_session.policy.ids import digest_of
from flask_langpont_session.testing import captured_events

from .conftest import MakeApp, cookie_of, in_production, parts


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.fixture
def make_app(make_app: MakeApp) -> MakeApp:
    return in_production(make_app)


BAD_VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    "a number of 5000 digits": (lambda: 10**5000, "an int of more than 4300 digits"),
    "key of bytes": (lambda: {"a": {b"x": 1}}, "a dict key of type bytes, inside […]"),
    "object inside": (lambda: [({"x": object()},)], "type object is not supported, inside [0][0][…]"),
}
TOO_LARGE: dict[str, tuple[Callable[[], Any], str]] = {
    "33 levels": (lambda: nested(33), "nested too deeply"),
    "64 KB of text": (lambda: "x" * 65_536, "65536 are allowed"),
    "64 KB of bytes": (lambda: b"\xff" * 50_000, "65536 are allowed"),
    "64 KB in pieces": (lambda: ["0123456789"] * 6000, "65536 are allowed"),
}
"""All that is refused: ``tests/unit/policy/test_serializer.py``."""


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return with_views(make_app())


def with_views(app: Flask) -> Flask:
    """Pages of an application that tells its users what went wrong."""

    @app.errorhandler(UnsupportedValue)
    def unsupported(error: SessionValueError) -> tuple[str, int]:
        return str(error), 422

    @app.errorhandler(SessionTooLarge)
    def too_large(error: SessionValueError) -> tuple[str, int]:
        return str(error), 413

    @app.post("/value/<name>")
    def set_value(name: str) -> str:
        session["theme"] = "before the bad value"
        session["input_text"] = {**BAD_VALUES, **TOO_LARGE}[name][0]()
        return "stored"

    @app.post("/blind/<key>/<int:size>")
    def write(key: str, size: int) -> str:
        session[key] = "x" * size
        return "stored"

    @app.post("/append-a-huge-text")
    def append() -> Any:
        session["context_info"].append("x" * 2_000_000)
        return jsonify(len(session["context_info"]))

    @app.post("/spoil-a-secret")
    def spoil_a_secret() -> str:
        session["context_info"].append({"card": "4111-1111", "owner": object()})
        return "done"

    return app


@pytest.fixture
def visitor(app: Flask) -> Iterator[Any]:
    """A browser with data, which must be there afterwards as it was; the stores are none the worse for it."""
    client = app.test_client()
    client.cookie = cookie_of(client.post("/set", json=OLD))  # type: ignore[attr-defined]
    yield client
    assert_untouched(app)


OLD = {"input_text": "old", "context_info": [1]}


def assert_untouched(app: Flask) -> None:
    """No breaker, no level, not one error of a store."""
    state = parts(app)
    assert state.health.level == 0
    assert not state.health.open_stores()
    assert {o.outcome for o in state.recorder.series() if o.source in ("primary", "database")} <= {"ok"}


def rejected(seen: list[object]) -> list[tuple[str, str | None]]:
    return [(event.category, event.key) for event in seen if isinstance(event, ValueRejected)]


# -- told to the view --------------------------------------------------------------------------------------------------


def test_a_bad_value_is_an_error_where_it_is_set(visitor: Any) -> None:
    """It names the key and what is wrong by type; the view can answer 422 or 413; nothing of it is stored."""
    for name, (_, why) in {**BAD_VALUES, **TOO_LARGE}.items():
        response: TestResponse = visitor.post(f"/value/{name}")
        assert response.status_code == (413 if name in TOO_LARGE else 422), name
        assert response.text.startswith("session['input_text'] cannot be stored: "), name
        assert why in response.text
        assert len(response.text) < 300, name
        assert visitor.get("/all").json == {**OLD, "theme": "before the bad value"}, name


def test_a_500_for_a_bad_value_is_counted(make_app: MakeApp) -> None:
    """As the values that are left out at the end of a request are. What the application answers itself is not."""
    unhandled, handled = make_app(), with_views(make_app())

    @unhandled.post("/value/<name>")
    def set_value(name: str) -> str:
        session["input_text"] = {**BAD_VALUES, **TOO_LARGE}[name][0]()
        return "stored"

    for counted, (app, codes) in enumerate(((handled, (422, 413)), (unhandled, (500, 500)))):
        for name, code in zip(("object inside", "64 KB of text"), codes, strict=True):
            assert app.test_client().post(f"/value/{name}").status_code == code
        assert parts(app).recorder.counters().get("values_rejected", 0) == 2 * counted


# -- too large together ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed_in", [False, True])
def test_i11_a_blind_write_that_is_too_large_is_refused_by_the_script(
    app: Flask, visitor: Any, signed_in: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """No view is there to be told any more: logged, counted, an event; the page is served and the old data kept."""
    if signed_in:
        visitor.post("/login/7")
    visitor.post("/blind/source_lang/40000")
    before = visitor.get("/all").json
    with captured_events(app) as seen, caplog.at_level(logging.ERROR):
        response = visitor.post("/blind/target_lang/30000")
    assert (response.status_code, response.text) == (200, "stored")
    assert cookie_of(response) is None
    assert {category for category, _ in rejected(seen)} == {"translation"}
    assert parts(app).recorder.counters()["values_rejected"] == 1
    assert "'target_lang' was not stored (category 'translation': large)" in caplog.text
    assert visitor.get("/all").json == before


# -- changes inside a value --------------------------------------------------------------------------------------------


def test_what_is_too_large_is_never_sent(app: Flask, visitor: Any, primary: Valkey) -> None:
    """A server closes the connection on a command above its own limit, which looks like a dead server."""
    with primary.client() as redis:
        redis.config_set("proto-max-bulk-len", 1_048_576)
        try:
            for _ in range(4):
                assert visitor.post("/append-a-huge-text").status_code == 200
        finally:
            redis.config_set("proto-max-bulk-len", 536_870_912)
    assert visitor.get("/all").json == OLD


def test_nothing_of_a_bad_value_is_written_down(
    app: Flask, visitor: Any, primary: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """I14: neither id nor value stands in log or record."""

    with caplog.at_level(logging.DEBUG):
        visitor.post("/spoil-a-secret")
    assert "values" in caplog.text or "not stored" in caplog.text
    assert "4111-1111" not in caplog.text
    assert visitor.cookie.split(".")[0] not in caplog.text
    digest = digest_of(visitor.cookie.split(".")[0])
    with primary.client() as redis:
        assert redis.hget(f"session:translation:{{{digest}}}", "context_info") == "[1]"


@pytest.mark.parametrize("mode", ["testing", "debug"])
def test_in_development_the_response_is_the_error(make_app: MakeApp, mode: str) -> None:
    """A developer who sees 200 and finds the value gone later looks for it in the wrong place."""
    app = make_app()

    @app.post("/spoil")
    def spoil() -> str:
        session["context_info"].append(object())
        return "spoilt"

    client: Any = app.test_client()
    client.post("/set", json={"context_info": [1]})
    setattr(app, mode, True)
    with pytest.raises(SessionValueError, match=r"session\['context_info'\] cannot be stored: type object"):
        client.post("/spoil")
    assert client.get("/get/context_info").json["value"] == [1]
