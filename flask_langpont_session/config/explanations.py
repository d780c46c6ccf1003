"""The decision table in words: all of it, and what it means for one session key."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache

from flask import current_app, has_app_context

from ..policy.categories import (
    AUTH,
    CSRF_FEATURE,
    DURABLE_FEATURE,
    KEPT_BY_THE_PACKAGE,
    MOST_KEYS,
    PERMANENT,
    TRANSIENT_KEYS,
    CategoryTable,
    Feature,
    Priority,
)
from ..policy.levels import LEVELS, LOSING, Behaviour
from ..policy.presets import PRESETS
from ..support.logs import fields
from .checks import PREFIX
from .settings import Settings

log = logging.getLogger(__name__)

_MOST_NOTED = 256
"""Unclaimed keys that are logged at most: an application that makes up keys must not fill memory or logs."""

_NAMES_A_USER = frozenset({"id", "uid", "email", "login", "account", "account_id", "userid", "current_user"})
_GIVES_A_RIGHT = frozenset(
    {
        *("role", "roles", "admin", "is_admin", "staff", "is_staff", "is_superuser", "superuser"),
        *("permissions", "scopes", "groups", "token"),
    }
)
"""Names that usually mean so, where no table says it. Such a key outlives a sign-out of its user elsewhere."""

WHAT_IT_GETS: Mapping[Behaviour, str] = {
    Behaviour.PRIMARY: "Redis",
    Behaviour.DATABASE_FALLBACK: "what the row in the database says",
    Behaviour.LOCAL_CACHE_FALLBACK: "this host's copy; what is written waits in its journal and is merged",
    Behaviour.DEFAULT_VALUE: "what DEFAULTS says; what is written is gone with the request",
    Behaviour.DISABLE_FEATURE: "what DEFAULTS says, and available() is False; what is written is gone with the request",
    Behaviour.EMERGENCY_MODE: "what the database said last, for GRACE",
}

AT_LEVEL_1: Mapping[Behaviour, str] = {
    Behaviour.LOCAL_CACHE_FALLBACK: "what Redis has; what is written waits in this host's journal and is merged",
    Behaviour.DEFAULT_VALUE: "what Redis has; what is written is gone with the request",
    Behaviour.DISABLE_FEATURE: "what Redis has, but available() is False; what is written is gone with the request",
}
"""The differences from :data:`WHAT_IT_GETS` while a Redis answers reads: its answer is shown."""


def what_it_gets(behaviour: Behaviour, level: int) -> str:
    """Return what a feature with a behaviour gets at a level."""
    return AT_LEVEL_1.get(behaviour, WHAT_IT_GETS[behaviour]) if level == 1 else WHAT_IT_GETS[behaviour]


LEVEL_MEANS: Mapping[int, str] = {
    0: "Redis takes reads and writes.",
    1: "Redis takes no writes; the primary or a replica answers reads. Changes wait in the journals of the hosts.",
    2: "No Redis can be used. What the hosts have copies of is shown, and the database decides about sign-ins.",
    3: "No Redis can be used, and the copies of the hosts are too old. The database decides about sign-ins.",
    4: "Neither Redis nor the database answers. What the database said last counts for GRACE.",
}


class KeyAdvice:
    """Logs once per key that the table does not name it: in debug as a warning, with the line that changes it; and in
    debug that the preset takes a key for a right by its name. An application with a list of its own knows its rights.

    :ivar note: to be called with each key that is given a value.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._is_right_by_preset = settings.privilege_keys == PRESETS[settings.preset].privilege_keys
        self._noted: set[str] = set()
        self.note: Callable[[str], None] = lru_cache(MOST_KEYS)(self._note)

    def _note(self, key: str) -> None:
        if key in self._noted or len(self._noted) >= _MOST_NOTED:
            return
        is_in_debug = has_app_context() and current_app.debug
        is_right = self._is_right_by_preset and key in self._settings.privilege_key_patterns
        if is_in_debug and is_right and not key.startswith("_"):  # with one, it is a library's
            self._noted.add(key)
            log.warning(
                "session[%r] gives a right, as the preset's PRIVILEGE_KEYS name it: only the database changes it, and "
                "without a database the request gets a 503. Set %sPRIVILEGE_KEYS to the keys that are rights",
                key,
                PREFIX,
                extra=fields("key_is_right", key=key),
            )
        if not self._settings.table.is_unclaimed(key):
            return
        self._noted.add(key)
        feature = self._settings.table.feature_of(key)
        log.log(
            logging.WARNING if is_in_debug else logging.INFO,
            "no feature names session key %r. %s%s To name it, and to change that: app.config[%r] = %s",
            key,
            identity_advice(key),
            _fate(self._settings, key),
            *_setting(self._settings, key, feature.priority),
            extra=fields("key_unclaimed", key=key, category=feature.category, priority=feature.priority.value),
        )


