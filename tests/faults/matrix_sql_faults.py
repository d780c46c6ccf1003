"""The faults of the database in the matrix, and the evidence of each that it happened."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import sqlalchemy as sa

from devservers.processes import LONG, wait_until

from .matrix_faults import Cause, Evidence, wire
from .matrix_site import Answer, Site, Visitor
from .proxy import REFUSE

TABLES = ("langpont_sessions", "langpont_users")


@contextmanager
def operator(site: Site) -> Iterator[sa.Connection]:
    """A connection outside of all proxies and applications, each statement a transaction."""
    engine = sa.create_engine(
        site.direct_database_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True
    )
    with engine.connect() as connection:
        yield connection


def is_live(site: Site, digest: str) -> bool:
    """Return whether the database says that a session is live."""
    with operator(site) as connection:
        live = connection.execute(sa.text("SELECT live FROM langpont_sessions WHERE digest = :d"), {"d": digest})
        return bool(live.scalar_one())


def _fails(site: Site, statement: str, before: str = "SELECT 1") -> int:
    """Return 1 if a statement over the operator's own connection fails, otherwise 0."""
    with operator(site) as connection:
        connection.exec_driver_sql(before)
        try:
            connection.exec_driver_sql(statement)
        except sa.exc.DBAPIError:
            return 1
    return 0


@contextmanager
def cut_once(site: Site) -> Iterator[Evidence]:
    """All connections are closed, new ones are accepted."""
    proxy = site.proxies["database"]
    before = proxy.counters.accepted
    proxy.drop_connections()
    yield lambda: proxy.counters.accepted - before  # each call has to connect anew


@contextmanager
def locked(site: Site) -> Iterator[Evidence]:
    """Let another client write and not come to an end."""
    if site.postgres is None:
        with sqlite3.connect(site.database_file, isolation_level=None) as writer:
            writer.execute("BEGIN IMMEDIATE")
            yield lambda: _fails(site, "BEGIN IMMEDIATE", "PRAGMA busy_timeout = 0")
            writer.execute("ROLLBACK")
        writer.close()
        return
    with operator(site) as owner, owner.execution_options(isolation_level="READ COMMITTED").begin():
        owner.exec_driver_sql(f"LOCK TABLE {', '.join(TABLES)} IN EXCLUSIVE MODE")
        yield lambda: _fails(site, f"DELETE FROM {TABLES[0]} WHERE digest = ''", "SET lock_timeout = 20")


@contextmanager
def slow_writes(site: Site) -> Iterator[Evidence]:
    """Make each write take ten seconds, and count them by a sequence, which no rollback sets back."""
    with operator(site) as connection:
        connection.exec_driver_sql("CREATE SEQUENCE slow_writes")
        connection.exec_driver_sql(
            "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM nextval('slow_writes'); PERFORM pg_sleep(10); RETURN NEW; END$$"
        )
        for table in TABLES:
            connection.exec_driver_sql(
                f"CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION sleep()"
            )
        try:
            yield lambda: int(
                connection.exec_driver_sql("SELECT last_value FROM slow_writes WHERE is_called").scalar() or 0
            )
        finally:
            connection.exec_driver_sql("DROP FUNCTION sleep CASCADE")
            connection.exec_driver_sql("DROP SEQUENCE slow_writes")


POOL_SIZE = 3


def small_engine(site: Site) -> sa.Engine:
    """An application's engine with few connections and little patience."""
    return sa.create_engine(
        site.database_url,
        poolclass=sa.QueuePool,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=0.05,
        hide_parameters=True,
    )


@contextmanager
def exhausted(site: Site) -> Iterator[Evidence]:
    """The application has all connections of its pool, and keeps them. Sessions have another one."""
    engine: sa.Engine = site.app.config["LANGPONT_SESSION_DATABASE_URL"]

    def refuses() -> int:
        try:
            engine.connect()
        except sa.exc.TimeoutError:
            return 1
        return 0

    with ExitStack() as stack:
        for _ in range(POOL_SIZE):
            stack.enter_context(engine.connect())
        yield refuses


