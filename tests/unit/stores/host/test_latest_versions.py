"""The file in which the workers of a host note the latest version of each category."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from flask_langpont_session.policy.ids import digest_of
from flask_langpont_session.stores.host import latest_versions
from flask_langpont_session.stores.host.latest_versions import LatestVersions
from flask_langpont_session.support import files as private_file
from flask_langpont_session.support.files import PrivateNumbers

LONG = 30.0
MS = 1000
"""Microseconds."""


@pytest.mark.parametrize("is_shared", [True, False])
def test_an_older_version_is_outdated(path: Path, is_shared: bool) -> None:
    """To the millisecond; of another session or category nothing is said."""
    versions = LatestVersions(path if is_shared else None, "seen")
    versions.note("d", "ui", 5 * MS)
    assert versions.is_outdated("d", "ui", 4 * MS)
    assert not versions.is_outdated("d", "ui", 5 * MS)
    assert not versions.is_outdated("d", "other", 4 * MS)
    assert not versions.is_outdated("e", "ui", 4 * MS)


@pytest.mark.parametrize("is_shared", [True, False])
def test_an_answer_that_was_read_before_the_last_write_changes_nothing(path: Path, is_shared: bool) -> None:
    """Of two requests the one that has read the older version may be the later one to note what it has read."""
    versions = LatestVersions(path if is_shared else None, "seen")
    versions.note("d", "ui", 5 * MS)
    versions.note("d", "ui", 4 * MS)
    assert versions.is_outdated("d", "ui", 4 * MS)


def test_workers_share_it(path: Path) -> None:
    """Also after one of them has let go of the file."""
    mine, siblings = LatestVersions(path, "seen"), LatestVersions(path, "seen")
    mine.note("d", "ui", 5 * MS)
    mine.close()
    assert siblings.is_outdated("d", "ui", 4 * MS)
    assert mine.is_outdated("d", "ui", 4 * MS)


def test_letting_go_of_the_file_harms_no_thread_that_uses_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system gives the number of a closed descriptor to the next file: that must not be written to."""
    versions, write = LatestVersions(path, "seen"), os.pwrite
    others: list[int] = []

    def write_late(descriptor: int, content: bytes, place: int) -> int:
        versions.close()
        others.append(os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT))
        return write(descriptor, content, place)

    monkeypatch.setattr(os, "pwrite", write_late)
    versions.note("d", "ui", 5 * MS)
    os.close(others[0])
    assert (tmp_path / "other").read_bytes() == b""


def test_threads_that_open_it_at_once_leave_no_descriptor_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither that which is used from then on nor that which is one too many."""
    both, opened, open_it = threading.Barrier(2), list[int](), private_file.open_private

    def open_together(path: Path, *flags: int) -> int:
        both.wait(LONG)
        opened.append(open_it(path, *flags))
        return opened[-1]

    monkeypatch.setattr(private_file, "open_private", open_together)
    versions = LatestVersions(path, "seen")
    threads = [threading.Thread(target=versions.note, args=("d", "ui", 5 * MS)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions.close()
    assert len(opened) == 2
    for descriptor in opened:
        with pytest.raises(OSError):
            os.fstat(descriptor)


@pytest.mark.parametrize("is_shared", [True, False])
def test_what_is_noted_of_others_displaces_nothing(path: Path, is_shared: bool) -> None:
    """I20: of an id that was given up nothing else may be left that tells it, while others go on to be given up."""
    number_of_sessions = 2000 if is_shared else 60_000  # in use by the workers of a host, together
    versions = LatestVersions(path if is_shared else None, "wiped")
    digests = [digest_of(str(n)) for n in range(number_of_sessions)]
    for number, digest in enumerate(digests, 1):
        versions.note(digest, "translation", number * MS)
    assert [n for n, digest in enumerate(digests) if not versions.is_outdated(digest, "translation", n * MS)] == []
    assert [n for n, digest in enumerate(digests, 1) if versions.is_outdated(digest, "translation", n * MS)] == []


@pytest.mark.parametrize("is_shared", [True, False])
def test_what_was_noted_longest_ago_gives_way(path: Path, is_shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is noted again does not count as noted before."""
    monkeypatch.setattr(latest_versions, "BUCKETS", 1)
    versions = LatestVersions(path if is_shared else None, "wiped")
    names = [f"d{number}" for number in range(7)]
    for number, name in enumerate(names):
        versions.note(name, "ui", (number + 1) * MS)
    versions.note("d0", "ui", 9 * MS)
    versions.note("one too many", "ui", 10 * MS)
    known = [name for name in (*names, "one too many") if versions.is_outdated(name, "ui", 2 * MS)]
    assert known == ["d0", *names[2:], "one too many"]


