"""The knowledge of a host's workers about a Redis server."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The knowledge of this host's workers about the Redis server behind an endpoint.

    :param identity: what it says it is; new after every start of a server process.
    :param trust_since_ms: when it was last found to be another server, or to have lost data, milliseconds since 1970
        by its own clock. What was stamped before counts no more.
    :param canary_id: the id of the canary that was last seen there; empty: none yet.
    :param number: of that canary; it grows while the id is the same.
    """

    identity: str
    trust_since_ms: int
    canary_id: str
    number: int

    def outdates(self, known: ServerRecord | None) -> bool:
        """Return whether this is news to a worker that knows `known`.

        A worker that does not know of an incident yet must not hide it from workers that start now: trust is never
        dated back. (A failover to a server with a slow clock is not kept for a while; a worker that starts then learns
        by itself.)
        """
        if known is None or self.trust_since_ms != known.trust_since_ms:
            return known is None or self.trust_since_ms > known.trust_since_ms
        return self.number > known.number or not self.is_same_as(known)

    def is_same_as(self, known: ServerRecord | None) -> bool:
        """Return whether nothing has happened in between: only the canary's number may differ."""
        return known is not None and replace(known, number=self.number) == self
