"""The user that a value names."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from flask_langpont_session.policy.categories import KeyPatterns
from flask_langpont_session.policy.changes import Fields
from flask_langpont_session.policy.leases import CLOCK_TOLERANCE_MS
from flask_langpont_session.policy.presets import DEFAULT_USER_KEYS, PRESETS
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.policy.users import authenticated_at, is_recent, means_no_user, narrowed, noted, user_of


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


@pytest.mark.parametrize(
    ("values", "means_none"),
    [((None, False, "", {}, [], (), b""), True), ((0, 0.0, True, "0", {"a": 1}, [0], UUID(int=0)), False)],
)
def test_values_that_mean_no_user(values: tuple[Any, ...], means_none: bool) -> None:
    """An application may sign its user out by assigning one; a number may be an id."""
    assert [means_no_user(value) for value in values] == [means_none] * len(values)


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


@pytest.mark.parametrize(
    ("noted_at", "read_at", "max_age", "recent"),
    [
        (5_000, 8_000, 3, True),
        (5_000, 8_001, 3, False),
        (0, 9_000, 10**9, False),
        (5_000, 5_000 - CLOCK_TOLERANCE_MS, 3, True),  # two clocks of one database may differ by a second
        (5_000, 4_999 - CLOCK_TOLERANCE_MS, 3, False),  # the database's clock was set back since
    ],
)
def test_a_proof_is_recent_by_the_clock_that_noted_it(noted_at: int, read_at: int, max_age: int, recent: bool) -> None:
    assert is_recent(row(noted({}, noted_at), read_at), max_age) is recent


USERS, RIGHTS = KeyPatterns(DEFAULT_USER_KEYS), KeyPatterns(PRESETS["langpont"].privilege_keys)
AS_IT_WAS: Fields = {"_user_id": b'"7"', "user_role": b'"admin"', "_fresh": b"true", "daily_limit": b"3"}


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        (AS_IT_WAS, AS_IT_WAS),
        ({**AS_IT_WAS, "user_role": b'"user"'}, {"_user_id": b'"7"', "_fresh": b"true", "daily_limit": b"3"}),
        ({**AS_IT_WAS, "account_type": b'"gold"'}, AS_IT_WAS),
        ({**AS_IT_WAS, "daily_limit": b"900"}, AS_IT_WAS),
        ({"_user_id": b'"8"', "user_role": b'"admin"'}, {"user_role": b'"admin"', "daily_limit": b"3"}),
        (None, {"_user_id": b'"7"', "daily_limit": b"3"}),
    ],
)
def test_i34_of_a_row_that_went_back_only_what_both_versions_have_is_left(known: Fields | None, kept: Fields) -> None:
    """The user and the rights stay only if both versions have them; other keys are those of the row. If only the
    number of the other version is known, no right stays."""
    left = narrowed(row(AS_IT_WAS), None if known is None else row(known), USERS, RIGHTS)
    del left["_authenticated_at"]
    assert left == kept


@pytest.mark.parametrize(
    ("before", "known", "at"),
    [
        (noted({}, 2000), noted({}, 3000), 2000),
        (noted({}, 3000), noted({}, 2000), 2000),
        ({}, noted({}, 3000), 1000),
        (noted({}, 3000), noted({}, 0), None),
        (noted({}, 3000), noted({"_fresh": b"false"}, 3000), None),
        (noted({}, 3000), None, None),
    ],
)
def test_i34_the_earlier_proof_counts(before: Fields, known: Fields | None, at: int | None) -> None:
    """A password counts as entered when both versions say that it was."""
    left = narrowed(row(before), None if known is None else row(known), USERS, RIGHTS)
    assert authenticated_at(row(left)) == at
