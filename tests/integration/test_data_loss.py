"""A Redis that has lost or restored data, or speaks to the wrong reader: noticed, and not believed for too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask

from devservers.servers import Valkey
from flask_langpont_session.events import DataLost, ServerChanged
from flask_langpont_session.testing import captured_events

from .behind import elsewhere, entry, now_ms, questions, sign_in, who
from .conftest import MakeApp, parts, redis_store
from .looks import (
    look,
)

QUICK = {"HEALTH_INTERVAL": 0.05}
"""A busy machine is no outage; a canary with every tick of the monitor."""


class Workers(NamedTuple):
    """Two workers of one host and one of another, which know the canary. Their monitors only tick by hand."""

    worker: Flask
    sibling: Flask
    elsewhere: Flask


@pytest.fixture
def workers(make_app: MakeApp, tmp_path: Path) -> Iterator[Workers]:
    other_host = str(tmp_path / "other host.sqlite3")
    workers = Workers(make_app(**QUICK), make_app(**QUICK), make_app(**QUICK, JOURNAL=other_host))
    with ExitStack() as stack:
        for app in workers:
            stack.enter_context(parts(app).monitor.paused())
            look(app)
        yield workers


def looks(*apps: Flask) -> list[object]:
    """Return the events that the workers report when each looks once."""
    found: list[object] = []
    for app in apps:
        with captured_events(app) as events:
            look(app)
        found += events
    return found


def trust_since(app: Flask) -> int:
    """Since when what was stamped counts for a worker."""
    return redis_store(app).server_identity.trust_since_ms


def asks(app: Flask, client: Any, user: str | None = "7") -> bool:
    """Return whether a worker has to ask the database for the user."""
    before = questions(app)
    assert who(app, client) == user
    return questions(app) > before


# -- emptied, behind connections that stay -----------------------------------------------------------------------------


def test_s9_an_emptied_server_is_noticed_by_every_worker(workers: Workers, primary: Valkey) -> None:
    """S9: the first to look must not hide it from the others: each reports it once, and trusts from that moment on."""
    assert looks(*workers) == []
    before = {app: trust_since(app) for app in workers}
    began = now_ms(primary)
    with primary.client() as redis:
        redis.flushall()
    lost = DataLost("primary")
    for app in workers:
        assert trust_since(app) == before[app] < began
        events = looks(app)
        assert events.count(lost) == 1
        assert began <= trust_since(app) <= now_ms(primary)
    assert [event for event in looks(*workers) if event == lost] == []
    assert parts(workers.worker).health.level == 0


# -- another server, or the same one over a new connection -------------------------------------------------------------


def test_a_restart_is_noticed_with_the_first_connection(workers: Workers, primary: Valkey) -> None:
    """I3: no request slips through: every session is verified once, and what was dead in the meantime is found."""
    client, dead = sign_in(workers.worker), sign_in(workers.worker)
    for app in workers:
        who(app, dead)
        assert not asks(app, client)
    database = elsewhere(workers.worker)
    database.kill(dead.digest)
    database.close()
    primary.kill()
    primary.start()
    assert entry(primary, dead.digest)["@live"] == "1"
    began = now_ms(primary)
    for app in workers:
        before = trust_since(app)
        with captured_events(app) as events:
            assert who(app, dead) is None
        assert events == [ServerChanged("primary")]
        assert trust_since(app) >= began > before
    assert asks(workers.worker, client)
    assert not asks(workers.worker, client)


# -- workers that start ------------------------------------------------------------------------------------------------


def test_s5_a_new_worker_of_the_host_goes_on_where_the_others_are(
    workers: Workers, make_app: MakeApp, primary: Valkey
) -> None:
    """S5: it takes over their view by the journal: no session is verified because a worker was started."""
    client = sign_in(workers.worker)
    new = make_app(**QUICK)
    with parts(new).monitor.paused(), captured_events(new) as events:
        assert not asks(new, client)
        assert trust_since(new) == trust_since(workers.worker) > 0
        assert events == []
