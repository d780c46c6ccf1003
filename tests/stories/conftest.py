"""Real servers and real workers, started once for all stories and made well before each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.servers import Lab
from tests.faults.proxy import FaultProxy

from .site import APPLICATION, WORKERS, Site, running


@pytest.fixture(scope="package")
def one_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield both hosts, started once for all stories, because their eight workers look after the stores all the
    time."""
    gates = tmp_path_factory.mktemp("gates")
    settings = {
        "GATES": str(gates),
        # A busy machine shall not look like an outage of the database, which is killed when it is to be one.
        "LANGPONT_SESSION_DATABASE_TIMEOUT": 2,
        "LANGPONT_SESSION_REQUEST_BUDGET": 3,
        # Every story waits for this to be over again.
        "LAB_LOOKS": 0.2,
    }
    with (
        Lab(workers=WORKERS, preload=True, settings=settings, application=APPLICATION) as lab,
        FaultProxy("127.0.0.1", lab.primary.port) as proxy,
    ):
        through_proxy = {
            "LANGPONT_SESSION_REDIS_URL": proxy.instead_of(lab.primary.url),
            "LANGPONT_SESSION_REPLICA_URL": None,
        }
        with running(lab.host("lazy", workers=WORKERS, settings=through_proxy)) as lazy, running(lab.web):
            yield Site(lab, lazy, proxy, gates)


@pytest.fixture
def site(one_site: Site) -> Site:
    """Return both hosts, with everything running and known to run, and no user signed in."""
    one_site.heal()
    one_site.forget_sessions()
    return one_site
