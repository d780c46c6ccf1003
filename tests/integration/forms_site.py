"""An application with forms and Flask-Login, and browsers that use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import sqlalchemy
from flask import Flask
from flask_login import LoginManager, UserMixin

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.testing import switched_off

from .behind import wait_for_level
from .conftest import parts


class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    def __init__(self, user_id: str) -> None:
        self.id = user_id


def with_login_manager(app: Flask) -> Flask:
    """Flask-Login, without pages of its own."""
    manager = LoginManager(app)
    manager.user_loader(User)
    return app


def browser(app: Flask, cookie: str | None = None) -> Any:
    """A new browser, perhaps with another one's session cookie."""
    client = app.test_client()
    if cookie is not None:
        client.set_cookie("session", cookie)
    return client


def records(app: Flask, primary: Valkey) -> tuple[list[str], int]:
    """Return all that is stored about users: keys in Redis, number of rows in SQL."""
    with primary.client() as redis:
        keys = list(redis.scan_iter(match="*{*"))
    with parts(app).backend.database.engine.connect() as connection:
        rows: int = connection.execute(sqlalchemy.text("SELECT count(*) FROM langpont_sessions")).scalar_one()
    return keys, rows


@contextmanager
def refusing_writes(app: Flask, primary: Valkey) -> Iterator[None]:
    """Out of memory: reads go on. Level 1 without a replica."""

    def noticed() -> bool:
        parts(app).monitor.suspect("primary")
        return parts(app).health.level == 1

    browser(app).get("/who")  # starts the monitor
    with primary.client() as redis:
        redis.config_set("maxmemory", 1)
        try:
            wait_until(noticed, "level 1")
            yield
        finally:
            redis.config_set("maxmemory", 0)
    wait_for_level(app, 0)


@contextmanager
def at_level(app: Flask, level: int, primary: Valkey) -> Iterator[None]:
    """An outage that means this level for `app`; for level 3 it must have a short LOCAL_CACHE_TTL."""
    with ExitStack() as stack:
        if level == 1:
            stack.enter_context(refusing_writes(app, primary))
        elif level:
            stores = ("primary", "database") if level == 4 else ("primary",)
            stack.enter_context(switched_off(app, *stores))
        wait_for_level(app, level)
        yield
        assert parts(app).health.level == level


def config_for(level: int) -> dict[str, int]:
    return {"LOCAL_CACHE_TTL": 1} if level == 3 else {}
