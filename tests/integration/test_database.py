"""The auth rows, on SQLite, a real PostgreSQL and a real MariaDB: what they promise, and what is said when they cannot
be had."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy import dialects
from sqlalchemy.engine import Engine

from devservers.processes import LONG, wait_until
from devservers.servers import Postgres
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.rows import AuthRow, Created, Limit, Position, RowState
from flask_langpont_session.policy.serializer import encode
from flask_langpont_session.stores.codec.plain import PLAIN, Codec
from flask_langpont_session.stores.sql import tables
from flask_langpont_session.stores.sql.database import Database
from flask_langpont_session.stores.sql.engines import make_engine
from flask_langpont_session.stores.sql.errors import BRING_BACK
from flask_langpont_session.stores.sql.tables import METADATA, SESSIONS, USERS
from tests.support.codecs import SEALING

from .conftest import unforced
from .mariadb import MariaDB
from .rows import HOUR, PAYLOAD, create, load, locked, together, until_it_answers, update

T = TypeVar("T")

LIFE = Life(HOUR, 12 * HOUR)
SHORT = 0.25


MakeDatabase = Callable[..., Database]


def codec_of(url: str) -> Codec:
    """Return the codec with which an engine's database is tested."""
    return SEALING if url.endswith("sealed.sqlite3") else PLAIN


@pytest.fixture
def make_database(database_url: str) -> Iterator[MakeDatabase]:
    """Yield a factory of stores on one database; patient unless told otherwise."""
    made: list[Database] = []

    def make(timeout: float = LONG, concurrency: int = 4, url: str = database_url, **options: Any) -> Database:
        options.setdefault("codec", codec_of(url))
        made.append(Database(make_engine(url, timeout), timeout=timeout, concurrency=concurrency, **options))
        unforced(made[-1].engine)
        return made[-1]

    yield make
    for database in made:
        database.close()


@pytest.fixture
def database(make_database: MakeDatabase) -> Database:
    database = make_database()
    database.upkeep.create_tables()
    return database


@pytest.fixture
def hasty(make_database: MakeDatabase, database: Database) -> Database:
    """The same database under the time-out that is the default, warmed up."""
    hasty = make_database(SHORT, 2)
    until_it_answers(hasty)
    return hasty


def began(database: Database, digest: str, ms_ago: int, **changes: Any) -> None:
    """A session that began some time ago."""
    create(database, digest, **changes)
    with database.engine.begin() as connection:
        at = SESSIONS.c.created_at - ms_ago
        connection.execute(SESSIONS.update().where(SESSIONS.c.digest == digest).values(created_at=at))


def changed(database: Database, ms_ago: int, limit: int = 200) -> list[AuthRow]:
    """All rows that changed in the last milliseconds, part by part."""
    rows: list[AuthRow] = []
    reached: Position | None = None
    while True:
        part, reached = database.changed_since(ms_ago, reached, limit)
        rows += part
        if reached is None:
            return rows


def in_ms(ms: int) -> int:
    """A moment by the clock that this machine's databases have too, milliseconds since 1970."""
    return int(time.time() * 1000) + ms


def epochs(database: Database) -> dict[str, int]:
    with database.engine.connect() as connection:
        return {row.user_id: row.epoch for row in connection.execute(sa.select(USERS))}


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Yield the first word of each statement that is sent to the database, and BEGIN and COMMIT."""
    sent: list[str] = []
    hooks: dict[str, Callable[..., None]] = {
        "before_cursor_execute": lambda connection, cursor, statement, *rest: sent.append(statement.split()[0]),
        "begin": lambda connection: sent.append("BEGIN"),
        "commit": lambda connection: sent.append("COMMIT"),
    }
    with ExitStack() as listeners:
        for name, hook in hooks.items():
            listeners.enter_context(listening(database, name, hook))
        yield sent


@contextmanager
def listening(database: Database, name: str, hook: Callable[..., object]) -> Iterator[None]:
    """Call a function at each event of the engine meanwhile."""
    sa.event.listen(database.engine, name, hook)
    try:
        yield
    finally:
        sa.event.remove(database.engine, name, hook)


@contextmanager
def between_read_and_write(database: Database, act: Callable[[], Any]) -> Iterator[list[Any]]:
    """Let another client act after a load has read the row and before it changes it. Yield what became of that."""
    lent, results = [0], []

    def lend(*_: object) -> None:
        lent[0] += 1
        if lent[0] == 2:
            results.append(act())

    sa.event.listen(database.engine, "checkout", lend)
    try:
        yield results
    finally:
        sa.event.remove(database.engine, "checkout", lend)


def until_requests_are_answered(database: Database) -> None:
    """Connecting on a busy machine may take longer than a request may wait; that is not what is tested here."""
    in_time(lambda: database.load("no digest of a session"), is_late=lambda error: True)


def in_time(ask: Callable[[], T], is_late: Callable[[StoreError], bool] = lambda error: error.timed_out) -> T:
    """Return the first answer that did not come too late, as it may on a busy machine."""
    deadline = time.monotonic() + LONG
    while True:
        try:
            return ask()
        except StoreError as error:
            if not is_late(error) or time.monotonic() > deadline:
                raise


@contextmanager
def soon() -> Iterator[None]:
    """Assert that the block ends long before a patient store would give up a lock."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < LONG / 6


