"""All metrics: what each is, how it is found, and its names. The exporters loop over these tables.

Dashboards, alarms and exporters take names from here. CloudWatch does not add up over dimensions: every
:class:`Metric` is published under :data:`DIMENSIONS`, and one with a `by` once more with that dimension added. A
dimension has a fixed set of values, never a host, a process, a user or an error text: each combination is a metric that
is paid for. :data:`EXPORTED` is what Prometheus and OpenTelemetry have, which add up themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from ...metrics.losses import Loss
from ...metrics.recorder import Amounts
from ...policy.health import PRIMARY
from . import aggregate
from .aggregate import Finder

NAMESPACE = "LangPont/Session"

DIMENSIONS = ("Environment", "Service")
"""The dimensions of every metric; their values are the settings ENVIRONMENT and SERVICE."""


class Metric(NamedTuple):
    """One metric of CloudWatch.

    :param name: in CloudWatch.
    :param meaning: what it counts, and over what.
    :param found: finds it in an interval.
    :param by: a third dimension under which it is published as well: the first label of what is found.
    :param unit: as CloudWatch spells it.
    :param statistic: the statistic to look at: ``Sum`` of counts, ``Maximum`` of states, ``p99`` of distributions.
    """

    name: str
    meaning: str
    found: Finder
    by: str | None = None
    unit: str = "Count"
    statistic: str = "Sum"

    @property
    def word(self) -> str:
        """Return the metric's name in the recorder, and for Prometheus and OpenTelemetry."""
        return _word(self.name)

    @property
    def is_distribution(self) -> bool:
        """Return whether percentiles are told of it."""
        return self.statistic.startswith("p")


