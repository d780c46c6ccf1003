"""Prometheus: the collectors, the page, and several gunicorn workers that are one site."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, Counter, Gauge

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.metrics.losses import Cause, Loss
from flask_langpont_session.metrics.recorder import BOUNDS, Reader, Recorder, Standing
from flask_langpont_session.ops.exporters.prometheus import SECONDS, collectors_of
from flask_langpont_session.testing import switched_off

from .conftest import MakeApp, parts
from .exporters_site import Gunicorn, running


class Site:
    """An exporter with its recorder and registry."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.registry = CollectorRegistry()
        self.level = 0
        self.standing = Standing(in_use={"primary": 3})
        self._reader = Reader(self.recorder, lambda: self.level, lambda: self.standing)

    def publish(self) -> None:
        """Publish what is new."""
        collectors_of(self.registry).publish(self._reader)

    def publish_of_another(self, standing: Standing) -> None:
        """Publish the state of one more application of the same registry."""
        self._others = Reader(Recorder(), lambda: 0, lambda: standing)
        collectors_of(self.registry).publish(self._others)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"langpont_session_{name}", labels)


@pytest.fixture
def site() -> Site:
    return Site()


# -- collectors --------------------------------------------------------------------------------------------------------


def test_operations_have_counts_and_a_histogram(site: Site) -> None:
    """Counts and seconds are by operation and backend; whole requests stand beside the questions to stores."""
    for name, source, outcome, milliseconds in (
        ("load", "primary", "ok", 0.4),
        ("load", "primary", "ok", 0.5),
        ("load", "primary", "unreachable", 200),
        ("request", "none", "ok", 30),
        ("unheard of", "somewhere", "somehow", 1),
    ):
        site.recorder.observe(name, "all", source, outcome, milliseconds / 1000)
    site.publish()
    site.publish()
    load = {"operation": "read", "backend": "primary"}
    assert site.value("operations_total", **load, outcome="ok") == 2
    assert site.value("operations_total", **load, outcome="unreachable") == 1
    assert site.value("operations_total", operation="request", backend="none", outcome="ok") == 1
    assert site.value("operations_total", operation="other", backend="other", outcome="other") == 1
    assert site.value("operation_duration_seconds_count", **load) == 3
    assert site.value("operation_duration_seconds_sum", **load) == pytest.approx(0.2009)
    buckets = {le: site.value("operation_duration_seconds_bucket", **load, le=le) for le in ("0.0005", "0.1", "0.25")}
    assert buckets == {"0.0005": 2, "0.1": 2, "0.25": 3}


def test_a_rounded_duration_is_in_the_bucket_of_the_exact_one() -> None:
    """Because every bound of the histogram is one that durations are rounded up to."""
    assert {round(bound * 1000, 6) for bound in SECONDS} <= set(BOUNDS)


def test_states_and_events(site: Site) -> None:
    """Each counter of the recorder is published under its name; the level is the highest; without an answer there is
    no number."""
    counted = {
        "StoreLost": 3, "StoreRecovered": 2, "ServerChanged": 1, "DataLost": 1, "level_3": 1,
        "fallback_replica": 4, "fallback_journal": 1, "fallback_local": 1,
        "sessions_created": 5, "sessions_regenerated": 1, "sessions_ended": 2, "sessions_expired": 4,
        "grants_refused": 6, "values_rejected": 7, "metrics_dropped": 8,
        "alerts_failed": 10,
    }  # fmt: skip
    for counter, by in counted.items():
        site.recorder.count(counter, by)
    site.publish()
    assert math.isnan(site.value("active") or 0)
    site.standing = site.standing._replace(active=12)
    assert site.value("degradation_level") == 3
    site.publish()
    assert (site.value("degradation_level"), site.value("active")) == (0, 12)
    for name, labels, expected in (
        ("circuit_transitions_total", {"to": "open"}, 3),
        ("circuit_transitions_total", {"to": "closed"}, 2),
        ("fallback_operations_total", {"backend": "replica"}, 4),
        ("fallback_operations_total", {"backend": "local"}, 2),
        ("lifecycle_total", {"event": "created"}, 5),
        ("lifecycle_total", {"event": "regenerated"}, 1),
        ("lifecycle_total", {"event": "ended"}, 2),
        ("lifecycle_total", {"event": "expired"}, 4),
        ("server_changes_total", {}, 1),
        ("data_losses_total", {}, 1),
        ("grants_refused_total", {}, 6),
        ("values_rejected_total", {}, 7),
        ("dropped_total", {"sink": "cloudwatch"}, 8),
        ("alerts_failed_total", {}, 10),
        ("pool_in_use", {"backend": "primary"}, 3),
    ):
        assert site.value(name, **labels) == expected, (name, labels)


