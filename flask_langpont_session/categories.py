"""Which session key belongs where: categories, their features, and the keys each feature claims.

Pure: no I/O, no clock, no Flask. A key is claimed by its exact name or by a pattern with a trailing ``*``; the
longest claim wins. Everything here is configuration (``CATEGORIES``, ``FEATURE_PRIORITIES``): an application with
other keys replaces the table, not the code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

AUTH = "auth"
"""The category that is mirrored to SQL. Every table has one."""

CSRF_FEATURE = "csrf_protection"
"""The feature whose keys are derived from the session id instead of stored."""


class Priority(StrEnum):
    """How much an outage may take away from a feature."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Feature:
    """What a group of session keys is for.

    :param name: unique over all categories.
    :param category: name of the category the keys are stored in.
    :param priority: which row of the decision table applies.
    :param keys: exact names, or prefixes ending in ``*``.
    """

    name: str
    category: str
    priority: Priority
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Category:
    """A group of features whose data lives in one Redis hash.

    :param name: stands in the Redis key.
    :param ttl: seconds its data may lie unused; None: as long as the session lives.
    :param on_demand: loaded when one of its keys is touched, not with the others. For large data.
    """

    name: str
    ttl: int | None
    on_demand: bool = False


DEFAULT_CATEGORIES: Mapping[str, Mapping[str, Any]] = {
    "auth": {
        "ttl": None,
        "features": {
            "authentication": [
                "logged_in", "authenticated", "user_id", "username", "user_role", "account_type", "daily_limit",
                "early_access", "session_token", "_user_id", "_fresh", "_id", "identity*", "_state_*",
            ],
            "csrf_protection": ["csrf_token"],
            "session_security": ["_permanent", "session_created", "last_activity"],
        },
    },
    "translation": {
        "ttl": 1800,
        "features": {
            "translation_state": [
                "source_lang", "target_lang", "language_pair", "input_text", "partner_message", "context_info",
                "translation_context",
            ],
            "engine_selection": ["analysis_engine", "translation_engine"],
            "usage_tracking": ["usage_count", "last_usage_date"],
            "analysis_cache": ["gemini_3way_analysis", "analysis_result"],
        },
    },
    "ui": {
        "ttl": 86400,
        "features": {
            "language_preference": ["lang", "preferred_lang", "temp_lang_override"],
            "ui_settings": ["theme", "*"],
            "statistics": ["avg_rating", "bookmarked_count"],
            "temporary_data": ["_flashes", "next"],
        },
    },
}  # fmt: skip

DEFAULT_PRIORITIES: Mapping[str, str] = {
    "authentication": "critical",
    "csrf_protection": "critical",
    "session_security": "critical",
    "translation_state": "high",
    "engine_selection": "high",
    "usage_tracking": "high",
    "language_preference": "medium",
    "ui_settings": "medium",
    "statistics": "medium",
    "analysis_cache": "low",
    "temporary_data": "low",
}


class KeyPatterns:
    """A set of exact names and ``prefix*`` patterns.

    >>> "_remember_seconds" in KeyPatterns(["_remember*"])
    True
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        claimed = tuple(patterns)
        self.exact = frozenset(p for p in claimed if not p.endswith("*"))
        self.prefixes = tuple(p[:-1] for p in claimed if p.endswith("*"))

    def __contains__(self, key: str) -> bool:
        return key in self.exact or (bool(self.prefixes) and key.startswith(self.prefixes))


@dataclass(frozen=True)
class CategoryTable:
    """The whole routing of keys.

    :param categories: by name, in the order of the configuration.
    :param features: by name, in the order of the configuration.
    """

    categories: Mapping[str, Category]
    features: Mapping[str, Feature]
    _exact: Mapping[str, Feature] = field(init=False, compare=False, repr=False)
    _prefixes: tuple[tuple[str, Feature], ...] = field(init=False, compare=False, repr=False)
    loaded_together: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """Categories fetched in the one round trip of a session's first touch."""

    def __post_init__(self) -> None:
        claims = [(key, feature) for feature in self.features.values() for key in feature.keys]
        prefixes = [(key[:-1], feature) for key, feature in claims if key.endswith("*")]
        object.__setattr__(self, "_exact", {key: f for key, f in claims if not key.endswith("*")})
        object.__setattr__(self, "loaded_together", tuple(c.name for c in self.categories.values() if not c.on_demand))
        object.__setattr__(self, "_prefixes", tuple(sorted(prefixes, key=lambda claim: -len(claim[0]))))

    def feature_of(self, key: str) -> Feature:
        """The feature that claims `key`.

        :raises KeyError: no feature claims it and the table has no catch-all ``*``.
        """
        found = self._exact.get(key) or next(
            (feature for prefix, feature in self._prefixes if key.startswith(prefix)), None
        )
        if found is None:
            raise KeyError(key)
        return found

    def __contains__(self, key: str) -> bool:
        """Whether a feature claims `key`. Stored keys may have lost theirs when the table was changed."""
        return key in self._exact or any(key.startswith(prefix) for prefix, _ in self._prefixes)

    def is_catch_all(self, key: str) -> bool:
        """Whether only the bare ``*`` claims `key`: probably a key that the table forgot."""
        return key not in self._exact and not any(prefix and key.startswith(prefix) for prefix, _ in self._prefixes)

    def features_in(self, category: str) -> tuple[Feature, ...]:
        """The features of one category."""
        return tuple(f for f in self.features.values() if f.category == category)


