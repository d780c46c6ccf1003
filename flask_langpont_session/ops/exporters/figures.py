"""The published figures of an interval: for each metric and each value of its third dimension, which values there were
and how often. Such figures of several processes are added up without any loss: every statistic of CloudWatch's is the
same as if each process had published its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from ...metrics.recorder import Interval
from . import catalogue
from .catalogue import Metric

LARGEST = 2.0**360
"""The largest value that CloudWatch takes, to either side of nought."""

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


def figures(interval: Interval) -> Figures:
    """Return the figures of one process.

    A count without `by` is always there, also as 0, so that a sum over missing data does not have to be guessed. By a
    third dimension there is only what happened, because each is paid for, and each store.
    """
    found: dict[Figure, Counts] = {}
    for metric in catalogue.ALL:
        parts: dict[str, list[Any]] = {"": []}
        for labels, value in metric.found(interval):
            parts[""].append(value)
            if metric.by:
                parts.setdefault(_ascii(labels[0]), []).append(value)
        for of, values in parts.items():
            if counts := _counts(metric, values):
                found[_figure(metric, of)] = counts
    return found


def _counts(metric: Metric, values: Sequence[Any]) -> Counts:
    """Return which values there were and how often; empty: nothing is published."""
    if not metric.is_distribution:
        return {within_range(sum(values)): 1.0} if values or metric.statistic == "Sum" else {}
    whole: Counter[float] = Counter()
    for amounts in values:
        whole.update(amounts)
    return {bound: within_range(times) for bound, times in whole.items()}


def number(metric: Metric, value: int) -> Figures:
    """Return one number, as figures."""
    return {_figure(metric): {within_range(value): 1.0}}


def _figure(metric: Metric, of: str = "") -> Figure:
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
