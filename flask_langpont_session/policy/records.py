"""The values that travel between the session, the repository and the stores. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from .categories import AUTH, CSRF_FEATURE, Feature
from .ids import ANONYMOUS, SessionId
from .leases import Life as Life
from .values import NO_DEVICE, AuthRow, CategoryChange, CategoryCopy, Device, Fields

NO_FIELDS: Fields = {}
NO_COPY = CategoryCopy(0, NO_FIELDS)


class Verdict(StrEnum):
    """The state of a session's auth, as far as it is known."""

    ANONYMOUS = "anonymous"  # kind a: there is nothing to know
    VALID = "valid"
    DEAD = "dead"
    UNVERIFIABLE = "unverifiable"  # no store that may say so answers


class Kept(StrEnum):
    """The place where saved data is. The later, the worse."""

    DATABASE = "database"  # for good
    REDIS = "redis"  # where it belongs; as durable as that server
    JOURNAL = "journal"  # on this host's disk, until Redis takes it: see docs/guarantees.md
    NOWHERE = "nowhere"  # it ends with this request

    @classmethod
    def worst(cls, places: Iterable[Kept]) -> Kept | None:
        """Return the worst of several places; None: there are none."""
        return max(places, key=tuple(cls).index, default=None)


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
    :param version: of what was read; 0: nothing could be.
    :param source: store that answered.
    :param beneath: what was read, without what the journal and the configured defaults lay over it; None: nothing is.
    :param gap: what of it could not be read; None: all could.
    :param is_wiped: it is shown without what a wipe is to remove, which waits in the journal.
    :param mark: how the record describes itself that was read; empty: that is not known.
    """

    shown: Fields = NO_FIELDS
    version: int = 0
    source: str = "none"
    beneath: CategoryCopy | None = None
    gap: Gap | None = None
    is_wiped: bool = False
    mark: bytes = b""

    @property
    def stored(self) -> CategoryCopy:
        """Return what was read, without what is laid over it."""
        return self.beneath or CategoryCopy(self.version, self.shown)


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
        auth = CategoryState(row.payload, row.version, source) if row else CategoryState(source=source)
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


@dataclass(slots=True)
class Plan:
    """Everything that one save has to do.

    :param origin: the id whose records exist.
    :param target: the id the data is for; the same, a minted one, or None (nothing is kept).
    :param level: at which the request was when it was done with its work: what it was told holds, and is what the table
        is asked for, also where a store fails in the save itself.
    :param changes: category → what changed. For a minted target they are complete, carried data included, but for
        the categories in `carries`.
    :param ends: the origin is to be revoked.
    :param renames: the target is the origin's session under another id; it must still live. The origin's row, from
        which the carried data was read.
    :param grants: an auth change among `changes` needs the arbiter.
    :param user: the user of a sign-in, where the auth data that is stored names none.
    :param confirms: of one that `renames`: its user has just given proof of being that user.
    :param device: what is stored beside a session that begins.
    :param permanence_changed: the life of the SQL row is to be set anew.
    :param carries: categories of the origin that may not have been read as a whole: all that there is of them goes to
        the target as soon as it can be read.
    :param sent: what became of a try on the straight line, see :class:`.plain_changes.Sent`; None: there was none.
    :param kept: category → where what was to be saved of it is, as far as the save has come; what is not in it is
        nowhere.
    """

    origin: SessionId | None
    target: SessionId | None
    life: Life
    level: int
    loaded: Loaded | None = None
    changes: dict[str, CategoryChange] = field(default_factory=dict)
    ends: bool = False
    renames: AuthRow | None = None
    grants: bool = False
    user: str | None = None
    confirms: bool = False
    device: Device = NO_DEVICE
    permanence_changed: bool = False
    carries: tuple[str, ...] = ()
    kept: dict[str, Kept] = field(default_factory=dict)
    sent: Any = None
    is_new: bool = field(init=False)
    """Whether the target was minted in this request."""

    def __post_init__(self) -> None:
        self.is_new = self.target is not None and self.target is not self.origin

    def note_kept(self, names: Iterable[str], place: Kept) -> None:
        """Note where the data of some categories is. Where parts of one are in several places, the worst counts."""
        for name in names:
            self.kept[name] = Kept.worst([place, self.kept[name]]) or place if name in self.kept else place

    @property
    def leaves(self) -> bool:
        """Return whether an anonymous session gives up its id for another one. At a sign-in its data runs out."""
        if not self.is_new or self.origin is None or self.target is None:
            return False
        return self.origin.kind == self.target.kind == ANONYMOUS and not self.ends

    @property
    def is_for_shadow(self) -> bool:
        """Return whether the target is known to be dead, so that only its anonymous shadow can be written."""
        return self.loaded is not None and self.loaded.shadow and not self.is_new


class Note(NamedTuple):
    """The mark by which a session that was taken over is known, see :mod:`~flask_langpont_session.adoption.adopter`.

    :param digest: of what tells it from all others.
    :param life_ms: how long it may be of use yet, at most.
    """

    digest: str
    life_ms: int


class Saved(NamedTuple):
    """The outcome of a save.

    :param stored: something that a later request can find was written somewhere.
    :param durable: the database knows of the revocation that was part of it (True if there was none).
    :param ended: the session is over, whatever the request had read: its id is not to be sent.
    :param row: as the database has it since; None: it was not written.
    """

    stored: bool
    durable: bool = True
    ended: bool = False
    row: AuthRow | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """The outcome of logging a user out everywhere.

    :param durable: the database knows it; else this host keeps it and tells the database later.
    :param sessions: how many living sessions were ended, as far as is known: while the database does not answer, those
        that this worker knows.
    """

    durable: bool
    sessions: int


def apply_change(fields: Fields, change: CategoryChange) -> dict[str, bytes]:
    """Return the fields after a change."""
    after = dict(change.sets) if change.wipe else {**fields, **change.sets}
    if change.deletes or change.increments:
        apply_writes(after, dict.fromkeys(change.deletes), change.increments)
    return after


def difference(before: Fields, after: Fields) -> CategoryChange:
    """Return the change that turns the first fields into the second."""
    sets = {key: value for key, value in after.items() if before.get(key) != value}
    return CategoryChange(0, sets=sets, deletes=before.keys() - after.keys())


def apply_writes(fields: dict[str, bytes], writes: Mapping[str, bytes | None], deltas: Mapping[str, int]) -> None:
    """Put values (None: remove) and additions over `fields`, in place."""
    for key, value in writes.items():
        if value is None:
            fields.pop(key, None)
        else:
            fields[key] = value
    for key, by in deltas.items():
        now = fields.get(key, b"0")
        if now.lstrip(b"-").isdigit():
            fields[key] = b"%d" % (int(now) + by)
