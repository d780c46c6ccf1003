"""The stores of one application: for how long Redis remembers that something was wiped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_stores import Stage


@pytest.mark.parametrize(("copies", "changes"), [(60, 1800), (1800, 60)])
def test_a_wipe_is_remembered_for_longer_than_anything_older_is_kept(tmp_path: Path, copies: int, changes: int) -> None:
    """Otherwise a copy, or a change that waited, would bring back what was wiped."""
    backend = Stage(tmp_path, LOCAL_CACHE_TTL=copies, JOURNAL_TTL=changes).backend
    assert backend.limits.empty_ms > 1_800_000
