"""The knowledge that workers of a host share: which session was changed last, and the latest version of each
category.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devservers.processes import LONG
from flask_langpont_session.policy.ids import digest_of
from flask_langpont_session.stores.host import register
from flask_langpont_session.stores.host.register import NEVER, PLACES, SIZE, Register, former_paths
from flask_langpont_session.support import files
from flask_langpont_session.support.files import beside
from tests.support.journals import in_fork

A, B = "a" * 43, "b" * 43

MS = 1000
"""Microseconds."""

Make = Callable[[], Register]
"""Makes the register of one worker more, for which copies from any time count."""


@pytest.fixture(params=[True, False], ids=["shared", "own"])
def single(request: pytest.FixtureRequest, path: Path) -> Register:
    return Register(path if request.param else None)


@pytest.fixture
def worker(path: Path) -> Make:
    return lambda: Register(path, wall=lambda: 0.0)


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def needs_no_lock(one: Register) -> bool:
    """Return whether it has a cell of its own."""
    before = one.of(A)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fcntl, "fcntl", refusing(errno.ENOLCK))
        return one.change(A, before) is not None


class Call:
    """A call of the system, by which workers that are made from now on read or write. It can be exchanged."""

    def __init__(self, patched: pytest.MonkeyPatch, name: str) -> None:
        self.now = self._system = getattr(os, name)
        patched.setattr(os, name, lambda *arguments: self.now(*arguments))

    def is_followed_by(self, meanwhile: Callable[[], object]) -> None:
        """Have something done once, just after the next call."""

        def call(*arguments: Any) -> Any:
            found, self.now = self._system(*arguments), self._system
            meanwhile()
            return found

        self.now = call


# -- change ids --------------------------------------------------------------------------------------------------------


def test_a_change_is_seen_in_its_session_only(single: Register) -> None:
    before, other = single.of(A), single.of(B)
    assert before == other == NEVER and single.are_usable()
    after = single.change(A, before)
    assert after == single.of(A) != before and single.of(B) == other
    assert single.change(A, before) is None, "it was changed meanwhile"
    assert single.change(A) is None and single.of(A) != after
    single.close()
    assert single.of(A) != before


@pytest.mark.parametrize("shared", [register.CELLS - 2, 1, 0])
def test_another_worker_sees_it_at_once(worker: Make, monkeypatch: pytest.MonkeyPatch, shared: int) -> None:
    """Any number of workers see each other's changes, those without a cell of their own included."""
    monkeypatch.setattr(register, "_SHARED", shared)
    workers = [worker() for _ in range(3)]
    for one in workers:
        before = one.of(A)
        after = one.change(A, before)
        assert after is not None and all(other.of(A) == after for other in (*workers, worker()))
        assert all(other.change(A, before) is None for other in workers)
    assert [needs_no_lock(one) for one in workers] == [number < shared for number in range(3)]


@pytest.mark.parametrize("shared", [register.CELLS - 2, 0])
def test_of_two_changes_at_once_no_worker_takes_its_own_for_the_only_one(
    worker: Make, monkeypatch: pytest.MonkeyPatch, shared: int
) -> None:
    """Both have read the same id, and each has a change that the other one has not seen."""
    monkeypatch.setattr(register, "_SHARED", shared)
    read, one, two = Call(monkeypatch, "pread"), worker(), worker()
    before, others = two.of(A), list[object]()
    one.change(B)
    read.is_followed_by(lambda: others.append(two.change(A, before)))
    assert one.change(A, before) != one.of(A) and others[0] != two.of(A)


