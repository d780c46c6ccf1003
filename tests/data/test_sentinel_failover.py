"""D35: as soon as the sentinels name another primary no worker writes to the one before, however well that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devservers.processes import wait_until
from devservers.servers import Valkey
from tests.integration.sentinels import Service, role, running_service

from .conftest import HostMaker
from .failovers import Load, Span
from .support import home

SOME = 20
"""Entries of each list: its user was at every worker of his host."""

BY_THE_SENTINELS_ALONE = {"HEALTH_INTERVAL": 3600}
"""The monitor's own looks, each over a new connection, find the new primary as well, but later."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Two servers, and sentinels that can be cut off from them."""
    with running_service(tmp_path / "service", signs_in=True) as service:
        yield service


def users_of(server: Valkey) -> list[str]:
    """The connections of workers to a server: they say no name of a driver, and are no sentinels'."""
    with server.client() as client:
        found = client.client_list()
    return [one["id"] for one in found if one["user"] == "default" and not one["lib-name"] and "S" not in one["flags"]]


def planned(service: Service) -> None:
    """An operator has the sentinels exchange two servers that are well."""
    service.fail_over()


def cut_off(service: Service) -> None:
    """The sentinels do not reach the primary; the application does."""
    old, heir = service.primary, service.replica
    with service.sentinels_cut_off(old):
        wait_until(lambda: role(heir) == "master", "the promotion")


def outside(requests: list[Span], switches: list[Span]) -> list[float]:
    """Return the times of requests that overlapped with no switch, in seconds after the beginning of the first one."""
    met = [one for one in requests if any(one.asked < each.answered and one.answered > each.asked for each in switches)]
    return [one.asked - switches[0].asked for one in requests if one not in met]


@pytest.mark.real_time("a write may go to the former primary for a second, by the real clock")
def test_d35_a_primary_that_is_well_is_left_at_the_sentinels_word(
    service: Service, host: HostMaker, record_property: Callable[..., None]
) -> None:
    """Every worker leaves the primary while that still calls itself one: there by an operator's order, and back as the
    sentinels do not reach it."""
    settings = {"REDIS_URL": service.url, **BY_THE_SENTINELS_ALONE}
    with host("a", workers=2, **settings) as a, host("b", workers=1, **settings) as b:
        switches: list[Span] = []
        with Load([a, b]) as load:
            for failover in (planned, cut_off):
                load.go_on(SOME)
                old, heir, began = service.primary, service.replica, time.monotonic()
                assert users_of(old)
                failover(service)
                with service.sentinels_cut_off(old):  # so that they do not make it a replica
                    wait_until(lambda old=old: not users_of(old), "the last connection's end")  # type: ignore[misc]
                    switches.append(Span(began, time.monotonic()))
                    assert (role(old), role(heir)) == ("master", "master")
                    load.go_on(SOME)
                    assert not users_of(old)
                    assert users_of(heir)
                service.wait_until_whole()
                assert service.primary is heir
        home(*a.workers, *b.workers)
        lost = load.lost()
    record_property("lost", f"{len(lost)} of {load.acknowledged}")
    assert outside(lost, switches) == []
    assert outside(load.shown, switches) == []
    assert load.ended, [ended - began for began, ended in switches]
