"""Upkeep of the tables: what it costs, and what it leaves."""

from __future__ import annotations

from typing import Any

import pytest

from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.sql import tables as sql
from flask_langpont_session.stores.sql.upkeep import Upkeep
from tests.support.fake_sql import Calls, Connections, Schema


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def calls(connections: Connections) -> Calls:
    return Calls(connections)


@pytest.fixture
def schema() -> Schema:
    return Schema()


@pytest.fixture
def upkeep(calls: Any, schema: Any) -> Upkeep:
    return Upkeep(calls, schema)


def test_tables_were_there_once_they_are_made(upkeep: Upkeep, schema: Schema) -> None:
    """If they are missing later, that is an outage."""
    assert not upkeep.had_tables
    upkeep.create_tables()
    assert upkeep.had_tables and schema.created == 1


def test_tables_that_cannot_be_made_were_never_there(upkeep: Upkeep, schema: Schema) -> None:
    """The deployment is not finished, which the operator is told."""
    schema.refuses = StoreError("database", ErrorClass.WRITE_REFUSED, "Test")
    with pytest.raises(StoreError):
        upkeep.create_tables()
    assert not upkeep.had_tables


def test_counting_writes_nothing(upkeep: Upkeep, connections: Connections, calls: Calls) -> None:
    """Neither rows nor tables are written for it; and no request waits for its turn meanwhile."""
    connections.answers = {sql.COUNT_OLD: [[3]]}
    assert (upkeep.count_old(5), upkeep.missing_tables()) == (3, [])
    assert connections.asked == [(sql.COUNT_OLD, {"ms": 5})]
    assert calls.made == ["patient, reading"] * 2


@pytest.mark.parametrize("digests", [["a", "b"], []])
def test_a_purge_deletes_what_it_found(upkeep: Upkeep, connections: Connections, digests: list[str]) -> None:
    """The purge is one transaction; nothing if there was nothing."""
    connections.answers = {sql.SELECT_OLD: [digests], sql.DELETE: len(digests)}
    assert upkeep.purge(0, limit=2) == len(digests)
    assert (sql.DELETE in connections.statements) is bool(digests)
    assert connections.lent == ["writing"]


def test_nothing_is_left_of_a_user_who_is_erased(upkeep: Upkeep, connections: Connections, calls: Calls) -> None:
    """Sessions and the row of the user go in one transaction."""
    upkeep.erase("7")
    assert connections.asked == [(sql.DELETE_OF_USER, {"user": "7"}), (sql.FORGET_USER, {"user": "7"})]
    assert (connections.lent, calls.made) == (["writing"], ["patient, writing"])
