"""The journal between releases and between workers of which one is killed: real processes, real files."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from flask_langpont_session.stores.base import CategoryCopy
from flask_langpont_session.stores.journal import Journal, PendingUserRevocation, ServerRecord

from .journal_process import end_all, let_go, output, process

VERSION_1 = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE writes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL, kind TEXT NOT NULL,
        shadow INTEGER NOT NULL, user_id TEXT, category TEXT NOT NULL, field TEXT NOT NULL, value BLOB,
        delta INTEGER NOT NULL, is_delta INTEGER NOT NULL, base BLOB, base_version INTEGER,
        at_ms INTEGER NOT NULL,
        UNIQUE (digest, shadow, category, field));
    CREATE TABLE revocations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL,
        in_database INTEGER NOT NULL, in_redis INTEGER NOT NULL);
    CREATE TABLE pushes (seq INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE);
    CREATE TABLE copies (
        digest TEXT NOT NULL, category TEXT NOT NULL, version INTEGER NOT NULL, fields BLOB NOT NULL,
        PRIMARY KEY (digest, category));
    CREATE TABLE outages (what TEXT PRIMARY KEY, at_ms INTEGER NOT NULL);
    CREATE TABLE size (entries INTEGER NOT NULL);
    INSERT INTO size VALUES (0);
    CREATE TRIGGER writes_INSERT AFTER INSERT ON writes BEGIN UPDATE size SET entries = entries + 1; END;
    CREATE TRIGGER writes_DELETE AFTER DELETE ON writes BEGIN UPDATE size SET entries = entries - 1; END;
    CREATE TRIGGER copies_INSERT AFTER INSERT ON copies BEGIN UPDATE size SET entries = entries + 1; END;
    CREATE TRIGGER copies_DELETE AFTER DELETE ON copies BEGIN UPDATE size SET entries = entries - 1; END;
    PRAGMA user_version = 1;
    PRAGMA application_id = 0x4C50534A;
    INSERT INTO writes VALUES (7, 'd', 'u', 0, '7', 'translation', 'text', x'223122', 0, 0, x'223022', 4, 1000);
    INSERT INTO writes VALUES (9, 'd', 'u', 0, '7', 'translation', 'n', NULL, 3, 1, NULL, 4, 2000);
    INSERT INTO revocations VALUES (5, 'dead', 3000, 0, 1);
    INSERT INTO pushes VALUES (2, 'pushed');
    INSERT INTO copies VALUES ('d', 'ui', 6, x'81a46c616e67c40422656e22');
    INSERT INTO outages VALUES ('primary', 4000);
"""
"""What the first release made, with one entry of every sort."""

VERSION_2 = f"""
    {VERSION_1}
    CREATE TABLE user_revocations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL UNIQUE, until_ms INTEGER NOT NULL);
    CREATE TABLE servers (
        endpoint TEXT PRIMARY KEY, identity TEXT NOT NULL, trust_since_ms INTEGER NOT NULL,
        generation TEXT NOT NULL, number INTEGER NOT NULL);
    CREATE TABLE settlement (
        id INTEGER PRIMARY KEY CHECK (id = 0), server TEXT NOT NULL, since_ms INTEGER NOT NULL,
        began_ms INTEGER NOT NULL, claimant TEXT NOT NULL, claimed_until_ms INTEGER NOT NULL);
    INSERT INTO settlement VALUES (0, '', 0, 0, '', 0);
    PRAGMA user_version = 2;
"""
"""What the second release made of it, or at once."""

VERSION_3 = f"""
    {VERSION_2}
    ALTER TABLE user_revocations ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE user_revocations ADD COLUMN in_database INTEGER NOT NULL DEFAULT FALSE;
    ALTER TABLE user_revocations ADD COLUMN reached TEXT NOT NULL DEFAULT '';
    PRAGMA user_version = 3;
"""
"""What the third release made of it, or at once."""

OLD = {1: VERSION_1, 2: VERSION_2, 3: VERSION_3}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "journal.sqlite"
    end_all()


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest, path: Path) -> Iterator[sqlite3.Connection]:
    """A worker of an older release, which has the file open."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(OLD[request.param])
    yield connection
    connection.close()


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


def assert_taken_over(journal: Journal) -> None:
    """Everything that waited in the older release's file is there, and what is new works."""
    assert journal.counts() == {
        "writes": 2, "revocations": 1, "user_revocations": 0, "pushes": 1, "copies": 1, "outages": 1,
    }  # fmt: skip
    text, number = journal.pending_writes()
    assert (text.seq, text.value, text.base, text.base_version, text.user_id) == (7, b'"1"', b'"0"', 4, "7")
    assert (number.seq, number.is_delta, number.delta, number.at_ms) == (9, True, 3, 2000)
    [revocation] = journal.pending_revocations()
    assert (revocation.digest, revocation.in_database, revocation.in_redis) == ("dead", False, True)
    assert [push.digest for push in journal.pending_pushes()] == ["pushed"]
    assert journal.overlay("d").copies == {"ui": CategoryCopy(6, {"lang": b'"en"'})}
    journal.revoke_user("7", until_ms=5)
    journal.remember_server("redis:6379", ServerRecord("a", 1, "g", 1))
    journal.revoke_user("8", epoch=2)
    assert journal.overlay("d").users == {"7": 5, "8": 0}
    assert journal.overlay("d").epochs == {"8": 2}
    assert journal.server("redis:6379") is not None


