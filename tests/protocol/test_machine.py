"""The protocol holds in random worlds: by a state machine that Hypothesis steers.

LANGPONT_MACHINE_EXAMPLES says how many there are; a thousand take half a minute or more, and ``make soak`` tries so
many.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter

import pytest

from tests.support.programs import output_of

from .reached import USUAL, missed

EXAMPLES = int(os.environ.get("LANGPONT_MACHINE_EXAMPLES", "300"))


@pytest.mark.timeout(600)
def test_no_sequence_of_requests_and_faults_breaks_a_promise() -> None:
    """Hypothesis looks for one, and gets to where it is interesting.

    In a process of its own: Hypothesis takes some of its numbers from all modules that are imported, so that here it
    would do something else after other tests.
    """
    census = Counter[str](json.loads(output_of([sys.executable, "-m", "tests.protocol.machine", str(EXAMPLES)], 600)))
    assert missed(census, 0, EXAMPLES / USUAL) == {}
