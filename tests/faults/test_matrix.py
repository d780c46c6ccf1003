"""The fault matrix is whole: each of the 56 faults has its rows, and what is proved elsewhere is proved."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .matrix import ELSEWHERE, REDIS_ROWS, SQL_ROWS, ProvedElsewhere

TESTS = Path(__file__).parents[1]


def test_every_fault_has_a_row() -> None:
    """1 to 56, in the order of the table, each as one or more rows here or as tests that are named."""
    here = [row.number for rows in (REDIS_ROWS, SQL_ROWS) for row in rows]
    elsewhere = [fault.number for fault in ELSEWHERE]
    assert set(here) | set(elsewhere) == set(range(1, 57))
    assert not set(here) & set(elsewhere)
    for rows in (REDIS_ROWS, SQL_ROWS, ELSEWHERE):
        assert [row.number for row in rows] == sorted(row.number for row in rows)


@pytest.mark.parametrize("fault", ELSEWHERE, ids=lambda fault: f"{fault.number} {fault.name}")
def test_what_is_proved_elsewhere_is_proved(fault: ProvedElsewhere) -> None:
    """The tests that a row names are there."""
    for name in fault.tests:
        path, _, function = name.partition("::")
        tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
        there = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert function in there, f"no test {name}"
