"""Fixtures of tests that look at the journal of one host: for the conftest of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session.stores.codec.plain import PLAIN
from flask_langpont_session.stores.host import file as journal_file
from flask_langpont_session.stores.host.journal import Journal, journal_at
from tests.support import patience
from tests.support.clock import Clock
from tests.support.codecs import SEALING
from tests.support.journal_process import end_all


@pytest.fixture
def clock() -> Clock:
    """Return a clock that shows 1000 s until the test lets time pass."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Yield the path of a journal; afterwards end the processes that share it with the test."""
    yield tmp_path / "journal.sqlite"
    end_all()


@pytest.fixture(autouse=True)
def journals_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close all journals when the test is over; Python 3.13 warns of journals that were not closed."""
    made: list[Journal] = []
    make = Journal.__init__

    def keep(journal: Journal, *arguments: Any, **options: Any) -> None:
        make(journal, *arguments, **options)
        made.append(journal)

    monkeypatch.setattr(Journal, "__init__", keep)
    yield
    for journal in made:
        journal.close()


@pytest.fixture(autouse=True)
def patient_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy disk fails no test that is not about the wait for the journal."""
    monkeypatch.setattr(journal_file, "BUSY_SECONDS", patience.JOURNAL)


@pytest.fixture(params=["file", "memory", "sealed"])
def journal(request: pytest.FixtureRequest, path: Path, clock: Clock) -> Iterator[Journal]:
    where, codec = None if request.param == "memory" else path, SEALING if request.param == "sealed" else PLAIN
    journal = journal_at(where, clock=clock, codec=codec)
    yield journal
    journal.close()


@pytest.fixture
def durable(path: Path, clock: Clock) -> Iterator[Journal]:
    journal = journal_at(path, clock=clock)
    yield journal
    journal.close()


@pytest.fixture
def sibling(path: Path) -> Iterator[Journal]:
    """A second connection to the same file, as another worker has it."""
    journal = journal_at(path)
    yield journal
    journal.close()


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are forced to the disk by the package itself, in turn."""
    names: list[str] = []

    def to_disk(descriptor: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fdatasync(descriptor)

    fdatasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", to_disk)
    return names
