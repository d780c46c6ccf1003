"""The data of a category that a request may see: that of the store that answered, or what the table gives instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from ..config.settings import Settings
from ..policy.categories import AUTH, Feature, Priority
from ..policy.changes import CategoryChange, apply_writes
from ..policy.copies import NOT_THERE, CategoryCopy, RecordRef, SharedCopy, written_at
from ..policy.health import PRIMARY
from ..policy.ids import SIGNED_IN
from ..policy.levels import AS_COPY, AS_DEFAULT, LEVELS, Behaviour
from ..policy.loaded import CategoryState, Gap, Loaded
from ..policy.serializer import encode
from ..stores.backend import Lack
from ..stores.host.entries import NOTHING, Overlay
from ..stores.host.register import Register
from ..stores.memory.memory import Memory
from ..stores.redis.records import Written, empty_as_of
from .scope import RedisReply


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

    def show_answer(self, to: Showing, name: str, reply: RedisReply) -> None:
        """Show what Redis answered for one category, and keep a local copy of what the primary said."""
        (loaded, ref, level, overlay), answer = to, reply.answer
        assert answer is not None
        there = self._unless_wiped(ref, name, answer.records[name]) if reply.lack else answer.records[name]
        seen = there if there.version else there._replace(version=empty_as_of(answer.now_ms))
        is_carried = name in overlay.carried
        if reply.lack is not None and not is_carried and name in self.kept_locally:
            held = self._held(ref, name, reply.lack, overlay)
            if not self._is_whole(ref, name, there, held, reply.lack):
                self._show_with_copy(to, name, there, held)
                return
        if reply.source == PRIMARY and not (ref.shadow or is_carried) and name in self.kept_locally:
            self._remember(ref, name, seen, reply.asked_at, is_there=bool(there.version))
        found = CategoryState.of(seen, reply.source)
        if not level and overlay is NOTHING:
            loaded.categories[name] = found
        elif is_carried:
            self._lay_over_carried(to, name, found, overlay)
        else:
            self._lay_over(to, name, found)

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

    def _show_with_copy(self, to: Showing, name: str, there: CategoryCopy, held: CategoryCopy | None) -> None:
        """Show the host's copy of a category, and over it what was written since the loss. A key that is in neither is
        unknown if another worker may have it."""
        copy = there if held is None else held
        if held is not None and there.version > held.version:
            # What Redis was given back of it may be older.
            later = {key for key in there.fields if written_at(there.mark, key) > held.version}
            together = {**held.fields, **{key: there.fields[key] for key in later}}
            copy = CategoryCopy(there.version, together, additions=held.additions + there.additions)
        found = CategoryState.of(copy, "local")
        self._lay_over(to, name, found, is_known=held is not None)
        laid = to.loaded.categories[name]
        as_of = there.given_back or there.version
        if held is None and laid.gap and as_of and not self.has_seen_more(to.ref.digest, name, there, as_of):
            to.loaded.categories[name] = laid._replace(gap=laid.gap._replace(kept=laid.gap.kept | there.fields.keys()))

    def _lay_over_carried(self, to: Showing, name: str, found: CategoryState, overlay: Overlay) -> None:
        """Lay the journal's changes over a category of which more is on its way from a former id."""
        known, copy = overlay.copies.get(name), found.copy
        if known:
            together = {**known.fields, **copy.fields}
            copy = CategoryCopy(known.version or copy.version, together, additions=known.additions + copy.additions)
            found = CategoryState.of(copy, found.source)
        self._lay_over(to, name, found)
        if known is None:
            # What is there stays; what is not may be brought from the former id yet.
            laid = to.loaded.categories[name]
            gap = laid.gap or Gap(True, frozenset())
            gap = gap._replace(whole=True, kept=gap.kept | copy.fields.keys())
            to.loaded.categories[name] = laid._replace(gap=gap)

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
        found = CategoryState(shown, copy, "local")
        self._lay_over(to, name, found, answered=False, is_known=known is not None)

    def _lay_over(
        self, to: Showing, name: str, found: CategoryState, *, answered: bool = True, is_known: bool = True
    ) -> None:
        """Lay over the data what waits in the journal, and what the table gives instead; note what is not known."""
        loaded, ref, level, overlay = to
        defaulting = {
            feature.name
            for feature in self.table.features_in(name)
            if self.behaviour(feature, ref.kind, level) in AS_DEFAULT
        }
        if not answered:
            loaded.exceptions.update(dict.fromkeys(defaulting, "default"))
        if name in overlay.wiped:
            # Nothing is made of what is beneath it. It may have been merged by the time at which Redis was asked: then
            # what Redis has at this version is not nothing.
            found = CategoryState(source=found.source, is_wiped=True)
        shown = dict(found.shown)
        counted = found.copy.additions
        kept, guesses = self._journalled(loaded, name, shown, counted, overlay, answered)
        hidden = frozenset() if answered else defaulting
        is_known = is_known and overlay.is_known
        is_whole = not (guesses or hidden) and is_known
        gap = None if is_whole or found.is_wiped else Gap(not is_known, hidden, kept, guesses)
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
