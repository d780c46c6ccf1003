"""Every number of docs/guarantees.md and docs/explanation/rules.md is tested under it, on real servers and the model.

A rule of the code may have a unit test in place of real servers.

The model of the stores is tests/protocol; that of the cookies is the search of every schedule of overlapping requests.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.integration.cookie_ablations import ABLATIONS as COOKIE_ABLATIONS
from tests.integration.cookie_search import PROPERTIES
from tests.protocol.schedules import KEPT

TESTS = Path(__file__).parents[1]
PAGES = [TESTS.parent / "docs" / page for page in ("guarantees.md", "explanation/rules.md")]
NUMBERS = [n for page in PAGES for n in re.findall(r"^\| ([ISC]\d+) \|", page.read_text(), re.MULTILINE)]

OF_COOKIES = {"I15", "C1", "C2", "C3", "C4"}
"""About what the browser is sent: the stores know nothing of that."""

OF_VIEWS = {"I35"}
"""About what a view and a browser make of a session: the model is told how long sessions live."""

OF_PROCESSES = {"I21", "I22", "I23", "I24"}
"""About processors, threads, room and waits: the model has none of them."""


@cache
def what_tests_say(*folders: str) -> tuple[str, ...]:
    """Docstring of every module of tests of some folders, name and docstring of every test."""
    return tuple(_what_tests_say(folders))


def _what_tests_say(folders: tuple[str, ...]) -> Iterator[str]:
    for folder in folders:
        for path in TESTS.glob(f"{folder}/test_*.py"):
            module = ast.parse(path.read_text())
            yield f"{ast.get_docstring(module)}"
            for node in ast.walk(module):
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    yield f"{node.name} {ast.get_docstring(node)}"


def are_about(text: str, number: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9]){number}(?![0-9])", text, re.IGNORECASE) is not None


def test_the_numbers_are_those_of_the_protocol() -> None:
    """All of them, each once."""
    expected = {f"{kind}{n + 1}" for kind, count in (("I", 30), ("S", 11), ("C", 4)) for n in range(count)}
    expected |= {"I31", "I32", "I33", "I34", "I35"}
    assert set(NUMBERS) == expected
    assert len(NUMBERS) == len(expected)


@pytest.mark.parametrize("number", NUMBERS)
def test_it_is_tested_on_real_servers(number: str) -> None:
    """Some test on real servers names the number; of a rule of the code (S), a unit test may."""
    folders = ("integration", "browser", "data", "topologies", *(("unit/**",) if number.startswith("S") else ()))
    assert any(are_about(test.replace("_", " "), number) for test in what_tests_say(*folders))


@pytest.mark.parametrize("number", [n for n in NUMBERS if n not in OF_COOKIES | OF_VIEWS | OF_PROCESSES])
def test_it_is_tested_on_the_model(number: str) -> None:
    """A kept schedule, which the protocol passes, breaks this invariant without some part of the protocol, or breaks
    another one without this rule."""
    assert any(number in (kept.breaks, kept.part) for kept in KEPT)


@pytest.mark.parametrize("number", sorted(OF_COOKIES))
def test_it_is_searched_for_in_all_schedules(number: str) -> None:
    """The search finds each rule of cookies broken when some part is taken away."""
    assert number in PROPERTIES
    assert any(number in ablation.breaks for ablation in COOKIE_ABLATIONS.values())
