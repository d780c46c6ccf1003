"""The straight line of a write: a plain change is one exchange with Redis, without the layers that an outage needs.

One condition stands before it, in :meth:`PlainChanges.write`. Whatever fails there goes the long way as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..policy.categories import AUTH
from ..policy.changes import CategoryChange
from ..policy.errors import StoreError
from ..policy.health import PRIMARY, WRITE
from ..policy.ids import SIGNED_IN, SessionId
from ..policy.leases import Life
from ..policy.loaded import Loaded, Verdict
from ..stores.redis.commands import new_write_id
from ..stores.redis.records import Written
from ..support import lag
from .line import Seen, is_untouched
from .scope import SAVE, RequestScope

if TYPE_CHECKING:
    from .repository import SessionRepository


class Sent(NamedTuple):
    """The outcome of a write that was sent to Redis.

    :param written: None: it was not written, as far as is known.
    :param doubt: then the id of the write, if Redis may have it, or get it yet.
    :param sent_us: and when it was sent, microseconds by the Redis clock.
    :param scope: then the request's way through the stores, which knows of the failure.
    """

    written: Written | None
    doubt: str = ""
    sent_us: int = 0
    scope: RequestScope | None = None


def _is_plain(loaded: Loaded, names: Iterable[str]) -> bool:
    """Return whether a session was read as Redis has it, and nothing of it has to move."""
    if type(loaded) is Seen:
        return not loaded.former
    if loaded.former or loaded.verdict not in (Verdict.VALID, Verdict.ANONYMOUS):
        return False
    found = [loaded.categories[name] for name in names if name in loaded.categories]
    return all(each.source == PRIMARY and each.is_as_read for each in found)


class PlainChanges:
    """Stores what a request has changed of categories, if one exchange with Redis is enough, as nearly always."""

    def __init__(self, repository: SessionRepository) -> None:
        self._repository = repository
        self._line = repository.line
        self._backend = backend = repository.backend
        self._journal = backend.journal
        self._timeout, self._limits = backend.settings.redis_timeout, backend.limits
        self._health = backend.health
        self._primary = backend.primary
        self._reports = backend.reports
        self._clock = backend.clock
        self._lag = lag.of(self._clock)
        self._note_duration = backend.recorder.noting(SAVE.name, "all", PRIMARY, "ok")

    def write(
        self,
        sid: SessionId,
        changes: Mapping[str, CategoryChange],
        loaded: Loaded | None,
        life: Life,
        scope: RequestScope | None = None,
    ) -> Sent | None:
        """Write what a request has changed of categories; None: nothing was sent, or nothing was written.

        :param loaded: what the request has read of the session; None: nothing.
        :param scope: the request's way through the stores, if it is on it.
        """
        digest, kind, timeout = sid.digest, sid.kind, self._timeout
        if not changes or AUTH in changes or not (loaded is None or _is_plain(loaded, changes)):
            return None
        shard, home = self._health.locate(digest), self._primary.home_of(digest)
        level = self._health.snapshot(shard).level if scope is None else scope.view.level or scope.left < timeout
        if home is None or self._backend.lacks or level or not is_untouched(self._journal, digest):
            return None
        lives, write_id = self._line.lives(tuple(changes), kind, life), new_write_id()
        for name, change in changes.items():
            change.life_ms = lives[name]
            if loaded is not None and (found := loaded.categories.get(name)) and found.copy.mark:
                change.since = found.copy.version
        late, guard = self._lag.late(began := self._clock()), "alive" if kind == SIGNED_IN else "free"
        try:
            written = home.write_near(digest, changes, guard, self._limits, began + timeout, write_id)
        except StoreError as error:
            scope = scope or self._repository.begin(digest=digest)
            scope.to(digest).failed(SAVE, error, timeout, began, late)
            return Sent(None, write_id, max(1, self._primary.estimated_ms(digest, began) * 1000), scope=scope)
        if written is None:
            return None
        took = self._clock() - began
        self._health.succeeded(PRIMARY + shard, WRITE, took, began)
        self._note_duration(took)
        self._reports.payload(changes)
        self._repository.fallback.remember_write(digest, loaded, changes, written, kind)
        if not self._journal.was_empty():  # when it was looked at before the write
            self._repository.journal_writer.written(digest, changes)
        if kind != SIGNED_IN and (in_use := self._reports.in_use) is not None:
            in_use.served(digest, max(lives.values()))
        return Sent(written)
