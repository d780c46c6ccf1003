"""Redis Cluster on six real nodes: sessions spread over the shards, and how an application finds them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry
from redis.crc import key_slot

from devservers.processes import LONG, free_port, wait_until
from devservers.servers import Valkey
from flask_langpont_session.ops.cli.commands import langpont
from flask_langpont_session.ops.exporters.session_index import BUCKETS
from flask_langpont_session.policy.breaker import READ
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.ids import digest_of
from tests.integration.behind import browser, sign_in, waiting
from tests.integration.conftest import cookie_of, parts
from tests.integration.elasticache_site import URL, Aws, DnsCache, aws, moto_url, names  # noqa: F401 - fixtures
from tests.integration.tls import Authority, TlsFront
from tests.support.auth_records import unpacked
from tests.support.children import in_child

from .cluster_crowd import (
    FINE,
    Crowd,
    at_work,
    given_up,
    healthz,
    identities,
    shard_of,
    wait_until_well,
    who,
)
from .cluster_lab import SHARDS, Cluster, running_cluster
from .conftest import MakeApp

WHOLE = {"lost": 0, "total": SHARDS, "lost_share": 0}
"""What the health page says of shards while all is well."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """Whole, at rest and empty."""
    running.reset()
    return running


@pytest.fixture
def app(cluster: Cluster, make_app: MakeApp) -> Flask:
    return make_app(REDIS_URL=cluster.url)


def test_sessions_are_spread_and_each_is_in_one_slot(app: Flask, cluster: Cluster) -> None:
    """Signed in, written, read and out again, on every shard; the keys of one session have one slot."""
    crowd = Crowd(app, cluster)
    assert crowd.is_well()
    assert all(seen == (0, "first") for shard in range(SHARDS) for seen in crowd.look(shard))
    keys = cluster.keys("session:*:{*}")
    for shard, there in crowd.of.items():
        for one in there:
            own = {key for key in keys[shard] if one.digest in key}
            assert {key.split(":")[1] for key in own} == {"auth", "translation", "ui"}
            assert {key_slot(key.encode()) for key in own} == {key_slot(one.digest.encode())}
            other = browser(app, one.cookie)
            other.post("/logout")
            assert browser(app, one.cookie).get("/who").json["user"] is None
            meta = cluster.says(cluster.primary(shard), "HGET", f"session:auth:{{{one.digest}}}", "@m")
            assert unpacked({"@m": meta})["@live"] == "0"
    assert healthz(app)["shards"] == WHOLE
    roles = {f"{role}:{number}" for role in ("primary", "replica") for number in (1, 2, 3)}
    # A replica that has received nothing yet is not named by its primary.
    wait_until(lambda: set(healthz(app)["stores"]) == {*roles, "database"}, "all servers")


def test_the_doctor_looks_at_every_shard(app: Flask, cluster: Cluster) -> None:
    """Each server by its name, and the clusters' own rights."""
    asked = [part for name in ("stores", "write-endpoint", "replica", "redis-rights") for part in ("--only", name)]
    wait_until(lambda: len(parts(app).backend.find_stores(LONG)) == 2 * SHARDS, "all servers")
    answer = app.test_cli_runner().invoke(langpont, ["doctor", "--json", *asked])
    found = {check["name"]: check for check in json.loads(answer.output)["checks"]}
    assert [found[name]["outcome"] for name in ("stores", "write-endpoint", "replica")] == ["ok", "ok", "ok"]
    for name, role in (("write-endpoint", "primary"), ("replica", "replica")):
        assert {one["subject"] for one in found[name]["findings"]} == {f"{role}:{number}" for number in (1, 2, 3)}
    assert all("lacks" not in one["found"] for one in found["redis-rights"]["findings"])
    node = cluster.primary(0)
    cluster.says(node, "ACL", "SETUSER", "default", "-cluster|info")
    try:
        lacking = doctor(app, "redis-rights")
    finally:
        cluster.says(node, "ACL", "SETUSER", "default", "+cluster|info")
    assert "primary:1: default lacks +cluster|info" in lacking


