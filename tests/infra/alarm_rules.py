"""Rules on alarms: each can fire, on what exists, in the right unit, and is sent to a topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from flask_langpont_session.config.settings import LONGEST_METRICS_INTERVAL, Settings
from flask_langpont_session.metrics import catalogue
from flask_langpont_session.stores.redis.near import MOST_LANES
from tests.infra.metrics import ELASTICACHE, KNOWN, NODE, own_dimensions, watched
from tests.infra.rules import TOPICS, nodes, rule
from tests.infra.template import Deployment

LIMITS = {"Percent": (1, 99), "Seconds": (1, 60), "Milliseconds": (1, 1000), "None": (1, 4)}
"""Between which a threshold can mean something, by unit. Of counts see :func:`alarm_thresholds`."""

NODE_METRICS = ("EngineCPUUtilization", "DatabaseMemoryUsageCountedForEvictPercentage", "CurrConnections", "Evictions")
"""Every node has an alarm on each of these."""

_IN_THE_POOL: Any = {f.name: f.default for f in fields(Settings)}["redis_max_connections"]
CONNECTIONS_OF_A_PROCESS = _IN_THE_POOL + MOST_LANES
"""How many connections one worker may open, those of its near cache among them."""

MONITORING = 4
"""Connections to each node that ElastiCache itself holds."""

SHARED = {catalogue.ERRORS.name, catalogue.OPERATIONS.name}
"""Alarms on these are on the share of the one in the other, in percent."""

WATCHED = (
    catalogue.HEARTBEAT,
    catalogue.ERRORS,
    catalogue.FALLBACK_LEVEL,
    catalogue.OPERATION_LATENCY,
    catalogue.DATA_LOSSES,
    catalogue.WRITES_LOST,
    catalogue.ALERTS_FAILED,
)
"""What the application reports and an operator has to know."""

LEVELS = {1: "WarningTopic", 2: "CriticalTopic", 4: "EmergencyTopic"}
"""Which fallback level is how grave."""


def alarms(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Properties of all alarms."""
    return deployment.of_type("AWS::CloudWatch::Alarm")


@rule
def alarm_form(d: Deployment) -> Iterator[str]:
    """CloudWatch takes the alarm, and it says what it does when data is missing."""
    for name, alarm in alarms(d).items():
        periods, datapoints = alarm.get("EvaluationPeriods", 0), alarm.get("DatapointsToAlarm", 0)
        if not 1 <= datapoints <= periods:
            yield f"{name}: {datapoints} of {periods} datapoints"
        if "TreatMissingData" not in alarm:
            yield f"{name} does not say what missing data means"
        if any(metric.period % 60 or not metric.period for metric in watched(alarm)):
            yield f"{name}: the metrics come once a minute"
        queries = alarm.get("Metrics", [])
        expressions = [query for query in queries if "Expression" in query]
        if queries and ("MetricName" in alarm or [q for q in queries if q.get("ReturnData")] != expressions[:1]):
            yield f"{name} does not watch exactly one expression"
        if len(queries) - len(expressions) > 10 or any("SEARCH" in query["Expression"] for query in expressions):
            yield f"{name}: alarms read ten metrics at most, and cannot search"


@rule
def alarm_actions(d: Deployment) -> Iterator[str]:
    """The topic that is told the beginning is told the end."""
    for name, alarm in alarms(d).items():
        told = alarm.get("AlarmActions", [])
        if len(told) != 1 or told[0] not in {f"<{topic}>" for topic in TOPICS[1:]}:
            yield f"{name} tells {told}, not one topic of ours"
        if alarm.get("OKActions") != told:
            yield f"{name} does not tell its end where it told its beginning"
        if alarm.get("ActionsEnabled") is False:
            yield f"{name} is silent"


@rule
def alarm_metrics(d: Deployment) -> Iterator[str]:
    """What an alarm watches is published: by that name, under those dimensions, with a statistic that has a sense."""
    for name, alarm in alarms(d).items():
        for metric in watched(alarm):
            known = KNOWN.get((metric.namespace, metric.name))
            if known is None:
                yield f"{name}: nothing publishes {metric.namespace} {metric.name}"
            elif frozenset(metric.dimensions) not in known.by:
                yield f"{name}: {metric.name} is not published by {sorted(metric.dimensions)}"
            elif metric.statistic not in known.statistics:
                yield f"{name}: {metric.statistic} of {metric.name}"
            if metric.namespace == catalogue.NAMESPACE:
                own = own_dimensions(d)
                if any(own.get(key, value) != value for key, value in metric.dimensions.items()):
                    yield f"{name} watches another environment or service: {dict(metric.dimensions)}"


@rule
def alarm_periods(d: Deployment) -> Iterator[str]:
    """In every period that an alarm counts each process has reported, however rarely it may do so."""
    for name, alarm in alarms(d).items():
        for metric in watched(alarm):
            if metric.namespace == catalogue.NAMESPACE and metric.period < LONGEST_METRICS_INTERVAL:
                yield f"{name} counts {metric.period} s, and METRICS_INTERVAL may be {LONGEST_METRICS_INTERVAL} s"


