"""Figures for Prometheus: collectors of ``prometheus_client``, kept up to date by a thread, so that no request pays.

Under gunicorn each worker writes to files in ``PROMETHEUS_MULTIPROC_DIR`` and the one that is asked adds them up;
without it each process tells of itself. Nothing is registered at import, and once per registry: the applications of a
process share the collectors, which show the worst level and sums.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from flask import Blueprint, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from ...metrics.losses import CAUSES
from ...metrics.recorder import Interval, Reader
from ...support.forks import renew_in_children
from .catalogue import EXPORTED, Exported, Kind, each

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR" in os.environ
"""prometheus_client looks at it when it is imported, and so does this."""

DEFAULT = REGISTRY
"""The registry that applications export."""

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the histogram. All have two digits, so that rounded durations fall where the exact ones would."""

BYTES = tuple(float(2**exponent) for exponent in range(6, 21, 2))
"""Upper bounds of the sizes: 64 bytes to 1 MiB."""

_BUCKETS = {"s": SECONDS, "By": BYTES}

_NAME = "langpont_session_"


class _WithoutCreated:
    """A registry as one collector, without its series ``…_created``.

    Each counter and each histogram has such a series, which says when it began: nothing here needs that, and they would
    be a quarter of all series. prometheus_client can leave them out for a whole process only, those of the
    application's own metrics included.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def describe(self) -> Iterable[Metric]:
        """Return the names, so that a registry refuses them a second time."""
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics without those series."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def _worst(values: Sequence[float]) -> float:
    """Return the largest value; NaN, which is not known, is worse than all."""
    return math.nan if any(map(math.isnan, values)) else max(values)


_FOLDS: Mapping[str, Callable[[Sequence[float]], float]] = {"livesum": sum, "livemax": _worst, "livemin": min}
"""Mode of a gauge → the value that is shown of several applications; of any other mode, that of the latest."""


class Collectors:
    """The collectors of this package in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        own = CollectorRegistry()
        self._made = {exported.name: (exported, _collector(exported, own)) for exported in EXPORTED}
        if not MULTIPROCESS:
            # Among several processes what was not set is not shown; and this would hide what another one has set.
            self._made["active"][1].set(math.nan)
        self._begin()
        renew_in_children(self, Collectors._begin)
        registry.register(_WithoutCreated(own))

    def _begin(self) -> None:
        """Begin anew in a forked child, whose gauges show nothing of its parent."""
        self._lock = threading.Lock()
        self._latest: WeakKeyDictionary[Reader, Interval] = WeakKeyDictionary()

    def expect(self, categories: Iterable[str]) -> None:
        """Show a nought for every loss there may be: where a series begins with its first loss, `increase()` does not
        see that loss."""
        for category in categories:
            for loss, causes in CAUSES.items():
                for cause in causes:
                    self._made[loss][1].labels(cause, category)

    def publish(self, reader: Reader) -> None:
        """Add what is new since the last call, and show the present state.

        :param reader: of one application; what it has shown before is forgotten.
        """
        interval = reader.take()
        with self._lock:
            self._latest[reader] = interval
            for exported, collector in self._made.values():
                values: dict[tuple[str, ...], list[Any]] = {}
                for one in self._latest.values() if exported.mode in _FOLDS else (interval,):
                    for labels, value in exported.found(one):
                        values.setdefault(labels, []).append(value)
                for labels, found in values.items():
                    _add(exported, collector.labels(*labels) if labels else collector, found)


def _collector(exported: Exported, registry: CollectorRegistry) -> Any:
    about = _NAME + exported.name, exported.text, exported.labels
    if exported.kind is Kind.HISTOGRAM:
        return Histogram(*about, buckets=_BUCKETS[exported.unit], registry=registry)
    if exported.kind is Kind.GAUGE:
        return Gauge(*about, multiprocess_mode=exported.mode, registry=registry)  # type: ignore[arg-type]
    return Counter(*about, registry=registry)


def _add(exported: Exported, collector: Any, found: Sequence[Any]) -> None:
    if exported.kind is Kind.GAUGE:
        collector.set(_FOLDS[exported.mode](found) if exported.mode in _FOLDS else found[-1])
    elif exported.kind is Kind.COUNTER:
        collector.inc(sum(found))
    else:
        for amounts in found:
            for amount in each(amounts, exported.unit):
                collector.observe(amount)


_made: WeakKeyDictionary[CollectorRegistry, Collectors] = WeakKeyDictionary()
_making = threading.Lock()


def collectors_of(registry: CollectorRegistry) -> Collectors:
    """Return the collectors in a registry, made at the first call."""
    with _making:
        found = _made.get(registry)
        if found is None:
            found = _made[registry] = Collectors(registry)
    return found


def page(url: str, registry: CollectorRegistry) -> Blueprint:
    """Return a blueprint with a page at `url` for the scraper. The web server decides which clients may read it."""
    pages = Blueprint("langpont_session_metrics", __name__)

    @pages.get(url)
    def metrics() -> Response:
        response = Response(generate_latest(_shown(registry)), content_type=CONTENT_TYPE_LATEST)
        response.headers["Cache-Control"] = "no-store"
        return response

    return pages


def _shown(registry: CollectorRegistry) -> CollectorRegistry:
    if MULTIPROCESS:
        all_processes = CollectorRegistry()
        MultiProcessCollector(all_processes)  # type: ignore[no-untyped-call]
        return all_processes
    return registry
