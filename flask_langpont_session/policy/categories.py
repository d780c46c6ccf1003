"""The routing of session keys: categories, their features, and the keys each feature claims.

Pure: no I/O, no clock, no Flask. A key is claimed by its exact name or by a pattern with a ``*`` at its beginning or
end; the longest claim wins. Everything here is configuration, read by ``config/categories.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import lru_cache

AUTH = "auth"
"""The category that is mirrored to SQL. Every table has one."""

CSRF_FEATURE = "csrf_protection"
"""The feature whose keys are derived from the session id instead of stored."""


DURABLE_FEATURE = "durable_keys"
"""The feature of auth that ``DURABLE_KEYS`` makes."""

OAUTH_FEATURE = "oauth_tokens"
"""The feature whose keys, although rights, are taken along when a session without a user gets a user."""

PERMANENT = "_permanent"
"""The key of ``session.permanent``, kept in the cookie."""

AUTHENTICATED_AT = "_authenticated_at"
"""The key of auth for the time of a user's last sign-in or password, see :mod:`.users`. Views see no value."""

KEPT_BY_THE_PACKAGE = frozenset({"session_created", "last_activity", AUTHENTICATED_AT})
"""Read-only keys: an assignment is ignored, so that code which sets them by hand keeps working."""

MAX_FIELDS = 256
"""Keys in one category of one session."""

MOST_KEYS = 4096
"""The most keys whose feature is remembered. An application has few, unless it makes keys from data."""


class Priority(StrEnum):
    """Rank of a feature: how much an outage may take away from it."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Feature:
    """A named group of session keys in one category.

    :param name: unique over all categories.
    :param category: name of the category the keys are stored in.
    :param priority: which row of the decision table applies.
    :param keys: exact names, or patterns with a ``*`` at the beginning or end.
    """

    name: str
    category: str
    priority: Priority
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Category:
    """A group of features whose data lives in one Redis hash.

    :param name: a part of the Redis key.
    :param ttl: seconds its data may lie unused; None: as long as the session lives.
    :param on_demand: loaded when one of its keys is touched, not with the others. For large data.
    """

    name: str
    ttl: int | None
    on_demand: bool = False


class KeyPatterns:
    """A set of exact names and of patterns with a ``*`` at the beginning or end.

    >>> "_remember_seconds" in KeyPatterns(["_remember*"])
    True
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        claimed = tuple(patterns)
        self.exact = frozenset(p for p in claimed if "*" not in p)
        self.prefixes = tuple(p[:-1] for p in claimed if p.endswith("*"))
        self.suffixes = tuple(p[1:] for p in claimed if p.startswith("*") and p != "*")
        self._known = lru_cache(MOST_KEYS)(self._claims)

    def __contains__(self, key: str) -> bool:
        return self._known(key)

    def _claims(self, key: str) -> bool:
        return (
            key in self.exact
            or (bool(self.prefixes) and key.startswith(self.prefixes))
            or (bool(self.suffixes) and key.endswith(self.suffixes))
        )


TRANSIENT_KEYS = KeyPatterns(["_remember*"])
"""Keys that last for one request and are never stored: Flask-Login's word that it has to set or clear its cookie."""


