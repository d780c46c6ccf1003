"""Connections to the SQL database: how they are made, lent, distrusted after an outage, and kept out of a fork."""

from __future__ import annotations

import os
import select
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DisconnectionError, IntegrityError
from sqlalchemy.pool import PoolResetState

from ...support.files import create_private
from ...support.forks import call_in_children
from .bulkhead import GivenUp, is_call, no_longer_waiting_on, raise_if_given_up, waiting_on
from .cursor import execute
from .dialects import (
    NOTHING,
    arguments,
    end_connecting,
    has_limits,
    is_closed,
    limit_connecting,
    limits_for,
    name_mysql,
    socket_of,
)
from .errors import OwnTransaction, waited_for_a_lock

T = TypeVar("T")

PATIENT_SECONDS = 10.0
"""The seconds that work may take for which no request waits: purge, lists for the recovery, looking for tables."""

OWN_SHARE = 0.8
"""The share of the time-out after which the database itself gives up, so that its reason arrives before ours."""

_LOOK, _MOMENT = 0.001, 1.0
"""Seconds between two looks at SQLite's lock, and for which writers of other processes count as met."""

_NO_TURN = nullcontext(0.0)
"""Other databases have more than one lock."""

_BEGAN, _COMMITTED = "langpont_began", "langpont_committed"

_OWN = "langpont_own"
"""Execution option of engines that :func:`make_engine` has made: their :class:`~.dialects.StatementLimits`."""

_Listener = tuple[str, Callable[..., Any]]
"""Name of an event, and its listener."""


def make_engine(url: str | URL, timeout: float, *, durable: bool = True) -> Engine:
    """Return an engine for :class:`~.database.Database` alone: every wait is bounded, no value reaches a log.

    :param url: for SQLAlchemy. What it says itself (`connect_timeout` …) is kept.
    :param timeout: seconds, as given to the store.
    :param durable: SQLite: what was answered survives a power cut. Waits for the disk at each commit.
    """
    address = make_url(url)
    dialect, ms = address.get_backend_name(), _share_of(timeout)
    limits = limits_for(dialect, ms)
    # The store bounds how many connections there are; a second limit here could only differ from that.
    engine = sa.create_engine(
        address,
        connect_args=arguments(address),
        execution_options={_OWN: limits},
        hide_parameters=True,
        max_overflow=-1,
        pool_recycle=1800,
        pool_reset_on_return=None,
        pool_use_lifo=True,
    )
    event.listen(engine, "reset", _roll_back)
    if dialect == "sqlite":
        _prepare_sqlite(engine, ms, "FULL" if durable else "OFF")
    _watch(engine)
    limits.listen(engine, address)
    return engine


def _beside(engine: Engine) -> Engine:
    """Return an engine with a pool of its own, whose connections are made and prepared as those of the application's
    are: by the same creator, and with the listeners that the application's pool has by now."""
    own = sa.create_engine(
        engine.url,
        module=engine.dialect.loaded_dbapi,
        pool=engine.pool.recreate(),
        execution_options=dict(engine.get_execution_options()),
        hide_parameters=True,
    )
    _watch(own)
    return own


def _prepare_sqlite(engine: Engine, busy_ms: int, synchronous: str) -> None:
    @event.listens_for(engine, "do_connect")
    def create(dialect: Any, record: Any, args: tuple[Any, ...], params: dict[str, Any]) -> None:
        if not str(args[0]).startswith("file:"):
            create_private(Path(args[0]))

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: object) -> None:
        # No BEGIN by the driver: it would begin deferred, and a deferred transaction fails instead of waiting when it
        # turns out to write.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {busy_ms}")
        _use_wal(connection, busy_ms / 1000)
        # FULL: a logout that was answered survives a power cut. NORMAL may lose the last commits in WAL mode.
        connection.execute(f"PRAGMA synchronous = {synchronous}")


