"""The lines of the log that say what an outage is, was, and cost."""

from __future__ import annotations

import logging

import pytest

from flask_langpont_session.metrics.incident_log import IncidentLog
from flask_langpont_session.metrics.losses import Cause, Loss
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.policy.breaker import READ, WRITE
from flask_langpont_session.policy.errors import DATABASE, PRIMARY, ErrorClass, StoreError

BOTH = (READ, WRITE)


class Desk:
    """A process, and what it has logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self.recorder = Recorder()
        self.incidents = IncidentLog(
            self.recorder, lambda store: f"{store}.example:1", lambda level: f"what {level} gives"
        )

    def lose(self, store: str = PRIMARY, level: int = 2) -> None:
        error = StoreError(store, ErrorClass.UNREACHABLE, "no answer within 250 ms", timed_out=True)
        self.incidents.lost(error, BOTH, level, {store})

    def said(self) -> list[str]:
        """Since this was asked last."""
        messages = [record.getMessage() for record in self._caplog.records]
        self._caplog.clear()
        return messages

    def fields(self) -> dict[str, object]:
        """``extra=`` of the one line since :meth:`said` was asked."""
        [record] = self._caplog.records
        return {name: value for name, value in vars(record).items() if name.startswith("langpont_")}


@pytest.fixture
def desk(caplog: pytest.LogCaptureFixture) -> Desk:
    return Desk(caplog)


def test_one_line_says_that_a_store_is_lost(desk: Desk) -> None:
    desk.lose()
    assert desk.fields() == {
        "langpont_event": "store_lost", "langpont_store": "primary", "langpont_address": "primary.example:1",
        "langpont_ways": ["read", "write"], "langpont_cause": "unreachable",
        "langpont_detail": "no answer within 250 ms", "langpont_level": 2,
    }  # fmt: skip
    assert desk.said() == [
        "session store primary (primary.example:1) is lost for reads and writes: unreachable (no answer within "
        "250 ms); does not answer: its server hangs, is busy (SLOWLOG GET, its processor, swap), or something on the "
        "way drops what is sent (a security group, a firewall); or LANGPONT_SESSION_REDIS_URL is not its address, or "
        "says rediss:// of a server without TLS; see "
        "docs/operations.md#redis-connection-failed. Level 2 local_cache: what 2 gives"
    ]


def test_without_the_database_it_says_that_no_user_can_sign_in(desk: Desk) -> None:
    desk.lose(DATABASE, level=0)
    refused = "No user can sign in, and no right changes (503); their data: level 0 normal: what 0 gives"
    assert desk.said()[0].endswith(f"#database-connection-failed. {refused}")


def test_one_line_says_that_it_is_back_and_what_it_cost(desk: Desk) -> None:
    """Losses that were counted before the outage are not part of its cost."""
    desk.recorder.count("grants_refused", by=5)
    desk.lose()
    desk.said()
    desk.recorder.count("grants_refused", by=2)
    desk.recorder.count_loss(Loss.WRITES_LOST, Cause.JOURNAL_FULL, "ui", 3)
    desk.incidents.back(PRIMARY, BOTH, 12.34, 0)
    fields = desk.fields()
    assert (fields["langpont_event"], fields["langpont_seconds"], fields["langpont_writes_lost"]) == (
        "store_back",
        12.34,
        3,
    )
    assert desk.said() == [
        "session store primary (primary.example:1) is used for reads and writes again, after 12.3 s. Level 0 normal. "
        "Meanwhile, in this process: changes lost: 3, sign-ins or changes of rights refused: 2"
    ]


def test_that_nothing_waits_any_more_is_said_once_when_every_store_is_back(desk: Desk) -> None:
    desk.incidents.nothing_waits(())
    desk.lose()
    desk.incidents.back(PRIMARY, (READ,), 1.0, 1)
    desk.incidents.nothing_waits({PRIMARY})
    assert not any("waits in the journal" in line for line in desk.said())
    desk.incidents.back(PRIMARY, (WRITE,), 1.0, 0)
    desk.said()
    desk.recorder.count("merged_fields", by=7)
    desk.incidents.nothing_waits(())
    desk.incidents.nothing_waits(())
    assert desk.said() == [
        "nothing waits in the journal any more. Since the outage began, in this process: changes merged: 7"
    ]


@pytest.mark.parametrize(("old", "new", "lines"), [(0, 2, 0), (2, 3, 1), (3, 0, 0)])
def test_a_level_that_comes_with_time_has_a_line_of_its_own(desk: Desk, old: int, new: int, lines: int) -> None:
    desk.incidents.level_changed(old, new, {PRIMARY})
    assert len(desk.said()) == lines
    assert desk.recorder.counters() == {f"level_{new}": 1}