@pytest.fixture(scope="module")
def sick_postgres(postgres: Postgres) -> Iterator[Postgres]:
    """The server, for tests that harm it; well again afterwards."""
    yield postgres
    postgres.start()


@pytest.fixture
def on_postgres(sick_postgres: Postgres) -> Iterator[Database]:
    """A store with the default time-out on a PostgreSQL that may be frozen and killed."""
    database = Database(make_engine(sick_postgres.url, SHORT), timeout=SHORT, concurrency=2)
    METADATA.drop_all(database.engine)
    database.upkeep.create_tables()
    until_it_answers(database)
    until_requests_are_answered(database)
    yield database
    sick_postgres.start()
    # A connection that comes back after the end would never be closed.
    wait_until(lambda: not (database.calls.requests.busy or database.calls.probes.busy), "the end of hung calls")
    database.close()


# -- rows ----------------------------------------------------------------------------------------------------------


def test_digests_differ_by_case(database: Database) -> None:
    """A digest is compared letter by letter."""
    create(database, "digest")
    assert database.load("DIGEST") is None


def test_a_payload_of_any_length_in_any_script_is_kept(database: Database) -> None:
    """MySQL's TEXT ends at 64 KiB; the database of the tests is latin1, its tables are not."""
    payload = {"username": encode("username", "田中さくら😀" * 10_000)}
    create(database, user_id="田中", payload=payload)
    assert load(database).payload == payload
    assert [row.digest for row in database.sessions_of("田中")] == ["digest"]


# -- create --------------------------------------------------------------------------------------------------------


def test_creating_the_same_row_at_once_makes_one(database: Database) -> None:
    """Two attempts that overlap both succeed."""
    rows = together(*[lambda: create(database)] * 4)
    assert {row.created_at for row in rows} == {load(database).created_at}


@pytest.mark.parametrize("owner", ["its own", "the application's"])
def test_sign_ins_at_once_do_not_wait_for_each_other(database: Database, owner: str) -> None:
    """Each ends a session that has no row. In MySQL's own mode that locks the place where the row would be, so that two
    of them are in each other's way: one is taken back, and begun anew."""
    engine = sa.create_engine(database.engine.url)
    store = database if owner == "its own" else Database(engine, timeout=LONG)
    for number in range(10):
        calls = [partial(create, store, f"{letter}{number}", kill=f"{letter}{number}0") for letter in "abcd"]
        assert [getattr(row, "version", row) for row in together(*calls)] == [1] * 4
    if store is not database:
        store.close()
    engine.dispose()


@pytest.mark.parametrize(("ended", "is_open"), [(None, False), ("another", True)], ids=["sign-in", "another's"])
def test_a_sign_in_is_one_round_trip_of_postgresql(
    on_postgres: Database, sick_postgres: Postgres, ended: str | None, is_open: bool
) -> None:
    """Creating a row is one statement, and so one transaction. If another session ends by it, there are two, and
    BEGIN and COMMIT."""
    on_postgres.calls.timeout = LONG
    open_after: list[bool] = []

    def note(connection: sa.Connection, *_: object) -> None:
        driver: Any = connection.connection.driver_connection
        open_after.append(driver.info.transaction_status != driver.info.transaction_status.IDLE)

    with listening(on_postgres, "after_cursor_execute", note):
        create(on_postgres, kill=ended)
    assert set(open_after) == {is_open}
    assert load(on_postgres).state is RowState.VALID


def test_a_sign_in_that_is_given_up_before_it_is_sent_never_is(on_postgres: Database) -> None:
    """A call that waits for a connection for too long sends nothing, so there is no session."""
    held = threading.Event()
    with statements(on_postgres) as sent, listening(on_postgres, "checkout", lambda *_: held.wait(LONG)):
        with pytest.raises(StoreError, match="DeadlineExceeded"):
            create(on_postgres)
        held.set()
        wait_until(lambda: not on_postgres.calls.requests.busy, "the end of the call")
    assert "INSERT" not in sent


# -- update --------------------------------------------------------------------------------------------------------


def test_of_two_updates_at_once_exactly_one_wins(database: Database) -> None:
    """One of the two wins on every one of many tries."""
    create(database)
    for version in range(1, 21):
        results = together(
            partial(update, database, version, payload={"n": b"1"}),
            partial(update, database, version, payload={"n": b"2"}),
        )
        [winner] = [row for row in results if row is not None]
        assert isinstance(winner, AuthRow)
        assert load(database).payload == winner.payload
        assert winner.version == version + 1


# -- another digest ------------------------------------------------------------------------------------------------


def regenerate(database: Database, digest: str = "digest", **changes: Any) -> AuthRow | None:
    values: dict[str, Any] = {"successor": "next", "seen": 1, "payload": PAYLOAD, "idle_ms": HOUR}
    return database.regenerate(digest, **(values | changes))


