"""The simulated world: two hosts with two workers each, a pair of Redis servers and a database.

Everything in a worker is the package's own code; only the stores, the clocks and chance are replaced. What happens is
a list of actions, each a line of text (:data:`ACTIONS` in ``actions.py``).
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path as FilePath
from tempfile import gettempdir
from typing import Any, cast
from unittest.mock import patch

from flask import Flask

from flask_langpont_session.config.settings import Settings, load_settings
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.metrics.reports import Reports
from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, REPLICA, Health, HealthLimits, Listeners
from flask_langpont_session.policy.ids import SessionId
from flask_langpont_session.policy.rows import AuthEntry
from flask_langpont_session.recovery import monitor, steps
from flask_langpont_session.recovery.monitor import Monitor, Round
from flask_langpont_session.recovery.steps import Reach
from flask_langpont_session.request import revocations
from flask_langpont_session.request.repository import SessionRepository
from flask_langpont_session.request.scope import FIRST_ANSWERS
from flask_langpont_session.stores.backend import Backend
from flask_langpont_session.stores.host.board import HostMemory
from flask_langpont_session.stores.host.group_commit import Room
from flask_langpont_session.stores.host.host_clock import HostClock
from flask_langpont_session.stores.host.journal import Overlay, journal_at
from flask_langpont_session.stores.host.limits import JournalLimits
from flask_langpont_session.stores.memory.ended import DatabaseClock, Ended
from flask_langpont_session.stores.memory.memory import Memory
from flask_langpont_session.stores.redis import near
from flask_langpont_session.stores.redis.near import Hit, NearCache
from flask_langpont_session.stores.redis.server_identity import Canary, ServerIdentity
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.stores.sql.database import Database
from tests.support.on_time import never_late

from .clock import Clock
from .invariants import Promises
from .sim_connection import SimConnection, SimNear, SimStore, Way
from .sim_database import SERVER, SimDatabase, Tables
from .sim_redis import Cluster, Node
from .tasks import Path, Task, Tasks

HOSTS = ("h0", "h1")
WORKERS = {"w0": "h0", "w1": "h0", "w2": "h1", "w3": "h1"}
SERVERS = ("A", "B", SERVER)
USERS = ("alice", "root")
SLOTS = ("s0", "s1", "s2")

SKEWS_MS = (300, -400)
"""How far the clocks of the two Redis servers are off."""

TOLERANCE_MS = 1000
"""How far clocks may be apart (docs/guarantees.md)."""

SHORT = {"VERIFY_INTERVAL": 10, "GRACE": 30, "IDLE_TIMEOUT": 120, "ABSOLUTE_TIMEOUT": 900}
PROFILES = {
    "short": SHORT,
    "long": SHORT | {"IDLE_TIMEOUT": 14_400, "ABSOLUTE_TIMEOUT": 86_400},
    "always": SHORT | {"VERIFY_INTERVAL": 0},
    "no grace": SHORT | {"GRACE": 0},
    "narrow": SHORT | {"MEMORY_BYTES": 6400},
    "limited": SHORT | {"MAX_SESSIONS_PER_USER": 1},
    "privileged": SHORT | {"PRIVILEGED_IDLE_TIMEOUT": 40, "PRIVILEGED_ABSOLUTE_TIMEOUT": 300},
    "exact": SHORT,
}
"""Settings under which worlds run; small, so that a short schedule meets every limit. A "narrow" worker forgets most
of what it has seen. With "exact" all clocks agree."""


@lru_cache
def settings_of(profile: str) -> Settings:
    """The package's settings under a profile."""
    app = Flask("world", instance_path=str(FilePath(gettempdir()).resolve()))
    app.testing = True
    values = {
        **PROFILES[profile],
        "LOCAL_CACHE_TTL": 60,
        "JOURNAL": None,
        "REDIS_URL": "redis://localhost/0",
        "REPLICA_URL": "redis://localhost/1",
    }
    app.config.update({f"LANGPONT_SESSION_{key}": value for key, value in values.items()})
    return load_settings(app)


