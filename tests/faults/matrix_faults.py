"""The faults of the matrix, and the evidence of each that it happened.

A cause is opened with the site and gives its evidence: a function that returns how often the fault bit so far, by
what the servers or the proxy counted, never by what the application says.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devservers.processes import LONG, release, wait_until
from devservers.servers import Valkey
from devservers.valkey import SHORT
from flask_langpont_session import extension
from flask_langpont_session.config.settings import Settings
from flask_langpont_session.recovery import monitor
from flask_langpont_session.request import repository
from flask_langpont_session.stores.host import journal
from tests.integration.conftest import parts, redis_store
from tests.integration.counting import wait_for_monitors
from tests.support.on_time import never_late

from .matrix_servers import answers, calls, configured, cut_off, info, refusals
from .matrix_site import Site
from .proxy import REFUSE, Fault

Evidence = Callable[[], int]
Cause = Callable[[Site], AbstractContextManager[Evidence]]


# -- the network -------------------------------------------------------------------------------------------------------


def wire(fault: Fault, *stores: str) -> Cause:
    """The proxies before these stores fail; they count how often."""

    @contextmanager
    def cause(site: Site) -> Iterator[Evidence]:
        proxies = [site.proxies[store] for store in stores]
        before = [proxy.hits[fault.name] for proxy in proxies]
        with ExitStack() as stack:
            for proxy in proxies:
                stack.enter_context(proxy.failing(fault))
            yield lambda: min(proxy.hits[fault.name] - seen for proxy, seen in zip(proxies, before, strict=True))

    return cause


@contextmanager
def full_backlog(site: Site) -> Iterator[Evidence]:
    """The server accepts nothing, and the kernel's queue is full: it drops each SYN without a word."""
    proxy = site.proxies["primary"]

    def silences() -> int:
        with socket.socket() as caller:
            caller.settimeout(0.3)
            try:
                caller.connect(("127.0.0.1", proxy.port))
            except TimeoutError:
                return 1
        return 0

    with proxy.failing(REFUSE), ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", proxy.port))
        listener.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            with suppress(BlockingIOError):
                caller.connect(("127.0.0.1", proxy.port))
        yield silences


@contextmanager
def idle_connections_closed(site: Site) -> Iterator[Evidence]:
    """Close idle connections at the servers, behind the application's back."""
    with parts(site.app).monitor.paused():  # it uses connections, and makes new ones
        closed = cut_off(site.pair.primary) + cut_off(site.pair.replica)
        _until_closed(site, "primary", "replica")
    yield lambda: closed


def _until_closed(site: Site, *stores: str) -> None:
    """Return when the application's side knows that the server has closed its connections."""
    for proxy in (site.proxies[store] for store in stores):
        wait_until(lambda proxy=proxy: not proxy.connections, "closed connections")  # type: ignore[misc]
        proxy.heal()  # what its thread has begun before this, it has done after it


@contextmanager
def blips(site: Site) -> Iterator[Evidence]:
    """No server listens for 0.3 s, again and again."""
    proxy, over = site.proxies["primary"], threading.Event()
    before = proxy.hits["refuse"]

    def flap() -> None:
        while not over.wait(0.3):
            with proxy.failing(REFUSE):
                over.wait(0.3)

    thread = threading.Thread(target=flap, name="blips")
    thread.start()
    try:
        yield lambda: proxy.hits["refuse"] - before
    finally:
        over.set()
        thread.join()


# -- the server's process ----------------------------------------------------------------------------------------------


@contextmanager
def stopped(site: Site) -> Iterator[Evidence]:
    """The primary's process stands still (SIGSTOP); its kernel still accepts connections."""
    server = site.pair.primary
    server.freeze()
    try:
        yield lambda: int(psutil.Process(server.pid).status() == psutil.STATUS_STOPPED)
    finally:
        server.thaw()


@contextmanager
def killed(site: Site) -> Iterator[Evidence]:
    """kill -9; it comes back empty, and its replica follows it."""
    server, before = site.pair.primary, run_id(site.pair.primary)
    server.kill()
    try:
        yield lambda: int(not server.running)
    finally:
        server.start()
    assert run_id(server) != before


@contextmanager
def restarted(site: Site) -> Iterator[Evidence]:
    """Killed and started again before any worker noticed; empty."""
    before = run_id(site.pair.primary)
    _restart(site)
    yield lambda: int(run_id(site.pair.primary) != before)


