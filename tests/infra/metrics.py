"""What alarms and dashboard show: every metric with its unit and the statistics of it that mean something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flask_langpont_session.metrics import catalogue
from tests.infra.template import Deployment

ELASTICACHE = "AWS/ElastiCache"
NODE = "CacheClusterId"


class Known(NamedTuple):
    """:param by: the dimension sets under which it is published."""

    unit: str
    statistics: frozenset[str]
    by: tuple[frozenset[str], ...]


def _own(metric: catalogue.Metric) -> Known:
    base = frozenset(catalogue.DIMENSIONS)
    percentiles = frozenset({"p50", "p95", "p99"}) if metric.statistic.startswith("p") else frozenset()
    by = (base,) if metric.by is None else (base, base | {metric.by})
    return Known(metric.unit, percentiles | {metric.statistic}, by)


def _node(unit: str, statistic: str) -> Known:
    return Known(unit, frozenset({statistic}), (frozenset({NODE}),))


KNOWN: Mapping[tuple[str, str], Known] = {
    **{(catalogue.NAMESPACE, metric.name): _own(metric) for metric in catalogue.ALL},
    # From the metrics pages of the ElastiCache user guide; each is published per node.
    (ELASTICACHE, "EngineCPUUtilization"): _node("Percent", "Average"),
    (ELASTICACHE, "DatabaseMemoryUsageCountedForEvictPercentage"): _node("Percent", "Average"),
    (ELASTICACHE, "CurrConnections"): _node("Count", "Maximum"),
    (ELASTICACHE, "ReplicationLag"): _node("Seconds", "Maximum"),
    (ELASTICACHE, "CPUCreditBalance"): _node("Credits", "Minimum"),
    (ELASTICACHE, "Evictions"): _node("Count", "Sum"),
    (ELASTICACHE, "AuthenticationFailures"): _node("Count", "Sum"),
    (ELASTICACHE, "SwapUsage"): _node("Bytes", "Maximum"),
}


class Watched(NamedTuple):
    """One metric that an alarm reads."""

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
    return Watched(metric.get("Namespace", ""), metric["MetricName"], dimensions, statistic, period)


def own_dimensions(deployment: Deployment) -> dict[str, str]:
    """The dimensions under which the application of this deployment publishes every metric."""
    values = (deployment.parameters["Environment"], deployment.parameters["ServiceName"])
    return dict(zip(catalogue.DIMENSIONS, values, strict=True))
