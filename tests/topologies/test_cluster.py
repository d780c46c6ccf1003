"""Redis Cluster on six real nodes: spread over the shards, each lost and found for itself, slots on their way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry
from redis.crc import key_slot

from example_app.processes import free_port, wait_until
from example_app.servers import Valkey
from flask_langpont_session import LangPontSession, events
from flask_langpont_session.cli import langpont
from flask_langpont_session.cookies import digest_of
from flask_langpont_session.exporters.active import BUCKETS
from flask_langpont_session.testing import captured_events
from tests.integration.behind import browser, sign_in, waiting
from tests.integration.conftest import add_views, close, cookie_of, parts
from tests.integration.test_elasticache import Aws, Names, aws, moto_url, names  # noqa: F401 - fixtures
from tests.integration.tls import Authority, TlsFront

from .cluster_lab import LONG, SHARDS, Cluster, running_cluster

PATIENT = {
    "REDIS_TIMEOUT": 1, "REDIS_CONNECT_TIMEOUT": 1, "REDIS_POOL_TIMEOUT": 1, "DATABASE_TIMEOUT": 2, "REQUEST_BUDGET": 4,
    "SLOW_MS": 2000,
}  # fmt: skip
"""A busy machine is not an outage, and what is killed here refuses connections at once."""

Make = Callable[..., Flask]


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
def make(running: Cluster, tmp_path: Path) -> Iterator[Make]:
    """Makes applications on the cluster; `config` without the prefix."""
    made: list[Flask] = []

    def make(**config: Any) -> Flask:
        app = Flask("app", instance_path=str(tmp_path))
        app.config.update(SECRET_KEY="test key of the test suite, 32+ bytes", TESTING=True)
        settings = {
            "REDIS_URL": running.url,
            "DATABASE_URL": f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
            "SINGLE_HOST": True,
            **PATIENT,
            **config,
        }
        app.config.update({f"LANGPONT_SESSION_{key}": value for key, value in settings.items()})
        LangPontSession(app)
        made.append(app)
        parts(app).repository.database.create_tables()
        add_views(app)
        return app

    yield make
    for app in made:
        exporting = parts(app).exporting
        if exporting is not None:
            exporting.stop()
        close(app)


@pytest.fixture
def app(cluster: Cluster, make: Make) -> Flask:
    return make()


class Crowd:
    """Signed-in browsers, some on each shard, and what happened to them."""

    def __init__(self, app: Flask, cluster: Cluster, each: int = 2) -> None:
        self.app = app
        self.cluster = cluster
        self.of: dict[int, list[Any]] = {shard: [] for shard in range(SHARDS)}
        self.count = 0
        while any(len(there) < each for there in self.of.values()):
            one = sign_in(app, str(self.count), lang="jp", input_text="first")
            shard = cluster.home(key_slot(one.digest.encode()))
            self.count += 1
            if len(self.of[shard]) < each:
                one.user = str(self.count - 1)
                self.of[shard].append(one)

    def look(self, shard: int) -> list[Any]:
        """What those of a shard see: user, level, and a text of theirs."""
        seen = []
        for one in self.of[shard]:
            who, text = one.get("/who"), one.get("/get/input_text")
            assert (who.status_code, text.status_code, who.json["user"]) == (200, 200, one.user)
            seen.append((who.json["level"], text.json["value"]))
        return seen

    def levels(self, shard: int) -> set[int]:
        """At which level they are."""
        return {level for level, _ in self.look(shard)}

    def is_well(self) -> bool:
        """Whether everybody is at level 0 and nothing waits."""
        return all(self.levels(shard) == {0} for shard in range(SHARDS)) and not waiting(self.app)


@contextmanager
def at_work(crowd: Crowd) -> Iterator[dict[int, set[Any]]]:
    """Everybody reads and writes all the time. Yields shard → (status, user is right, level) that were seen."""
    seen: dict[int, set[Any]] = {shard: set() for shard in range(SHARDS)}
    over = threading.Event()

    def work(shard: int) -> None:
        cookies = [(one.cookie, one.user) for one in crowd.of[shard]]
        number = 0
        while not over.is_set():
            for cookie, user in cookies:
                mine, number = browser(crowd.app, cookie), number + 1
                written = mine.post("/set", json={"theme": f"{number}"})
                answer = mine.get("/who")
                seen[shard].add((written.status_code, answer.status_code, answer.json["user"] == user))
                seen[shard].add(answer.json["level"])
            over.wait(0.02)  # the others want to do something too

    threads = [threading.Thread(target=work, args=(shard,)) for shard in range(SHARDS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


FINE = (200, 200, True)


def shard_of(app: Flask, digest: str) -> str:
    """Which shard the application takes a session to be on."""
    return parts(app).health.locate(digest)


def identities(app: Flask) -> dict[str, str | None]:
    return {name: store.fence.identity for name, store in parts(app).repository.primary.stores.items()}


def counted(app: Flask, name: str) -> int:
    return parts(app).recorder.counters().get(name, 0)


def has_canary(app: Flask, cluster: Cluster, shard: int) -> bool:
    """Whether the canary of a shard lies on it."""
    parts(app).monitor._next_canary = 0.0
    return any(key.count(":") == 2 for key in cluster.keys("session:canary:{*}")[shard])


def wait_until_well(crowd: Crowd) -> None:
    wait_until(crowd.is_well, "level 0 for everybody", LONG, pause=0.05)


def who(visitor: Any) -> Any:
    """Who somebody is, and at which level."""
    return visitor.get("/who").json


def healthz(app: Flask) -> Any:
    return app.test_client().get("/healthz").json


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
            assert cluster.says(cluster.primary(shard), "HGET", f"session:auth:{{{one.digest}}}", "@live") == "0"
    assert healthz(app)["shards"] == {"lost": 0, "total": SHARDS}
    assert set(healthz(app)["stores"]) == {f"{role}:{n}" for role in ("primary", "replica") for n in (1, 2, 3)} | {
        "database"
    }


def test_status_shows_every_shard(app: Flask, cluster: Cluster) -> None:
    """`flask langpont status`, in a process that has learned nothing yet."""
    answer = app.test_cli_runner().invoke(langpont, ["status"])
    assert answer.exit_code == 0
    lines = dict(line.split() for line in answer.output.splitlines())
    assert lines == dict.fromkeys([f"{r}:{n}" for r in ("primary", "replica") for n in (1, 2, 3)] + ["database"], "ok")


def test_a_shard_that_fails_over_is_lost_and_found_alone(app: Flask, cluster: Cluster) -> None:
    """Under running requests: the others stay at level 0 behind their fences, nobody is signed out, no answer is 5xx;
    a logout from meanwhile holds, and a text from meanwhile comes home."""
    crowd = Crowd(app, cluster, each=3)
    wait_until_well(crowd)
    before = identities(app)
    victim = cluster.primary(1)
    leaver, writer = crowd.of[1].pop(0), crowd.of[1][0]
    name = f"primary{shard_of(app, leaver.digest)}"
    with at_work(crowd) as seen:
        cluster.kill(victim)
        wait_until(lambda: (name, "write") in parts(app).health.open_stores(), "the loss", LONG)
        assert healthz(app)["shards"] == {"lost": 1, "total": SHARDS}
        assert browser(app, leaver.cookie).post("/logout").status_code == 200
        assert browser(app, writer.cookie).post("/set", json={"input_text": "second"}).status_code == 200
        wait_until_well(crowd)
    assert cluster.primary(1) is not victim, "the replica was promoted"
    assert {part for part in seen[1] if isinstance(part, tuple)} == {FINE}
    assert max(part for part in seen[1] if isinstance(part, int)) in (1, 2)
    for shard in (0, 2):
        assert seen[shard] == {FINE, 0}
    after = identities(app)
    assert {store for store in before if before[store] != after[store]} == {name}
    assert browser(app, leaver.cookie).get("/who").json["user"] is None
    assert [text for _, text in crowd.look(1)] == ["second", "first"]


def test_while_the_primary_is_away_its_replica_is_read(cluster: Cluster, make: Make) -> None:
    """Level 1 for the sessions of that shard: what Redis has is still shown."""
    app = make(HEALTH_INTERVAL=600)
    crowd = Crowd(app, cluster, each=1)
    wait_until_well(crowd)
    [replica] = [node for node in cluster.pair(2) if node is not cluster.primary(2)]
    cluster.says(replica, "CONFIG", "SET", "cluster-replica-no-failover", "yes")
    cluster.kill(cluster.primary(2))
    try:
        wait_until(lambda: crowd.levels(2) == {1}, "level 1", LONG)
        [one] = crowd.of[2]
        assert browser(app, one.cookie).get("/get/theme").json == {"value": None, "present": False}
        assert one.get("/get/input_text").json["value"] == "first"
        assert one.get("/get/lang").json["value"] == "jp", "of medium priority: no local copy is kept of it"
        assert crowd.levels(0) == crowd.levels(1) == {0}
    finally:
        cluster.says(replica, "CONFIG", "SET", "cluster-replica-no-failover", "no")
    wait_until_well(crowd)


def test_a_dead_shard_disturbs_nobody_else(app: Flask, cluster: Cluster) -> None:
    """Both nodes are killed: its sessions live on from the database, new ones begin elsewhere; revived, all is well,
    and nobody is signed out by what it forgot."""
    crowd = Crowd(app, cluster, each=3)
    wait_until_well(crowd)
    before = identities(app)
    dead = shard_of(app, crowd.of[0][0].digest)
    cluster.kill(*cluster.pair(0))
    wait_until(lambda: crowd.levels(0) == {2}, "level 2", LONG)
    for _ in range(5):
        assert crowd.levels(1) == crowd.levels(2) == {0}
    newcomer = sign_in(app, "newcomer")
    assert shard_of(app, newcomer.digest) != dead
    assert newcomer.get("/who").json["level"] == 0
    assert healthz(app)["level"] == 2
    crowd.of[0][0].post("/set", json={"input_text": "second"})
    mover = crowd.of[0].pop()
    moved_to = cookie_of(mover.post("/login/again"))
    assert mover.get("/who").json == {"user": "again", "level": 0, "lang": None}
    assert mover.get("/get/input_text").json["value"] == "first", "carried over from the copy of this host"
    leaver = crowd.of[0].pop()
    leaver_cookie = leaver.cookie
    assert leaver.post("/logout").status_code == 200
    cluster.start(*cluster.pair(0))
    wait_until_well(crowd)
    assert crowd.look(0)[0] == (0, "second")
    assert browser(app, leaver_cookie).get("/who").json["user"] is None
    assert browser(app, mover.cookie).get("/who").json["user"] is None
    assert browser(app, moved_to or "").get("/who").json["user"] == "again"
    after = identities(app)
    assert {store for store in before if before[store] != after[store]} == {f"primary{dead}"}


def test_slots_move_under_running_requests(app: Flask, cluster: Cluster) -> None:
    """MOVED, ASK and TRYAGAIN are met; nothing is lost, nobody is signed out, no breaker opens, no canary cries."""
    crowd = Crowd(app, cluster)
    wait_until_well(crowd)
    one = crowd.of[0][0]
    slot = key_slot(one.digest.encode())
    with captured_events(app) as seen_events, at_work(crowd) as seen:
        move = cluster.begin_move(slot, 1)
        move.keys(lambda key: ":auth:" in key)
        wait_until(lambda: counted(app, "cluster_try_again") > 2, "TRYAGAIN", LONG)
        assert browser(app, one.cookie).post("/set", json={"input_text": "split"}).status_code == 200
        move.keys()
        wait_until(lambda: counted(app, "cluster_ask") > 2, "ASK", LONG)
        move.end()
        wait_until(lambda: counted(app, "cluster_moved") > 0, "MOVED", LONG)
        # The slot in which the canary of the first shard lies goes too.
        [canary] = (key for key in cluster.keys("session:canary:{*}")[0] if key.count(":") == 2)
        cluster.give(key_slot(canary.encode()), 2)
        wait_until_well(crowd)
        wait_until(lambda: has_canary(app, cluster, 0), "another canary", LONG)
    assert all(one in (FINE, 0, 1, 2) for shard in seen for one in seen[shard])
    assert FINE in seen[0]
    assert not [event for event in seen_events if isinstance(event, (events.StoreLost, events.DataLost))]
    assert crowd.look(0)[0] == (0, "split")
    assert shard_of(app, one.digest) == shard_of(app, crowd.of[1][0].digest)
    assert {key.split(":")[1] for key in cluster.keys()[1] if one.digest in key} == {"auth", "translation", "ui"}


def test_an_application_starts_before_its_cluster(cluster: Cluster, make: Make) -> None:
    """No node answers at start: it serves, signs in and keeps what is written, and is well when the nodes are there."""
    cluster.kill()
    app = make()
    visitor: Any = app.test_client()
    visitor.cookie = cookie_of(visitor.post("/login/7"))
    assert visitor.cookie
    assert visitor.post("/set", json={"input_text": "early"}).status_code == 200
    assert visitor.get("/who").json == {"user": "7", "level": 2, "lang": None}
    assert healthz(app)["shards"] == {"lost": 1, "total": 1}
    cluster.start()
    wait_until(lambda: who(visitor)["level"] == 0 and not waiting(app), "level 0", LONG, pause=0.05)
    assert visitor.get("/get/input_text").json["value"] == "early"
    wait_until(lambda: healthz(app)["shards"] == {"lost": 0, "total": SHARDS}, "all shards", LONG)
    assert visitor.get("/who").json["user"] == "7"


def test_a_group_of_elasticache_in_cluster_mode_is_found(
    cluster: Cluster,
    make: Make,
    aws: Aws,  # noqa: F811 - the fixture
    names: Names,  # noqa: F811
) -> None:
    """AWS names the configuration endpoint; the nodes name themselves."""
    aws.create_group(ClusterMode="enabled", NumNodeGroups=2, ReplicasPerNodeGroup=1)
    found = aws.elasticache.describe_replication_groups(ReplicationGroupId="sessions")["ReplicationGroups"][0]
    names.ports[found["ConfigurationEndpoint"]["Address"]] = cluster.nodes[4].port
    app = make(REDIS_URL="elasticache://sessions?region=ap-northeast-1")
    crowd = Crowd(app, cluster, each=1)
    wait_until_well(crowd)
    assert all(keys for keys in cluster.keys("session:auth:*").values())


def test_sessions_in_use_are_counted_over_all_shards(cluster: Cluster, make: Make) -> None:
    """The index is spread, and the sum is right."""
    app = make(METRICS=["prometheus"], METRICS_REGISTRY=CollectorRegistry())
    exporting = parts(app).exporting
    assert exporting is not None
    crowd = Crowd(app, cluster)
    wait_until_well(crowd)
    interface: Any = app.session_interface
    with app.app_context():
        for one in crowd.of[0]:
            interface.revoke(one.digest)
    for number in range(200):
        exporting.active.served(digest_of(str(number)), 3_600_000)
    exporting.active.update()
    assert exporting.active.number == crowd.count - len(crowd.of[0]) + 200
    sets = {shard: {key for key in keys if "{" in key} for shard, keys in cluster.keys("session:active:*").items()}
    assert sum(map(len, sets.values())) == BUCKETS
    assert all(sets.values())


def test_nodes_show_certificates_for_the_names_they_announce(make: Make, tmp_path: Path) -> None:
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
            wait_until(lambda: "cluster_state:ok" in str(Cluster.says(node, "CLUSTER", "INFO")), "a cluster", LONG)
            seed = f"rediss+cluster://localhost:{front.port}"
            app = make(REDIS_URL=seed, REDIS_CA_FILE=str(authority.certificate))
            visitor = app.test_client()
            visitor.post("/login/7")
            assert visitor.get("/who").json == {"user": "7", "level": 0, "lang": None}
            Cluster.says(node, "CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")
            other = make(REDIS_URL=seed, REDIS_CA_FILE=str(authority.certificate))
            stranger = other.test_client()
            stranger.post("/login/8")
            assert stranger.get("/who").json == {"user": "8", "level": 2, "lang": None}
            causes = {
                breaker.cause for (store, _), breaker in parts(other).health.breakers.items() if store == "primary:1"
            }
            assert causes == {"IDENTITY_REFUSED"}
            Cluster.says(node, "CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
            wait_until(lambda: who(stranger)["level"] == 0, "level 0", LONG, pause=0.05)
