"""Database calls on connections that swallow everything: how long each waits, how many hang, and which end."""

from __future__ import annotations

import socket
import sqlite3
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from devservers.processes import LONG, spawn, wait_until
from devservers.servers import Postgres
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.sql import bulkhead, dialects, engines
from flask_langpont_session.stores.sql.database import Database
from flask_langpont_session.stores.sql.engines import make_engine
from tests.faults.proxy import HANG, SWALLOW_REPLY, FaultProxy

from .behind import NO_LIMITS, emptied
from .mariadb import MariaDB
from .unix_socket import UnixConnection

pytestmark = pytest.mark.real_time("waits of a quarter of a second, by the real clock")

HOUR = 3_600_000
SHORT = 0.25

GIVEN_UP = ("DeadlineExceeded", "StartedLate")
"""Causes of a call that had no answer in its time; the second one where this process itself was late."""

SLOTS = 2
LIFE = Life(HOUR, HOUR)
IN_AN_HOUR = int(time.time() * 1000) + HOUR


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Postgres | MariaDB:
    """PostgreSQL, but for what the driver or the way to connect makes a difference to."""
    found: Postgres | MariaDB = request.getfixturevalue(getattr(request, "param", "postgres"))
    return found


on_each = pytest.mark.parametrize("server", ["postgres", "mariadb"], indirect=True)
"""To connect to the one, the client speaks first, to the other the server."""


@pytest.fixture
def proxy(server: Postgres | MariaDB) -> Iterator[FaultProxy]:
    """Yield a proxy between the tests and the database."""
    with FaultProxy("127.0.0.1", server.port, greets=isinstance(server, MariaDB)) as proxy:
        yield proxy


@pytest.fixture
def url(proxy: FaultProxy, server: Postgres | MariaDB) -> str:
    """The database as seen through the proxy, one session in it."""
    direct = Database(make_engine(emptied(server), LONG), timeout=LONG)
    direct.upkeep.create_tables()
    create(direct, "digest")
    direct.close()
    return proxy.instead_of(server.url) + NO_LIMITS["mariadb" if isinstance(server, MariaDB) else "postgresql"]


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A store with the default time-out whose connections go through the proxy. None is open yet."""
    database = Database(make_engine(url, SHORT), timeout=SHORT, concurrency=SLOTS)
    yield database
    # A connection that comes back after the end would never be closed.
    wait_until(lambda: not (database.calls.requests.busy or database.calls.probes.busy), "the end of hung calls")
    database.close()
    database.engine.dispose()


def create(database: Database, digest: str, kill: str | None = None) -> AuthRow:
    created = database.create(digest, user_id="7", payload={}, idle_ms=HOUR, absolute_ms=HOUR, kill=kill)
    assert created is not None
    return created.row


def warm(database: Database) -> None:
    """Open as many connections as calls may need."""
    connections = [database.engine.connect() for _ in range(SLOTS)]
    for connection in connections:
        connection.close()


def in_threads(count: int, call: Callable[[], object]) -> list[object]:
    """Return what the calls returned or raised, for those that ended."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    return results


def until_swallowed(proxy: FaultProxy, count: int) -> None:
    """Wait until so many requests were lost, each on a connection of its own."""
    wait_until(lambda: proxy.hits["hang"] >= count, "a request that is swallowed")
    assert proxy.hits["hang"] == count


def until_it_answers(database: Database) -> None:
    def answers() -> bool:
        try:
            database.probe(1.0)
            return bool(database.load("digest"))
        except StoreError:
            return False

    wait_until(answers, "answer of the database")


CALLS: dict[str, Callable[[Database], object]] = {
    "load": lambda database: database.load("digest", life=LIFE, idle_seen=0),
    "kill_user_until": lambda database: database.kill_user_until("7", IN_AN_HOUR),
}


@pytest.mark.usefixtures("on_time")
@pytest.mark.parametrize(("name", "is_warm"), [("load", False), ("load", True), ("kill_user_until", True)])
def test_a_deadline_holds_on_a_black_hole(database: Database, proxy: FaultProxy, name: str, is_warm: bool) -> None:
    """The caller goes on while its connection still swallows everything; nothing but the store's deadline ends it."""
    if is_warm:
        warm(database)
    with proxy.failing(HANG):
        [error] = in_threads(1, lambda: CALLS[name](database))
        until_swallowed(proxy, 1)
        assert database.calls.requests.busy == 1  # the call itself hangs on
    assert isinstance(error, StoreError)
    assert (error.error_class, error.cause, error.timed_out) == (ErrorClass.UNREACHABLE, "DeadlineExceeded", True)


