"""What becomes of a key: most are kept in a category, and some are answered without one."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import lru_cache

from ..policy.categories import CSRF_FEATURE, KEPT_BY_THE_PACKAGE, MOST_KEYS, PERMANENT, CategoryTable, KeyPatterns


class KeyKind(Enum):
    """Where the value of a key is."""

    STORED = "stored"  # in a category
    TRANSIENT = "transient"  # in this request only
    PERMANENT = "permanent"  # in the cookie
    TOKEN = "token"  # nowhere: a CSRF token is derived from the session id
    KEPT = "kept"  # in what the package itself knows of the session


def kinds_of(table: CategoryTable, transient: KeyPatterns) -> Callable[[str], KeyKind]:
    """Tells the kind of a key. Remembers it, because each access to a session asks.

    :param transient: keys that last for the request only.
    """
    csrf = table.features.get(CSRF_FEATURE)
    tokens = frozenset(csrf.keys if csrf else ())

    @lru_cache(MOST_KEYS)
    def kind_of(key: str) -> KeyKind:
        if key in transient:
            return KeyKind.TRANSIENT
        if key == PERMANENT:
            return KeyKind.PERMANENT
        if key in tokens:
            return KeyKind.TOKEN
        return KeyKind.KEPT if key in KEPT_BY_THE_PACKAGE else KeyKind.STORED

    return kind_of
