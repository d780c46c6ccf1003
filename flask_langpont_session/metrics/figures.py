"""The published figures of an interval: for each metric and each value of its third dimension, which values there were
and how often. Such figures of several processes are added up without any loss: every statistic of CloudWatch's is the
same as if each process had published its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from . import aggregate, catalogue
from .catalogue import Metric
from .recorder import Amounts, Interval, Observation, Series

LARGEST = 2.0**360
"""Of a value, to either side of nought, that CloudWatch takes."""

_MOST_CHARACTERS = 1024
"""Characters of a dimension's value."""


class Figure(NamedTuple):
    """A metric, or one value of its third dimension.

    :param metric: its name.
    :param by: the third dimension, and `of`: its value; empty: of all of it.
    """

    metric: str
    by: str = ""
    of: str = ""


Counts = Mapping[float, float]
"""Value → how often."""

Figures = Mapping[Figure, Counts]

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in catalogue.ALL}


def figures(interval: Interval, *, active: int | None, in_use: int) -> Figures:
    """Return the figures of one process.

    A figure without `by` is always there, also as 0, so that a sum over missing data does not have to be guessed. By a
    third dimension there is only what happened, because each is paid for, and each store.

    :param active: sessions in use; None: not known, or another process publishes it.
    :param in_use: the most connections that were in use at a time.
    """
    return {figure: counts for part in _all(interval, active, in_use) for figure, counts in part.items()}


def _all(interval: Interval, active: int | None, in_use: int) -> Iterator[Figures]:
    yield number(catalogue.HEARTBEAT, 1)
    yield number(catalogue.FALLBACK_LEVEL, interval.level)
    yield number(catalogue.CURRENT_LEVEL, interval.level_now)
    yield from _in_all_and_by(catalogue.STORE_DOWN, interval.down)
    yield number(catalogue.SHARDS_LOST, interval.lost_shards)
    yield number(catalogue.POOL_IN_USE, in_use)
    for metric in aggregate.COUNTERS:
        yield number(metric, aggregate.counted(interval, metric))
    if active is not None:
        yield number(catalogue.ACTIVE_SESSIONS, active)
    yield from _in_all_and_by(catalogue.FALLBACK_OPERATIONS, aggregate.fallbacks(interval))
    for metric in catalogue.LOSSES:
        yield from _in_all_and_by(metric, aggregate.by_cause(interval, metric))
    operations = aggregate.by_operation(interval)
    yield from _operations("", [observed for group in operations.values() for observed in group])
    for word, group in operations.items():
        yield from _operations(word, group)
    payloads = aggregate.measured(interval, "payload")
    yield from _distribution(catalogue.PAYLOAD_BYTES, "", payloads.values())
    for category, sizes in payloads.items():
        yield from _distribution(catalogue.PAYLOAD_BYTES, _ascii(category), [sizes])
    for metric, name in ((catalogue.POOL_WAIT_TIME, "pool_wait"), (catalogue.PROCESS_LAG, "process_lag")):
        yield from _distribution(metric, "", aggregate.measured(interval, name).values())


def number(metric: Metric, value: int, of: str = "") -> Figures:
    """Return one number, as figures."""
    return {_figure(metric, of): {within_range(value): 1.0}}


def _in_all_and_by(metric: Metric, numbers: Mapping[str, int]) -> Iterator[Figures]:
    yield number(metric, sum(numbers.values()))
    for of, times in numbers.items():
        yield number(metric, times, of)


def _operations(word: str, observed: Sequence[tuple[Observation, Series]]) -> Iterator[Figures]:
    errors = sum(series.count for operation, series in observed if operation.outcome not in aggregate.FINE)
    yield number(catalogue.OPERATIONS, sum(series.count for _, series in observed), word)
    yield number(catalogue.ERRORS, errors, word)
    yield from _distribution(catalogue.OPERATION_LATENCY, word, [series.durations for _, series in observed])


def _distribution(metric: Metric, of: str, amounts: Iterable[Amounts]) -> Iterator[Figures]:
    whole: dict[float, int] = {}
    for part in amounts:
        for bound, times in part.items():
            whole[bound] = whole.get(bound, 0) + times
    if whole:
        yield {_figure(metric, of): {bound: within_range(times) for bound, times in whole.items()}}


def _figure(metric: Metric, of: str) -> Figure:
    return Figure(metric.name, metric.by or "", of) if of else Figure(metric.name)


def _ascii(name: str) -> str:
    """Return a category's name as the value of a dimension: it may be any identifier of Python's."""
    return name.encode("ascii", "backslashreplace").decode()[:_MOST_CHARACTERS]


def parts(counts: Counts, most: int) -> Iterator[Counts]:
    """Yield portions of at most so many values, the lowest first."""
    remaining = iter(sorted(counts.items()))
    while part := dict(islice(remaining, most)):
        yield part


def within_range(number: float) -> float:
    """Return a number cut to the range that CloudWatch takes."""
    return float(max(-LARGEST, min(LARGEST, number)))


def together(found: Iterable[Figures]) -> Figures:
    """Add up the figures of several processes, or of several intervals."""
    whole: dict[Figure, dict[float, float]] = {}
    for part in found:
        for figure, counts in part.items():
            there = whole.setdefault(figure, {})
            for value, times in counts.items():
                there[value] = within_range(there.get(value, 0.0) + times)
    return whole


_Message = list[tuple[Figure, list[tuple[float, float]]]]
_decode = msgspec.json.Decoder(_Message).decode


def encode(found: Figures) -> bytes:
    """Return figures as a message to the process that publishes."""
    return msgspec.json.encode([(figure, list(counts.items())) for figure, counts in found.items()])


def decode(message: bytes) -> Figures:
    """Return the figures of such a message; none: another release has written it, or no process of ours."""
    try:
        return {figure: dict(counts) for figure, counts in _decode(message) if figure.metric in BY_NAME}
    except msgspec.MsgspecError:
        return {}
