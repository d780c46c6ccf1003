"""Rules for when a copy of auth data may be believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flask_langpont_session.policy.leases import (
    DEGRADED_VERIFY_MS,
    LONGEST_REQUEST_MS,
    LONGEST_UNCONFIRMED_MS,
    TOMBSTONE_MS,
    LeaseTerms,
    Life,
    Sighting,
    is_leased,
    survives_database_outage,
    survives_everything_down,
    was_just_asked,
)
from flask_langpont_session.policy.rows import AuthRow

TERMS = LeaseTerms(verify_ms=60_000, grace_ms=300_000)
LIFE = Life(idle_ms=3_600_000, absolute_ms=43_200_000)
NOW = 10_000_000_000
ROW = AuthRow("d" * 43, "7", 3, True, {}, 0, NOW, NOW + LIFE.idle_ms, NOW + LIFE.absolute_ms, NOW)


def copy(age: int = 0, *, trusted_for: int = NOW, min_version: int = 0, **row: int) -> Sighting:
    """A copy that was confirmed `age` ms ago, of a place that was trusted since `trusted_for` ms."""
    return Sighting(replace(ROW, **row), NOW - age, NOW, NOW - trusted_for, min_version)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("age", "trusted_for", "leased"),
    [
        (0, 100_000, True),
        (60_000, 100_000, True),
        (60_001, 100_000, False),
        (30_000, 30_000, False),  # confirmed at the very moment of the incident: not after it
        (30_000, 20_000, False),
        (30_000, 30_001, True),
    ],
)
def test_a_lease_is_young_and_younger_than_the_last_incident(age: int, trusted_for: int, leased: bool) -> None:
    """The stamp must lie after the incident and within VERIFY_INTERVAL."""
    assert is_leased(copy(age, trusted_for=trusted_for), LIFE, TERMS) is leased


@pytest.mark.parametrize(("ahead", "believed"), [(0, True), (1_000, True), (1_001, False), (10**12, False)])
def test_a_stamp_of_the_future_is_no_confirmation(ahead: int, believed: bool) -> None:
    """It would never run out. Clocks may be a second apart, not more; and by no rule."""
    found = copy(-ahead)
    assert is_leased(found, LIFE, TERMS) is believed
    assert survives_database_outage(found, TERMS, only_grace=False) is believed
    assert survives_database_outage(found, TERMS, only_grace=True) is believed
    assert survives_everything_down(found, TERMS, privileged=False) is believed
    assert was_just_asked(found) is believed


def test_verify_interval_zero_asks_every_time() -> None:
    """0 means: never believe without asking, not even within the same millisecond."""
    assert not is_leased(copy(0), LIFE, LeaseTerms(verify_ms=0, grace_ms=0))


@pytest.mark.parametrize(("min_version", "believed"), [(0, True), (3, True), (4, False)])
def test_what_was_seen_withdrawn_is_not_shown_again(min_version: int, believed: bool) -> None:
    """A version below the highest one seen is believed by no rule."""
    assert is_leased(copy(min_version=min_version), LIFE, TERMS) is believed
    assert survives_database_outage(copy(min_version=min_version), TERMS, only_grace=False) is believed
    assert survives_everything_down(copy(min_version=min_version), TERMS, privileged=False) is believed
    assert was_just_asked(copy(min_version=min_version)) is believed


@pytest.mark.parametrize("expiry", ["idle_expires_at", "absolute_expires_at"])
def test_what_has_run_out_is_not_believed(expiry: str) -> None:
    """At the very millisecond of either expiry the session is over."""
    over, alive = copy(**{expiry: NOW}), copy(**{expiry: NOW + 1})
    for survives in (
        lambda c: survives_database_outage(c, TERMS, only_grace=False),
        lambda c: survives_everything_down(c, TERMS, privileged=False),
        was_just_asked,
    ):
        assert not survives(over)
        assert survives(alive)
    assert not is_leased(over, LIFE, TERMS)


@pytest.mark.parametrize(("left", "due"), [(2_700_000, False), (2_699_999, True), (1, True)])
def test_a_quarter_of_the_idle_time_ends_a_lease(left: int, due: bool) -> None:
    """S2: the database is asked then, which moves the expiry; else a session that is only read would run out."""
    found = copy(idle_expires_at=NOW + left)
    assert LIFE.is_extension_due(found.row, NOW) is due
    assert is_leased(found, LIFE, TERMS) is not due


def test_an_expiry_at_the_end_of_the_life_cannot_move() -> None:
    """In the last idle time of a session's life in all there is nothing to move, and no reason to ask."""
    found = copy(idle_expires_at=NOW + 1000, absolute_expires_at=NOW + 1000)
    assert not LIFE.is_extension_due(found.row, NOW)
    assert is_leased(found, LIFE, TERMS)


@pytest.mark.parametrize(
    ("age", "incident", "only_grace", "survives"),
    [
        (LONGEST_UNCONFIRMED_MS, False, False, True),
        (LONGEST_UNCONFIRMED_MS + 1, False, False, False),
        (300_000, True, False, True),
        (300_001, True, False, False),
        (300_001, False, True, False),
        (300_000, False, True, True),
    ],
)
def test_a_database_outage_is_survived_as_long_as_the_view_is_unbroken(
    age: int, incident: bool, only_grace: bool, survives: bool
) -> None:
    """One hour normally; GRACE after an incident, for privileged roles and for a busy database."""
    found = copy(age, trusted_for=age - 1 if incident else NOW)
    assert survives_database_outage(found, TERMS, only_grace=only_grace) is survives


@pytest.mark.parametrize(("age", "privileged", "survives"), [(0, False, True), (300_000, False, True),
                                                             (300_001, False, False), (0, True, False)])  # fmt: skip
def test_with_everything_down_only_grace_and_no_privileges(age: int, privileged: bool, survives: bool) -> None:
    """Level 4 shows a user for GRACE and an administrator never."""
    assert survives_everything_down(copy(age), TERMS, privileged=privileged) is survives


@pytest.mark.parametrize(
    ("verify", "grace", "life", "renewal"),
    [
        (60_000, 300_000, TOMBSTONE_MS, 180_000),
        (0, 0, TOMBSTONE_MS, 1_000),
        (3_600_000, 3_600_000, 7_200_000 + LONGEST_REQUEST_MS, 2_250_000),
        (86_400_000, 0, 86_400_000 + LONGEST_REQUEST_MS, 22_050_000),
    ],
)
def test_a_tombstone_outlives_what_may_be_believed(verify: int, grace: int, life: int, renewal: int) -> None:
    """VERIFY_INTERVAL, GRACE and the longest request, an hour at least; written again four times or more in that."""
    terms = LeaseTerms(verify_ms=verify, grace_ms=grace)
    assert (terms.tombstone_ms, terms.renewal_ms) == (life, renewal)
    assert 4 * terms.renewal_ms <= terms.tombstone_ms


@pytest.mark.parametrize(("age", "believed"), [(DEGRADED_VERIFY_MS, True), (DEGRADED_VERIFY_MS + 1, False)])
def test_without_redis_the_database_is_asked_every_two_seconds(age: int, believed: bool) -> None:
    """Per session and worker."""
    assert was_just_asked(copy(age)) is believed
