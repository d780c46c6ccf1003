"""Rules and dashboard, over what the exporter's page showed while real servers failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import accumulate
from pathlib import Path

import pytest

from flask_langpont_session.support.lag import Lag
from tests.infra.grafana import expressions
from tests.infra.promtool import EVER_FIRED, FIRING, Evaluation, Series, evaluate, firing
from tests.infra.record import PublishingSite, calm, publications
from tests.infra.recordings import CALM, RECORDED, Servers, Site
from tests.support.programs import required

MACHINE = re.compile("langpont_session_(process_lag|operation_duration|pool_wait)_seconds")
"""How busy the machine is that runs the tests. The alerts on it are tested with figures that are made up."""

Play = Callable[[str], Series]

KINDS = {
    repr((outage.shows, outage.plan, outage.replica, outage.fires, outage.afterwards)): kind
    for kind, outage in reversed(RECORDED.items())
}
"""One outage of each kind of page: to Prometheus a Redis that refuses connections is one that hangs. What all of them
publish is recorded for CloudWatch."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    required("promtool", "prometheus")
    with ExitStack() as ends:
        yield Servers(tmp_path_factory.mktemp("servers"), ends)


@pytest.fixture(scope="module")
def play(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    """Records an outage, once."""

    @cache
    def played(kind: str) -> Series:
        site = Site(tmp_path_factory.mktemp("site"), servers, RECORDED[kind])
        try:
            return site.play()
        finally:
            site.close()

    with pytest.MonkeyPatch.context() as patch:
        # What was done is on the page at once, not within a second.
        patch.setattr("flask_langpont_session.ops.exporters.exporting.LIVE_INTERVAL", 0.02)
        # However busy the machine is: a process that is late blames no store for being slow.
        patch.setattr(Lag, "is_late", lambda *_: False)
        yield played


@pytest.mark.parametrize("kind", KINDS.values())
def test_an_outage_fires_what_it_should_and_nothing_else(kind: str, play: Play, tmp_path: Path) -> None:
    """The alerts fire until the end of the outage and afterwards; nine minutes after it nothing fires any more."""
    outage = RECORDED[kind]
    series = {name: values for name, values in play(kind).items() if not MACHINE.match(name)}
    ended = [*accumulate(outage.plan)]
    expected = [
        (ended[0] - 1, FIRING, firing([])),
        (ended[-2] - 1, FIRING, firing(outage.fires)),
        (ended[-2] - 1, EVER_FIRED, firing(outage.fires)),
        (ended[-1] - 1, EVER_FIRED, firing(outage.fires | outage.afterwards)),
        (ended[-1] - 1, FIRING, firing([])),
    ]
    evaluate(tmp_path, Evaluation(kind, series, expected))


def test_what_is_recorded_for_cloudwatch_is_published_at_each_look(servers: Servers, tmp_path: Path) -> None:
    """The recorder works; its recordings are files, over which the alarms are evaluated."""
    recorded = publications(PublishingSite, calm("a minute", 4), servers, tmp_path)
    assert [publication.at for publication in recorded] == [5, 20, 35, 50]
    counted = {"CurrentLevel": 0.0, "StoreDown": 0.0, "Heartbeat": 1.0}
    for publication in recorded:
        found = {datum["MetricName"]: datum.get("Value") for datum in publication.data if len(datum["Dimensions"]) == 2}
        assert found.items() >= counted.items()


def test_every_graph_of_the_dashboard_shows_something(play: Play, tmp_path: Path) -> None:
    """In an outage, with variables put in. But for what need not happen in it: that a request waits for a connection,
    and that the first failure is that of a request, not of a probe."""
    shown = [of for of in expressions() if "pool_wait" not in of and "outcome!~" not in of]
    expected = [(CALM + 8, f"count({of}) > bool 0", {"{}": 1.0}) for of in shown]
    evaluate(tmp_path, Evaluation("graphs", play("with a replica"), expected))
