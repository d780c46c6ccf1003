"""A Sentinel failover under load, to a replica that has missed the last moments of the old primary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from devservers.processes import wait_until
from devservers.servers import Valkey
from devservers.web import WebServer
from tests.integration.sentinels import Sentinel, Service

from .ledger import Load, Story, state_of
from .site import WORKERS, Site, health, running, wait_until_well
from .visitor import Visitor

PEOPLE = 6

ENOUGH = 100
"""Auth changes promised in a phase before the next one begins."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Two servers that keep their data in files, and three sentinels."""
    with ExitStack() as ends:
        first = ends.enter_context(Valkey(tmp_path / "first"))
        second = ends.enter_context(Valkey(tmp_path / "second", replica_of=first))
        sentinels = [ends.enter_context(Sentinel(tmp_path / f"sentinel{number}", first)) for number in range(3)]
        service = Service([first, second], sentinels)
        service.wait_until_whole()
        yield service


@pytest.fixture
def host(site: Site, service: Service) -> Iterator[WebServer]:
    """A host that is told of nothing but the sentinels."""
    settings = {"LANGPONT_SESSION_REDIS_URL": service.url, "LANGPONT_SESSION_REPLICA_URL": None}
    with running(site.lab.host("watched", workers=WORKERS, preload=True, settings=settings)) as host:
        yield host


def test_I1_I4_a_failover_loses_and_revives_no_auth_change(
    site: Site, service: Service, host: WebServer, figures: Callable[[str], None]
) -> None:
    """Sign-ins, changes of role and sign-outs go on all the while. What was promised holds, on every worker."""
    old, new = service.primary, service.replica
    with Load(host.url, PEOPLE) as load:
        go_on(load, "before")
        new.freeze()
        cut_replication(old)
        go_on(load, "behind")  # promised, and unknown to the next primary
        written = replication(old)["master_repl_offset"]
        old.kill()
        began = time.monotonic()
        load.phase = "failover"
        new.thaw()
        wait_until(lambda: is_primary(new), "the failover")
        wait_until(lambda: all(health(url)["level"] == 0 for url in host.doors().values()), "level 0")
        recovered = time.monotonic() - began
        missed = written - replication(new)["second_repl_offset"]
        go_on(load, "after")
        old.start()  # with its old data, and as a primary until the sentinels tell it otherwise
        go_on(load, "old one back")
    wait_until_well(host)
    assert missed > 0
    assert is_primary(new)
    assert load.workers("failover", [1, 2]) == host.doors().keys()

    found = {f"worker {pid}": as_seen_at(url, load.stories) for pid, url in host.doors().items()}
    found["database"] = as_stored(site, load.stories)
    lost = [(where, s.user) for where, states in found.items() for s in load.stories if states[s.user] not in s.allowed]
    revived = [(where, s.user) for where, states in found.items() for s in load.stories if states[s.user] < s.promised]
    figures(f"""
Sentinel failover under load: {PEOPLE} people, {WORKERS} workers; {missed:,} bytes that the new primary had missed
{load.table()}
lost {len(lost)}, revived {len(revived)}, shown again by a worker {sum(len(s.went_back) for s in load.stories)}; \
slowest answer {load.slowest * 1000:.0f} ms; level 0 again after {recovered:.1f} s""")
    assert (lost, revived) == ([], [])
    assert [s.went_back for s in load.stories if s.went_back] == []
    assert load.failures() == {}
    assert all(s.promised == s.tried for s in load.stories)


def go_on(load: Load, phase: str) -> None:
    """Wait until enough was promised in this phase, and every worker was seen at level 0."""
    load.phase = phase
    wait_until(lambda: load.promised(phase) >= ENOUGH, f"{ENOUGH} auth changes {phase}")
    wait_until(lambda: len(load.workers(phase, [0])) == WORKERS, f"all workers {phase}")


def cut_replication(primary: Valkey) -> None:
    """The replica's connection ends. A frozen one does not come back, so it misses what follows."""
    with primary.client() as client:
        assert client.client_kill_filter(_type="replica") == 1


def replication(server: Valkey) -> dict[str, Any]:
    """Return a server's ``INFO replication``. After a promotion, ``second_repl_offset`` tells how far it had
    followed."""
    # A server that is being promoted closes all connections once.
    with redis.Redis(port=server.port, retry=Retry(ConstantBackoff(0.05), 5), decode_responses=True) as client:
        info: Any = client.info("replication")
    return dict(info)


def is_primary(server: Valkey) -> bool:
    """Return whether the server calls itself a primary."""
    return bool(replication(server)["role"] == "master")


def as_seen_at(url: str, stories: Sequence[Story]) -> dict[str, int]:
    """User → the state of the session as one worker knows it."""
    found = Visitor(url).whose([story.visitor.header for story in stories])
    return {story.user: state_of(*who) for story, who in zip(stories, found, strict=True)}


def as_stored(site: Site, stories: Sequence[Story]) -> dict[str, int]:
    """User → the state of the session as the database knows it."""
    rows = [site.row(story.visitor.digest) for story in stories]
    return {
        row["user_id"]: state_of(row["user_id"] if row["live"] else None, row["payload"]["user_role"]) for row in rows
    }
