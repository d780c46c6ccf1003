"""Tables that the site of the docs makes from the code: events, checks, alerts, metrics."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml
from flask import Flask

import flask_langpont_session
from flask_langpont_session.config.explanations import table_lines
from flask_langpont_session.config.settings import load_settings
from flask_langpont_session.ops.alerts.table import ALERTS
from flask_langpont_session.ops.diagnosis.table import CHECKS
from flask_langpont_session.ops.exporters import catalogue
from flask_langpont_session.policy.causes import ROWS
from flask_langpont_session.policy.errors import ErrorClass, StoreError, words_of

PACKAGE = Path(flask_langpont_session.__file__).parent

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


def log_events() -> str:
    """Return the table of events."""
    lines = ["| event | level | data |", "| --- | --- | --- |"]
    for line in sorted(all_lines(), key=lambda line: line.event):
        data = ", ".join(name if " " in name else f"`{name}`" for name in line.fields)
        lines.append(f"| `{line.event}` | {line.level} | {data or '–'} |")
    return "\n".join(lines) + "\n"


def doctor_checks() -> str:
    """Return the table of checks, in the order in which they are made."""
    lines = ["| check | looks at | why it matters |", "| --- | --- | --- |"]
    lines += [f"| `{check.name}` | {check.looks_at} | {check.why} |" for check in CHECKS]
    return "\n".join(lines) + "\n"


def application_table() -> str:
    """Return the decision table of the preset ``application``."""
    app = Flask("application")
    app.config.update(TESTING=True, SECRET_KEY="x" * 32, LANGPONT_SESSION_PRESET="application")
    return "\n".join(table_lines(load_settings(app))) + "\n"


def rooms() -> str:
    """Return the table of the package's folders, by the first paragraphs of their docstrings."""
    rows = []
    for path in sorted(PACKAGE.rglob("__init__.py")):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        words = " ".join(said.partition("\n\n")[0].split()).replace("``", "`")
        rows += [] if path.parent == PACKAGE else [[f"`{path.parent.relative_to(PACKAGE).as_posix()}/`", words]]
    return _table(["folder", "what it does"], rows)


def prometheus_alerts() -> str:
    """Return the table of Prometheus' alerts: how bad each is, and the section that says what to do."""
    rules = yaml.safe_load((PACKAGE.parent / "infra" / "monitoring" / "rules.yml").read_text(encoding="utf-8"))
    rows = []
    for rule in [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]:
        section = rule["annotations"]["runbook_url"].partition("#")[2]
        rows.append([f"`{rule['alert']}`", rule["labels"]["severity"], f"[{section}](#{section})"])
    return _table(["alert", "severity", "what to do"], rows)


def causes() -> str:
    """Return the table of what is printed about a store, and what helps."""
    rows = [
        [
            ", ".join(roles),
            f"{'' if kind is None else words_of(kind)} {', '.join(f'`{cause}`' for cause in beginnings)}".strip(),
            word,
            does.format(setting="its setting", file="its file"),
        ]
        for roles, kind, beginnings, word, does in ROWS
    ]
    return _table(["store", "printed", "that is", "do"], rows)


CONDITIONS = {
    "redis-connection-failed": "the primary's circuit breaker is open",
    "redis-writes-refused": "the primary answers reads but refuses writes (read-only after a failover, out of memory)",
    "replica-connection-failed": "the replica's circuit breaker is open; it also opens for one that was promoted",
    "database-connection-failed": "the database's circuit breaker is open",
    "auth-failed": "a circuit breaker is open: a password, token, right or certificate was refused; one alert per "
    "store",
    "level-replica": "level 1 or worse",
    "level-fallback": "level 2 or worse",
    "level-minimal": "level 4",
    "data-lost": "a Redis server was emptied or restored from an older copy while the workers stayed connected",
    "clock": "the clock of a Redis and that of this host differ by more than a second",
    "database-went-back": "the database lacks rows or revocations that it had confirmed",
    "server-changed": "another server process than before answers at an endpoint: a restart or a failover",
    "journal-failed": "a request could not write to the journal what had to be kept",
    "changes-given-up": "after an outage, changes of a signed-in session could not be brought to a store, and never "
    "could be",
}
"""Alert → when it is active."""


def alerts() -> str:
    """Return the table of alerts: how bad each is, and when it is sent."""
    rows = [
        [f"`{one.name}`", one.severity, when, "at once" if one.happens_once else f"{one.fires_after:g} s"]
        for one, when in ((one, CONDITIONS[one.name]) for one in ALERTS)
    ]
    return _table(["alert", "severity", "active when", "for"], rows)


def cloudwatch() -> str:
    """Return the table of CloudWatch's metrics."""
    rows = [[f"`{one.name}`", one.unit, one.statistic, one.by or "", one.meaning] for one in catalogue.ALL]
    return _table(["metric", "unit", "statistic", "also by", "what it is"], rows)


def prometheus() -> str:
    """Return the table of Prometheus' collectors."""
    rows = sorted(
        [
            f"`langpont_session_{one.name}{'_total' if one.kind is catalogue.Kind.COUNTER else ''}`",
            str(one.kind),
            ", ".join(one.labels),
            one.text,
        ]
        for one in catalogue.EXPORTED
    )
    return _table(["metric", "type", "labels", "what it is"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])
