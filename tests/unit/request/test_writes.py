"""Saving a session and ending one: the database first, then Redis, then the journal; and what each refusal means."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from flask_langpont_session.exceptions import GrantRefused
from flask_langpont_session.policy.categories import AUTH
from flask_langpont_session.policy.changes import Basis, CategoryChange, Fields, Operation
from flask_langpont_session.policy.copies import Change
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY
from flask_langpont_session.policy.ids import SessionId
from flask_langpont_session.policy.levels import Kept
from flask_langpont_session.policy.loaded import Loaded
from flask_langpont_session.policy.plans import Note
from flask_langpont_session.policy.users import authenticated_at, noted
from flask_langpont_session.stores.redis.records import Lack, Written
from tests.support.fake_stores import LOST, NOW_MS, Stage, a_row, changed

NEW = SessionId("new", "u", False, 2, b"secret")


def loaded_user(stage: Stage, user: SessionId) -> Loaded:
    """A session that is signed in, as a request has read it."""
    stage.database.rows[user.digest] = a_row(user.digest)
    stage.redis.has(stage.database.rows[user.digest])
    return stage.load(user)


def test_a_sign_in_is_a_row_first_and_then_a_record(stage: Stage, visitor: SessionId) -> None:
    plan = stage.plan(visitor, NEW, changes={"auth": changed(_user_id=b'"7"'), "ui": changed(lang=b"1")}, grants=True)
    saved = stage.repository.saves.save(plan, stage.begin())
    assert (saved.stored, saved.ended) == (True, False)
    assert stage.database.told == [("create", NEW.digest, None)]
    assert stage.redis.told == [("write", NEW.digest, "new", ["ui"], 1)]
    assert stage.database.rows[NEW.digest].user_id == "7"
    assert plan.kept == {"auth": Kept.DATABASE, "ui": Kept.REDIS}


def test_a_sign_in_over_a_session_ends_that_one(stage: Stage, user: SessionId) -> None:
    loaded_user(stage, user)
    stage.repository.saves.save(
        stage.plan(user, NEW, changes={"auth": changed(_user_id=b'"8"')}, grants=True), stage.begin()
    )
    assert ("create", NEW.digest, user.digest) in stage.database.told
    assert ("write_tombstone", user.digest) in [what[:2] for what in stage.redis.told]
    assert stage.memory.ended.is_dead(user.digest)


def test_without_the_database_a_sign_in_is_refused_and_nothing_changed(stage: Stage, visitor: SessionId) -> None:
    stage.lose(DATABASE)
    with pytest.raises(GrantRefused):
        stage.repository.saves.save(
            stage.plan(visitor, NEW, changes={"auth": changed(_user_id=b'"7"')}, grants=True), stage.begin()
        )
    assert stage.redis.told == []
    assert stage.journal.is_empty()
    assert stage.recorder.counters()["grants_refused"] == 1


def test_data_of_a_visitor_goes_to_redis_alone(stage: Stage, visitor: SessionId) -> None:
    saved = stage.repository.saves.save(stage.plan(visitor, visitor, changes={"ui": changed(lang=b"1")}), stage.begin())
    assert saved.stored
    assert stage.redis.told == [("write", visitor.digest, "free", ["ui"], None)]
    assert stage.database.told == []


@pytest.mark.parametrize("lost", [1, 7])
@pytest.mark.parametrize("grants", [True, False])
def test_a_change_that_lost_races_is_made_on_the_last_winner(
    stage: Stage, user: SessionId, lost: int, grants: bool
) -> None:
    """Each keeps its own keys."""
    loaded = loaded_user(stage, user)
    theirs = {"_user_id": b'"7"'}
    for version in range(2, 2 + lost):
        theirs |= {f"theirs{version}": b"1"}
        stage.database.races.append(a_row(user.digest, version=version, payload=theirs))
    plan = stage.plan(user, user, loaded=loaded, changes={"auth": changed(daily_limit=b"5")}, grants=grants)
    stage.repository.saves.save(plan, stage.begin())
    row = stage.database.rows[user.digest]
    assert (row.version, dict(row.payload)) == (2 + lost, theirs | {"daily_limit": b"5"})


@pytest.mark.parametrize("grants", [True, False])
def test_a_change_that_loses_every_race_is_given_up_when_its_time_is_over(
    stage: Stage, user: SessionId, grants: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is given up as where the database does not answer in time: a right is refused, other data waits."""
    loaded, update = loaded_user(stage, user), stage.database.update

    def lose(digest: str, **of: Any) -> Any:
        stage.clock.now += 0.2  # of the 5 s that a request has here
        stage.database.races = [a_row(digest, version=of["seen"] + 1)]
        return update(digest, **of)

    monkeypatch.setattr(stage.database, "update", lose)
    plan = stage.plan(user, user, loaded=loaded, changes={"auth": changed(user_role=b'"admin"')}, grants=grants)
    if grants:
        with pytest.raises(GrantRefused):
            stage.repository.saves.save(plan, stage.begin())
    else:
        stage.repository.saves.save(plan, stage.begin())
        assert plan.kept == {"auth": Kept.JOURNAL}
    assert [what[0] for what in stage.database.told].count("update") == 25
    assert stage.health.level == 0


