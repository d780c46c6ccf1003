"""Redis behind sentinels: found anew at every connection, lost and found after a failover, never a demoted one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.events import ServerChanged
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import PRIMARY, REPLICA
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.testing import captured_events

from .behind import run_id
from .conftest import MakeApp, redis_store
from .sentinels import SERVICE, Sentinel, Service, role, running_service

TILT = 60
"""Seconds. A sentinel that a busy machine held up does nothing for the next thirty."""

PATIENT = {"REQUEST_BUDGET": 3, "REDIS_TIMEOUT": 1}
"""A busy machine is not an outage: what is tested here is which server is found, not how fast."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service"), signs_in=True) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    """A primary, a replica and three sentinels, all running and at rest; empty."""
    running.wait_until_whole()
    with running.primary.client() as client:
        client.flushall()
    return running


@pytest.fixture
def make(make_app: MakeApp) -> Callable[..., Flask]:
    return lambda url, **config: make_app(REDIS_URL=url, **(PATIENT | config))


@pytest.fixture
def app(make: Callable[..., Flask], service: Service) -> Flask:
    return make(service.url)


def test_the_doctor_follows_the_sentinels(app: Flask) -> None:
    """Primary and replica, each where the sentinels say that it is."""
    answer = app.test_cli_runner().invoke(args=["langpont", "doctor", "--only", "write-endpoint", "--only", "replica"])
    assert answer.exit_code == 0
    lines = [line.split(maxsplit=2) for line in answer.output.splitlines()[:2]]
    assert lines == [
        ["ok", "write-endpoint", "primary: it is a primary"],
        ["ok", "replica", "replica: it has the primary's history"],
    ]


def primary_of(app: Flask) -> RedisStore:
    return redis_store(app)


def who(browser: FlaskClient) -> Any:
    return browser.get("/who").json


def keys(server: Valkey) -> set[str]:
    with server.client() as client:
        found: Any = client.keys("session:*:{*}")
        return set(found)


def identity(store: RedisStore) -> str:
    return (store.server_identity.identity or "").split(":")[0]


def test_a_session_lives_on_the_primary_that_the_sentinels_name(app: Flask, service: Service) -> None:
    """Signed in, written, read; and the replica is found the same way without being named."""
    browser = app.test_client()
    browser.post("/set", json={"lang": "jp"})
    browser.post("/login/7")
    assert who(browser) == {"user": "7", "level": 0, "lang": "jp"}
    assert identity(primary_of(app)) == run_id(service.primary)
    assert primary_of(app).server_identity.is_primary
    replica = redis_store(app, REPLICA)
    replica.endpoint.probe_read(timeout=5)
    assert identity(replica) == run_id(service.replica)
    assert not replica.server_identity.is_primary
    wait_until(lambda: keys(service.replica) == keys(service.primary) != set(), "the replica's copy")


def test_after_the_death_of_the_primary_its_heir_is_used(app: Flask, service: Service) -> None:
    """Nobody is logged out meanwhile; what was confirmed before the failover is confirmed again after it."""
    browser, newcomer = app.test_client(), app.test_client()
    browser.post("/set", json={"lang": "jp"})
    browser.post("/login/7")
    dying, heir, server_identity = service.primary, service.replica, primary_of(app).server_identity
    wait_until(lambda: keys(heir) == keys(dying), "the replica's copy")
    trusted, known = server_identity.trust_since_ms, server_identity.identity
    with captured_events(app) as seen:
        dying.kill()

        def at_home() -> bool:
            answer = who(browser)
            assert answer["user"] == "7"
            return bool(answer["level"] == 0)

        wait_until(at_home, "the heir in use", TILT)
    assert service.primary is heir
    assert identity(primary_of(app)) == run_id(heir)
    assert server_identity.identity != known
    assert server_identity.trust_since_ms > trusted
    assert ServerChanged(PRIMARY) in seen
    before = keys(heir)
    newcomer.post("/login/8")
    assert who(newcomer) == {"user": "8", "level": 0, "lang": None}
    assert keys(heir) > before
    assert who(browser) == {"user": "7", "level": 0, "lang": "jp"}