PARTS: Mapping[Any, Mapping[str, Any]] = {
    revocations: {"MOST_AT_ONCE": 1},
    steps: {"BATCH": 2, "PIPELINE": 2, "AT_ONCE": 3},
    near: {"MOST_LANES": 1},
    monitor: {"INTERVAL": 5.0},
}
"""How often a worker looks at its stores, and how much the package does at a time, much smaller than it is: a few
sessions are too many for it. Which session has which of several lanes is another one in each process."""


@contextmanager
def simulated() -> Iterator[None]:
    """Run worlds with small limits of the package, with its log for the worlds only (:class:`Listener`), and without
    lag, so that a busy machine changes nothing."""
    log = logging.getLogger("flask_langpont_session")
    level = log.level
    with ExitStack() as stack:
        stack.enter_context(never_late())
        for module, small in PARTS.items():
            stack.enter_context(patch.multiple(module, **small))
        stack.enter_context(patch.object(log, "propagate", False))
        log.setLevel(logging.INFO)
        try:
            yield
        finally:
            log.setLevel(level)


class Listener(logging.Handler):
    """Collects what the package logs while a world runs."""

    def __init__(self, promises: Promises) -> None:
        super().__init__()
        self._promises = promises

    def emit(self, record: logging.LogRecord) -> None:
        """Check that no message of the log has anything of a session."""
        self._promises.said(record.getMessage())


class Host:
    """One host: its journal outlives its workers.

    :ivar set_by_ms: by how much its wall clock was set, forward or back.
    :ivar unread: so often the journal does not say in time what waits.
    :ivar is_held: another process has the journal's lock: nothing is written in time.
    :ivar is_full: its disk takes no more, not even into the journal's reserve, which others have taken.
    :ivar is_tight: its disk takes only what has the room of the reserve.
    """

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        limits = JournalLimits(copies_ttl=world.settings.local_cache_ttl)
        self.set_by_ms = 0
        clock = HostClock(None, lambda: self.wall_ms / 1000, world.clock.monotonic, b"simulated")
        self._true = world.clock
        self.journal = journal_at(None, clock=clock, limits=limits)
        self.unread = 0
        self.is_full = self.is_tight = self.is_held = False
        read = self.journal.overlay

        def overlay(ref: RecordRef, **options: Any) -> Overlay:
            if self.unread:
                self.unread -= 1
                raise self._timed_out(options.get("wait"))
            return read(ref, **options)

        self.journal.overlay = overlay  # type: ignore[method-assign]
        write = self.journal.file.transaction

        def transaction(work: Any, wait: float | None = None, **options: Any) -> Any:
            if self.is_held:
                raise self._timed_out(wait)
            if self.is_full or (self.is_tight and options.get("room") is not Room.RESERVED):
                raise StoreError("journal", ErrorClass.WRITE_REFUSED, "SQLITE_FULL")
            return write(work, wait, **options)

        self.journal.file.transaction = transaction  # type: ignore[method-assign]

    def _timed_out(self, wait: float | None) -> StoreError:
        self._true.advance(round((wait or 0) * 1000))
        return StoreError("journal", ErrorClass.UNREACHABLE, "busy", timed_out=True)

    @property
    def wall_ms(self) -> int:
        """Return the time of the host's own clock, which may have been set."""
        return self._true.now_ms + self.set_by_ms


@dataclass(eq=False)
class Slot:
    """One browser: the session ids it was given, the newest last."""

    sids: list[SessionId] = field(default_factory=list)

    @property
    def sid(self) -> SessionId | None:
        """Return the id that the browser sends."""
        return self.sids[-1] if self.sids else None

    @property
    def old(self) -> SessionId | None:
        """Return the id from before the last change of id; a request under way may still have it."""
        return self.sids[-2] if len(self.sids) > 1 else self.sid


