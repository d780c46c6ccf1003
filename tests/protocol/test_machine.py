"""The protocol holds in random worlds: by a state machine that Hypothesis steers.

LANGPONT_MACHINE_EXAMPLES says how many there are; a thousand take half a minute or more, and ``make soak`` tries so
many.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import WorldMachine
from .reached import USUAL, missed

EXAMPLES = int(os.environ.get("LANGPONT_MACHINE_EXAMPLES", "300"))


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
    assert missed(WorldMachine.census, 0, EXAMPLES / USUAL) == {}
