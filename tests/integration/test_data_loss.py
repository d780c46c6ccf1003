"""A Redis that has lost or restored data, or speaks to the wrong reader: noticed, and not believed for too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask

from devservers.processes import LONG, wait_until
from devservers.servers import Valkey
from flask_langpont_session.events import DataLost, ServerChanged
from flask_langpont_session.stores.redis.commands import READ
from flask_langpont_session.testing import captured_events, switched_off
from tests.faults.proxy import STALL_REPLY, FaultProxy
from tests.support.auth_records import say

from .behind import browser, elsewhere, entry, is_home, key, now_ms, questions, row, sign_in, who
from .conftest import MakeApp, cookie_of, parts, redis_store
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


def connections(server: Valkey) -> int:
    """Return how many connections a server has accepted so far."""
    with server.client() as client:
        return int(client.info("stats")["total_connections_received"])


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


def test_a_loss_is_reported_as_what_it_is(workers: Workers, primary: Valkey) -> None:
    """The server is the same, over the same connections: there is no restart to be seen."""
    looks(workers.worker)
    with primary.client() as redis:
        redis.flushall()
    assert looks(workers.worker) == [DataLost("primary")]


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


# -- read repair -------------------------------------------------------------------------------------------------------


def test_i1_a_repair_that_cannot_be_made_now_is_made_later(workers: Workers, primary: Valkey) -> None:
    """I1: the database does not answer: it is this host's task from now on, and holds for all of its workers."""
    client = sign_in(workers.worker)
    with primary.client() as redis:
        say(redis, key(client.digest), {"@live": "0", "@v": "0"})
    with switched_off(workers.worker, "database"):
        assert who(workers.worker, client) is None
        assert row(workers.worker, client.digest)["live"]
        with primary.client() as redis:
            redis.flushall()
        assert who(workers.sibling, client) is None
    wait_until_home_by_hand(workers.worker)
    assert not row(workers.worker, client.digest)["live"]


def wait_until_home_by_hand(app: Flask) -> None:
    def look_and_see() -> bool:
        look(app)
        return is_home(app)

    wait_until(look_and_see, "everything home")


# -- replies and records of other sessions -----------------------------------------------------------------------------


@pytest.fixture
def behind_proxy(proxy: FaultProxy, make_app: MakeApp) -> Iterator[Flask]:
    app = make_app(**QUICK, REDIS_URL=proxy.url("redis"), REDIS_MAX_CONNECTIONS=1)
    with parts(app).monitor.paused():
        yield app


def ask_for(app: Flask, digest: str, *categories: str) -> None:
    """Send another request's question over the next connection, and go away before the reply is there."""
    store = redis_store(app)
    connection = store.link.connections.take(time.monotonic() + LONG)
    connection.deadline.renew(time.monotonic() + LONG)
    keys = [store.key(name, digest) for name in categories]
    command = ("EVALSHA", READ.sha, len(keys), *keys, *[0 for _ in keys])
    connection.send_packed_command(connection.pack_commands([command]), check_health=False)
    store.link.connections.put_back(connection)


def get_with_the_reply_of(app: Flask, proxy: FaultProxy, client: Any, digest: str, *categories: str) -> Any:
    """A response to a request whose first reply of Redis is the one to another request's question."""
    responses: list[Any] = []
    proxy.impose(STALL_REPLY)
    ask_for(app, digest, *categories)
    wait_until(lambda: proxy.hits["stall_reply"] == 1, "a reply that is held back")
    sent = proxy.counters.bytes_to_server
    thread = threading.Thread(target=lambda: responses.append(browser(app, client.cookie).get("/who")))
    thread.start()
    wait_until(lambda: proxy.counters.bytes_to_server > sent, "the request's own question")
    proxy.heal()
    thread.join(LONG)
    return responses[0]


ALL = ("auth", "translation", "ui", "data")


@pytest.mark.parametrize("asked", [ALL, ("auth",)], ids=["same shape", "another shape"])
def test_i10_a_crossed_reply_shows_no_other_user(
    behind_proxy: Flask, proxy: FaultProxy, primary: Valkey, asked: tuple[str, ...]
) -> None:
    """I10, I11: the connection goes, no user is taken for another one, and no record of either session is moved."""
    app = behind_proxy
    mine, other = sign_in(app, "7", lang="jp"), sign_in(app, "8", lang="en")
    mine.get("/all")
    accepted, before = proxy.counters.accepted, questions(app)
    response = get_with_the_reply_of(app, proxy, mine, other.digest, *asked)
    assert response.status_code == 200
    assert cookie_of(response) is None
    assert response.json["user"] == "7"
    assert response.json["lang"] != "en"
    assert proxy.counters.accepted > accepted  # the connection was dropped, for it may be a reply behind for ever
    assert questions(app) == before + 1 or asked != ALL  # what is no answer at all may be asked for once more
    assert not parts(app).health.open_stores()
    for client, user in ((mine, "7"), (other, "8")):
        for category in ("auth", "ui"):
            with primary.client() as redis:
                assert not redis.exists(f"{key(client.digest, category)}:aside")
        assert client.get("/who").json["user"] == user
    assert mine.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}
    assert other.get("/who").json == {"user": "8", "level": 0, "lang": "en"}