def build_table(
    categories: Mapping[str, Mapping[str, Any]], priorities: Mapping[str, str]
) -> tuple[CategoryTable, list[str]]:
    """Read the configured tables into a :class:`CategoryTable`.

    :param categories: category → ``{"ttl": seconds or None, "on_demand": bool, "features": {name: [keys]}}``.
    :param priorities: feature → priority.
    :return: the table, and one sentence for every mistake (the table is only usable when there is none).
    """
    problems: list[str] = []
    built: dict[str, Category] = {}
    features: dict[str, Feature] = {}
    for name, spec in categories.items():
        if not isinstance(spec, Mapping) or not isinstance(spec.get("features", {}), Mapping):
            problems.append(f"CATEGORIES[{name!r}]: a mapping with ttl and features (feature → list of keys)")
            continue
        built[name] = _build_category(name, spec, problems)
        for feature, keys in spec.get("features", {}).items():
            if feature in features:
                problems.append(
                    f"CATEGORIES: feature {feature!r} stands in {features[feature].category!r} and {name!r}"
                )
            features[feature] = Feature(feature, name, _priority(feature, priorities, problems), tuple(keys))
    problems += _claim_problems(features.values())
    if AUTH not in built:
        problems.append(f"CATEGORIES: there must be a category named {AUTH!r}, the one that is mirrored to SQL")
    return CategoryTable(built, features), problems


def _build_category(name: str, spec: Mapping[str, Any], problems: list[str]) -> Category:
    unknown = set(spec) - {"ttl", "on_demand", "features"}
    if unknown:
        problems.append(f"CATEGORIES[{name!r}]: unknown entries {sorted(unknown)}; allowed: ttl, on_demand, features")
    ttl = spec.get("ttl")
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int) or ttl < 1):
        problems.append(f"CATEGORIES[{name!r}]['ttl']: seconds (a positive integer) or None, not {ttl!r}")
        ttl = None
    if not name.isidentifier():
        problems.append(f"CATEGORIES: {name!r} cannot be part of a Redis key; use letters, digits and _")
    return Category(name, ttl, bool(spec.get("on_demand", False)))


def _priority(feature: str, priorities: Mapping[str, str], problems: list[str]) -> Priority:
    allowed = ", ".join(Priority)
    value = priorities.get(feature)
    if value is None:
        problems.append(f"FEATURE_PRIORITIES: feature {feature!r} has no priority; give it one of {allowed}")
    elif value not in list(Priority):
        problems.append(f"FEATURE_PRIORITIES[{feature!r}]: {value!r} is not one of {allowed}")
    else:
        return Priority(value)
    return Priority.MEDIUM


def _claim_problems(features: Iterable[Feature]) -> list[str]:
    owners: dict[str, str] = {}
    problems = []
    for feature in features:
        for key in feature.keys:
            if key in owners and owners[key] != feature.name:
                problems.append(f"CATEGORIES: key {key!r} is claimed by {owners[key]!r} and {feature.name!r}")
            if key.startswith("@") or "*" in key[:-1]:
                problems.append(f"CATEGORIES: {key!r} of {feature.name!r}: no leading '@', and '*' only at the end")
            owners[key] = feature.name
    return problems
