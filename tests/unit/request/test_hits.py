"""Hits of the near cache: shown without a question, for as long as the rules say, and changed by no request."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from flask_langpont_session.policy.copies import CategoryCopy
from flask_langpont_session.policy.ids import SessionId
from flask_langpont_session.policy.loaded import CategoryState, Verdict
from flask_langpont_session.policy.rows import AuthEntry, AuthRow
from flask_langpont_session.stores.redis.lane import Copy, Lane
from flask_langpont_session.stores.redis.near import Hit
from flask_langpont_session.stores.redis.server_identity import Server
from tests.support.fake_stores import NOW_MS, Stage, a_row


def keep_near(stage: Stage, row: AuthRow, **ui: bytes) -> Copy:
    """Put a session into the near cache as the server has just sent it. The server is asked nothing more."""
    records = {name: CategoryCopy(5, {}) for name in stage.backend.table.loaded_together}
    records["ui"] = CategoryCopy(5, ui)
    records["auth"] = records["auth"]._replace(auth=AuthEntry(row, NOW_MS))
    now = stage.clock()
    copy = Copy({}, "u", NOW_MS, records, now, now, math.inf, b"", Server(), Lane(stage.memory), None)
    give_hit(stage, row.digest, copy)
    return copy


def give_hit(stage: Stage, digest: str, copy: Copy) -> None:
    stage.memory.put_near(digest, (copy,))
    stage.redis.hits[digest] = Hit(copy, stage.clock(), 0)


def verify_seconds(stage: Stage) -> float:
    return stage.backend.settings.lease_terms.verify_ms / 1000


def test_a_request_changes_what_is_its_own(stage: Stage, user: SessionId) -> None:
    keep_near(stage, a_row(user.digest), lang=b'"ja"')
    loaded = stage.load(user)
    with pytest.raises(TypeError):
        loaded.show("ui", {})
    own = loaded.own()
    own.categories["ui"] = CategoryState.of(CategoryCopy(9, {}), "local")
    own.defaulted.add("lang")
    again = stage.load(user)
    assert (again.verdict, dict(again.of("ui").shown)) == (Verdict.VALID, {"lang": b'"ja"'})
    assert (again.of("ui").source, again.of("ui").copy.version, again.defaulted) == ("primary", 5, set())
    assert own.own() is own
    assert stage.redis.told == []


def test_what_was_written_since_is_shown(stage: Stage, user: SessionId) -> None:
    copy = keep_near(stage, a_row(user.digest), lang=b'"ja"')
    assert dict(stage.load(user).of("ui").shown) == {"lang": b'"ja"'}
    records = {**copy.records, "ui": CategoryCopy(6, {"lang": b'"en"'})}
    give_hit(stage, user.digest, replace(copy, records=records))
    loaded = stage.load(user)
    assert (dict(loaded.of("ui").shown), loaded.of("ui").copy.version) == ({"lang": b'"en"'}, 6)


@pytest.mark.parametrize(("early", "is_asked"), [(0.01, False), (-0.01, True)])
@pytest.mark.parametrize("was_shown_before", [True, False])
def test_it_is_believed_until_its_lease_ends(
    stage: Stage, user: SessionId, was_shown_before: bool, early: float, is_asked: bool
) -> None:
    copy = keep_near(stage, a_row(user.digest))
    if was_shown_before:
        stage.load(user)
    at = stage.clock() + verify_seconds(stage) - early
    stage.redis.hits[user.digest] = Hit(copy, at, 0)
    stage.load(user)
    assert bool(stage.redis.told) is is_asked


@pytest.mark.parametrize(
    ("learn", "is_asked"),
    [
        (lambda stage, row: stage.memory.ended.raise_min_version(row.digest, 2), True),
        (lambda stage, row: stage.memory.sign_out_user("7", NOW_MS), True),
        (lambda stage, row: stage.memory.ended.raise_min_version("another", 2), False),
        (lambda stage, row: stage.memory.kill("another"), False),
        (lambda stage, row: stage.memory.sign_out_user("8", NOW_MS), False),
    ],
    ids=["a later version", "its user is logged out", "another's version", "another's end", "another user"],
)
def test_what_is_learnt_meanwhile_counts(
    stage: Stage, user: SessionId, learn: Callable[[Stage, AuthRow], object], is_asked: bool
) -> None:
    row = a_row(user.digest)
    keep_near(stage, row)
    stage.load(user)
    learn(stage, row)
    stage.load(user)
    assert bool(stage.redis.told) is is_asked


def test_an_incident_meanwhile_counts(stage: Stage, user: SessionId) -> None:
    """The server may have lost something since the row was confirmed."""
    copy = keep_near(stage, a_row(user.digest))
    stage.load(user)
    stage.redis.hits[user.digest] = Hit(copy, stage.clock(), NOW_MS)
    stage.load(user)
    assert stage.redis.told != []
