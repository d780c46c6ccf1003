"""The order in which the processes of a test run are given their files."""

from __future__ import annotations

from tests.support.turns import next_of, unit_of

SIZES = {"tests/browser": 0, "tests/integration/test_a.py": 1, "tests/integration/test_b.py": 2,
         "tests/integration/test_cookie_g.py": 1, "tests/protocol/test_c.py": 1, "tests/soak/test_d.py": 1,
         "tests/unit/test_e.py": 1, "tests/unit/test_f.py": 2}  # fmt: skip


def given(*, computes: bool) -> list[str]:
    """Return the files that one process would be given if it were alone, in their order."""
    left, order = list(SIZES), []
    while left:
        order.append(next_of(left, computes=computes, size=SIZES.__getitem__))
        left.remove(order[-1])
    return [unit.removeprefix("tests/") for unit in order]


def test_one_process_computes_while_others_wait_for_servers() -> None:
    """Each helps the others when its own part is done; the smallest files come last."""
    computing = ["integration/test_cookie_g.py", "protocol/test_c.py", "unit/test_e.py", "unit/test_f.py"]
    others, late = ["browser", "soak/test_d.py"], ["integration/test_b.py", "integration/test_a.py"]
    assert given(computes=True) == computing + others + late
    assert given(computes=False) == others + late + computing


def test_what_shares_its_servers_is_given_as_a_whole() -> None:
    """A file, or a folder whose servers take long to start."""
    assert unit_of("tests/integration/test_a.py::test_b[c::d]") == "tests/integration/test_a.py"
    assert unit_of("tests/browser/test_a.py::test_b") == unit_of("tests/browser/test_c.py::test_d") == "tests/browser"