def _use_wal(connection: sqlite3.Connection, seconds: float) -> None:
    """Have readers and the writer not wait for each other. To turn it on is all that SQLite does not wait for."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)  # nothing tells when the other connection is done


class Connections:
    """Lends the connections of an engine, for one transaction each. A thread may have one at a time.

    May be used in a forked child: that gets connections of its own, the inherited ones are left to the parent.

    :param engine: of :func:`make_engine`, or the application's. Of that only the way in which connections are made is
        used: they lie in another pool, and nothing of its own is lent, replaced or closed here (but with SQLite, when
        the process forks).
    :param timeout: seconds that a write may wait for SQLite's lock, for the most part: an engine of the application's
        waits as long as the application likes.
    """

    def __init__(self, engine: Engine, timeout: float) -> None:
        limits = engine.get_execution_options().get(_OWN)
        self._is_own = limits is not None
        self._limits = limits or limits_for(engine.dialect.name, None)
        self.engine = engine if self._is_own else _beside(engine)
        self._request_ms = _share_of(timeout)
        self._writers = threading.Lock()
        self._met_others_at = float("-inf")
        self._dialect = engine.dialect.name
        self._allowed = threading.local()
        self._distrusted_before = 0.0
        self._transactions: dict[int, _Transaction] = {}
        event.listen(self.engine, "checkout", self._check)
        self._given = engine
        self._listeners = [] if self._is_own else list(self._listeners_there())
        for name, listener in self._listeners:
            event.listen(engine, name, listener)
        _lenders.add(self)

    def leave(self) -> None:
        """Close the connections, and listen to the application's engine no more."""
        event.listen(self.engine, "checkin", _close_returned)
        self.engine.dispose()
        if self in _lenders:
            _lenders.discard(self)
            for name, listener in self._listeners:
                event.remove(self._given, name, listener)

    def _listeners_there(self) -> Iterator[_Listener]:
        """Yield listeners for the given engine: what another pool does not see. Each store has its own ones."""
        if self._is_sqlite:
            yield "begin", self._note_transaction
        elif has_limits(self.engine):
            yield "do_connect", partial(limit_connecting, is_call)

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Let this thread's statements take so long, whatever :func:`make_engine` allows a request."""
        before, self._allowed.ms = self._allowed_ms, _share_of(seconds)
        try:
            yield
        finally:
            self._allowed.ms = before

    @property
    def single_statements_stand_alone(self) -> bool:
        """Return whether a statement that is a transaction by itself is sent as one, see :meth:`alone`."""
        # SQLite has no round trips that could be saved. A limit for a transaction needs one.
        return self._limits.lets_stand_alone and not (self._is_sqlite or self._allowed_ms)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection for one statement that reads."""
        allowed_ms = self._allowed_ms
        is_alone = self.single_statements_stand_alone
        with (
            self._unforked(),
            self.engine.connect() as connection,
            self._limits.alone(connection) if is_alone else self._limits.around(connection, allowed_ms),
        ):
            if not is_alone:
                self._limits.inside(connection, allowed_ms)
            yield connection
            connection.info[_COMMITTED] = is_alone

    @contextmanager
    def alone(self, undo: sa.Executable, values: Mapping[str, Any]) -> Iterator[Connection]:
        """Lend a connection for one write, committed at once, where :attr:`single_statements_stand_alone`.

        :param undo: takes back what it did, with these values.
        :raises GivenUp: the caller was told that it failed: nothing was sent, or it was taken back.
        """
        with self.engine.connect() as connection, self._limits.alone(connection):
            raise_if_given_up()
            yield connection
            connection.info[_COMMITTED] = True
            try:
                raise_if_given_up()
            except GivenUp:
                connection.execute(undo, values)
                raise

    def writing(self) -> AbstractContextManager[Connection]:
        """Lend a connection for a transaction that has the lock for writing from its start, if there is only one.

        :raises GivenUp: the caller was told that it failed; so it has.
        """
        wait_ms = self._allowed_ms or (None if self._is_own else self._request_ms)
        return self._transaction(wait_ms, before_commit=raise_if_given_up)

    def defining(self) -> AbstractContextManager[Connection]:
        """Lend a connection that makes tables, whether or not a call still waits for it: others need them, too."""
        return self._transaction(self._allowed_ms)

    def writing_without_waiting(self) -> AbstractContextManager[Connection]:
        """Lend a connection for SKIP LOCKED. SQLite has no such thing; there the wait itself is taken away."""
        return self._transaction(0)

    @contextmanager
    def _transaction(
        self, wait_ms: int | None, *, before_commit: Callable[[], None] = lambda: None
    ) -> Iterator[Connection]:
        """:param wait_ms: how long SQLite's lock is waited for. None: as long as the engine says."""
        allowed_ms = self._allowed_ms
        with (
            self._unforked(),
            self.engine.connect() as connection,
            self._turn(connection, wait_ms) if self._is_sqlite else _NO_TURN as until,
            self._limits.around(connection, allowed_ms),
        ):
            with connection.begin():
                if self._is_sqlite and self._is_own:  # the driver of an application's engine begins by itself
                    self._begin_writing(connection, until)
                self._limits.inside(connection, allowed_ms)
                yield connection
                before_commit()
            connection.info[_COMMITTED] = True

    @contextmanager
    def _turn(self, connection: Connection, wait_ms: int | None) -> Iterator[float]:
        """Have the threads of this process ask for SQLite's lock one after the other.

        A wait for that lock inside of SQLite looks for it again after ever longer pauses, in which others take it: of a
        few writers at once, some would never get it. Its holder waits for other processes only, and not for long.

        :param wait_ms: see :meth:`_transaction`; for the turn and the lock together.
        :return: until when the lock may be waited for, monotonic seconds.
        """
        whole = (self._request_ms if wait_ms is None else wait_ms) / 1000
        until = time.monotonic() + whole
        writers = self._writers
        is_its = writers.acquire(timeout=whole)  # else SQLite says what keeps it
        try:
            with NOTHING if self._is_own else _waiting(connection, _ms_until(until)):
                yield until
        finally:
            if is_its:
                writers.release()

    def _begin_writing(self, connection: Connection, until: float) -> None:
        """Take SQLite's lock. It is looked for once in a millisecond, and left free for two of them while writers of
        other processes were met a moment ago, so that these have their turn.

        :param until: monotonic seconds.
        """
        if time.monotonic() - self._met_others_at < _MOMENT:
            time.sleep(2 * _LOOK)  # SQLite has no queue that other processes could wait in
        with _waiting(connection, 0):
            while True:
                try:
                    execute(connection, "BEGIN IMMEDIATE")
                except sa.exc.OperationalError as error:
                    if not waited_for_a_lock(error) or time.monotonic() >= until:
                        raise
                    self._met_others_at = time.monotonic()
                else:
                    return
                time.sleep(_LOOK)  # SQLite's own waiting looks ever more rarely

    def beside_the_caller(self) -> AbstractContextManager[None]:
        """Prepare for a write that another thread does while this one waits for it. A transaction that this one has
        open on the same SQLite would keep that thread waiting until no call waits for it any more.

        :raises OwnTransaction: it has one, which has written; or it has one, and the lock could not be had in time.
        """
        own = self._transaction_here() if self._transactions else None
        if own is None:
            return NOTHING
        if own.has_written:
            raise OwnTransaction
        return _naming_the_own()

    def _transaction_here(self) -> _Transaction | None:
        """Return the transaction that the application has open in this thread; None: there is none."""
        here = threading.get_ident()
        for transaction in list(self._transactions.values()):
            if transaction.thread == here and transaction.is_open:
                return transaction
        return None

    def _note_transaction(self, connection: Connection) -> None:
        key = id(connection)
        held = weakref.ref(connection, lambda _: self._transactions.pop(key, None))
        changes = _sqlite_of(connection).total_changes
        self._transactions[key] = _Transaction(held, threading.get_ident(), changes)

    def distrust(self) -> None:
        """Let no connection that is open by now be lent again: it is not known which server it leads to, if to any."""
        self._distrusted_before = time.monotonic()

    @property
    def _allowed_ms(self) -> int:
        """Return how long a statement of this thread may take, milliseconds; 0: as long as the engine says."""
        return getattr(self._allowed, "ms", 0)

    @property
    def _is_sqlite(self) -> bool:
        return self._dialect == "sqlite"

    def _unforked(self) -> AbstractContextManager[None]:
        # SQLite only: no fork may have to wait for a server that hangs.
        return _gate if self._is_sqlite else NOTHING

    def _check(self, connection: object, record: Any, proxy: object) -> None:
        """Have the pool close a connection that has ended, or is distrusted, and open a new one, when it is lent."""
        has_ended = not self._is_sqlite and _has_ended(connection)  # a file does not end
        if has_ended or record.info.get(_BEGAN, 0.0) < self._distrusted_before:
            raise DisconnectionError

    def _before_fork(self) -> None:
        if self._is_sqlite:
            # The locks are those of the process and a file, whatever opened it.
            for engine in {self.engine, self._given}:
                engine.dispose()

    def _after_fork_in_child(self) -> None:
        self._allowed = threading.local()
        self._writers = threading.Lock()
        # Not closed: that would say goodbye to the server on the parent's connections.
        self.engine.dispose(close=False)


