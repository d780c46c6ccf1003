"""Reads of a row, and what each writes to it, by what the database and Redis know of its idle time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flask_langpont_session.policy.rows import AuthRow, RowState
from flask_langpont_session.stores.sql import tables as sql
from flask_langpont_session.stores.sql.idle import after_read, note_use
from flask_langpont_session.stores.sql.rows import Rows
from tests.support.fake_sql import ROW, Connections, refused, stored

IDLE_MS = 2000
IDLE = replace(ROW, read_at=3000)
"""Its idle time has passed, by what the database knows."""

LOCKED = "55P03"


def read(connections: Connections, row: AuthRow = ROW, idle_ms: int = IDLE_MS, seen: int | None = 0) -> AuthRow:
    return after_read(connections, Rows(), row, idle_ms, seen)  # type: ignore[arg-type]


def having(**answers: object) -> Connections:
    """A database in which the row can be locked, and that answers these statements so."""
    named = {"extend": sql.EXTEND_IDLE, "kill": sql.KILL_IDLE, "one": sql.SELECT_ONE, "lock": sql.LOCK_FOR_READER}
    return Connections({sql.LOCK_FOR_READER: ["locked"]} | {named[name]: answer for name, answer in answers.items()})


@pytest.mark.parametrize(("read_at", "expires_at"), [(500, 2000), (501, 2501), (1000, 3000), (1999, 3999)])
def test_the_expiry_moves_when_a_quarter_of_the_idle_time_has_passed(read_at: int, expires_at: int) -> None:
    """One write instead of one per read."""
    connections = having(extend=1)
    row = read(connections, replace(ROW, read_at=read_at))
    assert row.idle_expires_at == expires_at
    moved = [values for statement, values in connections.asked if statement is sql.EXTEND_IDLE]
    assert moved == ([{"key": "digest", "ms": expires_at, "seen": 2000}] if expires_at > 2000 else [])


def test_it_never_moves_past_the_end_of_the_session() -> None:
    """The expiry does not move past the end by what Redis has either."""
    assert read(having(extend=1), replace(ROW, absolute_expires_at=2500)).idle_expires_at == 2500
    assert read(having(extend=1), replace(ROW, absolute_expires_at=2500), seen=9999).idle_expires_at == 2500


@pytest.mark.parametrize(("idle_ms", "read_at"), [(0, 1999), (IDLE_MS, 400)])
def test_where_nothing_is_due_nothing_is_written(idle_ms: int, read_at: int) -> None:
    """Not even a connection is borrowed where nothing is due."""
    connections = having()
    row = replace(ROW, read_at=read_at)
    assert read(connections, row, idle_ms) == row
    assert connections.lent == []


def test_what_redis_knows_to_be_later_is_noted_though_no_move_is_due() -> None:
    """An outage of the database lies behind it."""
    connections = having(extend=1)
    assert read(connections, replace(ROW, read_at=400), seen=2100).idle_expires_at == 2100
    assert (sql.EXTEND_IDLE, {"key": "digest", "ms": 2100, "seen": 2000}) in connections.asked


def test_a_session_that_was_idle_is_alive_where_redis_knows_a_later_expiry() -> None:
    """The expiry in Redis counts, and is extended like any other."""
    row = read(having(extend=1), IDLE, seen=3001)
    assert (row.state, row.idle_expires_at) == (RowState.VALID, 5000)


def test_a_session_that_was_idle_for_redis_too_is_ended() -> None:
    """The version counts that."""
    connections = having(kill=1)
    row = read(connections, IDLE, seen=2500)
    assert (row.state, row.version) == (RowState.DEAD, 2)
    assert connections.asked[-1] == (sql.KILL_IDLE, {"key": "digest", "seen": 1})
    assert connections.lent == ["writing without waiting"]


def test_without_an_answer_of_redis_it_is_not_known_and_not_ended() -> None:
    """The row is returned as it is."""
    connections = having()
    assert read(connections, IDLE, seen=None) == IDLE
    assert connections.asked == []


@pytest.mark.parametrize("row", [replace(ROW, live=False), replace(ROW, read_at=9000)], ids=["dead", "expired"])
def test_what_is_over_anyway_stays_as_it_is(row: AuthRow) -> None:
    """The row stays as it is, whatever Redis knows."""
    connections = having()
    assert read(connections, row, seen=8999) == row
    assert connections.asked == []


def test_a_row_that_another_transaction_has_is_not_waited_for() -> None:
    """A later expiry that Redis knows counts all the same."""
    connections = having(lock=())
    assert read(connections) == ROW
    assert read(connections, seen=2600).idle_expires_at == 2600
    assert set(connections.statements) == {sql.LOCK_FOR_READER}


def test_a_row_that_changed_meanwhile_is_read_again() -> None:
    """If two reads extend or end a row, one of them does it, and the other returns the row as it is then."""
    changed = replace(ROW, version=5, idle_expires_at=2800)
    assert read(having(extend=0, one=[[stored(changed)]])) == changed
    assert read(having(extend=0, one=[[stored(changed)]]), seen=2900).idle_expires_at == 2900
    gone = having(kill=0, one=[()])
    assert read(gone, IDLE, seen=0) == IDLE


@pytest.mark.parametrize("row", [ROW, IDLE], ids=["in use", "idle"])
def test_a_database_that_takes_no_writes_takes_no_answer_back(row: AuthRow) -> None:
    """The read has succeeded: what could not be noted is noted by the next one."""
    connections = having(lock=refused(LOCKED))
    assert read(connections, row) == row
    assert connections.lent == ["writing without waiting: rolled back"]


def noted(seen_at: int, **of_row: int) -> list[object]:
    """Return what is written of a session's use, if use is to be noted 500 milliseconds after the last note."""
    connections = Connections({sql.LOCK_FOR_READER: ["locked"], sql.NOTE_USE: 1})
    note_use(connections, Rows(), replace(ROW, **of_row), seen_at, 500)  # type: ignore[arg-type]
    return [values for statement, values in connections.asked if statement is sql.NOTE_USE]


def test_use_is_noted_now_and_then() -> None:
    """Use is noted relative to the last note of the row that was read: of several reads one notes it."""
    assert noted(501) == []
    assert noted(500) == [{"key": "digest", "seen": 500}]
    assert noted(0) == [{"key": "digest", "seen": 0}]


def test_the_use_of_a_session_that_is_over_is_not_noted() -> None:
    assert noted(0, read_at=2000) == noted(0, live=False) == []


def test_a_database_that_cannot_note_the_use_has_answered_all_the_same() -> None:
    connections = Connections({sql.LOCK_FOR_READER: refused(LOCKED)})
    note_use(connections, Rows(), ROW, 0, 500)  # type: ignore[arg-type]
    assert sql.NOTE_USE not in connections.statements
