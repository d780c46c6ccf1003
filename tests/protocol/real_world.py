"""The same world on real servers: two of Valkey and a PostgreSQL, each worker behind proxies of its own.

Everything above the stores is as in the simulation, their clock for breakers and monitors included, so that a busy
machine changes nothing. Time in the stores is real; schedules that need it to pass do not belong here.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import redis
import sqlalchemy as sa
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool, Connection
from redis.retry import Retry

from devservers.processes import wait_until
from devservers.servers import Postgres, Valkey
from flask_langpont_session.stores.redis import auth_meta
from flask_langpont_session.stores.redis.endpoint import Endpoint
from flask_langpont_session.stores.redis.link import Link
from flask_langpont_session.stores.redis.server_identity import ServerIdentity
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.stores.sql.database import Database
from flask_langpont_session.stores.sql.engines import make_engine
from flask_langpont_session.stores.sql.tables import SESSIONS, USERS
from tests.faults.proxy import REFUSE, FaultProxy

from .clock import Clock
from .invariants import Unchecked
from .sim_connection import SimConnection
from .sim_database import SERVER
from .tasks import Path
from .world import WORKERS, Worker, World

WAIT = 60.0
"""Seconds. No store is slow here, but the machine may be."""


class RealClock(Clock):
    """Monotonic time as simulated; the time of day as it is, since the stores go by it."""

    @property
    def now_ms(self) -> int:
        """The real time, which cannot be advanced: that moves breakers, budgets and local copies only."""
        return time.time_ns() // 1_000_000


class Stepped:
    """A real store, at whose questions a request stops as it does in the simulation."""

    def __init__(self, store: Any, world: World, path: Callable[[], Path]) -> None:
        self._store = store
        self._world = world
        self._path = path

    @property
    def endpoints(self) -> Mapping[str, Any]:
        """Return the endpoints that have a health of their own."""
        return {self._store.name: Stepped(self._store.endpoint, self._world, self._path)}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        asks_nothing = ("home_of", "find_shards", "forget_connections", "key")
        return self._question(found) if callable(found) and name not in asks_nothing else found

    def _question(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any, **options: Any) -> Any:
            self._world.clock.advance(1)
            time.sleep(0.002)  # no two stamps are equal
            if "timeout" in options:
                options["timeout"] = WAIT
            if self._path() is Path.CLEAR:
                self._world.tasks.pause("sent")
            answer = ask(*arguments, **options)
            self._world.tasks.pause("answered")
            return answer

        return asked


class Leading(Connection):
    """A connection to wherever a name leads when it is made."""

    def __init__(self, *, leads_to: Callable[[], int], **options: Any) -> None:
        self._leads_to = leads_to
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def _connect(self) -> Any:
        self.port = self._leads_to()
        return super()._connect()  # type: ignore[no-untyped-call]


class RealNode:
    """One of the two Valkey servers."""

    def __init__(self, name: str, server: Valkey) -> None:
        self.name = name
        self.server = server
        self.identity = name
        self.inbox: list[Any] = []
        self.snapshot: Any = None
        self.is_primary = name == "A"
        self.frozen = False

    @property
    def alive(self) -> bool:
        """Return whether the server's process runs."""
        return self.server.running

    @property
    def refuses_writes(self) -> bool:
        """Return whether the server refuses writes."""
        return False

    @refuses_writes.setter
    def refuses_writes(self, how: bool) -> None:
        if self.alive:
            with client_of(self) as client:
                client.config_set("min-replicas-to-write", 9 if how else 0)

    def replicate(self, count: int) -> None:
        """Real replication does not wait."""


@contextmanager
def client_of(node: RealNode) -> Iterator[Any]:
    """A client that gets bytes."""
    client: Any = redis.Redis(port=node.server.port, socket_timeout=WAIT, retry=Retry(NoBackoff(), 0))
    with client:
        yield client


def info(node: RealNode) -> Mapping[str, Any]:
    """Return a server's ``INFO replication``."""
    with client_of(node) as client:
        found: Mapping[str, Any] = client.info("replication")
        return found


