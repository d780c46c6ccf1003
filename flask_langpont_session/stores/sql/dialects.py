"""The differences between databases, and between drivers: tables to argue with, and what follows from them.

SQLite, which has no server, is in :mod:`.engines`; error codes are in :mod:`.errors`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine

from ...support.logs import fields

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 2
"""The seconds that making a connection may take. libpq takes no less for a limit."""

NOTHING = nullcontext()
"""May be entered any number of times, by all threads."""

_MYSQL = frozenset({"mysql", "mariadb"})
"""SQLAlchemy's names of one dialect: either may lead to either server."""


# -- drivers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Driver:
    """A driver that was run with this package.

    :param fileno: where a connection has the number of its socket. None: it has no socket.
    :param limits: its arguments that bound making a connection, in seconds.
    :param passing: those of them that go on to bound each wait for an answer: attribute of a connection that has it.
    :param arguments: further ones, for an engine of :func:`.engines.make_engine`.
    """

    fileno: Callable[[Any], Callable[[], int]] | None = None
    limits: tuple[str, ...] = ()
    passing: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


_libpq = Driver(
    fileno=attrgetter("fileno"),
    limits=("connect_timeout",),
    # A connection whose other end is gone, without a word, ends within seconds.
    arguments={
        "keepalives": 1,
        "keepalives_idle": 2,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "tcp_user_timeout": 3000,
        "application_name": "flask-langpont-session",
    },
)

DRIVERS: Mapping[str, Driver] = {
    "pysqlite": Driver(),
    "psycopg": _libpq,
    "psycopg2": _libpq,
    # Its connect_timeout is that of TCP. The server speaks first, and may not: that wait has no limit but the one of
    # all waits, which has to be taken away afterwards.
    "pymysql": Driver(
        fileno=attrgetter("_sock.fileno"),
        limits=("connect_timeout", "read_timeout"),
        passing="_read_timeout",
        arguments={"charset": "utf8mb4"},
    ),
    "mysqldb": Driver(fileno=attrgetter("fileno"), limits=("connect_timeout",), arguments={"charset": "utf8mb4"}),
}
"""SQLAlchemy's name of each."""

REFUSED: Mapping[str, str] = {
    "mariadbconnector": "it stores what it cannot encode as NULL, and hides its sockets, so that a call whose answer "
    "is lost cannot be ended; use mysql+pymysql:// or mysql+mysqldb://",
    "pg8000": "it does not know connect_timeout and options, which keep a request from waiting for the database; use "
    "psycopg or psycopg2",
}
"""Drivers with which promises of the package would be broken, and why."""

RECOMMENDED: Mapping[str, tuple[str, str]] = {
    "postgresql": ("postgresql+psycopg://", "flask-langpont-session[postgresql]"),
    **dict.fromkeys(_MYSQL, ("mysql+pymysql://", "flask-langpont-session[mariadb]")),
}
"""Backend → the beginning of its URL, and the package that it needs."""


def advice(driver: str) -> str | None:
    """Return what to say at start about a driver; None: nothing, it was run with this package."""
    if driver in DRIVERS:
        return None
    return (
        f"the database driver {driver!r} was never run with this package; those that were are "
        f"{', '.join(sorted(DRIVERS))} (docs/databases.md)"
    )


def socket_of(connection: Any) -> int | None:
    """Return the number of a connection's socket. None: it is closed, or the driver is not known."""
    for driver in DRIVERS.values():
        if driver.fileno is None:
            continue
        try:
            fd = int(driver.fileno(connection)())
        except Exception:  # another driver has it there, or this one says in its own way that it is closed
            continue
        return fd if fd >= 0 else None
    return None


def is_closed(connection: Any) -> bool:
    """Return whether the driver knows that a connection has ended."""
    return bool(getattr(connection, "closed", not getattr(connection, "open", True)))


# -- connecting --------------------------------------------------------------------------------------------------------


class _OurLimit(int):
    """Seconds of a limit that this package has set, told by the type from one of the application's."""


def has_limits(engine: Engine) -> bool:
    """Return whether it is known how to bound the making of a connection."""
    return bool(_driver_of(engine).limits)


def limit_connecting(
    is_call: Callable[[], bool], dialect: Any, record: object, args: object, params: dict[str, Any]
) -> None:
    """Bound the making of a connection as the application's engine makes it. There is no socket to be known yet, and a
    driver's own limit is minutes. What the engine says itself is kept.

    :param is_call: whether it is made for a call of this package.
    """
    for name in DRIVERS[dialect.driver].limits:
        # SQLAlchemy 2.0 shows the same dictionary at the next connection, which may be the application's.
        if type(params.get(name)) is _OurLimit:
            del params[name]
        if is_call():
            params.setdefault(name, _OurLimit(_CONNECT_SECONDS))


