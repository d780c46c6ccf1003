"""What an interval's records mean in published figures: fixed sets of words, whatever the recorder has counted."""

from __future__ import annotations

from collections.abc import Mapping

from ..policy.values import ErrorClass
from . import catalogue
from .recorder import Amounts, Interval, Observation, Series

_OPERATIONS = {
    "load": "read",
    "verify": "verify",
    "sign_in": "regenerate",
    "extend_idle": "touch",
    **dict.fromkeys(("save", "push"), "write"),
    **dict.fromkeys(("revoke", "write_tombstone", "repair", "quarantine"), "delete"),
}

_FALLBACKS = {
    "fallback_replica": "replica",
    "fallback_local": "local",
    "fallback_journal": "local",
    "fallback_database": "database",
    "fallback_default": "default",
}

COUNTERS: Mapping[catalogue.Metric, tuple[str, ...]] = {
    # The events' classes (events.py), and what the code counts.
    catalogue.CIRCUIT_TRANSITIONS: ("StoreLost", "StoreRecovered"),
    catalogue.SERVER_CHANGES: ("ServerChanged",),
    catalogue.DATA_LOSSES: ("DataLost",),
    catalogue.DATABASE_LOST_COMMITS: ("database_lost_commits",),
    catalogue.NEAR_CACHE_HITS: ("near_cache_hits",),
    catalogue.SESSIONS_CREATED: ("sessions_created",),
    catalogue.SESSIONS_REGENERATED: ("sessions_regenerated",),
    catalogue.SESSIONS_ENDED: ("sessions_ended",),
    catalogue.SESSIONS_EXPIRED: ("sessions_expired",),
    catalogue.GRANTS_REFUSED: ("grants_refused",),
    catalogue.VALUES_REJECTED: ("values_rejected",),
    catalogue.ALERTS_SUPPRESSED: ("alerts_suppressed",),
    catalogue.ALERTS_FAILED: ("alerts_failed",),
}
"""Metric → the recorder's counters that it adds up."""

EVENTS: Mapping[str, catalogue.Metric] = {
    "server_changes": catalogue.SERVER_CHANGES,
    "data_losses": catalogue.DATA_LOSSES,
    "database_lost_commits": catalogue.DATABASE_LOST_COMMITS,
    "near_cache_hits": catalogue.NEAR_CACHE_HITS,
    "grants_refused": catalogue.GRANTS_REFUSED,
    "values_rejected": catalogue.VALUES_REJECTED,
    "alerts_failed": catalogue.ALERTS_FAILED,
}
"""Name for Prometheus and OpenTelemetry → a count without labels; :data:`LOSSES`: the same with cause and category."""

LOSSES: Mapping[str, catalogue.Metric] = {
    "writes_lost": catalogue.WRITES_LOST,
    "merge_conflicts": catalogue.MERGE_CONFLICTS,
    "merge_dropped": catalogue.MERGE_DROPPED,
    "request_only_writes": catalogue.REQUEST_ONLY_WRITES,
}

LIFECYCLE: Mapping[str, catalogue.Metric] = {
    "created": catalogue.SESSIONS_CREATED,
    "regenerated": catalogue.SESSIONS_REGENERATED,
    "ended": catalogue.SESSIONS_ENDED,
    "expired": catalogue.SESSIONS_EXPIRED,
}
"""Label → metric of what becomes of sessions."""

TRANSITIONS: Mapping[str, str] = {"open": "StoreLost", "closed": "StoreRecovered"}
"""Label → counter of circuit breakers."""

DROPPED: Mapping[str, str] = {"cloudwatch": "metrics_dropped", "alerts": "alerts_suppressed"}
"""Label → counter of what was not sent."""

FINE = frozenset({"ok", "miss"})
"""Outcomes of a store that did what it was asked."""


_SOURCES = frozenset({"primary", "replica", "database", "none"})
_OUTCOMES = FINE | {"error", "refused", "not_durable"} | {kind.name.lower() for kind in ErrorClass}
_REQUESTS = frozenset({"request", "request_save"})


def labels_of(operation: Observation) -> tuple[str, str, str]:
    """Operation, backend and outcome, each of a fixed set of words."""
    return (
        operation.name if operation.name in _REQUESTS else operation_word(operation.name),
        operation.source if operation.source in _SOURCES else "other",
        operation.outcome if operation.outcome in _OUTCOMES else "other",
    )


def is_question(operation: Observation) -> bool:
    """Whether a store was asked; else it is a whole request, with the view's own time in it."""
    return operation.source != "none"


def operation_word(name: str) -> str:
    """The published word for an operation."""
    return _OPERATIONS.get(name, "other")


def by_operation(interval: Interval) -> dict[str, list[tuple[Observation, Series]]]:
    """The calls to stores, under their published word."""
    found: dict[str, list[tuple[Observation, Series]]] = {}
    for operation, series in interval.series.items():
        if is_question(operation):
            found.setdefault(operation_word(operation.name), []).append((operation, series))
    return found


def measured(interval: Interval, name: str) -> dict[str, Amounts]:
    """What was measured under a name, by category or store."""
    return {what.of: amounts for what, amounts in interval.amounts.items() if what.name == name}


def fallbacks(interval: Interval) -> dict[str, int]:
    """How often each source was used instead of the primary."""
    found: dict[str, int] = {}
    for counter, backend in _FALLBACKS.items():
        if counter in interval.counters:
            found[backend] = found.get(backend, 0) + interval.counters[counter]
    return found


def not_kept(interval: Interval, metric: catalogue.Metric) -> dict[tuple[str, str], int]:
    """Of changes of sessions that were not kept: cause and category → how many."""
    loss = catalogue.LOSSES[metric]
    return {(key.cause, key.category): number for key, number in interval.losses.items() if key.what == loss}


def by_cause(interval: Interval, metric: catalogue.Metric) -> dict[str, int]:
    """The same by cause alone."""
    found: dict[str, int] = {}
    for (cause, _), number in not_kept(interval, metric).items():
        found[cause] = found.get(cause, 0) + number
    return found


def counted(interval: Interval, metric: catalogue.Metric) -> int:
    """What the recorder's counters say of a metric."""
    return sum(interval.counters.get(counter, 0) for counter in COUNTERS[metric])
