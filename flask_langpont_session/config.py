"""Every setting once: name, type, default, meaning. All mistakes are reported together, at start.

Keys carry the prefix ``LANGPONT_SESSION_`` in ``app.config``. Flask's own keys (``SECRET_KEY``,
``SESSION_COOKIE_*``, ``PERMANENT_SESSION_LIFETIME`` …) keep their meaning and are read when they are needed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from . import categories, policy
from .categories import AUTH, CategoryTable, KeyPatterns, Priority
from .exceptions import ConfigError
from .leases import LeaseTerms
from .policy import Behaviour, Row

PREFIX = "LANGPONT_SESSION_"

REDIS_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "", None})
_LOCAL_REDIS = "redis://localhost:6379/0"


def _number(low: float, high: float, kind: str) -> Callable[[str, Any], str | None]:
    def check(name: str, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            return f"{name}: {kind} from {low:g} to {high:g}, not {value!r}"
        return None

    return check


def _integer(low: int, high: int, kind: str) -> Callable[[str, Any], str | None]:
    number = _number(low, high, kind)

    def check(name: str, value: Any) -> str | None:
        return number(name, value) if isinstance(value, int) else f"{name}: {kind}, a whole number, not {value!r}"

    return check


def _names(name: str, value: Any) -> str | None:
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset)):
        return f"{name}: a list of names, not {type(value).__name__}"
    wrong = [item for item in value if not isinstance(item, str) or not item]
    return f"{name}: every entry must be a non-empty string" if wrong else None


def _mapping(name: str, value: Any) -> str | None:
    return None if isinstance(value, Mapping) else f"{name}: a mapping, not {type(value).__name__}"


def _text(name: str, value: Any) -> str | None:
    return None if isinstance(value, str) and value else f"{name}: a non-empty string, not {type(value).__name__}"


def _flag(name: str, value: Any) -> str | None:
    return None if isinstance(value, bool) else f"{name}: True or False, not {value!r}"


def _one_of(*allowed: str) -> Callable[[str, Any], str | None]:
    return lambda name, value: None if value in allowed else f"{name}: one of {', '.join(allowed)}, not {value!r}"


def _optional(check: Callable[[str, Any], str | None]) -> Callable[[str, Any], str | None]:
    return lambda name, value: None if value is None else check(name, value)


def _path(name: str, value: Any) -> str | None:
    return None if isinstance(value, (str, Path)) else f"{name}: a path or None, not {type(value).__name__}"


def _prefix(name: str, value: Any) -> str | None:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.:-]+", value):
        return f"{name}: letters, digits and _ . : - only (it is part of every Redis key), not {value!r}"
    return None


def _anything(name: str, value: Any) -> str | None:
    return None


_SECONDS = "seconds"


def _setting(default: Any, check: Callable[[str, Any], str | None]) -> Any:
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(metadata={"check": check}, **made)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one application, checked and complete.

    Every field is the setting ``LANGPONT_SESSION_<NAME>``; units stand in the comments.
    """

    redis_url: str | None = _setting(None, _optional(_text))
    replica_url: str | None = _setting(None, _optional(_text))
    redis_client: Any = _setting(None, _anything)  # a ready client object instead of the URL; fakeredis too
    replica_client: Any = _setting(None, _anything)
    redis_timeout: float = _setting(0.2, _number(0.001, 60, _SECONDS))
    redis_connect_timeout: float = _setting(0.2, _number(0.001, 60, _SECONDS))
    redis_max_connections: int = _setting(50, _integer(1, 10_000, "connections"))
    redis_pool_timeout: float = _setting(0.05, _number(0, 60, _SECONDS))
    redis_token: str | None = _setting(None, _optional(_text))
    redis_ca_file: str | None = _setting(None, _optional(_path))
    database_url: str | None = _setting(None, _optional(_text))
    database_engine: Engine | None = _setting(None, _anything)
    database_timeout: float = _setting(0.25, _number(0.001, 60, _SECONDS))
    database_concurrency: int = _setting(4, _integer(1, 1000, "calls"))
    single_host: bool = _setting(False, _flag)
    local_cache_size: int = _setting(1000, _integer(1, 10_000_000, "entries"))
    local_cache_ttl: int = _setting(1800, _integer(1, 86_400, _SECONDS))
    journal: str | Path | None = _setting("", _optional(_path))  # "": in the instance folder; None: in memory only
    categories: Mapping[str, Any] = _setting(lambda: categories.DEFAULT_CATEGORIES, _mapping)
    feature_priorities: Mapping[str, str] = _setting(dict, _mapping)
    defaults: Mapping[str, Any] = _setting(dict, _mapping)
    behaviours: Mapping[str, Mapping[int, str]] = _setting(dict, _mapping)
    user_keys: Sequence[str] = _setting(("_user_id", "user_id", "username"), _names)
    privilege_keys: Sequence[str] = _setting(
        ("user_role", "account_type", "early_access", "logged_in", "authenticated", "_fresh", "identity*"), _names
    )
    privileged_roles: Sequence[str] = _setting(("admin",), _names)
    transient_keys: Sequence[str] = _setting(("_remember*",), _names)
    idle_timeout: int = _setting(3600, _integer(1, 31_536_000, _SECONDS))
    absolute_timeout: int = _setting(43_200, _integer(1, 315_360_000, _SECONDS))
    verify_interval: float = _setting(60, _number(0, 86_400, _SECONDS))
    grace: float = _setting(300, _number(0, 3600, _SECONDS))
    carry_on_sign_in: Sequence[str] = _setting(("translation", "ui"), _names)
    carry_on_sign_out: Sequence[str] = _setting(("ui",), _names)
    cookie_resend: str = _setting("due", _one_of("due", "flask"))
    request_budget: float = _setting(0.3, _number(0.01, 60, _SECONDS))
    health_interval: float = _setting(30, _number(0.05, 3600, _SECONDS))
    failure_threshold: int = _setting(3, _integer(1, 1000, "failures"))
    slow_ms: int = _setting(100, _integer(1, 60_000, "milliseconds"))
    max_category_bytes: int = _setting(65_536, _integer(64, 16_777_216, "bytes"))
    max_fields: int = _setting(256, _integer(1, 4096, "fields"))
    max_depth: int = _setting(32, _integer(1, 128, "levels"))
    key_prefix: str = _setting("session", _prefix)
    health_url_prefix: str | None = _setting("/healthz", _optional(_text))
    health_fail_level: int | None = _setting(None, _optional(_integer(1, 4, "a level")))
    environment: str = _setting("production", _text)
    service: str = _setting("LangPont", _text)

    # What follows is made of the settings above.
    table: CategoryTable = field(init=False)
    behaviour_table: Mapping[Priority, Row] = field(init=False)
    user_key_patterns: KeyPatterns = field(init=False)
    privilege_key_patterns: KeyPatterns = field(init=False)
    transient_key_patterns: KeyPatterns = field(init=False)
    lease_terms: LeaseTerms = field(init=False)

    def behaviour(self, priority: Priority, level: int) -> Behaviour:
        """What the decision table says."""
        return self.behaviour_table[priority][level]