@contextmanager
def read_only(site: Site) -> Iterator[Evidence]:
    """Make the database read-only, as after a failover that its clients did not notice."""
    with operator(site) as connection:
        _set_read_only(connection, True)
        try:
            yield lambda: _fails(site, f"DELETE FROM {TABLES[0]} WHERE digest = ''")
        finally:
            connection.exec_driver_sql("SET default_transaction_read_only = off")
            _set_read_only(connection, False)


def _set_read_only(connection: sa.Connection, value: bool) -> None:
    setting = "SET default_transaction_read_only = on" if value else "RESET default_transaction_read_only"
    connection.exec_driver_sql(f"ALTER SYSTEM {setting}")
    connection.exec_driver_sql("SELECT pg_reload_conf()")
    # Of a connection that was made since: this one may have a setting of its own.
    wait_until(lambda: _reads_only(connection.engine) == value, "a reloaded configuration")


def _reads_only(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.exec_driver_sql("SHOW default_transaction_read_only").scalar() == "on")


@contextmanager
def table_missing(site: Site) -> Iterator[Evidence]:
    """An operator has renamed it."""
    site.app.testing = False  # where it would be made again
    with operator(site) as connection:
        connection.exec_driver_sql(f"ALTER TABLE {TABLES[0]} RENAME TO somewhere_else")
        try:
            yield lambda: _fails(site, f"SELECT 1 FROM {TABLES[0]}")
        finally:
            connection.exec_driver_sql(f"ALTER TABLE somewhere_else RENAME TO {TABLES[0]}")


@contextmanager
def first_at_the_same_time(site: Site) -> Iterator[Evidence]:
    """A user signs out everywhere here while another host, which is quicker, does the same for them: both find no row
    of the user's and insert one. A sequence, which no rollback sets back, counts the tries."""
    user = Visitor(site)
    user.arrive()
    answers: list[Answer] = []
    with operator(site) as connection:
        connection.exec_driver_sql("CREATE SEQUENCE first_epochs")
        connection.exec_driver_sql(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM nextval('first_epochs'); RETURN NEW; END$$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER note BEFORE INSERT ON langpont_users FOR EACH ROW "
            "WHEN (NEW.user_id NOT LIKE '@probe-%%') EXECUTE FUNCTION note()"
        )
        here = threading.Thread(target=lambda: answers.append(user.send("POST", "/sign-out-everywhere")))
        with operator(site) as host, host.execution_options(isolation_level="READ COMMITTED").begin():
            host.execute(sa.text("INSERT INTO langpont_users VALUES (:user, 1)"), {"user": user.values["user"]})
            here.start()
            wait_until(lambda: _waiting(connection) == 1, "the second one")
        here.join(LONG)
        assert [answer.text for answer in answers] == ["True"], "the database knows of it"
        assert (user.read().shown or {})["auth"] == [None, None]
        duplicates = "SELECT last_value - (SELECT count(*) FROM langpont_users) FROM first_epochs"
        try:
            yield lambda: int(connection.exec_driver_sql(duplicates).scalar_one())
        finally:
            connection.exec_driver_sql("DROP FUNCTION note CASCADE")
            connection.exec_driver_sql("DROP SEQUENCE first_epochs")


def _waiting(connection: sa.Connection) -> int:
    """Return how many locks are waited for until another transaction ends."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    return int(connection.exec_driver_sql(waiting).scalar_one())


@contextmanager
def no_database(site: Site) -> Iterator[Evidence]:
    """A worker starts and finds something else in the place of SQLite's file."""
    good = site.database_file.with_suffix(".good")
    site.stop()
    with sqlite3.connect(site.database_file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    site.database_file.rename(good)
    site.database_file.write_bytes(b"this is no database" * 400)
    try:
        site.start()
        yield lambda: _fails(site, "PRAGMA user_version")
    finally:
        good.rename(site.database_file)


def started_without(*stores: str) -> Cause:
    """A worker starts while none of these stores answers."""

    @contextmanager
    def cause(site: Site) -> Iterator[Evidence]:
        with ExitStack() as stack:
            evidence = stack.enter_context(wire(REFUSE, *stores)(site))
            site.start()
            yield evidence

    return cause
