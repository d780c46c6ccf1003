"""The faults and placebos of :mod:`benchmarks.blind`: what is done to a site, and what each reader has to say of it."""

from __future__ import annotations

import re
import secrets
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from devservers.processes import wait_until
from devservers.servers import Postgres
from flask_langpont_session.policy.causes import OTHER_CLOCK, ROWS
from tests.faults import matrix_faults, matrix_sql_faults
from tests.faults.proxy import REFUSE, RESET, FaultProxy, delay
from tests.integration.tls import Authority, TlsFront
from tests.support.site import application
from tests.support.site.hosts import Host, Stage, Worker

EVERYONE = ("status", "doctor", "page", "alert", "log")
"""The readers that name a cause. ``watch`` says in the store's own words that it does not do its work."""


class Scene:
    """A site at the time of a fault.

    :param stage: its stores; `hosts`: its workers; `folder`: for files of the fault.
    """

    def __init__(self, stage: Stage, hosts: Sequence[Host], folder: Path) -> None:
        self.stage, self.hosts, self.folder = stage, hosts, folder
        self.workers = [worker for host in hosts for worker in host.workers]

    @property
    def database(self) -> Postgres:
        """Return the server of the database."""
        return cast(Postgres, cast(Any, self.stage.database).server)

    def as_in_matrix(self) -> Any:
        """Return what the causes of the fault matrix use of its site."""
        pair = SimpleNamespace(primary=self.stage.redis, replica=self.stage.replica, catch_up=lambda: None)
        url = self.database.url  # an operator's, who may do everything
        found = SimpleNamespace(pair=pair, postgres=True, direct_database_url=url, app=SimpleNamespace(testing=False))
        found.server = lambda store: pair.primary if store == "primary" else pair.replica
        return found


Happens = Callable[[Scene], AbstractContextManager[Any]]


class Fault(NamedTuple):
    """One kind of fault.

    :param word: an expression that finds its cause, or its cure, in what a reader says; empty: a placebo.
    :param by: the readers that have to name it.
    """

    name: str
    word: str
    happens: Happens
    by: Sequence[str] = EVERYONE


def cause(word: str, role: str) -> str:
    """Return what finds a cause of the package's table: its word, or the beginning of its cure."""
    cures = [does.partition("{")[0][:30] for roles, _, _, its, does in ROWS if its == word and role in roles]
    assert cures, f"no cause of {role} is called {word!r}"
    return "|".join(map(re.escape, [word, *(cure for cure in cures if len(cure) > 10)]))


# -- ways to fail ------------------------------------------------------------------------------------------------------


def matrix(happens: matrix_faults.Cause) -> Happens:
    """Return a fault of the fault matrix."""
    return lambda scene: happens(scene.as_in_matrix())


def network(store: str, fault: Any) -> Happens:
    """Return a fault between all workers and one store."""

    @contextmanager
    def happens(scene: Scene) -> Iterator[None]:
        with ExitStack() as ends:
            for worker in scene.workers:
                proxy: FaultProxy = getattr(worker, store)
                ends.enter_context(proxy.failing(fault))
            yield

    return happens


def redis_told(*commands: str, undo: Sequence[str] = (), store: str = "redis", cuts: bool = False) -> Happens:
    """Return a fault that an operator makes by commands.

    :param cuts: all other connections of clients are closed then.
    """

    @contextmanager
    def happens(scene: Scene) -> Iterator[None]:
        with getattr(scene.stage, store).client() as client:
            try:
                for command in commands:
                    client.execute_command(*command.split(" "))
                if cuts:
                    client.client_kill_filter(_type="normal", skipme=True)
                yield
            finally:
                for command in undo:
                    client.execute_command(*command.split(" "))

    return happens


def database_told(*statements: str, undo: Sequence[str] = (), cuts: bool = False) -> Happens:
    """Return a fault that an operator makes by SQL. :param cuts: the application's connections are closed then."""

    @contextmanager
    def happens(scene: Scene) -> Iterator[None]:
        with matrix_sql_faults.operator(scene.as_in_matrix()) as connection:
            try:
                for statement in statements:
                    connection.execute(sa.text(statement))
                if cuts:
                    gone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('shop', 'other')"
                    connection.execute(sa.text(gone))
                yield
            finally:
                for statement in undo:
                    connection.execute(sa.text(statement))

    return happens


def deployed(change: Callable[[Scene, Worker], Mapping[str, Any]], hosts: slice = slice(None), **extra: str) -> Happens:
    """Return a fault that comes with a deployment: hosts start with other settings or environment variables."""

    @contextmanager
    def happens(scene: Scene) -> Iterator[None]:
        workers = [worker for host in scene.hosts[hosts] for worker in host.workers]
        before = {worker: (worker.settings, worker.extra) for worker in workers}
        try:
            for worker in workers:
                worker.settings = worker.settings | dict(change(scene, worker))
                worker.extra = worker.extra | extra
                restart(worker)
            yield
        finally:
            for worker, (worker.settings, worker.extra) in before.items():
                restart(worker)

    return happens


