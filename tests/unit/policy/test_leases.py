"""The extension of idle expiries, and the life of tombstones."""

from __future__ import annotations

import pytest

from flask_langpont_session.policy.leases import LONGEST_REQUEST_MS, TOMBSTONE_MS, LeaseTerms


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
