"""Work that one process of a host does for all: real files, real processes that are killed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devservers.processes import LONG
from flask_langpont_session.support.host import KEPT, HostWork, beside
from tests.support.clock import Clock


def work(folder: Path | None, clock: Clock | None = None) -> HostWork:
    return HostWork(folder, "metrics", LONG, clock or Clock())


def test_the_first_that_asks_leads_and_gets_what_the_others_leave_once(tmp_path: Path) -> None:
    first, second, third = (work(tmp_path / "work") for _ in range(3))
    assert [one.lead() for one in (first, second, third)] == [True, False, False]
    assert second.leave(b"a") and third.leave(b"b") and second.leave(b"c")
    assert second.waits and third.waits
    assert second.collect() == []
    assert first.collect() == [b"a", b"b", b"c"]
    assert not second.waits
    assert first.collect() == []


def test_the_next_one_leads_when_the_first_resigns(tmp_path: Path) -> None:
    first, second = work(tmp_path / "work"), work(tmp_path / "work")
    assert first.lead() and not second.lead()
    second.leave(b"left")
    first.keep(b"known")
    first.resign()
    assert not first.leads
    assert second.lead()
    assert (second.kept(), second.collect()) == (b"known", [b"left"])
    assert not first.lead()


def test_of_processes_that_end_together_one_takes_what_the_others_left(tmp_path: Path) -> None:
    """It waits for the one that leads, which may be ending, too, or may not."""
    first, second = work(tmp_path / "work"), HostWork(tmp_path / "work", "metrics", LONG)
    assert first.lead() and not second.lead()
    second.leave(b"x")
    assert not second.succeeds(0.05)
    assert first.collect() == [b"x"]
    assert not second.succeeds()
    second.leave(b"y")
    first.resign()
    assert second.succeeds()
    assert second.collect() == [b"y"]


def test_a_process_without_a_folder_leads_and_has_no_messages(tmp_path: Path) -> None:
    """There is no folder: it works for itself."""
    alone, other = work(None), work(None)
    assert alone.lead() and other.lead()
    alone.keep(b"state")
    assert (alone.collect(), alone.kept(), alone.leave(b"x"), alone.waits) == ([], b"", False, False)
    alone.resign()


LEADS = """
    import os, sys, time
    from pathlib import Path
    from flask_langpont_session.support.host import HostWork
    work = HostWork(Path(sys.argv[1]), "metrics", 30)
    assert work.lead()
    if sys.argv[2:] == ["fork"]:
        if os.fork() == 0:
            os.write(1, b"%d\\n" % os.getpid())
            time.sleep(60)
    if sys.argv[2:] == ["torn"]:
        (Path(sys.argv[1]) / "1-1-1.new").write_bytes(b"half of a mess")
    os.write(1, b"leads\\n")
    time.sleep(60)
"""


@contextmanager
def another_process(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Yield another process that leads until the block is left."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LEADS), str(folder), *more], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_process_that_is_killed_is_replaced_at_the_next_look(tmp_path: Path) -> None:
    """Finished files for the killed leader are still there; a half-written one does not count."""
    here = work(tmp_path / "work")
    with another_process(tmp_path / "work", "torn") as process:
        assert read(process) == "leads"
        assert not here.lead()
        assert here.leave(b"left")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert here.lead()
        assert here.collect() == [b"left"]


def test_a_forked_child_does_not_lead_in_its_parents_place(tmp_path: Path) -> None:
    """It inherits the file that is locked: when its parent is killed, the lock is free though the child lives on."""
    here = work(tmp_path / "work")
    with another_process(tmp_path / "work", "fork") as process:
        [child] = [int(line) for line in (read(process), read(process)) if line != "leads"]
        try:
            assert not here.lead()
            process.kill()
            process.wait()
            assert here.lead()
        finally:
            os.kill(child, signal.SIGKILL)


def test_where_there_is_no_folder_each_leads_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file in its place, as a disk that cannot be written would be; later it can."""
    caplog.set_level(logging.INFO)
    place = tmp_path / "work"
    place.write_text("in the way")
    clock = Clock()
    first, second = work(place, clock), work(place, clock)
    for _ in range(3):
        assert first.lead() and second.lead()
        assert not first.leave(b"x")
        assert first.collect() == []
    assert [line.partition(":")[0] for line in caplog.messages] == [
        "the processes of this host do not share their metrics"
    ] * 2
    assert str(place) in caplog.text
    place.unlink()
    assert first.lead() and not second.lead()
    assert second.leave(b"x")
    assert first.collect() == [b"x"]
    clock.now += LONG
    assert first.lead() and not second.lead()
    assert len(caplog.messages) == 4