@pytest.mark.parametrize("grants", [True, False])
def test_s4_a_change_of_a_session_in_use_ends_it_not_for_being_idle(
    stage: Stage, user: SessionId, grants: bool
) -> None:
    """The row is behind: the lease that the request was given knows of a later use. That counts for the row as well."""
    loaded = loaded_user(stage, user)
    behind = replace(stage.database.rows[user.digest], idle_expires_at=NOW_MS)
    stage.database.rows[user.digest] = behind
    plan = stage.plan(user, user, loaded=loaded, changes={"auth": changed(daily_limit=b"5")}, grants=grants)
    assert not stage.repository.saves.save(plan, stage.begin()).ended
    row = stage.database.rows[user.digest]
    assert (row.live, row.version, row.payload["daily_limit"]) == (True, 2, b"5")
    assert not stage.memory.ended.is_dead(user.digest)


@pytest.mark.parametrize("grants", [True, False])
def test_s4_a_lease_that_has_run_out_meanwhile_ends_no_session(stage: Stage, user: SessionId, grants: bool) -> None:
    """Another request may have used it since, which only Redis knows: nothing is said of it, and nothing is killed."""
    loaded = loaded_user(stage, user)
    assert loaded.row is not None
    idle_at = loaded.row.idle_expires_at
    stage.database.rows[user.digest] = replace(stage.database.rows[user.digest], read_at=idle_at)
    plan = stage.plan(user, user, loaded=loaded, changes={"auth": changed(daily_limit=b"5")}, grants=grants)
    if grants:
        with pytest.raises(GrantRefused):
            stage.repository.saves.save(plan, stage.begin())
    else:
        assert not stage.repository.saves.save(plan, stage.begin()).ended
        assert plan.kept == {"auth": Kept.JOURNAL}
    assert stage.database.rows[user.digest].live
    assert not stage.memory.ended.is_dead(user.digest)
    assert [what for what in stage.redis.told if what[0] == "write_tombstone"] == []


@pytest.mark.parametrize("grants", [True, False])
def test_without_the_database_a_right_is_refused_and_other_data_waits(
    stage: Stage, user: SessionId, grants: bool
) -> None:
    loaded = loaded_user(stage, user)
    stage.lose(DATABASE)
    plan = stage.plan(user, user, loaded=loaded, changes={"auth": changed(user_role=b'"admin"')}, grants=grants)
    if grants:
        with pytest.raises(GrantRefused):
            stage.repository.saves.save(plan, stage.begin())
        assert stage.journal.is_empty()
    else:
        stage.repository.saves.save(plan, stage.begin())
        assert plan.kept == {"auth": Kept.JOURNAL}


