"""The stores of one application: for how long Redis remembers that something was wiped, and which rows were changed on
this host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.stores.backend import Backend
from flask_langpont_session.stores.host.journal import journal_at
from flask_langpont_session.stores.memory.memory import LocalAuth
from tests.support.fake_stores import Stage

ROW = AuthRow("d", "7", 1, True, {}, 0, 1, 2, 3, 1)


def test_a_wipe_is_remembered_for_longer_than_anything_older_is_kept(tmp_path: Path) -> None:
    """Otherwise a copy, or a change that waited, would bring back what was wiped."""
    backend = Stage(tmp_path, LOCAL_CACHE_TTL=1800).backend
    assert backend.limits.empty_ms > 1_800_000


Workers = tuple[Backend, Backend, Backend]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Workers]:
    """Two workers of a host, and one whose journal cannot be used."""
    one, other, broken = (Stage(tmp_path).backend for _ in range(3))
    for backend, path in ((one, tmp_path / "journal"), (other, tmp_path / "journal"), (broken, tmp_path)):
        backend.journal = journal_at(path)
    yield one, other, broken
    for backend in (one, other, broken):
        backend.journal.close()


def test_a_copy_from_before_a_change_is_out_of_date_to_all(hosts: Workers, tmp_path: Path) -> None:
    """Sibling workers say when; a moment from before the machine's start says nothing; no journal: believe no copy."""
    here, there, broken = hosts
    now = here.clock()
    before, after = LocalAuth(ROW, now - 1), LocalAuth(ROW, now)
    assert there.is_up_to_date(before)
    here.row_changed("d")
    assert not there.is_up_to_date(before) and not here.is_up_to_date(before)
    assert there.is_up_to_date(after)
    assert there.is_up_to_date(replace(before, row=replace(ROW, digest="other")))
    with closing(journal_at(tmp_path / "journal")) as journal:
        journal.file.numbers(lambda rows: rows.row_changed("d", now + 1))
    assert there.is_up_to_date(before)
    broken.row_changed("d")
    assert not broken.is_up_to_date(after)


def test_what_a_worker_has_made_is_up_to_date_until_another_one_tries(hosts: Workers) -> None:
    """Its own change is no reason to ask; the worker that changes the row next says so before, or after if it cannot
    fail."""
    one, other, broken = hosts
    then = one.clock() - 1
    for change in (other.row_changing, other.row_changed, one.row_changing, one.row_changed):
        number = one.row_changing("d")
        one.row_changed("d", number)
        made = LocalAuth(ROW, then, number)
        assert one.is_up_to_date(made)
        assert not other.is_up_to_date(LocalAuth(ROW, then))
        change("d")
        assert not one.is_up_to_date(made)
    assert broken.row_changing("d") is None
