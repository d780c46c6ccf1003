"""Noticing that a Redis server may be older than the database: which server is it, and since when do we know it?

Failover and restart need a new connection, and a new connection asks the server for its run id. Another id than the
one seen last is an incident: from that moment on, no stamp from before counts, and every signed-in session is
verified once against the database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError


class Fence:
    """The identity of the server behind one endpoint.

    :param on_incident: called without arguments when another server answered than before; must not raise or block.
    """

    def __init__(self, on_incident: Callable[[], None] = lambda: None) -> None:
        self.trust_since_ms = 0
        self.identity: str | None = None
        self.is_primary = True
        self._on_incident = on_incident
        self._lock = threading.Lock()

    def observe(self, identity: str | None, *, now_ms: int, is_primary: bool) -> None:
        """A server introduced itself.

        :param identity: its run id, a new one for every start of a server process; None: it does not say. Then every
            connection may lead to another server, and nothing confirmed before this one counts.
        :param now_ms: its own clock, the one that stamps are taken from.
        :param is_primary: whether it is the primary of its replication group.
        """
        with self._lock:
            self.is_primary = is_primary
            if identity is not None and identity == self.identity:
                return
            known, self.identity = self.identity, identity
            self.trust_since_ms = max(now_ms, self.trust_since_ms)
        if identity != known:
            self._on_incident()

    def introduce(self, connection: Any) -> None:
        """redis-py's ``redis_connect_func``: greet, then ask who answers. One round trip per new connection."""
        connection.on_connect()
        self.ask(connection)

    def ask(self, connection: Any) -> None:
        """Ask a connected server for its run id, clock and role.

        A server may refuse INFO (an ACL without ``+info``): see `identity` of :meth:`observe`.
        """
        commands = connection.pack_commands([("INFO", "server"), ("INFO", "replication"), ("TIME",)])
        connection.send_packed_command(commands, check_health=False)
        server, replication = _facts(connection), _facts(connection)
        seconds, micros = connection.read_response(disable_decoding=True)
        self.observe(
            server.get("run_id"),
            now_ms=int(seconds) * 1000 + int(micros) // 1000,
            is_primary=replication.get("role", "master") == "master",
        )


def _facts(connection: Any) -> dict[str, str]:
    try:
        info = connection.read_response(disable_decoding=True)
    except ResponseError:
        return {}
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
