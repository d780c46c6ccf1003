"""The workers of one host agree, also where one of them reaches Redis and another does not (yet)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session import session as ours
from flask_langpont_session.policy import leases
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import ONLY, READ, WRITE
from flask_langpont_session.policy.presets import DEFAULT_CATEGORIES
from flask_langpont_session.recovery import merges, outages
from flask_langpont_session.recovery.recovery import Progress
from flask_langpont_session.recovery.steps import Reach
from flask_langpont_session.request.journal_writer import JournalWriter
from flask_langpont_session.stores.host.journal import Journal
from flask_langpont_session.stores.host.register import WIPED
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.testing import switched_off
from tests.faults.proxy import REFUSE, FaultProxy
from tests.support.journal_process import process
from tests.support.journals import ref

from .behind import browser, digest, entry, sign_in, stored, wait_until_home, wait_until_lost
from .conftest import MakeApp, cookie_of, parts, redis_store

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


def test_what_is_made_from_an_older_copy_at_the_beginning_of_an_outage_is_not_lost(
    make_app: MakeApp, primary: Valkey
) -> None:
    """One worker is in it already, and another one, which wrote last, is not: the first one knows that its copy is
    older, and does not show it. What is written without having read it is the later one, and so is all that follows."""
    one, other = make_app(), make_app()
    client = sign_in(one, input_text="first")
    here, there = browser(one, client.cookie), browser(other, client.cookie)
    assert there.get("/get/input_text").json["value"] == "first"
    assert here.post("/set", json={"input_text": "second"}).status_code == 200
    assert field(primary, client, "input_text") == '"second"'
    with parts(one).monitor.paused(), switched_off(other, "primary"):
        assert there.get("/get/input_text").json["value"] is None
        assert there.post("/set", json={"input_text": "third"}).status_code == 200
        with switched_off(one, "primary"):
            assert here.get("/get/input_text").json["value"] == "third"
            assert there.post("/set", json={"input_text": "fourth"}).status_code == 200
        assert field(primary, client, "input_text") == '"fourth"'
    assert here.get("/get/input_text").json["value"] == "fourth"
    assert not any(parts(app).repository.recorder.counters().get("merge_conflicts") for app in (one, other))


def test_of_an_outage_no_more_is_lost_than_what_was_written_before_the_copies_were_shared(
    make_app: MakeApp, primary: Valkey
) -> None:
    """The first request of an outage comes to a worker that has no copy, and makes a list of what it cannot read. From
    when the copy is shared on, it is shown, as it will be after the outage, and what is made from it is kept."""

    def appending(app: Flask) -> Flask:
        @app.post("/append/<entry>")
        def append(entry: str) -> list[str]:
            session["input_text"] = [*session.get("input_text", []), entry]
            found: list[str] = session["input_text"]
            return found

        return app

    one, other = appending(make_app()), appending(make_app())
    client = sign_in(one, input_text=["tea", "cup"])
    here, there = browser(one, client.cookie), browser(other, client.cookie)
    here.get("/get/input_text")
    with parts(one).monitor.paused(), parts(other).monitor.paused(), switched_off(other, "primary"):
        assert there.post("/append/early").json == ["early"]
        with switched_off(one, "primary"):
            parts(one).backend.board.publish_copies(parts(one).backend.memory.live_categories())
            assert there.post("/append/jam").json == ["tea", "cup", "jam"]
            assert here.post("/append/egg").json == ["tea", "cup", "jam", "egg"]
    wait_until(lambda: waiting(one) == 0, "the merge")
    assert here.get("/get/input_text").json["value"] == ["tea", "cup", "jam", "egg"]
    losses = [loss for app in (one, other) for loss in parts(app).repository.recorder.losses()]
    assert [(loss.what, loss.cause) for loss in losses] == [("merge_conflicts", "made without reading")]


def test_a_replica_that_lacks_a_siblings_write_is_not_believed(
    make_app: MakeApp, primary: Valkey, replica: Valkey
) -> None:
    """The worker that wrote has not shared its copy yet: what there is is unknown, and nothing is made of what was."""
    one, other = make_app(REPLICA_URL=replica.url), make_app(REPLICA_URL=replica.url)
    client = sign_in(one, input_text="old")
    here, there = browser(one, client.cookie), browser(other, client.cookie)
    with primary.client() as server, replica.client() as follower:
        server.wait(1, 2000)
        follower.replicaof("127.0.0.1", 1)  # it keeps what it has
        try:
            here.post("/set", json={"input_text": "new"})
            with parts(one).monitor.paused(), switched_off(other, "primary"):
                assert there.get("/get/input_text").json["value"] is None
                parts(one).backend.board.publish_copies(parts(one).backend.memory.live_categories())
                assert there.get("/get/input_text").json["value"] == "new"
        finally:
            follower.replicaof("127.0.0.1", primary.port)


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


def test_what_is_written_after_a_wipe_stays_though_a_sibling_merges_the_wipe_meanwhile(make_app: MakeApp) -> None:
    """D10: between the request's look at what it has wiped and its save. What it writes is later than the wipe."""
    one, other = make_app(), make_app()
    replays = ExitStack()

    @other.post("/clear")
    def clear() -> str:
        session.clear()
        return ""

    @other.post("/append-late")
    def append_late() -> str:
        entries = session.get("input_text", [])
        assert entries == []
        replays.close()
        wait_until(lambda: waiting(one) == 0, "the merge")
        session["input_text"] = [*entries, "jam"]
        return ""

    there = seen_by_both(one, other)
    with switched_off(other, "primary"), replays:
        replays.enter_context(parts(one).monitor.paused())
        there.post("/clear")
        assert there.post("/append-late").status_code == 200
    here = browser(one, there.get_cookie("session").value)
    wait_until(lambda: not any(parts(one).backend.journal.counts().values()), "the replay")
    assert here.get("/get/input_text").json["value"] == ["jam"]


