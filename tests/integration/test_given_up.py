"""I29: one entry of the journal stops nothing else, whatever it is. Real servers."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, WRITE
from flask_langpont_session.policy.presets import DEFAULT_CATEGORIES
from flask_langpont_session.stores.host.journal import Carry

from .behind import browser, digest, entry, row, sign_in
from .conftest import MakeApp, close, cookie_of, parts

BOTH = (READ, WRITE)

FORMER = {**DEFAULT_CATEGORIES, "notes": {"ttl": 3600, "features": {"notes": ["note"]}}}
"""The categories of a former release: the present one has no notes any more."""

HOUR_MS = 3_600_000


@pytest.fixture
def former(make_app: MakeApp) -> Flask:
    return make_app(CATEGORIES=FORMER, FEATURES={"notes": {"priority": "high"}}, HEALTH_INTERVAL=3600)


def lose(app: Flask, *stores: str) -> None:
    for store in stores:
        for way in BOTH:
            parts(app).health.failed(StoreError(store, ErrorClass.UNREACHABLE, "Test", timed_out=True), way)


def drained_by_a_round(app: Flask) -> bool:
    """Do one round of the monitor and the replay. Whether nothing waits any more."""
    parts(app).monitor.tick()
    return parts(app).backend.journal.waiting().entries == 0


def fresh_on_another_host(make_app: MakeApp, tmp_path: Any) -> Flask:
    """Return an application with a journal of its own, and a view that asks the database."""
    app = make_app(JOURNAL=str(tmp_path / "elsewhere.sqlite3"))

    @app.get("/fresh")
    def fresh() -> Any:
        return {"fresh": session.fresh("auth"), "user": session.get("_user_id")}  # type: ignore[attr-defined]

    return app


def test_d19_a_category_that_a_release_does_not_know_stops_no_replay(
    former: Flask, make_app: MakeApp, primary: Valkey, tmp_path: Any
) -> None:
    """Data of the category that was kept under the former release is brought to Redis for as long as it was to live
    there; all else that waits reaches the stores."""
    elsewhere = fresh_on_another_host(make_app, tmp_path)
    writing, carried, leaving = sign_in(former, note="before"), former.test_client(), sign_in(former, "8")
    old = digest(cookie_of(carried.post("/set", json={"note": "carried", "theme": "dark"})))
    assert browser(elsewhere, leaving.cookie).get("/fresh").json == {"fresh": True, "user": "8"}
    parts(former).monitor.stop()  # a thread that is held up would go on when all is well
    lose(former, PRIMARY)
    writing.post("/set", json={"note": "during", "input_text": "during"})
    lose(former, DATABASE)
    writing.post("/set", json={"daily_limit": 5})
    journal = parts(former).backend.journal
    present = "p" * 43
    lives = [HOUR_MS, 24 * HOUR_MS]
    journal.carry(Carry(old, present, "a", ["notes", "ui"], time.time_ns() // 1000, lives))
    assert leaving.post("/logout").status_code == 200
    assert journal.counts()["writes"] >= 3
    close(former)

    new = make_app(HEALTH_INTERVAL=3600)
    with parts(new).monitor.paused():
        wait_until(lambda: drained_by_a_round(new), "all that waits in the stores")
    assert browser(elsewhere, leaving.cookie).get("/fresh").json == {"fresh": False, "user": None}
    assert not row(new, leaving.digest)["live"]
    assert entry(primary, writing.digest, "translation")["input_text"] == '"during"'
    assert json.loads(row(new, writing.digest)["payload"])["daily_limit"] == 5
    assert entry(primary, writing.digest, "notes")["note"] == '"during"'
    assert entry(primary, present, "notes")["note"] == '"carried"'
    with primary.client() as redis:
        for name in (writing.digest, present):
            assert 0 < redis.pttl(f"session:notes:{{{name}}}") <= HOUR_MS


def test_d19_copies_of_a_category_that_a_release_does_not_know_stop_no_refill(
    former: Flask, make_app: MakeApp, primary: Valkey
) -> None:
    visitors = [former.test_client() for _ in range(5)]
    names = [
        digest(cookie_of(visitor.post("/set", json={"note": f"{number}", "input_text": "kept"})))
        for number, visitor in enumerate(visitors)
    ]
    parts(former).monitor.stop()
    backend = parts(former).backend
    backend.board.publish_copies(backend.memory.live_categories())
    close(former)
    new = make_app(HEALTH_INTERVAL=3600)
    with parts(new).monitor.paused(), primary.client() as redis:
        new.test_client().get("/who")
        redis.flushall()
        parts(new).monitor.recovery.steps.giving_back.begin("", 0)
        replay = parts(new).monitor.recovery

        def all_are_back() -> bool:
            replay.run_once()
            texts = [entry(primary, name, "translation").get("input_text") for name in names]
            return texts == ['"kept"'] * 5 and not replay.gives_back

        wait_until(all_are_back, "all copies are given back")
