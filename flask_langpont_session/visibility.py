"""What a request may see of a category: data of the store that answered, or what the table gives instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from functools import partial

from .categories import AUTH, Feature, Priority
from .config import Settings
from .cookies import SIGNED_IN
from .policy import LEVELS, Behaviour
from .records import NO_FIELDS, Gap, Loaded, apply_change, apply_writes
from .serializer import encode
from .stores.base import CategoryChange, CategoryCopy, Fields, SharedCopy, StoreError
from .stores.journal import Journal, Overlay
from .stores.local import LocalCopies
from .stores.redis_records import Answer, Change

_AS_DEFAULT = frozenset({Behaviour.DEFAULT_VALUE, Behaviour.DISABLE_FEATURE})
_NOTHING: tuple[Set[str], Set[str]] = (frozenset(), frozenset())


class Visibility:
    """The decision table applied to data, and the local copies it needs."""

    def __init__(self, settings: Settings, local: LocalCopies, journal: Journal) -> None:
        self.table = settings.table
        self._journal = journal
        self._settings = settings
        self._local = local
        self._defaults = {key: encode(key, value) for key, value in settings.defaults.items()}
        self.kept_locally = frozenset(f.category for f in self.table.features.values() if self._is_kept_locally(f))

    def behaviour(self, feature: Feature, kind: str, level: int) -> Behaviour:
        """What a feature gets. Auth keys of an anonymous session have no SQL row: they count as high."""
        anonymous_auth = feature.category == AUTH and kind != SIGNED_IN
        return self._settings.behaviour(Priority.HIGH if anonymous_auth else feature.priority, level)

    def _is_kept_locally(self, feature: Feature) -> bool:
        behaviours = {self.behaviour(feature, kind, level) for kind in ("a", SIGNED_IN) for level in LEVELS}
        return Behaviour.LOCAL_CACHE_FALLBACK in behaviours

    def show_answer(
        self,
        loaded: Loaded,
        name: str,
        digest: str,
        answer: Answer,
        *,
        source: str,
        remember: bool,
        level: int,
        kind: str,
        overlay: Overlay | None,
    ) -> None:
        """Put into `loaded` what Redis answered for one category.

        :param remember: the answer is the primary's, and worth a local copy.
        :param overlay: what the journal knows beyond it; None: nothing.
        """
        answered = answer.categories[name]
        version = answered.version or answer.now_ms * 1000
        if remember and name in self.kept_locally:
            held = self._local.category(digest, name)
            if answered.version:
                is_news = self._local.put_category(digest, name, answered, is_truth=True)
            else:
                is_news = self._local.put_absent(digest, name, version) and held is not None
            if is_news:
                self._note_version(digest, name, version)
        loaded.versions[name] = version
        loaded.sources[name] = source
        loaded.fields[name] = answered.fields
        if level or overlay:
            loaded.beneath[name] = answered.fields
            counted = answer.additions.get(name, b"")
            self._lay_over(loaded, name, dict(answered.fields), level, kind, overlay, answered=True, counted=counted)

    def show_without_answer(
        self, loaded: Loaded, name: str, digest: str, *, level: int, kind: str, overlay: Overlay | None
    ) -> None:
        """No Redis answered: the newer of this worker's copy and the host's, as far as the table allows."""
        copy = _newer(self._local.category(digest, name), overlay.copies.get(name) if overlay else None)
        if copy and self._is_outdated(digest, name, copy.version):
            copy = None  # a worker of this host has seen more, and has not said yet what
        loaded.versions[name] = copy.version if copy else 0
        loaded.sources[name] = "local"
        loaded.beneath[name] = copy.fields if copy else NO_FIELDS
        shown = {
            key: value
            for key, value in (copy.fields if copy else NO_FIELDS).items()
            if key in self.table
            and self.behaviour(self.table.feature_of(key), kind, level) is Behaviour.LOCAL_CACHE_FALLBACK
        }
        self._lay_over(loaded, name, shown, level, kind, overlay, answered=False, is_known=copy is not None)

    def _lay_over(
        self,
        loaded: Loaded,
        name: str,
        shown: dict[str, bytes],
        level: int,
        kind: str,
        overlay: Overlay | None,
        *,
        answered: bool,
        is_known: bool = True,
        counted: bytes = b"",
    ) -> None:
        """What waits in the journal, over what is shown; what the table gives instead; and what is not known.

        :param counted: ids of additions that are part of it already.
        """
        defaulting = {
            feature.name
            for feature in self.table.features_in(name)
            if self.behaviour(feature, kind, level) in _AS_DEFAULT
        }
        if not answered:
            loaded.exceptions.update(dict.fromkeys(defaulting, "default"))
        is_wiped = overlay is not None and name in overlay.wiped
        if is_wiped:
            shown.clear()
        kept, guesses = self._journalled(loaded, name, shown, overlay, answered, counted) if overlay else _NOTHING
        hidden = frozenset() if answered else defaulting
        if (guesses or hidden or not is_known) and not is_wiped:
            loaded.gaps[name] = Gap(not is_known, hidden, kept, guesses)
        else:
            loaded.gaps.pop(name, None)
        for key, value in self._defaults.items():
            feature = self.table.feature_of(key)
            if feature.category == name and feature.name in defaulting and key not in shown:
                shown[key] = value
                loaded.defaulted.add(key)
        loaded.fields[name] = shown

    def _journalled(
        self, loaded: Loaded, name: str, shown: dict[str, bytes], overlay: Overlay, answered: bool, counted: bytes
    ) -> tuple[Set[str], Set[str]]:
        """Lay what waits of a category over what is shown. Which keys it is certain of, and which it only guesses."""
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
        versions: Mapping[str, Change],
    ) -> None:
        """Keep the local copies as new as this worker's own writes.

        :param versions: category → its versions before and after the write.
        """
        for name in changes.keys() & self.kept_locally:
            change, (before, after) = changes[name], versions[name]
            self._note_version(digest, name, after)
            if change.wipe or not before:  # nothing was there, or is left
                self._local.put_category(digest, name, CategoryCopy(after, apply_change({}, change)))
            elif loaded is not None and name in loaded.fields and loaded.versions.get(name) == before:
                # What the journal lays over it is still to be merged: kept as part of the copy it would be laid twice.
                fields: Fields = apply_change(loaded.beneath.get(name, loaded.fields[name]), change)
                self._local.put_category(digest, name, CategoryCopy(after, fields))
            else:
                self._local.patch_category(digest, name, partial(_changed, change), before, after)

    def _note_version(self, digest: str, name: str, version: int) -> None:
        with suppress(StoreError):  # that the journal cannot be used is said where something has to be kept in it
            self._journal.note_version(digest, name, version)

    def _is_outdated(self, digest: str, name: str, version: int) -> bool:
        with suppress(StoreError):
            return self._journal.is_outdated(digest, name, version)
        return False

    def copies(self, digest: str, names: Iterable[str]) -> list[SharedCopy]:
        """What this worker has just written of a session's categories."""
        found = ((name, self._local.category(digest, name)) for name in names)
        return [SharedCopy(digest, name, copy) for name, copy in found if copy]


def _changed(change: CategoryChange, fields: Fields) -> Fields:
    return apply_change(fields, change)


def _newer(mine: CategoryCopy | None, hosts: CategoryCopy | None) -> CategoryCopy | None:
    """The host's copies are there so that its workers agree: on equal versions they win."""
    if mine and hosts:
        return mine if mine.version > hosts.version else hosts
    return mine or hosts
