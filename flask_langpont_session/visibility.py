"""What a request may see of a category: data of the store that answered, or what the table gives instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .categories import AUTH, Feature, Priority
from .config import Settings
from .cookies import SIGNED_IN
from .policy import LEVELS, Behaviour
from .records import NO_FIELDS, Loaded, apply_change, apply_writes
from .serializer import encode
from .stores.base import CategoryChange, CategoryCopy, Fields, SharedCopy
from .stores.journal import Overlay
from .stores.local import LocalCopies

_AS_DEFAULT = frozenset({Behaviour.DEFAULT_VALUE, Behaviour.DISABLE_FEATURE})


class Visibility:
    """The decision table applied to data, and the local copies it needs."""

    def __init__(self, settings: Settings, local: LocalCopies) -> None:
        self.table = settings.table
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
        answered: CategoryCopy,
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
        if remember and name in self.kept_locally:
            if answered.version:
                self._local.put_category(digest, name, answered, is_truth=True)
            else:
                self._local.forget_category(digest, name)
        loaded.versions[name] = answered.version
        loaded.sources[name] = source
        loaded.fields[name] = answered.fields
        if level or overlay:
            loaded.beneath[name] = answered.fields
            self._overlay(loaded, name, dict(answered.fields), level, kind, overlay, answered=True)

    def show_without_answer(
        self, loaded: Loaded, name: str, digest: str, *, level: int, kind: str, overlay: Overlay | None
    ) -> None:
        """No Redis answered: the newer of this worker's copy and the host's, as far as the table allows."""
        copy = _newer(self._local.category(digest, name), overlay.copies.get(name) if overlay else None)
        loaded.versions[name] = copy.version if copy else 0
        loaded.sources[name] = "local"
        loaded.beneath[name] = copy.fields if copy else NO_FIELDS
        shown = {
            key: value
            for key, value in (copy.fields if copy else NO_FIELDS).items()
            if key in self.table
            and self.behaviour(self.table.feature_of(key), kind, level) is Behaviour.LOCAL_CACHE_FALLBACK
        }
        self._overlay(loaded, name, shown, level, kind, overlay, answered=False)

    def _overlay(
        self,
        loaded: Loaded,
        name: str,
        shown: dict[str, bytes],
        level: int,
        kind: str,
        overlay: Overlay | None,
        *,
        answered: bool,
    ) -> None:
        defaulting = {
            feature.name
            for feature in self.table.features_in(name)
            if self.behaviour(feature, kind, level) in _AS_DEFAULT
        }
        if not answered:
            loaded.exceptions.update(dict.fromkeys(defaulting, "default"))
        if overlay:
            writes, deltas = overlay.writes.get(name, {}), overlay.deltas.get(name, {})
            apply_writes(shown, writes, deltas)
            journalled = {self.table.feature_of(key).name for key in (*writes, *deltas) if key in self.table}
            loaded.exceptions.update(dict.fromkeys(journalled, "journal"))
        for key, value in self._defaults.items():
            feature = self.table.feature_of(key)
            if feature.category == name and feature.name in defaulting and key not in shown:
                shown[key] = value
                loaded.defaulted.add(key)
        loaded.fields[name] = shown

    def remember_write(
        self, digest: str, loaded: Loaded | None, changes: Mapping[str, CategoryChange], versions: Mapping[str, int]
    ) -> None:
        """Keep the local copies as new as this worker's own writes.

        :param versions: category → version after the write.
        """
        for name in changes.keys() & self.kept_locally:
            change, version = changes[name], versions[name]
            if change.wipe or not version:
                self._local.forget_category(digest, name)
            elif version == 1:  # nothing was there
                self._local.put_category(digest, name, CategoryCopy(version, apply_change({}, change)))
            elif loaded is not None and name in loaded.fields and loaded.versions.get(name) == version - 1:
                # What the journal lays over it is still to be merged: kept as part of the copy it would be laid twice.
                fields: Fields = apply_change(loaded.beneath.get(name, loaded.fields[name]), change)
                self._local.put_category(digest, name, CategoryCopy(version, fields))
            else:
                self._local.patch_category(digest, name, change.writes, version)

    def copies(self, digest: str, names: Iterable[str]) -> list[SharedCopy]:
        """What this worker has just written of a session's categories."""
        found = ((name, self._local.category(digest, name)) for name in names)
        return [SharedCopy(digest, name, copy) for name, copy in found if copy]


def _newer(mine: CategoryCopy | None, hosts: CategoryCopy | None) -> CategoryCopy | None:
    """The host's copies are there so that its workers agree: on equal versions they win."""
    if mine and hosts:
        return mine if mine.version > hosts.version else hosts
    return mine or hosts
