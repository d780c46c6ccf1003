"""Waits of a request, and what it never waits for: names, new connections, full servers, dripping replies."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy.engine import make_url

from devservers.processes import LONG, wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.redis import dns as resolving
from flask_langpont_session.stores.redis.connections import Pool
from flask_langpont_session.stores.redis.dns import DnsCache
from flask_langpont_session.support.lag import Lag
from tests.faults.proxy import FaultProxy, delay

from .behind import emptied
from .conftest import MakeApp, parts, redis_store
from .tls import Authority

NAME = "redis.test"
QUICK = {"REDIS_TIMEOUT": 0.2, "REQUEST_BUDGET": 0.3, "DATABASE_TIMEOUT": 0.25}
HANGS = 10.0
"""Seconds: thirty times a request's budget. Only a wait for something without an end needs more."""


class Resolver:
    """A stand-in for ``socket.getaddrinfo``: knows where :data:`NAME` leads, and which threads asked.

    :ivar ports: of 127.0.0.1; none: the name is not known.
    :ivar answering: cleared: it hangs.
    """

    def __init__(self) -> None:
        self.real = socket.getaddrinfo
        self.ports: list[int] = []
        self.answering = threading.Event()
        self.answering.set()
        self.askers: list[str] = []

    def __call__(self, host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        self.askers.append(threading.current_thread().name)
        if host != NAME:
            return self.real(host, port, *arguments, **options)
        self.answering.wait(LONG)
        if not self.ports:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in self.ports]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch, primary: Valkey) -> Iterator[Resolver]:
    resolver = Resolver()
    resolver.ports = [primary.port]
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.answering.set()


@pytest.fixture
def by_name(make_app: MakeApp) -> Callable[..., Flask]:
    return lambda **config: make_app(REDIS_URL=f"redis://{NAME}:6379/0", **config)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Valkey, Valkey]]:
    """Two servers that may take each other's place."""
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(Valkey(tmp_path_factory.mktemp(name), appendonly=False)) for name in ("one", "two")
        )
        yield one, two


def level(browser: Any) -> int:
    return int(browser.get("/who").json["level"])


# -- names -------------------------------------------------------------------------------------------------------------


def test_the_first_request_finds_everything_well(by_name: Callable[..., Flask], resolver: Resolver) -> None:
    """It waits for the resolver's thread, which is quick where DNS is, and asks no resolver itself."""
    app = by_name()
    browser = app.test_client()
    browser.post("/set", json={"lang": "jp"})
    assert browser.get("/who").json == {"user": None, "level": 0, "lang": "jp"}
    for _ in range(3):
        redis_store(app).forget_connections()
        assert level(browser) == 0
    assert set(resolver.askers) == {"langpont-session-names"}
    assert len(resolver.askers) < 4, "each new connection asked"  # one whose server seemed silent may have asked again


@contextmanager
def following(one: Valkey, two: Valkey) -> Iterator[None]:
    """Let one server follow the other, as after a failover."""
    with one.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", two.port)
        yield
        client.execute_command("REPLICAOF", "NO", "ONE")


