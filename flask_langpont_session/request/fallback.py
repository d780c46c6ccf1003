"""The data of a category that a request may see: that of the store that answered, or what the table gives instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, NamedTuple

from ..policy.belief import LOCAL
from ..policy.categories import AUTH, Feature, Priority
from ..policy.changes import CategoryChange, apply_writes
from ..policy.copies import NOT_THERE, CategoryCopy, RecordRef, SharedCopy, written_at
from ..policy.health import PRIMARY
from ..policy.ids import SIGNED_IN
from ..policy.levels import AS_COPY, AS_DEFAULT, LEVELS, Behaviour
from ..policy.loaded import CategoryState, Gap, Loaded
from ..policy.serializer import encode
from ..stores.host.entries import NOTHING, Overlay
from ..stores.host.register import Register
from ..stores.memory.memory import Memory
from ..stores.redis.records import Answer, Lack, Written, empty_as_of

if TYPE_CHECKING:
    from ..config.settings import Settings


class Showing(NamedTuple):
    """A session that is about to be shown to a request.

    :param loaded: where it is put.
    :param level: of the outage, as the request has met it.
    :param overlay: what the journal knows of it beyond the stores.
    """

    loaded: Loaded
    ref: RecordRef
    level: int
    overlay: Overlay


class Fallback:
    """The decision table applied to data, and the local copies it needs."""

    def __init__(self, settings: Settings, memory: Memory, register: Register) -> None:
        self.table = settings.table
        self._register = register
        self._settings = settings
        self._memory = memory
        self._defaults = {key: encode(key, value) for key, value in settings.defaults.items()}
        self.kept_locally = frozenset(f.category for f in self.table.features.values() if self._is_kept_locally(f))

    def behaviour(self, feature: Feature, kind: str, level: int) -> Behaviour:
        """Return what a feature gets. Auth keys of an anonymous session have no SQL row: they count as high."""
        anonymous_auth = feature.category == AUTH and kind != SIGNED_IN
        return self._settings.behaviour(Priority.HIGH if anonymous_auth else feature.priority, level)

    def _is_kept_locally(self, feature: Feature) -> bool:
        return any(self.behaviour(feature, kind, level) in AS_COPY for kind in ("a", SIGNED_IN) for level in LEVELS)

    def show_answer(self, to: Showing, name: str, answer: Answer) -> None:
        """Show what Redis answered for one category, and keep a local copy of what the primary said."""
        (loaded, ref, level, overlay), lack = to, answer.lack
        there = self._unless_wiped(ref, name, answer.records[name]) if lack else answer.records[name]
        seen = there if there.version else there._replace(version=empty_as_of(answer.now_ms))
        is_carried, is_kept = name in overlay.carried, name in self.kept_locally
        if lack is not None and not is_carried and is_kept:
            held = self._held(ref, name, lack, overlay)
            if not self._is_whole(ref, name, there, held, lack):
                self._lay_over(to, name, *self._with_copy(ref, name, there, held))
                return
        if answer.source == PRIMARY and not (ref.shadow or is_carried) and is_kept:
            self._remember(ref, name, seen, answer.asked_at, is_there=bool(there.version))
        if not level and overlay is NOTHING:
            loaded.categories[name] = CategoryState.of(seen, answer.source)
            return
        brought, known = overlay.copies.get(name) if is_carried else None, None
        if brought is not None:
            together, additions = {**brought.fields, **seen.fields}, brought.additions + seen.additions
            seen = CategoryCopy(brought.version or seen.version, together, additions=additions)
        elif is_carried:  # what is there stays; what is not may be brought from the former id yet
            known = seen.fields.keys()
        self._lay_over(to, name, CategoryState.of(seen, answer.source), known)

    def _unless_wiped(self, ref: RecordRef, name: str, there: CategoryCopy) -> CategoryCopy:
        """Return what a Redis that may have lost data has of a category; nothing, if this host has wiped that."""
        return NOT_THERE if self._register.is_wiped_since(ref.digest, name, there.version) else there

    def _remember(self, ref: RecordRef, name: str, seen: CategoryCopy, asked_at: float, *, is_there: bool) -> None:
        if is_there:
            is_news = self._memory.put_category(ref.digest, name, seen, kind=ref.kind, as_of=asked_at)
        else:
            is_news = self._memory.put_absent(ref.digest, name, seen.version, asked_at)
        if is_news:
            self._register.note_version(ref.digest, name, seen.version)

    def _held(self, ref: RecordRef, name: str, lack: Lack, overlay: Overlay) -> CategoryCopy | None:
        """Return this host's copy of a category that Redis may have lost; None: the host does not know."""
        digest = ref.digest
        held = _newest(self._memory.category(digest, name, before_loss=True), overlay.copies.get(name))
        if held is None or self._register.is_outdated(digest, name, held.version) or not overlay.is_known:
            return None
        # That nothing is there was said after the loss, perhaps, of what another worker has seen before it.
        is_doubtful = not held.fields and held.version > lack.well_until_us
        return None if is_doubtful and self._register.is_outdated(digest, name, 0) else held

    def _is_whole(self, ref: RecordRef, name: str, there: CategoryCopy, held: CategoryCopy | None, lack: Lack) -> bool:
        """Return whether Redis has all that this host knows of a category, though it may have lost data."""
        if not there.version or there.began > lack.well_until_us:
            return False
        as_of = there.given_back if is_given_back_since(there, held) else there.version
        return (held is None or held.version <= as_of) and not self.has_seen_more(ref.digest, name, there, as_of)

    def _with_copy(
        self, ref: RecordRef, name: str, there: CategoryCopy, held: CategoryCopy | None
    ) -> tuple[CategoryState, Set[str] | None]:
        """Return the host's copy of a category, and over it what was written since the loss. And the only keys that are
        known: another worker may have one that is in neither; None: all are known."""
        if held is None:
            as_of = there.given_back or there.version
            is_as_new = as_of and not self.has_seen_more(ref.digest, name, there, as_of)
            return CategoryState.of(there, LOCAL), there.fields.keys() if is_as_new else frozenset()
        if there.version > held.version:
            # What Redis was given back of it may be older.
            later = {key for key in there.fields if written_at(there.mark, key) > held.version}
            together = {**held.fields, **{key: there.fields[key] for key in later}}
            held = CategoryCopy(there.version, together, additions=held.additions + there.additions)
        return CategoryState.of(held, LOCAL), None

    def show_without_answer(self, to: Showing, name: str) -> None:
        """Show the newer of this worker's copy and the host's, as far as the table allows: no Redis answered."""
        digest, overlay = to.ref.digest, to.overlay
        known = _newest(self._memory.category(digest, name), overlay.copies.get(name))
        if known and (self._register.is_outdated(digest, name, known.version) or not overlay.is_known):
            known = None  # a worker of this host has seen more, and has not said yet what
        copy = known or NOT_THERE
        shown = {
            key: value
            for key, value in copy.fields.items()
            if key in self.table and self.behaviour(self.table.feature_of(key), to.ref.kind, to.level) in AS_COPY
        }
        found = CategoryState(shown, copy, LOCAL)
        self._lay_over(to, name, found, None if known else frozenset(), answered=False)

    def _lay_over(
        self, to: Showing, name: str, found: CategoryState, known: Set[str] | None = None, *, answered: bool = True
    ) -> None:
        """Lay over the data what waits in the journal, and what the table gives instead; note what is not known.

        :param known: the only keys that are known; None: all are.
        """
        loaded, ref, level, overlay = to
        defaulting = {
            feature.name
            for feature in self.table.features_in(name)
            if self.behaviour(feature, ref.kind, level) in AS_DEFAULT
        }
        if not answered:
            loaded.exceptions.update(dict.fromkeys(defaulting, "default"))
        is_known = known is None and overlay.is_known
        may_be_brought = known is not None and answered and name in overlay.carried
        if name in overlay.wiped:
            # Nothing is made of what is beneath it. It may have been merged by the time at which Redis was asked: then
            # what Redis has at this version is not nothing.
            found = CategoryState(source=found.source, is_wiped=True)
        shown = dict(found.shown)
        kept, guesses = self._journalled(loaded, name, shown, found.copy.additions, overlay, answered)
        hidden = frozenset() if answered else defaulting
        is_whole = not may_be_brought and (found.is_wiped or (is_known and not (guesses or hidden)))
        gap = None if is_whole else Gap(not is_known, hidden, kept | (known or frozenset()), guesses)
        for key, value in self._defaults.items():
            feature = self.table.feature_of(key)
            if feature.category == name and feature.name in defaulting and key not in shown:
                shown[key] = value
                loaded.defaulted.add(key)
        loaded.categories[name] = found._replace(shown=shown, gap=gap)

    def _journalled(
        self, loaded: Loaded, name: str, shown: dict[str, bytes], counted: bytes, overlay: Overlay, answered: bool
    ) -> tuple[Set[str], Set[str]]:
        """Lay over the data what waits of a category. Return the keys that are certain by that, and the guesses.

        :param counted: the additions that are part of it. An answer or copy may be younger than the overlay, and have
            one that waited then.
        """
        guesses = overlay.guesses.get(name, frozenset())
        if answered:  # what is there is known now
            guesses = guesses - shown.keys()
        writes = {
            key: value
            for key, value in overlay.writes.get(name, {}).items()
            if key in guesses or key not in overlay.guesses.get(name, ())
        }
        deltas = {
            key: sum(by for token, by in additions if token.encode() not in counted)
            for key, additions in overlay.deltas.get(name, {}).items()
        }
        apply_writes(shown, writes, deltas)
        journalled = {self.table.feature_of(key).name for key in (*writes, *deltas) if key in self.table}
        loaded.exceptions.update(dict.fromkeys(journalled, "journal"))
        return writes.keys() - guesses, guesses

    def remember_write(
        self,
        digest: str,
        loaded: Loaded | None,
        changes: Mapping[str, CategoryChange],
        written: Written,
        kind: str,
    ) -> None:
        """Keep the local copies as new as this worker's own writes, and have no worker of this host go by what it had
        before.

        :param kind: of the session.
        """
        for name, change in changes.items():
            version = written.versions[name]
            if change.wipe:
                self._register.note_wipe(digest, name, version.after)
            if name not in self.kept_locally:
                continue
            self._register.note_version(digest, name, version.after)
            if written.is_held:
                continue
            if not (change.wipe or version.before):
                # This worker may know of something, which Redis has lost then. Just before the write, which would count
                # as a part of it otherwise.
                self._memory.put_absent(digest, name, version.after - 1)
            # What the journal lays over it is still to be merged: kept as part of the copy it would be laid twice.
            found = None if loaded is None else loaded.of(name).copy
            self._memory.write(digest, name, change, version, kind=kind, found=found)

    def has_seen_more(self, digest: str, name: str, there: CategoryCopy, as_of: int) -> bool:
        """Return whether a worker of this host has seen a later version of a category than the one as of which Redis
        has it: before Redis had that, or since."""
        if self._register.is_outdated(digest, name, there.version):
            return True
        # To the millisecond, and by another worker.
        was_taken_for_all = self._register.is_outdated(digest, name, there.version - 1000)
        return not was_taken_for_all and self._register.is_outdated(digest, name, as_of)

    def copies(self, digest: str, names: Iterable[str]) -> list[SharedCopy]:
        """Return copies of what this worker has just written of a session's categories."""
        entry = self._memory.entry(digest)
        written = [copy for copy in entry.copies() if copy[0] in names] if entry else []
        return [SharedCopy(digest, name, record, 0.0, held.kind) for name, record, held in written]


def is_given_back_since(there: CategoryCopy, held: CategoryCopy | None) -> bool:
    """Return whether Redis was given a category back after this worker has seen it last, as far as is known: it may
    know less than its version says, because the copy was an older one."""
    return bool(there.given_back) and (held is None or held.given_back != there.given_back)


def _newest(*copies: CategoryCopy | None) -> CategoryCopy | None:
    return max((copy for copy in copies if copy), key=lambda copy: copy.version, default=None)
