"""The maps for those who work on the package name what is there: folders, files, classes and functions of tests."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from flask_langpont_session.config.settings import Settings

from .pages import MAPS, ROOT

PACKAGE = ROOT / "flask_langpont_session"
FOLDERS = (ROOT, PACKAGE, ROOT / "tests", ROOT / "tests" / "unit", ROOT / "tests" / "integration")
"""Where a path of a map may begin."""

SETTINGS = {field.name.upper() for field in dataclasses.fields(Settings)}

_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w.*/-]+/|[\w./-]+\.(?:py|lua|md|toml|yml|txt)")
_TEST = re.compile(r"test_\w+")
_CLASS = re.compile(r"(?:[a-z_]+\.)*([A-Z][a-z]+(?:[A-Z][a-z]+)*)(?:\.(\w+))?")
_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)*")
_PARTICIPANT = re.compile(r"participant \w+ as (?:[\w/]+\.)?(\w+)$", re.MULTILINE)


def is_there(path: str) -> bool:
    return any((folder / path).exists() for folder in FOLDERS)


def source() -> str:
    """All of the package and of its tests."""
    return "\n".join(
        path.read_text(encoding="utf-8") for folder in (PACKAGE, ROOT / "tests") for path in folder.rglob("*.py")
    )


@pytest.fixture(scope="module")
def text() -> str:
    return source()


def missing(page: str, text: str) -> list[str]:
    """Return the names on a page that do not exist."""
    found = []
    for code in _CODE.findall(page):
        if _PATH.fullmatch(code):
            is_known = is_there(code)
        elif _TEST.fullmatch(code):
            is_known = f"def {code}(" in text
        elif _CONSTANT.fullmatch(code):
            is_known = _has_constant(text, code)
        elif (named := _CLASS.fullmatch(code)) and code not in ("None", "True", "False"):
            is_known = _defines(text, named[1], named[2])
        else:
            continue
        found += [] if is_known else [code]
    return found + [name for name in _PARTICIPANT.findall(page) if name[0].isupper() and not _defines(text, name)]


def _defines(text: str, name: str, member: str | None = None) -> bool:
    is_class = re.search(rf"^class {name}\b|^ *{name}\b.* = ", text, re.MULTILINE) is not None
    return is_class and (member is None or re.search(rf"\bdef {member}\(|\b{member}\b.* = ", text) is not None)


def _has_constant(text: str, name: str) -> bool:
    """Return whether a name is a constant of a module or an enum, a setting, or a variable of the environment."""
    is_defined = re.search(rf"^ *{name}\b[^\n=]* = ", text, re.MULTILINE) is not None
    return is_defined or name in SETTINGS or (name.startswith("LANGPONT_") and f'"{name}"' in text)


@pytest.mark.parametrize("page", MAPS, ids=lambda page: page.name)
def test_what_a_map_names_is_there(page: Path, text: str) -> None:
    """A change that moves or renames something fails here until the map is changed."""
    assert missing(page.read_text(encoding="utf-8"), text) == []


def test_a_name_that_is_gone_is_found(text: str) -> None:
    """Names of each kind that do not exist are found."""
    page = """
        `policy/levels.py` and `policy/stairs.py`, `recovery/` and `attic/`, `RequestScope.ask`, `RequestScope.beg`,
        `Verifier` and `Walk`, `test_a_name_that_is_gone_is_found` and `test_of_old`, `SELECT 1`,
        `HEALTH_CLASSES`, `JOURNAL`, `LANGPONT_WALKS` and `_ON_STAIRS`
    participant Scope as scope.RequestScope
    participant Walk as walk.Outbox
    """.replace("        participant", "participant")
    gone = ["policy/stairs.py", "attic/", "RequestScope.beg", "Walk", "test_of_old", "_ON_STAIRS", "Outbox"]
    assert missing(page, text) == gone
