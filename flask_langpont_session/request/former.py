"""Keys that lie in another category than that of their feature, because the table was another when they were stored.

Such a key follows the rules of its feature wherever it lies, and moves when it is written: what is written to the
category of its feature takes it away from where it was, in the same script. So it lies in two places only where that
could not be known, or where a worker with another table wrote it: then the later value counts. Users and rights are
never taken from elsewhere, and no other key of ``auth`` is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..policy.categories import AUTH, CategoryTable
from ..policy.copies import RecordRef, written_at
from ..policy.health import PRIMARY, WRITE
from ..policy.leases import Life
from ..policy.loaded import CategoryState, Former, Loaded
from ..stores.host.entries import NOTHING, Overlay
from ..support.caches import Recent
from .scope import LOAD, RequestScope

if TYPE_CHECKING:
    from .repository import SessionRepository

_PROLONG_EVERY = 3600.0
"""Seconds: after that it is looked again how long such a key lives."""

_MOST_PROLONGED = 4096


class FormerPlaces:
    """Finds keys that lie in another category than their feature's, in what a request has loaded."""

    def __init__(self, repository: SessionRepository) -> None:
        self._backend = repository.backend
        self._prolonged: Recent[RecordRef, float] = Recent(_MOST_PROLONGED)

    def note(self, loaded: Loaded, overlay: Overlay) -> None:
        """Note where such keys lie. Categories that are loaded on demand say nothing before they are loaded.

        :param overlay: what the journal has laid over it.
        """
        former = former_in(self._backend.settings.table, loaded.categories, loaded.defaulted, overlay)
        loaded.former = former
        if former and loaded.defaulted:
            loaded.defaulted -= {key for key, at in former.items() if at.counts}

    def prolong(self, loaded: Loaded, ref: RecordRef, scope: RequestScope, life: Life) -> None:
        """Extend the life of categories in which keys of a longer-lived category lie. Every write that knows of such a
        key does so as well, so that this is seldom needed."""
        if not loaded.former or scope.level or not scope.can(PRIMARY, WRITE):
            return
        due, now = self._prolonged.get(ref), self._backend.clock()
        lives = self._backend.lives_of_former(loaded.former, ref.kind, life)
        if lives and (due is None or now >= due):
            self._prolonged.put(ref, now + _PROLONG_EVERY, 1)
            scope.attempt(LOAD, self._backend.primary.read, ref, lives)


def former_in(
    table: CategoryTable,
    categories: Mapping[str, CategoryState],
    defaulted: Collection[str] = (),
    overlay: Overlay = NOTHING,
) -> Mapping[str, Former] | None:
    """Return key → where it lies, for keys that lie elsewhere; None: there are none.

    :param defaulted: keys that show a configured default, which is no data.
    """
    at_home = table.at_home
    for name, state in categories.items():
        if not at_home[name].issuperset(state.shown):
            break
    else:
        return None  # as nearly always: this is done at each read
    found: dict[str, Former] = {}
    for name, state in categories.items():
        for key in table.strays_in(name, state.shown):
            home = table.feature_of(key).category
            there = categories.get(home)
            if there is not None:
                is_there = key in there.shown and key not in defaulted
                counts = home != AUTH and not (is_there and _is_later_at(home, name, key, categories, overlay))
                found[key] = Former(name, counts)
    return found or None


def _is_later_at(home: str, former: str, key: str, categories: Mapping[str, CategoryState], overlay: Overlay) -> bool:
    """Return whether the value of a key in the category of its feature was written as late as the one where it was."""
    if former == AUTH:  # a row, which only the writers of other tables change for such a key
        return True
    waits_at_home = key in overlay.writes.get(home, ())
    if waits_at_home != (key in overlay.writes.get(former, ())):
        return waits_at_home
    return _written_at(categories[home], key) >= _written_at(categories[former], key)


def _written_at(state: CategoryState, key: str) -> int:
    return written_at(state.copy.mark, key) if state.copy.mark else state.copy.version