# From one release to the next


def test_the_file_of_an_older_release_is_taken_over(old: sqlite3.Connection, journal: Journal) -> None:
    """Nothing that waits is lost by an upgrade in the middle of an outage."""
    old.close()
    assert not journal.is_empty()
    assert_taken_over(journal)
    journal.close()
    assert journal.overlay("d").users == {"7": 5, "8": 0}


@pytest.mark.parametrize("old", [2], indirect=True)
def test_a_user_who_waits_in_the_file_of_the_second_release_is_logged_out(
    old: sqlite3.Connection, journal: Journal
) -> None:
    """As it was noted there, also by a worker of that release which goes on."""
    old.execute("INSERT INTO user_revocations VALUES (3, '7', 5)")
    assert journal.pending_user_revocations(redis=False) == [PendingUserRevocation(3, "7", 5)]
    old.execute("INSERT OR REPLACE INTO user_revocations (user_id, until_ms) VALUES ('7', 6)")
    assert journal.pending_user_revocations(redis=False) == [PendingUserRevocation(4, "7", 6)]


def test_a_number_of_an_older_release_is_never_given_again(old: sqlite3.Connection, journal: Journal) -> None:
    """Numbers go on where that release ended, so that an old entry can never name a new write."""
    journal.write("e", kind="a", category="ui", changes={"a": b"1"}, base={}, base_version=1)
    assert journal.pending_writes()[-1].seq > 9


def test_a_worker_of_an_older_release_goes_on(old: sqlite3.Connection, journal: Journal) -> None:
    """While one worker after the other is replaced, old and new ones see what the others note."""
    assert old.execute("SELECT count(*) FROM revocations").fetchone() == (1,)
    assert_taken_over(journal)
    journal.revoke("of the new")
    assert old.execute("SELECT count(*) FROM revocations").fetchone() == (2,)
    old.execute("INSERT INTO revocations (digest, at_ms, in_database, in_redis) VALUES ('of the old', 1, 0, 0)")
    assert journal.is_revoked("of the old")


def test_workers_that_take_over_together_lose_nothing(old: sqlite3.Connection, journal: Journal, path: Path) -> None:
    """Processes that all find the older release's file at the same moment all succeed."""
    script = "wait(); journal.open(); journal.revoke_user(sys.argv[2], until_ms=1)"
    workers = [process(script, path, number) for number in range(5)]
    let_go(workers)
    for worker in workers:
        output(worker)
    users = journal.pending_user_revocations()
    assert sorted(entry.user_id for entry in users) == list("01234")
    for entry in users:
        journal.forget_user_revocation(entry)
    assert_taken_over(journal)


def test_kill_9_in_the_middle_of_taking_over_leaves_the_old_file(
    old: sqlite3.Connection, journal: Journal, path: Path
) -> None:
    """The file is one release's or the other's, never half; the next worker takes it over."""
    script = """
        from flask_langpont_session.stores import journal_file
        class Dying(dict):
            def get(self, version, default):
                yield journal_file.MIGRATIONS[version][0]
                os.kill(os.getpid(), signal.SIGKILL)
        journal_file.MIGRATIONS = Dying(journal_file.MIGRATIONS)
        journal.open()
    """
    [version] = old.execute("PRAGMA user_version").fetchone()
    worker = process(script, path)
    output(worker, expected=-signal.SIGKILL)
    assert old.execute("PRAGMA user_version").fetchone() == (version,)
    assert_taken_over(journal)


# Several workers, one of them killed


def acknowledged_by(worker: subprocess.Popen[str], lines: int) -> list[str]:
    """The next lines of a worker that goes on working."""
    assert worker.stdout is not None
    read = [worker.stdout.readline().strip() for _ in range(lines)]
    assert all(read), "the worker ended"
    return read


def killed(worker: subprocess.Popen[str]) -> list[str]:
    """Kill a worker in the middle of its work. What it had said until then."""
    worker.kill()
    # Not communicate(), which leaves out what was read ahead.
    assert worker.stdout is not None
    rest = worker.stdout.read()
    output(worker, expected=-signal.SIGKILL)
    # The last line may have been cut off.
    return [line for line in rest.split("\n")[:-1] if line]