def test_a_primary_that_steps_down_is_left_before_it_does(make: Callable[..., Flask], service: Service) -> None:
    """It calls itself a primary still, and takes writes that would be gone when it is made a replica. No request has to
    come: the sentinels tell, and the monitor connects anew."""
    app = make(service.url, HEALTH_INTERVAL=3600)
    browser = app.test_client()
    browser.post("/set", json={"input_text": "before"})
    browser.post("/login/7")
    leaving, heir = service.primary, service.replica
    trusted = primary_of(app).server_identity.trust_since_ms
    assert service.fail_over() is heir
    with service.sentinels_cut_off(leaving):
        wait_until(lambda: identity(primary_of(app)) == run_id(heir), "the heir", TILT)
        assert role(leaving) == "master"
        assert primary_of(app).server_identity.trust_since_ms > trusted
        browser.post("/set", json={"input_text": "while it calls itself a primary"})
        assert who(browser) == {"user": "7", "level": 0, "lang": None}
    wait_until(lambda: role(leaving) == "slave", "the end of its reign", TILT)
    service.wait_until_whole()
    assert service.primary is heir
    assert service.replica is leaving
    shown = browser.get("/get/input_text").json
    assert shown == {"value": "while it calls itself a primary", "present": True}
    browser.post("/set", json={"input_text": "after"})
    assert browser.get("/get/input_text").json == {"value": "after", "present": True}
    assert any(key.startswith("session:translation:") for key in keys(heir))


def test_a_server_that_says_it_is_a_replica_is_no_primary(make: Callable[..., Flask], service: Service) -> None:
    """Such a server is neither used nor noted, whichever sentinel named it; then another one is asked."""
    stale, informed = service.sentinels[:2]
    told = {stale: service.replica, informed: service.primary}
    for sentinel, server in told.items():
        monitor(sentinel, "stale", server)
    try:
        url = service.url.replace(SERVICE, "stale")
        store = primary_of(make(url, REPLICA_URL=url))
        with pytest.raises(StoreError) as caught:
            store.endpoint.time_ms(timeout=5)
        assert caught.value.error_class is ErrorClass.UNREACHABLE
        assert store.server_identity.identity is None
        store.endpoint.time_ms(timeout=5)
        assert identity(store) == run_id(service.primary)
    finally:
        for sentinel in told:
            with sentinel.client() as client:
                client.sentinel_remove("stale")


def monitor(sentinel: Sentinel, name: str, server: Valkey) -> None:
    """Let a sentinel take a server for the primary of a service, and never agree with others that it is lost."""
    with sentinel.client() as client:
        client.sentinel_monitor(name, "127.0.0.1", server.port, 99)


def test_credentials_and_database(make: Callable[..., Flask], service: Service) -> None:
    """The URL's are for the servers, those of the sentinels stand in its options."""
    servers: list[Valkey | Sentinel] = [*service.servers, *service.sentinels]
    for one in servers:
        with one.client() as client:
            client.execute_command("ACL", "SETUSER", "app", "on", f">of {type(one).__name__}", "~*", "&*", "+@all")
    url = service.url.replace("://", "://app:of%20Valkey@")
    app = make(f"{url}?db=1&sentinel_username=app&sentinel_password=of%20Sentinel")
    browser = app.test_client()
    browser.post("/login/7")
    assert who(browser)["level"] == 0
    with service.primary.client() as client:
        keyspace: Any = client.info("keyspace")
        assert set(keyspace) == {"db1"}
        assert {one["user"] for one in client.client_list() if one["db"] == "1"} == {"app"}
    wrong = make(service.url.replace("://", "://app:wrong@"))
    with pytest.raises(StoreError) as caught:
        primary_of(wrong).endpoint.time_ms(timeout=5)
    assert caught.value.error_class is ErrorClass.IDENTITY_REFUSED
