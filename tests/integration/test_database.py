"""The auth rows, on SQLite, a real PostgreSQL and a real MariaDB: what they promise, and what is said when they cannot
be had."""

from __future__ import annotations

import json
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
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import dialects
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Engine, default

from devservers.processes import LONG, wait_until
from devservers.servers import Postgres
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.rows import AuthRow, Created, EndedSession, Limit, Position, RowState
from flask_langpont_session.policy.serializer import encode
from flask_langpont_session.stores.codec.plain import PLAIN, Codec
from flask_langpont_session.stores.sql import tables
from flask_langpont_session.stores.sql.database import Database
from flask_langpont_session.stores.sql.engines import make_engine
from flask_langpont_session.stores.sql.errors import BRING_BACK, classify
from flask_langpont_session.stores.sql.tables import METADATA, SESSIONS, USERS, now_ms
from tests.support.codecs import SEALING

from .conftest import unforced
from .mariadb import MariaDB
from .rows import HOUR, PAYLOAD, create, load, locked, together, until_it_answers, update

DAY = 24 * HOUR
SHORT = 0.25


MakeDatabase = Callable[..., Database]


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what no statement decides."""

sealed_too = pytest.mark.parametrize(
    "database_url", ["sqlite", "sqlite, sealed", "postgresql", "mariadb"], indirect=True
)
"""For what writes or compares payloads: those that are sealed differ each time."""


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
    deadline = time.monotonic() + LONG
    while True:
        try:
            database.load("no digest of a session")
            return
        except StoreError:
            assert time.monotonic() < deadline


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


@sealed_too
def test_what_is_created_is_loaded(database: Database) -> None:
    """Everything comes back as it was given; the times are the database's."""
    began = time.time() * 1000
    created = create(database)
    loaded = load(database)
    assert loaded.payload == PAYLOAD
    assert (loaded.digest, loaded.user_id, loaded.version, loaded.live) == ("digest", "7", 1, True)
    assert loaded.state is created.state is RowState.VALID
    assert abs(loaded.created_at - began) < 60_000  # the same clock here, as it is the same machine
    assert created.idle_expires_at - created.created_at == pytest.approx(HOUR, abs=50)
    assert created.absolute_expires_at - created.created_at == pytest.approx(12 * HOUR, abs=50)
    assert loaded.read_at >= created.read_at >= created.created_at


def test_digests_differ_by_case(database: Database) -> None:
    """A digest is compared letter by letter."""
    create(database, "digest")
    assert database.load("DIGEST") is None


@sealed_too
def test_the_payload_is_one_readable_object(database: Database) -> None:
    """An operator can read the column; of what is sealed the keys."""
    create(database, payload={"user_id": b"7", "_fresh": b"true"})
    with database.engine.connect() as connection:
        text = connection.execute(sa.select(SESSIONS.c.payload)).scalar() or ""
    if str(database.engine.url).endswith("sealed.sqlite3"):
        assert {key: list(value) for key, value in json.loads(text).items()} == {
            "user_id": ["@sealed"],
            "_fresh": ["@sealed"],
        }
    else:
        assert text == '{"user_id":7,"_fresh":true}'


@sealed_too
def test_a_payload_of_any_length_in_any_script_is_kept(database: Database) -> None:
    """MySQL's TEXT ends at 64 KiB; the database of the tests is latin1, its tables are not."""
    payload = {"username": encode("username", "田中さくら😀" * 10_000)}
    create(database, user_id="田中", payload=payload)
    assert load(database).payload == payload
    assert [row.digest for row in database.sessions_of("田中")] == ["digest"]


def test_expiry_is_by_the_clock_of_the_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """This host's clock may say what it likes."""
    times = {
        RowState.IDLE_EXPIRED: {"idle_ms": -1},
        RowState.EXPIRED: {"absolute_ms": -1},
        RowState.VALID: {"idle_ms": 2 * HOUR, "absolute_ms": HOUR},
    }
    for state, changes in times.items():
        create(database, state.name, **changes)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    for state in times:
        row = load(database, state.name, idle_ms=HOUR)
        assert row.state is state
        assert row.idle_expires_at <= row.absolute_expires_at


# -- create --------------------------------------------------------------------------------------------------------


@sealed_too
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


@sealed_too
def test_an_update_counts_the_version(database: Database) -> None:
    """It replaces the payload and moves the idle expiry."""
    create(database, idle_ms=1000)
    began = time.monotonic()
    row = update(database, 1, payload={"user_id": b"8"}, user_id="8")
    took_ms = (time.monotonic() - began) * 1000
    assert row == load(database) or (row and row.read_at)
    assert row is not None
    assert (row.version, row.payload, row.user_id) == (2, {"user_id": b"8"}, "8")
    assert HOUR - took_ms - 1 <= row.idle_expires_at - row.read_at <= HOUR, "MariaDB reads the row after the update"


