"""Lists that are appended to over two hosts while everything fails: nothing acknowledged is destroyed, or lost unsaid.

20 s by default; ``LANGPONT_SOAK_SECONDS`` and ``LANGPONT_SOAK_SEED`` are heard here, too.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import pytest

from benchmarks.appends.run import SETTLING, run

SECONDS = float(os.environ.get("LANGPONT_SOAK_SECONDS", "20"))

WHOLE_SECONDS = 60.0
"""A run that is as long as this or longer has to find nothing at all."""

RARE = (
    "acknowledged writes are neither there nor reported",
    "were shown before and are gone",
    "acknowledged increments are neither counted nor reported",
    "clears were undone",
    "texts of priority medium",
)
MOST_RARE = 5
"""What a shorter run may find of these: its seed is another one each time, and the goal, none, is not reached yet for
all of them. docs/outages.md has the figures."""


def test_where_nothing_fails_nothing_is_found(tmp_path: Path) -> None:
    """The checker does not cry wolf."""
    found = run(tmp_path, seconds=4.0, seed=1, lanes=())
    assert not found.wrong, found.table()
    assert found.levels.keys() == {0} and found.acknowledged["append"] > 0


@pytest.mark.timeout(SECONDS * 2 + SETTLING + 240)
def test_every_acknowledged_append_is_there_at_the_end_or_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """I16–I20: as ``python -m benchmarks.appends`` does it."""
    seed = int(os.environ.get("LANGPONT_SOAK_SEED", secrets.randbelow(1_000_000)))
    diary: list[str] = []
    found = run(tmp_path, seconds=SECONDS, seed=seed, say=diary.append)
    with capsys.disabled():
        sys.stdout.write(f"\nappends: {SECONDS:g} s, LANGPONT_SOAK_SEED={seed}\n{found.table()}\n")
    rare = [wrong for wrong in found.wrong if any(part in wrong for part in RARE)]
    unheard_of = [wrong for wrong in found.wrong if wrong not in rare]
    assert not unheard_of, "\n".join([found.table(), *diary])
    most = 0 if SECONDS >= WHOLE_SECONDS else MOST_RARE
    assert sum(int(wrong.split()[0]) for wrong in rare) <= most, "\n".join([found.table(), *diary])
    assert found.acknowledged["append"] > 2 * SECONDS, "hardly anything was acknowledged: that proves nothing"
    assert {0, 2} <= found.levels.keys()
    lanes = {name.split()[0] for name, number in found.faults.items() if number}
    assert lanes >= {"redis", "server", "database", "worker"}, found.faults
