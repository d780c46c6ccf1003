"""The exporters that METRICS names, each with its thread, and the index of sessions in use that both show."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, request_tearing_down

from ...metrics.recorder import Reader, Standing
from ...policy.causes import cause_of
from ...policy.errors import role_of
from ...support.host import HostWork, beside
from ...support.threads import PeriodicThread, end_all
from .session_index import ActiveSessions

if TYPE_CHECKING:
    from ...policy.health import Health
    from ...stores.backend import Backend, SessionStore
    from .publisher import Publisher, Sink

CLOUDWATCH, EMF, OTEL, PROMETHEUS = "cloudwatch", "emf", "otel", "prometheus"

INTERVAL = 60.0
"""Seconds between two publications of a host, and between two counts of the sessions in use. Alarms of
``infra/elasticache.yaml`` count minutes in which a process reported, and must find each."""

LIVE_INTERVAL = 1.0
"""Seconds that a figure for Prometheus or OpenTelemetry may be old."""

PUBLISHER = "publisher"
"""Name of the thread that publishes, for the whole host, what others take."""


class Exporting:
    """Everything that runs beside the requests of one application to publish what its recorder has.

    :param waiting: says how many changes wait in the host's journal (None: it cannot be read), and for how many seconds
        the oldest has.
    """

    def __init__(
        self,
        backend: Backend,
        active: ActiveSessions,
        waiting: Callable[[], tuple[int | None, float]],
    ) -> None:
        self.active = active
        self.page: Blueprint | None = None
        self._backend, self._stores = backend, tuple(backend.redis.values())
        self._settings, self._recorder = backend.settings, backend.recorder
        self._waiting = waiting
        self._ends = threading.Lock()
        self.threads = [PeriodicThread("active", lambda: active.update, INTERVAL)]
        self._at_end: Publisher | None = None
        self._publishing()
        if PROMETHEUS in self._settings.metrics:
            self.threads.append(self._prometheus())
        if OTEL in self._settings.metrics:
            self.threads.append(self._opentelemetry())

    def _publishing(self) -> None:
        """Have figures published by a thread; in Lambda, where it would be frozen with its process, at the end of each
        request."""
        kinds: list[type[Sink]] = []
        if CLOUDWATCH in self._settings.metrics:
            from ...aws import client
            from .cloudwatch import CloudWatch

            client.load()
            kinds.append(CloudWatch)
        if EMF in self._settings.metrics:
            from . import emf

            if emf.IN_LAMBDA:
                self._at_end = self._publisher([emf.Emf], HostWork(None, "metrics", math.inf), lambda: False)
            else:
                kinds.append(emf.Emf)
        if kinds:
            host = HostWork(beside(self._settings.journal, "metrics"), "metrics", 3 * INTERVAL)

            def begin() -> Callable[[], None]:
                return self._publisher(kinds, host, lambda: thread.is_ending).publish

            thread = PeriodicThread(PUBLISHER, begin, INTERVAL)
            self.threads.append(thread)

    def _publisher(self, kinds: Sequence[type[Sink]], host: HostWork, is_ending: Callable[[], bool]) -> Publisher:
        from .figures import figures
        from .publisher import Publisher

        names = {"environment": self._settings.environment, "service": self._settings.service}
        sinks = [kind(self._recorder, **names).publish for kind in kinds]
        reader = self._reader(self._most_in_use, self.active.take)
        return Publisher(lambda: figures(reader.take()), host, sinks, is_ending)

    def _end_of_request(self, *_: object, **__: object) -> None:
        """Publish (a receiver of Flask's signals)."""
        if self._at_end is not None:
            with self._ends:
                self._at_end.publish()

    def _prometheus(self) -> PeriodicThread:
        from . import prometheus

        registry = prometheus.DEFAULT
        collectors = prometheus.collectors_of(registry)
        if self._settings.metrics_url:
            self.page = prometheus.page(self._settings.metrics_url, registry)

        def begin() -> Callable[[], None]:
            collectors.expect(self._settings.table.categories)
            return partial(collectors.publish, self._reader(self._in_use, self._news()))

        return PeriodicThread(PROMETHEUS, begin, LIVE_INTERVAL)

    def _opentelemetry(self) -> PeriodicThread:
        from . import otel

        def begin() -> Callable[[], None]:
            instruments, reader = otel.instruments(), self._reader(self._in_use, lambda: self.active.number)
            return lambda: instruments.add(reader.take())

        return PeriodicThread(OTEL, begin, LIVE_INTERVAL)

    def _most_in_use(self) -> dict[str, int]:
        return {store.name: max(pool.take_most_in_use() for pool in _pools(store)) for store in self._stores}

    def _in_use(self) -> dict[str, int]:
        return {store.name: sum(pool.in_use for pool in _pools(store)) for store in self._stores}

    def _news(self) -> Callable[[], float | None]:
        """Return a function that gives the number of sessions in use once for each look: the most recent look counts,
        whichever worker's it was. None: there is no news."""
        shown = 0

        def news() -> float | None:
            nonlocal shown
            before, shown = shown, self.active.looks
            if shown == before:
                return None
            return math.nan if self.active.number is None else self.active.number

        return news

    def _reader(self, in_use: Callable[[], dict[str, int]], active: Callable[[], float | None]) -> Reader:
        backend, health, causes = self._backend, self._backend.health, dict[tuple[str, str], bool]()

        def standing() -> Standing:
            causes.update(dict.fromkeys(causes, False) | dict.fromkeys(_causes(health), True))
            waiting, oldest = self._waiting()
            return Standing(
                lost_shards=len(health.lost_shards),
                usable=health.usable(),
                causes=dict(causes),
                in_use=in_use(),
                waiting=waiting,
                oldest=oldest,
                near=backend.near_connections if backend.settings.near_categories else None,
                active=active(),
            )

        return Reader(self._recorder, lambda: health.level, standing)

    def install(self, app: Flask) -> None:
        """Register the page, if there is one, and publish at the end of requests, if figures are published then."""
        if self.page is not None:
            app.register_blueprint(self.page)
        if self._at_end is not None:
            request_tearing_down.connect(self._end_of_request, app)

    def ensure_started(self) -> None:
        """Start the threads in this process unless they run."""
        for thread in self.threads:
            thread.ensure_started()

    def stop(self) -> None:
        """Publish what is left and end. For tests and orderly exits; a process that ends does it by itself."""
        end_all(self.threads)


def _causes(health: Health) -> list[tuple[str, str]]:
    """Return the role of each store that requests do without, and the word for the cause."""
    errors = ((store, health.error(store)) for store in {store for store, _ in health.open_stores()})
    return [(role_of(store), cause_of(error).word) for store, error in errors if error is not None]


def _pools(store: SessionStore) -> list[Any]:
    return [endpoint.link.connections for endpoint in store.endpoints.values()]
