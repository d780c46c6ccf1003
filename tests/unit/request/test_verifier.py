"""The word of the database on a session: how old it is, and what follows from it for the stores and this worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flask_langpont_session.policy.changes import Fields
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, FAILURES, WRITE
from flask_langpont_session.policy.ids import SessionId
from flask_langpont_session.policy.loaded import Loaded, Verdict
from flask_langpont_session.policy.rows import AuthEntry
from tests.support.fake_stores import LIFE, NOW_MS, Stage, a_row, changed

NEW = SessionId("new", "u", False, 2, b"secret")
QUARTER = LIFE.idle_ms // 4


def read(stage: Stage, user: SessionId, loaded: Loaded) -> None:
    stage.load(user, fresh=True)


def sign_in(stage: Stage, user: SessionId, loaded: Loaded) -> None:
    stage.repository.saves.save(
        stage.plan(None, NEW, changes={"auth": changed(_user_id=b'"7"')}, grants=True), stage.begin()
    )


def change(stage: Stage, user: SessionId, loaded: Loaded) -> None:
    plan = stage.plan(user, user, loaded=loaded, changes={"auth": changed(daily_limit=b"5")})
    stage.repository.saves.save(plan, stage.begin())


@pytest.mark.parametrize(
    ("method", "act", "name"), [("load", read, "user"), ("create", sign_in, "new"), ("update", change, "user")]
)
def test_i3_a_confirmation_is_as_old_as_the_question(
    stage: Stage,
    user: SessionId,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    act: Callable[[Stage, SessionId, Loaded], None],
    name: str,
) -> None:
    """A revocation during the query must not hide behind a younger moment."""
    stage.database.rows[user.digest] = a_row(user.digest)
    stage.redis.has(stage.database.rows[user.digest])
    loaded, ask = stage.load(user), getattr(stage.database, method)

    def ask_slowly(*arguments: Any, **options: Any) -> Any:
        stage.clock.now += 1
        return ask(*arguments, **options)

    began = stage.clock.now
    monkeypatch.setattr(stage.database, method, ask_slowly)
    act(stage, user, loaded)
    held = stage.memory.auth(NEW.digest if name == "new" else user.digest)
    assert held is not None
    assert (held.confirmed_at, stage.clock.now) == (began, began + 1)


def test_i1_a_repair_that_cannot_be_made_now_is_made_later(stage: Stage, user: SessionId) -> None:
    """Redis has a tombstone, and the database does not answer: it is this host's task from now on."""
    stage.redis.entries[user.digest] = AuthEntry(None)
    stage.lose(DATABASE)
    assert stage.load(user).verdict is Verdict.DEAD
    assert [entry.digest for entry in stage.journal.revocations.pending()] == [user.digest]


@pytest.mark.parametrize("takes_no", ["question", "write"])
def test_s1_a_use_that_the_database_cannot_note_is_noted_in_redis(stage: Stage, user: SessionId, takes_no: str) -> None:
    """The database is told when it answers again. Where nothing is due, nothing is noted."""
    row = a_row(user.digest, idle_expires_at=NOW_MS + LIFE.idle_ms - QUARTER - 1)
    stage.database.rows[user.digest] = row
    if takes_no == "question":
        stage.redis.has(row)
        stage.lose(DATABASE)
    assert stage.load(user).verdict is Verdict.VALID
    assert ("extend_idle", user.digest) in stage.redis.told
    assert [entry.digest for entry in stage.journal.pending_pushes()] == [user.digest]
    stage.redis.told.clear()
    fresher = replace(row, idle_expires_at=row.idle_expires_at + 1)
    stage.database.rows[user.digest] = fresher
    stage.redis.has(fresher)
    assert stage.load(user).verdict is Verdict.VALID
    assert ("extend_idle", user.digest) not in stage.redis.told


# -- I34: a database that went back ----------------------------------------------------------------------------------

ADMIN: Fields = {"_user_id": b'"7"', "user_role": b'"admin"'}


def lost_commits(stage: Stage) -> int:
    return stage.recorder.counters().get("database_lost_commits", 0)


@pytest.mark.parametrize("known_by", ["memory", "redis", "its number"])
@pytest.mark.parametrize("takes_writes", [True, False])
def test_i34_a_right_that_was_withdrawn_stays_so(
    stage: Stage, user: SessionId, known_by: str, takes_writes: bool
) -> None:
    """The row is written above the version that it has lost, so that it is leased again; else it is shown narrowed."""
    stage.database.rows[user.digest] = a_row(user.digest, payload=ADMIN)
    known = a_row(user.digest, version=3)
    if known_by == "memory":
        stage.memory.put_auth(known, stage.clock())
    elif known_by == "redis":
        stage.redis.has(known)
    else:
        stage.memory.ended.raise_min_version(user.digest, 3)
    if not takes_writes:
        for _ in range(FAILURES):
            stage.health.failed(StoreError(DATABASE, ErrorClass.WRITE_REFUSED, "Test"), WRITE)
    loaded = stage.load(user, fresh=True)
    assert (loaded.verdict, dict(loaded.of("auth").shown)["_user_id"]) == (Verdict.VALID, b'"7"')
    assert "user_role" not in loaded.of("auth").shown
    assert stage.database.rows[user.digest].version == (4 if takes_writes else 1)
    assert lost_commits(stage) == int(takes_writes)
    asked = len(stage.database.told)
    assert "user_role" not in stage.load(user).of("auth").shown
    assert len(stage.database.told) == asked or not takes_writes


@pytest.mark.parametrize(
    ("known_ms", "lost"), [(LIFE.absolute_ms, 1), (50_000, 0), (None, 0)], ids=["lives", "about to end", "not known"]
)
def test_i34_a_row_that_is_missing_was_lost_if_it_would_still_live(
    stage: Stage, user: SessionId, known_ms: int | None, lost: int
) -> None:
    """One that was to end within a minute may have ended by another clock, and is purged."""
    if known_ms is not None:
        stage.memory.put_auth(a_row(user.digest, absolute_expires_at=NOW_MS + known_ms), stage.clock())
    assert stage.load(user, fresh=True).verdict is Verdict.DEAD
    assert lost_commits(stage) == lost


@pytest.mark.parametrize("word", ["tombstone", "tombstone that the database knew", "row"])
def test_i34_an_end_that_the_database_has_lost_is_told_again(stage: Stage, user: SessionId, word: str) -> None:
    """A tombstone that the database was never told of is no lost commit."""
    stage.redis.entries[user.digest] = AuthEntry(None, in_database=word != "tombstone")
    stage.database.rows[user.digest] = a_row(user.digest, live=word != "row")
    assert stage.load(user).verdict is Verdict.DEAD
    assert (("kill", user.digest) in stage.database.told) is (word != "row")
    assert lost_commits(stage) == int(word == "tombstone that the database knew")


def test_i34_sessions_that_a_user_begins_after_a_lost_epoch_live(
    stage: Stage, user: SessionId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user was logged out everywhere, which the database has lost. What began before that stays over."""
    monkeypatch.setattr(stage.memory.ended.signed_out, "_now_ms", lambda: NOW_MS - 5000)
    stage.memory.sign_out_user("7", 0, 1)
    for sid, began in ((NEW, NOW_MS - 6000), (user, NOW_MS - 1000)):
        stage.database.rows[sid.digest] = a_row(sid.digest, created_at=began)
    assert [stage.load(sid).verdict for sid in (user, user, NEW)] == [Verdict.VALID, Verdict.VALID, Verdict.DEAD]
    assert lost_commits(stage) == 1