@rule
def alarm_nodes(d: Deployment) -> Iterator[str]:
    """Alarms on nodes are on nodes that exist. The group's own id is none of them."""
    for name, alarm in alarms(d).items():
        for metric in watched(alarm):
            if metric.namespace == ELASTICACHE and metric.dimensions.get(NODE, nodes(d)[0]) not in nodes(d):
                yield f"{name}: {metric.dimensions[NODE]} is no node of {nodes(d)}"


@rule
def alarm_coverage(d: Deployment) -> Iterator[str]:
    """Every node has all its alarms, and they are the same on each."""
    wanted = list(NODE_METRICS)
    if int(d.parameters["ReplicasPerShard"]):
        wanted.append("ReplicationLag")
    if d.parameters["NodeType"].startswith("cache.t"):
        wanted.append("CPUCreditBalance")
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for alarm in alarms(d).values():
        if "MetricName" in alarm and alarm.get("Namespace") == ELASTICACHE:
            node = next(watched(alarm)).dimensions.get(NODE, "no node")
            rest = {key: value for key, value in alarm.items() if key != "Dimensions"}
            found.setdefault(alarm["MetricName"], {}).setdefault(node, []).append(rest)
    for metric in wanted:
        on = found.get(metric, {})
        for node in nodes(d):
            if len(on.get(node, [])) != 1:
                yield f"{len(on.get(node, []))} alarms on {metric} of {node}"
        if any(alike != next(iter(on.values())) for alike in on.values()):
            yield f"the alarms on {metric} are not the same on every node"
    for alarm in alarms(d).values():
        if alarm.get("MetricName") == "EngineCPUUtilization" and not alarm.get("InsufficientDataActions"):
            yield "no alarm notices a node that reports nothing"
    for metric in set(found) - set(wanted):
        yield f"{metric} says nothing here"
    guarded = {
        m.dimensions.get(NODE) for a in alarms(d).values() for m in watched(a) if m.name == "AuthenticationFailures"
    }
    if guarded != set(nodes(d)):
        yield "no alarm notices failed sign-ins on every node"


@rule
def alarm_thresholds(d: Deployment) -> Iterator[str]:
    """Thresholds fit the unit: a lag of 5000 is 83 minutes, and 45 connections are two workers."""
    for name, alarm in alarms(d).items():
        threshold, low = alarm["Threshold"], alarm["ComparisonOperator"].startswith("Less")
        for metric in watched(alarm):
            known = KNOWN.get((metric.namespace, metric.name))
            if known is None:
                continue
            unit = "Percent" if metric.name in SHARED else known.unit
            least, most = LIMITS.get(unit, (0, float("inf")))
            if not least <= threshold <= most:
                yield f"{name}: {threshold} {unit}"
            if low is not (metric.name in ("Heartbeat", "CPUCreditBalance")):
                yield f"{name}: {metric.name} is compared the wrong way"
            if metric.name == "CurrConnections" and threshold < 4 * CONNECTIONS_OF_A_PROCESS + MONITORING:
                yield f"{name}: four processes alone open more than {threshold} connections"
            if metric.name == "ReplicationLag" and alarm.get("TreatMissingData") != "notBreaching":
                yield f"{name}: a primary has no lag, so it is missing there"


@rule
def alarm_set(d: Deployment) -> Iterator[str]:
    """What the application reports is watched: its life, its errors, its level, its latency, lost data, whether its
    journals keep what they should, and whether it can send alerts."""
    own = {
        metric.name: (name, alarm)
        for name, alarm in alarms(d).items()
        for metric in watched(alarm)
        if metric.namespace == catalogue.NAMESPACE
    }
    for metric in WATCHED:
        if metric.name not in own:
            yield f"nothing watches {metric.name}"
    for name, alarm in alarms(d).items():
        watches = {metric.name for metric in watched(alarm)}
        if catalogue.HEARTBEAT.name in watches and alarm.get("TreatMissingData") != "breaching":
            yield f"{name}: a process that is gone publishes nothing"
        if catalogue.ERRORS.name in watches and (
            [query["Expression"] for query in alarm.get("Metrics", []) if "Expression" in query]
            != [catalogue.ERROR_RATE]
            or watches != {catalogue.ERRORS.name, catalogue.OPERATIONS.name}
        ):
            yield f"{name} is not the share of failed operations"
        if catalogue.OPERATION_LATENCY.name in watches and alarm.get("ExtendedStatistic") != "p99":
            yield f"{name} hides the slow ones"
    levels = {a["Threshold"]: a["AlarmActions"] for a in alarms(d).values() if a.get("MetricName") == "FallbackLevel"}
    if levels != {level: [f"<{topic}>"] for level, topic in LEVELS.items()}:
        yield f"levels are told as {levels}"
