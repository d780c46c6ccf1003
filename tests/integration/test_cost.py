"""Budgets for what the session costs a request: a rule that is added to every request shows here."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from devservers.servers import Valkey
from tools.cost import GOALS, costs_on

BUDGET: Mapping[tuple[int, int], tuple[int, ...]] = {
    (3, 11): (1068, 1820, 3723, 4508, 8358),
    (3, 13): (964, 1701, 3377, 4095, 7498),
}
"""Python's version → bytecodes of each request, in the order of :data:`tools.cost.GOALS`. Versions differ.
``python -m tools.cost`` prints the line of the one that runs it."""

MARGIN = 0.05
"""By how much a request may cost more, as with other versions of libraries."""


def test_no_request_costs_more_than_its_budget(primary: Valkey) -> None:
    """The budget is to be lowered where a request costs much less, so that what was won is not lost unseen."""
    version = sys.version_info[:2]
    if version not in BUDGET:
        pytest.skip(f"no budget is known for Python {version}: `python -m tools.cost` counts what there is")
    found, budget = costs_on(primary), dict(zip(GOALS, BUDGET[version], strict=True))
    assert {name: cost for name, cost in found.items() if abs(cost - budget[name]) > MARGIN * budget[name]} == {}
