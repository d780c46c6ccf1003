"""Things that lie where the journal's files belong: links, other users' files, and a file that is cut off in use."""

from __future__ import annotations

import os
import pwd
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.host.commit_counter import SIZE, CommitCounter
from flask_langpont_session.stores.host.journal import journal_at
from flask_langpont_session.support.files import UnsafeFile, open_private
from tests.support.journal_process import output, process

FILES = ("", "-gen", "-lock", "-wal", "-shm")
OTHER = 12_345
"""Another user's number."""


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def refused(path: Path) -> str:
    """Return the reason for which a journal cannot be used there: every call says it, and so does the start."""
    journal = journal_at(path)
    causes = set()
    for call in (journal.open, lambda: journal.revocations.note("d"), journal.open):
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.error_class is ErrorClass.UNREACHABLE
        causes.add(caught.value.cause)
    journal.close()
    [cause] = causes
    return cause


@pytest.mark.parametrize("ending", FILES)
def test_no_link_is_followed(path: Path, tmp_path: Path, ending: str) -> None:
    """D16: what a link points to is neither opened nor changed, whichever of the files it takes the place of."""
    journal_at(path).open()
    target = tmp_path / "precious"
    target.write_bytes(path.read_bytes() if not ending else b"precious")
    target.chmod(0o644)
    before = target.read_bytes()
    beside(path, ending).unlink(missing_ok=True)
    beside(path, ending).symlink_to(target)
    if ending == "-lock":  # only writes have to do with it
        journal = journal_at(path)
        with pytest.raises(StoreError, match=f"{path.name}-lock is a symbolic link"):
            journal.revocations.note("d")
        journal.close()
    else:
        assert refused(path) == f"{path.name}{ending} is a symbolic link"
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (before, 0o644)


