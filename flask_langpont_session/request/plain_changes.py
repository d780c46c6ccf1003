"""The straight line of a write: a plain change is one exchange with Redis, without the layers that an outage needs.

One condition stands before it, in :meth:`PlainChanges.write`. Whatever fails there goes the long way as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..policy.categories import AUTH
from ..policy.changes import CategoryChange
from ..policy.copies import RecordRef
from ..policy.errors import StoreError
from ..policy.health import PRIMARY, WRITE
from ..policy.ids import SIGNED_IN, SessionId
from ..policy.leases import Life
from ..policy.loaded import Loaded, Verdict
from ..stores.redis.commands import new_write_id
from ..stores.redis.records import Written
from ..support import lag
from .line import Line, Seen, is_untouched
from .parts import Parts
from .scope import RequestScope


class Sent(NamedTuple):
    """The outcome of a write that was sent to Redis.

    :param written: None: it was not written, as far as is known.
    :param shown: then the session as it is since, if that is known.
    :param doubt: else the id of the write, if Redis may have it, or get it yet.
    :param sent_us: and when it was sent, microseconds by the Redis clock.
    :param scope: then the request's way through the stores, which knows of the failure.
    """

    written: Written | None
    doubt: str = ""
    sent_us: int = 0
    shown: Seen | None = None
    scope: RequestScope | None = None


def _is_plain(loaded: Loaded, names: Iterable[str]) -> bool:
    """Return whether a session was read as Redis has it, and nothing of it has to move."""
    if loaded.former or loaded.verdict not in (Verdict.VALID, Verdict.ANONYMOUS):
        return False
    if type(loaded) is Seen:
        return True
    found = [loaded.categories[name] for name in names if name in loaded.categories]
    return all(
        each.source == PRIMARY and each.gap is None and each.beneath is None and not each.is_wiped for each in found
    )


class PlainChanges:
    """Stores what a request has changed of categories, if one exchange with Redis is enough, as nearly always."""

    def __init__(self, parts: Parts, line: Line, begin: Callable[[str], RequestScope]) -> None:
        self._line = line
        self._begin = begin
        self._backend = parts.backend
        self._health = parts.backend.health
        self._primary = parts.backend.primary
        self._reports = parts.backend.reports
        self._clock = parts.backend.clock
        self._operation = parts.operations.save
        self._lag = lag.of(self._clock)
        self._note_duration = parts.backend.recorder.noting(self._operation.name, "all", PRIMARY, "ok")
        self._fallback = parts.fallback
        self._journal_writer = parts.journal_writer

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
        digest, kind = sid.digest, sid.kind
        if not changes or AUTH in changes or not (loaded is None or _is_plain(loaded, changes)):
            return None
        shard, home = self._health.locate(digest), self._primary.home_of(digest)
        view, left = (self._health.snapshot(shard), math.inf) if scope is None else (scope.view, scope.left)
        if home is None or self._backend.lacks or view.level or left < self._operation.timeout:
            return None
        if not is_untouched(self._backend.journal, digest):
            return None
        lives = self._complete(changes, loaded, kind, life)
        ref, write_id, guard = RecordRef(digest, kind), new_write_id(), "alive" if kind == SIGNED_IN else "free"
        late, limits, timeout = self._lag.late(began := self._clock()), self._backend.limits, self._operation.timeout
        try:
            written = home.write_near(ref, changes, guard, limits, timeout, write_id)
        except StoreError as error:
            scope = scope or self._begin(digest)
            scope.to(digest).failed(self._operation, error, timeout, began, late)
            return Sent(None, write_id, max(1, self._primary.estimated_ms(digest, began) * 1000), scope=scope)
        if written is None:
            return None
        took = self._clock() - began
        self._health.succeeded(PRIMARY + shard, WRITE, took, began)
        self._note_duration(took)
        return self._note(sid, changes, loaded, written, lives)

    def _complete(
        self, changes: Mapping[str, CategoryChange], loaded: Loaded | None, kind: str, life: Life
    ) -> Mapping[str, int]:
        """Complete each change with what the server is told besides. Return the lives that the categories get."""
        lives = self._line.lives(tuple(changes), kind, life)
        for name, change in changes.items():
            change.life_ms = lives[name]
            if loaded is not None and (found := loaded.categories.get(name)) and found.mark:
                change.since = found.version
        return lives

    def _note(
        self,
        sid: SessionId,
        changes: Mapping[str, CategoryChange],
        loaded: Loaded | None,
        written: Written,
        lives: Mapping[str, int],
    ) -> Sent:
        """Note for the memory, the other workers and the metrics what Redis has by now, and return the outcome."""
        digest, kind = sid.digest, sid.kind
        self._reports.payload(changes)
        self._fallback.remember_write(digest, loaded, changes, written, kind)
        self._journal_writer.written(digest, changes)
        if kind != SIGNED_IN and (in_use := self._reports.in_use) is not None:
            in_use.served(digest, max(lives.values()))
        entry = self._backend.memory.entry(digest)
        seen: Seen | None = None if entry is None else entry.seen
        return Sent(written, shown=seen if seen is not None and seen.is_current else None)
