"""Metrics for alarms and dashboard: each with its unit and its meaningful statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flask_langpont_session.ops.exporters import catalogue
from tests.infra.template import Deployment

ELASTICACHE = "AWS/ElastiCache"
NODE, CACHE = "CacheClusterId", "clusterId"
"""Dimensions of a node, and of a serverless cache."""


NETWORK = ("BandwidthIn", "BandwidthOut", "PacketsPerSecond", "Conntrack")
"""What of its network a node may use up."""


class Known(NamedTuple):
    """:param by: the dimension sets under which it is published."""

    unit: str
    statistics: frozenset[str]
    by: tuple[frozenset[str], ...]


def _own(metric: catalogue.Metric) -> Known:
    base = frozenset(catalogue.DIMENSIONS)
    percentiles = frozenset({"p50", "p95", "p99", "TC"}) if metric.statistic.startswith("p") else frozenset()
    by = (base,) if metric.by is None else (base, base | {metric.by})
    return Known(metric.unit, percentiles | {metric.statistic}, by)


def _node(unit: str, statistic: str, *dimensions: str) -> Known:
    return Known(unit, frozenset({statistic}), tuple(frozenset({name}) for name in dimensions or (NODE,)))


KNOWN: Mapping[tuple[str, str], Known] = {
    **{(catalogue.NAMESPACE, metric.name): _own(metric) for metric in catalogue.ALL},
    # From the metrics pages of the ElastiCache user guide; each is published per node.
    (ELASTICACHE, "EngineCPUUtilization"): _node("Percent", "Average"),
    (ELASTICACHE, "CPUUtilization"): _node("Percent", "Average"),
    (ELASTICACHE, "DatabaseMemoryUsageCountedForEvictPercentage"): _node("Percent", "Average"),
    (ELASTICACHE, "CurrConnections"): _node("Count", "Maximum", NODE, CACHE),
    (ELASTICACHE, "ReplicationLag"): _node("Seconds", "Maximum"),
    (ELASTICACHE, "CPUCreditBalance"): _node("Credits", "Minimum"),
    (ELASTICACHE, "Evictions"): _node("Count", "Sum", NODE, CACHE),
    (ELASTICACHE, "AuthenticationFailures"): _node("Count", "Sum", NODE, CACHE),
    (ELASTICACHE, "CommandAuthorizationFailures"): _node("Count", "Sum", NODE, CACHE),
    (ELASTICACHE, "KeyAuthorizationFailures"): _node("Count", "Sum", NODE, CACHE),
    (ELASTICACHE, "SwapUsage"): _node("Bytes", "Maximum"),
    (ELASTICACHE, "FreeableMemory"): _node("Bytes", "Minimum"),
    **{(ELASTICACHE, f"Network{what}AllowanceExceeded"): _node("Count", "Sum") for what in NETWORK},
    (ELASTICACHE, "ThrottledCmds"): _node("Count", "Sum", CACHE),
    (ELASTICACHE, "BytesUsedForCache"): _node("Bytes", "Maximum", CACHE),
}


class Watched(NamedTuple):
    """One metric that an alarm reads. `statistic`: of one with a range (``TC(50:)``), its name alone."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    statistic: str
    period: int


def watched(alarm: Mapping[str, Any]) -> Iterator[Watched]:
    """The metrics that an alarm reads, itself or by metric math."""
    if "MetricName" in alarm:
        statistic = alarm.get("Statistic", alarm.get("ExtendedStatistic", ""))
        yield _watched(alarm, statistic, alarm.get("Period", 0))
    for query in alarm.get("Metrics", []):
        if "MetricStat" in query:
            yield _watched(query["MetricStat"]["Metric"], query["MetricStat"]["Stat"], query["MetricStat"]["Period"])


def _watched(metric: Mapping[str, Any], statistic: str, period: int) -> Watched:
    dimensions = {d["Name"]: d["Value"] for d in metric.get("Dimensions", [])}
    name = statistic.partition("(")[0]
    return Watched(metric.get("Namespace", ""), metric["MetricName"], dimensions, name, period)


def own_dimensions(deployment: Deployment) -> dict[str, str]:
    """The dimensions under which the application of this deployment publishes every metric."""
    values = (deployment.parameters["Environment"], deployment.parameters["ServiceName"])
    return dict(zip(catalogue.DIMENSIONS, values, strict=True))
