"""The table of the sources that are believed about a session, row by row, and the rules that its rows name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flask_langpont_session.policy.belief import (
    BELIEFS,
    DEGRADED_VERIFY_MS,
    LOCAL,
    Sighting,
    Situation,
    is_leased,
    survives_database_outage,
    survives_everything_down,
    was_just_asked,
)
from flask_langpont_session.policy.categories import KeyPatterns
from flask_langpont_session.policy.health import DATABASE, PRIMARY
from flask_langpont_session.policy.leases import LONGEST_UNCONFIRMED_MS, LeaseTerms, Life, Privileges
from flask_langpont_session.policy.rows import AuthRow

LIFE = Life(idle_ms=3_600_000, absolute_ms=43_200_000)
GRACE = 300_000
AT = Situation(
    LIFE,
    LeaseTerms(verify_ms=60_000, grace_ms=GRACE),
    Privileges(KeyPatterns(["role"]), [b'"admin"']),
    primary=True,
    database=True,
)
NOW = 10_000_000_000
ROW = AuthRow("d" * 43, "7", 3, True, {}, 0, NOW, NOW + LIFE.idle_ms, NOW + LIFE.absolute_ms, NOW)
RULES = is_leased, was_just_asked, survives_database_outage, survives_everything_down


def seen(age: int = 0, *, trusted_for: int = NOW, min_version: int = 0, **row: Any) -> Sighting:
    """Return a copy that was confirmed `age` ms ago, of a place that was trusted since `trusted_for` ms."""
    return Sighting(replace(ROW, **row), NOW - age, NOW, NOW - trusted_for, min_version)


@pytest.mark.parametrize(
    ("stores", "asked"),
    [
        ({}, [(PRIMARY, is_leased), (DATABASE, None)]),
        ({"primary": False}, [(LOCAL, was_just_asked), (DATABASE, None)]),
        (
            {"database": False},
            [(PRIMARY, is_leased), (PRIMARY, survives_database_outage), (LOCAL, survives_everything_down)],
        ),
        ({"primary": False, "database": False}, [(LOCAL, survives_everything_down)]),
        ({"is_fresh": True}, [(DATABASE, None)]),
        ({"is_fresh": True, "database": False}, []),
    ],
)
def test_which_source_is_asked_in_each_situation(stores: dict[str, Any], asked: Sequence[tuple[str, Any]]) -> None:
    """In this order. No word but the database's counts for a fresh read."""
    at = AT._replace(**stores)
    assert [(belief.source, belief.is_believed) for belief in BELIEFS if belief.is_asked(at)] == asked


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
    assert is_leased(seen(age, trusted_for=trusted_for), AT) is leased


@pytest.mark.parametrize(
    ("copy", "believed"),
    [
        (seen(-1_000), True),  # a confirmation of the future would never run out; clocks may be a second apart
        (seen(-1_001), False),
        (seen(-(10**12)), False),
        (seen(min_version=3), True),  # what was seen withdrawn is not shown again
        (seen(min_version=4), False),
        (seen(absolute_expires_at=NOW + 1, idle_expires_at=NOW + 1), True),  # over at the very millisecond
        (seen(absolute_expires_at=NOW), False),
        (seen(idle_expires_at=NOW), False),
    ],
)
def test_what_every_rule_wants(copy: Sighting, believed: bool) -> None:
    """I3, I4: also of a busy database, where GRACE counts."""
    assert [rule(copy, at) for rule in RULES for at in (AT, AT._replace(is_busy=True))] == [believed] * 8


def test_verify_interval_zero_asks_every_time() -> None:
    """0 means: never believe without asking, not even within the same millisecond."""
    assert not is_leased(seen(0), AT._replace(terms=LeaseTerms(verify_ms=0, grace_ms=0)))


@pytest.mark.parametrize(("left", "due"), [(2_700_000, False), (2_699_999, True), (1, True)])
def test_a_quarter_of_the_idle_time_ends_a_lease(left: int, due: bool) -> None:
    """S2: the database is asked then, which moves the expiry; else a session that is only read would run out."""
    found = seen(idle_expires_at=NOW + left)
    assert LIFE.is_extension_due(found.row, NOW) is due
    assert is_leased(found, AT) is not due


def test_an_expiry_at_the_end_of_the_life_cannot_move() -> None:
    """In the last idle time of a session's life in all there is nothing to move, and no reason to ask."""
    found = seen(idle_expires_at=NOW + 1000, absolute_expires_at=NOW + 1000)
    assert not LIFE.is_extension_due(found.row, NOW)
    assert is_leased(found, AT)


@pytest.mark.parametrize(
    ("after_incident", "is_busy", "role", "longest"),
    [
        (False, False, "user", LONGEST_UNCONFIRMED_MS),
        (True, False, "user", GRACE),
        (False, True, "user", GRACE),  # S10
        (False, False, "admin", GRACE),
    ],
)
def test_a_database_outage_is_survived_as_long_as_the_view_is_unbroken(
    after_incident: bool, is_busy: bool, role: str, longest: int
) -> None:
    """One hour normally; GRACE after an incident, for privileged roles and for a busy database."""
    at, payload = AT._replace(is_busy=is_busy), {"role": f'"{role}"'.encode()}
    for age in (longest, longest + 1):
        found = seen(age, trusted_for=age - 1 if after_incident else NOW, payload=payload)
        assert survives_database_outage(found, at) is (age == longest)


@pytest.mark.parametrize(
    ("age", "role", "survives"),
    [(0, b'"user"', True), (GRACE, b"", True), (GRACE + 1, b"", False), (0, b'"admin"', False)],
)
def test_with_everything_down_only_grace_and_no_privileges(age: int, role: bytes, survives: bool) -> None:
    """Level 4 shows a user for GRACE and an administrator never; nor does it matter what was lost elsewhere."""
    assert survives_everything_down(seen(age, trusted_for=0, payload={"role": role}), AT) is survives


@pytest.mark.parametrize(
    ("age", "trusted_for", "believed"),
    [(DEGRADED_VERIFY_MS, NOW, True), (DEGRADED_VERIFY_MS + 1, NOW, False), (10, 10, False)],
)
def test_without_redis_the_database_is_asked_every_two_seconds(age: int, trusted_for: int, believed: bool) -> None:
    """Per session and worker, and after each change by another worker of the host."""
    assert was_just_asked(seen(age, trusted_for=trusted_for), AT) is believed
