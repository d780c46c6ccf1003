"""What many unit tests need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_langpont_session.stores import journal_file
from tests.clock import Clock

from .journal_process import end_all


@pytest.fixture
def clock() -> Clock:
    """It is 1000 s, until the test lets time pass."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Of a journal. What shares it with the test is ended."""
    yield tmp_path / "journal.sqlite"
    end_all()


@pytest.fixture
def a_patient_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy disk is not what this is about."""
    monkeypatch.setattr(journal_file, "BUSY_SECONDS", 30.0)