WRITES: dict[str, Callable[[Database], object]] = {
    "create": lambda database: create(database, "new").version,
    "create instead of": lambda database: create(database, "new", kill="digest").version,
    "kill_user": lambda database: database.kill_user("7") > 0,
}


@pytest.mark.parametrize(
    ("name", "server"), [*((name, "postgres") for name in WRITES), ("create", "mariadb")], indirect=["server"]
)
def test_a_write_whose_commit_is_not_answered_can_be_repeated(
    database: Database, proxy: FaultProxy, server: Postgres | MariaDB, name: str
) -> None:
    """The outcome is unknown to the caller, though it is written; the same call again does nothing more."""
    direct = Database(make_engine(server.url, LONG), timeout=LONG)
    if name == "kill_user":
        direct.kill_user("7")  # the first time takes a transaction more
        create(direct, "another")
    warm(database)

    def state() -> list[tuple[str, int, bool]]:
        return [(row.digest, row.version, row.live) for row in direct.sessions_of("7")]

    before = state()
    commits_itself = name == "create" and database.connections.single_statements_stand_alone
    moment = "before_cursor_execute" if commits_itself else "commit"
    sa.event.listen(database.engine, moment, partial(swallow, proxy), once=True)
    [error] = in_threads(1, lambda: WRITES[name](database))
    assert isinstance(error, StoreError)
    assert error.timed_out
    wait_until(lambda: proxy.hits["swallow_reply"] == 1, "an answer that is lost")
    written = state()
    assert written != before
    proxy.heal()
    proxy.drop_connections()
    until_it_answers(database)
    database.calls.timeout = LONG
    again = [WRITES[name](database) for _ in range(2)]
    assert again[0] == again[1]
    assert state() == written
    direct.close()


def swallow(proxy: FaultProxy, *_: object) -> None:
    """Lose all replies from here on, as a listener. `lost_replies` tells whether one was lost."""
    proxy.impose(SWALLOW_REPLY)


def lost_replies(proxy: FaultProxy) -> int:
    return proxy.hits["swallow_reply"]


def shared_engine(url: str) -> sa.Engine:
    """Return an engine of an application, which says nothing of time-outs."""
    return sa.create_engine(url.partition("?")[0])


ENGINES: dict[str, Callable[[str], sa.Engine]] = {
    "its own": lambda url: make_engine(url, SHORT),
    "the application's": shared_engine,
}


both_drivers = pytest.mark.parametrize(
    ("engine", "server"), [("its own", "postgres"), ("the application's", "mariadb")], indirect=["server"]
)


@both_drivers
def test_a_lost_reply_costs_no_slot(url: str, proxy: FaultProxy, engine: str) -> None:
    """Nothing is wrong with the connection, and no answer ever comes: it is shut down, and others have the slot."""
    database = Database(ENGINES[engine](url), timeout=SHORT, concurrency=1)
    warm(database)
    with proxy.failing(SWALLOW_REPLY):
        [error] = in_threads(1, lambda: database.load("digest"))
        wait_until(lambda: lost_replies(proxy) > 0, "an answer that is lost")
    assert isinstance(error, StoreError)
    assert error.timed_out
    until_overdue_calls_end(database)
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    database.calls.timeout = LONG
    assert database.load("digest")
    database.probe(LONG)
    database.close()
    database.engine.dispose()


def until_overdue_calls_end(database: Database) -> None:
    def has_ended() -> bool:
        database.calls.end_overdue(0.0)
        return not database.calls.requests.busy

    wait_until(has_ended, "a free slot")


