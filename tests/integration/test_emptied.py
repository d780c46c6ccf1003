"""I25: a Redis that was emptied gets back what the hosts hold. Real servers, real signals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session

from devservers.servers import Valkey

from .behind import browser, sign_in
from .conftest import MakeApp, cookie_of, parts
from .looks import look


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
