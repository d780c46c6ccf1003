"""The published metrics by name: what each counts, its unit, and its dimensions in CloudWatch.

Dashboards, alarms and exporters all take names from here. CloudWatch does not add up over dimensions: every metric is
published under :data:`DIMENSIONS`, and a metric with a `by` once more with that dimension added. A dimension has a
fixed set of values, never a host, a process, a user or an error text: each combination is a metric that is paid for.
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
    :param statistic: the statistic to look at: ``Sum`` of counts, ``Maximum`` of states, ``p99`` of distributions.
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
    "Sessions of all hosts that have not expired or ended. One worker publishes it, none while Redis does not answer.",
)
OPERATION_LATENCY = Metric(
    "OperationLatency",
    "Milliseconds",
    "p99",
    "Time of calls to Redis and to the database, rounded up to two digits.",
    by="Operation",
)
OPERATIONS = Metric("Operations", "Count", "Sum", "Calls to Redis and to the database.", by="Operation")
ERRORS = Metric("Errors", "Count", "Sum", "Calls to Redis and to the database that failed.", by="Operation")
FALLBACK_LEVEL = Metric(
    "FallbackLevel",
    "None",
    "Maximum",
    "The worst level of the interval, however short it lasted: 0 (normal) to 4 (minimal).",
)
CURRENT_LEVEL = Metric(
    "CurrentLevel",
    "None",
    "Maximum",
    "The level at the moment of publishing. For alarms: a second without Redis is in one minute's figures at most.",
)
STORE_DOWN = Metric(
    "StoreDown",
    "Count",
    "Maximum",
    "Stores that one process does not read or does not write at the moment of publishing; of one store 0 or 1.",
    by="Store",
)
SHARDS_LOST = Metric(
    "ShardsLost",
    "Count",
    "Maximum",
    "Shards of Redis that one process cannot read and write. A single primary is one shard; slots that no shard has "
    "count as one more.",
)
FALLBACK_OPERATIONS = Metric(
    "FallbackOperations", "Count", "Sum", "Times that another source was used instead of the primary.", by="Backend"
)
CIRCUIT_TRANSITIONS = Metric("CircuitTransitions", "Count", "Sum", "Circuit breakers that opened or closed.")
SERVER_CHANGES = Metric(
    "ServerChanges", "Count", "Sum", "Reconnections to another server process than before: a restart or a failover."
)
DATA_LOSSES = Metric(
    "DataLosses", "Count", "Sum", "Times that a Redis server lost data while the workers stayed connected."
)
DATABASE_LOST_COMMITS = Metric(
    "DatabaseLostCommits",
    "Count",
    "Sum",
    "Rows and revocations that the database had confirmed and does not have any more: it went back.",
)
NEAR_CACHE_HITS = Metric(
    "NearCacheHits", "Count", "Sum", "Reads of a session for which Redis was not asked, because nothing had changed."
)
SESSIONS_CREATED = Metric("SessionsCreated", "Count", "Sum", "New sessions; each sign-in is one.")
SESSIONS_REGENERATED = Metric("SessionsRegenerated", "Count", "Sum", "Sessions that got another id.")
SESSIONS_ENDED = Metric(
    "SessionsEnded", "Count", "Sum", "Signed-in sessions that were ended by a request: sign-outs and revocations."
)
SESSIONS_EXPIRED = Metric(
    "SessionsExpired", "Count", "Sum", "Sessions that expired unused, by the index of sessions in use."
)
GRANTS_REFUSED = Metric(
    "GrantsRefused",
    "Count",
    "Sum",
    "Sign-ins and changes of rights that were refused with 503, because the database did not answer.",
)
VALUES_REJECTED = Metric("ValuesRejected", "Count", "Sum", "Changes of a session that could not be stored.")
WRITES_LOST = Metric(
    "WritesLost",
    "Count",
    "Sum",
    "Changes of sessions that were lost in an outage, because the journal could not keep them.",
    by="Cause",
)
MERGE_CONFLICTS = Metric(
    "MergeConflicts",
    "Count",
    "Sum",
    "Changes from an outage that were dropped, because the key has a newer value.",
    by="Cause",
)
MERGE_DROPPED = Metric(
    "MergeDropped",
    "Count",
    "Sum",
    "Changes from an outage that were kept but could not be merged into Redis afterwards.",
    by="Cause",
)
REQUEST_ONLY_WRITES = Metric(
    "RequestOnlyWrites",
    "Count",
    "Sum",
    "Changes in an outage that lasted for their request only, as the decision table says.",
    by="Cause",
)
PAYLOAD_BYTES = Metric(
    "PayloadBytes", "Bytes", "p99", "Size of the names and values that a save wrote to one category.", by="Category"
)
POOL_IN_USE = Metric(
    "PoolInUse", "Count", "Maximum", "The most Redis connections that one worker used at the same time."
)
POOL_WAIT_TIME = Metric(
    "PoolWaitTime",
    "Milliseconds",
    "p99",
    "Time that a request waited for a Redis connection when none was free: for the pool or for connecting.",
)
PROCESS_LAG = Metric(
    "ProcessLag",
    "Milliseconds",
    "p99",
    "How late a worker woke up from a short sleep: another thread held the interpreter's lock, or another process the "
    "processor.",
)
METRICS_DROPPED = Metric(
    "MetricsDropped", "Count", "Sum", "Data that CloudWatch did not accept; published when it accepts data again."
)
ALERTS_SUPPRESSED = Metric("AlertsSuppressed", "Count", "Sum", "Alerts that were not sent because of the rate limit.")
ALERTS_FAILED = Metric("AlertsFailed", "Count", "Sum", "Failed attempts to send an alert by SNS; each is repeated.")
HEARTBEAT = Metric("Heartbeat", "Count", "Sum", "1 per worker process and interval: shows that the worker runs.")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""Every metric."""

OPERATION_VALUES = ("read", "write", "delete", "touch", "regenerate", "verify", "other")
"""Values of the dimension Operation. ``read`` asks Redis; ``verify`` asks the database whether a session still lives;
``write`` saves to either, ``delete`` ends a session in either; ``touch`` notes in Redis that a session is in use;
``regenerate`` puts a session of a new id into the database, as a sign-in does."""

BACKEND_VALUES = ("replica", "local", "database", "default")
"""Values of the dimension Backend: what was used instead of the primary. ``local`` is this host's copies and
journal, ``default`` the default of the configuration or of the code."""

STORE_VALUES = ("primary", "replica", "database")
"""Values of the dimension Store."""

LOSSES: Mapping[Metric, Loss] = {
    WRITES_LOST: Loss.WRITES_LOST,
    MERGE_CONFLICTS: Loss.MERGE_CONFLICTS,
    MERGE_DROPPED: Loss.MERGE_DROPPED,
    REQUEST_ONLY_WRITES: Loss.REQUEST_ONLY_WRITES,
}
"""The metrics of what was not kept. The values of their dimension Cause are in
:data:`~flask_langpont_session.metrics.losses.CAUSES`. Prometheus and the events have their categories, too;
CloudWatch does not, because each would be a further metric that is paid for."""

CAUSE_VALUES: Mapping[Metric, tuple[str, ...]] = {metric: CAUSES[loss] for metric, loss in LOSSES.items()}
"""Values of the dimension Cause, by metric."""

ERROR_RATE = "IF(operations > 0, 100 * errors / operations, 0)"
"""ErrorRate in percent, by metric math over the sums of :data:`ERRORS` and :data:`OPERATIONS`: a share cannot be added
up over processes, so it is not published."""