class Worker:
    """One worker process: the package's parts, on simulated stores. As a network, how it reaches the servers."""

    def __init__(self, name: str, host: Host, world: World) -> None:
        self.name = name
        self.host = host
        self._world = world
        self.busy = 0
        clock, settings = world.clock, world.settings
        bounds = settings.memory_bytes, settings.local_cache_ttl
        ended = Ended(*bounds, clock=clock.monotonic, now_ms=lambda: clock.now_ms)
        self.memory = Memory(*bounds, ended=ended, clock=clock.monotonic)
        self.memory.ended.database_clock = DatabaseClock(clock.monotonic, clock.monotonic)
        stores = {store: world.redis_store(store, self, self._server_identity(store)) for store in (PRIMARY, REPLICA)}
        self.health = Health(
            [PRIMARY, REPLICA, DATABASE],
            limits=HealthLimits(settings.local_cache_ttl),
            listeners=Listeners(
                store_lost=lambda error, ways: world.promises.lost(error.store, error.error_class.name.lower()),
                store_failed=lambda store: self.monitor.suspect(store),
            ),
            clock=clock.monotonic,
        )
        for _ in range(FIRST_ANSWERS):  # it has been up for a while
            self.health.succeeded(DATABASE, READ)
        self.backend = Backend(
            settings,
            Reports(world.recorder, lambda signal, event: world.promises.said(repr(event)), clock=clock.monotonic),
            redis=stores,
            database=world.database(self),
            memory=self.memory,
            journal=host.journal,
            health=self.health,
        )
        self.repository = SessionRepository(self.backend, now_ms=lambda: host.wall_ms)
        world.births += 1
        self.monitor = Monitor(
            self.backend,
            clock=clock.monotonic,
            rng=random.Random(world.births),
            attend=self._attend,
        )

    def _attend(self, found: Round) -> None:
        if self.near is not None and PRIMARY not in found.lost:
            self.near.attend()

    @property
    def near(self) -> NearCache | None:
        """Return the worker's near cache."""
        store: Any = self.backend.primary
        kept: NearCache | None = store.near
        return kept

    @property
    def line(self) -> SimConnection | None:
        """The connection over which it is told of changes; None: there never was one."""
        store: Any = self.backend.primary
        line: SimConnection | None = store.way.tracked
        return line

    def close(self) -> None:
        """The process ends, and its connections and locks with it."""
        self.monitor.recovery.steps.giving_back.presence.end()
        if self.near is not None:
            self.near.forget()

    def _server_identity(self, store: str) -> ServerIdentity:
        def incident() -> None:
            if store == PRIMARY:
                self.monitor.recovery.note_incident()

        return ServerIdentity(incident, HostMemory(self.host.journal.board, store), clock=self._world.clock_of_redis)

    # -- its network -------------------------------------------------------------------------------------------------

    @property
    def host_name(self) -> str:
        """See :class:`~.sim_connection.Network`."""
        return self.host.name

    def path_to(self, server: str) -> Path:
        """See :class:`~.sim_connection.Network`."""
        world = self._world
        if (self.name, server) in world.cuts or (self.host.name, server) in world.cuts:
            return world.cut_path
        return world.database_path if server == SERVER else Path.CLEAR

    def connected(self, store: str, node: Node) -> None:
        """See :class:`~.sim_connection.Network`."""
        if store == PRIMARY:
            self._world.promises.connected(self.name, self.host.name, node)

    def answered(self, connection: SimConnection, digest: str, entry: AuthEntry | None) -> None:
        """See :class:`~.sim_connection.Network`."""
        self._world.promises.answered(connection, digest, entry)

    def looked(self, node: Node, found: Canary) -> None:
        """See :class:`~.sim_connection.Network`."""
        self._world.promises.looked(self.name, self.host.name, node, found)

    def changed(self, node: Node, digest: str, number: int) -> None:
        """See :class:`~.sim_connection.Network`."""
        self._world.promises.changed(self.host.name, node, digest, number)

    def hit(self, node: Node, ref: RecordRef, lives_ms: Mapping[str, int], hit: Hit) -> None:
        """See :class:`~.sim_connection.Network`."""
        self._world.promises.hit(self.host.name, node, ref, lives_ms, hit)

    def database_is_busy(self) -> bool:
        """See :class:`~.sim_database.Network`."""
        if self.busy:
            self.busy -= 1
            return True
        return False