@contextmanager
def _naming_the_own() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if waited_for_a_lock(error):
            raise OwnTransaction from None
        raise


def inserted(
    connections: Connections,
    insert: Callable[[Connection], T],
    otherwise: Callable[[Connection], T],
    lend: Callable[[], AbstractContextManager[Connection]] | None = None,
) -> T:
    """Insert a row, or do something else where one is there. These are two short transactions instead of a savepoint,
    which would cost every insert two round trips.

    :param lend: the connection that inserts.
    """
    with suppress(IntegrityError), (lend or connections.writing)() as connection:
        return insert(connection)
    with connections.writing() as connection:
        return otherwise(connection)


class _Transaction(NamedTuple):
    """A transaction that the application has begun.

    :param changes: the rows that its connection had changed before.
    """

    connection: weakref.ref[Connection]
    thread: int
    changes: int

    @property
    def is_open(self) -> bool:
        """Return whether the transaction holds, or may hold, a lock."""
        connection = self.connection()
        return connection is not None and connection.in_transaction() and bool(_sqlite_of(connection).in_transaction)

    @property
    def has_written(self) -> bool:
        """Return whether the transaction holds the lock for writing for certain."""
        connection = self.connection()
        return connection is not None and bool(_sqlite_of(connection).total_changes > self.changes)