def _word(name: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _counted(name: str, meaning: str, *events: str) -> Metric:
    """Return the sum of some counters of the recorder.

    :param events: the classes of events (events.py), which are counted by these words; none: the counter has the name
        of the metric.
    """
    return Metric(name, meaning, aggregate.counted(*(events or (_word(name),))))


def _lost(name: str, meaning: str) -> Metric:
    return Metric(name, meaning, aggregate.lost(Loss(_word(name))), by="Cause")


_state = partial(Metric, statistic="Maximum")
_waited = partial(Metric, unit="Milliseconds", statistic="p99")


ACTIVE_SESSIONS = _state(
    "ActiveSessions",
    "Sessions of all hosts that have not expired or ended. One worker publishes it, none while Redis does not answer.",
    aggregate.state(lambda standing: standing.active),
)
OPERATION_LATENCY = _waited(
    "OperationLatency",
    "Time of calls to Redis and to the database, rounded up to two digits.",
    aggregate.call_durations,
    by="Operation",
)
OPERATIONS = Metric("Operations", "Calls to Redis and to the database.", aggregate.calls, by="Operation")
ERRORS = Metric("Errors", "Calls to Redis and to the database that failed.", aggregate.failed_calls, by="Operation")
FALLBACK_LEVEL = _state(
    "FallbackLevel",
    "The worst level of the interval, however short it lasted: 0 (normal) to 4 (minimal).",
    aggregate.number(lambda interval: interval.level),
    unit="None",
)
CURRENT_LEVEL = _state(
    "CurrentLevel",
    "The level at the moment of publishing. For alarms: a second without Redis is in one minute's figures at most.",
    aggregate.number(lambda interval: interval.level_now),
    unit="None",
)
STORE_DOWN = _state(
    "StoreDown",
    "Stores that one process does not read or does not write at the moment of publishing; of one store 0 or 1.",
    aggregate.stores_down,
    by="Store",
)
SHARDS_LOST = _state(
    "ShardsLost",
    "Shards of Redis that one process cannot read and write. A single primary is one shard; slots that no shard has "
    "count as one more.",
    aggregate.state(lambda standing: standing.lost_shards),
)
FALLBACK_OPERATIONS = Metric(
    "FallbackOperations",
    "Times that another source was used instead of the primary.",
    aggregate.fallbacks,
    by="Backend",
)
CIRCUIT_TRANSITIONS = _counted(
    "CircuitTransitions", "Circuit breakers that opened or closed.", "StoreLost", "StoreRecovered"
)
SERVER_CHANGES = _counted(
    "ServerChanges", "Reconnections to another server process than before: a restart or a failover.", "ServerChanged"
)
DATA_LOSSES = _counted(
    "DataLosses", "Times that a Redis server lost data while the workers stayed connected.", "DataLost"
)
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
COOKIES_REFUSED = Metric(
    "CookiesRefused",
    "Cookies in the form of this package whose signature is wrong: another host has another SECRET_KEY, or a key was "
    "replaced and is not in SECRET_KEY_FALLBACKS.",
    aggregate.counted("cookies_refused_signature"),
)
VALUES_REJECTED = _counted("ValuesRejected", "Changes of a session that could not be stored.")
WRITES_LOST = _lost(
    "WritesLost", "Changes of sessions that were lost in an outage, because the journal could not keep them."
)
MERGE_CONFLICTS = _lost(
    "MergeConflicts", "Changes from an outage that were dropped, because the key has a newer value."
)
MERGE_DROPPED = _lost(
    "MergeDropped", "Changes from an outage that were kept but could not be merged into Redis afterwards."
)
REQUEST_ONLY_WRITES = _lost(
    "RequestOnlyWrites", "Changes in an outage that lasted for their request only, as the decision table says."
)
JOURNAL_OLDEST_SECONDS = _state(
    "JournalOldestSeconds",
    "For how long the oldest change in a host's journal has waited for a store; 0 if none waits.",
    aggregate.state(lambda standing: standing.oldest),
    unit="Seconds",
)
PAYLOAD_BYTES = Metric(
    "PayloadBytes",
    "Size of the names and values that a save wrote to one category.",
    aggregate.measured("payload"),
    by="Category",
    unit="Bytes",
    statistic="p99",
)
POOL_IN_USE = _state(
    "PoolInUse",
    "The most Redis connections that one worker used at the same time.",
    aggregate.state(lambda standing: max(standing.in_use.values(), default=0)),
)
POOL_WAIT_TIME = _waited(
    "PoolWaitTime",
    "Time that a request waited for a Redis connection when none was free: for the pool or for connecting.",
    aggregate.measured("pool_wait"),
)
PROCESS_LAG = _waited(
    "ProcessLag",
    "How late a worker woke up from a short sleep: another thread held the interpreter's lock, or another process the "
    "processor.",
    aggregate.measured("process_lag"),
)
METRICS_DROPPED = Metric(
    "MetricsDropped",
    "Data that CloudWatch did not accept; published when it accepts data again.",
    lambda _: [],  # known where it is published
)
ALERTS_FAILED = _counted("AlertsFailed", "Failed attempts to send an alert by SNS; each is repeated.")
HEARTBEAT = Metric(
    "Heartbeat", "1 per worker process and interval: shows that the worker runs.", aggregate.number(lambda _: 1)
)

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""Every metric of CloudWatch."""

LOSSES = (WRITES_LOST, MERGE_CONFLICTS, MERGE_DROPPED, REQUEST_ONLY_WRITES)
"""The metrics of what was not kept. The values of their dimension Cause are in
:data:`~flask_langpont_session.metrics.losses.CAUSES`. Prometheus and the events have their categories, too;
CloudWatch does not, because each would be a further metric that is paid for."""


# -- Prometheus and OpenTelemetry --------------------------------------------------------------------------------------


class Kind(StrEnum):
    """The kind of an exported metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Exported(NamedTuple):
    """One metric as Prometheus and OpenTelemetry have it.

    :param name: for Prometheus, without what all begin with.
    :param text: what it counts or measures.
    :param found: finds it in an interval.
    :param otel: its name for OpenTelemetry; None: the same; empty: it has none.
    :param unit: for OpenTelemetry; of a histogram ``s`` or ``By``.
    :param mode: of a gauge, which of several processes' values Prometheus shows, and which of several applications'.
    """

    kind: Kind
    name: str
    text: str
    found: Finder
    labels: tuple[str, ...] = ()
    otel: str | None = None
    unit: str = "1"
    mode: str = ""


def each(amounts: Amounts, unit: str) -> Iterator[float]:
    """Yield every single observation, in that unit."""
    for amount, times in amounts.items():
        for _ in range(times):
            yield amount * 0.001 if unit == "s" else amount


_KINDS = {"Sum": Kind.COUNTER, "Maximum": Kind.GAUGE, "p99": Kind.HISTOGRAM}

_counter, _gauge = partial(Exported, Kind.COUNTER), partial(Exported, Kind.GAUGE, mode="livemax")


def _same(metric: Metric) -> Exported:
    """Return what equals the published metric; of changes that are not kept, by cause and category."""
    found = Exported(_KINDS[metric.statistic], metric.word, metric.meaning, metric.found)
    return found._replace(labels=("cause", "category"), unit="{key}") if metric in LOSSES else found


EXPORTED = (
    Exported(
        Kind.HISTOGRAM,
        "operation_duration_seconds",
        "Time of calls to stores, of requests and of their saves; rounded up to two digits.",
        aggregate.durations,
        ("operation", "backend"),
        "operation.duration",
        "s",
    ),
    _same(POOL_WAIT_TIME)._replace(name="pool_wait_seconds", labels=("backend",), otel="pool.wait_time", unit="s"),
    _same(PAYLOAD_BYTES)._replace(labels=("category",), otel="payload.size", unit="By"),
    _counter(
        "operations",
        "Calls to stores, requests and saves.",
        aggregate.operations,
        ("operation", "backend", "outcome"),
        unit="{operation}",
    ),
    _same(FALLBACK_OPERATIONS)._replace(labels=("backend",), otel="fallback.operations", unit="{operation}"),
    _same(CIRCUIT_TRANSITIONS)._replace(
        found=aggregate.by_label(open="StoreLost", closed="StoreRecovered"),
        labels=("to",),
        otel="circuit.transitions",
        unit="{transition}",
    ),
    _counter(
        "lifecycle",
        "Sessions that began, got a new id, ended.",
        aggregate.by_label(
            created=SESSIONS_CREATED.word,
            regenerated=SESSIONS_REGENERATED.word,
            ended=SESSIONS_ENDED.word,
            expired=SESSIONS_EXPIRED.word,
        ),
        ("event",),
        unit="{session}",
    ),
    _counter(
        "cookies_refused",
        "Session cookies that were refused: for their signature, or because this package makes none of that form.",
        aggregate.by_label(signature="cookies_refused_signature", form="cookies_refused_form"),
        ("why",),
    ),
    _counter(
        "dropped",
        "Metrics that were not sent.",
        aggregate.by_label(cloudwatch=METRICS_DROPPED.word),
        ("sink",),
        otel="",
    ),
    _counter("journal_errors", "Times that the journal could not be used.", aggregate.counted("journal_errors")),
    _counter("copies_left_out", "Copies that a host has no room to share.", aggregate.counted("copies_left_out")),
    *map(
        _same,
        (
            SERVER_CHANGES,
            DATA_LOSSES,
            DATABASE_LOST_COMMITS,
            NEAR_CACHE_HITS,
            GRANTS_REFUSED,
            VALUES_REJECTED,
            ALERTS_FAILED,
            *LOSSES,
        ),
    ),
    _gauge("degradation_level", "0 normal, 1 replica, 2 local copies, 3 database, 4 minimal.", FALLBACK_LEVEL.found),
    _same(SHARDS_LOST)._replace(unit="{shard}", mode="livemax"),
    _gauge(
        "store_up",
        "1 while requests use a store in a direction, 0 while they do without it; of several shards, the worst.",
        aggregate.standing(lambda standing: standing.usable),
        ("backend", "way"),
        otel="",
        mode="livemin",
    ),
    _gauge(
        "store_cause",
        "1 while requests do without a store for this cause, 0 when that is over.",
        aggregate.standing(lambda standing: standing.causes),
        ("backend", "cause"),
        otel="store.cause",
    ),
    _gauge(
        "journal_waiting",
        "Changes in this host's journal that wait for a store; NaN while it cannot be read.",
        aggregate.state(lambda standing: math.nan if standing.waiting is None else standing.waiting),
        otel="",
    ),
    _same(JOURNAL_OLDEST_SECONDS)._replace(otel="", mode="livemax"),
    _gauge(
        "near_cache_connections",
        "Connections of the near cache; nothing is shown where the configuration wants none.",
        aggregate.standing(lambda standing: {} if standing.near is None else {(PRIMARY,): standing.near}),
        ("backend",),
        otel="",
        mode="livesum",
    ),
    _gauge(
        "pool_in_use",
        "Redis connections in use at this moment.",
        aggregate.standing(lambda standing: {(store,): number for store, number in standing.in_use.items()}),
        ("backend",),
        "pool.in_use",
        "{connection}",
        mode="livesum",
    ),
    _gauge(
        "process_lag_seconds",
        "How late a worker went on when it wanted to, at the most in the last second or two; rounded up to two digits.",
        aggregate.longest_lag,
        otel="process_lag",
        unit="s",
    ),
    _gauge(
        "active",
        "Sessions in use, of all hosts together; NaN while Redis cannot tell.",
        ACTIVE_SESSIONS.found,
        unit="{session}",
        mode="mostrecent",
    ),
)
