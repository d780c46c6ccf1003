"""When a copy of auth data may be believed."""

from __future__ import annotations

import pytest

from flask_langpont_session.leases import (
    LONGEST_UNCONFIRMED_MS,
    LeaseTerms,
    is_leased,
    survives_database_outage,
    survives_everything_down,
)

TERMS = LeaseTerms(verify_ms=60_000, grace_ms=300_000)
NOW = 10_000_000


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
    assert is_leased(confirmed_ms=NOW - age, now_ms=NOW, trust_since_ms=NOW - trusted_for, terms=TERMS) is leased


def test_verify_interval_zero_asks_every_time() -> None:
    """0 means: never believe without asking, except within the same millisecond."""
    terms = LeaseTerms(verify_ms=0, grace_ms=0)
    assert not is_leased(confirmed_ms=NOW - 1, now_ms=NOW, trust_since_ms=0, terms=terms)


@pytest.mark.parametrize(
    ("age", "incident", "privileged", "survives"),
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
    age: int, incident: bool, privileged: bool, survives: bool
) -> None:
    """One hour normally; GRACE after an incident and for privileged roles."""
    trust_since = NOW - age + 1 if incident else 0
    found = survives_database_outage(
        confirmed_ms=NOW - age, now_ms=NOW, trust_since_ms=trust_since, privileged=privileged, terms=TERMS
    )
    assert found is survives


@pytest.mark.parametrize(("age", "privileged", "survives"), [(0, False, True), (300_000, False, True),
                                                             (300_001, False, False), (0, True, False)])  # fmt: skip
def test_with_everything_down_only_grace_and_no_privileges(age: int, privileged: bool, survives: bool) -> None:
    """Level 4 shows a user for GRACE and an administrator never."""
    assert survives_everything_down(age_ms=age, privileged=privileged, terms=TERMS) is survives