def load_settings(app: Flask) -> Settings:
    """Read and check the application's configuration.

    :raises ConfigError: with every mistake found.
    """
    given = app.config.get_namespace(PREFIX)
    problems: list[str] = []
    known = {f.name: f for f in dataclasses.fields(Settings) if f.init}
    for name in sorted(set(given) - set(known)):
        problems.append(f"{PREFIX}{name.upper()}: there is no such setting{_did_you_mean(name, known)}")
    values = {name: value for name, value in given.items() if name in known}
    for name, value in values.items():
        problem = known[name].metadata["check"](PREFIX + name.upper(), value)
        if problem:
            problems.append(problem)
    if problems:
        raise ConfigError(problems + _connection_problems_of(values, app))
    settings = Settings(**_with_places(values, app))
    problems += _derive(settings) + _relations(settings) + _places(settings, app)
    if problems:
        raise ConfigError(problems)
    return settings


def _did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    return f"; did you mean {PREFIX}{close[0].upper()}?" if close else ""


def _connection_problems_of(values: Mapping[str, Any], app: Flask) -> list[str]:
    """The checks of places, also when other settings are wrong: all mistakes at once."""
    usable = {n: values.get(n) for n in ("redis_url", "redis_client", "database_url", "database_engine")}
    if any(not isinstance(usable[n], (str, type(None))) for n in ("redis_url", "database_url")):
        return []
    return _places(Settings(**_with_places(usable, app)), app)