def identity_advice(key: str) -> str:
    """Return a sentence with a space behind it, about a key whose name looks as if it named the user or gave a right;
    else an empty text."""
    name = key.lower()
    if name in _NAMES_A_USER:
        return f"If it names the signed-in user, add it to {PREFIX}USER_KEYS: no row in the database stands behind it. "
    if name in _GIVES_A_RIGHT:
        preset = f", or set {PREFIX}PRESET to 'application'" if key in PRESETS["application"].privilege_keys else ""
        add = f"add it to {PREFIX}PRIVILEGE_KEYS{preset}"
        return f"If it gives a right, {add}: no row in the database stands behind it. "
    return ""


def _fate(settings: Settings, key: str) -> str:
    """Say what happens to an unclaimed key, in one or two sentences."""
    feature = settings.table.feature_of(key)
    at_levels: dict[bool, list[str]] = {True: [], False: []}
    for level in LEVELS:
        at_levels[settings.behaviour(feature.priority, level) not in LOSING].append(str(level))
    kept, lost = (", ".join(levels) for levels in at_levels.values())
    life = _life(settings, feature.category)
    sentence = f"It is kept in category '{feature.category}' ({life}) with priority '{feature.priority}'"
    return (
        f"{sentence}, at levels {kept}; what is written at levels {lost} is gone with its request."
        if lost
        else f"{sentence}."
    )


def _setting(settings: Settings, key: str, priority: Priority) -> tuple[str, str]:
    """Return the setting that gives a key a feature of its own with that priority, and its value."""
    feature = settings.table.feature_of(key)
    name = key if key not in settings.table.features else f"{key}_key"
    spec = {"keys": [key], "category": feature.category, "priority": priority}
    return f"{PREFIX}FEATURES", json.dumps({name: spec}, ensure_ascii=False)


def in_use(table: CategoryTable) -> list[Feature]:
    """Return the features of which this process has met a key; all, if it has met none yet."""
    used = table.features_in_use or table.features
    return [feature for name, feature in table.features.items() if name in used]


def what_users_get(settings: Settings, level: int) -> str:
    """Return what each feature gets at a level, in one sentence; features that get the same together. Only those are
    named of which this process has met a key; before it has, all."""
    by_behaviour: dict[Behaviour, list[str]] = {}
    for feature in in_use(settings.table):
        by_behaviour.setdefault(settings.behaviour(feature.priority, level), []).append(feature.name)
    if set(by_behaviour) == {Behaviour.PRIMARY}:
        return "as usual"
    return ". ".join(f"{', '.join(names)}: {what_it_gets(each, level)}" for each, names in by_behaviour.items())


def table_lines(settings: Settings) -> list[str]:
    """Return the decision table as Markdown, one line each; the docs' table is made of it. Only those features have a
    line of which this process has met a key; before it has, all."""
    heads = [f"{level} {name}" for level, name in LEVELS.items()]
    lines = [_row(["priority", *heads]), _row(["---"] * (len(heads) + 1))]
    lines += [_row([priority, *(settings.behaviour(priority, level) for level in LEVELS)]) for priority in Priority]
    lines += ["", _row(["category", "TTL", "feature", "priority", "session keys"]), _row(["---"] * 5)]
    for feature in in_use(settings.table):
        keys = f"`{' '.join(feature.keys)}`"  # a * or _ is no emphasis here
        lines.append(_row([feature.category, _life(settings, feature.category), feature.name, feature.priority, keys]))
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _life(settings: Settings, category: str) -> str:
    ttl = settings.table.categories[category].ttl
    return "session's life" if ttl is None else f"{ttl} s"