def test_the_latest_look_at_the_number_of_sessions_counts(site: Site) -> None:
    """The latest look counts; an unknown number is shown as well."""
    site.standing = Standing(active=12)
    site.publish()
    site.publish_of_another(Standing(active=15))
    site.standing = Standing(active=None)  # no news
    site.publish()
    assert site.value("active") == 15
    site.standing = Standing(active=math.nan)
    site.publish()
    assert math.isnan(site.value("active") or 0)


def test_applications_of_a_process_are_shown_together(site: Site) -> None:
    """The worst level and the sum of the connections, whichever published last; not what one is no longer like."""
    site.level = 4
    site.publish()
    readable = {("primary", "read"): True}
    site.publish_of_another(
        Standing(in_use={"primary": 1, "replica": 2}, usable=readable, waiting=2, oldest=9.0, near=4)
    )
    assert site.value("degradation_level") == 4
    assert (site.value("pool_in_use", backend="primary"), site.value("pool_in_use", backend="replica")) == (4, 2)
    assert site.value("store_up", backend="primary", way="read") == 1
    assert (site.value("journal_waiting"), site.value("journal_oldest_seconds")) == (2, 9)
    assert site.value("near_cache_connections", backend="primary") == 4
    site.standing = Standing(in_use={"primary": 3}, usable={("primary", "read"): False}, waiting=None)
    site.level = 0
    site.publish()  # the worst since it published before
    assert site.value("store_up", backend="primary", way="read") == 0
    assert math.isnan(site.value("journal_waiting") or 0)
    assert site.value("journal_oldest_seconds") == 9
    site.publish()
    assert site.value("degradation_level") == 0
    assert site.value("pool_in_use", backend="primary") == 4


def test_sizes_and_waits_are_histograms(site: Site) -> None:
    """Sizes are in bytes, waits in seconds."""
    for size in (100, 300, 70_000):
        site.recorder.measure("payload", "ui", size)
    site.recorder.measure("pool_wait", "primary", 40)
    site.publish()
    site.publish()
    assert site.value("payload_bytes_count", category="ui") == 3
    assert site.value("payload_bytes_bucket", category="ui", le="1024.0") == 2
    assert site.value("payload_bytes_sum", category="ui") == 70_400
    assert site.value("pool_wait_seconds_sum", backend="primary") == pytest.approx(0.04)
    assert site.value("pool_wait_seconds_bucket", backend="primary", le="0.025") == 0
    assert site.value("pool_wait_seconds_bucket", backend="primary", le="0.05") == 1


def test_what_is_not_kept_is_counted_by_cause_and_category(site: Site) -> None:
    """Counters begin at nought, so that the first loss of a kind is an increase too; each loss counts once."""
    collectors_of(site.registry).expect(["ui", "translation"])
    lost = {"cause": "journal full", "category": "ui"}
    assert site.value("writes_lost_total", **lost) == 0
    site.recorder.count_loss(Loss.WRITES_LOST, Cause.JOURNAL_FULL, "ui", 2)
    site.recorder.count_loss(Loss.REQUEST_ONLY_WRITES, Cause.LEVEL_2, "ui")
    site.recorder.count_loss(Loss.MERGE_CONFLICTS, Cause.WRITTEN_SINCE, "translation", 3)
    site.publish()
    site.publish()
    assert site.value("writes_lost_total", **lost) == 2
    assert site.value("writes_lost_total", cause="journal full", category="translation") == 0
    assert site.value("request_only_writes_total", cause="level 2", category="ui") == 1
    assert site.value("merge_conflicts_total", cause="written since", category="translation") == 3
    assert site.value("merge_dropped_total", cause="too old", category="ui") == 0
    assert site.value("merge_dropped_total", cause="written since", category="ui") is None