def test_log_out_everywhere_reaches_the_successor_whatever_the_order(database: Database) -> None:
    """Another digest made at the same moment is no way out."""
    ends: tuple[Callable[[], Any], ...] = (
        lambda: database.kill_user("7"),
        lambda: database.kill_user_until("7", in_ms(HOUR)),
    )
    for number in range(20):
        digest, successor = f"digest{number}", f"next{number}"
        create(database, digest)
        results = together(partial(regenerate, database, digest, successor=successor), ends[number % 2])
        assert not [result for result in results if isinstance(result, Exception)]
        rows = [row for row in database.sessions_of("7") if row.digest in (digest, successor)]
        assert {row.state for row in rows} == {RowState.DEAD}
        assert number % 2 == 0 or {row.digest for row in rows} <= set(results[1])


# -- the end of a session ------------------------------------------------------------------------------------------


def test_kill_wins_over_an_update_at_the_same_time(database: Database) -> None:
    """The session is dead in the end, whatever the order."""
    for number in range(10):
        digest = f"digest{number}"
        create(database, digest)
        together(partial(update, database, 1, digest), partial(database.kill, digest))
        row = load(database, digest)
        assert row.state is RowState.DEAD
        assert row.version in (2, 3)


def test_log_out_everywhere_costs_the_same_however_many_rows_there_are(database: Database) -> None:
    """No row is touched, or waited for; what follows for each of them is done in parts, by its epoch."""
    database.kill_user("7")
    digests = sorted(f"digest{number}" for number in range(7))
    for digest in digests:
        create(database, digest)
    with locked(database) if database.engine.dialect.name != "sqlite" else nullcontext(), statements(database) as sent:
        epoch = database.kill_user("7")
    assert [word for word in sent if word != "BEGIN"] == ["UPDATE", "SELECT", "COMMIT"]
    assert {(row.state, row.version) for row in database.sessions_of("7")} == {(RowState.DEAD, 1)}
    create(database, "digest00")  # in the middle of them, and later
    parts, reached = [], ""
    while part := database.kill_user_until("7", 0, epoch=epoch, after=reached, limit=3):
        parts.append(part)
        reached = part[-1]
    assert parts == [digests[:3], digests[3:6], digests[6:]]
    assert {load(database, digest).version for digest in digests} == {2}
    assert (load(database, "digest00").state, load(database, "digest00").version) == (RowState.VALID, 1)


def adopt(database: Database, digest: str = "digest", note: str = "old", user_id: str | None = "7") -> AuthRow | None:
    return database.adopt(
        digest, note=note, note_ms=HOUR, user_id=user_id, payload={}, idle_ms=HOUR, absolute_ms=HOUR, timeout=LONG
    )


def test_an_old_session_is_taken_over_once(database: Database) -> None:
    """An old session is taken over once, whatever has become of it since, and however many try at once. The note of
    it is no session, and no change."""
    before = database.changed_since(10 * HOUR).rows
    results = together(*[partial(adopt, database)] * 4)
    [row] = [result for result in results if result is not None]
    assert isinstance(row, AuthRow) and (row.state, row.user_id, row.version) == (RowState.VALID, "7", 1)
    assert [found.digest for found in database.sessions_of("7")] == ["digest"]
    assert [found.digest for found in database.changed_since(10 * HOUR).rows[len(before) :]] == ["digest"]
    assert load(database, "old").state is RowState.DEAD
    database.kill("digest")
    assert adopt(database) is adopt(database, "another") is None
    assert load(database, "digest").state is RowState.DEAD


def test_what_is_over_is_not_taken_over(database: Database) -> None:
    """The database refuses to adopt an old session that has ended, until its cookie would have expired, and all old
    sessions of a user that began before that user was signed out everywhere. It adopts those of other users."""
    for note in ("ended", "ended"):
        database.note_adopted(note, HOUR)
    database.note_adopted("ended long ago", 1)
    database.kill_user("7")
    assert database.kill_user_until("8", in_ms(-HOUR)) == []
    until_it_answers(database)
    assert database.upkeep.purge(-2) >= 1
    found = {user: adopt(database, f"of {user}", f"old of {user}", user) for user in ("7", "8", "9", None)}
    assert [user for user, row in found.items() if row] == ["9", None]
    assert adopt(database, "a", "ended", "9") is None
    assert adopt(database, "b", "ended long ago", "9") is not None
    assert create(database, "anew", user_id="8").state is RowState.VALID
    assert (database.kill_user("7"), database.kill_user("8")) == (2, 1)


def test_log_out_everywhere_for_the_first_time_twice_at_once(database: Database) -> None:
    """Both succeed and both count."""
    create(database)
    assert sorted(together(*[lambda: database.kill_user("7")] * 2)) == [1, 2]
    assert load(database).state is RowState.DEAD
    assert create(database, "after").user_epoch == 2


def test_log_out_until_a_moment_includes_that_moment_s7(database: Database) -> None:
    """Sessions that began in the very millisecond of the logout end; the epoch stays as it was."""
    created = create(database)
    assert database.kill_user_until("7", created.created_at - 1) == []
    assert load(database).state is RowState.VALID
    assert database.kill_user_until("7", created.created_at) == ["digest"]
    assert load(database).state is RowState.DEAD
    assert epochs(database) == {"7": 0}


