"""Turns an interval's records into published figures, under fixed sets of words, whatever the recorder has counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..policy.errors import ErrorClass
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

_OF_EVENTS = {
    catalogue.CIRCUIT_TRANSITIONS: ("StoreLost", "StoreRecovered"),
    catalogue.SERVER_CHANGES: ("ServerChanged",),
    catalogue.DATA_LOSSES: ("DataLost",),
}
"""Metric → the classes of the events (events.py), which are counted by these words."""

COUNTERS: Mapping[catalogue.Metric, tuple[str, ...]] = {
    metric: _OF_EVENTS.get(metric, (metric.word,)) for metric in catalogue.ALL if metric.is_counted
}
"""Metric → the recorder's counters that it adds up."""

FINE = frozenset({"ok", "miss"})
"""Outcomes of a store that did what it was asked."""


_SOURCES = frozenset({"primary", "replica", "database", "none"})
_OUTCOMES = FINE | {"error", "refused", "not_durable"} | {kind.name.lower() for kind in ErrorClass}
_REQUESTS = frozenset({"request", "request_save"})


def labels_of(operation: Observation) -> tuple[str, str, str]:
    """Return operation, backend and outcome, each of a fixed set of words."""
    return (
        operation.name if operation.name in _REQUESTS else operation_word(operation.name),
        operation.source if operation.source in _SOURCES else "other",
        operation.outcome if operation.outcome in _OUTCOMES else "other",
    )


def is_question(operation: Observation) -> bool:
    """Return whether an operation asked a store; else it is a whole request, with the view's own time in it."""
    return operation.source != "none"


def operation_word(name: str) -> str:
    """Return the published word for an operation."""
    return _OPERATIONS.get(name, "other")


def by_operation(interval: Interval) -> dict[str, list[tuple[Observation, Series]]]:
    """Return the calls to stores, under their published word."""
    found: dict[str, list[tuple[Observation, Series]]] = {}
    for operation, series in interval.series.items():
        if is_question(operation):
            found.setdefault(operation_word(operation.name), []).append((operation, series))
    return found


def measured(interval: Interval, name: str) -> dict[str, Amounts]:
    """Return the amounts measured under a name, by category or store."""
    return {what.of: amounts for what, amounts in interval.amounts.items() if what.name == name}


def fallbacks(interval: Interval) -> dict[str, int]:
    """Return for each source how often it was used instead of the primary."""
    found: dict[str, int] = {}
    for counter, backend in _FALLBACKS.items():
        if counter in interval.counters:
            found[backend] = found.get(backend, 0) + interval.counters[counter]
    return found


def not_kept(interval: Interval, metric: catalogue.Metric) -> dict[tuple[str, str], int]:
    """Return how many changes of sessions were not kept, by cause and category."""
    loss = catalogue.LOSSES[metric]
    return {(key.cause, key.category): number for key, number in interval.losses.items() if key.what == loss}


def by_cause(interval: Interval, metric: catalogue.Metric) -> dict[str, int]:
    """Return how many changes of sessions were not kept, by cause alone."""
    found: dict[str, int] = {}
    for (cause, _), number in not_kept(interval, metric).items():
        found[cause] = found.get(cause, 0) + number
    return found


def counted(interval: Interval, metric: catalogue.Metric) -> int:
    """Return the sum of the recorder's counters that belong to a metric."""
    return sum(interval.counters.get(counter, 0) for counter in COUNTERS[metric])


# -- Prometheus and OpenTelemetry --------------------------------------------------------------------------------------

Found = Iterable[tuple[tuple[str, ...], Any]]
"""Values of labels, and what there was of them: a number, or amounts."""


class Exported(NamedTuple):
    """A counter or a histogram, as Prometheus and OpenTelemetry have it.

    :param name: for Prometheus, without what all begin with.
    :param text: what it counts or measures.
    :param found: what an interval has of it.
    :param otel: its name for OpenTelemetry; None: the same; empty: it has none.
    :param unit: for OpenTelemetry; of a histogram ``s`` or ``By``.
    """

    name: str
    text: str
    found: Callable[[Interval], Found]
    labels: tuple[str, ...] = ()
    otel: str | None = None
    unit: str = "1"


