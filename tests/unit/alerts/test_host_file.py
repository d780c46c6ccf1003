"""The file that the workers of a host share: one at a time, whatever happens to any of them."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
from inspect import signature
from pathlib import Path

import pytest

from flask_langpont_session.alerts.host_file import Busy, HostFile

PLACE = 131_072
"""Bytes of the room for contents, of which there are two."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal-alerts"


def put(file: HostFile, contents: bytes) -> bytes:
    """Replace the contents; the old ones."""
    return file.update(lambda old: (contents, old))


def test_workers_see_what_the_others_wrote(path: Path) -> None:
    """The last one wrote it; reading changes nothing."""
    a, b = HostFile(path), HostFile(path)
    assert a.read() == b""
    for number in range(5):
        contents = b"%d" % number * (number + 1)
        put(a, contents)
        assert b.read() == a.read() == contents
        assert put(b, contents + b"!") == contents
        assert a.read() == contents + b"!"


def test_only_the_owner_may_read_it(path: Path) -> None:
    """As the journal beside it; and its room is taken when it is made."""
    put(HostFile(path), b"x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 >= path.stat().st_size == 2 * PLACE


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """Another user's file is not overwritten."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    path.symlink_to(target)
    file = HostFile(path)
    put(file, b"x")
    assert target.read_bytes() == b"precious"
    assert file.read() == b"x"


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("damage", [0, 3, 5, 12, 16, 20])
def test_a_write_that_was_cut_short_leaves_the_one_before(path: Path, place: int, damage: int) -> None:
    """Either place may be the newer one; any byte of it may be wrong."""
    file = HostFile(path)
    for number in range(1, 4 + place):
        put(file, b"contents %d" % number)
    newest = 3 + place
    with path.open("r+b") as raw:
        at = newest % 2 * PLACE + damage
        raw.seek(at)
        byte = raw.read(1)
        raw.seek(at)
        raw.write(bytes([byte[0] ^ 0xFF]))
    assert HostFile(path).read() == b"contents %d" % (newest - 1)
    put(file, b"again")
    assert HostFile(path).read() == b"again"


@pytest.mark.parametrize("rubbish", [b"", b"short", b"SQLite format 3\0" * 10_000, os.urandom(3 * PLACE)])
def test_a_file_that_is_something_else_is_empty(path: Path, rubbish: bytes) -> None:
    """And can be used from then on."""
    path.write_bytes(rubbish)
    file = HostFile(path)
    assert file.read() == b""
    put(file, b"x")
    assert HostFile(path).read() == b"x"


def test_nothing_is_lost_between_processes(path: Path) -> None:
    """Each adds to what it finds; one of them is killed now and then, in the middle of anything."""
    worker = """
        import os, signal, sys, time
        from pathlib import Path
        from flask_langpont_session.alerts.host_file import HostFile
        file = HostFile(Path(sys.argv[1]))
        def add(by):
            file.update(lambda old: (b"%d" % (int(old or 0) + by) + b" " * (os.getpid() % 5000), None))
        adding = []
        for _ in range(2):
            if (pid := os.fork()) == 0:
                for _ in range(150):
                    add(1)
                os._exit(0)
            adding.append(pid)
        for _ in range(6):
            if (killed := os.fork()) == 0:
                while True:
                    add(0)
            time.sleep(0.02)
            os.kill(killed, signal.SIGKILL)
            os.waitpid(killed, 0)
        sys.exit(sum(os.waitpid(pid, 0)[1] for pid in adding))
    """
    command = [sys.executable, "-c", textwrap.dedent(worker), str(path)]
    assert subprocess.run(command, timeout=30).returncode == 0
    assert int(HostFile(path).read()) == 300


def test_without_a_file_each_process_has_its_own() -> None:
    """JOURNAL = None."""
    a, b = HostFile(None), HostFile(None)
    put(a, b"a")
    assert (a.read(), b.read()) == (b"a", b"")
    assert put(a, b"more") == b"a"
    assert not a.is_cut_off


def test_a_full_disk_does_not_keep_an_alert_from_being_noted(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process goes on by itself from what it knew, says so once, and comes back as soon as it can write."""
    file, other = HostFile(path, lambda shared, own: shared + b" and " + own), HostFile(path)
    put(file, b"known")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        for number in range(3):
            put(file, b"alone %d" % number)
    assert file.is_cut_off
    assert file.read() == b"alone 2"
    assert other.read() == b"known"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert put(file, b"together") == b"known and alone 2"
    assert not file.is_cut_off
    assert other.read() == file.read() == b"together"
    assert put(file, b"again") == b"together"


def test_what_is_shared_wins(path: Path, tmp_path: Path) -> None:
    """Unless another process knows better, what a process had alone is gone when it comes back."""
    path = tmp_path / "folder" / "file"
    file = HostFile(path)
    assert put(file, b"alone") == b""
    path.parent.mkdir()
    put(HostFile(path), b"shared")
    assert put(file, b"x") == b"shared"


def test_a_folder_that_is_gone_does_not_raise(tmp_path: Path) -> None:
    """Whatever the reason is."""
    file = HostFile(tmp_path / "gone" / "file")
    assert put(file, b"x") == b""
    assert file.read() == b"x"
    assert put(file, b"y") == b"x"
    assert file.is_cut_off


def test_a_lock_that_is_held_is_waited_for(path: Path) -> None:
    """A disk that stalls for some seconds: nothing is changed, no process goes on alone, and then all is as before."""
    file = HostFile(path, patience=0.01)
    put(file, b"x")
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        for _ in range(3):
            with pytest.raises(Busy):
                put(file, b"y")
        assert file.read() == b"x"
        assert not file.is_cut_off
    assert put(file, b"z") == b"x"
    assert HostFile(path).read() == b"z"


def test_a_worker_that_was_stopped_with_the_lock_does_not_stop_the_others(path: Path) -> None:
    """SIGSTOP in the wrong moment: after half a minute or more the others go on by themselves, and try it each time."""
    assert signature(HostFile).parameters["alone_after"].default == (30, 60)
    file = HostFile(path, patience=0.01, alone_after=(0.1, 0.2))
    put(file, b"x")
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        waited = 0
        while not file.is_cut_off:
            try:
                assert put(file, b"y") == b"x"
            except Busy:
                waited += 1
        assert waited
        assert put(file, b"z") == b"y"
    assert put(file, b"together") == b"x"
    assert not file.is_cut_off


def test_too_much_is_kept_alone(path: Path) -> None:
    """The other place is never written over."""
    file = HostFile(path)
    put(file, b"x")
    put(file, b"y" * PLACE)
    assert HostFile(path).read() == b"x"
    assert file.read() == b"y" * PLACE
