"""``flask langpont doctor`` on real servers: each check where it fails and where it passes, and what comes back."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import redis
import sqlalchemy as sa
from click.testing import Result
from flask import Flask
from prometheus_client import CollectorRegistry

from devservers.constants import extended
from devservers.processes import free_port, wait_until
from devservers.server import answers_http
from devservers.servers import Postgres, Valkey
from devservers.web import WebServer
from flask_langpont_session import LangPontSession
from flask_langpont_session.ops.diagnosis import application_checks, read_redis
from flask_langpont_session.ops.diagnosis.findings import Unknown
from flask_langpont_session.ops.diagnosis.read_database import read_database
from flask_langpont_session.ops.diagnosis.rights import FOR_ALL, FOR_METRICS, ON_CLUSTERS
from flask_langpont_session.ops.diagnosis.table import CHECKS
from flask_langpont_session.stores.hosts import HostWord
from tests.faults.matrix_servers import configured
from tests.topologies import acl
from tests.topologies.redis8 import Redis8

from .behind import emptied
from .conftest import add_views, close, parts
from .mariadb import MariaDB
from .tls import Authority

ROLE, PASSWORD = "doctors_patient", secrets.token_hex(8)
KEY = secrets.token_hex()
PATIENT = {"REDIS_TIMEOUT": 3, "DATABASE_TIMEOUT": 3, "REQUEST_BUDGET": 6}
"""A busy machine is not an outage."""
SECURE = {
    "SECRET_KEY": KEY,
    "SESSION_COOKIE_NAME": "__Host-session",
    "SESSION_COOKIE_SECURE": True,
    "SESSION_COOKIE_SAMESITE": "Lax",
}

Make = Callable[..., Flask]


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis8]:
    """Yield a server of Redis, because the shared ones are of Valkey."""
    with Redis8(tmp_path_factory.mktemp("redis8")) as server:
        yield server


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Valkey]:
    """Each engine in turn, with a user that may do what is documented. What a test configures there is undone."""
    found: Valkey = request.getfixturevalue({"valkey": "primary_server", "redis": "other_server"}[request.param])
    found.start()
    with found.client() as client:
        client.flushall()
        client.execute_command("ACL", "SETUSER", acl.USER, "on", f">{acl.PASSWORD}", *acl.documented())
        yield found
        client.execute_command("ACL", "DELUSER", acl.USER)


def as_user(server: Valkey) -> str:
    """Return the server's address with the documented user."""
    return server.url.replace("redis://", f"redis://{acl.USER}:{acl.PASSWORD}@")


@pytest.fixture
def role(postgres: Postgres) -> Iterator[str]:
    """Address of a PostgreSQL with the tables, as a user that may use them and nothing else."""
    url = emptied(postgres)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        drop(connection)
        connection.exec_driver_sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        LangPontSession.metadata.create_all(connection)
        connection.exec_driver_sql(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON langpont_sessions, langpont_users TO {ROLE}"
        )
        yield str(sa.make_url(url).set(username=ROLE, password=PASSWORD).render_as_string(hide_password=False))
        drop(connection)
    engine.dispose()


def drop(connection: sa.Connection) -> None:
    if connection.exec_driver_sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'").first():
        connection.exec_driver_sql(f"DROP OWNED BY {ROLE}")
        connection.exec_driver_sql(f"DROP ROLE {ROLE}")


# -- applications ------------------------------------------------------------------------------------------------------


@pytest.fixture
def make(tmp_path: Path, sqlite_url: str) -> Iterator[Make]:
    """Yield a factory of applications as in production; `config` of ours without the prefix."""
    made: list[Flask] = []

    def make(*, tables: bool = True, **config: Any) -> Flask:
        app = Flask("app", instance_path=str(tmp_path))
        flask = {name: config.pop(name) for name in list(config) if name.startswith(("SESSION_", "SECRET_", "TESTING"))}
        app.config.update(SECURE | flask)
        settings = {"DATABASE_URL": sqlite_url, "JOURNAL": str(tmp_path / "journal.sqlite3"), **PATIENT, **config}
        app.config.update({f"LANGPONT_SESSION_{name}": value for name, value in settings.items()})
        extended(app)
        made.append(app)
        if tables and parts(app).backend.database.engine.dialect.name == "sqlite":
            parts(app).backend.database.upkeep.create_tables()
        return app

    yield make
    for app in made:
        close(app)