def each(amounts: Amounts, unit: str) -> Iterator[float]:
    """Yield every single observation, in that unit."""
    for amount, times in amounts.items():
        for _ in range(times):
            yield amount * 0.001 if unit == "s" else amount


def _operations(interval: Interval) -> Found:
    return ((labels_of(operation), series.count) for operation, series in interval.series.items())


def _durations(interval: Interval) -> Found:
    return ((labels_of(operation)[:2], series.durations) for operation, series in interval.series.items())


def _measured(name: str) -> Callable[[Interval], Found]:
    return lambda interval: (((of,), amounts) for of, amounts in measured(interval, name).items())


def _fallbacks(interval: Interval) -> Found:
    return (((backend,), number) for backend, number in fallbacks(interval).items())


def _by_label(**counters: str) -> Callable[[Interval], Found]:
    """Return a function that gives for each label the value of its counter in the recorder."""
    return lambda interval: (((label,), interval.counters.get(name, 0)) for label, name in counters.items())


def _count(metric: catalogue.Metric) -> Exported:
    """Return an exported counter that equals the published metric; of changes that are not kept, by cause and
    category."""
    if metric in catalogue.LOSSES:
        labels, unit = ("cause", "category"), "{key}"
        return Exported(metric.word, metric.meaning, lambda i: not_kept(i, metric).items(), labels, unit=unit)
    return Exported(metric.word, metric.meaning, lambda i: [((), counted(i, metric))])


HISTOGRAMS = (
    Exported(
        "operation_duration_seconds",
        "Time of calls to stores, of requests and of their saves; rounded up to two digits.",
        _durations,
        ("operation", "backend"),
        "operation.duration",
        "s",
    ),
    Exported(
        "pool_wait_seconds",
        "Time that a request waited for a Redis connection when none was free; rounded up to two digits.",
        _measured("pool_wait"),
        ("backend",),
        "pool.wait_time",
        "s",
    ),
    Exported(
        "payload_bytes",
        "Size of the names and values that a save wrote to one category; rounded up to two digits.",
        _measured("payload"),
        ("category",),
        "payload.size",
        "By",
    ),
)

COUNTS = (
    Exported(
        "operations",
        "Calls to stores, requests and saves.",
        _operations,
        ("operation", "backend", "outcome"),
        unit="{operation}",
    ),
    Exported(
        "fallback_operations",
        catalogue.FALLBACK_OPERATIONS.meaning,
        _fallbacks,
        ("backend",),
        "fallback.operations",
        "{operation}",
    ),
    Exported(
        "circuit_transitions",
        catalogue.CIRCUIT_TRANSITIONS.meaning,
        _by_label(open="StoreLost", closed="StoreRecovered"),
        ("to",),
        "circuit.transitions",
        "{transition}",
    ),
    Exported(
        "lifecycle",
        "Sessions that began, got a new id, ended.",
        _by_label(
            created=catalogue.SESSIONS_CREATED.word,
            regenerated=catalogue.SESSIONS_REGENERATED.word,
            ended=catalogue.SESSIONS_ENDED.word,
            expired=catalogue.SESSIONS_EXPIRED.word,
        ),
        ("event",),
        unit="{session}",
    ),
    Exported(
        "dropped",
        "Metrics that were not sent.",
        _by_label(cloudwatch=catalogue.METRICS_DROPPED.word),
        ("sink",),
        otel="",
    ),
    _count(catalogue.SERVER_CHANGES),
    _count(catalogue.DATA_LOSSES),
    _count(catalogue.DATABASE_LOST_COMMITS),
    _count(catalogue.NEAR_CACHE_HITS),
    _count(catalogue.GRANTS_REFUSED),
    _count(catalogue.VALUES_REJECTED),
    _count(catalogue.ALERTS_FAILED),
    *map(_count, catalogue.LOSSES),
)
