"""A user of Redis who may do what docs/redis.md says: it is enough, and nothing of it is too much."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from devservers.processes import LONG
from devservers.servers import Valkey
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.ops.cli.commands import langpont
from flask_langpont_session.ops.exporters.session_index import ActiveSessions
from flask_langpont_session.policy.changes import CategoryChange, Operation
from flask_langpont_session.policy.copies import CategoryCopy, RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.ids import digest_of
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.redis.commands import new_write_id
from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.records import Limits, Merge, MergeStep, Restore
from flask_langpont_session.stores.redis.store import RedisStore
from tests.integration.behind import sign_in
from tests.integration.conftest import parts, redis_store
from tests.integration.sentinels import SERVICE, Sentinel

from . import acl
from .conftest import MakeApp
from .deployments import ENGINES
from .redis8 import acl_file

DIGEST, OTHER = digest_of("one"), digest_of("other")
USER = RecordRef(DIGEST, "u")
HOUR = 3_600_000
FOR_METRICS = {"zadd", "zcount", "zremrangebyscore"}
FOR_READING = {"eval", "evalsha", "time", "hgetall"}


@pytest.fixture(scope="module", params=ENGINES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    folder = tmp_path_factory.mktemp("guarded")
    users = acl_file(folder, ["default on nopass ~* &* +@all", acl.user(acl.documented())])
    with ENGINES[request.param](folder, appendonly=False, extra=users) as server:
        yield server


@pytest.fixture
def server(running: Valkey) -> Valkey:
    """Empty, with no scripts, the documented user and a clean log of what was refused."""
    with running.client() as client:
        client.flushall()
        client.script_flush()
        client.acl_load()
        client.acl_log_reset()
    return running


@pytest.fixture
def app(make_app: MakeApp, server: Valkey) -> Flask:
    url = server.url.replace("redis://", f"redis://{acl.USER}:{acl.PASSWORD}@")
    return make_app(REDIS_URL=url, METRICS=["prometheus"], METRICS_REGISTRY=CollectorRegistry())


@pytest.fixture
def store(app: Flask) -> RedisStore:
    return redis_store(app)


def change(server: Valkey, *rules: str) -> None:
    """Give the user rights or take them away, with effect on connections that there are."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", acl.USER, *rules)


def refused(server: Valkey) -> set[str]:
    """The commands that the server's log says it refused."""
    with server.client() as client:
        return {entry["object"].partition("|")[0] for entry in client.acl_log() if entry["reason"] == "command"}


def row() -> AuthRow:
    return AuthRow(DIGEST, "7", 1, True, {"_user_id": b'"7"'}, 0, 1, HOUR * 10**6, HOUR * 10**6, 1)


def changes() -> CategoryChange:
    return CategoryChange(HOUR, sets={"lang": b'"jp"'}, deletes={"theme"}, increments={"n": 1})


