"""Methods of the store, as far as no real database shows it: transactions, slots, and what cannot be by itself."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.rows import EndedSession
from flask_langpont_session.stores.sql import database as module
from flask_langpont_session.stores.sql import tables as sql
from flask_langpont_session.stores.sql.database import Database
from tests.support.fake_sql import ROW, Calls, Connections, stored

DUPLICATE = sa.exc.IntegrityError("statement", {}, Exception("duplicate"))


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def calls(connections: Connections) -> Calls:
    return Calls(connections)


@pytest.fixture
def database(connections: Connections, calls: Calls) -> Iterator[Database]:
    engine = sa.create_engine("sqlite://")
    database: Any = Database(engine)
    database.close()
    database.connections, database.calls = connections, calls
    yield database
    engine.dispose()


@pytest.mark.parametrize(
    "other", [[], [stored(version=2)], [stored(user_id="8")], [stored(payload="{}")]],
    ids=["gone", "changed", "another user's", "another one"],
)  # fmt: skip
def test_another_row_under_the_same_digest_is_an_error_of_data(
    database: Database, connections: Connections, other: list[Any]
) -> None:
    """It must not be taken for the one that was asked for."""
    connections.answers = {sql.INSERT: DUPLICATE, sql.SELECT_ONE: [other]}
    with pytest.raises(StoreError) as caught:
        database.create("digest", user_id="7", payload=ROW.payload, idle_ms=99, absolute_ms=50)
    assert (caught.value.error_class, caught.value.cause) == (ErrorClass.DATA, "AnotherRow")


def locked(digest: str, *, live: bool = True, successor: str | None = None) -> Any:
    return SimpleNamespace(digest=digest, successor=successor, version=1, live=live, lived=live)


def test_many_revocations_are_one_transaction(database: Database, connections: Connections) -> None:
    """Rows that are dead already keep their version; a circle of successors ends, too."""
    first = [locked("a", live=True, successor="c"), locked("b", live=False)]
    connections.answers = {sql.LOCK_THESE: [first, [locked("c", live=True, successor="a")]]}
    ended = [EndedSession("a", 2, True, "c"), EndedSession("b", 1, False), EndedSession("c", 2, True, "a")]
    assert database.revoke_many(["b", "a"]) == ended
    asked = [values["digests"] for statement, values in connections.asked if statement is sql.LOCK_THESE]
    assert asked == [["a", "b"], ["c"]]
    assert connections.lent == ["writing"]


def test_a_user_whose_epoch_cannot_be_known_is_an_error_of_data(database: Database, connections: Connections) -> None:
    """Sessions that should be dead would be taken for alive."""
    connections.answers = {sql.RAISE_EPOCH: 0, sql.INSERT_USER: DUPLICATE}
    with pytest.raises(StoreError) as caught:
        database.kill_user("7")
    assert (caught.value.error_class, caught.value.cause) == (ErrorClass.DATA, "NoEpoch")


def test_a_part_ends_with_the_digests_that_were_asked_for(database: Database, connections: Connections) -> None:
    """Successors' digests come before the digests that were asked for: the next part begins behind the last one."""
    part = [locked("b", live=True, successor="z"), locked("c", live=True)]
    connections.answers = {
        sql.SELECT_EPOCH: [[0]], sql.LOCK_UNTIL: [part], sql.LOCK_THESE: [[locked("z", live=True)]],
    }  # fmt: skip
    assert database.kill_user_until("7", 5, limit=2) == ["z", "b", "c"]
    ended = [values["digests"] for statement, values in connections.asked if statement is sql.KILL_THESE]
    assert ended == [["b", "c"], ["z"]]


def test_lists_are_read_patiently_and_write_nothing(database: Database, calls: Calls) -> None:
    """No request waits for these lists, except for the sessions of one user, which an operator asks for."""
    assert database.load_many(["a"], 1.0).rows == {}
    assert database.renamed(["a"], 5, 1.0) == set()
    assert database.changed_since(5).reached is None
    assert database.sessions_of("7") == []
    assert calls.made == [*["patient, reading"] * 3, "request, reading"]


def test_a_probe_writes_to_both_tables_and_leaves_nothing(
    database: Database, connections: Connections, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old connections are gone before it; after it no earlier call need be waited for."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 77.0))
    database.probe(1.0)
    assert connections.statements == [sql.INSERT_USER, sql.INSERT, sql.DELETE, sql.FORGET_USER]
    first, inserted, deleted, forgotten = (values for _, values in connections.asked)
    assert first["user"] == inserted["key"] == deleted["digests"][0] == forgotten["user"]
    assert connections.lent == ["writing"]
    assert calls.made == ["distrust", "probe, writing"]
    assert calls.cut_off_before == [77.0]


def test_two_probes_never_meet_at_one_row(database: Database, connections: Connections) -> None:
    """Probes of many hosts come at the same time, so each has a row of its own."""
    database.probe(1.0)
    database.probe(1.0)
    names = [values["user"] for statement, values in connections.asked if statement is sql.INSERT_USER]
    assert len(set(names)) == 2


def test_a_probe_of_reads_writes_nothing(database: Database, connections: Connections, calls: Calls) -> None:
    database.probe_read(1.0)
    assert (connections.lent, calls.made) == (["reading"], ["probe, reading"])