def _with_places(values: Mapping[str, Any], app: Flask) -> dict[str, Any]:
    """Fill in where the stores are, for development and tests."""
    filled = dict(values)
    casual = app.debug or app.testing
    if casual and not filled.get("redis_url") and filled.get("redis_client") is None:
        filled["redis_url"] = _LOCAL_REDIS
    local = filled.get("redis_client") is None and is_local(filled.get("redis_url"))
    if (casual or local) and not filled.get("database_url") and filled.get("database_engine") is None:
        filled["database_url"] = f"sqlite:///{Path(app.instance_path) / 'langpont_session.sqlite3'}"
    if filled.get("journal", "") == "":
        filled["journal"] = Path(app.instance_path) / "langpont_session_journal.sqlite3"
    return filled


def is_local(redis_url: str | None) -> bool:
    """Whether a Redis URL names this very host."""
    if not redis_url:
        return False
    parts = urlsplit(redis_url)
    return parts.scheme == "unix" or parts.hostname in _LOCAL_HOSTS


def _derive(settings: Settings) -> list[str]:
    priorities = dict(settings.feature_priorities)
    if settings.categories is categories.DEFAULT_CATEGORIES:
        unknown = sorted(set(priorities) - set(categories.DEFAULT_PRIORITIES))
        problems = [f"{PREFIX}FEATURE_PRIORITIES: no category has a feature {name!r}" for name in unknown]
    else:
        features = {f for spec in settings.categories.values() for f in spec.get("features", {})}
        problems = [
            f"{PREFIX}FEATURE_PRIORITIES: no category has a feature {name!r}" for name in set(priorities) - features
        ]
    table, table_problems = categories.build_table(settings.categories, {**categories.DEFAULT_PRIORITIES, **priorities})
    behaviours, behaviour_problems = policy.build_behaviours(settings.behaviours)
    derived = {
        "table": table,
        "behaviour_table": behaviours,
        "user_key_patterns": KeyPatterns(settings.user_keys),
        "privilege_key_patterns": KeyPatterns(settings.privilege_keys),
        "transient_key_patterns": KeyPatterns(settings.transient_keys),
        "lease_terms": LeaseTerms(int(settings.verify_interval * 1000), int(settings.grace * 1000)),
    }
    for name, value in derived.items():
        object.__setattr__(settings, name, value)  # fields made of fields of a frozen dataclass
    return problems + [PREFIX + problem for problem in table_problems + behaviour_problems]


def _relations(settings: Settings) -> list[str]:
    """Settings that are right alone and wrong together."""
    rules = (
        (
            settings.idle_timeout / 4 < settings.verify_interval,
            "VERIFY_INTERVAL: at most a quarter of IDLE_TIMEOUT, else a session that is only read would run out",
        ),
        (settings.idle_timeout > settings.absolute_timeout, "IDLE_TIMEOUT: at most ABSOLUTE_TIMEOUT"),
        (
            0 < settings.grace < settings.verify_interval,
            "GRACE: 0, or at least VERIFY_INTERVAL; a copy may always be as old as that",
        ),
        *(
            (
                getattr(settings, name) > settings.request_budget,
                f"{name.upper()}: {getattr(settings, name):g} s alone is more than REQUEST_BUDGET "
                f"({settings.request_budget:g} s), all that one request may wait for",
            )
            for name in ("redis_timeout", "redis_connect_timeout", "redis_pool_timeout", "database_timeout")
        ),
        (settings.redis_url and settings.redis_client is not None, "REDIS_URL and REDIS_CLIENT: give one of them"),
        (
            settings.database_url and settings.database_engine is not None,
            "DATABASE_URL and DATABASE_ENGINE: give one of them",
        ),
    )
    problems = [PREFIX + text for broken, text in rules if broken]
    return problems + _table_relations(settings)


