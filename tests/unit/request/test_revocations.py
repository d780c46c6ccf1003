"""Ending sessions: what each store is told, what waits in the journal, and what a user is known to be meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flask_langpont_session.policy.copies import RecordRef
from flask_langpont_session.policy.health import DATABASE, PRIMARY
from flask_langpont_session.policy.ids import SessionId
from flask_langpont_session.policy.loaded import Verdict
from flask_langpont_session.policy.plans import Revoked
from tests.support.fake_stores import NOW_MS, Stage, a_row


def tombstones(stage: Stage) -> list[object]:
    return [what[1:] for what in stage.redis.told if what[0] == "write_tombstone"]


@pytest.mark.parametrize(
    ("lost", "is_durable", "in_redis", "waits"),
    [
        ((), True, True, False),
        ((PRIMARY,), True, False, True),
        ((DATABASE,), False, True, True),
        ((PRIMARY, DATABASE), False, False, True),
    ],
)
def test_a_session_is_ended_wherever_it_can_be_and_the_rest_waits(
    stage: Stage, user: SessionId, lost: tuple[str, ...], is_durable: bool, in_redis: bool, waits: bool
) -> None:
    stage.database.rows[user.digest] = a_row(user.digest)
    stage.lose(*lost)
    assert stage.repository.revocations.revoke(user.digest, stage.begin()) is is_durable
    assert bool(tombstones(stage)) is in_redis
    assert [entry.digest for entry in stage.journal.revocations.pending()] == [user.digest] * waits
    assert stage.memory.ended.is_dead(user.digest)
    assert stage.load(user).verdict is Verdict.DEAD
    assert len(stage.revocations()) == 1


def test_i1_while_the_database_hears_of_a_sign_out_its_worker_shows_the_user_no_more(
    stage: Stage, user: SessionId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease in Redis is good until then."""
    stage.database.rows[user.digest] = a_row(user.digest)
    stage.redis.has(stage.database.rows[user.digest])
    shown, revoke = [stage.load(user).verdict], stage.database.revoke_many

    def slowly(*arguments: Any, **options: Any) -> Any:
        shown.append(stage.load(user).verdict)
        return revoke(*arguments, **options)

    monkeypatch.setattr(stage.database, "revoke_many", slowly)
    assert stage.repository.revocations.revoke(user.digest, stage.begin())
    assert shown == [Verdict.VALID, Verdict.DEAD]


def test_a_user_is_signed_out_by_one_change_of_the_database(stage: Stage) -> None:
    """The epoch; then every session that there is, in all stores and on this host."""
    mine, others = ["one", "two"], ["third"]
    for name in mine:
        stage.database.rows[name] = a_row(name)
    stage.database.rows["third"] = a_row("third", user="8")
    assert stage.repository.revocations.revoke_user("7", stage.begin()) == Revoked(durable=True, sessions=2)
    assert stage.database.told[0] == ("kill_user", "7")
    assert set(stage.database.rows) == set(others)
    assert tombstones(stage) == [("one", 1), ("two", 1)]
    assert [stage.memory.ended.is_dead(name) for name in (*mine, *others)] == [True, True, False]
    assert stage.journal.is_empty()


@pytest.mark.parametrize("is_known", [True, False])
def test_a_user_is_signed_out_later_as_of_now_by_the_databases_clock(stage: Stage, is_known: bool) -> None:
    """I31: that of the host may have been set; it counts where this worker knows nothing of the database yet."""
    said_ms = 5_000_000
    if is_known:
        stage.memory.put_auth(replace(a_row("one"), read_at=said_ms), stage.backend.clock())
    stage.lose(DATABASE)
    assert not stage.repository.revocations.revoke_user("7", stage.begin()).durable
    [until_ms] = stage.journal.overlay(RecordRef("one", "u")).users.values()
    assert (said_ms <= until_ms < said_ms + 60_000) is is_known
    assert (until_ms >= NOW_MS) is not is_known


def test_what_redis_does_not_know_of_a_users_end_waits(stage: Stage) -> None:
    stage.database.rows["one"] = a_row("one")
    stage.lose(PRIMARY)
    assert stage.repository.revocations.revoke_user("7", stage.begin()) == Revoked(durable=True, sessions=1)
    assert not stage.journal.is_empty()
    assert stage.memory.ended.is_dead("one")


def test_rows_that_take_too_long_do_not_undo_the_end_of_a_user(stage: Stage) -> None:
    """The new epoch holds; the database is not blamed, and the rest is the replay's."""
    stage.database.rows["one"] = a_row("one")
    stage.database.is_slow_with_rows = True
    assert stage.repository.revocations.revoke_user("7", stage.begin()) == Revoked(durable=True, sessions=0)
    assert stage.health.level == 0
    assert not stage.journal.is_empty()


def test_without_the_database_a_user_is_signed_out_on_this_host_until_it_answers(stage: Stage) -> None:
    """All sessions that began until now; one that begins later is not meant."""
    names = ["one", "two"]
    for name in names:
        stage.database.rows[name] = a_row(name)
        stage.memory.put_auth(stage.database.rows[name], stage.clock())
    stage.lose(DATABASE)
    assert stage.repository.revocations.revoke_user("7", stage.begin()) == Revoked(durable=False, sessions=2)
    assert all(stage.memory.ended.is_dead(name) for name in names)
    assert not stage.journal.is_empty()
    later = a_row("later", created_at=NOW_MS + 60_000)
    assert [stage.memory.ended.is_signed_out(row) for row in (a_row("unseen"), later)] == [True, False]


def test_sessions_of_a_user_are_those_that_live_for_all_that_is_known_here(stage: Stage) -> None:
    for name in ("lives", "killed", "in the journal"):
        stage.database.rows[name] = a_row(name)
    stage.database.rows["dead"] = a_row("dead", live=False)
    stage.memory.kill("killed")
    stage.journal.revocations.note("in the journal", in_database=False, in_redis=False)
    rows = stage.database.rows
    assert [name for name in rows if stage.repository.revocations.is_valid(rows[name])] == ["lives"]
