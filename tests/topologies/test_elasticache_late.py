"""A replication group of which AWS cannot say at the start whether it is in cluster mode, or that changes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from devservers.processes import free_port, wait_until
from devservers.servers import Valkey
from flask_langpont_session.blueprint import health_report
from tests.integration.behind import key, sign_in, waiting
from tests.integration.conftest import parts
from tests.integration.elasticache_site import URL, Aws, DnsCache, aws, moto_url, names  # noqa: F401 - fixtures

from .cluster_lab import Cluster
from .conftest import MakeApp

HALVES = ((0, 8191), (8192, 16383))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Valkey]]:
    """A cluster of two primaries."""
    folder, buses = tmp_path_factory.mktemp("cluster"), (free_port(), free_port())
    with ExitStack() as ends:
        nodes = [
            ends.enter_context(
                Valkey(
                    folder / f"node{bus}",
                    appendonly=False,
                    extra=("--cluster-enabled", "yes", "--cluster-port", str(bus)),
                )
            )
            for bus in buses
        ]
        for node, slots in zip(nodes, HALVES, strict=True):
            Cluster.says(node, "CLUSTER", "ADDSLOTSRANGE", *slots)
        Cluster.says(nodes[0], "CLUSTER", "MEET", "127.0.0.1", nodes[1].port, buses[1])
        wait_until(lambda: all(is_whole(node) for node in nodes), "a cluster")
        yield nodes


def is_whole(node: Valkey) -> bool:
    return "cluster_slots_ok:16384" in str(Cluster.says(node, "CLUSTER", "INFO"))


@pytest.fixture
def cluster(nodes: list[Valkey]) -> list[Valkey]:
    """Whole and empty."""
    for node in nodes:
        node.start()
    wait_until(lambda: all(is_whole(node) for node in nodes), "a cluster")
    for node in nodes:
        Cluster.says(node, "FLUSHALL")
    return nodes


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server that is no cluster."""
    with Valkey(tmp_path_factory.mktemp("lone"), appendonly=False) as server:
        yield server


@pytest.fixture
def single(lone: Valkey) -> Valkey:
    """Empty."""
    lone.start()
    Cluster.says(lone, "FLUSHALL")
    return lone


class Account:
    """The group, made anew as one or the other. The names of the one before lead nowhere any more."""

    def __init__(self, aws: Aws, names: DnsCache) -> None:  # noqa: F811 - the fixtures
        self._aws = aws
        self._names = names

    def make_cluster(self, seed: Valkey) -> None:
        self._aws.reset()
        self._aws.create_group(ClusterMode="enabled", NumNodeGroups=2, ReplicasPerNodeGroup=0)
        [found] = self._aws.elasticache.describe_replication_groups(ReplicationGroupId="sessions")["ReplicationGroups"]
        self._names.ports = {found["ConfigurationEndpoint"]["Address"]: seed.port}

    def make_single(self, server: Valkey) -> None:
        self._aws.reset()
        self._names.ports = {self._aws.create_group(replicas=0): server.port}


@pytest.fixture
def account(aws: Aws, names: DnsCache) -> Account:  # noqa: F811 - the fixtures
    return Account(aws, names)


def stores(app: Flask) -> set[str]:
    return set(health_report(parts(app))["stores"])


def keys(*servers: Valkey) -> set[str]:
    return {name for server in servers for name in Cluster.says(server, "KEYS", "session:auth:*")}


def wait_until_home(app: Flask, visitor: Any) -> None:
    wait_until(lambda: visitor.get("/who").json["level"] == 0 and not waiting(app), "level 0", pause=0.05)


@contextmanager
def at_work(*visitors: Any) -> Iterator[set[Any]]:
    """Let the visitors read and write all the time. Yield the (status, status, user) that were seen."""
    seen: set[Any] = set()
    over = threading.Event()

    def work(visitor: Any) -> None:
        while not over.wait(0.01):
            written, read = visitor.post("/set", json={"theme": "dark"}), visitor.get("/who")
            seen.add((written.status_code, read.status_code, read.json["user"]))

    threads = [threading.Thread(target=work, args=(visitor,)) for visitor in visitors]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_cluster_mode_that_aws_could_not_tell_at_the_start_needs_no_restart(
    make_app: MakeApp,
    aws: Aws,  # noqa: F811 - the fixture
    account: Account,
    cluster: list[Valkey],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Everything is down when the first process of a host starts. The database comes back, then AWS: users who signed
    in meanwhile and users who sign in now are both in the cluster, whose shards are named as for a process that starts
    now."""
    account.make_cluster(cluster[0])
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    disk = tmp_path / "disk"
    config = {"REDIS_URL": URL, "DATABASE_URL": f"sqlite:///{disk / 'sessions.sqlite3'}"}
    app = make_app(tables=False, **config)
    stranger: Any = app.test_client()
    assert stranger.post("/login/6").status_code == 503
    wait_until(lambda: stranger.get("/who").json["level"] == 4, "level 4", pause=0.05)
    disk.mkdir()
    parts(app).backend.database.upkeep.create_tables()
    wait_until(lambda: stranger.get("/who").json["level"] == 2, "the database", pause=0.05)
    early, other = sign_in(app, "7"), sign_in(app, "7")
    assert stores(app) == {"primary", "database"}
    with at_work(other) as seen:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        wait_until_home(app, early)
    assert seen == {(200, 200, "7")}
    late = [sign_in(app, "8") for _ in range(8)]
    expected = {key(visitor.digest) for visitor in (early, other, *late)}
    # The sign-ins of a busy process may wait in its journal first.
    wait_until(lambda: keys(*cluster) == expected, "all sessions")
    successor = make_app(**config)
    sign_in(successor, "8")
    assert stores(app) == stores(successor) == {"primary:1", "primary:2", "database"}
    wait_until(lambda: parts(app).health.level == 0, "both shards")
    assert "restart" not in caplog.text


def test_a_group_that_was_made_anew_in_the_other_mode_is_found(
    make_app: MakeApp, account: Account, cluster: list[Valkey], single: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """First without cluster mode, then in it, then without it again: no user is signed out."""
    account.make_single(single)
    app = make_app(REDIS_URL=URL)
    visitor = sign_in(app, "7")
    assert (visitor.get("/who").json["level"], stores(app)) == (0, {"primary", "database"})
    with at_work(sign_in(app, "7")) as seen:
        account.make_cluster(cluster[1])
        single.kill()
        wait_until(lambda: "primary:1" in stores(app), "the cluster")
        wait_until_home(app, visitor)
        assert key(visitor.digest) in keys(*cluster)
        assert stores(app) == {"primary:1", "primary:2", "database"}
        account.make_single(single)
        single.start()
        for node in cluster:
            node.kill()
        wait_until(lambda: "primary" in stores(app), "the single server")
        wait_until_home(app, visitor)
    assert seen == {(200, 200, "7")}
    assert key(visitor.digest) in keys(single)
    assert stores(app) == {"primary", "database"}
    assert "restart" not in caplog.text
