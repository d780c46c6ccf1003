"""The protocol holds in random worlds: by seeded walks.

LANGPONT_WALKS says how many there are; ``make soak`` takes a thousand.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from datetime import UTC, datetime

import pytest

from .reached import USUAL, missed
from .walker import ORDER, broken_by, generate, shrink

WALKS = int(os.environ.get("LANGPONT_WALKS", "300"))

OF_THE_DAY = WALKS * 2 // 3
"""So many more begin at a seed of the day: what one of them finds becomes a kept schedule."""

DAY = int(os.environ.get("LANGPONT_WALK_SEED", str(datetime.now(UTC).date().toordinal() * 1000)))


@pytest.mark.timeout(600)
def test_no_seeded_walk_breaks_a_promise() -> None:
    """Walks with overlapping requests under a few kinds of faults each, and they get there, too."""
    census: Counter[str] = Counter()  # of those that are the same in each run
    sys.stdout.write(f"walks from seed 0 and, repeated by LANGPONT_WALK_SEED, from {DAY}\n")
    for seed in (*range(WALKS), *range(DAY, DAY + OF_THE_DAY)):
        schedule = generate(seed)
        found = broken_by(schedule, census if seed < WALKS else Counter())
        if found is not None:
            small = shrink(schedule, found[0])
            pytest.fail(f"seed {seed}, {ORDER}: {broken_by(small)}\n{small}")
    assert missed(census, 1, WALKS / USUAL) == {}
