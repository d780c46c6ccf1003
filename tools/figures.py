"""Figures of how easy the package is to read: ``python -m tools.figures``.

Four kinds are counted: what a request runs through, what the source and the pages look like, and how much of the source
the tests reach into. The requests are those of an application with SQLite: a signed-in session is read by its lease,
from a Redis in memory, which is asked each time, and from a real server, which says what has changed; and an auth key
is written. Beside each figure stands what it was before the package was put into folders. Then follows what a request
costs (:mod:`tools.cost`).
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from flask import session

import flask_langpont_session
from devservers.valkey import Valkey

from . import cost
from .words import lines_about_persons

PACKAGE = Path(flask_langpont_session.__file__).parent
NAME = PACKAGE.name
TESTS = PACKAGE.parent / "tests"

BEFORE: Mapping[str, str] = {
    "modules / functions / hops of a leased read": "26 / 138 / 92",
    "the same where the near cache has the session": "–",
    "modules / functions / hops of a write of an auth key": "31 / 215 / 189",
    "import depth": "15",
    "modules on the top level": "34",
    "most methods of a class": "79",
    "most parameters of a constructor": "12",
    "most attributes of a class": "39",
    "lines with words for persons": "269",
    "places where tests use private names": "217",
    "words of README and docs / deictic ones in 100, worst page": "–",
}
"""By name of the figure, on commit 56a517c. Some were counted otherwise: there, this program finds 26 / 133 / 86 and
31 / 210 / 177 in the two requests, and 160 private names."""


class Figure(NamedTuple):
    """One figure.

    :param value: as it is printed.
    :param where: which class or chain of modules it is about; empty: it is about all.
    """

    value: str
    where: str = ""


# -- what a request runs through ---------------------------------------------------------------------------------------


class Trace:
    """Records which functions of the package one thread enters while this is open, and how often the next one lies in
    another file."""

    def __init__(self) -> None:
        self.functions: set[tuple[str, str, int]] = set()
        self.hops = 0
        self._file = ""

    def __enter__(self) -> Trace:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(f"{PACKAGE}/"):
            return
        self.functions.add((code.co_filename, code.co_qualname, code.co_firstlineno))
        self.hops += self._file not in ("", code.co_filename)
        self._file = code.co_filename

    @property
    def figure(self) -> Figure:
        """Return modules, functions, and hops: how often a reader of the trace turns to another file."""
        modules = {file for file, *_ in self.functions}
        return Figure(f"{len(modules)} / {len(self.functions)} / {self.hops}")


def traced_requests() -> tuple[Figure, Figure]:
    """Return the figures of a leased read that asks Redis, and of a write of an auth key that gives no right."""
    import fakeredis

    # With the near cache it would depend on the moment whether that has found out yet that it cannot use this Redis.
    with _requests(REDIS_URL=fakeredis.FakeRedis(), NEAR_CACHE=()) as traced:
        return traced("/read"), traced("/write/{}")


def traced_near_read() -> Figure:
    """Return the figure of the usual leased read: from a real server, which reports changes to this process, and has
    none to report."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Valkey(Path(folder)) as server,
        _requests(REDIS_URL=server.url) as traced,
    ):
        return cost.once_near(server, lambda: traced("/read"))


@contextmanager
def _requests(**settings: Any) -> Iterator[Callable[[str], Figure]]:
    """Yield what traces requests of a browser that is signed in, one after the other."""
    with cost.application(**settings) as app:

        @app.get("/sign-in")
        def sign_in() -> str:
            session["user_id"] = "7"
            return ""

        @app.get("/read")
        def read() -> str:
            return str(session["user_id"])

        @app.get("/write/<limit>")
        def write(limit: str) -> str:
            session["daily_limit"] = limit
            return ""

        client = app.test_client()
        for path in ("/sign-in", "/read", "/write/-1", "/read"):  # what only a first request does is over then
            assert client.get(path).status_code == 200
        yield partial(_traced, client)