@both_drivers
def test_a_new_connection_whose_first_question_is_lost_costs_no_slot(url: str, proxy: FaultProxy, engine: str) -> None:
    """SQLAlchemy asks the first one of an engine for the server's version, before any call has it."""
    database = Database(ENGINES[engine](url), timeout=SHORT, concurrency=1)
    sa.event.listen(database.engine, "connect", partial(swallow, proxy), insert=True, once=True)
    [error] = in_threads(1, lambda: database.load("digest"))
    assert isinstance(error, StoreError)
    wait_until(lambda: lost_replies(proxy) > 0, "an answer that is lost")
    proxy.heal()
    until_overdue_calls_end(database)
    until_it_answers(database)
    database.close()
    database.engine.dispose()


CONNECTIONS: dict[str, Callable[[socket.socket], object]] = {
    "psycopg, psycopg2, mysqlclient": lambda wire: wire,
    "PyMySQL": lambda wire: SimpleNamespace(_sock=wire),
}


@pytest.mark.parametrize("driver", CONNECTIONS)
def test_the_socket_of_a_connection_is_found(driver: str) -> None:
    """The socket of each driver's connection is found while it is open."""
    with socket.socket() as wire:
        connection = CONNECTIONS[driver](wire)
        assert dialects.socket_of(connection) == wire.fileno()
    assert dialects.socket_of(connection) is None


def test_what_has_no_socket_is_left_alone() -> None:
    """SQLite, a driver that is not known, one of PyMySQL that is closed, and one of psycopg."""
    with closing(sqlite3.connect(":memory:")) as file:
        assert dialects.socket_of(file) is None
    assert dialects.socket_of(SimpleNamespace(_sock=None)) is None
    assert dialects.socket_of(SimpleNamespace(fileno=lambda: 1 / 0)) is None


@on_each
def test_a_connection_that_was_shut_down_is_not_used_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was shut down is not used again, also if its answer came at the last moment, the call ended
    well, and the driver does not know it either."""
    monkeypatch.setattr(engines, "_has_ended", lambda _: False)
    database = Database(make_engine(url, LONG), timeout=LONG, concurrency=1)

    number = "SELECT pg_backend_pid()" if url.startswith("postgresql") else "SELECT connection_id()"

    found: list[int] = []

    def work() -> None:
        with database.connections.reading() as connection:
            found.append(connection.exec_driver_sql(number).scalar_one())
            bulkhead._here.job.cut_off()

    with suppress(sa.exc.OperationalError):  # MariaDB's read was in a transaction, which could not be ended
        database.calls.requests.call(work, LONG)
    with database.engine.connect() as connection:
        found.append(connection.exec_driver_sql(number).scalar_one())
    assert len(set(found)) == 2
    database.close()
    database.engine.dispose()


APPLICATION = """
    import os
    from flask_langpont_session.policy.errors import StoreError
    from flask_langpont_session.stores.sql.database import Database
    from flask_langpont_session.stores.sql.engines import make_engine

    database = Database(make_engine(os.environ["URL"], 0.25), timeout=0.25)

    def application(environ, start_response):
        try:
            answer = database.load("digest").state.value
        except StoreError as error:
            answer = error.cause
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
        return [answer.encode()]
"""


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def get(path: Path) -> str:
    connection = UnixConnection(str(path), timeout=LONG)
    try:
        connection.request("GET", "/", headers={"Host": "localhost"})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_gunicorn_stops_while_a_call_hangs(url: str, proxy: FaultProxy, tmp_path: Path) -> None:
    """The request was answered, and SIGTERM ends the worker at once, although it might take an hour."""
    (tmp_path / "blackhole.py").write_text(textwrap.dedent(APPLICATION))
    path, log = tmp_path / "socket", tmp_path / "log"
    options = ["--bind", f"unix:{path}", "--worker-class", "gthread", "--graceful-timeout", "3600", "--timeout", "3600"]
    process = spawn(
        [sys.executable, "-m", "gunicorn", *options, "--no-control-socket", "blackhole:application"],
        log=log,
        cwd=tmp_path,
        env={"URL": url, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        wait_until(lambda: listens(path), "gunicorn")
        wait_until(lambda: get(path) == "valid", "an answer")
        hits = proxy.hits["hang"]
        with proxy.failing(HANG):
            assert get(path) in GIVEN_UP
            # More than one, if a call that was given up before the first answer still talks to the database.
            wait_until(lambda: proxy.hits["hang"] > hits, "a request that is swallowed")
            process.terminate()
            assert process.wait(LONG) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "SIGKILL" not in log.read_text()