def _sqlite_of(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _share_of(seconds: float) -> int:
    """Return the milliseconds after which the database itself gives up."""
    return max(1, int(seconds * OWN_SHARE * 1000))


def _ms_until(moment: float) -> int:
    return max(0, int((moment - time.monotonic()) * 1000))


def _has_ended(connection: Any) -> bool:
    """Return whether the server closed a connection while it lay in the pool. Costs no round trip: nothing was asked,
    so what there is to read can only be the end, or a notice after which a new connection does no harm either."""
    fd = socket_of(connection)
    if fd is None:
        return is_closed(connection)
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    return bool(waiting.poll(0))


def _note_beginning(connection: object, record: Any) -> None:
    record.info[_BEGAN] = time.monotonic()


def _watch(engine: Engine) -> None:
    """Have every connection note when it began and, but for SQLite, say which call waits on it: from being made, pinged
    or lent until just before it is closed or back in the pool; the rollback of the pool is waited for, too."""
    event.listen(engine, "connect", _note_beginning)
    dialect: Any = engine.dialect
    if dialect.name == "sqlite":
        return
    # First of all listeners: what SQLAlchemy asks a new connection may be what is not answered.
    event.listen(engine, "connect", _note_wait, insert=True)
    for name, listener in (("checkout", _note_wait), ("checkin", _note_return), ("close", _note_close)):
        event.listen(engine, name, listener)
    end_connecting(engine)
    name_mysql(engine)
    # There is no event before a ping (`pool_pre_ping`).
    dialect.do_ping = partial(_ping, dialect.do_ping)


def _ping(ping: Callable[[Any], bool], connection: Any) -> bool:
    _note_wait(connection)
    return ping(connection)


def _roll_back(connection: Any, record: Any, state: PoolResetState) -> None:
    """Roll back before a connection is back in the pool. After a commit there is nothing to be rolled back: with
    MariaDB that is a round trip."""
    if not (record.info.pop(_COMMITTED, False) or state.terminate_only):
        connection.rollback()


def _note_wait(connection: Any, *_: object) -> None:
    fd = socket_of(connection)
    if fd is not None:
        waiting_on(connection, fd)


def _note_return(connection: Any, record: Any) -> None:
    if no_longer_waiting_on(connection):
        record.invalidate()  # the answer came at the last moment


def _close_returned(connection: object, record: Any) -> None:
    """Close a connection that a hanging call returns late: no pool takes it back."""
    record.invalidate()


def _note_close(connection: Any, record: object) -> None:
    no_longer_waiting_on(connection)


@contextmanager
def _waiting(connection: Connection, ms: int) -> Iterator[None]:
    """Set how long a connection waits for SQLite's lock meanwhile."""
    driver: Any = connection.connection.driver_connection
    [waits] = driver.execute("PRAGMA busy_timeout").fetchone()
    driver.execute(f"PRAGMA busy_timeout = {ms}")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA busy_timeout = {waits}")


class _ForkGate:
    """Holds users of SQLite (`with`) off while the process forks, and the fork until they have finished."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._forks = 0

    def __enter__(self) -> None:
        with self._changed:
            while self._forks:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._forks:
                self._changed.notify_all()

    def close(self, seconds: float) -> None:
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: not self._inside, seconds)

    def open(self) -> None:
        with self._changed:
            # Another thread may have imported this module in the middle of a fork, after the hooks that close.
            self._forks = max(0, self._forks - 1)
            self._changed.notify_all()


_lenders: weakref.WeakSet[Connections] = weakref.WeakSet()
_gate = _ForkGate()


def _before_fork() -> None:
    # SQLite keeps in memory which locks the process holds. A child inherits that memory but not the locks, and would
    # believe in them for ever: nothing may be open when the process forks.
    _gate.close(PATIENT_SECONDS)
    for connections in list(_lenders):
        connections._before_fork()


def _after_fork_in_child() -> None:
    global _gate
    _gate = _ForkGate()
    for connections in list(_lenders):
        connections._after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=lambda: _gate.open())
call_in_children(_after_fork_in_child)