def restart(worker: Worker) -> None:
    """End a worker and start it again."""
    worker.stop()
    worker.start()


@contextmanager
def expired_certificate(scene: Scene) -> Iterator[None]:
    """Redis is reached by TLS, and its certificate has expired."""
    authority = Authority(scene.folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue(["localhost"], expired=True))
    with TlsFront(context, scene.stage.redis.port) as front:
        url = f"rediss://localhost:{front.port}/0?ssl_ca_certs={authority.certificate}"
        with deployed(lambda *_: {"REDIS_URL": url})(scene):
            yield


@contextmanager
def full_disk(scene: Scene) -> Iterator[None]:
    """Nothing more fits on the disk of a host's journal, and Redis is away, so that something has to be kept there."""
    disk = scene.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], check=True)
    try:
        with deployed(lambda *_: {"JOURNAL": str(disk / "a.sqlite3")}, slice(1))(scene):
            with (disk / "filler").open("wb", buffering=0) as filler:
                try:
                    while filler.write(b"x" * 4096):
                        pass
                except OSError:  # full
                    pass
            with network("redis", REFUSE)(scene):
                yield
            (disk / "filler").unlink()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@contextmanager
def other_key(scene: Scene) -> Iterator[None]:
    """The second host has another SECRET_KEY."""
    with deployed(lambda *_: {}, slice(1, 2), **{application.SECRET: secrets.token_urlsafe(32)})(scene):
        yield


@contextmanager
def stopped_worker(scene: Scene) -> Iterator[None]:
    """One worker stands still."""
    scene.workers[1].freeze()
    try:
        yield
    finally:
        scene.workers[1].thaw()


@contextmanager
def killed_redis(scene: Scene) -> Iterator[None]:
    """kill -9 of the primary; what is before it refuses, as its host does."""
    with network("redis", REFUSE)(scene):
        scene.stage.redis.kill()
        try:
            yield
        finally:
            scene.stage.redis.start()


@contextmanager
def promoted_replica(scene: Scene) -> Iterator[None]:
    """The replica is made a primary, while the other one goes on."""
    assert scene.stage.replica is not None
    with scene.stage.replica.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
        try:
            yield
        finally:
            client.execute_command("REPLICAOF", "127.0.0.1", scene.stage.redis.port)
    wait_until(scene.stage.replica._answers, "a replica that follows")


@contextmanager
def frozen_database(scene: Scene) -> Iterator[None]:
    """The database's processes stand still."""
    scene.database.freeze()
    try:
        yield
    finally:
        scene.database.thaw()


_DISK_FULL = """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END$$"""
_TRIGGERS = [
    f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION full_disk()"
    for table in matrix_sql_faults.TABLES
]


def _blip(scene: Scene) -> AbstractContextManager[Any]:
    with network("redis", RESET)(scene):
        time.sleep(0.1)  # the blip itself, which must raise no alert
    return nullcontext()


def _restarted(scene: Scene) -> AbstractContextManager[Any]:
    restart(scene.workers[2])
    return nullcontext()


