"""The protocol holds in random worlds: by a state machine that Hypothesis steers, and by seeded walks.

LANGPONT_MACHINE_EXAMPLES and LANGPONT_WALKS say how many; a thousand of either take half a minute.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from .actions import EVENTS, REQUESTS
from .machine import WorldMachine
from .walker import ORDER, broken_by, generate, shrink

EXAMPLES_USUAL, WALKS_USUAL = 1000, 1000
EXAMPLES = int(os.environ.get("LANGPONT_MACHINE_EXAMPLES", EXAMPLES_USUAL))
WALKS = int(os.environ.get("LANGPONT_WALKS", WALKS_USUAL))

OF_THE_DAY = 200
"""Walks of each run that begin at a seed of the day: what one of them finds becomes a kept schedule."""

DAY = int(os.environ.get("LANGPONT_WALK_SEED", str(datetime.now(UTC).date().toordinal() * 1000)))

EVERYTHING = dict.fromkeys((*REQUESTS, *(EVENTS.keys() - {"rest", "kept"}), "tick"), (3, 30))
"""Every kind of request and event happens, and what follows from them does, too: see :data:`REACHED`."""

REACHED: dict[str, tuple[int, int]] = EVERYTHING | {
    # servers and networks
    "another primary": (20, 100),
    "file primary started": (0, 30),
    "old primary started": (0, 30),
    "empty primary started": (0, 30),
    "flush": (20, 40),
    "restore": (100, 80),
    "cut": (250, 200),
    "database fails": (80, 150),
    "another server": (80, 500),
    "loss noticed": (100, 200),
    "records_set_aside": (0, 5),
    # workers and hosts
    "crash with a journal": (40, 20),
    "loss of a journal": (8, 8),
    "breaker opened": (1000, 3000),
    "late change": (20, 1),
    "said": (2000, 5000),
    # levels and verdicts
    "level 1": (200, 1000),
    "level 2": (50, 500),
    "level 3": (0, 150),
    "level 4": (80, 600),
    "valid by primary": (700, 5000),
    "valid by database": (300, 2000),
    "valid by local": (50, 700),
    "dead by primary": (3000, 10_000),
    "unverifiable by none": (150, 1000),
    # grants and revocations
    "grant refused": (40, 200),
    "ended meanwhile": (50, 3),
    "revocation at level 0": (300, 600),
    "revocation at level 1": (50, 100),
    "revocation at level 2": (5, 50),
    "revocation at level 3": (0, 15),
    "revocation at level 4": (5, 50),
    "revocation of a user at level 0": (300, 120),
    "revocation of a user at level 1": (20, 20),
    "revocation of a user at level 2": (0, 10),
    "revocation of a user at level 3": (0, 4),
    "revocation of a user at level 4": (0, 3),
    "revocation waits": (80, 200),
    "revocation of a user waits": (100, 40),
    "many sessions of a user end": (20, 30),
    "chain of ids revoked": (0, 2),
    "ended: killed": (300, 1000),
    "ended: epoch": (40, 40),
    "ended: idle": (0, 8),
    # what comes home
    "repair all database ok": (500, 2000),
    "slide all primary ok": (0, 5),
    "merged_fields": (12, 80),
    "merge_conflicts": (0, 3),
    "merge_dropped": (15, 50),
}
"""What happens at least so often in the usual number of examples of the machine and of walks, by its name in
``World.census``: at most a third of what does, and nothing of what the one meets too rarely to count on. A search that
does not get there proves nothing."""


def missed(census: Counter[str], search: int, share: float) -> dict[str, int]:
    """What has happened less often than it should have, and how often it has."""
    return {name: census[name] for name, floors in REACHED.items() if census[name] < int(floors[search] * share)}


@pytest.mark.timeout(600)
def test_no_sequence_of_requests_and_faults_breaks_a_promise() -> None:
    """Hypothesis looks for one, and gets to where it is interesting."""
    WorldMachine.census.clear()
    run_state_machine_as_test(
        WorldMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # the machine shrinks what it finds itself, which is faster
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert missed(WorldMachine.census, 0, EXAMPLES / EXAMPLES_USUAL) == {}


@pytest.mark.timeout(600)
def test_no_seeded_walk_breaks_a_promise() -> None:
    """Walks with overlapping requests under a few kinds of faults each, and they get there, too."""
    census: Counter[str] = Counter()
    sys.stdout.write(f"walks from seed 0 and, repeated by LANGPONT_WALK_SEED, from {DAY}\n")
    for seed in (*range(max(0, WALKS - OF_THE_DAY)), *range(DAY, DAY + OF_THE_DAY)):
        schedule = generate(seed)
        found = broken_by(schedule, census)
        if found is not None:
            small = shrink(schedule, found[0])
            pytest.fail(f"seed {seed}, {ORDER}: {broken_by(small)}\n{small}")
    assert missed(census, 1, WALKS / WALKS_USUAL) == {}