def test_a_database_that_cannot_say_what_was_written_is_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL has no RETURNING: one statement more, and the same rows."""
    for name in ("insert_returning", "update_returning"):
        monkeypatch.setattr(database.engine.dialect, name, False)
    with statements(database) as sent:
        created = create(database)
        updated = update(database, created.version, payload={"user_id": encode("user_id", 7)})
        assert update(database, created.version) is None
    assert [word for word in sent if word not in ("BEGIN", "COMMIT")] == [
        "INSERT",
        "SELECT",
        "UPDATE",
        "SELECT",
        "UPDATE",
    ]
    assert updated is not None and updated == replace(load(database), read_at=updated.read_at)
    assert updated == replace(
        created, version=2, payload=updated.payload, read_at=updated.read_at, idle_expires_at=updated.idle_expires_at
    )


@sealed_too
def test_what_was_written_is_said_by_the_statement_that_wrote_it(database: Database) -> None:
    with statements(database) as sent:
        created = create(database)
        updated = update(database, created.version)
        assert update(database, created.version) is None
    # MariaDB's UPDATE cannot say it.
    asked = ["SELECT"] if database.engine.dialect.name == "mysql" else []
    assert [word for word in sent if word not in ("BEGIN", "COMMIT")] == ["INSERT", "UPDATE", *asked, "UPDATE"]
    assert updated is not None and updated == replace(load(database), read_at=updated.read_at)
    assert created.live and created.version == 1 and created.payload == PAYLOAD


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


@on_sqlite
def test_a_new_life_counts_from_the_beginning_of_the_session(database: Database) -> None:
    """Switching to permanent and back cannot make a session live for ever."""
    created = create(database)
    longer = update(database, 1, idle_ms=30 * DAY, absolute_ms=30 * DAY)
    assert longer is not None
    assert longer.absolute_expires_at == created.created_at + 30 * DAY
    assert longer.idle_expires_at == longer.absolute_expires_at
    shorter = update(database, 2, absolute_ms=HOUR // 2)
    assert shorter is not None
    assert shorter.idle_expires_at == shorter.absolute_expires_at == created.created_at + HOUR // 2


@on_sqlite
def test_an_update_keeps_the_idle_time_within_the_life(database: Database) -> None:
    """The idle expiry never lies behind the end."""
    create(database, idle_ms=1000, absolute_ms=HOUR)
    row = update(database, 1, idle_ms=2 * HOUR)
    assert row is not None
    assert row.idle_expires_at == row.absolute_expires_at


# -- another digest ------------------------------------------------------------------------------------------------


def regenerate(database: Database, digest: str = "digest", **changes: Any) -> AuthRow | None:
    values: dict[str, Any] = {"successor": "next", "seen": 1, "payload": PAYLOAD, "idle_ms": HOUR}
    return database.regenerate(digest, **(values | changes))


@sealed_too
def test_another_digest_makes_no_younger_session(database: Database) -> None:
    """The successor began when the first one did and ends when that would have; the first one is dead."""
    began(database, "digest", 2 * HOUR, absolute_ms=4 * HOUR)
    first = load(database)
    successor = regenerate(database, payload={"a": b"1"}, idle_ms=DAY)
    assert successor is not None
    assert (successor.digest, successor.version, successor.state) == ("next", 1, RowState.VALID)
    assert (successor.user_id, successor.payload) == ("7", {"a": b"1"})
    assert (successor.created_at, successor.absolute_expires_at) == (first.created_at, first.absolute_expires_at)
    assert successor.idle_expires_at == successor.absolute_expires_at
    assert (load(database).state, load(database).version) == (RowState.DEAD, 2)
    again = regenerate(database, payload={"a": b"1"}, idle_ms=DAY)
    assert again is not None
    assert (again.version, again.created_at, again.idle_expires_at) == (1, first.created_at, successor.idle_expires_at)
    longer = regenerate(database, "next", successor="last", absolute_ms=DAY)
    assert longer is not None
    assert longer.absolute_expires_at == first.created_at + DAY


def test_which_digests_were_replaced_just_now_is_known(database: Database) -> None:
    """A session that was ended was not, and it is the time of the change that counts."""
    for digest in ("digest", "killed", "other"):
        create(database, digest)
    regenerate(database)
    database.kill("killed")
    asked = ["digest", "next", "killed", "other", "no row"]
    assert database.renamed(asked, HOUR, LONG) == {"digest"}
    assert database.renamed(asked, -HOUR, LONG) == set()


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


def test_an_old_session_that_ended_is_not_taken_over(database: Database) -> None:
    """Noted as often as one likes."""
    database.note_adopted("old", HOUR)
    database.note_adopted("old", HOUR)
    assert adopt(database) is None
    assert adopt(database, note="another") is not None


@pytest.mark.parametrize("by_time", [True, False])
def test_a_user_logged_out_everywhere_is_not_taken_over(database: Database, by_time: bool) -> None:
    """Neither a logout by the epoch nor one by the time alone lets an old session be taken over. Other users' are."""
    if by_time:
        for _ in range(2):
            assert database.kill_user_until("7", in_ms(-HOUR)) == []
    else:
        database.kill_user("7")
    assert adopt(database) is None
    assert adopt(database, "other", "another", "8") is not None
    assert adopt(database, "nobody", "a third", None) is not None
    assert create(database, "anew").state is RowState.VALID
    assert database.kill_user("7") == (1 if by_time else 2)


