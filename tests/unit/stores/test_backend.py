"""The stores of one application: for how long Redis remembers that something was wiped."""

from __future__ import annotations

from pathlib import Path

from tests.support.fake_stores import Stage


def test_a_wipe_is_remembered_for_longer_than_anything_older_is_kept(tmp_path: Path) -> None:
    """Otherwise a copy, or a change that waited, would bring back what was wiped."""
    backend = Stage(tmp_path, LOCAL_CACHE_TTL=1800).backend
    assert backend.limits.empty_ms > 1_800_000
