"""The near cache on real servers: a hit asks nothing, and nothing that has changed is a hit."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.connection import BlockingConnectionPool

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.host.register import Register
from flask_langpont_session.stores.memory.memory import Memory
from flask_langpont_session.stores.redis.commands import new_write_id
from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.link import Link
from flask_langpont_session.stores.redis.near import MOST_LANES, REFUSED, NearCache
from flask_langpont_session.stores.redis.records import Limits
from flask_langpont_session.stores.redis.server_identity import ServerIdentity
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.stores.redis.wire import HEARS

from .behind import browser, sign_in
from .conftest import MakeApp, parts
from .scripts_server import DIGEST, LIFE
from .tls import Authority, TlsFront

pytestmark = pytest.mark.skipif(not HEARS, reason="hiredis is too old to tell messages from replies")

REF = RecordRef(DIGEST, "a")
LIVES = {"translation": LIFE, "ui": LIFE}
LIMITS = Limits(256, 65_536, 30_000)
WAIT = 3.0


@dataclass
class Worker:
    """One process, as far as it has a store and a near cache.

    :ivar seconds: what the clock of its near cache says.
    :param patience: seconds to connect.
    :param is_shard: whether the server is one of several.
    """

    url: str
    change_ids: Register
    seconds: float = 1000.0
    patience: float = WAIT
    is_shard: bool = False

    def __post_init__(self) -> None:
        identity = ServerIdentity()
        pool = BlockingConnectionPool.from_url(
            self.url, protocol=3, max_connections=4, timeout=WAIT, redis_connect_func=identity.introduce
        )
        link = Link("primary", pool, server_identity=identity, connect_timeout=self.patience)
        self.near = NearCache(
            link,
            self.change_ids,
            memory := Memory(),
            copies_ttl=1800,
            keeps_absence=not self.is_shard,
            clock=lambda: self.seconds,
        )
        endpoint = Endpoint(link, prefix="session", near=self.near)
        self.store = RedisStore(endpoint, memory=memory, change_ids=self.change_ids)

    def read(self, lives: dict[str, int] = LIVES) -> dict[str, bytes]:
        answer = self.store.read(REF, lives, timeout=WAIT)
        return {key: value for copy in answer.records.values() for key, value in copy.fields.items()}

    def known(self, lives: dict[str, int] = LIVES) -> dict[str, bytes] | None:
        """Return the fields that the near cache has without asking; None: it has nothing."""
        hit = self.near.find(REF, lives)
        if hit is None:
            return None
        return {key: value for known in hit.copy.records.values() for key, value in known.fields.items()}

    def write(self, **values: str) -> None:
        self.change(CategoryChange(LIFE, sets={key: value.encode() for key, value in values.items()}))

    def change(self, change: CategoryChange) -> None:
        changes, write_id = {"ui": change}, new_write_id()
        written = self.store.write_near(
            REF.digest, changes, "free", LIMITS, time.monotonic() + WAIT, write_id
        ) or self.store.write(REF, changes, guard="free", limits=LIMITS, timeout=WAIT, write_id=write_id)
        assert written.status == "written"

    def warm(self) -> None:
        """Read the session until the near cache vouches for it."""
        self.read()
        self.near.attend()
        self.read()
        assert self.known() is not None


@pytest.fixture
def worker(server: Valkey, raw: Any) -> Iterator[Worker]:
    worker = Worker(server.url, Register(None))
    yield worker
    worker.store.forget_connections()


@pytest.fixture
def elsewhere(server: Valkey, raw: Any) -> Iterator[Worker]:
    """A worker of another host."""
    worker = Worker(server.url, Register(None))
    yield worker
    worker.store.forget_connections()


def scripts_run(raw: Any) -> int:
    return sum(raw.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def test_a_hit_asks_nothing(worker: Worker, raw: Any) -> None:
    worker.write(theme="dark")
    worker.warm()
    before = scripts_run(raw)
    assert [worker.known() for _ in range(100)] == [{"theme": b"dark"}] * 100
    assert scripts_run(raw) == before


def test_what_is_not_there_is_known_too(worker: Worker, elsewhere: Worker) -> None:
    worker.warm()
    assert worker.known() == {}
    elsewhere.write(theme="dark")
    wait_until(lambda: worker.known() is None, "the message")
    assert worker.read() == worker.known() == {"theme": b"dark"}


def test_that_a_shard_has_nothing_is_not_kept(server: Valkey, raw: Any) -> None:
    """If the slot goes to another shard, this one tells what becomes of its keys, and nothing of others."""
    worker = Worker(server.url, Register(None), is_shard=True)
    for _ in range(3):
        assert worker.read() == {} and worker.known() is None
        worker.near.attend()
    worker.write(theme="dark")
    # The message of the write may come behind the answer of the first read.
    wait_until(lambda: worker.read() == worker.known() == {"theme": b"dark"}, "a read that is kept")
    worker.store.forget_connections()


def test_another_host_is_seen_as_soon_as_the_server_says_it(worker: Worker, elsewhere: Worker) -> None:
    for number in range(50):
        worker.warm()
        elsewhere.write(theme=str(number))
        wait_until(lambda: worker.known() is None, "the message")
        assert worker.read() == {"theme": str(number).encode()}


def test_a_worker_of_this_host_is_seen_at_once(server: Valkey, raw: Any, tmp_path: Path) -> None:
    one, two = (Worker(server.url, Register(tmp_path / "journal")) for _ in range(2))
    for number in range(50):
        two.warm()
        one.write(theme=str(number))
        assert two.known() is None, "before any message could have come"
        assert two.read() == {"theme": str(number).encode()}
    for worker in (one, two):
        worker.store.forget_connections()


def test_messages_arrive_over_tls(server: Valkey, raw: Any, elsewhere: Worker, tmp_path: Path) -> None:
    """A message is found whether it lies in the socket, in TLS, or in the parser."""
    authority = Authority(tmp_path)
    with TlsFront(authority.context(["localhost"]), server.port) as front:
        url = f"rediss://localhost:{front.port}/0?ssl_ca_certs={authority.certificate}"
        worker = Worker(url, Register(None))
        for number in range(20):
            worker.warm()
            elsewhere.write(theme=str(number))
            wait_until(lambda: worker.known() is None, "the message")
            assert worker.read() == {"theme": str(number).encode()}
            worker.write(theme=f"own {number}")
            assert worker.known() == {"theme": f"own {number}".encode()}
        worker.store.forget_connections()


def test_a_server_that_hangs_is_given_up_in_time_over_the_near_caches_connection_too(
    worker: Worker, server: Valkey
) -> None:
    worker.write(theme="dark")
    worker.warm()
    server.freeze()
    try:
        with pytest.raises(StoreError) as failed:
            worker.store.read(REF, LIVES, timeout=0.05)
        assert failed.value.timed_out
        assert worker.known() is None and worker.near.connections == 0
    finally:
        server.thaw()
    worker.warm()


def test_an_own_write_leaves_what_is_kept_as_new_as_it_is(worker: Worker, elsewhere: Worker, raw: Any) -> None:
    """One round trip for a request that reads and changes, and none for the next one that reads."""
    worker.write(theme="dark", font="big")
    worker.warm()
    for number in range(20):
        worker.write(theme=str(number))
        before = scripts_run(raw)
        assert worker.known() == {"theme": str(number).encode(), "font": b"big"}
        assert scripts_run(raw) == before
    elsewhere.write(font="small")
    wait_until(lambda: worker.known() is None, "the message: what it wrote itself is tracked, too")
    assert worker.read() == worker.known() == {"theme": b"19", "font": b"small"}


@pytest.mark.parametrize("is_wipe", [True, False])
def test_what_the_server_makes_of_a_write_is_asked_for(worker: Worker, is_wipe: bool) -> None:
    """A sum is made by the server; after a wipe there is what was written."""
    worker.write(theme="dark")
    worker.warm()
    change = CategoryChange(LIFE, wipe=is_wipe, increments={} if is_wipe else {"count": 2})
    worker.change(change)
    assert worker.known() == ({} if is_wipe else None)
    assert worker.read() == ({} if is_wipe else {"theme": b"dark", "count": b"2"})


def test_other_writes_of_this_worker_count_too(worker: Worker, raw: Any) -> None:
    """Any change of a session by this worker changes what is kept of it."""
    row = AuthRow(DIGEST, "7", 1, True, {"_user_id": b'"7"'}, 2, 1000, 4_000_000_000_000, 4_000_000_000_001, 0)
    for change in (
        lambda: worker.store.push(row, 1, LIFE, timeout=WAIT),
        lambda: worker.store.extend_idle(DIGEST, LIFE, timeout=WAIT),
        lambda: worker.store.push_many([(row, LIFE)], ["ui"], stamp_ms=2, timeout=WAIT),
        lambda: worker.store.quarantine(REF, "ui", timeout=WAIT),
        lambda: worker.store.push_many([(DIGEST, 2)], ["auth", "ui"], stamp_ms=0, timeout=WAIT),
    ):
        worker.warm()
        change()
        assert worker.known() is None


@pytest.mark.parametrize("how", ["killed", "emptied", "tracking off"])
def test_what_the_server_does_not_vouch_for_any_more_is_no_hit(worker: Worker, raw: Any, how: str) -> None:
    worker.write(theme="dark")
    worker.warm()
    if how == "emptied":
        raw.flushall()
        wait_until(lambda: worker.known() is None, "the message")
        assert worker.read() == {}
        return
    [tracked] = [client for client in raw.client_list() if "t" in client["flags"]]
    assert raw.client_kill_filter(_id=tracked["id"]) == 1
    wait_until(lambda: worker.known() is None, "the end of the connection")
    assert worker.read() == {"theme": b"dark"} and worker.known() is None
    worker.near.attend()
    worker.read()
    assert worker.known() == {"theme": b"dark"}


def test_after_a_failover_only_what_the_present_primary_says_counts(worker: Worker, raw: Any) -> None:
    """The connections to what was the primary before live on."""
    worker.write(theme="dark")
    worker.warm()
    raw.replicaof("127.0.0.1", "1")
    raw.replicaof("NO", "ONE")  # and is one now, with another history
    assert worker.known() is not None, "it does not know yet"
    worker.store.endpoint.probe_read(timeout=WAIT)
    assert worker.known() is None
    assert worker.read() == {"theme": b"dark"} and worker.known() is None
    worker.near.attend()
    assert worker.read() == worker.known() == {"theme": b"dark"}


def test_a_primary_that_became_a_replica_is_left(worker: Worker, raw: Any) -> None:
    """A write over the connection of the near cache is the first that meets it."""
    worker.write(theme="dark")
    worker.warm()
    raw.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(StoreError):
            worker.write(theme="light")
        assert worker.known() is None and not worker.near.lanes
    finally:
        raw.replicaof("NO", "ONE")


def test_a_server_that_does_not_let_us_track_is_asked_each_time(
    server: Valkey, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    raw.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", "-client|tracking")
    worker = Worker(server.url.replace("redis://", "redis://reader:secret@"), Register(None))
    worker.write(theme="dark")
    for _ in range(3):
        assert worker.read() == {"theme": b"dark"} and worker.known() is None
        worker.near.attend()
    assert "CLIENT TRACKING" in worker.near.off
    assert sum("no near cache" in message for message in caplog.messages) == 1
    raw.execute_command("ACL", "SETUSER", "reader", "+client|tracking")
    worker.seconds += REFUSED + 1
    worker.near.attend()
    assert worker.read() == worker.known() == {"theme": b"dark"} and not worker.near.off
    worker.store.forget_connections()


def test_a_server_that_does_not_answer_holds_the_monitor_up_once() -> None:
    """It has other stores to look after."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        worker = Worker(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", Register(None), patience=0.01)
        worker.near.number = MOST_LANES
        assert worker.known() is None
        for _ in range(3):
            worker.near.attend()
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
        assert worker.near.connections == 0


