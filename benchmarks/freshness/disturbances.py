"""Disturbances of the server between the reader's copy and the writer's change, with proofs that they took place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil

from devservers.processes import wait_until
from devservers.valkey import Valkey
from tests.faults.matrix_servers import Pair, calls, cut_off, info
from tests.faults.proxy import FaultProxy

from .stage import Two
from .worker import LONG, Seen

_IDLE = 1.5
"""Seconds without a request: longer than a near cache trusts a connection that says nothing."""


class NotDisturbed(Exception):
    """The disturbance that a row claims did not happen: there is nothing to report."""


@dataclass
class Scene:
    """The processes and servers that can be disturbed.

    :param servers: of which the primary is in use.
    :param endpoint: before the primary. None: the processes connect to it directly.
    """

    two: Two
    servers: Pair
    endpoint: FaultProxy | None = None


@dataclass(frozen=True)
class Disturbance:
    """One row for each server and placement.

    :param done: does it, lets the change happen, and returns what the reader has seen, and the proof.
    :param times: how often it is repeated in a full run.
    :param by_endpoint: it needs an endpoint.
    """

    title: str
    done: Callable[[Scene], tuple[Seen, str]]
    times: int = 50
    by_endpoint: bool = False


def _must(condition: object, what: str) -> None:
    if not condition:
        raise NotDisturbed(f"not seen: {what}")


def _changed(scene: Scene) -> Seen:
    scene.two.change()
    return scene.two.finish()


def _all_killed(scene: Scene) -> tuple[Seen, str]:
    tracked = len(_tracked(scene.servers.primary))
    _must(tracked or not scene.two.tracks, "a connection that is tracked")
    killed = cut_off(scene.servers.primary)
    _must(killed > tracked or not tracked, "the end of all connections")
    _must(killed, "a connection to kill")
    return _changed(scene), f"the server closed connections, {tracked} of them tracked"


def _all_killed_later(scene: Scene) -> tuple[Seen, str]:
    time.sleep(_IDLE)  # how long there was no request is what the row is about
    return _all_killed(scene)


def _reader_killed(scene: Scene) -> tuple[Seen, str]:
    """Close the reader's connections: if some are tracked, only those."""
    server, ports = scene.servers.primary, _ports(scene.two.reader.pid)
    tracked = [client for client in _tracked(server) if _port(client) in ports]
    _must(tracked or not scene.two.tracks, "a connection of the reader that is tracked")
    with server.client() as admin:
        victims = tracked or [client for client in _clients(admin) if _port(client) in ports]
        killed = sum(int(admin.client_kill_filter(_id=client["id"])) for client in victims)
    _must(killed and killed == len(victims), "a connection of the reader to kill")
    return _changed(scene), f"the server closed the reader's {'tracked ' if tracked else ''}connections by their ids"


def _frozen(scene: Scene, seconds: float) -> tuple[Seen, str]:
    server = scene.servers.primary
    server.freeze()
    try:
        process = psutil.Process(server.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "a stopped process")
        scene.two.change()
        time.sleep(seconds)  # how long it is stopped is what the row is about
        _must(not scene.two.is_finished, "a writer that waits for a server that is stopped")
    finally:
        server.thaw()
    return scene.two.finish(), "the process was stopped, and the writer had no answer until it went on"


def _flushed(scene: Scene) -> tuple[Seen, str]:
    with scene.servers.primary.client() as admin:
        before = admin.dbsize()
        admin.flushall()
        _must(before and not admin.dbsize(), "an empty server that had data")
    return _changed(scene), "the server had keys before, and none after"


def _failed_over(scene: Scene, *, closes: bool) -> tuple[Seen, str]:
    assert scene.endpoint is not None
    servers = scene.servers
    servers.catch_up()
    old, new = servers.primary, servers.replica
    connected = scene.endpoint.connections
    with new.client() as admin:
        admin.execute_command("REPLICAOF", "NO", "ONE")
    with old.client() as admin:
        admin.execute_command("REPLICAOF", "127.0.0.1", str(new.port))
    scene.endpoint.lead_to(new.port)
    if closes:
        scene.endpoint.drop_connections()
    _must(connected, "connections by way of the endpoint")
    _must((_role(old), _role(new)) == ("slave", "master"), "servers that have changed roles")
    scripts = calls(new, "evalsha")
    seen = _changed(scene)
    _must(calls(new, "evalsha") > scripts, "scripts on the new primary")
    servers.primary, servers.replica = new, old
    wait_until(lambda: info(old, "replication")["master_link_status"] == "up", "a replica of the new primary", LONG)
    return seen, "the servers changed roles, the new primary ran scripts"


def _role(server: Valkey) -> str:
    role: str = info(server, "replication")["role"]
    return role


def _clients(admin: Any) -> list[Mapping[str, str]]:
    found: list[Mapping[str, str]] = admin.client_list()
    return found


def _tracked(server: Valkey) -> list[Mapping[str, str]]:
    with server.client() as admin:
        return [client for client in _clients(admin) if "t" in client["flags"]]


def _port(client: Mapping[str, str]) -> int:
    return int(client["addr"].rpartition(":")[2])


def _ports(pid: int) -> set[int]:
    return {connection.laddr.port for connection in psutil.Process(pid).net_connections("tcp") if connection.laddr}


DISTURBANCES = (
    Disturbance("all connections are killed (CLIENT KILL TYPE normal)", _all_killed),
    Disturbance(f"all connections are killed after {_IDLE:g} s without a request", _all_killed_later, times=10),
    Disturbance("the reader's connections are killed (CLIENT KILL ID)", _reader_killed),
    Disturbance("the server is stopped for 0.3 s (SIGSTOP, SIGCONT)", partial(_frozen, seconds=0.3), times=20),
    Disturbance("the server is stopped for 1.5 s", partial(_frozen, seconds=1.5), times=5),
    Disturbance("FLUSHALL", _flushed),
    Disturbance("failover, connections are closed", partial(_failed_over, closes=True), times=10, by_endpoint=True),
    Disturbance(
        "failover, connections stay with the demoted server",
        partial(_failed_over, closes=False),
        times=10,
        by_endpoint=True,
    ),
)
