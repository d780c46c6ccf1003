"""The published metrics by name: what each counts, its unit, and its dimensions in CloudWatch.

Dashboards, alarms and exporters all take names from here. CloudWatch does not add up over dimensions: every metric is
published under :data:`DIMENSIONS`, and a metric with a `by` once more with that dimension added. A dimension has a
fixed set of values, never a host, a process, a user or an error text: each combination is a metric that is paid for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from .losses import Loss

NAMESPACE = "LangPont/Session"

DIMENSIONS = ("Environment", "Service")
"""Of every metric; their values are the settings ENVIRONMENT and SERVICE."""


class Metric(NamedTuple):
    """One published metric.

    :param name: in CloudWatch.
    :param meaning: what it counts, and over what.
    :param by: a third dimension under which it is published as well.
    :param unit: as CloudWatch spells it.
    :param statistic: the statistic to look at: ``Sum`` of counts, ``Maximum`` of states, ``p99`` of distributions.
    :param is_counted: it is a sum of the recorder's counters.
    """

    name: str
    meaning: str
    by: str | None = None
    unit: str = "Count"
    statistic: str = "Sum"
    is_counted: bool = False

    @property
    def word(self) -> str:
        """Return the metric's name in the recorder, and for Prometheus and OpenTelemetry."""
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", self.name).lower()


_counted = partial(Metric, is_counted=True)
_state = partial(Metric, statistic="Maximum")
_waited = partial(Metric, unit="Milliseconds", statistic="p99")


ACTIVE_SESSIONS = _state(
    "ActiveSessions",
    "Sessions of all hosts that have not expired or ended. One worker publishes it, none while Redis does not answer.",
)
OPERATION_LATENCY = _waited(
    "OperationLatency", "Time of calls to Redis and to the database, rounded up to two digits.", by="Operation"
)
OPERATIONS = Metric("Operations", "Calls to Redis and to the database.", by="Operation")
ERRORS = Metric("Errors", "Calls to Redis and to the database that failed.", by="Operation")
FALLBACK_LEVEL = _state(
    "FallbackLevel", "The worst level of the interval, however short it lasted: 0 (normal) to 4 (minimal).", unit="None"
)
CURRENT_LEVEL = _state(
    "CurrentLevel",
    "The level at the moment of publishing. For alarms: a second without Redis is in one minute's figures at most.",
    unit="None",
)
STORE_DOWN = _state(
    "StoreDown",
    "Stores that one process does not read or does not write at the moment of publishing; of one store 0 or 1.",
    by="Store",
)
SHARDS_LOST = _state(
    "ShardsLost",
    "Shards of Redis that one process cannot read and write. A single primary is one shard; slots that no shard has "
    "count as one more.",
)
FALLBACK_OPERATIONS = Metric(
    "FallbackOperations", "Times that another source was used instead of the primary.", by="Backend"
)
CIRCUIT_TRANSITIONS = _counted("CircuitTransitions", "Circuit breakers that opened or closed.")
SERVER_CHANGES = _counted(
    "ServerChanges", "Reconnections to another server process than before: a restart or a failover."
)
DATA_LOSSES = _counted("DataLosses", "Times that a Redis server lost data while the workers stayed connected.")
DATABASE_LOST_COMMITS = _counted(
    "DatabaseLostCommits",
    "Rows and revocations that the database had confirmed and does not have any more: it went back.",
)
NEAR_CACHE_HITS = _counted(
    "NearCacheHits", "Reads of a session for which Redis was not asked, because nothing had changed."
)
SESSIONS_CREATED = _counted("SessionsCreated", "New sessions; each sign-in is one.")
SESSIONS_REGENERATED = _counted("SessionsRegenerated", "Sessions that got another id.")
SESSIONS_ENDED = _counted(
    "SessionsEnded", "Signed-in sessions that were ended by a request: sign-outs and revocations."
)
SESSIONS_EXPIRED = _counted("SessionsExpired", "Sessions that expired unused, by the index of sessions in use.")
GRANTS_REFUSED = _counted(
    "GrantsRefused", "Sign-ins and changes of rights that were refused with 503, because the database did not answer."
)
VALUES_REJECTED = _counted("ValuesRejected", "Changes of a session that could not be stored.")
WRITES_LOST = Metric(
    "WritesLost",
    "Changes of sessions that were lost in an outage, because the journal could not keep them.",
    by="Cause",
)
MERGE_CONFLICTS = Metric(
    "MergeConflicts", "Changes from an outage that were dropped, because the key has a newer value.", by="Cause"
)
MERGE_DROPPED = Metric(
    "MergeDropped", "Changes from an outage that were kept but could not be merged into Redis afterwards.", by="Cause"
)
REQUEST_ONLY_WRITES = Metric(
    "RequestOnlyWrites",
    "Changes in an outage that lasted for their request only, as the decision table says.",
    by="Cause",
)
PAYLOAD_BYTES = Metric(
    "PayloadBytes",
    "Size of the names and values that a save wrote to one category.",
    by="Category",
    unit="Bytes",
    statistic="p99",
)
POOL_IN_USE = _state("PoolInUse", "The most Redis connections that one worker used at the same time.")
POOL_WAIT_TIME = _waited(
    "PoolWaitTime",
    "Time that a request waited for a Redis connection when none was free: for the pool or for connecting.",
)
PROCESS_LAG = _waited(
    "ProcessLag",
    "How late a worker woke up from a short sleep: another thread held the interpreter's lock, or another process the "
    "processor.",
)
METRICS_DROPPED = Metric("MetricsDropped", "Data that CloudWatch did not accept; published when it accepts data again.")
ALERTS_FAILED = _counted("AlertsFailed", "Failed attempts to send an alert by SNS; each is repeated.")
HEARTBEAT = Metric("Heartbeat", "1 per worker process and interval: shows that the worker runs.")

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

ERROR_RATE = "IF(operations > 0, 100 * errors / operations, 0)"
"""ErrorRate in percent, by metric math over the sums of :data:`ERRORS` and :data:`OPERATIONS`: a share cannot be added
up over processes, so it is not published."""
