"""Rules on alarms: each can fire, on what exists, in the right unit, and is sent to a topic."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from flask_langpont_session.ops.exporters import catalogue, exporting
from flask_langpont_session.stores.redis.near import MOST_LANES
from flask_langpont_session.stores.redis.url import CONNECTIONS
from tests.infra.alarm_states import ALARM, COMPOSITE_ALARM, METRIC_ALARM, OK, asked, histories, holds
from tests.infra.metrics import ELASTICACHE, KNOWN, NETWORK, NODE, own_dimensions, watched
from tests.infra.rules import TOPICS, nodes, rule
from tests.infra.template import Deployment
from tests.support import metric_values

LIMITS = {
    "Percent": (1, 99),
    "Seconds": (1, 60),
    "Milliseconds": (1, 1000),
    "None": (1, 4),
    catalogue.JOURNAL_OLDEST_SECONDS.name: (300, 1500),  # before LOCAL_CACHE_TTL, with time to act
}
"""Between which a threshold can mean something, by unit. Of counts see :func:`alarm_thresholds`."""

NODE_METRICS = (
    "EngineCPUUtilization", "CPUUtilization", "DatabaseMemoryUsageCountedForEvictPercentage", "CurrConnections",
    "Evictions", "FreeableMemory", "SwapUsage", *(f"Network{what}AllowanceExceeded" for what in NETWORK),
    "CommandAuthorizationFailures", "KeyAuthorizationFailures", "ReplicationLag",
)  # fmt: skip
"""Every node has an alarm on each of these."""

FOUR_PROCESSORS = ".xlarge"
"""The end of the names of node types with four processors; all others of the template have two."""

_IN_THE_POOL = CONNECTIONS
CONNECTIONS_OF_A_PROCESS = _IN_THE_POOL + MOST_LANES
"""How many connections one worker may open, those of its near cache among them."""

MONITORING = 4
"""Connections to each node that ElastiCache itself holds."""

SHARED = {
    metric.name
    for metric in (
        catalogue.ERRORS,
        catalogue.OPERATIONS,
        catalogue.COOKIES_REFUSED,
        catalogue.NEAR_CACHE_HITS,
        catalogue.GRANTS_REFUSED,
    )
}
"""Alarms on these are on the share of one in others: in percent, or in errors for each that the objective allows."""

WATCHED = (
    catalogue.HEARTBEAT,
    catalogue.ERRORS,
    catalogue.CURRENT_LEVEL,
    catalogue.STORE_DOWN,
    catalogue.OPERATION_LATENCY,
    catalogue.DATA_LOSSES,
    catalogue.WRITES_LOST,
    catalogue.MERGE_DROPPED,
    catalogue.JOURNAL_OLDEST_SECONDS,
    catalogue.GRANTS_REFUSED,
    catalogue.COOKIES_REFUSED,
    catalogue.ALERTS_FAILED,
)
"""What the application reports and an operator has to know."""

ONE_IS_ENOUGH = {
    catalogue.STORE_DOWN.name,
    catalogue.DATA_LOSSES.name,
    catalogue.WRITES_LOST.name,
    catalogue.MERGE_DROPPED.name,
    catalogue.ALERTS_FAILED.name,
    "Evictions",
    "ThrottledCmds",
}
"""What must never happen: alarms on these fire at the first, as that on the heartbeat does when there is none."""

LEVELS = {1: "CriticalTopic", 2: "CriticalTopic", 4: "EmergencyTopic"}
"""Which fallback level is how grave."""

DOWN = {"primary": "CriticalTopic", "replica": "WarningTopic", "database": "CriticalTopic"}
"""And which store that is away."""

LONGEST_RULE = 10_240
"""Characters of the rule of a composite alarm; names have up to 255."""


def alarms(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Properties of all alarms on metrics."""
    return deployment.of_type(METRIC_ALARM)


