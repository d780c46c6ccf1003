"""I22: no store that is back waits for the merge; what is merged keeps its order. Real servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from flask import session

from devservers.processes import LONG, wait_until
from devservers.servers import Valkey
from flask_langpont_session.build import State
from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, WRITE
from flask_langpont_session.recovery.monitor import Monitor
from flask_langpont_session.stores.host.entries import WIPED_FIELD
from flask_langpont_session.stores.host.journal import Carry, Journal, PendingWrite
from flask_langpont_session.stores.redis.store import RedisStore

from .behind import browser, entry, row, sign_in, wait_until_home
from .conftest import MakeApp, cookie_of, parts

BOTH = (READ, WRITE)


def name(number: int) -> str:
    """A digest."""
    return f"{number:043}"


def write(digest: str, key: str, value: str, **more: Any) -> PendingWrite:
    about: dict[str, Any] = {"kind": "a", "category": "translation", "operation": Operation.SET, **more}
    return PendingWrite(digest=digest, field=key, value=f'"{value}"'.encode(), moment=time.time_ns() // 1000, **about)


def lose(state: State, *stores: str) -> None:
    for store in stores:
        for way in BOTH:
            state.health.failed(StoreError(store, ErrorClass.UNREACHABLE, "Test", timed_out=True), way)


@contextmanager
def slowed(store: type, method: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Make the method take longer. Yield the times at which it was called, in monotonic seconds."""
    called: list[float] = []
    real = getattr(store, method)

    def slow(*arguments: Any, **more: Any) -> Any:
        called.append(time.monotonic())
        time.sleep(seconds)
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(store, method, slow)
        yield called


def keep_many(journal: Journal, number: int) -> None:
    """Changes of so many sessions; not all in one call, which waits no longer than a request does."""
    for begin in range(0, number, 250):
        journal.put([write(name(each), "input_text", "x") for each in range(begin, min(begin + 250, number))])


# -- beside recovery ---------------------------------------------------------------------------------------------------


