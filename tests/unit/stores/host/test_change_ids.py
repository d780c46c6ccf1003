"""Which session was changed by a worker of this host last."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.stores.host.change_ids import NEVER, PLACES, SIZE, ChangeIds

A, B = "a" * 43, "b" * 43


@pytest.fixture(params=[True, False], ids=["shared", "own"])
def change_ids(request: pytest.FixtureRequest, tmp_path: Path) -> ChangeIds:
    return ChangeIds(tmp_path / "journal" if request.param else None)


@pytest.fixture
def shared(tmp_path: Path) -> Callable[[], ChangeIds]:
    """Makes those of one worker more."""
    return lambda: ChangeIds(tmp_path / "journal")


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_change_is_seen_in_its_session_only(change_ids: ChangeIds) -> None:
    before, other = change_ids.of(A), change_ids.of(B)
    assert before == other == NEVER
    after = change_ids.change(A, before)
    assert after == change_ids.of(A) != before and change_ids.of(B) == other
    assert change_ids.change(A, before) is None, "it was changed meanwhile"
    assert change_ids.change(A) is None and change_ids.of(A) != after


def test_another_worker_sees_it_at_once(shared: Callable[[], ChangeIds]) -> None:
    one, two = shared(), shared()
    before = two.of(A)
    after = one.change(A, before)
    assert two.of(A) == after != before and two.change(A, before) is None
    assert two.change(B, two.of(B)) == one.of(B)


def test_what_is_there_is_found_by_the_next_worker(shared: Callable[[], ChangeIds]) -> None:
    one = shared()
    after = one.change(A, one.of(A))
    one.close()
    assert one.of(A) == shared().of(A) == after


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_change_that_cannot_be_noted_outdates_all_that_was_known(
    shared: Callable[[], ChangeIds], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    one = shared()
    before = one.of(A)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refusing(number))
        assert one.change(B) is None and one.change(A, before) is None
        assert one.of(A) != before
    now = one.of(A)
    assert now is not None and one.change(A, now) == one.of(A) != now


reserves = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")


@reserves
def test_a_full_disk_is_met_at_the_start(shared: Callable[[], ChangeIds], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a change would be hidden from those that can read the file."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refusing(errno.ENOSPC))
        assert shared().of(A) is None and shared().change(A, NEVER) is None
    assert shared().of(A) == NEVER


@reserves
def test_a_file_system_that_reserves_no_room_is_used_without(
    shared: Callable[[], ChangeIds], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refusing(errno.EOPNOTSUPP))
    assert shared().of(A) == NEVER


@reserves
def test_its_room_is_reserved(shared: Callable[[], ChangeIds], tmp_path: Path) -> None:
    shared().of(A)
    assert (tmp_path / "journal-near").stat().st_blocks * 512 >= PLACES * SIZE


def test_without_locks_no_worker_knows_whether_it_was_alone(
    shared: Callable[[], ChangeIds], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each sees that the session was changed."""
    one, two = shared(), shared()
    before = two.of(A)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "lockf", refusing(errno.ENOLCK))
        assert one.change(A, before) is None
        assert two.of(A) != before
    now = one.of(A)
    assert one.change(A, now) == two.of(A), "its locks are free again"


def test_a_file_that_cannot_be_used_vouches_for_nothing(shared: Callable[[], ChangeIds], tmp_path: Path) -> None:
    (tmp_path / "journal-near").symlink_to(tmp_path / "elsewhere")
    assert shared().of(A) is None and shared().change(A, NEVER) is None and not shared().are_usable()
    assert not (tmp_path / "elsewhere").exists()


def test_only_one_that_keeps_something_makes_the_file(shared: Callable[[], ChangeIds], tmp_path: Path) -> None:
    """A command of an operator may run as another user than the workers, and a file of that user is none of theirs."""
    assert shared().change(A) is None and shared().are_usable()
    assert not (tmp_path / "journal-near").exists()
    worker = shared()
    before = worker.of(A)
    assert shared().change(A) is None and worker.of(A) != before
    assert shared().are_usable() and ChangeIds(None).are_usable()


def test_a_file_that_was_cut_off_is_as_new(shared: Callable[[], ChangeIds], tmp_path: Path) -> None:
    one = shared()
    assert one.change(A, one.of(A)) is not None
    os.truncate(tmp_path / "journal-near", 0)
    assert one.of(A) == NEVER
    assert one.change(A, NEVER) == shared().of(A) != NEVER
