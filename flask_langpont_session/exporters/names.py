"""The published metrics by name: what each counts, in which unit, and by which dimensions CloudWatch keeps it apart.

Dashboards, alarms and exporters all take names from here. CloudWatch does not add up over dimensions: every metric is
published under :data:`DIMENSIONS` alone, and those with a `by` once more under the same and that one. Dimensions are
closed sets, never a host, a process, a user or an error text: each combination is a metric that is paid for.
"""

from __future__ import annotations

from typing import NamedTuple

NAMESPACE = "LangPont/Session"

DIMENSIONS = ("Environment", "Service")
"""Of every metric; their values are the settings ENVIRONMENT and SERVICE."""


class Metric(NamedTuple):
    """One published metric.

    :param name: in CloudWatch.
    :param unit: as CloudWatch spells it.
    :param statistic: the one that means something: ``Sum`` of counts, ``Maximum`` of states, ``p99`` of distributions.
    :param by: a third dimension under which it is published as well.
    """

    name: str
    unit: str
    statistic: str
    by: str | None = None


ACTIVE_SESSIONS = Metric("ActiveSessions", "Count", "Maximum")
OPERATION_LATENCY = Metric("OperationLatency", "Milliseconds", "p99", by="Operation")
OPERATIONS = Metric("Operations", "Count", "Sum", by="Operation")
ERRORS = Metric("Errors", "Count", "Sum", by="Operation")
FALLBACK_LEVEL = Metric("FallbackLevel", "None", "Maximum")
FALLBACK_OPERATIONS = Metric("FallbackOperations", "Count", "Sum", by="Backend")
CIRCUIT_TRANSITIONS = Metric("CircuitTransitions", "Count", "Sum")
SERVER_CHANGES = Metric("ServerChanges", "Count", "Sum")
DATA_LOSSES = Metric("DataLosses", "Count", "Sum")
SESSIONS_CREATED = Metric("SessionsCreated", "Count", "Sum")
SESSIONS_REGENERATED = Metric("SessionsRegenerated", "Count", "Sum")
SESSIONS_ENDED = Metric("SessionsEnded", "Count", "Sum")
GRANTS_REFUSED = Metric("GrantsRefused", "Count", "Sum")
VALUES_REJECTED = Metric("ValuesRejected", "Count", "Sum")
METRICS_DROPPED = Metric("MetricsDropped", "Count", "Sum")
ALERTS_SUPPRESSED = Metric("AlertsSuppressed", "Count", "Sum")
HEARTBEAT = Metric("Heartbeat", "Count", "Sum")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""Every metric."""

ERROR_RATE = "IF(operations > 0, 100 * errors / operations, 0)"
"""ErrorRate in percent, by metric math over the sums of :data:`ERRORS` and :data:`OPERATIONS`: a share cannot be added
up over processes, so it is not published."""
