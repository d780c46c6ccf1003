"""Each fault of the database, and of everything at once: what users get, what it costs, and that it ends by itself."""

from __future__ import annotations

import pytest

from .matrix import SQL_ROWS, Row
from .matrix_proof import prove
from .matrix_site import Site

CASES = [
    pytest.param(row, "valkey", database, id=f"{row.number} {row.name} ({database})")
    for row in SQL_ROWS
    for database in row.databases
]


@pytest.mark.parametrize(("row", "engine", "database"), CASES)
def test_a_fault(row: Row, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The fault happens, no user is logged out, sees another's data or an error, and afterwards all is as promised."""
    prove(row, site, caplog)
