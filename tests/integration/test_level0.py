"""Everything healthy: what a view sees, what stands in the stores, and what it costs."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import session

from devservers.servers import Valkey
from flask_langpont_session.policy.ids import digest_of

from .conftest import MakeApp, cookie_of, parts
from .counting import evals


def test_a_session_comes_back_by_category(make_app: MakeApp, primary: Valkey) -> None:
    """Each key lies in the hash of its category, all hashes of a session in one cluster slot, none for ever."""
    client: Any = make_app().test_client()
    response = client.post("/set", json={"lang": "jp", "input_text": "こんにちは", "cart": [1, {"a": None}]})
    assert client.get("/all").json == {"lang": "jp", "input_text": "こんにちは", "cart": [1, {"a": None}]}
    digest = digest_of((cookie_of(response) or "").split(".")[0])
    with primary.client() as redis:
        assert set(redis.scan_iter(match="*{*")) == {f"session:{c}:{{{digest}}}" for c in ("translation", "ui", "data")}
        assert 0 < redis.pttl(f"session:translation:{{{digest}}}") <= 1_800_000
        assert 0 < redis.pttl(f"session:ui:{{{digest}}}") <= 86_400_000
        assert redis.hget(f"session:ui:{{{digest}}}", "lang") == '"jp"'


# -- sign-in and sign-out ----------------------------------------------------------------------------------------------


def test_rights_without_a_user_are_a_signed_in_session_too(make_app: MakeApp) -> None:
    """I8: no right is ever backed by Redis alone; ``early_access`` for everybody with a password has a row."""
    app = make_app()
    client: Any = app.test_client()
    cookie = cookie_of(client.post("/set", json={"early_access": True})) or ""
    assert ".u" in cookie
    row = parts(app).backend.database.load(digest_of(cookie.split(".")[0]))
    assert row is not None
    assert row.user_id is None


# -- what it costs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def signed_in(make_app: MakeApp) -> Any:
    """Each request asks Redis: nothing is kept near."""
    client: Any = make_app(NEAR_CACHE=()).test_client()
    client.post("/set", json={"lang": "jp"})
    client.post("/login/7")
    client.get("/who")
    return client


@pytest.mark.parametrize(
    ("method", "url", "json", "trips"),
    [
        ("get", "/untouched", None, 0),
        ("get", "/healthz", None, 0),
        ("get", "/static/none.css", None, 0),
        ("get", "/who", None, 1),
        ("get", "/all", None, 1),
        ("post", "/set", {"theme": "dark"}, 1),
        ("post", "/pop/lang", None, 2),
    ],
)
def test_the_command_budget(signed_in: Any, primary: Valkey, method: str, url: str, json: Any, trips: int) -> None:
    """Round trips per request, by the server's own statistics."""
    before = evals(primary)
    getattr(signed_in, method)(url, json=json)
    assert evals(primary) - before == trips


def test_fifty_parallel_changes_of_one_session_all_win(make_app: MakeApp) -> None:
    """0 of 50 updates are lost (a store of whole blobs loses 45–48)."""
    app = make_app()
    barrier = threading.Barrier(50)

    @app.post("/parallel/<key>")
    def change(key: str) -> str:
        assert session["theme"] == "dark"
        barrier.wait(30)
        session[key] = key
        session.increment("usage_count")  # type: ignore[attr-defined]
        return ""

    client: Any = app.test_client()
    cookie = cookie_of(client.post("/set", json={"theme": "dark"})) or ""

    def post(number: int) -> None:
        other: Any = app.test_client()
        other.set_cookie("session", cookie)
        other.post(f"/parallel/key{number}")

    threads = [threading.Thread(target=post, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = client.get("/all").json
    assert found == {"theme": "dark", "usage_count": 50, **{f"key{n}": f"key{n}" for n in range(50)}}
