"""A limited sign-in: in which transactions it does what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.rows import Created, Limit
from flask_langpont_session.stores.sql import tables as sql
from flask_langpont_session.stores.sql.session_limits import inserted_within
from tests.support.fake_sql import ROW, Connections

DUPLICATE = sa.exc.IntegrityError("statement", {}, Exception("duplicate"))


def sign_in(connections: Any) -> Any:
    created = inserted_within(connections, "7", Limit(2, True), insert, insert)
    return created.row if created else None


def insert(connection: Any) -> Created:
    connection.execute(sql.INSERT)
    return Created(ROW)


@pytest.mark.parametrize("known", [1, DUPLICATE], ids=["first", "after another"])
def test_the_row_of_a_new_user_is_made_in_a_transaction_of_its_own(known: Any) -> None:
    """Sign-ins that went on in the same one would each hold a lock that all others wait for."""
    connections = Connections({sql.LOCK_USER: [0, 1], sql.INSERT_USER: known, sql.INSERT: 1})
    assert sign_in(connections) == ROW
    made = "writing" if known == 1 else "writing: rolled back"
    assert connections.lent == ["writing: rolled back", made, "writing"]
    assert connections.statements[:3] == [sql.LOCK_USER, sql.INSERT_USER, sql.LOCK_USER]


def test_the_row_of_a_known_user_costs_no_transaction() -> None:
    connections = Connections({sql.LOCK_USER: 1, sql.INSERT: 1})
    assert sign_in(connections) == ROW
    assert connections.lent == ["writing"]


def test_a_user_that_is_erased_again_and_again_cannot_sign_in_for_now() -> None:
    connections = Connections({sql.LOCK_USER: 0, sql.INSERT_USER: 1})
    with pytest.raises(StoreError, match="UserErased") as caught:
        sign_in(connections)
    assert caught.value.error_class is ErrorClass.BUSY


@pytest.mark.parametrize(
    ("most", "ends_oldest", "others", "ended"),
    [
        (2, True, 1, []),
        (2, True, 2, ["d0"]),
        (2, True, 4, ["d0", "d1", "d2"]),  # the limit was another one before
        (1, True, 1, ["d0"]),
        (2, False, 1, []),
        (2, False, 2, None),
    ],
)
def test_a_limit_ends_the_oldest_or_refuses(most: int, ends_oldest: bool, others: int, ended: list[str] | None) -> None:
    """The new session counts. A refusal ends none, and takes the new row back."""
    rows = [SimpleNamespace(digest=f"d{number}", version=1) for number in range(others)]
    connections: Any = Connections({sql.LOCK_USER: 1, sql.INSERT: 1, sql.SELECT_VALID: [rows]})
    created = inserted_within(connections, "7", Limit(most, ends_oldest), insert, insert)
    assert ended == (created and [session.digest for session in created.ended])
    assert connections.lent == ["writing" if created else "writing: rolled back"]
    assert (sql.DISPLACE in connections.statements) is bool(ended)