@contextmanager
def restarted_with_old_data(site: Site) -> Iterator[Evidence]:
    """Restart the primary with a snapshot from before the outage."""
    with snapshot(site.pair.primary):
        before = run_id(site.pair.primary)
        with killed(site) as is_down:
            yield is_down
        assert run_id(site.pair.primary) != before
        with site.pair.primary.client() as client:
            assert client.dbsize(), "the server came back without the old data"
    _replica_follows(site)


@contextmanager
def loading(site: Site) -> Iterator[Evidence]:
    """The primary is killed, and what comes back in its place reads the data slowly and says LOADING.

    It has begun to before the primary is gone, so that no client is refused, and has more to read than any wait lasts.
    """
    server, proxy = site.pair.primary, site.proxies["primary"]
    with server.client() as client, client.pipeline(transaction=False) as pipeline:
        for number in range(FILLERS):  # more than 1 KB each, so that it answers between any two of them
            pipeline.set(f"filler:{number}", secrets.token_bytes(1200))
        pipeline.execute()
    with snapshot(server), _slowly_loaded(server) as slow:
        proxy.lead_to(slow.port)
        server.kill()
        _until_closed(site, "primary")
        try:
            yield lambda: refusals(slow, "LOADING") if not answers(slow) else 0
        finally:
            server.start()
            proxy.lead_to(server.port)
    with server.client() as client:
        client.delete(*(f"filler:{number}" for number in range(FILLERS)))
    _replica_follows(site)


FILLERS = 3000


@contextmanager
def _slowly_loaded(server: Valkey) -> Iterator[Valkey]:
    """Start another server that loads this one's snapshot for longer than LONG."""
    delay_us = int(2 * LONG / FILLERS * 1e6)
    slowly = ("--key-load-delay", str(delay_us), "--loading-process-events-interval-bytes", "1024")
    slow = type(server)(server.folder, appendonly=False, extra=slowly)
    process = slow._launch()
    try:
        wait_until(lambda: _is_loading(slow), "a server that loads")
        yield slow
    finally:
        process.kill()
        process.wait()
        release(slow.port)


def _is_loading(server: Valkey) -> bool:
    with suppress(redis.ConnectionError, redis.TimeoutError):
        return _says(server, redis.BusyLoadingError)
    return False


@contextmanager
def snapshot(server: Valkey) -> Iterator[None]:
    """Save the server's data; a start inside of the ``with`` loads this data."""
    with server.client() as client:
        client.save()
    try:
        yield
    finally:
        (server.folder / "dump.rdb").unlink()


def run_id(server: Valkey) -> str:
    """Return the id of a server's run: another one after each start."""
    return str(info(server, "server")["run_id"])


def _restart(site: Site) -> None:
    site.pair.primary.kill()
    _until_closed(site, "primary")
    site.pair.primary.start()
    _replica_follows(site)


def _replica_follows(site: Site) -> None:
    site.pair.replica.start()
    site.pair.catch_up()


# -- what a server refuses ---------------------------------------------------------------------------------------------


def refusing(code: str, store: str = "primary", **settings: object) -> Cause:
    """A server that is configured so that it answers with this code; it counts how often."""

    @contextmanager
    def cause(site: Site) -> Iterator[Evidence]:
        server = site.server(store)
        before = refusals(server, code)
        with configured(server, **settings):
            yield lambda: refusals(server, code) - before

    return cause


@contextmanager
def demoted(site: Site) -> Iterator[Evidence]:
    """The live primary becomes a replica (of a server that does not answer), as after a failover that it did not
    notice."""
    server = site.pair.primary
    before = refusals(server, "READONLY")
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield lambda: refusals(server, "READONLY") - before
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")
    _replica_follows(site)


@contextmanager
def no_answer_without_primary(site: Site) -> Iterator[Evidence]:
    """The primary is dead, and its replica gives out no stale data: MASTERDOWN."""
    replica = site.pair.replica
    with configured(replica, replica_serve_stale_data="no"):
        before = refusals(replica, "MASTERDOWN")
        with killed(site):
            # INFO is refused, too, but counted.
            yield lambda: int(_says(replica, redis.exceptions.MasterDownError))
    _replica_follows(site)
    assert refusals(replica, "MASTERDOWN") > before + 1


