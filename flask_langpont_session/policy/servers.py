"""The knowledge of a host's workers about a Redis server."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The knowledge of this host's workers about the Redis server behind an endpoint.

    :param identity: the server's own id; new after every start of a server process.
    :param trust_since_ms: the last time of an exchange of the server or of a loss of data, milliseconds since 1970 by
        the server's clock. Earlier stamps do not count.
    :param canary_id: the id of the canary last seen; empty: none yet.
    :param number: of the canary; grows while the id is the same.
    """

    identity: str
    trust_since_ms: int
    canary_id: str
    number: int

    def outdates(self, known: ServerRecord | None) -> bool:
        """Return whether a worker with the knowledge `known` should take over this record.

        A worker without knowledge of an incident must not hide the incident from starting workers: trust is never dated
        back. (A failover to a server with a slow clock is not kept for a while; a starting worker then finds out
        alone.)
        """
        if known is None or self.trust_since_ms != known.trust_since_ms:
            return known is None or self.trust_since_ms > known.trust_since_ms
        return self.number > known.number or not self.is_same_as(known)

    def is_same_as(self, known: ServerRecord | None) -> bool:
        """Return whether no incident lies between both records: only the canary's number may differ."""
        return known is not None and replace(known, number=self.number) == self
