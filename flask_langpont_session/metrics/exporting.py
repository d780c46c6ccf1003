"""The exporters that METRICS names, each with its thread, and the index of sessions in use that both show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flask import Blueprint, Flask

from ..support.threads import PeriodicThread, end_all
from .recorder import Reader, Recorder
from .session_index import ActiveSessions

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..stores.base import SessionStore

CLOUDWATCH, PROMETHEUS = "cloudwatch", "prometheus"


class Exporting:
    """Everything that runs beside the requests of one application to publish what its recorder has.

    :param level: says the degradation level now.
    :param lost_shards: says how many shards are lost now.
    :param stores: whose connections are counted.
    """

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        level: Callable[[], int],
        lost_shards: Callable[[], int],
        active: ActiveSessions,
        stores: Sequence[SessionStore],
    ) -> None:
        self.active = active
        self.page: Blueprint | None = None
        self._settings = settings
        self._recorder = recorder
        self._level = level
        self._lost_shards = lost_shards
        self._stores = stores
        self.threads = [PeriodicThread("active", lambda: active.update, settings.metrics_interval)]
        if CLOUDWATCH in settings.metrics:
            self.threads.append(self._cloudwatch())
        if PROMETHEUS in settings.metrics:
            self.threads.append(self._prometheus())

    def _cloudwatch(self) -> PeriodicThread:
        from ..aws import client
        from . import cloudwatch

        client.load()

        def begin() -> Callable[[], None]:
            publisher = cloudwatch.CloudWatch(
                self._reader(),
                self._recorder,
                environment=self._settings.environment,
                service=self._settings.service,
                active=self.active.take,
                in_use=lambda: max(store.take_most_in_use() for store in self._stores),
                connect=cloudwatch.connect,
            )
            return publisher.publish

        return PeriodicThread(CLOUDWATCH, begin, self._settings.metrics_interval)

    def _prometheus(self) -> PeriodicThread:
        from . import prometheus

        registry = self._settings.metrics_registry
        collectors = prometheus.collectors_of(registry)
        if self._settings.metrics_url:
            self.page = prometheus.page(self._settings.metrics_url, registry)

        def begin() -> Callable[[], None]:
            def in_use() -> dict[str, int]:
                return {store.name: store.in_use for store in self._stores}

            reader = self._reader()
            collectors.counted.expect(self._settings.table.categories)
            return prometheus.Prometheus(reader, collectors, lambda: self.active.reading, in_use).publish

        return PeriodicThread(PROMETHEUS, begin, prometheus.INTERVAL)

    def _reader(self) -> Reader:
        return Reader(self._recorder, self._level, self._lost_shards)

    def install(self, app: Flask) -> None:
        """Show the page, if there is one."""
        if self.page is not None:
            app.register_blueprint(self.page)

    def ensure_started(self) -> None:
        """Start the threads in this process unless they run."""
        for thread in self.threads:
            thread.ensure_started()

    def stop(self) -> None:
        """Publish what is left and end. For tests and orderly exits; a process that ends does it by itself."""
        end_all(self.threads)