def incidents(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Properties of all alarms on alarms."""
    return deployment.of_type(COMPOSITE_ALARM)


def parts(incident: Mapping[str, Any]) -> set[str]:
    """The alarms that an incident consists of: not those without which it is one."""
    return {name.strip("<>") for name in asked(re.sub(r'NOT ALARM\("[^"]*"\)', "", incident["AlarmRule"]))}


def topics_of(deployment: Deployment, name: str) -> list[str]:
    """The topics that are told of an alarm: its own, or those of its incidents."""
    of_incidents = [
        topic for one in incidents(deployment).values() if name in parts(one) for topic in one["AlarmActions"]
    ]
    return [*alarms(deployment)[name].get("AlarmActions", []), *of_incidents]


LONGEST_EVALUATION = 86_400
"""Seconds that an alarm can look back over."""

_LESS = "LessThanThreshold"
_MISSING = {"breaching", "notBreaching", "ignore", "missing"}


@rule
def alarm_form(d: Deployment) -> Iterator[str]:
    """CloudWatch takes the alarm, and it says what it does when data is missing."""
    for name, alarm in alarms(d).items():
        periods, datapoints = alarm.get("EvaluationPeriods", 0), alarm.get("DatapointsToAlarm", 0)
        if not 1 <= datapoints <= periods:
            yield f"{name}: {datapoints} of {periods} datapoints"
        if alarm.get("TreatMissingData") not in _MISSING:
            yield f"{name} does not say what missing data means"
        if any(metric.period % 60 or not metric.period for metric in watched(alarm)):
            yield f"{name}: the metrics come once a minute"
        if any(metric.period * periods > LONGEST_EVALUATION for metric in watched(alarm)):
            yield f"{name} looks back over more than a day"
    for name, alarm in {**alarms(d), **incidents(d)}.items():
        section = f". {d.parameters['Runbook']}#{re.sub(r'^Shard[0-9]Node[0-9]', '', name).lower()}"
        if not (alarm.get("AlarmDescription", "").endswith(section) and len(alarm["AlarmDescription"]) <= 1024):
            yield f"{name} does not say where to read on, or its description is too long"


@rule
def alarm_actions(d: Deployment) -> Iterator[str]:
    """Each alarm tells one topic, by itself or by its incident, and tells it the beginning and the end."""
    for name in alarms(d):
        if len(topics_of(d, name)) != 1 or topics_of(d, name)[0] not in {f"<{topic}>" for topic in TOPICS[1:]}:
            yield f"of {name} {topics_of(d, name)} are told, not one topic of ours"
    for name, alarm in {**alarms(d), **incidents(d)}.items():
        if alarm.get("OKActions") != alarm.get("AlarmActions"):
            yield f"{name} does not tell its end where it told its beginning"
        if alarm.get("ActionsEnabled", "true") != d.parameters["AlarmActions"]:
            yield f"{name} is silent, or not to be silenced"
        if alarm.get("InsufficientDataActions") and alarm.get("TreatMissingData") != "missing":
            yield f"{name} never lacks data, so that it is not told"
        for key in ("AlarmActions", "OKActions", "InsufficientDataActions"):
            if not set(alarm.get(key, [])) <= {f"<{topic}>" for topic in TOPICS}:
                yield f"{name}: {key} tells what is no topic of ours"


@rule
def alarm_incidents(d: Deployment) -> Iterator[str]:
    """Incidents consist of alarms that there are, each node is one, and level 4 silences those of single stores."""
    for name, incident in incidents(d).items():
        if written := [one for one in asked(incident["AlarmRule"]) if not one.startswith("<")]:
            yield f"{name}: {sorted(written)} are no alarms of this stack"
        if len(incident["AlarmRule"]) + 200 * len(asked(incident["AlarmRule"])) > LONGEST_RULE:
            yield f"{name}: the rule may become too long"
        if sleeping := [part for part in sorted(parts(incident)) if _sleeps(incident, part)]:
            yield f"{name} does not begin with {sleeping} alone"
        watches = {w.name for part in parts(incident) & set(alarms(d)) for w in watched(alarms(d)[part])}
        is_silenced = incident.get("ActionsSuppressor") == "<WithoutStores>"
        if is_silenced is not (catalogue.STORE_DOWN.name in watches):
            yield f"{name}: when neither store answers, that is one incident"
        if is_silenced and not {"ActionsSuppressorWaitPeriod", "ActionsSuppressorExtensionPeriod"} <= set(incident):
            yield f"{name}: both periods belong to a suppressor"
    nodes_of = {name[: len("Shard1Node1")] for name in alarms(d) if name.startswith("Shard")}
    for node in nodes_of:
        strangers = {part for part in parts(incidents(d).get(f"{node}Health", {"AlarmRule": ""})) if node not in part}
        if strangers or f"{node}Health" not in incidents(d):
            yield f"{node} is no incident of its own: {strangers}"


def _sleeps(incident: Mapping[str, Any], part: str) -> bool:
    """Return whether this part does not raise the incident, alone or where another one alone does not either; or the
    incident is there without any part."""
    rule, fine = incident["AlarmRule"], dict.fromkeys(asked(incident["AlarmRule"]), OK)
    idle = [other for other in fine if not holds(rule, {**fine, other: ALARM})]
    is_begun = any(holds(rule, {**fine, other: ALARM, f"<{part}>": ALARM}) for other in (f"<{part}>", *idle))
    return f'ALARM("<{part}>")' in rule and (holds(rule, fine) or not is_begun)


@rule
def alarm_beginning(d: Deployment) -> Iterator[str]:
    """No alarm is told while the application of a stack does not run yet."""
    composites = {f"<{name}>": incident for name, incident in incidents(d).items()}
    try:
        states = histories({f"<{name}>": alarm for name, alarm in alarms(d).items()}, composites, {}, 2)
    except (KeyError, ValueError, AttributeError):
        return  # what is malformed is another rule's
    for name, history in states.items():
        if ALARM in history and {**alarms(d), **incidents(d)}[name.strip("<>")].get("AlarmActions"):
            yield f"{name} is told before there is an application"


@rule
def alarm_metrics(d: Deployment) -> Iterator[str]:
    """Each watched metric is published: by that name, under those dimensions, with a meaningful statistic."""
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
    """Each process reports at least once in every period that an alarm counts, however rarely it may do so."""
    for name, alarm in alarms(d).items():
        for metric in watched(alarm):
            if metric.namespace == catalogue.NAMESPACE and metric.period < exporting.INTERVAL:
                yield f"{name} counts {metric.period} s, and figures are published every {exporting.INTERVAL:g} s"


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
    if d.parameters["NodeType"].startswith("cache.t"):
        wanted.append("CPUCreditBalance")
    found: dict[str, dict[str, list[Any]]] = {}
    for name, alarm in alarms(d).items():
        for read in watched(alarm) if name.startswith("Shard") else ():
            node = read.dimensions.get(NODE, "no node")
            found.setdefault(read.name, {}).setdefault(node, []).append(_without_dimensions(alarm))
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


def _without_dimensions(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_dimensions(item) for item in node]
    if isinstance(node, dict):
        return {key: _without_dimensions(value) for key, value in node.items() if key != "Dimensions"}
    return node


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
            least, most = LIMITS.get(metric.name) or LIMITS.get(unit, (0, 1 << 62))
            if not least <= threshold <= most:
                yield f"{name}: {threshold} {unit}"
            if low is not (metric.name in ("Heartbeat", "CPUCreditBalance")):
                yield f"{name}: {metric.name} is compared the wrong way"
            if metric.name == "CurrConnections" and threshold < 4 * CONNECTIONS_OF_A_PROCESS + MONITORING:
                yield f"{name}: four processes alone open more than {threshold} connections"
            processors = 4 if d.parameters.get("NodeType", "").endswith(FOUR_PROCESSORS) else 2
            if metric.name == "CPUUtilization" and threshold != (45 if processors == 2 else 90):
                yield f"{name}: {threshold} percent of {processors} processors"
            first = threshold + (alarm["ComparisonOperator"] == "GreaterThanThreshold")
            if metric.name in ONE_IS_ENOUGH and first != 1:
                yield f"{name}: one {metric.name} is one too many, {first} are needed"
            if metric.name == catalogue.HEARTBEAT.name and (alarm["ComparisonOperator"], threshold) != (_LESS, 1):
                yield f"{name} waits for less than no heartbeat, or misses one that is there"
            if metric.name == "ReplicationLag" and alarm.get("TreatMissingData") != "notBreaching":
                yield f"{name}: a primary has no lag, so it is missing there"


@rule
def alarm_set(d: Deployment) -> Iterator[str]:
    """Alarms watch all that the application reports: its life, its errors, its level, its stores, its latency, lost
    data, whether its journals keep what they should, and whether it can send alerts."""
    own = {metric.name for alarm in alarms(d).values() for metric in watched(alarm)}
    for metric in WATCHED:
        if metric.name not in own:
            yield f"nothing watches {metric.name}"
    for name, alarm in alarms(d).items():
        yield from _meaning(name, alarm, {metric.name for metric in watched(alarm)})
    heartbeats = [a["TreatMissingData"] for a in alarms(d).values() if a.get("MetricName") == catalogue.HEARTBEAT.name]
    if sorted(heartbeats) != ["breaching", "ignore", "notBreaching"]:
        yield "a process that is gone publishes nothing, and one that never was is not missed"
    latencies = {
        topic: _thresholds(d, catalogue.OPERATION_LATENCY, topic) for topic in ("WarningTopic", "CriticalTopic")
    }
    if not latencies["WarningTopic"] < latencies["CriticalTopic"]:
        yield f"a latency is critical before it is a warning, or only one of both: {latencies}"
    levels = {
        alarm["Threshold"]: topics_of(d, name)
        for name, alarm in alarms(d).items()
        if alarm.get("MetricName") == catalogue.CURRENT_LEVEL.name
    }
    if levels != {level: [f"<{topic}>"] for level, topic in LEVELS.items()}:
        yield f"levels are told as {levels}"
    stores = {
        metric.dimensions.get("Store"): topics_of(d, name)
        for name, alarm in alarms(d).items()
        for metric in watched(alarm)
        if metric.name == catalogue.STORE_DOWN.name
    }
    if stores != {store: [f"<{topic}>"] for store, topic in DOWN.items()}:
        yield f"stores are told as {stores}"


def _thresholds(d: Deployment, metric: catalogue.Metric, topic: str) -> list[int]:
    """Return the thresholds of the alarms on a metric that are told to this topic alone."""
    of_metric = {name: a for name, a in alarms(d).items() if metric.name in {w.name for w in watched(a)}}
    return [alarm["Threshold"] for name, alarm in of_metric.items() if topics_of(d, name) == [f"<{topic}>"]]


def _meaning(name: str, alarm: Mapping[str, Any], watches: set[str]) -> Iterator[str]:
    expressions = [query["Expression"] for query in alarm.get("Metrics", []) if "Expression" in query]
    if alarm.get("TreatMissingData") == "breaching" and alarm.get("DatapointsToAlarm") != alarm.get(
        "EvaluationPeriods"
    ):
        yield f"{name}: one minute in which nothing was published is none without the application"
    if catalogue.ERRORS.name in watches and (
        expressions != [metric_values.ERROR_RATE] or watches != {catalogue.ERRORS.name, catalogue.OPERATIONS.name}
    ):
        yield f"{name} is not the share of failed operations"
    if catalogue.OPERATION_LATENCY.name in watches and (
        expressions != ["IF(FILL(slow, 0) >= 10, p99, 0)"]
        or {q["Id"]: q["MetricStat"]["Stat"] for q in alarm["Metrics"] if "MetricStat" in q}
        != {"p99": "p99", "slow": f"TC({alarm['Threshold']}:)"}
    ):
        yield f"{name} hides the slow ones, or takes one of few for many"
    if catalogue.FALLBACK_LEVEL.name in watches:
        yield f"{name}: the worst of each process' interval makes minutes of a second"
    if watches & {catalogue.CURRENT_LEVEL.name, catalogue.STORE_DOWN.name} and alarm.get("DatapointsToAlarm", 0) < 2:
        yield f"{name}: one sample is no outage"