@pytest.mark.parametrize("renames", [False, True])
def test_i3_what_redis_claims_of_a_session_does_not_reach_the_database(
    stage: Stage, user: SessionId, renames: bool
) -> None:
    """A lease is believed for its time; a change is made of what the database has, and so is another id."""
    forged, limit = {"_user_id": b'"1"', "user_role": b'"admin"'}, {"daily_limit": b"4"}
    stage.database.rows[user.digest] = a_row(user.digest)
    stage.redis.has(a_row(user.digest, user="1", payload=forged))
    loaded = stage.load(user)
    assert loaded.row is not None and loaded.row.user_id == "1"
    if renames:
        plan = stage.plan(user, NEW, renames=loaded.row, changes={"auth": changed(**forged, **limit)})
    else:
        plan = stage.plan(user, user, loaded=loaded, changes={"auth": changed(**limit)})
    stage.repository.saves.save(plan, stage.begin())
    row = stage.database.rows[NEW.digest if renames else user.digest]
    assert (row.user_id, dict(row.payload)) == ("7", {"_user_id": b'"7"', **limit})


def test_a_session_that_another_host_ended_is_over_here_too(stage: Stage, user: SessionId) -> None:
    """The request had read it while it lived."""
    loaded = loaded_user(stage, user)
    stage.database.rows[user.digest] = a_row(user.digest, live=False, version=2)
    plan = stage.plan(user, user, loaded=loaded, changes={"auth": changed(daily_limit=b"5")})
    assert stage.repository.saves.save(plan, stage.begin()).ended
    assert ("write_tombstone", user.digest) in [what[:2] for what in stage.redis.told]
    assert stage.memory.ended.is_dead(user.digest)


@pytest.mark.parametrize("is_changed", [True, False])
def test_redis_does_not_remember_a_longer_life_than_was_chosen(stage: Stage, user: SessionId, is_changed: bool) -> None:
    """A session that is not permanent any more lives shorter."""
    plan = stage.plan(user, user, loaded=loaded_user(stage, user), changes={"auth": changed(daily_limit=b"5")})
    plan.permanence_changed = is_changed
    stage.repository.saves.save(plan, stage.begin())
    assert stage.redis.exactly == [user.digest] * is_changed