def test_kill_9_of_one_worker_loses_nothing_of_any(path: Path, journal: Journal) -> None:
    """Everything that any of three workers had acknowledged is there, and the two that live go on."""
    script = """
        me, number = sys.argv[2], 0
        while True:
            try:
                name = f"{me}.{number}"
                place = {"kind": "u", "category": "translation", "base_version": 4}
                journal.write(name, changes={"a": b"1"}, base={"a": b"0"}, **place)
                journal.increment("d", field=f"n{me}", by=1, **place)
                journal.revoke(f"r{name}")
                journal.revoke_user(f"u{name}", until_ms=number)
                journal.queue_push(f"p{name}")
                journal.remember_server(me, ServerRecord("a", 1, "g", number + 1))
            except StoreError:
                continue
            number += 1
            print(name, flush=True)
    """
    workers = [process(script, path, number) for number in range(3)]
    acknowledged = [acknowledged_by(worker, 10) for worker in workers]
    acknowledged[0] += killed(workers[0])
    for number in (1, 2):
        acknowledged[number] += acknowledged_by(workers[number], 10) + killed(workers[number])
    names = [name for names in acknowledged for name in names]
    writes = {entry.digest: entry for entry in journal.pending_writes(limit=10**6)}
    assert set(names) <= set(writes)
    assert {(writes[name].base, writes[name].base_version) for name in names} == {(b"0", 4)}
    assert {f"r{name}" for name in names} <= {entry.digest for entry in journal.pending_revocations(limit=10**6)}
    assert {f"u{name}" for name in names} <= {entry.user_id for entry in journal.pending_user_revocations(limit=10**6)}
    assert {f"p{name}" for name in names} <= {entry.digest for entry in journal.pending_pushes(limit=10**6)}
    for number, said in enumerate(acknowledged):
        server = journal.server(str(number))
        assert server is not None
        # One more may have been written and not been acknowledged.
        assert server.number - len(said) in (0, 1)
        assert journal.overlay("d").deltas["translation"][f"n{number}"] >= len(said)


def test_a_user_noted_while_an_older_entry_is_carried_out_is_not_lost(path: Path, journal: Journal) -> None:
    """Two workers note ever later times, two carry out and forget, one of which is killed; the last times remain or
    were carried out."""
    noting = """
        for number in range(1, 61):
            while True:
                try:
                    journal.revoke_user(sys.argv[2], until_ms=number)
                    break
                except StoreError:
                    pass
            if number == 30:
                wait()
    """
    carrying = """
        while True:
            try:
                for entry in journal.pending_user_revocations():
                    print(entry.user_id, entry.until_ms, flush=True)
                    journal.forget_user_revocation(entry)
            except StoreError:
                pass
    """
    carriers = [process(carrying, path) for _ in range(2)]
    writers = [process(noting, path, user) for user in ("7", "8")]
    let_go(writers)
    carried = killed(carriers[0])
    for writer in writers:
        output(writer)
    carried += killed(carriers[1])
    last = {entry.user_id: entry.until_ms for entry in journal.pending_user_revocations()}
    for user, until in (line.split() for line in carried):
        last[user] = max(last.get(user, 0), int(until))
    assert last == {"7": 60, "8": 60}


def test_of_what_workers_know_of_a_server_the_newest_stays(path: Path, journal: Journal) -> None:
    """S5: four workers note older and newer things in any order; who starts now learns of the last incident."""
    script = """
        wait()
        me = int(sys.argv[2])
        for trust_since_ms, number in ((1, me), (2 + me, 1), (1, 9), (2 + me, 2), (2, 9)):
            while True:
                try:
                    journal.remember_server("redis:6379", ServerRecord("a", trust_since_ms, f"g{me}", number))
                    break
                except StoreError:
                    pass
    """
    workers = [process(script, path, number) for number in range(4)]
    let_go(workers)
    for worker in workers:
        output(worker)
    assert journal.server("redis:6379") == ServerRecord("a", 5, "g3", 2)


def test_a_server_is_noted_while_requests_write(path: Path, journal: Journal) -> None:
    """What is not forced to the disk is there for every worker nevertheless, and no entry between is lost."""
    script = """
        for number in range(1, 41):
            journal.remember_server(sys.argv[2], ServerRecord("a", 1, "g", number))
            journal.revoke(f"{sys.argv[2]}.{number}")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    workers = [process(script, path, name) for name in ("left", "right")]
    for worker in workers:
        output(worker, expected=-signal.SIGKILL)
    assert [record and record.number for record in (journal.server("left"), journal.server("right"))] == [40, 40]
    names = {f"{name}.{number}" for name, number in product(("left", "right"), range(1, 41))}
    assert {entry.digest for entry in journal.pending_revocations()} == names