@contextmanager
def snapshot_fails(site: Site) -> Iterator[Evidence]:
    """The background save cannot write its file: MISCONF. A folder is in its place, which stops root, too."""
    server = site.pair.primary
    before, in_the_way = refusals(server, "MISCONF"), server.folder / "dump.rdb"
    in_the_way.unlink(missing_ok=True)  # that of a former save: the server has everything in memory
    in_the_way.mkdir()
    with configured(server, save="3600 1"), server.client() as client:
        client.bgsave()
        wait_until(lambda: info(server, "persistence")["rdb_last_bgsave_status"] == "err", "a failed save")
        try:
            yield lambda: refusals(server, "MISCONF") - before
        finally:
            in_the_way.rmdir()
            client.save()
            in_the_way.unlink()


@contextmanager
def on_time(_: Site) -> Iterator[None]:
    """Let this process never be late, however busy the machine is: a late process blames no store for being slow. And
    let an answer be slow long before it is too late."""
    with never_late(), patch.object(Settings, "slow", 0.1):
        yield


@contextmanager
def app_user(site: Site) -> Iterator[None]:
    """The application has a user of its own in the primary, with a password."""
    with site.pair.primary.client() as client:
        client.acl_setuser(USER, enabled=True, passwords=[f"+{PASSWORDS[0]}"], **_ALL_RIGHTS)
        try:
            yield
        finally:
            client.acl_deluser(USER)


USER = "langpont"
PASSWORDS = tuple(f"password-{secrets.token_hex(16)}" for _ in range(2))
_ALL_RIGHTS: Mapping[str, Any] = {"keys": ["*"], "channels": ["*"], "commands": ["+@all"]}


def signed_in_url(site: Site) -> str:
    """Return the URL with the name and password of the application's user."""
    return f"redis://{USER}:{PASSWORDS[0]}@127.0.0.1:{site.proxies['primary'].port}/0"


def over_one_connection(site: Site) -> str:
    """Return the URL with which a process has a single connection."""
    return f"{site.proxies['primary'].url('redis')}?max_connections=1"


def rotating_client(site: Site) -> redis.Redis:
    """A client that asks a provider for the password at each connect."""
    return redis.Redis(port=site.proxies["primary"].port, credential_provider=Rotating())


class Rotating(redis.CredentialProvider):
    """A provider of the password of the day."""

    today = PASSWORDS[0]

    def get_credentials(self) -> tuple[str, str]:
        return USER, Rotating.today


@contextmanager
def rotated(site: Site) -> Iterator[Evidence]:
    """A second password holds, then it alone; what is connected stays, until its connection is closed."""
    server = site.pair.primary
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", USER, f">{PASSWORDS[1]}")
        Rotating.today = PASSWORDS[1]
        client.execute_command("ACL", "SETUSER", USER, f"<{PASSWORDS[0]}")
        with parts(site.app).monitor.paused():
            closed = int(client.client_kill_filter(user=USER))
            _until_closed(site, "primary")
        try:
            yield lambda: closed if _is_refused(server, PASSWORDS[0]) else 0
        finally:
            Rotating.today = PASSWORDS[0]


def _says(server: Valkey, error: type[Exception]) -> bool:
    with server.client() as client:
        try:
            client.ping()
        except error:
            return True
    return False


def _is_refused(server: Valkey, password: str) -> bool:
    with redis.Redis(port=server.port, username=USER, password=password, retry=Retry(NoBackoff(), 0)) as client:
        try:
            client.ping()
        except redis.AuthenticationError:
            return True
    return False


@contextmanager
def password_changed(site: Site) -> Iterator[Evidence]:
    """The application's password is refused; its connections are made anew: WRONGPASS."""
    server = site.pair.primary
    before = refusals(server, "WRONGPASS")
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", USER, "resetpass", f">{PASSWORDS[1]}")
        client.client_kill_filter(user=USER)
        _until_closed(site, "primary")
        yield lambda: refusals(server, "WRONGPASS") - before
        client.execute_command("ACL", "SETUSER", USER, "resetpass", f">{PASSWORDS[0]}")


@contextmanager
def password_asked_for(site: Site) -> Iterator[Evidence]:
    """The server wants a password, the application has none: NOAUTH."""
    server = site.pair.primary
    before = refusals(server, "NOAUTH")
    with server.client() as client:  # connected before, so that it can take the password away again
        client.config_set("requirepass", PASSWORDS[0])
        client.client_kill_filter(_type="normal", skipme=True)
        _until_closed(site, "primary")
        try:
            yield lambda: _count(client.info("errorstats"), "NOAUTH") - before
        finally:
            client.config_set("requirepass", "")


