"""The workers of one host agree, also where one of them reaches Redis and another does not (yet)."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.policy import belief
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import ONLY, READ, WRITE
from flask_langpont_session.policy.presets import DEFAULT_CATEGORIES
from flask_langpont_session.recovery import merges, outages
from flask_langpont_session.recovery.steps import Reach
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.testing import switched_off
from tests.faults.proxy import REFUSE, FaultProxy
from tests.support.journal_process import process

from .behind import browser, digest, entry, sign_in, wait_until_lost
from .conftest import MakeApp, cookie_of, parts

ALONE = """
while True:
    with journal.alone() as is_alone:
        if is_alone:
            wait()
"""


def waiting(app: Flask, what: str = "writes") -> int:
    return parts(app).backend.journal.counts()[what]


def lose_the_primary(app: Flask, proxy: FaultProxy, client: Any) -> None:
    proxy.impose(REFUSE)
    client.get("/who")
    wait_until_lost(app, "primary")
    wait_until(lambda: waiting(app, "outages") == 1, "its announcement")
    assert proxy.hits["refuse"]


def test_what_a_sibling_merged_is_seen_by_a_worker_that_cannot_reach_redis(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged entries are laid over no read any more: the host's copy shows them to the cut-off worker, for as long
    as its outage lasts."""
    monkeypatch.setattr(outages, "ANNOUNCEMENTS", 0.0)
    monkeypatch.setattr(merges, "LINGER", 600.0)
    healthy, cut_off = make_app(), make_app(REDIS_URL=proxy.instead_of(primary.url))
    here = sign_in(healthy, input_text="before", source_lang="ja")
    there = browser(cut_off, here.cookie)
    assert there.get("/get/input_text").json["value"] == "before"
    lose_the_primary(cut_off, proxy, there)
    monitors = [parts(app).monitor for app in (cut_off, healthy)]

    def is_home() -> bool:
        for monitor in monitors:  # in this order: the one says that it is in an outage before the other one looks
            monitor.tick()
        return waiting(cut_off) == 0

    with ExitStack() as paused:
        for monitor in monitors:
            paused.enter_context(monitor.paused())
        for text in ("during", "later"):
            assert there.post("/set", json={"input_text": text}).status_code == 200
            wait_until(is_home, "the sibling brought it home")
            for _ in range(3):
                assert there.get("/all").json == browser(healthy, here.cookie).get("/all").json
                assert there.get("/get/input_text").json["value"] == text
        monkeypatch.setattr(merges, "LINGER", 0.5)
        until = time.monotonic() + 2 * merges.LINGER
        while time.monotonic() < until:  # the sibling's monitor clears up
            assert is_home()
        assert parts(cut_off).health.level == 2
        assert there.get("/get/input_text").json["value"] == "later"
    proxy.heal()
    wait_until(lambda: parts(cut_off).health.level == 0, "the worker reaches Redis again")
    wait_until(lambda: waiting(cut_off, "copies") == 0, "the copies are cleared")
    assert there.get("/get/input_text").json["value"] == "later"


