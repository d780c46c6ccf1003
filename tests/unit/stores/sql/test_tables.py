"""Rows and their meaning, and the differences between databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.stores.sql import tables as sql
from flask_langpont_session.stores.sql.rows import Rows
from tests.support.fake_sql import ROW, Connections, stored

rows = Rows()
DAMAGED = ["", "nothing", "[]", '{"a":', '{"a": tru}', "[" * 100_000, '"text"']


@pytest.mark.parametrize("payload", [{}, {"_user_id": b'"7"', "user_role": b'"\xe5\xad\x90"', "n": b'{"a": [1]}'}])
def test_a_payload_comes_back_as_it_was_encoded(payload: dict[str, bytes]) -> None:
    """Byte for byte: what is compared with it was encoded once."""
    row = rows.value(stored(payload=rows.text("digest", payload, 1)))
    assert row.payload == payload


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_row_is_an_error_of_data_unless_it_is_dead(text: str) -> None:
    """Nothing of it is quoted. The end of a session must not be undone by what became of its payload."""
    for live in (True, 1):
        with pytest.raises(StoreError) as caught:
            rows.value(stored(payload=text, live=live))
        assert (caught.value.error_class, caught.value.cause) == (ErrorClass.DATA, "UnreadablePayload")
    row = rows.value(stored(payload=text, live=0))
    assert (row.live, row.payload) == (False, {})


@pytest.mark.parametrize("live", [1, 0, True, False])
def test_a_row_has_a_truth_value_and_no_other_columns(live: int) -> None:
    """Not every driver has a type for it; when a row was changed is asked for by what goes through changes only."""
    row = rows.value(stored(live=live, updated_at=5))
    assert row == replace(ROW, live=bool(live)) and type(row.live) is bool


def test_lists_leave_the_damaged_out() -> None:
    """A list leaves a damaged row out, so that the others can be seen. A read of certain rows also names those that are
    damaged."""
    some = [stored(digest="a"), stored(digest="b", payload="{"), stored(digest="c")]
    assert [row.digest for row in rows.readable(some)] == ["a", "c"]
    found = rows.found(some)
    assert (set(found.rows), found.damaged) == ({"a", "c"}, {"b"})


@pytest.mark.parametrize(("limit", "reached"), [(3, (7, "c")), (4, None)])
def test_changes_go_on_after_the_last_row_of_a_full_part(limit: int, reached: Any) -> None:
    """The changes go on after it also where that row is damaged; a part that is not full is the last one."""
    some = [stored(digest=digest, updated_at=at) for digest, at in (("a", 5), ("b", 7))]
    some.append(stored(digest="c", updated_at=7, payload="{"))
    changes = rows.changes(some, limit)
    assert [row.digest for row in changes.rows] == ["a", "b"]
    assert changes.reached == reached


@pytest.mark.parametrize(
    ("returns", "changed", "questions"), [(True, 1, 1), (False, 1, 2), (True, 0, 1), (False, 0, 1)]
)
def test_a_row_that_was_changed_is_read_back(returns: bool, changed: int, questions: int) -> None:
    """With one question where the database can, else with two. Where nothing was changed, it is another row."""
    found = [[stored()]] if changed else ()
    connection: Any = Connections({sql.UPDATE: changed, sql.SELECT_ONE: [[stored()]]}, otherwise=found)
    connection.dialect.update_returning = returns
    assert rows.updated(connection, {"key": "digest"}) == (ROW if changed else None)
    assert len(connection.asked) == questions


@pytest.mark.parametrize(
    ("url", "clock"),
    [
        ("postgresql+psycopg://", "statement_timestamp()"),
        ("sqlite://", "julianday('now')"),
        ("mysql+pymysql://", "UTC_TIMESTAMP(3)"),
        ("mssql+pyodbc://", "CURRENT_TIMESTAMP"),
    ],
)
def test_the_time_is_the_databases_own(url: str, clock: str) -> None:
    """No statement is told a time of this host's."""
    assert clock in str(sa.select(sql.now_ms()).compile(dialect=dialect_of(url)))


def dialect_of(url: str) -> Any:
    return sa.make_url(url).get_dialect()()


@pytest.mark.parametrize(("is_mariadb", "collation"), [(True, sql.NO_PAD), (False, sql.NO_PAD_OF_MYSQL)])
def test_a_space_at_the_end_of_a_users_name_counts(is_mariadb: bool, collation: str) -> None:
    """MySQL has that collation by another name; the tables are the same otherwise, and for all other databases."""
    assert all(sql.metadata_for(dialect_of(url)) is sql.METADATA for url in ("postgresql+psycopg://", "sqlite://"))
    dialect = dialect_of("mysql+pymysql://")
    dialect.is_mariadb = is_mariadb
    tables = sql.metadata_for(dialect)
    assert (tables is sql.METADATA) is is_mariadb
    for table in tables.sorted_tables:
        made = str(sa.schema.CreateTable(table).compile(dialect=dialect))
        assert f"user_id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE {collation}" in made
        assert list(table.c.keys()) == list(sql.METADATA.tables[table.name].c.keys())