def test_many_sessions_are_locked_in_one_order(postgres: Postgres) -> None:
    """While the first row is locked by another client, none of the others is held: no two can wait for each other."""
    database = Database(make_engine(postgres.url, LONG), timeout=LONG)
    METADATA.drop_all(database.engine)
    database.upkeep.create_tables()
    for digest in ("c", "b", "a"):  # stored in an order that is not the one of the locks
        create(database, digest)
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname IS NOT NULL")
    others = sa.select(SESSIONS.c.digest).where(SESSIONS.c.digest != "a").with_for_update(nowait=True)
    ender = threading.Thread(target=database.kill_user_until, args=("7", in_ms(HOUR)))
    with locked(database, "a"):
        ender.start()
        with database.engine.connect() as connection:
            deadline = time.monotonic() + LONG
            while not connection.execute(waiting).scalar():
                assert time.monotonic() < deadline
                connection.rollback()
            assert len(connection.execute(others).all()) == 2
    ender.join(LONG)
    assert {row.state for row in database.sessions_of("7")} == {RowState.DEAD}
    database.close()


# -- the idle time -------------------------------------------------------------------------------------------------


@pytest.mark.real_time("what hangs is given up within a bound")
@pytest.mark.usefixtures("on_time")
def test_a_read_does_not_wait_for_a_write(database: Database) -> None:
    """A locked row is read; its idle expiry is moved the next time."""
    created = create(database, idle_ms=60_000)
    with locked(database), soon():
        assert load(database, idle_ms=HOUR).idle_expires_at == created.idle_expires_at
    assert load(database, idle_ms=HOUR).idle_expires_at > created.idle_expires_at


def use_and_expire(other: Database) -> None:
    """Change an idle session, whose time has passed again at once."""
    load(other, idle_ms=HOUR, idle_seen=in_ms(HOUR))
    update(other, 1, idle_ms=-1000)


