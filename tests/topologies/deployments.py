"""The ways to deploy Redis, each with real processes, as one value: settings, servers, what is left in an outage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from devservers.servers import Valkey
from tests.integration.tls import Authority

from . import acl
from .redis8 import Redis8, acl_file


@dataclass(frozen=True)
class Deployment:
    """A way to deploy Redis, running.

    :param settings: what leads an application there.
    :param primary: the server that is killed.
    :param replica: its follower, if there is one.
    """

    settings: Mapping[str, str]
    primary: Valkey
    replica: Valkey | None = None

    def start(self) -> None:
        """Start what does not run."""
        self.primary.start()
        if self.replica is not None:
            self.replica.start()

    def begin(self) -> None:
        """Running and empty."""
        self.start()
        with self.primary.client() as client:
            client.flushall()
            client.acl_log_reset()

    def refused(self) -> list[str]:
        """Return the commands and keys that the servers have refused for want of rights, since the beginning or
        their own."""
        found = []
        for server in filter(None, (self.primary, self.replica)):
            with server.client() as client:
                found += [str(entry["object"]) for entry in client.acl_log()]
        return found


Engine = Callable[..., Valkey]
ENGINES: Mapping[str, Engine] = {"redis": Redis8, "valkey": Valkey}


def single(engine: Engine, folder: Path, ends: ExitStack) -> Deployment:
    server = ends.enter_context(engine(folder))
    return Deployment({"REDIS_URL": server.url}, server)


def two_urls(engine: Engine, folder: Path, ends: ExitStack) -> Deployment:
    primary = ends.enter_context(engine(folder / "primary"))
    replica = ends.enter_context(engine(folder / "replica", replica_of=primary, appendonly=False))
    return Deployment({"REDIS_URL": primary.url, "REPLICA_URL": replica.url}, primary, replica)


def socket(engine: Engine, folder: Path, ends: ExitStack) -> Deployment:
    path = folder / "socket"  # where Redis8 has its own already
    server = ends.enter_context(engine(folder, extra=("--unixsocket", str(path))))
    return Deployment({"REDIS_URL": f"unix://{path}"}, server)


def least_rights(engine: Engine, folder: Path, ends: ExitStack) -> Deployment:
    """Primary and replica, and a user who may do what the documentation says and nothing else."""
    users = acl_file(folder, ["default on nopass ~* &* +@all", acl.user(acl.documented())])
    primary = ends.enter_context(engine(folder / "primary", extra=users))
    replica = ends.enter_context(engine(folder / "replica", replica_of=primary, appendonly=False, extra=users))
    user = f"redis://{acl.USER}:{acl.PASSWORD}@"
    urls = {"REDIS_URL": primary.url, "REPLICA_URL": replica.url}
    return Deployment({name: url.replace("redis://", user) for name, url in urls.items()}, primary, replica)


def tls(engine: Engine, folder: Path, ends: ExitStack) -> Deployment:
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority(folder)
    server = ends.enter_context(engine(folder, certificate=authority.issue(["localhost"])))
    url = f"rediss://localhost:{server.port}/0?ssl_ca_certs={authority.certificate}"
    return Deployment({"REDIS_URL": url}, server)


Deploy = Callable[[Engine, Path, ExitStack], Deployment]

DEPLOYMENTS: Mapping[tuple[str, str], tuple[Deploy, Engine]] = {
    # What an application asks of both programs is the same, and the tests of the store and of the rights run on each.
    **{("single", name): (single, engine) for name, engine in ENGINES.items()},
    ("two_urls", "valkey"): (two_urls, Valkey),
    ("socket", "redis"): (socket, Redis8),
    ("least_rights", "valkey"): (least_rights, Valkey),
    ("tls", "redis"): (tls, Redis8),  # the Valkey of the wheel is built without
}


def deploy(way: tuple[str, str], folder: Path, ends: ExitStack) -> Deployment:
    """Start one of them; ended with `ends`."""
    start, engine = DEPLOYMENTS[way]
    return start(engine, folder, ends)
