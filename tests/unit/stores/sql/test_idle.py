"""Reads of a row, and what each writes to it, by what the database and Redis know of its idle time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.rows import AuthRow, RowState
from flask_langpont_session.stores.sql import tables as sql
from flask_langpont_session.stores.sql.idle import after_read, note_use
from flask_langpont_session.stores.sql.rows import Rows
from tests.support.fake_sql import ROW, Connections, refused, stored

IDLE = replace(ROW, read_at=3000)
"""Its idle time has passed, by what the database knows."""

LOCKED = "55P03"


def read(
    row: AuthRow = ROW, *, idle_ms: int = 2000, seen: int | None = 0, **answers: object
) -> tuple[AuthRow, Connections]:
    """Return what a read makes of a row, in a database in which it can be locked and that answers statements so."""
    named = {"extend": sql.EXTEND_IDLE, "kill": sql.KILL_IDLE, "one": sql.SELECT_ONE, "lock": sql.LOCK_FOR_READER}
    connections = Connections(
        {sql.LOCK_FOR_READER: ["locked"]} | {named[name]: answer for name, answer in answers.items()}
    )
    return after_read(connections, Rows(), row, Life(idle_ms, 9000), seen), connections  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "seen", "expires_at"),
    [
        ({"read_at": 501}, 0, 2501),  # a quarter of the idle time has passed
        ({"read_at": 1000}, 0, 3000),
        ({"read_at": 1999}, 0, 3999),
        ({"absolute_expires_at": 2500}, 0, 2500),  # never past the end of the session
        ({"absolute_expires_at": 2500}, 9999, 2500),  # by what Redis has either
        ({"read_at": 400}, 2100, 2100),  # an outage of the database lies behind it: noted though no move is due
        ({"read_at": 3000}, 3001, 5000),  # alive where Redis knows a later expiry, and extended like any other
    ],
)
def test_the_expiry_moves(row: dict[str, Any], seen: int, expires_at: int) -> None:
    """One write for many reads."""
    found, connections = read(replace(ROW, **row), seen=seen, extend=1)
    assert (found.state, found.idle_expires_at) == (RowState.VALID, expires_at)
    moved = [values for statement, values in connections.asked if statement is sql.EXTEND_IDLE]
    assert moved == [{"key": "digest", "ms": expires_at, "seen": 2000}]


@pytest.mark.parametrize(
    ("row", "idle_ms", "seen"),
    [
        (replace(ROW, read_at=500), 2000, 0),
        (replace(ROW, read_at=1999), 0, 0),
        (IDLE, 2000, None),  # without an answer of Redis it is not known to have ended
        (replace(ROW, live=False), 2000, 8999),  # what is over stays so, whatever Redis knows
        (replace(ROW, read_at=9000), 2000, 8999),
    ],
    ids=["not due", "never due", "not known", "dead", "expired"],
)
def test_where_nothing_is_to_be_noted_no_connection_is_borrowed(row: AuthRow, idle_ms: int, seen: int | None) -> None:
    found, connections = read(row, idle_ms=idle_ms, seen=seen)
    assert (found, connections.lent) == (row, [])


def test_a_session_that_was_idle_for_redis_too_is_ended() -> None:
    """The version counts that."""
    row, connections = read(IDLE, seen=2500, kill=1)
    assert (row.state, row.version) == (RowState.DEAD, 2)
    assert connections.asked[-1] == (sql.KILL_IDLE, {"key": "digest", "seen": 1})
    assert connections.lent == ["writing without waiting"]


CHANGED = replace(ROW, version=5, idle_expires_at=2800)


@pytest.mark.parametrize(
    ("row", "seen", "answers", "found"),
    [
        (ROW, 0, {"lock": ()}, ROW),  # another transaction has the row, which is not waited for
        (ROW, 2600, {"lock": ()}, replace(ROW, idle_expires_at=2600)),  # a later expiry counts all the same
        (ROW, 0, {"extend": 0, "one": [[stored(CHANGED)]]}, CHANGED),  # another read was first
        (ROW, 2900, {"extend": 0, "one": [[stored(CHANGED)]]}, replace(CHANGED, idle_expires_at=2900)),
        (IDLE, 0, {"kill": 0, "one": [()]}, IDLE),
        (ROW, 0, {"lock": refused(LOCKED)}, ROW),  # a database that takes no writes takes no answer back
        (IDLE, 0, {"lock": refused(LOCKED)}, IDLE),
    ],
)
def test_what_cannot_be_noted_changes_no_answer(
    row: AuthRow, seen: int, answers: dict[str, Any], found: AuthRow
) -> None:
    """The next read tries again. A row that is locked is not written."""
    told, connections = read(row, seen=seen, **answers)
    assert told == found
    assert "lock" not in answers or connections.statements == [sql.LOCK_FOR_READER]


@pytest.mark.parametrize(
    ("seen_at", "row", "is_noted"),
    [(501, {}, False), (500, {}, True), (0, {}, True), (0, {"read_at": 2000}, False), (0, {"live": False}, False)],
)
def test_use_is_noted_now_and_then(seen_at: int, row: dict[str, Any], is_noted: bool) -> None:
    """Half a second after the last note of the row that was read, and while the session is not over: of several reads
    one notes it. A database that cannot note it has answered all the same."""
    for answer in ("locked", refused(LOCKED)):
        connections: Any = Connections({sql.LOCK_FOR_READER: [answer], sql.NOTE_USE: 1})
        note_use(connections, Rows(), replace(ROW, **row), seen_at, 500)
        noted = [values for statement, values in connections.asked if statement is sql.NOTE_USE]
        assert noted == ([{"key": "digest", "seen": seen_at}] if is_noted and answer == "locked" else [])