def test_the_note_lasts_as_long_as_the_old_session_could(database: Database) -> None:
    """The note is purged when the old session could not come any more."""
    database.note_adopted("old", 1)
    database.note_adopted("older", HOUR)
    until_it_answers(database)
    assert database.upkeep.purge(-2) >= 1
    assert adopt(database) is not None
    assert adopt(database, "another", "older") is None


def test_an_update_does_not_undo_log_out_everywhere(database: Database) -> None:
    """The session is dead by its epoch alone; no write gives it a new one."""
    create(database)
    create(database, "other", user_id="8")
    database.kill_user("7")
    assert update(database, 1) is None
    assert update(database, 1, user_id="8") is None
    moved = update(database, 1, "other", user_id="7")
    assert moved is not None
    assert (moved.state, moved.user_epoch) == (RowState.VALID, 1)


def test_log_out_everywhere_for_the_first_time_twice_at_once(database: Database) -> None:
    """Both succeed and both count."""
    create(database)
    assert sorted(together(*[lambda: database.kill_user("7")] * 2)) == [1, 2]
    assert load(database).state is RowState.DEAD
    assert create(database, "after").user_epoch == 2


def test_log_out_until_a_moment_spares_what_began_later_s7(database: Database) -> None:
    """A sign-in after that moment survives, whatever else it depends on: the epoch stays as it was."""
    for digest, ms_ago in (("old", 2 * HOUR), ("dead", 2 * HOUR), ("new", 0)):
        began(database, digest, ms_ago)
    began(database, "other", 2 * HOUR, user_id="8")
    began(database, "nobody", 2 * HOUR, user_id=None)
    database.kill("dead")
    until = in_ms(-HOUR)
    assert sorted(database.kill_user_until("7", until)) == ["dead", "old"]
    states = {row.digest: (row.state, row.version) for row in changed(database, DAY)}
    alive = (RowState.VALID, 1)
    dead = (RowState.DEAD, 2)
    assert states == {"old": dead, "dead": dead, "new": alive, "other": alive, "nobody": alive}
    assert epochs(database) == {"7": 0}
    assert create(database, "after").state is RowState.VALID


def test_log_out_until_a_moment_includes_that_moment(database: Database) -> None:
    """Sessions that began in the very millisecond of the logout end."""
    created = create(database)
    assert database.kill_user_until("7", created.created_at - 1) == []
    assert load(database).state is RowState.VALID
    assert database.kill_user_until("7", created.created_at) == ["digest"]
    assert load(database).state is RowState.DEAD


