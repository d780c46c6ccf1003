"""Which user a value names."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from flask_langpont_session.policy.users import is_nobody, user_of


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
def test_nobody(value: Any) -> None:
    """What an application assigns to sign its user out."""
    assert is_nobody(value)


@pytest.mark.parametrize("value", [0, 0.0, True, "0", {"a": 1}, [0], UUID(int=0)])
def test_somebody(value: Any) -> None:
    """A number may be an id."""
    assert not is_nobody(value)
