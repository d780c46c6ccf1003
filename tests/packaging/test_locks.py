"""No lock of the package is held over a wait, and nothing by which a thread waits is bound when the package is loaded.

A thread may wait for what only another one can bring about that wants the same lock; under gevent, whose greenlets
share a thread, one of Python's own locks then stops the process. And gevent exchanges what threads wait by in a child
that was forked from a process in which the package was loaded.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import flask_langpont_session

PACKAGE = Path(flask_langpont_session.__file__).parent

WAITS = {"start_daemon", "start", "join", "sleep", "wait", "result", "connect", "getaddrinfo", "run", "send", "recv"}
"""Names of calls that wait. The start of a thread waits for the thread."""

EXCHANGED = {"threading", "queue", "select", "socket", "ssl", "time", "subprocess"}
"""Modules of which gevent exchanges parts."""

WAIT_FOR_NOTHING = {"monotonic", "time"}
"""What it leaves as it is."""


@cache
def sources() -> list[tuple[str, ast.Module]]:
    """The modules by their paths."""
    files = sorted(PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())) for path in files]


def name_of(called: ast.expr) -> str:
    """The last part of what is called."""
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def locks_in(tree: ast.Module) -> set[str]:
    """The names of what a module makes of Python's locks; not of reentrant ones, which let in the thread that has
    them."""
    made = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None]
    found = set()
    for node in made:
        if ast.unparse(node.value or node) in ("threading.Lock()", "threading.Condition()"):
            found |= {name_of(target) for target in (node.targets if isinstance(node, ast.Assign) else [node.target])}
    return found


def waits_under_locks(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of the calls that wait while a lock is held, also by way of a function of the same module. To wait
    for a condition is none: its lock is let go of meanwhile."""
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    locks = locks_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.With):
            for lock in {name_of(item.context_expr) for item in node.items} & locks:
                yield from _waits_in(node, functions, {lock})


def _waits_in(node: ast.AST, functions: dict[str, ast.FunctionDef], seen: set[str]) -> Iterator[tuple[int, str]]:
    for call in (inner for inner in ast.walk(node) if isinstance(inner, ast.Call)):
        name = name_of(call.func)
        of = name_of(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        if name in WAITS:
            if of not in seen:
                yield call.lineno, name
        elif name in functions and name not in seen and ast.unparse(call.func) in (name, f"self.{name}"):
            yield from _waits_in(functions[name], functions, seen | {name})


def bound_at_import(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of what is taken out of an exchanged module when the package is loaded: by its name, or as a
    default."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in EXCHANGED and not node.level:
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.FunctionDef):
            for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
                if isinstance(default, ast.Attribute) and ast.unparse(default.value) in EXCHANGED:
                    yield default.lineno, default.attr


def test_no_lock_is_held_over_a_wait() -> None:
    """No lock is held over the start of a thread either, which waits for it."""
    found = [f"{path}:{line}: {name}" for path, tree in sources() for line, name in waits_under_locks(tree)]
    assert found == []


def test_nothing_that_waits_is_bound_when_the_package_is_loaded() -> None:
    """``threading.Lock()`` and ``time.sleep()`` are looked up when they are called."""
    found = [
        f"{path}:{line}: {name}"
        for path, tree in sources()
        for line, name in bound_at_import(tree)
        if name not in WAIT_FOR_NOTHING
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("with guard:\n start_daemon()", ["start_daemon"]),
        ("def f(self):\n with self.guard:\n  self.g()\ndef g(self):\n time.sleep(1)", ["sleep"]),
        ("with guard:\n pass\ntime.sleep(1)", []),
        ("with guard:\n guard.wait()", []),
    ],
)
def test_a_wait_under_a_lock_is_found(source: str, found: list[str]) -> None:
    """A wait is found where it is called, also by a function that is called under the lock."""
    tree = ast.parse(f"guard = threading.Lock()\n{source}")
    assert [name for _, name in waits_under_locks(tree)] == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from queue import SimpleQueue", ["SimpleQueue"]),
        ("def f(sleep=time.sleep): pass", ["sleep"]),
        ("import queue\ndef f(): queue.SimpleQueue()", []),
    ],
)
def test_what_is_bound_at_import_is_found(source: str, found: list[str]) -> None:
    """Names are found, and defaults of parameters."""
    assert [name for _, name in bound_at_import(ast.parse(source))] == found