def end_connecting(engine: Engine) -> None:
    """Have every new connection lose the limits that were only for making it."""
    attribute = _driver_of(engine).passing
    if attribute is None:
        return

    def free(connection: Any, record: object) -> None:
        if type(getattr(connection, attribute, None)) is _OurLimit:
            setattr(connection, attribute, None)

    event.listen(engine, "connect", free, insert=True)


def arguments(url: URL) -> dict[str, Any]:
    """Return the arguments for the driver, without those that the URL says itself."""
    driver = DRIVERS.get(url.get_driver_name(), Driver())
    wanted: dict[str, Any] = {**dict.fromkeys(driver.limits, _OurLimit(_CONNECT_SECONDS)), **driver.arguments}
    return {name: value for name, value in wanted.items() if name not in url.query}


def place_of(url: URL) -> str:
    """Return the database that a URL leads to, for people: never with a user, a password or an option."""
    name, database = url.get_backend_name(), url.database
    if name == "sqlite":
        return f"sqlite, {database or 'in memory'}"
    hosts = [f"{url.host}:{url.port}" if url.port else url.host] if url.host else url.normalized_query.get("host", ())
    if not (database or hosts):
        return f"{name}, database and host as its driver finds them"
    return f"{name}, database {database!r} on {', '.join(hosts) or 'the host that its driver finds'}"


def file_of(url: URL) -> str | None:
    """Return the file of SQLite; None: another database, or one in memory."""
    is_file = url.get_backend_name() == "sqlite" and url.database != ":memory:"
    return (url.database or None) if is_file else None


def lacks_file(url: URL) -> bool:
    """Return whether the file of SQLite is not there, so that connecting would make it."""
    file = file_of(url)
    return file is not None and not file.startswith("file:") and not Path(file).exists()


def _driver_of(engine: Engine) -> Driver:
    return DRIVERS.get(engine.dialect.driver, Driver())


# -- what a statement may take -----------------------------------------------------------------------------------------


class StatementLimits:
    """Tells a server what a statement may take, and prepares connections for it. This one tells it nothing.

    :param ms: what a request's statement may take. None: an engine of the application's, which decides itself.
    """

    def __init__(self, ms: int | None) -> None:
        self._ms = ms

    @property
    def lets_stand_alone(self) -> bool:
        """Return whether a single statement is better off without BEGIN and COMMIT, which are a round trip each."""
        return True

    def alone(self, connection: Connection) -> AbstractContextManager[None]:
        """Enclose statements each of which is committed at once."""
        connection.execution_options(isolation_level="AUTOCOMMIT")  # until the pool has the connection back
        return NOTHING

    def around(self, connection: Connection, ms: int) -> AbstractContextManager[None]:
        """Enclose a transaction.

        :param ms: what a statement in it may take. 0: what a request's may.
        """
        return NOTHING

    def inside(self, connection: Connection, ms: int) -> None:
        """Prepare a transaction at its beginning; see :meth:`around`."""

    def listen(self, engine: Engine, url: URL) -> None:
        """Have the connections of an engine of ours prepared."""


_MARK = "langpont.options"
"""A setting that nothing else has: it is there if start-up options have arrived."""

_REFUSES_OPTIONS = re.compile("unsupported startup parameter|command-line options")
"""The words of PgBouncer and RDS Proxy when they refuse start-up options."""


