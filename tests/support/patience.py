"""Waits long enough for tests that are not about how long the journal waits."""

from __future__ import annotations

from flask_langpont_session.stores.host import file as journal_file

JOURNAL = 30.0
"""Seconds. A disk that is busy with other tests is none of the faults: what gives up on the journal is lost, and the
alert of a lost change would be one more than a test expects."""


def wait_for_the_journal() -> None:
    """Make the default wait for the journal so long, in programs that tests start, that no busy disk uses it up."""
    journal_file.BUSY_SECONDS = JOURNAL