def field(server: Valkey, client: Any, key: str) -> str:
    return entry(server, client.digest, "translation")[key]


@pytest.mark.parametrize("bringing", ["before Redis is asked", "after Redis was asked"])
@pytest.mark.parametrize("kind", ["signed in", "anonymous", "on demand"])
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
    monkeypatch.setattr(leases, "DEGRADED_VERIFY_MS", 60_000)
    healthy, cut_off = make_app(), make_app(REDIS_URL=proxy.instead_of(primary.url))
    here = sign_in(healthy)
    there = browser(cut_off, here.cookie)
    lose_the_primary(cut_off, proxy, there)
    assert there.get("/who").json["user"] == "7"
    parts(healthy).backend.primary.write_tombstone(here.digest, 9, ("auth", "translation", "ui"), timeout=3.0)
    assert here.get("/who").json["user"] is None
    assert there.get("/who").json["user"] is None


def test_what_a_worker_that_reaches_redis_writes_is_seen_by_one_that_does_not(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey
) -> None:
    """A worker that cannot reach Redis reads it in the host's copy, and what it writes itself is laid upon that."""
    healthy, cut_off = make_app(), make_app(REDIS_URL=proxy.instead_of(primary.url))
    here = sign_in(healthy)
    there = browser(cut_off, here.cookie)
    assert there.get("/get/input_text").json["value"] is None
    lose_the_primary(cut_off, proxy, there)
    with parts(healthy).monitor.paused():  # it brings nothing home meanwhile
        for number in range(3):
            assert here.post("/set", json={"input_text": f"healthy {number}"}).status_code == 200
            assert there.get("/get/input_text").json["value"] == f"healthy {number}"
            assert there.post("/set", json={"input_text": f"cut off {number}"}).status_code == 200
            assert here.get("/get/input_text").json["value"] == f"cut off {number}"
    newcomer = sign_in(healthy, input_text="new")
    assert browser(cut_off, newcomer.cookie).get("/get/input_text").json["value"] == "new"
    proxy.heal()
    wait_until(lambda: parts(cut_off).health.level == 0 and waiting(cut_off) == 0, "the worker reaches Redis again")
    assert here.get("/get/input_text").json["value"] == there.get("/get/input_text").json["value"] == "cut off 2"


