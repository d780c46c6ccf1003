"""The causes of outages, by real servers: each has its own word, the same everywhere, and it is the present one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from devservers.processes import free_port, wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.ops.alerts.alerts import TERMS, TICK
from flask_langpont_session.ops.alerts.conditions import Conditions
from flask_langpont_session.ops.alerts.incidents import Host
from flask_langpont_session.ops.alerts.table import REPLICA_CONNECTION_FAILED
from flask_langpont_session.ops.diagnosis.watching import Watcher
from flask_langpont_session.policy.causes import EMPTIED, OTHER_CLOCK, cause_of
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, REPLICA
from flask_langpont_session.recovery.monitor import REST, Monitor
from flask_langpont_session.stores.backend import Backend
from tests.support.clock import Clock

from .behind import emptied, sign_in
from .conftest import MakeApp, parts

WORDS = {
    "nothing listens": "refuses connections",
    "no such name": "its name does not resolve",
    "wrong password": "refuses the password",
    "too many connections": "has no connection left",
}
"""A fault of any store's server or address → its word."""

REDIS_WORDS = WORDS | {
    "no such number": "has no database of that number",
    "no cluster": "is no cluster",
}


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def postgres_with(fault: str, postgres: Postgres, ends: ExitStack) -> str:
    """Return an address of a PostgreSQL with a fault."""
    url = sa.make_url(emptied(postgres))
    if fault == "nothing listens":
        url = url.set(port=free_port())
    elif fault == "no such name":
        url = url.set(host="no-such-host.invalid")
    elif fault == "wrong password":
        url = url.set(password="another")
    else:
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE ROLE crowd LOGIN PASSWORD 'crowd' CONNECTION LIMIT 0")

        def drop() -> None:
            with engine.connect() as connection:
                connection.exec_driver_sql("DROP ROLE crowd")

        ends.callback(drop)
        url = url.set(username="crowd", password="crowd")
    return url.render_as_string(hide_password=False)


def valkey_with(fault: str, primary: Valkey, ends: ExitStack) -> str:
    """Return an address of a Valkey with a fault."""
    if fault == "nothing listens":
        return f"redis://127.0.0.1:{free_port()}/0"
    if fault == "no such name":
        return "redis://no-such-host.invalid:6379/0"
    if fault == "no such number":
        return f"redis://127.0.0.1:{primary.port}/99"
    if fault == "no cluster":
        return f"redis+cluster://127.0.0.1:{primary.port}"
    admin = ends.enter_context(primary.client())
    if fault == "wrong password":
        admin.config_set("requirepass", "another")
        ends.callback(admin.config_set, "requirepass", "")
        return primary.url.replace("redis://", "redis://:wrong@")
    known = admin.config_get("maxclients")["maxclients"]
    admin.config_set("maxclients", len(admin.client_list()))
    ends.callback(admin.config_set, "maxclients", known)
    return primary.url


def error_of(ask: Callable[[], object]) -> StoreError:
    with pytest.raises(StoreError) as caught:
        ask()
    return caught.value


@pytest.mark.parametrize("fault", WORDS)
def test_a_database_says_why(make_app: MakeApp, postgres: Postgres, ends: ExitStack, fault: str) -> None:
    url = postgres_with(fault, postgres, ends)
    error = error_of(lambda: make_app(DATABASE_URL=url))  # which makes tables
    assert cause_of(error).word == WORDS[fault], error


@pytest.mark.parametrize("fault", REDIS_WORDS)
def test_a_redis_says_why(make_app: MakeApp, primary: Valkey, ends: ExitStack, fault: str) -> None:
    app = make_app(REDIS_URL=valkey_with(fault, primary, ends))
    backend = parts(app).backend
    until = time.monotonic() + 30

    def said() -> str:
        return cause_of(error_of(lambda: backend.find(PRIMARY, 10.0).probe_read(timeout=10.0))).word

    # A name is looked up in a thread of its own, which a first question may not wait for.
    wait_until(lambda: said() == REDIS_WORDS[fault] or time.monotonic() > until, REDIS_WORDS[fault])
    assert said() == REDIS_WORDS[fault]


