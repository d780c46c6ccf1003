"""Each fault of Redis, its network and its client: what users get, what it costs, and that it is over by itself."""

from __future__ import annotations

import pytest

from flask_langpont_session.testing import switched_off
from tests.integration.behind import wait_until_home

from .matrix import REDIS_ROWS, Row
from .matrix_proof import prove
from .matrix_servers import ENGINES
from .matrix_site import Site, Visitor

CASES = [
    pytest.param(row, engine, "sqlite", id=f"{row.number} {row.name}{f' ({engine})' if engine != 'valkey' else ''}")
    for row in REDIS_ROWS
    for engine in row.engines
    if engine in ENGINES
]


@pytest.mark.parametrize(("row", "engine", "database"), CASES)
def test_a_fault(row: Row, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The fault happens, no user is logged out, sees another's data or an error, and afterwards all is as promised."""
    prove(row, site, caplog)


@pytest.mark.parametrize(("row", "engine", "database"), [(REDIS_ROWS[0], "valkey", "sqlite")])
def test_what_was_merged_is_seen_in_the_next_outage(site: Site) -> None:
    """No request has looked between the two: the worker's own copy knows all the same."""
    visitor = Visitor(site)
    visitor.arrive()
    with switched_off(site.app, "primary", "replica"):
        visitor.write("text")
        visitor.count()
    wait_until_home(site.app)
    with switched_off(site.app, "primary", "replica"):
        shown = visitor.read().shown
        assert shown is not None and shown["translation"] == visitor.values["text"]
        assert visitor.count().text == str(visitor.counted)
