"""One Redis or Valkey server, as health, the monitor and operators see it: where it is, and whether it answers.

What is asked of it for a session is in :mod:`.store`.
"""

from __future__ import annotations

import secrets

from .commands import CANARY, CLOCK, READ, probing
from .link import Link
from .near import NearCache
from .server_identity import Canary


class Endpoint:
    """A server with a health of its own: the only one, or that of one shard.

    :param link: the way to it.
    :param prefix: first part of every key.
    :param near: what was read of it and has not changed, so that it need not be asked for.
    :ivar name: ``primary``, ``replica``, or one of those with a shard.
    """

    def __init__(self, link: Link, *, prefix: str, near: NearCache | None = None) -> None:
        self.link = link
        self.name = link.name
        self.server_identity = link.server_identity
        self.prefix = prefix
        self.near = near

    @property
    def address(self) -> str:
        """Return where the server is, or was when it was reached last, for people."""
        return self.link.connections.address or "not found yet"

    @property
    def canary_key(self) -> str:
        """Return the key of the canary."""
        return f"{self.prefix}:canary"

    @property
    def canary_place(self) -> str:
        """Return the beginning of its canaries' ids, where the canary may have to lie under another key some day."""
        return ""

    def look_at_canary(self, known: Canary | None, *, timeout: float) -> Canary:
        """Look whether data was lost, over the connections that reads use; see ``canary.lua``.

        :raises StoreError: the server did not answer, or refused the write that belongs to it.
        """
        name, number = (known.canary_id, known.number) if known else ("", 0)
        new, asked_at = f"{self.canary_place}{secrets.token_hex(8)}", self.server_identity.clock()
        [(now_ms, canary_id, now)] = self.link.run([CANARY([self.canary_key], [name, number, new])], timeout)
        self.server_identity.note_clock(self.server_identity.server, now_ms, asked_at)
        return Canary(str(canary_id, "ascii"), int(now), now_ms)

    def time_ms(self, *, timeout: float) -> int:
        """Return the server's clock, milliseconds since 1970."""
        [(seconds, micros)] = self.link.run([CLOCK], timeout)
        return int(seconds) * 1000 + int(micros) // 1000

    def probe(self, key: str, value: str, *, timeout: float) -> float:
        """Write and read back over a new connection, as the monitor needs to close a breaker.

        :return: seconds between question and answer; connecting does not count.
        :raises StoreError: it failed, or another value came back.
        """
        return self.link.over_a_new_one(probing(key, value), timeout)

    def probe_read(self, *, timeout: float) -> float:
        """Read over a new connection, as requests read.

        :return: seconds between question and answer.
        :raises StoreError: it failed.
        """
        return self.link.over_a_new_one([READ([self.canary_key], [1])], timeout)