def run(app: Flask, *arguments: str) -> Result:
    result = app.test_cli_runner().invoke(args=["langpont", "doctor", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def told(app: Flask, *names: str) -> dict[str, dict[str, Any]]:
    """Return the results of the checks by name, as programs get them."""
    result = run(app, "--json", *(part for name in names for part in ("--only", name)))
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def outcome(app: Flask, name: str) -> tuple[str, str]:
    """Return the outcome of one check, and the text of all its findings."""
    check = told(app, name)[name]
    assert all(finding["cure"] for finding in check["findings"] if finding["outcome"] in ("warning", "failure"))
    return check["outcome"], " ".join(f"{finding['subject']} {finding['found']}" for finding in check["findings"])


NOT_HERE = {"journal-disk"}
"""What depends on the machine that the tests run on."""


def test_a_good_set_up(make: Make, server: Valkey, role: str) -> None:
    """All is well, for `--strict` too: exit code 0. What cannot be looked at with few rights, or while no worker runs,
    is no pass and says why."""
    app = make(REDIS_URL=as_user(server), DATABASE_URL=role)
    skipped = {"journal-workers": "no worker runs", "hosts": "no worker has told"}
    found = told(app)
    assert {name: check["outcome"] for name, check in found.items() if name not in NOT_HERE} == {
        check.name: "skipped" if check.name in skipped else "ok" for check in CHECKS if check.name not in NOT_HERE
    }
    for name, why in skipped.items():
        assert why in found[name]["findings"][0]["found"]
    names = [part for check in CHECKS if check.name not in NOT_HERE for part in ("--only", check.name)]
    result = run(app, "--strict", *names)
    assert result.exit_code == 0
    number = len(CHECKS) - len(NOT_HERE)
    counts = f"{number - len(skipped)} ok, {len(skipped)} skipped, 0 warnings, 0 failures"
    assert result.output.splitlines()[-1] == f"{number} checks: {counts}"


def test_a_bad_set_up(make: Make, primary_server: Valkey) -> None:
    """A line for each thing, with its cure; no secret is printed. Exit code 1, by --strict for warnings, too."""
    password = "kept-to-itself"
    app = make(
        REDIS_URL=f"redis://:{password}@127.0.0.1:{free_port()}/0", SECRET_KEY="dev-key-dev-key", JOURNAL=None,
        SECRET_KEY_FALLBACKS=["older-secret"], SESSION_COOKIE_SAMESITE=None,
    )  # fmt: skip
    result = run(app)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert "failure  secret-key            SECRET_KEY looks like a sample, not like random bytes" in lines
    assert "         why:  with this key any session cookie can be forged" in lines
    assert any(line.startswith("failure  stores                primary: unreachable") for line in lines)
    assert "skipped  eviction              primary: does not answer" in lines
    assert any(line.startswith("warning  journal-file ") for line in lines)
    for secret in (password, "dev-key-dev-key", "older-secret"):
        assert secret not in result.output + run(app, "--json").output
    assert run(app, "--only", "cookie").exit_code == 0
    assert run(app, "--only", "cookie", "--strict").exit_code == 1
    assert json.loads(run(app, "--only", "cookie", "--strict", "--json").output)["failed"] is True


def test_what_cannot_be_run() -> None:
    """Exit code 2: not a single check was made."""
    app = Flask("bare")
    from flask_langpont_session.cli import langpont

    result = app.test_cli_runner().invoke(langpont, ["doctor"])
    assert (result.exit_code, "not set up" in result.output) == (2, True)


def test_a_mistake_in_the_configuration_cannot_be_run(tmp_path: Path) -> None:
    """Mistakes in the configuration are listed, without a traceback."""
    from flask.cli import ScriptInfo

    from flask_langpont_session.cli import langpont

    def create() -> Flask:
        app = Flask("app", instance_path=str(tmp_path))
        app.config["LANGPONT_SESSION_REDIS_URI"] = "redis://localhost"
        extended(app)
        return app

    result = Flask("other").test_cli_runner().invoke(langpont, ["doctor"], obj=ScriptInfo(create_app=create))
    assert result.exit_code == 2
    assert "did you mean LANGPONT_SESSION_REDIS_URL" in result.output


def test_checks_by_name(make: Make, primary_server: Valkey) -> None:
    """`--list` names them all and asks nothing; a name that is none is refused."""
    app = make(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    listed = run(app, "--list")
    lines = [line for line in listed.output.splitlines() if not line.startswith(" ")]  # others go on with one
    assert [line.split()[0] for line in lines] == [check.name for check in CHECKS]
    unknown = run(app, "--only", "tabels")
    assert (unknown.exit_code, "there is no check 'tabels'" in unknown.output) == (2, True)


# -- it changes nothing ------------------------------------------------------------------------------------------------


def everything(server: Valkey) -> Any:
    """All keys, settings and scripts of a server."""
    with server.client() as client:
        keys: Any = client.keys("*")
        statistics: Any = client.info("memory")
        return {key: client.dump(key) for key in keys}, client.config_get("*"), statistics["number_of_cached_scripts"]


def test_nothing_is_changed(make: Make, server: Valkey, role: str, tmp_path: Path) -> None:
    """The doctor changes nothing on any server, and makes no file on this host: it may be another user's command."""
    url = sa.make_url(role)
    app = make(REDIS_URL=as_user(server), DATABASE_URL=role, JOURNAL=str(tmp_path / "place" / "journal"))
    parts(app).backend.journal.close()
    for file in (tmp_path / "place").iterdir():
        file.unlink()
    engine = sa.create_engine(url)
    with engine.connect() as connection, server.client() as client:
        client.hset("session:ui:{x}", mapping={"lang": "jp"})
        rows = connection.exec_driver_sql("SELECT count(*) FROM langpont_sessions").scalar()
        before = everything(server)
        assert "primary" in run(app).output
        assert everything(server) == before
        connection.rollback()
        assert connection.exec_driver_sql("SELECT count(*) FROM langpont_sessions").scalar() == rows
    engine.dispose()
    assert list((tmp_path / "place").iterdir()) == []


def test_no_file_of_sqlite_is_made(make: Make, server: Valkey, tmp_path: Path) -> None:
    """It would belong to whichever user has run the command."""
    app = make(REDIS_URL=as_user(server), DATABASE_URL=f"sqlite:///{tmp_path / 'none.sqlite3'}", tables=False)
    found, says = outcome(app, "stores")
    assert found == "failure" and "there is no file" in says
    assert not (tmp_path / "none.sqlite3").exists()


# -- the configuration -------------------------------------------------------------------------------------------------

CONFIGURED: list[tuple[str, str, dict[str, Any], str]] = [
    ("environment", "failure", {"TESTING": True}, "TESTING"),
    ("cookie", "warning", {"SESSION_COOKIE_NAME": "session", "SESSION_COOKIE_SECURE": False}, "without HTTPS"),
    ("time-outs", "warning", {"REDIS_TIMEOUT": 6}, "0 ms of REQUEST_BUDGET"),
    ("near-cache", "ok", {"MEMORY_BYTES": 0}, "nothing is kept"),
    ("grace", "warning", {"LOCAL_CACHE_TTL": 120}, "users are signed out after 120 s"),
]


@pytest.mark.parametrize(("name", "expected", "config", "says"), CONFIGURED)
def test_a_configuration(
    make: Make, primary: Valkey, name: str, expected: str, config: dict[str, Any], says: str
) -> None:
    """Each as an application is made by it."""
    found, text = outcome(make(REDIS_URL=primary.url, **config), name)
    assert (found, says in text) == (expected, True), text


def test_a_connection_takes_a_share_of_its_time(make: Make, primary: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning says which share of the time-out a connection takes; how fast the machine is decides the share."""
    monkeypatch.setattr(application_checks, "SHARE_OF_TIME_OUT", 0.0)
    found, text = outcome(make(REDIS_URL=primary.url), "time-outs")
    assert found == "warning" and "connecting took" in text and "ms of REDIS_TIMEOUT" in text


def test_clocks_that_differ(make: Make, primary: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """This host's is ten seconds late, and then by an hour."""
    app = make(REDIS_URL=primary.url)
    assert outcome(app, "clocks")[0] == "ok"
    for seconds, expected in ((10, "warning"), (3600, "failure")):
        late = SimpleNamespace(time=lambda by=seconds: time.time() - by, perf_counter=time.perf_counter)
        monkeypatch.setattr(read_redis, "time", late)
        found, says = outcome(app, "clocks")
        assert (found, "ahead of that of this host" in says) == (expected, True)


# -- Redis and Valkey --------------------------------------------------------------------------------------------------


def changed(server: Valkey, *rules: str) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", acl.USER, *rules)


def test_the_rights_that_are_asked_for_are_the_documented_ones() -> None:
    """The doctor checks for the rights of docs/redis.md, no more and no less."""
    assert {*FOR_ALL, *FOR_METRICS} == set(acl.commands())
    assert {f"+{right}" for right in ON_CLUSTERS} == set(acl.more_on_clusters())


def test_a_right_that_is_missing_is_named(make: Make, server: Valkey) -> None:
    """Each of them, and no other one; then the right to the keys."""
    app = make(REDIS_URL=as_user(server))
    fine = "primary app may do what is needed"
    assert outcome(app, "redis-rights") == ("ok", fine)
    for right in FOR_ALL:
        changed(server, f"-{right}")
        # Without TIME not even a connection is made.
        found, says = outcome(app, "stores" if right == "time" else "redis-rights")
        changed(server, f"+{right}")
        assert found == ("warning" if right in ("info", "client|tracking") else "failure")
        assert f"+{right} is missing" in says if right == "time" else says.endswith(f"lacks +{right}")
    changed(server, "resetkeys", "~other:*")
    found, says = outcome(app, "redis-rights")
    assert (found, "may not use keys that begin with session:" in says) == ("failure", True)


def test_a_right_of_metrics_is_asked_for_with_metrics_only(make: Make, server: Valkey) -> None:
    changed(server, "-zadd")
    assert outcome(make(REDIS_URL=as_user(server)), "redis-rights")[0] == "ok"
    app = make(
        REDIS_URL=as_user(server), METRICS=["prometheus"], METRICS_REGISTRY=CollectorRegistry(), KEY_PREFIX="session"
    )
    assert outcome(app, "redis-rights")[1].endswith("lacks +zadd")


def test_a_policy_that_evicts_sessions_in_use(make: Make, alone: Valkey) -> None:
    """Well at first, then changed."""
    app = make(REDIS_URL=alone.url)
    assert outcome(app, "eviction")[0] == "ok"
    with configured(alone, maxmemory_policy="allkeys-lru"):
        found, text = outcome(app, "eviction")
    assert (found, "allkeys-lru" in text) == ("warning", True), text


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A primary without a replica."""
    with Valkey(tmp_path_factory.mktemp("alone")) as server:
        yield server


def test_memory_that_is_nearly_full(make: Make, alone: Valkey) -> None:
    """It has some left yet."""
    app = make(REDIS_URL=alone.url)
    with alone.client() as client:
        used = client.info("memory")["used_memory"]
    with configured(alone, maxmemory=int(used * 1.1), maxmemory_policy="volatile-lru"):
        found, text = outcome(app, "eviction")
    assert (found, "% of maxmemory is used" in text) == ("warning", True), text


def test_keys_that_were_removed(make: Make, alone: Valkey) -> None:
    """Because memory was full, once since its start."""
    app = make(REDIS_URL=alone.url)
    with configured(alone, maxmemory_policy="volatile-lru", maxmemory=0), alone.client() as client:
        client.set("other", "x", ex=100)
        client.config_set("maxmemory", "1")
        with pytest.raises(redis.OutOfMemoryError):
            client.set("more", "x")
        client.config_set("maxmemory", "0")
        found, says = outcome(app, "eviction")
        client.config_resetstat()
    assert (found, "1 keys were removed" in says) == ("warning", True)


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru"])
def test_a_server_without_memory(make: Make, alone: Valkey, policy: str) -> None:
    """It may remove nothing, or finds nothing that it may remove, and refuses writes: one failure, about memory
    alone."""
    app = make(REDIS_URL=alone.url)
    with configured(alone, maxmemory=1, maxmemory_policy=policy), alone.client() as client:
        with pytest.raises(redis.OutOfMemoryError):
            client.set("more", "x")
        [finding] = told(app, "eviction")["eviction"]["findings"]
    assert (finding["outcome"], f" of 1 bytes of maxmemory are used ({policy})" in finding["found"]) == (
        "failure",
        True,
    )
    assert finding["cure"].startswith("raise maxmemory")


def test_an_endpoint_that_leads_to_a_replica(make: Make, primary: Valkey, replica: Valkey) -> None:
    """A node's own name, after a failover."""
    said = told(make(REDIS_URL=replica.url), "write-endpoint")
    [finding] = said["write-endpoint"]["findings"]
    assert finding["outcome"] == "failure"
    assert f"it is a replica of 127.0.0.1:{primary.port}" in finding["found"]
    assert "REPLICAOF NO ONE" in finding["cure"]
    assert outcome(make(REDIS_URL=primary.url), "write-endpoint")[0] == "ok"


@pytest.mark.parametrize(("password", "says"), [("", "no password was sent"), (":wrong@", "wrong password or user")])
def test_a_password_that_is_refused(make: Make, alone: Valkey, password: str, says: str) -> None:
    """The finding tells a missing password from a wrong one."""
    with alone.client() as client:
        client.config_set("requirepass", "right")
        try:
            app = make(REDIS_URL=alone.url.replace("://", f"://{password}"))
            [refused, *_] = told(app, "stores")["stores"]["findings"]
        finally:
            client.config_set("requirepass", "")
    assert (refused["outcome"], refused["found"]) == ("failure", f"identity refused ({says})")


def test_replicas(make: Make, primary: Valkey, replica: Valkey, alone: Valkey) -> None:
    """One that follows; the primary itself; another primary; one that has lost its own."""
    good = make(REDIS_URL=primary.url, REPLICA_URL=replica.url)
    assert outcome(good, "replica")[0] == "ok"
    same = make(REDIS_URL=primary.url, REPLICA_URL=primary.url)
    assert "are one server" in outcome(same, "replica")[1]
    other = make(REDIS_URL=primary.url, REPLICA_URL=alone.url)
    assert outcome(other, "replica")[0] == "failure"
    status = other.test_cli_runner().invoke(args=["langpont", "status"])
    assert (status.exit_code, "replica    is a primary itself" in status.output) == (1, True)
    with alone.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", free_port())
        found, says = outcome(other, "replica")
        client.execute_command("REPLICAOF", "NO", "ONE")
    assert (found, "replica it does not follow its primary" in says) == ("failure", True)


def test_why_there_is_no_near_cache(make: Make, server: Valkey) -> None:
    """The reason is the one that `flask langpont status` says."""
    app = make(REDIS_URL=as_user(server))
    assert outcome(app, "near-cache")[0] == "ok"
    changed(server, "-client|tracking")
    found, says = outcome(app, "near-cache")
    assert (found, "the server refuses CLIENT TRACKING" in says) == ("warning", True)


def test_without_info_what_it_says_is_skipped(make: Make, server: Valkey) -> None:
    """A right that is missing is no pass."""
    app = make(REDIS_URL=as_user(server))
    changed(server, "-info")
    found = told(app, "write-endpoint", "eviction")
    assert {check["outcome"] for check in found.values()} == {"skipped"}
    assert all("INFO" in check["findings"][0]["found"] for check in found.values())


def test_a_server_without_users(make: Make, tmp_path: Path) -> None:
    """ACL is not there, as of old servers: what INFO says is known all the same."""
    with Valkey(tmp_path / "hidden", extra=("--rename-command", "ACL", "")) as server:
        found = told(make(REDIS_URL=server.url), "redis-rights", "eviction")
    assert {name: check["outcome"] for name, check in found.items()} == {"redis-rights": "ok", "eviction": "ok"}


def test_tls(make: Make, tmp_path: Path) -> None:
    """A server that speaks it, on this host; what is checked of its certificate is what the client was told."""
    authority = Authority(tmp_path)
    with ExitStack() as ends:
        server = ends.enter_context(Redis8(tmp_path / "tls", certificate=authority.issue(["localhost"])))
        url = f"rediss://localhost:{server.port}/0"
        app = make(REDIS_URL=f"{url}?ssl_ca_certs={authority.certificate}")
        assert outcome(app, "redis-tls") == ("ok", "primary TLS, on this host")
        careless = redis.Redis(
            host="localhost", port=server.port, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False
        )
        app = make(REDIS_URL=careless)
        with parts(app).backend.endpoint("primary").server_identity.alone():
            connection = parts(app).backend.endpoint("primary").link.beside(3)
        found = read_redis.transport_of(connection)
        connection.disconnect()
        careless.close()
    assert found.is_encrypted and not found.checks_certificate and not found.checks_name  # type: ignore[union-attr]


def test_a_client_without_a_network(make: Make) -> None:
    """fakeredis: what can be asked is asked."""
    import fakeredis

    app = make(REDIS_URL=fakeredis.FakeRedis())
    found = told(app)
    assert found["stores"]["outcome"] == "ok"
    assert found["redis-tls"]["outcome"] == "skipped"


def test_a_server_that_hangs(make: Make, alone: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for a bounded time."""
    monkeypatch.setattr(read_redis, "PATIENCE", 0.2)
    app = make(REDIS_URL=alone.url)
    alone.freeze()
    try:
        assert outcome(app, "stores")[0] == "failure"
    finally:
        alone.thaw()


# -- databases ---------------------------------------------------------------------------------------------------------


def altered(app: Flask, *statements: str) -> None:
    with parts(app).backend.database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_tables_columns_and_indexes(make: Make, primary: Valkey, database_url: str) -> None:
    """On each engine: none; all; one index, one column, one table less."""
    app = make(REDIS_URL=primary.url, DATABASE_URL=database_url)
    database = parts(app).backend.database
    if database.engine.dialect.name != "sqlite":
        assert outcome(app, "tables")[0] == "failure"
        assert [outcome(app, name)[0] for name in ("schema", "indexes")] == ["skipped", "skipped"]
        assert database.upkeep.missing_tables(), "nothing was made"
        database.upkeep.create_tables()
    assert {name: outcome(app, name)[0] for name in ("tables", "schema", "indexes")} == {
        "tables": "ok", "schema": "ok", "indexes": "ok"
    }  # fmt: skip
    of_mysql = " ON langpont_sessions" if database.engine.dialect.name == "mysql" else ""
    altered(app, f"DROP INDEX ix_langpont_sessions_updated_at{of_mysql}")
    assert "ix_langpont_sessions_updated_at" in outcome(app, "indexes")[1]
    altered(app, "ALTER TABLE langpont_sessions DROP COLUMN successor")
    assert "langpont_sessions.successor is missing" in outcome(app, "schema")[1]
    altered(app, "DROP TABLE langpont_users")
    assert outcome(app, "tables") == ("failure", "None missing: langpont_users")


def test_columns_that_are_too_small(make: Make, primary: Valkey, role: str, postgres: Postgres) -> None:
    """Made by hand."""
    engine = sa.create_engine(postgres.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE langpont_users ALTER COLUMN epoch TYPE integer")
        connection.exec_driver_sql("ALTER TABLE langpont_users ALTER COLUMN user_id TYPE varchar(99)")
    engine.dispose()
    found, says = outcome(make(REDIS_URL=primary.url, DATABASE_URL=role), "schema")
    assert found == "failure"
    assert "langpont_users.epoch has no room" in says and "langpont_users.user_id holds 99 characters" in says


def test_users_that_mariadb_takes_for_one(make: Make, primary: Valkey, mariadb: MariaDB) -> None:
    """Tables of another collation."""
    app = make(REDIS_URL=primary.url, DATABASE_URL=emptied(mariadb))
    parts(app).backend.database.upkeep.create_tables()
    assert outcome(app, "schema")[0] == "ok"
    altered(app, "ALTER TABLE langpont_users MODIFY user_id varchar(255) COLLATE utf8mb4_general_ci NOT NULL")
    assert "langpont_users.user_id takes different texts for the same" in outcome(app, "schema")[1]


def test_rights_in_postgresql(make: Make, primary: Valkey, role: str, postgres: Postgres) -> None:
    """Enough; one too few."""
    app = make(REDIS_URL=primary.url, DATABASE_URL=role)
    assert outcome(app, "database-rights")[0] == "ok"
    engine = sa.create_engine(postgres.url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"REVOKE DELETE ON langpont_users FROM {ROLE}")
    engine.dispose()
    assert outcome(app, "database-rights") == ("failure", "None its user lacks DELETE on langpont_users")


def test_a_postgresql_that_takes_no_writes(make: Make, primary: Valkey, role: str) -> None:
    """A standby, which takes no writes, is found."""
    assert outcome(make(REDIS_URL=primary.url, DATABASE_URL=role), "database-writes")[0] == "ok"
    read_only = f"{role}?options=-c%20default_transaction_read_only%3Don"
    assert outcome(make(REDIS_URL=primary.url, DATABASE_URL=read_only), "database-writes")[0] == "failure"


@pytest.mark.usefixtures("on_time")
def test_a_sqlite_file_that_another_process_has_locked(make: Make, primary: Valkey, sqlite_url: str) -> None:
    """It is read as ever, and takes no write; what is written to see that is gone afterwards."""
    app = make(REDIS_URL=primary.url)
    assert outcome(app, "database-writes") == ("ok", "None it takes writes")
    with parts(app).backend.database.engine.connect() as connection:
        for table in ("langpont_sessions", "langpont_users"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0
    path = sa.make_url(sqlite_url).database
    other = sqlite3.connect(str(path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        [finding] = told(app, "database-writes")["database-writes"]["findings"]
    finally:
        other.close()
    assert (finding["outcome"], "SQLITE_BUSY" in finding["found"]) == ("failure", True)
    assert f"`fuser {path}`" in finding["cure"] and "do not delete the file" in finding["cure"]


def test_mariadb(make: Make, primary: Valkey, mariadb: MariaDB) -> None:
    """Its rights, and that it is read-only."""
    app = make(REDIS_URL=primary.url, DATABASE_URL=emptied(mariadb))
    parts(app).backend.database.upkeep.create_tables()
    names = ("database-writes", "database-rights", "database-tls")
    assert [outcome(app, name)[0] for name in names] == ["ok", "ok", "ok"]
    admin = make(REDIS_URL=primary.url, DATABASE_URL=mariadb.admin_url)
    altered(admin, "SET GLOBAL read_only = ON")
    try:
        assert outcome(app, "database-writes")[0] == "failure"
    finally:
        altered(admin, "SET GLOBAL read_only = OFF")


def test_whether_pymysql_encrypts(make: Make, primary: Valkey, mariadb: MariaDB) -> None:
    """PyMySQL encrypts where the server can, and checks nothing of the certificate unless it is told to."""
    url = sa.make_url(emptied(mariadb)).set(drivername="mysql+pymysql").render_as_string(hide_password=False)
    plain = make(REDIS_URL=primary.url, DATABASE_URL=f"{url}?ssl_disabled=true")
    assert outcome(plain, "database-tls")[1] == "None without TLS, on this host"
    app = make(REDIS_URL=primary.url, DATABASE_URL=url)
    assert outcome(app, "database-tls")[1] == "None TLS, on this host"
    found = read_database(parts(app).backend.database)
    assert not isinstance(found, Unknown) and not isinstance(found.transport, Unknown)
    assert (found.transport.checks_certificate, found.transport.checks_name) == (False, False)


def test_a_certificate_of_mariadb_that_expires_soon(make: Make, primary: Valkey, tmp_path: Path) -> None:
    """PyMySQL shows it where it checks it."""
    authority = Authority(tmp_path)
    with MariaDB(tmp_path / "mariadb", authority.issue(["localhost"], days=3)) as server:
        url = sa.make_url(server.url).set(drivername="mysql+pymysql", host="localhost")
        url = url.update_query_dict({"ssl_ca": str(authority.certificate)})
        app = make(REDIS_URL=primary.url, DATABASE_URL=url.render_as_string(hide_password=False))
        state, said = outcome(app, "database-tls")
    assert state == "warning"
    assert said.startswith("None its certificate expires on ")


# -- this host ---------------------------------------------------------------------------------------------------------


def test_a_journal_that_others_may_read(make: Make, primary: Valkey, tmp_path: Path) -> None:
    """A journal is found that others may read, and so is a folder in which others may put another one."""
    app = make(REDIS_URL=primary.url, JOURNAL=str(tmp_path / "open" / "journal"))
    assert outcome(app, "journal-file")[0] == "ok"
    (tmp_path / "open" / "journal").chmod(0o644)
    (tmp_path / "open").chmod(0o777)
    found, says = outcome(app, "journal-file")
    assert (found, "mode 0644" in says, "mode 0777" in says) == ("warning", True, True)


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no file system in memory")
def test_a_journal_in_memory(make: Make, primary: Valkey) -> None:
    """It is gone with the host's next start."""
    folder = Path(f"/dev/shm/{secrets.token_hex()}")
    app = make(REDIS_URL=primary.url, JOURNAL=str(folder / "journal"))
    found, says = outcome(app, "journal-disk")
    parts(app).close()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert found in ("warning", "failure") and "it is in memory" in says


SITE = """
import os
from flask import Flask
from flask_langpont_session import LangPontSession

app = Flask("site", instance_path=os.environ["PLACE"])
app.config.from_prefixed_env()
LangPontSession(app)
"""


def test_workers_of_gunicorn(make: Make, primary: Valkey, tmp_path: Path, sqlite_url: str) -> None:
    """Found by the journal that they share."""
    (tmp_path / "doctors_site.py").write_text(SITE)
    journal = tmp_path / "journal.sqlite3"
    variables = {
        "PLACE": str(tmp_path), "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
        "FLASK_SECRET_KEY": KEY, "FLASK_LANGPONT_SESSION_REDIS_URL": primary.url,
        "FLASK_LANGPONT_SESSION_DATABASE_URL": sqlite_url, "FLASK_LANGPONT_SESSION_JOURNAL": str(journal),
    }  # fmt: skip
    web = WebServer(
        tmp_path / "web", workers=2, preload=False, env={**os.environ, **variables}, application="doctors_site:app"
    )
    app = make(REDIS_URL=primary.url)

    def both() -> bool:
        """A worker opens it when it is asked for the first time, then for a moment only; and from then on."""
        [(_, check)] = told(app, "journal-workers").items()
        said = check["outcome"], check["findings"][0]["found"]
        return answers_http(web.port, "/healthz") and said == ("ok", "2 processes share it")

    with web:
        wait_until(both, "both")


def test_a_memory_that_is_too_small_for_the_sessions_in_use(make: Make, primary: Valkey) -> None:
    """Only workers know how their memories do: they say so on the host, and a command reads it."""
    insecure = {"SESSION_COOKIE_NAME": "session", "SESSION_COOKIE_SECURE": False}
    app = make(REDIS_URL=primary.url, MEMORY_BYTES=100_000, **insecure)
    add_views(app)
    assert outcome(app, "memory")[0] == "ok"
    for _ in range(100):
        app.test_client().post("/set", json={"input_text": "x" * 200})
    wait_until(lambda: outcome(app, "memory")[0] == "warning", "that it has told")
    assert "1 processes had no room for" in outcome(app, "memory")[1]


def test_hosts_that_differ(make: Make, server: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker tells its host's configuration; a command says which host differs in what. No key is in Redis."""

    def worker(host: str, **config: Any) -> Flask:
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        app = make(REDIS_URL=as_user(server), JOURNAL=str(tmp_path / host), **config)
        parts(app).monitor.tick()
        return app

    app = worker("web-1")
    assert outcome(app, "hosts")[0] == "ok" and "web-1: it has one configuration" in outcome(app, "hosts")[1]
    other = secrets.token_hex()
    worker("web-2", SECRET_KEY=other, GRACE=60, SECRET_KEY_FALLBACKS=[KEY])
    found, says = outcome(app, "hosts")
    assert found == "failure" and "SECRET_KEY differs: cookies of web-2 are refused by web-1" in says
    assert "GRACE differs: 300 on web-1; 60 on web-2" in says
    with server.client() as client:
        left = client.hgetall("session:hosts")
        assert len(left) == 2 and 0 < client.pttl("session:hosts") <= 3_600_000
    for secret in (KEY, other):
        assert secret not in f"{left}{run(app).output}{run(app, '--json').output}"


def test_hosts_that_are_gone(make: Make, server: Valkey, tmp_path: Path) -> None:
    """A configuration that no worker tells any more is not compared, and the next worker removes it."""
    app = make(REDIS_URL=as_user(server))
    former = msgspec.json.encode(HostWord("web-0", ("x",), {}, int(time.time() * 1000) - 200_000))
    with server.client() as client:
        client.hset("session:hosts", mapping={"web-0 x": former, "of another release": "?"})
        assert outcome(app, "hosts")[0] == "skipped"
        parts(app).monitor.tick()
        assert [field.split()[0] for field in client.hkeys("session:hosts")] == [socket.gethostname()]
    assert outcome(app, "hosts")[0] == "ok"


def test_a_host_with_another_prefix(make: Make, primary: Valkey, tmp_path: Path) -> None:
    """It tells its configuration elsewhere, but the sessions that it makes are in the same database."""
    app, other = (
        make(REDIS_URL=primary.url),
        make(REDIS_URL=primary.url, KEY_PREFIX="p", JOURNAL=str(tmp_path / "other")),
    )
    for each, found in ((app, "ok"), (other, "warning")):
        add_views(each)
        each.test_client().post("/login/7")
        parts(each).monitor.tick()
        assert outcome(app, "hosts")[0] == found
    assert "1 sessions of the database that changed today are not in this Redis" in outcome(app, "hosts")[1]


def test_keys_that_no_feature_names(make: Make, primary: Valkey) -> None:
    """They are listed by name, without a value; one whose name looks like a right's is asked about."""
    app = make(REDIS_URL=primary.url, SESSION_COOKIE_NAME="session", SESSION_COOKIE_SECURE=False)
    add_views(app)
    client = app.test_client()
    client.post("/login/7")
    client.post("/set", json={"lang": "en", "fs_cc": "x"})
    client.post("/set", json={"cart": "x"})
    found, says = outcome(app, "unclaimed-keys")
    assert (found, "'cart' in the sessions" in says, "fs_cc" in says) == ("ok", True, False)
    client.post("/set", json={"is_staff": "a-value-of-the-session"})
    found, says = outcome(app, "unclaimed-keys")
    assert (found, "name of 'is_staff' looks like" in says) == ("warning", True)
    result = run(app).output
    assert "add it to LANGPONT_SESSION_PRIVILEGE_KEYS" in result
    assert "a-value-of-the-session" not in result + run(app, "--json").output
