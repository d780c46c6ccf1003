"""Rules on the dashboard: every graph has something to show, and nothing is drawn over something else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flask_langpont_session.ops.exporters import catalogue
from tests.infra.alarm_states import COMPOSITE_ALARM, METRIC_ALARM
from tests.infra.metrics import ELASTICACHE, KNOWN, NODE, own_dimensions
from tests.infra.rules import nodes, rule
from tests.infra.template import Deployment
from tests.support import metric_values

SEARCH = re.compile(r"SEARCH\('\{([^}]*)\} MetricName=\"(\w+)\" (.*)', '(\w+)', \d+\)")
LONGEST_SEARCH = 1024

SHOWN = {
    *((catalogue.NAMESPACE, metric) for metric in ("FallbackLevel", "Operations", "Errors", "OperationLatency")),
    *((catalogue.NAMESPACE, metric) for metric in ("CurrentLevel", "StoreDown", "GrantsRefused")),
    *((catalogue.NAMESPACE, metric) for metric in ("ActiveSessions", "FallbackOperations")),
    *((catalogue.NAMESPACE, metric.name) for metric in catalogue.LOSSES),
    *((ELASTICACHE, metric) for metric in ("EngineCPUUtilization", "Evictions", "ReplicationLag", "CurrConnections")),
    (ELASTICACHE, "DatabaseMemoryUsageCountedForEvictPercentage"),
}
"""What an operator looks for first."""


class Row(NamedTuple):
    """One row of a graph. `dimensions`: name → values."""

    title: str
    namespace: str
    name: str
    dimensions: Mapping[str, frozenset[str]]
    statistic: str
    axis: str


def widgets(deployment: Deployment) -> list[dict[str, Any]]:
    """The widgets of the dashboard; none if its text is no JSON, which `dashboard_text` reports."""
    found = []
    for dashboard in deployment.of_type("AWS::CloudWatch::Dashboard").values():
        try:
            found += json.loads(dashboard["DashboardBody"])["widgets"]
        except (ValueError, KeyError, TypeError):
            continue
    return found


def rows(deployment: Deployment) -> Iterator[Row]:
    """The metrics of all graphs, searched ones too; an expression that is not understood has no namespace."""
    for widget in widgets(deployment):
        properties = widget["properties"]
        for entry in properties.get("metrics", []):
            options = entry[-1] if isinstance(entry[-1], dict) else {}
            yield _row(entry, options, properties)


def _row(entry: list[Any], options: Mapping[str, Any], properties: Mapping[str, Any]) -> Row:
    title, axis = properties.get("title", ""), options.get("yAxis", "left")
    if "expression" not in options:
        parts = [part for part in entry if isinstance(part, str)]
        pairs = zip(parts[2::2], parts[3::2], strict=False)
        dimensions = {name: frozenset({value}) for name, value in pairs}
        return Row(title, parts[0], parts[1], dimensions, options.get("stat", properties.get("stat", "Average")), axis)
    expression = options["expression"]
    found = SEARCH.fullmatch(expression)
    if found is None:
        return Row(title, "", expression, {}, "", axis)
    namespace, *dimension_names = found[1].split(",")
    values: dict[str, set[str]] = {name: set() for name in dimension_names}
    for name, value in re.findall(r'(\w+)="([^"]*)"', found[3]):
        values.setdefault(name, set()).add(value)
    return Row(title, namespace, found[2], {n: frozenset(v) for n, v in values.items()}, found[4], axis)


@rule
def dashboard_text(d: Deployment) -> Iterator[str]:
    """The text is JSON with widgets once everything is put in."""
    if not widgets(d):
        yield "there is no dashboard that CloudWatch would take"
    for leaf in (str(widget) for widget in widgets(d)):
        if "${" in leaf:
            yield f"not filled in: {leaf}"


@rule
def dashboard_rows(d: Deployment) -> Iterator[str]:
    """Every row is of a published metric, under exactly the dimensions of its publisher."""
    own = {name: frozenset({value}) for name, value in own_dimensions(d).items()}
    for row in rows(d):
        if row.name == metric_values.ERROR_RATE:
            continue
        known = KNOWN.get((row.namespace, row.name))
        if known is None:
            yield f"{row.title}: nothing publishes {row.namespace} {row.name}"
        elif frozenset(row.dimensions) not in known.by:
            yield f"{row.title}: {row.name} is not published by {sorted(row.dimensions)}"
        elif row.namespace == catalogue.NAMESPACE and not own.items() <= row.dimensions.items():
            yield f"{row.title}: {row.name} of another environment or service"
        elif row.namespace == ELASTICACHE and row.dimensions[NODE] != frozenset(nodes(d)):
            yield f"{row.title}: {sorted(row.dimensions[NODE])} are not the nodes"
    for widget in widgets(d):
        for entry in widget["properties"].get("metrics", []):
            if isinstance(entry[-1], dict) and len(entry[-1].get("expression", "")) > LONGEST_SEARCH:
                yield f"{widget['properties'].get('title')}: the search is too long"


@rule
def dashboard_statistics(d: Deployment) -> Iterator[str]:
    """An average hides the slow ones and halves a level."""
    for row in rows(d):
        known = KNOWN.get((row.namespace, row.name))
        if known and row.statistic not in known.statistics:
            yield f"{row.title}: {row.statistic} of {row.name}"


@rule
def dashboard_complete(d: Deployment) -> Iterator[str]:
    """The dashboard shows what an operator looks for first, and the state of the alarms above it."""
    if not widgets(d):
        return
    for namespace, name in sorted(SHOWN - {(row.namespace, row.name) for row in rows(d)}):
        yield f"{namespace} {name} is not shown"
    all_alarms = {**d.of_type(METRIC_ALARM), **d.of_type(COMPOSITE_ALARM)}
    declared = {f"<{name}.Arn>" for name in all_alarms if not name.startswith("Shard")}
    shown = {arn for widget in widgets(d) for arn in widget["properties"].get("alarms", [])}
    if shown != declared:
        yield f"alarms shown: {sorted(shown ^ declared)} are missing or too many"
    latency = [row for row in rows(d) if row.name == catalogue.OPERATION_LATENCY.name]
    percentiles = {row.statistic for row in latency if len(row.dimensions) == len(catalogue.DIMENSIONS)}
    if not {"p50", "p95", "p99"} <= percentiles:
        yield f"of the latency only {sorted(percentiles)}"
    if not any(row.statistic == "p99" and catalogue.OPERATION_LATENCY.by in row.dimensions for row in latency):
        yield "which operation is slow is not shown"