@pytest.mark.parametrize("where", ["reading", "writing"])
def test_a_request_that_is_ended_gives_the_connection_back(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A request that is ended by a signal handler, or as a greenlet, gives the connection back: whatever waits may
    raise."""

    def end(*arguments: Any, **options: Any) -> None:
        raise SystemExit

    worker.write(theme="dark")
    worker.warm()
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        cut: tuple[object, str] = (
            (worker.store.commands, "read") if where == "reading" else (worker.change_ids, "change")
        )
        patched.setattr(*cut, end)
        worker.read() if where == "reading" else worker.write(theme="light")
    assert worker.known() == ({"theme": b"dark"} if where == "reading" else None)
    worker.read()
    assert worker.known() == worker.read()


def test_threads_that_want_one_lane_at_a_time_get_more_of_them(worker: Worker) -> None:
    worker.write(theme="dark")
    worker.warm()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(30):
            assert list(threads.map(lambda _: worker.read(), range(40))) == [{"theme": b"dark"}] * 40
            worker.near.attend()
    assert len(worker.near.lanes) > 1


# -- applications ------------------------------------------------------------------------------------------------------


def hits(app: Any) -> int:
    return int(parts(app).recorder.counters().get("near_cache_hits", 0))


def test_two_workers_of_a_host_agree_at_once(make_app: MakeApp) -> None:
    """A change or a sign-out on one worker is seen by the next read of the other. They share the files beside the
    journal."""
    one, two = make_app(), make_app()
    here = sign_in(one, input_text="text")
    there = browser(two, here.cookie)
    for number in range(100):
        if number < 3:
            parts(two).monitor.tick()
        there.get("/who")
        assert here.post("/set", json={"input_text": str(number)}).status_code == 200
        assert there.get("/get/input_text").json["value"] == str(number)
        assert there.get("/get/input_text").json["value"] == str(number)
    assert hits(two) > 50
    assert there.get("/who").json["user"] is not None
    here.post("/logout")
    assert there.get("/who").json["user"] is None


def test_a_sign_out_on_another_host_is_seen_as_soon_as_the_server_says_it(make_app: MakeApp, tmp_path: Path) -> None:
    one, two = make_app(), make_app(JOURNAL=str(tmp_path / "of another host"))
    here = sign_in(one, input_text="text")
    there = browser(two, here.cookie)
    wait_until(lambda: there.get("/who").json["user"] == "7" and hits(two) > 5, "hits")
    here.post("/logout")
    wait_until(lambda: there.get("/who").json["user"] is None, "the message")
    wait_until(lambda: there.get("/get/input_text").json["value"] is None, "the message")
