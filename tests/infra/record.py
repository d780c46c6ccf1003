"""Record what is published to CloudWatch while real servers fail: ``python -m tests.infra.record [KIND ...]``.

Each kind becomes a file in ``tests/infra/published``; without a kind all are recorded, which takes half an hour. The
outages are those that are recorded for Prometheus, too (:mod:`tests.infra.recordings`): one process that publishes
every 15 seconds, where the time between two publications is CloudWatch's alone. :mod:`tests.infra.record_workers` has
those for which several processes and real time are needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from flask_langpont_session.ops.exporters.exporting import CLOUDWATCH, PUBLISHER
from flask_langpont_session.support.threads import PeriodicThread
from tests.faults.proxy import delay
from tests.infra import record_workers
from tests.infra.cloudwatch_endpoint import Endpoint
from tests.infra.promtool import EVERY
from tests.infra.published import Publication, Recording, store
from tests.infra.recordings import RECORDED, Outage, Servers, Site
from tests.infra.template import REGION
from tests.support.alerts_endpoint import environment_of

_LATER = 5
"""Seconds after the beginning of each interval at which it is published: never at the edge of a minute."""

_SLOW = 0.2
"""Seconds that a slow reply takes: above both limits of the latency, and no outage."""

QUARTER, HOUR = 60, 240
"""Publications in so much time."""


Begin = Callable[[], Callable[[], None]]


class AtLooks(PeriodicThread):
    """A periodic thread that works at a look, and never by itself."""

    def ensure_started(self) -> None:
        """Nothing."""


class PublishingSite(Site):
    """A site that publishes each look at it."""

    def __init__(self, folder: Path, servers: Servers, outage: Outage, endpoint: Endpoint) -> None:
        metrics: dict[str, Any] = {"METRICS": ["prometheus", CLOUDWATCH], "METRICS_INTERVAL": EVERY}
        begins: list[Begin] = []

        def thread(name: str, begin: Begin, interval: float) -> PeriodicThread:
            if name == PUBLISHER:
                begins.append(begin)
            return (AtLooks if name == PUBLISHER else PeriodicThread)(name, begin, interval)

        with patch("flask_langpont_session.ops.exporters.exporting.PeriodicThread", thread):
            super().__init__(folder, servers, outage, **metrics, ENVIRONMENT="production")
        self.publications: list[Publication] = []
        self._endpoint = endpoint
        [begin] = begins
        self._publish = begin()

    def _note(self, page: str, looks: int) -> None:
        super()._note(page, looks)
        for _ in range(looks):
            before = len(self._endpoint.received)
            self._publish()
            received = self._endpoint.received[before:]
            assert received, "the endpoint got nothing"
            at = EVERY * len(self.publications) + _LATER
            self.publications.append(Publication(at, [datum for one in received for datum in one.data]))


class IdleSite(PublishingSite):
    """One that no user visits after the first."""

    def _visit(self) -> None:
        """Nothing."""


class QuietSite(PublishingSite):
    """One that a user visits once a minute, and to which Redis is slow every third minute."""

    def _visit(self) -> None:
        is_slow = len(self.publications) // 4 % 3 == 0
        with self._servers.before_redis.failing(delay(_SLOW)) if is_slow else nullcontext():
            self._ask("POST", "/write")


class SlowSite(PublishingSite):
    """One with few visitors, to whom Redis is always slow."""

    def _visit(self) -> None:
        with self._servers.before_redis.failing(delay(_SLOW)):
            for _ in range(4):
                self._ask("POST", "/write")


def calm(title: str, looks: int) -> Outage:
    """Return an outage in which nothing happens, for so many looks."""
    return Outage(title, lambda servers: nullcontext(), ("degradation_level 0.0",), frozenset(), plan=(looks,))


SITES: Mapping[str, tuple[type[PublishingSite], Outage]] = {
    **{kind: (PublishingSite, outage) for kind, outage in RECORDED.items()},
    "idle night": (IdleSite, calm("an hour without visitors", HOUR)),
    "low traffic": (QuietSite, calm("an hour of one visitor a minute; one reply in three minutes is slow", HOUR)),
    "slow Redis": (SlowSite, calm("a quarter of an hour of few visitors; every reply is slow", QUARTER)),
}


def publications(site_class: type[PublishingSite], outage: Outage, servers: Servers, folder: Path) -> list[Publication]:
    """Play an outage, and return what is published meanwhile."""
    with Endpoint() as endpoint, _in_environment(environment_of(endpoint.url)):
        site = site_class(folder, servers, outage, endpoint)
        try:
            site.play()
        finally:
            site.close()
    return site.publications


@contextmanager
def _in_environment(aws: Mapping[str, str]) -> Iterator[None]:
    """Run with these variables of AWS and no others."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with patch.dict(os.environ, {**others, **aws, "AWS_DEFAULT_REGION": REGION}, clear=True):
        yield


def main(kinds: list[str]) -> None:
    """Record these, or all."""
    with TemporaryDirectory() as name, ExitStack() as ends:
        folder = Path(name)
        wanted = kinds or [*SITES, *record_workers.KINDS]
        # What was done is on the page at once, not within a second.
        ends.enter_context(patch("flask_langpont_session.ops.exporters.exporting.LIVE_INTERVAL", 0.02))
        servers: Servers | None = None
        for number, kind in enumerate(wanted):
            (place := folder / str(number)).mkdir()
            if kind in SITES:
                servers = servers or Servers(folder, ends)
                site_class, outage = SITES[kind]
                done = publications(site_class, outage, servers, place)
                command = f"python -m tests.infra.record '{kind}'"
                recording = Recording(outage.title, command, len(done) * EVERY // 60, done)
            else:
                recording = record_workers.play(kind, place)
            sys.stdout.write(f"{kind}: {store(kind, recording)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