@pytest.mark.parametrize("is_shared", [True, False])
def test_what_had_to_be_forgotten_leaves_a_mark(path: Path, is_shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """I30: a copy up to the highest version that was forgotten counts as outdated, whosever it is; a newer one does
    not, nor one of a category that is noted, nor one that was confirmed since."""
    monkeypatch.setattr(latest_versions, "BUCKETS", 1)
    versions = LatestVersions(path if is_shared else None, "seen")
    for number in (5, 4, 11, 12, 13, 14, 15, 16, 17):  # 4 and 5 are forgotten, in this order
        versions.note(f"d{number}", "ui", number * MS)
        assert versions.is_outdated("other", "ui", 3 * MS) == (number >= 16)
        assert versions.is_outdated("other", "ui", 4 * MS) == (number == 17)
    for name, version, since_ms, is_outdated in [
        ("d5", 4, 0, True),
        ("d5", 4, 5, True),
        ("d5", 4, 6, False),
        ("d5", 5, 0, False),
        ("d4", 4, 0, True),
        ("d11", 4, 6, True),
        ("d11", 11, 0, False),
    ]:
        assert versions.is_outdated(name, "ui", version * MS, since_ms) == is_outdated, (name, version, since_ms)


def test_what_two_workers_forget_at_once_leaves_the_higher_mark(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found the same place, and one of them wrote there first: it has what the other one displaces."""
    monkeypatch.setattr(latest_versions, "BUCKETS", 1)
    mine, siblings = LatestVersions(path, "seen"), LatestVersions(path, "seen")
    for number in range(1, 8):
        mine.note(f"d{number}", "ui", number * MS)
    read, late = PrivateNumbers.read, [lambda: siblings.note("sibling", "ui", 20 * MS)]

    def read_and_wait(self: PrivateNumbers, place: int, size: int) -> bytes:
        found = read(self, place, size)
        if late:
            late.pop()()
        return found

    monkeypatch.setattr(PrivateNumbers, "read", read_and_wait)
    mine.note("mine", "ui", 21 * MS)
    assert mine.is_outdated("sibling", "ui", 19 * MS)
    assert not mine.is_outdated("sibling", "ui", 20 * MS)
    assert mine.is_outdated("mine", "ui", 20 * MS)


def test_the_file_of_the_former_release_is_used_from_when_its_journal_is_met(path: Path) -> None:
    """Elsewhere it costs nothing, and is not made."""
    has_met_former = False
    versions = LatestVersions(path, "seen", has_met_former=lambda: has_met_former)
    former = LatestVersions(path, "seen", is_former=True)
    versions.note("d", "ui", 5 * MS)
    assert (versions.latest("d", "ui"), versions.is_outdated("d", "ui", 4 * MS)) == (5 * MS, True)
    assert not Path(f"{path}-seen").exists()
    former.note("d", "ui", 6 * MS)
    assert (versions.latest("d", "ui"), versions.is_outdated("d", "ui", 5 * MS)) == (5 * MS, False)
    has_met_former = True
    assert (versions.latest("d", "ui"), versions.is_outdated("d", "ui", 5 * MS)) == (6 * MS, True)
    versions.note("d", "ui", 7 * MS)
    assert former.latest("d", "ui") == 7 * MS


def test_in_the_file_of_the_former_release_no_mark_takes_a_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each word of a bucket is a place there."""
    monkeypatch.setattr(latest_versions, "FORMER_BUCKETS", 1)
    versions = LatestVersions(path, "seen", is_former=True)
    for number in range(1, 10):
        versions.note(f"d{number}", "ui", number * MS)
    noted = {number: versions.latest(f"d{number}", "ui") for number in range(1, 10)}
    assert noted == {1: 0} | {number: number * MS for number in range(2, 10)}