def test_names_follow_the_customs_of_prometheus(site: Site) -> None:
    """Base units and suffixes; labels are small closed sets, and no id is among them."""
    site.recorder.observe("load", "all", "primary", "ok", 0.001)
    site.publish()
    families = {family.name: family for family in site.registry.collect()}
    assert all(re.fullmatch(r"langpont_session_[a-z_]+", name) for name in families)
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}
    assert labels <= {"operation", "backend", "outcome", "category", "cause", "le", "to", "event", "sink", "why"}


def test_no_series_says_when_another_one_began(site: Site) -> None:
    """No series of this package says so: the application's own metrics in the same registry are the application's
    business."""
    Counter("of_the_application", "Its own.", registry=site.registry)
    collectors_of(site.registry).expect(["ui"])
    site.recorder.observe("load", "all", "primary", "ok", 0.001)
    site.publish()
    names = {sample.name for family in site.registry.collect() for sample in family.samples}
    assert [name for name in names if name.endswith("_created")] == ["of_the_application_created"]
    assert {"langpont_session_writes_lost_total", "langpont_session_operation_duration_seconds_bucket"} <= names


def test_a_name_that_is_taken_is_refused(site: Site) -> None:
    """A name that the application's own metrics have is refused, as prometheus_client refuses it."""
    site.publish()
    with pytest.raises(ValueError, match="langpont_session_active"):
        Gauge("langpont_session_active", "The application's own.", registry=site.registry)


def test_nothing_is_registered_at_import_and_once_per_registry() -> None:
    """Two applications in one process share what a registry shows."""
    registry = CollectorRegistry()
    assert collectors_of(registry) is collectors_of(registry)
    assert collectors_of(CollectorRegistry()) is not collectors_of(registry)
    fresh = "from prometheus_client import REGISTRY; import flask_langpont_session.ops.exporters.prometheus"
    shown = f"{fresh}; assert not [name for name in REGISTRY._names_to_collectors if 'langpont' in name]"
    subprocess.run([sys.executable, "-c", shown], check=True)


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def make_exporting(make_app: MakeApp) -> Iterator[MakeApp]:
    made: list[Flask] = []

    def make(**config: Any) -> Flask:
        app = make_app(**{"METRICS": ["prometheus"], "METRICS_REGISTRY": CollectorRegistry(), **config})
        made.append(app)
        return app

    yield make
    for app in made:
        exporting = parts(app).exporting
        assert exporting is not None
        exporting.stop()


def test_there_is_a_page_only_where_it_is_wanted(make_exporting: MakeApp) -> None:
    """The state of a site is not public by default."""
    app = make_exporting()
    assert [rule.rule for rule in app.url_map.iter_rules() if "metrics" in rule.rule] == []
    shown = make_exporting(METRICS_URL="/internal/metrics", KEY_PREFIX="two")
    response = shown.test_client().get("/internal/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain; version=")
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers
    assert "langpont_session_degradation_level 0.0" in response.text


def test_the_page_shows_what_requests_did(make_exporting: MakeApp) -> None:
    """A moment later, by the thread: no request waits for it."""
    app = make_exporting(METRICS_URL="/metrics", METRICS_INTERVAL=1)
    client = app.test_client()
    client.post("/set", json={"lang": "jp"})
    client.post("/login/7")
    parts(app).backend.memory.clear()  # what the database said a moment ago would do
    with switched_off(app, "primary"):
        client.get("/who")

    def shows(*lines: str) -> bool:
        text = app.test_client().get("/metrics").text
        return all(f"langpont_session_{line}\n" in text for line in lines)

    wait_until(
        lambda: shows(
            'lifecycle_total{event="created"} 2.0',
            'circuit_transitions_total{to="open"} 2.0',
            'fallback_operations_total{backend="database"} 1.0',
            "active 1.0",
        ),
        "the figures",
    )


