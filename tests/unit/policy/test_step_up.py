"""When a user last gave proof, by what a row says."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.step_up import authenticated_at, is_recent, noted
from flask_langpont_session.policy.values import AuthRow, Fields


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
