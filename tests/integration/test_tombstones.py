"""S6: a tombstone lies as long as anything could revive the session, whatever the settings. Real servers."""

from __future__ import annotations

from typing import Any

import pytest

from devservers.servers import Valkey
from flask_langpont_session.testing import switched_off

from .behind import browser, key, row, sign_in, waiting
from .conftest import MakeApp, parts

DAY = 86_400

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
