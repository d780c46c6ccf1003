"""Reads ``CATEGORIES``, ``FEATURES`` and ``DURABLE_KEYS`` into a :class:`CategoryTable`.

``FEATURES`` and ``DURABLE_KEYS`` are laid over ``CATEGORIES`` and win. Keys of users and of rights without a feature
belong to auth, whatever feature takes the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, NamedTuple

from ..policy.categories import AUTH, DURABLE_FEATURE, Category, CategoryTable, Feature, Priority
from ..policy.presets import USUAL_PRIORITIES

IDENTITY_FEATURE = "identity_keys"
"""The feature of auth for keys of users and rights without another feature."""

LONGEST_LIFE = 315_360_000
"""Seconds: ten years. More is a mistake, and much more is an error of the server at every write."""

_FEATURE_FORM = "{'keys': [keys], 'category': name, 'priority': name}"
"""The form of an entry of FEATURES; the priority may be left out."""

_OTHERS = tuple(priority for priority in Priority if priority is not Priority.CRITICAL)
"""The priorities of features outside of auth: only auth has a row in the database, which `critical` needs."""


class Built(NamedTuple):
    """The table as it was read.

    :param problems: one sentence for every mistake. The table is only usable when there is none.
    :param is_whole: whether nothing had to be left out of the table because it could not be read.
    """

    table: CategoryTable
    problems: list[str]
    is_whole: bool


def build_table(
    categories: Mapping[Any, Any],
    priorities: Mapping[Any, Any],
    *,
    added: Mapping[Any, Any] | None = None,
    durable: Iterable[str] = (),
    identity: Iterable[str] = (),
) -> Built:
    """Read the configured tables.

    :param categories: category → ``{"ttl": seconds or None, "on_demand": bool, "features": {name: [keys]}}``.
    :param priorities: feature → priority, for entries of FEATURES with nothing but a priority.
    :param added: feature → ``{"keys": [keys], "category": name, "priority": name}``; the priority may be left out.
    :param durable: keys that are to be in auth, without being a user or a right.
    :param identity: the keys of users and rights.
    """
    builder = _Builder(priorities)
    for name, spec in categories.items():
        builder.add_category(name, spec)
    if AUTH not in categories:
        builder.leave_out(f"CATEGORIES: there must be a category {AUTH!r}, the one that is mirrored to SQL")
    builder.begin_layer()
    for name, spec in (added or {}).items():
        builder.add_feature(name, spec)
    builder.add_to_auth("DURABLE_KEYS", DURABLE_FEATURE, durable)
    unclaimed = [key for key in identity if builder.table().is_unclaimed(key.strip("*"))]
    builder.add_to_auth("CATEGORIES", IDENTITY_FEATURE, unclaimed)
    return builder.built()


def names_problem(value: object) -> str | None:
    """Return the reason why a value is no list of names; None: the value is a list of names."""
    if not isinstance(value, (list, tuple, set, frozenset)):
        return f"a list of names, not {type(value).__name__}"
    return None if all(isinstance(item, str) and item for item in value) else "every entry must be a non-empty string"


class _Builder:
    """The table as far as it has been read, and its problems."""

    def __init__(self, priorities: Mapping[Any, Any]) -> None:
        self._priorities = priorities
        self._categories: dict[str, Category] = {}
        self._features: dict[str, Feature] = {}
        self._claims: dict[str, str] = {}  # key → feature, in this layer
        self._beneath: dict[str, str] = {}  # key → feature, in the layer beneath
        self._problems: list[str] = []
        self._is_whole = True

    def table(self) -> CategoryTable:
        """Return the table as far as it has been read."""
        return CategoryTable(self._categories, self._features)

    def built(self) -> Built:
        """Return the table with all problems found."""
        unknown = sorted(self._priorities.keys() - self._features.keys(), key=str) if self._is_whole else []
        self._problems += [
            f"FEATURES[{name!r}]: no category has this feature{self._close_to(name)}; write {_FEATURE_FORM}"
            for name in unknown
        ]
        return Built(self.table(), self._problems, self._is_whole)

    def leave_out(self, problem: str) -> None:
        """Note a problem that leaves a part of the table out."""
        self._problems.append(problem)
        self._is_whole = False

    def begin_layer(self) -> None:
        """Begin a layer: its claims win over the claims of the features so far."""
        self._beneath, self._claims = self._claims, {}

    def add_category(self, name: Any, spec: Any) -> None:
        """Add an entry of CATEGORIES."""
        at = f"CATEGORIES[{name!r}]"
        if not isinstance(name, str) or not name.isidentifier():
            self._problems.append(
                f"CATEGORIES: {name!r} cannot be part of a Redis key; use letters, digits and _, no digit first"
            )
        if not isinstance(spec, Mapping) or not isinstance(spec.get("features", {}), Mapping):
            self.leave_out(f"{at}: {{'ttl': seconds or None, 'features': {{feature: [keys]}}}}")
        else:
            self._categories[name] = self._category(at, name, spec)
            for feature, keys in spec.get("features", {}).items():
                self._add("CATEGORIES", feature, name, keys)

    def _category(self, at: str, name: str, spec: Mapping[Any, Any]) -> Category:
        self._refuse_unknown(at, spec, ("ttl", "on_demand", "features"))
        ttl, on_demand = spec.get("ttl"), spec.get("on_demand", False)
        if ttl is not None and (type(ttl) is not int or not 1 <= ttl <= LONGEST_LIFE):
            self._problems.append(f"{at}['ttl']: whole seconds from 1 to {LONGEST_LIFE}, or None, not {ttl!r}")
            ttl = None
        if not isinstance(on_demand, bool):
            self._problems.append(f"{at}['on_demand']: True or False, not {on_demand!r}")
        return Category(name, ttl, bool(on_demand))

    def add_feature(self, name: Any, spec: Any) -> None:
        """Add an entry of FEATURES."""
        at = f"FEATURES[{name!r}]"
        if not isinstance(spec, Mapping):
            return self.leave_out(f"{at}: a mapping with keys and category, as in {_FEATURE_FORM}")
        if missing := [entry for entry in ("keys", "category") if entry not in spec]:
            verb = "is" if len(missing) == 1 else "are"
            return self.leave_out(f"{at}: {' and '.join(missing)} {verb} missing; write {_FEATURE_FORM}")
        self._refuse_unknown(at, spec, ("keys", "category", "priority"))
        category = spec["category"]
        if category not in list(self._categories):
            if problem := self._category_problem(category):
                return self.leave_out(f"{at}['category']: {problem}")
            self._categories[category] = Category(category, None)
        self._add("FEATURES", name, category, spec["keys"], spec.get("priority", Priority.HIGH))

    def _close_to(self, name: Any) -> str:
        close = get_close_matches(str(name), self._features, n=1)
        return f"; did you mean {close[0]!r}" if close else ""

    def _category_problem(self, name: Any) -> str | None:
        """Return the reason why a category of this name cannot be made for a feature."""
        if not isinstance(name, str) or not name.isidentifier():
            return f"{name!r} cannot be part of a Redis key; use letters, digits and _, no digit first"
        if close := get_close_matches(name, self._categories, n=1):
            return f"{name!r} is too much like {close[0]!r} to be another category; write that, or another name"
        return None

    def add_to_auth(self, setting: str, feature: str, keys: Iterable[str]) -> None:
        """Add keys that another setting puts into auth."""
        if (keys := list(keys)) and AUTH in self._categories:
            self._add(setting, feature, AUTH, keys)

    def _refuse_unknown(self, at: str, spec: Mapping[Any, Any], allowed: tuple[str, ...]) -> None:
        if unknown := sorted(spec.keys() - set(allowed), key=str):
            self._problems.append(f"{at}: unknown entries {unknown}; allowed: {', '.join(allowed)}")

    def _add(self, setting: str, name: Any, category: str, keys: Any, priority: Any = None) -> None:
        problem = names_problem(keys) if isinstance(name, str) else "the name of a feature is a str"
        if problem:
            return self.leave_out(f"{setting}: feature {name!r} of {category!r}: {problem}")
        if name in self._features:
            before = self._features[name].category
            self._problems.append(f"{setting}: feature {name!r} stands in {before!r} and {category!r}")
        for key in keys:
            self._claim(setting, key, name)
        self._features[name] = Feature(name, category, self._priority(setting, name, category, priority), tuple(keys))

    def _claim(self, setting: str, key: str, feature: str) -> None:
        if key.startswith("@") or "*" in key[1:-1] or (len(key) > 1 and key[0] == key[-1] == "*"):
            self._problems.append(
                f"{setting}: {key!r} of {feature!r}: no leading '@', and one '*' at the beginning or the end"
            )
        if self._claims.get(key, feature) != feature:
            self._problems.append(
                f"{setting}: key {key!r} is claimed by {self._claims[key]!r} and {feature!r}; leave it to one"
            )
        self._claims[key] = feature
        if owner := self._features.get(self._beneath.pop(key, "")):
            self._features[owner.name] = replace(owner, keys=tuple(k for k in owner.keys if k != key))

    def _priority(self, setting: str, feature: str, category: str, said: Any) -> Priority:
        """Return the priority of an entry of FEATURES with nothing else, or else `said`, or else the default."""
        allowed = (Priority.CRITICAL,) if category == AUTH else _OTHERS
        usual = Priority.CRITICAL if category == AUTH else USUAL_PRIORITIES.get(feature)
        value = self._priorities.get(feature, said) or usual
        if value in list(allowed):
            return Priority(value)
        if feature in self._priorities or said:
            at = f"FEATURES[{feature!r}]['priority']: {value!r}"
        else:
            at = f"{setting}: feature {feature!r} has no priority; add FEATURES = {{{feature!r}: {{'priority': name}}}}"
        self._problems.append(
            f"{at}; features of {AUTH!r} are critical, all others {', '.join(_OTHERS[:-1])} or {_OTHERS[-1]}: only "
            f"{AUTH!r} has a row in the database"
        )
        return allowed[0]
