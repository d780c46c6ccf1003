"""Budgets for what the session costs a request: a rule that is added to every request shows here."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from devservers.servers import Valkey
from flask_langpont_session.stores.redis import near
from flask_langpont_session.stores.redis.wire import HEARS
from tools.cost import GOALS, add_views, application, costs_on, paths, system_calls

from .conftest import parts
from .straight import Share, Site

BUDGET: Mapping[tuple[int, int], tuple[int, ...]] = {
    (3, 11): (1023, 1760, 3149, 3845, 8255),
    (3, 13): (921, 1639, 2841, 3467, 7413),
}
"""Python's version → bytecodes of each request, in the order of :data:`tools.cost.GOALS`. Versions differ.
``python -m tools.cost`` prints the line of the one that runs it."""

ON_LINE: Mapping[str, tuple[Share, Share]] = {
    "read one": (Share(1, 1), Share()),
    "read all": (Share(1, 1), Share()),
    "change one": (Share(), Share(1, 1)),
    "read + change": (Share(1, 1), Share(1, 1)),
}
"""How often each request asks the straight line for what it reads, and for a change, and is answered there."""

CALLS = 3, 3, 9, 12, 6
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


@pytest.mark.skipif(not HEARS, reason="hiredis is too old to tell messages from replies")
def test_each_of_these_requests_takes_the_straight_line(primary: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """The median of many does not show that some go the long way, each of which costs several times as much."""
    monkeypatch.setattr(near, "SILENCE", 3600.0)  # a busy machine may let a second pass between two requests
    with application(REDIS_URL=primary.url) as app:
        add_views(app)
        site, begins = Site(app), dict(paths())
        browser = site.browser("one")
        browser.get("/sign-in/0")
        site.watch(monkeypatch)
        site.wait_until_near("one")
        with parts(app).monitor.paused():  # which looks at the connection, too
            for name, shares in ON_LINE.items():
                for value in range(10):
                    site.wait_until_near("one")
                    site.begin_count()
                    browser.get(f"/{begins[name]}/{value}")
                    assert (site.reads, site.changes) == shares, name


def test_no_request_asks_the_system_more_often_than_its_budget() -> None:
    """A file or socket that is asked one more time costs as much as hundreds of bytecodes."""
    if (found := system_calls()) is None:
        pytest.skip("strace is not here, or may not look at a process")
    budget = dict(zip(GOALS, CALLS, strict=True))
    assert {name: calls for name, calls in found.items() if calls > budget[name]} == {}
