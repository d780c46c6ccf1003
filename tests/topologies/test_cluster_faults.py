"""Failovers, dead shards and moving slots of a cluster while people use it, on Redis 8 and Valkey 9, with few
rights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import Any, cast

import pytest
from flask import Flask
from redis.crc import key_slot

from devservers.processes import LONG, wait_until
from flask_langpont_session import events
from flask_langpont_session.policy.categories import AUTH
from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.ids import SIGNED_IN
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.redis.cluster import ClusterStore
from flask_langpont_session.stores.redis.commands import new_write_id
from flask_langpont_session.stores.redis.records import Answer, Limits
from flask_langpont_session.testing import captured_events
from tests.integration.behind import browser, sign_in
from tests.integration.conftest import cookie_of, parts

from . import acl
from .cluster_crowd import (
    FINE,
    Crowd,
    at_work,
    counted,
    has_canary,
    healthz,
    identities,
    shard_of,
    wait_until_well,
)
from .cluster_lab import SHARDS, Cluster, running_cluster
from .conftest import MakeApp
from .deployments import ENGINES
from .redis8 import acl_file


@pytest.fixture(scope="module", params=ENGINES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    users = acl_file(folder, ["default on nopass ~* &* +@all", acl.user([*acl.documented(), *acl.more_on_clusters()])])
    with running_cluster(folder, ENGINES[request.param], users) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """Whole, at rest and empty. Whatever happens to it, nothing that is asked of it may be refused."""
    running.reset()
    yield running
    assert running.refused() == []


@pytest.fixture
def url(cluster: Cluster) -> str:
    """Return the URL of the cluster for the user that has only the documented rights."""
    return cluster.url.replace("://", f"://{acl.USER}:{acl.PASSWORD}@")


@pytest.fixture
def app(make_app: MakeApp, url: str) -> Flask:
    return make_app(REDIS_URL=url)


on_one_engine = pytest.mark.parametrize("running", ["valkey"], indirect=True)
"""How a failover is told and a slot moves is seen on each engine elsewhere here, by what asks for it quickly."""


def test_a_primary_that_hands_over_is_followed_at_once(make_app: MakeApp, url: str, cluster: Cluster) -> None:
    """No server is down: what was the primary stays, as a replica, with the connections that there are, and says so
    over each of them. Each is given up for a new one, whenever a canary would be due."""
    app, idle = (make_app(REDIS_URL=url, HEALTH_INTERVAL=600) for _ in range(2))
    crowd = Crowd(app, cluster)
    wait_until_well(crowd)
    elsewhere = Crowd.of_others(crowd, idle)
    wait_until_well(elsewhere)
    before = cluster.primary(1)
    with captured_events(app) as seen_events, at_work(crowd) as seen:
        cluster.hand_over(1)
        wait_until(lambda: counted(app, "cluster_moved") > 0, "MOVED")
        wait_until_well(crowd)
        wait_until(lambda: all(FINE in seen[shard] for shard in range(SHARDS)), "all shards at work")
    assert cluster.primary(1) is not before
    assert [FINE in seen[shard] for shard in range(SHARDS)] == [True] * SHARDS
    assert seen[0] == seen[2] == {FINE, 0}
    assert not [event for event in seen_events if isinstance(event, (events.StoreLost, events.DataLost))]
    wait_until_well(elsewhere)


NO_TEXT = {"value": None, "present": False}


@on_one_engine
def test_a_dead_shard_disturbs_no_other(app: Flask, cluster: Cluster) -> None:
    """Both nodes are killed: its sessions live on from the database, new ones begin elsewhere, and take along what they
    may; revived, all is well, and no user is signed out by what it forgot."""
    crowd = Crowd(app, cluster, each=4)
    wait_until_well(crowd)
    before = identities(app)
    dead = shard_of(app, crowd.of[0][0].digest)
    cluster.kill(*cluster.pair(0))
    wait_until(lambda: crowd.levels(0) == {2}, "level 2")
    for _ in range(5):
        assert crowd.levels(1) == crowd.levels(2) == {0}
    newcomer = sign_in(app, "newcomer")
    assert shard_of(app, newcomer.digest) != dead
    assert newcomer.get("/who").json["level"] == 0
    assert healthz(app)["level"] == 2
    crowd.of[0][0].post("/set", json={"input_text": "second"})
    mover, other = crowd.of[0].pop(), crowd.of[0].pop()
    moved_to, others = (cookie_of(one.post(f"/login/{user}")) for one, user in ((mover, mover.user), (other, "other")))
    assert mover.get("/who").json == {"user": mover.user, "level": 0, "lang": "jp"}
    assert mover.get("/get/input_text").json["value"] == "first", "carried over from the copy of this host"
    assert other.get("/who").json == {"user": "other", "level": 0, "lang": "jp"}, "as at level 0"
    assert other.get("/get/input_text").json == NO_TEXT, "it was another user's"
    leaver = crowd.of[0].pop()
    leaver_cookie = leaver.cookie
    assert leaver.post("/logout").status_code == 200
    cluster.start(*cluster.pair(0))
    wait_until_well(crowd)
    assert crowd.look(0)[0] == (0, "second")
    assert browser(app, leaver_cookie).get("/who").json["user"] is None
    for one in (mover, other):
        assert browser(app, one.cookie).get("/who").json["user"] is None
    assert browser(app, moved_to or "").get("/who").json["user"] == mover.user
    assert browser(app, moved_to or "").get("/get/input_text").json["value"] == "first"
    assert browser(app, others or "").get("/who").json["user"] == "other"
    assert browser(app, others or "").get("/get/input_text").json == NO_TEXT
    after = identities(app)
    assert {store for store in before if before[store] != after[store]} == {f"primary{dead}"}


def test_slots_move_under_running_requests(app: Flask, cluster: Cluster) -> None:
    """MOVED, ASK and TRYAGAIN are met; nothing is lost, no user is signed out, no breaker opens, no canary cries."""
    crowd = Crowd(app, cluster)
    wait_until_well(crowd)
    one = crowd.of[0][0]
    slot = key_slot(one.digest.encode())
    with captured_events(app) as seen_events, at_work(crowd) as seen:
        move = cluster.begin_move(slot, 1)
        move.keys(lambda key: ":auth:" in key)
        wait_until(lambda: counted(app, "cluster_try_again") > 2, "TRYAGAIN")
        assert browser(app, one.cookie).post("/set", json={"input_text": "split"}).status_code == 200
        move.keys()
        wait_until(lambda: counted(app, "cluster_ask") > 2, "ASK")
        with parts(app).monitor.paused():  # it would look at the map, and be first
            move.end()
            wait_until(lambda: counted(app, "cluster_moved") > 0, "MOVED")
        # The slot in which the canary of the first shard lies goes too.
        [canary] = (key for key in cluster.keys("session:canary:{*}")[0] if key.count(":") == 2)
        cluster.give(key_slot(canary.encode()), 2)
        wait_until_well(crowd)
        wait_until(lambda: has_canary(app, cluster, 0), "another canary")
    assert all(one in (FINE, 0, 1, 2) for shard in seen for one in seen[shard])
    assert FINE in seen[0]
    assert not [event for event in seen_events if isinstance(event, (events.StoreLost, events.DataLost))]
    assert crowd.look(0)[0] == (0, "split")
    assert shard_of(app, one.digest) == shard_of(app, crowd.of[1][0].digest)
    assert {key.split(":")[1] for key in cluster.keys()[1] if one.digest in key} == {"auth", "translation", "ui"}


READERS = 2


@contextmanager
def reading(primary: ClusterStore, digest: str) -> Iterator[Callable[[str], None]]:
    """A session is read all the time, and is always found: one answer that knows of none would be a signed-in user who
    is shown as a stranger. Yields a function that waits until it was read once more, in a state that it is told."""
    over, found = Event(), Counter[bool]()

    def read() -> None:
        while not over.is_set():
            answer = primary.read(RecordRef(digest, SIGNED_IN), {AUTH: 0}, timeout=LONG)
            found[answer.auth is not None] += 1

    def once_more(state: str) -> None:
        before = found.total()
        wait_until(lambda: found.total() > before + READERS, f"a read {state}")

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read) for _ in range(READERS)]
        try:
            yield once_more
        finally:
            over.set()
        for reader in readers:
            reader.result()
    assert list(found) == [True]


@on_one_engine
def test_a_session_is_found_wherever_its_slot_is(app: Flask, cluster: Cluster) -> None:
    """The session is found while its slot goes from shard to shard key by key, and their servers forget the scripts."""
    user = sign_in(app, "7")
    wait_until_there(cluster, user.digest)
    slot = key_slot(user.digest.encode())
    with reading(cast(ClusterStore, parts(app).backend.primary), user.digest) as read_once_more:
        for _ in range(2 * SHARDS):
            move = cluster.begin_move(slot, (cluster.owner(slot) + 1) % SHARDS)
            read_once_more("before the keys go")
            cluster.everywhere("SCRIPT", "FLUSH")
            move.keys()
            read_once_more("when they are gone")
            cluster.everywhere("SCRIPT", "FLUSH")
            read_once_more("without scripts")
            move.end()
            read_once_more("when the slot has arrived")
    assert counted(app, "cluster_ask") >= 2 * SHARDS
    assert counted(app, "cluster_moved") > 0


@on_one_engine
def test_a_session_is_found_while_its_slot_moves_at_once(app: Flask, cluster: Cluster) -> None:
    """The session is found while its slot moves as Valkey does it from version 9 on, and what is written on the way
    is there afterwards."""
    user = sign_in(app, "7")
    wait_until_there(cluster, user.digest)
    slot = key_slot(user.digest.encode())
    with reading(cast(ClusterStore, parts(app).backend.primary), user.digest) as read_once_more:
        for number in range(2):  # Valkey 9.1.2 has crashed when many slots were moved so at the same time
            assert user.post("/set", json={"input_text": f"{number}"}).status_code == 200
            cluster.give_at_once(slot, (cluster.owner(slot) + 1) % SHARDS)
            read_once_more("when the slot has arrived")
            assert user.get("/get/input_text").json["value"] == f"{number}"
    assert counted(app, "cluster_ask") == 0
    assert counted(app, "cluster_moved") > 0


WITHOUT = {
    "+cluster|slots": [ErrorClass.IDENTITY_REFUSED],
    "+cluster|info": [],
    "+readonly": [ErrorClass.IDENTITY_REFUSED],
    "+asking": [ErrorClass.TOPOLOGY],  # of one slot, for as long as it is moved
}
"""Right that is missing → what fails then."""


def test_none_of_the_rights_that_a_cluster_asks_for_can_be_left_out(
    app: Flask, make_app: MakeApp, url: str, cluster: Cluster
) -> None:
    """Without one of these rights, what it is for is refused, which is never a wrong answer."""
    assert list(WITHOUT) == acl.more_on_clusters()
    user = sign_in(app, "7")
    wait_until_there(cluster, user.digest)
    slot = key_slot(user.digest.encode())
    move = cluster.begin_move(slot, (cluster.owner(slot) + 1) % SHARDS)
    move.keys()
    for right, errors in WITHOUT.items():
        cluster.everywhere("ACL", "SETUSER", acl.USER, right.replace("+", "-"))
        assert failing(make_app(REDIS_URL=url), user.digest) == errors
        assert set(cluster.refused()) == {right[1:]}
        cluster.everywhere("ACL", "LOAD")
        cluster.everywhere("ACL", "LOG", "RESET")
    assert failing(make_app(REDIS_URL=url), user.digest) == []
    move.end()


FAR_MS = 4_000_000_000_000
ROW = AuthRow("d" * 43, "7", 1, True, {"_user_id": b'"7"', "user_role": b'"user"'}, 0, FAR_MS, FAR_MS, FAR_MS, 0)
USER = RecordRef(ROW.digest, SIGNED_IN)
LIMITS = Limits(256, 65_536, 3_600_000)


def read(primary: ClusterStore, *categories: str) -> Answer:
    return primary.read(USER, dict.fromkeys((AUTH, *categories), 0), timeout=LONG)


def write(primary: ClusterStore, **changes: Any) -> None:
    change = CategoryChange(3_600_000, **changes)
    primary.write(USER, {"ui": change}, guard="alive", limits=LIMITS, timeout=LONG, write_id=new_write_id())


@pytest.fixture
def on_its_way(app: Flask, cluster: Cluster) -> Iterator[ClusterStore]:
    """A session whose slot is being moved, and all of whose keys are still where they were."""
    primary = cast(ClusterStore, parts(app).backend.primary)
    primary.find_shards(LONG)
    assert primary.push(ROW, 1, 3_600_000, timeout=LONG) == "pushed"
    write(primary, sets={"theme": b'"dark"', "lang": b'"jp"'})
    slot = key_slot(ROW.digest.encode())
    move = cluster.begin_move(slot, (cluster.owner(slot) + 1) % SHARDS)
    yield primary
    move.keys()
    move.end()


def test_a_sign_in_is_replaced_while_its_slot_moves(on_its_way: ClusterStore) -> None:
    """The record is replaced by what the database says. A script that deletes a key of such a slot cannot make it
    again: the node refuses each command on a key that it does not have."""
    changed = replace(ROW, version=2, payload={"_user_id": b'"7"'})
    assert on_its_way.push(changed, 2, 3_600_000, timeout=LONG) == "pushed"
    found = read(on_its_way).auth
    assert found is not None
    assert found.row is not None
    assert (found.row.version, found.row.payload) == (2, changed.payload)


def test_a_category_begins_anew_while_its_slot_moves(on_its_way: ClusterStore) -> None:
    """``session.clear()`` with something behind it; what an older copy elsewhere says is known to be older."""
    before = read(on_its_way, "ui").records["ui"]
    write(on_its_way, wipe=True, sets={"theme": b'"light"'})
    after = read(on_its_way, "ui").records["ui"]
    assert after.fields == {"theme": b'"light"'}
    assert after.version > before.version


def test_a_sign_out_holds_while_its_slot_moves(on_its_way: ClusterStore, cluster: Cluster) -> None:
    """The tombstone is there at once, and nothing else of the session."""
    on_its_way.push_many([(ROW.digest, 2)], (AUTH, "ui"), stamp_ms=0, timeout=LONG)
    found = read(on_its_way).auth
    assert found is not None
    assert found.row is None
    assert {key for keys in cluster.keys().values() for key in keys if ROW.digest in key} == {
        f"session:auth:{{{ROW.digest}}}"
    }


def wait_until_there(cluster: Cluster, digest: str) -> None:
    """Wait until some shard has the session: the sign-in of a busy process may wait in its journal first."""
    name = f":auth:{{{digest}}}"
    wait_until(lambda: any(name in key for keys in cluster.keys().values() for key in keys), "it is in Redis")


def failing(app: Flask, digest: str) -> list[ErrorClass]:
    """Return the error class, if any, of the questions that only a cluster is asked: its map, a session on its way,
    a replica."""
    backend = parts(app).backend
    primary = cast(ClusterStore, backend.primary)
    with parts(app).monitor.paused():
        try:
            primary.find_shards(LONG)
            # One key: of several, the node that a slot goes to refuses those that it does not have yet.
            assert primary.read(RecordRef(digest, SIGNED_IN), {AUTH: 0}, timeout=LONG).auth is not None
            backend.endpoint("replica:1").probe_read(timeout=LONG)
        except StoreError as error:
            return [error.error_class]
    return []
