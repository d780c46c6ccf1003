"""The old words of the package, and what to say instead: ``python -m tools.words``.

Prints each place where an old word is left, and fails if there is one. It looks at the names that all code defines, at
its comments, docstrings and log messages, and at the pages. The words of today are in
``docs/explanation/glossary.md``. A docstring that does not begin by saying what is there fails as well.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "flask_langpont_session"

PROGRAMS = ("flask_langpont_session", "example_app", "devservers", "lab", "benchmarks", "tools", "tests")
"""Folders of code."""

PAGES = ("README.md", "CHANGES.md", "CONTRIBUTING.md", "docs", "infra", "tests/README.md")
"""Files and folders of Markdown."""

PERSONS = re.compile(r"\b(?:who|nobody|somebody|whoever|anybody|everybody)\b", re.IGNORECASE)
"""Words for persons, which the code once had for processes, requests and servers. The package has none of them: where a
line is about a person, it says "the user" or "an operator"."""


RIDDLES = frozenset({"What", "Whether", "Of", "Those", "That", "How", "Who", "Where", "When", "Which"})
"""First words of docstrings after which a reader has to guess what is done or returned."""


class OldWord(NamedTuple):
    """A word, or several, that the package does not use any more.

    :param forms: a regular expression of its forms, in lower case. A blank stands for ``_`` in names, too.
    :param new: what to say instead.
    :param in_prose: False: only names are looked at; in a sentence it may mean something else.
    """

    forms: str
    new: str
    in_prose: bool = True


OLD_WORDS = (
    OldWord("walks?", "request scope", in_prose=False),
    OldWord("heard", "reply (a name), was told, knows"),
    OldWord("judge[sd]?|judging|judgements?", "verify"),
    OldWord("outbox(?:es)?", "journal writer"),
    OldWord("visibility", "fallback"),
    OldWord("pumps?|pumped|pumping", "periodic thread"),
    OldWord("fences?|fenced|fencing", "server identity"),
    OldWord("inquiry|inquiries", "background query"),
    OldWord("bury|buries|buried|burying", "write a tombstone"),
    OldWord("slides?|slid|sliding", "extend (the idle time)"),
    OldWord("(?:set|sets|setting) aside", "quarantine"),
    OldWord("settles?|settled|settling", "push, mark as done, resync, clear"),
    OldWord("(?:bring|brings|brought|bringing) home", "merge"),
    OldWord("floors?", "minimum version"),
    OldWord("guards", "decorators", in_prose=False),
    OldWord("reconcil(?:e|es|ed|ing|ers?|iation)", "recovery"),
    OldWord("generations?", "canary id, commit counter", in_prose=False),
)

ALLOWED: Mapping[str, frozenset[str]] = {
    "flask_langpont_session/events.py": frozenset({"record_set_aside", "RecordSetAside"}),
    "tests/docs/test_python_blocks.py": frozenset({"fence"}),
    "tests/protocol/test_browsers.py": frozenset({"WALKS"}),
    "tests/protocol/test_walks.py": frozenset({"WALKS", "test_walks", "test_no_seeded_walk_breaks_a_promise"}),
}
"""File → names and words that stay: applications use those of the events, Markdown has fences, and the walks of the
protocol's tests are random ones."""

ITSELF = ("tools/words.py", "tests/packaging/test_words.py")
"""These have to name the old words."""


class Place(NamedTuple):
    """A place that has an old word.

    :param found: the word, or the name that has it.
    :param new: what to say instead.
    """

    path: str
    line: int
    found: str
    new: str


_IN_PROSE = [(re.compile(rf"\b(?:{word.forms})\b", re.IGNORECASE), word.new) for word in OLD_WORDS if word.in_prose]
_IN_NAMES = [(re.compile(rf"\b(?:{word.forms})\b"), word.new) for word in OLD_WORDS]
_JOINTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_+")


def in_prose(path: str, first: int, text: str) -> Iterator[Place]:
    """Yield the old words of a text. :param first: the number of its first line."""
    for pattern, new in _IN_PROSE:
        for match in pattern.finditer(text):
            if not _may_stay(path, match[0]):
                yield Place(path, first + text.count("\n", 0, match.start()), match[0], new)


def in_name(path: str, line: int, name: str) -> Iterator[Place]:
    """Yield the old words of a name, which may be made of several: ``_set_aside``, ``OldFences``."""
    words = _JOINTS.sub(" ", name).lower()
    for pattern, new in _IN_NAMES:
        if pattern.search(words) and not _may_stay(path, name):
            yield Place(path, line, name, new)


def _may_stay(path: str, word: str) -> bool:
    return word in ALLOWED.get(path, ())


def names_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the names that a module defines, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def prose_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield comments, texts that stand alone (docstrings are) and log messages of a module, with their first lines."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        text = node.value if isinstance(node, ast.Expr) else _logged(node)
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            yield text.lineno, text.value


def riddles_of(tree: ast.Module, *, with_constants: bool = False) -> Iterator[tuple[int, str]]:
    """Return the docstrings of a module that begin with a word of `RIDDLES`, with the lines of what they describe.

    :param with_constants: those below constants and attributes, too.
    """
    for node in ast.walk(tree):
        text: object = None
        if with_constants:  # every text that stands alone: docstrings do, too
            text = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else None
        elif isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
        words = text.split(maxsplit=1) if isinstance(text, str) else []
        if words and words[0].rstrip(".:,") in RIDDLES:
            yield getattr(node, "lineno", 1), words[0]


def _logged(node: ast.AST) -> ast.expr | None:
    """Return the text that ``log.warning(…)`` and the like log."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        return node.args[0] if isinstance(node.func.value, ast.Name) and node.func.value.id == "log" else None
    return None


def old_words() -> Iterator[Place]:
    """Yield every place of this repository that has an old word."""
    for path in (file for folder in PROGRAMS for file in sorted((ROOT / folder).rglob("*.py"))):
        where, source = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        if where in ITSELF:
            continue
        for line, text in prose_of(source):
            yield from in_prose(where, line, text)
        tree = ast.parse(source)
        for line, name in ((1, path.stem), *names_of(tree)):
            yield from in_name(where, line, name)
        for line, word in riddles_of(tree, with_constants=PACKAGE in path.parents):
            yield Place(where, line, word, "a sentence that says what is done, or what this is")
    for path in (file for page in PAGES for file in _markdown(ROOT / page)):
        yield from in_prose(path.relative_to(ROOT).as_posix(), 1, path.read_text(encoding="utf-8"))


def _markdown(page: Path) -> list[Path]:
    return [page] if page.is_file() else sorted(page.rglob("*.md"))


def lines_about_persons() -> list[str]:
    """Return the package's lines with words for persons, also inside names, each with its file and number."""
    return [
        f"{path.relative_to(ROOT).as_posix()}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PERSONS.search(_JOINTS.sub(" ", line))
    ]


def main() -> int:
    """Print what is found. :return: the status to exit with."""
    found = [f"{place.path}:{place.line}: not {place.found!r}, but: {place.new}" for place in old_words()]
    found += [f"{line}  (not a word for persons, but: the user, an operator)" for line in lines_about_persons()]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