def test_log_out_until_a_moment_is_idempotent(database: Database) -> None:
    """Said again it reports the same rows and changes none of them."""
    began(database, "old", HOUR)
    create(database, "new")
    until = in_ms(-HOUR // 2)
    assert [database.kill_user_until("7", until) for _ in range(2)] == [["old"], ["old"]]
    assert load(database, "old").version == 2
    with database.engine.begin() as connection:
        connection.execute(SESSIONS.update().values(updated_at=0))
    database.kill_user_until("7", until)
    assert changed(database, DAY) == []
    assert database.kill_user_until("nobody", until) == []


def test_log_out_until_a_moment_counts_as_a_change(database: Database) -> None:
    """The recovery finds the rows that died, and only those."""
    began(database, "old", 2 * HOUR)
    create(database, "new")
    with database.engine.begin() as connection:
        connection.execute(SESSIONS.update().values(updated_at=0))
    database.kill_user_until("7", in_ms(-HOUR))
    assert [(row.digest, row.state) for row in changed(database, HOUR)] == [("old", RowState.DEAD)]


def test_log_out_until_a_moment_wins_over_updates_at_the_same_time(database: Database) -> None:
    """Every session is dead in the end and stays so, whatever the order."""
    for number in range(10):
        digest = f"digest{number}"
        create(database, digest)
        results = together(
            partial(update, database, 1, digest),
            partial(database.kill_user_until, "7", in_ms(HOUR)),
            partial(load, database, digest, HOUR, in_ms(HOUR)),
        )
        assert not [result for result in results if isinstance(result, Exception)]
        assert load(database, digest).state is RowState.DEAD
        assert update(database, load(database, digest).version, digest) is None


def test_log_out_until_a_moment_finds_what_got_another_digest_meanwhile(database: Database) -> None:
    """One that lies in a part which is over, twice: a part ends its sessions under whatever digest they go on."""
    for digest in ("m", "n", "o"):
        create(database, digest)
    assert database.kill_user_until("7", in_ms(HOUR), limit=1) == ["m"]
    regenerate(database, "n", successor="a")
    regenerate(database, "a", successor="b")
    assert database.kill_user_until("7", in_ms(HOUR), after="m", limit=1) == ["b", "a", "n"]
    assert database.kill_user_until("7", in_ms(HOUR), after="n", limit=1) == ["o"]
    assert database.kill_user_until("7", in_ms(HOUR), after="o", limit=1) == []
    assert {row.state for row in database.sessions_of("7")} == {RowState.DEAD}
    assert sorted(database.kill_user_until("7", in_ms(HOUR))) == ["a", "b", "m", "n", "o"]


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


@on_sqlite
@pytest.mark.parametrize("seen_ms", [None, -HOUR], ids=["nothing there", "passed there too"])
def test_a_session_that_was_not_used_is_ended_s4(database: Database, seen_ms: int | None) -> None:
    """It dies as every revoked session does: once, with a new version, and for ever; the recovery finds it."""
    create(database, idle_ms=-1000)
    with database.engine.begin() as connection:
        connection.execute(SESSIONS.update().values(updated_at=0))
    idle_seen = in_ms(seen_ms) if seen_ms else 0
    rows = [load(database, idle_ms=HOUR, idle_seen=seen) for seen in (idle_seen, idle_seen, in_ms(HOUR))]
    assert [(row.state, row.version) for row in rows] == [(RowState.DEAD, 2)] * 3
    assert [row.version for row in changed(database, HOUR)] == [2]
    assert update(database, 2) is None
    assert database.kill("digest") == 2


def test_a_session_that_another_host_just_used_is_not_ended_s4(database: Database, make_database: MakeDatabase) -> None:
    """Between its read and its write the other one moved the expiry. It returns what is true then."""
    create(database, idle_ms=-1000)
    other = make_database()
    with between_read_and_write(database, lambda: load(other, idle_ms=HOUR, idle_seen=in_ms(HOUR // 2))) as results:
        row = load(database, idle_ms=HOUR, idle_seen=0)
    [moved] = results
    assert (row.state, row.version, row.idle_expires_at) == (RowState.VALID, 1, moved.idle_expires_at)
    assert load(database).state is RowState.VALID


def test_a_session_that_changed_and_expired_again_is_not_ended_s4(
    database: Database, make_database: MakeDatabase
) -> None:
    """It ends the version that it has read, or none: what it returns is the row there is."""
    create(database, idle_ms=-1000)
    other = make_database()

    def use_and_expire() -> AuthRow | None:
        load(other, idle_ms=HOUR, idle_seen=in_ms(HOUR))
        return update(other, 1, idle_ms=-1000)

    with between_read_and_write(database, use_and_expire) as results:
        row = load(database, idle_ms=HOUR, idle_seen=0)
    assert results[0].version == 2
    assert (row.state, row.version) == (RowState.IDLE_EXPIRED, 2)
    assert load(database).version == 2


@pytest.mark.parametrize(
    ("idle_ms", "end", "version"),
    [
        (-1000, lambda other: load(other, idle_ms=HOUR, idle_seen=0), 2),
        (-1000, lambda other: other.kill("digest"), 2),
        (60_000, lambda other: other.kill("digest"), 2),
        (60_000, lambda other: other.kill_user("7"), 1),
        (60_000, lambda other: other.kill_user_until("7", in_ms(HOUR)), 2),
    ],
    ids=["idle", "killed idle", "killed", "epoch", "until"],
)
def test_the_expiry_of_a_session_that_just_ended_is_not_moved(
    database: Database, make_database: MakeDatabase, idle_ms: int, end: Callable[[Database], Any], version: int
) -> None:
    """Dead is for ever, and the reader that came too late is told so. Its row is not touched."""
    created = create(database, idle_ms=idle_ms)
    other = make_database()
    with between_read_and_write(database, lambda: end(other)) as results:
        row = load(database, idle_ms=HOUR, idle_seen=in_ms(HOUR))
    assert len(results) == 1
    assert (row.state, row.version) == (RowState.DEAD, version)
    assert load(database).idle_expires_at == created.idle_expires_at


def test_of_two_that_would_move_the_expiry_at_once_one_does(database: Database, make_database: MakeDatabase) -> None:
    """The second one sees it, and writes nothing."""
    create(database, idle_ms=60_000)
    other = make_database()
    with between_read_and_write(database, lambda: load(other, idle_ms=HOUR)) as results:
        row = load(database, idle_ms=2 * HOUR)
    [moved] = results
    assert row.idle_expires_at == moved.idle_expires_at == moved.read_at + HOUR
    assert load(database).idle_expires_at == moved.idle_expires_at


def test_the_second_one_still_goes_by_the_later_expiry_that_redis_has_s1(
    database: Database, make_database: MakeDatabase
) -> None:
    """It is written by the next read."""
    create(database, idle_ms=60_000)
    other, seen = make_database(), in_ms(3 * HOUR)
    with between_read_and_write(database, lambda: load(other, idle_ms=HOUR)):
        assert load(database, idle_ms=HOUR, idle_seen=seen).idle_expires_at == seen
    assert load(database).idle_expires_at < seen
    assert load(database, idle_ms=HOUR, idle_seen=seen).idle_expires_at == load(database).idle_expires_at == seen


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


@pytest.mark.real_time("what hangs is given up within a bound")
@pytest.mark.usefixtures("on_time")
def test_what_cannot_be_noted_does_not_change_the_answer(database: Database) -> None:
    """A locked row: a session that is known to be in use is, one that is not known to be is not ended; the next read
    does it."""
    for digest in ("used", "unused"):
        create(database, digest, idle_ms=-1000)
    later = in_ms(HOUR)
    with locked(database, "used"), soon():
        used = load(database, "used", HOUR, later)
    with locked(database, "unused"), soon():
        unused = load(database, "unused", HOUR, 0)
    assert (used.state, used.idle_expires_at) == (RowState.VALID, later)
    assert (unused.state, unused.version) == (RowState.IDLE_EXPIRED, 1)
    assert [load(database, digest).state for digest in ("used", "unused")] == [RowState.IDLE_EXPIRED] * 2
    assert load(database, "used", HOUR, later).state is load(database, "used").state is RowState.VALID
    assert load(database, "unused", HOUR, 0).state is RowState.DEAD


# -- lists ---------------------------------------------------------------------------------------------------------


def test_sessions_of_a_user_are_listed(database: Database) -> None:
    """Oldest first, dead ones too, nobody else's."""
    began(database, "a", HOUR)
    create(database, "b")
    database.kill("a")
    create(database, "c", user_id="8")
    assert [(row.digest, row.state) for row in database.sessions_of("7")] == [
        ("a", RowState.DEAD),
        ("b", RowState.VALID),
    ]


def test_changes_are_found_by_their_time(database: Database) -> None:
    """Created, updated, killed and ended after a logout everywhere are changes; a moved idle expiry is none, nor is
    what concerns no row."""
    for digest in ("updated", "killed", "epoch", "ended", "read"):
        create(database, digest, user_id=digest, idle_ms=60_000)
    create(database, "before")
    with database.engine.begin() as connection:
        connection.execute(SESSIONS.update().values(updated_at=SESSIONS.c.updated_at - HOUR))
    update(database, 1, "updated")
    database.kill("killed")
    database.kill_user("epoch")
    database.kill_user_until("ended", 0, epoch=database.kill_user("ended"))
    load(database, "read", HOUR)
    create(database, "created")
    found = {row.digest: row.state for row in changed(database, HOUR // 2)}
    assert found == {
        "updated": RowState.VALID,
        "killed": RowState.DEAD,
        "ended": RowState.DEAD,
        "created": RowState.VALID,
    }
    assert len(changed(database, 2 * HOUR)) == 7


def test_changes_are_found_part_by_part(database: Database) -> None:
    """Each once, in the order of their times, however many there are of one moment; a damaged one does not stop the
    others."""
    at = in_ms(-HOUR)
    moments = {"g": at, "b": at + 1, "a": at + 1, "e": at + 1, "d": at + 1, "f": at + 1, "c": at + 2}
    for digest, updated_at in moments.items():
        create(database, digest)
        with database.engine.begin() as connection:
            row = SESSIONS.update().where(SESSIONS.c.digest == digest)
            connection.execute(row.values(updated_at=updated_at, **({"payload": "no"} if digest == "d" else {})))
    for limit in (1, 2, 3, 7, 200):
        assert [row.digest for row in changed(database, 2 * HOUR, limit)] == ["g", "a", "b", "e", "f", "c"]


@on_sqlite
def test_going_through_changes_ends_while_others_change_more(database: Database) -> None:
    """A part that is not whole is the last one: to wait for an empty one would never end."""
    create(database, "a")
    create(database, "b")
    rows, reached = database.changed_since(HOUR, None, 2)
    assert [row.digest for row in rows] == ["a", "b"]
    create(database, "c")
    rows, reached = database.changed_since(HOUR, reached, 2)
    assert ([row.digest for row in rows], reached) == (["c"], None)


def test_purging_removes_what_ended_long_ago(database: Database) -> None:
    """A purge leaves what is dead but could still be asked for, and never deletes more than the limit at once."""
    for number in range(5):
        create(database, f"ended{number}", absolute_ms=-HOUR)
    create(database, "just ended", absolute_ms=-1000)
    create(database, "idle", idle_ms=-2 * HOUR)
    create(database, "dead")
    database.kill("dead")
    assert [database.upkeep.purge(HOUR // 2, limit=3) for _ in range(3)] == [3, 2, 0]
    assert {row.digest for row in changed(database, DAY)} == {"just ended", "idle", "dead"}


@sealed_too
def test_one_damaged_row_does_not_hide_the_others(database: Database) -> None:
    """Lists leave it out, unless it is dead: then that is all that matters, and said by a load as well."""
    for digest in ("well", "damaged", "dead"):
        create(database, digest)
    database.kill("dead")
    with database.engine.begin() as connection:
        damaged = SESSIONS.c.digest.in_(["damaged", "dead"])
        connection.execute(SESSIONS.update().where(damaged).values(payload="not JSON"))
    for rows in (database.sessions_of("7"), changed(database, HOUR)):
        assert {row.digest: (row.state, row.payload) for row in rows} == {
            "well": (RowState.VALID, PAYLOAD),
            "dead": (RowState.DEAD, {}),
        }
    assert load(database, "dead").state is RowState.DEAD
    with pytest.raises(StoreError, match="UnreadablePayload"):
        load(database, "damaged", idle_seen=0)


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


def test_a_call_that_was_given_up_makes_the_tables_all_the_same(make_database: MakeDatabase) -> None:
    """A disk that is slow once must not make every later request begin anew."""
    database = make_database(makes_tables=lambda: True)
    with pytest.raises(StoreError):
        database.load("digest", timeout=0.00001)
    wait_until(lambda: not database.upkeep.missing_tables(), "the tables are there")


def test_several_workers_create_the_tables_at_once(make_database: MakeDatabase) -> None:
    """All succeed, whichever is first."""
    workers = [make_database() for _ in range(4)]
    assert together(*(worker.upkeep.create_tables for worker in workers)) == [None] * 4
    assert workers[0].upkeep.missing_tables() == []


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


@pytest.mark.parametrize(
    ("dialect", "words"),
    [(mysql.dialect(), "UTC_TIMESTAMP(3)"), (default.DefaultDialect(), "CURRENT_TIMESTAMP")],
)
def test_the_clock_is_written_for_other_databases_too(dialect: sa.Dialect, words: str) -> None:
    """Only compiled here, not run."""
    assert words in str(sa.select(now_ms()).compile(dialect=dialect))


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


@on_sqlite
def test_a_payload_that_is_not_ours_is_an_error_of_data(database: Database) -> None:
    """One damaged row says nothing about the database."""
    create(database)
    for payload in ("", "not JSON", "[1]", "null", '{"a":}', "[" * 100_000, '{"a":NaN}'):
        with database.engine.begin() as connection:
            connection.execute(SESSIONS.update().values(payload=payload))
        with pytest.raises(StoreError, match="UnreadablePayload") as caught:
            load(database)
        assert not caught.value.concerns_health


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


def test_a_probe_writes_and_leaves_nothing(database: Database) -> None:
    """It is a commit, and the tables are as before."""
    with statements(database) as sent:
        database.probe(LONG)
    assert (sent.count("INSERT"), sent[-1]) == (2, "COMMIT")
    with database.engine.connect() as connection:
        for table in (USERS, SESSIONS):
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0


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


def test_a_full_sqlite_refuses_writes(tmp_path: Path) -> None:
    """Reads go on, also those that would move the idle expiry."""
    database = Database(make_engine(f"sqlite:///{tmp_path / 'full.sqlite3'}", LONG))
    database.upkeep.create_tables()
    create(database, idle_ms=60_000)

    @sa.event.listens_for(database.engine, "connect")
    def fill(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    database.close()
    with pytest.raises(StoreError, match="SQLITE_FULL") as caught:
        for number in range(100):
            create(database, f"another{number}")
    assert caught.value.error_class is ErrorClass.WRITE_REFUSED
    assert load(database, idle_ms=HOUR).state is RowState.VALID
    database.close()


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


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """A file that is no database gives an error, neither a crash nor an answer."""
    path = tmp_path / "no.sqlite3"
    path.write_bytes(b"no database" * 1000)
    for url in (f"sqlite:///{path}", f"sqlite:///{tmp_path}/no/folder/x.sqlite3"):
        database = Database(make_engine(url, LONG))
        with pytest.raises(StoreError) as caught:
            database.load("digest")
        assert caught.value.error_class is ErrorClass.UNREACHABLE
        database.close()


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
                on_postgres.load("digest", idle_ms=HOUR)
            assert SHORT <= time.monotonic() - began < SHORT + 10
            assert (caught.value.error_class, caught.value.timed_out) == (ErrorClass.UNREACHABLE, True)
        with pytest.raises(StoreError, match="NoFreeSlot") as caught:
            on_postgres.load("digest", idle_ms=HOUR)
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
    rows = together(*[lambda: on_postgres.load("digest", idle_ms=HOUR)] * 2)
    assert [row.state for row in rows] == [RowState.VALID] * 2
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


def test_a_wrong_password_is_an_error(sick_postgres: Postgres) -> None:
    """The error says neither the password nor the address."""
    url = sa.make_url(sick_postgres.url).set(password="sesame")
    database = Database(make_engine(url.render_as_string(hide_password=False), LONG))
    with pytest.raises(StoreError) as caught:
        database.load("digest")
    assert caught.value.concerns_health
    assert "sesame" not in str(caught.value)
    database.close()


@pytest.mark.parametrize(
    ("statement", "cause", "error_class"),
    [
        ("SELECT pg_sleep(20)", "QueryCanceled", ErrorClass.UNREACHABLE),
        ("SELECT 1 / 0", "DivisionByZero", ErrorClass.DATA),
        ("SET ROLE nobody_of_that_name", "InvalidParameterValue", ErrorClass.DATA),
    ],
)
def test_errors_of_postgresql_are_told_apart(
    on_postgres: Database, statement: str, cause: str, error_class: ErrorClass
) -> None:
    """Errors are told apart by SQLSTATE; a slow statement is ended by the server itself."""
    with on_postgres.engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as caught:
        connection.exec_driver_sql(statement)
    assert type(caught.value.orig).__name__ == cause
    assert classify(caught.value) is error_class


def test_rights_that_are_missing_are_a_refused_identity(on_postgres: Database, sick_postgres: Postgres) -> None:
    """The credentials work, but not for these tables."""
    with on_postgres.engine.begin() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS stranger")
        connection.exec_driver_sql("CREATE ROLE stranger LOGIN PASSWORD 'sesame'")
    url = sa.make_url(sick_postgres.url).set(username="stranger", password="sesame")
    stranger = Database(make_engine(url.render_as_string(hide_password=False), LONG), timeout=LONG)
    with pytest.raises(StoreError, match="InsufficientPrivilege") as caught:
        stranger.load("digest")
    assert caught.value.error_class is ErrorClass.IDENTITY_REFUSED
    stranger.close()


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


def test_the_oldest_sessions_end_for_a_new_one(database: Database) -> None:
    """As many sessions end as are too many, in the order in which they began; dead sessions and other users do not
    count."""
    others: list[dict[str, Any]] = [{"idle_ms": -1}, {"absolute_ms": -1}, {"user_id": "8"}, {}]
    for number, changes in enumerate([{}, {}, *others]):
        began(database, f"d{number}", HOUR - number, **({"absolute_ms": 2 * HOUR, "idle_ms": 2 * HOUR} | changes))
    database.kill("d5")
    created = sign_in(database, "new", absolute_ms=2 * HOUR)
    assert created is not None
    assert created.ended == [EndedSession("d0", 2, lived=True)]
    assert (created.row.digest, created.row.version, created.row.user_id) == ("new", 1, "7")
    assert replace(load(database, "new"), read_at=0) == replace(created.row, read_at=0)
    assert valid(database) == ["d1", "new"]
    lower = sign_in(database, "newer", 1)
    assert lower is not None
    assert lower.ended == [EndedSession("d1", 2, lived=True), EndedSession("new", 2, lived=True)]
    assert (valid(database), valid(database, "8")) == (["newer"], ["d4"])


@on_sqlite
def test_a_sign_in_may_be_refused_and_changes_nothing_then(database: Database) -> None:
    """A refused sign-in does not even end the session that would end with it."""
    for name in ("one", "two"):
        create(database, name)
    create(database, "old", user_id="8")
    assert sign_in(database, "three", ends_oldest=False, kill="old") is None
    assert (valid(database), valid(database, "8")) == (["one", "two"], ["old"])
    assert load(database, "one").version == 1
    created = sign_in(database, "three", ends_oldest=False, kill="two")
    assert created is not None
    assert (created.ended, valid(database)) == ([EndedSession("two", 2, lived=True)], ["one", "three"])


@pytest.mark.parametrize("ends_oldest", [True, False], ids=["end_oldest", "refuse"])
@pytest.mark.parametrize("is_borrowed", [False, True], ids=["own", "borrowed"])
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


@sealed_too
def test_a_limited_sign_in_may_be_repeated(database: Database) -> None:
    """A sign-in may be repeated after an unknown outcome. Another row under that digest is not taken for it."""
    first = sign_in(database, "new", 1)
    assert first is not None
    again = sign_in(database, "new", 1)
    assert again is not None
    assert (again.row.created_at, again.ended) == (first.row.created_at, ())
    with pytest.raises(StoreError, match="AnotherRow") as caught:
        sign_in(database, "new", 1, payload={"a": b"2"})
    assert caught.value.error_class is ErrorClass.DATA


def test_log_out_everywhere_after_a_limited_sign_in(database: Database) -> None:
    """The user's row that it has locked is no sign that this happened before."""
    sign_in(database, "new")
    assert database.adopt(
        "taken", note="old", note_ms=HOUR, user_id="7", payload=PAYLOAD, idle_ms=HOUR, absolute_ms=HOUR
    )
    assert database.kill_user("7") == 1
    assert valid(database) == []
    sign_in(database, "next")
    assert (valid(database), epochs(database)) == (["next"], {"7": 1})
    sign_in(database, "other", user_id="8")
    assert database.kill_user_until("8", in_ms(HOUR)) == ["other"]
    assert epochs(database)["8"] == 0


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


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_may_fork_too(database: Database) -> None:
    """Calls that wait during a fork go on after it, in every generation of processes."""
    create(database)

    def grandchild() -> str:
        return load(database).state.value

    def child() -> str:
        return f"{grandchild()} {in_child(grandchild)} {grandchild()}"

    assert in_child(child) == "valid valid valid"
    assert grandchild() == "valid"


# -- a session that was given another id -------------------------------------------------------------------------------


def test_a_revocation_finds_the_session_under_its_new_digest(database: Database) -> None:
    """The request that gave it another id was faster; the sign-out means the session, not its name."""
    a, b, c = ("a" * 43, "b" * 43, "c" * 43)
    database.create(a, user_id="7", payload={}, idle_ms=60_000, absolute_ms=60_000)
    database.regenerate(a, successor=b, seen=1, payload={}, idle_ms=60_000)
    database.regenerate(b, successor=c, seen=1, payload={}, idle_ms=60_000)
    followed = [EndedSession(a, 2, False, b), EndedSession(b, 2, False, c), EndedSession(c, 2, True)]
    assert database.revoke_many([a]) == followed
    found = database.load(c)
    assert found is not None
    assert found.state is RowState.DEAD
    assert database.revoke_many(["x" * 43]) == []


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


OVER: dict[str, Callable[[Database], object]] = {
    "revoked": lambda database: database.kill("digest"),
    "logged out everywhere": lambda database: database.kill_user("7"),
    "idle": lambda database: age(database, HOUR, "idle_expires_at"),
    "as old as it gets": lambda database: age(database, 12 * HOUR, "absolute_expires_at"),
}


def age(database: Database, ms: int, column: str) -> None:
    with database.connections.writing() as connection:
        connection.execute(sa.text(f"UPDATE langpont_sessions SET {column} = {column} - {ms}"))


@on_sqlite
@pytest.mark.parametrize("over", OVER)
def test_d36_what_ends_is_known_from_what_was_over(database: Database, over: str) -> None:
    """The end of a session that was over before is known as such, for a revocation and for a sign-in in its place."""
    create(database)
    OVER[over](database)
    assert [ended.lived for ended in database.revoke_many(["digest"])] == [False]
    created = database.create("next", user_id="7", payload={}, idle_ms=HOUR, absolute_ms=HOUR, kill="digest")
    assert created is not None
    assert [(ended.digest, ended.lived) for ended in created.ended] == [("digest", False)]
    limited = sign_in(database, "last", kill="next")
    assert limited is not None
    assert [(ended.digest, ended.lived) for ended in limited.ended] == [("next", True)]
    assert [ended.lived for ended in database.revoke_many(["next", "last", "nothing"])] == [True, False]


@on_sqlite
def test_the_death_of_an_old_digest_is_not_that_of_the_session(database: Database) -> None:
    """A worker that finds the tombstone that a change of id left kills the old row again, and nothing else."""
    a, b = "a" * 43, "b" * 43
    database.create(a, user_id="7", payload={}, idle_ms=60_000, absolute_ms=60_000)
    database.regenerate(a, successor=b, seen=1, payload={}, idle_ms=60_000)
    database.kill(a)
    found = database.load(b)
    assert found is not None
    assert found.state is RowState.VALID


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
