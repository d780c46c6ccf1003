"""Rows of the database, and what stands in their way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from devservers.processes import LONG, wait_until
from flask_langpont_session.policy.changes import Fields
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.policy.serializer import encode
from flask_langpont_session.stores.sql.database import Database
from flask_langpont_session.stores.sql.tables import SESSIONS

HOUR = 3_600_000

PAYLOAD: Fields = {
    "user_id": encode("user_id", 7),
    "username": encode("username", '田中 \0 "quoted" 😀'),
    "_fresh": encode("_fresh", True),
    "identity.id": encode("identity.id", (1, b"\xff", None)),
}


def create(database: Database, digest: str = "digest", **changes: Any) -> AuthRow:
    values: dict[str, Any] = {"user_id": "7", "payload": PAYLOAD, "idle_ms": HOUR, "absolute_ms": 12 * HOUR}
    created = database.create(digest, **(values | changes))
    assert created is not None
    return created.row


def update(database: Database, seen: int, digest: str = "digest", **changes: Any) -> AuthRow | None:
    values: dict[str, Any] = {"user_id": "7", "payload": PAYLOAD, "idle_ms": HOUR}
    return database.update(digest, seen=seen, **(values | changes))


def load(
    database: Database, digest: str = "digest", idle_ms: int | None = None, idle_seen: int | None = None
) -> AuthRow:
    life = None if idle_ms is None else Life(idle_ms, 12 * HOUR)
    row = database.load(digest, life=life, idle_seen=idle_seen)
    assert row is not None
    return row


def until_it_answers(database: Database) -> None:
    """Wait until the database answers two probes in a row, as the monitor does."""

    def answers_twice() -> bool:
        try:
            database.probe(1.0)
            database.probe(1.0)
        except StoreError:
            return False
        return True

    wait_until(answers_twice, "two good probes")


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Begin all calls at the same moment, and return what each returns or raises."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        barrier.wait(LONG)
        try:
            results[number] = calls[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    return results


@contextmanager
def locked(database: Database, digest: str = "digest") -> Iterator[None]:
    """Lock the row, or with SQLite the database, as another client that writes."""
    engine = sa.create_engine(database.engine.url)
    try:
        with engine.connect() as connection, connection.begin():
            connection.execute(SESSIONS.update().where(SESSIONS.c.digest == digest).values(user_epoch=0))
            yield
    finally:
        engine.dispose()