def _count(errors: Any, code: str) -> int:
    return int(errors.get(f"errorstat_{code}", {}).get("count", 0))


@contextmanager
def without_rights(site: Site) -> Iterator[Evidence]:
    """The application's user loses all rights: NOPERM."""
    server = site.pair.primary
    before = refusals(server, "NOPERM")
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", USER, "-@all")
        try:
            yield lambda: refusals(server, "NOPERM") - before
        finally:
            client.execute_command("ACL", "SETUSER", USER, "+@all")


@contextmanager
def no_more_clients(site: Site) -> Iterator[Evidence]:
    """The server has as many connections as it takes, and the application's were closed."""
    server = site.pair.primary
    with server.client() as client, ExitStack() as stack:
        client.ping()
        before = int(info(server, "stats")["rejected_connections"])
        with parts(site.app).monitor.paused():  # it makes new connections
            client.client_kill_filter(_type="normal", skipme=True)
            _until_closed(site, "primary")
            known = client.config_get("maxclients")["maxclients"]
            client.config_set("maxclients", 2)  # this one and the replica
            stack.callback(client.config_set, "maxclients", known)
        yield lambda: int(client.info("stats")["rejected_connections"]) - before


@contextmanager
def endless_script(site: Site) -> Iterator[Evidence]:
    """Run another client's endless script, so that the server says BUSY to all others."""
    server = site.pair.primary
    before = refusals(server, "BUSY")

    def run() -> None:
        with server.client() as client, suppress(redis.RedisError):
            client.connection_pool.connection_kwargs["socket_timeout"] = LONG
            client.execute_command("EVAL", "while true do end", 0)

    with configured(server, busy_reply_threshold=20):
        thread = threading.Thread(target=run, name="endless-script")
        thread.start()
        wait_until(lambda: not answers(server), "a busy server")
        try:
            yield lambda: int(not answers(server))  # INFO is refused, too
        finally:
            with server.client() as client:
                client.script_kill()
            thread.join(LONG)
    assert refusals(server, "BUSY") > before + 1


@contextmanager
def paused(site: Site) -> Iterator[Evidence]:
    """CLIENT PAUSE WRITE: whatever may write is not answered, and that is every script."""
    server = site.pair.primary
    with _unpausing(server):
        with server.client() as client:
            client.client_pause(int(10 * LONG * 1000), all=False)
        yield lambda: int(_hangs(server, "SET", "fault-matrix", "1") and not _hangs(server, "GET", "x"))


@contextmanager
def _unpausing(server: Valkey) -> Iterator[None]:
    """The pause is over in the end. A server that is paused cannot say so; a replica never is."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=LONG) as replica:
        replica.sendall(b"SYNC\r\n")
        assert replica.recv(1), "a replica gets the data first"
        try:
            yield
        finally:
            replica.sendall(b"CLIENT UNPAUSE\r\n")
            wait_until(lambda: answers(server), "a server that goes on")


def _hangs(server: Valkey, *command: str) -> bool:
    with server.client(SHORT) as client:
        try:
            client.execute_command(*command)
        except redis.TimeoutError:
            return True
    return False


# -- what data becomes of ----------------------------------------------------------------------------------------------


def lost_data(lose: Callable[[Valkey], object], count: Callable[[Valkey], int]) -> Cause:
    """Return a cause that takes all data from the primary, and does nothing else.

    :param count: what the server says of how often it happened.
    """

    @contextmanager
    def cause(site: Site) -> Iterator[Evidence]:
        server = site.pair.primary
        before = count(server)
        lose(server)
        assert count(server) > before  # the worker may have given back something by now
        forget_what_was_read(site)
        site.pair.catch_up()
        yield lambda: count(server) - before

    return cause


def forget_what_was_read(site: Site) -> None:
    """A worker that has read a record sees what was done to it by hand with the next change of ours only; and that a
    key is gone it is told through a proxy, which may take its time."""
    store = redis_store(site.app)
    store.memory.clear()
    if store.near:
        store.near.forget()


def evictions(server: Valkey) -> int:
    """Keys that the server gave up for others."""
    return int(info(server, "stats")["evicted_keys"])


def flushes(server: Valkey) -> int:
    """Return how often the server was emptied."""
    return calls(server, "flushall")


def evict(server: Valkey) -> None:
    """Make the server evict all auth records, by ElastiCache's default policy: keys with a time to live go."""
    with configured(server, maxmemory=1, maxmemory_policy="volatile-lru"):
        wait_until(lambda: not keys(server, "session:auth:*"), "evicted sessions")