def test_a_database_that_was_away_during_a_replay_is_in_use_again_at_once(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is in use at once however long the replay takes: here until the database is in use."""
    app = make_app()
    state, merge_all = parts(app), RedisStore.merge_all
    merging, go_on = threading.Event(), threading.Event()

    def held(*arguments: Any, **more: Any) -> Any:
        merging.set()
        assert go_on.wait(2 * LONG)
        return merge_all(*arguments, **more)

    with state.monitor.paused():
        lose(state, PRIMARY)
        keep_many(state.backend.journal, 50)
    with monkeypatch.context() as patch:
        patch.setattr(RedisStore, "merge_all", held)
        state.monitor.ensure_started()
        assert merging.wait(LONG)
        wait_until(lambda: not state.health.open_stores(), "the replay")
        lose(state, DATABASE)
        wait_until(lambda: not state.health.open_stores(), "the database in use")
        assert app.test_client().post("/login/7").status_code == 200
        assert state.backend.journal.counts()["writes"] == 50
        go_on.set()
    wait_until_home(app)


def test_a_journal_that_cannot_be_merged_keeps_no_store_from_requests(
    make_app: MakeApp, primary: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries that wait are shown all the same, and new writes go behind them."""
    app = make_app()
    state, client = parts(app), sign_in(app, input_text="before")
    with state.monitor.paused():
        lose(state, PRIMARY)
        assert client.post("/set", json={"input_text": "during"}).status_code == 200

        def fails(*arguments: Any, **more: Any) -> Any:
            raise StoreError(PRIMARY, ErrorClass.UNREACHABLE, "Test")

        with monkeypatch.context() as patch:
            patch.setattr(RedisStore, "merge_all", fails)
            state.monitor.probes.recover(PRIMARY, BOTH)
            state.monitor.tick()
            assert not state.health.open_stores()
            assert client.get("/get/input_text").json["value"] == "during"
            assert client.post("/set", json={"partner_message": "after"}).status_code == 200
            assert entry(primary, client.digest, "translation")["input_text"] == '"before"'
            assert "partner_message" not in entry(primary, client.digest, "translation")
        state.monitor.tick()
        stored = entry(primary, client.digest, "translation")
        assert (stored["input_text"], stored["partner_message"]) == ('"during"', '"after"')


def test_a_sign_out_in_an_outage_holds_before_any_store_knows_of_it(make_app: MakeApp) -> None:
    """I5, I8: on every worker of the host, although both stores are in use and say that it lives."""
    app, sibling = make_app(), make_app()
    client = sign_in(app)
    assert browser(sibling, client.cookie).get("/who").json["user"] == "7"
    with parts(app).monitor.paused(), parts(sibling).monitor.paused():
        for worker in (app, sibling):
            lose(parts(worker), PRIMARY, DATABASE)
        assert browser(app, client.cookie).post("/logout").status_code == 200
        for worker in (app, sibling):
            for store in (PRIMARY, DATABASE):
                parts(worker).monitor.probes.recover(store, BOTH)
        assert row(app, client.digest)["live"]
        for worker in (app, sibling):
            assert browser(worker, client.cookie).get("/who").json["user"] is None
        parts(sibling).monitor.tick()
        assert not row(app, client.digest)["live"]


def test_auth_that_is_written_after_an_outage_is_not_undone_by_what_waits(make_app: MakeApp) -> None:
    """I18: also if it is what it was before the outage."""
    app = make_app()
    state, client = parts(app), sign_in(app)
    client.post("/set", json={"daily_limit": 1})
    with state.monitor.paused():
        lose(state, DATABASE)
        assert client.post("/set", json={"daily_limit": 2}).status_code == 200
        state.monitor.probes.recover(DATABASE, BOTH)
        assert client.get("/get/daily_limit").json["value"] == 2
        assert client.post("/set", json={"daily_limit": 1}).status_code == 200
        assert client.get("/get/daily_limit").json["value"] == 1
        state.monitor.tick()
        assert client.get("/get/daily_limit").json["value"] == 1


def test_a_right_that_is_granted_while_other_auth_waits_takes_it_along(make_app: MakeApp) -> None:
    """Rights never wait; what is written with them takes the place of what does."""
    app = make_app()
    state, client = parts(app), sign_in(app)
    client.post("/set", json={"daily_limit": 1})
    with state.monitor.paused():
        lose(state, DATABASE)
        assert client.post("/set", json={"daily_limit": 2}).status_code == 200
        state.monitor.probes.recover(DATABASE, BOTH)
        assert client.post("/set", json={"daily_limit": 1, "user_role": "editor"}).status_code == 200
        state.monitor.tick()
        assert client.get("/get/daily_limit").json["value"] == 1
        assert client.get("/get/user_role").json["value"] == "editor"


# -- data under former ids ---------------------------------------------------------------------------------------------


def test_what_is_still_to_be_carried_is_not_known(make_app: MakeApp, primary: Valkey) -> None:
    """I16: a list that is made of nothing meanwhile does not replace the one that comes."""
    app = make_app()

    @app.get("/available")
    def available() -> str:
        return str(session.available("translation_state"))  # type: ignore[attr-defined]

    state = parts(app)
    client: Any = app.test_client()
    cookie = cookie_of(client.post("/set", json={"input_text": "old", "context_info": "old"}))
    old = browser(app, cookie or "")
    with state.monitor.paused():
        state.backend.memory.clear()
        lose(state, PRIMARY)
        new = cookie_of(old.post("/login/7"))
        assert state.backend.journal.counts()["carries"] == 1
        state.monitor.probes.recover(PRIMARY, BOTH)
        now = browser(app, new or "")
        assert now.get("/available").text == "False"
        assert now.post("/set", json={"partner_message": "new"}).status_code == 200
        assert now.get("/get/partner_message").json["value"] == "new"
        state.monitor.tick()
        shown = now.get("/all").json
        assert now.get("/available").text == "True"
    assert (shown["input_text"], shown["context_info"], shown["partner_message"]) == ("old", "old", "new")


def test_what_was_written_under_the_new_id_is_newer_than_what_is_carried(make_app: MakeApp) -> None:
    """A write without a look at it, and an addition; carried over two changes of id."""
    app = make_app()
    state = parts(app)
    journal = state.backend.journal
    first, second, third = name(1), name(2), name(3)
    with state.monitor.paused():
        lose(state, PRIMARY)
        journal.put([write(first, "input_text", "old"), write(first, "context_info", "old")])
        state.monitor.probes.recover(PRIMARY, BOTH)
        state.monitor.tick()
        lose(state, PRIMARY)
        journal.carry(Carry(first, second, "a", ["translation"]))
        journal.carry(Carry(second, third, "a", ["translation"]))
        journal.put([write(third, "input_text", "new")])
        state.monitor.probes.recover(PRIMARY, BOTH)
        state.monitor.tick()
        [copy] = state.backend.primary.copies([(third, "translation")], timeout=5)
    assert copy.fields == {"input_text": b'"new"', "context_info": b'"old"'}
    assert not journal.counts()["carries"] + journal.counts()["writes"]


# -- many at once ------------------------------------------------------------------------------------------------------


def test_revocations_that_come_in_the_middle_go_first(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice ends after its time, and the next one begins with them; data goes on where it was."""
    app = make_app()
    state = parts(app)
    journal = state.backend.journal
    monkeypatch.setattr("flask_langpont_session.recovery.steps.PIPELINE", 10)
    with state.monitor.paused():
        state.monitor.tick()  # this worker knows the server, and has nothing to give back
    with state.monitor.paused(), slowed(RedisStore, "merge_all", 0.03, monkeypatch):
        journal.put([write(name(number), "input_text", "x") for number in range(200)])
        assert not state.monitor.recovery.run_once(0.1)
        left = journal.counts()["writes"]
        assert 0 < left < 200
        journal.revocations.note(name(300))
        assert not state.monitor.recovery.run_once(0.01)
        assert journal.counts()["revocations"] == 0
        assert journal.counts()["writes"] in (left, left - 10)
        while not state.monitor.recovery.run_once():
            pass
        assert journal.counts()["writes"] == 0


def test_nothing_is_dropped_for_its_age_while_it_is_merged(make_app: MakeApp) -> None:
    """A second outage during the replay counts for nothing either; what waited too long before is dropped."""
    app = make_app()
    state = parts(app)
    journal, now = state.backend.journal, [time.time()]
    monitor = Monitor(state.backend, now_ms=lambda: int(now[0] * 1000))
    patience = state.settings.journal_ttl

    def has_merged() -> bool:
        monitor.recovery.run_once()  # a slice: a busy machine needs several
        return monitor.recovery.steps.merges.nothing_waits

    with state.monitor.paused():
        monitor.tick()
        lose(state, PRIMARY)
        journal.put([write(name(1), "input_text", "young")])
        now[0] += patience - 60
        monitor.probes.recover(PRIMARY, BOTH)
        now[0] += patience
        lose(state, DATABASE)
        monitor.probes.recover(DATABASE, BOTH)
        wait_until(has_merged, "the merge of what is young")
        lose(state, PRIMARY)
        journal.put([write(name(2), "input_text", "old")])
        now[0] = time.time() + patience + 1
        monitor.probes.recover(PRIMARY, BOTH)
        wait_until(has_merged, "the end of what is old")
        copies = state.backend.primary.copies([(name(n), "translation") for n in (1, 2)], timeout=5)
    assert [bool(copy.fields) for copy in copies] == [True, False]
    assert journal.counts()["writes"] == 0


@pytest.mark.parametrize("step", [10, -10, 86_400, -86_400])
def test_setting_the_clock_of_a_host_drops_and_undoes_nothing(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """I31, D25: in an outage. What waits is merged, and what was cleared after the clock was set stays so."""
    app = make_app()
    state, by, wall = parts(app), [0.0], time.time
    journal = state.backend.journal
    monkeypatch.setattr(time, "time", lambda: wall() + by[0])
    with state.monitor.paused():
        state.monitor.tick()
        lose(state, PRIMARY)
        journal.put([write(name(1), "input_text", "kept")])
        journal.put([write(name(2), "input_text", "cleared")])
        by[0] = step
        journal.put([replace(write(name(2), WIPED_FIELD, ""), operation=Operation.WIPE, value=None)])
        assert (journal.waiting().oldest_seconds(time.time()) or 0.0) < 1000
        state.monitor.probes.recover(PRIMARY, BOTH)
        state.monitor.recovery.run_once()
        copies = state.backend.primary.copies([(name(n), "translation") for n in (1, 2)], timeout=5)
    assert [bool(copy.fields) for copy in copies] == [True, False]
    assert journal.counts()["writes"] == 0


# -- threads -----------------------------------------------------------------------------------------------------------


def replays() -> set[threading.Thread]:
    """The threads that replay, of all applications."""
    return {thread for thread in threading.enumerate() if thread.name == "langpont-session-replay"}


def test_the_end_of_an_application_ends_the_replay(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay of a large journal ends in the middle; what is left waits."""
    app = make_app()
    state, others = parts(app), replays()
    monkeypatch.setattr("flask_langpont_session.recovery.steps.PIPELINE", 10)
    with slowed(RedisStore, "merge_all", 0.02, monkeypatch) as merged:
        with state.monitor.paused():
            keep_many(state.backend.journal, 3000)
        state.monitor.ensure_started()
        wait_until(lambda: bool(merged), "the replay")
        state.monitor.stop()
        assert replays() <= others
    assert state.backend.journal.counts()["writes"] > 0
