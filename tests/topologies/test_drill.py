"""``flask langpont drill`` on every kind of Redis that there is: what a user gets is as the table promises."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from devservers.servers import Valkey
from tests.integration.sentinels import running_service
from tests.integration.shop import run
from tests.integration.tls import Authority

from .cluster_lab import running_cluster
from .conftest import MakeApp
from .redis8 import Redis8

Settings = dict[str, Any]
Sessions = Callable[[], set[str]]
"""The keys that the servers have, but for the canary and what the hosts say of themselves."""


def keys_of(*servers: Valkey) -> set[str]:
    found: set[str] = set()
    for server in servers:
        with server.client() as client:
            found.update(client.scan_iter())
    return {key for key in found if not key.startswith(("session:canary", "session:hosts"))}


@contextmanager
def behind_sentinels(folder: Path, authority: Authority) -> Iterator[tuple[Settings, Sessions]]:
    with running_service(folder) as service:
        yield {"REDIS_URL": service.url}, lambda: keys_of(service.primary)


@contextmanager
def in_a_cluster(folder: Path, authority: Authority) -> Iterator[tuple[Settings, Sessions]]:
    with running_cluster(folder) as cluster:
        cluster.be_patient()
        yield {"REDIS_URL": cluster.url}, lambda: keys_of(*map(cluster.primary, range(3)))


@contextmanager
def over_tls(folder: Path, authority: Authority) -> Iterator[tuple[Settings, Sessions]]:
    certificate = authority.issue(["localhost"])
    with ExitStack() as ends:
        primary = ends.enter_context(Redis8(folder / "primary", certificate=certificate))
        yield (
            {"REDIS_URL": f"rediss://localhost:{primary.port}/0?ssl_ca_certs={authority.certificate}"},
            lambda: keys_of(primary),
        )


@contextmanager
def by_a_unix_socket(folder: Path, authority: Authority) -> Iterator[tuple[Settings, Sessions]]:
    with Redis8(folder / "server") as server:
        yield {"REDIS_URL": f"unix://{server.socket}"}, lambda: keys_of(server)


FAULTS = {"primary-down": "1", "hang": "1"}
"""Fault → level. The others, and their levels without a replica, do not depend on the kind of Redis."""

KINDS = {
    "sentinels": (behind_sentinels, FAULTS),
    "cluster": (in_a_cluster, FAULTS),
    # Nothing differs but the connection, which is there for each fault.
    "TLS": (over_tls, {"hang": "2"}),
    "Unix socket": (by_a_unix_socket, {"hang": "2"}),
}


@pytest.mark.real_time("a server that the machine leaves without an answer for two seconds is an outage")
@pytest.mark.usefixtures("on_time")
@pytest.mark.parametrize("kind", KINDS)
def test_each_feature_gets_what_the_table_promises(
    make_app: MakeApp, tmp_path: Path, authority: Authority, kind: str
) -> None:
    """The drill goes through one outage after the other, and leaves nothing on any server."""
    begin, faults = KINDS[kind]
    with begin(tmp_path / "servers", authority) as (settings, sessions):
        app = make_app(**settings)
        for fault, level in faults.items():
            result = run(app, "drill", fault, "--for", "0")
            assert result.exit_code == 0, result.output
            assert result.output.endswith("  all as promised\n")
            assert re.findall(r"^  level (\d)", result.output, re.MULTILINE) == [level]
        assert sessions() == set()