def doctor(app: Flask, check: str) -> str:
    """Return what one check of the doctor prints."""
    return app.test_cli_runner().invoke(langpont, ["doctor", "--only", check]).output


def test_a_node_under_a_url_of_no_cluster_is_an_outage_that_is_named(
    cluster: Cluster, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Sessions of other nodes' slots are served from this host's copy meanwhile, and no write is lost."""
    node = cluster.primary(0)
    app = make_app(REDIS_URL=f"redis://127.0.0.1:{node.port}/0")
    visitors = [app.test_client() for _ in range(9)]
    for number, visitor in enumerate(visitors):
        visitor.post("/login/7")
        visitor.post("/set", json={"input_text": f"text {number}"})
    said = "is a node of a cluster: write redis+cluster:// or rediss+cluster:// in LANGPONT_SESSION_REDIS_URL"
    wait_until(lambda: said in caplog.text, "the cause")
    found = [visitor.get("/get/input_text").get_json()["value"] for visitor in visitors]
    assert found == [f"text {number}" for number in range(9)]


def test_while_the_primary_is_away_its_replica_is_read(cluster: Cluster, make_app: MakeApp) -> None:
    """Level 1 for the sessions of that shard: what Redis has is still shown."""
    app = make_app(REDIS_URL=cluster.url, HEALTH_INTERVAL=600)
    crowd = Crowd(app, cluster, each=1)
    wait_until_well(crowd)
    [replica] = [node for node in cluster.pair(2) if node is not cluster.primary(2)]
    cluster.says(replica, "CONFIG", "SET", "cluster-replica-no-failover", "yes")
    cluster.kill(cluster.primary(2))
    try:
        wait_until(lambda: crowd.levels(2) == {1}, "level 1")
        [one] = crowd.of[2]
        assert browser(app, one.cookie).get("/get/theme").json == {"value": None, "present": False}
        assert one.get("/get/input_text").json["value"] == "first"
        assert one.get("/get/lang").json["value"] == "jp", "of medium priority: no local copy is kept of it"
        assert crowd.levels(0) == crowd.levels(1) == {0}
    finally:
        cluster.says(replica, "CONFIG", "SET", "cluster-replica-no-failover", "no")
    wait_until_well(crowd)


def test_a_frozen_primary_is_waited_for_once(make_app: MakeApp, cluster: Cluster) -> None:
    """SIGSTOP: it takes connections and says nothing, until the others elect its replica. No request waits for it more
    than once; no other shard is doubted. SIGCONT: it takes itself for the primary until it learns of that one, and does
    what it had been asked: none of that counts, and a host that slept meanwhile finds everything as it is."""
    app, idle = make_app(REDIS_URL=cluster.url, REDIS_TIMEOUT=1), make_app(REDIS_URL=cluster.url, HEALTH_INTERVAL=600)
    crowd = Crowd(app, cluster, each=3)
    wait_until_well(crowd)
    elsewhere = Crowd.of_others(crowd, idle)
    wait_until_well(elsewhere)
    before = identities(app)
    frozen = cluster.primary(1)
    leaver, leaver_there = crowd.of[1].pop(0), elsewhere.of[1].pop(0)
    writer = crowd.of[1][0]
    name = f"primary{shard_of(app, leaver.digest)}"
    with at_work(crowd) as seen:
        frozen.freeze()
        wait_until(lambda: (name, "write") in parts(app).health.open_stores(), "the loss")
        assert browser(app, leaver.cookie).post("/logout").status_code == 200
        assert browser(app, writer.cookie).post("/set", json={"input_text": "second"}).status_code == 200
        wait_until_well(crowd)
    assert cluster.primary(1) is not frozen, "the replica was promoted"
    assert given_up(app, "primary") <= len(crowd.of[1]) + 1
    assert {part for part in seen[1] if isinstance(part, tuple)} == {FINE}
    assert seen[0] == seen[2] == {FINE, 0}
    assert {store for store, identity in identities(app).items() if before[store] != identity} == {name}
    frozen.thaw()
    wait_until(cluster.is_whole, "a cluster at rest", pause=0.05)
    assert cluster.primary(1) is not frozen
    for people in (crowd, elsewhere):
        wait_until_well(people)
        assert [text for _, text in people.look(1)] == ["second", "first"]
    assert leaver_there.get("/who").json["user"] is None
    assert browser(app, leaver.cookie).get("/who").json["user"] is None


def test_an_application_starts_before_its_cluster(cluster: Cluster, make_app: MakeApp) -> None:
    """No node answers at start: it serves, signs in and keeps what is written, and is well when the nodes are there."""
    cluster.kill()
    app = make_app(REDIS_URL=cluster.url)
    assert "primary: unreachable (refuses connections)" in doctor(app, "stores")
    visitor: Any = app.test_client()
    visitor.cookie = cookie_of(visitor.post("/login/7"))
    assert visitor.cookie
    assert visitor.post("/set", json={"input_text": "early"}).status_code == 200
    assert visitor.get("/who").json == {"user": "7", "level": 2, "lang": None}
    assert healthz(app)["shards"] == {"lost": 1, "total": 1, "lost_share": 1}
    cluster.start()
    wait_until(lambda: who(visitor)["level"] == 0 and not waiting(app), "level 0", pause=0.05)
    assert visitor.get("/get/input_text").json["value"] == "early"
    wait_until(lambda: healthz(app)["shards"] == WHOLE, "all shards")
    assert visitor.get("/who").json["user"] == "7"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_worker_finds_the_node_that_was_promoted(app: Flask, cluster: Cluster) -> None:
    """Forked after the application was used (``--preload``), it notices by itself that a node was killed; neither its
    parent nor it gets replies of the other."""
    crowd = Crowd(app, cluster, each=1)
    wait_until_well(crowd)
    killed = cluster.primary(1)

    def serves() -> bool:
        wait_until_well(crowd)
        return True

    with parts(app).monitor.paused():
        cluster.kill(killed)
        assert in_child(serves, seconds=LONG)
    wait_until_well(crowd)
    assert cluster.primary(1) is not killed


def primaries(app: Flask) -> set[str]:
    return {name for name in healthz(app)["stores"] if name.startswith("primary")}


def test_cluster_mode_that_aws_could_not_tell_at_the_start_needs_no_restart(
    make_app: MakeApp,
    aws: Aws,  # noqa: F811 - the fixture
    names: DnsCache,  # noqa: F811 - the fixture
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Everything is down when the first process of a host starts. The database comes back, then AWS, which names the
    configuration endpoint: users who signed in meanwhile are in the cluster, whose shards are named as for a process
    that starts now."""
    aws.create_group(ClusterMode="enabled", NumNodeGroups=3, ReplicasPerNodeGroup=1)
    [group] = aws.elasticache.describe_replication_groups(ReplicationGroupId="sessions")["ReplicationGroups"]
    names.ports = {group["ConfigurationEndpoint"]["Address"]: cluster.nodes[4].port}
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    disk = tmp_path / "disk"
    config = {"REDIS_URL": URL, "DATABASE_URL": f"sqlite:///{disk / 'sessions.sqlite3'}"}
    app = make_app(tables=False, **config)
    stranger = app.test_client()
    assert stranger.post("/login/6").status_code == 503
    wait_until(lambda: who(stranger)["level"] == 4, "level 4", pause=0.05)
    disk.mkdir()
    parts(app).backend.database.upkeep.create_tables()
    wait_until(lambda: who(stranger)["level"] == 2, "the database", pause=0.05)
    crowd = Crowd(app, cluster, each=1)
    assert primaries(app) == {"primary"}
    with at_work(crowd) as seen:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        wait_until_well(crowd)
    assert answers(seen) == {FINE}
    assert all(cluster.keys("session:auth:*").values())
    successor = make_app(**config)
    sign_in(successor, "8")
    assert primaries(app) == primaries(successor) == {f"primary:{number}" for number in (1, 2, 3)}
    assert "restart" not in caplog.text


def answers(seen: Mapping[int, set[Any]]) -> set[Any]:
    return {one for shard in seen.values() for one in shard if isinstance(one, tuple)}


def test_sessions_in_use_are_counted_over_all_shards(cluster: Cluster, make_app: MakeApp) -> None:
    """The index is spread, and the sum is right."""
    app = make_app(REDIS_URL=cluster.url, METRICS=["prometheus"], METRICS_REGISTRY=CollectorRegistry())
    exporting = parts(app).exporting
    assert exporting is not None
    crowd = Crowd(app, cluster)
    wait_until_well(crowd)
    interface: Any = app.session_interface
    with app.app_context():
        for one in crowd.of[0]:
            interface.revoke(one.digest)
    for number in range(200):
        exporting.active.notes.served(digest_of(str(number)), 3_600_000)
    exporting.active.update()
    assert exporting.active.number == crowd.count - len(crowd.of[0]) + 200
    sets = {shard: {key for key in keys if "{" in key} for shard, keys in cluster.keys("session:active:*").items()}
    assert sum(map(len, sets.values())) == BUCKETS
    assert all(sets.values())


def test_nodes_show_certificates_for_the_names_they_announce(make_app: MakeApp, tmp_path: Path) -> None:
    """With TLS every node is asked for its certificate, also those that only the map names. One that has none for its
    name is refused, and used again when it is named as its certificate has it."""
    authority = Authority(tmp_path)
    node = Valkey(tmp_path / "node", appendonly=False)
    with TlsFront(authority.context(["localhost"]), node.port) as front:
        announced = {
            "enabled": "yes",
            "port": str(free_port()),
            "announce-port": str(front.port),
            "announce-ip": "127.0.0.1",
            "announce-hostname": "localhost",
            "preferred-endpoint-type": "hostname",
        }
        node = Valkey(
            tmp_path / "node",
            port=node.port,
            appendonly=False,
            extra=[part for name, value in announced.items() for part in (f"--cluster-{name}", value)],
        )
        with node:
            Cluster.says(node, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: "cluster_state:ok" in str(Cluster.says(node, "CLUSTER", "INFO")), "a cluster")
            seed = f"rediss+cluster://localhost:{front.port}?ssl_ca_certs={authority.certificate}"
            app = make_app(REDIS_URL=seed)
            visitor = app.test_client()
            visitor.post("/login/7")
            assert visitor.get("/who").json == {"user": "7", "level": 0, "lang": None}
            Cluster.says(node, "CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")
            other = make_app(REDIS_URL=seed)
            stranger = other.test_client()
            stranger.post("/login/8")
            assert stranger.get("/who").json == {"user": "8", "level": 2, "lang": None}
            causes = {
                breaker.cause for (store, _), breaker in parts(other).health.breakers.items() if store == "primary:1"
            }
            assert causes == {"IDENTITY_REFUSED"}
            Cluster.says(node, "CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
            wait_until(lambda: who(stranger)["level"] == 0, "level 0", pause=0.05)


def test_a_store_whose_shards_are_found_while_it_fails_is_told_of(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A call to the cluster fails as long as no shard is known, and says so when they are."""
    sign_in(app, "7")
    health = parts(app).health
    wait_until(lambda: {store for store, _ in health.breakers} >= {"primary:1", "primary:2"}, "the shards")
    health.arrange("primary", [""])
    health.failed(StoreError("primary", ErrorClass.UNREACHABLE, "NotDiscoveredYet", timed_out=True), READ)
    assert "session store primary (its shards are not known) is lost for reads and writes" in caplog.text
