"""I25: a Redis that was emptied gets back what the hosts hold. Real servers, real signals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, FAILURES, PRIMARY, READ

from .behind import browser, entry, sign_in, wait_until_home
from .conftest import SHORT_WAITS, MakeApp, cookie_of, parts
from .counting import wait_for_monitors
from .looks import look

QUICK = {"HEALTH_INTERVAL": 0.2}


@pytest.fixture
def hosts(make_app: MakeApp, tmp_path: Path) -> Iterator[tuple[Flask, Flask]]:
    """A worker on each of two hosts; their monitors only tick by hand."""
    apps = make_app(), make_app(JOURNAL=str(tmp_path / "other host.sqlite3"))
    with ExitStack() as stack:
        for app in apps:
            add_pages(app)
            stack.enter_context(parts(app).monitor.paused())
            look(app)
        yield apps


def add_pages(app: Flask) -> None:
    @app.post("/clear")
    def clear() -> str:
        session.clear()
        return "cleared"

    @app.post("/add")
    def add() -> str:
        return str(session.increment("usage_count"))  # type: ignore[attr-defined]


def empty(server: Valkey) -> None:
    with server.client() as redis:
        redis.flushall()


def visitor(app: Flask, **data: Any) -> Any:
    """A browser of a visitor, with some data."""
    client: Any = app.test_client()
    client.cookie = cookie_of(client.post("/set", json=data))
    return client


def shown(app: Flask, client: Any) -> dict[str, Any]:
    """Return the data that a browser is shown by a worker."""
    everything: dict[str, Any] = browser(app, client.cookie).get("/all").json
    return {key: value for key, value in everything.items() if not key.startswith("_") and key != "user_role"}


@pytest.mark.parametrize("is_read", [False, True])
def test_what_was_there_before_a_flush_is_there_again(
    hosts: tuple[Flask, Flask], primary: Valkey, is_read: bool
) -> None:
    """The data is back as soon as a worker that has seen it looks; a read in between, which finds nothing, does not
    hide it."""
    app, _ = hosts
    clients = [sign_in(app, input_text="mine"), visitor(app, input_text="mine")]
    empty(primary)
    if is_read:
        for client in clients:
            shown(app, client)
    look(app)
    for client in clients:
        assert shown(app, client)["input_text"] == "mine"


def test_a_read_that_finds_nothing_has_the_loss_looked_for_at_once(make_app: MakeApp, primary: Valkey) -> None:
    """The read has the loss looked for long before the next canary is due."""
    app = make_app(HEALTH_INTERVAL=600)
    client = visitor(app, input_text="mine")
    wait_until(lambda: parts(app).monitor.has_looked, "the first look")
    empty(primary)
    wait_until(lambda: shown(app, client) == {"input_text": "mine"}, "what was lost")


def test_what_this_worker_has_is_shown_where_there_is_no_time_to_look_for_a_loss(
    make_app: MakeApp, primary: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of an emptied Redis is not taken for all there is, and not kept. The request has the monitor look
    for the loss at once."""
    app = make_app(HEALTH_INTERVAL=3600)
    client = sign_in(app, input_text="mine")
    assert client.get("/get/input_text").json == {"value": "mine", "present": True}
    wait_for_monitors()

    def too_late(*arguments: object, **options: object) -> None:
        raise StoreError(PRIMARY, ErrorClass.LOCAL, "StartedLate", timed_out=True)

    with parts(app).monitor.paused(), primary.client() as redis:
        redis.flushall()
        with monkeypatch.context() as patch:
            patch.setattr(parts(app).backend, "look_for_loss", too_late)
            for _ in range(4):
                assert client.get("/get/input_text").json == {"value": "mine", "present": True}
    wait_until(lambda: bool(entry(primary, client.digest, "translation")), "what was lost is given back")


def test_what_was_over_does_not_come_back(hosts: tuple[Flask, Flask], primary: Valkey) -> None:
    """A category that a server has let go of by itself, as a look at it has shown, before it loses data."""
    app, _ = hosts
    client = visitor(app, input_text="mine")
    with primary.client() as redis:
        redis.delete(*redis.keys("session:translation:*"))
    assert shown(app, client) == {}
    look(app)
    empty(primary)
    look(app)
    assert shown(app, client) == {}


