"""Finds what an interval's records have of a metric, under fixed sets of words, whatever the recorder has counted.

A *finder* takes an interval, and gives for each combination of labels a number, or of a distribution its amounts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...metrics.losses import Loss
from ...metrics.recorder import Interval, Observation, Standing
from ...policy.errors import ErrorClass

Found = Iterable[tuple[tuple[str, ...], Any]]
"""Values of labels, and what there was of them: a number, or amounts."""

Finder = Callable[[Interval], Found]

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

FINE = frozenset({"ok", "miss"})
"""Outcomes of a store that did what it was asked."""

_SOURCES = frozenset({"primary", "replica", "database", "none"})
_OUTCOMES = FINE | {"error", "refused", "not_durable"} | {kind.name.lower() for kind in ErrorClass}
_REQUESTS = frozenset({"request", "request_save"})


def operation_word(name: str) -> str:
    """Return the published word for an operation."""
    return _OPERATIONS.get(name, "other")


def _labels_of(operation: Observation) -> tuple[str, str, str]:
    """Return operation, backend and outcome, each of a fixed set of words."""
    is_request = operation.source == "none" and operation.name in _REQUESTS
    return (
        operation.name if is_request else operation_word(operation.name),
        operation.source if operation.source in _SOURCES else "other",
        operation.outcome if operation.outcome in _OUTCOMES else "other",
    )


def operations(interval: Interval) -> Found:
    """Return the numbers of calls to stores and of requests, by operation, backend and outcome."""
    return ((_labels_of(operation), series.count) for operation, series in interval.series.items())


def durations(interval: Interval) -> Found:
    """Return how long they took, by operation and backend."""
    return ((_labels_of(operation)[:2], series.durations) for operation, series in interval.series.items())


def _of_stores(found: Finder) -> Finder:
    """Return a finder without requests, which have the view's own time in them."""
    return lambda interval: ((labels, what) for labels, what in found(interval) if labels[1] != "none")


calls, call_durations = _of_stores(operations), _of_stores(durations)


def failed_calls(interval: Interval) -> Found:
    """Return the numbers of calls to stores that failed, by operation, backend and outcome; also where none did."""
    return ((labels, 0 if labels[2] in FINE else number) for labels, number in calls(interval))


def measured(name: str) -> Finder:
    """Return a finder of the amounts measured under a name, by category or store."""
    return lambda interval: (((what.of,), found) for what, found in interval.amounts.items() if what.name == name)


def longest_lag(interval: Interval) -> Found:
    """Return the longest process lag, in seconds."""
    return (((), max(amounts) * 0.001) for _, amounts in measured("process_lag")(interval))


def fallbacks(interval: Interval) -> Found:
    """Return how often another source was used instead of the primary, by that source."""
    found: dict[tuple[str, ...], int] = {}
    for counter, backend in _FALLBACKS.items():
        if number := interval.counters.get(counter):
            found[backend,] = found.get((backend,), 0) + number
    return found.items()


def counted(*counters: str) -> Finder:
    """Return a finder of the sum of some counters of the recorder."""
    return lambda interval: [((), sum(interval.counters.get(name, 0) for name in counters))]


def by_label(**counters: str) -> Finder:
    """Return a finder that gives for each label the value of its counter in the recorder."""
    return lambda interval: (((label,), interval.counters.get(name, 0)) for label, name in counters.items())


def lost(loss: Loss) -> Finder:
    """Return a finder of the changes of sessions that were not kept, by cause and category."""
    return lambda interval: (((key.cause, key.category), n) for key, n in interval.losses.items() if key.what == loss)


def number(of: Callable[[Interval], float]) -> Finder:
    """Return a finder of one number."""
    return lambda interval: [((), of(interval))]


def state(of: Callable[[Standing], float | None]) -> Finder:
    """Return a finder of one number about the application's state; None: there is none."""
    return lambda interval: [((), value)] if (value := of(interval.standing)) is not None else []


def stores_down(interval: Interval) -> Found:
    """Return for each store 1 or 0: whether requests do without it, in one direction at least."""
    usable = interval.standing.usable
    roles = dict.fromkeys(role for role, _ in usable)
    return (((role,), int(not all(used for (of, _), used in usable.items() if of == role))) for role in roles)


def standing(of: Callable[[Standing], Mapping[Any, float]]) -> Finder:
    """Return a finder of numbers about the application's state, by labels."""
    return lambda interval: of(interval.standing).items()
