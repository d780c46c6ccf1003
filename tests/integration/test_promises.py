"""Rules of docs/guarantees.md that are about several parts at once, on real servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.testing import switched_off
from tests.faults.proxy import FaultProxy, cut_after

from .behind import (
    browser,
    emptied,
    entry,
    outcomes,
    row,
    sign_in,
    wait_for_level,
    wait_until_home,
)
from .conftest import MakeApp, parts


@pytest.fixture(autouse=True)
def the_database_runs_again(postgres: Postgres) -> Iterator[None]:
    """Start the database after each test, whatever the test did to it."""
    yield
    postgres.start()


def user_of(app: Flask, client: Any) -> str | None:
    user: str | None = browser(app, client.cookie).get("/who").json["user"]
    return user


@pytest.mark.real_time("what hangs is given up within a bound")
def test_i12_no_request_waits_longer_than_its_budget(make_app: MakeApp, primary: Valkey, postgres: Postgres) -> None:
    """I12, I13: primary and database hang; a request that meets that first is answered, within the budget of 0.3 s.

    The seconds below are room for a busy machine. Without a bound the requests would hang as long as the servers.
    """
    url = emptied(postgres)
    app = make_app(DATABASE_URL=url, VERIFY_INTERVAL=0, HEALTH_INTERVAL=3600, REQUEST_BUDGET=0.3)
    patient = make_app(DATABASE_URL=url)  # a busy machine may take longer than that for a sign-in
    clients = [browser(app, sign_in(patient).cookie) for _ in range(4)]

    def ask(client: Any, method: str, page: str) -> None:
        began = time.monotonic()
        response = getattr(client, method)(page, json={"lang": "jp"})
        assert time.monotonic() - began < 10
        assert response.status_code == 200

    def has_met_both() -> bool:  # "local": a process that was late itself blames no store
        ask(clients[0], "get", "/who")
        return all({"unreachable", "local"} & outcomes(app, store) for store in ("primary", "database"))

    for client in clients:
        ask(client, "get", "/who")
    primary.freeze()
    postgres.freeze()
    for client, method, page in zip(clients, ("get", "post") * 2, ("/who", "/logout", "/all", "/set"), strict=True):
        ask(client, method, page)
    # A busy machine may spend the budget before a request comes to the database.
    wait_until(has_met_both, "both outages met")
    wait_for_level(app, 4)
    primary.thaw()
    postgres.thaw()
    database = parts(app).backend.database  # a connection that comes back after the end would never be closed
    wait_until(lambda: not (database.calls.requests.busy or database.calls.probes.busy), "the end of hung calls")


def test_i13_an_outage_in_the_middle_of_any_reply_is_no_5xx(proxy: FaultProxy, make_app: MakeApp) -> None:
    """I13: the connection to Redis ends after some bytes of a reply: no error, no logout."""
    app = make_app(REDIS_URL=proxy.url("redis"))
    client = sign_in(app, lang="jp")
    with parts(app).monitor.paused():
        for count in (0, 1, 7, 60, 200):
            for method, url in (("get", "/all"), ("post", "/set"), ("get", "/who")):
                with proxy.failing(cut_after(count)):
                    assert getattr(client, method)(url, json={"theme": f"cut {count}"}).status_code == 200
                    assert client.get("/who").json["user"] == "7"
                parts(app).monitor.probes.recover("primary", ("read", "write"))
    assert proxy.hits["cut_after"] >= 15


def test_s11_what_waits_in_the_journal_lies_over_every_read_of_the_host(
    make_app: MakeApp, primary: Valkey, sqlite_url: str
) -> None:
    """S11: neither store knows of the sign-out when both are back: no worker of the host shows the session."""
    workers = [make_app() for _ in range(3)]
    client = sign_in(workers[0])
    assert [user_of(app, client) for app in workers] == ["7"] * 3
    with ExitStack() as outage:
        for app in workers:
            outage.enter_context(switched_off(app, "primary", "database"))
        assert browser(workers[0], client.cookie).post("/logout").status_code == 200
        assert row(workers[0], client.digest)["live"]
        assert entry(primary, client.digest)["@live"] == "1"
        assert [user_of(app, client) for app in workers] == [None] * 3
    wait_until_home(*workers)
    assert not row(workers[0], client.digest)["live"]
    assert entry(primary, client.digest)["@live"] == "0"
