"""Privileged sessions: which rights make them, and how much shorter they live."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .categories import KeyPatterns
from .changes import Fields
from .leases import Life
from .serializer import encode


class Privileges:
    """A session is privileged while a privilege key of it has one of some values.

    :param keys: the privilege keys.
    :param roles: those values.
    :param idle_ms: what a privileged session lives for at most since its last use; None: as long as any.
    :param absolute_ms: the same, in all.
    """

    def __init__(
        self, keys: KeyPatterns, roles: Iterable[str], idle_ms: int | None = None, absolute_ms: int | None = None
    ) -> None:
        self._keys = keys
        self._roles = frozenset(encode("role", role) for role in roles)
        self._idle_ms = idle_ms
        self._absolute_ms = absolute_ms

    def are_in(self, payload: Fields) -> bool:
        """Return whether a session with this auth data is privileged."""
        return any(value in self._roles and key in self._keys for key, value in payload.items())

    def idle_ms(self, payload: Fields, idle_ms: int) -> int:
        """Return the idle time of a session with this auth data.

        :param idle_ms: of one that is not privileged.
        """
        return idle_ms if self._idle_ms is None or not self.are_in(payload) else min(idle_ms, self._idle_ms)

    def life(self, idle_ms: int, absolute_ms: int, *, is_permanent: bool = False) -> Life:
        """Return the life of sessions, in which privileged ones live shorter if they are to.

        :param idle_ms: of one that is not privileged; `absolute_ms`: likewise.
        :param is_permanent: of those that are permanent.
        """
        if self._idle_ms is None and self._absolute_ms is None:
            return Life(idle_ms, absolute_ms, is_permanent=is_permanent)
        absolute = absolute_ms if self._absolute_ms is None else min(absolute_ms, self._absolute_ms)
        idle = min(absolute, idle_ms if self._idle_ms is None else min(idle_ms, self._idle_ms))
        return LifeByRights(idle_ms, absolute_ms, self, Life(idle, absolute), is_permanent=is_permanent)


def begins_to_live_shorter(life: Life, before: Fields, after: Fields) -> bool:
    """Return whether a change makes a session privileged and its life shorter for it. It takes another id then, because
    a later idle expiry of the present id may be anywhere.

    :param life: of sessions.
    :param before: its auth data; `after`: the same after a change.
    """
    return life.of(after) is not life and life.of(before) is life


@dataclass(frozen=True, slots=True)
class LifeByRights(Life):
    """The life of sessions, of which those that are privileged live shorter.

    :param privileges: say which ones.
    :param shorter: the life of those.
    """

    privileges: Privileges
    shorter: Life

    def of(self, payload: Fields) -> Life:
        """See :meth:`.Life.of`."""
        return self.shorter if self.privileges.are_in(payload) else self
