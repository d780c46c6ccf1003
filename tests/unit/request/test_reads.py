"""Loading a session: which store is asked, what is believed, and what stands in for a store that does not answer."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.health import DATABASE, PRIMARY, REPLICA
from flask_langpont_session.policy.ids import SessionId
from flask_langpont_session.policy.records import Verdict
from flask_langpont_session.policy.values import ErrorClass, StoreError
from flask_langpont_session.stores.redis.records import AuthEntry
from tests.support.fake_stores import NOW_MS, Stage, a_row

HOUR = 3_600_000


def test_a_leased_session_costs_one_question(stage: Stage, user: SessionId) -> None:
    stage.redis.has(a_row(user.digest))
    stage.redis.data[user.digest] = {"ui": {"lang": b'"ja"'}}
    loaded = stage.load(user)
    assert (loaded.verdict, loaded.sources["auth"], dict(loaded.fields["ui"])) == (
        Verdict.VALID,
        PRIMARY,
        {"lang": b'"ja"'},
    )
    assert [what[0] for what in stage.redis.told] == ["read"]
    assert stage.database.told == []


@pytest.mark.parametrize("why", ["over", "none", "broken", "from the future"])
def test_without_a_lease_the_database_is_asked_and_redis_told(stage: Stage, user: SessionId, why: str) -> None:
    row = stage.database.rows[user.digest] = a_row(user.digest, version=3)
    if why == "over":
        stage.redis.has(row, age_ms=HOUR)
    elif why == "broken":
        stage.redis.has(row)
        stage.redis.trust_since_ms = NOW_MS
    elif why == "from the future":
        stage.redis.has(row, age_ms=-HOUR)
    loaded = stage.load(user)
    assert (loaded.verdict, loaded.row, loaded.sources["auth"]) == (Verdict.VALID, row, DATABASE)
    assert stage.redis.told[-1] == ("push", user.digest, 3)


@pytest.mark.parametrize("word", ["tombstone", "no row", "dead row"])
def test_a_session_that_is_over_shows_its_shadow(stage: Stage, user: SessionId, word: str) -> None:
    """And both stores know it afterwards."""
    stage.redis.data[user.digest] = {"ui": {"lang": b'"ja"'}}
    if word == "tombstone":
        stage.redis.entries[user.digest] = AuthEntry(None)
        stage.database.rows[user.digest] = a_row(user.digest)
    elif word == "dead row":
        stage.database.rows[user.digest] = a_row(user.digest, live=False)
    loaded = stage.load(user)
    assert (loaded.verdict, loaded.row, dict(loaded.fields["ui"])) == (Verdict.DEAD, None, {})
    assert stage.local.is_dead(user.digest)
    said = ("kill", user.digest) if word == "tombstone" else ("write_tombstone", user.digest)
    told = stage.database.told if word == "tombstone" else stage.redis.told
    assert said in [what[:2] for what in told]
    before = len(stage.database.told)
    assert stage.load(user).verdict is Verdict.DEAD
    assert len(stage.database.told) == before  # this worker knows it now


def test_a_replica_never_decides_about_auth(stage: Stage, user: SessionId) -> None:
    """Of the other categories it says what it has."""
    stage.lose(PRIMARY)
    stage.replica.has(a_row(user.digest))
    stage.replica.data[user.digest] = {"ui": {"lang": b'"ja"'}}
    row = stage.database.rows[user.digest] = a_row(user.digest)
    loaded = stage.load(user)
    assert (loaded.row, loaded.sources["auth"], loaded.sources["ui"]) == (row, DATABASE, REPLICA)


def test_without_redis_the_database_says_who_is_signed_in(stage: Stage, user: SessionId) -> None:
    stage.lose(PRIMARY, REPLICA)
    stage.database.rows[user.digest] = a_row(user.digest)
    loaded = stage.load(user)
    assert (loaded.verdict, loaded.sources["auth"]) == (Verdict.VALID, DATABASE)
    assert loaded.gaps["translation"].whole


def test_without_the_database_a_lease_lasts_for_an_hour(stage: Stage, user: SessionId) -> None:
    stage.lose(DATABASE)
    stage.redis.has(a_row(user.digest), age_ms=HOUR // 2)
    assert stage.load(user).verdict is Verdict.VALID
    stage.redis.has(a_row(user.digest), age_ms=HOUR + 1)
    assert stage.load(user).verdict is Verdict.UNVERIFIABLE


def test_with_everything_down_the_own_copy_lasts_for_the_grace(stage: Stage, user: SessionId) -> None:
    stage.redis.has(a_row(user.digest))
    assert stage.load(user).verdict is Verdict.VALID
    stage.lose(PRIMARY, REPLICA, DATABASE)
    loaded = stage.load(user)
    assert (loaded.verdict, loaded.sources["auth"]) == (Verdict.VALID, "local")
    stage.clock.now += stage.backend.settings.lease_terms.grace_ms / 1000 + 1
    assert stage.load(user).verdict is Verdict.UNVERIFIABLE


def test_fresh_asks_the_database_whatever_is_leased(stage: Stage, user: SessionId) -> None:
    stage.redis.has(a_row(user.digest))
    stage.database.rows[user.digest] = a_row(user.digest, version=2)
    loaded = stage.load(user, fresh=True)
    assert loaded.row is not None and loaded.row.version == 2
    stage.lose(DATABASE)
    assert stage.load(user, fresh=True).verdict is Verdict.UNVERIFIABLE


def test_what_this_worker_has_seen_withdrawn_is_not_shown_again(stage: Stage, user: SessionId) -> None:
    """I4: whatever Redis says of an older version."""
    stage.local.raise_min_version(user.digest, 2)
    stage.redis.has(a_row(user.digest, version=1))
    stage.database.rows[user.digest] = a_row(user.digest, version=2)
    loaded = stage.load(user)
    assert loaded.row is not None and loaded.row.version == 2


def test_a_damaged_record_is_set_aside_and_counted(stage: Stage, visitor: SessionId) -> None:
    stage.redis.damaged = ["ui"]
    stage.load(visitor)
    assert ("quarantine", visitor.digest, "ui") in stage.redis.told
    assert stage.recorder.counters()["records_set_aside"] == 1


def test_a_reply_to_another_question_is_asked_for_again(stage: Stage, visitor: SessionId) -> None:
    """It says nothing of the server: no breaker hears of it."""
    stage.redis.data[visitor.digest] = {"ui": {"lang": b'"ja"'}}
    stage.redis.fails_once = [StoreError(PRIMARY, ErrorClass.DATA, "CrossedReply")]
    assert dict(stage.load(visitor).fields["ui"]) == {"lang": b'"ja"'}
    assert stage.health.level == 0


def test_a_visitor_is_never_a_user(stage: Stage, visitor: SessionId) -> None:
    """Whatever a record, a copy or the journal says."""
    stage.redis.data[visitor.digest] = {"auth": {"_user_id": b'"7"', "daily_limit": b"1", "user_role": b'"admin"'}}
    loaded = stage.load(visitor)
    assert dict(loaded.fields["auth"]) == {"daily_limit": b"1"}
    assert stage.database.told == []


def test_a_category_on_demand_is_read_when_it_is_asked_for(stage: Stage, visitor: SessionId) -> None:
    stage.redis.data[visitor.digest] = {"ui": {"lang": b'"ja"'}}
    scope, loaded = stage.begin(), stage.load(visitor)
    stage.redis.data[visitor.digest]["ui"] = {"lang": b'"en"'}
    stage.repository.load_more(visitor, scope, stage.backend.settings.life, loaded, "ui")
    assert dict(loaded.fields["ui"]) == {"lang": b'"en"'}