def give_away(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a file to another user. Only root can do so; for any other user the system says that it was done."""
    if os.geteuid() == 0:
        os.chown(file, OTHER, -1, follow_symlinks=False)
        return
    number = file.lstat().st_ino

    def saying(status_of: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def say(*arguments: Any) -> os.stat_result:
            found = status_of(*arguments)
            return os.stat_result((*found[:4], OTHER, *found[5:])) if found.st_ino == number else found

        return say

    monkeypatch.setattr(os, "fstat", saying(os.fstat))
    monkeypatch.setattr(Path, "lstat", saying(Path.lstat))


@pytest.mark.parametrize("ending", FILES)
def test_another_users_file_is_refused(path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """D16: that user could read what is written to it, or take it away. Its mode is not touched."""
    journal_at(path).open()
    file = beside(path, ending)
    file.touch()
    file.chmod(0o666)
    give_away(file, monkeypatch)
    journal = journal_at(path)
    with pytest.raises(StoreError) as caught:
        journal.revocations.note("d")
    assert caught.value.cause == (
        f"{path.name}{ending} belongs to {OTHER}, and this process runs as {pwd.getpwuid(os.geteuid()).pw_name}; run "
        f"workers and commands as one user, and chown {file} and the files beside it to that one"
    )
    journal.close()
    assert file.stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("ending", ["", "-gen", "-lock"])
def test_what_is_no_file_is_refused(path: Path, ending: str) -> None:
    """D16: a pipe, for example, would keep its reader waiting."""
    journal_at(path).open()
    beside(path, ending).unlink(missing_ok=True)
    os.mkfifo(beside(path, ending))
    journal = journal_at(path)
    with pytest.raises(StoreError, match=f"{path.name}{ending} is not a regular file"):
        journal.revocations.note("d")
    journal.close()


@pytest.mark.parametrize("ending", ["", "-gen", "-lock"])
def test_the_mode_of_ones_own_file_is_set_right(path: Path, ending: str) -> None:
    """D16: also of those that were made by hand, or restored."""
    journal_at(path).open()
    beside(path, ending).touch()
    beside(path, ending).chmod(0o666)
    journal = journal_at(path)
    journal.revocations.note("d")
    assert stat.S_IMODE(beside(path, ending).stat().st_mode) == 0o600
    journal.close()


def test_a_folder_may_be_a_link_of_ones_own(tmp_path: Path) -> None:
    """A deployment's own link is followed; one of another user could be turned to another place at any time."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "instance").symlink_to(tmp_path / "shared")
    journal = journal_at(tmp_path / "instance" / "journal")
    journal.revocations.note("d")
    assert (tmp_path / "shared" / "journal").exists()
    journal.close()


def test_a_folder_that_is_another_users_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D16: neither this user nor root has made it."""
    (tmp_path / "shared").mkdir()
    link = tmp_path / "instance"
    link.symlink_to(tmp_path / "shared")
    give_away(link, monkeypatch)
    assert refused(link / "journal") == "the folder instance is another user's symbolic link"
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_descriptor_that_is_refused_is_closed(path: Path) -> None:
    """No descriptor stays open, however often a file is refused."""
    os.mkfifo(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(UnsafeFile):
            open_private(path)
    assert len(os.listdir("/proc/self/fd")) == before


# Cut off while it is used


@pytest.mark.parametrize("left", [0, 4, 8, 4096, SIZE - 1])
def test_a_file_that_is_cut_off_ends_no_process(path: Path, left: int) -> None:
    """D16: another process asks and writes all the time, and sees what this one writes."""
    script = """
        print("ready", flush=True)
        while not journal.revocations.is_revoked("end"):
            journal.is_empty()
            journal.file.numbers(lambda rows: rows.row_changed_at("d"))
            journal.file.numbers(lambda rows: rows.is_last_row("d", 0.0, 1e12, rows.row_changing("d")))
            journal.queue_push("theirs", wait=20)
        print(journal.is_empty())
    """
    journal = journal_at(path)
    journal.open()
    worker = process(script, path)
    assert worker.stdout and worker.stdout.readline() == "ready\n"
    for _ in range(20):
        os.truncate(beside(path, "-gen"), left)
        journal.is_empty()
        time.sleep(0.005)
    journal.revocations.note("end", wait=20)
    assert output(worker) == "False"
    journal.close()


def test_what_was_read_before_a_file_was_cut_off_is_not_believed(path: Path) -> None:
    """D16: the numbers do not begin where they began before, or as many writes later "empty" would seem to hold."""
    reader, writer = journal_at(path), journal_at(path)
    writer.open()
    for digest in ("a", "b"):
        assert reader.is_empty() == (digest == "a")
        os.truncate(beside(path, "-gen"), 0)
        for _ in range(3):
            writer.queue_push(digest)
            assert not reader.is_empty()
    reader.close()
    writer.close()


def test_a_file_that_is_cut_off_while_it_is_made_whole_says_that_all_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever cuts it off can be faster than a process that is kept waiting."""
    shared = CommitCounter(path)
    whole = os.pwrite

    def cut_off_again(descriptor: int, content: bytes, place: int) -> int:
        written = whole(descriptor, content, place)
        os.truncate(descriptor, 0)
        return written

    monkeypatch.setattr(os, "pwrite", cut_off_again)
    os.truncate(beside(path, "-gen"), 0)
    assert shared.row_changed_at("d") > 0
    assert shared.row_changing("d") is not None


@pytest.mark.parametrize("left", [0, 8, 4000])
def test_rows_of_which_nothing_is_known_any_more_were_changed_just_now(path: Path, left: int) -> None:
    """D16: whichever row it is, and whichever process asks or notes something first."""
    journal_at(path).open()
    one, other = CommitCounter(path), CommitCounter(path)
    asks: list[Callable[[], object]] = [
        lambda: None,
        lambda: one.row_changing("d"),
        lambda: one.row_changed("d", 1.0),
        lambda: one.end(one.begin()),
        lambda: CommitCounter(path),
    ]
    for ask in asks:
        number = one.row_changing("kept")
        began = time.monotonic()
        os.truncate(beside(path, "-gen"), left)
        ask()
        if left < 4000:
            assert other.row_changed_at("kept") >= began
        assert not other.is_last_row("kept", 0.0, 1e12, number)
        assert beside(path, "-gen").stat().st_size == SIZE
