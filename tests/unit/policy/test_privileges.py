"""Privileged sessions: which ones are, and how long they live."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.categories import KeyPatterns
from flask_langpont_session.policy.changes import Fields
from flask_langpont_session.policy.leases import LeaseTerms, Life, Privileges, begins_to_live_shorter, lease_ends
from flask_langpont_session.policy.rows import AuthRow

KEYS = KeyPatterns(["user_role", "identity*"])
ADMIN: Fields = {"user_role": b'"admin"'}
USER: Fields = {"user_role": b'"user"', "note": b'"admin"'}


def privileges(idle_ms: int | None = None, absolute_ms: int | None = None) -> Privileges:
    return Privileges(KEYS, [b'"admin"'], idle_ms, absolute_ms)


def row(payload: Fields, idle_expires_at: int = 1_100, absolute_expires_at: int = 9_000) -> AuthRow:
    return AuthRow("d", "7", 1, True, payload, 0, 1_000, idle_expires_at, absolute_expires_at, 1_000)


def test_a_session_is_privileged_by_the_value_of_a_right() -> None:
    assert privileges().are_in(ADMIN)
    assert privileges().are_in({"identity.role": b'"admin"'})
    assert not privileges().are_in(USER)
    assert not privileges().are_in({})


@pytest.mark.parametrize(
    ("idle_ms", "absolute_ms", "shorter"),
    [
        (100, None, (100, 5_000)),
        (None, 2_000, (400, 2_000)),
        (None, 300, (300, 300)),  # nothing may be idle for longer than it lives
        (100, 2_000, (100, 2_000)),
        (900, 9_000, (400, 5_000)),  # never longer than others
    ],
)
def test_the_shorter_life_is_that_of_the_privileged_only(
    idle_ms: int | None, absolute_ms: int | None, shorter: tuple[int, int]
) -> None:
    life = privileges(idle_ms, absolute_ms).life(400, 5_000)
    assert (life.of(ADMIN).idle_ms, life.of(ADMIN).absolute_ms) == shorter
    assert life.of(USER) is life
    assert (life.idle_ms, life.absolute_ms) == (400, 5_000)


def test_leases_and_records_go_by_the_shorter_life() -> None:
    """By the longer life the database would be asked all the time, or never in time."""
    life, terms = privileges(idle_ms=100).life(400, 5_000), LeaseTerms(10_000, 10_000)
    assert life.left_of(row(ADMIN)) == 100
    assert life.left_of(row(USER, 1_400)) == 400
    assert lease_ends(row(ADMIN), 1_000, life, terms) == 1_026
    assert lease_ends(row(USER, 1_400), 1_000, life, terms) == 1_101
    assert not life.is_extension_due(row(ADMIN), 1_025)
    assert not Life(100, 5_000, is_use=False).is_extension_due(row(ADMIN), 1_026)
    assert life.is_extension_due(row(ADMIN), 1_026)
    assert [life.expiry_of_use(row(payload, 1_060)) for payload in (ADMIN, USER)] == [1_100, 1_400]


@pytest.mark.parametrize(
    ("idle_ms", "before", "after", "begins"),
    [(100, USER, ADMIN, True), (100, ADMIN, USER, False), (100, ADMIN, ADMIN, False), (None, USER, ADMIN, False)],
)
def test_a_session_that_begins_to_live_shorter_is_known(
    idle_ms: int | None, before: Fields, after: Fields, begins: bool
) -> None:
    assert begins_to_live_shorter(privileges(idle_ms).life(400, 5_000), before, after) is begins
