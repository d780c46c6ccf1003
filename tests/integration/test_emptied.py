"""I25: a Redis that was emptied gets back what the hosts hold. Real servers, real signals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session

from devservers.servers import Valkey
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, FAILURES, PRIMARY, READ

from .behind import browser, entry, sign_in
from .conftest import MakeApp, cookie_of, parts
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


def start_empty(server: Valkey) -> None:
    """Start a server that has lost all its data."""
    for file in server.folder.rglob("*"):
        if file.is_file() and ("aof" in file.name or file.suffix == ".rdb"):
            file.unlink()
    server.start()
