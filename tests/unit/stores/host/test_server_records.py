"""Facts about a Redis server that the workers of a host share through the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_langpont_session.policy.servers import ServerRecord
from flask_langpont_session.stores.host.board import HostMemory
from flask_langpont_session.stores.host.journal import journal_at

RECORD = ServerRecord("a", 1000, "g", 7)


def test_a_journal_that_cannot_be_used_costs_no_error_but_a_line_that_says_what_it_means(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The line says what it costs, what is done by itself, and where to look if it goes on."""
    memory = HostMemory(journal_at(tmp_path).board, "primary")  # a folder is no journal
    memory.note(RECORD)
    assert memory.recall() is None
    noting, reading = (record.getMessage() for record in caplog.records)
    for line in (noting, reading):
        assert "of the primary c" in line and "(journal: unreachable (" in line
        assert "verifies each signed-in session once by the database" in line
        assert line.endswith("If this line comes again and again, check LANGPONT_SESSION_JOURNAL and its disk")
    assert "noted again by itself" in noting
