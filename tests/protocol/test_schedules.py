"""The full protocol passes every schedule that is kept."""

from __future__ import annotations

import pytest

from .schedules import KEPT, Kept
from .walker import broken_by


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_the_full_protocol_passes(kept: Kept) -> None:
    """No invariant is broken."""
    assert broken_by(kept.schedule) is None
