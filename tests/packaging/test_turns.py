"""Which files the processes of a test run are given, in which order."""

from __future__ import annotations

from tests.support.turns import next_of, unit_of

UNITS = ["tests/browser", "tests/integration/test_a.py", "tests/protocol/test_b.py", "tests/soak/test_c.py",
         "tests/unit/test_d.py", "tests/unit/test_e.py"]  # fmt: skip


def given(*, computes: bool) -> list[str]:
    """What one process would be given if it were alone."""
    left, order = list(UNITS), []
    while left:
        order.append(next_of(left, computes=computes))
        left.remove(order[-1])
    return [unit.removeprefix("tests/") for unit in order]


def test_one_process_computes_while_others_wait_for_servers() -> None:
    """Each helps the others when its own part is done; small files come last."""
    computing, small = ["protocol/test_b.py", "unit/test_d.py", "unit/test_e.py"], ["integration/test_a.py"]
    others = ["browser", "soak/test_c.py"]
    assert given(computes=True) == computing + others + small
    assert given(computes=False) == others + small + computing


def test_what_shares_its_servers_is_given_as_a_whole() -> None:
    """A file, or a folder whose servers take long to start."""
    assert unit_of("tests/integration/test_a.py::test_b[c::d]") == "tests/integration/test_a.py"
    assert unit_of("tests/browser/test_a.py::test_b") == unit_of("tests/browser/test_c.py::test_d") == "tests/browser"
