"""The program that counts how easy the package is to read counts what is there."""

from __future__ import annotations

import ast

from tools import figures


def test_both_requests_are_followed_from_flask_to_the_stores() -> None:
    """A read goes through the session, the request and Redis; a write goes on to the database."""
    read, write = ([int(part) for part in figure.value.split(" / ")] for figure in figures.traced_requests())
    assert all(0 < fewer < more for fewer, more in zip(read, write, strict=True))
    assert read[0] < read[1] and read[2] > 20


PRIVATE = """
from flask_langpont_session.room import _made, made

class Fake:
    def __init__(self):
        self._own = made._theirs

def test(monkeypatch, fake):
    assert fake._own
    monkeypatch.setattr(made, "_theirs", 1)
"""


def test_private_names_are_found_by_import_by_dot_and_as_a_text() -> None:
    """Private names of the test's own classes are not listed."""
    found = figures.private_uses(ast.parse(PRIVATE), {"_made", "_theirs", "_own"})
    assert sorted(found) == [(2, "_made"), (6, "_theirs"), (10, "_theirs")]


def test_the_tests_reach_into_the_package_in_few_places() -> None:
    """Tests tell parts of the package what they need, or see it from outside; ``tests/README.md`` says how."""
    found = figures.private_names()
    assert len(found) <= 20, "\n".join(found)


INTERFACES = {"session.mapping.Session": 40}
"""What a view holds → how many methods it may have."""


def test_classes_stay_small() -> None:
    """A class has at most 25 methods, 12 attributes, and 7 parameters of a constructor. Settings are a table."""
    nodes = [
        (f"{module}.{node.name}", node)
        for module, tree in figures.trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    large = {
        name: (figures.methods(node), figures.attributes(node), figures.parameters(node))
        for name, node in nodes
        if figures.methods(node) > INTERFACES.get(name, 25)
        or figures.attributes(node) > 12
        or figures.parameters(node) > 7
    }
    assert large == {}


def test_imports_are_not_deep() -> None:
    """The longest chain of modules, each of which imports the next, has 14 of them at most."""
    found = figures.import_depth()
    assert int(found.value) <= 14, found.where


def test_functions_stay_short() -> None:
    """A function has at most 40 lines, without head and docstring."""
    long = {
        f"{module}.{node.name}": length
        for module, tree in figures.trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (length := figures.lines_of_body(node)) > 40
    }
    assert long == {}


def test_the_operators_wing_stays_small() -> None:
    """It has 7,500 lines at most: an addition takes the place of something."""
    sources = (figures.PACKAGE / "ops").rglob("*.py")
    assert sum(len(source.read_text(encoding="utf-8").splitlines()) for source in sources) <= 7500
