"""Facts that are read from files, processes and replies, which the tests give as text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flask_langpont_session.ops.diagnosis.findings import Unknown
from flask_langpont_session.ops.diagnosis.read_host import file_at, file_system_of, workers_of
from flask_langpont_session.ops.diagnosis.read_redis import quickest


def test_the_quickest_answer_says_how_a_clock_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time that it took may be on either way."""
    ticks = iter([0.0, 0.4, 1.0, 1.1, 2.0, 2.9])
    monkeypatch.setattr("time.time", lambda: 1000.0)
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    took, clock = quickest(lambda: 1005.0)
    assert took == pytest.approx(0.1)
    assert clock.ahead == pytest.approx(4.95)
    assert clock.within == pytest.approx(0.051)


# -- processes ---------------------------------------------------------------------------------------------------------


def process(folder: Path, opened: Path | None = None) -> None:
    """Make the folder of a process as Linux shows it."""
    (folder / "fd").mkdir(parents=True)
    if opened is not None:
        (folder / "fd" / "7").symlink_to(opened)


def test_workers_are_those_that_have_the_journal_open(tmp_path: Path) -> None:
    """This process, and one that has another file open, are none."""
    journal, processes = tmp_path / "journal", tmp_path / "proc"
    journal.touch()
    process(processes / "self")
    process(processes / "41", journal)
    process(processes / "42", journal)
    process(processes / "43", tmp_path / "other")
    process(processes / str(os.getpid()), journal)
    assert workers_of(journal, processes) == (os.geteuid(), os.geteuid())
    assert isinstance(workers_of(journal, tmp_path / "no-proc"), Unknown)


# -- files -------------------------------------------------------------------------------------------------------------

MOUNTS = r"""22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
23 22 0:21 / /var/lib/shop rw - nfs4 10.0.0.3:/shop rw
24 22 0:22 / /with\040blank rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/", "ext4"), ("/var/lib", "ext4"), ("/var/lib/shop/a/b", "nfs4"), ("/with blank", "tmpfs")],
)
def test_the_file_system_of_a_folder(tmp_path: Path, folder: str, kind: str) -> None:
    """The file system is that of the nearest mount point above the folder."""
    (tmp_path / "mounts").write_text(MOUNTS)
    assert file_system_of(Path(folder), tmp_path / "mounts") == kind
    assert isinstance(file_system_of(Path(folder), tmp_path / "none"), Unknown)


def test_a_file_and_the_place_for_one(tmp_path: Path) -> None:
    """Looking makes nothing."""
    path = tmp_path / "new" / "journal"
    found = file_at(path)
    assert (found.is_there, found.size, found.is_absolute) == (False, 0, True)
    assert found.folder_mode == tmp_path.stat().st_mode & 0o7777
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_bytes(b"12345")
    path.chmod(0o640)
    Path(f"{path}-wal").write_bytes(b"123")
    found = file_at(path)
    assert (found.is_there, found.size, found.mode, found.owner) == (True, 8, 0o640, os.geteuid())
    assert found.free > 0