class OfPostgreSQL(StatementLimits):
    """By start-up options, which cost nothing. A pooler (PgBouncer) refuses or ignores them, and has many clients use a
    connection in turn: there they are set in each transaction, for that alone."""

    def __init__(self, ms: int | None) -> None:
        super().__init__(ms)
        self._by_options: bool | None = None if ms else True  # None: not asked yet

    @property
    def lets_stand_alone(self) -> bool:
        return self._by_options is not False

    @contextmanager
    def alone(self, connection: Connection) -> Iterator[None]:
        # What SQLAlchemy does about it, without all that it does beside: a quarter of what a read takes here.
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.autocommit = True
        try:
            yield
        finally:
            try:
                driver_connection.autocommit = False
            except Exception:  # it has ended
                connection.invalidate()

    def inside(self, connection: Connection, ms: int) -> None:
        ms = ms or (self._ms or 0 if self._by_options is False else 0)
        if ms:
            texts = (f"set_config('{setting}', '{value}', true)" for setting, value in self._settings(ms).items())
            connection.exec_driver_sql(f"SELECT {', '.join(texts)}")

    @staticmethod
    def _settings(ms: int) -> dict[str, int]:
        # A lock that is not free is to be told from a statement that takes too long: it must end first.
        return {"statement_timeout": ms, "lock_timeout": max(1, ms // 2)}

    def listen(self, engine: Engine, url: URL) -> None:
        assert self._ms
        wanted = {_MARK: "on", **self._settings(self._ms)}
        bounds = " ".join(f"-c {setting}={value}" for setting, value in wanted.items())
        given = url.query.get("options", "")

        def connect(dialect: Any, record: object, args: Any, params: dict[str, Any]) -> Any:
            if self._by_options is not False:
                try:
                    return dialect.connect(*args, **{**params, "options": f"{bounds} {given}".strip()})
                except dialect.loaded_dbapi.OperationalError as error:
                    if not _REFUSES_OPTIONS.search(str(error)):
                        raise
                    self._meet_pooler()
            return dialect.connect(*args, **params)

        event.listen(engine, "do_connect", connect)
        event.listen(engine, "connect", self._prepare)

    def _prepare(self, connection: Any, record: object) -> None:
        if self._by_options is None:
            if _first_row(connection, f"SELECT current_setting('{_MARK}', true)") == ("on",):
                self._by_options = True
            else:
                self._meet_pooler()
        if not self._by_options and hasattr(connection, "prepare_threshold"):
            connection.prepare_threshold = None  # the next transaction may be on another server connection

    def _meet_pooler(self) -> None:
        if self._by_options is not False:
            log.info(
                "the session database takes no start-up options (a pooler?): each transaction sets its time-outs "
                "itself",
                extra=fields("no_startup_options"),
            )
        self._by_options = False


class OfMySQL(StatementLimits):
    """By variables of the connection. MariaDB ends any statement in time, MySQL only those that read; neither can wait
    less than a second for a lock. Each statement is committed at once, but behind a BEGIN: a read, or a sign-in, is one
    round trip. To bring a connection of the application's into that mode and back would cost more than it saves."""

    @property
    def lets_stand_alone(self) -> bool:
        return self._ms is not None

    def alone(self, connection: Connection) -> AbstractContextManager[None]:
        return NOTHING

    def inside(self, connection: Connection, ms: int) -> None:
        if self._ms is not None:
            connection.exec_driver_sql("BEGIN")

    def around(self, connection: Connection, ms: int) -> AbstractContextManager[None]:
        return self._limited(connection, self._ms, ms) if self._ms and ms else NOTHING

    @contextmanager
    def _limited(self, connection: Connection, usual_ms: int, ms: int) -> Iterator[None]:
        driver_connection = connection.connection.driver_connection
        _execute(driver_connection, self._setting(ms))
        try:
            yield
        finally:
            try:
                _execute(driver_connection, self._setting(usual_ms))
            except Exception:  # it has ended
                connection.invalidate()

    def listen(self, engine: Engine, url: URL) -> None:
        assert self._ms
        setting = self._setting(self._ms) + _FOR_US

        def prepare(connection: Any, record: object) -> None:
            _execute(connection, setting)

        event.listen(engine, "connect", prepare)

    @staticmethod
    def _setting(ms: int) -> str:
        # Each server skips the comment that is for the other one.
        return (
            f"SET SESSION innodb_lock_wait_timeout = {max(1, ms // 2000)} "
            f"/*M!, max_statement_time = {ms / 1000} */ /*!80000 , max_execution_time = {ms} */"
        )


_FOR_US = (
    ", autocommit = 1"
    # Else what is too long is stored cut off, and another user's name may be what is left.
    ", sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES') "
    # Else a transaction that looks for a row that is not there locks the place where it would be, and two of them wait
    # for each other.
    "/*M!, tx_isolation = 'READ-COMMITTED' */ /*!80000 , transaction_isolation = 'READ-COMMITTED' */ "
    # Else a write that has waited for another one fails, since 11.6.2, instead of looking what there is now.
    "/*M!110602 , innodb_snapshot_isolation = OFF */"
)


def name_mysql(engine: Engine) -> None:
    """Have the first connection tell whether the server is MySQL, which a URL does not tell from MariaDB."""
    dialect: Any = engine.dialect
    if dialect.name not in _MYSQL:
        return
    said = False

    def look(connection: object, record: object) -> None:
        nonlocal said
        version = dialect.server_version_info  # None: the first connection, in another thread, is still asking
        if version and not dialect.is_mariadb and not said:
            said, number = True, ".".join(map(str, version))
            log.warning(
                "the session database is MySQL %s; this package was never run with that, but with MariaDB: "
                "docs/databases.md says what differs",
                number,
                extra=fields("database_is_mysql", version=number),
            )

    event.listen(engine, "connect", look)


def limits_for(dialect: str, ms: int | None) -> StatementLimits:
    """Return the limits for a server of that kind; see :class:`StatementLimits`."""
    if dialect == "postgresql":
        return OfPostgreSQL(ms)
    return OfMySQL(ms) if dialect in _MYSQL else StatementLimits(ms)


def _execute(connection: Any, statement: str) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()


def _first_row(connection: Any, statement: str) -> Any:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return cursor.fetchone()
    finally:
        cursor.close()
        connection.rollback()