def test_a_cell_is_free_when_its_holder_has_ended(worker: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child has its parent's cell at no time."""
    monkeypatch.setattr(register, "_SHARED", 1)
    one, two = worker(), worker()
    before = one.of(A)
    assert (needs_no_lock(one), needs_no_lock(two)) == (True, False)
    assert in_fork(lambda: needs_no_lock(one)) == "False" and needs_no_lock(one)
    one.close()
    two.close()
    assert needs_no_lock(two) and two.of(A) != before


@pytest.mark.parametrize("refused", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_change_that_cannot_be_noted_outdates_all_that_was_known(
    worker: Make, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    with monkeypatch.context() as patched:
        write, one = Call(patched, "pwrite"), worker()
        before, write.now = one.of(A), refusing(refused)
        assert one.change(B) is None and one.change(A, before) is None
        assert one.of(A) != before
    one.close()
    now = one.of(A)
    assert now is not None and one.change(A, now) == one.of(A) != now


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")
def test_its_room_is_reserved_where_that_can_be_done(worker: Make, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is met at the start: else a change would be hidden from those that can read the file."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refusing(errno.ENOSPC))
        worker().note_version(A, "ui", 5 * MS)
        assert worker().of(A) is None and worker().change(A, NEVER) is None
        patched.setattr(os, "posix_fallocate", refusing(errno.EOPNOTSUPP))
        assert worker().of(A) == NEVER
    beside(path, "register").unlink()
    worker().note_version(A, "ui", 5 * MS)
    assert beside(path, "register").stat().st_blocks * 512 >= PLACES * SIZE


def test_only_what_keeps_something_makes_the_file(worker: Make, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command may run as another user than the workers, to whom a file of that user would be of no use."""
    assert worker().change(A) is None and worker().are_usable()
    beside(path, "gen").touch()
    user = os.geteuid()
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: user + 1)
        worker().note_version(A, "ui", 5 * MS)
        assert worker().of(A) is None and not worker().is_outdated(A, "ui", 0)
    assert not beside(path, "register").exists()
    one = worker()
    before = one.of(A)
    assert worker().change(A) is None and one.of(A) != before


def test_a_file_that_cannot_be_used_vouches_for_nothing(worker: Make, path: Path) -> None:
    beside(path, "register").symlink_to(path.with_name("elsewhere"))
    one = worker()
    one.note_version(A, "ui", 5 * MS)
    assert one.of(A) is None and one.change(A, NEVER) is None and not one.are_usable()
    assert not one.is_outdated(A, "ui", 4 * MS) and not one.latest_version(A, "ui")
    assert not path.with_name("elsewhere").exists()


def test_a_file_that_was_cut_off_is_as_new(worker: Make, path: Path) -> None:
    one = worker()
    assert one.change(A, one.of(A)) is not None
    one.note_version(A, "ui", 5 * MS)
    os.truncate(beside(path, "register"), 0)
    assert one.of(A) == NEVER and not one.latest_version(A, "ui")
    assert one.change(A, NEVER) == worker().of(A) != NEVER


def test_letting_go_of_the_file_harms_no_thread_that_uses_it(
    worker: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system gives the number of a closed descriptor to the next file: that must not be written to."""
    write, others = os.pwrite, list[int]()

    def write_late(descriptor: int, content: bytes, place: int) -> int:
        one.close()
        others.append(os.open(path.with_name("other"), os.O_RDWR | os.O_CREAT))
        return write(descriptor, content, place)

    call, one = Call(monkeypatch, "pwrite"), worker()
    one.of(A)
    call.now = write_late
    one.change(A)
    os.close(others[0])
    assert path.with_name("other").read_bytes() == b""


def test_threads_that_open_it_at_once_leave_no_descriptor_behind(worker: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the descriptor that is used from then on nor one that is too many is left behind."""
    both, opened, open_it = threading.Barrier(2), list[int](), files.open_private

    def open_together(path: Path, *flags: int) -> int:
        both.wait(LONG)
        opened.append(open_it(path, *flags))
        return opened[-1]

    monkeypatch.setattr(files, "open_private", open_together)
    one = worker()
    threads = [threading.Thread(target=one.note_version, args=(A, "ui", 5 * MS)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    assert len(opened) == 2
    for descriptor in opened:
        with pytest.raises(OSError):
            os.fstat(descriptor)


# -- versions ----------------------------------------------------------------------------------------------------------


def test_an_older_version_is_outdated(single: Register) -> None:
    """Versions are compared to the millisecond; of another session or category nothing is said. Of two requests the
    one that has read the older version may be the later one to note it."""
    for digest, note in [("note_version", single.note_version), ("note_wipe", single.note_wipe)]:
        for version in (5, 4):
            note(digest, "ui", version * MS)
        for name, category, version, is_outdated in [
            (digest, "ui", 4, True),
            (digest, "ui", 5, False),
            (digest, "other", 4, False),
            ("other", "ui", 4, False),
        ]:
            assert single.is_outdated(name, category, version * MS) == is_outdated
            assert single.is_wiped_since(name, category, version * MS) == (is_outdated and "wipe" in digest)
    assert [single.latest_version(d, "ui") for d in ("note_version", "note_wipe", "other")] == [5 * MS, 0, 0]


def test_workers_share_what_they_note(worker: Make) -> None:
    """Workers share their notes also after one of them has let go of the file."""
    mine, siblings = worker(), worker()
    mine.note_version("d", "ui", 5 * MS)
    mine.close()
    assert siblings.is_outdated("d", "ui", 4 * MS) and mine.is_outdated("d", "ui", 4 * MS)


def test_what_is_noted_of_others_displaces_nothing() -> None:
    """I20: of an id that was given up nothing else may be left that tells it, while others go on to be given up."""
    single = Register(None)
    digests = [digest_of(str(n)) for n in range(60_000)]  # in use by the workers of a host, together
    for number, digest in enumerate(digests, 1):
        single.note_wipe(digest, "translation", number * MS)
    assert [n for n, d in enumerate(digests) if not single.is_wiped_since(d, "translation", n * MS)] == []
    assert [n for n, d in enumerate(digests, 1) if single.is_wiped_since(d, "translation", n * MS)] == []


def test_what_was_noted_longest_ago_gives_way(worker: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is noted again counts as noted now."""
    monkeypatch.setattr(register, "BUCKETS", 1)
    for one in (worker(), Register(None)):
        for name, version in [*((n, n) for n in range(1, 8)), (1, 9), (8, 10)]:
            one.note_version(f"d{name}", "ui", version * MS)
        assert [n for n in range(1, 9) if one.latest_version(f"d{n}", "ui")] == [1, *range(3, 9)]


@pytest.mark.parametrize("is_wipe", [True, False])
def test_what_had_to_be_forgotten_leaves_a_mark(path: Path, monkeypatch: pytest.MonkeyPatch, is_wipe: bool) -> None:
    """I30: a copy up to the highest version that was forgotten counts as outdated, whosever it is; a newer one does
    not, nor one of a category that is noted, nor one that was confirmed since: the clock of Redis may be a second off.
    """
    monkeypatch.setattr(register, "BUCKETS", 1)
    seconds, began = [0.0], 1_000_000
    one = Register(path, copies_ttl=60, wall=lambda: seconds[0])
    is_later = one.is_wiped_since if is_wipe else one.is_outdated
    for number in (5, 4, 11, 12, 13, 14, 15, 16, 17):  # 4 and 5 are forgotten, in this order
        (one.note_wipe if is_wipe else one.note_version)(f"d{number}", "ui", (began + number) * MS)
        assert is_later("other", "ui", (began + 3) * MS) == (number >= 16)
        assert is_later("other", "ui", (began + 4) * MS) == (number == 17)
    for name, version, at, is_outdated in [
        ("d5", 4, 0.0, True),
        ("d5", 4, 61.005, True),
        ("d5", 4, 61.006, False),
        ("d5", 5, 0.0, False),
        ("d4", 4, 0.0, True),
        ("d11", 4, 61.006, True),
        ("d11", 11, 0.0, False),
    ]:
        seconds[0] = began / 1000 + at
        assert is_later(name, "ui", (began + version) * MS) == is_outdated, (name, version, at)
    assert is_wipe or not one.is_wiped_since("d5", "ui", 0)


def test_the_mark_of_what_was_forgotten_never_falls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is late to note what it read has an older version, which is the next to be forgotten."""
    monkeypatch.setattr(register, "BUCKETS", 1)
    one = Register(path, wall=lambda: 0.0)
    for number in (2, 3, 4, 5, 6, 7, 8, 9, 1, 10):  # 2, 3 and 1 are forgotten, in this order
        one.note_version(f"d{number}", "ui", number * MS)
    assert one.is_outdated("d2", "ui", 2 * MS)


def test_what_two_workers_forget_at_once_leaves_the_higher_mark(worker: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found the same place, and one of them wrote there first: it has what the other one displaces."""
    monkeypatch.setattr(register, "BUCKETS", 1)
    read, mine, siblings = Call(monkeypatch, "pread"), worker(), worker()
    for number in range(1, 8):
        mine.note_version(f"d{number}", "ui", number * MS)
    read.is_followed_by(lambda: siblings.note_version("sibling", "ui", 20 * MS))
    mine.note_version("mine", "ui", 21 * MS)
    assert mine.is_outdated("sibling", "ui", 19 * MS)
    assert not mine.is_outdated("sibling", "ui", 20 * MS)
    assert mine.is_outdated("mine", "ui", 20 * MS)


# -- the former release ------------------------------------------------------------------------------------------------


def test_the_files_of_the_former_release_are_used_where_they_are(path: Path) -> None:
    """Elsewhere they cost nothing, and are not made."""
    one, other = Register(path), Register(path)
    former = former_paths(path)
    before = one.of(A)
    one.note_version(A, "ui", 5 * MS)
    assert one.change(A, before) == other.of(A)
    assert not any(file.exists() for file in former)
    former[1].touch(0o600)
    one.look_for_former()
    before = one.of(A)
    one.note_version(A, "ui", 7 * MS)
    one.note_wipe(A, "ui", 7 * MS)
    assert one.latest_version(A, "ui") == 7 * MS
    assert one.change(A, before) == one.of(A) != before
    assert all(file.stat().st_size for file in former)
