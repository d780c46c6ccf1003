"""The servers of the fault matrix: a primary and its replica per engine, kept over all rows, and what they count."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis

from devservers.processes import spawn, wait_until
from devservers.servers import Valkey
from devservers.valkey import SHORT

REDIS_SERVER = shutil.which("redis-server")
ENGINES = ("valkey", "redis") if REDIS_SERVER else ("valkey",)
"""What the rows that differ between the two run on."""


class Redis(Valkey):
    """The system's redis-server, with the verbs of the other servers."""

    def _launch(self) -> subprocess.Popen[bytes]:
        assert REDIS_SERVER is not None
        return spawn([REDIS_SERVER, *self._options(), *self._extra], log=self.log)


CLASSES: Mapping[str, type[Valkey]] = {"valkey": Valkey, "redis": Redis}


@dataclass
class Pair:
    """A primary and its replica, both without persistence: a primary that is killed comes back empty."""

    primary: Valkey
    replica: Valkey

    @classmethod
    @contextmanager
    def running(cls, engine: str, folder: Path) -> Iterator[Self]:
        with ExitStack() as stack:
            primary = stack.enter_context(CLASSES[engine](folder / "primary", appendonly=False))
            replica = CLASSES[engine](folder / "replica", appendonly=False, replica_of=primary)
            yield cls(primary, stack.enter_context(replica))

    def reset(self) -> None:
        """Running, in step, empty, with nothing counted."""
        for server in (self.primary, self.replica):
            server.start()
        with self.primary.client() as client:
            client.flushall()
        for server in (self.primary, self.replica):
            with server.client() as client:
                client.config_resetstat()
        self.catch_up()

    def catch_up(self) -> None:
        """Return when the replica has what the primary has."""

        def in_step() -> bool:
            with self.primary.client() as client:
                return bool(client.wait(1, 1000) >= 1)

        wait_until(in_step, "a replica in step with its primary")


def refusals(server: Valkey, code: str) -> int:
    """Return how many commands a server refused with this error code: ``INFO errorstats``."""
    return int(info(server, "errorstats").get(f"errorstat_{code}", {}).get("count", 0))


def calls(server: Valkey, command: str) -> int:
    """Return how often a server ran a command: ``INFO commandstats``."""
    return int(info(server, "commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


def info(server: Valkey, section: str) -> dict[str, Any]:
    """A section of a server's INFO."""
    with server.client() as client:
        found: dict[str, Any] = client.info(section)
    return found


@contextmanager
def configured(server: Valkey, **settings: object) -> Iterator[None]:
    """CONFIG SET while this is open; dashes as underscores."""
    names = {name.replace("_", "-"): value for name, value in settings.items()}
    with server.client() as client:
        before = {name: client.config_get(name)[name] for name in names}
        for name, value in names.items():
            client.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                client.config_set(name, value)


def cut_off(server: Valkey) -> int:
    """Close the connections of all clients but the replica's, as a server that restarts does. Returns how many."""
    with server.client() as client:
        return int(client.client_kill_filter(_type="normal", skipme=True))


def answers(server: Valkey) -> bool:
    """Return whether a server takes commands: it runs, and has loaded its data."""
    try:
        with server.client(SHORT) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