def test_what_proves_a_password_and_what_does_not(
    stage: Stage, user: SessionId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I27: a sign-in and a confirmation do, by the database's clock. A remember cookie does not, nor does an old
    session that is taken over; another id alone changes nothing of it."""
    loaded, rows = loaded_user(stage, user), stage.database.rows

    def proof_of(payload: Fields, **more: Any) -> int | None:
        plan = stage.plan(more.pop("origin", None), NEW, changes={"auth": changed(**payload)}, grants=True, **more)
        stage.repository.saves.save(plan, stage.begin())
        return authenticated_at(rows[NEW.digest])

    seven = {"_user_id": b'"7"'}
    assert proof_of(seven) == rows[NEW.digest].created_at
    assert proof_of({**seven, "_fresh": b"false"}) is None
    rows[NEW.digest] = replace(rows[NEW.digest], payload={**rows[NEW.digest].payload, "_fresh": b"true"})
    assert authenticated_at(rows[NEW.digest]) is None
    rows[user.digest] = replace(rows[user.digest], payload=noted(seven, 5))
    assert proof_of(seven, origin=user, renames=rows[user.digest]) == 5
    rows[user.digest] = a_row(user.digest)
    assert proof_of(seven, origin=user, renames=rows[user.digest], confirms=True) == NOW_MS
    adopted: list[Fields] = []

    def adopt(digest: str, payload: Fields, **_: Any) -> Any:
        adopted.append(payload)
        return loaded.row

    monkeypatch.setattr(stage.database, "adopt", adopt, raising=False)
    stage.repository.saves.adopt(stage.plan(None, NEW, changes={"auth": changed(**seven)}), Note("o", 9), stage.begin())
    assert authenticated_at(a_row("old", payload=adopted[0])) is None


def test_without_redis_the_journal_keeps_what_the_table_keeps(stage: Stage, visitor: SessionId) -> None:
    """High features; of the others it is said that they last for the request."""
    stage.lose(PRIMARY)
    changes = {"translation": changed(input_text=b"1", analysis_result=b"2"), "ui": changed(theme=b"3")}
    plan = stage.plan(visitor, visitor, changes=changes)
    stage.repository.saves.save(plan, stage.begin())
    assert [entry.field for entry in stage.journal.pending_writes()] == ["input_text"]
    assert plan.kept == {"translation": Kept.NOWHERE, "ui": Kept.NOWHERE}  # of a category the worst counts


def test_what_could_not_be_read_replaces_nothing(stage: Stage, visitor: SessionId) -> None:
    """I16: it waits until it is known whether there is a value, though Redis would take it."""
    change = changed(input_text=b"1")
    change.unseen = {"input_text"}
    plan = stage.plan(visitor, visitor, changes={"translation": change})
    stage.repository.saves.save(plan, stage.begin())
    assert plan.kept == {"translation": Kept.JOURNAL}
    [entry] = stage.journal.pending_writes()
    assert (entry.field, entry.basis, stage.redis.told) == ("input_text", Basis.UNSEEN, [])


def test_a_redis_that_may_have_lost_the_session_is_written_when_it_has_it_again(
    stage: Stage, visitor: SessionId
) -> None:
    """Until then the change waits: a record with this change alone would look like the whole."""
    stage.backend.lacks["", visitor.kind] = Lack(0.0, 0)
    plan = stage.plan(visitor, visitor, changes={"translation": changed(input_text=b"1")})
    stage.repository.saves.save(plan, stage.begin())
    assert (plan.kept, stage.redis.told) == ({"translation": Kept.JOURNAL}, [])


def test_what_waits_in_the_journal_is_not_overtaken(stage: Stage, visitor: SessionId) -> None:
    """I18: the later change waits behind the earlier one, though Redis would take it."""
    stage.redis.fails_once = [LOST[PRIMARY]]
    first = stage.plan(visitor, visitor, changes={"translation": changed(input_text=b"1")})
    stage.repository.saves.save(first, stage.begin())
    assert first.kept == {"translation": Kept.JOURNAL}
    stage.redis.fails_once = []
    second = stage.plan(visitor, visitor, changes={"translation": changed(input_text=b"2")})
    stage.repository.saves.save(second, stage.begin())
    assert second.kept == {"translation": Kept.JOURNAL}
    assert stage.redis.told == []


@pytest.mark.parametrize(
    "change", [changed(input_text=b"2"), CategoryChange(1, increments={"usage_count": 1})], ids=["value", "addition"]
)
def test_what_a_busy_journal_may_hold_is_not_overtaken(
    stage: Stage, visitor: SessionId, change: CategoryChange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I18. It may be the data of a former id: an addition to nothing would take its place."""
    stage.redis.fails_once = [LOST[PRIMARY]]
    first = stage.plan(visitor, visitor, changes={"translation": changed(input_text=b"1")})
    stage.repository.saves.save(first, stage.begin())
    stage.redis.fails_once = []
    scope = stage.begin()

    def busy(*arguments: Any, **options: Any) -> Any:
        raise StoreError("journal", ErrorClass.UNREACHABLE, "busy", timed_out=True)

    monkeypatch.setattr(stage.journal, "overlay", busy)
    second = stage.plan(visitor, visitor, changes={"translation": change})
    stage.repository.saves.save(second, scope)
    assert second.kept == {"translation": Kept.JOURNAL}
    assert stage.redis.told == []


@pytest.mark.parametrize(("category", "sent"), [("ui", ["alive", "free"]), (AUTH, ["alive"])])
def test_a_tombstone_refuses_the_write_and_the_shadow_takes_it(
    stage: Stage, user: SessionId, category: str, sent: list[str]
) -> None:
    """D24: but no change of auth: no record is made of nothing."""
    loaded = loaded_user(stage, user)
    stage.redis.writes = [Written("dead")]
    saved = stage.repository.saves.save(
        stage.plan(user, user, loaded=loaded, changes={category: changed(lang=b"1")}), stage.begin()
    )
    assert saved.ended and (saved.stored or category == AUTH)
    assert stage.memory.ended.is_dead(user.digest)
    assert [what[2] for what in stage.redis.told if what[0] == "write"] == sent


def test_a_session_that_redis_lost_is_pushed_and_written_again(stage: Stage, user: SessionId) -> None:
    loaded = loaded_user(stage, user)
    stage.redis.writes = [Written("gone")]
    saved = stage.repository.saves.save(
        stage.plan(user, user, loaded=loaded, changes={"ui": changed(lang=b"1")}), stage.begin()
    )
    assert saved.stored
    assert [what[2:] for what in stage.redis.told if what[0] == "write"] == [
        ("alive", ["ui"], None),
        ("alive", ["ui"], 1),
    ]


def test_one_category_that_is_too_large_costs_the_others_nothing(stage: Stage, visitor: SessionId) -> None:
    stage.redis.writes = [
        Written("large", category="ui"),
        Written("written", {"translation": Change(0, 6)}),
    ]
    plan = stage.plan(visitor, visitor, changes={"ui": changed(lang=b"1"), "translation": changed(input_text=b"2")})
    assert stage.repository.saves.save(plan, stage.begin()).stored
    assert plan.kept == {"translation": Kept.REDIS}
    assert [what[3] for what in stage.redis.told] == [["translation", "ui"], ["translation"]]


# -- a visitor's former id ---------------------------------------------------------------------------------------------

NEXT = SessionId("next", "a", False, 2, b"secret")

TEXT = {"translation": changed(input_text=b"1")}


def refusing(monkeypatch: pytest.MonkeyPatch, stage: Stage, what: str, times: int) -> None:
    """The journal does not take something in time, the first times."""
    take, left = getattr(stage.journal, what), [times]

    def refuse(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise StoreError("journal", ErrorClass.UNREACHABLE, "SQLITE_BUSY")
        return take(*arguments, **options)

    monkeypatch.setattr(stage.journal, what, refuse)


def wiped(stage: Stage) -> set[tuple[str, str]]:
    """Return the digests and categories of the wipes that wait in the journal."""
    waiting = stage.journal.pending_writes()
    return {(entry.digest, entry.category) for entry in waiting if entry.operation is Operation.WIPE}


def test_a_former_id_keeps_what_could_not_be_stored_under_the_next_one(
    stage: Stage, visitor: SessionId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The browser goes on with it: the next id is not sent."""
    stage.lose(PRIMARY)
    refusing(monkeypatch, stage, "put", 1)
    saved = stage.repository.saves.save(stage.plan(visitor, NEXT, changes=dict(TEXT)), stage.begin())
    assert not saved.stored
    assert stage.journal.is_empty()


@pytest.mark.parametrize("is_kept", [True, False])
def test_of_a_former_id_all_is_wiped_that_the_replay_does_not_wipe(
    stage: Stage, visitor: SessionId, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    """I20: the carry may not be kept, which is said, and the next id be given out for what this request wrote."""
    stage.lose(PRIMARY)
    refusing(monkeypatch, stage, "carry", 0 if is_kept else 1)
    plan = stage.plan(visitor, NEXT, changes=dict(TEXT), carries=("ui",))
    assert stage.repository.saves.save(plan, stage.begin()).stored
    names = set(stage.repository.table.categories) - ({"ui"} if is_kept else set())
    assert wiped(stage) == {(visitor.digest, name) for name in names}


@pytest.mark.parametrize("is_busy", [False, True])
def test_an_old_session_is_adopted_only_if_this_host_can_say_that_its_user_was_not_logged_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    """The adopted row is younger than the log-out everywhere that the database has yet to be told of."""
    adopted: list[str] = []
    monkeypatch.setattr(stage.database, "adopt", lambda digest, **_: adopted.append(digest), raising=False)
    stage.journal.revocations.note_user("7", until_ms=NOW_MS)
    if is_busy:
        monkeypatch.setattr(stage.journal, "overlay", _is_busy)
    plan = stage.plan(None, NEW, changes={"auth": changed(_user_id=b'"7"')})
    with pytest.raises(StoreError, match="BusyJournal") if is_busy else nullcontext():
        assert stage.repository.saves.adopt(plan, Note("old", 1000), stage.begin()).ended
    assert adopted == []


def _is_busy(*_: Any, **__: Any) -> None:
    raise StoreError("journal", ErrorClass.UNREACHABLE, "DeadlineExceeded", timed_out=True)