def calls(store: RedisStore) -> Mapping[str, Callable[[], object]]:
    """Return every call that the package makes to a store, by the name of the method. The order makes the data."""
    ui = {"ui": changes()}
    steps = [MergeStep(Operation.SET, "lang", b'"en"'), MergeStep(Operation.ADD, "n", 1, new_write_id())]
    merge = Merge(DIGEST, "ui", [*steps, MergeStep(Operation.DELETE, "theme")], "alive", HOUR)
    wipe = Merge(DIGEST, "ui", [MergeStep(Operation.WIPE)], "alive", HOUR)
    options: dict[str, Any] = {"limits": Limits(256, 65_536, HOUR), "timeout": LONG, "write_id": new_write_id()}
    told = Told(store)
    active = ActiveSessions(told, Recorder(), is_up=lambda: True, interval=60)
    active.notes.served(DIGEST, HOUR)
    asked: dict[str, Callable[[], object]] = {
        "push": lambda: store.push(row(), 1, HOUR, timeout=LONG),
        "write": lambda: [
            store.write(USER, ui, guard="alive", **options) for _ in range(2)
        ],
        "write_near": lambda: store.write_near(
            DIGEST, ui, "alive", options["limits"], time.monotonic() + LONG, new_write_id()
        ),
        "read": lambda: store.read(USER, {"auth": 4 * HOUR, "ui": 4 * HOUR}, timeout=LONG),
        "near": lambda: found(store),
        "extend_idle": lambda: store.extend_idle(DIGEST, 2 * HOUR, timeout=LONG),
        "merge_all": lambda: [
            store.merge_all([merge], **options),
            store.write(USER, ui, guard="alive", **options),
            store.merge_all([merge, wipe], **options),
            store.merge_all([Restore(DIGEST, "ui", CategoryCopy(2**52, {"lang": b'"jp"'}), "alive", HOUR)], **options),
        ],
        "auths": lambda: store.auths([DIGEST], timeout=LONG),
        "copies": lambda: store.copies([(DIGEST, "ui")], timeout=LONG),
        "quarantine": lambda: store.quarantine(USER, "ui", timeout=LONG),
        "push_many": lambda: store.push_many([(row(), HOUR), (OTHER, 1)], ["auth", "ui"], stamp_ms=2, timeout=LONG),
        "look_at_canary": lambda: store.endpoint.look_at_canary(None, timeout=LONG),
        "probe": lambda: store.endpoint.probe(f"{store.prefix}:canary:x", "x", timeout=LONG),
        "probe_read": lambda: store.endpoint.probe_read(timeout=LONG),
        "time_ms": lambda: store.endpoint.time_ms(timeout=LONG),
        "run_commands": lambda: _count(active, told),
    }  # fmt: skip
    return asked


def found(store: RedisStore) -> None:
    """Look into the near cache, with a connection that was made for it."""
    assert store.near
    store.near.attend()
    store.near.find(USER, {"auth": 4 * HOUR, "ui": 4 * HOUR})