BETWEEN: dict[str, tuple[int, Callable[[Database], object], int, RowState, int]] = {
    "used": (-1000, lambda other: load(other, "digest", HOUR, in_ms(HOUR // 2)), 0, RowState.VALID, 1),
    "used and expired": (-1000, use_and_expire, 0, RowState.IDLE_EXPIRED, 2),
    "ended as idle": (-1000, lambda other: load(other, "digest", HOUR, 0), HOUR, RowState.DEAD, 2),
    "idle and killed": (-1000, lambda other: other.kill("digest"), HOUR, RowState.DEAD, 2),
    "killed": (60_000, lambda other: other.kill("digest"), HOUR, RowState.DEAD, 2),
    "logged out": (60_000, lambda other: other.kill_user("7"), HOUR, RowState.DEAD, 1),
    "logged out until now": (60_000, lambda other: other.kill_user_until("7", in_ms(HOUR)), HOUR, RowState.DEAD, 2),
    "moved": (60_000, lambda other: load(other, "digest", HOUR), 0, RowState.VALID, 1),
}
"""How long the session may still be idle, what another host does, how far ahead Redis says that the session ends; state
and version then."""


@pytest.mark.parametrize("name", BETWEEN)
def test_a_read_returns_what_another_host_made_of_the_row_meanwhile_s4(
    database: Database, make_database: MakeDatabase, name: str
) -> None:
    """Between a read and its write the row was changed: neither is a session that was used ended, nor the expiry of one
    moved that has ended, nor is one moved twice."""
    left_ms, act, seen_ms, state, version = BETWEEN[name]
    created = create(database, idle_ms=left_ms)
    other = make_database()
    with between_read_and_write(database, lambda: act(other)) as results:
        row = load(database, "digest", 2 * HOUR, in_ms(seen_ms) if seen_ms else 0)
    assert len(results) == 1
    assert (row.state, row.version) == (state, version)
    assert replace(load(database), read_at=row.read_at) == row
    assert (row.idle_expires_at == created.idle_expires_at) is (state is RowState.DEAD)


def test_one_that_ends_and_one_that_uses_an_idle_session_at_once_s4(
    database: Database, make_database: MakeDatabase
) -> None:
    """The row is decided once on every one of many tries. The call that says dead, or changed it, is right for ever."""
    other = make_database()
    for number in range(20):
        digest = f"digest{number}"
        create(database, digest, idle_ms=-1000)
        ending, using = together(
            partial(load, database, digest, HOUR, 0),
            partial(load, other, digest, HOUR, in_ms(HOUR // 2)),
        )
        row = load(database, digest)
        assert (row.state, row.version) in {(RowState.VALID, 1), (RowState.DEAD, 2), (RowState.IDLE_EXPIRED, 1)}
        # Each may find the row locked by the other; then it knows no better than what it read.
        assert ending.state in {row.state, RowState.IDLE_EXPIRED}
        assert using.state in {row.state, RowState.VALID}


# -- tables --------------------------------------------------------------------------------------------------------


def test_missing_tables_are_named(make_database: MakeDatabase) -> None:
    """Missing tables are named also in the error of a request, so that an operator sees what is wrong. The error
    counts against the database."""
    database = make_database()
    assert database.upkeep.missing_tables() == ["langpont_sessions", "langpont_users"]
    with pytest.raises(StoreError) as caught:
        database.load("digest")
    assert caught.value.why == f"no tables (langpont_sessions is not there; {BRING_BACK})"
    assert caught.value.error_class is ErrorClass.NO_TABLES
    assert caught.value.concerns_health
    assert not database.upkeep.had_tables
    database.upkeep.create_tables()
    database.upkeep.create_tables()
    assert database.upkeep.missing_tables() == []
    with database.engine.begin() as connection:
        USERS.drop(connection)
    assert database.upkeep.missing_tables() == ["langpont_users"]
    with pytest.raises(StoreError, match="langpont_users is not there"):
        database.load("digest")


def test_tables_may_be_made_when_they_are_needed(make_database: MakeDatabase) -> None:
    """Tables are made by the call that needs them first, several at once included; also if they are gone again."""
    workers = [make_database(makes_tables=lambda: True) for _ in range(4)]
    found = together(*(partial(worker.load, "digest") for worker in workers))
    assert found == [None] * 4
    for table in (USERS, SESSIONS):
        with workers[0].engine.begin() as connection:
            table.drop(connection)
        workers[0].probe(LONG)
    assert workers[0].upkeep.missing_tables() == []
    assert workers[0].upkeep.had_tables
    assert create(workers[0]).version == 1


def test_only_the_owner_can_read_a_sqlite_file(tmp_path: Path) -> None:
    """A file of SQLite is private whatever the umask; commits reach the disk before they are answered."""
    path = tmp_path / "new.sqlite3"
    before = os.umask(0)
    try:
        database = Database(make_engine(f"sqlite:///{path}", LONG))
        database.upkeep.create_tables()
        create(database)
        files = list(tmp_path.glob("new.sqlite3*"))
    finally:
        os.umask(before)
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    database.close()


@pytest.mark.parametrize("name", ["sqlite", "postgresql", "mysql"])
def test_every_statement_compiles_for_every_database(name: str) -> None:
    """Only compiled here, not run; on MySQL a reader that locks skips what is locked, as on PostgreSQL, and one that
    has changed a row reads it as it is now, not as it was when the transaction began."""
    dialect: sa.Dialect = dialects.registry.load(name)()
    texts = {
        statement: str(value.compile(dialect=dialect))
        for statement, value in vars(tables).items()
        if isinstance(value, sa.Select | sa.sql.dml.UpdateBase)
    }
    assert len(texts) >= 20
    assert ("SKIP LOCKED" in texts["LOCK_FOR_READER"]) is (name != "sqlite")
    assert "idle_expires_at <= " in texts["KILL_IDLE"]
    assert "created_at <= " in texts["LOCK_UNTIL"]
    assert all(("FOR UPDATE" in texts[read]) is (name != "sqlite") for read in ("LOCK_UNTIL", "LOCK_THESE"))


# -- bad data ------------------------------------------------------------------------------------------------------


def test_values_that_the_database_refuses_concern_one_user_only(database: Database) -> None:
    """An error of data, whose text contains no value; the next call works."""
    for user_id in ("secret\ud800", "secret\0", "secret" * 100):
        with suppress(StoreError):
            create(database, f"d{len(user_id)}", user_id=user_id)
            assert load(database, f"d{len(user_id)}").user_id == user_id
            continue
        with pytest.raises(StoreError) as caught:
            create(database, f"d{len(user_id)}", user_id=user_id)
        assert caught.value.error_class is ErrorClass.DATA
        assert "secret" not in str(caught.value)
    with pytest.raises(StoreError) as caught:
        create(database, user_id="\ud800")
    assert caught.value.error_class is ErrorClass.DATA
    assert create(database).state is RowState.VALID


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.real_time("what hangs is given up within a bound")
@pytest.mark.usefixtures("on_time")
def test_a_locked_database_is_an_error_soon(hasty: Database) -> None:
    """A write gives up before its caller does, and says that the lock was the reason; nothing was changed."""
    create(hasty)
    hasty.calls.timeout = LONG  # a busy machine may not be in time to say so
    with locked(hasty), soon():
        with pytest.raises(StoreError, match=r"SQLITE_BUSY|LockNotAvailable|1205|1969") as caught:
            hasty.kill("digest")
        assert caught.value.error_class is ErrorClass.WRITE_REFUSED
        assert not caught.value.timed_out
        assert load(hasty).state is RowState.VALID
    assert hasty.kill("digest") == 2


def read_only(url: str) -> str:
    if url.startswith("sqlite"):
        return url.replace("sqlite:///", "sqlite:///file:") + "?mode=ro&uri=true"
    if url.startswith("mysql"):
        return f"{url}?init_command=SET%20SESSION%20tx_read_only%3D1"
    return f"{url}?options=-c%20default_transaction_read_only%3Don"


def test_a_read_only_database_refuses_writes(database: Database, make_database: MakeDatabase) -> None:
    """Writes are refused as after a failover, and the probe says so. Reads go on, also those that would move the
    idle expiry."""
    create(database, idle_ms=60_000)
    standby = make_database(url=read_only(str(database.engine.url.render_as_string(hide_password=False))))
    for write in (lambda: create(standby, "new"), lambda: standby.kill("digest"), lambda: standby.probe(LONG)):
        with pytest.raises(StoreError) as caught:
            write()
        assert caught.value.error_class is ErrorClass.WRITE_REFUSED
    assert load(standby, idle_ms=HOUR).state is RowState.VALID
    create(database, "idle", idle_ms=-1000)
    assert load(standby, "idle", HOUR, 0).state is RowState.IDLE_EXPIRED
    assert load(standby, "idle", HOUR, in_ms(HOUR)).state is RowState.VALID


@pytest.mark.real_time("what hangs is given up within a bound")
@pytest.mark.usefixtures("on_time")
def test_a_frozen_postgresql_costs_one_deadline(on_postgres: Database, sick_postgres: Postgres) -> None:
    """Callers wait no longer than the time-out, then are refused at once; afterwards all slots are free again."""
    create(on_postgres)
    with on_postgres.engine.connect(), on_postgres.engine.connect():
        pass  # both calls have a connection that is open: opening one is given up after some seconds, as are its slots
    sick_postgres.freeze()
    try:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(StoreError, match="DeadlineExceeded") as caught:
                on_postgres.load("digest", life=LIFE)
            assert SHORT <= time.monotonic() - began < SHORT + 10
            assert (caught.value.error_class, caught.value.timed_out) == (ErrorClass.UNREACHABLE, True)
        with pytest.raises(StoreError, match="NoFreeSlot") as caught:
            on_postgres.load("digest", life=LIFE)
        assert not caught.value.concerns_health
    finally:
        sick_postgres.thaw()
    on_postgres.calls.timeout = LONG  # a busy machine may not be in time to answer
    until_it_answers(on_postgres)
    assert load(on_postgres).state is RowState.VALID
    assert together(*[lambda: on_postgres.kill("digest")] * 2) == [2, 2]


def test_after_a_restart_no_request_meets_an_old_connection(on_postgres: Database, sick_postgres: Postgres) -> None:
    """Every connection is good as soon as the probes are; no row is lost."""
    create(on_postgres)
    warm = [on_postgres.engine.connect() for _ in range(4)]
    for connection in warm:
        connection.close()
    sick_postgres.kill()
    with pytest.raises(StoreError) as caught:
        on_postgres.load("digest")
    assert caught.value.error_class is ErrorClass.UNREACHABLE
    assert not caught.value.timed_out
    with pytest.raises(StoreError):
        on_postgres.probe(1.0)
    sick_postgres.start()
    until_it_answers(on_postgres)
    rows = together(*[lambda: in_time(lambda: on_postgres.load("digest", life=LIFE))] * 2)
    assert [getattr(row, "state", row) for row in rows] == [RowState.VALID] * 2
    with on_postgres.engine.connect() as one, on_postgres.engine.connect() as two:
        assert one.execute(sa.select(1)).scalar() == two.execute(sa.select(1)).scalar() == 1


def test_a_restart_that_was_not_noticed_costs_nothing(on_postgres: Database, sick_postgres: Postgres) -> None:
    """A connection that was closed while it lay in the pool is not lent again, also without probes."""
    warm = [on_postgres.engine.connect() for _ in range(4)]
    for connection in warm:
        connection.close()
    sick_postgres.kill()
    sick_postgres.start()
    for _ in range(4):
        assert on_postgres.load("digest", timeout=LONG) is None
    assert on_postgres.kill("digest", timeout=LONG) is None


@pytest.mark.parametrize(("granted", "takes_writes"), [("SELECT, INSERT, UPDATE", True), ("SELECT, UPDATE", False)])
def test_a_probe_needs_no_right_that_no_sign_in_needs(
    on_postgres: Database, sick_postgres: Postgres, granted: str, takes_writes: bool
) -> None:
    """A user that may not delete signs users in, so it is no outage; one that may not insert does not. Nothing is left
    of a probe."""
    tables = "langpont_sessions, langpont_users"
    with on_postgres.engine.begin() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS clerk")
        connection.exec_driver_sql("CREATE ROLE clerk LOGIN PASSWORD 'sesame'")
        connection.exec_driver_sql(f"GRANT {granted} ON {tables} TO clerk")
    url = sa.make_url(sick_postgres.url).set(username="clerk", password="sesame")
    clerk = Database(make_engine(url.render_as_string(hide_password=False), LONG), timeout=LONG)
    try:
        with nullcontext() if takes_writes else pytest.raises(StoreError, match="InsufficientPrivilege"):
            clerk.probe(LONG)
        if takes_writes:
            assert create(clerk, "new") is not None
            on_postgres.kill("new")
    finally:
        clerk.close()
        with on_postgres.engine.begin() as connection:
            left = connection.exec_driver_sql("SELECT count(*) FROM langpont_sessions WHERE digest LIKE '@%%'").scalar()
            connection.exec_driver_sql("DROP OWNED BY clerk")
            connection.exec_driver_sql("DROP ROLE clerk")
    assert left == 0


# -- what no caller waits for any more --------------------------------------------------------------------------------


ABANDONED: dict[str, Callable[[Database], Any]] = {
    "create": lambda database: create(database, "new"),
    "create instead of": lambda database: create(database, "new", kill="digest"),
    "update": lambda database: update(database, 1),
    "regenerate": lambda database: regenerate(database),
    "kill": lambda database: database.kill("digest"),
    "revoke_many": lambda database: database.revoke_many(["digest"]),
    "kill_user": lambda database: database.kill_user("7"),
    "kill_user_until": lambda database: database.kill_user_until("7", in_ms(HOUR)),
}


@pytest.mark.parametrize(
    ("database_url", "name"),
    [*(("postgresql", name) for name in ABANDONED), *((each, "create") for each in ("sqlite", "mariadb"))],
    indirect=["database_url"],
)
def test_what_the_caller_was_told_to_have_failed_is_not_committed_later(
    database: Database, hasty: Database, name: str
) -> None:
    """A user who was answered 503 is not signed in, or out, a moment after that. The same call again works."""
    create(database)
    before = [(row.digest, row.version) for row in database.sessions_of("7")]
    held = threading.Event()

    def hold(*_: object) -> None:
        assert held.wait(LONG)

    sa.event.listen(hasty.engine, "after_cursor_execute", hold)
    with pytest.raises(StoreError, match=r"DeadlineExceeded|StartedLate"):
        ABANDONED[name](hasty)
    held.set()
    wait_until(lambda: not hasty.calls.requests.busy, "the end of the call")
    assert ([(row.digest, row.version) for row in database.sessions_of("7")], epochs(database)) == (before, {})
    sa.event.remove(hasty.engine, "after_cursor_execute", hold)
    until_it_answers(hasty)
    hasty.calls.timeout = LONG
    ABANDONED[name](hasty)
    assert [(row.digest, row.version) for row in database.sessions_of("7")] != before or epochs(database) == {"7": 1}


# -- users that may have so many sessions ------------------------------------------------------------------------------


def sign_in(database: Database, digest: str, most: int = 2, *, ends_oldest: bool = True, **more: Any) -> Created | None:
    values: dict[str, Any] = {"user_id": "7", "payload": PAYLOAD, "idle_ms": HOUR, "absolute_ms": HOUR}
    return database.create(digest, limit=Limit(most, ends_oldest), **(values | more))


def valid(database: Database, user_id: str = "7") -> list[str]:
    return [row.digest for row in database.sessions_of(user_id) if row.state is RowState.VALID]


@pytest.mark.parametrize(
    ("ends_oldest", "is_borrowed"), [(True, False), (False, False), (True, True)], ids=["end", "refuse", "borrowed"]
)
def test_sign_ins_at_once_are_never_more_than_the_limit(
    database: Database, make_database: MakeDatabase, database_url: str, ends_oldest: bool, is_borrowed: bool
) -> None:
    """I26: twenty, of a user that has not signed in before, by two hosts. None is refused for the sake of another."""
    engines = [sa.create_engine(database_url) for _ in range(2)] if is_borrowed else []
    codec = codec_of(database_url)
    hosts = [Database(engine, timeout=LONG, concurrency=10, codec=codec) for engine in engines] or [
        make_database(concurrency=10) for _ in range(2)
    ]
    created = together(
        *(
            partial(sign_in, hosts[number % 2], f"{number:02}", 3, ends_oldest=ends_oldest, timeout=LONG)
            for number in range(20)
        )
    )
    assert [one for one in created if isinstance(one, Exception)] == []
    assert len(valid(database)) == 3
    done = [one for one in created if one is not None]
    assert len(done) == (20 if ends_oldest else 3)
    ended = [each.digest for one in done for each in one.ended]
    assert sorted([*ended, *valid(database)]) == sorted(one.row.digest for one in done)
    assert epochs(database) == {"7": None}
    for host in hosts if is_borrowed else []:
        host.close()
    for engine in engines:
        engine.dispose()


# -- the application's engine --------------------------------------------------------------------------------------


@pytest.fixture
def shared(database_url: str) -> Iterator[Engine]:
    """An engine as an application makes it."""
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()


def test_the_engine_of_the_application_will_do(shared: Engine) -> None:
    """The application's engine works with its own settings, which stay as they are."""
    database = Database(shared, timeout=LONG)
    database.upkeep.create_tables()
    create(database, "old")
    create(database, idle_ms=60_000, kill="old")
    assert load(database, idle_ms=HOUR).state is RowState.VALID
    assert update(database, 1) is not None
    assert database.kill_user("7")
    database.probe(LONG)
    assert load(database).state is RowState.DEAD
    with shared.connect() as connection:
        assert connection.get_isolation_level() == connection.default_isolation_level
        if shared.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5000
    database.close()


def test_a_transaction_of_the_application_is_left_alone(shared: Engine) -> None:
    """It is neither committed nor rolled back by a logout in its middle. With SQLite it keeps that logout from being
    written, for as long as one time-out."""
    database = Database(shared, timeout=LONG)
    database.upkeep.create_tables()
    create(database, idle_ms=60_000)
    with shared.begin() as connection:
        connection.execute(USERS.insert().values(user_id="of the application", epoch=1))
        assert load(database, idle_ms=HOUR).state is RowState.VALID
        if shared.dialect.name == "sqlite":
            with pytest.raises(StoreError):
                database.kill("digest", timeout=SHORT)
        else:
            assert database.kill("digest") == 2
        assert connection.in_transaction()
        connection.rollback()
    with shared.connect() as connection:
        assert connection.execute(sa.select(USERS)).all() == []
    database.close()


# -- fork ----------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], str]) -> str:
    """Return the result of the call in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = work()
        except BaseException as error:
            answer = repr(error)
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as pipe:
        return pipe.read()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(database: Database) -> None:
    """Both go on working; what the child does, the parent sees."""
    create(database)

    def backend() -> int:
        with database.engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())

    def child() -> str:
        answers = [load(database, idle_ms=HOUR).state, update(database, 1) is not None]
        return repr(answers + ([backend()] if database.engine.dialect.name == "postgresql" else []))

    if database.engine.dialect.name == "postgresql":
        mine = backend()
        answer = in_child(child)
        assert answer.startswith("[<RowState.VALID: 'valid'>, True, ")
        assert str(mine) not in answer
        assert backend() == mine
    else:
        assert in_child(child) == "[<RowState.VALID: 'valid'>, True]"
    assert load(database).version == 2
    assert database.kill("digest") == 3


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forks_while_the_parent_writes(database: Database) -> None:
    """No row is lost, no connection is shared, nothing is locked for ever."""
    create(database, "of the parent")
    stop = threading.Event()
    failed: list[Exception] = []

    def write() -> None:
        version = 1
        while not stop.is_set():
            try:
                assert update(database, version, "of the parent") is not None
                version += 1
            except Exception as error:
                failed.append(error)
                return

    writer = threading.Thread(target=write)
    writer.start()
    answers = [in_child(lambda n=n: str(create(database, f"of child {n}").version)) for n in range(5)]  # type: ignore[misc]
    stop.set()
    writer.join(LONG)
    assert (answers, failed) == (["1"] * 5, [])
    assert len(database.sessions_of("7")) == 6


# -- SQLite's one lock -------------------------------------------------------------------------------------------------


def sqlite_of_requests(tmp_path: Path) -> Database:
    """Return a store on SQLite as an application has it, with slots for sixteen requests."""
    database = Database(make_engine(f"sqlite:///{tmp_path / 'sessions.sqlite3'}", LONG), timeout=LONG, concurrency=16)
    unforced(database.engine)
    database.upkeep.create_tables()
    return database


def test_d34_sign_ins_at_once_do_not_compete_for_the_lock_of_sqlite(tmp_path: Path) -> None:
    """They have their turns: one that waits in SQLite looks for the lock now and then, and may miss it each time."""
    database, open_now, met = sqlite_of_requests(tmp_path), list[object](), list[object]()

    def ask(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement == "BEGIN IMMEDIATE":
            met.extend(open_now)
            open_now.append(connection)

    with listening(database, "before_cursor_execute", ask), listening(database, "commit", open_now.remove):
        created = together(*(partial(create, database, f"{number:02}") for number in range(16)))
    assert [one for one in created if isinstance(one, Exception)] == []
    assert met == []
    database.close()


def test_d34_the_lock_of_sqlite_is_looked_for_until_another_process_is_done(tmp_path: Path) -> None:
    """The lock is looked for again and again: SQLite itself would look for it after pauses of up to a tenth of a
    second."""
    database, looks = sqlite_of_requests(tmp_path), list[str]()
    other = sqlite3.connect(tmp_path / "sessions.sqlite3", isolation_level=None, check_same_thread=False)

    def look(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement == "BEGIN IMMEDIATE":
            looks.append(statement)
            if len(looks) == 3:
                other.execute("COMMIT")

    other.execute("BEGIN IMMEDIATE")
    with listening(database, "before_cursor_execute", look):
        assert create(database, "a").version == 1
    assert len(looks) == 3
    other.close()
    database.close()


# -- users' names ------------------------------------------------------------------------------------------------------


def test_users_are_told_apart_by_every_character(database: Database) -> None:
    """A space at the end is one, which MySQL's older collations do not see."""
    others = ["ann ", " ann", "Ann", "ånn", "a\u030ann"]
    for number, name in enumerate(["ann", *others]):
        create(database, f"{number}", user_id=name)
    for number, other in enumerate(others, start=1):
        assert [row.digest for row in database.sessions_of("ann")] == ["0"]
        assert database.kill_user(other) == 1
        states = [load(database, f"{at}").state for at in range(len(others) + 1)]
        assert states == [RowState.VALID, *[RowState.DEAD] * number, *[RowState.VALID] * (len(others) - number)]
    assert sorted(epochs(database)) == sorted(others)


# -- the other driver for MariaDB --------------------------------------------------------------------------------------


def test_mysqlclient(mariadb: MariaDB) -> None:
    """Rows come back whole through mysqlclient, and an end is an end. ``make mysqlclient`` runs all tests of SQL by
    it."""
    pytest.importorskip("MySQLdb", reason="mysqlclient was not run: it has no wheel, `make mysqlclient` builds it")
    url = sa.make_url(mariadb.url).set(drivername="mysql+mysqldb")
    database = Database(make_engine(url.render_as_string(hide_password=False), LONG), timeout=LONG, concurrency=1)
    database.upkeep.create_tables()
    create(database, "of mysqlclient")
    assert load(database, "of mysqlclient").payload == PAYLOAD
    database.kill("of mysqlclient")
    assert load(database, "of mysqlclient").state is RowState.DEAD
    database.close()