def test_what_a_sibling_merged_is_seen_though_another_one_has_taken_the_outage_back(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that recovers says so for the whole host; one that has not is believed again only a little later."""
    monkeypatch.setattr(outages, "ANNOUNCEMENTS", 600.0)
    monkeypatch.setattr(merges, "LINGER", 600.0)
    healthy, cut_off = make_app(), make_app(REDIS_URL=proxy.instead_of(primary.url))
    here = sign_in(healthy, input_text="before")
    there = browser(cut_off, here.cookie)
    assert there.get("/get/input_text").json["value"] == "before"
    lose_the_primary(cut_off, proxy, there)
    with parts(healthy).monitor.paused():
        assert there.post("/set", json={"input_text": "during"}).status_code == 200
        parts(cut_off).backend.board.outage_over("primary")
    wait_until(lambda: waiting(cut_off) == 0, "the sibling brought it home")
    assert there.get("/get/input_text").json["value"] == "during"


def field(server: Valkey, client: Any, key: str) -> str:
    return entry(server, client.digest, "translation")[key]


def test_a_worker_that_stops_while_it_brings_things_home_keeps_no_other_one_from_redis(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey, tmp_path: Path
) -> None:
    """Entries that wait are laid over reads meanwhile, and are merged when the stopped worker is gone."""
    app = make_app(REDIS_URL=proxy.instead_of(primary.url))
    client = sign_in(app, input_text="before")
    lose_the_primary(app, proxy, client)
    assert client.post("/set", json={"input_text": "during"}).status_code == 200
    with process(ALONE, tmp_path / "journal.sqlite3") as sibling:
        try:
            assert sibling.stdout and sibling.stdout.readline() == "ready\n"
            sibling.send_signal(signal.SIGSTOP)
            proxy.heal()
            wait_until(lambda: parts(app).health.level == 0, "level 0")
            assert waiting(app) == 1
            assert client.get("/get/input_text").json["value"] == "during"
            assert field(primary, client, "input_text") == '"before"'
        finally:
            sibling.kill()
    wait_until(lambda: waiting(app) == 0, "everything home")
    assert field(primary, client, "input_text") == '"during"'


def test_a_change_of_auth_in_the_outage_is_seen_by_the_next_request(make_app: MakeApp) -> None:
    """An answer that a worker got from the database a moment ago does not count when another one has changed the row
    since."""
    one, other = make_app(), make_app()
    client = sign_in(one)
    here, there = browser(one, client.cookie), browser(other, client.cookie)
    with switched_off(one, "primary"), switched_off(other, "primary"):
        for limit in range(3):
            assert here.post("/set", json={"daily_limit": limit}).status_code == 200
            assert there.get("/get/daily_limit").json["value"] == limit
        assert there.post("/set", json={"daily_limit": 7}).status_code == 200
        assert here.get("/get/daily_limit").json["value"] == 7


def test_what_a_worker_knows_from_before_the_outage_does_not_count(make_app: MakeApp) -> None:
    """A change that another worker has told Redis of since counts, however short ago this worker was told of the one
    before."""
    one, other = make_app(), make_app()
    client = sign_in(one)
    here, there = browser(one, client.cookie), browser(other, client.cookie)
    for limit in range(3):
        assert there.get("/who").json["user"] == "7"
        assert here.post("/set", json={"daily_limit": limit}).status_code == 200
        with switched_off(other, "primary"):
            assert there.get("/get/daily_limit").json["value"] == limit


def test_a_change_of_auth_by_a_worker_that_reaches_redis_is_seen_by_one_that_does_not(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey
) -> None:
    """Redis has it, so nothing waits in the journal that could tell the other one."""
    healthy, cut_off = make_app(), make_app(REDIS_URL=proxy.instead_of(primary.url))
    here = sign_in(healthy, daily_limit=0)
    there = browser(cut_off, here.cookie)
    lose_the_primary(cut_off, proxy, there)
    for limit in range(1, 4):
        assert there.get("/get/daily_limit").json["value"] == limit - 1
        assert there.post("/set", json={"daily_limit": -limit}).status_code == 200
        assert there.get("/get/daily_limit").json["value"] == -limit
        assert here.post("/set", json={"daily_limit": limit}).status_code == 200
        assert there.get("/get/daily_limit").json["value"] == limit


def test_a_worker_that_finds_a_session_dead_in_redis_tells_one_that_cannot_reach_redis(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row that the cut-off worker was shown a moment ago is not believed any more."""
    monkeypatch.setattr(belief, "DEGRADED_VERIFY_MS", 60_000)
    healthy, cut_off = make_app(), make_app(REDIS_URL=proxy.instead_of(primary.url))
    here = sign_in(healthy)
    there = browser(cut_off, here.cookie)
    lose_the_primary(cut_off, proxy, there)
    assert there.get("/who").json["user"] == "7"
    parts(healthy).backend.primary.push_many([(here.digest, 9)], ("auth", "translation", "ui"), stamp_ms=0, timeout=3.0)
    assert here.get("/who").json["user"] is None
    assert there.get("/who").json["user"] is None


def test_the_record_of_what_was_wiped_outlives_all_copies_of_what_it_had(make_app: MakeApp, primary: Valkey) -> None:
    """I20: a copy is given back to a Redis that may have lost data, and the record says that it is from before."""
    app = make_app(LOCAL_CACHE_TTL=60)

    @app.post("/clear")
    def clear() -> str:
        session.clear()
        return "cleared"

    client: Any = app.test_client()
    cookie = cookie_of(client.post("/set", json={"input_text": "before"}))
    assert client.post("/clear").status_code == 200
    with primary.client() as redis:
        left = redis.pttl(f"session:translation:{{{digest(cookie)}}}")
    assert left > (60 + 30) * 1000


def seen_by_both(one: Flask, other: Flask) -> Any:
    """A visitor's browser at the other application; both have seen its list, which has tea."""
    client: Any = one.test_client()
    there = browser(other, cookie_of(client.post("/set", json={"input_text": ["tea"]})) or "")
    there.get("/get/input_text")
    return there


def test_what_a_sibling_merges_during_a_sign_in_is_taken_along(make_app: MakeApp, primary: Valkey) -> None:
    """Between the request's look at the old id and its save, what waited for that id has left the journal. Until it is
    brought from Redis, the data under the new id is unknown, and nothing is made of the older copy."""
    one, other = make_app(), make_app()
    replays = ExitStack()

    def pause() -> None:
        replays.enter_context(parts(one).monitor.paused())

    @other.post("/sign-in-late")
    def sign_in_late() -> str:
        assert session["input_text"] == ["tea", "cup"]
        replays.close()
        wait_until(lambda: waiting(one) == 0, "the merge")
        pause()
        session["user_id"] = "7"
        return ""

    @other.post("/append/<entry>")
    def append(entry: str) -> str:
        session["input_text"] = [*session.get("input_text", []), entry]
        return ""

    there = seen_by_both(one, other)
    with switched_off(other, "primary"), replays:
        pause()
        there.post("/append/cup")
        cookie = cookie_of(there.post("/sign-in-late")) or ""
        assert there.get("/get/input_text").json["value"] in (None, ["tea", "cup"])
        there.post("/append/jam")
    here = browser(one, cookie)
    wait_until(lambda: not any(parts(one).backend.journal.counts().values()), "the replay")
    assert here.get("/get/input_text").json["value"][:2] == ["tea", "cup"]


@pytest.mark.parametrize(
    ("kind", "bringing"),
    [
        ("signed in", "before Redis is asked"),
        *((kind, "after Redis was asked") for kind in ("signed in", "anonymous", "on demand")),
    ],
)
def test_what_is_merged_while_redis_is_asked_is_seen_once(
    make_app: MakeApp, primary: Valkey, monkeypatch: pytest.MonkeyPatch, kind: str, bringing: str
) -> None:
    """An addition is not counted twice, and neither it nor a value is missing in what the request sees."""
    categories = {
        name: {"features": {}, **spec, "on_demand": kind == "on demand" and name != "auth"}
        for name, spec in DEFAULT_CATEGORIES.items()
    }
    app = make_app(CATEGORIES=categories)
    state = parts(app)

    @app.post("/add")
    def add() -> str:
        return str(session.increment("usage_count"))  # type: ignore[attr-defined]

    client = app.test_client()
    if kind != "anonymous":
        client.post("/login/7")
    client.post("/set", json={"usage_count": 1, "input_text": "before"})
    recovery = state.monitor.recovery
    home: list[None] = []
    ask = RedisStore.read

    def read(store: RedisStore, ref: RecordRef, lives: Mapping[str, int], **options: Any) -> Any:
        if home or "translation" not in lives:
            return ask(store, ref, lives, **options)
        home.append(None)
        answer = ask(store, ref, lives, **options) if bringing.startswith("after") else None
        assert recovery.run(recovery.steps.journal, Reach(frozenset({ONLY}), True), 10.0).left is None
        assert waiting(app) == 0
        return answer or ask(store, ref, lives, **options)

    with state.monitor.paused():
        state.health.failed(StoreError("primary", ErrorClass.UNREACHABLE, "SwitchedOff", timed_out=True), READ)
        assert client.post("/add").text == "2"
        assert client.post("/set", json={"input_text": "during"}).status_code == 200
        assert waiting(app) == 2
        state.health.close("primary", (READ, WRITE))
        monkeypatch.setattr(RedisStore, "read", read)
        seen: Any = client.get("/all").json
    assert home
    assert seen["usage_count"] == 2
    assert seen["input_text"] == "during"
