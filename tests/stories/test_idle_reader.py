"""A session that is only read is in use, too: it lives on for as long as its user looks at it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from devservers.processes import wait_until
from devservers.web import WebServer

from .site import WORKERS, Site, health, running, signed_in, wait_until_well
from .visitor import Visitor
from .watch import Watch

IDLE = 3
"""Seconds."""


@pytest.fixture(scope="module")
def brief(one_site: Site) -> Iterator[WebServer]:
    """A host on which sessions soon run out."""
    one_site.heal()
    settings = {"LANGPONT_SESSION_IDLE_TIMEOUT": IDLE, "LANGPONT_SESSION_VERIFY_INTERVAL": IDLE / 5}
    with running(one_site.lab.host("brief", workers=WORKERS, preload=True, settings=settings)) as host:
        yield host


def test_a_user_who_only_reads_stays_signed_in(site: Site, brief: WebServer) -> None:
    """Reading keeps a user signed in for twice the idle time, on every worker. Use is noted once per quarter of it,
    by one of the workers asked then, or by each if they are asked at the same time. A user who does not read is
    signed out."""
    reader, idler = signed_in_on(brief, "hanako"), signed_in_on(brief, "taro")
    expiries = set()
    with Watch(reader, brief.doors()) as watch:
        watch.sees(user="hanako")

        def twice_the_idle_time_has_passed() -> bool:
            expiries.add(site.row(reader.digest)["idle_expires_at"])
            return age(site, reader.digest) > 2 * IDLE

        wait_until(twice_the_idle_time_has_passed, "twice the idle time", pause=0.05)
        watch.goes_on()
    assert watch.courses("user") == [["hanako"]]
    assert {idler.at(url).me()["user"] for url in brief.doors().values()} == {None}
    assert 3 <= len(expiries) <= 2 * 4 * WORKERS + 2
    assert site.row(reader.digest)["version"] == 1


def test_S1_a_user_who_reads_through_an_outage_of_the_database_stays_signed_in(site: Site, brief: WebServer) -> None:
    """By the row, the idle time ran out meanwhile. Redis has a later expiry, and the database is told."""
    reader = signed_in_on(brief, "hanako")
    with Watch(reader, brief.doors()) as watch:
        watch.sees(user="hanako")
        assert site.row(reader.digest)["idle_expires_at"] <= now_ms(site) + IDLE * 1000
        site.lab.database.kill()
        runs_out = (time.time() + IDLE) * 1000  # at the latest; after the outage the workers may tell it more at once
        wait_until(lambda: not any(health(url)["logins"] for url in brief.doors().values()), "the outage")
        time.sleep(IDLE)
        site.lab.database.start()
        assert runs_out < now_ms(site)
        wait_until_well(brief)
        watch.goes_on()
        # While it is read: that it was in use until a moment ago says nothing any more after IDLE.
        wait_until(lambda: site.row(reader.digest)["idle_expires_at"] > now_ms(site), "that the database is told")
    assert watch.courses("user") == [["hanako"]]
    assert watch.set_cookies() == 0


def signed_in_on(host: WebServer, user: str) -> Visitor:
    visitor = Visitor(host.url)
    signed_in(visitor, user)
    return visitor


def age(site: Site, digest: str) -> float:
    """Seconds since the session began, by the database's clock."""
    return float(now_ms(site) - site.row(digest)["created_at"]) / 1000


def now_ms(site: Site) -> int:
    """The database's clock."""
    [row] = site.query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now")
    return int(row["now"])