class RealCluster:
    """The pair: what can happen to it, under the names that the simulated one has for it."""

    def __init__(self, servers: Mapping[str, Valkey]) -> None:
        self.nodes = {name: RealNode(name, server) for name, server in servers.items()}
        self.primary, self.replica = self.nodes["A"], self.nodes["B"]
        self.names: dict[str, dict[str, RealNode]] = {}
        self.losses = {"A": 0, "B": 0}
        self.replaced_at = 0
        for node in self.nodes.values():
            node.server.replica_of = None
            node.server.start()
            node.refuses_writes = False
        self._follow(self.primary, None)
        with client_of(self.primary) as client:
            client.flushall()
        self._follow(self.replica, self.primary)

    def leads_to(self, name: str, host: str) -> RealNode:
        """The server that a name leads to on some host."""
        return self.names.get(host, {"primary": self.primary, "replica": self.replica})[name]

    def _follow(self, node: RealNode, primary: RealNode | None) -> None:
        with client_of(node) as client:
            client.execute_command("REPLICAOF", *(("127.0.0.1", primary.server.port) if primary else ("NO", "ONE")))
        node.is_primary = primary is None
        assert info(node)["role"] == ("master" if primary is None else "slave")
        if primary is not None:
            self.catch_up()

    def catch_up(self) -> None:
        """Wait until the replica has what the primary has."""
        one, other = self.primary, self.replica
        if one.alive and other.alive and not other.is_primary:
            wait_until(lambda: self._is_level(info(one), info(other)), "replication")

    @staticmethod
    def _is_level(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        is_up = other.get("master_link_status") == "up"
        return is_up and one["master_repl_offset"] == other["slave_repl_offset"]

    def kill(self, node: RealNode) -> None:
        """SIGKILL."""
        self.catch_up()
        node.server.kill()

    def start(self, node: RealNode, data: Any = None) -> None:
        """Start a dead server from its append-only file, or with nothing."""
        if node.alive:
            return
        if data is not None:
            assert data == {}
            shutil.rmtree(node.server.folder / "appendonlydir")
        node.server.start()
        if node is self.primary:
            self._follow(node, None)
            self.catch_up()
        elif self.primary.alive:
            self._follow(node, self.primary)

    def fail_over(self) -> None:
        """The replica becomes the primary, and the names lead there."""
        old, new = self.primary, self.replica
        if new.alive and not new.is_primary:
            self.catch_up()
            self._follow(new, None)
            self.primary, self.replica = new, old

    def demote(self) -> None:
        """The old primary follows the new one."""
        node = self.replica
        if node.alive and self.primary.alive and node.is_primary:
            self._follow(node, self.primary)

    def stale_names(self, hosts: Iterable[str]) -> None:
        """Let names on these hosts go on leading where they lead now."""
        for host in hosts:
            self.names.setdefault(host, {"primary": self.primary, "replica": self.replica})

    def empty(self, node: RealNode) -> None:
        """FLUSHALL."""
        if node.alive:
            with client_of(node) as client:
                client.flushall()
                assert client.dbsize() == 0

    def save(self, node: RealNode) -> None:
        """Copy what is there."""
        if node.alive:
            with client_of(node) as client:
                node.snapshot = [(key, client.pttl(key), client.dump(key)) for key in client.scan_iter()]

    def restore(self, node: RealNode) -> None:
        """Put the copy in the place of what is there, behind all connections."""
        self.empty(node)
        if node.alive:
            with client_of(node) as client:
                for key, left, value in node.snapshot or ():
                    client.restore(key, max(0, left), value)
                assert client.dbsize() == len(node.snapshot or ())


class Cuts(set[tuple[str, str]]):
    """The cut connections; a change of the set takes effect at the proxies at once."""

    def __init__(self, world: RealWorld) -> None:
        self._world = world
        super().__init__()

    def add(self, cut: tuple[str, str]) -> None:
        """Cut."""
        super().add(cut)
        self._world.impose()

    def clear(self) -> None:
        """Join all."""
        super().clear()
        self._world.impose()


class Servers:
    """The real servers, and a proxy between each worker and each of them. A context manager."""

    def __init__(self, valkeys: Mapping[str, Valkey], postgres: Postgres) -> None:
        self.valkeys = valkeys
        self.postgres = postgres
        self.proxies: dict[tuple[str, str], FaultProxy] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Servers:
        for worker in WORKERS:
            for name, server in (*self.valkeys.items(), (SERVER, self.postgres)):
                proxy = FaultProxy("127.0.0.1", server.port)
                self.proxies[worker, name] = self._stack.enter_context(proxy)
        self.direct = sa.create_engine(self.postgres.url)
        SESSIONS.metadata.create_all(self.direct)
        return self

    def __exit__(self, *exc: object) -> None:
        self.direct.dispose()
        self._stack.close()


class RealTables:
    """The real database as a whole: it can go back to an earlier state."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._remembered: dict[sa.Table, list[dict[str, Any]]] = {}

    def remember(self) -> None:
        """See :class:`.sim_database.Tables`."""
        with self._engine.connect() as connection:
            for table in (SESSIONS, USERS):
                self._remembered[table] = [dict(row) for row in connection.execute(sa.select(table)).mappings()]

    def go_back(self) -> None:
        """See :class:`.sim_database.Tables`."""
        with self._engine.begin() as connection:
            for table, rows in self._remembered.items():
                connection.execute(table.delete())
                if rows:
                    connection.execute(table.insert(), rows)


class RealWorld(World):
    """The world on these servers, which are emptied first."""

    def __init__(self, profile: str, servers: Servers) -> None:
        self._servers = servers
        self._imposed: set[tuple[str, str]] = set()
        self._path = Path.CLEAR
        self._made: dict[str, list[Any]] = defaultdict(list)
        for proxy in servers.proxies.values():
            proxy.heal()
        with servers.direct.begin() as connection:
            connection.execute(SESSIONS.delete())
            connection.execute(USERS.delete())
        super().__init__(profile)
        self.clock = self.tasks.clock
        self.cuts = Cuts(self)
        self.cut_path = Path.BROKEN

    def _make_servers(self, tolerance_ms: int, skews_ms: tuple[int, int]) -> None:
        self.clock = self.tasks.clock = RealClock()
        self.promises = cast(Any, Unchecked())
        self.cluster = cast(Any, RealCluster(self._servers.valkeys))
        self.tables = cast(Any, RealTables(self._servers.direct))

    @property
    def database_path(self) -> Path:
        """Return the state of the path between the workers and the database."""
        return self._path

    @database_path.setter
    def database_path(self, path: Path) -> None:
        self._path = path
        if hasattr(self, "workers"):
            self.impose()

    def impose(self) -> None:
        """Let the proxies fail as it is wanted now. That they do is counted by them."""
        wanted = {
            (worker, server)
            for worker, server in self._servers.proxies
            if self.workers[worker].path_to(server) is not Path.CLEAR
        }
        for place in wanted - self._imposed:
            before = self._servers.proxies[place].hits["refuse"]
            self._servers.proxies[place].impose(REFUSE)
            assert self._servers.proxies[place].hits["refuse"] > before
        for place in self._imposed - wanted:
            self._servers.proxies[place].heal()
        self._imposed = wanted

    clock_of_redis = staticmethod(time.monotonic)

    def redis_store(self, name: str, worker: Worker, server_identity: ServerIdentity) -> RedisStore:
        """A real one, whose name leads where the cluster says."""

        def node() -> RealNode:
            return cast(RealNode, self.cluster.leads_to(name, worker.host.name))

        def path() -> Path:
            return worker.path_to(node().name) if node().alive else Path.BROKEN

        def introduce(connection: Any) -> None:
            server_identity.introduce(connection)
            time.sleep(0.002)  # before anything is stamped

        options: dict[str, Any] = {
            "connection_class": Leading, "leads_to": lambda: self._servers.proxies[worker.name, node().name].port,
            "host": "127.0.0.1", "protocol": 3, "socket_timeout": WAIT, "socket_connect_timeout": WAIT, "timeout": WAIT,
            "retry": Retry(NoBackoff(), 0), "retry_on_error": [], "redis_connect_func": introduce,
            "max_connections": 8, "driver_info": None,
        }  # fmt: skip
        pool = BlockingConnectionPool(**options)  # type: ignore[no-untyped-call]
        real = RedisStore(Endpoint(Link(name, pool, server_identity=server_identity), prefix="session"))
        self._made[worker.name].append(real.forget_connections)
        store: Any = Stepped(real, self, path)
        return cast(RedisStore, store)

    def database(self, worker: Worker) -> Database:
        """A real one."""
        proxy = self._servers.proxies[worker.name, SERVER]
        database = Database(make_engine(proxy.instead_of(self._servers.postgres.url), WAIT), timeout=WAIT)
        self._made[worker.name].append(database.close)
        stepped: Any = Stepped(database, self, lambda: worker.path_to(SERVER))
        return cast(Database, stepped)

    def lines(self) -> Iterator[SimConnection]:
        """Return no connections: nothing is kept near here."""
        return iter(())

    def crash(self, worker: Worker) -> None:
        """See :class:`World`."""
        self._let_go(worker.name)
        super().crash(worker)

    def _let_go(self, name: str) -> None:
        for close in self._made.pop(name, ()):
            close()

    def close(self) -> None:
        """See :class:`World`."""
        super().close()
        for name in list(self._made):
            self._let_go(name)

    def restore_everything(self) -> None:
        """See :class:`World`."""
        super().restore_everything()
        cast(RealCluster, self.cluster).catch_up()

    # -- what lies in the stores -----------------------------------------------------------------------------------

    def rows(self) -> dict[str, tuple[int, bool]]:
        """Digest → version and whether it lives, by the row alone."""
        with self._servers.direct.connect() as connection:
            found = connection.execute(sa.select(SESSIONS.c.digest, SESSIONS.c.version, SESSIONS.c.live))
            return {row.digest: (row.version, bool(row.live)) for row in found}

    def records(self) -> dict[str, tuple[bool, int]]:
        """Digest → whether it lives, and its version; of a tombstone only that it is one."""
        primary = cast(RealNode, self.cluster.primary)
        found: dict[str, tuple[bool, int]] = {}
        if primary.alive:
            with client_of(primary) as client:
                for key in client.keys("session:auth:{*}"):
                    digest = key.decode().removeprefix("session:auth:{").removesuffix("}")
                    said = auth_meta.said(digest, client.hget(key, "@m") or b"")
                    if said is not None:  # of a visitor it is plain data
                        found[digest] = (True, said.version) if said.is_live else (False, 0)
        return found
