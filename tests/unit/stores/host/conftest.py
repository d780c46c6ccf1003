"""Journals of one host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_langpont_session.stores.host.journal import Journal, journal_at
from tests.support.clock import Clock


@pytest.fixture(params=["file", "memory"])
def journal(request: pytest.FixtureRequest, path: Path, clock: Clock) -> Iterator[Journal]:
    journal = journal_at(path if request.param == "file" else None, clock=clock)
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
