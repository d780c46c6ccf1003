"""Metrics and labels in expressions of PromQL, compared with those of the exporter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from flask_langpont_session.metrics.losses import Cause
from flask_langpont_session.ops.exporters.prometheus import SECONDS
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE
from tests.support import metric_values
from tools.tables import prometheus

_TABLE = re.compile(r"^\| `(langpont_session_\w+)` \| (\w+) \| ([\w, ]*) \|", re.MULTILINE)
"""The exporter's metrics, by the table that the docs have of them."""

_PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
_SELECTOR = re.compile(r"(?<![\w:])(langpont_session_\w+)(?![\w:])(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_RECORDED = re.compile(r"\b\w+:langpont_session_\w+:\w+\b")
_GROUPED = re.compile(r"\b(?:by|on|without) \(([^)]*)\)")

OF_TARGET = {"job", "instance"}
VALUES: Mapping[str, set[str]] = {
    "backend": {PRIMARY, REPLICA, DATABASE, "none", *metric_values.BACKEND_VALUES},
    "way": {READ, WRITE},
    "operation": {*metric_values.OPERATION_VALUES, "request", "request_save"},
    "outcome": {"ok", "miss"},
    "le": {str(bound) for bound in SECONDS},
    "event": {"created", "regenerated", "ended", "expired"},
    "to": {"open", "closed"},
    "sink": {"cloudwatch"},
    "why": {"signature", "form"},
    "cause": {*Cause},
}
"""Label → the values that an expression may ask for."""


class Exported(NamedTuple):
    """One metric of the exporter."""

    type: str
    labels: frozenset[str]


def exported() -> dict[str, Exported]:
    """Each name of a series that the exporter shows, with its labels."""
    return {
        f"{name}{part}": Exported(
            kind, frozenset(labels.split(", ") if labels else ()) | ({"le"} if part == "_bucket" else set())
        )
        for name, kind, labels in _TABLE.findall(prometheus())
        for part in _PARTS[kind]
    }


def metrics_of(expression: str) -> set[str]:
    """The names of the exporter's series in it."""
    return {name for name, _ in _SELECTOR.findall(expression)}


def recorded_of(expression: str) -> set[str]:
    """The names of recorded series in it."""
    return set(_RECORDED.findall(expression))


def mistakes(expression: str, known: Mapping[str, Exported]) -> Iterator[str]:
    """Yield the mistakes of an expression: metrics, labels and values that the exporter does not have, and wrong
    uses of counters and gauges."""
    labels = set(OF_TARGET)
    for name, matchers in _SELECTOR.findall(expression):
        if name not in known:
            yield f"no metric {name}"
            continue
        labels |= known[name].labels
        for label, _, wanted in _MATCHER.findall(matchers):
            if label not in known[name].labels | OF_TARGET:
                yield f"{name} has no label {label}"
            elif label not in OF_TARGET and not set(wanted.split("|")) <= VALUES[label]:
                yield f"{label} of {name} is never {wanted}"
        is_counted = re.search(rf"\b(rate|increase)\({name}\b", expression) is not None
        if is_counted != (known[name].type != "gauge"):
            yield f"{name} is a {known[name].type}"
    if metrics_of(expression):
        for grouped in _GROUPED.findall(expression):
            yield from (f"no label {label}" for label in grouped.split(", ") if label not in labels)