FAULTS: tuple[Fault, ...] = (
    Fault("Redis is killed", cause("refuses connections", "primary"), killed_redis),
    Fault("Redis is stopped", cause("does not answer", "primary"), matrix(matrix_faults.stopped)),
    Fault("connections to Redis are reset", "unreachable", network("redis", RESET)),
    Fault("Redis is slow", cause("is slow", "primary"), network("redis", delay(0.15))),
    Fault(
        "Redis wants a password",
        cause("refuses the password", "primary"),
        redis_told("CONFIG SET requirepass secret", undo=["CONFIG SET requirepass "], cuts=True),
    ),
    Fault(
        "Redis' password is another one",
        cause("refuses the password", "primary"),
        deployed(lambda scene, worker: {"REDIS_URL": f"redis://shop:wrong@127.0.0.1:{worker.redis.port}/0"}),
    ),
    Fault(
        "Redis' user lacks a right",
        cause("its user lacks a right", "primary"),
        redis_told("ACL SETUSER default -@scripting", undo=["ACL SETUSER default +@all"]),
    ),
    Fault(
        "Redis' connections are used up",
        cause("has no connection left", "primary"),
        redis_told("CONFIG SET maxclients 2", undo=["CONFIG SET maxclients 10000"], cuts=True),
    ),
    Fault("the primary is demoted", cause("is a replica", "primary"), matrix(matrix_faults.demoted)),
    Fault(
        "Redis' memory is full",
        f"its memory is full, and|{cause('has no memory left', 'primary')}",
        matrix(matrix_faults.refusing("OOM", maxmemory=1, maxmemory_policy="noeviction")),
    ),
    Fault(
        "Redis cannot save",
        f"snapshot could not be written|{cause('refuses writes', 'primary')}",
        matrix(matrix_faults.snapshot_fails),
    ),
    Fault("a script of Redis does not end", cause("is busy", "primary"), matrix(matrix_faults.endless_script)),
    Fault("writes of Redis are paused", cause("does not answer", "primary"), matrix(matrix_faults.paused)),
    Fault(
        "Redis' name does not resolve",
        cause("its name does not resolve", "primary"),
        deployed(lambda *_: {"REDIS_URL": "redis://no-such-host.invalid:6379/0"}),
    ),
    Fault("Redis' certificate has expired", cause("its certificate has expired", "primary"), expired_certificate),
    Fault("Redis is emptied", "lost (session )?data", redis_told("FLUSHALL"), ("status", "page", "alert", "log")),
    Fault("the replica is gone", cause("refuses connections", "replica"), network("replica", REFUSE)),
    Fault("the replica is promoted", cause("is a primary itself", "replica"), promoted_replica),
    Fault("the database is gone", cause("refuses connections", "database"), network("database", REFUSE)),
    Fault("the database hangs", cause("does not answer in time", "database"), frozen_database),
    Fault(
        "the database's tables are locked",
        cause("is locked", "database"),
        matrix(matrix_sql_faults.locked),
    ),
    Fault(
        "writes of the database are slow",
        cause("does not answer in time", "database"),
        matrix(matrix_sql_faults.slow_writes),
    ),
    Fault(
        "the database is read-only",
        f"name the writer endpoint|{cause('is read-only', 'database')}",
        matrix(matrix_sql_faults.read_only),
    ),
    Fault(
        "the database has lost a table",
        f"missing: langpont_|{cause('has no tables', 'database')}",
        matrix(matrix_sql_faults.table_missing),
    ),
    Fault(
        "the database's disk is full",
        cause("its disk is full", "database"),
        database_told(_DISK_FULL, *_TRIGGERS, undo=["DROP FUNCTION full_disk CASCADE"]),
    ),
    Fault(
        "the database refuses the password",
        cause("refuses the password", "database"),
        database_told("ALTER ROLE shop RENAME TO other", undo=["ALTER ROLE other RENAME TO shop"], cuts=True),
    ),
    Fault(
        "the database has no connection left",
        cause("has no connection left", "database"),
        database_told("ALTER ROLE shop CONNECTION LIMIT 0", undo=["ALTER ROLE shop CONNECTION LIMIT -1"], cuts=True),
    ),
    Fault(
        "the database's user may not insert",
        cause("its user lacks a right", "database"),
        database_told(
            "REVOKE INSERT ON ALL TABLES IN SCHEMA public FROM shop",
            undo=["GRANT INSERT ON ALL TABLES IN SCHEMA public TO shop"],
        ),
    ),
    Fault(
        "the database's user may not delete",
        "DELETE",
        database_told(
            "REVOKE DELETE ON ALL TABLES IN SCHEMA public FROM shop",
            undo=["GRANT DELETE ON ALL TABLES IN SCHEMA public TO shop"],
        ),
        ("doctor",),
    ),
    Fault(
        "a host's disk is full in an outage",
        "journal.*(full|cannot be used)|SQLITE_FULL|room",
        full_disk,
        ("doctor", "alert", "log"),
    ),
    Fault("a host has another SECRET_KEY", "SECRET_KEY differs", other_key, ("doctor",)),
    Fault(
        "a host has other time limits",
        "IDLE_TIMEOUT differs",
        deployed(lambda *_: {"IDLE_TIMEOUT": 1800}, slice(1, 2)),
        ("doctor",),
    ),
    Fault(
        "a host's clock is wrong",
        f"the clock of|{OTHER_CLOCK.word}",
        deployed(lambda *_: {}, slice(1), **{application.CLOCK: "90"}),
        ("status", "doctor", "page", "alert"),
    ),
    Fault("a worker stands still", "does not answer", stopped_worker, ("watch",)),
)
"""Every fault."""

PLACEBOS: tuple[Fault, ...] = (
    Fault("nothing", "", lambda scene: nullcontext()),
    Fault("Redis rewrites its file", "", redis_told("BGREWRITEAOF", "CONFIG RESETSTAT", "SCRIPT FLUSH")),
    Fault("the database is tidied", "", database_told("VACUUM ANALYZE", "CHECKPOINT")),
    Fault("a tenth of a second", "", _blip),
    Fault("a deployment of a worker", "", _restarted),
    Fault("idle connections are closed", "", redis_told(cuts=True)),
)