def test_the_page_shows_what_the_stores_are_like(make_exporting: MakeApp) -> None:
    """The page shows which stores are used in which direction, and what waits in the journal, while it waits."""
    app = make_exporting(METRICS_URL="/metrics", HEALTH_INTERVAL=0.2)
    client = app.test_client()

    def shows(*lines: str) -> bool:
        text = app.test_client().get("/metrics").text
        return all(f"langpont_session_{line}\n" in text for line in lines)

    well = 'store_up{backend="primary",way="read"} 1.0', 'store_up{backend="database",way="write"} 1.0'
    client.post("/set", json={"lang": "jp"})
    client.get("/all")
    wait_until(lambda: shows(*well, 'near_cache_connections{backend="primary"} 1.0', "journal_waiting 0.0"), "health")
    assert 'backend="replica"' not in app.test_client().get("/metrics").text
    with switched_off(app, "primary"):
        client.post("/set", json={"draft": "text"})
        lost = [f'store_up{{backend="primary",way="{way}"}} 0.0' for way in ("read", "write")]
        lost.append('store_cause{backend="primary",cause="unreachable"} 1.0')
        parts(app).monitor.outages.note_waiting()
        wait_until(lambda: shows(*lost, well[1], "journal_waiting 1.0"), "the outage")
        assert not shows("journal_oldest_seconds 0.0")
    over = 'store_cause{backend="primary",cause="unreachable"} 0.0'
    wait_until(lambda: shows(*well, over, "journal_waiting 0.0", "journal_oldest_seconds 0.0"), "health again")


# -- gunicorn ----------------------------------------------------------------------------------------------------------


EXPORTING = {"METRICS": '["prometheus"]', "METRICS_URL": "/metrics", "METRICS_INTERVAL": "1"}


@pytest.fixture
def gunicorn(primary: Valkey, tmp_path: Path) -> Iterator[Gunicorn]:
    with running(tmp_path, primary.url, preload=True, quiet=False, **EXPORTING) as site:
        yield site


def test_workers_are_one_site(gunicorn: Gunicorn) -> None:
    """The worker that is asked shows the sum of all; a worker that is killed takes nothing with it that was shown."""
    served = gunicorn.visited()
    total = sum(served.values())
    created, saves = (
        'lifecycle_total{event="created"}',
        'operations_total{backend="primary",operation="write",outcome="ok"}',
    )
    # A worker writes its figures one after the other.
    for figure in (
        created,
        saves,
        'operation_duration_seconds_count{backend="primary",operation="write"}',
        'payload_bytes_count{category="ui"}',
        "active",
    ):
        wait_until(lambda figure=figure: gunicorn.figure(figure) == total, f"the sum of both: {figure}")  # type: ignore[misc]

    victim = int(next(iter(served)))
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in gunicorn.workers and len(gunicorn.workers) == 2, "another worker")
    wait_until(lambda: gunicorn.figure(created) == total, "the same sum")
    wait_until(lambda: gunicorn.figure("degradation_level") == 0, "the level of the other worker")
    wait_until(lambda: gunicorn.figure('store_up{backend="primary",way="write"}') == 1, "what the other worker uses")
    left = {name for name in gunicorn.files() if name.endswith(f"_{victim}.db")}
    assert left and not [name for name in left if name.startswith("gauge_live")]
    # Of the new worker, which has not looked yet, nothing is shown; and the other one may not have looked before.
    wait_until(lambda: gunicorn.figure("active") == total, "the same number of sessions")
    assert gunicorn.ask("POST", "/set")
    wait_until(lambda: gunicorn.figure(created) == total + 1, "one more")
    wait_until(lambda: gunicorn.figure("active") == total + 1, "one more session")


def test_what_a_server_before_has_left_is_not_shown(primary: Valkey, tmp_path: Path) -> None:
    """Counters begin at nought, as after a container is started again, or a host lost its power."""
    with running(tmp_path, primary.url, preload=False, quiet=False, **EXPORTING) as site:
        created = 'lifecycle_total{event="created"}'
        total = sum(site.visited().values())
        wait_until(lambda: site.figure(created) == total, "the figures of the first server")
    assert site.files()
    with running(tmp_path, primary.url, preload=False, quiet=False, **EXPORTING) as site:
        wait_until(lambda: site.figure(created) == 0, "a page without them")
