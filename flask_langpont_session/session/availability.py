"""Behaviour, source and availability of each feature in one request: by the table, its level, and what could be
read."""

from __future__ import annotations

from ..policy.categories import Feature
from ..policy.levels import EFFECTS, Behaviour, Shown
from .values import FeatureReport
from .work import Work


def is_available(work: Work, feature: Feature) -> bool:
    """Return whether a feature can be used, see :meth:`.Session.available`."""
    effect = EFFECTS.get(_behaviour(work, feature))
    if effect is None:
        return True
    if effect.shown is Shown.DEFAULT or not effect.is_available:
        return effect.is_available
    work.stored(feature.category)
    gap = work.load().of(feature.category).gap
    return gap is None or not (gap.whole or any(work.feature_of(key) is feature for key in gap.guesses))


def explain(work: Work) -> list[FeatureReport]:
    """Return for every feature its behaviour, source and availability in this request."""
    loaded = work.load()
    return [
        FeatureReport(
            feature.name,
            feature.category,
            feature.priority,
            _behaviour(work, feature),
            loaded.source_of(feature),
            is_available(work, feature),
        )
        for feature in work.repository.table.features.values()
    ]


def _behaviour(work: Work, feature: Feature) -> Behaviour:
    return work.repository.fallback.behaviour(feature, work.kind, work.scope.level)
