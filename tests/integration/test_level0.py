"""Everything healthy: what a view sees, what stands in the stores, and what it costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from flask import Flask, session
from markupsafe import Markup

from devservers.servers import Valkey
from flask_langpont_session.policy.ids import digest_of
from tests.support.auth_records import says

from . import behind
from .conftest import MakeApp, cookie_of, parts
from .counting import evals, wait_for_monitors


def test_a_session_comes_back_by_category(make_app: MakeApp, primary: Valkey) -> None:
    """Each key lies in the hash of its category, all hashes of a session in one cluster slot, none for ever."""
    client: Any = make_app().test_client()
    response = client.post("/set", json={"lang": "jp", "input_text": "こんにちは", "cart": [1, {"a": None}]})
    assert client.get("/all").json == {"lang": "jp", "input_text": "こんにちは", "cart": [1, {"a": None}]}
    digest = digest_of((cookie_of(response) or "").split(".")[0])
    with primary.client() as redis:
        assert {key for key in redis.scan_iter() if "canary" not in key} == {
            f"session:{c}:{{{digest}}}" for c in ("translation", "ui", "data")
        }
        assert 0 < redis.pttl(f"session:translation:{{{digest}}}") <= 1_800_000
        assert 0 < redis.pttl(f"session:ui:{{{digest}}}") <= 86_400_000
        assert redis.hget(f"session:ui:{{{digest}}}", "lang") == '"jp"'


VALUES: dict[str, Any] = {
    "none": None,
    "yes": True,
    "count": 7,
    "ratio": 0.1,
    "text": "日本語",
    "pair": (1, ("a", [2])),
    "raw": b"\x00\xff",
    "html": Markup("<b>"),
    "uuid": uuid4(),
    "at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "day": datetime(2026, 1, 2).date(),
    "price": Decimal("1.10"),
    "looks_like_a_tag": {"@tuple": [1]},
}


# -- sign-in and sign-out ----------------------------------------------------------------------------------------------


@contextmanager
def after_next_commit(app: Flask, act: Callable[[], object]) -> Iterator[list[object]]:
    """Do something when the next transaction of a worker is committed, before its request goes on. Yield what came
    of it."""
    engine, committed, results = parts(app).backend.database.engine, list[object](), list[object]()

    def commits(connection: object) -> None:
        committed.append(connection)

    def returned(*_: object) -> None:
        if committed and not results:
            results.append(None)  # what it does may commit as well
            results[0] = act()

    sa.event.listen(engine, "commit", commits)
    sa.event.listen(engine, "checkin", returned)
    try:
        yield results
    finally:
        sa.event.remove(engine, "commit", commits)
        sa.event.remove(engine, "checkin", returned)


@pytest.mark.parametrize(
    "ends", ["/logout", "/revoke/7", "/regenerate"], ids=["a sign-out", "log out everywhere", "another id"]
)
def test_d24_a_change_of_auth_meets_the_end_of_its_session(
    make_app: MakeApp, primary: Valkey, tmp_path: Path, ends: str
) -> None:
    """The database takes the change, another host ends the session, and Redis is told last: the request is answered,
    and leaves nothing behind."""
    here, there = make_app(), make_app(JOURNAL=str(tmp_path / "other host.sqlite3"))

    @there.post("/revoke/<user>")
    def revoke(user: str) -> str:
        there.session_interface.revoke_user(user)  # type: ignore[attr-defined]
        return ""

    @there.post("/regenerate")
    def regenerate() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return ""

    client = behind.sign_in(here)
    elsewhere = behind.browser(there, client.cookie)
    with behind.resting(here, there), after_next_commit(here, lambda: elsewhere.post(ends).status_code) as met:
        response = client.post("/set", json={"daily_limit": 4})
    assert met == [200]
    assert (response.status_code, cookie_of(response)) == (200, None)
    assert behind.who(here, client) is None
    with primary.client() as redis:
        assert says(redis, behind.key(client.digest))["@live"] == "0"
        assert not redis.exists(f"{behind.key(client.digest)}:anon")


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


def test_reading_writes_nothing(signed_in: Any, primary: Valkey) -> None:
    """A read-only request sets no key, no life and no cookie."""

    def writes() -> int:
        wait_for_monitors()
        with primary.client() as client:
            stats = client.info("commandstats")
        return sum(stats.get(f"cmdstat_{n}", {}).get("calls", 0) for n in ("hset", "pexpire", "expire", "hdel", "set"))

    before = writes()
    response = signed_in.get("/all")
    assert writes() == before
    assert cookie_of(response) is None


def test_sign_in_is_two_round_trips_and_one_transaction(make_app: MakeApp, primary: Valkey) -> None:
    """One read of what is carried over, one write of everything."""
    app = make_app(NEAR_CACHE=())
    client: Any = app.test_client()
    client.post("/set", json={"lang": "jp"})
    before = evals(primary)
    client.post("/login/7")
    # Two scripts of the sign-in travel in one packet: pushing auth and writing the carried categories.
    assert evals(primary) - before == 3
    series = parts(app).recorder.series()
    asked = {(o.name, o.source): s.count for o, s in series.items() if o.source in ("primary", "database")}
    assert asked[("sign_in", "database")] == 1
    assert ("verify", "database") not in asked


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