def _traced(client: Any, path: str) -> Figure:
    """Return the figure of the one of many requests that runs least: a process that has just begun, or is late, has
    more to do."""
    traces = []
    for number in range(100):
        with Trace() as trace:
            answer = client.get(path.format(number))
        assert answer.status_code == 200
        traces.append(trace)
    return min(traces, key=lambda trace: len(trace.functions)).figure


# -- what the source looks like ----------------------------------------------------------------------------------------


@cache
def trees() -> Mapping[str, ast.Module]:
    """Return every module of the package by its dotted name, without the package's own."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def import_depth() -> Figure:
    """Return the longest chain of modules each of which imports the next when it is imported itself."""
    graph = {module: tuple(_imports(module, tree)) for module, tree in trees().items()}

    @cache
    def longest(module: str) -> tuple[str, ...]:
        return (module, *max((longest(other) for other in graph[module]), key=len, default=()))

    chain = max((longest(module) for module in graph if module), key=len)
    return Figure(str(len(chain)), " > ".join(chain))


def _imports(module: str, tree: ast.Module) -> Iterator[str]:
    is_package = (PACKAGE / module.replace(".", "/") / "__init__.py").is_file()
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = [NAME, *filter(None, module.split("."))]
        if node.level:
            base = parts[: len(parts) - node.level + is_package]
        elif (node.module or "").partition(".")[0] == NAME:
            base = []
        else:
            continue
        named = ".".join([*base, *filter(None, [node.module])]).removeprefix(NAME).lstrip(".")
        for alias in node.names:
            whole = f"{named}.{alias.name}".lstrip(".")
            found = whole if whole in trees() else named
            if found and found != module:
                yield found


def top_level_modules() -> Figure:
    """Return the modules beside the folders, ``__init__`` too."""
    return Figure(str(len(list(PACKAGE.glob("*.py")))))


def largest_class(measure: Callable[[ast.ClassDef], int]) -> Figure:
    """Return the class of which there is most, by a measure."""
    found = max(
        (measure(node), f"{module}.{node.name}")
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    return Figure(str(found[0]), found[1])


def methods(node: ast.ClassDef) -> int:
    """Count the methods, properties too; a property with a setter is two."""
    return len([part for part in node.body if isinstance(part, ast.FunctionDef)])


def parameters(node: ast.ClassDef) -> int:
    """Count the parameters of the constructor, without ``self``."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return len([*part.args.posonlyargs, *part.args.args, *part.args.kwonlyargs]) - 1
    return 0


def lines_of_body(node: ast.FunctionDef) -> int:
    """Count the lines from the first statement after the docstring to the last one."""
    first = node.body[min(len(node.body) - 1, ast.get_docstring(node, clean=False) is not None)]
    return (node.end_lineno or first.lineno) - first.lineno + 1


def attributes(node: ast.ClassDef) -> int:
    """Count the names that are put on ``self``."""
    return len(
        {
            part.attr
            for part in ast.walk(node)
            if isinstance(part, ast.Attribute)
            and isinstance(part.ctx, ast.Store)
            and isinstance(part.value, ast.Name)
            and part.value.id == "self"
        }
    )


# -- what tests reach into ---------------------------------------------------------------------------------------------

OF_EVERY_NAMED_TUPLE = {"_replace", "_asdict", "_fields"}
BY_NAME = {"setattr", "getattr", "delattr", "object"}
"""Functions, ``patch.object`` is one, whose second argument is the name of an attribute."""


def private_names() -> list[str]:
    """Return where tests use names of the package that begin with one underscore, by file and line.

    Names that an ablation takes away are not among them, see :func:`ablated_names`: it is about exactly that private
    rule, so there is no way without its name.
    """
    ours = {name for tree in trees().values() for name in _private_definitions(tree)} - OF_EVERY_NAMED_TUPLE
    return _in_tests(lambda tree: private_uses(tree, ours))


def ablated_names() -> list[str]:
    """Return the private names of the package that ablations take away, by file and line."""
    return _in_tests(private_ablations)


def _in_tests(find: Callable[[ast.Module], Iterator[tuple[int, str]]]) -> list[str]:
    return [
        f"{path.relative_to(TESTS.parent)}:{line}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for line, name in find(ast.parse(path.read_text(encoding="utf-8")))
    ]


