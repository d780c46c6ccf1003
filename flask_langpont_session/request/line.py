"""The straight line of a read: sessions that are shown without a question, and without the layers that an outage needs.

One condition stands before it, in :meth:`Line.read`. Whatever fails there goes the long way as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..policy.categories import AUTH
from ..policy.health import PRIMARY, HealthSnapshot
from ..policy.ids import SIGNED_IN, SessionId
from ..policy.records import CategoryState, Life, SharedLoaded, Verdict
from ..policy.values import CategoryChange, RecordRef, StoreError
from ..stores.host.journal import Journal
from ..stores.memory.memory import Entry
from ..stores.redis.lane import Copy
from ..stores.redis.near import Hit, NearCache
from ..stores.redis.records import empty_as_of
from .former import FormerPlaces
from .parts import Parts

_AT_ONCE = 0.0
"""Seconds that the journal is waited for here."""


@dataclass(slots=True)
class Seen:
    """What requests are shown of a session, for as long as nothing of it changes.

    :param copy: of which it is.
    :param loaded: the session, which requests share.
    :param life: of the session, as the request has it by whose question this was read.
    :param until: monotonic seconds; before that, time alone changes nothing.
    :param news: see :attr:`.Ended.news`; when this worker hears of something, the session may be over.
    :param trust_since_ms: since when stamps of the server count.
    :ivar values: key → value, of those that requests have decoded and that cannot be changed in place.
    """

    copy: Copy
    loaded: SharedLoaded
    life: Life
    until: float
    news: int
    trust_since_ms: int
    values: dict[str, Any] = field(default_factory=dict)


def is_untouched(journal: Journal, digest: str) -> bool:
    """Return whether the journal says nothing of a session."""
    try:
        return journal.is_silent_about(digest, _AT_ONCE)
    except StoreError:  # it is asked again, and waited for, on the long way
        return False


class Line:
    """Knows sessions of which nothing has changed since this worker read them."""

    def __init__(self, parts: Parts) -> None:
        self._backend = parts.backend
        self._health = parts.backend.health
        self._journal = parts.backend.journal
        self._primary = parts.backend.primary
        self._memory = parts.backend.memory
        self._ended = parts.backend.memory.ended
        self._count_hit = parts.backend.recorder.counting("near_cache_hits")
        self._verifier = parts.verifier
        self._former = FormerPlaces(parts)
        self._near = parts.backend.settings.near_categories
        self._lives: dict[tuple[tuple[str, ...], str, int, bool, bool], Mapping[str, int]] = {}
        self._at_first = parts.backend.table.loaded_together

    def read(
        self, sid: SessionId, life: Life, view: HealthSnapshot | None = None, names: tuple[str, ...] = ()
    ) -> Seen | None:
        """Return what is known of a session without a question; None: the stores are to be asked.

        :param life: of the session.
        :param view: of the stores, as the request has it; None: it has looked at none yet.
        :param names: of categories; none: those that a request's first touch reads.
        """
        digest = sid.digest
        if view is None:
            view = self._health.snapshot(self._health.locate(digest))
        home = self._primary.home_of(digest)
        near = None if home is None else home.near
        # In an outage of any kind the stores are asked, as far as they answer, and where Redis may have lost data.
        if near is None or view.level or self._backend.lacks:
            return None
        entry = self._memory.entry(digest)
        seen: Seen | None = None if entry is None or names else entry.seen
        if seen is None or seen.life is not life:
            hit, seen = self._find(near, sid, life, names or self._at_first), None
        else:
            hit = near.vouches_for(seen.copy, digest)
        if hit is None or not is_untouched(self._journal, digest):
            return None
        if (
            seen is None
            or seen.news != self._ended.news
            or seen.trust_since_ms != hit.trust_since_ms
            or hit.at >= seen.until
        ):
            seen = self._seen(hit, sid, life)
            if seen is not None and entry is not None and not names:
                entry.seen = seen
        if seen is not None:
            self._count_hit()
        return seen

    @staticmethod
    def goes_on(entry: Entry, before: Seen | None, changes: Mapping[str, CategoryChange]) -> SharedLoaded | None:
        """Have requests be shown what this worker has just written of a session.

        :param before: what they were shown until then.
        :return: the session as it is since; None: it is not known without a question.
        """
        if before is None or not entry.near or before.loaded.former:
            return None
        copy, known, values = entry.near[0], before.copy.records, before.values.copy()
        categories = dict(before.loaded.categories)
        for name, record in copy.records.items():
            if record is known.get(name):
                continue
            categories[name] = CategoryState(record.copy.fields, record.copy.version, PRIMARY, mark=record.mark)
            if name not in changes:  # another thread has written it meanwhile
                values.clear()
        for change in changes.values():
            for key in (*change.sets, *change.deletes, *change.increments):
                values.pop(key, None)
        loaded = SharedLoaded(before.loaded.verdict, categories, before.loaded.row)
        entry.seen = Seen(copy, loaded, before.life, before.until, before.news, before.trust_since_ms, values)
        return loaded

    def lives(self, names: tuple[str, ...], kind: str, life: Life, *, extends: bool = True) -> Mapping[str, int]:
        """Return the life to extend each category to, milliseconds. There are few combinations, and every read needs
        one of them.

        :param extends: whether any is to be extended; else all are 0.
        """
        wanted = names, kind, life.idle_ms, life.is_permanent, extends
        lives = self._lives.get(wanted)
        if lives is None:
            lives = {name: self._backend.life_of(name, kind, life) if extends else 0 for name in names}
            self._lives[wanted] = lives
        return lives

    def _find(self, near: NearCache, sid: SessionId, life: Life, names: tuple[str, ...]) -> Hit | None:
        if not self._near.issuperset(names):
            return None
        return near.find(RecordRef(sid.digest, sid.kind), self.lives(names, sid.kind, life))

    def _seen(self, hit: Hit, sid: SessionId, life: Life) -> Seen | None:
        """Return what requests are shown of a session; None: its row may not be believed without a question."""
        news = self._ended.news  # first: what becomes known while the rest is looked at is not part of it
        categories, row, until = self._found(hit), None, math.inf
        if sid.kind == SIGNED_IN and AUTH in categories:
            leased = self._verifier.leased(life, hit)
            if leased is None or self._ended.is_dead(sid.digest):
                return None
            row, until = leased
            categories[AUTH] = CategoryState(row.payload, row.version, PRIMARY)
        elif AUTH in categories:  # without a row there is neither user nor right
            is_identity, auth = self._backend.settings.is_identity, categories[AUTH]
            ordinary = {key: value for key, value in auth.shown.items() if not is_identity(key)}
            categories[AUTH] = auth._replace(shown=ordinary)
        verdict = Verdict.ANONYMOUS if row is None else Verdict.VALID
        loaded = SharedLoaded(verdict, categories, row, self._former.among(categories))
        return Seen(hit.copy, loaded, life, until, news, hit.trust_since_ms)

    @staticmethod
    def _found(hit: Hit) -> dict[str, CategoryState]:
        then = empty_as_of(hit.answer.now_ms)
        return {
            name: CategoryState(record.copy.fields, record.copy.version or then, PRIMARY, mark=record.mark)
            for name, record in hit.copy.records.items()
        }
