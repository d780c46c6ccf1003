"""A session as a request has found it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Self

from .categories import AUTH, CSRF_FEATURE, Feature
from .changes import NO_FIELDS, Fields
from .copies import NOT_THERE, CategoryCopy
from .rows import AuthRow


class Verdict(StrEnum):
    """The state of a session's auth, as far as it is known."""

    ANONYMOUS = "anonymous"  # kind a: there is nothing to know
    VALID = "valid"
    DEAD = "dead"
    UNVERIFIABLE = "unverifiable"  # no store that may say so answers


class Gap(NamedTuple):
    """The part of a category that could not be read: not shown is not the same as not there.

    :param whole: no store answered and there is no copy.
    :param hidden: features that the table does not show in this outage.
    :param kept: keys whose present value waits in the journal.
    :param guesses: keys whose value there was made without knowing what the stores have.
    """

    whole: bool
    hidden: Set[str]
    kept: Set[str] = frozenset()
    guesses: Set[str] = frozenset()

    def covers(self, feature: str, key: str) -> bool:
        """Return whether the stores may have another value of a key than the one that is shown."""
        return key in self.guesses or (key not in self.kept and (self.whole or feature in self.hidden))


class Former(NamedTuple):
    """The place of a key that may lie in another category than its feature's: the table was another when it was stored.

    :param category: in which it lies.
    :param counts: whether its value is the one that is there, and not one in the category of its feature.
    """

    category: str
    counts: bool


class CategoryState(NamedTuple):
    """One category as it was found.

    :param shown: session key → encoded value, as this request may see it.
    :param copy: what was read, without what the journal and the configured defaults lay over it. One that is not there
        has the version as of which that was said.
    :param source: store that answered.
    :param gap: what of it could not be read; None: all could.
    :param is_wiped: it is shown without what a wipe is to remove, which waits in the journal.
    """

    shown: Fields = NO_FIELDS
    copy: CategoryCopy = NOT_THERE
    source: str = "none"
    gap: Gap | None = None
    is_wiped: bool = False

    @classmethod
    def of(cls, copy: CategoryCopy, source: str) -> Self:
        """Return a category over which nothing lies."""
        return cls(copy.fields, copy, source)

    @property
    def is_as_read(self) -> bool:
        """Return whether nothing lies over what was read, and nothing of that is missing."""
        return self.shown is self.copy.fields and self.gap is None and not self.is_wiped


NOT_LOADED = CategoryState()


@dataclass(slots=True)
class Loaded:
    """One session as its first touch found it.

    :param categories: by name, as far as they were loaded.
    :param exceptions: feature → where its data is from instead (``journal``, ``default``).
    :param defaulted: keys that show a configured default because the table says so; never data.
    :param row: the auth row that was believed; None unless `verdict` is VALID.
    :param now_ms: the Redis clock before anything was read; 0: unknown.
    :param former: key → where it lies, of those that do not lie in the category of their feature, or not only there;
        None: there are none, as nearly always.
    """

    verdict: Verdict
    categories: dict[str, CategoryState] = field(default_factory=dict)
    exceptions: dict[str, str] = field(default_factory=dict)
    defaulted: set[str] = field(default_factory=set)
    row: AuthRow | None = None
    now_ms: int = 0
    former: Mapping[str, Former] | None = None

    @classmethod
    def verified(cls, verdict: Verdict, now_ms: int, row: AuthRow | None = None, source: str = "none") -> Loaded:
        """Return a session of kind u, with its auth category filled in and the others still missing."""
        auth = CategoryState.of(CategoryCopy(row.version, row.payload), source) if row else CategoryState(source=source)
        return cls(verdict, {AUTH: auth}, row=row, now_ms=now_ms)

    def own(self) -> Loaded:
        """Return the object that its request may change: this one."""
        return self

    def of(self, category: str) -> CategoryState:
        """Return what was found of a category; :data:`NOT_LOADED` if it was not loaded."""
        return self.categories.get(category, NOT_LOADED)

    def show(self, category: str, fields: Fields) -> None:
        """Show other fields of a category."""
        self.categories[category] = self.of(category)._replace(shown=fields)
        if self.former:
            self.former = {key: at for key, at in self.former.items() if key in self.of(at.category).shown} or None

    def keep_from(self, before: Loaded, names: Collection[str]) -> None:
        """Take over some categories from an earlier loading. What could not be read this time, or is to be wiped, stays
        so."""
        for name in names:
            now, kept = self.of(name), before.categories[name]
            self.categories[name] = kept._replace(gap=kept.gap or now.gap, is_wiped=kept.is_wiped or now.is_wiped)
        self.defaulted |= before.defaulted
        if before.former:
            kept_former = {key: at for key, at in before.former.items() if at.category in names}
            self.former = {**(self.former or {}), **kept_former} or None

    @property
    def has_gaps(self) -> bool:
        """Return whether something of a category could not be read."""
        return any(state.gap for state in self.categories.values())

    def is_unknown(self, feature: Feature, key: str) -> bool:
        """Return whether the stores may have another value of a key than the one that is shown."""
        home = self.of(feature.category)
        if home.gap is not None and (home.gap.covers(feature.name, key) or key in home.gap.kept):
            return home.gap.covers(feature.name, key)
        # What is not there may lie where it did before, in a category that could not be read.
        may_stray = feature.category != AUTH and key not in home.shown
        return may_stray and any(
            state.gap and state.gap.whole for state in self.categories.values() if state is not home
        )

    def source_of(self, feature: Feature) -> str:
        """Return where the data of a feature is from: a store, or ``journal``, ``default``, ``request``, ``none``."""
        if feature.name == CSRF_FEATURE:
            return "request"
        return self.exceptions.get(feature.name) or self.of(feature.category).source

    @property
    def shadow(self) -> bool:
        """Return whether the data is that of the anonymous shadow: the session itself is dead."""
        return self.verdict is Verdict.DEAD
