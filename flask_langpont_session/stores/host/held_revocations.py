"""Revocations that a journal did not take, for as long as the process lives that was asked for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...support.forks import renew_in_children
from .entries import PendingRevocation, PendingUserRevocation

_Told = tuple[str, bool, bool]
"""A digest, and whether the database and Redis have its end."""


class HeldRevocations:
    """The revocations that one process remembers. Threads may call it at once; a forked child begins with nothing.

    :param clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reset()
        renew_in_children(self, HeldRevocations._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, PendingRevocation] = {}
        self._users: dict[str, PendingUserRevocation] = {}
        self._told: dict[str, tuple[bool, bool]] = {}

    def __bool__(self) -> bool:
        return bool(self._kept or self._users or self._told)

    def keep(self, digest: str, in_database: bool, in_redis: bool) -> None:
        """Remember that a session is dead. Of several notes the one that waits for the database counts."""
        with self._lock:
            known = self._kept.get(digest)
            in_database = in_database and (known is None or known.in_database)
            in_redis = in_redis or (known is not None and known.in_redis)
            self._kept[digest] = PendingRevocation(0, digest, int(self._clock() * 1000), in_database, in_redis)

    def mark_done(self, digests: Sequence[str], in_database: bool, in_redis: bool) -> list[str]:
        """Remember which stores have these; one that both have is forgotten. Return those that are not held here."""
        with self._lock:
            held = [digest for digest in digests if digest in self._kept]
            for known in [self._kept[digest] for digest in held]:
                done = replace(known, in_database=known.in_database or in_database, in_redis=known.in_redis or in_redis)
                self._kept[known.digest] = done
                if done.in_database and done.in_redis:
                    del self._kept[known.digest]
        return [digest for digest in digests if digest not in held]

    def revocations(self) -> list[PendingRevocation]:
        """Return the ended sessions that no journal has."""
        with self._lock:
            return list(self._kept.values())

    def tell(self, digest: str, in_database: bool, in_redis: bool) -> None:
        """Remember which stores have one that stands in the journal, where that could not be noted."""
        with self._lock:
            before = self._told.get(digest, (False, False))
            self._told[digest] = before[0] or in_database, before[1] or in_redis

    def known_of(self, entry: PendingRevocation) -> PendingRevocation:
        """Return an entry of the journal with what could not be noted there."""
        in_database, in_redis = self._told.get(entry.digest, (False, False))
        return replace(entry, in_database=entry.in_database or in_database, in_redis=entry.in_redis or in_redis)

    def told(self) -> list[_Told]:
        """Return what could not be noted of entries of the journal."""
        with self._lock:
            return [(digest, *stores) for digest, stores in self._told.items()]

    def keep_user(self, user_id: str, until_ms: int, epoch: int) -> None:
        """Remember that a user was logged out everywhere. Of several times the latest counts."""
        with self._lock:
            known = self._users.get(user_id, PendingUserRevocation(0, user_id, 0))
            self._users[user_id] = PendingUserRevocation(
                0, user_id, max(until_ms, known.until_ms), max(epoch, known.epoch), in_database=epoch > 0
            )

    def users(self) -> list[PendingUserRevocation]:
        """Return the users' revocations that no journal has."""
        with self._lock:
            return list(self._users.values())

    def advance_user(self, entry: PendingUserRevocation) -> bool:
        """Note how far it is. False: it stands in the journal."""
        with self._lock:
            if entry.seq == 0 and self._is_same(entry):
                self._users[entry.user_id] = entry
        return entry.seq == 0

    def forget_user(self, entry: PendingUserRevocation) -> bool:
        """All that follows from it is done. False: it stands in the journal."""
        with self._lock:
            if entry.seq == 0 and self._is_same(entry):
                del self._users[entry.user_id]
        return entry.seq == 0

    def _is_same(self, entry: PendingUserRevocation) -> bool:
        known = self._users.get(entry.user_id)
        return known is not None and (known.until_ms, known.epoch) == (entry.until_ms, entry.epoch)

    def forget(
        self,
        revocations: Sequence[PendingRevocation],
        users: Sequence[PendingUserRevocation],
        told: Sequence[_Told],
    ) -> None:
        """The journal has these. What was added meanwhile stays."""
        with self._lock:
            for entry in revocations:
                if self._kept.get(entry.digest) == entry:
                    del self._kept[entry.digest]
            for user in users:
                if self._users.get(user.user_id) == user:
                    del self._users[user.user_id]
            for digest, *stores in told:
                if self._told.get(digest) == tuple(stores):
                    del self._told[digest]
