"""The checker of appended lists finds nothing where nothing fails."""

from __future__ import annotations

from pathlib import Path

from benchmarks.appends.run import run


def test_where_nothing_fails_nothing_is_found(tmp_path: Path) -> None:
    """The checker does not cry wolf."""
    found = run(tmp_path, seconds=2.0, seed=1, lanes=())
    assert not found.wrong, found.table()
    assert found.levels.keys() == {0} and found.acknowledged["append"] > 0
