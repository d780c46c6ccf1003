"""S6: a tombstone lies as long as anything could revive the session, whatever the settings. Real servers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from flask import Flask

from devservers.servers import Valkey
from flask_langpont_session.config.settings import load_settings
from flask_langpont_session.policy.leases import TOMBSTONE_MS
from flask_langpont_session.stores.host.journal import journal_at
from flask_langpont_session.testing import switched_off
from tests.support.auth_records import says

from .behind import browser, key, row, sign_in, waiting
from .conftest import MakeApp, parts

DAY = 86_400
CORNERS: list[dict[str, Any]] = [
    {"VERIFY_INTERVAL": verify, "GRACE": grace, "IDLE_TIMEOUT": idle, "ABSOLUTE_TIMEOUT": absolute}
    for verify, grace, idle, absolute in itertools.product(
        (0, 1, 60, 900, 3600, DAY), (0, 1, 300, 3600), (60, 3600, 4 * DAY), (3600, 40 * DAY)
    )
    if verify <= idle / 4 and idle <= absolute and (not grace or grace >= verify)
]
"""What the settings allow at their ends, together."""

EXTREMES: list[dict[str, Any]] = [
    {"VERIFY_INTERVAL": 3600, "GRACE": 3600, "IDLE_TIMEOUT": 4 * DAY, "ABSOLUTE_TIMEOUT": 40 * DAY},
    {"VERIFY_INTERVAL": DAY, "GRACE": 0, "IDLE_TIMEOUT": 4 * DAY, "ABSOLUTE_TIMEOUT": 40 * DAY},
    {"VERIFY_INTERVAL": 60, "GRACE": 300},
]


@pytest.mark.parametrize("settings", EXTREMES)
def test_s6_a_sign_out_that_waits_is_not_undone_elsewhere(
    make_app: MakeApp, primary: Valkey, tmp_path: Any, settings: dict[str, Any]
) -> None:
    """One host cannot reach the database, and its sign-out waits. At the moment at which it renews the tombstone, the
    one before is still there for the other host, which asks a database that knows nothing."""
    here = make_app(HEALTH_INTERVAL=3600, **settings)
    there = make_app(HEALTH_INTERVAL=3600, JOURNAL=str(tmp_path / "other host.sqlite3"), **settings)
    client = sign_in(here)
    with switched_off(here, "database"), primary.client() as redis:
        assert browser(here, client.cookie).post("/logout").status_code == 200
        assert waiting(here) == 1
        left = int(redis.pttl(key(client.digest)))
        renewal = parts(here).settings.lease_terms.renewal_ms
        after_renewal = left - renewal
        redis.pexpire(key(client.digest), after_renewal)  # so much time passes; 0 or less: it has run out
        assert renewal * 4 <= left + 60_000
        assert after_renewal > left / 2  # a renewal may fail once
        assert row(here, client.digest)["live"]
        assert browser(there, client.cookie).get("/who").json["user"] is None
    assert not row(here, client.digest)["live"]


def test_s6_a_sign_out_that_waits_for_another_worker_is_renewed_too(
    make_app: MakeApp, primary: Valkey, tmp_path: Any
) -> None:
    """The database answers, and the worker whose turn it is to tell it was stopped: Redis must not forget meanwhile."""
    app = make_app(HEALTH_INTERVAL=3600)
    client = sign_in(app)
    stopped = journal_at(tmp_path / "journal.sqlite3")
    with stopped.alone() as is_alone, parts(app).monitor.paused(), primary.client() as redis:
        assert is_alone
        parts(app).backend.journal.revocations.note(client.digest, in_database=False, in_redis=True)
        parts(app).monitor.recovery.run_once()
        assert waiting(app) == 1
        assert says(redis, key(client.digest))["@live"] == "0"
    stopped.close()


@pytest.mark.parametrize("settings", EXTREMES)
def test_a_tombstone_outlives_every_lease(make_app: MakeApp, primary: Valkey, settings: dict[str, Any]) -> None:
    """A tombstone lives in Redis for VERIFY_INTERVAL, GRACE and the longest request, an hour at least; in the worker
    for that and its copies."""
    app = make_app(HEALTH_INTERVAL=3600, **settings)
    client = sign_in(app)
    client.post("/logout")
    with primary.client() as redis:
        left = int(redis.pttl(key(client.digest)))
    longest = (settings["VERIFY_INTERVAL"] + settings["GRACE"]) * 1000
    assert left > max(TOMBSTONE_MS, longest + 1_500_000) - 60_000
    assert parts(app).backend.memory.ended._min_versions.ttl > 1800 + longest / 1000 + 1500


@pytest.mark.parametrize("settings", CORNERS, ids=str)
def test_the_corners_of_the_configuration(settings: dict[str, Any], tmp_path: Any) -> None:
    """The tombstone outlives leases and grace, and is renewed more than once in its life."""
    app = Flask("corner", instance_path=str(tmp_path))
    app.config.update({f"LANGPONT_SESSION_{name}": value for name, value in settings.items()})
    app.config["LANGPONT_SESSION_REDIS_URL"] = "redis://localhost/0"
    app.testing = True
    terms = load_settings(app).lease_terms
    assert terms.tombstone_ms >= TOMBSTONE_MS
    assert terms.tombstone_ms > terms.verify_ms + terms.grace_ms
    assert terms.renewal_ms * 2 <= terms.tombstone_ms
    assert terms.renewal_ms > 0