@dataclass(frozen=True)
class CategoryTable:
    """The whole routing of keys.

    :param categories: by name, in the order of the configuration.
    :param features: by name, in the order of the configuration.
    """

    categories: Mapping[str, Category]
    features: Mapping[str, Feature]
    _exact: Mapping[str, Feature] = field(init=False, compare=False, repr=False)
    _patterns: tuple[tuple[str, str, Feature], ...] = field(init=False, compare=False, repr=False)
    claims_all: bool = field(init=False, compare=False, repr=False)
    """True where a feature has the catch-all ``*``."""
    loaded_together: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """Categories fetched in the one round trip of a session's first touch."""
    feature_of: Callable[[str], Feature] = field(init=False, compare=False, repr=False)
    """The feature that claims a key. KeyError: no feature claims it and the table has no catch-all ``*``."""
    features_in_use: set[str] = field(init=False, compare=False, repr=False, default_factory=set)
    """Names of the features with a key that this process has used since :meth:`forget_use`."""
    at_home: Mapping[str, set[str]] = field(init=False, compare=False, repr=False)
    """Category → keys known to be no strays there; :meth:`strays_in` adds keys."""

    def __post_init__(self) -> None:
        claims = [(key, feature) for feature in self.features.values() for key in feature.keys]
        patterns = sorted(((key, feature) for key, feature in claims if "*" in key), key=lambda claim: -len(claim[0]))
        parts = [(*key.partition("*")[::2], feature) for key, feature in patterns]
        object.__setattr__(self, "_exact", {key: f for key, f in claims if "*" not in key})
        object.__setattr__(self, "loaded_together", tuple(c.name for c in self.categories.values() if not c.on_demand))
        object.__setattr__(self, "_patterns", tuple(parts))
        object.__setattr__(self, "claims_all", any(key == "*" for key, _ in claims))
        self.forget_use()
        object.__setattr__(self, "at_home", {name: set() for name in self.categories})

    def forget_use(self) -> None:
        """Empty the features in use: so far only keys of the configuration were looked up."""
        self.features_in_use.clear()
        object.__setattr__(self, "feature_of", lru_cache(MOST_KEYS)(self._meet))

    def _meet(self, key: str) -> Feature:
        found = self._claimant_of(key)
        self.features_in_use.add(found.name)
        return found

    def _claimant_of(self, key: str) -> Feature:
        found = self._exact.get(key)
        if found is not None:
            return found
        for beginning, end, feature in self._patterns:
            if key.startswith(beginning) and key.endswith(end):
                return feature
        raise KeyError(key)

    def __contains__(self, key: str) -> bool:
        """Return whether a feature claims `key`. A stored key may have no feature, after a change of the table."""
        return self.claims_all or self._is_claimed(key, but_not="")

    def is_unclaimed(self, key: str) -> bool:
        """Return whether no feature claims `key`, except by a bare ``*``: probably a key that the table forgot."""
        return not self._is_claimed(key, but_not="*")

    def _is_claimed(self, key: str, but_not: str) -> bool:
        return key in self._exact or any(
            key.startswith(beginning) and key.endswith(end)
            for beginning, end, _ in self._patterns
            if f"{beginning}*{end}" != but_not
        )

    def strays_in(self, category: str, keys: Iterable[str]) -> Sequence[str]:
        """Return the keys stored in a category that belong to another category since a change of the table."""
        known = self.at_home.get(category)
        if known is None:  # another release has it, and its keys stay there
            return ()
        others = [key for key in keys if key not in known]
        strays = [key for key in others if self._is_stray(category, key)]
        if len(known) < MOST_KEYS:
            known.update(set(others).difference(strays))
        return strays

    def left_behind(self, category: str, keys: Iterable[str], carried: Container[str]) -> set[str]:
        """Return which keys of a category stay under the former id when the category is carried to another one.

        :param carried: categories whose keys are carried.
        """
        return {key for key in self.strays_in(category, keys) if self.feature_of(key).category not in carried}

    def _is_stray(self, category: str, key: str) -> bool:
        if key in KEPT_BY_THE_PACKAGE or key.startswith("@"):
            return False
        return key in self and self.feature_of(key).category != category

    def features_in(self, category: str) -> tuple[Feature, ...]:
        """Return the features of one category."""
        return tuple(f for f in self.features.values() if f.category == category)


class KeyKind(Enum):
    """The place of a key's value."""

    STORED = "stored"  # in a category
    TRANSIENT = "transient"  # in this request only
    PERMANENT = "permanent"  # in the cookie
    TOKEN = "token"  # nowhere: a CSRF token is derived from the session id
    KEPT = "kept"  # in what the package itself knows of the session


def kinds_of(table: CategoryTable) -> Callable[[str], KeyKind]:
    """Return a function that tells, and remembers, the kind of a key: each access to a session asks."""
    csrf = table.features.get(CSRF_FEATURE)
    tokens = frozenset(csrf.keys if csrf else ())

    @lru_cache(MOST_KEYS)
    def kind_of(key: str) -> KeyKind:
        if key in TRANSIENT_KEYS:
            return KeyKind.TRANSIENT
        if key == PERMANENT:
            return KeyKind.PERMANENT
        if key in tokens:
            return KeyKind.TOKEN
        return KeyKind.KEPT if key in KEPT_BY_THE_PACKAGE else KeyKind.STORED

    return kind_of
