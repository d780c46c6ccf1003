"""Budgets for what the session costs a request: a rule that is added to every request shows here."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from devservers.servers import Valkey
from tools.cost import GOALS, costs_on, system_calls

BUDGET: Mapping[tuple[int, int], tuple[int, ...]] = {
    (3, 11): (1038, 1783, 3283, 4030, 8320),
    (3, 13): (938, 1669, 2980, 3664, 7461),
}
"""Python's version → bytecodes of each request, in the order of :data:`tools.cost.GOALS`. Versions differ.
``python -m tools.cost`` prints the line of the one that runs it."""

CALLS = 3, 3, 11, 14, 7
"""Calls of the system by each request, in the same order."""

MARGIN = 0.05
"""By how much a request may cost more, as with other versions of libraries."""


def test_no_request_costs_more_than_its_budget(primary: Valkey) -> None:
    """The budget is to be lowered where a request costs much less, so that what was won is not lost unseen."""
    version = sys.version_info[:2]
    if version not in BUDGET:
        pytest.skip(f"no budget is known for Python {version}: `python -m tools.cost` counts what there is")
    found, budget = costs_on(primary), dict(zip(GOALS, BUDGET[version], strict=True))
    assert {name: cost for name, cost in found.items() if abs(cost - budget[name]) > MARGIN * budget[name]} == {}


def test_no_request_asks_the_system_more_often_than_its_budget() -> None:
    """A file or socket that is asked one more time costs as much as hundreds of bytecodes."""
    if (found := system_calls()) is None:
        pytest.skip("strace is not here, or may not look at a process")
    budget = dict(zip(GOALS, CALLS, strict=True))
    assert {name: calls for name, calls in found.items() if calls > budget[name]} == {}
