"""The workers of one host agree, also where one of them reaches Redis and another does not (yet)."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.recovery import merges, outages
from flask_langpont_session.stores.host import journal
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
        until = time.monotonic() + 1.0
        while time.monotonic() < until:  # the sibling's monitor clears up
            assert is_home()
        assert parts(cut_off).health.level == 2
        assert there.get("/get/input_text").json["value"] == "later"
    proxy.heal()
    wait_until(lambda: parts(cut_off).health.level == 0, "the worker reaches Redis again")
    wait_until(lambda: waiting(cut_off, "copies") == 0, "the copies are cleared")
    assert there.get("/get/input_text").json["value"] == "later"


def test_the_writes_after_an_outage_are_shared_with_no_sibling(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them have Redis. If each write renewed the copies of its session, a session that is always written would
    have something in the journal for ever, and each of its writes would wait for the disk."""
    monkeypatch.setattr(merges, "LINGER", 600.0)
    monkeypatch.setattr(journal, "LINGER", 0.0)
    app = make_app(REDIS_URL=proxy.instead_of(primary.url))
    client, board = sign_in(app, input_text="before"), parts(app).backend.board
    lose_the_primary(app, proxy, client)
    assert client.post("/set", json={"input_text": "during"}).status_code == 200
    proxy.heal()
    wait_until(lambda: waiting(app) == waiting(app, "outages") == parts(app).health.level == 0, "all is merged")
    copies = board.shared_copies()
    assert copies
    assert client.post("/set", json={"input_text": "after"}).status_code == 200
    assert field(primary, client, "input_text") == '"after"'
    assert [copy.copy.version for copy in board.shared_copies().values()] == [c.copy.version for c in copies.values()]


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