def flush(server: Valkey) -> None:
    """FLUSHALL by hand."""
    with server.client() as client:
        client.flushall()


def keys(server: Valkey, pattern: str = "*") -> Sequence[str]:
    """The names that are there."""
    with server.client() as client:
        found: list[str] = client.keys(pattern)
    return found


def damaged(damage: Callable[[Any, str], object], still_there: Callable[[Any, str], object]) -> Cause:
    """All records of all sessions are spoilt.

    :param still_there: whether it can be seen on a record, or on the quarantined record.
    """

    @contextmanager
    def cause(site: Site) -> Iterator[Evidence]:
        server = site.pair.primary
        wait_for_monitors()  # what one gives back to Redis at first would mend the records
        spoilt = [key for key in keys(server, "session:*") if "{" in key]
        with server.client() as client:
            for key in spoilt:
                damage(client, key)
            forget_what_was_read(site)
            yield lambda: sum(bool(still_there(client, key)) for key in spoilt)

    return cause


def of_another_type(client: Any, key: str) -> None:
    """A list where a hash was: WRONGTYPE."""
    client.pipeline().delete(key).lpush(key, "x").execute()  # with no monitor in between


def is_quarantined(client: Any, key: str) -> bool:
    """Return whether a record lies as it was in the quarantine beside its place."""
    return bool(client.type(f"{key}:aside") == "list")


def unreadable(client: Any, key: str) -> None:
    """No text in any of a session's own fields."""
    for name in client.hkeys(key):
        if not name.startswith("@"):
            client.hset(key, name, b"\xff")


def is_unreadable(client: Any, key: str) -> bool:
    """Return whether some value of a hash is still no text."""
    with redis.Redis.from_pool(_bytes_of(client)) as raw:
        return b"\xff" in raw.hvals(key)


def _bytes_of(client: Any) -> redis.ConnectionPool:
    return redis.ConnectionPool(port=client.connection_pool.connection_kwargs["port"])


@contextmanager
def small_limit(site: Site) -> Iterator[Evidence]:
    """A value above this closes the connection: to a client that looks like an outage."""
    server = site.pair.primary

    def cuts() -> int:
        with server.client() as client:
            try:
                client.set("fault-matrix", "x" * 2 * MEGABYTE)
            except (redis.ConnectionError, redis.ResponseError):
                return 1
        return 0

    with configured(server, proto_max_bulk_len=MEGABYTE):
        yield cuts


MEGABYTE = 1_048_576


@contextmanager
def forgotten_scripts(site: Site) -> Iterator[Evidence]:
    """SCRIPT FLUSH: NOSCRIPT."""
    server = site.pair.primary
    before = refusals(server, "NOSCRIPT")
    with server.client() as client:
        client.script_flush()
    yield lambda: refusals(server, "NOSCRIPT") - before


# -- this process ------------------------------------------------------------------------------------------------------


@contextmanager
def starved_threads(site: Site) -> Iterator[Evidence]:
    """Threads that compute: a thread that waits for an answer waits for the interpreter, too."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(2000))

    def lag() -> float:
        began = time.monotonic()
        for _ in range(10):
            time.sleep(0.0001)
        return time.monotonic() - began

    def lags() -> int:
        return int(any(lag() > 0.01 for _ in range(100)))  # on a full machine the threads may have no turn just now

    threads = [threading.Thread(target=compute, name="hog") for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield lags
    finally:
        over.set()
        for thread in threads:
            thread.join()


def skewed(seconds: float) -> Cause:
    """Return a cause that sets this host's clock wrong by so much; those of Redis and the database are right."""

    @contextmanager
    def cause(site: Site) -> Iterator[Evidence]:
        asked: Counter[str] = Counter()

        def shifted(name: str, by: float) -> Callable[[], float]:
            right: Callable[[], float] = getattr(time, name)

            def clock() -> float:
                asked[name] += 1
                return type(right())(right() + by)

            return clock

        wrong = SimpleNamespace(**vars(time))
        wrong.time, wrong.time_ns = shifted("time", seconds), shifted("time_ns", int(seconds * 1e9))
        with ExitStack() as stack:
            for module in (extension, repository, monitor, journal):
                stack.enter_context(patch.object(module, "time", wrong))
            yield lambda: asked.total()

    return cause
