"""D32: workers of the former release and of this one use one file. What is no journal of theirs is left alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.stores.host.journal import Journal
from flask_langpont_session.stores.host.opening import FORMS, SCHEMA_VERSION, archive, files_of, path_of, unread
from flask_langpont_session.stores.host.register import former_paths
from tests.support import former_release
from tests.support.former_release import REVOCATION
from tests.support.journals import in_fork, ref, write

pytestmark = pytest.mark.usefixtures("patient_journal")


@pytest.fixture
def journal(durable: Journal) -> Journal:
    return durable


def test_workers_of_the_former_release_use_the_same_file(journal: Journal, sibling: Journal, path: Path) -> None:
    """A sign-out of the former release ends the session for this one; what this one keeps is there for that one."""
    former_release.make(path, REVOCATION)
    journal.open()
    assert journal.overlay(ref("ended")).revoked
    write(journal, "d", a=b"1")
    assert sibling.overlay(ref("d")).writes == {"translation": {"a": b"1"}}
    with former_release.held(path) as old:
        assert old.execute("SELECT field FROM writes").fetchall() == [("a",)]
        assert old.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert path_of(path) == path


def test_a_file_in_form_9_is_used_on(journal: Journal, path: Path) -> None:
    """An earlier state of this release has made it, beside the file that the setting names."""
    beside = path.with_name(f"{path.name}-9")
    former_release.make(beside, REVOCATION, form=9)
    assert journal.overlay(ref("ended")).revoked
    former_release.make(path)
    assert (path_of(path), unread(path)) == (beside, [(path, f"{beside.name} is used")])


def test_a_file_that_the_former_release_is_about_to_make_is_the_journal(path: Path) -> None:
    """Its tables are in SQLite's log at first, and the file is as it was."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        path.chmod(0o600)
        db.execute("PRAGMA journal_mode = WAL")
        assert path_of(path) == path


def test_the_former_register_is_removed_when_no_process_has_the_journal_open(
    journal: Journal, sibling: Journal, path: Path
) -> None:
    """A worker of the former release would read it."""
    for file in former_paths(path):
        file.touch()
    with former_release.held(path):
        journal.open()
    assert all(file.exists() for file in former_paths(path))
    assert in_fork(sibling.open) == "None"
    assert not any(file.exists() for file in former_paths(path))


# What cannot be read


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE accounts (id)")
    path.chmod(0o600)


@pytest.mark.parametrize(
    ("lay", "why"),
    [
        (former_release.make_older, f"an older release has written it, in form {SCHEMA_VERSION - 1}"),
        (former_release.damage, "it cannot be read (SQLITE_NOTADB)"),
        (of_another_program, "it is not a journal"),
    ],
)
def test_a_file_in_any_other_form_is_left_alone(
    journal: Journal, sibling: Journal, path: Path, lay: object, why: str
) -> None:
    """D32: nothing refuses for it. It is told, and keeps its content; `--archive` gives it another name."""
    assert callable(lay)
    lay(path)
    before = path.read_bytes()
    journal.open()
    journal.revocations.note("d")
    assert path_of(path) == path.with_name(f"{path.name}-{max(FORMS)}")
    assert unread(path) == [(path, why)]
    assert path.read_bytes() == before
    [(former, present)] = archive(path)
    assert (former, present.read_bytes(), path.exists()) == (path, before, False)
    assert (unread(path), archive(path)) == ([], [])
    assert journal.revocations.is_revoked("d") and sibling.revocations.is_revoked("d")


def test_a_newer_form_and_a_damaged_own_file_are_archived(journal: Journal, path: Path) -> None:
    """Both are archived with what SQLite has beside them. A worker goes on with a new file, a newer release as if it
    were new here."""
    newer, own = (path.with_name(f"{path.name}-{form}") for form in (max(FORMS) + 1, max(FORMS)))
    former_release.make(own)
    journal.open()
    former_release.make(newer, form=max(FORMS) + 1)
    former_release.damage(own)
    with pytest.raises(StoreError):
        journal.is_empty()
    beside = {file for file in files_of(own) if file.exists()}
    assert {file.path for file in unread(path)} == {newer, own}
    assert {before for before, _ in archive(path)} == {newer, *beside}
    journal.revocations.note("d")
    assert journal.revocations.is_revoked("d")
    assert (path_of(path), unread(path)) == (path, [])