class Told:
    """A store that keeps the error of what it was asked."""

    def __init__(self, store: RedisStore) -> None:
        self.prefix = store.prefix
        self.error: StoreError | None = None
        self._store = store

    def run_commands(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        try:
            return self._store.run_commands(commands, timeout=timeout)
        except StoreError as error:
            self.error = error
            raise


def _count(active: ActiveSessions, told: Told) -> None:
    """Count the sessions in use, and raise the error that the index keeps to itself."""
    active.update()
    if active.number is None:
        assert told.error is not None
        raise told.error


def failing(store: RedisStore) -> dict[str, StoreError]:
    """Return the errors of all calls that fail over new connections, by name of the call."""
    store.forget_connections()
    errors = {}
    for name, call in calls(store).items():
        try:
            call()
        except StoreError as error:
            errors[name] = error
    return errors


def test_everything_that_is_asked_of_a_store_is_tried_here(store: RedisStore) -> None:
    """A method that is added needs its commands in the documentation."""
    members = [*inspect.getmembers(RedisStore, inspect.isfunction), *inspect.getmembers(Endpoint, inspect.isfunction)]
    own = {name for name, _ in members if not name.startswith("_")}
    assert own - set(calls(store)) == {
        "announcing",
        "find_shards",
        "home_of",
        "estimated_ms",
        "forget_connections",
    }


def test_the_documented_rights_are_enough(app: Flask, store: RedisStore, server: Valkey) -> None:
    """The documented rights are enough for every script, the canaries, the index of sessions in use, and the
    operator's commands."""
    assert failing(store) == {}
    assert store.server_identity.identity is not None
    with server.client() as client:
        client.flushall()
    user = sign_in(app, "7", lang="jp")
    parts(app).monitor.tick()
    exporting = parts(app).exporting
    assert exporting is not None
    exporting.active.update()
    assert exporting.active.number == 1
    runner = app.test_cli_runner()
    for command in (["status"], ["sessions", "list", "7"], ["sessions", "revoke", user.digest]):
        result = runner.invoke(langpont, command)
        assert (result.exit_code, result.exception) == (0, None)
    assert user.get("/who").json["user"] is None
    assert refused(server) == set()


@pytest.mark.parametrize("command", acl.commands())
def test_none_of_the_documented_rights_can_be_left_out(store: RedisStore, server: Valkey, command: str) -> None:
    """Without one of the documented rights something is refused, which is an error of class A that says so and never
    a wrong answer."""
    change(server, f"-{command}")
    errors = failing(store)
    assert command.partition("|")[0] in refused(server)
    if command == "client|tracking":  # each request asks
        assert errors == {} and store.near and "CLIENT TRACKING" in store.near.off
        return
    if command == "info":  # the server then does not tell its identity, so that no connection is believed like another
        assert errors == {}
        assert store.server_identity.identity is None
        return
    assert {error.error_class for error in errors.values()} == {ErrorClass.IDENTITY_REFUSED}
    assert all(f"+{command} is missing" in error.cause for error in errors.values())
    # What the probe did not need would be missed by the next request: the breaker would open and close for ever.
    assert "probe" in errors or command in FOR_METRICS
    assert "probe_read" in errors or command not in FOR_READING


def test_other_keys_are_none_of_its_business(store: RedisStore, server: Valkey) -> None:
    """The user may not read other keys, nor would the rights to them help it."""
    with server.client() as client:
        client.set("other", "x")
    with pytest.raises(StoreError) as caught:
        store.run_commands([("GET", "other")], timeout=LONG)
    assert caught.value.error_class is ErrorClass.IDENTITY_REFUSED
    change(server, "resetkeys", "~other*")
    errors = failing(store)
    assert {"read", "write", "push", "probe", "look_at_canary"} <= set(errors)
    assert {error.error_class for error in errors.values()} == {ErrorClass.IDENTITY_REFUSED}


@pytest.mark.parametrize("missing", [None, *acl.commands(acl.SENTINEL_PASSWORD)])
def test_what_sentinels_are_asked(make_app: MakeApp, running: Valkey, tmp_path: Path, missing: str | None) -> None:
    """Sentinels are asked for the primary and the replicas; without the right to ask, that store is not found. They
    are listened to as well; without that all goes on."""
    with Sentinel(tmp_path / "sentinel", running) as sentinel:
        rules = [rule for rule in acl.documented(acl.SENTINEL_PASSWORD) if rule != f"+{missing}"]
        with sentinel.client() as client:
            client.execute_command("ACL", "SETUSER", acl.USER, "on", f">{acl.SENTINEL_PASSWORD}", *rules)
        url = f"redis+sentinel://{acl.USER}:{acl.PASSWORD}@127.0.0.1:{sentinel.port}/{SERVICE}"
        url += f"?sentinel_username={acl.USER}&sentinel_password={acl.SENTINEL_PASSWORD}"
        app = make_app(REDIS_URL=url)
        found = {"primary": ErrorClass.IDENTITY_REFUSED, "replica": ErrorClass.UNREACHABLE}  # there is no replica
        if missing != "sentinel|get-master-addr-by-name":
            assert redis_store(app).endpoint.time_ms(timeout=LONG) > 0
            del found["primary"]
        if missing == "sentinel|replicas":
            found["replica"] = ErrorClass.IDENTITY_REFUSED
        for name, error_class in found.items():
            with pytest.raises(StoreError) as caught:
                redis_store(app, name).endpoint.time_ms(timeout=LONG)
            assert caught.value.error_class is error_class
        watch = parts(app).watch
        assert watch is not None
        for _ in range(2):
            watch.look(0)
        with sentinel.client() as client:
            refused = [entry["object"] for entry in client.acl_log()]
        assert set(refused) == ({missing} if missing else set())
