"""D32: each form of the journal has a file of its own; the former one is used as long as anything depends on it."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from flask_langpont_session.policy.changes import Basis, Operation
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.stores.host.entries import FORMER_VERSION, SCHEMA_VERSION, PendingWrite
from flask_langpont_session.stores.host.forms import CLOSED, archive, file_in_use, open_journal, path_of, unread
from flask_langpont_session.stores.host.handover import hand_over
from flask_langpont_session.stores.host.journal import Carry, Journal
from flask_langpont_session.stores.host.opening import files_of
from tests.support import former_release
from tests.support.former_release import REVOCATION
from tests.support.journals import KNOWN, blind_write, ref, write

NOTHING_ELSE = ("-clock", "-reserve", "-gen", "-lock", "-register", "-near", "-seen", "-wiped")

pytestmark = pytest.mark.usefixtures("patient_journal")


@pytest.fixture
def journal(durable: Journal) -> Journal:
    return durable


def files(path: Path) -> set[str]:
    """Return how the names of the journal's files end: of those that have a form."""
    ends = {file.name.removeprefix(path.name) for file in path.parent.iterdir()}
    return {end for end in ends if end not in NOTHING_ELSE and not end.endswith(("-wal", "-shm"))}


def form_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_each_form_has_a_name(journal: Journal, path: Path) -> None:
    journal.open()
    assert file_in_use(path) == path_of(path) == path.with_name(f"{path.name}-{SCHEMA_VERSION}")
    assert (files(path), form_of(path_of(path))) == ({f"-{SCHEMA_VERSION}"}, SCHEMA_VERSION)


def test_the_former_file_is_used_while_anything_waits_in_it(journal: Journal, sibling: Journal, path: Path) -> None:
    """A sign-out of the former release ends the session for this one; what this one keeps is there for that one."""
    former_release.make(path, REVOCATION)
    journal.open()
    assert journal.overlay(ref("ended")).revoked
    write(journal, "d", a=b"1")
    for one in (journal, sibling):
        hand_over(one.file)
        assert one.overlay(ref("d")).writes == {"translation": {"a": b"1"}}
    assert (files(path), file_in_use(path)) == ({""}, path)
    with former_release.held(path) as old:
        assert old.execute("SELECT field FROM writes").fetchall() == [("a",)]


def test_a_drained_file_is_removed_as_soon_as_no_process_has_it_open(
    journal: Journal, sibling: Journal, path: Path
) -> None:
    """No number is given twice, and what is known of the servers is kept: a new worker need not verify each session."""
    with former_release.held(path) as old:
        old.execute(REVOCATION)
        journal.board.remember_server("primary", KNOWN)
        write(journal, "d", a=b"1")
        [entry] = journal.pending_writes()
        journal.revocations.mark_done("ended", in_database=True, in_redis=True)
        journal.forget_writes([entry])
        assert journal.is_empty() and sibling.is_empty()
        for one in (journal, sibling):
            hand_over(one.file)
        assert files(path) == {""}
    hand_over(sibling.file)
    assert files(path) == {f"-{SCHEMA_VERSION}"}
    write(journal, "d", a=b"2")
    assert sibling.overlay(ref("d")).writes == {"translation": {"a": b"2"}}
    assert [again.seq > entry.seq for again in sibling.pending_writes()] == [True]
    assert sibling.board.server("primary") == KNOWN
    assert sibling.revocations.delivered() == ["ended"]


def test_a_file_that_is_in_use_is_not_removed(journal: Journal, sibling: Journal, path: Path) -> None:
    """Nor what a worker of this release has open: one that asks it lets go of it only at the end of its call."""
    former_release.make(path)
    with sibling.file.connected():
        hand_over(journal.file)
        assert files(path) == {""}
    hand_over(journal.file)
    assert files(path) == {f"-{SCHEMA_VERSION}"}


def test_a_process_that_opened_it_just_before_finds_that_it_is_closed(
    journal: Journal, sibling: Journal, path: Path
) -> None:
    """It goes on with the own form. The former release makes a file anew, for it knows no form beyond its own."""
    former_release.make(path)
    late = sqlite3.connect(path, isolation_level=None)  # which opens no file yet
    inode = os.open(path, os.O_RDONLY)
    hand_over(journal.file)
    os.close(inode)
    assert files(path) == {f"-{SCHEMA_VERSION}"}
    late.close()
    former_release.make(path, form=CLOSED)  # a process was killed before it could remove it
    sibling.revocations.note("d")
    assert journal.revocations.is_revoked("d")
    assert file_in_use(path) == path_of(path)
    hand_over(journal.file)
    assert files(path) == {f"-{SCHEMA_VERSION}"}
    assert sibling.revocations.is_revoked("d")


def test_a_worker_of_the_former_release_that_is_started_again_is_known(
    journal: Journal, sibling: Journal, path: Path
) -> None:
    """Everything that waits is brought to its file: it hears of it, and nothing is lost."""
    journal.revocations.note("mine")
    journal.revocations.note_user("7", until_ms=5)
    journal.queue_push("p", 3)
    journal.carry(Carry("from", "to", "a", ["translation"]))
    journal.put([blind_write("a", b"1"), addition("n", 2)])
    assert sibling.overlay(ref("mine")).revoked
    with former_release.held(path) as old:
        old.execute(REVOCATION)
        for one in (journal, sibling, journal):
            hand_over(one.file)
        for one in (journal, sibling):
            assert not one.is_empty()
            assert one.overlay(ref("ended")).revoked and one.overlay(ref("mine")).revoked
            seen = one.overlay(ref("d"))
            assert (seen.writes, seen.users) == ({"translation": {"a": b"1"}}, {"7": 5})
            assert seen.deltas == {"translation": {"n": [("token..", 2)]}}
        assert old.execute("SELECT digest FROM revocations ORDER BY digest").fetchall() == [("ended",), ("mine",)]
        assert old.execute("SELECT origin, digest FROM carries").fetchall() == [("from", "to")]
        assert old.execute("SELECT digest, version FROM pushes").fetchall() == [("p", 3)]
        old.execute("UPDATE writes SET value = NULL")
    assert one.counts()["writes"] == 2


