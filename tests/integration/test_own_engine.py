"""An engine of the application's own: nothing of the package is to be seen in the application's use of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from example_app.servers import Postgres
from flask_langpont_session.stores.database import Database
from flask_langpont_session.stores.tables import METADATA

from .behind import LONG

EVENTS = {"pool": ("connect", "checkout", "checkin", "close"), "dispatch": ("begin",), "dialect": ("do_connect",)}


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """As an application makes one, with a listener and a ping."""
    engine = sa.create_engine(database_url, pool_pre_ping=True, hide_parameters=True)
    sa.event.listen(engine, "checkout", lambda connection, record, proxy: None)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


def listeners(engine: sa.Engine) -> dict[str, Any]:
    """Everybody who listens to an engine, and how it pings."""
    found: dict[str, Any] = {"do_ping": vars(engine.dialect).get("do_ping")}
    for place, names in EVENTS.items():
        dispatch: Any = engine.dispatch if place == "dispatch" else getattr(engine, place).dispatch
        found |= {f"{place} {name}": list(getattr(dispatch, name)) for name in names}
    return found


def test_an_engine_is_left_as_it_was_found(engine: sa.Engine) -> None:
    """Connections that are in use go on; what two applications share is there until the second one leaves."""
    before, pool = listeners(engine), engine.pool
    one, two = Database(engine, timeout=LONG), Database(engine, timeout=LONG)
    for database in (one, two):
        database.probe(LONG)
    both = listeners(engine)
    assert both != before
    with engine.connect() as connection, connection.begin():
        one.close()
        assert connection.scalar(sa.text("SELECT 1")) == 1
    alone = listeners(engine)
    assert before != alone != both
    assert alone["do_ping"] is both["do_ping"]
    assert two.load("nobody", idle_ms=0) is None
    for database in (two, two, one):
        database.close()
    assert (listeners(engine), engine.pool) == (before, pool)
    two.probe(LONG)


def test_connecting_is_limited_for_sessions_alone(postgres: Postgres) -> None:
    """Whoever connected before."""
    engine = sa.create_engine(postgres.url, poolclass=sa.NullPool, hide_parameters=True)
    limits: list[object] = []
    database = Database(engine, timeout=LONG)
    sa.event.listen(
        engine, "do_connect", lambda dialect, record, args, params: limits.append(params.get("connect_timeout"))
    )
    database.create_tables()
    limits.clear()
    for _ in range(2):
        database.probe_read(LONG)
        engine.connect().close()
    database.close()
    assert limits == [2, None, 2, None]