def test_the_cause_is_the_present_one(
    make_app: MakeApp, primary: Valkey, ends: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis that refuses the password and then goes away, or comes back and refuses it, is called what it is now: by
    the health page too, and the log says so once for each change."""
    app = make_app(HEALTH_INTERVAL=0.1)
    client = sign_in(app)
    admin = ends.enter_context(primary.client())
    admin.config_set("requirepass", "another")
    admin.client_kill_filter(_type="normal", skipme=True)
    client.get("/who")

    def causes() -> object:
        return client.get("/healthz").json["causes"]

    wait_until(lambda: causes() == {PRIMARY: "refuses the password"}, "the password")
    primary.kill()
    wait_until(lambda: causes() == {PRIMARY: "refuses connections"}, "that it is away")
    line = "session store primary is still lost, for another reason: unreachable ("
    wait_until(lambda: line in caplog.text, "a line, which may come a moment after the page says so")
    primary.start()
    wait_until(lambda: causes() == {}, "that it is back")
    assert caplog.text.count(line) == 1
    assert parts(app).health.error(DATABASE) is None


def test_a_replica_that_was_promoted_is_not_used(make_app: MakeApp, primary: Valkey, replica: Valkey) -> None:
    """Status, health page and log name it while there are two primaries. One that is the primary by now, as after a
    failover, is as good as any."""
    app = make_app(REPLICA_URL=replica.url, HEALTH_INTERVAL=0.1)
    after = make_app(REDIS_URL=replica.url, REPLICA_URL=replica.url, HEALTH_INTERVAL=0.1)
    client, word = sign_in(app), "is a primary itself"

    def causes(client: Any) -> object:
        return client.get("/healthz").json["causes"]

    with replica.client() as admin:
        admin.execute_command("REPLICAOF", "NO", "ONE")
        try:
            wait_until(lambda: causes(client) == {REPLICA: word}, "that it is named")
            said = app.test_cli_runner().invoke(args=["langpont", "status"])
            looks_well(after)
            assert causes(after.test_client()) == {}
        finally:
            admin.execute_command("REPLICAOF", "127.0.0.1", primary.port)
    assert (said.exit_code, f"replica    {word}" in said.output) == (1, True)
    assert "have LANGPONT_SESSION_REPLICA_URL name the reader endpoint" in " ".join(said.output.split())
    wait_until(lambda: causes(client) == {}, "that it follows again")


def test_the_alert_of_a_promoted_replica_comes_within_30_seconds(
    make_app: MakeApp, primary: Valkey, replica: Valkey, ends: ExitStack, on_time: None
) -> None:
    """Even if the stores had been looked at just before. A second for every look that its way to a message may have to
    wait for: the monitor's rest and the alerts' own."""
    backend, clock = parts(make_app(REPLICA_URL=replica.url)).backend, Clock()
    monitor, incidents = Monitor(backend, clock=clock), Host()
    ends.callback(monitor.stop)
    monitor.tick()
    began = clock.now
    admin = ends.enter_context(replica.client())
    ends.callback(admin.execute_command, "REPLICAOF", "127.0.0.1", primary.port)
    admin.execute_command("REPLICAOF", "NO", "ONE")
    told: list[str] = []
    while not told and clock.now < began + 100:
        clock.now += max(REST, TICK)
        incidents.step(Conditions(backend.health).look(), clock.now, TERMS, watched=0)
        told = [notice.key for notice in iter(lambda: incidents.take(clock.now, TERMS), None)]
        monitor.tick()
    assert told == [REPLICA_CONNECTION_FAILED.name]
    assert clock.now - began <= 30 - 2 * TICK  # its message is on the way then, however long SNS takes


def test_a_shard_that_is_gone_while_status_looks_is_told(make_app: MakeApp, replica: Valkey) -> None:
    """It answered, and its cluster gave it up before it was looked whether it had been promoted."""
    backend = parts(make_app(REPLICA_URL=replica.url)).backend

    def gone(store: str) -> StoreError | None:
        return Backend.promotion_of(backend, f"{store}:7")

    backend.promotion_of = gone  # type: ignore[method-assign]
    answer = Watcher(backend).look().stores[REPLICA]
    assert answer.error is not None and answer.error.cause == "NoSuchShard"
    assert answer.problem


def looks_well(app: Flask) -> None:
    """Have a worker look at every store twice."""
    parts(app).monitor.ensure_started()
    for _ in range(2):
        parts(app).monitor.probes.of(REPLICA).is_suspect = True
        parts(app).monitor.tick()


def test_a_redis_that_was_emptied_or_has_another_time_is_told_of(make_app: MakeApp, primary: Valkey) -> None:
    """Health page and status page say it, and `status` hears it from the workers of its host; both say what helps, and
    that the store does its work."""
    app = make_app(HEALTH_INTERVAL=0.1, STATUS_PAGE=lambda request: True)
    client, backend = sign_in(app), parts(app).backend
    wait_until(lambda: backend.primary.endpoints[PRIMARY].server_identity.canary is not None, "a first look")
    assert client.get("/healthz").json["remarks"] == []
    emptied_at = time.time()
    with primary.client() as admin:
        admin.flushall()
    wait_until(lambda: client.get("/healthz").json["remarks"] == ["primary has lost data"], "that it is told")
    word, cure = "has lost data", "find out why: FLUSHALL"
    assert f"It {word}: {cure}" in client.get("/healthz/status").get_data(as_text=True)
    ask = make_app().test_cli_runner()

    def status() -> str:
        return " ".join(ask.invoke(args=["langpont", "status"]).output.split())

    wait_until(lambda: f"primary {word}: {cure}" in status(), "that a worker has told commands")
    assert "primary ok" in status()
    causes = [(lag, [cause for _, cause in backend.remarks(time.time() + lag)]) for lag in (0, -90, 3700)]
    assert causes == [(0, [EMPTIED]), (-90, [EMPTIED, OTHER_CLOCK]), (3700, [OTHER_CLOCK])]
    assert backend.reports.data_lost_at[PRIMARY] >= emptied_at
