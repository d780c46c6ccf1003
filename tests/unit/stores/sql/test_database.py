"""Methods of the store: what each asks, in which transaction, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.rows import Created, EndedSession
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


def test_a_session_that_is_not_there_is_no_error(database: Database, calls: Calls) -> None:
    """Reading is all that this takes."""
    assert database.load("digest", idle_ms=2000) is None
    assert calls.made == ["request, reading"]


def test_a_read_gives_its_connection_back_before_it_notes_anything(
    database: Database, connections: Connections
) -> None:
    """One call never holds two."""
    connections.answers = {sql.SELECT_ONE: [[stored()]], sql.LOCK_FOR_READER: [["locked"]], sql.EXTEND_IDLE: 1}
    row = database.load("digest", idle_ms=2000)
    assert row == replace(ROW, idle_expires_at=3000)
    assert connections.lent == ["reading", "writing without waiting"]


# -- new rows ----------------------------------------------------------------------------------------------------------


def create(database: Database, **more: Any) -> Any:
    return database.create("digest", user_id="7", payload=ROW.payload, idle_ms=99, absolute_ms=50, **more)


def test_a_new_row_is_never_idle_for_longer_than_it_lives(database: Database, connections: Connections) -> None:
    """The session that ends for the new row ends in the same transaction."""
    connections.answers = {sql.LOCK_THESE: [[locked("other")]], sql.INSERT: 1, sql.SELECT_ONE: [[stored()]]}
    assert create(database, kill="other") == Created(ROW, [EndedSession("other", 2, lived=True)])
    assert connections.statements == [sql.LOCK_THESE, sql.KILL_THESE, sql.INSERT, sql.SELECT_ONE]
    assert connections.asked[1][1] == {"digests": ["other"]}
    inserted = connections.asked[2][1]
    assert (inserted["idle_ms"], inserted["absolute_ms"], inserted["fields"]) == (50, 50, '{"_user_id":"7"}')
    assert connections.lent == ["writing"]


def test_the_same_row_again_is_the_one_that_is_there(database: Database, connections: Connections) -> None:
    """The outcome of the first time may have been unknown."""
    connections.answers = {sql.INSERT: DUPLICATE, sql.SELECT_ONE: [[stored()]]}
    assert create(database) == Created(ROW)
    assert connections.lent == ["writing: rolled back", "writing"]


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
        create(database)
    assert (caught.value.error_class, caught.value.cause) == (ErrorClass.DATA, "AnotherRow")


def adopt(database: Database) -> Any:
    return database.adopt("digest", note="old", note_ms=5, user_id="7", payload={}, idle_ms=9, absolute_ms=9)


def test_an_old_session_is_taken_over_once(database: Database, connections: Connections) -> None:
    """The note that it was is what the second one meets."""
    connections.answers = {sql.INSERT: 1, sql.SELECT_ONE: [[stored()]]}
    assert adopt(database) == ROW
    assert connections.asked[0] == (sql.INSERT_ADOPTED, {"key": "old", "absolute_ms": 5})
    connections.answers = {sql.INSERT_ADOPTED: DUPLICATE}
    assert adopt(database) is None


@pytest.mark.parametrize("epoch", [0, 3])
def test_nothing_is_taken_over_of_a_user_who_was_logged_out_everywhere(
    database: Database, connections: Connections, epoch: int
) -> None:
    """The old session may be from before that logout; an epoch of 0 was noted for this, too."""
    connections.answers = {sql.INSERT: 1, sql.SELECT_ONE: [[stored()]], sql.SELECT_EPOCH: [[epoch]]}
    assert adopt(database) is None
    assert connections.asked[-1] == (sql.KILL, {"key": "digest"})


# -- changes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("absolute_ms", "statement"), [(None, sql.UPDATE), (9, sql.UPDATE_LIFE)])
def test_an_update_changes_the_life_of_a_session_only_if_it_says_so(
    database: Database, connections: Connections, absolute_ms: int | None, statement: Any
) -> None:
    """Compare-and-set: nothing to change is no error."""
    connections.answers = {statement: 0}
    assert database.update("digest", seen=1, payload={}, user_id="7", idle_ms=1, absolute_ms=absolute_ms) is None
    assert connections.statements == [statement]


@pytest.mark.parametrize("renamed", [1, 0])
def test_a_new_id_has_a_row_only_if_the_old_one_was_ended_for_it(
    database: Database, connections: Connections, renamed: int
) -> None:
    """A session that was withdrawn meanwhile must not come back; a row that is there is returned, as for a
    repetition."""
    connections.answers = {sql.RENAME: renamed, sql.SELECT_ONE: [[stored()]]}
    assert database.regenerate("digest", successor="next", seen=1, payload={}, idle_ms=1) == ROW
    assert (sql.INSERT_SUCCESSOR in connections.statements) is bool(renamed)
    assert connections.asked[-1] == (sql.SELECT_ONE, {"key": "next"})


def test_a_revocation_follows_a_session_through_its_ids(database: Database, connections: Connections) -> None:
    """Another request may have given it another one; a digest without a row ends that."""
    connections.answers = {sql.LOCK_THESE: [[locked("a", live=False, successor="b")], [locked("b", successor="c")], []]}
    assert database.revoke_many(["a"]) == [EndedSession("a", 1, False, "b"), EndedSession("b", 2, True, "c")]
    asked = [values["digests"] for statement, values in connections.asked if statement is sql.KILL_THESE]
    assert asked == [["a"], ["b"]]
    assert connections.lent == ["writing"]


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


@pytest.mark.parametrize("rows", [[[]], []], ids=["none", "none at all"])
def test_revocations_of_what_has_no_rows_change_nothing(
    database: Database, connections: Connections, rows: list[Any]
) -> None:
    connections.answers = {sql.LOCK_THESE: rows}
    assert database.revoke_many(["a"]) == []
    assert sql.KILL_THESE not in connections.statements


# -- users -------------------------------------------------------------------------------------------------------------


def test_the_epoch_of_a_user_is_raised(database: Database, connections: Connections) -> None:
    """One that was there is counted on, the first one is 1."""
    connections.answers = {sql.RAISE_EPOCH: 1, sql.SELECT_EPOCH: [[4]]}
    assert database.kill_user("7") == 4
    connections.answers = {sql.RAISE_EPOCH: 0}
    assert database.kill_user("7") == 1


def test_of_two_that_log_a_user_out_for_the_first_time_the_second_counts_on(
    database: Database, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It meets the row of the first."""
    raised = iter([0, 1])
    connections.answers = {sql.FIRST_EPOCH: DUPLICATE, sql.SELECT_EPOCH: [[2]]}
    execute = connections.execute

    def one_after_the_other(statement: Any, values: Any = None) -> Any:
        if statement is sql.RAISE_EPOCH:
            connections.answers[statement] = next(raised)
        return execute(statement, values)

    monkeypatch.setattr(connections, "execute", one_after_the_other)
    assert database.kill_user("7") == 2


