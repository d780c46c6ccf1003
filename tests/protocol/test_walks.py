"""The protocol holds in random worlds: by seeded walks.

They are the same in each run: a run that finds something else on another day would depend on luck. LANGPONT_WALKS says
how many there are, and LANGPONT_WALK_SEED adds as many that begin at that seed; ``make soak`` takes a thousand, and as
many more from a seed of the moment.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from .reached import USUAL, missed
from .walker import ORDER, broken_by, generate, shrink

WALKS = int(os.environ.get("LANGPONT_WALKS", "150"))

FIRST = int(os.environ.get("LANGPONT_WALK_SEED", "0"))
MORE = range(FIRST, FIRST + WALKS) if FIRST else range(0)
"""What one of these finds becomes a kept schedule."""


@pytest.mark.timeout(600)
def test_no_seeded_walk_breaks_a_promise() -> None:
    """Walks with overlapping requests under a few kinds of faults each, and they get there, too."""
    census: Counter[str] = Counter()  # of those that are the same in each run
    for seed in (*range(WALKS), *MORE):
        schedule = generate(seed)
        found = broken_by(schedule, census if seed < WALKS else Counter())
        if found is not None:
            small = shrink(schedule, found[0])
            pytest.fail(f"seed {seed}, {ORDER}: {broken_by(small)}\n{small}")
    assert missed(census, WALKS / USUAL) == {}