def test_a_demoted_primary_is_left_within_the_request(
    by_name: Callable[..., Flask], resolver: Resolver, pair: tuple[Valkey, Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 16 and 33: READONLY. The connection is made anew to where the name leads by now, and the write is done."""
    one, two = pair
    one.start()
    resolver.ports = [one.port]
    app = by_name()
    with parts(app).monitor.paused():  # it would notice it, too, and quicker than a test can ask
        browser = app.test_client()
        browser.post("/set", json={"lang": "jp"})
        resolver.ports = [two.port]
        monkeypatch.setattr(resolving, "PAUSE", 0.0)  # a doubt has the name looked up at once
        with following(one, two):
            browser.post("/set", json={"lang": "en"})
            assert not parts(app).health.open_stores()
        with two.client() as client:
            assert client.keys("session:ui:*")


@pytest.mark.parametrize("resolver_is_late", [False, True])
def test_a_demoted_primary_that_still_answers_is_left_by_a_worker_that_only_reads(
    by_name: Callable[..., Flask],
    resolver: Resolver,
    pair: tuple[Valkey, Valkey],
    monkeypatch: pytest.MonkeyPatch,
    resolver_is_late: bool,
) -> None:
    """Row 33, a planned failover of ElastiCache: connections are closed, and the old primary takes new ones as a
    replica. Neither a refused write nor time tells that it is the wrong one, but its greeting does."""
    one, two = pair
    one.start()
    resolver.ports = [one.port]
    monkeypatch.setattr(resolving, "REST", 3600.0)
    app = by_name(HEALTH_INTERVAL=3600)
    browser = app.test_client()
    browser.post("/set", json={"lang": "jp"})
    wait_until(lambda: parts(app).monitor.has_looked, "a monitor that has looked")
    two.start()
    with following(two, one):
        wait_until(lambda: is_in_step(two), "a replica in step")
    with following(one, two), one.client() as client:
        if not resolver_is_late:
            resolver.ports = [two.port]
        client.client_kill_filter(_type="normal", skipme=True)
        asked = len(resolver.askers)
        wait_until(lambda: browser.get("/who").status_code == 200 and len(resolver.askers) > asked, "a look-up")
        resolver.ports = [two.port]
        wait_until(lambda: browser.get("/who").status_code == 200 and leads_to(app, two), "the other server")
        wait_until(lambda: level(browser) == 0, "level 0")
        assert browser.get("/who").json == {"user": None, "level": 0, "lang": "jp"}
        wait_until(lambda: not of_application(client), "connections that are closed")


def leads_to(app: Flask, server: Valkey) -> bool:
    """Return whether there are idle connections, and all lead to this server."""
    idle = list(redis_store(app).link.connections.idle)
    return {connection.address.place[1] for connection in idle} == {server.port}


def of_application(client: Any) -> list[Any]:
    """Connections to a server besides the client's own, and that of its primary."""
    own = client.client_id()
    return [one for one in client.client_list(_type="normal") if int(one["id"]) != own]


def is_in_step(server: Valkey) -> bool:
    with server.client() as client:
        return bool(client.info("replication").get("master_link_status") == "up" and client.keys("session:ui:*"))


def test_a_request_that_is_ended_leaves_its_place_to_others(make_app: MakeApp) -> None:
    """The request is ended by a signal or a greenlet's time-out, while it looks at the connection that lies ready."""

    def end(connection: Any) -> bool:
        raise KeyboardInterrupt

    pool = Pool(redis_store(make_app()).link.connections.source, DnsCache(), usable=end)
    pool.put_back(pool.take(time.monotonic() + LONG))
    with pytest.raises(KeyboardInterrupt):
        pool.take(time.monotonic() + LONG)
    assert (pool.idle, pool.in_use) == ([], 0)


def test_an_unreadable_certificate_file_refuses_and_is_no_network_failure(
    make_app: MakeApp, primary: Valkey, tmp_path: Any
) -> None:
    """Row 31: class A, and the setting is named."""
    certificate = Authority(tmp_path).certificate
    app = make_app(REDIS_URL=f"rediss://127.0.0.1:{primary.port}/0?ssl_ca_certs={certificate}")
    certificate.unlink()
    with pytest.raises(StoreError) as caught:
        redis_store(app).endpoint.time_ms(timeout=5)
    assert caught.value.error_class is ErrorClass.IDENTITY_REFUSED
    assert "ssl_ca_certs" in str(caught.value)


# -- new connections ---------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(primary: Valkey) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", primary.port) as proxy:
        yield proxy


@pytest.mark.real_time("what hangs is given up within a bound")
def test_a_new_connection_to_a_slow_server_costs_no_more_than_the_budget(
    make_app: MakeApp, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 3: it takes several round trips, each of which is just quick enough."""
    browser = make_app(REDIS_URL=proxy.url("redis"), **QUICK).test_client()
    monkeypatch.setattr(Lag, "is_late", lambda *_: False)  # a late process has more time, and would get a connection
    proxy.impose(delay(0.15))
    began = time.monotonic()
    assert browser.post("/set", json={"lang": "jp"}).status_code == 200
    assert time.monotonic() - began < HANGS
    assert proxy.hits["delay"]
    wait_until(lambda: level(browser) == 2, "level 2")


@pytest.mark.real_time("what hangs is given up within a bound")
def test_a_reply_that_drips_ends_with_the_deadline(primary: Valkey, make_app: MakeApp) -> None:
    """A time-out between two bytes would never come; the deadline is one for the whole reply."""
    app = make_app()
    store = redis_store(app)
    store.endpoint.time_ms(timeout=LONG)
    [connection] = store.link.connections.idle
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        with suppress(OSError):  # the client has hung up at its deadline
            while not over.wait(0.02):
                theirs.sendall(b"1")

    with ours, theirs:
        theirs.sendall(b"$1000000\r\n")
        real, connection._sock = connection._sock, type(connection._sock)(ours, connection.deadline)
        connection._parser._sock = connection._sock
        store.link.connections.idle[:] = []
        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        try:
            connection.deadline.at = began + 0.2
            with pytest.raises(redis.TimeoutError):
                connection.read_response()
            assert time.monotonic() - began < HANGS
        finally:
            over.set()
            thread.join()
            connection._sock = real
            store.link.connections.drop(connection)


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["url", "client", "protocol 3", "sentinel"])
def test_connections_of_every_origin_are_made_alike(make_app: MakeApp, primary: Valkey, how: str) -> None:
    """Bytes, no retries, a deadline, no maintenance notifications: whatever the client was made for."""
    config: dict[str, Any] = {"REDIS_URL": primary.url}
    if how == "sentinel":
        config = {"REDIS_URL": "redis+sentinel://127.0.0.1:1/service"}
    elif how != "url":
        client = redis.Redis(port=primary.port, decode_responses=True, protocol=3 if how == "protocol 3" else 2)
        config = {"REDIS_URL": client}
    app = make_app(**config, REDIS_TIMEOUT=0.28)
    store = redis_store(app)
    connection = store.link.connections.new()
    assert connection.retry.get_retries() == 0
    assert connection.encoder.decode_responses is False
    assert connection.deadline
    notices = getattr(connection, "maint_notifications_config", None)  # before redis-py 7.0 there are none
    assert notices is None or not notices.enabled
    assert store.link.connections.patience == 0.07
    if how != "sentinel":
        with primary.client() as admin:
            admin.config_resetstat()
            store.endpoint.time_ms(timeout=LONG)
            assert not {name for name in admin.info("commandstats") if "maint" in name}


@pytest.mark.real_time("what hangs is given up within a bound")
def test_a_database_whose_name_is_not_resolved_costs_no_more_than_its_time(
    make_app: MakeApp, resolver: Resolver, postgres: Postgres
) -> None:
    """The driver resolves by itself, in a thread of the bulkhead: the request leaves it there."""
    url = make_url(emptied(postgres))
    resolver.ports = [url.port or 5432]
    app = make_app(DATABASE_URL=url.set(host=NAME).render_as_string(hide_password=False))
    browser = app.test_client()
    wait_until(lambda: browser.post("/login/7").status_code == 200, "a sign-in")
    parts(app).backend.database.connections.distrust()  # the next call needs a new one
    asked = len(resolver.askers)
    resolver.answering.clear()
    began = time.monotonic()
    assert app.test_client().post("/login/8").status_code == 503
    assert time.monotonic() - began < 5 * HANGS
    resolver.answering.set()
    wait_until(lambda: app.test_client().post("/login/8").status_code == 200, "another sign-in")
    assert resolver.askers[asked:]
    assert threading.current_thread().name not in resolver.askers[asked:]