def test_a_user_whose_epoch_cannot_be_known_is_an_error_of_data(database: Database, connections: Connections) -> None:
    """Sessions that should be dead would be taken for alive."""
    connections.answers = {sql.RAISE_EPOCH: 0, sql.FIRST_EPOCH: DUPLICATE}
    with pytest.raises(StoreError) as caught:
        database.kill_user("7")
    assert (caught.value.error_class, caught.value.cause) == (ErrorClass.DATA, "NoEpoch")


@pytest.mark.parametrize(
    ("epoch", "after", "is_noted"), [(0, "", True), (2, "", False), (0, "a", False)],
    ids=["the first part", "with an epoch", "a later part"],
)  # fmt: skip
def test_that_a_user_was_logged_out_until_a_moment_is_noted_with_the_first_part(
    database: Database, connections: Connections, epoch: int, after: str, is_noted: bool
) -> None:
    """The epoch stays."""
    connections.answers = {sql.LOCK_UNTIL: [[]]}
    assert database.kill_user_until("7", 5, epoch=epoch, after=after) == []
    assert (sql.SAME_EPOCH in connections.statements) is is_noted


def test_a_part_ends_with_the_digests_that_were_asked_for(database: Database, connections: Connections) -> None:
    """Successors' digests come before the digests that were asked for: the next part begins behind the last one."""
    part = [locked("b", live=True, successor="z"), locked("c", live=True)]
    connections.answers = {
        sql.SELECT_EPOCH: [[0]], sql.LOCK_UNTIL: [part], sql.LOCK_THESE: [[locked("z", live=True)]],
    }  # fmt: skip
    assert database.kill_user_until("7", 5, limit=2) == ["z", "b", "c"]
    ended = [values["digests"] for statement, values in connections.asked if statement is sql.KILL_THESE]
    assert ended == [["b", "c"], ["z"]]


# -- for the recovery and operators ------------------------------------------------------------------------------------


def test_lists_are_read_patiently_and_write_nothing(database: Database, calls: Calls) -> None:
    """No request waits for these lists, except for the sessions of one user, which an operator asks for."""
    assert database.load_many(["a"], 1.0).rows == {}
    assert database.renamed(["a"], 5, 1.0) == set()
    assert database.changed_since(5).reached is None
    assert database.sessions_of("7") == []
    assert calls.made == [*["patient, reading"] * 3, "request, reading"]


def test_changes_go_on_from_where_the_part_before_has_ended(database: Database, connections: Connections) -> None:
    """The next part does not begin at the time that was said for the first one."""
    database.changed_since(5, limit=3)
    database.changed_since(5, after=(70, "c"), limit=3)
    assert connections.asked == [
        (sql.SELECT_CHANGED, {"ms": 5, "most": 3}),
        (sql.SELECT_CHANGED_AFTER, {"ms": 70, "after": "c", "most": 3}),
    ]


def test_a_probe_writes_to_both_tables_and_leaves_nothing(
    database: Database, connections: Connections, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old connections are gone before it; after it no earlier call need be waited for."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 77.0))
    database.probe(1.0)
    assert connections.statements == [sql.FIRST_EPOCH, sql.INSERT, sql.DELETE, sql.FORGET_USER]
    first, inserted, deleted, forgotten = (values for _, values in connections.asked)
    assert first["user"] == inserted["key"] == deleted["digests"][0] == forgotten["user"]
    assert connections.lent == ["writing"]
    assert calls.made == ["distrust", "probe, writing"]
    assert calls.cut_off_before == [77.0]


def test_two_probes_never_meet_at_one_row(database: Database, connections: Connections) -> None:
    """Probes of many hosts come at the same time, so each has a row of its own."""
    database.probe(1.0)
    database.probe(1.0)
    names = [values["user"] for statement, values in connections.asked if statement is sql.FIRST_EPOCH]
    assert len(set(names)) == 2


def test_a_probe_of_reads_writes_nothing(database: Database, connections: Connections, calls: Calls) -> None:
    database.probe_read(1.0)
    assert (connections.lent, calls.made) == (["reading"], ["probe, reading"])