def _private_definitions(tree: ast.Module) -> Iterator[str]:
    """Yield private functions, classes, names of a module or function, and attributes that a class gives itself."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and _is_private(node.name):
            yield node.name
        elif isinstance(node, ast.Attribute) and _is_of_self(node) and isinstance(node.ctx, ast.Store):
            yield from [node.attr] if _is_private(node.attr) else []
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and _is_private(node.id):
            yield node.id


def private_uses(tree: ast.Module, ours: set[str]) -> Iterator[tuple[int, str]]:
    """Yield where attributes of anything but a class of the test's own are used, by a dot or by their name as a text;
    and imports."""
    names = ours - set(_private_definitions(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(NAME):
            yield from ((node.lineno, alias.name) for alias in node.names if _is_private(alias.name))
        elif isinstance(node, ast.Attribute) and node.attr in names and not _is_of_self(node):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and (name := _named_attribute(node)) in names:
            yield node.lineno, name


def private_ablations(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the private names in ``Ablation(…, owner, "_name", …)``, where the owner comes from the package."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(NAME)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Ablation":
            owner, name = node.args[1:3]
            is_ours = ast.unparse(owner).partition(".")[0] in imported
            if is_ours and isinstance(name, ast.Constant) and _is_private(str(name.value)):
                yield node.lineno, str(name.value)


def _named_attribute(call: ast.Call) -> str:
    """Return the attribute that a call of ``setattr`` and the like names; empty: it is another call."""
    called = call.func
    function = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    second = call.args[1] if function in BY_NAME and len(call.args) > 1 else None
    return second.value if isinstance(second, ast.Constant) and isinstance(second.value, str) else ""


def _is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


# -- what the pages look like ------------------------------------------------------------------------------------------

DEICTIC = frozenset(
    ("it", "that", "those", "one", "there", "this", "these", "they", "them", "what", "who", "which", "where")
)
"""Words that send a reader back to another sentence."""


def pages() -> Figure:
    """Return the words of all pages, and the share of deictic words in the prose of the page with most of them."""
    root = PACKAGE.parent
    texts = {page: page.read_text("utf-8") for page in (root / "README.md", *(root / "docs").rglob("*.md"))}
    share, page = max((_deictic(text), page.name) for page, text in texts.items())
    return Figure(f"{sum(len(text.split()) for text in texts.values()):,} / {share:.1f}", page)


def _deictic(text: str) -> float:
    """Return how many of 100 words of a page are deictic, without its code and its addresses."""
    prose = re.sub(r"^ *```.*?^ *```$|``.*?``|`[^`]*`|(?<=\])\([^)]*\)|<!--.*?-->", "", text, flags=re.M | re.S)
    words = re.findall(r"[a-z’'-]+", prose.lower())
    return 100 * sum(word in DEICTIC for word in words) / max(len(words), 1)


# -- the table ---------------------------------------------------------------------------------------------------------


def figures() -> dict[str, Figure]:
    """Return all figures, by the names of :data:`BEFORE`."""
    read, write = traced_requests()
    now = [
        read,
        traced_near_read(),
        write,
        import_depth(),
        top_level_modules(),
        largest_class(methods),
        largest_class(parameters),
        largest_class(attributes),
        Figure(str(len(lines_about_persons()))),
        Figure(str(len(private_names())), f"and {len(ablated_names())} that ablations take away"),
        pages(),
    ]
    return dict(zip(BEFORE, now, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.figures", description=__doc__)
    parser.add_argument("--words", action="store_true", help="print the lines with words for persons instead")
    parser.add_argument("--private", action="store_true", help="print the places where tests use private names instead")
    asked = parser.parse_args()
    if asked.words or asked.private:
        print(*(lines_about_persons() if asked.words else private_names()), sep="\n")
        return
    print("| figure | before | now | where |\n| --- | --- | --- | --- |")
    for name, (value, where) in figures().items():
        print(f"| {name} | {BEFORE[name]} | {value} | {where} |")
    print()
    cost.main()


if __name__ == "__main__":
    main()