def _table_relations(settings: Settings) -> list[str]:
    problems = []
    table = settings.table
    for key in settings.user_keys:
        if _category_of(table, key) not in (AUTH, None):
            problems.append(f"{PREFIX}USER_KEYS: {key!r} is in category {_category_of(table, key)!r}, not in 'auth'")
    for feature in table.features.values():
        critical = feature.priority is Priority.CRITICAL
        if critical != (feature.category == AUTH):
            problems.append(
                f"{PREFIX}FEATURE_PRIORITIES[{feature.name!r}]: the features of 'auth' are critical and no others can "
                f"be: only auth has a row in the database"
            )
    for name in ("carry_on_sign_in", "carry_on_sign_out"):
        for category in getattr(settings, name):
            if category not in table.categories or category == AUTH:
                problems.append(f"{PREFIX}{name.upper()}: {category!r} is not a category that can be carried over")
    return problems


def _category_of(table: CategoryTable, key: str) -> str | None:
    try:
        return table.feature_of(key.rstrip("*")).category
    except KeyError:
        return None


def _places(settings: Settings, app: Flask) -> list[str]:
    """Where the stores are: is anything missing, unreadable or dangerous?"""
    problems = []
    if not settings.redis_url and settings.redis_client is None:
        problems.append(f"{PREFIX}REDIS_URL: required outside debug and testing, for example redis://host:6379/0")
    for name in ("redis_url", "replica_url"):
        problems += _redis_url_problems(name, getattr(settings, name))
    if not settings.database_url and settings.database_engine is None:
        problems.append(
            f"{PREFIX}DATABASE_URL: required, for example postgresql+psycopg://user@host/db; it decides who is in"
        )
    return problems + _database_problems(settings, app)


def _redis_url_problems(name: str, url: str | None) -> list[str]:
    if not url:
        return []
    label = PREFIX + name.upper()
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is the check
    except ValueError:
        return [f"{label}: not a URL (is the port a number?)"]
    if parts.scheme not in REDIS_SCHEMES:
        return [f"{label}: scheme {parts.scheme!r} is not one of {', '.join(REDIS_SCHEMES)}"]
    if parts.scheme != "unix" and parts.path not in ("", "/") and not parts.path[1:].isdigit():
        return [f"{label}: the path is the number of a database, as in redis://host:6379/0"]
    if parts.scheme == "unix" and not parts.path:
        return [f"{label}: a Unix socket needs its path, as in unix:///run/valkey.sock"]
    return []


def _database_problems(settings: Settings, app: Flask) -> list[str]:
    label = f"{PREFIX}DATABASE_URL"
    if settings.database_engine is not None:
        url = settings.database_engine.url
    elif settings.database_url:
        try:
            url = make_url(settings.database_url)
            url.get_dialect().import_dbapi()
        except (ArgumentError, ValueError):
            return [f"{label}: not a database URL, for example postgresql+psycopg://user@host/db"]
        except NoSuchModuleError:
            return [f"{label}: SQLAlchemy knows no dialect {make_url(settings.database_url).drivername!r}"]
        except ImportError as error:
            return [
                f"{label}: its driver is not installed ({error.name}); pip install flask-langpont-session[postgresql]"
            ]
    else:
        return []
    if url.get_backend_name() != "sqlite":
        return []
    if not url.database or url.database == ":memory:":
        return [f"{label}: an in-memory SQLite database forgets every session and is private to one thread; use a file"]
    remote = settings.redis_client is None and settings.redis_url and not is_local(settings.redis_url)
    if remote and not settings.single_host:
        return [
            f"{label}: SQLite beside a Redis on another host: each host would decide alone who is signed in; "
            f"use a shared database, or set {PREFIX}SINGLE_HOST=True if there is only one host"
        ]
    return []