def test_a_worker_that_found_nothing_in_the_former_file_looks_again_when_something_is_brought_there(
    journal: Journal, sibling: Journal, path: Path
) -> None:
    """For that worker all that waits is in the former file."""
    journal.revocations.note("mine")
    with former_release.held(path):
        assert sibling.is_empty()
        hand_over(journal.file)
        assert not sibling.is_empty()
        assert sibling.overlay(ref("mine")).revoked


def test_a_session_that_the_former_release_has_ended_gets_nothing_but_its_shadow(journal: Journal, path: Path) -> None:
    """The shadow is a visitor's."""
    write(journal, "ended", a=b"1")
    journal.put([blind_write("b", b"2", digest="ended", shadow=True)])
    former_release.make(path, REVOCATION)
    hand_over(journal.file)
    with former_release.held(path) as old:
        assert old.execute("SELECT field, shadow FROM writes").fetchall() == [("b", 1)]


def test_a_file_that_the_former_release_is_about_to_make_is_looked_at_again(path: Path) -> None:
    """Its tables are in SQLite's log at first, and the file is as it was."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        path.chmod(0o600)
        db.execute("PRAGMA journal_mode = WAL")
        assert file_in_use(path) == path_of(path)
        before = path.stat().st_mtime_ns
        with former_release.held(path):
            assert path.stat().st_mtime_ns == before
            assert file_in_use(path) == path


@pytest.mark.parametrize("form", [FORMER_VERSION, SCHEMA_VERSION])
def test_sqlite_waits_for_no_longer_than_a_call_allows(path: Path, form: int) -> None:
    """The time that an opening has is that of the opening."""
    if form == FORMER_VERSION:
        former_release.make(path)
    connection, place = open_journal(path, time.monotonic() + 5)
    with closing(connection):
        assert place == path_of(path, form)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (0,)


def addition(field: str, by: int) -> PendingWrite:
    return replace(blind_write(field), operation=Operation.ADD, delta=by, token="token..", basis=Basis.BLIND)


@pytest.mark.parametrize(("theirs_ms", "left"), [(1, b"mine"), (2**60, b"theirs")])
def test_of_two_writes_of_a_field_the_later_one_counts(
    journal: Journal, path: Path, theirs_ms: int, left: bytes
) -> None:
    """The later write counts, whichever of the two files it is in."""
    journal.put([blind_write("a", b"mine"), addition("n", 1)])
    row = f"""INSERT INTO writes (digest, kind, shadow, category, operation, field, value, delta, basis, moment, doubts,
        token, is_sent, acknowledged, at_ms) VALUES ('d', 'u', 0, 'translation', 'set', 'a', CAST('theirs' AS BLOB), 0,
        'blind', 0, '', '', 0, 0, {theirs_ms})"""
    former_release.make(path, row)
    hand_over(journal.file)
    hand_over(journal.file)
    seen = journal.overlay(ref("d"))
    assert (seen.writes, seen.deltas) == ({"translation": {"a": left}}, {"translation": {"n": [("token..", 1)]}})


# What cannot be read


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE accounts (id)")
    path.chmod(0o600)


@pytest.mark.parametrize(
    ("lay", "why"),
    [
        (former_release.make_older, f"an older release has written it, in form {FORMER_VERSION - 1}"),
        (former_release.damage, "it cannot be read (SQLITE_NOTADB)"),
        (of_another_program, "it is not a journal"),
    ],
)
def test_a_file_in_any_other_form_is_left_alone(journal: Journal, path: Path, lay: object, why: str) -> None:
    """D32: nothing refuses for it. It is told, and keeps its content; `--archive` gives it another name."""
    assert callable(lay)
    lay(path)
    before = path.read_bytes()
    journal.open()
    journal.revocations.note("d")
    hand_over(journal.file)
    assert file_in_use(path) == path_of(path)
    assert unread(path) == [(path, why)]
    assert path.read_bytes() == before
    [(former, present)] = archive(path)
    assert (former, present.read_bytes(), path.exists()) == (path, before, False)
    assert (unread(path), archive(path)) == ([], [])
    assert journal.revocations.is_revoked("d")


def test_a_newer_form_and_a_damaged_own_file_are_archived(journal: Journal, path: Path) -> None:
    """Both are archived with what SQLite has beside them. A worker goes on with a new file, a newer release as if it
    were new here."""
    journal.open()
    newer = path_of(path, SCHEMA_VERSION + 1)
    former_release.make(newer, form=SCHEMA_VERSION + 1)
    former_release.damage(path_of(path))
    with pytest.raises(StoreError):
        journal.is_empty()
    beside = {file for file in files_of(path_of(path)) if file.exists()}
    assert {file.path for file in unread(path)} == {newer, path_of(path)}
    assert {before for before, _ in archive(path)} == {newer, *beside}
    journal.revocations.note("d")
    assert journal.revocations.is_revoked("d")
    assert unread(path) == []
