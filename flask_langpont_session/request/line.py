"""The straight line of a read: sessions that are shown without a question, and without the layers that an outage needs.

One condition stands before it, in :meth:`Line.read`. Whatever fails there goes the long way as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..policy.categories import AUTH, Feature
from ..policy.changes import CategoryChange
from ..policy.copies import CategoryCopy, RecordRef
from ..policy.errors import StoreError
from ..policy.health import PRIMARY, HealthSnapshot
from ..policy.ids import SIGNED_IN, SessionId
from ..policy.leases import Life
from ..policy.loaded import CategoryState, Former, Loaded, Verdict
from ..policy.rows import AuthRow
from ..stores.host.journal import Journal
from ..stores.redis.lane import Copy
from ..stores.redis.near import Hit
from ..stores.redis.records import empty_as_of
from . import former

if TYPE_CHECKING:
    from .repository import SessionRepository
    from .verifier import Verifier

_AT_ONCE = 0.0
"""Seconds that the journal is waited for here."""


_NONE: Any = MappingProxyType({})
_NO_KEYS: Any = frozenset()


class Terms(NamedTuple):
    """Conditions under which requests may be shown the same of a session again.

    :param life: of the session, as the request has it by whose question this was read.
    :param until: monotonic seconds; before that, time alone changes nothing.
    :param news: see :attr:`.Ended.news`; when this worker hears of something, the session may be over.
    :param trust_since_ms: since when stamps of the server count.
    """

    life: Life
    until: float
    news: int
    trust_since_ms: int


class Seen(Loaded):
    """A session as requests are shown it, for as long as nothing of it changes. They share this, and must not change
    it. Of its categories nothing is missing, and nothing of the journal's lies over them.

    :param copy: of which it is, with these `records`.
    :param values: key → value, of those that requests have decoded and that cannot be changed in place.
    """

    __slots__ = ("copy", "records", "terms", "values")

    # A change that was not made to an own copy fails, instead of being shown to other requests.
    exceptions, defaulted, now_ms = _NONE, _NO_KEYS, 0

    def __init__(
        self,
        categories: Mapping[str, CategoryState],
        row: AuthRow | None,
        former: Mapping[str, Former] | None,
        copy: Copy,
        records: Mapping[str, CategoryCopy],
        terms: Terms,
        values: dict[str, Any],
    ) -> None:
        self.verdict = Verdict.ANONYMOUS if row is None else Verdict.VALID
        self.categories = MappingProxyType(categories)  # type: ignore[assignment]
        self.row, self.former, self.copy, self.records, self.terms = row, former, copy, records, terms
        self.values = values

    def is_unknown(self, feature: Feature, key: str) -> bool:
        """Return False: nothing is missing."""
        return False

    def own(self) -> Loaded:
        return Loaded(self.verdict, dict(self.categories), row=self.row, former=self.former)

    def since(self, changes: Mapping[str, CategoryChange], written: Mapping[str, CategoryCopy]) -> Seen | None:
        """Return what requests are shown after a write of the session by this worker, which its copy has; None: that is
        to be looked at."""
        if self.former:
            return None
        categories, values = dict(self.categories), dict(self.values)
        for name, record in written.items():
            if name in categories:
                categories[name] = CategoryState(record.fields, record, PRIMARY)
            for key in (*changes[name].sets, *changes[name].deletes):
                values.pop(key, None)
        return Seen(categories, self.row, None, self.copy, self.copy.records, self.terms, values)


def _state(record: CategoryCopy, then: int = 0) -> CategoryState:
    """Return what is shown of a record.

    :param then: the version of one that is not there.
    """
    return CategoryState.of(record if record.version else record._replace(version=then), PRIMARY)


def is_untouched(journal: Journal, digest: str) -> bool:
    """Return whether the journal says nothing of a session."""
    try:
        return journal.is_silent_about(digest, _AT_ONCE)
    except StoreError:  # it is asked again, and waited for, on the long way
        return False


class Line:
    """Shows sessions of which nothing has changed since this worker read them."""

    def __init__(self, repository: SessionRepository, verifier: Verifier) -> None:
        self._backend = repository.backend
        self._health = repository.backend.health
        self._journal = repository.backend.journal
        self._primary = repository.backend.primary
        self._memory = repository.backend.memory
        self._ended = repository.backend.memory.ended
        self._count_hit = partial(repository.backend.recorder.noting("near_cache_hits"), 1)
        self._verifier = verifier
        self._near = repository.backend.settings.near_categories
        self._lives: dict[tuple[tuple[str, ...], str, int, bool, bool], Mapping[str, int]] = {}
        self._at_first = repository.backend.table.loaded_together

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
        if seen is not None and seen.terms.life is life:
            hit = near.vouches_for(seen.copy, digest)
        else:
            wanted, hit, seen = names or self._at_first, None, None
            if self._near.issuperset(wanted):
                hit = near.find(RecordRef(digest, sid.kind), self.lives(wanted, sid.kind, life))
        if hit is None or not is_untouched(self._journal, digest):
            return None
        if (
            seen is None
            or seen.terms.news != self._ended.news
            or seen.terms.trust_since_ms != hit.trust_since_ms
            or seen.records is not seen.copy.records  # this worker has written since
            or hit.at >= seen.terms.until
        ):
            seen = self._seen(hit, sid, life)
            if seen is not None and entry is not None and not names:
                entry.seen = seen
        if seen is not None:
            self._count_hit()
        return seen

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

    def _seen(self, hit: Hit, sid: SessionId, life: Life) -> Seen | None:
        """Return what requests are shown of a session; None: its row may not be believed without a question."""
        # First: what becomes known while the rest is looked at is not part of it.
        news, records = self._ended.news, hit.copy.records
        then = empty_as_of(hit.copy.now_ms)
        categories, row, until = {name: _state(record, then) for name, record in records.items()}, None, math.inf
        if sid.kind == SIGNED_IN and AUTH in categories:
            leased = self._verifier.leased(life, hit)
            if leased is None or self._ended.is_dead(sid.digest):
                return None
            row, until = leased
            categories[AUTH] = CategoryState.of(CategoryCopy(row.version, row.payload), PRIMARY)
        elif AUTH in categories:  # without a row there is neither user nor right
            is_identity, auth = self._backend.settings.is_identity, categories[AUTH].copy
            ordinary = {key: value for key, value in auth.fields.items() if not is_identity(key)}
            categories[AUTH] = CategoryState.of(auth._replace(fields=ordinary), PRIMARY)
        elsewhere = former.former_in(self._backend.table, categories)
        return Seen(categories, row, elsewhere, hit.copy, records, Terms(life, until, news, hit.trust_since_ms), {})