@pytest.mark.parametrize("order", list(permutations(range(2))))
def test_of_two_hosts_the_one_that_knows_more_wins(
    hosts: tuple[Flask, Flask], primary: Valkey, order: tuple[int, int]
) -> None:
    """The newer copy wins, whichever host looks first."""
    client = visitor(hosts[0], input_text="first", source_lang="ja")
    there = browser(hosts[1], client.cookie)
    assert there.get("/get/source_lang").json["value"] == "ja"
    assert there.post("/set", json={"input_text": "second"}).status_code == 200
    empty(primary)
    for number in order:
        look(hosts[number])
    for app in hosts:
        assert shown(app, client) == {"input_text": "second", "source_lang": "ja"}


@pytest.mark.parametrize("order", list(permutations(range(2))))
def test_a_clear_on_another_host_is_not_undone(
    hosts: tuple[Flask, Flask], primary: Valkey, order: tuple[int, int]
) -> None:
    """The worker that cleared it knows; the other one has what was there before."""
    client = visitor(hosts[0], input_text="mine")
    assert browser(hosts[1], client.cookie).post("/clear").status_code == 200
    empty(primary)
    for number in order:
        look(hosts[number])
    for app in hosts:
        assert "input_text" not in shown(app, client)


def test_data_of_signed_in_sessions_waits_for_the_word_of_the_database(
    hosts: tuple[Flask, Flask], primary: Valkey
) -> None:
    """Only the database can say whether these sessions live; data of visitors need not wait for that."""
    app, _ = hosts
    client, dead, other = sign_in(app, input_text="mine"), sign_in(app, input_text="x"), visitor(app, input_text="x")
    browser(hosts[1], dead.cookie).post("/logout")
    state = parts(app)
    for _ in range(FAILURES):
        state.health.failed(StoreError(DATABASE, ErrorClass.UNREACHABLE, "Test", timed_out=True), READ)
    empty(primary)
    state.monitor.recovery.look_for_losses(PRIMARY, 1.0)
    state.monitor.recovery.run_once()
    assert shown(app, other) == {"input_text": "x"}
    assert entry(primary, client.digest, "translation") == {}
    state.monitor.probes.recover(DATABASE, (READ, "write"))
    state.monitor.recovery.run_once()
    assert entry(primary, client.digest, "translation")["input_text"] == '"mine"'
    assert entry(primary, dead.digest, "translation") == {}


def test_nothing_is_gone_after_a_server_was_killed_and_came_back_empty(make_app: MakeApp, primary: Valkey) -> None:
    """Data that was acknowledged before and during the outage is there, under load; an addition is added to what
    was."""
    app = make_app(**QUICK, **SHORT_WAITS)
    add_pages(app)
    clients = [visitor(app, usage_count=5, input_text="before") for _ in range(5)]
    clients += [sign_in(app, usage_count=5, input_text="before") for _ in range(5)]
    ends, failed = threading.Event(), list[str]()

    def use(client: Any) -> None:
        own, number = browser(app, client.cookie), 0
        while not ends.wait(0.02):
            number += 1
            response = own.post("/set", json={"partner_message": number})
            if response.status_code == 200:
                client.last = number
            else:
                failed.append(response.status)

    threads = [threading.Thread(target=use, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    primary.kill()
    wait_until(lambda: parts(app).health.level > 0, "the outage")
    for client in clients:
        assert browser(app, client.cookie).post("/add").text == "6"
        assert browser(app, client.cookie).post("/set", json={"context_info": "during"}).status_code == 200
    start_empty(primary)
    wait_until(lambda: parts(app).health.level == 0, "level 0")
    wait_until_home(app)
    ends.set()
    for thread in threads:
        thread.join()
    wait_until_home(app)
    wait_until(lambda: not parts(app).monitor.recovery.gives_back, "all given back")
    assert failed == []
    for client in clients:
        assert shown(app, client) == {
            "input_text": "before",
            "context_info": "during",
            "usage_count": 6,
            "partner_message": client.last,
        }


def start_empty(server: Valkey) -> None:
    """Start a server that has lost all its data."""
    for file in server.folder.rglob("*"):
        if file.is_file() and ("aof" in file.name or file.suffix == ".rdb"):
            file.unlink()
    server.start()
