"""Which user a value names."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from flask_langpont_session.policy.users import authenticated_at, is_recent, means_no_user, noted, user_of
from flask_langpont_session.policy.values import AuthRow, Fields


@pytest.mark.parametrize(
    ("value", "user"),
    [
        ("alice", "alice"),
        (7, "7"),
        (0, "0"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Decimal("7"), "7"),
        ({"sub": "248289761001", "id": 7, "name": "Alice"}, "248289761001"),
        ({"id": 7, "name": "Alice"}, "7"),
        ({"access_token": "x", "userinfo": {"sub": "248289761001"}}, "248289761001"),
        ({"access_token": "x", "id": 7, "userinfo": None}, None),
        ({"access_token": "x"}, None),
        ({"sub": "", "id": 7}, "7"),
        ({"sub": ["a"], "id": None}, None),
        ({"id": True}, None),
        ({}, None),
        (["7"], None),
        (("7", "alice"), None),
        (None, None),
    ],
)
def test_the_user_of_a_value(value: Any, user: str | None) -> None:
    """An id is its text; of a dict it is what OpenID Connect, or nearly every other library, calls it."""
    assert user_of(value) == user


@pytest.mark.parametrize("value", [None, False, "", {}, [], (), b""])
def test_values_that_mean_no_user(value: Any) -> None:
    """What an application assigns to sign its user out."""
    assert means_no_user(value)


@pytest.mark.parametrize("value", [0, 0.0, True, "0", {"a": 1}, [0], UUID(int=0)])
def test_values_that_do_not(value: Any) -> None:
    """A number may be an id."""
    assert not means_no_user(value)


def row(payload: Fields, read_at: int = 9_000) -> AuthRow:
    return AuthRow("d", "7", 1, True, payload, 0, 1_000, 99_000, 99_000, read_at)


@pytest.mark.parametrize(
    ("payload", "at"),
    [
        ({}, 1_000),
        ({"_fresh": b"true"}, 1_000),
        ({"_fresh": b"false"}, None),
        (noted({}, 5_000), 5_000),
        (noted({"_fresh": b"false"}, 5_000), None),
        (noted({}, 0), None),
        ({"_authenticated_at": b'"soon"'}, None),
        ({"_authenticated_at": b"-1"}, None),
        ({"_authenticated_at": b"9e9"}, None),
    ],
)
def test_what_counts_as_a_proof(payload: Fields, at: int | None) -> None:
    """A damaged note is none."""
    assert authenticated_at(row(payload)) == at


def test_a_proof_is_recent_by_the_clock_that_noted_it() -> None:
    confirmed = noted({}, 5_000)
    assert is_recent(row(confirmed, read_at=8_000), 3)
    assert not is_recent(row(confirmed, read_at=8_001), 3)
    assert not is_recent(row(noted({}, 0)), 10**9)
