"""Finding a session of which only the digest is known, as jobs and operators name it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..policy.categories import AUTH
from ..policy.ids import ANONYMOUS, SIGNED_IN, SessionId
from ..policy.leases import Life, life_of
from ..stores.redis.commands import Commands
from .scope import LIST_SESSIONS, LOAD, RequestScope

if TYPE_CHECKING:
    from ..stores.backend import Backend


def find(backend: Backend, digest: str, scope: RequestScope, life: Callable[[bool], Life]) -> SessionId | None:
    """Return the id of a session, under whatever digest it goes on: a password that is entered again gives it another.

    :param life: of the application's sessions, by their permanent flag.
    :return: None: no store has it.
    :raises StoreError: the database, or for a visitor's session Redis, does not answer.
    """
    usual, permanent, following = life(False), life(True), digest
    while found := scope.require(LIST_SESSIONS, backend.database.describe, following):
        if found.successor is None:
            is_permanent = life_of(found.row, found.seen_at, (usual, permanent)) is permanent
            return SessionId.without_secret(following, SIGNED_IN, permanent=is_permanent)
        following = found.successor
    left = _left_of_visitor(backend, digest, scope.to(digest))
    # Only the cookie says whether a visitor's session is permanent. Some of its data lives longer than it could if not.
    is_permanent = any(ms > backend.life_of(name, ANONYMOUS, usual) for name, ms in left.items())
    return SessionId.without_secret(digest, ANONYMOUS, permanent=is_permanent) if left else None


def _left_of_visitor(backend: Backend, digest: str, scope: RequestScope) -> Mapping[str, int]:
    """Return category → for how many milliseconds Redis keeps its record, of those that are there."""
    key_of = Commands(backend.primary.prefix).key
    names = [name for name in backend.table.categories if name != AUTH]
    left = scope.require(LOAD, backend.primary.run_commands, [("PTTL", key_of(name, digest)) for name in names])
    return {name: ms for name, ms in zip(names, left, strict=True) if ms > 0}