def test_what_is_written_while_a_worker_brings_older_things_home_is_not_taken_for_a_conflict(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the merge and the note of it, another worker would hold the newer value against what was just merged."""
    one, other, cut_off = make_app(), make_app(), make_app(REDIS_URL=proxy.instead_of(primary.url))
    here = sign_in(one, input_text="before")
    browser(other, here.cookie).get("/get/input_text")
    there = browser(cut_off, here.cookie)
    assert there.get("/get/input_text").json["value"] == "before"
    recovery = parts(one).monitor.recovery
    refresh, run = recovery.steps.copies.refresh, recovery.run

    def once(steps: Any, reach: Reach, seconds: float) -> Progress:
        return run(steps, reach, 0.0)

    def meanwhile(*arguments: Any) -> Any:
        assert there.post("/set", json={"input_text": "second"}).status_code == 200
        parts(other).monitor.tick()
        return refresh(*arguments)

    with parts(one).monitor.paused(), parts(other).monitor.paused():
        lose_the_primary(cut_off, proxy, there)
        assert there.post("/set", json={"input_text": "first"}).status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(recovery.steps.copies, "refresh", meanwhile)
            patch.setattr(recovery, "run", once)
            parts(one).monitor.tick()
    wait_until(lambda: waiting(other) == 0, "everything home")
    assert here.get("/get/input_text").json["value"] == "second"
    wait_until(lambda: there.get("/get/input_text").json["value"] == "second", "the same there")


def of_a_visitor(app: Flask, text: str) -> Any:
    """A browser with a text, and pages that give it another id or forget what it has."""

    @app.post("/regenerate")
    def regenerate() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return "regenerated"

    @app.post("/clear")
    def clear() -> str:
        session.clear()
        return "cleared"

    client: Any = app.test_client()
    client.cookie = cookie_of(client.post("/set", json={"input_text": text}))
    return client


def test_what_was_shared_of_an_id_that_was_given_up_is_not_given_back(
    make_app: MakeApp, primary: Valkey, tmp_path: Path
) -> None:
    """I20: in an outage. Later Redis is another server, and by then nothing else tells that the id was wiped: neither
    its record, which has run out, nor the note beside the journal, which gave way to those of other sessions."""
    here, sibling = make_app(), make_app()
    client = of_a_visitor(here, "before")
    former = client.cookie
    with ExitStack() as paused:
        for app in (here, sibling):
            paused.enter_context(parts(app).monitor.paused())
        with switched_off(here, "primary"), switched_off(sibling, "primary"):
            parts(here).monitor.outages.share()
            assert parts(here).backend.journal.overlay(ref(digest(former))).copies.keys() == {"translation"}
            assert client.post("/regenerate").status_code == 200
        assert waiting(here, "carries") == 0
        assert stored(primary, "translation", former) == {}
        with primary.client() as redis:
            redis.delete(f"session:translation:{{{digest(former)}}}")
        os.truncate(tmp_path / "journal.sqlite3-register", WIPED)
        parts(sibling).monitor.recovery.note_incident()
        parts(sibling).monitor.tick()
    assert browser(sibling, former).get("/get/input_text").json["value"] is None
    assert client.get("/get/input_text").json["value"] == "before"


def test_the_record_of_what_was_wiped_outlives_all_copies_of_what_it_had(make_app: MakeApp, primary: Valkey) -> None:
    """I20: a copy is given back to a Redis that may have lost data, and the record says that it is from before."""
    client = of_a_visitor(make_app(LOCAL_CACHE_TTL=60), "before")
    assert client.post("/clear").status_code == 200
    with primary.client() as redis:
        left = redis.pttl(f"session:translation:{{{digest(client.cookie)}}}")
    assert left > (60 + 30) * 1000


def test_a_replay_between_a_new_id_in_the_database_and_its_note_in_the_journal_drops_nothing(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis never knew the former id, and the database calls it dead: what waits for it would be dropped."""
    cut_off, sibling = make_app(REDIS_URL=proxy.instead_of(primary.url)), make_app()

    @cut_off.post("/regenerate")
    def regenerate() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return "another id"

    visitor: Any = cut_off.test_client()
    visitor.get("/who")
    lose_the_primary(cut_off, proxy, visitor)
    user = sign_in(cut_off, input_text="made in the outage")
    carry = JournalWriter.carry

    def late(self: JournalWriter, *arguments: Any, **options: Any) -> bool:
        monkeypatch.setattr(JournalWriter, "carry", carry)
        parts(sibling).monitor.tick()
        return carry(self, *arguments, **options)

    monkeypatch.setattr(JournalWriter, "carry", late)
    renamed = cookie_of(user.post("/regenerate"))
    assert renamed
    assert parts(cut_off).health.level == 2
    assert user.get("/get/input_text").json["value"] == "made in the outage"
    proxy.heal()
    wait_until_home(cut_off)
    assert stored(primary, "translation", renamed) == {"input_text": '"made in the outage"'}
    assert browser(sibling, renamed).get("/get/input_text").json["value"] == "made in the outage"
    assert not parts(sibling).recorder.losses()


@pytest.mark.parametrize("changes", [1, 2, 3])
def test_what_was_written_in_an_outage_outlives_several_new_ids(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey, changes: int
) -> None:
    """Redis knows the first id only: what is brought from it counts as it was there, not as written since."""
    app = make_app(REDIS_URL=proxy.instead_of(primary.url))

    @app.post("/regenerate")
    def regenerate() -> str:
        session.regenerate()  # type: ignore[attr-defined]
        return "another id"

    @app.post("/append/<int:number>")
    def append(number: int) -> Any:
        session["translation_context"] = [*session.get("translation_context", ()), number]
        return session["translation_context"]

    user = sign_in(app)
    for number in (1, 2):
        assert user.post(f"/append/{number}").json[-1] == number
    user.get("/all")
    lose_the_primary(app, proxy, user)
    assert user.post("/append/3").json == [1, 2, 3]
    assert user.post("/append/4").json == [1, 2, 3, 4]
    for _ in range(changes):
        assert user.post("/regenerate").status_code == 200
    assert user.post("/append/5").json == [1, 2, 3, 4, 5]
    assert parts(app).health.level == 2
    proxy.heal()
    wait_until_home(app)
    assert user.get("/get/translation_context").json["value"] == [1, 2, 3, 4, 5]
    assert not parts(app).recorder.losses()


def test_what_is_written_under_a_new_id_is_not_taken_for_older_than_the_id(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey
) -> None:
    """I16. A worker whose replies from Redis take long knows Redis' clock by that much. It signs a user out while it
    cannot reach Redis; another worker writes under the new id at once. The first one does not know what that is, and
    what it makes of nothing replaces nothing."""
    healthy, cut_off = make_app(), make_app(REDIS_URL=proxy.instead_of(primary.url))

    @cut_off.post("/leave")
    def leave() -> str:
        assert session.pop("_user_id") and session["theme"] == "dark"
        seen = redis_store(cut_off).server_identity
        known = seen.estimated_ms
        seen.estimated_ms = lambda at, *, latest=False: known(at, latest=latest) + latest * 5000  # type: ignore[method-assign]
        proxy.impose(REFUSE)
        return "bye"

    @cut_off.post("/append/<text>")
    def append(text: str) -> str:
        session["input_text"] = session.get("input_text", "") + text
        return str(session["input_text"])

    there = browser(cut_off, sign_in(healthy, theme="dark").cookie)
    cookie = cookie_of(there.post("/leave"))
    assert cookie and proxy.hits["refuse"]
    wait_until(lambda: waiting(healthy) == 0, "what waited is merged")
    here = browser(healthy, cookie)
    assert here.post("/set", json={"input_text": "theirs"}).status_code == 200
    assert there.post("/append/mine").text in ("mine", "theirsmine")
    proxy.heal()
    wait_until_home(cut_off)
    for worker in (healthy, cut_off):
        assert "theirs" in browser(worker, cookie).get("/get/input_text").json["value"]


def test_what_is_read_while_a_wipe_is_merged_is_not_taken_for_empty(
    make_app: MakeApp, proxy: FaultProxy, primary: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I16. A request asks the journal, in which a wipe waits; then that is merged, and Redis is asked and written. In
    the next outage the worker has what Redis had."""
    may_merge, read, pending = threading.Event(), RedisStore.read, Journal.pending_writes
    monkeypatch.setattr(Journal, "pending_writes", lambda *a, **more: pending(*a, **more) if may_merge.is_set() else [])
    healthy, worker = make_app(), make_app(REDIS_URL=proxy.instead_of(primary.url))

    def read_after_the_merge(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(RedisStore, "read", read)
        may_merge.set()
        wait_until(lambda: waiting(healthy) == 0, "what waited is merged")
        return read(*arguments, **options)

    @worker.post("/count")
    def count() -> str:
        assert session["input_text"] == "after"
        ours.increment("usage_count")
        return str(ours.level)

    @worker.post("/clear")
    def clear() -> str:
        session.clear()
        return ""

    cookie = cookie_of(worker.test_client().post("/set", json={"input_text": "before"}))
    assert cookie
    client = browser(worker, cookie)
    lose_the_primary(worker, proxy, client)
    client.post("/clear")
    client.post("/set", json={"input_text": "after"})
    assert waiting(worker)
    proxy.heal()
    wait_until(lambda: parts(worker).health.level == 0, "the worker's way back to Redis")
    monkeypatch.setattr(RedisStore, "read", read_after_the_merge)
    assert client.post("/count").text == "0"
    assert may_merge.is_set()
    lose_the_primary(worker, proxy, client)
    assert client.get("/get/input_text").json["value"] == "after"
