"""Every line of the log has its data in ``extra=`` under an event of its own, and docs/operations.md lists them all."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import flask_langpont_session
from flask_langpont_session.policy.errors import ErrorClass, StoreError

PACKAGE = Path(flask_langpont_session.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BLOCK = re.compile(r"<!-- log events: begin -->\n(.*?)<!-- log events: end -->", re.DOTALL)

LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
    "log": "info; in debug warning",
}
"""Method of a logger → the level, as the page calls it."""

TOGETHER = {
    "log_data": tuple(StoreError("primary", ErrorClass.UNREACHABLE, "ConnectionError").log_data),
    "counted": ("the numbers",),
    "data": ("alert", "severity", "state"),
}
"""What is given by ``**``: its name → the fields."""


class Line(NamedTuple):
    """A call that logs.

    :param where: file and line.
    :param event: empty: it has none.
    """

    where: str
    event: str
    level: str
    fields: tuple[str, ...]


def lines_of(where: str, source: str) -> Iterator[Line]:
    """Yield the lines of the log in a module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("log"), attr=method)) if method in LEVELS:
                event, names = _data_of(next((one.value for one in node.keywords if one.arg == "extra"), None))
                yield Line(f"{where}:{node.lineno}", event, LEVELS[method], names)


def _data_of(extra: ast.expr | None) -> tuple[str, tuple[str, ...]]:
    match extra:
        case ast.Call(func=ast.Name("fields"), args=[ast.Constant(str(event))], keywords=keywords):
            return event, tuple(name for keyword in keywords for name in _names_of(keyword))
    return "", ()


def _names_of(keyword: ast.keyword) -> tuple[str, ...]:
    if keyword.arg is not None:
        return (keyword.arg,)
    match keyword.value:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return TOGETHER[name]
    raise AssertionError(ast.dump(keyword))


def sources() -> Iterator[tuple[str, str]]:
    """The modules of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")


@cache
def all_lines() -> list[Line]:
    """Return the lines of the log in the package."""
    return [line for where, source in sources() for line in lines_of(where, source)]


def rows() -> str:
    """Return the table that the page should have, to be pasted after a change."""
    lines = ["| event | level | data |", "| --- | --- | --- |"]
    for line in sorted(all_lines(), key=lambda line: line.event):
        data = ", ".join(name if " " in name else f"`{name}`" for name in line.fields)
        lines.append(f"| `{line.event}` | {line.level} | {data or '–'} |")
    return "\n".join(lines) + "\n"


def test_every_line_has_an_event_of_its_own() -> None:
    lines = all_lines()
    assert [line.where for line in lines if not re.fullmatch(r"[a-z]+(_[a-z]+)*", line.event)] == []
    events = [line.event for line in lines]
    assert sorted(events) == sorted(set(events))


def test_every_logger_is_found_by_its_name() -> None:
    """Every logger is called ``log``, so that :func:`lines_of` misses no line."""
    makers = re.compile(r"(?:(\w+) = )?logging\.(?:getLogger\(__name__|debug\(|info\(|warning\(|error\(|exception\()")
    found = [match[1] for _, source in sources() for match in makers.finditer(source)]
    assert set(found) == {"log"}


def test_the_page_has_every_event() -> None:
    [block] = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert block == rows()


def test_no_line_has_what_may_not_stand_in_the_log() -> None:
    """Their values are those of the text; names of other things would be new here."""
    names = {name for line in all_lines() for name in line.fields}
    assert (
        names & {"sid", "session_id", "digest", "user", "user_id", "value", "password", "token", "url", "cookie"}
        == set()
    )
    # Of a session there are the first characters of its digest.
    assert {line.event for line in all_lines() if "session" in line.fields} == {"changes_given_up", "row_damaged"}


EVERY_WAY = """
log.warning("one")
log.error("two %s", 2, extra={"langpont_event": "two"})
log.exception("three", extra=fields("three", number=3, **error.log_data))
log.log(logging.INFO, "four", extra=fields("four"))
math.log(5)
"""


def test_a_line_without_its_data_is_seen() -> None:
    assert list(lines_of("module.py", EVERY_WAY)) == [
        Line("module.py:2", "", "warning", ()),
        Line("module.py:3", "", "error", ()),
        Line("module.py:4", "three", "error", ("number", "store", "cause", "detail")),
        Line("module.py:5", "four", "info; in debug warning", ()),
    ]
    assert set(LEVELS) <= set(dir(logging.Logger))
