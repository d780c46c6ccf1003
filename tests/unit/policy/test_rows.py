"""The state of a row, by its own times and the moment at which the database read it."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.rows import AuthRow, RowState

IDLE, END = 2_000, 9_000


@pytest.mark.parametrize(
    ("live", "read_at", "state", "lives_on"),
    [
        (True, IDLE - 1, RowState.VALID, True),
        (True, IDLE, RowState.IDLE_EXPIRED, True),
        (True, END - 101, RowState.IDLE_EXPIRED, True),
        (True, END - 100, RowState.IDLE_EXPIRED, False),  # nearer to its end than two clocks may differ
        (True, END - 1, RowState.IDLE_EXPIRED, False),
        (True, END, RowState.EXPIRED, False),
        (False, IDLE - 1, RowState.DEAD, False),
        (False, IDLE, RowState.DEAD, False),
        (False, END, RowState.DEAD, False),  # whatever its times say
    ],
)
def test_the_state_of_a_row(live: bool, read_at: int, state: RowState, lives_on: bool) -> None:
    row = AuthRow("d" * 43, "7", 3, live, {}, 0, 1_000, IDLE, END, read_at)
    assert (row.state, row.lives_on(margin_ms=100)) == (state, lives_on)


def test_a_row_that_was_ended_for_being_idle_is_dead_by_its_next_version() -> None:
    row = AuthRow("d" * 43, "7", 3, True, {}, 0, 1_000, IDLE, END, IDLE)
    ended = row.ended_as_idle()
    assert (ended.state, ended.version, ended.was_idle) == (RowState.DEAD, 4, True)