def test_a_full_disk_makes_a_process_work_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them says so once, however long that lasts and though the disk takes a little now and then, and once that
    it is over."""
    clock = Clock()
    first, second = work(tmp_path / "work", clock), work(tmp_path / "work", clock)
    assert first.lead() and not second.lead()

    def full(path: Path, to: Path) -> Path:
        raise OSError(28, "No space left on device")

    for _ in range(3):
        with monkeypatch.context() as disk:
            disk.setattr(Path, "rename", full)
            assert first.lead() and not second.lead()
            assert not second.leave(b"x")
            first.keep(b"x")
        assert [path.name for path in (tmp_path / "work").iterdir() if path.suffix == ".message"] == []
        clock.now += 1
        assert second.leave(b"y") and not second.lead()
        first.keep(b"y")
        assert first.lead()
        assert (first.collect(), first.kept()) == ([b"y"], b"y")
    assert [line.partition(": ")[2][:24] for line in caplog.messages] == ["no space left on device."] * 2
    clock.now += LONG
    assert first.lead() and not second.lead()
    assert [line.endswith("share their metrics again") for line in caplog.messages] == [False, False, True, True]


@pytest.mark.parametrize("kind", ["symlink", "another"])
def test_a_folder_of_another_users_is_not_used(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "work"
    if kind == "symlink":
        (tmp_path / "theirs").mkdir()
        place.symlink_to(tmp_path / "theirs")
    else:
        place.mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert work(place).lead()
    assert "is not a folder of this user's" in caplog.text
    assert list(place.iterdir()) == []


def test_a_lock_that_was_deleted_is_taken_anew(tmp_path: Path) -> None:
    """Two processes that hold two files of one name would both lead for ever."""
    first, second = work(tmp_path / "work"), work(tmp_path / "work")
    assert first.lead()
    (tmp_path / "work" / "lock").unlink()
    assert second.lead()
    assert not first.lead()


def test_a_process_that_leads_and_hangs_is_left_alone(tmp_path: Path) -> None:
    """Files for the hanging leader wait for it; all others are left to it again once it goes on."""
    clock = Clock()
    hangs, other = work(tmp_path / "work"), work(tmp_path / "work", clock)
    assert hangs.lead() and not other.lead()
    assert other.leave(b"1")
    clock.now += LONG
    assert other.leave(b"2")
    clock.now += 1
    assert not other.leave(b"3")
    assert not other.leave(b"4")
    assert hangs.collect() == [b"1", b"2"]
    assert other.leave(b"5")
    assert hangs.collect() == [b"5"]


def test_what_was_not_taken_for_long_is_dropped(tmp_path: Path) -> None:
    """All processes were away: it is no news any more. Of a killed one what it was writing goes the same way."""
    first, second = work(tmp_path / "work"), work(tmp_path / "work")
    assert first.lead() and not second.lead()
    second.leave(b"old")
    (tmp_path / "work" / "1-1-1.new").touch()
    for path in (tmp_path / "work").iterdir():
        os.utime(path, (0, path.stat().st_mtime - KEPT - 1))
    second.leave(b"new")
    assert first.collect() == [b"new"]
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"lock"}


def test_files_are_this_users_alone(tmp_path: Path) -> None:
    first, second = work(tmp_path / "a" / "work"), work(tmp_path / "a" / "work")
    assert first.lead() and not second.lead()
    second.leave(b"x")
    first.keep(b"x")
    files = list((tmp_path / "a" / "work").iterdir())
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/work")} == {0o700}


def test_the_folder_is_beside_the_journal(tmp_path: Path) -> None:
    assert beside(tmp_path / "journal.sqlite3", "metrics") == tmp_path / "journal.sqlite3-workers" / "metrics"
    assert beside(None, "metrics") is None
