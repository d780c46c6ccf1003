"""What many unit tests need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from flask_langpont_session.stores.host import file as journal_file
from flask_langpont_session.stores.host.journal import Journal
from tests.support import patience
from tests.support.clock import Clock
from tests.support.journal_process import end_all

# How long an example takes says how busy the machine is. All else is as it was chosen, in CI by Hypothesis itself.
settings.register_profile("any machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture
def clock() -> Clock:
    """It is 1000 s, until the test lets time pass."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Of a journal. What shares it with the test is ended."""
    yield tmp_path / "journal.sqlite"
    end_all()


@pytest.fixture(autouse=True)
def journals_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """When the test is over; Python 3.13 warns of those that were not closed."""
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