class World:
    """The whole simulated world.

    :param profile: one of :data:`PROFILES`.
    :ivar told: what requests were told, one line of text each.
    :ivar former: digests of sessions with a change of a category that only another release had.
    :ivar cut_path: how a cut connection looks to the worker that uses it.
    """

    def __init__(self, profile: str = "short") -> None:
        self.settings = settings_of(profile)
        self.clock = Clock()
        self.tasks = Tasks(self.clock)
        self.recorder = Recorder()
        self.told: list[str] = []
        self.former: list[str] = []
        self.cuts: set[tuple[str, str]] = set()
        self.cut_path = Path.SILENT
        self.database_path = Path.CLEAR
        self.is_near = False
        self._make_servers(*((0, (0, 0)) if profile == "exact" else (TOLERANCE_MS, SKEWS_MS)))
        self.births = 0
        self._listener = Listener(self.promises)
        logging.getLogger("flask_langpont_session").addHandler(self._listener)
        self.hosts = {name: Host(name, self) for name in HOSTS}
        self.workers = {name: Worker(name, self.hosts[host], self) for name, host in WORKERS.items()}
        self.slots = {name: Slot() for name in SLOTS}
        self.under_way: dict[str, Task] = {}
        self._minted = 0
        self._values = 0

    def _make_servers(self, tolerance_ms: int, skews_ms: tuple[int, int]) -> None:
        self.promises = Promises(self.settings, self.clock, self.tasks, tolerance_ms)
        self.tables = self.promises.tables = Tables(self.clock, self.promises)
        self.cluster = self.promises.cluster = Cluster(self.clock, self.promises, skews_ms)

    @property
    def clock_of_redis(self) -> Callable[[], float]:
        """Monotonic seconds, by which it is known how late a server is."""
        return self.clock.monotonic

    def redis_store(self, name: str, worker: Worker, server_identity: ServerIdentity) -> RedisStore:
        """Return the store of one endpoint, as a worker has it."""
        change_ids = worker.host.journal.board.register
        way = Way(name, self.cluster, worker, self.tasks, server_identity)
        store = SimStore(way, worker.memory, change_ids)
        if self.is_near and name == PRIMARY:
            self._keep_near(store, worker.host)
        return store

    def keep_near(self) -> None:
        """Give all workers a near cache from now on."""
        if not self.is_near:
            self.is_near = True
            for worker in self.workers.values():
                self._keep_near(worker.backend.primary, worker.host)

    def _keep_near(self, store: Any, host: Host) -> None:
        settings = self.settings
        near = SimNear(
            store.way,
            store.link,
            host.journal.board.register,
            store.memory,
            copies_ttl=settings.local_cache_ttl,
            clock=self.clock.monotonic,
        )
        store.keep_near(near)

    def lines(self) -> Iterator[SimConnection]:
        """The connections over which workers are told of changes."""
        return (line for worker in self.workers.values() if (line := worker.line))

    def database(self, worker: Worker) -> Database:
        """The database as a worker sees it."""
        database: Any = SimDatabase(self.tables, worker, self.tasks)
        return cast(Database, database)

    # -- ids and values ----------------------------------------------------------------------------------------------

    def mint(self, kind: str) -> SessionId:
        """A new session id."""
        self._minted += 1
        sid = SessionId(f"sid-{self._minted}", kind, False, self.clock.now_ms // 1000, b"secret")
        if kind == "u":
            self.promises.signed_in.add(sid.digest)
        return sid

    def new_value(self) -> int:
        """A value that was never used before."""
        self._values += 1
        return self._values

    # -- running -----------------------------------------------------------------------------------------------------

    def start(
        self, label: str, worker: Worker, work: Callable[[Task], None], *, stepped: bool, is_request: bool = True
    ) -> None:
        """Begin a request or a round of a monitor; with `stepped` it goes on when it is told to."""
        task = Task(label, worker.name, self.clock.now_ms, stepped, is_request=is_request)
        if is_request and any(other.is_request for other in self.under_way.values()):
            self.promises.is_calm = False
        if stepped:
            self.under_way[label] = task
        self.tasks.run(task, lambda: work(task))
        self._forget_finished()

    def _forget_finished(self) -> None:
        for label in [label for label, task in self.under_way.items() if task.is_over]:
            del self.under_way[label]

    def resume(self, label: str, how: Callable[[Task], None]) -> None:
        """Let a request under way go on; nothing if there is none of that name."""
        task = self.under_way.get(label)
        if task is not None:
            how(task)
            self._forget_finished()

    def finish_all(self) -> None:
        """Let everything that is under way come to its end."""
        for label in list(self.under_way):
            self.resume(label, self.tasks.finish)

    def crash(self, worker: Worker) -> None:
        """A worker dies, with all it does and knows; another one takes its place."""
        for label, task in list(self.under_way.items()):
            if task.worker == worker.name:
                self.tasks.kill(task)
                del self.under_way[label]
        worker.close()
        self.promises.workers.pop(worker.name, None)
        self.cluster.replaced_at = 0  # the workers that knew how Redis was before are gone
        self.workers[worker.name] = Worker(worker.name, self.hosts[worker.host.name], self)

    def lose(self, host: Host) -> None:
        """A host dies, and its journal with it; another one takes its place."""
        self.promises.is_calm = False
        self.promises.hosts.pop(host.name, None)
        self.hosts[host.name].journal.close()
        self.hosts[host.name] = Host(host.name, self)
        for worker in [w for w in self.workers.values() if w.host.name == host.name]:
            self.crash(worker)

    def close(self) -> None:
        """Let go of everything."""
        logging.getLogger("flask_langpont_session").removeHandler(self._listener)
        for task in self.under_way.values():
            self.tasks.kill(task)
        self.under_way.clear()
        for worker in self.workers.values():
            worker.close()
        for host in self.hosts.values():
            host.journal.close()

    # -- rounds of the monitors --------------------------------------------------------------------------------------

    def tick(self, worker: Worker, label: str = "", *, stepped: bool = False) -> None:
        """Run one round of a worker's monitor."""
        if any(task.worker == worker.name and task.notes.get("tick") for task in self.under_way.values()):
            return  # one round at a time, as the monitor's lock has it

        def work(task: Task) -> None:
            task.notes["tick"] = True
            worker.monitor.tick()
            self._check_tick(worker, task)

        self.start(label, worker, work, stepped=stepped, is_request=False)

    def _check_tick(self, worker: Worker, task: Task) -> None:
        journal = worker.host.journal
        waiting = [] if journal.is_empty() else journal.revocations.pending(database=True, redis=False)
        identity = worker.backend.endpoint(PRIMARY).server_identity.identity
        on_primary = Reach.of(worker.backend).redis and identity == self.cluster.primary.identity
        self.promises.ticked(task, worker.host.name, [entry.digest for entry in waiting], on_primary)

    def tick_all(self) -> None:
        """Run one round of every monitor."""
        for worker in list(self.workers.values()):
            self.tick(worker)

    @property
    def is_quiet(self) -> bool:
        """Return whether every worker uses every store, and nothing waits for one."""
        if any(worker.health.open_stores() for worker in self.workers.values()):
            return False
        if any(worker.monitor.recovery.has_incidents for worker in self.workers.values()):
            return False
        return not any(host.journal.waiting().entries for host in self.hosts.values())

    def restore_everything(self) -> None:
        """All that is broken works again, and nothing is under way any more."""
        self.cuts.clear()
        self.cluster.names.clear()
        self.database_path = Path.CLEAR
        for worker in self.workers.values():
            worker.busy = 0
        for line in self.lines():
            line.is_held = False
        cluster = self.cluster
        for node in (cluster.primary, cluster.replica):
            node.frozen = node.refuses_writes = False
            cluster.start(node)
        cluster.demote()
        self.finish_all()
        while self.tasks.late:
            self.tasks.arrive(0)
        cluster.replica.replicate(len(cluster.replica.inbox))

    @property
    def census(self) -> Counter[str]:
        """Return how often each event happened: those that the promises saw, and those that the package counted."""
        operations = {
            f"{op.name} {op.category} {op.source} {op.outcome}": series.count
            for op, series in self.recorder.series().items()
        }
        return self.promises.census + Counter(self.recorder.counters()) + Counter(operations)

    def journals(self) -> dict[str, Mapping[str, int]]:
        """Return the number of waiting entries in each host's journal, to explain a failed schedule."""
        return {name: dict(host.journal.counts()) for name, host in self.hosts.items()}