def key_lines(settings: Settings, key: str) -> list[str]:
    """Return what happens to one session key, one line each; where the table can say otherwise, a line that does."""
    if special := _special(settings, key):
        return [f"{key}: {special}"]
    feature = settings.table.feature_of(key)
    lines = [
        f"{'category':10}{feature.category}, {_life(settings, feature.category)}",
        f"{'feature':10}{feature.name}",
        f"{'priority':10}{feature.priority}",
        f"{'meaning':10}{_meaning(settings, key)}",
        f"{'lives':10}{_lives(settings, key)}",
        f"{'goes to':10}{_heirs(settings, feature)}",
    ]
    priorities = {"": feature.priority}
    if feature.category == AUTH:
        priorities = {"signed in": Priority.CRITICAL} | (
            {} if settings.is_identity(key) else {"visitor": Priority.HIGH}
        )
    for level, name in LEVELS.items():
        for whose, priority in priorities.items():
            behaviour = settings.behaviour(priority, level)
            lines.append(f"{f'level {level} {name} {whose}':30}{behaviour}: {what_it_gets(behaviour, level)}")
    if feature.category != AUTH:
        other = Priority.MEDIUM if feature.priority is Priority.HIGH else Priority.HIGH
        lines.append("to change it: {} = {}".format(*_setting(settings, key, other)))
        durable = json.dumps([key], ensure_ascii=False)
        lines.append(f"to have the database keep it for signed-in users: {PREFIX}DURABLE_KEYS = {durable}")
    return lines


def _lives(settings: Settings, key: str) -> str:
    """Return for how long a key is kept: of a user, of a visitor, without user and rights, and in a permanent
    session."""
    ttl = settings.table.categories[settings.table.feature_of(key).category].ttl
    if ttl is not None:
        return f"{_lasting(ttl)} unused, and no longer than its session"
    of_visitors = "" if settings.is_identity(key) else f", a visitor's {_lasting(settings.visitor_seconds)}"
    users = f"a user's {_lasting(settings.idle_timeout)} unused"
    return f"as long as its session: {users}{of_visitors}, a permanent one as its cookie"


def _lasting(seconds: int) -> str:
    """Return a time in its largest whole unit.

    >>> _lasting(86_400), _lasting(5400)
    ('24 h', '90 min')
    """
    unit, name = next((each for each in ((3600, "h"), (60, "min")) if seconds % each[0] == 0), (1, "s"))
    return f"{seconds // unit} {name}"


def _heirs(settings: Settings, feature: Feature) -> str:
    """Return in whose sessions of the same browser a key goes on when its own ends."""
    is_carried_out = feature.category in settings.carry_on_sign_out
    is_carried_in = feature.category in settings.carry_on_sign_in or feature.name == DURABLE_FEATURE
    return {
        (False, False): "no other session: it ends with its own",
        (False, True): "the user as whom a visitor signs in; never another user",
        (True, False): "the visitor that is left when a user signs out",
        (True, True): "the browser's next visitor and user",
    }[is_carried_out, is_carried_in]


def _special(settings: Settings, key: str) -> str | None:
    """Return a sentence about a key that is stored nowhere, or not as others; None: it is stored as others."""
    csrf = settings.table.features.get(CSRF_FEATURE)
    if key.startswith("@"):
        return "keys that begin with '@' are reserved; assigning it is an error"
    if key in TRANSIENT_KEYS:
        return "lives for one request and is never stored"
    if key == PERMANENT:
        return "stands in the cookie, as session.permanent"
    if key in KEPT_BY_THE_PACKAGE:
        return "kept by the package for signed-in sessions; an assignment is ignored"
    if csrf and key in csrf.keys:
        return "derived from the session id at every level, and stored nowhere"
    if key not in settings.table:
        return f"no feature claims it, so assigning it is an error; name it in {PREFIX}FEATURES"
    return None


def _meaning(settings: Settings, key: str) -> str:
    if key in settings.user_key_patterns:
        return "a user key: assigning it is a sign-in, removing it a sign-out; the database decides"
    if key in settings.privilege_key_patterns:
        return "a right: every change of it needs the database"
    if settings.table.feature_of(key).category == AUTH:
        return "data: a user's in the database, or in this host's journal while that is away; a visitor's in Redis"
    if not settings.table.is_unclaimed(key):
        return "data, in Redis alone"
    advice = identity_advice(key).rstrip(" .")
    return f"data, in Redis alone; no feature names it{f'. {advice}' if advice else ''}"
