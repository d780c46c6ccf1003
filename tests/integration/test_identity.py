"""The identity of a real server, of Valkey and of Redis: another one exactly when its data may be older than before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.stores.redis.server_identity import identity_of

from .scripts_server import Redis


@dataclass(frozen=True)
class Pair:
    """Two servers that know nothing of each other yet."""

    one: Valkey
    other: Valkey


# A primary forgets within a second or two that it had a replica, as it otherwise does in an hour.
FORGETFUL = ("--repl-backlog-ttl", "1")


@pytest.fixture(params=[Valkey, Redis])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
    one, other = (request.param(folder, appendonly=False, extra=FORGETFUL) for folder in folders)
    with one, other:
        yield Pair(one, other)


def identity(server: Valkey) -> str:
    with server.client() as client:
        sections = (
            {name: str(value) for name, value in client.info(part).items()} for part in ("server", "replication")
        )
        found = identity_of(*sections)
    assert found is not None
    return found


def follow(server: Valkey, primary: Valkey) -> None:
    """Become a replica of a server, and have what that has."""
    with server.client() as client:
        client.replicaof("127.0.0.1", str(primary.port))
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", "synchronisation")


def promote(server: Valkey) -> None:
    with server.client() as client:
        client.replicaof("NO", "ONE")


def replication_id(server: Valkey) -> str:
    with server.client() as client:
        return str(client.info("replication")["master_replid"])


def test_replicas_that_come_and_go_make_no_other_server(pair: Pair) -> None:
    """The primary changes its replication id both times, and its data stay."""
    before, ids = identity(pair.one), {replication_id(pair.one)}
    follow(pair.other, pair.one)
    ids.add(replication_id(pair.one))
    assert identity(pair.one) == before
    promote(pair.other)
    wait_until(lambda: replication_id(pair.one) not in ids, "another replication id")
    assert len(ids) == 2
    assert identity(pair.one) == before


def test_a_server_that_takes_part_in_a_failover_is_another_one_each_time(pair: Pair) -> None:
    """Promoted, demoted, and back again: what was written to it in between was written in vain."""
    follow(pair.other, pair.one)
    seen = [identity(pair.one), identity(pair.other)]
    promote(pair.other)
    seen.append(identity(pair.other))
    follow(pair.one, pair.other)
    seen.append(identity(pair.one))
    for _ in range(2):
        promote(pair.one)
        seen.append(identity(pair.one))
        follow(pair.one, pair.other)
    assert len(set(seen)) == len(seen)
