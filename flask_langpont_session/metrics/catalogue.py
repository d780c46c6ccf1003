"""The published metrics by name: what each counts, in which unit, and by which dimensions CloudWatch keeps it apart.

Dashboards, alarms and exporters all take names from here. CloudWatch does not add up over dimensions: every metric is
published under :data:`DIMENSIONS` alone, and those with a `by` once more under the same and that one. Dimensions are
closed sets, never a host, a process, a user or an error text: each combination is a metric that is paid for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .losses import CAUSES, Loss

NAMESPACE = "LangPont/Session"

DIMENSIONS = ("Environment", "Service")
"""Of every metric; their values are the settings ENVIRONMENT and SERVICE."""


class Metric(NamedTuple):
    """One published metric.

    :param name: in CloudWatch.
    :param unit: as CloudWatch spells it.
    :param statistic: the one that means something: ``Sum`` of counts, ``Maximum`` of states, ``p99`` of distributions.
    :param meaning: what it counts, and over what.
    :param by: a third dimension under which it is published as well.
    """

    name: str
    unit: str
    statistic: str
    meaning: str
    by: str | None = None


ACTIVE_SESSIONS = Metric(
    "ActiveSessions",
    "Count",
    "Maximum",
    "Sessions that would still be there now, of all hosts; one worker publishes it, none while Redis does not answer.",
)
OPERATION_LATENCY = Metric(
    "OperationLatency",
    "Milliseconds",
    "p99",
    "Time of the questions to Redis and to the database, rounded up to two digits.",
    by="Operation",
)
OPERATIONS = Metric("Operations", "Count", "Sum", "Questions to Redis and to the database.", by="Operation")
ERRORS = Metric("Errors", "Count", "Sum", "Those of them that failed.", by="Operation")
FALLBACK_LEVEL = Metric(
    "FallbackLevel",
    "None",
    "Maximum",
    "The worst degradation level of the interval, however short: 0 normal … 4 minimal.",
)
SHARDS_LOST = Metric(
    "ShardsLost",
    "Count",
    "Maximum",
    "Shards of Redis that do not take reads and writes, as a process sees it; a single primary is one shard, slots "
    "that no shard has are one more.",
)
FALLBACK_OPERATIONS = Metric(
    "FallbackOperations", "Count", "Sum", "Times something stood in for the primary.", by="Backend"
)
CIRCUIT_TRANSITIONS = Metric("CircuitTransitions", "Count", "Sum", "Breakers that opened or closed.")
SERVER_CHANGES = Metric(
    "ServerChanges", "Count", "Sum", "Reconnections at which another server process answered: a restart or a failover."
)
DATA_LOSSES = Metric("DataLosses", "Count", "Sum", "Times a server had lost data behind its connections.")
SESSIONS_CREATED = Metric("SessionsCreated", "Count", "Sum", "Sessions that began; a sign-in begins one.")
SESSIONS_REGENERATED = Metric("SessionsRegenerated", "Count", "Sum", "Sessions that went on under another id.")
SESSIONS_ENDED = Metric(
    "SessionsEnded", "Count", "Sum", "Signed-in sessions that requests ended: sign-outs, revocations."
)
SESSIONS_EXPIRED = Metric(
    "SessionsExpired", "Count", "Sum", "Sessions that ran out unused, as the index of them tells."
)
GRANTS_REFUSED = Metric(
    "GrantsRefused", "Count", "Sum", "Sign-ins and changes of rights answered 503: the database did not answer."
)
VALUES_REJECTED = Metric("ValuesRejected", "Count", "Sum", "Changes of a session that could not be stored.")
WRITES_LOST = Metric(
    "WritesLost",
    "Count",
    "Sum",
    "Changes of sessions that should have outlived an outage and could not be kept: the journal refused them.",
    by="Cause",
)
MERGE_CONFLICTS = Metric(
    "MergeConflicts",
    "Count",
    "Sum",
    "Changes of an outage that gave way to a newer value of the same key.",
    by="Cause",
)
MERGE_DROPPED = Metric(
    "MergeDropped",
    "Count",
    "Sum",
    "Changes of an outage that were kept and could not be brought to Redis afterwards.",
    by="Cause",
)
REQUEST_ONLY_WRITES = Metric(
    "RequestOnlyWrites",
    "Count",
    "Sum",
    "Changes in an outage that lasted for their request only, as the table has it.",
    by="Cause",
)
PAYLOAD_BYTES = Metric(
    "PayloadBytes", "Bytes", "p99", "Names and values that a save sent, per category written.", by="Category"
)
POOL_IN_USE = Metric("PoolInUse", "Count", "Maximum", "The most Redis connections that one worker used at a time.")
POOL_WAIT_TIME = Metric(
    "PoolWaitTime",
    "Milliseconds",
    "p99",
    "Time until a connection was there, when none lay ready: waiting for the pool, connecting.",
)
PROCESS_LAG = Metric(
    "ProcessLag",
    "Milliseconds",
    "p99",
    "How late a worker went on when it wanted to: another thread held the interpreter's lock, or another process the "
    "processor.",
)
METRICS_DROPPED = Metric(
    "MetricsDropped", "Count", "Sum", "Data that CloudWatch did not take, said when it takes some."
)
ALERTS_SUPPRESSED = Metric("AlertsSuppressed", "Count", "Sum", "Alerts that the rate limit held back.")
ALERTS_FAILED = Metric(
    "AlertsFailed", "Count", "Sum", "Attempts to send an alert that SNS did not take; they are made again."
)
HEARTBEAT = Metric("Heartbeat", "Count", "Sum", "1 per worker process and interval.")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""Every metric."""

OPERATION_VALUES = ("read", "write", "delete", "touch", "regenerate", "verify", "other")
"""Values of the dimension Operation. ``read`` asks Redis; ``verify`` asks the database whether a session still lives;
``write`` saves to either, ``delete`` ends a session in either; ``touch`` notes in Redis that a session is in use;
``regenerate`` puts a session of a new id into the database, as a sign-in does."""

BACKEND_VALUES = ("replica", "local", "database", "default")
"""Values of the dimension Backend: what stood in for the primary. ``local`` is this host's copies and journal,
``default`` what the configuration or the code says when it is not known."""

LOSSES: Mapping[Metric, Loss] = {
    WRITES_LOST: Loss.WRITES_LOST,
    MERGE_CONFLICTS: Loss.MERGE_CONFLICTS,
    MERGE_DROPPED: Loss.MERGE_DROPPED,
    REQUEST_ONLY_WRITES: Loss.REQUEST_ONLY_WRITES,
}
"""The metrics of what was not kept. Values of the dimension Cause are those that each may have: see
:data:`~flask_langpont_session.metrics.losses.CAUSES`. Their categories are Prometheus' and the events' business: here
each would multiply what is paid for."""

CAUSE_VALUES: Mapping[Metric, tuple[str, ...]] = {metric: CAUSES[loss] for metric, loss in LOSSES.items()}
"""Values of the dimension Cause, by metric."""

ERROR_RATE = "IF(operations > 0, 100 * errors / operations, 0)"
"""ErrorRate in percent, by metric math over the sums of :data:`ERRORS` and :data:`OPERATIONS`: a share cannot be added
up over processes, so it is not published."""
