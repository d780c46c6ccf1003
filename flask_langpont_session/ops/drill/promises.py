"""The promises of the table to a feature in an outage, and the comparison with what it got. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ...config.settings import Settings
from ...policy.categories import AUTH, CSRF_FEATURE, KEPT_BY_THE_PACKAGE, PERMANENT, TRANSIENT_KEYS, Feature
from ...policy.levels import AS_COPY, EFFECTS, Behaviour, Kept

MARK = "langpont_drill"
"""Stands in keys and values of a drill."""


class Promise(NamedTuple):
    """The promise to a feature.

    :param behaviour: the cell of the table.
    :param is_shown: what was stored is shown; else what DEFAULTS says, or nothing.
    :param places: where what is written may be; after the outage it is there, unless that is ``nowhere``.
    :param is_available: what ``session.available()`` says.
    """

    behaviour: Behaviour
    is_shown: bool
    places: frozenset[Kept]
    is_available: bool


def promise(settings: Settings, feature: Feature, level: int, *, has_database: bool = True) -> Promise:
    """Return the promise to a signed-in user, of whom this host has a copy.

    :param has_database: the database answers.
    """
    behaviour = settings.behaviour(feature.priority, level)
    if feature.category == AUTH:
        places = {Kept.DATABASE} if has_database else {Kept.JOURNAL}
        return Promise(behaviour, True, frozenset(places), True)
    effect = EFFECTS[behaviour]
    is_shown = level < 2 or behaviour in AS_COPY
    return Promise(behaviour, is_shown, frozenset({effect.written}), effect.is_available)


def key_of(settings: Settings, feature: Feature) -> str | None:
    """Return a key of a feature that may be given any value; None: it has none, and can only be read."""
    if feature.name == CSRF_FEATURE:
        return None
    for key in (claimed.replace("*", MARK) for claimed in feature.keys):
        is_special = key in KEPT_BY_THE_PACKAGE or key == PERMANENT or key in TRANSIENT_KEYS
        if not is_special and not settings.is_identity(key) and settings.table.feature_of(key) is feature:
            return key
    return None


def user_key_of(settings: Settings) -> str:
    """Return the key that signs a user in."""
    return next(key.replace("*", MARK) for key in settings.user_keys)


@dataclass(frozen=True)
class Seen:
    """The data and state of a feature in one request.

    :param value: of its key; None: none.
    :param source: where its data came from, see :class:`.FeatureReport`.
    """

    level: int
    value: Any
    source: str
    is_available: bool


def broken_by_reading(seen: Seen, promised: Promise, level: int, stored: Any, default: Any) -> str | None:
    """Return in which way a read is not as promised; None: it is.

    :param level: that there should be.
    :param stored: what was stored last.
    :param default: what DEFAULTS says; None: nothing.
    """
    expected = stored if promised.is_shown else default
    if seen.level != level:
        return f"level {seen.level} instead of {level}"
    if seen.value != expected:
        return f"shown is {seen.value!r} from {seen.source}, not {expected!r}"
    if seen.is_available is not promised.is_available:
        return f"available() is {seen.is_available}"
    return None


def broken_by_writing(place: Kept | None, promised: Promise) -> str | None:
    """Return in which way a write is not as promised; None: it is.

    :param place: where it is.
    """
    if place in promised.places:
        return None
    return f"what was written is in {place}, not in {' or '.join(sorted(promised.places))}"
