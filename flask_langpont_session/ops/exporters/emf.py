"""Figures as CloudWatch's embedded metric format: lines of JSON on the standard output, of which CloudWatch Logs makes
metrics. No call to AWS, no credentials: for containers and Lambda.

A document has each metric once and one value of each dimension. So one document has all totals, and each value of a
third dimension with data has a document of its own. Namespace and dimensions are those of :mod:`.cloudwatch`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from . import catalogue
from .figures import BY_NAME, Counts, Figures, parts
from .publisher import NotTaken, Sink

MOST_METRICS = 100
"""In one document."""

MOST_VALUES = 100
"""The most values of a metric in a document, by the format's specification."""

Document = dict[str, Any]

IN_LAMBDA = "AWS_LAMBDA_FUNCTION_NAME" in os.environ
"""True in AWS Lambda, where the process is frozen between requests: other threads do not run meanwhile."""


def documents(found: Figures, whole: Mapping[str, str], at_ms: int) -> Iterator[Document]:
    """Yield figures as documents.

    :param whole: the dimensions of all of them.
    :param at_ms: milliseconds since 1970.
    """
    groups: dict[tuple[str, str], dict[str, Counts]] = {}
    for figure, counts in found.items():
        groups.setdefault((figure.by, figure.of), {})[figure.metric] = counts
    for (by, of), metrics in groups.items():
        dimensions = {**whole, **({by: of} if by else {})}
        for targets in _targets(metrics):
            yield _document(targets, dimensions, at_ms)


def _targets(metrics: Mapping[str, Counts]) -> Iterator[dict[str, Any]]:
    """Yield the content of each document: metric → its value. A metric with too many values goes on in further
    documents."""
    names = iter(metrics)
    while some := list(islice(names, MOST_METRICS)):
        portions = {name: [_target(part) for part in parts(metrics[name], MOST_VALUES)] for name in some}
        for place in range(max(map(len, portions.values()))):
            yield {name: portion[place] for name, portion in portions.items() if place < len(portion)}


def _target(counts: Counts) -> Any:
    """Return a metric's value: a number, or a list with each number as often as it was measured. Instead of a list
    beyond the limit, return values and counts, as AWS' own agents do; the specification does not mention this form."""
    times = sum(counts.values())
    if times > MOST_VALUES:
        return {
            "Values": list(counts),
            "Counts": list(counts.values()),
            "Max": max(counts),
            "Min": min(counts),
            "Count": times,
            "Sum": sum(value * often for value, often in counts.items()),
        }
    values = [value for value, often in counts.items() for _ in range(int(often))]
    return values if len(values) > 1 else values[0]


def _document(targets: Mapping[str, Any], dimensions: Mapping[str, str], at_ms: int) -> Document:
    metrics = [{"Name": name, "Unit": BY_NAME[name].unit} for name in targets]
    directive = {"Namespace": catalogue.NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": metrics}
    return {"_aws": {"Timestamp": at_ms, "CloudWatchMetrics": [directive]}, **dimensions, **targets}


class Emf(Sink):
    """Writes figures."""

    place = "the standard output"

    def _send(self, found: Figures) -> None:
        made = documents(found, self._dimensions, int(time.time() * 1000))
        text = "".join(f"{json.dumps(one)}\n" for one in made)
        try:
            sys.stdout.write(text)  # all at once: what other threads print stands before or behind it
            sys.stdout.flush()
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise NotTaken(type(error).__name__, len(found)) from error
